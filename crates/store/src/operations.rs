//! Long-running operations: the tenant's view of work. Jobs are how it is done; this is what is told about it.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AsChangeset, QueryFragment};
use diesel::sql_types::{Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::id::{JobId, OperationId, TenantId};
use virtualstack_model::jobs::Job;
use virtualstack_model::log::{Change, ChangeKind};
use virtualstack_model::operation::{OperationState, Verb};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, Kind, ListRequest, Listed, Listing};
use crate::schema::operations as table;
use crate::tx::error::from_diesel;
use crate::tx::{Due, Mode, TenantTx, Write};

/// An operation as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = table)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct Operation {
    pub tenant_id: TenantId,
    pub id: OperationId,
    pub verb: Verb,
    pub state: OperationState,
    pub vm_id: VmId,
    pub job_id: Option<JobId>,
    pub step: String,
    pub progress_percent: i32,
    pub cancel_requested: bool,
    pub error_code: Option<i32>,
    pub error_reason: Option<String>,
    pub error_message: Option<String>,
    pub tombstone: Option<Value>,
    pub actor: String,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub snapshot_id: Option<SnapshotId>,
    pub deadline_at: DateTime<Utc>,
    /// Rows of the change log from before have it not.
    #[serde(default)]
    pub grace_from: Option<DateTime<Utc>>,
}

impl Operation {
    /// Full name of what it works on.
    #[must_use]
    pub fn target(&self) -> String {
        match self.snapshot_id {
            Some(snapshot) => snapshot.name_in(self.vm_id),
            None => self.vm_id.name(),
        }
    }
}

/// What an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    vm: VmId,
    snapshot: Option<SnapshotId>,
}

impl From<VmId> for Target {
    fn from(vm: VmId) -> Self {
        Self { vm, snapshot: None }
    }
}

impl From<(VmId, SnapshotId)> for Target {
    fn from((vm, snapshot): (VmId, SnapshotId)) -> Self {
        Self { vm, snapshot: Some(snapshot) }
    }
}

/// How an operation ends.
#[derive(Clone, Debug)]
pub enum End {
    /// It worked. A VM or snapshot that ceased to be leaves what it was.
    Succeeded(Option<Tombstone>),
    /// It did not.
    Failed(Failure),
    /// Somebody asked for it.
    Cancelled,
}

/// What something was when it ceased to be.
#[derive(Clone, Debug)]
pub struct Tombstone(Value);

impl Tombstone {
    /// Of a VM or a snapshot, as it was.
    pub fn of(was: &impl Serialize) -> Result<Self> {
        serde_json::to_value(was).map(Self).map_err(Error::internal)
    }
}

/// Why an operation failed, for the tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// google.rpc.Code.
    pub code: i32,
    /// Stable reason.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A new operation on a VM; `state` is open, or done for what is done at once.
fn new(tx: &TenantTx<Write>, id: OperationId, verb: Verb, target: Target, state: OperationState) -> Operation {
    let now = Utc::now();
    let done = state.is_done();
    Operation {
        tenant_id: tx.tenant(),
        id,
        verb,
        state,
        vm_id: target.vm,
        job_id: None,
        step: String::new(),
        progress_percent: if done { 100 } else { 0 },
        cancel_requested: false,
        error_code: None,
        error_reason: None,
        error_message: None,
        tombstone: None,
        actor: tx.actor(),
        created_at: now,
        started_at: done.then_some(now),
        ended_at: done.then_some(now),
        snapshot_id: target.snapshot,
        deadline_at: now + verb.time_limit(),
        grace_from: None,
    }
}

async fn insert(tx: &mut TenantTx<Write>, operation: &Operation) -> Result<()> {
    diesel::insert_into(table::table).values(operation).execute(tx.connection()?).await.map_err(from_diesel)?;
    tell(tx, operation, ChangeKind::Created, "OPERATION_STARTED")
}

/// Appends to the change log what became of an operation. The audit log tells of what it works on instead.
fn tell(tx: &mut TenantTx<Write>, operation: &Operation, kind: ChangeKind, reason: &'static str) -> Result<()> {
    let after = serde_json::to_value(operation).map_err(Error::internal)?;
    tx.change(Change {
        state: operation.state.as_str(),
        operation: Some(operation.id),
        watched: Some((kind, after)),
        ..Change::of(operation.id.name(), reason, "", Value::Null)
    });
    Ok(())
}

