//! Watches by comparison, for what has no log of its own: what the member is told now is compared with what the client was told.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::sleep_until;
use virtualstack_model::Result;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Type;
use virtualstack_store::changes::seen::Seen;

use super::teller::{Teller, message};
use crate::call::caller::AccountCaller;
use crate::changes::Follower;
use crate::services::watched::{Compared, Item};

/// Between two looks: what many change at once is not read anew for each.
const PAUSE: Duration = Duration::from_secs(1);

/// A watch by comparison.
pub(super) struct ByComparison {
    pub(super) collection: &'static Compared,
    pub(super) follower: Follower,
    /// What the client was told.
    pub(super) seen: Seen,
}

impl ByComparison {
    /// Tells what there is, or, to who goes on, what is different; and then what becomes of it.
    pub(super) async fn tell(
        mut self,
        teller: &mut Teller<AccountCaller>,
        (first, at): (Vec<Item>, DateTime<Utc>),
        goes_on: bool,
    ) -> Result<Infallible> {
        if goes_on {
            self.report(teller, first, at).await?;
        } else {
            for Item { id, digest, resource } in first {
                self.seen.0.insert(id, digest);
                teller.send(message(Type::Snapshot, Some(resource), String::new(), at)).await?;
            }
            teller.send(message(Type::Synced, None, self.token(teller, at)?, at)).await?;
        }
        loop {
            tokio::select! {
                () = self.follower.heard() => sleep_until(teller.read + PAUSE).await,
                // What becomes due by itself is heard by nobody.
                () = sleep_until(teller.read + teller.shared.heartbeat) => {}
                () = teller.silence() => {}
            }
            self.follower.reading();
            let (read, at) = (self.collection.read, Utc::now());
            let items = teller.read_as_caller(|tx, access| read(tx, access)).await?;
            self.report(teller, items, at).await?;
            if teller.is_silent() {
                teller.send(message(Type::Bookmark, None, self.token(teller, at)?, at)).await?;
            }
        }
    }

    /// Tells what is different from what the client was told.
    async fn report(&mut self, teller: &mut Teller<AccountCaller>, items: Vec<Item>, at: DateTime<Utc>) -> Result<()> {
        let is_there: BTreeSet<_> = items.iter().map(|item| item.id).collect();
        let left: Vec<_> = self.seen.0.keys().copied().filter(|id| !is_there.contains(id)).collect();
        for id in left {
            self.seen.0.remove(&id);
            let gone = (self.collection.gone)(id);
            teller.send(message(Type::Deleted, Some(gone), self.token(teller, at)?, at)).await?;
        }
        for Item { id, digest, resource } in items {
            let kind = match self.seen.0.insert(id, digest) {
                Some(before) if before == digest => continue,
                Some(_) => Type::Updated,
                None => Type::Created,
            };
            teller.send(message(kind, Some(resource), self.token(teller, at)?, at)).await?;
        }
        Ok(())
    }

    fn token(&self, teller: &Teller<AccountCaller>, at: DateTime<Utc>) -> Result<String> {
        let caller = &teller.access.caller;
        let topic = self.collection.topic(caller.user());
        self.seen.token(&teller.shared.master_key, caller.tenant_id(), &topic, at)
    }
}
