//! Forgets what identity and access keep and nobody asks for any more: password resets, sessions, rate limits.
//!
//! - What it does: it deletes old rows, of one table a task.
//! - What it must never do: end a session or a limit that still holds; it forgets only what is over already.
//! - When it is activated: by its timer, `worker.housekeeping_seconds`.

use chrono::TimeDelta;
use virtualstack_model::Result;
use virtualstack_model::iam::jobs::{PasswordResetCleanup, RateLimitCleanup, SessionCleanup};
use virtualstack_store::iam::{password_resets, rate_limits, sessions};

use crate::engine::task::{Next, Task, TaskContext};

/// How long ended sessions are remembered, and how many one run forgets at most.
const SESSION_MEMORY: TimeDelta = TimeDelta::days(30);
const SESSIONS: i64 = 1000;

impl Task for PasswordResetCleanup {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        context.end("prune", Next::Done, async |tx| password_resets::prune(tx).await.map(drop)).await
    }
}

impl Task for SessionCleanup {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let prune = async |tx: &mut _| sessions::prune(tx, context.now() - SESSION_MEMORY, SESSIONS).await;
        context.end("prune", Next::Done, prune).await
    }
}

impl Task for RateLimitCleanup {
    /// In a commit of its own: whoever calls under a limit may wait for these rows.
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        context.end("prune", Next::Done, async |tx| rate_limits::prune(tx).await.map(drop)).await
    }
}
