//! What requests share, and calls to the server in the name of a client.

use std::net::IpAddr;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use prost_reflect::{DescriptorPool, DynamicMessage};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::body::{self, Reply};
use crate::config::Config;
use crate::places::Places;
use crate::problem::Problem;
use crate::routes::Routes;
use crate::rules::Rpc;
use crate::upstream::Upstream;
use crate::{fields, headers, render, status};

/// All that requests share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) pool: DescriptorPool,
    pub(crate) routes: Routes,
    pub(crate) upstream: Upstream,
    pub(crate) stopping: CancellationToken,
    /// What the server is shown, so that it believes who the client is.
    pub(crate) secret: Option<HeaderValue>,
    /// What the provider's desk shows the server.
    pub(crate) desk_header: Option<HeaderName>,
    /// Requests whose bodies are read, calls, streams and uploads.
    pub(crate) reading: Places,
    pub(crate) calls: Places,
    pub(crate) streams: Places,
    pub(crate) uploads: Places,
}

impl App {
    /// A call to the server, in the client's name.
    pub(crate) fn call<S>(
        &self,
        parts: &Parts,
        client: IpAddr,
        deadline: Option<Instant>,
        messages: S,
    ) -> tonic::Request<S> {
        let metadata = headers::to_server(&parts.headers, client, self.secret.as_ref(), self.desk_header.as_ref());
        let mut call = tonic::Request::from_parts(metadata, tonic::Extensions::new(), messages);
        if let Some(deadline) = deadline {
            call.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        call
    }

    /// Makes a call that answers once.
    pub(crate) async fn unary<S>(
        &self,
        rpc: &Rpc,
        call: tonic::Request<S>,
        deadline: Option<Instant>,
    ) -> Result<Reply, Problem>
    where
        S: futures::Stream<Item = Bytes> + Send + 'static,
    {
        self.reply(rpc, within(deadline, self.upstream.unary(&rpc.path, call)).await?)
    }

    /// What a call that answers once has answered.
    pub(crate) fn reply(
        &self,
        rpc: &Rpc,
        response: Result<tonic::Response<Bytes>, tonic::Status>,
    ) -> Result<Reply, Problem> {
        let response = response.map_err(|status| status::problem(&status, &self.pool))?;
        let shown = headers::to_client(response.metadata());
        let mut reply = if rpc.gives_raw() {
            raw_reply(render::decode(&rpc.output, response.into_inner())?)
        } else {
            body::json(StatusCode::OK, render::to_json(&rpc.output, response.into_inner())?)
        };
        reply.headers_mut().extend(shown);
        Ok(reply)
    }
}

/// Waits for a call, and not longer than its client does.
pub(crate) async fn within<F: Future>(deadline: Option<Instant>, call: F) -> Result<F::Output, Problem> {
    match deadline {
        Some(deadline) => timeout_at(deadline, call).await.map_err(|_| Problem::deadline()),
        None => Ok(call.await),
    }
}

/// The bytes of a `google.api.HttpBody`, as the type that it names.
fn raw_reply(message: DynamicMessage) -> Reply {
    let media_type = HeaderValue::from_str(&fields::text(&message, "content_type"));
    let media_type = media_type.ok().filter(|value| !value.is_empty());
    let data = message.get_field_by_name("data").and_then(|data| data.as_bytes().cloned()).unwrap_or_default();
    if media_type.is_none() && data.is_empty() {
        let mut reply = http::Response::new(body::empty());
        *reply.status_mut() = StatusCode::NO_CONTENT;
        return reply;
    }
    body::reply(StatusCode::OK, media_type.unwrap_or(HeaderValue::from_static("application/octet-stream")), data)
}
