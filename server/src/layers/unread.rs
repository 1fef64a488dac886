//! Replies, which are kept until their client has read them: what is kept for a member is counted.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::shares::{Part, keep};

/// A reply that is made, and what is kept for it until it is read or thrown away.
pub(crate) struct Unread {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
    _kept: Part,
}

impl Unread {
    /// The whole of a reply that is not a stream. Until somebody asks for its bytes, tonic keeps the message, which is larger.
    pub(crate) async fn of(response: Response, mut kept: Part) -> Response {
        let (head, body) = response.into_parts();
        let Ok(whole) = body.collect().await else {
            return crate::layers::reply(virtualstack_model::Error::internal("a reply could not be made"));
        };
        let trailers = whole.trailers().cloned();
        let data = whole.to_bytes();
        // It is made already: whether there is too much of it shows at the next call.
        let _ = keep(&mut kept, data.len());
        let body = Self { data: Some(data).filter(|data| !data.is_empty()), trailers, _kept: kept };
        Response::from_parts(head, Body::new(body))
    }
}

impl http_body::Body for Unread {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = self.data.take().map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Not exact: what stands outside of it may put the trailers into the body.
        let mut hint = SizeHint::new();
        hint.set_lower(self.data.as_ref().map_or(0, |data| data.len() as u64));
        hint
    }
}
