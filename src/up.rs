//! `virtualstack up`: everything in one process, with a PostgreSQL of its own.
//!
//! What can be refused is refused before PostgreSQL is touched: settings, a folder that another one has, ports. From then on
//! whatever ends this process ends the PostgreSQL that it has started.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use virtualstack_gateway::Gateway;
use virtualstack_postgres::PrivatePostgres;
use virtualstack_server::{FirstAdmin, HashCost, MasterKey, Secret, bootstrap};
use virtualstack_store::Store;
use virtualstack_store::schema::migrate;
use virtualstack_worker::adapters::hypervisor::vcenter::VCenter;

use crate::cli::UpArguments;
use crate::config::Config;
use crate::data_folder::{DataFolder, write_private};
use crate::ops::Ops;
use crate::signals::{Asked, CutShort};
use crate::{ops, roles};

/// Name of the private database.
pub(crate) const DATABASE: &str = "virtualstack";

/// The tenant that the README's first VM is made in.
const DEMO_TENANT: &str = "demo";

/// What needs no database.
struct Bound {
    grpc: TcpListener,
    gateway: Gateway,
    /// What the gateway shows the server.
    secret: String,
    ops: Ops,
    vcenter: Option<Arc<VCenter>>,
}

/// Starts everything, says where it is, and stops it when told to.
pub(crate) async fn run(mut config: Config, arguments: UpArguments, metrics: PrometheusHandle) -> anyhow::Result<()> {
    // From here on a signal means: stop in order.
    let asked = Asked::listen(format!("calls and steps at work, {} s at most", drain_seconds(&config)))?;
    let folder = DataFolder::take(&config.data_dir()).await?;
    let bound = bind(&config).await?;
    let master_key = match config.master_key()? {
        Some(key) => key,
        None => config.with_previous(folder.master_key()?)?,
    };
    let cluster = asked.or_cut(private_cluster(&mut config, folder.path())).await?;
    let serving = serve(&config, arguments.ready_file.as_deref(), master_key, bound, metrics, asked.stop.clone());
    let served = asked.or_cut(serving).await;
    let Some(cluster) = cluster.map(Arc::new) else { return served };
    tracing::info!("stopping PostgreSQL");
    let (stopped, cut) = (Arc::clone(&cluster), cluster);
    let stopped =
        async { tokio::task::spawn_blocking(move || stopped.stop()).await?.context("cannot stop PostgreSQL") };
    match asked.or_cut(stopped).await {
        Err(error) if error.is::<CutShort>() => {
            tokio::task::spawn_blocking(move || cut.cut()).await?.context("cannot stop PostgreSQL")?;
            served.and(Err(error))
        }
        stopped => served.and(stopped),
    }
}

/// The most that a drain takes: the gateway's, and then the server's.
fn drain_seconds(config: &Config) -> u64 {
    config.gateway.drain_timeout.as_secs().saturating_add(config.server.drain_seconds)
}

async fn bind(config: &Config) -> anyhow::Result<Bound> {
    let grpc = roles::listen(config).await?;
    let mut gateway = config.gateway.clone();
    gateway.upstream = format!("http://{}", grpc.local_addr()?);
    // Known to nobody but these two, and made anew at each start.
    let secret = MasterKey::generate()?.to_hex();
    let gateway = roles::bind_gateway(config, gateway, Some(&secret)).await?;
    Ok(Bound { grpc, gateway, secret, ops: ops::bind(config).await?, vcenter: roles::vcenter(config)? })
}

