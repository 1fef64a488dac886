//! Puts the server together: the layers in their order, the services, and the socket.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state as layer_fn;
use axum::routing::get;
use http::{HeaderName, HeaderValue, Method, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_web::GrpcWebLayer;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use virtualstack_connections::Peer;
use virtualstack_model::{Error, Result};
use virtualstack_objects::Objects;
use virtualstack_store::changes::notify::Heard;
use virtualstack_store::{MasterKey, Store};

use crate::auth::journal::Journal;
use crate::auth::last_use::LastUse;
use crate::auth::limits::Limits;
use crate::auth::passwords::{HashCost, Passwords};
use crate::auth::principals::Principals;
use crate::auth::signing_keys::{JWKS_PATH, Keys};
use crate::auth::tokens::Tokens;
use crate::call::codec;
use crate::changes::Changes;
use crate::config::{Config, DeskWebhook, Secret, wrong};
use crate::layers::authorize::{self, Authorizer};
use crate::layers::body::{self, Bodies};
use crate::layers::recognize::{self, Recognizer};
use crate::layers::{admission, broken_off, call_info, deadline, panics, rate_limit, refusals, web_text};
use crate::services;
use crate::services::parts::Parts;
use crate::shares::{self, Places};

/// What the server needs from outside.
pub struct Deps {
    pub store: Store,
    /// Where files of templates are kept.
    pub objects: Objects,
    /// What private keys are sealed with.
    pub master_key: MasterKey,
    /// What a hash of a password costs.
    pub hash_cost: HashCost,
    /// What gateways show that speak for their clients; nobody is believed without.
    pub gateway_secret: Option<Secret>,
    /// None where no desk tells of changes.
    pub desk_webhook: Option<DeskWebhook>,
}

/// A server that listens; [`Server::serve`] answers.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: axum::Router,
    cors: CorsLayer,
    config: Arc<Config>,
    /// Ends what would outlast the drain.
    stopping: CancellationToken,
    background: Background,
}

/// Checks what can be checked of the settings alone.
pub fn check(config: &Config) -> Result<()> {
    cors(&config.cors_origins).map(drop)
}

/// Listens; nobody is answered yet. For who wants to know that this works before there is a database.
pub async fn listen(config: &Config) -> Result<TcpListener> {
    let failed = |error| wrong("server.listen", format_args!("cannot listen on {}: {error}", config.listen));
    TcpListener::bind(config.listen).await.map_err(failed)
}

/// Does all that can fail: reads the signing keys, builds the services, listens.
pub async fn bind(config: Config, deps: Deps) -> Result<Server> {
    let listener = listen(&config).await?;
    bind_on(listener, config, deps).await
}

