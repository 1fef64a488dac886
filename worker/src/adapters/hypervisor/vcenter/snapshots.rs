//! Snapshots of a VM. Their names end in our ids, by which they are found again in the VM's tree.

use virtualstack_model::compute::id::{SnapshotId, VmId};

use super::super::{Fault, FaultClass, Progress, SnapshotSpec, TaskRef};
use super::adapter::VCenter;
use super::change::Before;
use super::machine::{Machine, Snapshot};
use super::marks::name_with;
use super::soap::Call;
use super::tasks::Work;
use super::xml::Xml;

impl VCenter {
    pub(super) async fn make_snapshot(
        &self,
        vm: VmId,
        snapshot: &SnapshotSpec,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm).await;
        let (machine, ended) = match self.before_change(vm, task).await? {
            Before::Underway(progress) => return Ok(progress),
            Before::AtRest(machine, ended) => (machine, ended),
        };
        if find(&machine, snapshot.id).is_some() {
            return Ok(Progress::Done);
        }
        self.check(ended.as_ref(), Work::Snapshot)?;
        let arguments = Xml::new()
            .text("name", name_with(&snapshot.display_name, snapshot.id))
            .text("description", &snapshot.display_name)
            .text("memory", false)
            .text("quiesce", false);
        self.start(&Call::change("CreateSnapshot_Task", &machine.reference, arguments)).await
    }

    pub(super) async fn remove_snapshot(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm).await;
        let (machine, ended) = match self.before_change(vm, task).await {
            Ok(Before::Underway(progress)) => return Ok(progress),
            Ok(Before::AtRest(machine, ended)) => (machine, ended),
            Err(fault) if fault.class == FaultClass::Lost => return Ok(Progress::Done),
            Err(fault) => return Err(fault),
        };
        let Some(found) = find(&machine, snapshot) else { return Ok(Progress::Done) };
        self.check(ended.as_ref(), Work::RemoveSnapshot)?;
        let call = Call::change("RemoveSnapshot_Task", &found.reference, Xml::new().text("removeChildren", false));
        self.start(&call).await
    }

    pub(super) async fn revert_to(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm).await;
        let (machine, ended) = match self.before_change(vm, task).await? {
            Before::Underway(progress) => return Ok(progress),
            Before::AtRest(machine, ended) => (machine, ended),
        };
        if ended.as_ref().is_some_and(|task| task.has_served(Work::Revert)) {
            return Ok(Progress::Done);
        }
        let Some(found) = find(&machine, snapshot) else {
            let message = "the snapshot is gone from the hypervisor; delete it";
            return Err(Fault::new(FaultClass::Permanent, "SNAPSHOT_LOST", message, snapshot));
        };
        self.check(ended.as_ref(), Work::Revert)?;
        let call = Call::change("RevertToSnapshot_Task", &found.reference, Xml::new().text("suppressPowerOn", true));
        self.start(&call).await
    }
}

fn find(machine: &Machine, snapshot: SnapshotId) -> Option<&Snapshot> {
    let id = snapshot.to_string();
    machine.snapshots.iter().find(|found| found.name.ends_with(&id))
}
