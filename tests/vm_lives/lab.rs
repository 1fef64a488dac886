//! The hypervisors that the test runs on, and what they can do to trouble it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::vm::{PowerState, Size};
use virtualstack_worker::adapters::hypervisor::Hypervisor;
use virtualstack_worker::adapters::hypervisor::simulated::{self, Simulated};

use super::model::Rules;
use crate::adapters::vcsim::Vcsim;
use crate::support::{ControlPlane, Database, Seed};

/// A VM that a hypervisor has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) power: PowerState,
    pub(super) size: Size,
    /// UUIDs of its snapshots, as the control plane knows them.
    pub(super) snapshots: BTreeSet<String>,
}

/// What becomes of a task that was just started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoil {
    Slow,
    Fail,
}

/// A hypervisor to run on.
#[async_trait]
pub(super) trait Lab: Send + Sync {
    /// What it does its own way.
    fn rules(&self) -> Rules;

    /// The hypervisor as a worker that was just started connects to it.
    fn connect(&self) -> Arc<dyn Hypervisor>;

    /// Every VM that it has, by id.
    async fn machines(&self) -> BTreeMap<VmId, Machine>;

    /// Makes the task of a VM that runs now slow, or fail; whether there is one.
    async fn spoil(&self, vm: VmId, how: Spoil) -> bool;

    /// Something goes wrong with the hypervisor as a whole; what.
    async fn storm(&self, seed: &mut Seed) -> &'static str;
}

/// The simulated hypervisor.
pub(super) struct SimulatedLab {
    database: Database,
    hypervisor: Arc<Simulated>,
}

impl SimulatedLab {
    pub(super) fn new(plane: &ControlPlane) -> Self {
        let quick = simulated::Config { create_ms: 80, power_ms: 60, shut_down_ms: 80, ..Default::default() };
        Self::with(plane, quick)
    }

    pub(super) fn with(plane: &ControlPlane, config: simulated::Config) -> Self {
        Self { database: plane.database.clone(), hypervisor: Arc::new(plane.hypervisor(config)) }
    }
}

#[async_trait]
impl Lab for SimulatedLab {
    fn rules(&self) -> Rules {
        Rules { grows_hot: Some(true), guests: true, disks_revert: false }
    }

    fn connect(&self) -> Arc<dyn Hypervisor> {
        Arc::clone(&self.hypervisor) as _
    }

    async fn machines(&self) -> BTreeMap<VmId, Machine> {
        let machines = self.hypervisor.machines().await.expect("machines").into_iter().map(|machine| {
            let snapshots = machine.snapshots.iter().map(ToString::to_string).collect();
            (machine.id, Machine { power: machine.power, size: machine.size, snapshots })
        });
        machines.collect()
    }

    async fn spoil(&self, vm: VmId, how: Spoil) -> bool {
        let change = match how {
            Spoil::Slow => "finish_at = finish_at + interval '600 milliseconds'",
            Spoil::Fail => "fault = 'spoilt by a test'",
        };
        // A guest that does not shut down is waited for as long as its owner wants; that is no fault.
        let running = "finished_at IS NULL AND finish_at > now() AND action <> 'SHUT_DOWN'";
        let tasks = "simulated_hypervisor.tasks";
        self.database.changed(&format!("UPDATE {tasks} SET {change} WHERE vm_id = '{vm}' AND {running}")).await > 0
    }

    async fn storm(&self, seed: &mut Seed) -> &'static str {
        // Whoever asks waits.
        let ms = 50 + seed.below(400);
        self.database
            .execute(&format!(
                "BEGIN; SELECT pg_advisory_xact_lock(hashtext('virtualstack.simulated_hypervisor')); \
                 SELECT pg_sleep({ms} / 1000.0); COMMIT"
            ))
            .await;
        "the hypervisor hung"
    }
}

/// A vCenter of our own simulator's making, over the wire.
pub(super) struct VcsimLab {
    vcsim: Vcsim,
}

/// Calls that start a task.
const TASKS: [&str; 8] = [
    "CloneVM_Task",
    "CreateVM_Task",
    "PowerOnVM_Task",
    "PowerOffVM_Task",
    "ReconfigVM_Task",
    "CreateSnapshot_Task",
    "RevertToSnapshot_Task",
    "Destroy_Task",
];

impl VcsimLab {
    /// None where there is no simulator to start.
    pub(super) async fn start() -> Option<Self> {
        let options = ["-plain", "-clone-delay-min", "20ms", "-clone-delay-max", "400ms"];
        Some(Self { vcsim: Vcsim::start(&options).await? })
    }
}

#[async_trait]
impl Lab for VcsimLab {
    fn rules(&self) -> Rules {
        // The smallest template's VMs get nothing while they run.
        Rules { grows_hot: Some(false), guests: true, disks_revert: true }
    }

    fn connect(&self) -> Arc<dyn Hypervisor> {
        Arc::new(self.vcsim.connect())
    }

    async fn machines(&self) -> BTreeMap<VmId, Machine> {
        let machines = self.vcsim.machines().await.into_iter().map(|machine| {
            assert_eq!(machine.instance_uuid, machine.marker, "two VMs of one making: {machine:?}");
            let power = match machine.power.as_str() {
                "poweredOn" => PowerState::On,
                "suspended" => PowerState::Paused,
                _ => PowerState::Off,
            };
            let size = Size { cpu_count: machine.cpus, memory_mib: machine.memory_mib, disk_gib: machine.disk_gib };
            // Their names end in our ids.
            let snapshots = machine.snapshots.iter().map(|name| name[name.len() - 36..].to_owned()).collect();
            (machine.marker.parse().expect("our id"), Machine { power, size, snapshots })
        });
        machines.collect()
    }

    /// Which VM's task it is to be, cannot be said; see [`Self::storm`].
    async fn spoil(&self, _vm: VmId, _how: Spoil) -> bool {
        false
    }

    async fn storm(&self, seed: &mut Seed) -> &'static str {
        let method = seed.pick(&TASKS);
        let (what, request) = match seed.below(4) {
            0 => ("sessions ended", "end-sessions".to_owned()),
            1 => ("a reply lost on the wire", format!("lose?method={method}&count=1")),
            2 => ("a call refused on the wire", format!("refuse?method={method}&count=1")),
            _ => ("a task of the vCenter slow", format!("slow?method={method}&count=1&ms={}", 100 + seed.below(900))),
        };
        self.vcsim.test(&format!("POST /test/{request}")).await;
        what
    }
}
