//! Making sure that a VM does not exist and will not come to exist.
//!
//! The opposite of a creation that may still be under way: it is awaited, or stopped where the vCenter can, before the VM
//! may be called absent; otherwise it would come to life after its deletion.

use std::time::Duration;

use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::vm::PowerState;

use super::super::{Fault, Progress, TaskRef, VmIdentity};
use super::adapter::{CLOCK_SLACK, Followed, VCenter, WAITING};
use super::change::busy;
use super::faults::{Error, POWER_STATE};
use super::lookup::{LookUp, foreign};
use super::machine::Machine;
use super::soap::Call;
use super::tasks::{Work, started};
use super::xml::Xml;

/// Creations from the same source that may be this VM's are awaited to their end.
const UNCLAIMED: Duration = Duration::from_secs(4 * 3600);

impl VCenter {
    pub(super) async fn destroy(&self, vm: &VmIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm.id).await;
        let ended = match self.follow(task, self.task_cache.creation_of(vm.id)).await? {
            Followed::Running(task) => {
                if task.work == Work::Create && task.cancelable {
                    self.session.cancel(&task).await?;
                }
                return Ok(task.progress());
            }
            Followed::Ended(task) => task,
        };
        let placement = self.placement().await?;
        let source = self.source(&placement, &vm.template).await?;
        // Before the look-up, so that one which ends in between is found by it.
        let mut creations = self.unclaimed_creations(vm.id, source.as_ref()).await?;
        let machine = match self.look_up(vm.id, None).await? {
            LookUp::Present(machine) => Some(machine),
            LookUp::Forming => return Ok(WAITING),
            LookUp::Foreign { by_name: true, .. } | LookUp::Absent => None,
            LookUp::Foreign { name, .. } => return Err(foreign(&name)),
        };
        if let Some(created) = machine.as_ref().and_then(|machine| machine.created) {
            // A second creation of a VM is started before the first is there, if ever.
            let latest = created + CLOCK_SLACK;
            creations.retain(|task| task.queued.is_none_or(|queued| queued <= latest));
        }
        let creations: Vec<_> = creations.into_iter().map(|task| task.reference).collect();
        // Where a stored task has destroyed it, this was settled before.
        let destroyed = ended.as_ref().is_some_and(|task| task.has_done(Work::Destroy));
        if !(destroyed && machine.is_none()) && self.task_cache.must_wait(vm.id, &creations, UNCLAIMED) {
            return Ok(WAITING);
        }
        let Some(machine) = machine else {
            self.task_cache.settled(vm.id);
            return Ok(Progress::Done);
        };
        // What we see of its power may not hold any more when a task at work on it has ended.
        if let Some(task) = self.running_on(&machine).await?.into_iter().next() {
            return Ok(task.progress());
        }
        if let Some(task) = ended.as_ref().filter(|task| matches!(task.work, Work::PowerOff | Work::Destroy))
            && let Some(fault) = self.failure(task)
        {
            // Somebody powered it on or off in between: this is no reason to leave it there.
            match fault.reason == POWER_STATE {
                true if self.task_cache.was_reported(&task.reference) => {}
                true => return Err(busy(vm.id)),
                false => return Err(fault),
            }
        }
        self.take_down(vm.id, &machine).await
    }

    async fn take_down(&self, vm: VmId, machine: &Machine) -> Result<Progress, Fault> {
        let methods: &[_] = match machine.power {
            PowerState::Off => &["Destroy_Task"],
            PowerState::On | PowerState::Paused => &["PowerOffVM_Task", "Destroy_Task"],
        };
        for method in methods {
            match self.change(&Call::change(method, &machine.reference, Xml::new())).await {
                Ok(reply) => return Ok(Progress::Running { task: Some(started(&reply)?), percent: None }),
                // It went off by itself.
                Err(Error::Vim(fault)) if fault.is_already_so() => {}
                Err(error) if error.is("ManagedObjectNotFound") => {}
                Err(error) if error.is("InvalidPowerState") && *method != "Destroy_Task" => {}
                Err(error) if error.is("InvalidPowerState") => return Err(busy(vm)),
                Err(error) => return Err(error.into()),
            }
        }
        // It is gone, as it seems; the next call makes sure.
        Ok(WAITING)
    }
}
