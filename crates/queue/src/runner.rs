//! Runs jobs: claims as many as there are free slots, keeps their leases, and drains when asked to stop.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use uuid::Uuid;

use crate::claim::{self, Claim, Lease};

/// How long the database may take for a claim or a renewal. One that hangs cannot enforce its own time-outs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A clock that is further from the database's is told to the operator: it is wrong in the times that it writes elsewhere.
const SKEW: TimeDelta = TimeDelta::seconds(2);

/// Does the work of a claimed job, step by step, until it waits, ends or `lost` is cancelled.
pub trait Handler: Send + Sync + 'static {
    /// Works on one claim.
    fn handle(&self, lease: Lease, lost: CancellationToken) -> impl Future<Output = ()> + Send;
}

/// Settings of a runner.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to connect, as a role that may work on jobs. The runner holds two connections of its own: one that listens,
    /// one that claims and renews, so that a busy pool costs nobody a lease.
    pub url: String,
    pub queues: Vec<String>,
    /// Name of this worker, for operators.
    pub worker: String,
    /// Jobs at work at once.
    pub concurrency: usize,
    /// How many of them may be of one group.
    pub group_share: usize,
    /// How long a claim holds.
    pub lease: Duration,
    /// How often leases are renewed.
    pub heartbeat: Duration,
    /// How often to look without being woken.
    pub poll: Duration,
}

/// Jobs at work.
type Held = Arc<Mutex<HashMap<Uuid, AtWork>>>;

/// A job at work.
struct AtWork {
    token: i64,
    group_key: String,
    /// The signal that its lease is lost.
    lost: CancellationToken,
}

/// Claims jobs and hands them to a handler.
pub struct Runner<H> {
    config: Config,
    handler: Arc<H>,
    held: Held,
    wake: Arc<Notify>,
    /// Whether the operator was told that this machine's clock is off.
    told_of_skew: bool,
    /// Ends with the runner: who drops it without draining wants no step to go on.
    tasks: JoinSet<()>,
}

impl<H: Handler> Runner<H> {
    /// A runner; nothing happens before [`Self::run`].
    pub fn new(config: Config, handler: H) -> Self {
        Self {
            config,
            handler: Arc::new(handler),
            held: Held::default(),
            wake: Arc::new(Notify::new()),
            told_of_skew: false,
            tasks: JoinSet::new(),
        }
    }

