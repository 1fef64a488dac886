//! The ops address of a process: /healthz, /readyz and /metrics, for operators and not for the public.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Asks whether the process can do its work; the text says why not.
pub(crate) type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The ops listener.
pub(crate) struct Ops {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// Listens.
pub(crate) async fn bind(config: &Config) -> anyhow::Result<Ops> {
    let listen = config.ops.listen;
    let wrong = |error| config.wrong("ops.listen", format_args!("cannot listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(wrong)?;
    let address = listener.local_addr()?;
    Ok(Ops { listener, address })
}

impl Ops {
    /// Answers until `stop`.
    pub(crate) async fn serve(
        self,
        metrics: PrometheusHandle,
        ready: Readiness,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let router = Router::new()
            .route("/healthz", get(async || json!({"status": "ok"}).to_string()))
            .route("/metrics", get(async move || metrics.render()))
            .route(
                "/readyz",
                get(async move || match ready().await {
                    Ok(()) => (StatusCode::OK, json!({"status": "ok"}).to_string()),
                    Err(reason) => {
                        let body = json!({"status": "unavailable", "reason": reason});
                        (StatusCode::SERVICE_UNAVAILABLE, body.to_string())
                    }
                }),
            );
        let stopped = async move { stop.cancelled().await };
        axum::serve(self.listener, router).with_graceful_shutdown(stopped).await.context("ops")
    }
}
