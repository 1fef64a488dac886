//! A whole control plane: server, gateway and worker in this process, on free ports.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use virtualstack_server::{HashCost, MasterKey, Secret, bootstrap};
use virtualstack_store::Store;
use virtualstack_store::compute::simulated::Simulation;
use virtualstack_worker::adapters::desk::Desk;
use virtualstack_worker::adapters::hypervisor::Hypervisor;
use virtualstack_worker::adapters::hypervisor::simulated::{self, Simulated};
use virtualstack_worker::adapters::mail::{self, Mailer};
use virtualstack_worker::{NoProbe, Probe};

use super::desk::webhook as desk_webhook;
use super::first_admin::{first_admin, least_cost};
use super::{Database, Mails};

/// What the server and the gateway of a test share.
pub(crate) const SECRET: &str = "a-secret-that-server-and-gateway-share";

/// A running control plane. Dropped, it stops at once, as a killed process would.
pub(crate) struct ControlPlane {
    pub(crate) database: Database,
    pub(crate) store: Store,
    pub(crate) grpc: String,
    pub(crate) http: String,
    /// What its workers have sent.
    pub(crate) mails: Mails,
    /// How long a claim of its workers holds: so long it takes until somebody goes on where one was killed.
    pub(crate) lease_ms: u32,
    /// How often its workers read that desk, when it says nothing.
    pub(crate) desk_poll_seconds: u32,
    /// Where its workers have tickets answered; None where that is here.
    pub(crate) desk: Option<Arc<dyn Desk>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl ControlPlane {
    /// With a worker.
    pub(crate) async fn start() -> Self {
        let plane = Self::without_worker().await;
        plane.work(Arc::new(NoProbe)).await.detach();
        plane.templates().await;
        plane
    }

    /// Without a worker: jobs wait until [`Self::work`].
    pub(crate) async fn without_worker() -> Self {
        Self::on(Database::bootstrapped().await).await
    }

    /// Without a worker, and with settings of the test's own; where the server listens is not one of them.
    pub(crate) async fn start_with(server: virtualstack_server::Config) -> Self {
        Self::on_with(Database::bootstrapped().await, server).await
    }

    /// Without a worker, with a desk that is another program; nobody calls it.
    pub(crate) async fn with_another_desk() -> Self {
        let config = virtualstack_server::Config { desk_is_local: false, ..many_logins() };
        Self::on_with(Database::bootstrapped().await, config).await
    }

    /// On a database that may be another control plane's too.
    pub(crate) async fn on(database: Database) -> Self {
        Self::on_with(database, many_logins()).await
    }

    /// Both.
    pub(crate) async fn on_with(database: Database, server: virtualstack_server::Config) -> Self {
        Self::hashing(database, server, least_cost()).await
    }

    /// Without a worker, with hashes of passwords that cost what they do in production.
    pub(crate) async fn with_real_hashes() -> Self {
        Self::hashing(Database::new().await, many_logins(), HashCost::default()).await
    }

    async fn hashing(database: Database, server: virtualstack_server::Config, hash_cost: HashCost) -> Self {
        Self::sealing(database, server, hash_cost, master_key()).await
    }

    /// On a database that may be another control plane's too, with a master key of the test's own.
    pub(crate) async fn on_with_key(database: Database, master_key: MasterKey) -> Self {
        Self::sealing(database, many_logins(), least_cost(), master_key).await
    }

    async fn sealing(
        database: Database,
        server: virtualstack_server::Config,
        hash_cost: HashCost,
        master_key: MasterKey,
    ) -> Self {
        let store = Store::new(&database.config).expect("a store");
        bootstrap(&store, &first_admin(), hash_cost).await.expect("a first admin");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let config = virtualstack_server::Config { listen, ..server };
        let gateway_secret = Some(Secret::new("gateway_secret", SECRET).expect("a secret"));
        let deps = virtualstack_server::Deps {
            store: store.clone(),
            objects: database.objects(),
            master_key,
            hash_cost,
            gateway_secret,
            desk_webhook: Some(desk_webhook()),
        };
        let server = virtualstack_server::bind(config, deps).await.expect("a server");
        let grpc = format!("http://{}", server.address());
        let config = virtualstack_gateway::Config { listen, upstream: grpc.clone(), ..Default::default() };
        let deps = virtualstack_gateway::Deps {
            secret: Some(HeaderValue::from_static(SECRET)),
            desk_header: Some(desk_webhook().header),
            ..Default::default()
        };
        let gateway = virtualstack_gateway::bind(config, deps).await.expect("a gateway");
        let http = format!("http://{}", gateway.local_addr());
        let stop = CancellationToken::new();
        let (server_stop, gateway_stop) = (stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(async move { server.serve(server_stop.cancelled_owned()).await.expect("served") }),
            tokio::spawn(async move { gateway.serve(gateway_stop.cancelled_owned()).await.expect("served") }),
        ];
        // On a busy machine a worker that lives must not lose its leases all the time.
        Self {
            database,
            store,
            grpc,
            http,
            mails: Mails::new(),
            lease_ms: 1_000,
            desk_poll_seconds: 1,
            desk: None,
            stop,
            tasks,
        }
    }

    /// The simulated hypervisor of this database, as fast as tests want it.
    pub(crate) fn hypervisor(&self, config: simulated::Config) -> Simulated {
        Simulated::new(Simulation::new(&self.database.config).expect("a simulation"), config)
    }

    /// Starts a worker that passes every point of its steps by `probe`.
    pub(crate) async fn work(&self, probe: Arc<dyn Probe>) -> WorkerTask {
        let quick = simulated::Config { create_ms: 30, power_ms: 20, shut_down_ms: 30, ..Default::default() };
        self.work_on(probe, Arc::new(self.hypervisor(quick))).await
    }

    /// Starts a worker on a hypervisor of the test's own.
    pub(crate) async fn work_on(&self, probe: Arc<dyn Probe>, hypervisor: Arc<dyn Hypervisor>) -> WorkerTask {
        let mailer = mail::connect(&mail::Config::default(), self.mails.folder()).expect("a mailer");
        self.work_with(probe, hypervisor, mailer).await
    }

    /// Starts a worker that sends mail by the test's own means.
    pub(crate) async fn work_mailing(&self, mailer: Arc<dyn Mailer>) -> WorkerTask {
        let quick = simulated::Config { create_ms: 30, power_ms: 20, shut_down_ms: 30, ..Default::default() };
        self.work_with(Arc::new(NoProbe), Arc::new(self.hypervisor(quick)), mailer).await
    }

    async fn work_with(
        &self,
        probe: Arc<dyn Probe>,
        hypervisor: Arc<dyn Hypervisor>,
        mailer: Arc<dyn Mailer>,
    ) -> WorkerTask {
        let config = virtualstack_worker::Config {
            // Jobs that a test lets hang must not keep others from their slots.
            concurrency: 64,
            lease_ms: self.lease_ms,
            heartbeat_ms: self.lease_ms / 4,
            poll_ms: 100,
            task_poll_ms: 20,
            notify_seconds: 1,
            desk_send_seconds: 1,
            desk_poll_seconds: self.desk_poll_seconds,
            address_wait_seconds: 1,
            ..Default::default()
        };
        let link_base = mail::Config::default().link_base;
        let deps = virtualstack_worker::Deps {
            store: self.store.clone(),
            hypervisors: hypervisor.into(),
            objects: self.database.objects(),
            desk: self.desk.clone(),
            desk_staff_name: "Support".to_owned(),
            mailer,
            link_base,
            master_key: master_key(),
            probe,
        };
        let worker = virtualstack_worker::bind(config, deps).await.expect("a worker");
        let stop = self.stop.child_token();
        let stopped = stop.clone().cancelled_owned();
        WorkerTask { task: Some(tokio::spawn(worker.serve(stopped))), stop }
    }

    /// Waits until the worker has published templates; the full name of the smallest.
    pub(crate) async fn templates(&self) -> String {
        let admin = self.admin().await;
        for _ in 0..1_200 {
            if let Some(template) = admin.list_templates().await.pop() {
                return template.name;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no template was published")
    }

    /// The texts of all mails to an address so far, the first one first.
    pub(crate) fn mail_to(&self, address: &str) -> Vec<String> {
        self.mails.to(address)
    }

    /// The text of the first mail to an address that was not given yet; waits 30 s for it.
    pub(crate) async fn next_mail_to(&self, address: &str) -> String {
        self.mails.next_to(address).await
    }

    /// Stops server and gateway in order, as a signal does.
    pub(crate) async fn drain(&mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.expect("no panic");
        }
    }

    /// Waits until no job of a VM is left to do.
    pub(crate) async fn idle(&self) {
        self.done("vm").await;
    }

    /// Waits until no mail is left to send.
    pub(crate) async fn mailed(&self) {
        self.done("mail").await;
    }

    async fn done(&self, queue: &str) {
        let open = format!("SELECT count(*) FROM background_jobs.jobs WHERE queue = '{queue}' AND finished_at IS NULL");
        for _ in 0..1_200 {
            if self.database.count(&open).await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("jobs are left after 60 s")
    }
}

/// Tests sign in from one address, and more often than people do.
fn many_logins() -> virtualstack_server::Config {
    virtualstack_server::Config {
        auth_per_minute: 10_000,
        auth_per_address_per_minute: 10_000,
        mails_per_address_per_hour: 10_000,
        tickets_per_tenant_per_hour: 10_000,
        ..Default::default()
    }
}

/// What servers and workers of tests seal with.
pub(crate) fn master_key() -> MasterKey {
    MasterKey::parse(&"07".repeat(32)).expect("a key")
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A worker at work. Dropped, it dies on the spot.
pub(crate) struct WorkerTask {
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl WorkerTask {
    /// Lets it work as long as the control plane runs.
    pub(crate) fn detach(mut self) {
        self.task.take();
    }

    /// Kills it, and sees that it is dead.
    pub(crate) async fn kill(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Stops it in order: steps end, jobs are given back.
    pub(crate) async fn drain(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.expect("no panic");
        }
    }
}

impl Drop for WorkerTask {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
