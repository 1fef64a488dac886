//! InjectedFault for one VM at a time: what is drawn for a step waits here until a worker makes the call that it is for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use virtualstack_model::compute::id::VmId;
use virtualstack_worker::adapters::hypervisor::Fault;

use super::lab::{Lab, Spoil};
use super::program::InjectedFault;
use crate::support::{Call, Hook, Passing, When, test_fault};

/// How long a slow call takes.
const SLOW_CALL: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Armed {
    trouble: InjectedFault,
    left: u32,
}

/// What waits for its call. VMs go by their display names: they have them before they have ids.
#[derive(Default)]
struct Waiting {
    armed: HashMap<String, Armed>,
    met: HashMap<String, u32>,
    names: HashMap<VmId, String>,
}

/// Stands in front of a lab's hypervisor, whichever worker calls it.
pub(super) struct InjectedFaults {
    lab: Arc<dyn Lab>,
    waiting: Mutex<Waiting>,
}

impl InjectedFaults {
    pub(super) fn new(lab: Arc<dyn Lab>) -> Arc<Self> {
        Arc::new(Self { lab, waiting: Mutex::default() })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a VM meet trouble.
    pub(super) fn arm(&self, name: &str, trouble: Option<InjectedFault>) {
        let mut waiting = self.waiting();
        waiting.met.remove(name);
        waiting.armed.remove(name);
        if let Some(trouble) = trouble {
            let left = if let InjectedFault::Fault { times, .. } = trouble { times } else { 1 };
            waiting.armed.insert(name.to_owned(), Armed { trouble, left });
        }
    }

    /// Takes back what has not happened; how often it did.
    pub(super) fn disarm(&self, name: &str) -> u32 {
        let mut waiting = self.waiting();
        waiting.armed.remove(name);
        waiting.met.remove(name).unwrap_or_default()
    }

    /// Waits until a VM has met its trouble, but not for long.
    pub(super) async fn met(&self, name: &str) {
        for _ in 0..200 {
            if self.waiting().met.contains_key(name) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Says which VM has a name.
    pub(super) fn named(&self, vm: VmId, name: &str) {
        self.waiting().names.insert(vm, name.to_owned());
    }

    /// What the call meets.
    fn meet(&self, passing: &Passing<'_>) -> Option<(String, InjectedFault)> {
        let mut waiting = self.waiting();
        if let Some(name) = passing.display_name {
            waiting.names.insert(passing.vm, name.to_owned());
        }
        let name = waiting.names.get(&passing.vm)?.clone();
        let trouble = waiting.armed.get(&name)?.trouble;
        let here = (passing.call, passing.when);
        let meets = match trouble {
            InjectedFault::Fault { call, when, .. } | InjectedFault::SlowCall { call, when } => here == (call, when),
            InjectedFault::SlowTask | InjectedFault::FailingTask => {
                let starts_none = matches!(passing.call, Call::Observe | Call::Console | Call::ShutDown | Call::Idle);
                passing.when == When::After && !starts_none
            }
        };
        meets.then_some((name, trouble))
    }

    fn happened(&self, name: &str) {
        let mut waiting = self.waiting();
        *waiting.met.entry(name.to_owned()).or_default() += 1;
        if let Some(armed) = waiting.armed.get_mut(name) {
            armed.left -= 1;
            if armed.left == 0 {
                waiting.armed.remove(name);
            }
        }
    }
}

#[async_trait]
impl Hook for Arc<InjectedFaults> {
    async fn pass(&self, passing: Passing<'_>) -> Result<(), Fault> {
        let Some((name, trouble)) = self.meet(&passing) else { return Ok(()) };
        match trouble {
            InjectedFault::Fault { class, .. } => {
                self.happened(&name);
                Err(test_fault(class))
            }
            InjectedFault::SlowCall { .. } => {
                self.happened(&name);
                tokio::time::sleep(SLOW_CALL).await;
                Ok(())
            }
            InjectedFault::SlowTask | InjectedFault::FailingTask => {
                let how = if trouble == InjectedFault::SlowTask { Spoil::Slow } else { Spoil::Fail };
                if self.lab.spoil(passing.vm, how).await {
                    self.happened(&name);
                }
                Ok(())
            }
        }
    }
}
