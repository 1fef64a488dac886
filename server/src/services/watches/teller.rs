//! The two ends of a stream: what its client sees, and the task that reads for it. They are joined by a channel with little room: a
//! slow client keeps its own task waiting, with no transaction open. Each read checks the access, and where none is due one comes
//! with each heartbeat. How a stream ends goes past what waits in the channel: who may not watch any more is told nothing more.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::Stream;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use virtualstack_model::iam::access::Access;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::watch::v1::WatchMessage;
use virtualstack_proto::virtualstack::watch::v1::watch_message::{Resource, Type};
use virtualstack_store::{MasterKey, Read, Store, TenantTx};

use crate::auth::tokens;
use crate::call::AnswerStream;
use crate::call::message::time;
use crate::layers::authorize::{StreamAccess, StreamCaller};
use crate::shares::Part;

/// Messages that wait for a client at most, beside the batch that its task holds.
const WAITING: usize = 16;

/// What all streams share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) master_key: MasterKey,
    /// Streams would outlast any drain, so they end when it begins.
    pub(super) stopping: CancellationToken,
    /// Reads of all watches at once, so that when many wake together, calls still find a connection.
    pub(super) readers: Arc<Semaphore>,
    pub(super) heartbeat: Duration,
}

/// The task's end of a stream: it reads as the caller, and tells the client.
pub(super) struct Teller<C> {
    pub(super) shared: Shared,
    pub(super) access: StreamAccess<C>,
    messages: mpsc::Sender<WatchMessage>,
    /// When something was last read, and the access checked.
    pub(super) read: Instant,
    /// When the client was last told something.
    pub(super) told: Instant,
}

/// What a task tells, until it is ended.
pub(super) type Telling<'t> = BoxFuture<'t, Result<Infallible>>;

impl<C: StreamCaller> Teller<C> {
    /// Begins a stream; a task tells by `tell` until the client goes away, or what becomes of its access, its credential or this
    /// server ends it.
    pub(super) fn begin<F>(shared: Shared, access: StreamAccess<C>, place: Open, tell: F) -> AnswerStream<WatchMessage>
    where
        F: for<'t> FnOnce(&'t mut Self) -> Telling<'t> + Send + 'static,
    {
        let (messages, waiting) = mpsc::channel(WAITING);
        let (end, ended) = oneshot::channel();
        let now = Instant::now();
        let teller = Self { shared, access, messages, read: now, told: now };
        tokio::spawn(teller.run(tell, end).in_current_span());
        Box::pin(Messages { waiting, ended: Some(ended), _place: place })
    }

    async fn run<F>(mut self, tell: F, end: oneshot::Sender<Error>)
    where
        F: for<'t> FnOnce(&'t mut Self) -> Telling<'t> + Send + 'static,
    {
        let (messages, stop, expires_at) =
            (self.messages.clone(), self.shared.stopping.clone(), self.access.expires_at);
        let error = tokio::select! {
            biased;
            () = messages.closed() => return,
            () = stop.cancelled() => stopping(),
            () = past(expires_at) => tokens::expired(),
            told = tell(&mut self) => match told {
                Err(error) => error,
                Ok(never) => match never {},
            },
        };
        self.access.note(&error);
        tracing::debug!(reason = error.reason(), "the watch ends");
        // The client may have gone meanwhile.
        let _ = end.send(error);
    }

    /// Reads what the caller may see at that moment: where their access turns out to have changed, it is read anew.
    pub(super) async fn read_as_caller<T, F>(&mut self, f: F) -> Result<T>
    where
        T: Send,
        F: for<'t> Fn(&'t mut TenantTx<Read>, &'t Access) -> BoxFuture<'t, Result<T>> + Send + Sync,
    {
        let _reader = self.shared.readers.acquire().await.map_err(Error::internal)?;
        loop {
            let caller = self.access.caller.clone();
            let seen = caller.access();
            let read = async |tx: &mut TenantTx<Read>| f(tx, seen).await;
            let done = self.access.read(&self.shared.store, read).await?;
            if caller.is_as_decided_for(&self.access.caller) {
                self.read = Instant::now();
                return Ok(done);
            }
        }
    }

    /// Hands a message over. While the client is slow, its access is still looked at.
    pub(super) async fn send(&mut self, message: WatchMessage) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.read + self.shared.heartbeat) => {
                    self.access.read(&self.shared.store, async |_| Ok(())).await?;
                    self.read = Instant::now();
                }
                room = self.messages.reserve() => {
                    // Nobody receives any more: the stream is gone, and this task is about to be told.
                    let Ok(room) = room else { return std::future::pending().await };
                    room.send(message);
                    self.told = Instant::now();
                    return Ok(());
                }
            }
        }
    }

    /// Waits until the client was told nothing for a heartbeat.
    pub(super) async fn silence(&self) {
        sleep_until(self.told + self.shared.heartbeat).await;
    }

    /// Whether the client was told nothing for a heartbeat.
    pub(super) fn is_silent(&self) -> bool {
        self.told.elapsed() >= self.shared.heartbeat
    }
}

