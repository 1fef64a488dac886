//! The schema: what the code believes of it, and the migrations that make it.

mod freshness;
mod migrations;
