//! What members are told.

mod messages;
pub(crate) mod notices;
mod preferences;
mod unsubscribe;
