//! Workflows, tasks, and the adapters to the outside.
//!
//! A job comes from the queue to [`engine::registry`], which runs its workflow step by step. A step reads in a short
//! transaction, calls the outside with none open, and writes in a short fenced one that also says which step is next.

pub mod adapters;
mod compute;
mod config;
mod engine;
mod iam;
mod periodic;
mod tenant_life;
mod worker;

pub use config::Config;
pub use engine::probe::{NoProbe, Point, Probe};
pub use worker::{Deps, Worker, bind};
