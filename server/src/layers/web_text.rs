//! grpc-web-text: requests whose body is base64, for browsers that send no binary.
//!
//! tonic-web reads it, but refuses a body whose pieces were encoded each by itself, so that padding stands in the middle, which
//! the protocol allows; and what is no base64 is an internal error to it. So a text request passes tonic-web as a binary one
//! ([`announce`] outside of it), and its body is read behind it ([`read`]). Replies stay with tonic-web.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};
use virtualstack_model::Error;

use crate::call::status;

/// Marks a request whose body is text.
#[derive(Clone, Copy)]
struct Text;

/// Lets a text request pass tonic-web as a binary one.
pub(crate) fn announce(mut request: Request<Body>) -> Request<Body> {
    let binary = match request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
        Some(b"application/grpc-web-text") => "application/grpc-web",
        Some(b"application/grpc-web-text+proto") => "application/grpc-web+proto",
        _ => return request,
    };
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(binary));
    request.extensions_mut().insert(Text);
    request
}

/// Reads the body of a text request.
pub(crate) fn read(mut request: Request<Body>) -> Request<Body> {
    match request.extensions_mut().remove::<Text>() {
        Some(Text) => request.map(|body| Body::new(Decoded { body, left: BytesMut::new() })),
        None => request,
    }
}

/// What this module has to say of a body that could not be taken.
pub(crate) fn told(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let status = error.downcast_ref::<Status>();
        if status.is_some_and(|status| status.code() == Code::InvalidArgument) {
            return Some(malformed());
        }
        cause = error.source();
    }
    None
}

/// A body, out of base64. What is left of a group of four characters waits for the rest of it, and no more.
struct Decoded {
    body: Body,
    left: BytesMut,
}

fn refused() -> Status {
    status::from_error(malformed())
}

fn malformed() -> Error {
    Error::InvalidArgument {
        reason: "MALFORMED_BASE64",
        message: "the body of application/grpc-web-text is no base64".to_owned(),
        violations: Vec::new(),
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let frame = match ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), context)) {
                Some(frame) => frame?,
                None if self.left.is_empty() => return Poll::Ready(None),
                None => {
                    self.left.clear();
                    return Poll::Ready(Some(Err(refused())));
                }
            };
            let text = match frame.into_data() {
                Ok(text) => text,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            self.left.extend_from_slice(&text);
            let whole = self.left.len() / 4 * 4;
            let groups = self.left.split_to(whole).freeze();
            match decode(groups) {
                None => return Poll::Ready(Some(Err(refused()))),
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
            }
        }
    }
}

/// Decodes whole groups of four; a group with padding ends a piece. None where it is no base64.
fn decode(mut groups: Bytes) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(groups.len() / 4 * 3);
    while !groups.is_empty() {
        let end = groups.iter().position(|byte| *byte == b'=').map_or(groups.len(), |at| at / 4 * 4 + 4);
        STANDARD.decode_vec(&groups[..end], &mut bytes).ok()?;
        groups.advance(end);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// What comes out of pieces that arrive one after the other.
    async fn out_of(pieces: &[&str]) -> Result<Vec<u8>, tonic::Code> {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece.as_bytes())))).collect();
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        let body = Decoded { body, left: BytesMut::new() };
        body.collect().await.map(|body| body.to_bytes().to_vec()).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn pieces_may_be_padded_and_cut_anywhere() {
        for pieces in [
            &["aGVsbG8gd29ybGQ="][..],
            &["aGVsbG8=", "IHdvcmxk"],
            &["aGVsbG8=IHdvcmxk"],
            &["a", "GVs", "bG8", "=IHdv", "cmxk"],
            &["aA==ZQ==bA==bA==bw==IA==dw==bw==cg==bA==ZA=="],
        ] {
            assert_eq!(out_of(pieces).await.as_deref(), Ok(&b"hello world"[..]), "{pieces:?}");
        }
        assert_eq!(out_of(&[]).await.as_deref(), Ok(&b""[..]));
    }

    #[tokio::test]
    async fn what_is_no_base64_is_the_callers_mistake() {
        for pieces in [
            &["a"][..],
            &["aGVsbG8"],
            &["aGV*bG8="],
            &["===="],
            &["a==="],
            &["aGVs", "=bG8"],
            &["aGVs\n"],
            &["\0\0\0\0\0"],
            &["aGVsbG8=I"],
        ] {
            assert_eq!(out_of(pieces).await, Err(tonic::Code::InvalidArgument), "{pieces:?}");
        }
    }
}
