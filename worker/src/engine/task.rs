//! Jobs without an operation: mails, reconcilers, cleanups. A task runs under the same rules as a workflow's step: each write
//! is fenced, a try that fails is tried again with backoff, and the last try ends in the dead letter.
//!
//! A scheduled task is put in once, by whichever worker starts first; it has no leader, and any worker may take each run. Two
//! things activate it: its timer, and a signal ([`SystemTx::activate`]). It is never given up: where its tries end, its next
//! run is due by its timer as ever.

use std::fmt::Display;
use std::future::Future;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use virtualstack_model::jobs::Job;
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::tx::error::LEASE_LOST;
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{Store, SystemTx, TenantTx, Write};

use crate::engine::context::{CALL_LIMIT, Shared, stopped};
use crate::engine::probe::Point;

/// A job without an operation.
pub(crate) trait Task: Job {
    /// One try; it may run twice. An error is a try that failed.
    fn run(&self, context: &TaskContext<'_>) -> impl Future<Output = Result<Next>> + Send;
}

/// Where a task stands after a try.
#[derive(Debug)]
pub(crate) enum Next {
    /// There is nothing more to do: the job ends. A scheduled one waits for its timer.
    Done,
    /// The try failed: the next one comes when the claim's backoff says, and not before this long.
    Retry { error: String, after: Option<TimeDelta> },
    /// No other try would help.
    DeadLetter { error: String },
    /// It stands in a commit of the task's own.
    Committed(Committed),
}

/// Proof that a commit of the task's own has said where the job stands.
#[derive(Debug)]
pub(crate) struct Committed(());

/// What a task works with.
pub(crate) struct TaskContext<'a> {
    pub(crate) shared: &'a Shared,
    lease: &'a Lease,
    lost: &'a CancellationToken,
    /// How long a scheduled task waits between runs.
    every: Option<TimeDelta>,
}

