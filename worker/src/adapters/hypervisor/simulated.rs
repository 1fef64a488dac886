//! The simulated hypervisor: a real component for trying the product, demonstrations and tests. What it knows is in
//! the database, so it survives restarts and serves several workers; how slow and how faulty it is, is a setting.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use virtualstack_model::Error;
use virtualstack_model::compute::console::ConsoleTicket;
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::{PowerState, Size};
use virtualstack_store::compute::simulated::{
    SimulatedMachine, SimulatedTask, SimulatedTemplate, SimulatedVm, Simulation,
};

use super::import::{Attendance, ImageSource, ImportSpec, Imported, TemplateIdentity};
use super::simulated_templates::{kept, read};
use super::{
    Fault, FaultClass, Hypervisor, Observation, Progress, SnapshotSpec, TaskRef, TemplateInfo, TemplateRef, VmIdentity,
    VmSpec,
};

/// What a guest does that was asked to shut down.
const SHUT_DOWN: &str = "SHUT_DOWN";

/// Settings of the simulated hypervisor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Milliseconds that a clone takes.
    pub create_ms: u64,
    /// Milliseconds that any other change takes, but for a guest that shuts down.
    pub power_ms: u64,
    /// Milliseconds that a guest takes to shut down.
    pub shut_down_ms: u64,
    /// Milliseconds that an import takes after all was read.
    pub import_ms: u64,
    /// Part of the calls that fail before they do anything, 0 to 1; they may be repeated.
    pub fault_rate: f64,
    /// Part of the tasks that fail for good, 0 to 1.
    pub task_fault_rate: f64,
    /// Part of the calls that do their work and then fail to say so, 0 to 1.
    pub lost_reply_rate: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            create_ms: 1_500,
            power_ms: 500,
            shut_down_ms: 1_000,
            import_ms: 1_500,
            fault_rate: 0.0,
            task_fault_rate: 0.0,
            lost_reply_rate: 0.0,
        }
    }
}

/// A hypervisor whose VMs are rows.
pub struct Simulated {
    simulation: Simulation,
    config: Config,
}

/// A VM that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub id: VmId,
    pub power: PowerState,
    pub size: Size,
    /// How often it was reset.
    pub resets: i32,
    pub snapshots: Vec<SnapshotId>,
}

impl Simulated {
    /// A hypervisor with this memory.
    #[must_use]
    pub fn new(simulation: Simulation, config: Config) -> Self {
        Self { simulation, config }
    }

    /// Ids of all VMs there are.
    pub async fn vms(&self) -> Result<Vec<VmId>, Error> {
        Ok(self.machines().await?.into_iter().map(|machine| machine.id).collect())
    }

    /// All VMs there are, for whoever compares.
    pub async fn machines(&self) -> Result<Vec<Machine>, Error> {
        let machine = |found: SimulatedMachine| Machine {
            id: VmId(found.id),
            power: power(&found.power),
            size: Size { cpu_count: found.cpu_count, memory_mib: found.memory_mib, disk_gib: found.disk_gib },
            resets: found.resets,
            snapshots: found.snapshots.into_iter().map(SnapshotId).collect(),
        };
        Ok(self.simulation.machines().await?.into_iter().map(machine).collect())
    }

    /// Fails now and then, as the settings say, before anything is done.
    fn draw_fault(&self) -> Result<(), Fault> {
        if chance(self.config.fault_rate) {
            return Err(Fault::new(FaultClass::Retry, "HOST_BUSY", "the hypervisor is busy", "simulated fault"));
        }
        Ok(())
    }

    /// Fails now and then, as the settings say, after all was done.
    fn draw_lost_reply(&self) -> Result<(), Fault> {
        if chance(self.config.lost_reply_rate) {
            return Err(Fault::new(
                FaultClass::Unknown,
                "REPLY_LOST",
                "the hypervisor did not answer",
                "simulated lost reply",
            ));
        }
        Ok(())
    }

