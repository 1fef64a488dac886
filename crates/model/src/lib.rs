//! What things are: ids, names, states and their legal transitions, errors, jobs' kinds and payloads.
//!
//! Nothing here does I/O or knows a transport: rules that are neither SQL nor gRPC are pure functions of this crate. The
//! ground comes first; each module uses the ground and the modules before it.

pub mod credential;
pub mod error;
pub mod filter;
pub mod id;
pub mod jobs;
pub mod language;
pub mod log;
pub mod name;
pub mod operation;
pub mod page;
mod sql;

pub mod iam;

pub mod compute;

pub mod support;

pub mod notifications;

pub use error::{Error, Result};
