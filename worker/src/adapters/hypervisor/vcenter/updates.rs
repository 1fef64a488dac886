//! What was heard of tasks that are open, from the vCenter's own updates.
//!
//! It only saves reads: a task that was not heard of, or not for long, has to be read.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::TaskRef;
use super::tasks::Task;
use super::xml::{Element, ManagedRef};

/// When a running task was not heard of for so long, whoever asks looks for themselves.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the end of a task is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What was heard of a task.
#[derive(Debug)]
struct Watched {
    since: Instant,
    task: Option<Task>,
}

impl Watched {
    fn is_open(&self) -> bool {
        self.task.as_ref().is_none_or(Task::is_running)
    }
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<String, Watched>,
    /// The vCenter has answered in this session.
    listening: bool,
}

/// Tasks as the vCenter reported them.
#[derive(Debug, Default)]
pub(super) struct Updates(Mutex<State>);

impl Updates {
    /// A task as it was last heard of; `None` where it has to be read.
    pub(super) fn heard_of(&self, task: &TaskRef) -> Option<Task> {
        let state = self.state();
        let watched = state.tasks.get(&task.0).filter(|_| state.listening)?;
        watched.task.clone().filter(|task| !task.is_running() || watched.since.elapsed() < SILENCE)
    }

    /// Makes a task one of those to listen for.
    pub(super) fn watch(&self, task: &TaskRef) {
        let unheard = || Watched { since: Instant::now(), task: None };
        self.state().tasks.entry(task.0.clone()).or_insert_with(unheard);
    }

    /// What to show and what not to show any more, given what is shown.
    pub(super) fn difference(&self, shown: &HashSet<String>) -> (Vec<String>, Vec<String>) {
        let mut state = self.state();
        state.tasks.retain(|_, watched| watched.is_open() || watched.since.elapsed() < REMEMBERED);
        let is_open = |id: &String| state.tasks.get(id).is_some_and(Watched::is_open);
        let add = state.tasks.keys().filter(|id| is_open(id) && !shown.contains(*id)).cloned().collect();
        (add, shown.iter().filter(|id| !is_open(id)).cloned().collect())
    }

    /// There are no such tasks.
    pub(super) fn forget(&self, tasks: impl Iterator<Item = ManagedRef>) {
        let mut state = self.state();
        for task in tasks {
            state.tasks.remove(&task.id);
        }
    }

    /// Takes in an answer.
    pub(super) fn hear(&self, updates: &Element) {
        let mut state = self.state();
        let objects = updates.all("filterSet").flat_map(|filter| filter.all("objectSet"));
        for (update, object) in objects.filter_map(|update| Some((update, update.at("obj")?.managed()?))) {
            // One that we show no more leaves as well as one that is forgotten.
            if update.text_at("kind") == Some("leave") {
                if state.tasks.get(&object.id).is_some_and(Watched::is_open) {
                    state.tasks.remove(&object.id);
                }
                continue;
            }
            let infos = update.all("changeSet").filter(|change| change.text_at("name") == Some("info"));
            for info in infos.filter_map(|change| change.at("val")) {
                if let Some(task) = Task::from_info(&object, info) {
                    state.tasks.insert(object.id.clone(), Watched { since: Instant::now(), task: Some(task) });
                }
            }
        }
        state.listening = true;
    }

    /// The session is gone, perhaps the vCenter too: what was heard holds no more, and only open tasks are of interest.
    pub(super) fn fall_silent(&self) {
        let mut state = self.state();
        state.listening = false;
        state.tasks.retain(|_, watched| watched.is_open());
        state.tasks.values_mut().for_each(|watched| watched.task = None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(kind: &str, state: &str) -> Element {
        let change = format!(
            "<changeSet><name>info</name><op>assign</op><val><descriptionId>VirtualMachine.clone</descriptionId>\
             <state>{state}</state></val></changeSet>"
        );
        let text = format!(
            "<returnval><version>1</version><filterSet><filter type=\"PropertyFilter\">f</filter><objectSet>\
             <kind>{kind}</kind><obj type=\"Task\">task-1</obj>{}</objectSet></filterSet></returnval>",
            if kind == "leave" { "" } else { &change }
        );
        Element::parse(&text).expect("well-formed")
    }

    fn watching() -> (Updates, TaskRef) {
        let updates = Updates::default();
        let task = TaskRef("task-1".into());
        updates.watch(&task);
        (updates, task)
    }

    #[test]
    fn what_was_not_heard_has_to_be_read() {
        let (updates, task) = watching();
        assert!(updates.heard_of(&task).is_none());
        updates.hear(&news("enter", "running"));
        assert!(updates.heard_of(&task).is_some_and(|task| task.is_running()));
        let heard = Instant::now().checked_sub(SILENCE).expect("a time");
        updates.state().tasks.get_mut("task-1").expect("there").since = heard;
        assert!(updates.heard_of(&task).is_none(), "it was silent for too long");
        updates.hear(&news("modify", "success"));
        assert!(updates.heard_of(&task).is_some_and(|task| !task.is_running()));
        updates.fall_silent();
        assert!(updates.heard_of(&task).is_none(), "another vCenter may have another task of that name");
    }

    #[test]
    fn only_open_tasks_are_shown() {
        let (updates, _) = watching();
        let (mut shown, one) = (HashSet::new(), vec!["task-1".to_owned()]);
        assert_eq!(updates.difference(&shown), (one.clone(), vec![]));
        shown.insert("task-1".to_owned());
        updates.hear(&news("enter", "running"));
        assert_eq!(updates.difference(&shown), (vec![], vec![]));
        updates.hear(&news("modify", "error"));
        assert_eq!(updates.difference(&shown), (vec![], one.clone()));
        updates.hear(&news("leave", ""));
        assert_eq!(updates.difference(&shown), (vec![], one), "its end is remembered");
    }

    #[test]
    fn a_task_that_is_gone_is_not_shown() {
        let (updates, task) = watching();
        updates.hear(&news("leave", ""));
        assert!(updates.heard_of(&task).is_none());
        assert_eq!(updates.difference(&HashSet::new()), (vec![], vec![]));
    }
}
