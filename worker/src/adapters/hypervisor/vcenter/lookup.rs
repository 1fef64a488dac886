//! Finding a VM that may be ours.

use chrono::{TimeDelta, Utc};
use virtualstack_model::compute::id::VmId;

use super::super::{Fault, FaultClass};
use super::adapter::VCenter;
use super::faults::Error;
use super::machine::{MACHINE, Machine};
use super::placement::Placement;
use super::xml::ManagedRef;

/// How long a VM that is being made may go without its marker, or with its template's.
const FORMING: TimeDelta = TimeDelta::seconds(60);

/// What a look-up found.
pub(super) enum LookUp {
    /// The VM, with our marker.
    Present(Box<Machine>),
    Forming,
    /// Something that has the VM's instance UUID or name, but not its marker.
    Foreign {
        name: String,
        by_name: bool,
    },
    Absent,
}

impl VCenter {
    /// Looks for a VM by its instance UUID, then by its name, which ends in its id; a vCenter changes the UUID of
    /// a VM if another has it, and people change names.
    pub(super) async fn look_up(&self, vm: VmId, name: Option<&str>) -> Result<LookUp, Fault> {
        let placement = self.placement().await?;
        let id = vm.to_string();
        let mut found = self.session.by_instance_uuid(&placement.datacenter, &id).await?;
        let by_name = found.is_none();
        if by_name {
            found = match self.by_name(&placement, &id, name).await {
                Ok(found) => found,
                Err(error) => return Err(self.stale(error).await),
            };
        }
        let Some(found) = found else { return Ok(LookUp::Absent) };
        if found.kind != "VirtualMachine" {
            return Ok(LookUp::Foreign { name: found.id, by_name });
        }
        let Some(object) = self.session.read(&found, &MACHINE).await? else { return Ok(LookUp::Absent) };
        let machine = Machine::from_object(&object);
        if !machine.connected {
            return Err(Fault::new(
                FaultClass::Retry,
                "VM_INACCESSIBLE",
                "the VM's host or storage cannot be reached; it is tried again",
                format_args!("{} ({})", machine.name, found.id),
            ));
        }
        if machine.hardware.is_none() {
            return Ok(LookUp::Forming);
        }
        if machine.marker.as_deref() == Some(id.as_str()) {
            return Ok(LookUp::Present(Box::new(machine)));
        }
        let recently = self.session.login().await?.on_its_clock(Utc::now()) - FORMING;
        if machine.created.is_some_and(|created| created > recently) {
            return Ok(LookUp::Forming);
        }
        Ok(LookUp::Foreign { name: machine.name, by_name })
    }

    async fn by_name(&self, placement: &Placement, id: &str, name: Option<&str>) -> Result<Option<ManagedRef>, Error> {
        if let Some(name) = name {
            return self.session.child(&placement.folder, name).await;
        }
        let machines = self.session.list(&placement.folder, "VirtualMachine", &["name"]).await?;
        let mut named = machines.into_iter().filter(|machine| machine.text("name").is_some_and(|n| n.ends_with(id)));
        Ok(named.next().map(|machine| machine.reference))
    }
}

pub(super) fn lost(vm: VmId) -> Fault {
    Fault::new(
        FaultClass::Lost,
        "VM_LOST",
        "the VM is gone from the hypervisor; delete it or ask the provider",
        format_args!("no VM has the instance UUID or name of {vm}"),
    )
}

/// Something is where the VM should be, and it is not for us to touch it.
pub(super) fn foreign(name: &str) -> Fault {
    Fault::new(
        FaultClass::Conflict,
        "HYPERVISOR_FOREIGN_VM",
        "something else has the VM's place on the hypervisor; ask the provider",
        format_args!("{name} does not carry the marker of this VM"),
    )
}
