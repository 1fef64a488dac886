//! Watches: streams of changes, read from the change log.
//!
//! A task reads for each stream and hands over through a channel with little room: a slow client keeps its own task waiting,
//! with no transaction open. Each read checks the access, and where none is due one comes with each heartbeat. How a stream
//! ends goes past what waits in the channel: who may not watch any more is told nothing more.

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
use tonic::metadata::MetadataMap;
use tracing::Instrument as _;
use uuid::Uuid;
use virtualstack_model::iam::access::Access;
use virtualstack_model::log::ChangeKind;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::watch::v1::watch_message::{Resource, Type};
use virtualstack_proto::virtualstack::watch::v1::{
    WatchMessage, WatchOperationsRequest, WatchTemplatesRequest, WatchTicketsRequest, WatchVmsRequest,
};
use virtualstack_store::changes::watch::Position;
use virtualstack_store::{MasterKey, Read, Store, TenantTx};

use super::parts::Parts;
use super::registry;
use super::watched::{Change, Collection, Page, Reported};
use crate::auth::tokens;
use crate::call::caller::TenantCaller;
use crate::call::message::time;
use crate::call::{AnswerStream, TenantCall};
use crate::changes::{Changes, Follower};
use crate::config::Config;
use crate::generated::virtualstack::watch::v1::WatchService;
use crate::layers::authorize::{Authorizer, StreamAccess};
use crate::shares::{Most, Part, Places};

/// Messages that wait for a client at most, beside the batch that its task holds.
const WAITING: usize = 16;

/// Reads of all watches at once, so that when many wake together, calls still find a connection.
const READERS: usize = 4;

#[derive(Clone)]
pub(crate) struct Watches {
    store: Store,
    master_key: MasterKey,
    authorizer: Arc<Authorizer>,
    changes: Changes,
    /// Streams would outlast any drain, so they end when it begins.
    stopping: CancellationToken,
    readers: Arc<Semaphore>,
    places: Places,
    resume: Duration,
    heartbeat: Duration,
}

impl Watches {
    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        let Parts { store, master_key, authorizer, changes, stopping, .. } = parts;
        let most = Most {
            of_all: config.max_watches,
            of_tenant: config.max_watches_per_tenant,
            of_member: config.max_watches_per_principal,
        };
        Self {
            store,
            master_key,
            authorizer,
            changes,
            stopping,
            readers: Arc::new(Semaphore::new(READERS)),
            places: Places::new("watches open", "WATCHES_EXHAUSTED", most),
            resume: Duration::from_secs(config.watch_resume_seconds),
            heartbeat: Duration::from_millis(config.watch_heartbeat_ms),
        }
    }
}

impl WatchService for Watches {
    async fn watch_vms(&self, call: TenantCall<WatchVmsRequest>) -> Result<AnswerStream<WatchMessage>> {
        let TenantCall { request, caller, metadata } = call;
        self.open(caller, &metadata, &registry::VMS, &request.resume_token).await
    }

    async fn watch_operations(&self, call: TenantCall<WatchOperationsRequest>) -> Result<AnswerStream<WatchMessage>> {
        let TenantCall { request, caller, metadata } = call;
        self.open(caller, &metadata, &registry::OPERATIONS, &request.resume_token).await
    }

    async fn watch_tickets(&self, call: TenantCall<WatchTicketsRequest>) -> Result<AnswerStream<WatchMessage>> {
        let TenantCall { request, caller, metadata } = call;
        self.open(caller, &metadata, &registry::TICKETS, &request.resume_token).await
    }

    async fn watch_templates(&self, call: TenantCall<WatchTemplatesRequest>) -> Result<AnswerStream<WatchMessage>> {
        let TenantCall { request, caller, metadata } = call;
        self.open(caller, &metadata, &registry::TEMPLATES, &request.resume_token).await
    }
}

