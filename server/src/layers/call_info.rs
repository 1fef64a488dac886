//! Names the call: request id, client, trace; counts and logs it when it is over.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};
use tracing::Instrument as _;
use uuid::Uuid;
use virtualstack_connections::Peer;
use virtualstack_proto::{GATEWAY_SECRET, code_name};

use crate::call::caller::CallInfo;
use crate::config::Secret;

/// Header and metadata key of the request id.
const REQUEST_ID: &str = "x-request-id";

pub(crate) async fn layer(State(secret): State<Option<Arc<Secret>>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = known_method(request.uri().path());
    let info = CallInfo {
        request_id: request_id(request.headers()),
        client_address: client_address(&request, secret.as_deref()),
        method: method.trim_start_matches('/').replace('/', "."),
        traceparent: traceparent(request.headers()),
    };
    let id = HeaderValue::from_str(&info.request_id).ok();
    let span = tracing::info_span!("rpc", method, request_id = info.request_id, traceparent = info.traceparent);
    request.headers_mut().remove(GATEWAY_SECRET);
    request.extensions_mut().insert(info);
    let call = next.run(request).instrument(span.clone());
    let mut response = virtualstack_store::tx::metrics::of_call(method, call).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    let elapsed = start.elapsed();
    metrics::histogram!("virtualstack_rpc_seconds", "method" => method, "code" => code_name(code))
        .record(elapsed.as_secs_f64());
    span.in_scope(|| tracing::debug!(code = code_name(code), ms = elapsed.as_millis(), "done"));
    response
}

/// The path if it is an rpc's; any other would let strangers make up metric labels.
fn known_method(path: &str) -> &'static str {
    static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        let known = virtualstack_proto::POLICIES.iter().chain(virtualstack_proto::vendored::POLICIES);
        known.map(|(path, _)| *path).collect()
    });
    KNOWN.get(path).copied().unwrap_or("other")
}

/// The client's request id if it is a sane one, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    header(headers, REQUEST_ID).filter(sane).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The client's trace context if it is one (W3C), or a new one: request and workflow are one trace either way.
fn traceparent(headers: &HeaderMap) -> String {
    let given = header(headers, "traceparent").filter(|value| {
        let parts: Vec<_> = value.split('-').collect();
        let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        parts.iter().map(|part| part.len()).eq([2, 32, 16, 2]) && parts.iter().all(|part| hex(part)) && parts[0] == "00"
    });
    given.map_or_else(
        || format!("00-{:032x}-{:016x}-01", Uuid::new_v4().as_u128(), Uuid::new_v4().as_u64_pair().0),
        str::to_owned,
    )
}

/// The client's address: that of the socket, or what a gateway says that holds the secret.
fn client_address(request: &Request, secret: Option<&Secret>) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>()?;
    let socket = peer.address().ip().to_canonical();
    let shown = request.headers().get(GATEWAY_SECRET);
    if !shown.is_some_and(|shown| secret.is_some_and(|secret| secret.is(shown.as_bytes()))) {
        return Some(socket);
    }
    peer.trust();
    // The gateway writes the client last; what comes before it is hearsay.
    let last = request.headers().get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let said = last.and_then(|list| list.rsplit(',').next());
    said.and_then(|address| address.trim().parse().ok()).map(|address: IpAddr| address.to_canonical()).or(Some(socket))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
