//! [`Error`] → gRPC status with google.rpc details, in one place. What went wrong inside is logged here, once, and
//! never sent.

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use virtualstack_model::Error;
use virtualstack_model::error::{Excess, RateLimit, Violation};
use virtualstack_proto::bounded;

/// Violations that are named at most; of the rest there is a number.
const MAX_VIOLATIONS: usize = 50;

/// Bytes of all violations, of one text in them, and of a message. So an error is below 16 KiB, as JSON and in the headers of
/// HTTP/2, where it has four thirds of its size: peers refuse larger ones, and with them their connection.
const MAX_DETAILS: usize = 5 * 1024;
const MAX_TEXT: usize = 400;
const MAX_MESSAGE: usize = 1000;

/// Domain of the reasons in ErrorInfo.
const DOMAIN: &str = "virtualstack";

/// The status that a caller gets.
pub(crate) fn from_error(error: Error) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason(), DOMAIN, metadata(&error));
    let code = match &error {
        Error::InvalidArgument { violations, .. } => {
            add_violations(&mut details, violations);
            Code::InvalidArgument
        }
        Error::FailedPrecondition { reason, message, subject } => {
            details.add_precondition_failure_violation(*reason, bounded(subject, MAX_TEXT), bounded(message, MAX_TEXT));
            Code::FailedPrecondition
        }
        Error::NotFound { resource, .. } => {
            let resource = bounded(resource, MAX_TEXT);
            details.set_resource_info(kind(&resource), &*resource, "", "");
            Code::NotFound
        }
        Error::AlreadyExists { resource, message, .. } => {
            let resource = bounded(resource, MAX_TEXT);
            details.set_resource_info(kind(&resource), &*resource, "", bounded(message, MAX_TEXT));
            Code::AlreadyExists
        }
        Error::Aborted { .. } | Error::OffsetMismatch { .. } => Code::Aborted,
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
    let mut status = Status::with_error_details(code, bounded(&error.to_string(), MAX_MESSAGE), details);
    if let Error::RateLimited { retry_after, limit, .. } = &error {
        tell_limit(status.metadata_mut(), *limit, *retry_after);
    }
    status
}

/// Names as many violations as there is room for.
fn add_violations(details: &mut ErrorDetails, violations: &[Violation]) {
    let mut room = MAX_DETAILS;
    for (index, Violation { field, description }) in violations.iter().enumerate() {
        let (field, description) = (bounded(field, MAX_TEXT), bounded(description, MAX_TEXT));
        let size = field.len() + description.len();
        if index == MAX_VIOLATIONS || size > room {
            details.add_bad_request_violation("", format!("and {} more violations", violations.len() - index));
            return;
        }
        room -= size;
        details.add_bad_request_violation(field, description);
    }
}

/// Numbers for programs: where an upload goes on, and of a quota, whose violations have only words for them.
fn metadata(error: &Error) -> HashMap<String, String> {
    if let Error::OffsetMismatch { uploaded_bytes, .. } = error {
        return HashMap::from([("uploadedBytes".to_owned(), uploaded_bytes.to_string())]);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of an error in the headers of a reply, where what is not ASCII is escaped.
    fn size(status: &Status) -> usize {
        let message: usize = status.message().bytes().map(|byte| if byte.is_ascii_graphic() { 1 } else { 3 }).sum();
        message + status.details().len() * 4 / 3
    }

    #[test]
    fn an_error_has_a_size() {
        for text in ["x", "\u{1f600}", "\u{0}", "\"", "\n"].map(|text| text.repeat(20_000)) {
            let violation = || Violation::new(&format!("vm.labels[{text:?}]"), text.clone());
            for error in [
                Error::invalid_all((0..200).map(|_| violation()).collect()),
                Error::invalid_all((0..5000).map(|number| Violation::new(&format!("f{number}"), "is wrong")).collect()),
                Error::precondition("X", text.clone(), text.clone()),
                Error::not_found("X", format!("vms/{text}")),
                Error::exists("X", format!("vms/{text}"), text.clone()),
                Error::aborted("X", text.clone()),
            ] {
                let status = from_error(error);
                assert!(size(&status) < 14 * 1024, "{}", size(&status));
            }
        }
    }

    #[test]
    fn of_many_violations_the_first_are_named_and_the_rest_counted() {
        let many = (0..5000).map(|number| Violation::new(&format!("labels[{number}]"), "is wrong")).collect();
        let details = from_error(Error::invalid_all(many)).get_details_bad_request().expect("violations");
        assert_eq!(details.field_violations.len(), MAX_VIOLATIONS + 1);
        assert_eq!(details.field_violations[50].description, "and 4950 more violations");
    }
}
