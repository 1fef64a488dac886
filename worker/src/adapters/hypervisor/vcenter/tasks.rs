//! Tasks: what a vCenter does after it has answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::super::{Progress, TaskRef};
use super::faults::{Error, VimFault};
use super::properties::Object;
use super::session::Session;
use super::soap::Call;
use super::xml::{Element, ManagedRef, Xml};

/// What a task does, as far as we start it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A VM is made: a template cloned, or an empty machine.
    Create,
    Reconfigure,
    PowerOn,
    PowerOff,
    Suspend,
    Reset,
    Snapshot,
    RemoveSnapshot,
    Revert,
    Destroy,
    Other,
}

impl Work {
    /// From the `descriptionId` of a task. A vCenter says `VirtualMachine.clone` and `vm.Snapshot.revert` where vcsim says
    /// `VirtualMachine.cloneVm` and `VirtualMachine.revertToSnapshot`.
    fn of(description: &str) -> Self {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| description.starts_with(prefix));
        match description {
            _ if starts(&["VirtualMachine.clone", "Folder.createV"]) => Self::Create,
            _ if starts(&["VirtualMachine.reconfig"]) => Self::Reconfigure,
            _ if starts(&["VirtualMachine.powerOn"]) => Self::PowerOn,
            _ if starts(&["VirtualMachine.powerOff"]) => Self::PowerOff,
            _ if starts(&["VirtualMachine.suspend"]) => Self::Suspend,
            "VirtualMachine.reset" => Self::Reset,
            _ if starts(&["VirtualMachine.createSnapshot"]) => Self::Snapshot,
            _ if starts(&["vm.Snapshot.remove", "VirtualMachine.removeSnapshot"]) => Self::RemoveSnapshot,
            _ if starts(&["vm.Snapshot.revert", "VirtualMachine.revertTo"]) => Self::Revert,
            _ if starts(&["VirtualMachine.destroy"]) => Self::Destroy,
            _ => Self::Other,
        }
    }

    /// Whether the VM is as it was if this is stopped half way.
    pub(super) fn can_be_stopped(self) -> bool {
        matches!(self, Self::Create | Self::Reconfigure | Self::Snapshot)
    }
}

/// How far a task is.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Running,
    Succeeded,
    Failed(VimFault),
}

/// A task as it is now.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) reference: TaskRef,
    pub(super) work: Work,
    pub(super) outcome: Outcome,
    pub(super) queued: Option<DateTime<Utc>>,
    pub(super) cancelable: bool,
    /// The account that started it, where it was one.
    pub(super) user: Option<String>,
    percent: Option<u8>,
}

impl Task {
    fn from_object(object: &Object) -> Option<Self> {
        Self::from_info(&object.reference, object.get("info")?)
    }

    pub(super) fn from_info(reference: &ManagedRef, info: &Element) -> Option<Self> {
        let outcome = match info.text_at("state")? {
            "success" => Outcome::Succeeded,
            "error" => Outcome::Failed(VimFault::from_localized(info.at("error").unwrap_or(&Element::default()))),
            _ => Outcome::Running,
        };
        Some(Self {
            reference: TaskRef(reference.id.clone()),
            work: Work::of(info.text_at("descriptionId")?),
            outcome,
            queued: info.value_at("queueTime"),
            cancelable: info.value_at("cancelable").unwrap_or(false),
            user: info.text_at("reason/userName").map(str::to_owned),
            percent: info.value_at("progress"),
        })
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.outcome, Outcome::Running)
    }

    /// It was this work, and went well.
    pub(super) fn has_done(&self, work: Work) -> bool {
        self.work == work && matches!(self.outcome, Outcome::Succeeded)
    }

    /// It was this work, for whoever started or awaited it. Of tasks that we did not start, only those are awaited whose
    /// work we know; so one of other words was started for it, by a vCenter that words it in its own way.
    pub(super) fn was_for(&self, work: Work) -> bool {
        self.work == work || self.work == Work::Other
    }

    /// The same, and it went well.
    pub(super) fn has_served(&self, work: Work) -> bool {
        self.was_for(work) && matches!(self.outcome, Outcome::Succeeded)
    }

    pub(super) fn progress(self) -> Progress {
        Progress::Running { task: Some(self.reference), percent: self.percent }
    }
}

pub(super) fn managed(task: &TaskRef) -> ManagedRef {
    ManagedRef::new("Task", &task.0)
}

impl Session {
    /// A task as it is now; `None` if the vCenter has forgotten it, as it does some minutes after its end.
    pub(super) async fn task(self: &Arc<Self>, task: &TaskRef) -> Result<Option<Task>, Error> {
        Ok(self.read(&managed(task), &["info"]).await?.as_ref().and_then(Task::from_object))
    }

    /// Tasks as they are now; those that do not exist any more are left out.
    pub(super) async fn tasks(self: &Arc<Self>, tasks: &[ManagedRef]) -> Result<Vec<Task>, Error> {
        let tasks = self.read_all(tasks, "Task", &["info"]).await?;
        Ok(tasks.iter().filter_map(Task::from_object).collect())
    }