impl Watches {
    /// Reads what comes first, so that what is wrong with the request is its answer, and leaves the rest to a task.
    async fn open(
        &self,
        caller: TenantCaller,
        metadata: &MetadataMap,
        collection: &'static Collection,
        token: &str,
    ) -> Result<AnswerStream<WatchMessage>> {
        if self.stopping.is_cancelled() {
            return Err(stopping());
        }
        let access = self.authorizer.stream_access(caller, metadata).await?;
        let place = Open::new(self.places.of_member(access.caller.tenant_id(), access.caller.user())?);
        let scope = access.caller.tenant();
        let follower = self.changes.follow(scope.tenant());
        let reader = self.readers.acquire().await.map_err(Error::internal)?;
        let first = if token.is_empty() {
            let seen = access.caller.access();
            let page = async |tx: &mut TenantTx<Read>| (collection.page)(tx, seen, Uuid::nil()).await;
            First::Page(self.store.read_consistently(&scope, page).await?)
        } else {
            let topic = collection.topic(access.caller.user());
            let position = Position::of_token(&self.master_key, scope.tenant(), &topic, token)?;
            let seen = access.caller.access();
            let after = async |tx: &mut TenantTx<Read>| (collection.after)(tx, seen, position, self.resume).await;
            First::Changes(self.store.read(&scope, after).await?)
        };
        drop(reader);
        let (messages, waiting) = mpsc::channel(WAITING);
        let (end, ended) = oneshot::channel();
        let now = Instant::now();
        let watch = Watch {
            of: self.clone(),
            collection,
            access,
            follower,
            messages,
            position: first.position(),
            read: now,
            told: now,
        };
        tokio::spawn(watch.run(first, end).in_current_span());
        Ok(Box::pin(Messages { waiting, ended: Some(ended), _place: place }))
    }
}

/// What a stream begins with.
enum First {
    Page(Page),
    Changes(Reported),
}

impl First {
    fn position(&self) -> Position {
        match self {
            Self::Page(page) => page.position,
            Self::Changes(reported) => reported.position,
        }
    }
}

/// The task behind a stream.
struct Watch {
    of: Watches,
    collection: &'static Collection,
    access: StreamAccess,
    follower: Follower,
    messages: mpsc::Sender<WatchMessage>,
    /// Up to where the log is told.
    position: Position,
    /// When it was last read, and the access checked.
    read: Instant,
    /// When the client was last told something.
    told: Instant,
}

impl Watch {
    /// Tells changes until the client goes away, or what becomes of its access, its credential or this server ends it.
    async fn run(mut self, first: First, end: oneshot::Sender<Error>) {
        let (messages, stop, expires_at) = (self.messages.clone(), self.of.stopping.clone(), self.access.expires_at);
        let error = tokio::select! {
            biased;
            () = messages.closed() => return,
            () = stop.cancelled() => stopping(),
            () = past(expires_at) => tokens::expired(),
            told = self.tell(first) => match told {
                Err(error) => error,
                Ok(never) => match never {},
            },
        };
        self.access.note(&error);
        tracing::debug!(reason = error.reason(), "the watch ends");
        // The client may have gone meanwhile.
        let _ = end.send(error);
    }

    async fn tell(&mut self, first: First) -> Result<Infallible> {
        let mut more = match first {
            First::Page(first) => self.report_all(first).await?,
            First::Changes(told) => self.report_changes(told).await?,
        };
        loop {
            if !more {
                tokio::select! {
                    () = self.follower.grown(self.position.number) => {}
                    () = sleep_until(self.told + self.of.heartbeat) => {}
                }
            }
            let told = self.read_on().await?;
            more = self.report_changes(told).await?;
            if self.told.elapsed() >= self.of.heartbeat {
                let bookmark = message(Type::Bookmark, None, self.token(self.position)?, self.position.at);
                self.send(bookmark).await?;
            }
        }
    }

