//! Watches: streams of what becomes of a collection. Most are [read from the change log](by_log); what members are told has none, and is
//! [compared](by_comparison).

mod by_comparison;
mod by_log;
mod teller;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use uuid::Uuid;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::watch::v1::{
    WatchMessage, WatchNotificationsRequest, WatchOperationsRequest, WatchTemplatesRequest, WatchTicketsRequest,
    WatchVmsRequest,
};
use virtualstack_store::changes::seen::Seen;
use virtualstack_store::changes::watch::Position;
use virtualstack_store::{Read, TenantTx};

use self::by_comparison::ByComparison;
use self::by_log::{ByLog, First};
use self::teller::{Open, Shared, Teller, stopping};
use super::parts::Parts;
use super::registry;
use super::watched::{Collection, Compared};
use crate::call::caller::{AccountCaller, TenantCaller};
use crate::call::{AccountCall, AnswerStream, TenantCall};
use crate::changes::Changes;
use crate::config::Config;
use crate::generated::virtualstack::watch::v1::WatchService;
use crate::layers::authorize::{Authorizer, StreamAccess, StreamCaller};
use crate::shares::{Most, Places};

/// Reads of all watches at once, and as many of what is compared.
const READERS: usize = 4;

pub(crate) struct Watches {
    shared: Shared,
    /// Of what is compared: it is read more often, and keeps no other watch waiting.
    comparing: Arc<Semaphore>,
    authorizer: Arc<Authorizer>,
    changes: Changes,
    told: Changes,
    places: Places,
    resume: Duration,
}

impl Watches {
    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        let Parts { store, master_key, authorizer, changes, told, stopping, .. } = parts;
        let most = Most {
            of_all: config.max_watches,
            of_tenant: config.max_watches_per_tenant,
            of_member: config.max_watches_per_principal,
        };
        Self {
            shared: Shared {
                store,
                master_key,
                stopping,
                readers: Arc::new(Semaphore::new(READERS)),
                heartbeat: Duration::from_millis(config.watch_heartbeat_ms),
            },
            comparing: Arc::new(Semaphore::new(READERS)),
            authorizer,
            changes,
            told,
            places: Places::new("watches open", "WATCHES_EXHAUSTED", most),
            resume: Duration::from_secs(config.watch_resume_seconds),
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

    async fn watch_notifications(
        &self,
        call: AccountCall<WatchNotificationsRequest>,
    ) -> Result<AnswerStream<WatchMessage>> {
        let AccountCall { request, caller, metadata } = call;
        self.open_compared(caller, &metadata, &registry::NOTIFICATIONS, &request.resume_token).await
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
        let (access, place) = self.enter(caller, metadata).await?;
        let scope = access.caller.tenant();
        let follower = self.changes.follow(scope.tenant());
        let reader = self.shared.readers.acquire().await.map_err(Error::internal)?;
        let seen = access.caller.access();
        let first = if token.is_empty() {
            let page = async |tx: &mut TenantTx<Read>| (collection.page)(tx, seen, Uuid::nil()).await;
            First::Page(self.shared.store.read_consistently(&scope, page).await?)
        } else {
            let topic = collection.topic(access.caller.user());
            let position = Position::of_token(&self.shared.master_key, scope.tenant(), &topic, token)?;
            let after = async |tx: &mut TenantTx<Read>| (collection.after)(tx, seen, position, self.resume).await;
            First::Changes(self.shared.store.read(&scope, after).await?)
        };
        drop(reader);
        let watch = ByLog { collection, follower, position: first.position() };
        Ok(Teller::begin(self.shared.clone(), access, place, move |teller| Box::pin(watch.tell(teller, first))))
    }

    /// The same for what is compared.
    async fn open_compared(
        &self,
        caller: AccountCaller,
        metadata: &MetadataMap,
        collection: &'static Compared,
        token: &str,
    ) -> Result<AnswerStream<WatchMessage>> {
        let (access, place) = self.enter(caller, metadata).await?;
        let scope = access.caller.own_tenant();
        let topic = collection.topic(access.caller.user());
        let seen = match token {
            "" => Seen::default(),
            token => Seen::of_token(&self.shared.master_key, scope.tenant(), &topic, token, self.resume)?,
        };
        let follower = self.told.follow(scope.tenant());
        let shared = Shared { readers: Arc::clone(&self.comparing), ..self.shared.clone() };
        let reader = shared.readers.acquire().await.map_err(Error::internal)?;
        let caller = access.caller.access();
        let read = async |tx: &mut TenantTx<Read>| (collection.read)(tx, caller).await;
        let at = Utc::now();
        let first = (self.shared.store.read_consistently(&scope, read).await?, at);
        drop(reader);
        let (watch, goes_on) = (ByComparison { collection, follower, seen }, !token.is_empty());
        Ok(Teller::begin(shared, access, place, move |teller| Box::pin(watch.tell(teller, first, goes_on))))
    }

    /// Lets a stream in that has a place.
    async fn enter<C: StreamCaller>(&self, caller: C, metadata: &MetadataMap) -> Result<(StreamAccess<C>, Open)> {
        if self.shared.stopping.is_cancelled() {
            return Err(stopping());
        }
        let access = self.authorizer.stream_access(caller, metadata).await?;
        let place = self.places.of_member(access.caller.tenant_id(), access.caller.user())?;
        Ok((access, Open::new(place)))
    }
}
