//! The worker: claims jobs and runs them until it is stopped.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::VM_QUEUE;
use virtualstack_model::iam::jobs::MAIL_QUEUE;
use virtualstack_model::jobs::PERIODIC_QUEUE;
use virtualstack_queue::Runner;
use virtualstack_store::{MasterKey, Store};

use crate::adapters::hypervisor::Hypervisor;
use crate::adapters::mail::Mailer;
use crate::config::Config;
use crate::engine::context::Shared;
use crate::engine::probe::Probe;
use crate::engine::registry::Dispatcher;
use crate::periodic;

/// What the worker needs from outside.
pub struct Deps {
    /// The database.
    pub store: Store,
    /// The hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What sends mail.
    pub mailer: Arc<dyn Mailer>,
    /// What links in mails begin with: the console's address.
    pub link_base: String,
    /// What secrets at rest are sealed with.
    pub master_key: MasterKey,
    /// Told of every point where a worker can die.
    pub probe: Arc<dyn Probe>,
}

/// A worker; [`Worker::serve`] works.
pub struct Worker {
    runner: Runner<Dispatcher>,
    /// Slots of its own: a relay that is slow keeps no VM waiting.
    mail_runner: Runner<Dispatcher>,
    shared: Shared,
}

/// Does all that can fail: puts the periodic jobs in.
pub async fn bind(config: Config, deps: Deps) -> Result<Worker> {
    let Deps { store, hypervisor, mailer, link_base, master_key, probe } = deps;
    periodic::schedule(&store).await?;
    let worker = format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple());
    let runner_config = |queues: &[&str], concurrency| virtualstack_queue::Config {
        url: store.queue_url().to_owned(),
        queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        worker: worker.clone(),
        concurrency,
        lease: Duration::from_millis(config.lease_ms.into()),
        heartbeat: Duration::from_millis(config.heartbeat_ms.into()),
        poll: Duration::from_millis(config.poll_ms.into()),
    };
    let vms = runner_config(&[VM_QUEUE, PERIODIC_QUEUE], config.concurrency);
    let mails = runner_config(&[MAIL_QUEUE], config.mail_concurrency);
    let stop = CancellationToken::new();
    let shared = Shared { store, hypervisor, mailer, link_base, master_key, probe, config: Arc::new(config), stop };
    let runner = |config| Runner::new(config, Dispatcher(shared.clone()));
    Ok(Worker { runner: runner(vms), mail_runner: runner(mails), shared })
}

impl Worker {
    /// Works until `shutdown`, then ends the steps at work, gives their jobs back, and signs off from the hypervisor.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { runner, mail_runner, shared } = self;
        let running = async { tokio::join!(runner.run(shared.stop.clone()), mail_runner.run(shared.stop.clone())) };
        tokio::pin!(running);
        tokio::select! {
            _ = &mut running => {}
            () = shutdown => {
                shared.stop.cancel();
                running.await;
            }
        }
        shared.hypervisor.close().await;
    }
}
