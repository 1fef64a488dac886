//! Listens for what a vCenter reports of tasks by itself.
//!
//! One loop waits for updates of all tasks that somebody asked about, so that asking again costs the vCenter nothing, however
//! many operations are open. Its objects on the vCenter belong to a session and go with it; when that ends, or anything
//! fails, the loop begins anew.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::TaskRef;
use super::faults::Error;
use super::session::{Login, Session};
use super::soap::Call;
use super::tasks::{Task, managed};
use super::updates::Updates;
use super::xml::{Element, ManagedRef, Xml};

/// How long the vCenter keeps a question open without news.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Between two answers: progress comes in many small pieces.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);
/// After anything failed.
const PAUSE: Duration = Duration::from_secs(5);

/// An object on the vCenter, and what ends it.
type Held = (&'static str, ManagedRef);

/// Whether the loop runs.
#[derive(Debug, Default)]
enum Run {
    #[default]
    NotYet,
    Running(AbortHandle),
    Ended,
}

/// Reads tasks, and from then on listens for updates of those that run.
#[derive(Debug)]
pub(super) struct Listener {
    session: Arc<Session>,
    updates: Updates,
    /// There is one more task to listen for.
    more: Notify,
    run: Mutex<Run>,
}

impl Listener {
    pub(super) fn new(session: Arc<Session>) -> Arc<Self> {
        Arc::new(Self { session, updates: Updates::default(), more: Notify::new(), run: Mutex::default() })
    }

    /// A task; `None` if the vCenter has forgotten it.
    pub(super) async fn task(self: &Arc<Self>, task: &TaskRef) -> Result<Option<Task>, Error> {
        if let Some(heard) = self.updates.heard_of(task) {
            return Ok(Some(heard));
        }
        let found = self.session.task(task).await?;
        if found.as_ref().is_some_and(Task::is_running) {
            self.watch(task);
        }
        Ok(found)
    }

    /// Listens for updates of a task from now on; starts the loop with the first.
    fn watch(self: &Arc<Self>, task: &TaskRef) {
        let mut run = self.run();
        match *run {
            Run::Ended => return,
            Run::Running(_) => {}
            Run::NotYet => *run = Run::Running(tokio::spawn(listen(Arc::clone(self))).abort_handle()),
        }
        self.updates.watch(task);
        self.more.notify_one();
    }

    /// Ends the loop for good.
    pub(super) fn end(&self) {
        if let Run::Running(running) = std::mem::replace(&mut *self.run(), Run::Ended) {
            running.abort();
        }
        self.updates.fall_silent();
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens until something fails, and gives back what it had on the vCenter: the session may live on.
    async fn rounds(&self) -> Result<Infallible, Error> {
        let login = self.session.login().await?;
        let mut held = Vec::new();
        let Err(error) = self.listen_in(&login, &mut held).await;
        self.updates.fall_silent();
        for (method, object) in held {
            let _ = self.session.call_in(&login, &Call::read(method, &object, Xml::new())).await;
        }
        Err(error)
    }

    async fn listen_in(&self, login: &Login, held: &mut Vec<Held>) -> Result<Infallible, Error> {
        let (collector, view) = self.tune_in(login, held).await?;
        let (mut shown, mut version) = (HashSet::new(), String::new());
        loop {
            self.show(login, &view, &mut shown).await?;
            if shown.is_empty() {
                self.more.notified().await;
                continue;
            }
            let options = Xml::new().text("maxWaitSeconds", MAX_WAIT.as_secs());
            let arguments = Xml::new().text("version", &version).node("options", options);
            let call = Call::wait("WaitForUpdatesEx", &collector, arguments, MAX_WAIT);
            let mut answer = pin!(self.session.call_in(login, &call));
            let answer = loop {
                tokio::select! {
                    answer = &mut answer => break answer?,
                    () = self.more.notified() => self.show(login, &view, &mut shown).await?,
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

    /// Makes a collector of our own, so that nobody else's filters are reported here, for the tasks of a list that changes.
    async fn tune_in(&self, login: &Login, held: &mut Vec<Held>) -> Result<(ManagedRef, ManagedRef), Error> {
        let collector = Call::read("CreatePropertyCollector", &login.service("propertyCollector")?, Xml::new());
        let collector = made(&self.session.call_in(login, &collector).await?)?;
        held.push(("DestroyPropertyCollector", collector.clone()));
        let view = Call::read("CreateListView", &login.service("viewManager")?, Xml::new());
        let view = made(&self.session.call_in(login, &view).await?)?;
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
        self.session.call_in(login, &Call::read("CreateFilter", &collector, arguments)).await?;
        Ok((collector, view))
    }

    /// Brings the list up to date.
    async fn show(&self, login: &Login, view: &ManagedRef, shown: &mut HashSet<String>) -> Result<(), Error> {
        let (add, remove) = self.updates.difference(shown);
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let list = |xml: Xml, tag: &str, ids: &[String]| {
            ids.iter().fold(xml, |xml, id| xml.reference(tag, &managed(&TaskRef(id.clone()))))
        };
        let arguments = list(list(Xml::new(), "add", &add), "remove", &remove);
        let unknown = self.session.call_in(login, &Call::read("ModifyListView", view, arguments)).await?;
        self.updates.forget(unknown.all("returnval").filter_map(Element::managed));
        shown.retain(|id| !remove.contains(id));
        shown.extend(add);
        Ok(())
    }
}

async fn listen(listener: Arc<Listener>) {
    loop {
        let Err(error) = listener.rounds().await;
        tracing::debug!(?error, "no updates of tasks from the vCenter; they are read");
        tokio::time::sleep(PAUSE).await;
    }
}

fn made(reply: &Element) -> Result<ManagedRef, Error> {
    let made = reply.at("returnval").and_then(Element::managed);
    made.ok_or_else(|| Error::Setup(format!("{} gave nothing", reply.name)))
}