/// Writes what has changed of an operation, if it is still there.
async fn update<C>(tx: &mut TenantTx<Write>, id: OperationId, changes: C, reason: &'static str) -> Result<()>
where
    C: AsChangeset<Target = table::table, Changeset: QueryFragment<Pg> + Send> + Send,
{
    let tenant = tx.tenant();
    let written: Option<Operation> =
        diesel::update(table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id))))
            .set(changes)
            .returning(Operation::as_returning())
            .get_result(tx.connection()?)
            .await
            .optional()
            .map_err(from_diesel)?;
    written.map_or(Ok(()), |operation| tell(tx, &operation, ChangeKind::Updated, reason))
}

/// Starts an operation and the job that does it. The index of open operations refuses a second one of the same VM.
pub async fn start<J: Job>(
    tx: &mut TenantTx<Write>,
    id: OperationId,
    verb: Verb,
    target: impl Into<Target>,
    job: &J,
) -> Result<Operation> {
    let job_id = JobId::new();
    let operation = Operation { job_id: Some(job_id), ..new(tx, id, verb, target.into(), OperationState::Open) };
    insert(tx, &operation).await?;
    tx.enqueue(job_id, job, Due::Now).await?;
    Ok(operation)
}

/// Starts a delete. Behind another open operation it waits, and asks that one to cancel.
pub async fn start_delete<J: Job>(tx: &mut TenantTx<Write>, id: OperationId, vm: VmId, job: &J) -> Result<Operation> {
    let tenant = tx.tenant();
    let open = table::table
        .filter(table::tenant_id.eq(tenant).and(table::vm_id.eq(vm)).and(table::state.eq(OperationState::Open)))
        .select(Operation::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(open) = open else { return start(tx, id, Verb::Delete, vm, job).await };
    if open.verb == Verb::Delete {
        return Err(Error::aborted("DELETE_IN_PROGRESS", "the VM is being deleted already"));
    }
    request_cancel(tx, &open).await?;
    let job_id = JobId::new();
    let operation = Operation { job_id: Some(job_id), ..new(tx, id, Verb::Delete, vm.into(), OperationState::Queued) };
    insert(tx, &operation).await?;
    tx.enqueue(job_id, job, Due::Held).await?;
    Ok(operation)
}

/// Records an operation that was done at once, and takes no slot.
pub async fn record_done(tx: &mut TenantTx<Write>, id: OperationId, verb: Verb, vm: VmId) -> Result<Operation> {
    let operation = new(tx, id, verb, vm.into(), OperationState::Succeeded);
    insert(tx, &operation).await?;
    Ok(operation)
}

/// Reads an operation.
pub async fn get<M: Mode>(tx: &mut TenantTx<M>, id: OperationId) -> Result<Operation> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq(id)))
        .select(Operation::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| missing(id))
}

/// Whether somebody has asked an operation to cancel. Who does so now waits until this transaction has ended.
pub async fn is_cancelled(tx: &mut TenantTx<Write>, id: OperationId) -> Result<bool> {
    Ok(lock(tx, id).await?.cancel_requested)
}

/// Reads an operation and locks it until the end of the transaction.
async fn lock(tx: &mut TenantTx<Write>, id: OperationId) -> Result<Operation> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq(id)))
        .select(Operation::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| missing(id))
}

fn missing(id: OperationId) -> Error {
    Error::not_found("OPERATION_NOT_FOUND", id.name())
}

/// What filters of operations may name. Verbs, results and what is done are told in words of the contract.
const LISTING: Listing<table::table> = Listing {
    collection: OperationId::COLLECTION,
    id: Field::id("name", OperationId::COLLECTION, &table::id),
    fields: &[
        Field::sql("done", Kind::Bool, "state NOT IN ('OPEN', 'QUEUED')"),
        Field::sql("metadata.target", Kind::Path(&[("vms", "vm_id"), ("snapshots", "snapshot_id")]), "vm_id"),
        Field::sql(
            "metadata.verb",
            Kind::Words(&[
                "CREATE",
                "UPDATE",
                "DELETE",
                "START",
                "STOP",
                "RESTART",
                "RESET",
                "SUSPEND",
                "UNDELETE",
                "REVERT",
                "OPEN_CONSOLE",
            ]),
            "regexp_replace(verb, '_SNAPSHOT$', '')",
        ),
        Field::text("metadata.step", &table::step),
        Field::int32("metadata.progressPercent", &table::progress_percent),
        Field::time("metadata.createTime", &table::created_at),
        Field::time("metadata.startTime", &table::started_at),
        Field::time("metadata.endTime", &table::ended_at),
        Field::bool("metadata.cancelRequested", &table::cancel_requested),
        Field::time("metadata.deadline", &table::deadline_at),
        // As google.rpc.Code has them: cancelled is 1, unknown 2.
        Field::sql(
            "error.code",
            Kind::Number,
            "coalesce(error_code, CASE state WHEN 'CANCELLED' THEN 1 WHEN 'FAILED' THEN 2 END)",
        ),
    ],
};

