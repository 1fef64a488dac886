//! Takes a request's body: within seconds of its own, however long its client waits for the answer, and within bytes that are
//! shared. Behind it, bodies are whole, so that a call can be made again; those of streams come as they do.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use virtualstack_connections::Peer;
use virtualstack_model::{Error, Result};

use crate::config::Config;
use crate::generated::{CLIENT_STREAMS, SERVER_STREAMS};
use crate::layers::recognize::Who;
use crate::layers::unread::Unread;
use crate::layers::web_text;
use crate::shares::{self, Part};

/// Bytes that gRPC puts before a message.
const FRAME: usize = 5;

/// Clients ask it one thing after the other, each when the last was answered.
const REFLECTION: &str = "/grpc.reflection.";

/// Bytes of a request by whom nobody knows: theirs are small.
const STRANGERS: usize = 64 * 1024;

/// What bodies may take.
#[derive(Clone)]
pub(crate) struct Bodies {
    pub(crate) config: Arc<Config>,
    pub(crate) bytes: shares::Bytes,
}

pub(crate) async fn layer(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    let Bodies { config, bytes } = bodies;
    let mut kept = match request.extensions().get::<Who>() {
        Some(Who::Known { principal, .. }) => match bytes.of_member(principal.access.user) {
            Ok(kept) => Some(kept),
            Err(error) => return super::reply(error),
        },
        _ => None,
    };
    // Of a gateway's clients the gateway knows.
    if request.extensions().get::<Peer>().is_some_and(|peer| !peer.reads()) {
        return super::reply(shares::too_many_bytes());
    }
    let path = request.uri().path();
    let stream_in = CLIENT_STREAMS.contains(&path) || path.starts_with(REFLECTION);
    let stream_out = SERVER_STREAMS.contains(&path);
    let request = if stream_in {
        request
    } else {
        let (head, body) = request.into_parts();
        let limit = if kept.is_some() { config.max_request_bytes } else { STRANGERS.min(config.max_request_bytes) };
        let seconds = Duration::from_secs(config.request_body_seconds);
        let body = tokio::time::timeout(seconds, take(body, limit, kept.as_mut())).await;
        match body.unwrap_or_else(|_| Err(too_slow(config.request_body_seconds))) {
            Ok(body) => Request::from_parts(head, Body::from(body)),
            Err(error) => return super::reply(error),
        }
    };
    let response = next.run(request).await;
    match kept {
        Some(kept) if !stream_out => Unread::of(response, kept).await,
        _ => response,
    }
}

/// The whole of a body.
async fn take(mut body: Body, limit: usize, mut kept: Option<&mut Part>) -> Result<Bytes> {
    let (mut first, mut rest, mut size) = (Bytes::new(), BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            web_text::told(&error)
                .unwrap_or_else(|| Error::unavailable("BODY_BROKEN", "the request did not arrive whole", error))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > limit + FRAME {
            return Err(too_large(limit));
        }
        if let Some(kept) = kept.as_deref_mut() {
            shares::keep(kept, data.len())?;
        }
        // Most bodies come in one piece, which then need not be copied.
        if first.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn too_large(limit: usize) -> Error {
    Error::ResourceExhausted {
        reason: "REQUEST_TOO_LARGE",
        message: format!("the request is larger than {limit} bytes"),
        retry_after: None,
    }
}

fn too_slow(seconds: u64) -> Error {
    Error::DeadlineExceeded {
        reason: "REQUEST_TOO_SLOW",
        message: format!("the request did not arrive within {seconds} s"),
    }
}
