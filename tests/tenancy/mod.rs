//! The fourth net: tests that fail when somebody forgets what keeps tenants apart.

pub(crate) mod calls;
mod classes;
mod isolation;
mod journal;
mod matrix;
mod policy;
mod revocation;
mod two_servers;
