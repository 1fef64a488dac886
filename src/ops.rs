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

use crate::config::Wrong;

/// Asks whether the process can do its work; the text says why not.
pub(crate) type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The ops listener.
pub(crate) struct Ops {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
    router: Router,
}

/// Listens.
pub(crate) async fn bind(listen: SocketAddr, metrics: PrometheusHandle, ready: Readiness) -> anyhow::Result<Ops> {
    let wrong = |error| Wrong(format!("ops.listen: cannot listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(wrong)?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/healthz", get(async || json!({"status": "ok"}).to_string()))
        .route("/metrics", get(async move || metrics.render()))
        .route(
            "/readyz",
            get(async move || match ready().await {
                Ok(()) => (StatusCode::OK, json!({"status": "ok"}).to_string()),
                Err(reason) => {
                    (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "unavailable", "reason": reason}).to_string())
                }
            }),
        );
    Ok(Ops { listener, address, router })
}

impl Ops {
    /// Answers until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let stopped = async move { stop.cancelled().await };
        axum::serve(self.listener, self.router).with_graceful_shutdown(stopped).await.context("ops")
    }
}
