//! How often one may call: token buckets, of two kinds.
//!
//! - **Guesses** (login and its kin) are counted in PostgreSQL, one statement each: exact, whichever server is asked.
//! - **All other calls** are decided from a bucket in memory and never wait for the database. What a busy member spends
//!   is settled with a bucket in PostgreSQL that all servers share, behind the call's back, and the bucket here goes on
//!   from what is left there. So each server lets at most [`UNSETTLED`] too much pass, and what is spent while a settlement
//!   is under way; who spends little costs no statement. While the database does not answer, each server goes on alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Semaphore;
use uuid::Uuid;
use virtualstack_connections::network;
use virtualstack_model::error::RateLimit;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::{Error, Result};
use virtualstack_store::digest::{Digest, Purpose};
use virtualstack_store::iam::rate_limits::{self, Limit};
use virtualstack_store::{Store, SystemPurpose, SystemScope, SystemTx};

use crate::config::{Config, wrong};

/// What is spent before it is settled, as a share of what a second brings.
const UNSETTLED: f64 = 0.1;

/// Who spends less than that within this time is left alone.
const QUIET: Duration = Duration::from_secs(1);

/// Settlements under way at once, and how long one may take.
const SETTLEMENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(1);

/// Wrong credentials from one network: so many a second in the long run, and so many at once. Right ones are not counted.
const GUESSES: Limit = Limit { rate: 20.0, burst: 200.0 };

/// Fewer buckets than this are not worth a look for those that are full again.
const FEW: usize = 1024;

/// All limits of a server.
#[derive(Clone)]
pub(crate) struct Limits(Arc<Inner>);

struct Inner {
    store: Store,
    address: Option<Limit>,
    account: Option<Limit>,
    calls: Option<Limit>,
    /// Of mails to one address, and of those that one tenant asks for.
    mails: Option<Limit>,
    mails_of_tenant: Option<Limit>,
    buckets: Mutex<Buckets>,
    /// Of those who present credentials that this server does not know, by their network.
    guesses: Mutex<Buckets>,
    settlements: Semaphore,
}

impl Limits {
    pub(crate) fn new(store: Store, config: &Config) -> Result<Self> {
        if config.calls_per_second > 0 && config.calls_burst == 0 {
            return Err(wrong("server.calls_burst", "must be at least 1; calls_per_second = 0 is for no limit"));
        }
        let per_minute = |count: u32| (count > 0).then(|| Limit { rate: f64::from(count) / 60.0, burst: count.into() });
        let per_hour = |count: u32| (count > 0).then(|| Limit { rate: f64::from(count) / 3600.0, burst: count.into() });
        let calls = Limit { rate: config.calls_per_second.into(), burst: config.calls_burst.into() };
        Ok(Self(Arc::new(Inner {
            store,
            address: per_minute(config.auth_per_address_per_minute),
            account: per_minute(config.auth_per_minute),
            mails: per_hour(config.mails_per_address_per_hour),
            mails_of_tenant: per_hour(config.mails_per_tenant_per_hour),
            calls: (config.calls_per_second > 0).then_some(calls),
            buckets: Mutex::default(),
            guesses: Mutex::default(),
            settlements: Semaphore::new(SETTLEMENTS),
        })))
    }

    /// Counts a guess by whoever is at an address. RATE_LIMITED if there were too many.
    pub(crate) async fn address(&self, client: Option<IpAddr>) -> Result<()> {
        let Some(limit) = self.0.address else { return Ok(()) };
        let key = self.key("address", "", client);
        self.0.store.system(system(), async |tx| guess(tx, &key, limit, "address").await).await
    }

    /// Counts a guess of the kind `what` at an account, by whoever is at an address: so nobody locks the account's owner
    /// out from elsewhere. RATE_LIMITED if there were too many.
    pub(crate) async fn account(&self, what: &'static str, account: &str, client: Option<IpAddr>) -> Result<()> {
        if self.0.account.is_none() {
            return Ok(());
        }
        let count = async |tx: &mut SystemTx| self.account_in(tx, what, account, client).await;
        self.0.store.system(system(), count).await
    }

