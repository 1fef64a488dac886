//! What this process remembers of VMs and tasks. It may be lost at any time: then the vCenter is asked, which takes longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;
use virtualstack_model::compute::id::VmId;

use super::super::TaskRef;

/// After this nobody asks for a VM's creation any more.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// After this a vCenter does not call a task recent any more.
const RECENT: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct Entries {
    turns: HashMap<VmId, Arc<tokio::sync::Mutex<()>>>,
    /// The last creation that was started for a VM.
    creations: HashMap<VmId, (Instant, TaskRef)>,
    /// Tasks that no VM's fate can hang on unbeknown to us: those that this process started, and those that have ended.
    known: HashMap<String, Instant>,
    /// Creations of somebody's that a VM's fate may hang on, and since when they are waited for.
    waits: HashMap<VmId, (Instant, Vec<TaskRef>)>,
    /// Guests that shut down, and since when that is waited for.
    guests: HashMap<VmId, Instant>,
    /// Tasks whose failure was reported.
    reported: HashMap<String, Instant>,
}

/// What one adapter remembers.
#[derive(Debug, Default)]
pub(super) struct TaskCache(Mutex<Entries>);

impl TaskCache {
    /// Waits until no other call works on this VM.
    pub(super) async fn turn(&self, vm: VmId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut entries = self.entries();
            entries.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(entries.turns.entry(vm).or_default())
        };
        turn.lock_owned().await
    }

    /// A creation was started for a VM.
    pub(super) fn started(&self, vm: VmId, task: &TaskRef) {
        let mut entries = self.entries();
        entries.creations.retain(|_, (since, _)| since.elapsed() < FORGOTTEN);
        entries.creations.insert(vm, (Instant::now(), task.clone()));
        remember(&mut entries.known, task);
    }

    /// Whatever VM the task was for, it has ended.
    pub(super) fn ended(&self, task: &TaskRef) {
        remember(&mut self.entries().known, task);
    }

    /// The creation that was last started for a VM.
    pub(super) fn creation_of(&self, vm: VmId) -> Option<TaskRef> {
        self.entries().creations.get(&vm).map(|(_, task)| task.clone())
    }

    /// Whether it is pointless to look at a task: it has ended, or this process started it, for a VM that it knows.
    pub(super) fn is_known(&self, task: &TaskRef) -> bool {
        self.entries().known.contains_key(&task.0)
    }

    /// The VM is there, or gone for good.
    pub(super) fn settled(&self, vm: VmId) {
        let mut entries = self.entries();
        entries.creations.remove(&vm);
        entries.waits.remove(&vm);
    }

    /// Whether to wait for creations that are under way: those of the first time that this was asked, as later ones
    /// come from elsewhere without end.
    pub(super) fn must_wait(&self, vm: VmId, creations: &[TaskRef], at_most: Duration) -> bool {
        let mut entries = self.entries();
        entries.waits.retain(|_, (since, _)| since.elapsed() < FORGOTTEN);
        let (since, awaited) = entries.waits.entry(vm).or_insert_with(|| (Instant::now(), creations.to_vec()));
        awaited.retain(|task| creations.contains(task));
        let wait = !awaited.is_empty() && since.elapsed() < at_most;
        if !wait {
            entries.waits.remove(&vm);
        }
        wait
    }

    /// Whether to wait for a guest that shuts down, if it does.
    pub(super) fn must_await_guest(&self, vm: VmId, shuts_down: bool, at_most: Duration) -> bool {
        let mut entries = self.entries();
        entries.guests.retain(|_, since| since.elapsed() < FORGOTTEN);
        let wait = shuts_down && entries.guests.entry(vm).or_insert_with(Instant::now).elapsed() < at_most;
        if !wait {
            entries.guests.remove(&vm);
        }
        wait
    }

    /// Whether the failure of a task was reported before; from now on it was.
    pub(super) fn was_reported(&self, task: &TaskRef) -> bool {
        remember(&mut self.entries().reported, task).is_some()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives when it was remembered before.
fn remember(tasks: &mut HashMap<String, Instant>, task: &TaskRef) -> Option<Instant> {
    tasks.retain(|_, since| since.elapsed() < RECENT);
    tasks.insert(task.0.clone(), Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(names: &[&str]) -> Vec<TaskRef> {
        names.iter().map(|name| TaskRef((*name).to_owned())).collect()
    }

    #[test]
    fn only_the_creations_of_the_first_look_are_awaited() {
        let (cache, vm, long) = (TaskCache::default(), VmId::new(), Duration::from_secs(60));
        assert!(cache.must_wait(vm, &tasks(&["a", "b"]), long));
        assert!(cache.must_wait(vm, &tasks(&["b", "c"]), long));
        assert!(!cache.must_wait(vm, &tasks(&["c", "d"]), long), "a and b have ended");
        assert!(cache.must_wait(vm, &tasks(&["c", "d"]), long), "a new question");
        assert!(!cache.must_wait(vm, &tasks(&["c", "d"]), Duration::ZERO), "long enough");
    }

    #[test]
    fn a_guest_that_shuts_down_is_awaited_for_a_while() {
        let (cache, vm, long) = (TaskCache::default(), VmId::new(), Duration::from_secs(60));
        assert!(!cache.must_await_guest(vm, false, long));
        assert!(cache.must_await_guest(vm, true, long));
        assert!(!cache.must_await_guest(vm, true, Duration::ZERO), "long enough");
        assert!(cache.must_await_guest(vm, true, long), "a new question");
        assert!(!cache.must_await_guest(vm, false, long), "it is off");
        assert!(cache.entries().guests.is_empty());
    }

    #[test]
    fn a_failure_is_reported_once() {
        let (cache, task) = (TaskCache::default(), TaskRef("task-1".into()));
        assert!(!cache.was_reported(&task));
        assert!(cache.was_reported(&task));
    }

    #[tokio::test]
    async fn turns_leave_nothing_behind() {
        let cache = TaskCache::default();
        for _ in 0..3 {
            drop(cache.turn(VmId::new()).await);
        }
        drop(cache.turn(VmId::new()).await);
        assert_eq!(cache.entries().turns.len(), 1);
    }
}
