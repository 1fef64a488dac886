//! Deletes a VM: power off → keep it, DELETED, for its undelete window; or, with force, destroy → gone.
//! There is no way back from a delete: what fails is told, and can be repeated.

use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::id::{OperationId, VmId};
use virtualstack_model::jobs::VmDelete;
use virtualstack_model::vm::{PowerState, VmState};
use virtualstack_store::operations::{self, End, Failure, Tombstone};
use virtualstack_store::vms::{self, Event, Update, Vm};

use super::{DELETED, finish, give_up, identity, wait_or};
use crate::adapters::hypervisor::{Progress, TaskRef};
use crate::context::{Settled, Snapshot, StepContext, Transition};
use crate::engine::Workflow;
use crate::step_error::StepError;

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

    fn vm(&self) -> VmId {
        self.vm
    }

    fn operation(&self) -> OperationId {
        self.operation
    }

    fn first(&self) -> Step {
        if self.force { Step::Destroy { task: None } } else { Step::PowerOff { task: None } }
    }

    fn label(step: &Step) -> (&'static str, i32) {
        match step {
            Step::PowerOff { .. } => ("power_off", 10),
            Step::Keep => ("keep", 90),
            Step::Destroy { .. } => ("destroy", 10),
            Step::Purge => ("purge", 90),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        snapshot: Snapshot,
        step: Step,
    ) -> Result<Settled<Step>, StepError> {
        // A create that was cancelled for this delete has left nothing.
        let Some(vm) = snapshot.vm else { return Ok(nothing_left(self, context).await?) };
        let hypervisor = context.hypervisor();
        match step {
            Step::PowerOff { task } => {
                let off = context.call(hypervisor.ensure_power(vm.id, PowerState::Off, task.as_ref())).await;
                let progress = match off.map_err(StepError::from) {
                    // Nothing to power off, then: the row still goes its way.
                    Err(StepError::Lost(_)) => Progress::Done,
                    other => other?,
                };
                Ok(wait_or::<_, Self>(context, progress, |task| Step::PowerOff { task }, Step::Keep).await?)
            }
            Step::Keep => Ok(keep(self, context, vm).await?),
            Step::Destroy { task } => {
                let progress = context.call(hypervisor.ensure_absent(&identity(&vm), task.as_ref())).await?;
                Ok(wait_or::<_, Self>(context, progress, |task| Step::Destroy { task }, Step::Purge).await?)
            }
            Step::Purge => Ok(purge(self, context, vm).await?),
        }
    }

    fn rollback(&self, _step: &Step, _failure: Option<Failure>) -> Option<Step> {
        None
    }

    async fn give_up(&self, context: &StepContext<'_>, failure: Failure) -> Result<Settled<Step>> {
        give_up(self, context, failure).await
    }
}

async fn keep(job: &VmDelete, context: &StepContext<'_>, vm: Vm) -> Result<Settled<Step>> {
    let id = job.operation;
    let window = TimeDelta::seconds(i64::from(context.shared.config.undelete_window_seconds));
    let update = Update {
        state: Some(VmState::Deleted),
        observed: Some((PowerState::Off, Vec::new())),
        purge_at: Some(Utc::now() + window),
        ..Update::default()
    };
    let message = "The VM was deleted; it is kept until its purge time".to_owned();
    let event = Event { reason: DELETED, message, operation: Some(id) };
    let done = async |tx: &mut _| finish(tx, &vm, update.clone(), event.clone(), &End::Succeeded(None), id).await;
    context.settle(Transition::Done, done).await
}

async fn purge(job: &VmDelete, context: &StepContext<'_>, mut vm: Vm) -> Result<Settled<Step>> {
    let id = job.operation;
    let now = Utc::now();
    vm.state = VmState::Deleted;
    vm.deleted_at.get_or_insert(now);
    vm.purge_at = Some(now);
    let event = Event { reason: "VM_PURGED", message: "The VM was purged".to_owned(), operation: Some(id) };
    let done = async |tx: &mut _| {
        vms::remove(tx, &vm, event.clone()).await?;
        operations::end(tx, id, vm.id, &End::Succeeded(Some(Tombstone::of(&vm)?))).await
    };
    context.settle(Transition::Done, done).await
}

async fn nothing_left(job: &VmDelete, context: &StepContext<'_>) -> Result<Settled<Step>> {
    let (id, vm) = (job.operation, job.vm);
    let done = async |tx: &mut _| operations::end(tx, id, vm, &End::Succeeded(None)).await;
    context.settle(Transition::Done, done).await
}
