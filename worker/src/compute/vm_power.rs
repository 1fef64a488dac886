//! Starts, stops, restarts, resets or suspends a VM: off → on, or what else is asked for → observe. Back: see that nothing is
//! at work any more → tell what state the VM is really in.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::VmPower;
use virtualstack_model::compute::vm::PowerState;
use virtualstack_model::operation::Verb;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::operations::{End, Failure};
use virtualstack_store::{Read, TenantTx};

use super::power_down::{self, PowerDown};
use super::{ask, conclude, dead_letter, has_done, hypervisor, idle, observe, present, taken_back, wait_or};
use crate::adapters::hypervisor::{Progress, TaskRef};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext};
use crate::engine::run::Workflow;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    PowerOff {
        at: PowerDown,
    },
    PowerOn {
        task: Option<TaskRef>,
    },
    Reset {
        task: Option<TaskRef>,
    },
    Suspend {
        task: Option<TaskRef>,
    },
    Observe,
    /// `failure` is none when the operation was cancelled.
    Rollback {
        task: Option<TaskRef>,
        failure: Option<Failure>,
        /// Whether the operation was at the last thing that it does: then it may be done.
        #[serde(default)]
        last: bool,
    },
}

impl Workflow for VmPower {
    type Step = Step;
    type Subject = Option<Vm>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Vm>> {
        vms::find(tx, self.vm).await
    }

    fn first(&self) -> Step {
        match self.verb {
            Verb::Start => Step::PowerOn { task: None },
            Verb::Reset => Step::Reset { task: None },
            Verb::Suspend => Step::Suspend { task: None },
            _ => Step::PowerOff { at: PowerDown::first(self.graceful) },
        }
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::PowerOff { at } => (at.name(), 10..50),
            Step::PowerOn { .. } => ("power_on", 50..90),
            Step::Reset { .. } => ("reset", 10..90),
            Step::Suspend { .. } => ("suspend", 10..90),
            Step::Observe => ("observe", 90..100),
            Step::Rollback { .. } => ("rollback", 0..0),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        subject: Option<Vm>,
        step: Step,
    ) -> Result<Committed<Step>, StepError> {
        let vm = present(subject)?;
        let hypervisor = hypervisor(context, &vm)?;
        match step {
            Step::PowerOff { at } => {
                let off = if self.verb == Verb::Restart { Step::PowerOn { task: None } } else { Step::Observe };
                power_down::step(context, &vm, self.graceful, at, |at| Step::PowerOff { at }, off).await
            }
            Step::PowerOn { task } => {
                let progress = ask(context, hypervisor.ensure_power(vm.id, PowerState::On, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::PowerOn { task }, Step::Observe).await
            }
            Step::Reset { task } => {
                let progress = ask(context, hypervisor.reset(vm.id, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Reset { task }, Step::Observe).await
            }
            Step::Suspend { task } => {
                let progress = ask(context, hypervisor.ensure_power(vm.id, PowerState::Paused, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Suspend { task }, Step::Observe).await
            }
            Step::Observe => {
                let seen = observe(context, &vm).await?;
                conclude(self, context, &vm, seen, (told(self), End::Succeeded(None))).await
            }
            Step::Rollback { task, failure, last } => {
                // Its own task stays the one that is asked about in the end, whatever else is awaited.
                if let Progress::Running { percent, .. } = idle(context, &vm, task.as_ref()).await? {
                    return Ok(context.wait(Step::Rollback { task, failure, last }, percent).await?);
                }
                let seen = observe(context, &vm).await?;
                let done = last
                    && match desired(self.verb) {
                        Some(power) => seen.as_ref().is_some_and(|seen| seen.power == power),
                        None => has_done(context, &vm, task.as_ref()).await?,
                    };
                let ended = taken_back(self, self.verb, failure, done.then(|| told(self)));
                conclude(self, context, &vm, seen, ended).await
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        let (task, last) = match step {
            Step::Rollback { .. } => return None,
            // It is done.
            Step::Observe if failure.is_none() => return None,
            Step::PowerOff { at } => (at.task(), self.verb != Verb::Restart),
            Step::PowerOn { task } | Step::Reset { task } | Step::Suspend { task } => (task.clone(), true),
            Step::Observe => (None, true),
        };
        Some(Step::Rollback { task, failure, last })
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        dead_letter(self, context, failure).await
    }
}

/// The power state that shows that it was done; none of a reset, which leaves the VM as it was.
fn desired(verb: Verb) -> Option<PowerState> {
    match verb {
        Verb::Start | Verb::Restart => Some(PowerState::On),
        Verb::Stop => Some(PowerState::Off),
        Verb::Suspend => Some(PowerState::Paused),
        _ => None,
    }
}

/// What is told of it when it is done.
fn told(job: &VmPower) -> Event {
    let (reason, message) = match job.verb {
        Verb::Start => ("VM_STARTED", "The VM was started"),
        Verb::Stop => ("VM_STOPPED", "The VM was stopped"),
        Verb::Reset => ("VM_RESET", "The VM was reset"),
        Verb::Suspend => ("VM_SUSPENDED", "The VM was suspended"),
        _ => ("VM_RESTARTED", "The VM was restarted"),
    };
    Event { reason, message: message.to_owned(), operation: Some(job.operation) }
}
