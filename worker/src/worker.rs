//! The worker: claims jobs and runs them until it is stopped.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use virtualstack_model::Result;
use virtualstack_model::jobs::{PERIODIC_QUEUE, VM_QUEUE};
use virtualstack_queue::Runner;
use virtualstack_store::Store;

use crate::adapters::hypervisor::Hypervisor;
use crate::adapters::mail::Mailer;
use crate::config::Config;
use crate::context::Shared;
use crate::dispatch::Dispatcher;
use crate::periodic;
use crate::probe::Probe;

/// What the worker needs from outside.
pub struct Deps {
    /// The database.
    pub store: Store,
    /// The hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What sends mail.
    pub mailer: Arc<dyn Mailer>,
    /// Told of every point where a worker can die.
    pub probe: Arc<dyn Probe>,
}

/// A worker; [`Worker::serve`] works.
pub struct Worker {
    runner: Runner<Dispatcher>,
    shared: Shared,
}

/// Does all that can fail: puts the periodic jobs in.
pub async fn bind(config: Config, deps: Deps) -> Result<Worker> {
    let Deps { store, hypervisor, mailer, probe } = deps;
    periodic::schedule(&store).await?;
    let runner_config = virtualstack_queue::Config {
        url: store.queue_url().to_owned(),
        queues: vec![VM_QUEUE.to_owned(), PERIODIC_QUEUE.to_owned()],
        worker: format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple()),
        concurrency: config.concurrency,
        lease: Duration::from_millis(config.lease_ms.into()),
        heartbeat: Duration::from_millis(config.heartbeat_ms.into()),
        poll: Duration::from_millis(config.poll_ms.into()),
    };
    let stop = CancellationToken::new();
    let shared = Shared { store, hypervisor, mailer, probe, config: Arc::new(config), stop };
    Ok(Worker { runner: Runner::new(runner_config, Dispatcher(shared.clone())), shared })
}

impl Worker {
    /// Works until `shutdown`, then ends the steps at work, gives their jobs back, and signs off from the hypervisor.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { runner, shared } = self;
        let running = runner.run(shared.stop.clone());
        tokio::pin!(running);
        tokio::select! {
            () = &mut running => {}
            () = shutdown => {
                shared.stop.cancel();
                running.await;
            }
        }
        shared.hypervisor.close().await;
    }
}
