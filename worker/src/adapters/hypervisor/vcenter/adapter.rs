//! The adapter: what all calls to a vCenter share.

use std::sync::{Arc, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use virtualstack_model::compute::id::VmId;

use super::super::{Fault, FaultClass, Progress, TaskRef, TemplateRef};
use super::config::{Config, ConfigError};
use super::faults::{Error, LOGIN_REFUSED, MISCONFIGURED};
use super::listener::Listener;
use super::media;
use super::placement::Placement;
use super::session::{Login, Session};
use super::soap::Call;
use super::task_cache::TaskCache;
use super::tasks::{Outcome, Task};
use super::xml::{Element, ManagedRef};

/// To be asked again; there is no task to ask with.
pub(super) const WAITING: Progress = Progress::Running { task: None, percent: None };
/// How far times of the vCenter may be from ours after we have allowed for its clock.
pub(super) const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(10);

/// A vCenter.
#[derive(Debug)]
pub struct VCenter {
    pub(super) session: Arc<Session>,
    pub(super) listener: Arc<Listener>,
    /// Found once per login: a vCenter that was restored knows old references no more, or as something else.
    placement: Mutex<Option<(Arc<Login>, Arc<Placement>)>>,
    pub(super) task_cache: TaskCache,
    changes: Semaphore,
    pub(super) clones: Semaphore,
    /// What of the settings did not fit the vCenter when it was last asked.
    misfit: std::sync::Mutex<Option<String>>,
}

impl VCenter {
    /// Checks the settings. The vCenter need not be up: the first call logs in.
    pub fn connect(config: Config) -> Result<Self, ConfigError> {
        let (changes, clones) = (Semaphore::new(config.max_changes), Semaphore::new(config.max_clones));
        let session = Session::new(config)?;
        let listener = Listener::new(Arc::clone(&session));
        let (placement, task_cache) = (Mutex::default(), TaskCache::default());
        Ok(Self { session, listener, placement, task_cache, changes, clones, misfit: std::sync::Mutex::default() })
    }

    /// Looks for all that the settings name.
    pub async fn check_settings(&self) -> Result<(), Fault> {
        self.survey().await.map(drop)
    }

    /// What of the settings does not fit the vCenter: which, what was given, and what there is.
    #[must_use]
    pub fn misfit(&self) -> Option<String> {
        self.misfit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds where VMs go and the folder of the templates, and remembers what of the settings does not fit. An outage says
    /// nothing about settings.
    pub(super) async fn survey(&self) -> Result<(Arc<Placement>, ManagedRef), Fault> {
        let found = async {
            let placement = self.placement().await?;
            let folder = placement.template_folder(&self.session).await?;
            placement.check_network(&self.session).await?;
            Ok((placement, folder))
        };
        let found: Result<_, Fault> = found.await;
        let now = match &found {
            Ok(_) => None,
            Err(fault) if fault.reason == MISCONFIGURED => Some(format!("vcenter.{}", fault.detail)),
            Err(fault) if fault.reason == LOGIN_REFUSED => Some(format!("vcenter.username: {}", fault.detail)),
            Err(_) => return found,
        };
        let mut misfit = self.misfit.lock().unwrap_or_else(PoisonError::into_inner);
        if now != *misfit {
            match &now {
                Some(problem) => tracing::error!("the settings do not fit the vCenter: {problem}"),
                None => tracing::info!("the settings fit the vCenter"),
            }
        }
        *misfit = now;
        drop(misfit);
        found
    }

    pub(super) async fn placement(&self) -> Result<Arc<Placement>, Fault> {
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
    pub(super) async fn stale(&self, error: Error) -> Fault {
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

    pub(super) async fn permit<'a>(&self, semaphore: &'a Semaphore) -> Result<SemaphorePermit<'a>, Error> {
        match tokio::time::timeout(self.session.config().request_timeout(), semaphore.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::NotSent("too many calls are under way".into())),
        }
    }

    /// Makes a call that changes something, when it is its turn.
    pub(super) async fn change(&self, call: &Call) -> Result<Element, Error> {
        let _permit = self.permit(&self.changes).await?;
        self.session.call(call).await
    }

    /// Reads the tasks of earlier calls: one that runs, or else the last that ended.
    pub(super) async fn follow(&self, stored: Option<&TaskRef>, own: Option<TaskRef>) -> Result<Followed, Fault> {
        let mut ended = None;
        let own = own.filter(|own| stored != Some(own));
        for reference in stored.cloned().into_iter().chain(own) {
            match self.listener.task(&reference).await? {
                Some(task) if task.is_running() => return Ok(Followed::Running(task)),
                Some(task) => ended = Some(task),
                None => {}
            }
        }
        Ok(Followed::Ended(ended))
    }

    /// The fault of a task that failed. One that is worth another try is reported once, so that whoever asks again with
    /// the same task gets that try.
    pub(super) fn failure(&self, task: &Task) -> Option<Fault> {
        let Outcome::Failed(fault) = &task.outcome else { return None };
        if fault.is_already_so() {
            return None;
        }
        let mut fault = Fault::from(fault.clone());
        if fault.class == FaultClass::Lost {
            // Not the VM, which is looked for first, but something that it needed.
            (fault.class, fault.reason) = (FaultClass::Retry, "HYPERVISOR_CHANGED");
        }
        (fault.class != FaultClass::Retry || !self.task_cache.was_reported(&task.reference)).then_some(fault)
    }

    /// Where creations from a template are to be seen: those of clones on the template, others on our folder.
    pub(super) async fn source(
        &self,
        placement: &Placement,
        template: &TemplateRef,
    ) -> Result<Option<ManagedRef>, Fault> {
        if media::is_medium(template) {
            return Ok(Some(placement.folder.clone()));
        }
        Ok(self.session.by_instance_uuid(&placement.datacenter, &template.0).await?)
    }

    /// Creations that are under way and may be this VM's: not started by this process, and not before the VM had an id.
    pub(super) async fn unclaimed_creations(&self, vm: VmId, source: Option<&ManagedRef>) -> Result<Vec<Task>, Fault> {
        let Some(source) = source else { return Ok(Vec::new()) };
        let mut creations = self.session.recent_creations(source, |task| self.task_cache.is_known(task)).await?;
        creations.iter().filter(|task| !task.is_running()).for_each(|task| self.task_cache.ended(&task.reference));
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
        self.listener.end();
    }
}

/// What became of the tasks of earlier calls.
pub(super) enum Followed {
    Running(Task),
    Ended(Option<Task>),
}

/// When an id was made.
fn minted(vm: VmId) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = vm.0.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}
