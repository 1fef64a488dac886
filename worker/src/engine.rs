//! Runs a workflow: a state machine whose steps are kept with the job, so that any worker goes on where one died.

use chrono::TimeDelta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use virtualstack_model::id::{OperationId, VmId};
use virtualstack_model::jobs::Job;
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::operations::{self, Failure};

use crate::context::{Settled, Shared, Snapshot, StepContext, Transition};
use crate::step_error::{StepError, code, failure};

/// A workflow of a VM operation.
pub(crate) trait Workflow: Job {
    /// Its states, kept as JSON with the job.
    type Step: Serialize + DeserializeOwned + Clone + Send + Sync;

    /// The VM it works on.
    fn vm(&self) -> VmId;

    /// The operation that the customer sees.
    fn operation(&self) -> OperationId;

    /// The first step.
    fn first(&self) -> Self::Step;

    /// Name of a step and how far the whole is, in percent.
    fn label(step: &Self::Step) -> (&'static str, i32);

    /// Does a step: short, may run twice, ends in a commit.
    fn step(
        &self,
        context: &StepContext<'_>,
        snapshot: Snapshot,
        step: Self::Step,
    ) -> impl Future<Output = Result<Settled<Self::Step>, StepError>> + Send;

    /// Where a failure, or a wish to cancel (none), leads; none where there is no way back.
    fn rollback(&self, step: &Self::Step, failure: Option<Failure>) -> Option<Self::Step>;

    /// Ends a workflow that can neither go on nor back: the tenant is told, the operator finds the job.
    fn give_up(
        &self,
        context: &StepContext<'_>,
        failure: Failure,
    ) -> impl Future<Output = Result<Settled<Self::Step>>> + Send;
}

/// Runs steps of a claimed job until it waits, ends, is taken away, or the worker stops.
pub(crate) async fn run<W: Workflow>(shared: &Shared, lease: &Lease, lost: &CancellationToken) -> Result<()> {
    let job: W = serde_json::from_value(lease.payload.clone()).map_err(Error::internal)?;
    let mut step = match &lease.progress {
        Some(progress) => serde_json::from_value(progress.clone()).map_err(Error::internal)?,
        None => job.first(),
    };
    let mut attempt = lease.attempt;
    loop {
        let (name, percent) = W::label(&step);
        let context = StepContext { shared, lease, label: format!("{}.{name}", W::KIND) };
        if shared.stop.is_cancelled() || lost.is_cancelled() {
            // Given back at once, for another worker to go on.
            context.settle(Transition::Wait(step, TimeDelta::zero()), async |_| Ok(())).await?;
            return Ok(());
        }
        let done = async {
            if attempt > lease.max_attempts {
                let last = lease.last_error.as_deref().unwrap_or("the worker died each time");
                tracing::warn!(last, "out of attempts");
                return Err(StepError::Fail(failure(
                    code::UNAVAILABLE,
                    "ATTEMPTS_EXHAUSTED",
                    "the hypervisor did not do it after many attempts; try again later or ask the provider",
                )));
            }
            let snapshot = context.snapshot(job.operation(), job.vm()).await?;
            if snapshot.operation.cancel_requested
                && let Some(back) = job.rollback(&step, None)
            {
                return Ok(context.settle(Transition::Next(back), async |_| Ok(())).await?);
            }
            if snapshot.operation.step != name {
                let id = job.operation();
                let progress = snapshot.operation.progress_percent.max(percent);
                let note = async |tx: &mut _| operations::progress(tx, id, name, progress).await;
                context.settle(Transition::Next(step.clone()), note).await?;
            }
            tracing::debug!(step = name, attempt, "step");
            job.step(&context, snapshot, step.clone()).await
        };
        let settled = match done.await {
            Ok(settled) => settled,
            Err(StepError::LeaseLost) => return Ok(()),
            Err(StepError::Retry { message, after }) => return retry(shared, lease, message, after).await,
            Err(
                StepError::Fail(failure)
                | StepError::Lost(failure)
                | StepError::PowerOff(failure)
                | StepError::Guest(failure),
            ) => {
                tracing::info!(step = name, reason = failure.reason, message = failure.message, "step failed");
                match job.rollback(&step, Some(failure.clone())) {
                    Some(back) => context.settle(Transition::Next(back), async |_| Ok(())).await?,
                    None => job.give_up(&context, failure).await?,
                }
            }
        };
        match settled.0 {
            Transition::Next(next) => (step, attempt) = (next, 1),
            Transition::Wait(..) | Transition::Done | Transition::GiveUp(_) => return Ok(()),
        }
    }
}

/// Leaves the step for a later try.
async fn retry(shared: &Shared, lease: &Lease, message: String, after: Option<std::time::Duration>) -> Result<()> {
    tracing::info!(message, "step will be retried");
    let after = after.and_then(|after| TimeDelta::from_std(after).ok());
    let outcome = Outcome::Retry { error: message, after };
    shared.store.write_for_job(lease, "retry", async |_| Ok(((), outcome.clone()))).await
}
