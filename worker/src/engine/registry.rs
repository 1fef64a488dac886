//! From a job's kind to what does it. Each module registers its kinds, one line a kind.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Handler, Lease};
use virtualstack_store::{Store, SystemTx};

use crate::engine::context::Shared;
use crate::engine::run::{self, Workflow};
use crate::engine::task::{self, Task};

type Done<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Works on a claimed job.
type Work = for<'a> fn(&'a Shared, &'a Lease, &'a CancellationToken, Option<TimeDelta>) -> Done<'a>;

/// Puts in the job of a scheduled kind, unless it is there.
type Put = for<'a> fn(&'a mut SystemTx) -> Done<'a>;

/// A kind of job.
pub(crate) struct Kind {
    queue: &'static str,
    work: Work,
    schedule: Option<Schedule>,
}

/// When a scheduled kind is activated: first when it is put in, then by its timer.
struct Schedule {
    every: TimeDelta,
    put: Put,
}

/// Every kind of job that this worker can do.
#[derive(Default)]
pub(crate) struct Registry(BTreeMap<&'static str, Kind>);

impl Registry {
    /// A workflow of an operation.
    pub(crate) fn workflow<W: Workflow>(&mut self) -> &mut Self {
        let work: Work = |shared, lease, lost, _| Box::pin(run::run::<W>(shared, lease, lost));
        self.add(W::KIND, Kind { queue: W::QUEUE, work, schedule: None })
    }

    /// A task that somebody puts in when there is something to do.
    pub(crate) fn task<T: Task>(&mut self) -> &mut Self {
        self.add(T::KIND, Kind { queue: T::QUEUE, work: work_on::<T>, schedule: None })
    }

    /// A task that runs as often as this, and when somebody activates it.
    pub(crate) fn scheduled<T: Task + Default>(&mut self, every: TimeDelta) -> &mut Self {
        let schedule = Some(Schedule { every, put: put_in::<T> });
        self.add(T::KIND, Kind { queue: T::QUEUE, work: work_on::<T>, schedule })
    }

    /// The same, for one that each start of a worker activates too.
    pub(crate) fn scheduled_and_on_start<T: Task + Default>(&mut self, every: TimeDelta) -> &mut Self {
        let schedule = Some(Schedule { every, put: put_in_and_activate::<T> });
        self.add(T::KIND, Kind { queue: T::QUEUE, work: work_on::<T>, schedule })
    }

    fn add(&mut self, name: &'static str, kind: Kind) -> &mut Self {
        let before = self.0.insert(name, kind);
        debug_assert!(before.is_none(), "jobs of kind {name} are registered twice");
        self
    }

    /// Queues that its kinds wait in.
    pub(crate) fn queues(&self) -> BTreeSet<&'static str> {
        self.0.values().map(|kind| kind.queue).collect()
    }

    /// Puts in the scheduled jobs, unless they are there.
    pub(crate) async fn schedule(&self, store: &Store) -> Result<()> {
        let put = store.system(crate::reconciler::reconciler(), async |tx| {
            for schedule in self.0.values().filter_map(|kind| kind.schedule.as_ref()) {
                (schedule.put)(tx).await?;
            }
            Ok(())
        });
        put.await
    }

    /// Every kind, with the queue that it waits in.
    #[cfg(test)]
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.0.iter().map(|(name, kind)| (*name, kind.queue))
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Kind> {
        let unknown = || Error::internal(format!("no worker of this version knows jobs of kind {name}"));
        self.0.get(name).ok_or_else(unknown)
    }
}

fn work_on<'a, T: Task>(
    shared: &'a Shared,
    lease: &'a Lease,
    lost: &'a CancellationToken,
    every: Option<TimeDelta>,
) -> Done<'a> {
    Box::pin(task::run::<T>(shared, lease, lost, every))
}

fn put_in<T: Task + Default>(tx: &mut SystemTx) -> Done<'_> {
    Box::pin(async { tx.schedule(&T::default()).await })
}

fn put_in_and_activate<T: Task + Default>(tx: &mut SystemTx) -> Done<'_> {
    Box::pin(async {
        tx.schedule(&T::default()).await?;
        tx.activate::<T>().await
    })
}

/// Hands claimed jobs to what does them.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) registry: Arc<Registry>,
    pub(crate) shared: Shared,
}

impl Dispatcher {
    async fn work(&self, lease: &Lease, lost: &CancellationToken) -> Result<()> {
        let kind = self.registry.find(&lease.kind)?;
        let every = kind.schedule.as_ref().map(|schedule| schedule.every);
        (kind.work)(&self.shared, lease, lost, every).await
    }
}

impl Handler for Dispatcher {
    async fn handle(&self, lease: Lease, lost: CancellationToken) {
        if let Err(error) = self.work(&lease, &lost).await {
            // The lease runs out, and somebody tries again.
            tracing::warn!(
                source = std::error::Error::source(&error).map(ToString::to_string),
                "job interrupted: {error}"
            );
        }
    }
}
