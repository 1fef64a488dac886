//! What members are told.

pub(crate) mod notices;
