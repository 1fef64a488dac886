//! Tests over the whole system: real PostgreSQL, real sockets, the simulated hypervisor, and vcsim.

mod adapters;
mod api;
mod architecture;
mod listing;
mod machine;
mod roles;
mod schema;
mod support;
mod tenancy;
mod watch;
mod workflows;