impl TaskContext<'_> {
    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Which try it is, from 1.
    pub(crate) fn attempt(&self) -> i32 {
        self.lease.attempt
    }

    /// The time, by the database's clock.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.lease.clock.now()
    }

    /// Whether the worker stops, or another one has the job: a task of many parts begins none.
    pub(crate) fn ends(&self) -> bool {
        self.shared.stop.is_cancelled() || self.lost.is_cancelled()
    }

    /// Calls the outside. No transaction is open meanwhile.
    pub(crate) async fn call<T>(&self, step: &str, call: impl Future<Output = T>) -> T {
        let label = self.label(step);
        self.shared.probe.pass(&label, Point::BeforeCall).await;
        let result = call.await;
        self.shared.probe.pass(&label, Point::AfterCall).await;
        result
    }

    /// Calls the outside within bounds. A call that hangs is left alone in time; the error is for the operator.
    pub(crate) async fn ask<T, F: Display>(&self, call: impl Future<Output = Result<T, F>>) -> Result<T, String> {
        tokio::select! {
            done = tokio::time::timeout(CALL_LIMIT, call) => match done {
                Ok(answer) => answer.map_err(|fault| fault.to_string()),
                Err(late) => Err(late.to_string()),
            },
            () = stopped(&self.shared.stop) => Err("the worker stops".to_owned()),
            () = self.lost.cancelled() => Err("another worker has claimed the job".to_owned()),
        }
    }

    /// Writes across tenants, fenced; the task goes on.
    pub(crate) async fn commit<T, F>(&self, step: &str, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
    {
        self.write(step, Outcome::Stay, f).await
    }

    /// Writes across tenants, fenced; the try ends in the same commit.
    pub(crate) async fn end<F>(&self, step: &str, next: Next, f: F) -> Result<Next>
    where
        F: AsyncFn(&mut SystemTx) -> Result<()> + for<'r> TxFn<&'r mut SystemTx, Result<()>>,
    {
        let outcome = self.outcome(next)?;
        self.write(step, outcome, f).await?;
        Ok(Next::Committed(Committed(())))
    }

    /// Writes as the job's tenant, fenced; the task goes on.
    pub(crate) async fn commit_in_tenant<T, F>(&self, step: &str, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        self.write_in_tenant(step, Outcome::Stay, f).await
    }

    /// Writes as the job's tenant, fenced; the try ends in the same commit.
    pub(crate) async fn end_in_tenant<F>(&self, step: &str, next: Next, f: F) -> Result<Next>
    where
        F: AsyncFn(&mut TenantTx<Write>) -> Result<()> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<()>>,
    {
        let outcome = self.outcome(next)?;
        self.write_in_tenant(step, outcome, f).await?;
        Ok(Next::Committed(Committed(())))
    }

    async fn write<T, F>(&self, step: &str, outcome: Outcome, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
    {
        let (label, probe) = (self.label(step), &self.shared.probe);
        let written = self.store().system_for_job(self.lease, async |tx| {
            let value = f(tx).await?;
            probe.pass(&label, Point::BeforeCommit).await;
            Ok((value, outcome.clone()))
        });
        let value = written.await?;
        probe.pass(&label, Point::AfterCommit).await;
        Ok(value)
    }

    async fn write_in_tenant<T, F>(&self, step: &str, outcome: Outcome, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let (label, probe) = (self.label(step), &self.shared.probe);
        let written = self.store().write_for_job(self.lease, &label, async |tx| {
            let value = f(tx).await?;
            probe.pass(&label, Point::BeforeCommit).await;
            Ok((value, outcome.clone()))
        });
        let value = written.await?;
        probe.pass(&label, Point::AfterCommit).await;
        Ok(value)
    }

    fn outcome(&self, next: Next) -> Result<Outcome> {
        outcome(next, self.lease, self.every).ok_or_else(|| Error::internal("a try of a task ended twice".to_owned()))
    }

    /// "kind.step".
    fn label(&self, step: &str) -> String {
        format!("{}.{step}", self.lease.kind)
    }
}

/// Works on a claimed job: one try.
pub(crate) async fn run<T: Task>(
    shared: &Shared,
    lease: &Lease,
    lost: &CancellationToken,
    every: Option<TimeDelta>,
) -> Result<()> {
    let context = TaskContext { shared, lease, lost, every };
    let next = if lease.attempt > lease.max_attempts {
        let last = lease.last_error.as_deref().unwrap_or("the worker died each time");
        Next::DeadLetter { error: last.to_owned() }
    } else {
        match attempt::<T>(&context).await {
            Ok(next) => next,
            // Another worker has the job, and the last word.
            Err(error) if error.reason() == LEASE_LOST => return Ok(()),
            Err(error) => Next::Retry { error: with_causes(&error), after: None },
        }
    };
    match &next {
        Next::Done | Next::Committed(_) => {}
        Next::Retry { error, .. } => tracing::warn!(error, "the try of a task failed"),
        Next::DeadLetter { error } => tracing::error!(error, "the task is given up"),
    }
    match outcome(next, lease, every) {
        Some(outcome) => shared.store.system_for_job(lease, async |_| Ok(((), outcome.clone()))).await,
        None => Ok(()),
    }
}

async fn attempt<T: Task>(context: &TaskContext<'_>) -> Result<Next> {
    let task: T = serde_json::from_value(context.lease.payload.clone()).map_err(Error::internal)?;
    task.run(context).await
}

/// Where the job stands after a try; None where the task has committed that itself.
fn outcome(next: Next, lease: &Lease, every: Option<TimeDelta>) -> Option<Outcome> {
    let timer = |every| Outcome::Wait(json!({}), every);
    Some(match next {
        Next::Committed(_) => return None,
        Next::Done => every.map_or(Outcome::Done, timer),
        Next::Retry { error, after } if lease.attempt < lease.max_attempts => {
            Outcome::Retry { error, after, within: None }
        }
        Next::Retry { error, .. } | Next::DeadLetter { error } => every.map_or(Outcome::Discard { error }, timer),
    })
}

/// An error and what caused it, for the operator.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(attempt: i32) -> Lease {
        Lease {
            id: uuid::Uuid::nil(),
            kind: "kind".to_owned(),
            queue: "queue".to_owned(),
            group_key: "system".to_owned(),
            payload: json!({}),
            progress: None,
            token: 1,
            attempt,
            max_attempts: 3,
            overdue_seconds: 0.0,
            clock: virtualstack_queue::Clock::saying(chrono::Utc::now()),
            last_error: None,
            traceparent: None,
        }
    }

    fn failed() -> Next {
        Next::Retry { error: "no answer".to_owned(), after: Some(TimeDelta::seconds(5)) }
    }

    #[test]
    fn the_last_try_ends_in_the_dead_letter() {
        let (error, after) = ("no answer".to_owned(), Some(TimeDelta::seconds(5)));
        let retry = Outcome::Retry { error: error.clone(), after, within: None };
        for attempt in [1, 2] {
            assert_eq!(outcome(failed(), &claim(attempt), None), Some(retry.clone()), "try {attempt}");
        }
        let dead = Some(Outcome::Discard { error: error.clone() });
        for attempt in [3, 4] {
            assert_eq!(outcome(failed(), &claim(attempt), None), dead, "try {attempt}");
        }
        assert_eq!(outcome(Next::DeadLetter { error }, &claim(1), None), dead, "at once where no try would help");
    }

    #[test]
    fn a_scheduled_task_fails_and_ends_but_its_timer_goes_on() {
        let every = TimeDelta::seconds(60);
        let timer = Some(Outcome::Wait(json!({}), every));
        assert!(matches!(outcome(failed(), &claim(1), Some(every)), Some(Outcome::Retry { .. })));
        assert_eq!(outcome(failed(), &claim(3), Some(every)), timer);
        assert_eq!(outcome(Next::DeadLetter { error: String::new() }, &claim(9), Some(every)), timer);
        assert_eq!(outcome(Next::Done, &claim(1), Some(every)), timer);
        assert_eq!(outcome(Next::Done, &claim(1), None), Some(Outcome::Done));
    }

    #[test]
    fn what_a_task_has_committed_is_not_written_again() {
        assert_eq!(outcome(Next::Committed(Committed(())), &claim(1), None), None);
    }
}
