//! `virtualstack up`: everything in one process, with a PostgreSQL of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use virtualstack_postgres::PrivatePostgres;
use virtualstack_server::{FirstAdmin, GatewaySecret, HashCost, MasterKey, bootstrap};
use virtualstack_store::Store;
use virtualstack_store::schema::migrate;

use crate::cli::UpArguments;
use crate::config::Config;
use crate::{ops, roles};

/// Name of the private database.
const DATABASE: &str = "virtualstack";

/// The tenant that the README's first VM is made in.
const DEMO_TENANT: &str = "demo";

/// Starts everything, says where it is, and stops it when told to.
pub(crate) async fn run(mut config: Config, arguments: UpArguments, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let data_dir = config.data_dir();
    fs::create_dir_all(&data_dir).with_context(|| format!("data_dir: cannot make {}", data_dir.display()))?;
    // From here on a signal means: stop in order.
    let stop = CancellationToken::new();
    roles::cancel_on_signal(stop.clone())?;
    let master_key = match config.master_key()? {
        Some(key) => key,
        None => config.with_previous(own_master_key(&data_dir.join("master.key"))?)?,
    };
    let cluster = private_cluster(&mut config, &data_dir).await?;
    let served = serve(&config, arguments.ready_file.as_deref(), master_key, metrics, stop).await;
    if let Some(cluster) = cluster {
        let stopped = tokio::task::spawn_blocking(move || cluster.stop()).await?;
        served.and(stopped.context("cannot stop PostgreSQL"))
    } else {
        served
    }
}

async fn serve(
    config: &Config,
    ready_file: Option<&Path>,
    master_key: MasterKey,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    migrate::run(config.database.migrate_url()).await.context("cannot migrate the database")?;
    let store = Store::new(&config.database)?;
    let admin = first_admin(config)?;
    let hash_cost = HashCost::default();
    let first_start = bootstrap(&store, &admin, hash_cost).await?;

    // Known to nobody but these two, and made anew at each start.
    let secret = MasterKey::generate()?.to_hex();
    let gateway_secret = Some(GatewaySecret::new(&secret)?);
    let deps =
        virtualstack_server::Deps { store: store.clone(), master_key: master_key.clone(), hash_cost, gateway_secret };
    let server = roles::bind_server(config.server.clone(), deps).await?;
    let grpc = format!("http://{}", server.address());
    let mut gateway_config = config.gateway.clone();
    gateway_config.upstream.clone_from(&grpc);
    let gateway = roles::bind_gateway(gateway_config, Some(&secret)).await?;
    let http = format!("http://{}", gateway.local_addr());
    let deps = roles::worker_deps(config, store.clone(), master_key)?;
    let worker = virtualstack_worker::bind(config.worker.clone(), deps).await?;
    let ops = ops::bind(config.ops.listen, metrics, roles::database_ready(store)).await?;

    let mut ready = json!({
        "http": http, "grpc": grpc, "ops": format!("http://{}", ops.address),
        "admin_email": admin.email, "demo_tenant": DEMO_TENANT, "pid": std::process::id(),
    });
    if first_start {
        ready["admin_password"] = json!(admin.password);
    }

    // Clients go first, then what they called; the ops address tells until the end.
    let (server_stop, ops_stop) = (CancellationToken::new(), CancellationToken::new());
    let ops = tokio::spawn(ops.serve(ops_stop.clone()));
    // A role that ends by itself, or panics, takes the others along: half a product helps nobody.
    let server = ending(stop.clone(), server.serve(server_stop.clone().cancelled_owned()));
    let worker = ending(stop.clone(), worker.serve(stop.clone().cancelled_owned()));
    let gateway = ending(stop.clone(), gateway.serve(stop.clone().cancelled_owned()));
    announce(&ready, first_start, &config.data_dir());
    if let Some(file) = ready_file {
        write_private(file, &ready.to_string())
            .with_context(|| format!("--ready-file: cannot write {}", file.display()))?;
    }
    let gateway = gateway.await?;
    server_stop.cancel();
    let server = server.await?;
    worker.await?;
    ops_stop.cancel();
    ops.await??;
    gateway?;
    server?;
    Ok(())
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
async fn private_cluster(config: &mut Config, data_dir: &Path) -> anyhow::Result<Option<Arc<PrivatePostgres>>> {
    if !config.database.url.is_empty() {
        return Ok(None);
    }
    let folder = data_dir.to_owned();
    let connections = format!("max_connections={}", config.database.max_connections + 20);
    let cluster = tokio::task::spawn_blocking(move || PrivatePostgres::start(&folder, &[&connections])).await??;
    migrate::ensure_database(&cluster.admin_url("postgres"), DATABASE).await?;
    config.database.url = cluster.url("virtualstack_login", DATABASE);
    config.database.migrate_url = Some(cluster.admin_url(DATABASE));
    Ok(Some(Arc::new(cluster)))
}

fn first_admin(config: &Config) -> anyhow::Result<FirstAdmin> {
    let email = config.admin.email.clone().unwrap_or_else(|| "admin@virtualstack.local".to_owned());
    let password = config.admin.password.clone().map_or_else(random_password, Ok)?;
    Ok(FirstAdmin { email, password, demo_tenant: Some(DEMO_TENANT.to_owned()) })
}

/// 20 characters that nobody mistakes for one another: about 100 bits.
fn random_password() -> anyhow::Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz234567899";
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// The master key in the data folder, made at the first start.
fn own_master_key(file: &Path) -> anyhow::Result<MasterKey> {
    if file.exists() {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        return MasterKey::parse(&text).with_context(|| format!("{} is damaged", file.display()));
    }
    let key = MasterKey::generate()?;
    write_private(file, &key.to_hex()).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(key)
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let _ = fs::remove_file(&name);
    let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&name, file)?;
    Ok(())
}

/// The banner. The password is shown once, at the first start.
#[expect(clippy::print_stdout, reason = "it is for people")]
fn announce(ready: &serde_json::Value, first_start: bool, data_dir: &Path) {
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    println!("VirtualStack is up; Ctrl-C stops it. Everything is kept in {}.", data_dir.display());
    println!("  REST   {}/v1", text("http"));
    println!("  gRPC   {}   (reflection and grpc-web too)", text("grpc"));
    println!("  ops    {}/metrics", text("ops"));
    println!("  admin  {}", text("admin_email"));
    if first_start {
        println!("  password  {}   (shown only now)", text("admin_password"));
    }
}
