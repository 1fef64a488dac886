//! Workers that are killed, stopped, doubled and robbed of their leases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use virtualstack_worker::{NoProbe, Point, Probe};

use super::injected::InjectedFaults;
use super::lab::Lab;
use crate::support::{ControlPlane, Intercepted, Seed, WorkerTask};

/// Stops a worker in its tracks after it has passed so many points of workflows.
struct Mine {
    left: AtomicUsize,
    stepped_on: Notify,
}

#[async_trait]
impl Probe for Mine {
    async fn pass(&self, step: &str, _point: Point) {
        if !step.starts_with("vm_") {
            return;
        }
        let passed = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if passed.is_err() {
            self.stepped_on.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// The workers of a control plane.
pub(super) struct Workers<'a> {
    plane: &'a ControlPlane,
    lab: Arc<dyn Lab>,
    troubles: Arc<InjectedFaults>,
    at_work: Option<WorkerTask>,
}

impl<'a> Workers<'a> {
    /// One.
    pub(super) async fn start(plane: &'a ControlPlane, lab: Arc<dyn Lab>, troubles: Arc<InjectedFaults>) -> Self {
        let mut workers = Self { plane, lab, troubles, at_work: None };
        workers.at_work = Some(workers.another(Arc::new(NoProbe)).await);
        workers
    }

    async fn another(&self, probe: Arc<dyn Probe>) -> WorkerTask {
        let hypervisor = Intercepted::behind(Arc::clone(&self.troubles), self.lab.connect());
        self.plane.work_on(probe, Arc::new(hypervisor)).await
    }

    /// Kills the worker and starts another one.
    async fn replace(&mut self) {
        drop(self.at_work.take());
        self.at_work = Some(self.another(Arc::new(NoProbe)).await);
    }

    /// Disturbs them until `end`, and leaves one at work.
    pub(super) async fn disturb(
        &mut self,
        seed: &mut Seed,
        end: &CancellationToken,
        tally: &mut BTreeMap<String, usize>,
    ) {
        loop {
            let pause = Duration::from_millis(300) + seed.millis(2_200);
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let what = match seed.below(10) {
                0..3 => {
                    let points = seed.below(80);
                    let mine = Arc::new(Mine { left: AtomicUsize::new(points), stepped_on: Notify::new() });
                    drop(self.at_work.take());
                    self.at_work = Some(self.another(Arc::clone(&mine) as _).await);
                    let stepped_on = tokio::time::timeout(Duration::from_secs(3), mine.stepped_on.notified()).await;
                    self.replace().await;
                    if stepped_on.is_ok() { "worker killed at a point" } else { "worker killed" }
                }
                3..5 => {
                    drop(self.at_work.take());
                    tokio::time::sleep(seed.millis(300)).await;
                    self.replace().await;
                    "worker killed"
                }
                5 => {
                    if let Some(worker) = self.at_work.take() {
                        worker.drain().await;
                    }
                    self.replace().await;
                    "worker drained"
                }
                6 => {
                    // As if nobody had renewed them; whoever had them goes on until it finds out.
                    let steal = "UPDATE background_jobs.jobs SET available_at = now(), fencing_token = fencing_token + 1 \
                        WHERE id IN (SELECT id FROM background_jobs.jobs WHERE state = 'running' AND queue = 'vm' \
                            FOR UPDATE SKIP LOCKED)";
                    self.plane.database.execute(steal).await;
                    "leases stolen"
                }
                7 => {
                    let second = self.another(Arc::new(NoProbe)).await;
                    tokio::time::sleep(seed.millis(500)).await;
                    drop(self.at_work.replace(second));
                    "worker killed beside another"
                }
                _ => self.lab.storm(seed).await,
            };
            *tally.entry(what.to_owned()).or_default() += 1;
        }
    }

    /// Stops them in order.
    pub(super) async fn drain(mut self) {
        if let Some(worker) = self.at_work.take() {
            worker.drain().await;
        }
    }
}
