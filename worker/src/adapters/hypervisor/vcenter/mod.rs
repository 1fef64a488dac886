//! A VMware vCenter, driven through its SOAP interface, vim25.
//!
//! SOAP is what every supported vCenter speaks in full; this is a thin client of our own, made of a few calls that are
//! written out by hand. From the bottom: `xml` and `soap` make one call, `session` keeps the one login, `properties`,
//! `tasks`, `updates`, `machine`, `media` and `placement` read what is there, `lookup` finds a VM, `create`, `change`,
//! `snapshots`, `console` and `destroy` do what is asked, and `faults` says what a failure means.
//!
//! The vCenter's VM carries our id twice: as its instance UUID, by which it is found, and as a marker in its extraConfig,
//! which it must bear to be taken for ours.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::vm::{PowerState, Size};

use super::{
    ConsoleTicket, Fault, FaultClass, Hypervisor, Observation, Progress, SnapshotSpec, TaskRef, TemplateInfo,
    TemplateRef, VmIdentity, VmSpec,
};

mod change;
mod config;
mod console;
mod create;
mod destroy;
mod faults;
mod ledger;
mod lookup;
mod machine;
mod media;
mod placement;
mod properties;
mod session;
mod snapshots;
mod soap;
mod tasks;
mod updates;
mod xml;

pub use config::{Config, ConfigError, Password};

use faults::Error;
use ledger::Ledger;
use lookup::LookUp;
use placement::Placement;
use session::{Login, Session};
use soap::Call;
use tasks::{Outcome, Task};
use xml::{Element, ManagedRef};

/// To be asked again; there is no task to ask with.
const WAITING: Progress = Progress::Running { task: None, percent: None };
/// How far times of the vCenter may be from ours after we have allowed for its clock.
const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(10);

/// A vCenter.
#[derive(Debug)]
pub struct VCenter {
    session: Arc<Session>,
    /// Found once per login: a vCenter that was restored knows old references no more, or as something else.
    placement: Mutex<Option<(Arc<Login>, Arc<Placement>)>>,
    ledger: Ledger,
    changes: Semaphore,
    clones: Semaphore,
}

impl VCenter {
    /// Checks the settings. The vCenter need not be up: the first call logs in.
    pub fn connect(config: Config) -> Result<Self, ConfigError> {
        let (changes, clones) = (Semaphore::new(config.max_changes), Semaphore::new(config.max_clones));
        let session = Session::new(config)?;
        Ok(Self { session, placement: Mutex::default(), ledger: Ledger::default(), changes, clones })
    }

    async fn placement(&self) -> Result<Arc<Placement>, Fault> {
        let login = self.session.login().await?;
        let mut known = self.placement.lock().await;
        if let Some((found_with, placement)) = &*known
            && Arc::ptr_eq(found_with, &login)
        {
            return Ok(Arc::clone(placement));
        }
        let placement = Arc::new(Placement::discover(&self.session).await?);
        *known = Some((login, Arc::clone(&placement)));
        Ok(placement)
    }

    /// What an error means where we named objects that we found earlier.
    async fn stale(&self, error: Error) -> Fault {
        if !error.is("ManagedObjectNotFound") {
            return error.into();
        }
        *self.placement.lock().await = None;
        let fault = Fault::from(error);
        Fault::new(
            FaultClass::Retry,
            "HYPERVISOR_CHANGED",
            "the hypervisor has changed meanwhile; it is tried again",
            fault.detail,
        )
    }

