//! Closes tickets that were resolved long ago.
//!
//! - What it does: a ticket that is RESOLVED longer than `worker.ticket_close_seconds` becomes CLOSED.
//! - What it must never do: close one that was opened again since it was found; so it looks again under the ticket's lock.
//! - When it is activated: by its timer, `worker.housekeeping_seconds`.

use virtualstack_model::Result;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::jobs::TicketClosing;
use virtualstack_model::support::ticket::TicketState;
use virtualstack_store::support::staff;
use virtualstack_store::support::tickets::{self, Event, Visible};
use virtualstack_store::{TenantTx, Write};

use crate::engine::task::{Next, Task, TaskContext};
use crate::reconciler::reconciler;

/// Tickets that one run closes at most; the next run goes on.
const TICKETS: i64 = 200;

impl Task for TicketClosing {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let before = context.now() - context.shared.config.ticket_close();
        let due = async |tx: &mut _| staff::resolved_before(tx, before, TICKETS).await;
        for (tenant, ticket) in context.store().system(reconciler(), due).await? {
            if let Err(error) = close(context, tenant, ticket).await {
                tracing::warn!(%error, %ticket, "cannot close a ticket that was resolved long ago");
            }
        }
        Ok(Next::Done)
    }
}

async fn close(context: &TaskContext<'_>, tenant: TenantId, id: TicketId) -> Result<()> {
    let due = context.now() - context.shared.config.ticket_close();
    let close = async |tx: &mut TenantTx<Write>| {
        let before = tickets::lock(tx, Visible::All, id).await?;
        tx.audit_resource(id.name());
        if before.state != TicketState::Resolved || before.resolved_at.is_none_or(|at| at > due) {
            return Ok(());
        }
        let mut ticket = before.clone();
        ticket.enter(TicketState::Closed);
        let event = Event::new("TICKET_CLOSED", "The ticket was closed, as it was resolved long ago");
        tickets::update(tx, &before, &mut ticket, event, None).await
    };
    context.store().write_as_system(&reconciler(), tenant, "ticket_closing", close).await
}
