//! A request's body while it is on loan.
//!
//! Whoever relays an upload takes it from a task of its own, and whoever answers must have it back: what is left of a refused body
//! is read on, and one whose request is given up ends as broken, never as if it were whole.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// What the rest of a refused body may cost before the connection is cut.
const DRAIN_BYTES: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// A body did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
pub(crate) struct Broken;

/// A request's body, of whoever answers.
#[derive(Debug)]
pub(crate) struct Sent(Arc<Mutex<Slot>>);

#[derive(Debug)]
struct Slot {
    body: Option<Incoming>,
    /// Whether somebody has asked for its bytes, so that a client that waited for that has begun.
    asked: bool,
    /// Whether the body itself knows that it has come to its end.
    tells_end: bool,
    /// Who waits for bytes.
    reader: Option<Waker>,
}

/// The same body, of whoever reads it.
#[derive(Debug)]
pub(crate) struct Lent(Arc<Mutex<Slot>>);

impl Sent {
    pub(crate) fn new(body: Incoming, version: Version) -> Self {
        // Of chunks over HTTP/1.1 the end is not told; hyper makes an error of any other.
        let tells_end = version >= Version::HTTP_2 || body.size_hint().exact().is_some();
        Self(Arc::new(Mutex::new(Slot { body: Some(body), asked: false, tells_end, reader: None })))
    }

    pub(crate) fn lend(&self) -> Lent {
        Lent(Arc::clone(&self.0))
    }

    /// Reads on, and throws away, what is left of a body that was refused. Many clients look at the answer only after
    /// they have sent everything; closing on them would lose it. One that still waits for "100 Continue" has sent nothing.
    pub(crate) fn discard(self, headers: &HeaderMap) {
        let (body, asked) = take_back(&self.0);
        let Some(mut body) = body else { return };
        if body.is_end_stream() || headers.contains_key(EXPECT) && !asked {
            return;
        }
        tokio::spawn(async move {
            let rest = async {
                let mut left = DRAIN_BYTES;
                while let Some(Ok(frame)) = body.frame().await {
                    let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { break };
                    left = less;
                }
            };
            let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
        });
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        take_back(&self.0);
    }
}

/// Takes the body from whoever reads it, who finds it broken; and whether its bytes were asked for.
fn take_back(slot: &Mutex<Slot>) -> (Option<Incoming>, bool) {
    let mut slot = locked(slot);
    if let Some(reader) = slot.reader.take() {
        reader.wake();
    }
    (slot.body.take(), slot.asked)
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for Lent {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut slot = locked(&self.0);
        let Slot { body, asked, tells_end, reader } = &mut *slot;
        let Some(body) = body else { return Poll::Ready(Some(Err(Broken))) };
        *asked = true;
        match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => {
                match reader {
                    Some(reader) => reader.clone_from(context.waker()),
                    None => *reader = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            // HTTP/2 has a way to break off that hyper takes for an end.
            Poll::Ready(None) if *tells_end && !body.is_end_stream() => Poll::Ready(Some(Err(Broken))),
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(|_| Broken))),
        }
    }
}
