//! Tickets.

pub(crate) mod attachments;
pub(crate) mod desk_webhooks;
mod download;
mod messages;
mod names;
pub(crate) mod tenant_attachments;
pub(crate) mod tenant_tickets;
pub(crate) mod tickets;
