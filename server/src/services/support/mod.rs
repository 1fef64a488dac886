//! Tickets.

pub(crate) mod attachments;
mod download;
mod messages;
mod names;
mod stored;
pub(crate) mod tenant_attachments;
pub(crate) mod tenant_tickets;
pub(crate) mod tickets;
