//! google.longrunning.Operations: the tenant's view of work.

use std::collections::HashMap;
use std::time::Duration;

use prost_types::Any;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use virtualstack_model::id::{OperationId, full_name};
use virtualstack_model::operation::{OperationState, Verb};
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use virtualstack_proto::google::rpc;
use virtualstack_proto::virtualstack::operations::v1::{OperationMetadata, operation_metadata};
use virtualstack_proto::virtualstack::watch::v1::watch_message::Resource;
use virtualstack_store::operations::FileFault;
use virtualstack_store::{Ending, Listed, MasterKey, Mode, Read, Store, TenantTx, Write, operations};

use crate::call::TenantCall;
use crate::call::list::{List as _, page};
use crate::call::message::{any, time};
use crate::call::write::Mutation;
use crate::generated::google::longrunning::Operations as Contract;
use crate::services::registry::TARGETS;
use crate::services::target::Target;
use crate::services::watched::Packed;
use crate::shares::Places;

/// How long a wait lasts when its request does not say, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(300);

/// How often a wait reads: often at first, then ever less.
const FIRST_READ: Duration = Duration::from_millis(100);
const SLOWEST_READ: Duration = Duration::from_secs(2);

pub(crate) struct Operations {
    pub(crate) store: Store,
    /// What console tickets are sealed with.
    pub(crate) master_key: MasterKey,
    /// A wait lasts, so a member has only so many.
    pub(crate) waits: Places,
    /// Waits would outlast any drain, so they end when it begins.
    pub(crate) stopping: CancellationToken,
}

impl Contract for Operations {
    async fn list_operations(&self, call: TenantCall<ListOperationsRequest>) -> Result<ListOperationsResponse> {
        let request = call.request.list();
        // The vendored request has no rules of its own.
        if request.page_size < 0 {
            return Err(Error::invalid("page_size", "must not be negative"));
        }
        let read = async |tx: &mut TenantTx<Read>| {
            let Listed { rows, next_page_token, total_size } = operations::list(tx, &request).await?;
            Ok(Listed { rows: pack(tx, rows).await?, next_page_token, total_size })
        };
        let listed = self.store.read(&call.tenant(), read).await?;
        Ok(page(listed, |operation| operation))
    }

    async fn get_operation(&self, call: TenantCall<GetOperationRequest>) -> Result<Operation> {
        let id = OperationId::parse("name", &call.request.name)?;
        self.poll(&call, id).await
    }

    async fn wait_operation(&self, call: TenantCall<WaitOperationRequest>) -> Result<Operation> {
        let id = OperationId::parse("name", &call.request.name)?;
        let timeout = match call.request.timeout {
            None => DEFAULT_WAIT,
            Some(timeout) => Duration::try_from(timeout)
                .map_err(|_| Error::invalid("timeout", "must not be negative"))?
                .min(MAX_WAIT),
        };
        let _place = self.waits.of_member(call.tenant_id(), call.user())?;
        let end = Instant::now() + timeout;
        let mut pause = FIRST_READ;
        loop {
            let operation = self.poll(&call, id).await?;
            if operation.done || Instant::now() >= end {
                return Ok(operation);
            }
            tokio::select! {
                // Whoever waits is told how it stands, and goes on with another server.
                () = self.stopping.cancelled() => return self.poll(&call, id).await,
                () = sleep(pause.min(end.saturating_duration_since(Instant::now()))) => {}
            }
            pause = (pause * 3 / 2).min(SLOWEST_READ);
        }
    }

    async fn cancel_operation(&self, call: TenantCall<CancelOperationRequest>) -> Result<()> {
        let id = OperationId::parse("name", &call.request.name)?;
        let cancel = async |tx: &mut TenantTx<Write>| operations::cancel(tx, id).await;
        call.write(&self.store, id.name(), cancel).await
    }

    async fn delete_operation(&self, call: TenantCall<DeleteOperationRequest>) -> Result<()> {
        let id = OperationId::parse("name", &call.request.name)?;
        let remove = async |tx: &mut TenantTx<Write>| operations::remove(tx, id).await;
        call.write(&self.store, id.name(), remove).await
    }
}

impl Operations {
    /// Reads an operation for a caller, who may be the one to be told the ticket that it has got.
    async fn poll<R: Mutation>(&self, call: &TenantCall<R>, id: OperationId) -> Result<Operation> {
        let (row, mut operation, waits) = self
            .store
            .read(&call.tenant(), async |tx| {
                let row = operations::get(tx, id).await?;
                let waits = match &TARGETS[kind_of(&row)?].once {
                    Some(once) => (once.waits)(tx, id).await?,
                    None => false,
                };
                let operation = pack_one(tx, row.clone()).await?;
                Ok((row, operation, waits))
            })
            .await?;
        let asked = row.actor == call.actor().name();
        if let Some(once) = &TARGETS[kind_of(&row)?].once
            && waits
            && row.state == OperationState::Succeeded
            && asked
            && call.holds(once.permission)
        {
            let audit = call.audit(row.target.clone());
            let take = async |tx: &mut TenantTx<Write>| (once.take)(tx, &self.master_key, id, &row.target).await;
            if let Some(answer) = self.store.write(&call.tenant(), audit, Ending::Commit, take).await? {
                operation.result = Some(Outcome::Response(answer));
            }
        }
        Ok(operation)
    }
}

/// Where the target of an operation stands in [`TARGETS`].
fn kind_of(operation: &operations::Operation) -> Result<usize> {
    let fits = |kind: &Target| {
        kind.verb.is_none_or(|verb| verb == operation.verb) && full_name(&[kind.names], &operation.target).is_some()
    };
    TARGETS.iter().position(fits).ok_or_else(|| Error::internal(format!("nothing packs {}", operation.target)))
}

