//! Workflows, periodic jobs, and the adapters to the outside.
//!
//! A job comes from the queue to [`dispatch`], which runs its workflow step by step. A step reads in a short
//! transaction, calls the outside with none open, and writes in a short fenced one that also says which step is next.

pub mod adapters;
mod config;
mod context;
mod dispatch;
mod engine;
mod mails;
mod periodic;
mod probe;
mod step_error;
mod tenant_purge;
mod worker;
mod workflows;

pub use config::Config;
pub use probe::{NoProbe, Point, Probe};
pub use worker::{Deps, Worker, bind};
