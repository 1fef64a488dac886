//! The roles, each by itself: any number of servers, gateways and workers, on one PostgreSQL.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use virtualstack_objects::Objects;
use virtualstack_server::{DeskWebhook, HashCost, Secret};
use virtualstack_store::compute::simulated::Simulation;
use virtualstack_store::schema::migrate;
use virtualstack_store::{MasterKey, Store};
use virtualstack_worker::adapters::hypervisor::simulated::Simulated;
use virtualstack_worker::adapters::hypervisor::vcenter::VCenter;
use virtualstack_worker::adapters::{desk, hypervisor, mail};
use virtualstack_worker::{NoProbe, Probe};

use crate::config::Config;
use crate::crash::CrashAt;
use crate::ops::{self, Ops, Readiness};
use crate::signals::Asked;

/// The gRPC server.
pub(crate) async fn server(config: Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let (database, master_key) = (config.required_database()?.clone(), config.required_master_key()?);
    let gateway_secret =
        config.gateway_secret()?.as_deref().map(|text| Secret::new("gateway_secret", text)).transpose()?;
    let (listener, ops) = (listen(&config).await?, ops::bind(&config).await?);
    migrate::check(&database).await?;
    let (store, hash_cost) = (Store::new(&database)?, HashCost::default());
    let objects = objects(&config)?;
    let desk_webhook = desk_webhook(&config)?;
    let deps = virtualstack_server::Deps {
        store: store.clone(),
        objects,
        master_key,
        hash_cost,
        gateway_secret,
        desk_webhook,
    };
    let server = virtualstack_server::bind_on(listener, config.server.clone(), deps).await;
    let server = server.map_err(|error| refusal(&config, error))?;
    tracing::info!(address = %server.address(), "serving gRPC");
    let waits_for = format!("calls at work, {} s at most", config.server.drain_seconds);
    let serve = async |stop: CancellationToken| Ok(server.serve(stop.cancelled_owned()).await?);
    alone(ops, metrics, database_ready(store, database), waits_for, serve).await
}

/// What the desk shows when it says that something has changed there, if it does.
pub(crate) fn desk_webhook(config: &Config) -> anyhow::Result<Option<DeskWebhook>> {
    let wrong = |error: desk::ConfigError| config.wrong(&format!("desk.{}", error.key), error.problem);
    let Some((path, shown)) = config.desk.webhook().map_err(wrong)? else { return Ok(None) };
    let secret = |secret: &str| Secret::new("desk.webhook_secrets", secret);
    let header = config.desk.webhook_header.parse();
    let header = header.map_err(|_| config.wrong("desk.webhook_header", "is not the name of a header"))?;
    Ok(Some(DeskWebhook { path: secret(&path.0)?, header, secret: secret(&shown.0)? }))
}

/// The gateway.
pub(crate) async fn gateway(config: Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let secret = config.gateway_secret()?;
    if secret.is_none() {
        tracing::warn!("gateway_secret is not set: the server takes all clients of this gateway for one");
    }
    let gateway = bind_gateway(&config, config.gateway.clone(), secret.as_deref()).await?;
    let ops = ops::bind(&config).await?;
    tracing::info!(address = %gateway.local_addr(), "serving REST");
    let readiness = gateway.readiness();
    let ready: Readiness = Arc::new(move || {
        let readiness = readiness.clone();
        Box::pin(async move { readiness.check().await })
    });
    let waits_for = format!("calls at work, {} s at most", config.gateway.drain_timeout.as_secs());
    alone(ops, metrics, ready, waits_for, async |stop| Ok(gateway.serve(stop.cancelled_owned()).await?)).await
}

/// The worker.
pub(crate) async fn worker(config: Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let (database, master_key) = (config.required_database()?.clone(), config.required_master_key()?);
    let (vcenter, ops) = (vcenter(&config)?, ops::bind(&config).await?);
    migrate::check(&database).await?;
    let store = Store::new(&database)?;
    let deps = worker_deps(&config, vcenter.clone(), store.clone(), master_key)?;
    let worker = virtualstack_worker::bind(config.worker.clone(), deps).await?;
    tracing::info!("working");
    let work = async |stop: CancellationToken| {
        worker.serve(stop.cancelled_owned()).await;
        Ok(())
    };
    let ready = vcenter_ready(vcenter, database_ready(store, database)).await;
    alone(ops, metrics, ready, "steps at work".to_owned(), work).await
}

/// Listens for gRPC.
pub(crate) async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    virtualstack_server::listen(&config.server).await.map_err(|error| refusal(config, error))
}

/// An error of the server's; what is wrong with its settings is told as such.
pub(crate) fn refusal(config: &Config, error: virtualstack_server::Error) -> anyhow::Error {
    match error.to_string().split_once(": ") {
        Some((key, problem)) if error.reason() == virtualstack_server::WRONG_SETTING => {
            config.wrong(key, problem).into()
        }
        _ => error.into(),
    }
}

