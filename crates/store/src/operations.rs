//! Long-running operations: the tenant's view of work. Jobs are how it is done; this is what is told about it.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use virtualstack_model::id::{JobId, OperationId, TenantId, VmId};
use virtualstack_model::jobs::Job;
use virtualstack_model::operation::{OperationState, Verb};
use virtualstack_model::{Error, Result};

use crate::error::from_diesel;
use crate::page::Page;
use crate::schema::operations as table;
use crate::tx::{Due, Mode, TenantTx, Write};
use crate::vms::Vm;

/// An operation as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
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
}

/// How an operation ends.
#[derive(Clone, Debug)]
pub enum End {
    /// It worked. A VM that ceased to be leaves what it was.
    Succeeded(Option<Box<Vm>>),
    /// It did not.
    Failed(Failure),
    /// Somebody asked for it.
    Cancelled,
}

/// Why an operation failed, for the tenant.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// google.rpc.Code.
    pub code: i32,
    /// Stable reason.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A new operation on a VM; `state` is open, or done for what is done at once.
fn new(tx: &TenantTx<Write>, id: OperationId, verb: Verb, vm: VmId, state: OperationState) -> Operation {
    let now = Utc::now();
    let done = state.is_done();
    Operation {
        tenant_id: tx.tenant(),
        id,
        verb,
        state,
        vm_id: vm,
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
    }
}

async fn insert(tx: &mut TenantTx<Write>, operation: &Operation) -> Result<()> {
    diesel::insert_into(table::table).values(operation).execute(tx.connection()?).await.map_err(from_diesel)?;
    Ok(())
}

/// Starts an operation and the job that does it. The index of open operations refuses a second one of the same VM.
pub async fn start<J: Job>(
    tx: &mut TenantTx<Write>,
    id: OperationId,
    verb: Verb,
    vm: VmId,
    job: &J,
) -> Result<Operation> {
    let job_id = JobId::new();
    let operation = Operation { job_id: Some(job_id), ..new(tx, id, verb, vm, OperationState::Open) };
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
    let operation = Operation { job_id: Some(job_id), ..new(tx, id, Verb::Delete, vm, OperationState::Queued) };
    insert(tx, &operation).await?;
    tx.enqueue(job_id, job, Due::Held).await?;
    Ok(operation)
}

/// Records an operation that was done at once, and takes no slot.
pub async fn record_done(tx: &mut TenantTx<Write>, id: OperationId, verb: Verb, vm: VmId) -> Result<Operation> {
    let operation = new(tx, id, verb, vm, OperationState::Succeeded);
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
        .ok_or_else(|| Error::not_found("OPERATION_NOT_FOUND", id.name()))
}

/// Lists operations, newest first.
pub async fn list<M: Mode>(tx: &mut TenantTx<M>, page: &Page<OperationId>) -> Result<(Vec<Operation>, String)> {
    let tenant = tx.tenant();
    let mut query = table::table
        .filter(table::tenant_id.eq(tenant))
        .select(Operation::as_select())
        .order(table::id.desc())
        .limit(page.limit())
        .into_boxed();
    if let Some(after) = page.after {
        query = query.filter(table::id.lt(after));
    }
    let rows = query.load(tx.connection()?).await.map_err(from_diesel)?;
    page.cut(rows, |operation| operation.id)
}

/// Asks an operation to cancel; done ones stay as they are.
pub async fn cancel(tx: &mut TenantTx<Write>, id: OperationId) -> Result<()> {
    let operation = get(tx, id).await?;
    if operation.state.is_done() {
        return Ok(());
    }
    request_cancel(tx, &operation).await
}

async fn request_cancel(tx: &mut TenantTx<Write>, operation: &Operation) -> Result<()> {
    diesel::update(table::table.filter(table::tenant_id.eq(operation.tenant_id).and(table::id.eq(operation.id))))
        .set(table::cancel_requested.eq(true))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Removes a done operation from the list.
pub async fn remove(tx: &mut TenantTx<Write>, id: OperationId) -> Result<()> {
    let operation = get(tx, id).await?;
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
    Ok(())
}

/// Says how far an operation is.
pub async fn progress(tx: &mut TenantTx<Write>, id: OperationId, step: &str, percent: i32) -> Result<()> {
    let tenant = tx.tenant();
    diesel::update(table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id))))
        .set((
            table::step.eq(step),
            table::progress_percent.eq(percent),
            table::started_at.eq(diesel::dsl::sql::<diesel::sql_types::Nullable<diesel::sql_types::Timestamptz>>(
                "coalesce(started_at, now())",
            )),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Ends an operation, and lets a delete that waits behind it begin.
pub async fn end(tx: &mut TenantTx<Write>, id: OperationId, vm: VmId, end: &End) -> Result<()> {
    let tenant = tx.tenant();
    let (state, failure, tombstone) = match end {
        End::Succeeded(gone) => (OperationState::Succeeded, None, gone.as_ref()),
        End::Failed(failure) => (OperationState::Failed, Some(failure), None),
        End::Cancelled => (OperationState::Cancelled, None, None),
    };
    let tombstone = tombstone.map(serde_json::to_value).transpose().map_err(Error::internal)?;
    diesel::update(table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id))))
        .set((
            table::state.eq(state),
            table::error_code.eq(failure.map(|failure| failure.code)),
            table::error_reason.eq(failure.map(|failure| &failure.reason)),
            table::error_message.eq(failure.map(|failure| &failure.message)),
            table::tombstone.eq(tombstone),
            table::ended_at.eq(Utc::now()),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let queued: Option<Option<JobId>> = diesel::update(
        table::table
            .filter(table::tenant_id.eq(tenant).and(table::vm_id.eq(vm)).and(table::state.eq(OperationState::Queued))),
    )
    .set(table::state.eq(OperationState::Open))
    .returning(table::job_id.nullable())
    .get_result(tx.connection()?)
    .await
    .optional()
    .map_err(from_diesel)?;
    if let Some(job) = queued.flatten() {
        tx.release(job);
    }
    Ok(())
}
