//! The simulated hypervisor: a real component for trying the product, demonstrations and tests. What it knows is in
//! the database, so it survives restarts and serves several workers; how slow and how faulty it is, is a setting.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use virtualstack_model::Error;
use virtualstack_model::id::VmId;
use virtualstack_model::template::TemplateKind;
use virtualstack_model::vm::PowerState;
use virtualstack_store::simulated::{SimulatedTask, Simulation};

use super::{
    Fault, FaultClass, Hypervisor, Observation, Progress, TaskRef, TemplateInfo, TemplateRef, VmIdentity, VmSpec,
};

/// Settings of the simulated hypervisor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Milliseconds that a clone takes.
    pub create_ms: u64,
    /// Milliseconds that a change of power, or a destroy, takes.
    pub power_ms: u64,
    /// Part of the calls that fail before they do anything, 0 to 1; they may be repeated.
    pub fault_rate: f64,
    /// Part of the tasks that fail for good, 0 to 1.
    pub task_fault_rate: f64,
    /// Part of the calls that do their work and then fail to say so, 0 to 1.
    pub lost_reply_rate: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { create_ms: 1_500, power_ms: 500, fault_rate: 0.0, task_fault_rate: 0.0, lost_reply_rate: 0.0 }
    }
}

/// A hypervisor whose VMs are rows.
pub struct Simulated {
    simulation: Simulation,
    config: Config,
}

impl Simulated {
    /// A hypervisor with this memory.
    #[must_use]
    pub fn new(simulation: Simulation, config: Config) -> Self {
        Self { simulation, config }
    }

    /// Ids of all VMs there are.
    pub async fn vms(&self) -> Result<Vec<VmId>, Error> {
        Ok(self.simulation.vms().await?.into_iter().map(VmId).collect())
    }

    /// Fails now and then, as the settings say, before anything is done.
    fn weather(&self) -> Result<(), Fault> {
        if chance(self.config.fault_rate) {
            return Err(Fault::new(FaultClass::Retry, "HOST_BUSY", "the hypervisor is busy", "simulated fault"));
        }
        Ok(())
    }

    /// Starts a task; the reply may get lost.
    async fn start(&self, vm: VmId, action: &str, parameters: serde_json::Value, ms: u64) -> Result<Progress, Fault> {
        let fault = chance(self.config.task_fault_rate).then_some("simulated failure of the task");
        let started = self.simulation.start(vm.0, action, &parameters, Duration::from_millis(ms), fault).await;
        let task = started.map_err(unreachable)?;
        if chance(self.config.lost_reply_rate) {
            return Err(Fault::new(
                FaultClass::Unknown,
                "REPLY_LOST",
                "the hypervisor did not answer",
                "simulated lost reply",
            ));
        }
        Ok(Progress::Running { task: Some(TaskRef(task.to_string())), percent: Some(0) })
    }

