//! Workflows, tasks, and the adapters to the outside.
//!
//! A job comes from the queue to [`engine::registry`], which knows what does its kind: a workflow, step by step, or a task,
//! try by try. Each reads in a short transaction, calls the outside with none open, and writes in a short fenced one that also
//! says where the job stands then.

pub mod adapters;
mod compute;
mod config;
mod engine;
mod iam;
pub mod notifications;
mod object_sweep;
mod reconciler;
mod support;
mod tenant_life;
mod worker;

pub use config::Config;
pub use engine::probe::{NoProbe, Point, Probe};
pub use worker::{Deps, Worker, bind};
