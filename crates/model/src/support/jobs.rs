//! Jobs of tickets.

use crate::jobs::scheduled_jobs;

scheduled_jobs! {
    /// Closes tickets that were resolved long ago.
    TicketClosing = "ticket_closing",
    /// Has tickets, and those of the provider's desk, say the same.
    DeskSync = "desk_sync",
}