    /// The task that a caller has stored, if it still runs or has failed.
    async fn stored(&self, task: Option<&TaskRef>) -> Result<Option<Progress>, Fault> {
        let Some(id) = task.and_then(|task| Uuid::try_parse(&task.0).ok()) else { return Ok(None) };
        match self.simulation.task(id).await.map_err(unreachable)? {
            Some(SimulatedTask { fault: Some(fault), percent: 100, .. }) => {
                Err(Fault::new(FaultClass::Permanent, "TASK_FAILED", "the hypervisor could not do it", fault))
            }
            Some(running) if running.percent < 100 => Ok(Some(underway(&running))),
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl Hypervisor for Simulated {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    async fn ensure_vm(&self, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.weather()?;
        if let Some(progress) = self.stored(task).await? {
            return Ok(progress);
        }
        match self.simulation.look(spec.id.0).await.map_err(unreachable)? {
            (Some(_), _) => Ok(Progress::Done),
            (None, Some(running)) => Ok(underway(&running)),
            (None, None) if !templates().iter().any(|known| known.reference == spec.template) => Err(Fault::new(
                FaultClass::Permanent,
                "TEMPLATE_GONE",
                "the template is no longer on the hypervisor; choose another",
                &spec.template.0,
            )),
            (None, None) => {
                let parameters = json!({
                    "operation": spec.operation, "name": spec.display_name, "template": spec.template.0,
                    "cpuCount": spec.cpu_count, "memoryMib": spec.memory_mib, "diskGib": spec.disk_gib,
                });
                self.start(spec.id, "CREATE", parameters, self.config.create_ms).await
            }
        }
    }

    async fn ensure_power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.weather()?;
        if let Some(progress) = self.stored(task).await? {
            return Ok(progress);
        }
        let action = if power == PowerState::On { "POWER_ON" } else { "POWER_OFF" };
        match self.simulation.look(vm.0).await.map_err(unreachable)? {
            (None, _) => Err(Fault::new(FaultClass::Lost, "VM_LOST", "the VM is gone from the hypervisor", vm)),
            (_, Some(running)) => Ok(underway(&running)),
            (Some(found), None) if found.power == power.as_str() => Ok(Progress::Done),
            (Some(_), None) => self.start(vm, action, json!({}), self.config.power_ms).await,
        }
    }

    async fn ensure_absent(&self, vm: &VmIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.weather()?;
        // A clone that failed leaves nothing, so its fault does not matter here.
        if let Ok(Some(progress)) = self.stored(task).await {
            return Ok(progress);
        }
        match self.simulation.look(vm.id.0).await.map_err(unreachable)? {
            (_, Some(running)) => Ok(underway(&running)),
            (None, None) => Ok(Progress::Done),
            (Some(_), None) => self.start(vm.id, "DESTROY", json!({}), self.config.power_ms).await,
        }
    }

    async fn observe_vm(&self, vm: VmId) -> Result<Option<Observation>, Fault> {
        self.weather()?;
        let (found, _) = self.simulation.look(vm.0).await.map_err(unreachable)?;
        Ok(found.map(|vm| {
            let power = PowerState::from_word(&vm.power).unwrap_or(PowerState::Off);
            let ip_addresses = if power == PowerState::On { vec![vm.ip_address] } else { Vec::new() };
            Observation { power, ip_addresses }
        }))
    }

    async fn observe_templates(&self) -> Result<Vec<TemplateInfo>, Fault> {
        Ok(templates())
    }

    async fn close(&self) {}
}

fn templates() -> Vec<TemplateInfo> {
    let template = |name: &str, guest_os: &str, cpu_count, memory_mib, disk_gib| TemplateInfo {
        reference: TemplateRef(format!("simulated:{name}")),
        display_name: name.to_owned(),
        kind: TemplateKind::Ova,
        guest_os: guest_os.to_owned(),
        cpu_count,
        memory_mib,
        disk_gib,
    };
    vec![
        template("debian-12", "Debian GNU/Linux 12 (64-bit)", 1, 1024, 10),
        template("ubuntu-24.04", "Ubuntu Linux 24.04 (64-bit)", 2, 2048, 20),
        template("windows-2022", "Microsoft Windows Server 2022 (64-bit)", 2, 4096, 40),
    ]
}

fn underway(task: &SimulatedTask) -> Progress {
    Progress::Running { task: Some(TaskRef(task.id.to_string())), percent: u8::try_from(task.percent).ok() }
}

/// The memory cannot be reached: nothing is known of what was done.
fn unreachable(error: Error) -> Fault {
    Fault::new(FaultClass::Unknown, "HYPERVISOR_UNREACHABLE", "the hypervisor cannot be reached", error)
}

/// True in `rate` of the cases.
fn chance(rate: f64) -> bool {
    rate > 0.0 && f64::from(getrandom::u32().unwrap_or(u32::MAX)) < rate * f64::from(u32::MAX)
}
