//! The worker: claims jobs and runs them until it is stopped.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::IMPORT_QUEUE;
use virtualstack_model::iam::jobs::MAIL_QUEUE;
use virtualstack_objects::Objects;
use virtualstack_queue::Runner;
use virtualstack_store::{MasterKey, Store};

use crate::adapters::desk::Desk;
use crate::adapters::hypervisor::hypervisors::Hypervisors;
use crate::adapters::mail::Mailer;
use crate::config::Config;
use crate::engine::context::Shared;
use crate::engine::probe::Probe;
use crate::engine::registry::{Dispatcher, Registry};
use crate::{compute, engine, iam, notifications, object_sweep, support, tenant_life};

/// What the worker needs from outside.
pub struct Deps {
    pub store: Store,
    /// The hypervisors; one makes them by `into`.
    pub hypervisors: Hypervisors,
    /// Where files of templates are kept.
    pub objects: Objects,
    /// Where tickets are answered; None where that is here.
    pub desk: Option<Arc<dyn Desk>>,
    /// Who answers there, as tenants see it.
    pub desk_staff_name: String,
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
    /// Slots of their own: a relay that is slow, or a file that is large, keeps no VM waiting.
    mail_runner: Runner<Dispatcher>,
    import_runner: Runner<Dispatcher>,
    shared: Shared,
}

/// Every kind of job, from the ground up.
fn registry(config: &Config) -> Registry {
    let mut registry = Registry::default();
    engine::cleanup::register(&mut registry, config);
    iam::register(&mut registry, config);
    compute::register(&mut registry, config);
    support::register(&mut registry, config);
    notifications::register(&mut registry, config);
    object_sweep::register(&mut registry, config);
    tenant_life::register(&mut registry, config);
    registry
}

/// Does all that can fail: puts the scheduled jobs in.
pub async fn bind(config: Config, deps: Deps) -> Result<Worker> {
    let Deps { store, hypervisors, objects, desk, desk_staff_name, mailer, link_base, master_key, probe } = deps;
    let registry = Arc::new(registry(&config));
    registry.schedule(&store).await?;
    let worker = format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple());
    let rest = registry.queues().into_iter().filter(|queue| ![MAIL_QUEUE, IMPORT_QUEUE].contains(queue));
    let runner_config = |queues: Vec<&str>, concurrency, group_share| virtualstack_queue::Config {
        url: store.queue_url().to_owned(),
        queues: queues.into_iter().map(str::to_owned).collect(),
        worker: worker.clone(),
        concurrency,
        group_share,
        lease: Duration::from_millis(config.lease_ms.into()),
        heartbeat: Duration::from_millis(config.heartbeat_ms.into()),
        poll: Duration::from_millis(config.poll_ms.into()),
    };
    let all = runner_config(rest.collect(), config.concurrency, config.concurrency);
    let mails = runner_config(vec![MAIL_QUEUE], config.mail_concurrency, config.mail_concurrency);
    // An import has its slot for hours: the half is for other tenants.
    let imports = runner_config(vec![IMPORT_QUEUE], config.import_concurrency, config.import_concurrency.div_ceil(2));
    let stop = CancellationToken::new();
    let shared = Shared {
        store,
        hypervisors,
        objects,
        desk,
        desk_staff_name,
        mailer,
        link_base,
        master_key,
        probe,
        config: Arc::new(config),
        stop,
    };
    let dispatcher = Dispatcher { registry, shared: shared.clone() };
    let runner = |config| Runner::new(config, dispatcher.clone());
    Ok(Worker { runner: runner(all), mail_runner: runner(mails), import_runner: runner(imports), shared })
}

impl Worker {
    /// Works until `shutdown`, then ends the steps at work, gives their jobs back, and signs off from the hypervisor.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { runner, mail_runner, import_runner, shared } = self;
        let stop = || shared.stop.clone();
        let running = async {
            tokio::join!(runner.run(stop()), mail_runner.run(stop()), import_runner.run(stop()));
        };
        tokio::pin!(running);
        tokio::select! {
            () = &mut running => {}
            () = shutdown => {
                shared.stop.cancel();
                running.await;
            }
        }
        shared.hypervisors.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_that_does_it_and_others_have_none() {
        let registry = registry(&Config::default());
        let kinds: Vec<_> = registry.kinds().collect();
        let expected = [
            ("console_ticket_cleanup", "tasks"),
            ("desk_sync", "tasks"),
            ("invitation_mail", "mail"),
            ("job_cleanup", "tasks"),
            ("notification_mail", "mail"),
            ("notify", "tasks"),
            ("object_sweep", "tasks"),
            ("password_reset_cleanup", "tasks"),
            ("password_reset_mail", "mail"),
            ("rate_limit_cleanup", "tasks"),
            ("request_id_cleanup", "tasks"),
            ("session_cleanup", "tasks"),
            ("template_delete", "vm"),
            ("template_import", "import"),
            ("template_inventory", "tasks"),
            ("tenant_purge", "tasks"),
            ("ticket_closing", "tasks"),
            ("upload_expiry", "tasks"),
            ("vm_console", "vm"),
            ("vm_create", "vm"),
            ("vm_delete", "vm"),
            ("vm_power", "vm"),
            ("vm_purge", "tasks"),
            ("vm_resize", "vm"),
            ("vm_snapshot", "vm"),
        ];
        assert_eq!(
            kinds, expected,
            "kinds stand in databases: none is renamed, and none goes while jobs of it may be left"
        );
        let error = registry.find("vm_teleport").map(drop).expect_err("unknown");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("no worker of this version knows jobs of kind vm_teleport"));
    }
}
