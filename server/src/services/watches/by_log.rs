//! Watches by the change log: each change once, in the order in which they were committed.

use std::convert::Infallible;

use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::log::ChangeKind;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Type;
use virtualstack_store::changes::watch::Position;

use super::teller::{Teller, message};
use crate::call::caller::TenantCaller;
use crate::changes::Follower;
use crate::services::watched::{Change, Collection, Page, Reported};

/// What a stream begins with.
pub(super) enum First {
    Page(Page),
    Changes(Reported),
}

impl First {
    pub(super) fn position(&self) -> Position {
        match self {
            Self::Page(page) => page.position,
            Self::Changes(reported) => reported.position,
        }
    }
}

/// A watch by the log.
pub(super) struct ByLog {
    pub(super) collection: &'static Collection,
    pub(super) follower: Follower,
    /// Up to where the log is told.
    pub(super) position: Position,
}

impl ByLog {
    pub(super) async fn tell(mut self, teller: &mut Teller<TenantCaller>, first: First) -> Result<Infallible> {
        let mut more = match first {
            First::Page(first) => self.report_all(teller, first).await?,
            First::Changes(told) => self.report_changes(teller, told).await?,
        };
        loop {
            if !more {
                tokio::select! {
                    () = self.follower.grown(self.position.number) => {}
                    () = teller.silence() => {}
                }
            }
            let told = self.read_on(teller).await?;
            more = self.report_changes(teller, told).await?;
            if teller.is_silent() {
                let bookmark = message(Type::Bookmark, None, self.token(teller, self.position)?, self.position.at);
                teller.send(bookmark).await?;
            }
        }
    }

    /// Tells what there is, page by page, and whether changes wait. What has changed while the pages were read is told before
    /// the client hears that it has all of it, unless the page that it stands on was read after that.
    async fn report_all(&mut self, teller: &mut Teller<TenantCaller>, first: Page) -> Result<bool> {
        let mut page = first;
        // Up to which id each page goes, and up to where it has all changes.
        let mut pages: Vec<(Uuid, Position)> = Vec::new();
        let (last, mut more) = loop {
            let Page { resources, position, next } = page;
            for resource in resources {
                teller.send(message(Type::Snapshot, Some(resource), String::new(), position.at)).await?;
            }
            let Some(next) = next else { break (position, position.number > self.position.number) };
            pages.push((next, position));
            let collection = self.collection;
            page = teller.read_as_caller(|tx, access| (collection.page)(tx, access, next)).await?;
        };
        while self.position.number < last.number {
            let Reported { changes, position, more: left } = self.read_on(teller).await?;
            for Change { kind, id, resource, position } in changes {
                let page = pages.iter().find(|(end, _)| id <= *end).map_or(last, |(_, position)| *position);
                if position.number > page.number {
                    let kind = if kind == ChangeKind::Deleted { Type::Deleted } else { Type::Snapshot };
                    teller.send(message(kind, Some(resource), String::new(), position.at)).await?;
                }
            }
            (self.position, more) = (position, left);
        }
        let synced = message(Type::Synced, None, self.token(teller, self.position)?, self.position.at);
        teller.send(synced).await?;
        Ok(more)
    }

    /// Reads what has changed since. However slow its client is: a stream that goes on is not too old.
    async fn read_on(&mut self, teller: &mut Teller<TenantCaller>) -> Result<Reported> {
        self.follower.reading();
        let (collection, position) = (self.collection, self.position);
        teller.read_as_caller(|tx, access| (collection.after)(tx, access, position, std::time::Duration::MAX)).await
    }

    /// Tells changes; whether there are more.
    async fn report_changes(
        &mut self,
        teller: &mut Teller<TenantCaller>,
        Reported { changes, position, more }: Reported,
    ) -> Result<bool> {
        for Change { kind, resource, position, .. } in changes {
            let kind = match kind {
                ChangeKind::Created => Type::Created,
                ChangeKind::Updated => Type::Updated,
                ChangeKind::Deleted => Type::Deleted,
            };
            let token = self.token(teller, position)?;
            teller.send(message(kind, Some(resource), token, position.at)).await?;
        }
        self.position = position;
        Ok(more)
    }

    fn token(&self, teller: &Teller<TenantCaller>, position: Position) -> Result<String> {
        let caller = &teller.access.caller;
        position.token(&teller.shared.master_key, caller.tenant_id(), &self.collection.topic(caller.user()))
    }
}
