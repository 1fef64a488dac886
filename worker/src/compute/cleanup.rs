//! Forgets console tickets that have run out.
//!
//! - What it does: it deletes old rows.
//! - What it must never do: delete a ticket that can still be fetched.
//! - When it is activated: by its timer, `worker.housekeeping_seconds`.

use virtualstack_model::Result;
use virtualstack_model::compute::jobs::ConsoleTicketCleanup;
use virtualstack_store::compute::console_tickets;

use crate::engine::task::{Next, Task, TaskContext};

impl Task for ConsoleTicketCleanup {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        context.end("prune", Next::Done, async |tx| console_tickets::prune(tx).await.map(drop)).await
    }
}
