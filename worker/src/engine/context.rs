//! What a step works with: the store by its lease, bounded calls of the outside, and the probe at each point where it can die.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use virtualstack_model::id::OperationId;
use virtualstack_model::{Error, Result};
use virtualstack_objects::Objects;
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::operations::{self, Failure, Operation};
use virtualstack_store::tx::error::LEASE_LOST;
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{MasterKey, Store, TenantTx, Write};

use crate::adapters::desk::Desk;
use crate::adapters::hypervisor::TaskRef;
use crate::adapters::hypervisor::hypervisors::Hypervisors;
use crate::adapters::hypervisor::import::{Attendance, Tasks};
use crate::adapters::mail::Mailer;
use crate::config::Config;
use crate::engine::probe::{Point, Probe};
use crate::engine::step_error::StepError;

/// What every job of a worker shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) hypervisors: Hypervisors,
    /// Where files of templates are kept.
    pub(crate) objects: Objects,
    /// Where tickets are answered; None where that is here.
    pub(crate) desk: Option<Arc<dyn Desk>>,
    /// Who answers there, as tenants see it.
    pub(crate) desk_staff_name: String,
    pub(crate) mailer: Arc<dyn Mailer>,
    /// What links in mails begin with.
    pub(crate) link_base: String,
    /// What console tickets and first-boot settings are sealed with.
    pub(crate) master_key: MasterKey,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) config: Arc<Config>,
    /// Cancelled when the worker shall stop: the next step boundary is the last.
    pub(crate) stop: CancellationToken,
}

/// The longest that one call of the outside may take. How such a call ended is not known; it is asked again.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(120);

/// How long a call still has when the worker is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How often a long call is looked after.
const LOOK: Duration = Duration::from_secs(1);

/// Progress that is worth recording, in percent: whoever watches the operation sees each.
const NOTED: i32 = 5;

/// One step of one claimed job.
pub(crate) struct StepContext<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) lease: &'a Lease,
    pub(crate) label: String,
    /// The operation that it is a step of.
    part: Option<Part<'a>>,
}

/// What a step knows of its operation.
struct Part<'a> {
    operation: OperationId,
    actor: String,
    step: &'static str,
    /// Where the step begins and ends, in percent of the operation.
    range: Range<i32>,
    /// How far the tenant sees it.
    noted: i32,
    /// Whether the operation has ended: an operator tries again what was given up.
    ended: bool,
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
    /// Nothing: the job is a dead letter, for the operator to see.
    DeadLetter(String),
}

impl<S> Transition<S> {
    /// The job is a dead letter, and says why.
    pub(crate) fn dead_letter(failure: &Failure) -> Self {
        Self::DeadLetter(format!("{}: {}", failure.reason, failure.message))
    }
}

/// Proof that a step has ended in a commit, and how.
pub(crate) struct Committed<S>(pub(crate) Transition<S>);

impl<'a> StepContext<'a> {
    /// A step of a job; `label` is "kind.step".
    pub(crate) fn new(shared: &'a Shared, lease: &'a Lease, label: String) -> Self {
        Self { shared, lease, label, part: None }
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
        let noted = operation.progress_percent.max(range.start);
        let ended = operation.state.is_done();
        Self { part: Some(Part { operation: id, actor, step, range, noted, ended, until, lost }), ..self }
    }

