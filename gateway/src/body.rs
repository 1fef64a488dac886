//! Bodies: taking the request's within its limits, and making the replies'.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError, Limited, StreamBody};

use crate::problem::Problem;
use crate::rules::{Body, Route};
use crate::sent::{Broken, Lent};
use crate::transcode::Content;

pub(crate) type Reply = http::Response<UnsyncBoxBody<Bytes, Broken>>;

/// A reply that no cache may keep.
pub(crate) fn reply(status: StatusCode, media_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = http::Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = status;
    head(reply.headers_mut(), media_type);
    reply
}

pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, HeaderValue::from_static("application/json"), body)
}

/// A reply whose body comes bit by bit. What stands in between must hand on each record at once: proxies like nginx go by a
/// header of their own.
pub(crate) fn stream(media_type: &'static str, records: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    let frames = records.map(|record| Ok(Frame::data(record)));
    let mut reply = http::Response::new(StreamBody::new(frames).boxed_unsync());
    head(reply.headers_mut(), HeaderValue::from_static(media_type));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    reply.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// A reply to `HEAD`: that to `GET`, less the body.
pub(crate) fn without(reply: Reply) -> Reply {
    let (mut parts, body) = reply.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Reply::from_parts(parts, empty())
}

/// No bytes.
pub(crate) fn empty() -> UnsyncBoxBody<Bytes, Broken> {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn head(headers: &mut HeaderMap, media_type: HeaderValue) {
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let mut reply = json(problem.http, problem.body());
        reply.headers_mut().extend(problem.headers);
        reply
    }
}

/// Checks what the headers say of a body, and takes it.
pub(crate) async fn take(
    route: &Route,
    headers: &HeaderMap,
    body: Lent,
    max_json: usize,
    max_raw: usize,
) -> Result<Content, Problem> {
    let raw = route.takes_raw();
    let limit = if raw { max_raw } else { max_json };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Problem::too_large(limit));
    }
    let media_type = headers.get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let wrong_type = !raw && !matches!(route.body, Body::None) && !is_json(media_type);
    if announced.is_some_and(|length| length > 0) && (wrong_type || is_encoded(headers)) {
        return Err(unsupported());
    }
    let bytes = match Limited::new(body, limit).collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Problem::too_large(limit)),
        Err(_) => return Err(Problem::broke_off()),
    };
    match route.body {
        _ if raw => Ok(Content::Raw(media_type.to_owned(), bytes)),
        _ if bytes.is_empty() => Ok(Content::Empty),
        Body::None => Err(Problem::invalid("BODY_NOT_ALLOWED", "This call takes no body.")),
        _ if wrong_type || is_encoded(headers) => Err(unsupported()),
        _ => Ok(Content::Json(bytes)),
    }
}

pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let is_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json")) && parts.all(is_utf8)
}

fn unsupported() -> Problem {
    Problem::media_type("The body must be JSON in UTF-8, not compressed, with Content-Type: application/json.")
}
