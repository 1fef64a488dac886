//! What a caller was authenticated by.

use std::sync::Arc;

use crate::id::{ApiKeyId, SessionId};

/// What a caller was authenticated by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token of a session.
    Session(SessionId),
    /// An access token of an operator's session in a tenant that is not theirs.
    Support { session: SessionId, reason: Arc<str> },
    /// An API key, as it was when it was looked at.
    ApiKey {
        id: ApiKeyId,
        /// Which of its secrets was used, counted from the first.
        generation: i32,
        /// Version of the key's row.
        version: i64,
    },
}

impl Credential {
    /// The session, if it is one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Session(session) | Self::Support { session, .. } => Some(*session),
            Self::ApiKey { .. } => None,
        }
    }

    /// Full name of the session or key.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Session(session) | Self::Support { session, .. } => session.name(),
            Self::ApiKey { id, .. } => id.name(),
        }
    }

    /// Why an operator is in a tenant that is not theirs.
    #[must_use]
    pub fn support_reason(&self) -> Option<&str> {
        match self {
            Self::Support { reason, .. } => Some(reason),
            _ => None,
        }
    }
}