    /// Counts a mail to a normalised address, which a tenant asks for or anybody. RATE_LIMITED if the address was sent too many,
    /// or the tenant asked for too many.
    pub(crate) async fn mail(&self, tenant: Option<TenantId>, email: &str) -> Result<()> {
        let tenant = tenant.map(|tenant| tenant.to_string());
        let count = async |tx: &mut SystemTx| {
            if let Some(limit) = self.0.mails {
                guess(tx, &self.key("mail", email, None), limit, "mails to an address").await?;
            }
            if let (Some(limit), Some(tenant)) = (self.0.mails_of_tenant, &tenant) {
                guess(tx, &self.key("mailOfTenant", tenant, None), limit, "mails of a tenant").await?;
            }
            Ok(())
        };
        self.0.store.system(system(), count).await
    }

    /// The same where the account is known by a token only.
    pub(crate) async fn token(&self, what: &'static str, digest: &[u8], client: Option<IpAddr>) -> Result<()> {
        self.account(what, &URL_SAFE_NO_PAD.encode(digest), client).await
    }

    /// The same in a transaction, which is to be committed.
    pub(crate) async fn account_in(
        &self,
        tx: &mut SystemTx,
        what: &'static str,
        account: &str,
        client: Option<IpAddr>,
    ) -> Result<()> {
        let Some(limit) = self.0.account else { return Ok(()) };
        guess(tx, &self.key(what, account, client), limit, what).await
    }

    /// Counts a credential that this server does not know, by whoever is at an address, before the database is asked for it.
    /// RATE_LIMITED if too many were wrong.
    pub(crate) fn credential(&self, client: Option<IpAddr>) -> Result<Guess> {
        let id = Uuid::from_u128(match client.map(network) {
            None => 0,
            Some(IpAddr::V4(address)) => address.to_ipv6_mapped().to_bits(),
            Some(IpAddr::V6(address)) => address.to_bits(),
        });
        let taken = lock(&self.0.guesses).take(id, GUESSES, Instant::now());
        taken.map_err(|wait| refused("credentials", GUESSES, wait))?;
        Ok(Guess { limits: self.clone(), id })
    }

    /// Counts a call of a member, by whichever credential. RATE_LIMITED if there were too many.
    pub(crate) fn member(&self, UserId(id): UserId) -> Result<()> {
        let Some(limit) = self.0.calls else { return Ok(()) };
        let taken = self.buckets().take(id, limit, Instant::now());
        if let Some(spent) = taken.map_err(|wait| refused("calls", limit, wait))? {
            tokio::spawn(self.clone().settle(id, limit, spent));
        }
        Ok(())
    }

    /// Tells the shared bucket what was spent here, and this one what is left there.
    async fn settle(self, id: Uuid, limit: Limit, spent: f64) {
        let key = self.key("calls", &id.to_string(), None);
        let settling = async {
            // Others wait their turn: the connections are for calls.
            let _turn = self.0.settlements.acquire().await.map_err(Error::internal)?;
            let settle = async |tx: &mut SystemTx| rate_limits::settle(tx, &key, limit, spent).await;
            self.0.store.system(system(), settle).await
        };
        let settled = match tokio::time::timeout(PATIENCE, settling).await {
            Ok(Ok(taken)) => Some(taken.left),
            Ok(Err(error)) => {
                tracing::debug!(%error, "calls were not settled");
                None
            }
            Err(_) => None,
        };
        let outcome = if settled.is_some() { "settled" } else { "failed" };
        metrics::counter!("virtualstack_rate_limit_settlements_total", "outcome" => outcome).increment(1);
        self.buckets().settled(id, settled, Instant::now());
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        lock(&self.0.buckets)
    }

    /// The key of a shared bucket: a digest, as it is nobody's business who called from where. While the master key is changed,
    /// servers of the one and of the other count by themselves.
    fn key(&self, what: &str, account: &str, client: Option<IpAddr>) -> Digest {
        let client = client.map(|client| network(client).to_string()).unwrap_or_default();
        let parts = [what, account, &client].map(str::as_bytes);
        self.0.store.digests().digest(Purpose::RateLimit, &parts)
    }
}

fn lock(buckets: &Mutex<Buckets>) -> MutexGuard<'_, Buckets> {
    buckets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A credential whose truth is not known yet. It counts, unless it was right.
pub(crate) struct Guess {
    limits: Limits,
    id: Uuid,
}

impl Guess {
    pub(crate) fn was_right(self) {
        lock(&self.limits.0.guesses).give_back(self.id);
    }
}

