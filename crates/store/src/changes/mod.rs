//! Readers of the change log: watches, event lists, and what servers are notified of.

pub mod events;
pub mod notify;
pub mod seen;
pub mod watch;
