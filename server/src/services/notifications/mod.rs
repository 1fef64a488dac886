//! What members are told.

mod audience;
mod broadcast_messages;
pub(crate) mod broadcasts;
pub(crate) mod messages;
pub(crate) mod notices;
mod preferences;
pub(crate) mod tenant_broadcasts;
mod unsubscribe;
