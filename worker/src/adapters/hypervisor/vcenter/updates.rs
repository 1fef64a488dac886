//! What a vCenter tells of tasks by itself.
//!
//! One loop waits for news of all tasks that somebody asked about, so that asking again costs the vCenter nothing, however
//! many operations are open. It only saves reads: what it has not heard, or not for long, is read as if it were not there.
//! Its objects on the vCenter belong to a session and go with it; when that ends, or anything fails, the loop begins anew.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::TaskRef;
use super::faults::Error;
use super::session::{Login, Session};
use super::soap::Call;
use super::tasks::{Task, managed};
use super::xml::{Element, ManagedRef, Xml};

/// How long the vCenter keeps a question open without news.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Between two answers: progress comes in many small pieces.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);
/// After anything failed.
const PAUSE: Duration = Duration::from_secs(5);
/// When a running task was not heard of for so long, whoever asks looks for themselves.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the end of a task is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// An object on the vCenter, and what ends it.
type Held = (&'static str, ManagedRef);

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
    running: Option<AbortHandle>,
    ended: bool,
}

/// News of tasks.
#[derive(Debug, Default)]
pub(super) struct Updates {
    state: Mutex<State>,
    wanted: Notify,
}

impl Updates {
    /// A task as it was last heard of; none where it has to be read.
    pub(super) fn heard_of(&self, task: &TaskRef) -> Option<Task> {
        let state = self.state();
        let watched = state.tasks.get(&task.0).filter(|_| state.listening)?;
        watched.task.clone().filter(|task| !task.is_running() || watched.since.elapsed() < SILENCE)
    }

    /// Asks for news of a task from now on; starts the loop with the first.
    pub(super) fn watch(&self, session: &Arc<Session>, task: &TaskRef) {
        let mut state = self.state();
        if state.ended {
            return;
        }
        state.tasks.entry(task.0.clone()).or_insert_with(|| Watched { since: Instant::now(), task: None });
        if state.running.is_none() {
            state.running = Some(tokio::spawn(listen(Arc::clone(session))).abort_handle());
        }
        self.wanted.notify_one();
    }

