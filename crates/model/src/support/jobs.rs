//! Jobs of tickets.

use crate::jobs::scheduled_jobs;

scheduled_jobs! {
    /// Closes tickets that were resolved long ago.
    TicketClosing = "ticket_closing",
    /// Lets the provider's desk have what has changed of tickets.
    DeskSend = "desk_send",
    /// Reads what has changed in the provider's desk.
    DeskPoll = "desk_poll",
}