async fn serve(
    config: &Config,
    ready_file: Option<&Path>,
    master_key: MasterKey,
    bound: Bound,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Bound { grpc, gateway, secret, ops, vcenter } = bound;
    migrate::run(config.database.migrate_url()).await.context("cannot migrate the database")?;
    let store = Store::new(&config.database)?;
    let admin = first_admin(config)?;
    let hash_cost = HashCost::default();
    let first_start = bootstrap(&store, &admin, hash_cost).await?;

    let gateway_secret = Some(Secret::new("gateway_secret", &secret)?);
    let deps = virtualstack_server::Deps {
        store: store.clone(),
        objects: roles::objects(config)?,
        master_key: master_key.clone(),
        hash_cost,
        gateway_secret,
        desk_webhook: roles::desk_webhook(config)?,
    };
    let server = virtualstack_server::bind_on(grpc, config.server.clone(), deps).await;
    let server = server.map_err(|error| roles::refusal(config, error))?;
    let deps = roles::worker_deps(config, vcenter.clone(), store.clone(), master_key)?;
    let worker = virtualstack_worker::bind(config.worker.clone(), deps).await?;
    let ready = roles::vcenter_ready(vcenter, roles::database_ready(store, config.database.clone())).await;

    let up = Up {
        config,
        http: format!("http://{}", gateway.local_addr()),
        grpc: format!("http://{}", server.address()),
        ops: format!("http://{}", ops.address),
        admin,
        first_start,
    };

    if stop.is_cancelled() {
        return Ok(());
    }
    // Clients go first, then what they called; the ops address tells until the end.
    let (server_stop, ops_stop) = (CancellationToken::new(), CancellationToken::new());
    let ops = tokio::spawn(ops.serve(metrics, ready, ops_stop.clone()));
    // A role that ends by itself, or panics, takes the others along: half a product helps nobody.
    let server = ending(stop.clone(), server.serve(server_stop.clone().cancelled_owned()));
    let worker = ending(stop.clone(), worker.serve(stop.clone().cancelled_owned()));
    let gateway = ending(stop.clone(), gateway.serve(stop.clone().cancelled_owned()));
    let told = up.announce(ready_file);
    let unheard = end_with_output(stop.clone());
    if told.is_err() {
        // Whoever started it would not know where it is, nor by which password.
        stop.cancel();
    }
    let gateway = gateway.await?;
    tracing::info!("the gateway has ended; the server ends its calls");
    server_stop.cancel();
    let server = server.await?;
    tracing::info!("the server has ended; the worker ends its steps");
    worker.await?;
    ops_stop.cancel();
    ops.await??;
    gateway?;
    server?;
    told?;
    if unheard.is_cancelled() {
        bail!("ended in order, as nobody reads the standard output any more")
    }
    Ok(())
}

/// Cancels `stop` when whoever read our standard output has gone, as in `up | head -1`; the token says that this was why.
/// A file or a terminal does not go that way.
fn end_with_output(stop: CancellationToken) -> CancellationToken {
    let gone = CancellationToken::new();
    let seen = gone.clone();
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        let mut output = [PollFd::new(&stdout, PollFlags::empty())];
        // What nobody asks for is told all the same: errors and ends.
        while let Err(Errno::INTR) = poll(&mut output, None) {}
        if output[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            seen.cancel();
            stop.cancel();
        }
    });
    gone
}

/// Runs a role; when it ends, however it does, `stop` is cancelled.
fn ending<T: Send + 'static>(
    stop: CancellationToken,
    role: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(async move {
        let _stop = stop.drop_guard();
        role.await
    })
}

/// Starts the private PostgreSQL, unless the settings name another one.
async fn private_cluster(config: &mut Config, folder: &Path) -> anyhow::Result<Option<PrivatePostgres>> {
    if !config.database.url.is_empty() {
        return Ok(None);
    }
    let folder = folder.to_owned();
    let connections = format!("max_connections={}", config.database.max_connections + 20);
    let cluster = tokio::task::spawn_blocking(move || PrivatePostgres::start(&folder, &[&connections])).await?;
    let cluster = cluster.map_err(|error| match std::error::Error::source(&error) {
        Some(said) => anyhow::anyhow!("cannot start PostgreSQL: {error}: {said}"),
        None => anyhow::anyhow!("cannot start PostgreSQL: {error}"),
    })?;
    migrate::ensure_database(&cluster.admin_url("postgres"), DATABASE).await?;
    config.database.url = cluster.url("virtualstack_login", DATABASE);
    config.database.migrate_url = Some(cluster.admin_url(DATABASE));
    Ok(Some(cluster))
}

