//! The module support as clients see it.

mod attachments;
mod tickets;
mod webhooks;