/// Reads an operation with its target as it is now.
pub(crate) async fn read<M: Mode>(tx: &mut TenantTx<M>, id: OperationId) -> Result<Operation> {
    let row = operations::get(tx, id).await?;
    pack_one(tx, row).await
}

/// Packs an operation with its target as it is now.
pub(crate) async fn pack_one<M: Mode>(tx: &mut TenantTx<M>, row: operations::Operation) -> Result<Operation> {
    pack(tx, vec![row]).await?.pop().ok_or_else(|| Error::internal("an operation was not packed"))
}

/// Packs operations with their targets as they are now, which are read at once.
pub(crate) async fn pack<M: Mode>(tx: &mut TenantTx<M>, rows: Vec<operations::Operation>) -> Result<Vec<Operation>> {
    let mut lent = tx.lend();
    let packed = pack_in(&mut lent, rows).await;
    tx.take_back(lent);
    packed
}

async fn pack_in(tx: &mut TenantTx<Read>, rows: Vec<operations::Operation>) -> Result<Vec<Operation>> {
    let targets: Vec<_> = rows.iter().map(kind_of).collect::<Result<_>>()?;
    let mut there = HashMap::new();
    for (index, kind) in TARGETS.iter().enumerate() {
        let of_kind = rows
            .iter()
            .zip(&targets)
            .filter(|(row, target)| **target == index && row.state == OperationState::Succeeded);
        let names: Vec<_> = of_kind.map(|(row, _)| row.target.clone()).collect();
        if !names.is_empty() {
            let found = (kind.read)(tx, names).await?;
            there.extend(found.into_iter().map(|(name, packed)| ((index, name), packed)));
        }
    }
    let packed = rows.into_iter().zip(targets).map(|(row, target)| {
        let now = there.get(&(target, row.target.clone())).cloned();
        let response = now.unwrap_or_else(|| (TARGETS[target].last)(&row.target, row.tombstone.clone()));
        message(row, response)
    });
    Ok(packed.collect())
}

impl Packed for operations::Operation {
    /// With their targets as they are now.
    async fn pack(tx: &mut TenantTx<Read>, rows: Vec<Self>) -> Result<Vec<Resource>> {
        Ok(pack_in(tx, rows).await?.into_iter().map(Resource::Operation).collect())
    }
}

/// Packs an operation. Where it worked, it has a response: the target as it is now, or as it was when it ceased to be.
fn message(row: operations::Operation, response: Any) -> Operation {
    let result = match row.state {
        OperationState::Open | OperationState::Queued => None,
        OperationState::Succeeded => Some(Outcome::Response(response)),
        OperationState::Failed => Some(Outcome::Error(failure(&row))),
        OperationState::Cancelled => Some(Outcome::Error(rpc::Status {
            code: Code::Cancelled.into(),
            message: "the operation was cancelled".to_owned(),
            details: vec![error_info("CANCELLED")],
        })),
    };
    let metadata = OperationMetadata {
        target: row.target,
        verb: verb(row.verb).into(),
        step: row.step,
        progress_percent: row.progress_percent,
        create_time: Some(time(row.created_at)),
        start_time: row.started_at.map(time),
        end_time: row.ended_at.map(time),
        cancel_requested: row.cancel_requested,
        plan: None,
        deadline: Some(time(row.deadline_at)),
    };
    Operation { name: row.id.name(), metadata: Some(any(&metadata)), done: row.state.is_done(), result }
}

fn failure(row: &operations::Operation) -> rpc::Status {
    let reason = row.error_reason.as_deref().unwrap_or("UNKNOWN");
    let faults = row.faults();
    let mut details = vec![match faults.first() {
        Some(first) => {
            let FileFault { check, file, place, expected, found, .. } = first.clone();
            let told = [("check", check), ("file", file), ("offset", place), ("expected", expected), ("found", found)];
            let metadata = told.map(|(what, text)| (what.to_owned(), text)).into_iter().collect();
            any(&rpc::ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), metadata })
        }
        None => error_info(reason),
    }];
    if !faults.is_empty() {
        let field_violations = faults.into_iter().map(|fault| rpc::bad_request::FieldViolation {
            field: fault.file,
            description: fault.message,
            reason: fault.check,
            ..Default::default()
        });
        details.push(any(&rpc::BadRequest { field_violations: field_violations.collect() }));
    }
    rpc::Status {
        code: row.error_code.unwrap_or(Code::Unknown.into()),
        message: row.error_message.clone().unwrap_or_default(),
        details,
    }
}

/// Domain of the reasons in ErrorInfo.
const DOMAIN: &str = "virtualstack";

fn error_info(reason: &str) -> prost_types::Any {
    any(&rpc::ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), ..Default::default() })
}

/// What an operation does, as clients see it.
pub(crate) fn verb(verb: Verb) -> operation_metadata::Verb {
    match verb {
        Verb::Create => operation_metadata::Verb::Create,
        Verb::Update => operation_metadata::Verb::Update,
        Verb::Delete => operation_metadata::Verb::Delete,
        Verb::Start => operation_metadata::Verb::Start,
        Verb::Stop => operation_metadata::Verb::Stop,
        Verb::Restart => operation_metadata::Verb::Restart,
        Verb::Reset => operation_metadata::Verb::Reset,
        Verb::Suspend => operation_metadata::Verb::Suspend,
        Verb::Undelete => operation_metadata::Verb::Undelete,
        Verb::Revert => operation_metadata::Verb::Revert,
        Verb::OpenConsole => operation_metadata::Verb::OpenConsole,
        Verb::Import => operation_metadata::Verb::Import,
    }
}
