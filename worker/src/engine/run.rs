//! Runs a workflow: a state machine whose steps are kept with the job, so that any worker goes on where one died.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use virtualstack_model::id::OperationId;
use virtualstack_model::jobs::OperationJob;
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::operations::{self, Failure, Operation};
use virtualstack_store::{Read, TenantTx, Write};

use crate::engine::context::{Committed, Shared, StepContext, Transition};
use crate::engine::step_error::{StepError, code, failure};

/// How long the rollback of an operation may take, from the operation's deadline or from when the rollback began, if that was
/// later. Then its job is a dead letter.
pub(crate) const ROLLBACK_GRACE: TimeDelta = TimeDelta::minutes(15);

/// Why a job whose operation has ended, and which an operator tries again, has to wait.
const SUPERSEDED: &str = "OPERATION_IN_PROGRESS";

/// A job that was due for longer was left alone: no worker was there. Its extra time begins anew, so that no job becomes a
/// dead letter before it has read what there is.
const LEFT_ALONE_SECONDS: f64 = 60.0;

/// What does an operation, step by step.
pub(crate) trait Workflow: OperationJob {
    /// Its states, kept as JSON with the job.
    type Step: Serialize + DeserializeOwned + Clone + Send + Sync;

    /// What it works on, as the database has it at a step boundary.
    type Subject: Send;

    /// What its steps may have a way around; where they have none, that is why the operation failed.
    type Error: Into<Failure> + Send;

    /// Reads what it works on.
    fn load(&self, tx: &mut TenantTx<Read>) -> impl Future<Output = Result<Self::Subject>> + Send;

    /// The first step.
    fn first(&self) -> Self::Step;

