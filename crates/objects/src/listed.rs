//! An object in a list.

use chrono::{DateTime, Utc};

use crate::key::Key;

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: Key,
    pub size: u64,
    /// When it was last put, by the store's clock.
    pub modified: DateTime<Utc>,
}