/// The same where it listens already.
pub async fn bind_on(listener: TcpListener, config: Config, deps: Deps) -> Result<Server> {
    let Deps { store, objects, master_key, hash_cost, gateway_secret, desk_webhook } = deps;
    let config = Arc::new(config);
    let store = store.keyed(&master_key)?;
    let address = listener.local_addr().map_err(Error::internal)?;

    codec::preload();
    store.check_language().await?;
    let keys = Keys::load(store.clone(), master_key.clone()).await?;
    let tokens = Tokens::new(keys.clone(), &config);
    let passwords = Passwords::new(config.concurrent_hashes, hash_cost).await?;
    let limits = Limits::new(store.clone(), &config)?;
    let principals = Principals::new(store.clone(), tokens.clone());
    let journal = Journal::default();
    let authorizer = Arc::new(Authorizer {
        principals: principals.clone(),
        journal: journal.clone(),
        last_use: LastUse::start(store.clone()),
    });
    let recognizer =
        Arc::new(Recognizer { principals: principals.clone(), limits: limits.clone(), journal: journal.clone() });
    let bodies = Bodies { config: Arc::clone(&config), bytes: shares::Bytes::default() };
    let background = Background::default();
    background.spawn(|stop| journal.clone().write(store.clone(), stop));
    let fresh = keys.clone();
    background.spawn(|stop| async move { fresh.keep_fresh(stop).await });
    let (changes, told) = (Changes::default(), Changes::default());
    if config.listen_for_access {
        let (store, keys) = (store.clone(), keys.clone());
        let (changes, told) = (changes.clone(), told.clone());
        let on = move |heard| match heard {
            Heard::Access(event) => {
                principals.forget(event);
                keys.hear(event);
            }
            Heard::Changes(tenant) => changes.hear(tenant),
            Heard::Told(tenant) => told.hear(tenant),
        };
        background.spawn(|stop| async move { store.listen(stop, on).await });
    }
    background.spawn(|stop| changes.clone().look(store.clone(), stop));
    let stopping = background.stop.child_token();

    let public = keys.clone();
    let jwks =
        get(move || async move { ([(http::header::CONTENT_TYPE, "application/json")], public.jwks().to_string()) });
    // The first layer named is the outermost.
    let layers = ServiceBuilder::new()
        // Everything below is named in logs and counted, refused calls too.
        .layer(layer_fn(gateway_secret.map(Arc::new), call_info::layer))
        // A panic costs one call.
        .layer(CatchPanicLayer::custom(panics::reply))
        // Nobody works for a client that has stopped waiting.
        .layer(layer_fn(Arc::clone(&config), deadline::layer))
        // Who calls is known from the headers, so that nothing scarce goes to those whom nobody knows.
        .layer(layer_fn(recognizer, recognize::layer))
        // Who is turned away is written down.
        .layer(layer_fn(journal.clone(), refusals::layer))
        // Nobody calls more often than is theirs, refused calls counted, and guessing is bounded.
        .layer(layer_fn(limits.clone(), rate_limit::layer))
        // Nobody has more calls at work than is theirs.
        .layer(layer_fn(Places::for_calls(config.concurrency_limit), admission::layer))
        // Nobody is waited for who sends or reads slowly.
        .layer(layer_fn(bodies, body::layer))
        // Nobody gets past here whom the policy does not let in.
        .layer(layer_fn(authorizer.clone(), authorize::layer));
    let parts = Parts {
        store,
        objects,
        master_key,
        tokens,
        passwords,
        limits,
        journal,
        authorizer,
        changes,
        told,
        desk_webhook: desk_webhook.map(Arc::new),
        stopping: stopping.clone(),
    };
    let routes = services::routes(&config, &parts)?.into_axum_router().route(JWKS_PATH, jwks).layer(layers);
    let cors = cors(&config.cors_origins)?;
    Ok(Server { listener, address, routes, cors, config, stopping, background })
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`, then finishes what is at work, within bounds.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let Self { listener, routes, cors, config, stopping, background, .. } = self;
        // Browsers: CORS outside of grpc-web, which answers a preflight with an error.
        let service = ServiceBuilder::new()
            .layer(cors)
            .map_request(|request: Request<Incoming>| web_text::announce(broken_off::tell(request)))
            .layer(GrpcWebLayer::new())
            .map_request(web_text::read)
            .service(routes);
        let make = |_: &Peer, socket| (TowerToHyperService::new(service.clone()), socket);
        let stop = async move {
            shutdown.await;
            stopping.cancel();
        };
        if virtualstack_connections::serve(listener, connections(), limits(&config), make, stop).await {
            tracing::warn!("some calls did not end in time");
        }
        background.end().await;
        Ok(())
    }
}

/// gRPC over HTTP/2, and grpc-web over HTTP/1.1 too.
fn connections() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(15));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        // The gateway lets 64 KiB through; HTTP/2 counts 32 bytes more for each header.
        .max_header_list_size(128 * 1024)
        .max_concurrent_streams(256);
    builder
}

fn limits(config: &Config) -> virtualstack_connections::Limits {
    virtualstack_connections::Limits {
        connections: config.max_connections,
        per_network: config.max_connections_per_address,
        first_request: Duration::from_secs(config.first_request_seconds),
        idle: Duration::from_secs(config.idle_seconds),
        send: Duration::from_secs(config.send_seconds),
        unread_per_connection: 16 << 20,
        unread_per_network: 64 << 20,
        exempt: Vec::new(),
        drain: Duration::from_secs(config.drain_seconds),
    }
}

/// What goes on beside the calls. Dropped, it stops at once.
#[derive(Default)]
struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Background {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(CancellationToken) -> F) {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// Ends in order, within bounds.
    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn cors(origins: &[String]) -> Result<CorsLayer> {
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let wrong = |_| wrong("server.cors_origins", "an origin is not one");
        AllowOrigin::list(
            origins.iter().map(|origin| HeaderValue::from_str(origin)).collect::<Result<Vec<_>, _>>().map_err(wrong)?,
        )
    };
    Ok(CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers(names(&[
            "content-type",
            "x-grpc-web",
            "x-user-agent",
            "grpc-timeout",
            "authorization",
            "x-api-key",
            "x-request-id",
        ]))
        .expose_headers(names(&[
            "grpc-status",
            "grpc-message",
            "grpc-status-details-bin",
            "x-request-id",
            "ratelimit",
            "ratelimit-policy",
        ]))
        .max_age(Duration::from_secs(3600)))
}
