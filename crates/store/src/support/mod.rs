//! Tickets: what members ask of the provider, and what its staff make of it.

pub mod attachments;
pub mod comments;
mod facts;
pub mod staff;
pub mod tickets;
mod usage;
