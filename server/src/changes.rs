//! Wakes watches when their tenant's change log has grown: at once by what is heard (LISTEN), and for what was not heard by one
//! look a second at the heads of all logs that are watched. Watches of notifications have a list of their own, which is only heard.
//! Who follows a log registers first and then reads, so no change is slept through.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;
use virtualstack_store::changes::watch as log;
use virtualstack_store::{Store, SystemPurpose, SystemScope};

/// How often the heads are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of a log without having read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hint {
    /// How often it was heard to have grown.
    heard: u64,
    /// Its head, as last looked at.
    head: i64,
}

/// The logs that somebody follows.
#[derive(Clone, Default)]
pub(crate) struct Changes(Arc<Mutex<HashMap<TenantId, Sender<Hint>>>>);

/// Somebody who follows a tenant's log.
pub(crate) struct Follower {
    hints: Receiver<Hint>,
    heard: u64,
}

impl Changes {
    /// Follows a tenant's log from now on.
    pub(crate) fn follow(&self, tenant: TenantId) -> Follower {
        let mut logs = self.lock();
        logs.retain(|_, log| log.receiver_count() > 0);
        let hints = logs.entry(tenant).or_insert_with(|| watch::channel(Hint::default()).0).subscribe();
        let heard = hints.borrow().heard;
        Follower { hints, heard }
    }

    /// Says that a log has grown; that of any tenant, where it is not known which.
    pub(crate) fn hear(&self, tenant: Option<TenantId>) {
        let logs = self.lock();
        let wake = |log: &Sender<Hint>| log.send_modify(|hint| hint.heard += 1);
        match tenant {
            Some(tenant) => logs.get(&tenant).into_iter().for_each(wake),
            None => logs.values().for_each(wake),
        }
    }

    /// Looks at the heads until `stop`.
    pub(crate) async fn look(self, store: Store, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            if let Err(error) = self.look_once(&store).await {
                tracing::debug!(%error, "cannot look at the heads of change logs; trying again");
            }
        }
    }

    async fn look_once(&self, store: &Store) -> Result<()> {
        let tenants: Vec<_> = {
            let mut logs = self.lock();
            logs.retain(|_, log| log.receiver_count() > 0);
            logs.keys().copied().collect()
        };
        if tenants.is_empty() {
            return Ok(());
        }
        let heads = store.system(system(), async |tx| log::heads(tx, &tenants).await).await?;
        let logs = self.lock();
        for (tenant, head) in heads {
            if let Some(log) = logs.get(&tenant) {
                log.send_if_modified(|hint| std::mem::replace(&mut hint.head, head) != head);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Sender<Hint>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Before a read: what is heard from here on is not in it.
    pub(crate) fn reading(&mut self) {
        self.heard = self.hints.borrow_and_update().heard;
    }

    /// Waits until something is heard. Cancelling it loses nothing.
    pub(crate) async fn heard(&mut self) {
        self.grown(i64::MAX).await;
    }

    /// Waits until the log has grown beyond `position`, or may have. Cancelling it loses nothing.
    pub(crate) async fn grown(&mut self, position: i64) {
        loop {
            let hint = *self.hints.borrow_and_update();
            if hint.heard != self.heard || hint.head > position {
                return;
            }
            // Its end cannot come before that of its last follower.
            if self.hints.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "wakes the watches of all tenants")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::Watch)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_heard_between_two_reads_wakes() {
        let (changes, tenant, other) = (Changes::default(), TenantId::new(), TenantId::new());
        let mut follower = changes.follow(tenant);
        let woken = |follower: &mut Follower, position| follower.grown(position).now_or_never().is_some();
        assert!(!woken(&mut follower, 0));
        changes.hear(Some(other));
        assert!(!woken(&mut follower, 0));
        for tenant in [Some(tenant), None] {
            changes.hear(tenant);
            assert!(woken(&mut follower, 0) && woken(&mut follower, 0), "until it reads");
            follower.reading();
            assert!(!woken(&mut follower, 0));
        }
        // A follower that comes later begins with a read of its own.
        changes.hear(None);
        assert!(!woken(&mut changes.follow(tenant), 0));
    }

    #[tokio::test]
    async fn a_head_wakes_who_is_behind_it() {
        let (changes, tenant) = (Changes::default(), TenantId::new());
        let mut follower = changes.follow(tenant);
        changes.lock().get(&tenant).expect("followed").send_modify(|hint| hint.head = 5);
        assert!(follower.grown(4).now_or_never().is_some());
        follower.reading();
        assert!(follower.grown(4).now_or_never().is_some(), "still behind");
        assert!(follower.grown(5).now_or_never().is_none());
    }
}
