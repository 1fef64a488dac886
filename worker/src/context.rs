//! What a step works with: the store by its lease, the hypervisor, and the probe at each point where it can die.

use std::future::Future;
use std::sync::Arc;

use chrono::TimeDelta;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use virtualstack_model::id::{OperationId, VmId};
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::db::TxFn;
use virtualstack_store::operations::{self, Operation};
use virtualstack_store::vms::{self, Vm};
use virtualstack_store::{MasterKey, Store, TenantTx, Write};

use crate::adapters::hypervisor::Hypervisor;
use crate::adapters::mail::Mailer;
use crate::config::Config;
use crate::probe::{Point, Probe};

/// What every job of a worker shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
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

/// One step of one claimed job.
pub(crate) struct StepContext<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) lease: &'a Lease,
    /// "kind.step".
    pub(crate) label: String,
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

impl StepContext<'_> {
    pub(crate) fn hypervisor(&self) -> &dyn Hypervisor {
        self.shared.hypervisor.as_ref()
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

    /// Ends the step: what `f` writes and where the job stands then, in one fenced commit.
    pub(crate) async fn settle<S, F>(&self, transition: Transition<S>, f: F) -> Result<Settled<S>>
    where
        S: Serialize + Send + Sync,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<()> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<()>>,
    {
        let outcome = outcome(&transition)?;
        let probe = &self.shared.probe;
        self.shared
            .store
            .write_for_job(self.lease, &self.label, async |tx| {
                f(tx).await?;
                probe.pass(&self.label, Point::BeforeCommit).await;
                Ok(((), outcome.clone()))
            })
            .await?;
        probe.pass(&self.label, Point::AfterCommit).await;
        Ok(Settled(transition))
    }
}

fn outcome<S: Serialize>(transition: &Transition<S>) -> Result<Outcome> {
    let json = |step: &S| serde_json::to_value(step).map_err(Error::internal);
    Ok(match transition {
        Transition::Next(step) => Outcome::Next(json(step)?),
        Transition::Wait(step, delay) => Outcome::Wait(json(step)?, *delay),
        Transition::Done => Outcome::Done,
        Transition::GiveUp(error) => Outcome::Discard { error: error.clone() },
    })
}
