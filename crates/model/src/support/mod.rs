//! Tickets: what members ask of the provider.

pub mod attachment;
pub mod id;
pub mod jobs;
pub mod ticket;
