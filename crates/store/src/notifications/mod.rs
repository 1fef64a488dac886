//! What members are told personally.

pub mod broadcasts;
pub mod mails;
pub mod notices;
pub mod preferences;
pub mod sources;
pub mod unsubscribe;
