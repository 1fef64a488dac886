//! One file per workflow. Each reads top to bottom: its steps, what each does, and the way back.

mod vm_create;
mod vm_delete;
mod vm_power;

use chrono::{TimeDelta, Utc};
use virtualstack_model::Result;
use virtualstack_model::id::OperationId;
use virtualstack_model::vm::VmState;
use virtualstack_store::operations::{self, End, Failure};
use virtualstack_store::vms::{self, Event, Update, Vm};
use virtualstack_store::{TenantTx, Write};

use crate::adapters::hypervisor::{Progress, TaskRef, TemplateRef, VmIdentity};
use crate::context::{Settled, StepContext, Transition};
use crate::engine::Workflow;

/// Waits for a task of the hypervisor: `again` is the step that asks once more, with the task's reference stored.
async fn wait_or<S, T>(
    context: &StepContext<'_>,
    progress: Progress,
    again: impl FnOnce(Option<TaskRef>) -> S,
    done: S,
) -> Result<Settled<S>>
where
    S: serde::Serialize + Send + Sync,
    T: Workflow<Step = S>,
{
    let transition = match progress {
        Progress::Done => Transition::Next(done),
        Progress::Running { task, .. } => Transition::Wait(again(task), context.task_poll()),
    };
    context.settle(transition, async |_| Ok(())).await
}

/// Writes a VM's state and ends the operation, in the commit that `tx` is. It comes first there: whoever locks both a VM
/// and its operation locks the VM first, as the server does.
async fn finish(
    tx: &mut TenantTx<Write>,
    vm: &Vm,
    mut update: Update,
    event: Event,
    end: &End,
    id: OperationId,
) -> Result<()> {
    let mut current = vms::lock(tx, vm.id).await?;
    // A delete that waits behind this operation has the last word.
    if current.state == VmState::Deleting && event.reason != DELETED {
        update.state = None;
    }
    vms::update_state(tx, &mut current, update, event).await?;
    operations::end(tx, id, vm.id, end).await
}

/// Reason of the event that ends a soft delete.
const DELETED: &str = "VM_DELETED";

/// How long after a purge that failed the next one is due, at least.
const PURGE_AGAIN: TimeDelta = TimeDelta::hours(1);

/// Ends a workflow that can neither go on nor back: the VM is in ERROR, the job a dead letter. A VM whose purge failed
/// stays deleted: nobody may use it, and the purge is tried again.
async fn give_up<W: Workflow>(job: &W, context: &StepContext<'_>, failure: Failure) -> Result<Settled<W::Step>> {
    let gone = Transition::GiveUp(format!("{}: {}", failure.reason, failure.message));
    let (vm, id) = (job.vm(), job.operation());
    context
        .settle(gone, async |tx| {
            if let Some(mut current) = vms::find_locked(tx, vm).await? {
                let deleted = current.deleted_at.is_some();
                let update = Update {
                    state: Some(if deleted { VmState::Deleted } else { VmState::Error }),
                    state_reason: failure.message.clone(),
                    purge_at: current.purge_at.map(|due| due.max(Utc::now() + PURGE_AGAIN)),
                    ..Update::default()
                };
                let event =
                    Event { reason: "VM_OPERATION_FAILED", message: failure.message.clone(), operation: Some(id) };
                vms::update_state(tx, &mut current, update, event).await?;
            }
            operations::end(tx, id, vm, &End::Failed(failure.clone())).await
        })
        .await
}

/// Enough to find a VM on the hypervisor.
fn identity(vm: &Vm) -> VmIdentity {
    VmIdentity { id: vm.id, template: TemplateRef(vm.template_reference.clone()) }
}
