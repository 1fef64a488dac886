//! What all mutations of VMs, their snapshots and templates have in common: one transaction that starts an operation, or only tells
//! what would come of it.

use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::vm::VmState;
use virtualstack_model::id::OperationId;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::operations::v1::{OperationMetadata, Plan, plan};
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::quotas::{self, Quota};
use virtualstack_store::compute::vms::{self, Update, Vm};
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{Store, TenantTx, Write, operations};

use crate::call::TenantCall;
use crate::call::message::any;
use crate::call::write::{Answer, Mutation};
use crate::services::compute::quotas::{limits_message, usage_message};
use crate::services::operations as operation_service;

/// Starts an operation by `start`, which checks all there is to check, and writes and gives it. A dry run is answered by a plan, and
/// nothing is kept of it, its request id neither.
pub(crate) async fn start<R, F>(
    call: &TenantCall<R>,
    store: &Store,
    operation: OperationId,
    start: F,
) -> Result<Operation>
where
    R: Mutation,
    F: AsyncFn(&mut TenantTx<Write>) -> Result<operations::Operation>
        + for<'r> TxFn<&'r mut TenantTx<Write>, Result<operations::Operation>>,
{
    let write = async |tx: &mut TenantTx<Write>| {
        if call.request.validate_only() {
            let before = quotas::get(tx).await?;
            let row = start(tx).await?;
            return planned(tx, row, &before).await;
        }
        let row = start(tx).await?;
        operation_service::pack_one(tx, row).await
    };
    call.write(store, operation.name(), write).await
}

impl Answer<TenantTx<Write>> for Operation {
    const PLANNED: bool = true;

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        operation_service::read(tx, OperationId::parse("request_id", name)?).await
    }
}

/// An unnamed, done operation with the plan of what was started in this transaction.
async fn planned(tx: &mut TenantTx<Write>, row: operations::Operation, before: &Quota) -> Result<Operation> {
    let after = quotas::get(tx).await?;
    let quota = plan::Quota {
        before: Some(usage_message(&before.usage)),
        after: Some(usage_message(&after.usage)),
        limits: Some(limits_message(&after.limits)),
    };
    // Where a template goes is found when it is imported.
    let placement = match VmId::owning(&row.target) {
        Some(vm) => Some(plan::Placement { hypervisor: vms::get(tx, vm).await?.hypervisor }),
        None => None,
    };
    // What would be created has no name yet.
    let target = if row.verb == Verb::Create { String::new() } else { row.target };
    let metadata = OperationMetadata {
        target,
        verb: operation_service::verb(row.verb).into(),
        plan: Some(Plan { quota: Some(quota), placement }),
        ..Default::default()
    };
    Ok(Operation { metadata: Some(any(&metadata)), done: true, ..Default::default() })
}

/// Puts a VM in the state that an operation begins with, and writes which one it is.
pub(crate) async fn begin(tx: &mut TenantTx<Write>, vm: &mut Vm, verb: Verb, operation: OperationId) -> Result<()> {
    let state = vm.state.begin(verb, vm.id)?;
    let (reason, message) = match verb {
        Verb::Start => ("VM_START_REQUESTED", "Start was requested"),
        Verb::Stop => ("VM_STOP_REQUESTED", "Stop was requested"),
        Verb::Restart => ("VM_RESTART_REQUESTED", "Restart was requested"),
        Verb::Reset => ("VM_RESET_REQUESTED", "Reset was requested"),
        Verb::Suspend => ("VM_SUSPEND_REQUESTED", "Suspension was requested"),
        Verb::Delete => ("VM_DELETE_REQUESTED", "Deletion was requested"),
        Verb::OpenConsole => ("VM_CONSOLE_REQUESTED", "A ticket for the console was requested"),
        Verb::Create | Verb::Update | Verb::Undelete | Verb::Revert | Verb::Import => {
            return Err(Error::internal("the store writes what this begins with"));
        }
    };
    enter(tx, vm, state, Event { reason, message: message.to_owned(), operation: Some(operation) }).await
}

/// Puts a VM in a state that an operation begins with.
pub(crate) async fn enter(tx: &mut TenantTx<Write>, vm: &mut Vm, state: VmState, event: Event) -> Result<()> {
    tx.audit_resource(vm.id.name());
    let update = Update { state: Some(state), ..Update::default() };
    vms::update_state(tx, vm, update, event).await
}