pub(super) fn message(kind: Type, resource: Option<Resource>, resume_token: String, at: DateTime<Utc>) -> WatchMessage {
    WatchMessage { r#type: kind.into(), resource, resume_token, change_time: Some(time(at)) }
}

pub(super) fn stopping() -> Error {
    Error::Unavailable {
        reason: "SERVER_STOPPING",
        message: "the server is stopping; connect again and go on with the last resume token".to_owned(),
        retry_after: Duration::from_secs(1),
        source: None,
    }
}

async fn past(end: Option<DateTime<Utc>>) {
    match end {
        Some(end) => sleep((end - Utc::now()).to_std().unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}

/// The stream that a client sees.
struct Messages {
    waiting: mpsc::Receiver<WatchMessage>,
    /// None when the end was told.
    ended: Option<oneshot::Receiver<Error>>,
    _place: Open,
}

impl Stream for Messages {
    type Item = Result<WatchMessage>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
            if let Poll::Ready(end) = Pin::new(ended).poll(context) {
                self.ended = None;
                let died = |_| Error::internal("the task of a watch has died");
                return Poll::Ready(Some(Err(end.unwrap_or_else(died))));
            }
            match self.waiting.poll_recv(context) {
                Poll::Ready(Some(message)) => return Poll::Ready(Some(Ok(message))),
                // The task is gone, so by now there is an end.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The place of a watch that is open.
pub(super) struct Open {
    _place: Part,
}

impl Open {
    pub(super) fn new(place: Part) -> Self {
        metrics::gauge!("virtualstack_watches_open").increment(1.0);
        Self { _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("virtualstack_watches_open").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::shares::Places;

    #[tokio::test]
    async fn the_end_goes_past_what_waits() {
        let places = Places::for_calls(64);
        let open = || {
            let ((messages, waiting), (end, ended)) = (mpsc::channel(WAITING), oneshot::channel());
            messages.try_send(WatchMessage::default()).expect("room");
            (
                messages,
                end,
                Messages { waiting, ended: Some(ended), _place: Open::new(places.of_stranger(None).expect("a place")) },
            )
        };
        let (messages, end, mut stream) = open();
        assert!(stream.next().await.expect("a message").is_ok());
        assert!(stream.next().now_or_never().is_none());
        messages.try_send(WatchMessage::default()).expect("room");
        end.send(Error::unauthenticated("TEST", "")).expect("somebody listens");
        assert!(stream.next().await.expect("the end").is_err());
        assert!(stream.next().await.is_none());

        // A task that died is an error too, never a clean end.
        let (messages, end, mut stream) = open();
        drop((messages, end));
        assert_eq!(stream.next().await.expect("the end").expect_err("an error").reason(), Error::internal("").reason());
        assert!(stream.next().await.is_none());
    }
}
