//! Starts, stops or restarts a VM: off → on (as asked) → observe. Back: tell what state the VM is really in.

use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::id::{OperationId, VmId};
use virtualstack_model::jobs::VmPower;
use virtualstack_model::operation::Verb;
use virtualstack_model::vm::{PowerState, VmState};
use virtualstack_store::operations::{End, Failure};
use virtualstack_store::vms::{Event, Update, Vm};

use super::{finish, give_up, wait_or};
use crate::adapters::hypervisor::TaskRef;
use crate::context::{Settled, Snapshot, StepContext, Transition};
use crate::engine::Workflow;
use crate::step_error::{StepError, code, failure};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    PowerOff {
        task: Option<TaskRef>,
    },
    PowerOn {
        task: Option<TaskRef>,
    },
    Observe,
    /// `failure` is none when the operation was cancelled.
    Rollback {
        failure: Option<Failure>,
    },
}

impl Workflow for VmPower {
    type Step = Step;

    fn vm(&self) -> VmId {
        self.vm
    }

    fn operation(&self) -> OperationId {
        self.operation
    }

    fn first(&self) -> Step {
        match self.verb {
            Verb::Start => Step::PowerOn { task: None },
            _ => Step::PowerOff { task: None },
        }
    }

    fn label(step: &Step) -> (&'static str, i32) {
        match step {
            Step::PowerOff { .. } => ("power_off", 10),
            Step::PowerOn { .. } => ("power_on", 50),
            Step::Observe => ("observe", 90),
            Step::Rollback { .. } => ("rollback", 10),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        snapshot: Snapshot,
        step: Step,
    ) -> Result<Settled<Step>, StepError> {
        let Some(vm) = snapshot.vm else {
            return Err(StepError::Fail(failure(code::NOT_FOUND, "VM_NOT_FOUND", "the VM was removed")));
        };
        let hypervisor = context.hypervisor();
        match step {
            Step::PowerOff { task } => {
                let progress = context.call(hypervisor.ensure_power(vm.id, PowerState::Off, task.as_ref())).await?;
                let next = if self.verb == Verb::Restart { Step::PowerOn { task: None } } else { Step::Observe };
                Ok(wait_or::<_, Self>(context, progress, |task| Step::PowerOff { task }, next).await?)
            }
            Step::PowerOn { task } => {
                let progress = context.call(hypervisor.ensure_power(vm.id, PowerState::On, task.as_ref())).await?;
                Ok(wait_or::<_, Self>(context, progress, |task| Step::PowerOn { task }, Step::Observe).await?)
            }
            Step::Observe => {
                let (reason, message) = match self.verb {
                    Verb::Start => ("VM_STARTED", "The VM was started"),
                    Verb::Stop => ("VM_STOPPED", "The VM was stopped"),
                    _ => ("VM_RESTARTED", "The VM was restarted"),
                };
                conclude(self, context, vm, reason, message.to_owned(), End::Succeeded(None)).await
            }
            Step::Rollback { failure: None } => {
                let message = format!("{} was cancelled", self.verb);
                conclude(self, context, vm, "VM_OPERATION_CANCELLED", message, End::Cancelled).await
            }
            Step::Rollback { failure: Some(failure) } => {
                let message = format!("{} failed: {}", self.verb, failure.message);
                conclude(self, context, vm, "VM_OPERATION_FAILED", message, End::Failed(failure)).await
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        match step {
            Step::Rollback { .. } => None,
            Step::PowerOff { .. } | Step::PowerOn { .. } | Step::Observe => Some(Step::Rollback { failure }),
        }
    }

    async fn give_up(&self, context: &StepContext<'_>, failure: Failure) -> Result<Settled<Step>> {
        give_up(self, context, failure).await
    }
}

/// Ends the operation with the VM in the state that the hypervisor says it is in.
async fn conclude(
    job: &VmPower,
    context: &StepContext<'_>,
    vm: Vm,
    reason: &'static str,
    message: String,
    end: End,
) -> Result<Settled<Step>, StepError> {
    let seen = context.call(context.hypervisor().observe_vm(vm.id)).await?;
    let id = job.operation;
    let event = Event { reason, message, operation: Some(id) };
    let update = match seen {
        Some(seen) => Update {
            state: Some(VmState::from_power(seen.power)),
            observed: Some((seen.power, seen.ip_addresses)),
            size: seen.size,
            ..Update::default()
        },
        None => Update {
            state: Some(VmState::Error),
            state_reason: "the VM is gone from the hypervisor".to_owned(),
            ..Update::default()
        },
    };
    let done = async |tx: &mut _| finish(tx, &vm, update.clone(), event.clone(), &end, id).await;
    Ok(context.settle(Transition::Done, done).await?)
}