    async fn permit<'a>(&self, semaphore: &'a Semaphore) -> Result<SemaphorePermit<'a>, Error> {
        match tokio::time::timeout(self.session.config().request_timeout(), semaphore.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::NotSent("too many calls are under way".into())),
        }
    }

    /// Makes a call that changes something, when it is its turn.
    async fn change(&self, call: &Call) -> Result<Element, Error> {
        let _permit = self.permit(&self.changes).await?;
        self.session.call(call).await
    }

    /// Looks at the tasks of earlier calls: one that runs, or else the last that ended.
    async fn follow(&self, stored: Option<&TaskRef>, own: Option<TaskRef>) -> Result<Followed, Fault> {
        let mut ended = None;
        let own = own.filter(|own| stored != Some(own));
        for reference in stored.cloned().into_iter().chain(own) {
            match self.session.task(&reference).await? {
                Some(task) if task.is_running() => return Ok(Followed::Running(task)),
                Some(task) => ended = Some(task),
                None => {}
            }
        }
        Ok(Followed::Ended(ended))
    }

    /// The fault of a task that failed. One that is worth another try is told once, so that whoever asks again with the
    /// same task gets that try.
    fn failure(&self, task: &Task) -> Option<Fault> {
        let Outcome::Failed(fault) = &task.outcome else { return None };
        if fault.is_already_so() {
            return None;
        }
        let mut fault = Fault::from(fault.clone());
        if fault.class == FaultClass::Lost {
            // Not the VM, which is looked for first, but something that it needed.
            (fault.class, fault.reason) = (FaultClass::Retry, "HYPERVISOR_CHANGED");
        }
        (fault.class != FaultClass::Retry || !self.ledger.was_told(&task.reference)).then_some(fault)
    }

    /// Where creations from a template are to be seen: those of clones on the template, others on our folder.
    async fn source(&self, placement: &Placement, template: &TemplateRef) -> Result<Option<ManagedRef>, Fault> {
        if media::is_medium(template) {
            return Ok(Some(placement.folder.clone()));
        }
        Ok(self.session.by_instance_uuid(&placement.datacenter, &template.0).await?)
    }

    /// Creations that are under way and may be this VM's: not started by this process, and not before the VM had an id.
    async fn unclaimed_creations(&self, vm: VmId, source: Option<&ManagedRef>) -> Result<Vec<Task>, Fault> {
        let Some(source) = source else { return Ok(Vec::new()) };
        let mut creations = self.session.recent_creations(source, |task| self.ledger.is_known(task)).await?;
        creations.iter().filter(|task| !task.is_running()).for_each(|task| self.ledger.ended(&task.reference));
        creations.retain(Task::is_running);
        if let Some(minted) = minted(vm) {
            let login = self.session.login().await?;
            let earliest = login.on_its_clock(minted) - CLOCK_SLACK;
            creations.retain(|task| task.queued.is_none_or(|queued| queued >= earliest));
        }
        Ok(creations)
    }
}

impl Drop for VCenter {
    /// Whoever forgets to close it leaves a session, but nothing that runs.
    fn drop(&mut self) {
        self.session.updates.end();
    }
}

/// What became of the tasks of earlier calls.
enum Followed {
    Running(Task),
    Ended(Option<Task>),
}

/// When an id was made.
fn minted(vm: VmId) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = vm.0.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

#[async_trait]
impl Hypervisor for VCenter {
    fn kind(&self) -> &'static str {
        "vcenter"
    }

    async fn ensure_vm(&self, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.create(spec, task).await
    }

    async fn ensure_power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.power(vm, power, task).await
    }

    async fn ask_to_shut_down(&self, vm: VmId) -> Result<(), Fault> {
        self.ask_guest_to_shut_down(vm).await
    }

    async fn reset(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.reset_power(vm, task).await
    }

    async fn ensure_size(&self, vm: VmId, size: &Size, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.resize(vm, size, task).await
    }

    async fn ensure_snapshot(
        &self,
        vm: VmId,
        snapshot: &SnapshotSpec,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.make_snapshot(vm, snapshot, task).await
    }

    async fn ensure_no_snapshot(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.remove_snapshot(vm, snapshot, task).await
    }

    async fn revert(&self, vm: VmId, snapshot: SnapshotId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.revert_to(vm, snapshot, task).await
    }

    async fn open_console(&self, vm: VmId) -> Result<ConsoleTicket, Fault> {
        self.console(vm).await
    }

    async fn ensure_idle(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.idle(vm, task).await
    }

    async fn ensure_absent(&self, vm: &VmIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.destroy(vm, task).await
    }

    async fn observe_vm(&self, vm: VmId) -> Result<Option<Observation>, Fault> {
        match self.look_up(vm, None).await? {
            LookUp::Present(machine) => Ok(Some(machine.observation())),
            LookUp::Foreign { name, by_name: false } => Err(lookup::foreign(&name)),
            LookUp::Forming | LookUp::Foreign { .. } | LookUp::Absent => Ok(None),
        }
    }

    async fn observe_templates(&self) -> Result<Vec<TemplateInfo>, Fault> {
        let placement = self.placement().await?;
        let folder = placement.template_folder(&self.session).await?;
        let mut templates = self.session.templates(&folder).await?;
        templates.extend(self.session.media(&placement).await?);
        Ok(templates)
    }

    async fn close(&self) {
        self.session.close().await;
    }
}