/// Lists operations, newest first.
pub async fn list<M: Mode>(tx: &mut TenantTx<M>, request: &ListRequest) -> Result<Listed<Operation>> {
    let tenant = tx.tenant();
    LISTING.read(tx, request, "", || table::table.filter(table::tenant_id.eq(tenant)).into_boxed()).await
}

/// Asks an operation to cancel; done ones stay as they are.
pub async fn cancel(tx: &mut TenantTx<Write>, id: OperationId) -> Result<()> {
    let operation = lock(tx, id).await?;
    if operation.state.is_done() {
        return Ok(());
    }
    request_cancel(tx, &operation).await
}

/// Its job need not wait for its next try. On the way back it does: that is where a cancel would lead, and a call of before
/// may still have to arrive.
async fn request_cancel(tx: &mut TenantTx<Write>, operation: &Operation) -> Result<()> {
    let waits =
        operation.state == OperationState::Open && !operation.cancel_requested && operation.grace_from.is_none();
    operation.job_id.filter(|_| waits).into_iter().for_each(|job| tx.release(job));
    update(tx, operation.id, table::cancel_requested.eq(true), "OPERATION_CANCEL_REQUESTED").await
}

/// Removes a done operation from the list.
pub async fn remove(tx: &mut TenantTx<Write>, id: OperationId) -> Result<()> {
    let operation = lock(tx, id).await?;
    if !operation.state.is_done() {
        return Err(Error::precondition(
            "OPERATION_IN_PROGRESS",
            id.name(),
            "an operation that is not done cannot be deleted; cancel it",
        ));
    }
    diesel::delete(table::table.filter(table::tenant_id.eq(operation.tenant_id).and(table::id.eq(id))))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    tell(tx, &operation, ChangeKind::Deleted, "OPERATION_DELETED")
}

/// Says how far an operation is.
pub async fn progress(tx: &mut TenantTx<Write>, id: OperationId, step: &str, percent: i32) -> Result<()> {
    let started = sql::<Nullable<Timestamptz>>("coalesce(started_at, now())");
    let changes = (table::step.eq(step), table::progress_percent.eq(percent), table::started_at.eq(started));
    update(tx, id, changes, "OPERATION_PROGRESS").await
}

/// Notes that its extra time begins: that of the way back, or again where no worker was there to use it.
pub async fn begin_grace(tx: &mut TenantTx<Write>, id: OperationId) -> Result<()> {
    let mine = table::tenant_id.eq(tx.tenant()).and(table::id.eq(id));
    let noted = diesel::update(table::table.filter(mine)).set(table::grace_from.eq(Utc::now()));
    noted.execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}

/// Ends an operation, and lets a delete that waits behind it begin.
pub async fn end(tx: &mut TenantTx<Write>, id: OperationId, vm: VmId, end: &End) -> Result<()> {
    let tenant = tx.tenant();
    let ended = table::ended_at.eq(Utc::now());
    match end {
        End::Succeeded(tombstone) => {
            let changes = (
                table::state.eq(OperationState::Succeeded),
                table::step.eq("done"),
                table::progress_percent.eq(100),
                table::tombstone.eq(tombstone.as_ref().map(|Tombstone(was)| was)),
                ended,
            );
            update(tx, id, changes, "OPERATION_SUCCEEDED").await?;
        }
        End::Failed(failure) => {
            let changes = (
                table::state.eq(OperationState::Failed),
                table::error_code.eq(failure.code),
                table::error_reason.eq(&failure.reason),
                table::error_message.eq(&failure.message),
                ended,
            );
            update(tx, id, changes, "OPERATION_FAILED").await?;
        }
        End::Cancelled => {
            update(tx, id, (table::state.eq(OperationState::Cancelled), ended), "OPERATION_CANCELLED").await?;
        }
    }
    let queued: Option<Operation> = diesel::update(
        table::table
            .filter(table::tenant_id.eq(tenant).and(table::vm_id.eq(vm)).and(table::state.eq(OperationState::Queued))),
    )
    // Its time begins now: it could do nothing before.
    .set((table::state.eq(OperationState::Open), table::deadline_at.eq(Utc::now() + Verb::Delete.time_limit())))
    .returning(Operation::as_returning())
    .get_result(tx.connection()?)
    .await
    .optional()
    .map_err(from_diesel)?;
    if let Some(queued) = queued {
        queued.job_id.into_iter().for_each(|job| tx.release(job));
        tell(tx, &queued, ChangeKind::Updated, "OPERATION_BEGUN")?;
    }
    Ok(())
}
