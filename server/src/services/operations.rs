//! google.longrunning.Operations: the tenant's view of work.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status};
use virtualstack_model::id::{OperationId, VmId};
use virtualstack_model::operation::{OperationState, Verb};
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use virtualstack_proto::google::rpc;
use virtualstack_proto::virtualstack::operations::v1::{OperationMetadata, operation_metadata};
use virtualstack_store::vms::Vm;
use virtualstack_store::{ListRequest, Listed, Mode, Store, TenantScope, TenantTx, operations, vms};

use crate::caller::Caller;
use crate::generated::google::longrunning::operations_server::Operations as Contract;
use crate::status::from_error;
use crate::wire;
use crate::wire::vm::vm_message;

/// How long a wait lasts when its request does not say, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(300);

/// How often a wait looks: often at first, then ever less.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const SLOWEST_LOOK: Duration = Duration::from_secs(2);

pub(crate) struct Operations {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl Contract for Operations {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let ListOperationsRequest { filter, page_size, page_token, .. } = request.into_inner();
        // The vendored request has no rules of its own.
        if page_size < 0 {
            return Err(from_error(Error::invalid("page_size", "must not be negative")));
        }
        let request = ListRequest { page_size, page_token, filter, ..ListRequest::default() };
        let (operations, next_page_token) = self
            .store
            .read(&scope, async |tx| {
                let Listed { rows, next_page_token, .. } = operations::list(tx, &request).await?;
                let targets: Vec<_> = rows.iter().map(|row| row.vm_id).collect();
                let vms = vms::get_many(tx, &targets).await?;
                let pack = |row: operations::Operation| {
                    let vm = vms.iter().find(|vm| vm.id == row.vm_id).cloned();
                    message(row, vm)
                };
                Ok((rows.into_iter().map(pack).collect(), next_page_token))
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(ListOperationsResponse { operations, next_page_token, ..Default::default() }))
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let id = OperationId::parse("name", &request.get_ref().name).map_err(from_error)?;
        self.look(&scope, id).await.map(Response::new).map_err(from_error)
    }

    async fn wait_operation(&self, request: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let request = request.into_inner();
        let id = OperationId::parse("name", &request.name).map_err(from_error)?;
        let timeout = match request.timeout {
            None => DEFAULT_WAIT,
            Some(timeout) => Duration::try_from(timeout)
                .map_err(|_| from_error(Error::invalid("timeout", "must not be negative")))?
                .min(MAX_WAIT),
        };
        let end = Instant::now() + timeout;
        let mut pause = FIRST_LOOK;
        loop {
            let operation = self.look(&scope, id).await.map_err(from_error)?;
            if operation.done || Instant::now() >= end {
                return Ok(Response::new(operation));
            }
            sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 3 / 2).min(SLOWEST_LOOK);
        }
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        let id = OperationId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let audit = caller.audit(id.name());
        self.store
            .write(&caller.tenant(), audit, async |tx| operations::cancel(tx, id).await)
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }

    async fn delete_operation(&self, request: Request<DeleteOperationRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        let id = OperationId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let audit = caller.audit(id.name());
        self.store
            .write(&caller.tenant(), audit, async |tx| operations::remove(tx, id).await)
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }
}

impl Operations {
    async fn look(&self, scope: &TenantScope, id: OperationId) -> Result<Operation> {
        self.store.read(scope, async |tx| read(tx, id).await).await
    }
}

/// Reads an operation with its target as it is now.
pub(crate) async fn read<M: Mode>(tx: &mut TenantTx<M>, id: OperationId) -> Result<Operation> {
    let row = operations::get(tx, id).await?;
    let vm = vms::find(tx, row.vm_id).await?;
    Ok(message(row, vm))
}

/// Packs an operation. Its response is the VM as it is now, or as it was when it ceased to be.
pub(crate) fn message(row: operations::Operation, vm: Option<Vm>) -> Operation {
    let result = match row.state {
        OperationState::Open | OperationState::Queued => None,
        OperationState::Succeeded => {
            let vm = vm.or_else(|| row.tombstone.clone().and_then(|was| serde_json::from_value(was).ok()));
            // A VM that a later operation has purged leaves its id.
            let vm = vm.map_or_else(|| gone(row.vm_id), vm_message);
            Some(Outcome::Response(wire::any(&vm)))
        }
        OperationState::Failed => Some(Outcome::Error(failure(&row))),
        OperationState::Cancelled => Some(Outcome::Error(rpc::Status {
            code: Code::Cancelled.into(),
            message: "the operation was cancelled".to_owned(),
            details: vec![error_info("CANCELLED")],
        })),
    };
    let metadata = OperationMetadata {
        target: row.target(),
        verb: verb(row.verb).into(),
        step: row.step,
        progress_percent: row.progress_percent,
        create_time: Some(wire::time(row.created_at)),
        start_time: row.started_at.map(wire::time),
        end_time: row.ended_at.map(wire::time),
        cancel_requested: row.cancel_requested,
        plan: None,
        deadline: Some(wire::time(row.deadline_at)),
    };
    Operation { name: row.id.name(), metadata: Some(wire::any(&metadata)), done: row.state.is_done(), result }
}

fn gone(id: VmId) -> virtualstack_proto::virtualstack::compute::v1::Vm {
    use virtualstack_proto::virtualstack::compute::v1::{Vm, vm::State};
    Vm { name: id.name(), uid: id.to_string(), state: State::Deleted.into(), ..Default::default() }
}

fn failure(row: &operations::Operation) -> rpc::Status {
    rpc::Status {
        code: row.error_code.unwrap_or(Code::Unknown.into()),
        message: row.error_message.clone().unwrap_or_default(),
        details: vec![error_info(row.error_reason.as_deref().unwrap_or("UNKNOWN"))],
    }
}

fn error_info(reason: &str) -> prost_types::Any {
    wire::any(&rpc::ErrorInfo { reason: reason.to_owned(), domain: "virtualstack".to_owned(), ..Default::default() })
}

fn verb(verb: Verb) -> operation_metadata::Verb {
    match verb {
        Verb::Create | Verb::CreateSnapshot => operation_metadata::Verb::Create,
        Verb::Update => operation_metadata::Verb::Update,
        Verb::Delete | Verb::DeleteSnapshot => operation_metadata::Verb::Delete,
        Verb::Start => operation_metadata::Verb::Start,
        Verb::Stop => operation_metadata::Verb::Stop,
        Verb::Restart => operation_metadata::Verb::Restart,
        Verb::Reset => operation_metadata::Verb::Reset,
        Verb::Suspend => operation_metadata::Verb::Suspend,
        Verb::Undelete => operation_metadata::Verb::Undelete,
        Verb::RevertSnapshot => operation_metadata::Verb::Revert,
        Verb::OpenConsole => operation_metadata::Verb::OpenConsole,
    }
}
