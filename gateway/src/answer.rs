//! The way of a request: limits → route → body → message → gRPC → JSON.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use tokio::time::{Instant, timeout_at};
use tonic::Code;
use virtualstack_connections::Peer;

use crate::app::{App, within};
use crate::body::{self, Reply};
use crate::envelope::Envelope;
use crate::places::Place;
use crate::problem::Problem;
use crate::routes::Found;
use crate::rules::{Route, Rpc};
use crate::sent::Sent;
use crate::stream::{Format, Relay};
use crate::upload::Upload;
use crate::{fields, headers, own, query, status, transcode};

/// The one rpc that waits on purpose; its request says how long.
const WAIT: &str = "google.longrunning.Operations.WaitOperation";
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// What a wait may take beyond the time asked for.
const WAIT_GRACE: Duration = Duration::from_secs(10);

impl App {
    /// Answers a request, whatever happens.
    pub(crate) async fn answer(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Reply {
        let start = Instant::now();
        let (parts, body) = request.into_parts();
        let body = Sent::new(body, parts.version);
        // The rpc's name for the metrics: paths are endless, rpcs are not.
        let mut label = String::new();
        let handled = AssertUnwindSafe(self.handle(&parts, &body, &peer, start, &mut label)).catch_unwind().await;
        let mut reply = match handled {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => problem.into(),
            Err(_) => Problem::panicked().into(),
        };
        body.discard(&parts.headers);
        if parts.method == Method::HEAD {
            reply = body::without(reply);
        }
        record(label, reply.status(), start);
        reply
    }

    async fn handle(
        &self,
        parts: &Parts,
        body: &Sent,
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

        if let Some(envelope) = Envelope::of(route).filter(|_| route.is_upload()) {
            let deadline = asked.map(|timeout| start + timeout);
            return self.upload(Upload { route, envelope, values, parts, body, client, start, deadline }).await;
        }

        // The body has seconds of its own: a deadline for the answer is none for the question.
        let reading = self.reading.take(client)?;
        let limits = (self.config.max_json_body, self.config.max_raw_body);
        let taken = body::take(route, &parts.headers, body.lend(), limits.0, limits.1);
        let patience = self.config.body_timeout;
        let content = timeout_at(start + patience, taken).await.map_err(|_| Problem::too_slow(patience))??;
        drop(reading);
        let places = if route.rpc.streams_out { &self.streams } else { &self.calls };
        let place = places.take(client)?;
        let message = transcode::request(route, values, parts.uri.query(), content, &parts.headers)?;

        let deadline = asked.or_else(|| self.default_timeout(route, &message)).map(|timeout| start + timeout);
        let call = self.call(parts, client, deadline, futures::stream::iter([message.encode_to_vec().into()]));
        match route.rpc.streams_out {
            true if route.rpc.gives_raw() => self.download(&route.rpc, call, deadline, place).await,
            true => self.stream(&route.rpc, call, deadline, Format::accepted(&parts.headers), place).await,
            false => self.unary(&route.rpc, call, deadline).await,
        }
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
        S: futures::Stream<Item = Bytes> + Send + 'static,
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
        let (reason, message) = if url > self.config.max_url_bytes {
            let message = format!("The URL is longer than {} bytes.", self.config.max_url_bytes);
            ("URL_TOO_LONG", message)
        } else if headers::size(&parts.headers) > self.config.max_header_bytes {
            let message = format!("The headers are larger than {} bytes.", self.config.max_header_bytes);
            ("HEADERS_TOO_LARGE", message)
        } else {
            return Ok(());
        };
        Err(Problem::invalid(reason, message))
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

/// What can be done with a path.
fn options(verbs: &[&str]) -> Reply {
    let mut reply = http::Response::new(body::empty());
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
