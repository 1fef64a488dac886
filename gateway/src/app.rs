//! The way of a request: limits → route → body → message → gRPC → JSON.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use virtualstack_connections::Peer;

use crate::body::{self, Reply};
use crate::config::Config;
use crate::places::{Place, Places};
use crate::problem::Problem;
use crate::routes::{Found, Routes};
use crate::rules::{Route, Rpc};
use crate::stream::{Format, Relay};
use crate::upstream::Upstream;
use crate::{fields, headers, own, query, render, status, transcode};

/// The one rpc that waits on purpose; its request says how long.
const WAIT: &str = "google.longrunning.Operations.WaitOperation";
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// What a wait may take beyond the time asked for.
const WAIT_GRACE: Duration = Duration::from_secs(10);

/// All that requests share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) pool: DescriptorPool,
    pub(crate) routes: Routes,
    pub(crate) upstream: Upstream,
    pub(crate) stopping: CancellationToken,
    /// What the server is shown, so that it believes who the client is.
    pub(crate) secret: Option<HeaderValue>,
    /// Requests whose bodies are read, calls and streams.
    pub(crate) reading: Places,
    pub(crate) calls: Places,
    pub(crate) streams: Places,
}

impl App {
    /// Answers a request, whatever happens.
    pub(crate) async fn answer(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Reply {
        let start = Instant::now();
        let (parts, mut body) = request.into_parts();
        // The rpc's name for the metrics: paths are endless, rpcs are not.
        let mut label = String::new();
        let handled = AssertUnwindSafe(self.handle(&parts, &mut body, &peer, start, &mut label)).catch_unwind().await;
        let mut reply = match handled {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => problem.into(),
            Err(_) => Problem::panicked().into(),
        };
        body::discard(&parts.headers, body);
        if parts.method == Method::HEAD {
            reply = body::without(reply);
        }
        record(label, reply.status(), start);
        reply
    }

    async fn handle(
        &self,
        parts: &Parts,
        body: &mut Incoming,
        peer: &Peer,
        start: Instant,
        label: &mut String,
    ) -> Result<Reply, Problem> {
        self.check_size(parts)?;
        let path = parts.uri.path();
        if let Some(reply) = own::answer(&self.upstream, self.config.default_timeout, &parts.method, path).await {
            path.clone_into(label);
            return reply;
        }
        let (route, values) = match self.routes.find(&parts.method, path) {
            Found::Route(route, values) => (route, values),
            Found::OtherVerbs(verbs) if parts.method == Method::OPTIONS => return Ok(options(&verbs)),
            Found::OtherVerbs(verbs) => return Err(Problem::other_verbs(&verbs.join(", "))),
            Found::Malformed => return Err(Problem::invalid("MALFORMED_PATH", "An escape in the path is malformed.")),
            Found::Nothing => {
                query::refuse_credentials(parts.uri.query().unwrap_or_default())?;
                return Err(Problem::new(Code::NotFound, "ROUTE_NOT_FOUND", "There is nothing at this path."));
            }
        };
        route.rpc.name.clone_into(label);
        let asked = headers::timeout(&parts.headers)?.map(|asked| asked.min(self.config.max_timeout));
        if !peer.reads() {
            return Err(Problem::unread());
        }
        let client = headers::client(&parts.headers, peer.address().ip(), &self.config.trusted_proxies);

        // The body has seconds of its own: a deadline for the answer is none for the question.
        let reading = self.reading.take(client)?;
        let limits = (self.config.max_json_body, self.config.max_raw_body);
        let taken = body::take(route, &parts.headers, body, limits.0, limits.1);
        let patience = self.config.body_timeout;
        let content = timeout_at(start + patience, taken).await.map_err(|_| Problem::too_slow(patience))??;
        drop(reading);
        let places = if route.rpc.streams_out { &self.streams } else { &self.calls };
        let place = places.take(client)?;
        let resume = headers::last_event_id(&parts.headers);
        let message = transcode::request(route, values, parts.uri.query(), content, resume.as_deref())?;

        let deadline = asked.or_else(|| self.default_timeout(route, &message)).map(|timeout| start + timeout);
        let metadata = headers::to_server(&parts.headers, client, self.secret.as_ref());
        let messages = futures::stream::iter([message.encode_to_vec().into()]);
        let mut call = tonic::Request::from_parts(metadata, tonic::Extensions::new(), messages);
        if let Some(deadline) = deadline {
            call.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        match route.rpc.streams_out {
            true => self.stream(&route.rpc, call, deadline, Format::accepted(&parts.headers), place).await,
            false => self.unary(&route.rpc, call, deadline).await,
        }
    }

    async fn unary<S>(&self, rpc: &Rpc, call: tonic::Request<S>, deadline: Option<Instant>) -> Result<Reply, Problem>
    where
        S: futures::Stream<Item = bytes::Bytes> + Send + 'static,
    {
        let response = within(deadline, self.upstream.unary(&rpc.path, call)).await?;
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

    async fn stream<S>(
        &self,
        rpc: &Rpc,
        call: tonic::Request<S>,
        deadline: Option<Instant>,
        format: Format,
        place: Place,
    ) -> Result<Reply, Problem>
    where
        S: futures::Stream<Item = bytes::Bytes> + Send + 'static,
    {
        let response = within(deadline, self.upstream.streaming(&rpc.path, call)).await?;
        let response = response.map_err(|status| status::problem(&status, &self.pool))?;
        let shown = headers::to_client(response.metadata());
        let relay = Relay {
            messages: response.into_inner(),
            output: rpc.output.clone(),
            pool: self.pool.clone(),
            format,
            deadline,
            stopping: self.stopping.clone(),
            _place: place,
        };
        let mut reply = body::stream(format.media_type(), relay.into_stream());
        reply.headers_mut().extend(shown);
        Ok(reply)
    }

    fn check_size(&self, parts: &Parts) -> Result<(), Problem> {
        let url = parts.uri.path_and_query().map_or(0, |url| url.as_str().len());
        let (http, reason, message) = if url > self.config.max_url_bytes {
            let message = format!("The URL is longer than {} bytes.", self.config.max_url_bytes);
            (StatusCode::URI_TOO_LONG, "URL_TOO_LONG", message)
        } else if headers::size(&parts.headers) > self.config.max_header_bytes {
            let message = format!("The headers are larger than {} bytes.", self.config.max_header_bytes);
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE", message)
        } else {
            return Ok(());
        };
        Err(Problem::http(http, Code::InvalidArgument, reason, message))
    }

    /// The deadline of a call whose client names none.
    fn default_timeout(&self, route: &Route, message: &DynamicMessage) -> Option<Duration> {
        if route.rpc.streams_out {
            return None;
        }
        if route.rpc.name != WAIT {
            return Some(self.config.default_timeout);
        }
        let asked = fields::duration(message, "timeout").unwrap_or(WAIT_DEFAULT);
        Some((asked + WAIT_GRACE).min(self.config.max_timeout))
    }
}

async fn within<F: Future>(deadline: Option<Instant>, call: F) -> Result<F::Output, Problem> {
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
    body::reply(StatusCode::OK, media_type.unwrap_or(HeaderValue::from_static("application/octet-stream")), data)
}

/// What can be done with a path.
fn options(verbs: &[&str]) -> Reply {
    let mut reply = http::Response::new(Empty::new().boxed_unsync());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let allowed = HeaderValue::from_str(&format!("{}, OPTIONS", verbs.join(", ")));
    reply.headers_mut().extend(allowed.map(|allowed| (ALLOW, allowed)));
    reply
}

fn record(label: String, status: StatusCode, start: Instant) {
    let elapsed = start.elapsed();
    let label = if label.is_empty() { "none".to_owned() } else { label };
    tracing::debug!(rpc = label, status = status.as_u16(), ms = elapsed.as_millis(), "answered");
    metrics::counter!("virtualstack_http_requests_total", "method" => label.clone(), "code" => status.as_u16().to_string())
        .increment(1);
    metrics::histogram!("virtualstack_http_seconds", "method" => label).record(elapsed.as_secs_f64());
}
