//! Tickets.

mod messages;
pub(crate) mod tenant_tickets;
pub(crate) mod tickets;