async fn guess(tx: &mut SystemTx, key: &[u8], limit: Limit, name: &'static str) -> Result<()> {
    let taken = rate_limits::take(tx, key, limit).await?;
    if taken.granted {
        Ok(())
    } else {
        Err(refused(name, limit, Duration::from_secs_f64(taken.wait.clamp(0.0, 3600.0))))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made of settings that are u32")]
fn refused(name: &'static str, limit: Limit, retry_after: Duration) -> Error {
    metrics::counter!("virtualstack_rate_limited_total", "limit" => name).increment(1);
    let window_seconds = (limit.burst / limit.rate).round().max(1.0) as u32;
    Error::RateLimited {
        message: format!("too many calls; try again in {} s", retry_after.as_secs_f64().ceil()),
        retry_after,
        limit: RateLimit { name, quota: limit.burst as u32, window_seconds },
    }
}

/// The buckets of this server's principals. One that is not there is full, so those that are full again are forgotten now
/// and then; what stays is at most twice the number of principals that called a moment ago.
#[derive(Default)]
struct Buckets {
    buckets: HashMap<Uuid, Bucket>,
    /// At how many to look for full ones.
    enough: usize,
}

struct Bucket {
    /// Tokens there were at a time. Below zero, others have spent them.
    level: f64,
    at: Instant,
    /// Spent since a time, and not settled.
    unsettled: f64,
    since: Instant,
    /// Whether a settlement is under way.
    settling: bool,
}

impl Buckets {
    /// Takes a token; what is to be settled now, if it is enough. Or the time until there is one.
    fn take(&mut self, id: Uuid, limit: Limit, now: Instant) -> Result<Option<f64>, Duration> {
        if self.buckets.len() >= self.enough.max(FEW) && !self.buckets.contains_key(&id) {
            self.forget(limit, now);
        }
        let full = || Bucket { level: limit.burst, at: now, unsettled: 0.0, since: now, settling: false };
        let bucket = self.buckets.entry(id).or_insert_with(full);
        bucket.level = bucket.level_at(limit, now);
        bucket.at = now;
        if bucket.level < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.level) / limit.rate));
        }
        bucket.level -= 1.0;
        if now.saturating_duration_since(bucket.since) > QUIET {
            bucket.unsettled = 0.0;
            bucket.since = now;
        }
        bucket.unsettled += 1.0;
        if bucket.settling || bucket.unsettled < limit.rate * UNSETTLED {
            return Ok(None);
        }
        bucket.settling = true;
        bucket.since = now;
        Ok(Some(std::mem::take(&mut bucket.unsettled)))
    }

    /// Takes back what was taken.
    fn give_back(&mut self, id: Uuid) {
        if let Some(bucket) = self.buckets.get_mut(&id) {
            bucket.level += 1.0;
        }
    }

    /// Goes on from what the shared bucket holds, if that is known.
    fn settled(&mut self, id: Uuid, left: Option<f64>, now: Instant) {
        let Some(bucket) = self.buckets.get_mut(&id) else { return };
        bucket.settling = false;
        if let Some(left) = left {
            bucket.level = left - bucket.unsettled;
            bucket.at = now;
        }
    }

    fn forget(&mut self, limit: Limit, now: Instant) {
        self.buckets.retain(|_, bucket| bucket.settling || bucket.level_at(limit, now) < limit.burst);
        self.enough = 2 * self.buckets.len();
    }
}

