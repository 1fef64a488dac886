//! Puts the server together: the layers in their order, the services, and the socket.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state as layer_fn;
use axum::routing::get;
use http::{HeaderName, HeaderValue, Method};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_web::GrpcWebLayer;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use virtualstack_model::{Error, Result};
use virtualstack_store::changes::notify::Heard;
use virtualstack_store::{MasterKey, Store};

use crate::auth::denials::denied_calls;
use crate::auth::last_use::LastUse;
use crate::auth::limits::Limits;
use crate::auth::passwords::{HashCost, Passwords};
use crate::auth::principals::Principals;
use crate::auth::signing_keys::{JWKS_PATH, Keys};
use crate::auth::tokens::Tokens;
use crate::call::codec;
use crate::changes::Changes;
use crate::config::{Config, wrong};
use crate::layers::authorize::{self, Authorizer};
use crate::layers::{admission, call_info, deadline, panics, rate_limit};
use crate::services;
use crate::services::parts::Parts;

/// What the server needs from outside.
pub struct Deps {
    pub store: Store,
    /// What private keys are sealed with.
    pub master_key: MasterKey,
    /// What a hash of a password costs.
    pub hash_cost: HashCost,
}

/// A server that listens; [`Server::serve`] answers.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: Routes,
    cors: CorsLayer,
    drain: Duration,
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
    let Deps { store, master_key, hash_cost } = deps;
    let config = Arc::new(config);
    let address = listener.local_addr().map_err(Error::internal)?;

    codec::preload();
    store.check_language().await?;
    let keys = Keys::load(store.clone(), master_key.clone()).await?;
    let tokens = Tokens::new(keys.clone(), &config);
    let passwords = Passwords::new(config.concurrent_hashes, hash_cost).await?;
    let limits = Limits::new(store.clone(), &config)?;
    let principals = Principals::new(store.clone(), tokens.clone());
    let (denied_calls, refusal_writer) = denied_calls();
    let authorizer = Authorizer {
        principals: principals.clone(),
        denied_calls: denied_calls.clone(),
        last_use: LastUse::start(store.clone()),
        max_request_bytes: config.max_request_bytes,
    };
    let background = Background::default();
    background.spawn(|stop| refusal_writer.run(store.clone(), stop));
    let fresh = keys.clone();
    background.spawn(|stop| async move { fresh.keep_fresh(stop).await });
    let changes = Changes::default();
    if config.listen_for_access {
        let (store, keys) = (store.clone(), keys.clone());
        let changes = changes.clone();
        let on = move |heard| match heard {
            Heard::Access(event) => {
                principals.forget(event);
                keys.hear(event);
            }
            Heard::Changes(tenant) => changes.hear(tenant),
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
        .layer(layer_fn(Arc::clone(&config), call_info::layer))
        // A panic costs one call.
        .layer(CatchPanicLayer::custom(panics::reply))
        // Nobody works for a client that has stopped waiting.
        .layer(layer_fn(Arc::clone(&config), deadline::layer))
        // Too many calls are turned away before they cost anything.
        .layer(layer_fn(Arc::new(Semaphore::new(config.concurrency_limit)), admission::layer))
        // Guessing is bounded before anybody's credentials are looked at.
        .layer(layer_fn(limits.clone(), rate_limit::addresses))
        // Nobody gets past here whom the policy does not let in.
        .layer(layer_fn(authorizer.clone(), authorize::layer))
        // Nobody takes more than their share.
        .layer(layer_fn(limits.clone(), rate_limit::principals));
    let parts = Parts {
        store,
        master_key,
        tokens,
        passwords,
        limits,
        denied_calls,
        authorizer,
        changes,
        stopping: stopping.clone(),
    };
    let routes = services::routes(&config, &parts)?.into_axum_router().route(JWKS_PATH, jwks).layer(layers);
    let drain = Duration::from_secs(config.drain_seconds);
    let (routes, cors) = (Routes::from(routes), cors(&config.cors_origins)?);
    Ok(Server { listener, address, routes, cors, drain, stopping, background })
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`, then finishes what is at work, within bounds.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tonic::transport::Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            // The gateway lets 64 KiB through; HTTP/2 counts 32 bytes more for each header.
            .http2_max_header_list_size(128 * 1024)
            .max_concurrent_streams(256)
            // Browsers: CORS outside of grpc-web, which answers a preflight with an error.
            .layer(self.cors)
            .layer(GrpcWebLayer::new())
            .add_routes(self.routes)
            // Without Nagle's algorithm: replies are small, and must not wait for the client's delayed acknowledgement.
            .serve_with_incoming_shutdown(TcpIncoming::from(self.listener).with_nodelay(Some(true)), async {
                let _ = stopped.await;
            });
        tokio::pin!(serving);
        tokio::select! {
            result = &mut serving => return result.map_err(Error::internal),
            () = shutdown => {}
        }
        self.stopping.cancel();
        let _ = stop.send(());
        let served = tokio::time::timeout(self.drain, serving).await;
        self.background.end().await;
        match served {
            Ok(result) => result.map_err(Error::internal),
            Err(_) => {
                tracing::warn!("some calls did not end in time");
                Ok(())
            }
        }
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
