//! Tickets: what members ask of the provider, and what its staff make of it.

pub mod attachments;
pub mod comments;
pub mod desk;
mod facts;
pub mod staff;
pub mod staff_comments;
pub mod staff_files;
pub mod tickets;
mod usage;
