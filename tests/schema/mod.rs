//! The schema: what the code believes of it, and the migrations that make it.

pub(crate) mod contract;
mod freshness;
mod lists;
mod migrations;
mod reasons;
