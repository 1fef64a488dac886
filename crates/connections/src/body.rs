//! A reply's body, handed over in pieces and only as its client reads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf as _, Bytes};
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::Peer;
use crate::peer::{AtWork, Unread, Waiting};

/// Bytes handed over at once: a frame of HTTP/2, which asks for the next one when its client has room for it.
const PIECE: usize = 16 * 1024;

static NUMBER: AtomicU64 = AtomicU64::new(0);

pin_project! {
    /// The body, whose connection knows what is left of it and how long that waits.
    pub(crate) struct Paced<B> {
        #[pin]
        inner: B,
        left: Bytes,
        // Bytes of the body that are known of and not handed over.
        unread: Unread,
        watch: Watch,
        _at_work: AtWork,
    }
}

/// Tells the connection whether the body waits for its client, or the other way round.
struct Watch {
    peer: Peer,
    number: u64,
    waker: Arc<Ready>,
}

/// Wakes whoever hands the body over, who may have to wait for the client then.
struct Ready {
    peer: Peer,
    waiting: Arc<Waiting>,
    task: AtomicWaker,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.waiting.begins(&self.peer);
        self.task.wake();
    }
}

impl<B: Body<Data = Bytes>> Paced<B> {
    pub(crate) fn new(inner: B, peer: &Peer, at_work: AtWork) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let waiting = peer.watch(number);
        // It is there, and nobody has asked for it.
        waiting.begins(peer);
        let mut unread = peer.unread();
        unread.set(known(&inner));
        let waker = Arc::new(Ready { peer: peer.clone(), waiting, task: AtomicWaker::new() });
        let watch = Watch { peer: peer.clone(), number, waker };
        Self { inner, left: Bytes::new(), unread, watch, _at_work: at_work }
    }
}

fn known(body: &impl Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.peer.forget(self.number);
    }
}

impl<B: Body<Data = Bytes>> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let waiting = &this.watch.waker.waiting;
        waiting.ends();
        if this.left.is_empty() {
            this.watch.waker.task.register(context.waker());
            let waker = Waker::from(Arc::clone(&this.watch.waker));
            let frame = match this.inner.as_mut().poll_frame(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => *this.left = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let size = this.left.len().min(PIECE);
        let piece = this.left.split_to(size);
        this.unread.set(this.left.remaining() + known(&*this.inner));
        // The rest is there; whether the client takes it shows at the next call.
        waiting.begins(&this.watch.peer);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, inner) = (self.left.len() as u64, self.inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(left + inner.lower());
        if let Some(upper) = inner.upper() {
            hint.set_upper(left + upper);
        }
        hint
    }
}
