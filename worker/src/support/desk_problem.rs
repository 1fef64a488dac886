//! Why tickets and those of the desk do not say the same.

use virtualstack_model::{Error, Result};

use crate::adapters::desk::{Class, Fault};
use crate::engine::task::Next;

/// What is in the way.
pub(super) enum Problem {
    /// Of ours.
    Here(Error),
    /// Of the desk's.
    Desk(Fault),
}

impl Problem {
    /// When the next try is due.
    pub(super) fn next(self) -> Result<Next> {
        match self {
            Self::Here(error) => Err(error),
            Self::Desk(Fault { class: Class::Busy(after), message }) => {
                Ok(Next::Retry { error: message, after: Some(after) })
            }
            Self::Desk(fault) => Ok(Next::Retry { error: fault.message, after: None }),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Desk(fault)
    }
}