    /// Runs until `stop`, then until the steps at work have ended. The database may come and go meanwhile.
    pub async fn run(mut self, stop: CancellationToken) {
        let (url, wake, until) = (self.config.url.clone(), Arc::clone(&self.wake), stop.clone());
        let listener =
            async move { crate::wake::listen(&url, &["virtualstack_jobs"], until, |_| wake.notify_one()).await };
        let _listener = AbortOnDropHandle::new(tokio::spawn(listener));
        let mut connection = None;
        let mut heartbeat = tokio::time::interval(self.config.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            // A database that hangs must not keep the worker from renewing and stopping.
            let round = tokio::time::timeout(PATIENCE, self.round(&mut connection)).await;
            let pause = round.unwrap_or_else(|late| Err(late.into())).unwrap_or_else(|error| {
                connection = None;
                tracing::warn!(%error, "cannot claim jobs; trying again");
                Duration::from_secs(1)
            });
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                _ = heartbeat.tick() => if let Err(error) = self.renew(&mut connection).await {
                    connection = None;
                    tracing::warn!(%error, "cannot renew leases; trying again");
                },
            }
        }
        while !self.tasks.is_empty() {
            tokio::select! {
                _ = self.tasks.join_next() => {}
                // Steps at work still hold their leases.
                _ = heartbeat.tick() => if self.renew(&mut connection).await.is_err() { connection = None },
            }
        }
    }

    /// Claims as many jobs as there are free slots, until there are no more; how long until it is worth another look.
    async fn round(&mut self, connection: &mut Option<AsyncPgConnection>) -> Result<Duration, Error> {
        while self.tasks.try_join_next().is_some() {}
        loop {
            let held_groups = self.held_groups();
            let claim = self.claim(&held_groups);
            if claim.limit == 0 {
                return Ok(self.config.poll);
            }
            let connection = connect(&self.config.url, connection).await?;
            let leases = claim::claim(connection, &claim).await?;
            let was_all = i64::try_from(leases.len()).is_ok_and(|claimed| claimed < claim.limit);
            if let Some(lease) = leases.first() {
                self.look_at_clock(lease);
            }
            leases.into_iter().for_each(|lease| self.start(lease));
            if was_all {
                let held_groups = self.held_groups();
                let due = claim::next_due(connection, &self.claim(&held_groups)).await?;
                return Ok(due.map_or(self.config.poll, |due| due.min(self.config.poll)));
            }
        }
    }

    /// The group of each job at work.
    fn held_groups(&self) -> Vec<String> {
        lock(&self.held).values().map(|job| job.group_key.clone()).collect()
    }

    /// What this runner asks for while it holds jobs of these groups.
    fn claim<'a>(&'a self, held_groups: &'a [String]) -> Claim<'a> {
        let number = |slots: usize| i64::try_from(slots).unwrap_or(i64::MAX);
        Claim {
            queues: &self.config.queues,
            limit: number(self.config.concurrency.saturating_sub(held_groups.len())),
            worker: &self.config.worker,
            lease_ms: millis(self.config.lease),
            group_share: number(self.config.group_share),
            held_groups,
        }
    }

    /// Tells the operator once when this machine's clock goes wrong, and once when it is right again.
    fn look_at_clock(&mut self, lease: &Lease) {
        let skew = lease.clock.skew();
        let off = skew.abs() > SKEW;
        if off && !self.told_of_skew {
            let seconds = skew.as_seconds_f64();
            tracing::warn!(
                seconds,
                "this machine's clock is ahead of the database's, which decides; check its time service"
            );
        } else if !off && self.told_of_skew {
            tracing::info!("this machine's clock agrees with the database's again");
        }
        self.told_of_skew = off;
    }

    fn start(&mut self, lease: Lease) {
        metrics::counter!("virtualstack_jobs_claimed_total", "kind" => lease.kind.clone()).increment(1);
        let lost = CancellationToken::new();
        lock(&self.held)
            .insert(lease.id, AtWork { token: lease.token, group_key: lease.group_key.clone(), lost: lost.clone() });
        let (handler, held, wake) = (Arc::clone(&self.handler), Arc::clone(&self.held), Arc::clone(&self.wake));
        let traceparent = lease.traceparent.as_deref();
        let span = tracing::info_span!("job", id = %lease.id, kind = lease.kind, attempt = lease.attempt, traceparent);
        self.tasks.spawn(
            async move {
                // The slot and the lease go back whatever happens to the handler.
                let _slot = Slot { held, wake, id: lease.id, token: lease.token };
                handler.handle(lease, lost).await;
            }
            .instrument(span),
        );
    }

    async fn renew(&self, connection: &mut Option<AsyncPgConnection>) -> Result<(), Error> {
        let held: Vec<_> = lock(&self.held).iter().map(|(id, job)| (*id, job.token)).collect();
        if held.is_empty() {
            return Ok(());
        }
        let renewing = async {
            let connection = connect(&self.config.url, connection).await?;
            Ok::<_, Error>(claim::renew(connection, &held, millis(self.config.lease)).await?)
        };
        let kept = tokio::time::timeout(PATIENCE, renewing).await??;
        for (id, token) in held {
            if !kept.contains(&id)
                && let Some(job) = lock(&self.held).get(&id)
                && job.token == token
            {
                // Either it was settled this moment, or somebody else has it; the fence tells, this only saves work.
                job.lost.cancel();
            }
        }
        Ok(())
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A slot at work; dropped when the handler has ended, also by a panic.
struct Slot {
    held: Held,
    wake: Arc<Notify>,
    id: Uuid,
    token: i64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if held.get(&self.id).is_some_and(|job| job.token == self.token) {
            held.remove(&self.id);
        }
        drop(held);
        self.wake.notify_one();
    }
}

fn lock(held: &Held) -> std::sync::MutexGuard<'_, HashMap<Uuid, AtWork>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

async fn connect<'c>(
    url: &str,
    connection: &'c mut Option<AsyncPgConnection>,
) -> Result<&'c mut AsyncPgConnection, Error> {
    if connection.is_none() {
        *connection = Some(AsyncPgConnection::establish(url).await?);
    }
    connection.as_mut().ok_or_else(|| "no connection".into())
}
