//! What all mutations of VMs and their snapshots have in common: one transaction that starts an operation, at most once
//! per request id, or only tells what would come of it.

use tonic::{Request, Response, Status};
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
use virtualstack_store::request_ids::{self, Request as RequestId};
use virtualstack_store::tx::store::TxFn;
use virtualstack_store::{Store, TenantTx, Write, operations};

use crate::call::caller::Caller;
use crate::call::status::from_error;
use crate::services::operations as operation_service;
use crate::wire;
use crate::wire::quota::{limits_message, usage_message};

/// A mutation that a caller asks for.
pub(crate) struct Mutation {
    pub(crate) caller: Caller,
    /// The operation that it is to start.
    pub(crate) operation: OperationId,
    repeat: RequestId,
    validate_only: bool,
}

impl Mutation {
    /// What a request of the rpc `method` asks for. `asked` gives its request id, and whether it is only to be validated;
    /// what tells a repeat from a new request is its id, and that it says the same.
    pub(crate) fn of<M: prost::Message>(
        method: &'static str,
        request: &Request<M>,
        asked: fn(&M) -> (&String, bool),
    ) -> Result<Self, Status> {
        let caller = Caller::of(request)?;
        let (request_id, validate_only) = asked(request.get_ref());
        let repeat = RequestId::new(method, request_id, &request.get_ref().encode_to_vec()).map_err(from_error)?;
        Ok(Self { caller, operation: OperationId::new(), repeat, validate_only })
    }

    /// Makes it by `start`, which checks all there is to check, and writes and gives the operation. A repeat is answered as the
    /// first one was; a request that is only to be validated by a plan, and nothing is kept of it, its id neither.
    pub(crate) async fn make<F>(&self, store: &Store, start: F) -> Result<Response<Operation>, Status>
    where
        F: AsyncFn(&mut TenantTx<Write>) -> Result<operations::Operation>
            + for<'r> TxFn<&'r mut TenantTx<Write>, Result<operations::Operation>>,
    {
        let audit = self.caller.audit("").rehearsed(self.validate_only);
        let answered = store
            .write(&self.caller.tenant(), audit, async |tx| {
                if self.validate_only {
                    let before = quotas::get(tx).await?;
                    let row = start(tx).await?;
                    return rehearsed(tx, row, &before).await;
                }
                if let Some(first) = self.first_answer(tx).await? {
                    return Ok(first);
                }
                let row = start(tx).await?;
                operation_service::pack_one(tx, row).await
            })
            .await;
        answered.map(Response::new).map_err(from_error)
    }

    /// The answer that the first call with this request id got, if this is a repeat. Otherwise the request id is taken
    /// for this operation, before anything else is written: of two calls at once the slower one waits here, and then
    /// finds the faster one's answer instead of what the faster one made.
    async fn first_answer(&self, tx: &mut TenantTx<Write>) -> Result<Option<Operation>> {
        let Some(name) = request_ids::answered(tx, &self.repeat).await? else {
            request_ids::remember(tx, &self.repeat, &self.operation.name()).await?;
            return Ok(None);
        };
        operation_service::read(tx, OperationId::parse("request_id", &name)?).await.map(Some)
    }
}

/// An unnamed, done operation with the plan of what was started in this transaction.
async fn rehearsed(tx: &mut TenantTx<Write>, row: operations::Operation, before: &Quota) -> Result<Operation> {
    let after = quotas::get(tx).await?;
    let vm = VmId::owning(&row.target).ok_or_else(|| Error::internal("an operation on no VM"))?;
    let vm = vms::get(tx, vm).await?;
    let quota = plan::Quota {
        before: Some(usage_message(&before.usage)),
        after: Some(usage_message(&after.usage)),
        limits: Some(limits_message(&after.limits)),
    };
    let placement = plan::Placement { hypervisor: vm.hypervisor };
    // What would be created has no name yet.
    let target = if row.verb == Verb::Create { String::new() } else { row.target };
    let metadata = OperationMetadata {
        target,
        verb: operation_service::verb(row.verb).into(),
        plan: Some(Plan { quota: Some(quota), placement: Some(placement) }),
        ..Default::default()
    };
    Ok(Operation { metadata: Some(wire::any(&metadata)), done: true, ..Default::default() })
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
        Verb::Create | Verb::Update | Verb::Undelete | Verb::Revert => {
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
