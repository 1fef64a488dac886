//! An error as clients see it: HTTP status, headers and JSON.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value as Json, json};
use tonic::Code;
use virtualstack_proto::bounded;

/// More violations than this help nobody; of the rest there is a number.
const MAX_VIOLATIONS: usize = 50;

/// Bytes of all violations, of one text in them, and of a message: what a client sent comes back in part only.
const MAX_DETAILS: usize = 5 * 1024;
const MAX_TEXT: usize = 400;
const MAX_MESSAGE: usize = 1000;

/// Errors that HTTP knows and gRPC does not: their reasons, whoever gives them.
const OF_HTTP: [(&str, StatusCode); 8] = [
    ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED),
    ("BODY_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
    ("REQUEST_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
    ("TEMPLATE_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
    ("ATTACHMENT_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
    ("URL_TOO_LONG", StatusCode::URI_TOO_LONG),
    ("UNSUPPORTED_MEDIA_TYPE", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ("HEADERS_TOO_LARGE", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
];

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) http: StatusCode,
    code: Code,
    message: String,
    pub(crate) details: Vec<Json>,
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
        let mut problem = Self::bare(code, message);
        problem.set_reason(reason);
        problem.details.push(info);
        problem
    }

    /// An error without details.
    pub(crate) fn bare(code: Code, message: impl Into<String>) -> Self {
        let message = bounded(&message.into(), MAX_MESSAGE);
        let mut problem = Self { http: http_status(code), code, message, details: Vec::new(), headers: Vec::new() };
        if problem.http == StatusCode::UNAUTHORIZED {
            problem.headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        problem
    }

    pub(crate) fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("The body is larger than {limit} bytes.");
        Self::invalid("BODY_TOO_LARGE", message)
    }

    pub(crate) fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "The deadline passed before there was an answer.")
    }

    pub(crate) fn too_slow(patience: Duration) -> Self {
        let message = format!("The request did not arrive within {} s.", patience.as_secs());
        Self::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", message)
    }

    pub(crate) fn stalled(patience: Duration) -> Self {
        let message = format!("Nothing more of the upload came within {} s; take it up again.", patience.as_secs_f64());
        Self::new(Code::DeadlineExceeded, "UPLOAD_STALLED", message)
    }

    pub(crate) fn broke_off() -> Self {
        Self::invalid("INCOMPLETE_BODY", "The body broke off.")
    }

    pub(crate) fn media_type(message: &'static str) -> Self {
        Self::invalid("UNSUPPORTED_MEDIA_TYPE", message)
    }

    pub(crate) fn unread() -> Self {
        let message = "Too many replies wait for you; read what was answered.";
        Self::new(Code::ResourceExhausted, "REPLIES_UNREAD", message).retry_after(1)
    }

    /// Streams would outlast any drain, so clients are asked to come back, to another gateway.
    pub(crate) fn stopping() -> Self {
        Self::new(Code::Unavailable, "GATEWAY_STOPPING", "The gateway is stopping; connect again.").retry_after(1)
    }

    pub(crate) fn panicked() -> Self {
        Self::new(Code::Internal, "INTERNAL", "Something went wrong in the gateway.")
    }

    /// The error of a path that is there, but not for this verb.
    pub(crate) fn other_verbs(allowed: &str) -> Self {
        let message = format!("This path allows {allowed}.");
        let mut problem = Self::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", message);
        problem.headers.extend(HeaderValue::from_str(allowed).map(|allowed| (ALLOW, allowed)));
        problem
    }

    /// Gives the problem the status that HTTP has for its reason, if it has one.
    pub(crate) fn set_reason(&mut self, reason: &str) {
        if let Some((_, http)) = OF_HTTP.iter().find(|(known, _)| *known == reason) {
            self.http = *http;
        }
    }

    /// Says when the client should come back.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s"),
        }));
        self.headers.push((RETRY_AFTER, seconds.into()));
        self
    }

    pub(crate) fn unreachable() -> Self {
        let message = "The service cannot be reached at the moment.";
        Self::new(Code::Unavailable, "UPSTREAM_UNAVAILABLE", message).retry_after(1)
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
        let status = virtualstack_proto::code_name(self.code);
        let error = Inner { code: self.http.as_u16(), status, message: &self.message, details: &self.details };
        serde_json::to_vec(&Envelope { error }).unwrap_or_default().into()
    }
}

/// What is wrong with the fields of a request.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    named: Vec<Json>,
    bytes: usize,
    /// How many are not.
    more: usize,
}

impl Violations {
    pub(crate) fn push(&mut self, field: impl Display, description: impl Display) {
        let (field, description) = (bounded(&field.to_string(), MAX_TEXT), bounded(&description.to_string(), MAX_TEXT));
        let bytes = self.bytes + field.len() + description.len();
        if self.named.len() == MAX_VIOLATIONS || bytes > MAX_DETAILS {
            self.more += 1;
            return;
        }
        self.bytes = bytes;
        self.named.push(json!({"field": field, "description": description}));
    }

    /// An error unless there are none.
    pub(crate) fn check(mut self) -> Result<(), Problem> {
        if self.more > 0 {
            let description = format!("and {} more violations", self.more);
            self.named.push(json!({"field": "", "description": description}));
        }
        let Some(first) = self.named.first() else { return Ok(()) };
        let (field, description) = (&first["field"], &first["description"]);
        let (field, description) = (field.as_str().unwrap_or_default(), description.as_str().unwrap_or_default());
        let message =
            if field.is_empty() { format!("The body {description}.") } else { format!("{field} {description}.") };
        let mut problem = Problem::invalid("INVALID_REQUEST", message);
        problem.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": self.named,
        }));
        Err(problem)
    }
}

/// The HTTP status of a code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}
