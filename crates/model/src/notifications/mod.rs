//! What members are told.

pub mod broadcast;
pub mod id;
pub mod jobs;
pub mod kind;
