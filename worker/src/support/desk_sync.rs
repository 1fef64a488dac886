//! Has tickets, and those of the provider's desk, say the same.
//!
//! - What it does: it sends what has changed here, and from time to time reads what has changed there. Both in one task, so that neither
//!   changes what the other goes by.
//! - What it must never do: see [`super::desk_send`] and [`super::desk_poll`].
//! - When it is activated: by its timer, `worker.desk_send_seconds`. It reads every `worker.desk_poll_seconds`.

use virtualstack_model::Result;
use virtualstack_model::support::jobs::DeskSync;
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk as store;

use super::{desk_poll, desk_send};
use crate::engine::task::{Next, Task, TaskContext};
use crate::reconciler::reconciler;

impl Task for DeskSync {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let Some(desk) = &context.shared.desk else { return Ok(Next::Done) };
        if let Err(problem) = desk_send::run(context, &**desk).await {
            return problem.next();
        }
        let name = desk.name().to_owned();
        let cursor = async |tx: &mut SystemTx| store::cursor(tx, &name).await;
        let cursor = context.store().system(reconciler(), cursor).await?;
        let polled_at = cursor.as_ref().map(|cursor| cursor.polled_at);
        if polled_at.is_some_and(|at| at + context.shared.config.desk_poll() > context.now()) {
            return Ok(Next::Done);
        }
        match desk_poll::run(context, &**desk, cursor.map(|cursor| cursor.read_until)).await {
            Ok(()) => Ok(Next::Done),
            Err(problem) => problem.next(),
        }
    }
}
