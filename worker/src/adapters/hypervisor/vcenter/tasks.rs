//! Tasks: what a vCenter does after it has answered.

use std::sync::Arc;

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
    Clone,
    Reconfigure,
    PowerOff,
    Destroy,
    Other,
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
    percent: Option<u8>,
}

impl Task {
    fn from_object(object: &Object) -> Option<Self> {
        let info = object.get("info")?;
        // A vCenter says "VirtualMachine.clone" where vcsim says "VirtualMachine.cloneVm".
        let work = match info.text_at("descriptionId")?.strip_prefix("VirtualMachine.") {
            Some(verb) if verb.starts_with("clone") => Work::Clone,
            Some(verb) if verb.starts_with("reconfig") => Work::Reconfigure,
            Some(verb) if verb.starts_with("powerOff") => Work::PowerOff,
            Some(verb) if verb.starts_with("destroy") => Work::Destroy,
            _ => Work::Other,
        };
        let outcome = match info.text_at("state")? {
            "success" => Outcome::Succeeded,
            "error" => Outcome::Failed(VimFault::from_localized(info.at("error").unwrap_or(&Element::default()))),
            _ => Outcome::Running,
        };
        Some(Self {
            reference: TaskRef(object.reference.id.clone()),
            work,
            outcome,
            queued: info.value_at("queueTime"),
            cancelable: info.value_at("cancelable").unwrap_or(false),
            percent: info.value_at("progress"),
        })
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.outcome, Outcome::Running)
    }

    pub(super) fn progress(self) -> Progress {
        Progress::Running { task: Some(self.reference), percent: self.percent }
    }
}

fn managed(task: &TaskRef) -> ManagedRef {
    ManagedRef::new("Task", &task.0)
}

impl Session {
    /// A task; none if the vCenter has forgotten it, as it does some minutes after its end.
    pub(super) async fn task(self: &Arc<Self>, task: &TaskRef) -> Result<Option<Task>, Error> {
        Ok(self.read(&managed(task), &["info"]).await?.as_ref().and_then(Task::from_object))
    }

    /// The last clones of a template, but for those that need no look.
    pub(super) async fn recent_clones(
        self: &Arc<Self>,
        template: &ManagedRef,
        is_known: impl Fn(&TaskRef) -> bool,
    ) -> Result<Vec<Task>, Error> {
        let Some(template) = self.read(template, &["recentTask"]).await? else { return Ok(Vec::new()) };
        let recent = template.get("recentTask").map_or(&[][..], |list| &list.children);
        let recent: Vec<_> =
            recent.iter().filter_map(Element::managed).filter(|task| !is_known(&TaskRef(task.id.clone()))).collect();
        let tasks = self.read_all(&recent, "Task", &["info"]).await?;
        let tasks = tasks.iter().filter_map(Task::from_object);
        Ok(tasks.filter(|task| task.work == Work::Clone).collect())
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
        assert_eq!(task.work, Work::Clone);
        let running = Progress::Running { task: Some(TaskRef("task-9".into())), percent: Some(42) };
        assert_eq!(task.progress(), running);
    }

    #[test]
    fn a_failed_task_has_its_fault() {
        assert!(matches!(task("error").outcome, Outcome::Failed(fault) if fault.is_name_taken()));
    }
}