    /// Name of a step, and how far the whole is where it begins and ends, in percent.
    fn label(step: &Self::Step) -> (&'static str, Range<i32>);

    /// Does a step: short, may run twice, ends in a commit.
    fn step(
        &self,
        context: &StepContext<'_>,
        subject: Self::Subject,
        step: Self::Step,
    ) -> impl Future<Output = Result<Committed<Self::Step>, StepError<Self::Error>>> + Send;

    /// The rollback that a failure leads to, or a wish to cancel (None); None where there is no rollback, and for a wish to
    /// cancel what is done. What is found to be done after a rollback from such a wish ends as done.
    fn rollback(&self, step: &Self::Step, failure: Option<Failure>) -> Option<Self::Step>;

    /// Ends a workflow that can neither go on nor roll back: the tenant sees why, the operator finds the job.
    fn dead_letter(
        &self,
        context: &StepContext<'_>,
        failure: Failure,
    ) -> impl Future<Output = Result<Committed<Self::Step>>> + Send;
}

/// Runs steps of a claimed job until it waits, ends, is taken away, or the worker stops.
pub(crate) async fn run<W: Workflow>(shared: &Shared, lease: &Lease, lost: &CancellationToken) -> Result<()> {
    let job: W = serde_json::from_value(lease.payload.clone()).map_err(Error::internal)?;
    let mut step = lease.progress.as_ref().map_or_else(
        || job.first(),
        |progress| {
            serde_json::from_value(progress.clone()).unwrap_or_else(|error| {
                // Of another version, say. Steps may run twice, so the first one is a place to go on from.
                tracing::warn!(%error, %progress, "no such step; beginning again");
                job.first()
            })
        },
    );
    let mut attempt = lease.attempt;
    loop {
        let (name, range) = W::label(&step);
        let mut context = StepContext::new(shared, lease, format!("{}.{name}", W::KIND));
        if shared.stop.is_cancelled() || lost.is_cancelled() {
            // Given back at once, for another worker to go on. It must know of earlier attempts: then the lease runs out.
            if attempt == 1 {
                context.commit_step(Transition::Wait(step, TimeDelta::zero()), async |_| Ok(())).await?;
            }
            return Ok(());
        }
        let read = shared.store.read_for_job(lease, async |tx| {
            let operation = operations::get(tx, job.operation()).await?;
            if operation.state.is_done() && operations::holder(tx, &operation).await?.is_some() {
                return Err(Error::aborted(SUPERSEDED, "another operation is at work on it"));
            }
            Ok((operation, job.load(tx).await?))
        });
        let done = match read.await {
            Ok((operation, subject)) => {
                let until = until(&job, &step, &operation);
                context = context.of(&operation, (name, range), until, lost);
                advance(&job, &context, (operation, subject), &step, attempt).await
            }
            Err(error) => Err(error.into()),
        };
        let failure = match done {
            Ok(Committed(Transition::Next(next))) => {
                (step, attempt) = (next, 1);
                continue;
            }
            Ok(_) | Err(StepError::LeaseLost) => return Ok(()),
            Err(StepError::Retry { message, after }) => return retry(&context, &job, &step, message, after).await,
            Err(StepError::Fail(failure)) => failure,
            Err(StepError::Own(error)) => error.into(),
        };
        tracing::info!(step = name, reason = failure.reason, message = failure.message, "step failed");
        let committed = match job.rollback(&step, Some(failure.clone())) {
            Some(back) => roll_back(&context, job.operation(), back, attempt).await?,
            None => job.dead_letter(&context, failure).await?,
        };
        match committed.0 {
            Transition::Next(next) => (step, attempt) = (next, 1),
            Transition::Wait(..) | Transition::Done | Transition::DeadLetter(_) => return Ok(()),
        }
    }
}

/// Does a step, unless its time is over or somebody wants to cancel.
async fn advance<W: Workflow>(
    job: &W,
    context: &StepContext<'_>,
    (operation, subject): (Operation, W::Subject),
    step: &W::Step,
    attempt: i32,
) -> Result<Committed<W::Step>, StepError<W::Error>> {
    if context.left().is_some_and(|left| left.is_zero()) {
        // An operator who tries again what was given up wants it to be tried.
        let again = operation.state.is_done() && attempt == 1;
        if !has_rollback(job, step) && (again || context.lease.overdue_seconds > LEFT_ALONE_SECONDS) {
            let id = job.operation();
            let begin = async |tx: &mut _| operations::begin_grace(tx, id).await;
            return Ok(context.commit_step(Transition::Next(step.clone()), begin).await?);
        }
        let last = context.lease.last_error.as_deref().unwrap_or("it was still at work");
        tracing::warn!(last, "out of time");
        return Err(StepError::Fail(failure(
            code::DEADLINE_EXCEEDED,
            "OPERATION_TIMED_OUT",
            "the hypervisor did not do it in time; try again later or ask the provider",
        )));
    }
    if attempt > context.lease.max_attempts {
        let last = context.lease.last_error.as_deref().unwrap_or("the worker died each time");
        tracing::warn!(last, "out of attempts");
        return Err(StepError::Fail(failure(
            code::UNAVAILABLE,
            "ATTEMPTS_EXHAUSTED",
            "the hypervisor did not do it after many attempts; try again later or ask the provider",
        )));
    }
    if operation.cancel_requested
        && let Some(back) = job.rollback(step, None)
    {
        return Ok(roll_back(context, job.operation(), back, attempt).await?);
    }
    let (name, range) = W::label(step);
    if operation.step != name {
        let id = job.operation();
        let progress = operation.progress_percent.max(range.start);
        let note = async |tx: &mut _| operations::progress(tx, id, name, progress).await;
        context.commit_step(Transition::Next(step.clone()), note).await?;
    }
    tracing::debug!(step = name, attempt, "step");
    job.step(context, subject, step.clone()).await
}

/// Goes on with the rollback. The call of an earlier attempt, of a worker that died or lost its lease, may still be on its
/// way: it gets as long as a claim holds to arrive, so that nothing comes to be behind the back of who looks for it.
async fn roll_back<S>(context: &StepContext<'_>, id: OperationId, back: S, attempt: i32) -> Result<Committed<S>>
where
    S: Serialize + Send + Sync,
{
    let arrive = TimeDelta::milliseconds(i64::from(context.shared.config.lease_ms));
    let transition = if attempt == 1 { Transition::Next(back) } else { Transition::Wait(back, arrive) };
    context.commit_step(transition, async |tx: &mut _| operations::begin_grace(tx, id).await).await
}

/// When a step has failed at the latest: at the operation's deadline, or, where it has no rollback, when its extra time is
/// over.
fn until<W: Workflow>(job: &W, step: &W::Step, operation: &Operation) -> DateTime<Utc> {
    match has_rollback(job, step) {
        true => operation.deadline_at,
        false => {
            operation.grace_from.map_or(operation.deadline_at, |at| at.max(operation.deadline_at)) + ROLLBACK_GRACE
        }
    }
}

/// Whether a failure at this step leads to a rollback.
fn has_rollback<W: Workflow>(job: &W, step: &W::Step) -> bool {
    job.rollback(step, Some(failure(code::DEADLINE_EXCEEDED, "", ""))).is_some()
}

/// Leaves the step for a later try, before its time is over; for one at once where somebody asked to cancel meanwhile, who
/// could not wake a job that was at work.
async fn retry<W: Workflow>(
    context: &StepContext<'_>,
    job: &W,
    step: &W::Step,
    message: String,
    after: Option<Duration>,
) -> Result<()> {
    tracing::info!(message, "step will be retried");
    let after = after.and_then(|after| TimeDelta::from_std(after).ok());
    let rolls_back = job.rollback(step, None).is_some();
    let retry = async |tx: &mut TenantTx<Write>| {
        let cancelled = rolls_back && operations::is_cancelled(tx, job.operation()).await?;
        let within = if cancelled { Some(TimeDelta::zero()) } else { context.left() };
        Ok(((), Outcome::Retry { error: message.clone(), after, within }))
    };
    context.shared.store.write_for_job(context.lease, "retry", retry).await
}
