//! Making a VM exist, exactly once.
//!
//! A clone can be under way without our knowing: its task was started, and the process died or the reply was lost before
//! the reference was stored. So a clone is started only after every place was looked at where an earlier one shows: the
//! stored task, the inventory (by instance UUID, then by name, with our marker), and the tasks of the template. What
//! slips through all that fails on the name, which is made of the VM's id and unique in our folder; whoever loses adopts
//! the winner's VM.

use std::time::Duration;

use super::super::{Fault, FaultClass, Progress, TaskRef, VmSpec};
use super::faults::Error;
use super::lookup::{LookUp, foreign, lost};
use super::machine::{Hardware, MARKER, Machine};
use super::placement::Placement;
use super::soap::Call;
use super::tasks::{Outcome, Task, Work, started};
use super::xml::{ManagedRef, Xml};
use super::{Followed, VCenter, WAITING};

/// How long to wait for clones of the template that may be ours. Most are other VMs', so this is short: a vCenter shows
/// and defends the name of a clone from its start, and the wait only saves a vain try on servers that do so at its end.
const UNCLAIMED_CLONES: Duration = Duration::from_secs(10);
/// vCenter's limit.
const MAX_NAME: usize = 80;

impl VCenter {
    pub(super) async fn create(&self, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let _turn = self.ledger.turn(spec.id).await;
        let ended = match self.follow(task, self.ledger.clone_of(spec.id)).await? {
            Followed::Running(task) => return Ok(task.progress()),
            Followed::Ended(task) => task,
        };
        let placement = self.placement().await?;
        let template = self.session.by_instance_uuid(&placement.datacenter, &spec.template.0).await?;
        // Before the look-up, so that one which ends in between is found by it.
        let clones = self.unclaimed_clones(spec.id, template.as_ref()).await?;
        let name = name_of(spec);
        match self.look_up(spec.id, Some(&name)).await? {
            LookUp::Present(machine) => return self.resize(&machine, spec, ended.as_ref()).await,
            LookUp::Forming => return Ok(WAITING),
            LookUp::Foreign { name, .. } => return Err(foreign(&name)),
            LookUp::Absent => {}
        }
        match ended.as_ref().map(|task| (task, &task.outcome)) {
            Some((_, Outcome::Failed(fault))) if fault.is_name_taken() => {}
            Some((task, Outcome::Failed(_))) => self.failure(task).map_or(Ok(()), Err)?,
            Some((Task { work: Work::Clone, .. }, Outcome::Succeeded)) => {
                return Err(lost(spec.id));
            }
            _ => {}
        }
        let clones: Vec<_> = clones.into_iter().map(|task| task.reference).collect();
        if self.ledger.must_wait(spec.id, &clones, UNCLAIMED_CLONES) {
            return Ok(WAITING);
        }
        let hardware = match &template {
            Some(template) => self.session.template_hardware(template).await?,
            None => None,
        };
        let (Some(template), Some(hardware)) = (template, hardware) else {
            return Err(Fault::new(
                FaultClass::Permanent,
                "TEMPLATE_GONE",
                "the template is no longer there; choose another",
                format_args!("no template has the instance UUID {}", spec.template.0),
            ));
        };
        let call = clone_call(&template, &hardware, &placement, &name, spec);
        let _permit = self.permit(&self.clones).await?;
        match self.change(&call).await {
            Ok(reply) => {
                let task = started(&reply)?;
                self.ledger.started(spec.id, &task);
                Ok(Progress::Running { task: Some(task), percent: None })
            }
            // The next call tells whether it is ours.
            Err(Error::Vim(fault)) if fault.is_name_taken() => match self.look_up(spec.id, Some(&name)).await? {
                LookUp::Foreign { name, .. } => Err(foreign(&name)),
                LookUp::Absent => Err(fault.into()),
                LookUp::Present(_) | LookUp::Forming => Ok(WAITING),
            },
            Err(error) => Err(self.stale(error).await),
        }
    }

    /// Gives a VM that is there the size of its specification: the clone had it already, unless somebody's half-made VM
    /// was adopted.
    async fn resize(&self, machine: &Machine, spec: &VmSpec, ended: Option<&Task>) -> Result<Progress, Fault> {
        let Some(hardware) = &machine.hardware else { return Ok(WAITING) };
        self.ledger.settled(spec.id);
        if hardware.suits(spec) {
            return Ok(Progress::Done);
        }
        if let Some(task) = ended.filter(|task| task.work == Work::Reconfigure) {
            if let Some(fault) = self.failure(task) {
                return Err(fault);
            }
            if matches!(task.outcome, Outcome::Succeeded) {
                return Err(Fault::new(
                    FaultClass::Permanent,
                    "HYPERVISOR_SIZE_REFUSED",
                    "the hypervisor does not give the VM this size; choose another",
                    format_args!("{} was reconfigured but has {hardware:?}", machine.name),
                ));
            }
        }
        let arguments = Xml::new().node("spec", hardware.change_to(spec));
        let reply = self.change(&Call::change("ReconfigVM_Task", &machine.reference, arguments)).await?;
        Ok(Progress::Running { task: Some(started(&reply)?), percent: None })
    }
}

/// The name on the vCenter: readable, and different for each VM.
fn name_of(spec: &VmSpec) -> String {
    let id = spec.id.to_string();
    let readable = spec.display_name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
    format!("{}-{id}", readable.take(MAX_NAME - 1 - id.len()).collect::<String>())
}

/// Elements in the order of the WSDL, on which a vCenter insists.
fn clone_call(template: &ManagedRef, hardware: &Hardware, placement: &Placement, name: &str, spec: &VmSpec) -> Call {
    let mut location = Xml::new();
    if let Some(datastore) = &placement.datastore {
        location = location.reference("datastore", datastore);
    }
    // A template with snapshots has disks with parents, which do not grow; and what a tenant gets hangs on nothing.
    location = location.text("diskMoveType", "moveAllDiskBackingsAndConsolidate").reference("pool", &placement.pool);
    let config = Xml::new()
        .text("instanceUuid", spec.id)
        .join(&hardware.change_to(spec))
        .option("extraConfig", MARKER, spec.id)
        .option("extraConfig", "virtualstack.operationId", spec.operation)
        .option("extraConfig", "virtualstack.tenantId", spec.tenant);
    let clone =
        Xml::new().node("location", location).text("template", false).node("config", config).text("powerOn", false);
    let arguments = Xml::new().reference("folder", &placement.folder).text("name", name).node("spec", clone);
    Call::change("CloneVM_Task", template, arguments)
}

#[cfg(test)]
mod tests {
    use virtualstack_model::id::{OperationId, TenantId, VmId};
    use virtualstack_model::template::TemplateKind;
    use virtualstack_model::vm::Size;

    use super::super::super::TemplateRef;
    use super::*;

    #[test]
    fn a_name_is_readable_unique_and_short_enough() {
        let spec = |display_name: &str| VmSpec {
            id: VmId::new(),
            tenant: TenantId::new(),
            operation: OperationId::new(),
            display_name: display_name.to_owned(),
            template: TemplateRef(String::new()),
            kind: TemplateKind::Ova,
            size: Size { cpu_count: 1, memory_mib: 1024, disk_gib: 10 },
        };
        let (one, other) = (spec("web/1%"), spec(&"x".repeat(200)));
        assert_eq!(name_of(&one), format!("web-1--{}", one.id));
        assert_eq!(name_of(&other).len(), MAX_NAME);
        assert!(name_of(&other).ends_with(&other.id.to_string()));
    }
}
