//! What a step works with: the store by its lease, the hypervisor, and the probe at each point where it can die.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::id::OperationId;
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::operations::{self, Operation};
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{MasterKey, Store, TenantTx, Write};

use crate::adapters::hypervisor::hypervisors::Hypervisors;
use crate::adapters::hypervisor::{Fault, Hypervisor};
use crate::adapters::mail::Mailer;
use crate::config::Config;
use crate::engine::probe::{Point, Probe};
use crate::engine::step_error::StepError;

/// What every job of a worker shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) hypervisors: Hypervisors,
    pub(crate) mailer: Arc<dyn Mailer>,
    /// What links in mails begin with.
    pub(crate) link_base: String,
    /// What console tickets are sealed with.
    pub(crate) master_key: MasterKey,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) config: Arc<Config>,
    /// Cancelled when the worker shall stop: the next step boundary is the last.
    pub(crate) stop: CancellationToken,
}

/// The longest that one call of the hypervisor may take. How such a call ended is not known; it is asked again.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(120);

/// How long a call still has when the worker is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Progress that is worth telling, in percent: whoever watches the operation sees each.
const TOLD: i32 = 5;

/// One step of one claimed job.
pub(crate) struct StepContext<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) lease: &'a Lease,
    /// "kind.step".
    pub(crate) label: String,
    /// The operation that it is a step of.
    part: Option<Part<'a>>,
    /// Name of the hypervisor; empty where none is known.
    hypervisor: String,
}

/// What a step knows of its operation.
struct Part<'a> {
    operation: OperationId,
    /// Who asked for it.
    actor: String,
    step: &'static str,
    /// Where the step begins and ends, in percent of the operation.
    range: Range<i32>,
    /// What the tenant was told.
    told: i32,
    /// When the step has failed at the latest.
    until: DateTime<Utc>,
    /// Cancelled when somebody else has the job.
    lost: &'a CancellationToken,
}

/// What comes after a step.
#[derive(Clone, Debug)]
pub(crate) enum Transition<S> {
    /// The next step, at once.
    Next(S),
    /// The same or another step, after this long; the slot is given back.
    Wait(S, TimeDelta),
    /// Nothing: the workflow is done.
    Done,
    /// Nothing: the job is given up, for the operator to see.
    GiveUp(String),
}

/// Proof that a step has ended in a commit, and how.
pub(crate) struct Settled<S>(pub(crate) Transition<S>);

/// What a workflow sees of the database at a step boundary.
pub(crate) struct Snapshot {
    pub(crate) operation: Operation,
    /// None once it is removed.
    pub(crate) vm: Option<Vm>,
}

impl<'a> StepContext<'a> {
    /// A step of a job; `label` is "kind.step".
    pub(crate) fn new(shared: &'a Shared, lease: &'a Lease, label: String) -> Self {
        Self { shared, lease, label, part: None, hypervisor: String::new() }
    }

    /// The same, as a step of an operation that has to be over at a time.
    pub(crate) fn of(
        self,
        operation: &Operation,
        (step, range): (&'static str, Range<i32>),
        until: DateTime<Utc>,
        lost: &'a CancellationToken,
    ) -> Self {
        let (id, actor) = (operation.id, operation.actor.clone());
        let told = operation.progress_percent.max(range.start);
        Self { part: Some(Part { operation: id, actor, step, range, told, until, lost }), ..self }
    }

    /// The same, on a hypervisor.
    pub(crate) fn on(self, hypervisor: String) -> Self {
        Self { hypervisor, ..self }
    }

    /// How long it may still take.
    pub(crate) fn left(&self) -> Option<TimeDelta> {
        self.part.as_ref().map(|part| (part.until - Utc::now()).max(TimeDelta::zero()))
    }

    /// A pause, but not beyond its time.
    pub(crate) fn within(&self, pause: TimeDelta) -> TimeDelta {
        self.left().map_or(pause, |left| left.min(pause))
    }

    /// The hypervisor of what the operation works on.
    pub(crate) fn hypervisor(&self) -> Result<&dyn Hypervisor, Fault> {
        self.shared.hypervisors.of(&self.hypervisor)
    }

    /// How long a workflow waits before it asks a task again.
    pub(crate) fn task_poll(&self) -> TimeDelta {
        TimeDelta::milliseconds(i64::from(self.shared.config.task_poll_ms))
    }

    pub(crate) async fn snapshot(&self, operation: OperationId, vm: VmId) -> Result<Snapshot> {
        let read = self.shared.store.read_for_job(self.lease, async |tx| {
            Ok(Snapshot { operation: operations::get(tx, operation).await?, vm: vms::find(tx, vm).await? })
        });
        read.await
    }

    /// Calls the outside. No transaction is open meanwhile.
    pub(crate) async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        self.shared.probe.pass(&self.label, Point::BeforeCall).await;
        let result = call.await;
        self.shared.probe.pass(&self.label, Point::AfterCall).await;
        result
    }

