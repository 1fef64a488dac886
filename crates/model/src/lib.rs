//! What things are: ids, names, states and their legal transitions, errors, jobs' kinds and payloads.
//!
//! Nothing here does I/O or knows a transport: rules that are neither SQL nor gRPC are pure functions of this crate.

pub mod access;
pub mod audit;
pub mod error;
pub mod filter;
pub mod id;
pub mod jobs;
pub mod operation;
pub mod page;
pub mod password;
pub mod quota;
pub mod snapshot;
mod sql;
pub mod template;
pub mod tenant;
pub mod user;
pub mod vm;

pub use error::{Error, Result};