    /// The last tasks that made VMs of a template, or in a folder, but for those that need no look.
    pub(super) async fn recent_creations(
        self: &Arc<Self>,
        source: &ManagedRef,
        is_known: impl Fn(&TaskRef) -> bool,
    ) -> Result<Vec<Task>, Error> {
        let Some(source) = self.read(source, &["recentTask"]).await? else { return Ok(Vec::new()) };
        let mut recent = recent_tasks(&source);
        recent.retain(|task| !is_known(&TaskRef(task.id.clone())));
        let mut tasks = self.tasks(&recent).await?;
        tasks.retain(|task| task.work == Work::Create);
        Ok(tasks)
    }

    /// Awaits the end of a task that others do not have to know of, and gives its result.
    pub(super) async fn result_of(self: &Arc<Self>, task: &TaskRef) -> Result<Element, Error> {
        let (reference, asked) = (managed(task), Instant::now());
        loop {
            let object = self.read(&reference, &["info"]).await?;
            let info = object.as_ref().and_then(|object| object.get("info"));
            match object.as_ref().and_then(Task::from_object).map(|task| task.outcome) {
                Some(Outcome::Succeeded) => {
                    return Ok(info.and_then(|info| info.at("result")).cloned().unwrap_or_default());
                }
                Some(Outcome::Failed(fault)) => return Err(Error::Vim(fault)),
                _ if asked.elapsed() > self.config().request_timeout() => {
                    return Err(Error::NoAnswer { change: false, detail: format!("{} does not end", task.0) });
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Asks for the end of a task; whether it ended is to be seen from the task.
    pub(super) async fn cancel(self: &Arc<Self>, task: &Task) -> Result<(), Error> {
        match self.call(&Call::change("CancelTask", &managed(&task.reference), Xml::new())).await {
            // It has ended, or cannot be stopped any more.
            Err(Error::Vim(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The `recentTask` of an object.
pub(super) fn recent_tasks(object: &Object) -> Vec<ManagedRef> {
    let recent = object.get("recentTask").map_or(&[][..], |list| &list.children);
    recent.iter().filter_map(Element::managed).collect()
}

/// The task that a call has started.
pub(super) fn started(reply: &Element) -> Result<TaskRef, Error> {
    reply
        .at("returnval")
        .and_then(Element::managed)
        .map(|task| TaskRef(task.id))
        .ok_or_else(|| Error::NoAnswer { change: true, detail: format!("{} names no task", reply.name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a vCenter 8 sends it, shortened.
    fn task(state: &str) -> Task {
        let text = format!(
            r#"<objects xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><obj type="Task">task-9</obj><propSet>
            <name>info</name><val xsi:type="TaskInfo"><key>task-9</key><task type="Task">task-9</task>
            <name>CloneVM_Task</name><descriptionId>VirtualMachine.clone</descriptionId>
            <entity type="VirtualMachine">vm-1</entity><entityName>debian-12</entityName><state>{state}</state>
            <cancelled>false</cancelled><cancelable>true</cancelable>
            <error><fault xsi:type="DuplicateName"><name>x</name><object type="VirtualMachine">vm-2</object></fault>
            <localizedMessage>The name already exists.</localizedMessage></error>
            <progress>42</progress><reason xsi:type="TaskReasonUser"><userName>u</userName></reason>
            <queueTime>2026-03-04T05:06:07.089123Z</queueTime><eventChainId>7</eventChainId></val></propSet></objects>"#
        );
        let object = Object::from_element(&Element::parse(&text).expect("well-formed")).expect("an object");
        Task::from_object(&object).expect("a task")
    }

    #[test]
    fn a_queued_task_is_under_way() {
        let task = task("queued");
        assert!(task.is_running() && task.cancelable && task.queued.is_some());
        assert_eq!((task.work, task.user.as_deref()), (Work::Create, Some("u")));
        let running = Progress::Running { task: Some(TaskRef("task-9".into())), percent: Some(42) };
        assert_eq!(task.progress(), running);
    }

    #[test]
    fn a_task_is_known_by_the_words_of_a_vcenter_and_of_vcsim() {
        for (description, work) in [
            ("VirtualMachine.clone", Work::Create),
            ("Folder.createVm", Work::Create),
            ("VirtualMachine.reconfigure", Work::Reconfigure),
            ("VirtualMachine.reconfigVm", Work::Reconfigure),
            ("VirtualMachine.reset", Work::Reset),
            ("VirtualMachine.resetGuestInformation", Work::Other),
            ("VirtualMachine.createSnapshot", Work::Snapshot),
            ("VirtualMachine.createSnapshotEx", Work::Snapshot),
            ("vm.Snapshot.remove", Work::RemoveSnapshot),
            ("VirtualMachine.removeSnapshot", Work::RemoveSnapshot),
            ("vm.Snapshot.revert", Work::Revert),
            ("VirtualMachine.revertToSnapshot", Work::Revert),
            ("VirtualMachine.migrate", Work::Other),
            ("Folder.createFolder", Work::Other),
        ] {
            assert_eq!(Work::of(description), work, "{description}");
        }
    }

    #[test]
    fn a_task_of_unknown_words_was_for_what_it_was_started_for() {
        let unknown = Task { work: Work::of("vm.Snapshot.goBack"), ..task("success") };
        assert!(unknown.has_served(Work::Revert) && unknown.has_served(Work::Reset));
        assert!(!unknown.has_done(Work::Destroy));
        assert!(!task("success").has_served(Work::Revert), "a clone");
    }

    #[test]
    fn a_failed_task_has_its_fault() {
        assert!(matches!(task("error").outcome, Outcome::Failed(fault) if fault.is_name_taken()));
    }
}