fn first_admin(config: &Config) -> anyhow::Result<FirstAdmin> {
    let email = config.admin.email.clone().unwrap_or_else(|| "admin@virtualstack.local".to_owned());
    let password = config.admin.password.clone().map_or_else(random_password, Ok)?;
    Ok(FirstAdmin { email, password, demo_tenant: Some(DEMO_TENANT.to_owned()) })
}

/// 20 characters that nobody mistakes for one another: about 100 bits.
pub(crate) fn random_password() -> anyhow::Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz234567899";
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// What is up, for those who want to know.
struct Up<'a> {
    config: &'a Config,
    http: String,
    grpc: String,
    ops: String,
    admin: FirstAdmin,
    first_start: bool,
}

impl Up<'_> {
    /// Tells people, by the banner, and programs, by the file that they have named.
    fn announce(&self, ready_file: Option<&Path>) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let told = out.write_all(self.banner().as_bytes()).and_then(|()| out.flush());
        told.context("cannot say on the standard output where everything is")?;
        let Some(file) = ready_file else { return Ok(()) };
        let written = write_private(file, &self.ready().to_string());
        written.with_context(|| format!("--ready-file: cannot write {}", file.display()))
    }

    /// The password that was made, and that nobody else knows.
    fn made_password(&self) -> Option<&str> {
        (self.first_start && self.config.admin.password.is_none()).then_some(self.admin.password.as_str())
    }

    fn ready(&self) -> serde_json::Value {
        let mut ready = json!({
            "http": self.http, "grpc": self.grpc, "ops": self.ops,
            "admin_email": self.admin.email, "demo_tenant": DEMO_TENANT, "pid": std::process::id(),
        });
        if let Some(password) = self.made_password() {
            ready["admin_password"] = json!(password);
        }
        ready
    }

    fn banner(&self) -> String {
        let Self { config, http, grpc, ops, .. } = self;
        let (email, folder) = (&self.admin.email, config.data_dir());
        let mut lines = vec![
            format!("VirtualStack is up; Ctrl-C stops it. Everything is kept in {}.", folder.display()),
            format!("  REST   {http}/v1"),
            format!("  gRPC   {grpc}   (reflection and grpc-web too)"),
            format!("  ops    {ops}/metrics"),
            format!("  admin  {email}"),
        ];
        let given = config.admin.password.is_some().then(|| config.name("admin.password"));
        let reset = format!("virtualstack admin reset-password {email}");
        match (self.first_start, given) {
            (true, None) => lines.push(format!("  password  {}   (made now, and shown only now)", self.admin.password)),
            (true, Some(given)) => lines.push(format!("  password  that of {given}")),
            (false, None) => lines.push(format!("  password  that of the first start; another one: {reset}")),
            (false, Some(given)) => lines.push(format!(
                "  {given} is not used: the first admin was made by an earlier start. Another password: {reset}"
            )),
        }
        if self.first_start {
            let password = self.made_password().unwrap_or("PASSWORD");
            let login = json!({"email": email, "password": password, "tenant": DEMO_TENANT});
            lines.push(format!("Next, sign in: curl -s {http}/v1/auth:login --json '{login}'"));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_role_that_ends_or_panics_takes_the_others_along() {
        let stop = CancellationToken::new();
        ending(stop.clone(), async {}).await.expect("an end");
        assert!(stop.is_cancelled());
        let stop = CancellationToken::new();
        let panicked = ending(stop.clone(), async { panic!("on purpose") }).await;
        assert!(panicked.is_err() && stop.is_cancelled());
    }
}