    /// Whether a task fails for good, and how.
    fn draw_failure(&self) -> Option<&'static str> {
        chance(self.config.task_fault_rate).then_some("simulated failure of the task")
    }

    /// Starts a task; the reply may get lost.
    async fn start(&self, vm: VmId, action: &str, parameters: serde_json::Value, ms: u64) -> Result<Progress, Fault> {
        let fault = self.draw_failure();
        let started = self.simulation.start(vm.0, action, &parameters, Duration::from_millis(ms), fault).await;
        let task = started.map_err(unreachable)?;
        self.draw_lost_reply()?;
        Ok(Progress::Running { task: Some(TaskRef(task.to_string())), percent: Some(0) })
    }

    /// Starts a change of a VM unless something is under way, or `so` says that it is as it should be.
    async fn change(
        &self,
        vm: VmId,
        task: Option<&TaskRef>,
        action: &str,
        parameters: serde_json::Value,
        ms: u64,
        so: impl Fn(&SimulatedVm) -> Result<bool, Fault> + Send,
    ) -> Result<Progress, Fault> {
        self.draw_fault()?;
        if let Some(progress) = self.stored(task).await? {
            return Ok(progress);
        }
        match self.simulation.look(vm.0).await.map_err(unreachable)? {
            (None, _) => Err(lost(vm)),
            (Some(found), running) => {
                if let Some(running) = running {
                    if running.action == action || running.action != SHUT_DOWN {
                        return Ok(underway(&running));
                    }
                    // It is the guest that shuts down, not a task: it keeps nobody from anything else.
                    self.stop(Some(running)).await?;
                }
                if so(&found)? {
                    return Ok(Progress::Done);
                }
                self.start(vm, action, parameters, ms).await
            }
        }
    }

    /// Takes a template in, unless it is there.
    async fn import(
        &self,
        spec: &ImportSpec,
        source: &dyn ImageSource,
        attendance: &Attendance,
    ) -> Result<Imported, Fault> {
        let template = kept(spec);
        let known = self.simulation.templates().await.map_err(unreachable)?;
        if !known.iter().any(|known| known.id == template.id) {
            attendance.store(TaskRef(format!("import:{}", spec.operation))).await?;
            read(spec, source, attendance).await?;
            tokio::time::sleep(Duration::from_millis(self.config.import_ms)).await;
            if let Some(fault) = self.draw_failure() {
                return Err(failed(fault));
            }
            self.simulation.keep_template(&template).await.map_err(unreachable)?;
            self.draw_lost_reply()?;
        }
        Ok(Imported { reference: imported(template.id), guest_os: template.guest_os, warnings: Vec::new() })
    }

    /// Those that there always are, and those that were imported.
    async fn templates(&self) -> Result<Vec<TemplateInfo>, Fault> {
        let info = |found: SimulatedTemplate| TemplateInfo {
            reference: imported(found.id),
            display_name: found.name,
            kind: TemplateKind::from_word(&found.kind).unwrap_or(TemplateKind::Ova),
            guest_os: found.guest_os,
            cpu_count: found.cpu_count,
            memory_mib: found.memory_mib,
            disk_gib: found.disk_gib,
            further_disk_gib: found.further_disk_gib,
            is_imported: true,
        };
        let known = self.simulation.templates().await.map_err(unreachable)?;
        Ok(templates().into_iter().chain(known.into_iter().map(info)).collect())
    }

    /// Cancels a task; gives it back where it has to be awaited.
    async fn stop(&self, running: Option<SimulatedTask>) -> Result<Option<SimulatedTask>, Fault> {
        let Some(running) = running else { return Ok(None) };
        // What changes power, or the chain of disks, is not to be stopped half way.
        if !matches!(running.action.as_str(), "CREATE" | "SNAPSHOT" | "RESIZE" | SHUT_DOWN) {
            return Ok(Some(running));
        }
        match self.simulation.cancel(running.id).await.map_err(unreachable)? {
            true => Ok(None),
            // It was done just before.
            false => Err(Fault::new(FaultClass::Retry, "TASK_ENDED", "the hypervisor is busy", running.id)),
        }
    }

    /// Whether a stored task has done its work, for what cannot be seen of the VM.
    async fn has_succeeded(&self, task: Option<&TaskRef>) -> Result<bool, Fault> {
        match task {
            Some(task) => self.has_done(task).await,
            None => Ok(false),
        }
    }

    /// The task that a caller has stored, if it still runs or has failed.
    async fn stored(&self, task: Option<&TaskRef>) -> Result<Option<Progress>, Fault> {
        let Some(id) = task.and_then(|task| Uuid::try_parse(&task.0).ok()) else { return Ok(None) };
        match self.simulation.task(id).await.map_err(unreachable)? {
            Some(SimulatedTask { fault: Some(fault), percent: 100, .. }) => Err(failed(fault)),
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
        self.draw_fault()?;
        if let Some(progress) = self.stored(task).await? {
            return Ok(progress);
        }
        match self.simulation.look(spec.id.0).await.map_err(unreachable)? {
            (Some(_), _) => Ok(Progress::Done),
            (None, Some(running)) => Ok(underway(&running)),
            (None, None) if !self.templates().await?.iter().any(|known| known.reference == spec.template) => {
                Err(Fault::new(
                    FaultClass::Permanent,
                    "TEMPLATE_GONE",
                    "the template is no longer on the hypervisor; choose another",
                    &spec.template.0,
                ))
            }
            (None, None) => {
                let Size { cpu_count, memory_mib, disk_gib } = spec.size;
                let medium = (spec.kind == TemplateKind::Iso).then_some(&spec.template);
                let parameters = json!({
                    "operation": spec.operation, "name": spec.display_name, "template": spec.template, "medium": medium,
                    "cpuCount": cpu_count, "memoryMib": memory_mib, "diskGib": disk_gib,
                });
                self.start(spec.id, "CREATE", parameters, self.config.create_ms).await
            }
        }
    }

    async fn ensure_power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let action = match power {
            PowerState::On => "POWER_ON",
            PowerState::Off => "POWER_OFF",
            PowerState::Paused => "SUSPEND",
        };
        let so = |found: &SimulatedVm| {
            if power == PowerState::Paused && found.power == PowerState::Off.as_str() {
                must_run(found)?;
            }
            Ok(found.power == power.as_str())
        };
        self.change(vm, task, action, json!({}), self.config.power_ms, so).await
    }

    async fn ask_to_shut_down(&self, vm: VmId) -> Result<(), Fault> {
        let no_guest = |found: &SimulatedVm| match (&found.medium, found.power.as_str()) {
            (Some(_), "ON") => Err(Fault::new(
                FaultClass::Guest,
                "GUEST_TOOLS_UNAVAILABLE",
                "the guest cannot be asked to shut down: it has no tools",
                "made from a medium, and nothing is installed",
            )),
            (_, power) => Ok(power != "ON"),
        };
        self.change(vm, None, SHUT_DOWN, json!({}), self.config.shut_down_ms, no_guest).await.map(|_| ())
    }

    async fn reset(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        if self.has_succeeded(task).await? {
            return Ok(Progress::Done);
        }
        self.change(vm, task, "RESET", json!({}), self.config.power_ms, |found| must_run(found).map(|()| false)).await
    }

    async fn ensure_size(&self, vm: VmId, size: &Size, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let Size { cpu_count, memory_mib, disk_gib } = *size;
        let fits = |found: &SimulatedVm| {
            if found.power != "OFF" && (cpu_count < found.cpu_count || memory_mib < found.memory_mib) {
                return Err(Fault::new(
                    FaultClass::PowerOff,
                    "RESTART_NEEDED",
                    "CPUs and memory are only taken away while the VM is off; allow a restart",
                    "the simulated hypervisor adds while a VM runs, and takes nothing away",
                ));
            }
            Ok((found.cpu_count, found.memory_mib) == (cpu_count, memory_mib) && found.disk_gib >= disk_gib)
        };
        let parameters = json!({"cpuCount": cpu_count, "memoryMib": memory_mib, "diskGib": disk_gib});
        self.change(vm, task, "RESIZE", parameters, self.config.power_ms, fits).await
    }

    async fn ensure_snapshot(
        &self,
        vm: VmId,
        snapshot: &SnapshotSpec,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        let made = self.simulation.snapshot(snapshot.id.0).await.map_err(unreachable)?.is_some();
        let parameters = json!({"snapshot": snapshot.id, "name": snapshot.display_name});
        self.change(vm, task, "SNAPSHOT", parameters, self.config.power_ms, |_| Ok(made)).await
    }

    async fn ensure_no_snapshot(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        let gone = self.simulation.snapshot(snapshot.0).await.map_err(unreachable)?.is_none();
        let parameters = json!({"snapshot": snapshot});
        match self.change(vm, task, "REMOVE_SNAPSHOT", parameters, self.config.power_ms, |_| Ok(gone)).await {
            Err(fault) if fault.class == FaultClass::Lost => Ok(Progress::Done),
            done => done,
        }
    }

    async fn revert(&self, vm: VmId, snapshot: SnapshotId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        if self.has_succeeded(task).await? {
            return Ok(Progress::Done);
        }
        let there = self.simulation.snapshot(snapshot.0).await.map_err(unreachable)?;
        let lost = there.is_none_or(|snapshot| snapshot.vm_id != vm.0);
        let missing = |_: &SimulatedVm| match lost {
            true => Err(Fault::new(
                FaultClass::Permanent,
                "SNAPSHOT_LOST",
                "the snapshot is gone from the hypervisor; delete it",
                snapshot,
            )),
            false => Ok(false),
        };
        self.change(vm, task, "REVERT", json!({"snapshot": snapshot}), self.config.power_ms, missing).await
    }

    async fn open_console(&self, vm: VmId) -> Result<ConsoleTicket, Fault> {
        self.draw_fault()?;
        let (found, _) = self.simulation.look(vm.0).await.map_err(unreachable)?;
        must_run(&found.ok_or_else(|| lost(vm))?)?;
        let ticket = Uuid::new_v4().simple().to_string();
        Ok(ConsoleTicket {
            url: format!("wss://console.simulated.invalid/{vm}"),
            ticket,
            protocol: "simulated".to_owned(),
            expires_at: Utc::now() + TimeDelta::minutes(2),
        })
    }

    async fn ensure_idle(&self, vm: VmId, _task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.draw_fault()?;
        // One task of a VM runs at a time, so whatever is stored, this is it.
        let (_, running) = self.simulation.look(vm.0).await.map_err(unreachable)?;
        Ok(self.stop(running).await?.map_or(Progress::Done, |running| underway(&running)))
    }

    async fn has_done(&self, task: &TaskRef) -> Result<bool, Fault> {
        let Ok(id) = Uuid::try_parse(&task.0) else { return Ok(false) };
        let task = self.simulation.task(id).await.map_err(unreachable)?;
        Ok(task.is_some_and(|task| task.percent == 100 && task.fault.is_none()))
    }

    async fn ensure_absent(&self, vm: &VmIdentity, _task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.draw_fault()?;
        let (found, running) = self.simulation.look(vm.id.0).await.map_err(unreachable)?;
        match (found, self.stop(running).await?) {
            (_, Some(running)) => Ok(underway(&running)),
            (None, None) => Ok(Progress::Done),
            (Some(_), None) => self.start(vm.id, "DESTROY", json!({}), self.config.power_ms).await,
        }
    }

    async fn observe_vm(&self, vm: VmId) -> Result<Option<Observation>, Fault> {
        self.draw_fault()?;
        let (found, _) = self.simulation.look(vm.0).await.map_err(unreachable)?;
        Ok(found.map(|vm| {
            let power = power(&vm.power);
            // On a medium nothing is installed that could report an address.
            let reports = power == PowerState::On && vm.medium.is_none();
            let ip_addresses = if reports { vec![vm.ip_address] } else { Vec::new() };
            let size = Size { cpu_count: vm.cpu_count, memory_mib: vm.memory_mib, disk_gib: vm.disk_gib };
            Observation { power, size: Some(size), ip_addresses }
        }))
    }

    async fn observe_templates(&self) -> Result<Vec<TemplateInfo>, Fault> {
        self.templates().await
    }

    async fn import_template(
        &self,
        spec: &ImportSpec,
        source: &dyn ImageSource,
        attendance: &Attendance,
        _task: Option<&TaskRef>,
    ) -> Result<Imported, Fault> {
        self.draw_fault()?;
        tokio::select! {
            biased;
            () = attendance.stop().cancelled() => Err(Attendance::stopped()),
            made = self.import(spec, source, attendance) => made,
        }
    }

    async fn ensure_no_template(
        &self,
        template: &TemplateIdentity,
        _task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.draw_fault()?;
        if template.reference.as_ref().is_some_and(|reference| *reference != imported(template.id.0)) {
            return Err(Fault::new(
                FaultClass::Conflict,
                "HYPERVISOR_FOREIGN_TEMPLATE",
                "something else has the template's place on the hypervisor; ask the provider",
                format_args!("{:?} is not {}", template.reference, template.id),
            ));
        }
        self.simulation.drop_template(template.id.0).await.map_err(unreachable)?;
        Ok(Progress::Done)
    }

    async fn close(&self) {}
}

