//! How a step can fail, and what the engine does about it. The adapter and the store classify; workflows do not guess.

use std::time::Duration;

use virtualstack_model::Error;
use virtualstack_store::operations::Failure;
use virtualstack_store::tx::error::LEASE_LOST;

use crate::adapters::hypervisor::{Fault, FaultClass};

/// How a step can fail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// Nothing is lost; the same step again, later.
    #[error("{message}")]
    Retry {
        /// For the operator.
        message: String,
        /// Not before this long.
        after: Option<Duration>,
    },
    /// It can never work: on to the workflow's rollback.
    #[error("{} {}", .0.reason, .0.message)]
    Fail(Failure),
    /// The VM must be off for it.
    #[error("the VM must be off: {}", .0.message)]
    PowerOff(Failure),
    /// The guest cannot be asked.
    #[error("the guest cannot be asked: {}", .0.message)]
    Guest(Failure),
    /// The VM is gone from the hypervisor.
    #[error("the VM is gone from the hypervisor: {}", .0.message)]
    Lost(Failure),
    /// Another worker has the job; nothing more to do here.
    #[error("another worker has claimed the job")]
    LeaseLost,
}

/// google.rpc.Code of failures.
pub(crate) mod code {
    pub(crate) const DEADLINE_EXCEEDED: i32 = 4;
    pub(crate) const NOT_FOUND: i32 = 5;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const ABORTED: i32 = 10;
    pub(crate) const UNAVAILABLE: i32 = 14;
}

/// A failure for the tenant.
pub(crate) fn failure(code: i32, reason: &str, message: impl Into<String>) -> Failure {
    Failure { code, reason: reason.to_owned(), message: message.into() }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        if error.reason() == LEASE_LOST {
            return Self::LeaseLost;
        }
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self::Retry { message, after: None }
    }
}

impl From<Fault> for StepError {
    fn from(fault: Fault) -> Self {
        tracing::info!(%fault, class = ?fault.class, "the hypervisor reports a fault");
        let failure = |code| failure(code, fault.reason, &fault.message);
        match fault.class {
            FaultClass::Retry | FaultClass::Unknown => {
                Self::Retry { message: fault.to_string(), after: fault.retry_after }
            }
            FaultClass::PowerOff => Self::PowerOff(failure(code::FAILED_PRECONDITION)),
            FaultClass::Guest => Self::Guest(failure(code::FAILED_PRECONDITION)),
            FaultClass::Lost => Self::Lost(failure(code::NOT_FOUND)),
            FaultClass::Conflict => Self::Fail(failure(code::ABORTED)),
            FaultClass::Capacity => Self::Fail(failure(code::RESOURCE_EXHAUSTED)),
            FaultClass::Permanent => Self::Fail(failure(code::FAILED_PRECONDITION)),
        }
    }
}
