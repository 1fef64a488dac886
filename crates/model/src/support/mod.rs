//! Tickets: what members ask of the provider.

pub mod id;
pub mod jobs;
pub mod ticket;
