//! Who may hold how many of the pool's connections at once, so that nobody takes them from everybody else. Who has all that
//! are theirs waits for their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use virtualstack_model::{Error, Result};

use crate::tx::scope::{SystemPurpose, TenantScope};

/// The shares of a pool.
#[derive(Clone)]
pub(crate) struct Shares {
    /// Connections of the pool.
    size: usize,
    turns: Arc<Mutex<HashMap<Uuid, Arc<Semaphore>>>>,
}

/// Whose transactions are counted together, and how many of them there may be.
struct Holder {
    id: Uuid,
    most: usize,
}

/// Under which those are counted whom nobody knows yet.
const STRANGERS: Uuid = Uuid::nil();

/// Leave to hold one connection.
pub(crate) struct Share {
    shares: Shares,
    held: Vec<(Uuid, Option<OwnedSemaphorePermit>)>,
}

impl Shares {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, turns: Arc::default() }
    }

    /// A share of the member's and of their tenant's.
    pub(crate) async fn of_member(&self, scope: &TenantScope) -> Result<Share> {
        let member = Holder { id: scope.user.0, most: self.part(4) };
        let tenant = Holder { id: scope.tenant.0, most: self.part(2) };
        self.wait([member, tenant]).await
    }

    /// A share for what is done for a purpose; none where that is bounded by itself.
    pub(crate) async fn of_purpose(&self, purpose: &SystemPurpose) -> Result<Option<Share>> {
        match purpose {
            SystemPurpose::Platform(access) => self.of_member(access).await.map(Some),
            SystemPurpose::Authenticate
            | SystemPurpose::RateLimit
            | SystemPurpose::AcceptInvitation
            | SystemPurpose::ResetPassword
            | SystemPurpose::Unsubscribe
            | SystemPurpose::DeskWebhook => self.wait([Holder { id: STRANGERS, most: self.part(2) }]).await.map(Some),
            SystemPurpose::SigningKeys
            | SystemPurpose::KeyUse
            | SystemPurpose::Audit
            | SystemPurpose::Bootstrap
            | SystemPurpose::Watch
            | SystemPurpose::Inventory
            | SystemPurpose::Reconcile => Ok(None),
        }
    }

    fn part(&self, of: usize) -> usize {
        (self.size / of).max(1)
    }

    /// Waits for each in turn: who waits for the tenant's holds one of their own only.
    async fn wait<const N: usize>(&self, holders: [Holder; N]) -> Result<Share> {
        let mut share = Share { shares: self.clone(), held: Vec::with_capacity(N) };
        for Holder { id, most } in holders {
            let turns = {
                let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(all.entry(id).or_insert_with(|| Arc::new(Semaphore::new(most))))
            };
            // Counted before the wait, so that what is waited for is not forgotten when the wait is given up.
            share.held.push((id, None));
            let permit = turns.acquire_owned().await.map_err(Error::internal)?;
            if let Some((_, held)) = share.held.last_mut() {
                *held = Some(permit);
            }
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.shares.turns.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, permit) in self.held.drain(..) {
            drop(permit);
            // Whoever waits or holds one keeps it alive.
            if all.get(&id).is_some_and(|turns| Arc::strong_count(turns) == 1) {
                all.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use virtualstack_model::credential::Credential;
    use virtualstack_model::id::{AccountId, SessionId, TenantId, UserId};

    use super::*;

    fn member(tenant: TenantId) -> TenantScope {
        #[expect(clippy::disallowed_methods, reason = "a test")]
        TenantScope::new(tenant, AccountId::new(), UserId::new(), Credential::Session(SessionId::new()), 0)
    }

    /// As many shares as are to be had at once.
    fn take(shares: &Shares, scope: &TenantScope) -> Vec<Share> {
        std::iter::from_fn(|| shares.of_member(scope).now_or_never()?.ok()).take(100).collect()
    }

    #[test]
    fn a_member_has_a_quarter_and_a_tenant_half() {
        let shares = Shares::new(16);
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let first = take(&shares, &member(tenant));
        assert_eq!(first.len(), 4);
        let second = take(&shares, &member(tenant));
        assert_eq!(second.len(), 4);
        assert_eq!(take(&shares, &member(tenant)).len(), 0, "the tenant's are all held");
        assert_eq!(take(&shares, &member(other)).len(), 4, "others have theirs");
        drop(second);
        assert_eq!(take(&shares, &member(tenant)).len(), 4);
        drop(first);
        assert!(shares.turns.lock().expect("shares").is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_small_pool_has_one_for_everybody() {
        let shares = Shares::new(1);
        assert_eq!(take(&shares, &member(TenantId::new())).len(), 1);
    }

    #[tokio::test]
    async fn who_waits_gets_what_comes_back_and_who_gives_up_loses_nothing() {
        let shares = Shares::new(4);
        let scope = member(TenantId::new());
        let held = take(&shares, &scope);
        assert_eq!(held.len(), 1);
        assert!(shares.of_member(&scope).now_or_never().is_none(), "it waits, and gives up");
        let waiting = shares.of_member(&scope);
        let given = async { drop(held) };
        let (share, ()) = futures::join!(waiting, given);
        drop(share.expect("a share"));
        assert!(shares.turns.lock().expect("shares").is_empty(), "nobody is remembered");
    }
}
