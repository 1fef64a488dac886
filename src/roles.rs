//! The roles, each by itself: any number of servers, gateways and workers, on one PostgreSQL.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use virtualstack_server::{GatewaySecret, HashCost};
use virtualstack_store::compute::simulated::Simulation;
use virtualstack_store::{MasterKey, Store};
use virtualstack_worker::adapters::hypervisor::simulated::Simulated;
use virtualstack_worker::adapters::hypervisor::vcenter::VCenter;
use virtualstack_worker::adapters::{hypervisor, mail};
use virtualstack_worker::{NoProbe, Probe};

use crate::config::{Config, HypervisorKind, Wrong};
use crate::crash::CrashAt;
use crate::ops::{self, Readiness};

/// The gRPC server.
pub(crate) async fn server(config: Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let store = Store::new(config.required_database()?)?;
    let master_key = config.required_master_key()?;
    let gateway_secret = config.gateway_secret()?.as_deref().map(GatewaySecret::new).transpose()?;
    let hash_cost = HashCost::default();
    let deps = virtualstack_server::Deps { store: store.clone(), master_key, hash_cost, gateway_secret };
    let server = bind_server(config.server, deps).await?;
    tracing::info!(address = %server.address(), "serving gRPC");
    alone(config.ops.listen, metrics, database_ready(store), async |stop| {
        Ok(server.serve(stop.cancelled_owned()).await?)
    })
    .await
}

/// The gateway.
pub(crate) async fn gateway(config: Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let secret = config.gateway_secret()?;
    if secret.is_none() {
        tracing::warn!("gateway_secret is not set: the server takes all clients of this gateway for one");
    }
    let gateway = bind_gateway(config.gateway, secret.as_deref()).await?;
    tracing::info!(address = %gateway.local_addr(), "serving REST");
    let readiness = gateway.readiness();
    let ready: Readiness = Arc::new(move || {
        let readiness = readiness.clone();
        Box::pin(async move { readiness.check().await })
    });
    alone(config.ops.listen, metrics, ready, async |stop| Ok(gateway.serve(stop.cancelled_owned()).await?)).await
}

/// The worker.
pub(crate) async fn worker(config: Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let store = Store::new(config.required_database()?)?;
    let deps = worker_deps(&config, store.clone(), config.required_master_key()?)?;
    let worker = virtualstack_worker::bind(config.worker.clone(), deps).await?;
    tracing::info!("working");
    let work = async |stop: CancellationToken| {
        worker.serve(stop.cancelled_owned()).await;
        Ok(())
    };
    alone(config.ops.listen, metrics, database_ready(store), work).await
}

/// Binds a server; what is wrong with its settings is told as such.
pub(crate) async fn bind_server(
    config: virtualstack_server::Config,
    deps: virtualstack_server::Deps,
) -> anyhow::Result<virtualstack_server::Server> {
    virtualstack_server::bind(config, deps).await.map_err(|error| match error.reason() {
        virtualstack_server::WRONG_SETTING => Wrong(error.to_string()).into(),
        _ => error.into(),
    })
}

/// Binds a gateway; all that can fail is about its settings.
pub(crate) async fn bind_gateway(
    config: virtualstack_gateway::Config,
    secret: Option<&str>,
) -> anyhow::Result<virtualstack_gateway::Gateway> {
    let secret = secret.map(str::parse).transpose()?;
    let deps = virtualstack_gateway::Deps { secret, ..Default::default() };
    let bound = virtualstack_gateway::bind(config, deps).await;
    bound.map_err(|error| Wrong(format!("gateway: {error}")).into())
}

/// What a worker needs, with the hypervisor and the mailer of the settings.
pub(crate) fn worker_deps(
    config: &Config,
    store: Store,
    master_key: MasterKey,
) -> anyhow::Result<virtualstack_worker::Deps> {
    let hypervisor: Arc<dyn hypervisor::Hypervisor> = match (config.hypervisor.kind, &config.vcenter) {
        (HypervisorKind::VCenter, Some(settings)) => {
            Arc::new(VCenter::connect(settings.clone()).map_err(|error| Wrong(error.to_string()))?)
        }
        (HypervisorKind::VCenter, None) => return Err(Wrong("vcenter.url: is required".to_owned()).into()),
        (HypervisorKind::Simulated, _) => {
            Arc::new(Simulated::new(Simulation::new(&config.database)?, config.simulated.clone()))
        }
    };
    let mailer = mail::connect(&config.mail, &config.data_dir().join("mail")).map_err(|e| Wrong(e.to_string()))?;
    let probe: Arc<dyn Probe> = match &config.hypervisor.crash_at {
        Some(at) => Arc::new(CrashAt::new(at.clone(), config.hypervisor.crash_after)),
        None => Arc::new(NoProbe),
    };
    let link_base = config.mail.link_base.clone();
    Ok(virtualstack_worker::Deps { store, hypervisors: hypervisor.into(), mailer, link_base, master_key, probe })
}

/// Ready when the database answers, soon enough for a probe that has little patience itself.
pub(crate) fn database_ready(store: Store) -> Readiness {
    const PATIENCE: Duration = Duration::from_millis(900);
    Arc::new(move || {
        let store = store.clone();
        Box::pin(async move {
            let late = || format!("the database did not answer within {} ms", PATIENCE.as_millis());
            let answer = tokio::time::timeout(PATIENCE, store.ping()).await.map_err(|_| late())?;
            answer.map_err(|error| error.to_string())
        })
    })
}

/// Runs one role beside its ops address until a signal comes.
async fn alone<F>(
    listen: std::net::SocketAddr,
    metrics: PrometheusHandle,
    ready: Readiness,
    role: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let stop = CancellationToken::new();
    let ops = ops::bind(listen, metrics, ready).await?;
    tracing::info!(address = %ops.address, "serving health and metrics");
    let ops = tokio::spawn(ops.serve(CancellationToken::new()));
    cancel_on_signal(stop.clone())?;
    let done = role(stop).await;
    ops.abort();
    done
}

/// Cancels on SIGTERM or SIGINT.
pub(crate) fn cancel_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}
