//! Starts, stops, restarts, resets or suspends a VM: off → on, or what else is asked for → observe. Back: see that nothing is
//! at work any more → tell what state the VM is really in.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::compute::jobs::VmPower;
use virtualstack_model::compute::vm::PowerState;
use virtualstack_model::operation::Verb;
use virtualstack_store::compute::event::Event;
use virtualstack_store::operations::{End, Failure};

use super::power_down::{self, PowerDown};
use super::{conclude, idle, present, taken_back, wait_or};
use crate::adapters::hypervisor::{Progress, TaskRef};
use crate::engine::context::{Settled, Snapshot, StepContext};
use crate::engine::run::Workflow;
use crate::engine::step_error::StepError;

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
    },
}

impl Workflow for VmPower {
    type Step = Step;

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
        snapshot: Snapshot,
        step: Step,
    ) -> Result<Settled<Step>, StepError> {
        let vm = present(snapshot)?;
        let hypervisor = context.hypervisor()?;
        match step {
            Step::PowerOff { at } => {
                let off = if self.verb == Verb::Restart { Step::PowerOn { task: None } } else { Step::Observe };
                power_down::step(context, vm.id, self.graceful, at, |at| Step::PowerOff { at }, off).await
            }
            Step::PowerOn { task } => {
                let progress = context.ask(hypervisor.ensure_power(vm.id, PowerState::On, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::PowerOn { task }, Step::Observe).await
            }
            Step::Reset { task } => {
                let progress = context.ask(hypervisor.reset(vm.id, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Reset { task }, Step::Observe).await
            }
            Step::Suspend { task } => {
                let progress = context.ask(hypervisor.ensure_power(vm.id, PowerState::Paused, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Suspend { task }, Step::Observe).await
            }
            Step::Observe => {
                let (reason, message) = match self.verb {
                    Verb::Start => ("VM_STARTED", "The VM was started"),
                    Verb::Stop => ("VM_STOPPED", "The VM was stopped"),
                    Verb::Reset => ("VM_RESET", "The VM was reset"),
                    Verb::Suspend => ("VM_SUSPENDED", "The VM was suspended"),
                    _ => ("VM_RESTARTED", "The VM was restarted"),
                };
                let event = Event { reason, message: message.to_owned(), operation: Some(self.operation) };
                conclude(self, context, &vm, event, End::Succeeded(None)).await
            }
            Step::Rollback { task, failure } => {
                if let Progress::Running { task, percent } = idle(context, vm.id, task.as_ref()).await? {
                    return Ok(context.wait(Step::Rollback { task, failure }, percent).await?);
                }
                let (event, end) = taken_back(self, self.verb, failure);
                conclude(self, context, &vm, event, end).await
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        let task = match step {
            Step::Rollback { .. } => return None,
            Step::PowerOff { at } => at.task(),
            Step::PowerOn { task } | Step::Reset { task } | Step::Suspend { task } => task.clone(),
            Step::Observe => None,
        };
        Some(Step::Rollback { task, failure })
    }
}
