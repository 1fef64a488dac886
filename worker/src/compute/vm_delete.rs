//! Deletes a VM: power off → keep it, DELETED, for its undelete window; or, with force, destroy → gone.
//! There is no way back from a delete: what fails is told, and can be repeated.

use std::ops::Range;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::VmDelete;
use virtualstack_model::compute::vm::{PowerState, VmState};
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::vms::{self, Update, Vm};
use virtualstack_store::operations::{self, End, Failure, Tombstone};
use virtualstack_store::{Read, TenantTx};

use super::{as_seen, ask, dead_letter, finish, hypervisor, identity, observe, wait_or};
use crate::adapters::hypervisor::{Progress, TaskRef};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::run::Workflow;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    PowerOff { task: Option<TaskRef> },
    Keep,
    Destroy { task: Option<TaskRef> },
    Purge,
}

impl Workflow for VmDelete {
    type Step = Step;
    type Subject = Option<Vm>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Vm>> {
        vms::find(tx, self.vm).await
    }

    fn first(&self) -> Step {
        if self.force { Step::Destroy { task: None } } else { Step::PowerOff { task: None } }
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::PowerOff { .. } => ("power_off", 10..90),
            Step::Keep => ("keep", 90..100),
            Step::Destroy { .. } => ("destroy", 10..90),
            Step::Purge => ("purge", 90..100),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        subject: Option<Vm>,
        step: Step,
    ) -> Result<Committed<Step>, StepError> {
        // A create that was cancelled for this delete has left nothing.
        let Some(vm) = subject else { return Ok(nothing_left(self, context).await?) };
        let hypervisor = hypervisor(context, &vm)?;
        match step {
            Step::PowerOff { task } => {
                let off = ask(context, hypervisor.ensure_power(vm.id, PowerState::Off, task.as_ref())).await;
                let progress = match off {
                    // Nothing to power off, then: the row still goes its way.
                    Err(StepError::Own(VmFault::Lost(_))) => Progress::Done,
                    other => other?,
                };
                wait_or(context, progress, |task| Step::PowerOff { task }, Step::Keep).await
            }
            Step::Keep => keep(self, context, &vm).await,
            Step::Destroy { task } => {
                let progress = ask(context, hypervisor.ensure_absent(&identity(&vm), task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Destroy { task }, Step::Purge).await
            }
            Step::Purge => Ok(purge(self, context, vm).await?),
        }
    }

    fn rollback(&self, _step: &Step, _failure: Option<Failure>) -> Option<Step> {
        None
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        dead_letter(self, context, failure).await
    }
}

async fn keep(job: &VmDelete, context: &StepContext<'_>, vm: &Vm) -> Result<Committed<Step>, StepError> {
    let seen = as_seen(observe(context, vm).await?, vm.size());
    let window = TimeDelta::seconds(i64::from(context.shared.config.undelete_window_seconds));
    let update = Update { state: Some(VmState::Deleted), purge_at: Some(context.now() + window), ..seen };
    let message = "The VM was deleted; it is kept until its purge time".to_owned();
    let event = Event { reason: "VM_DELETED", message, operation: Some(job.operation) };
    let done = async |tx: &mut _| finish(job, tx, update.clone(), event.clone(), &End::Succeeded(None)).await;
    Ok(context.commit_step(Transition::Done, done).await?)
}

async fn purge(job: &VmDelete, context: &StepContext<'_>, mut vm: Vm) -> Result<Committed<Step>> {
    let id = job.operation;
    let now = context.now();
    vm.state = VmState::Deleted;
    vm.deleted_at.get_or_insert(now);
    vm.purge_at = Some(now);
    let event = Event { reason: "VM_PURGED", message: "The VM was purged".to_owned(), operation: Some(id) };
    let done = async |tx: &mut _| {
        vms::remove(tx, &vm, event.clone()).await?;
        operations::end(tx, id, &End::Succeeded(Some(Tombstone::of(&vm)?))).await
    };
    context.commit_step(Transition::Done, done).await
}

async fn nothing_left(job: &VmDelete, context: &StepContext<'_>) -> Result<Committed<Step>> {
    let id = job.operation;
    let done = async |tx: &mut _| operations::end(tx, id, &End::Succeeded(None)).await;
    context.commit_step(Transition::Done, done).await
}