fn templates() -> Vec<TemplateInfo> {
    let template = |kind, name: &str, guest_os: &str, cpu_count, memory_mib, disk_gib| TemplateInfo {
        reference: TemplateRef(format!("simulated:{name}")),
        display_name: name.to_owned(),
        kind,
        guest_os: guest_os.to_owned(),
        cpu_count,
        memory_mib,
        disk_gib,
        further_disk_gib: 0,
        is_imported: false,
    };
    vec![
        template(TemplateKind::Ova, "debian-12", "Debian GNU/Linux 12 (64-bit)", 1, 1024, 10),
        template(TemplateKind::Iso, "debian-12-netinst", "Debian GNU/Linux 12 (64-bit)", 1, 1024, 10),
        template(TemplateKind::Ova, "ubuntu-24.04", "Ubuntu Linux 24.04 (64-bit)", 2, 2048, 20),
        template(TemplateKind::Ova, "windows-2022", "Microsoft Windows Server 2022 (64-bit)", 2, 4096, 40),
    ]
}

/// The reference of one that was imported.
fn imported(template: Uuid) -> TemplateRef {
    TemplateRef(format!("simulated:{template}"))
}

fn failed(fault: impl std::fmt::Display) -> Fault {
    Fault::new(FaultClass::Permanent, "TASK_FAILED", "the hypervisor could not do it", fault)
}

fn power(word: &str) -> PowerState {
    PowerState::from_word(word).unwrap_or(PowerState::Off)
}

fn underway(task: &SimulatedTask) -> Progress {
    Progress::Running { task: Some(TaskRef(task.id.to_string())), percent: u8::try_from(task.percent).ok() }
}

fn lost(vm: VmId) -> Fault {
    Fault::new(FaultClass::Lost, "VM_LOST", "the VM is gone from the hypervisor", vm)
}

fn must_run(vm: &SimulatedVm) -> Result<(), Fault> {
    if vm.power == PowerState::On.as_str() {
        return Ok(());
    }
    Err(Fault::new(FaultClass::Permanent, "VM_NOT_RUNNING", "the VM does not run; start it first", vm.id))
}

/// The memory cannot be reached: nothing is known of what was done.
fn unreachable(error: Error) -> Fault {
    Fault::new(FaultClass::Unknown, "HYPERVISOR_UNREACHABLE", "the hypervisor cannot be reached", error)
}

/// True in `rate` of the cases.
fn chance(rate: f64) -> bool {
    rate > 0.0 && f64::from(getrandom::u32().unwrap_or(u32::MAX)) < rate * f64::from(u32::MAX)
}
