//! Starts the purges of deleted VMs whose undelete window is over.
//!
//! - What it does: it starts a forced delete of each VM that is due, an operation like any other.
//! - What it must never do: purge a VM that was undeleted since it was found, or whose window is still open; so it looks
//!   again under the VM's lock.
//! - When it is activated: by its timer, `worker.housekeeping_seconds`.

use virtualstack_model::Result;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::jobs::{VmDelete, VmPurge};
use virtualstack_model::compute::vm::VmState;
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_model::operation::Verb;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::vms::{self, Update};
use virtualstack_store::operations;

use crate::engine::task::{Next, Task, TaskContext};

/// Purges that one run starts at most; the next run goes on.
const PURGES: i64 = 100;

impl Task for VmPurge {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let store = context.store();
        let due = store.system(crate::reconciler::reconciler(), async |tx| vms::purgeable(tx, PURGES).await).await?;
        for (tenant, vm) in due {
            if let Err(error) = purge(context, tenant, vm).await {
                tracing::warn!(%error, %vm, "cannot start a purge");
            }
        }
        Ok(Next::Done)
    }
}

async fn purge(context: &TaskContext<'_>, tenant: TenantId, id: VmId) -> Result<()> {
    context
        .store()
        .write_as_system(&crate::reconciler::reconciler(), tenant, "vm_purge", async |tx| {
            let Some(mut vm) = vms::find_locked(tx, id).await? else { return Ok(()) };
            // It may have been undeleted since it was found, and deleted again: then it has its window before it.
            if vm.state != VmState::Deleted || vm.purge_at.is_none_or(|due| due > context.now()) {
                return Ok(());
            }
            let operation = OperationId::new();
            let job = VmDelete { vm: id, operation, force: true };
            operations::start(tx, vms::operation(operation, Verb::Delete, id), &job).await?;
            tx.audit_resource(id.name());
            let update = Update { state: Some(VmState::Deleting), ..Update::default() };
            let message = "The undelete window is over; the VM is purged".to_owned();
            let event = Event { reason: "VM_PURGE_STARTED", message, operation: Some(operation) };
            vms::update_state(tx, &mut vm, update, event).await
        })
        .await
}