    /// Ends the loop for good.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.listening = false;
        if let Some(running) = state.running.take() {
            running.abort();
        }
    }

    /// What to show and what not to show any more, given what is shown.
    fn difference(&self, shown: &HashSet<String>) -> (Vec<String>, Vec<String>) {
        let mut state = self.state();
        state.tasks.retain(|_, watched| watched.is_open() || watched.since.elapsed() < REMEMBERED);
        let is_open = |id: &String| state.tasks.get(id).is_some_and(Watched::is_open);
        let add = state.tasks.keys().filter(|id| is_open(id) && !shown.contains(*id)).cloned().collect();
        (add, shown.iter().filter(|id| !is_open(id)).cloned().collect())
    }

    /// There are no such tasks.
    fn forget(&self, tasks: impl Iterator<Item = ManagedRef>) {
        let mut state = self.state();
        for task in tasks {
            state.tasks.remove(&task.id);
        }
    }

    /// Takes in an answer.
    fn hear(&self, updates: &Element) {
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
    fn fall_silent(&self) {
        let mut state = self.state();
        state.listening = false;
        state.tasks.retain(|_, watched| watched.is_open());
        state.tasks.values_mut().for_each(|watched| watched.task = None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(session: Arc<Session>) {
    loop {
        let Err(error) = session.rounds().await;
        tracing::debug!(?error, "no news of tasks from the vCenter; they are read");
        tokio::time::sleep(PAUSE).await;
    }
}

impl Session {
    /// Listens until something fails, and gives back what it had on the vCenter: the session may live on.
    async fn rounds(self: &Arc<Self>) -> Result<Infallible, Error> {
        let login = self.login().await?;
        let mut held = Vec::new();
        let Err(error) = self.listen_in(&login, &mut held).await;
        self.updates.fall_silent();
        for (method, object) in held {
            let _ = self.call_in(&login, &Call::read(method, &object, Xml::new())).await;
        }
        Err(error)
    }

    async fn listen_in(self: &Arc<Self>, login: &Login, held: &mut Vec<Held>) -> Result<Infallible, Error> {
        let (collector, view) = self.tune_in(login, held).await?;
        let (mut shown, mut version) = (HashSet::new(), String::new());
        loop {
            self.show(login, &view, &mut shown).await?;
            if shown.is_empty() {
                self.updates.wanted.notified().await;
                continue;
            }
            let options = Xml::new().text("maxWaitSeconds", MAX_WAIT.as_secs());
            let arguments = Xml::new().text("version", &version).node("options", options);
            let call = Call::wait("WaitForUpdatesEx", &collector, arguments, MAX_WAIT);
            let mut answer = pin!(self.call_in(login, &call));
            let answer = loop {
                tokio::select! {
                    answer = &mut answer => break answer?,
                    () = self.updates.wanted.notified() => self.show(login, &view, &mut shown).await?,
                }
            };
            // Without news there is no result.
            let Some(updates) = answer.at("returnval") else { continue };
            self.updates.hear(updates);
            updates.text_at("version").unwrap_or_default().clone_into(&mut version);
            if updates.text_at("truncated") != Some("true") {
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
        }
    }

    /// A collector of our own, so that nobody else's filters are told here, with the tasks of a list that changes.
    async fn tune_in(self: &Arc<Self>, login: &Login, held: &mut Vec<Held>) -> Result<(ManagedRef, ManagedRef), Error> {
        let collector = Call::read("CreatePropertyCollector", &login.service("propertyCollector")?, Xml::new());
        let collector = made(&self.call_in(login, &collector).await?)?;
        held.push(("DestroyPropertyCollector", collector.clone()));
        let view = Call::read("CreateListView", &login.service("viewManager")?, Xml::new());
        let view = made(&self.call_in(login, &view).await?)?;
        held.push(("DestroyView", view.clone()));
        let traversal =
            Xml::new().text("name", "tasks").text("type", "ListView").text("path", "view").text("skip", false);
        let objects =
            Xml::new().reference("obj", &view).text("skip", true).typed("selectSet", "TraversalSpec", traversal);
        let properties = Xml::new().text("type", "Task").text("all", false).text("pathSet", "info");
        let spec = Xml::new()
            .node("propSet", properties)
            .node("objectSet", objects)
            .text("reportMissingObjectsInResults", true);
        let arguments = Xml::new().node("spec", spec).text("partialUpdates", false);
        self.call_in(login, &Call::read("CreateFilter", &collector, arguments)).await?;
        Ok((collector, view))
    }

    /// Makes the list what is wanted now.
    async fn show(&self, login: &Login, view: &ManagedRef, shown: &mut HashSet<String>) -> Result<(), Error> {
        let (add, remove) = self.updates.difference(shown);
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let list = |xml: Xml, tag: &str, ids: &[String]| {
            ids.iter().fold(xml, |xml, id| xml.reference(tag, &managed(&TaskRef(id.clone()))))
        };
        let arguments = list(list(Xml::new(), "add", &add), "remove", &remove);
        let unknown = self.call_in(login, &Call::read("ModifyListView", view, arguments)).await?;
        self.updates.forget(unknown.all("returnval").filter_map(Element::managed));
        shown.retain(|id| !remove.contains(id));
        shown.extend(add);
        Ok(())
    }
}

fn made(reply: &Element) -> Result<ManagedRef, Error> {
    let made = reply.at("returnval").and_then(Element::managed);
    made.ok_or_else(|| Error::Setup(format!("{} gave nothing", reply.name)))
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
        updates.state().tasks.insert("task-1".into(), Watched { since: Instant::now(), task: None });
        (updates, TaskRef("task-1".into()))
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
