//! Forgets what the ground keeps and nobody asks for any more: request ids, and jobs that are done.
//!
//! - What it does: it deletes old rows, of one table a task.
//! - What it must never do: delete a dead letter, which stays for the operator, or a job that some worker may still claim.
//! - When it is activated: by its timer, `worker.housekeeping_seconds`.

use chrono::TimeDelta;
use virtualstack_model::Result;
use virtualstack_model::jobs::{JobCleanup, RETIRED_QUEUES, RequestIdCleanup};
use virtualstack_store::{SystemTx, request_ids};

use crate::config::Config;
use crate::engine::registry::Registry;
use crate::engine::task::{Next, Task, TaskContext};

/// How long jobs that were completed are kept.
const JOB_MEMORY: TimeDelta = TimeDelta::days(7);

/// How long a job of an earlier version is due before it is clear that no worker of that version is left to claim it. Should
/// one start again, it puts its jobs in anew.
const LEFT_ALONE: TimeDelta = TimeDelta::hours(1);

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    let every = config.housekeeping();
    registry.scheduled::<RequestIdCleanup>(every).scheduled::<JobCleanup>(every);
}

impl Task for RequestIdCleanup {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        context.end("prune", Next::Done, async |tx| request_ids::prune(tx).await.map(drop)).await
    }
}

impl Task for JobCleanup {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let prune = async |tx: &mut SystemTx| {
            tx.prune_jobs(context.now() - JOB_MEMORY).await?;
            tx.prune_abandoned_jobs(RETIRED_QUEUES, context.now() - LEFT_ALONE).await.map(drop)
        };
        context.end("prune", Next::Done, prune).await
    }
}
