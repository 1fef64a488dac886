//! google.longrunning.Operations: the tenant's view of work.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status};
use virtualstack_model::compute::console::ConsoleTicket;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::id::OperationId;
use virtualstack_model::operation::{OperationState, Verb};
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use virtualstack_proto::google::rpc;
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_proto::virtualstack::operations::v1::{OperationMetadata, operation_metadata};
use virtualstack_store::compute::console_tickets;
use virtualstack_store::compute::snapshots::{self, Snapshot};
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::{ListRequest, Listed, MasterKey, Mode, Store, TenantTx, operations};

use crate::call::caller::Caller;
use crate::call::status::from_error;
use crate::generated::google::longrunning::operations_server::Operations as Contract;
use crate::wire;
use crate::wire::vm::{snapshot_message, vm_message};

/// How long a wait lasts when its request does not say, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(300);

/// How often a wait looks: often at first, then ever less.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const SLOWEST_LOOK: Duration = Duration::from_secs(2);

/// What who is told a console's ticket must hold, still.
const CONSOLE: &str = "vm:console";

pub(crate) struct Operations {
    pub(crate) store: Store,
    /// What console tickets are sealed with.
    pub(crate) master_key: MasterKey,
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
                Ok((pack(tx, rows).await?, next_page_token))
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(ListOperationsResponse { operations, next_page_token, ..Default::default() }))
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        let caller = Caller::of(&request)?;
        let id = OperationId::parse("name", &request.get_ref().name).map_err(from_error)?;
        self.look(&caller, id).await.map(Response::new).map_err(from_error)
    }

    async fn wait_operation(&self, request: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        let caller = Caller::of(&request)?;
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
            let operation = self.look(&caller, id).await.map_err(from_error)?;
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
    /// Reads an operation for a caller, who may be the one to be told the ticket that it has got.
    async fn look(&self, caller: &Caller, id: OperationId) -> Result<Operation> {
        let (row, mut operation, ticket_waits) = self
            .store
            .read(&caller.tenant(), async |tx| {
                let row = operations::get(tx, id).await?;
                let ticket_waits = row.verb == Verb::OpenConsole && console_tickets::waits(tx, id).await?;
                let operation = pack(tx, vec![row.clone()]).await?.pop();
                Ok((row, operation.ok_or_else(|| Error::internal("an operation was not packed"))?, ticket_waits))
            })
            .await?;
        let asked = row.actor == caller.tenant().actor().name();
        if ticket_waits && row.state == OperationState::Succeeded && asked && caller.holds(CONSOLE) {
            let audit = caller.audit(row.vm_id.name());
            let taken =
                self.store.write(&caller.tenant(), audit, async |tx| console_tickets::take(tx, id).await).await?;
            if let Some((sealed, _)) = taken {
                let opened = self.master_key.open(&console_tickets::purpose(id), &sealed)?;
                let ticket: ConsoleTicket = serde_json::from_slice(&opened).map_err(Error::internal)?;
                operation.result = Some(Outcome::Response(wire::any(&ticket_message(row.vm_id, ticket))));
            }
        }
        Ok(operation)
    }
}

/// The ticket for a caller.
fn ticket_message(vm: VmId, ticket: ConsoleTicket) -> proto::ConsoleTicket {
    let ConsoleTicket { url, ticket, protocol, expires_at } = ticket;
    proto::ConsoleTicket { vm: vm.name(), url, ticket, protocol, expire_time: Some(wire::time(expires_at)) }
}

/// Reads an operation with its target as it is now.
pub(crate) async fn read<M: Mode>(tx: &mut TenantTx<M>, id: OperationId) -> Result<Operation> {
    let row = operations::get(tx, id).await?;
    pack(tx, vec![row]).await?.pop().ok_or_else(|| Error::internal("an operation was not packed"))
}

/// Packs operations with their targets as they are now, which are read at once.
pub(crate) async fn pack<M: Mode>(tx: &mut TenantTx<M>, rows: Vec<operations::Operation>) -> Result<Vec<Operation>> {
    let done = || rows.iter().filter(|row| row.state == OperationState::Succeeded);
    let of_vms: Vec<_> = done().filter(|row| row.snapshot_id.is_none()).map(|row| row.vm_id).collect();
    let of_snapshots: Vec<_> = done().filter_map(|row| row.snapshot_id).collect();
    let vms = if of_vms.is_empty() { Vec::new() } else { vms::get_many(tx, &of_vms).await? };
    let snapshots = if of_snapshots.is_empty() { Vec::new() } else { snapshots::get_many(tx, &of_snapshots).await? };
    let target = |row: &operations::Operation| match row.snapshot_id {
        Some(id) => snapshots.iter().find(|snapshot| snapshot.id == id).cloned().map(Target::Snapshot),
        None => vms.iter().find(|vm| vm.id == row.vm_id).cloned().map(|vm| Target::Vm(Box::new(vm))),
    };
    Ok(rows
        .into_iter()
        .map(|row| {
            let target = target(&row);
            message(row, target)
        })
        .collect())
}

/// What an operation has worked on.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Vm(Box<Vm>),
    Snapshot(Snapshot),
}

/// Packs an operation. Its response is the target as it is now, or as it was when it ceased to be.
pub(crate) fn message(row: operations::Operation, target: Option<Target>) -> Operation {
    let result = match row.state {
        OperationState::Open | OperationState::Queued => None,
        OperationState::Succeeded => Some(Outcome::Response(response(&row, target))),
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

/// What an operation that worked gives. What a later one has removed leaves its id.
fn response(row: &operations::Operation, target: Option<Target>) -> prost_types::Any {
    if row.verb == Verb::OpenConsole {
        return wire::any(&proto::ConsoleTicket { vm: row.vm_id.name(), ..Default::default() });
    }
    let tombstone = || row.tombstone.clone();
    match (target, row.snapshot_id) {
        (Some(Target::Vm(vm)), _) => wire::any(&vm_message(*vm)),
        (Some(Target::Snapshot(snapshot)), _) => wire::any(&snapshot_message(snapshot)),
        (None, None) => {
            let was = tombstone().and_then(|was| serde_json::from_value(was).ok());
            wire::any(&was.map_or_else(|| gone(row.vm_id), vm_message))
        }
        (None, Some(id)) => {
            let was = tombstone().and_then(|was| serde_json::from_value(was).ok());
            let gone = || proto::Snapshot { name: row.target(), uid: id.to_string(), ..Default::default() };
            wire::any(&was.map_or_else(gone, snapshot_message))
        }
    }
}

fn gone(id: VmId) -> proto::Vm {
    let state = proto::vm::State::Deleted.into();
    proto::Vm { name: id.name(), uid: id.to_string(), state, ..Default::default() }
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

/// What an operation does, as clients see it.
pub(crate) fn verb(verb: Verb) -> operation_metadata::Verb {
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
