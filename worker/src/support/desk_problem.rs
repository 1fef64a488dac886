//! Why tickets and those of the desk do not say the same.

use chrono::TimeDelta;
use virtualstack_model::Error;
use virtualstack_store::tx::error::LEASE_LOST;

use crate::adapters::desk::{Class, Fault};
use crate::engine::task::Next;

/// What is in the way.
pub(super) enum Problem {
    /// Of ours.
    Here(Error),
    /// Of the desk's.
    Desk(Fault),
    /// It is too early for this ticket.
    Early(TimeDelta),
}

impl Problem {
    /// What is in the way of one ticket, in words for operators, or of all.
    pub(super) fn of_one(self) -> Result<Fault, Self> {
        match self {
            Self::Desk(Fault { class: Class::Busy(_), .. }) => Err(self),
            Self::Desk(fault) => Ok(fault),
            Self::Here(error) if error.reason() == LEASE_LOST => Err(Self::Here(error)),
            Self::Here(error) => {
                tracing::warn!(%error, "a ticket and its twin in the desk cannot be made the same");
                Ok(Fault { class: Class::Retry, message: "it cannot be read or written here".to_owned() })
            }
            Self::Early(after) => Err(Self::Early(after)),
        }
    }

    /// When the next try is due.
    pub(super) fn next(self) -> virtualstack_model::Result<Next> {
        match self {
            Self::Here(error) => Err(error),
            Self::Desk(Fault { class: Class::Busy(after), message }) => {
                Ok(Next::Retry { error: message, after: Some(after) })
            }
            Self::Desk(fault) => Ok(Next::Retry { error: fault.message, after: None }),
            Self::Early(_) => Ok(Next::Done),
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
