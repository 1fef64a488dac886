//! Changes of a VM that is there: power, size, and what is asked of its guest.
//!
//! All begin in the same way: whatever is under way on the VM goes first, whoever started it, since the reply of a call
//! may have been lost and a vCenter does one thing at a time with a VM.

use std::time::Duration;

use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::vm::{PowerState, Size};

use super::super::{Fault, FaultClass, Progress, TaskRef};
use super::adapter::{Followed, VCenter, WAITING};
use super::faults::{Error, POWER_STATE, RESTART_NEEDED};
use super::lookup::{LookUp, foreign, lost};
use super::machine::Machine;
use super::soap::Call;
use super::tasks::{Task, Work, started};
use super::xml::Xml;

/// How long a guest that shuts down is awaited before its VM is taken to be at rest: some never get there.
const GUEST_PATIENCE: Duration = Duration::from_secs(120);

/// A VM before a change.
pub(super) enum Before {
    Underway(Progress),
    /// It is at rest; with the stored task, if that has ended.
    AtRest(Box<Machine>, Option<Task>),
}

impl VCenter {
    /// Finds a VM and what is under way on it.
    pub(super) async fn before_change(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Before, Fault> {
        let ended = match self.follow(task, None).await? {
            Followed::Running(task) => return Ok(Before::Underway(task.progress())),
            Followed::Ended(task) => task,
        };
        let Some(machine) = self.machine(vm).await? else { return Ok(Before::Underway(WAITING)) };
        match self.running_on(&machine).await?.into_iter().next() {
            Some(task) => Ok(Before::Underway(task.progress())),
            None => Ok(Before::AtRest(machine, ended)),
        }
    }

    /// A VM that has to be there; none while it is being made.
    pub(super) async fn machine(&self, vm: VmId) -> Result<Option<Box<Machine>>, Fault> {
        match self.look_up(vm, None).await? {
            LookUp::Present(machine) => Ok(Some(machine)),
            LookUp::Forming => Ok(None),
            LookUp::Foreign { name, by_name: false } => Err(foreign(&name)),
            LookUp::Foreign { .. } | LookUp::Absent => Err(lost(vm)),
        }
    }

    /// Tasks that are at work on a VM, of the kinds that we start.
    pub(super) async fn running_on(&self, machine: &Machine) -> Result<Vec<Task>, Fault> {
        let recent = machine.recent_tasks.iter().filter(|task| !self.task_cache.is_known(&TaskRef(task.id.clone())));
        let mut tasks = self.session.tasks(&recent.cloned().collect::<Vec<_>>()).await?;
        tasks.iter().filter(|task| !task.is_running()).for_each(|task| self.task_cache.ended(&task.reference));
        tasks.retain(|task| task.is_running() && task.work != Work::Other);
        Ok(tasks)
    }

    /// Starts a task on a VM, or on an object of it.
    pub(super) async fn start(&self, call: &Call) -> Result<Progress, Fault> {
        match self.change(call).await {
            Ok(reply) => Ok(Progress::Running { task: Some(started(&reply)?), percent: None }),
            Err(Error::Vim(fault)) if fault.is_already_so() => Ok(Progress::Done),
            Err(error) => Err(self.stale(error).await),
        }
    }

    /// Fails with the fault of a stored task, if it did this work and failed at it.
    pub(super) fn check(&self, ended: Option<&Task>, work: Work) -> Result<(), Fault> {
        ended.filter(|task| task.was_for(work)).and_then(|task| self.failure(task)).map_or(Ok(()), Err)
    }

    pub(super) async fn power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm).await;
        let (machine, ended) = match self.before_change(vm, task).await? {
            Before::Underway(progress) => return Ok(progress),
            Before::AtRest(machine, ended) => (machine, ended),
        };
        if machine.power == power {
            return Ok(Progress::Done);
        }
        if power == PowerState::Paused {
            must_run(&machine)?;
        }
        let (method, work) = match power {
            PowerState::On => ("PowerOnVM_Task", Work::PowerOn),
            PowerState::Off => ("PowerOffVM_Task", Work::PowerOff),
            PowerState::Paused => ("SuspendVM_Task", Work::Suspend),
        };
        self.check(ended.as_ref(), work)?;
        self.start(&Call::change(method, &machine.reference, Xml::new())).await
    }

    pub(super) async fn ask_guest_to_shut_down(&self, vm: VmId) -> Result<(), Fault> {
        let _turn = self.task_cache.turn(vm).await;
        let (machine, _) = match self.before_change(vm, None).await? {
            // The caller asks again; what the guest is asked then depends on how that ended.
            Before::Underway(_) => return Err(busy(vm)),
            Before::AtRest(machine, ended) => (machine, ended),
        };
        // Asked again, a guest on its way down would have no tools any more.
        if machine.power != PowerState::On || machine.shuts_down {
            return Ok(());
        }
        match self.change(&Call::change("ShutdownGuest", &machine.reference, Xml::new())).await {
            // It went off by itself.
            Err(error) if error.is("InvalidPowerState") => Ok(()),
            Err(error) => Err(self.stale(error).await),
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn reset_power(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm).await;
        let (machine, ended) = match self.before_change(vm, task).await? {
            Before::Underway(progress) => return Ok(progress),
            Before::AtRest(machine, ended) => (machine, ended),
        };
        if ended.as_ref().is_some_and(|task| task.has_served(Work::Reset)) {
            return Ok(Progress::Done);
        }
        must_run(&machine)?;
        self.check(ended.as_ref(), Work::Reset)?;
        self.start(&Call::change("ResetVM_Task", &machine.reference, Xml::new())).await
    }

    pub(super) async fn resize(&self, vm: VmId, size: &Size, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm).await;
        match self.before_change(vm, task).await? {
            Before::Underway(progress) => Ok(progress),
            Before::AtRest(machine, ended) => self.reshape(&machine, size, ended.as_ref()).await,
        }
    }

    /// Gives a VM a size, with the task that was to do it, if that has ended.
    pub(super) async fn reshape(
        &self,
        machine: &Machine,
        size: &Size,
        ended: Option<&Task>,
    ) -> Result<Progress, Fault> {
        let Some(hardware) = &machine.hardware else { return Ok(WAITING) };
        if hardware.suits(size) {
            return Ok(Progress::Done);
        }
        let refused = |(class, reason, message), detail: &str| {
            Err(Fault::new(class, reason, message, format_args!("{}: {detail}", machine.name)))
        };
        // A vCenter may know better than its own settings what goes while a VM runs.
        let unless_off = |fault: Fault| match fault.reason {
            POWER_STATE => refused(RESTART_NEEDED, &fault.detail),
            _ => Err(fault),
        };
        if let Err(fault) = self.check(ended, Work::Reconfigure) {
            return unless_off(fault);
        }
        if ended.is_some_and(|task| task.has_served(Work::Reconfigure)) {
            let message = "the hypervisor does not give the VM this size; choose another";
            let detail = format!("reconfigured, but it has {hardware:?}");
            return refused((FaultClass::Permanent, "HYPERVISOR_SIZE_REFUSED", message), &detail);
        }
        // A snapshot's disk is the parent of the present one, and has to have its size.
        if !hardware.disk_suits(size) && !machine.snapshots.is_empty() {
            let message = "a disk does not grow while the VM has snapshots; delete them first";
            return refused((FaultClass::Permanent, "VM_HAS_SNAPSHOTS", message), "its disk has parents");
        }
        match machine.power {
            PowerState::Off => {}
            PowerState::On if hardware.can_grow_to(size, &machine.hot) => {}
            PowerState::On | PowerState::Paused => {
                return refused(RESTART_NEEDED, &format!("it is {} with {:?}", machine.power.as_str(), machine.hot));
            }
        }
        let arguments = Xml::new().node("spec", hardware.change_to(size));
        self.start(&Call::change("ReconfigVM_Task", &machine.reference, arguments)).await.or_else(unless_off)
    }

    /// Cancels what can be, and awaits all.
    pub(super) async fn idle(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(vm).await;
        let mut running = Vec::new();
        let own = self.task_cache.creation_of(vm).filter(|own| task != Some(own));
        for reference in task.cloned().into_iter().chain(own) {
            running.extend(self.listener.task(&reference).await?.filter(Task::is_running));
        }
        let started_here = running.len();
        let mut shuts_down = false;
        if let LookUp::Present(machine) = self.look_up(vm, None).await? {
            shuts_down = machine.shuts_down;
            let found = self.running_on(&machine).await?;
            running.extend(found.into_iter().filter(|found| task != Some(&found.reference)));
        }
        let user = self.session.login().await.map_err(Fault::from)?.user.clone();
        for (number, task) in running.iter().enumerate() {
            // Somebody else's backup makes snapshots too, and is only awaited.
            let ours = number < started_here || task.user.as_ref().is_none_or(|by| by.eq_ignore_ascii_case(&user));
            if ours && task.cancelable && task.work.can_be_stopped() {
                self.session.cancel(task).await?;
            }
        }
        // A guest on its way down goes on with it whatever is cancelled, and soon what was observed would be wrong.
        let guest = self.task_cache.must_await_guest(vm, shuts_down, GUEST_PATIENCE);
        Ok(match running.into_iter().next() {
            Some(task) => task.progress(),
            None if guest => WAITING,
            None => Progress::Done,
        })
    }
}

pub(super) fn must_run(machine: &Machine) -> Result<(), Fault> {
    if machine.power == PowerState::On {
        return Ok(());
    }
    let message = "the VM does not run; start it first";
    Err(Fault::new(FaultClass::Permanent, "VM_NOT_RUNNING", message, &machine.name))
}

pub(super) fn busy(vm: VmId) -> Fault {
    let message = "the hypervisor is busy with the VM; it is tried again";
    Fault::new(FaultClass::Retry, "HYPERVISOR_BUSY", message, format_args!("a task is at work on {vm}"))
}
