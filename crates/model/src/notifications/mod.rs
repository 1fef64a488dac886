//! What members are told.

pub mod id;
pub mod jobs;
pub mod kind;