/// Binds a gateway; all that can fail is about its settings.
pub(crate) async fn bind_gateway(
    config: &Config,
    settings: virtualstack_gateway::Config,
    secret: Option<&str>,
) -> anyhow::Result<virtualstack_gateway::Gateway> {
    use virtualstack_gateway::Error;
    let secret = secret.map(str::parse).transpose()?;
    let desk_header = config.desk.webhook_header.parse();
    let desk_header = desk_header.map_err(|_| config.wrong("desk.webhook_header", "is not the name of a header"))?;
    let deps = virtualstack_gateway::Deps { secret, desk_header: Some(desk_header), ..Default::default() };
    let bound = virtualstack_gateway::bind(settings, deps).await;
    bound.map_err(|error| match error {
        Error::Listen { address, source } => {
            config.wrong("gateway.listen", format_args!("cannot listen on {address}: {source}")).into()
        }
        Error::Upstream(_) => config.wrong("gateway.upstream", "is not an address like http://host:port").into(),
        Error::Origin(origin) => {
            config.wrong("gateway.cors_origins", format_args!("{origin:?} is not an origin like https://host")).into()
        }
        other => anyhow::Error::new(other).context("gateway"),
    })
}

/// The vCenter of the settings, if they name one. It need not be up.
pub(crate) fn vcenter(config: &Config) -> anyhow::Result<Option<Arc<VCenter>>> {
    let Some(settings) = config.vcenter() else { return Ok(None) };
    let connected = VCenter::connect(settings.clone());
    let connected = connected.map_err(|error| config.wrong(&format!("vcenter.{}", error.key), error.problem))?;
    Ok(Some(Arc::new(connected)))
}

/// What a worker needs, with the hypervisor and the mailer of the settings.
pub(crate) fn worker_deps(
    config: &Config,
    vcenter: Option<Arc<VCenter>>,
    store: Store,
    master_key: MasterKey,
) -> anyhow::Result<virtualstack_worker::Deps> {
    let hypervisor: Arc<dyn hypervisor::Hypervisor> = match vcenter {
        Some(vcenter) => vcenter,
        None => Arc::new(Simulated::new(Simulation::new(&config.database)?, config.simulated.clone())),
    };
    let mailer = mail::connect(&config.mail, &config.data_dir().join("mail"));
    let mailer = mailer.map_err(|error| config.wrong(&format!("mail.{}", error.key), error.problem))?;
    let probe: Arc<dyn Probe> = match &config.hypervisor.crash_at {
        Some(at) => Arc::new(CrashAt::new(at.clone(), config.hypervisor.crash_after)),
        None => Arc::new(NoProbe),
    };
    let desk = desk::connect(&config.desk);
    let desk = desk.map_err(|error| config.wrong(&format!("desk.{}", error.key), error.problem))?;
    let desk_staff_name = config.desk.staff_name.clone();
    let link_base = config.mail.link_base.clone();
    let (hypervisors, objects) = (hypervisor.into(), objects(config)?);
    Ok(virtualstack_worker::Deps {
        store,
        hypervisors,
        objects,
        desk,
        desk_staff_name,
        mailer,
        link_base,
        master_key,
        probe,
    })
}

/// Where files of templates are kept, by the settings.
pub(crate) fn objects(config: &Config) -> anyhow::Result<Objects> {
    let opened = Objects::open(&config.storage);
    Ok(opened.map_err(|error| config.wrong(&format!("storage.{}", error.key), error.problem))?)
}

/// How long a probe waits for what it asks.
const PATIENCE: Duration = Duration::from_millis(900);

/// How long a start waits for the vCenter.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Ready when the database answers, soon enough for a probe that has little patience itself.
pub(crate) fn database_ready(store: Store, database: virtualstack_store::Config) -> Readiness {
    Arc::new(move || {
        let (store, database) = (store.clone(), database.clone());
        Box::pin(async move {
            let late = || format!("the database did not answer within {} ms", PATIENCE.as_millis());
            let answer = async {
                let Err(error) = store.ping().await else { return Ok(()) };
                // Why, in words for an operator.
                Err(migrate::check(&database).await.err().unwrap_or(error).to_string())
            };
            tokio::time::timeout(PATIENCE, answer).await.map_err(|_| late())?
        })
    })
}

/// Ready when its settings fit the vCenter, too. One that does not answer is another matter: all but its VMs goes on.
pub(crate) async fn vcenter_ready(vcenter: Option<Arc<VCenter>>, ready: Readiness) -> Readiness {
    let Some(vcenter) = vcenter else { return ready };
    // It need not be up.
    let _ = tokio::time::timeout(FIRST_LOOK, vcenter.check_settings()).await;
    Arc::new(move || {
        let (ready, vcenter) = (ready(), Arc::clone(&vcenter));
        Box::pin(async move {
            ready.await?;
            vcenter.misfit().map_or(Ok(()), Err)
        })
    })
}

/// Runs one role beside its ops address until a signal comes.
async fn alone<F>(
    ops: Ops,
    metrics: PrometheusHandle,
    ready: Readiness,
    waits_for: String,
    role: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let asked = Asked::listen(waits_for)?;
    tracing::info!(address = %ops.address, "serving health and metrics");
    let ops = tokio::spawn(ops.serve(metrics, ready, CancellationToken::new()));
    let done = asked.or_cut(role(asked.stop.clone())).await;
    ops.abort();
    done
}
