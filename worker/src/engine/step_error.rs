//! How a step can fail, and what the engine does about it. Adapters and the store classify; workflows do not guess.

use std::time::Duration;

use virtualstack_model::Error;
use virtualstack_store::operations::Failure;
use virtualstack_store::tx::error::LEASE_LOST;

/// How a step can fail; `E` is what only workflows of its kind know how to deal with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError<E> {
    /// Nothing is lost; the same step again, later.
    #[error("{message}")]
    Retry { message: String, after: Option<Duration> },
    /// It can never work: on to the workflow's rollback.
    #[error("{} {}", .0.reason, .0.message)]
    Fail(Failure),
    /// The workflow may have a way around it; where a step has none, it fails with it.
    #[error("{0}")]
    Own(E),
    /// Another worker has the job; nothing more to do here.
    #[error("another worker has claimed the job")]
    LeaseLost,
}

/// google.rpc.Code of failures.
pub(crate) mod code {
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const DEADLINE_EXCEEDED: i32 = 4;
    pub(crate) const NOT_FOUND: i32 = 5;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const ABORTED: i32 = 10;
    pub(crate) const UNAVAILABLE: i32 = 14;
}

/// A failure for the tenant.
pub(crate) fn failure(code: i32, reason: &str, message: impl Into<String>) -> Failure {
    Failure { code, reason: reason.to_owned(), message: message.into(), faults: Vec::new() }
}

impl<E> From<Error> for StepError<E> {
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
