//! The few paths that are the gateway's own: is it up, can it serve, and the keys that tokens are checked with.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use crate::body::{self, Reply};
use crate::problem::Problem;
use crate::upstream::Upstream;

const JWKS: &str = "/.well-known/jwks.json";
/// A probe that takes longer is a failed probe.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers if the path is one of ours; a document may take as long as `patience`.
pub(crate) async fn answer(
    upstream: &Upstream,
    patience: Duration,
    method: &Method,
    path: &str,
) -> Option<Result<Reply, Problem>> {
    if !matches!(path, "/healthz" | "/readyz" | JWKS) {
        return None;
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Some(Err(Problem::other_verbs("GET, HEAD")));
    }
    Some(match path {
        "/healthz" => Ok(body::json(StatusCode::OK, r#"{"status":"ok"}"#)),
        "/readyz" => Ok(ready(upstream).await),
        _ => jwks(upstream, patience).await,
    })
}

/// Asks whether the server can serve; the text says why not.
pub(crate) async fn check(upstream: &Upstream) -> Result<(), String> {
    let late = || Err(format!("the gRPC server did not answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, upstream.health()).await.unwrap_or_else(|_| late())
}

async fn ready(upstream: &Upstream) -> Reply {
    match check(upstream).await {
        Ok(()) => body::json(StatusCode::OK, r#"{"status":"ok"}"#),
        Err(reason) => {
            let text = json!({"status": "unavailable", "reason": reason}).to_string();
            body::json(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

async fn jwks(upstream: &Upstream, patience: Duration) -> Result<Reply, Problem> {
    let fetched = timeout(patience, upstream.document(JWKS)).await.ok().flatten();
    let Some(document) = fetched.filter(|document| document.status().is_success()) else {
        return Err(Problem::unreachable());
    };
    let (parts, bytes) = document.into_parts();
    let mut reply = body::json(StatusCode::OK, bytes);
    for (name, default) in [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")] {
        let value = parts.headers.get(&name).cloned().unwrap_or(HeaderValue::from_static(default));
        reply.headers_mut().insert(name, value);
    }
    Ok(reply)
}