    /// Whether its operation has ended, so that this only brings to an end what was given up.
    pub(crate) fn has_ended(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.ended)
    }

    /// How long it may still take.
    pub(crate) fn left(&self) -> Option<TimeDelta> {
        self.part.as_ref().map(|part| (part.until - self.now()).max(TimeDelta::zero()))
    }

    /// The time, by the database's clock.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.lease.clock.now()
    }

    /// A pause, but not beyond its time.
    pub(crate) fn within(&self, pause: TimeDelta) -> TimeDelta {
        self.left().map_or(pause, |left| left.min(pause))
    }

    /// How long a workflow waits before it reads a task of the outside again.
    pub(crate) fn task_poll(&self) -> TimeDelta {
        TimeDelta::milliseconds(i64::from(self.shared.config.task_poll_ms))
    }

    /// Calls the outside. No transaction is open meanwhile.
    pub(crate) async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        self.shared.probe.pass(&self.label, Point::BeforeCall).await;
        let result = call.await;
        self.shared.probe.pass(&self.label, Point::AfterCall).await;
        result
    }

    /// Calls the outside within bounds. A call that hangs is abandoned in time, and so is one of a job that another worker
    /// has now.
    pub(crate) async fn ask<T, F, E>(&self, call: impl Future<Output = Result<T, F>>) -> Result<T, StepError<E>>
    where
        F: Into<StepError<E>>,
    {
        let limit = self.left().map_or(CALL_LIMIT, |left| left.to_std().unwrap_or_default().min(CALL_LIMIT));
        let bounded = async {
            tokio::select! {
                done = tokio::time::timeout(limit, call) => done.map_or_else(
                    |_| {
                        let message = format!("no answer in {} s; the outcome is unknown", limit.as_secs_f32());
                        Err(StepError::Retry { message, after: None })
                    },
                    |answer| answer.map_err(Into::into),
                ),
                () = lost(self.part.as_ref()) => Err(StepError::LeaseLost),
                () = stopped(&self.shared.stop) => {
                    Err(StepError::Retry { message: "the worker stops; the outcome is unknown".to_owned(), after: None })
                }
            }
        };
        self.call(bounded).await
    }

    /// Makes a call of the outside that may take hours: how far it is shows in the operation, and what it has begun is kept as
    /// the step that `begun` makes of it. None: somebody asked to cancel, and the call has ended for that.
    pub(crate) async fn attend<T, F, E, S>(
        &self,
        call: impl Future<Output = Result<T, F>>,
        attendance: &Attendance,
        mut tasks: Tasks,
        begun: impl Fn(TaskRef) -> S,
    ) -> Result<Option<Result<T, F>>, StepError<E>>
    where
        S: Serialize + Send + Sync,
    {
        self.shared.probe.pass(&self.label, Point::BeforeCall).await;
        tokio::pin!(call);
        let mut looks = tokio::time::interval(LOOK);
        let out_of_time = self.out_of_time();
        tokio::pin!(out_of_time);
        let mut noted = self.part.as_ref().map_or(0, |part| part.noted);
        let (why, after, cancelled) = loop {
            tokio::select! {
                // What is asked for comes before what is done, and is so from the first moment on.
                biased;
                () = lost(self.part.as_ref()) => return Err(StepError::LeaseLost),
                () = self.shared.stop.cancelled() => break ("the worker stops", Some(Duration::ZERO), false),
                () = &mut out_of_time => break ("out of time", None, false),
                Some((task, told)) = tasks.recv() => {
                    self.commit_step(Transition::Next(begun(task)), async |_| Ok(())).await?;
                    let _ = told.send(());
                }
                _ = looks.tick() => match self.look(attendance.percent(), &mut noted).await {
                    Ok(true) => break ("somebody asked to cancel", None, true),
                    Ok(false) => {}
                    Err(error) if error.reason() == LEASE_LOST => return Err(StepError::LeaseLost),
                    // The call does not need the database, and the claim is lost where it is gone for long.
                    Err(error) => tracing::debug!(%error, "cannot look after a long call"),
                },
                done = &mut call => {
                    self.shared.probe.pass(&self.label, Point::AfterCall).await;
                    return Ok(Some(done));
                }
            }
        };
        attendance.stop().cancel();
        match tokio::time::timeout(STOP_LIMIT, &mut call).await {
            Ok(Ok(done)) => Ok(Some(Ok(done))),
            Ok(Err(_)) if cancelled => Ok(None),
            _ => Err(StepError::Retry { message: why.to_owned(), after }),
        }
    }

    /// Ends when the step has failed at the latest.
    async fn out_of_time(&self) {
        match self.left() {
            Some(left) => tokio::time::sleep(left.to_std().unwrap_or_default()).await,
            None => std::future::pending().await,
        }
    }

    /// Notes how far a call is, and says whether somebody asked to cancel.
    async fn look(&self, percent: u8, noted: &mut i32) -> Result<bool> {
        let Some(part) = &self.part else { return Ok(false) };
        let Range { start, end } = part.range;
        let reached = start + (end - start) * i32::from(percent.min(100)) / 100;
        let grown = (reached >= *noted + NOTED).then_some(reached);
        let look = async |tx: &mut TenantTx<Write>| {
            if let Some(percent) = grown {
                operations::progress(tx, part.operation, part.step, percent).await?;
            }
            Ok((operations::is_cancelled(tx, part.operation).await?, Outcome::Stay))
        };
        let cancelled = self.shared.store.write_for_job(self.lease, &self.label, look).await?;
        *noted = grown.unwrap_or(*noted);
        Ok(cancelled)
    }

    /// Ends the step until a task of the outside is read again, and records how far it is.
    pub(crate) async fn wait<S>(&self, again: S, percent: Option<u8>) -> Result<Committed<S>>
    where
        S: Serialize + Send + Sync,
    {
        let grown = self.part.as_ref().and_then(|part| {
            let Range { start, end } = part.range;
            let reached = start + (end - start) * i32::from(percent?.min(100)) / 100;
            (reached >= part.noted + NOTED).then_some((part.operation, part.step, reached))
        });
        let note = async |tx: &mut _| match grown {
            Some((operation, step, percent)) => operations::progress(tx, operation, step, percent).await,
            None => Ok(()),
        };
        self.commit_step(Transition::Wait(again, self.within(self.task_poll())), note).await
    }

    /// Goes on with another step.
    pub(crate) async fn next<S: Serialize + Send + Sync>(&self, step: S) -> Result<Committed<S>> {
        self.commit_step(Transition::Next(step), async |_| Ok(())).await
    }

    /// Ends the step: what `f` writes and where the job stands then, in one fenced commit.
    pub(crate) async fn commit_step<S, F>(&self, transition: Transition<S>, f: F) -> Result<Committed<S>>
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
        Ok(Committed(transition))
    }

    fn outcome<S: Serialize>(&self, transition: &Transition<S>) -> Result<Outcome> {
        let json = |step: &S| serde_json::to_value(step).map_err(Error::internal);
        Ok(match transition {
            Transition::Next(step) => Outcome::Next(json(step)?),
            Transition::Wait(step, delay) => Outcome::Wait(json(step)?, *delay),
            Transition::Done => Outcome::Done,
            Transition::DeadLetter(error) => Outcome::Discard { error: error.clone() },
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
