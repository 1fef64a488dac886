//! What members are told personally.

pub mod notices;
pub mod sources;
