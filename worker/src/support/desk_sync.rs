//! Has tickets, and those of the provider's desk, say the same.
//!
//! - What it does: from time to time it reads what has changed there, and it sends what has changed here. Both in one task, so that
//!   neither changes what the other goes by.
//! - What it must never do: see [`super::desk_send`] and [`super::desk_poll`].
//! - When it is activated: by its timer, `worker.desk_send_seconds`, and by a hint of the desk. It reads every
//!   `worker.desk_poll_seconds`, and sooner after a hint.

use virtualstack_model::Result;
use virtualstack_model::support::jobs::DeskSync;
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk as store;

use super::desk_problem::Problem;
use super::{desk_poll, desk_send};
use crate::adapters::desk::{Class, Desk, Fault};
use crate::engine::task::{Next, Task, TaskContext};
use crate::reconciler::reconciler;

impl Task for DeskSync {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let Some(desk) = &context.shared.desk else { return Ok(Next::Done) };
        // It reads first: however much there is to send, answers come.
        let read = read(context, &**desk).await;
        if let Err(problem @ (Problem::Here(_) | Problem::Desk(Fault { class: Class::Busy(_), .. }))) = read {
            return problem.next();
        }
        let sent = desk_send::run(context, &**desk).await;
        read.and(sent).map_or_else(Problem::next, |()| Ok(Next::Done))
    }
}

/// Reads what has changed, where that is due.
async fn read(context: &TaskContext<'_>, desk: &dyn Desk) -> Result<(), Problem> {
    let name = desk.name().to_owned();
    let cursor = async |tx: &mut SystemTx| store::cursor(tx, &name).await;
    let cursor = context.store().system(reconciler(), cursor).await?;
    let is_early = |cursor: &store::Cursor| {
        let asked = cursor.asked_at.is_some_and(|at| at > cursor.polled_at);
        // However often the desk says so.
        let pause = if asked { context.shared.config.desk_send() } else { context.shared.config.desk_poll() };
        !cursor.cut && cursor.polled_at + pause > context.now()
    };
    if cursor.as_ref().is_some_and(is_early) {
        return Ok(());
    }
    desk_poll::run(context, desk, cursor).await
}
