//! A connection's bytes, where hyper refuses a request by itself.
//!
//! What is no request that hyper can read never comes to be one that we answer: hyper writes a bare status, says nothing more
//! and closes. Those bytes are recognised by their place, at the beginning of a message while no call is being answered, and an
//! error like all others goes out instead. Over HTTP/2, hyper resets the stream or the connection, as the protocol wants it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use uuid::Uuid;

use crate::body::Reply;
use crate::headers::REQUEST_ID;
use crate::problem::Problem;

/// How long, and how much of it, what a refused client still sends is read. Closing on it at once would lose the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Which calls of a connection are being answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<State>);

#[derive(Debug, Default)]
struct State {
    open: AtomicUsize,
    /// Whether bytes of a call's reply may still have to go out.
    unsent: AtomicBool,
}

/// A call that is being answered, until its reply has no more body.
#[derive(Debug)]
pub(crate) struct Call(Arc<State>);

impl Calls {
    pub(crate) fn begin(&self) -> Call {
        self.0.open.fetch_add(1, Ordering::SeqCst);
        self.0.unsent.store(true, Ordering::SeqCst);
        Call(Arc::clone(&self.0))
    }

    fn is_quiet(&self) -> bool {
        self.0.open.load(Ordering::SeqCst) == 0 && !self.0.unsent.load(Ordering::SeqCst)
    }

    /// All that hyper had to send is sent.
    fn flushed(&self) {
        if self.0.open.load(Ordering::SeqCst) == 0 {
            self.0.unsent.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of a reply, which ends a call.
#[derive(Debug)]
pub(crate) struct Answer<B> {
    body: B,
    _call: Call,
}

impl<B> Answer<B> {
    pub(crate) fn new(body: B, call: Call) -> Self {
        Self { body, _call: call }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    calls: Calls,
    /// What is left to send of an error in place of hyper's own.
    ours: Bytes,
    /// Set once hyper has refused a request: until when the client is listened to, and how much more.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S, calls: Calls) -> Self {
        Self { stream, calls, ours: Bytes::new(), linger: None }
    }

    fn poll_ours(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ours.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.ours))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ours.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Puts an error in the place of hyper's own, if that is what is to be sent.
    fn replace(&mut self, bytes: &[u8]) -> bool {
        let Some(status) = self.calls.is_quiet().then(|| refusal(bytes)).flatten() else { return false };
        self.ours = error(status);
        self.linger = Some((Box::pin(sleep(LINGER)), LINGER_BYTES));
        true
    }
}

/// The status of a message that begins here.
fn refusal(bytes: &[u8]) -> Option<StatusCode> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    StatusCode::from_bytes(status).ok().filter(StatusCode::is_client_error)
}

/// The whole reply, as it goes out.
fn error(status: StatusCode) -> Bytes {
    let (reason, message) = match status {
        StatusCode::URI_TOO_LONG => ("URL_TOO_LONG", "The URL is much longer than is taken."),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ("HEADERS_TOO_LARGE", "The headers are much larger, or many more, than are taken.")
        }
        _ => ("MALFORMED_REQUEST", "The request line or a header is not as HTTP wants it."),
    };
    tracing::debug!(%status, reason, "a request could not be read");
    let problem = Problem::invalid(reason, message);
    let (status, body) = (problem.http, problem.body());
    let mut reply = Reply::from(problem);
    reply.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply.headers_mut().extend(HeaderValue::from_str(&Uuid::now_v7().to_string()).map(|id| (REQUEST_ID, id)));
    let mut bytes = BytesMut::from(format!("HTTP/1.1 {status}\r\n").as_bytes());
    for (name, value) in reply.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes.freeze()
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_ours(context))?;
        match self.replace(bytes) {
            true => Poll::Ready(Ok(bytes.len())),
            false => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ours(context))?;
        match slices.iter().find(|slice| !slice.is_empty()).is_some_and(|first| self.replace(first)) {
            true => Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())),
            false => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ours(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.calls.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ours(context))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        let Self { stream, linger, .. } = &mut *self;
        let Some((until, left)) = linger else { return Poll::Ready(Ok(())) };
        let mut thrown_away = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            let is_over = until.as_mut().poll(context).is_ready();
            if is_over || ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)).is_err() {
                return Poll::Ready(Ok(()));
            }
            match left.checked_sub(buffer.filled().len()) {
                Some(less) if !buffer.filled().is_empty() => *left = less,
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

    /// What goes out for these bytes.
    async fn sent(calls: &Calls, bytes: &[u8]) -> Vec<u8> {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let mut wire = Wire::new(near, calls.clone());
        wire.write_all(bytes).await.expect("written");
        wire.flush().await.expect("flushed");
        drop(wire);
        let mut sent = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut sent).await.expect("read");
        sent
    }

    #[tokio::test]
    async fn only_what_belongs_to_no_call_is_hypers_own() {
        let calls = Calls::default();
        assert!(String::from_utf8(sent(&calls, BARE).await).expect("text").contains("MALFORMED_REQUEST"));
        let call = calls.begin();
        assert_eq!(sent(&calls, BARE).await, BARE, "a call is being answered with it");
        let later = calls.begin();
        drop(call);
        assert_eq!(sent(&calls, BARE).await, BARE, "another one is");
        drop(later);
        assert_eq!(sent(&calls, BARE).await, BARE, "its last bytes were not sent yet");
        assert_ne!(sent(&calls, BARE).await, BARE, "now they are");
        for other in [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\n\r\n", b"\0\0\x12\x04\0\0\0\0\0", b""]
        {
            assert_eq!(sent(&calls, other).await, other);
        }
    }
}
