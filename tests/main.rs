//! Tests over the whole system: real PostgreSQL, real sockets, the simulated hypervisor, and vcsim.

mod adapters;
mod api;
mod architecture;
mod database;
mod limits;
mod listing;
mod processes;
mod schema;
mod support;
mod tenancy;
mod upgrade;
mod vm_lives;
mod watch;
mod workflows;
