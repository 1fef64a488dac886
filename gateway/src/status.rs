//! Status → [`Problem`]: what clients see of an error of the gRPC server.

use std::error::Error as _;

use http::StatusCode;
use http::header::RETRY_AFTER;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, TimeoutExpired};
use virtualstack_proto::google::rpc;

use crate::problem::Problem;
use crate::{headers, render};

/// What the gRPC server answered, or why it did not. What went wrong on the way goes to the log, not to the client.
pub(crate) fn problem(status: &Status, pool: &DescriptorPool) -> Problem {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return Problem::deadline();
        }
        cause = error.source();
    }
    if status.source().is_some() {
        tracing::warn!(error = ?status, "the gRPC server could not be reached");
        return Problem::unreachable();
    }
    // tonic says this when a reply passes the limit that we set. The server's own limit on requests has the same words,
    // but comes with the headers of its reply.
    if status.metadata().is_empty() && status.message().starts_with("Error, decoded message length too large") {
        let message = "The reply is larger than the gateway hands out; ask for less, such as a smaller page.";
        return Problem::new(Code::Internal, "RESPONSE_TOO_LARGE", message);
    }
    let code = if status.code() == Code::Ok { Code::Unknown } else { status.code() };
    let mut problem = Problem::bare(code, status.message());
    problem.headers.extend(headers::to_client(status.metadata()));
    for detail in rpc::Status::decode(status.details()).unwrap_or_default().details {
        reason(&mut problem, &detail.type_url, &detail.value);
        retry_after(&mut problem, &detail.type_url, &detail.value);
        problem.details.extend(render::any(pool, &detail.type_url, detail.value.into()));
    }
    problem
}

/// Takes the HTTP status of the reason, where HTTP knows more of errors than gRPC.
fn reason(problem: &mut Problem, type_url: &str, value: &[u8]) {
    if type_url.ends_with("/google.rpc.ErrorInfo") {
        problem.set_reason(&rpc::ErrorInfo::decode(value).unwrap_or_default().reason);
    }
}

/// Repeats a `RetryInfo` as a header, where HTTP has a meaning for it and the server has set none.
fn retry_after(problem: &mut Problem, type_url: &str, value: &[u8]) {
    let waits = matches!(problem.http, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let is_set = problem.headers.iter().any(|(name, _)| name == RETRY_AFTER);
    if !waits || is_set || !type_url.ends_with("/google.rpc.RetryInfo") {
        return;
    }
    if let Some(delay) = rpc::RetryInfo::decode(value).unwrap_or_default().retry_delay {
        let seconds = delay.seconds + i64::from(delay.nanos > 0);
        problem.headers.push((RETRY_AFTER, seconds.max(0).into()));
    }
}
