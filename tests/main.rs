//! Tests over the whole system: real PostgreSQL, real sockets, the simulated hypervisor, and vcsim.

#![allow(clippy::print_stderr, reason = "tests tell whoever looks")]

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
