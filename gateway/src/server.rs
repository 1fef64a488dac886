//! Connections: how many, how slow, how large, and how they end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::cors::{AllowHeaders, AllowMethods, CorsLayer};
use tower_http::request_id::PropagateRequestIdLayer;
use virtualstack_connections::{Limits, Peer};

use crate::app::App;
use crate::body::Reply;
use crate::config::{Config, Deps};
use crate::error::Error;
use crate::places::Places;
use crate::routes::Routes;
use crate::upstream::Upstream;
use crate::wire::{Answer, Calls, Wire};
use crate::{headers, own, rules};

/// Bytes of a request's body that may be under way to us over HTTP/2 and not yet taken.
const STREAM_WINDOW: u32 = 256 * 1024;

/// A gateway that is bound, and has nothing left that could fail.
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    cors: Option<CorsLayer>,
    app: Arc<App>,
}

/// Does all that can fail: reads the rules, checks them against each other, and takes the address.
///
/// # Errors
///
/// When a setting or an http rule is wrong, or the address is taken.
pub async fn bind(config: Config, deps: Deps) -> Result<Gateway, Error> {
    let routes = Routes::new(rules::routes(&deps.descriptors, deps.rules)?)?;
    let cors = cors(&config)?;
    let upstream = Upstream::new(&config)?;
    let failed = |source| Error::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let app = App {
        pool: deps.descriptors,
        routes,
        upstream,
        stopping: CancellationToken::new(),
        secret: deps.secret,
        desk_header: deps.desk_header,
        reading: Places::new(config.max_requests, config.max_requests_per_address),
        calls: Places::new(config.max_requests, config.max_requests_per_address),
        streams: Places::new(config.max_streams, config.max_streams_per_address),
        uploads: Places::new(config.max_uploads, config.max_uploads_per_address),
        config,
    };
    Ok(Gateway { listener, address, cors, app: Arc::new(app) })
}

/// Asks whether the gateway can serve, which is whether its upstream can.
#[derive(Clone)]
pub struct Readiness(Arc<App>);

impl Readiness {
    /// Asks now; the text says why not.
    ///
    /// # Errors
    ///
    /// When the gRPC server is not serving, or cannot be reached.
    pub async fn check(&self) -> Result<(), String> {
        own::check(&self.0.upstream).await
    }
}

impl Gateway {
    /// For whoever has to say whether this process is ready.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(Arc::clone(&self.app))
    }

    /// The address that is served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves; then ends streams, lets calls finish for the drain timeout, and cuts the rest.
    ///
    /// # Errors
    ///
    /// None at present.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { listener, cors, app, .. } = self;
        let make = |peer: &Peer, socket| {
            let service = service(Arc::clone(&app), cors.clone(), peer.clone());
            let service = hyper_util::service::TowerToHyperService::new(service);
            let calls = Calls::default();
            let wire = Wire::new(socket, calls.clone());
            let service = hyper::service::service_fn(move |request| {
                let (call, reply) = (calls.begin(), service.call(request));
                async move { reply.await.map(|reply| reply.map(|body| Answer::new(body, call))) }
            });
            (service, wire)
        };
        let stop = async {
            shutdown.await;
            app.stopping.cancel();
        };
        if virtualstack_connections::serve(listener, connections(&app.config), limits(&app.config), make, stop).await {
            tracing::warn!("calls were still in flight when the drain timeout passed");
        }
        Ok(())
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections: config.max_connections,
        per_network: config.max_connections_per_address,
        first_request: config.first_request_timeout,
        idle: config.idle_timeout,
        send: config.send_timeout,
        unread_per_connection: 16 << 20,
        unread_per_network: 64 << 20,
        exempt: config.trusted_proxies.clone(),
        drain: config.drain_timeout,
    }
}

/// HTTP/1.1 and HTTP/2 in clear, with a timer for slow clients.
fn connections(config: &Config) -> Builder<TokioExecutor> {
    // What passes hyper's own limits is no request that a layer sees, so they are wider than those we check.
    let widest = (config.max_header_bytes + config.max_url_bytes) * 4;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout)
        .max_headers(512)
        .max_buf_size(widest.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(250)
        // Less than the connection's, so that one upload that stands still does not hold up the rest.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(4 * STREAM_WINDOW)
        .max_header_list_size(u32::try_from(widest).unwrap_or(u32::MAX));
    builder
}

/// The layers around every request of a connection.
fn service(
    app: Arc<App>,
    cors: Option<CorsLayer>,
    peer: Peer,
) -> impl Service<Request<Incoming>, Response = Reply, Error = Infallible, Future: Send> + Clone + Send {
    ServiceBuilder::new()
        // Outermost, so that every reply has an id, those to CORS preflights too.
        .map_request(headers::identify)
        .layer(PropagateRequestIdLayer::x_request_id())
        // Before the routes: a preflight is no call.
        .option_layer(cors)
        .service(service_fn(move |request| {
            let (app, peer) = (Arc::clone(&app), peer.clone());
            async move { Ok(app.answer(peer, request).await) }
        }))
}

fn cors(config: &Config) -> Result<Option<CorsLayer>, Error> {
    if config.cors_origins.is_empty() {
        return Ok(None);
    }
    let origin = |text: &String| {
        let parsed = text.parse::<http::Uri>().ok().filter(|uri| uri.scheme().is_some() && !text.ends_with('/'));
        parsed.and_then(|_| HeaderValue::from_str(text).ok()).ok_or_else(|| Error::Origin(text.clone()))
    };
    let origins = config.cors_origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?;
    let allowed = [
        "authorization",
        "content-range",
        "content-type",
        "grpc-timeout",
        "last-event-id",
        "x-api-key",
        "x-request-id",
    ];
    let exposed = ["retry-after", "ratelimit", "ratelimit-policy", "x-request-id"];
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(AllowMethods::list([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]))
        .allow_headers(AllowHeaders::list(allowed.map(HeaderName::from_static)))
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_secs(600));
    Ok(Some(layer))
}
