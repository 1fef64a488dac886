//! The queue on a PostgreSQL of its tests' own, in one database: each test has a queue that nobody else uses.

mod claims;
mod outcomes;
mod runner;
mod support;
