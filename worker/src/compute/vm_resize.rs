//! Gives a VM the size that its row wants: resize → observe; where it has to be off for it and may be: off → resize → on →
//! observe. Back: see that nothing is at work any more → on, if we powered it off → tell what size it really has.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::{Graceful, VmResize};
use virtualstack_model::compute::vm::PowerState;
use virtualstack_model::operation::Verb;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::operations::{End, Failure};
use virtualstack_store::{Read, TenantTx};

use super::power_down::{self, PowerDown};
use super::{ask, conclude, dead_letter, hypervisor, idle, observe, present, taken_back, wait_or};
use crate::adapters::hypervisor::{Progress, TaskRef};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext};
use crate::engine::run::Workflow;
use crate::engine::step_error::{code, failure};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    /// `restart` once it was powered off for it.
    Resize {
        task: Option<TaskRef>,
        restart: bool,
    },
    PowerOff {
        at: PowerDown,
    },
    PowerOn {
        task: Option<TaskRef>,
    },
    Observe,
    /// `failure` is none when the operation was cancelled.
    Rollback {
        task: Option<TaskRef>,
        failure: Option<Failure>,
        restart: bool,
    },
    RollbackOn {
        task: Option<TaskRef>,
        failure: Option<Failure>,
    },
    RollbackObserve {
        failure: Option<Failure>,
        /// Whether it has to run, since it did when it was powered off.
        #[serde(default)]
        restart: bool,
    },
}

impl Workflow for VmResize {
    type Step = Step;
    type Subject = Option<Vm>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Vm>> {
        vms::find(tx, self.vm).await
    }

    fn first(&self) -> Step {
        Step::Resize { task: None, restart: false }
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::PowerOff { at } => (at.name(), 10..30),
            Step::Resize { restart: false, .. } => ("resize", 10..90),
            Step::Resize { restart: true, .. } => ("resize", 30..70),
            Step::PowerOn { .. } => ("power_on", 70..90),
            Step::Observe => ("observe", 90..100),
            Step::Rollback { .. } => ("rollback", 0..0),
            Step::RollbackOn { .. } => ("rollback_power_on", 0..0),
            Step::RollbackObserve { .. } => ("rollback_observe", 0..0),
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
            Step::Resize { task, restart } => resize(self, context, &vm, task, restart).await,
            Step::PowerOff { at } => {
                let off = Step::Resize { task: None, restart: true };
                power_down::step(context, &vm, Some(Graceful::default()), at, |at| Step::PowerOff { at }, off).await
            }
            Step::PowerOn { task } => {
                let progress = ask(context, hypervisor.ensure_power(vm.id, PowerState::On, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::PowerOn { task }, Step::Observe).await
            }
            Step::Observe => {
                let seen = observe(context, &vm).await?;
                conclude(self, context, &vm, seen, (told(self), End::Succeeded(None))).await
            }
            Step::Rollback { task, failure, restart } => match idle(context, &vm, task.as_ref()).await? {
                Progress::Running { task, percent } => {
                    Ok(context.wait(Step::Rollback { task, failure, restart }, percent).await?)
                }
                Progress::Done if restart => Ok(context.next(Step::RollbackOn { task: None, failure }).await?),
                Progress::Done => Ok(context.next(Step::RollbackObserve { failure, restart }).await?),
            },
            Step::RollbackOn { task, failure } => {
                match ask(context, hypervisor.ensure_power(vm.id, PowerState::On, task.as_ref())).await {
                    Ok(Progress::Running { task, percent }) => {
                        Ok(context.wait(Step::RollbackOn { task, failure }, percent).await?)
                    }
                    Err(error @ (StepError::Retry { .. } | StepError::LeaseLost)) => Err(error),
                    // It stays off where it cannot be powered on: that is what the tenant is told then.
                    Ok(Progress::Done) | Err(_) => {
                        Ok(context.next(Step::RollbackObserve { failure, restart: true }).await?)
                    }
                }
            }
            Step::RollbackObserve { failure, restart } => {
                let seen = observe(context, &vm).await?;
                let done = seen.as_ref().is_some_and(|seen| {
                    seen.size.is_some_and(|size| size.suits(&vm.desired_size()))
                        && (!restart || seen.power == PowerState::On)
                });
                let ended = taken_back(self, Verb::Update, failure, done.then(|| told(self)));
                conclude(self, context, &vm, seen, ended).await
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        let (task, restart) = match step {
            Step::Rollback { .. } | Step::RollbackOn { .. } | Step::RollbackObserve { .. } => return None,
            // It is done.
            Step::Observe if failure.is_none() => return None,
            Step::Resize { task, restart } => (task.clone(), *restart),
            Step::PowerOff { at } => (at.task(), true),
            Step::PowerOn { task } => (task.clone(), true),
            Step::Observe => (None, false),
        };
        Some(Step::Rollback { task, failure, restart })
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        dead_letter(self, context, failure).await
    }
}

/// What is told of it when it is done.
fn told(job: &VmResize) -> Event {
    let message = "The VM has its new size".to_owned();
    Event { reason: "VM_RESIZED", message, operation: Some(job.operation) }
}

async fn resize(
    job: &VmResize,
    context: &StepContext<'_>,
    vm: &Vm,
    task: Option<TaskRef>,
    restart: bool,
) -> Result<Committed<Step>, StepError> {
    let size = vm.desired_size();
    match ask(context, hypervisor(context, vm)?.ensure_size(vm.id, &size, task.as_ref())).await {
        Ok(progress) => {
            let done = if restart { Step::PowerOn { task: None } } else { Step::Observe };
            wait_or(context, progress, |task| Step::Resize { task, restart }, done).await
        }
        Err(StepError::Own(VmFault::PowerOff(_))) if job.allow_restart && !restart => {
            Ok(context.next(Step::PowerOff { at: PowerDown::first(Some(Graceful::default())) }).await?)
        }
        Err(StepError::Own(VmFault::PowerOff(needed))) => {
            Err(StepError::Fail(failure(code::FAILED_PRECONDITION, "RESTART_NEEDED", needed.message)))
        }
        Err(error) => Err(error),
    }
}