impl Bucket {
    fn level_at(&self, limit: Limit, now: Instant) -> f64 {
        (self.level + now.saturating_duration_since(self.at).as_secs_f64() * limit.rate).min(limit.burst)
    }
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "calls are counted whoever makes them")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::RateLimit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { rate: 200.0, burst: 400.0 };

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Takes until it is refused; how many there were.
    fn drain(buckets: &mut Buckets, id: Uuid, now: Instant) -> u32 {
        (0..).take_while(|_| buckets.take(id, LIMIT, now).is_ok()).count().try_into().expect("few")
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_what_comes_in() {
        let (mut buckets, id, start) = (Buckets::default(), Uuid::now_v7(), Instant::now());
        assert_eq!(drain(&mut buckets, id, start), 400);
        let wait = buckets.take(id, LIMIT, start).expect_err("empty");
        assert_eq!(wait, Duration::from_millis(5));
        assert_eq!(drain(&mut buckets, id, after(start, 1000)), 200);
        assert_eq!(drain(&mut buckets, id, after(start, 60_000)), 400, "no more than a burst");
        assert_eq!(drain(&mut buckets, Uuid::now_v7(), start), 400, "each their own");
    }

    #[test]
    fn a_settlement_is_due_each_twenty_tokens_one_at_a_time() {
        let (mut buckets, id, start) = (Buckets::default(), Uuid::now_v7(), Instant::now());
        let mut take = |ms: u64, count: usize| -> Vec<f64> {
            (0..count).filter_map(|_| buckets.take(id, LIMIT, after(start, ms)).expect("a token")).collect()
        };
        assert_eq!(take(0, 19), [0.0; 0]);
        assert_eq!(take(1500, 19), [0.0; 0], "what was spent quietly is forgotten");
        assert_eq!(take(1600, 1), [20.0]);
        assert_eq!(take(1700, 50), [0.0; 0], "one is under way");
        buckets.settled(id, Some(100.0), after(start, 1800));
        // 100 there, 50 of which were spent meanwhile; the next settlement has them, too.
        assert_eq!(buckets.take(id, LIMIT, after(start, 1800)), Ok(Some(51.0)));
        buckets.settled(id, Some(-10.0), after(start, 1900));
        assert_eq!(buckets.take(id, LIMIT, after(start, 1900)), Err(Duration::from_millis(55)), "a debt");
        assert_eq!(buckets.take(id, LIMIT, after(start, 1955)), Ok(None));
    }

    #[test]
    fn a_settlement_that_fails_leaves_the_bucket_as_it_is() {
        let (mut buckets, id, start) = (Buckets::default(), Uuid::now_v7(), Instant::now());
        assert_eq!(drain(&mut buckets, id, start), 400);
        buckets.settled(id, None, start);
        assert_eq!(drain(&mut buckets, id, after(start, 100)), 20);
    }

    #[test]
    fn principals_that_have_gone_are_forgotten() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let busy = Uuid::now_v7();
        let mut most = 0;
        for call in 0..50_000 {
            // A thousand new ones a second, each calling once, beside one that always calls.
            let now = after(start, call);
            let _ = buckets.take(busy, LIMIT, now);
            buckets.take(Uuid::now_v7(), LIMIT, now).expect("let in");
            most = most.max(buckets.buckets.len());
        }
        assert!(most <= 2 * FEW, "{most}");
        assert!(buckets.buckets.contains_key(&busy));
    }

    #[tokio::test]
    async fn a_call_never_waits_for_the_database() {
        let nowhere = virtualstack_store::Config { url: "host=/nowhere".to_owned(), ..Default::default() };
        let limits = Limits::new(Store::new(&nowhere).expect("a store"), &Config::default()).expect("limits");
        let id = Uuid::now_v7();
        let (passed, error) =
            (0..2000).find_map(|call| Some((call, limits.member(UserId(id)).err()?))).expect("refused");
        assert!(passed >= 400, "{passed}");
        assert_eq!(error.reason(), "RATE_LIMITED");
        // A guess cannot be counted without it, nor be right.
        let error = limits.account("login", "admin@example.com", None).await.expect_err("nobody counts");
        assert_eq!(error.reason(), "DATABASE_UNAVAILABLE");
    }

    #[test]
    fn limits_can_be_off_and_a_burst_of_nothing_is_refused() {
        let store = || Store::new(&virtualstack_store::Config::default()).expect("a store");
        let off = Config { calls_per_second: 0, calls_burst: 0, ..Config::default() };
        let limits = Limits::new(store(), &off).expect("limits");
        assert!((0..1000).all(|_| limits.member(UserId(Uuid::nil())).is_ok()));
        let error = Limits::new(store(), &Config { calls_burst: 0, ..Config::default() }).err().expect("refused");
        assert!(error.to_string().contains("server.calls_burst"), "{error}");
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        let store = Store::new(&virtualstack_store::Config::default()).expect("a store");
        let limits = Limits::new(store, &Config::default()).expect("limits");
        let key = |text: &str| limits.key("login", "a", Some(text.parse().expect("an address")));
        let same = |one: &str, other: &str| {
            let [one, other] = [one, other].map(key);
            one == other
        };
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff:1:2:3"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    }
}
