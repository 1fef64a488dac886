//! Status → HTTP JSON: every error that a client sees, the gateway's own and those of the gRPC server, is made here.

use std::error::Error as _;
use std::fmt::Display;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use serde::Serialize;
use serde_json::{Value as Json, json};
use tonic::{Code, Status, TimeoutExpired};
use virtualstack_proto::google::rpc;

use crate::{headers, render};

/// More violations than this help nobody.
const MAX_VIOLATIONS: usize = 50;

/// An error, ready to be told.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) http: StatusCode,
    code: Code,
    message: String,
    details: Vec<Json>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// An error of the gateway's own. The reason is part of the contract.
    pub(crate) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "virtualstack",
            "metadata": {},
        });
        let http = canonical(code).1;
        Self { http, code, message: message.into(), details: vec![info], headers: Vec::new() }.challenge()
    }

    pub(crate) fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }

    /// One of the errors that HTTP knows and gRPC does not.
    pub(crate) fn http(http: StatusCode, code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { http, ..Self::new(code, reason, message) }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("The body is larger than {limit} bytes.");
        Self::http(StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument, "BODY_TOO_LARGE", message)
    }

    pub(crate) fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "The deadline passed before there was an answer.")
    }

    pub(crate) fn panicked() -> Self {
        Self::new(Code::Internal, "INTERNAL", "Something went wrong in the gateway.")
    }

    /// The error of a path that is there, but not for this verb.
    pub(crate) fn other_verbs(allowed: &str) -> Self {
        let message = format!("This path allows {allowed}.");
        let mut problem =
            Self::http(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, "METHOD_NOT_ALLOWED", message);
        problem.headers.extend(HeaderValue::from_str(allowed).map(|allowed| (ALLOW, allowed)));
        problem
    }

    /// Tells the client when to come back.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s"),
        }));
        self.headers.push((RETRY_AFTER, seconds.into()));
        self
    }

    /// What the gRPC server answered, or why it did not. What went wrong on the way is logged, not told.
    pub(crate) fn upstream(status: &Status, pool: &DescriptorPool) -> Self {
        let mut cause = status.source();
        while let Some(error) = cause {
            if error.is::<TimeoutExpired>() {
                return Self::deadline();
            }
            cause = error.source();
        }
        if status.source().is_some() {
            tracing::warn!(error = ?status, "the gRPC server could not be reached");
            return Self::unreachable();
        }
        // What tonic makes of the limit that we gave it. The server's own limit on requests has the same words, but
        // comes with the headers of its reply.
        if status.metadata().is_empty() && status.message().starts_with("Error, decoded message length too large") {
            let message = "The reply is larger than the gateway hands out; ask for less, such as a smaller page.";
            return Self::new(Code::Internal, "RESPONSE_TOO_LARGE", message);
        }
        let code = if status.code() == Code::Ok { Code::Unknown } else { status.code() };
        let mut problem = Self {
            http: canonical(code).1,
            code,
            message: status.message().to_owned(),
            details: Vec::new(),
            headers: headers::to_client(status.metadata()),
        };
        for detail in rpc::Status::decode(status.details()).unwrap_or_default().details {
            problem.retry_info(&detail.type_url, &detail.value);
            problem.details.extend(render::any(pool, &detail.type_url, detail.value.into()));
        }
        problem.challenge()
    }

    pub(crate) fn unreachable() -> Self {
        let message = "The service cannot be reached at the moment.";
        Self::new(Code::Unavailable, "UPSTREAM_UNAVAILABLE", message).retry_after(1)
    }

    fn retry_info(&mut self, type_url: &str, value: &[u8]) {
        let waits = matches!(self.http, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let told = self.headers.iter().any(|(name, _)| name == RETRY_AFTER);
        if !waits || told || !type_url.ends_with("/google.rpc.RetryInfo") {
            return;
        }
        if let Some(delay) = rpc::RetryInfo::decode(value).unwrap_or_default().retry_delay {
            let seconds = delay.seconds + i64::from(delay.nanos > 0);
            self.headers.push((RETRY_AFTER, seconds.max(0).into()));
        }
    }

    fn challenge(mut self) -> Self {
        if self.http == StatusCode::UNAUTHORIZED {
            self.headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        self
    }

    /// The error as JSON, on one line.
    pub(crate) fn body(&self) -> Bytes {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: u16,
            status: &'static str,
            message: &'a str,
            details: &'a [Json],
        }
        let (status, _) = canonical(self.code);
        let error = Inner { code: self.http.as_u16(), status, message: &self.message, details: &self.details };
        serde_json::to_vec(&Envelope { error }).unwrap_or_default().into()
    }
}

/// What is wrong with the fields of a request.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<Json>);

impl Violations {
    pub(crate) fn push(&mut self, field: impl Display, description: impl Display) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(json!({"field": field.to_string(), "description": description.to_string()}));
        }
    }

    /// An error unless there are none.
    pub(crate) fn check(self) -> Result<(), Problem> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let (field, description) = (&first["field"], &first["description"]);
        let (field, description) = (field.as_str().unwrap_or_default(), description.as_str().unwrap_or_default());
        let message =
            if field.is_empty() { format!("The body {description}.") } else { format!("{field} {description}.") };
        let mut problem = Problem::invalid("INVALID_REQUEST", message);
        problem.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": self.0,
        }));
        Err(problem)
    }
}

/// A code's name and its HTTP status.
fn canonical(code: Code) -> (&'static str, StatusCode) {
    match code {
        Code::Ok => ("OK", StatusCode::OK),
        Code::Cancelled => ("CANCELLED", StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)),
        Code::Unknown => ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
        Code::InvalidArgument => ("INVALID_ARGUMENT", StatusCode::BAD_REQUEST),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", StatusCode::GATEWAY_TIMEOUT),
        Code::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND),
        Code::AlreadyExists => ("ALREADY_EXISTS", StatusCode::CONFLICT),
        Code::PermissionDenied => ("PERMISSION_DENIED", StatusCode::FORBIDDEN),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", StatusCode::TOO_MANY_REQUESTS),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", StatusCode::BAD_REQUEST),
        Code::Aborted => ("ABORTED", StatusCode::CONFLICT),
        Code::OutOfRange => ("OUT_OF_RANGE", StatusCode::BAD_REQUEST),
        Code::Unimplemented => ("UNIMPLEMENTED", StatusCode::NOT_IMPLEMENTED),
        Code::Internal => ("INTERNAL", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unavailable => ("UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
        Code::DataLoss => ("DATA_LOSS", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unauthenticated => ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
    }
}