    /// Tells what there is, page by page, and whether changes wait. What has changed while the pages were read is told before
    /// the client hears that it has all of it, unless the page that it stands on was read after that.
    async fn report_all(&mut self, first: Page) -> Result<bool> {
        let mut page = first;
        // Up to which id each page goes, and up to where it has all changes.
        let mut pages: Vec<(Uuid, Position)> = Vec::new();
        let (last, mut more) = loop {
            let Page { resources, position, next } = page;
            for resource in resources {
                self.send(message(Type::Snapshot, Some(resource), String::new(), position.at)).await?;
            }
            let Some(next) = next else { break (position, position.number > self.position.number) };
            pages.push((next, position));
            let collection = self.collection;
            page = self.read_as_caller(|tx, access| (collection.page)(tx, access, next)).await?;
        };
        while self.position.number < last.number {
            let Reported { changes, position, more: left } = self.read_on().await?;
            for Change { kind, id, resource, position } in changes {
                let page = pages.iter().find(|(end, _)| id <= *end).map_or(last, |(_, position)| *position);
                if position.number > page.number {
                    let kind = if kind == ChangeKind::Deleted { Type::Deleted } else { Type::Snapshot };
                    self.send(message(kind, Some(resource), String::new(), position.at)).await?;
                }
            }
            (self.position, more) = (position, left);
        }
        let synced = message(Type::Synced, None, self.token(self.position)?, self.position.at);
        self.send(synced).await?;
        Ok(more)
    }

    /// Reads what has changed since. However slow its client is: a stream that goes on is not too old.
    async fn read_on(&mut self) -> Result<Reported> {
        self.follower.reading();
        let (collection, position) = (self.collection, self.position);
        self.read_as_caller(|tx, access| (collection.after)(tx, access, position, Duration::MAX)).await
    }

    /// Reads what the caller may see at that moment: where their access turns out to have changed, it is read anew.
    async fn read_as_caller<T, F>(&mut self, f: F) -> Result<T>
    where
        T: Send,
        F: for<'t> Fn(&'t mut TenantTx<Read>, &'t Access) -> BoxFuture<'t, Result<T>> + Send + Sync,
    {
        let _reader = self.of.readers.acquire().await.map_err(Error::internal)?;
        loop {
            let caller = self.access.caller.clone();
            let seen = caller.access();
            let read = async |tx: &mut TenantTx<Read>| f(tx, seen).await;
            let done = self.access.read(&self.of.store, read).await?;
            if caller.is_as_decided_for(&self.access.caller) {
                self.read = Instant::now();
                return Ok(done);
            }
        }
    }

    /// Tells changes; whether there are more.
    async fn report_changes(&mut self, Reported { changes, position, more }: Reported) -> Result<bool> {
        for Change { kind, resource, position, .. } in changes {
            let kind = match kind {
                ChangeKind::Created => Type::Created,
                ChangeKind::Updated => Type::Updated,
                ChangeKind::Deleted => Type::Deleted,
            };
            let token = self.token(position)?;
            self.send(message(kind, Some(resource), token, position.at)).await?;
        }
        self.position = position;
        Ok(more)
    }

    /// Hands a message over. While the client is slow, its access is still looked at.
    async fn send(&mut self, message: WatchMessage) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.read + self.of.heartbeat) => {
                    self.access.read(&self.of.store, async |_| Ok(())).await?;
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

    fn token(&self, position: Position) -> Result<String> {
        let caller = &self.access.caller;
        position.token(&self.of.master_key, caller.tenant_id(), &self.collection.topic(caller.user()))
    }
}

fn message(kind: Type, resource: Option<Resource>, resume_token: String, at: DateTime<Utc>) -> WatchMessage {
    WatchMessage { r#type: kind.into(), resource, resume_token, change_time: Some(time(at)) }
}

async fn past(end: Option<DateTime<Utc>>) {
    match end {
        Some(end) => sleep((end - Utc::now()).to_std().unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}

fn stopping() -> Error {
    Error::Unavailable {
        reason: "SERVER_STOPPING",
        message: "the server is stopping; connect again and go on with the last resume token".to_owned(),
        retry_after: Duration::from_secs(1),
        source: None,
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
struct Open {
    _place: Part,
}

impl Open {
    fn new(place: Part) -> Self {
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
