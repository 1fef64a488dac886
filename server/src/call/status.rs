//! [`Error`] → gRPC status with google.rpc details, in one place. What went wrong inside is logged here, once, and
//! never sent.

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use virtualstack_model::Error;
use virtualstack_model::error::{Excess, RateLimit};

/// Domain of the reasons in ErrorInfo.
const DOMAIN: &str = "virtualstack";

/// The status that a caller gets.
pub(crate) fn from_error(error: Error) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason(), DOMAIN, metadata(&error));
    let code = match &error {
        Error::InvalidArgument { violations, .. } => {
            for violation in violations {
                details.add_bad_request_violation(&violation.field, &violation.description);
            }
            Code::InvalidArgument
        }
        Error::FailedPrecondition { reason, message, subject } => {
            details.add_precondition_failure_violation(*reason, subject, message);
            Code::FailedPrecondition
        }
        Error::NotFound { resource, .. } => {
            details.set_resource_info(kind(resource), resource, "", "");
            Code::NotFound
        }
        Error::AlreadyExists { resource, message, .. } => {
            details.set_resource_info(kind(resource), resource, "", message);
            Code::AlreadyExists
        }
        Error::Aborted { .. } => Code::Aborted,
        Error::Unauthenticated { .. } => Code::Unauthenticated,
        Error::PermissionDenied { .. } => Code::PermissionDenied,
        Error::RateLimited { retry_after, .. } => {
            retry(&mut details, Some(*retry_after));
            Code::ResourceExhausted
        }
        Error::QuotaExceeded { excesses, .. } => {
            for excess in excesses {
                let Excess { name, limit, used, asked } = excess;
                let told = format!("limit {limit}, used {used}, asked {asked}");
                details.add_quota_failure_violation(*name, told);
            }
            Code::ResourceExhausted
        }
        Error::ResourceExhausted { retry_after, .. } => {
            retry(&mut details, *retry_after);
            Code::ResourceExhausted
        }
        Error::Unavailable { retry_after, .. } => {
            retry(&mut details, Some(*retry_after));
            // What we say ourselves, such as that we are stopping, is no news.
            if let Some(source) = error.source() {
                tracing::warn!(source = chain(source), "unavailable: {error}");
            }
            Code::Unavailable
        }
        Error::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        Error::Unimplemented { .. } => Code::Unimplemented,
        Error::Internal { .. } => {
            tracing::error!(source = error.source().map(chain), "internal error");
            Code::Internal
        }
    };
    let mut status = Status::with_error_details(code, error.to_string(), details);
    if let Error::RateLimited { retry_after, limit, .. } = &error {
        tell_limit(status.metadata_mut(), *limit, *retry_after);
    }
    status
}

/// Numbers for programs: a violation of a quota has only words for them.
fn metadata(error: &Error) -> HashMap<String, String> {
    let Error::QuotaExceeded { excesses, .. } = error else { return HashMap::new() };
    let numbers = |Excess { name, limit, used, asked }: &Excess| {
        [("limit", limit), ("used", used), ("asked", asked)]
            .map(|(what, number)| (format!("{name}.{what}"), number.to_string()))
    };
    excesses.iter().flat_map(numbers).collect()
}

/// The limit and what is left of it, as draft-ietf-httpapi-ratelimit-headers has it.
fn tell_limit(metadata: &mut MetadataMap, RateLimit { name, quota, window_seconds }: RateLimit, after: Duration) {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    let policy = format!("\"{name}\";q={quota};w={window_seconds}");
    for (key, value) in [("ratelimit-policy", policy), ("ratelimit", format!("\"{name}\";r=0;t={seconds}"))] {
        if let Ok(value) = MetadataValue::try_from(value) {
            metadata.insert(key, value);
        }
    }
}

fn retry(details: &mut ErrorDetails, after: Option<Duration>) {
    if let Some(after) = after {
        details.set_retry_info(Some(after));
    }
}

/// The last collection of a full name: what kind of resource it is.
fn kind(name: &str) -> &str {
    let segments: Vec<_> = name.split('/').collect();
    // What there is one of in each parent, or a collection by itself, has no id behind it.
    let behind = if segments.len().is_multiple_of(2) { 2 } else { 1 };
    segments[segments.len() - behind]
}

/// An error and what caused it, down to the last.
fn chain(source: &(dyn std::error::Error + 'static)) -> String {
    let mut text = source.to_string();
    let mut cause = source.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