    /// Asks the hypervisor. A call that hangs is left alone in time, and so is one of a job that somebody else has now.
    pub(crate) async fn ask<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<T, StepError> {
        let limit = self.left().map_or(CALL_LIMIT, |left| left.to_std().unwrap_or_default().min(CALL_LIMIT));
        let bounded = async {
            tokio::select! {
                done = tokio::time::timeout(limit, call) => done.map_or_else(
                    |_| {
                        let message = format!("no answer in {} s; the outcome is unknown", limit.as_secs_f32());
                        Err(StepError::Retry { message, after: None })
                    },
                    |answer| answer.map_err(StepError::from),
                ),
                () = lost(self.part.as_ref()) => Err(StepError::LeaseLost),
                () = stopped(&self.shared.stop) => {
                    Err(StepError::Retry { message: "the worker stops; the outcome is unknown".to_owned(), after: None })
                }
            }
        };
        self.call(bounded).await
    }

    /// Ends the step with a look at the hypervisor's task later, and tells how far it is.
    pub(crate) async fn wait<S>(&self, again: S, percent: Option<u8>) -> Result<Settled<S>>
    where
        S: Serialize + Send + Sync,
    {
        let grown = self.part.as_ref().and_then(|part| {
            let Range { start, end } = part.range;
            let reached = start + (end - start) * i32::from(percent?.min(100)) / 100;
            (reached >= part.told + TOLD).then_some((part.operation, part.step, reached))
        });
        let tell = async |tx: &mut _| match grown {
            Some((operation, step, percent)) => operations::progress(tx, operation, step, percent).await,
            None => Ok(()),
        };
        self.settle(Transition::Wait(again, self.within(self.task_poll())), tell).await
    }

    /// Goes on with another step.
    pub(crate) async fn next<S: Serialize + Send + Sync>(&self, step: S) -> Result<Settled<S>> {
        self.settle(Transition::Next(step), async |_| Ok(())).await
    }

    /// Ends the step: what `f` writes and where the job stands then, in one fenced commit.
    pub(crate) async fn settle<S, F>(&self, transition: Transition<S>, f: F) -> Result<Settled<S>>
    where
        S: Serialize + Send + Sync,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<()> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<()>>,
    {
        let outcome = self.outcome(&transition)?;
        let probe = &self.shared.probe;
        self.shared
            .store
            .write_for_job(self.lease, &self.label, async |tx| {
                self.part.iter().for_each(|part| tx.asked_by(&part.actor));
                f(tx).await?;
                probe.pass(&self.label, Point::BeforeCommit).await;
                Ok(((), outcome.clone()))
            })
            .await?;
        probe.pass(&self.label, Point::AfterCommit).await;
        Ok(Settled(transition))
    }

    fn outcome<S: Serialize>(&self, transition: &Transition<S>) -> Result<Outcome> {
        let json = |step: &S| serde_json::to_value(step).map_err(Error::internal);
        Ok(match transition {
            Transition::Next(step) => Outcome::Next(json(step)?),
            Transition::Wait(step, delay) => Outcome::Wait(json(step)?, *delay),
            Transition::Done => Outcome::Done,
            Transition::GiveUp(error) => Outcome::Discard { error: error.clone() },
        })
    }
}

/// Ends some time after the worker was told to stop: it waits for calls, but not for those that hang.
pub(crate) async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_LIMIT).await;
}

/// Ends when the job is somebody else's.
async fn lost(part: Option<&Part<'_>>) {
    match part {
        Some(part) => part.lost.cancelled().await,
        None => std::future::pending().await,
    }
}
