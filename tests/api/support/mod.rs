//! The module support as clients see it.

mod tickets;
