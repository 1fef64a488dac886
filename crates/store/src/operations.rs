//! Long-running operations: the tenant's view of work. Jobs are how it is done; this is what is told about it.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::{case_when, now, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AsChangeset, QueryFragment};
use diesel::sql_types::{Bool, Interval, Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::{JobId, OperationId, TenantId};
use virtualstack_model::jobs::OperationJob;
use virtualstack_model::log::{Change, ChangeKind};
use virtualstack_model::operation::{OperationState, Verb};
use virtualstack_model::{Error, Result};

use crate::changes::watch::Watched;
use crate::listing::{Field, Kind, ListRequest, Listed, Listing};
use crate::schema::operations as table;
use crate::targets;
use crate::tx::error::{delete_in_progress, from_diesel};
use crate::tx::reader::TenantReader;
use crate::tx::{Due, Mode, TenantTx, Write};

/// An operation as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = table)]
#[serde(remote = "Self")]
pub struct Operation {
    pub tenant_id: TenantId,
    pub id: OperationId,
    pub verb: Verb,
    pub state: OperationState,
    /// Full name of what it works on.
    pub target: String,
    /// What only one open operation may hold.
    pub slot: Option<String>,
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
    pub deadline_at: DateTime<Utc>,
    /// Older rows of the change log do not have it.
    #[serde(default)]
    pub grace_from: Option<DateTime<Utc>>,
    #[serde(default)]
    pub error_details: Option<Value>,
}

impl Operation {
    /// What exactly is wrong, of a failure that has several faults.
    #[must_use]
    pub fn faults(&self) -> Vec<FileFault> {
        self.error_details.clone().and_then(|details| serde_json::from_value(details).ok()).unwrap_or_default()
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Change rows of releases before 2026-11-28 have the ids of a VM and a snapshot for a target.
impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut row = Value::deserialize(deserializer)?;
        if row.get("target").is_none()
            && let Some(vm) = row["vm_id"].as_str()
        {
            let snapshot = row["snapshot_id"].as_str().map(|id| format!("/snapshots/{id}")).unwrap_or_default();
            row["target"] = format!("vms/{vm}{snapshot}").into();
        }
        Self::deserialize(row).map_err(D::Error::custom)
    }
}

/// An operation to start.
#[derive(Clone, Debug)]
pub struct NewOperation {
    pub id: OperationId,
    /// What it does to its target.
    pub verb: Verb,
    /// Full name of what it works on.
    pub target: String,
    /// What only one open operation may hold: the name of what must not be worked on twice at once.
    pub slot: String,
    /// How long it may take.
    pub time_limit: TimeDelta,
}

/// How an operation ends.
#[derive(Clone, Debug)]
pub enum End {
    /// It worked. A VM or snapshot that ceased to be leaves what it was.
    Succeeded(Option<Tombstone>),
    Failed(Failure),
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
    pub code: i32,
    pub reason: String,
    pub message: String,
    /// What exactly is wrong, for what has several faults, the first of them first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FileFault>,
}

/// Something that is wrong with a file, for the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFault {
    /// What was checked, as a stable word.
    pub check: String,
    /// The file in the archive; empty for the archive itself.
    pub file: String,
    /// Where: a byte of the upload, or a line of the descriptor.
    pub place: String,
    pub expected: String,
    pub found: String,
    /// All of it in a sentence, and what to do.
    pub message: String,
}

/// Puts an operation in, open, waiting, or done at once, which holds no slot. Its times are by the database's clock.
async fn insert(
    tx: &mut TenantTx<Write>,
    new: NewOperation,
    state: OperationState,
    job_id: Option<JobId>,
) -> Result<Operation> {
    let done = state.is_done();
    let begins = now.into_sql::<Timestamptz>();
    let at_once = || case_when(done.into_sql::<Bool>(), begins);
    let values = (
        table::tenant_id.eq(tx.tenant()),
        table::id.eq(new.id),
        table::verb.eq(new.verb),
        table::state.eq(state),
        table::target.eq(new.target),
        table::slot.eq(Some(new.slot).filter(|_| !done)),
        table::job_id.eq(job_id),
        table::progress_percent.eq(if done { 100 } else { 0 }),
        table::actor.eq(tx.actor()),
        table::created_at.eq(begins),
        table::started_at.eq(at_once()),
        table::ended_at.eq(at_once()),
        table::deadline_at.eq(begins + new.time_limit.into_sql::<Interval>()),
    );
    let operation: Operation = diesel::insert_into(table::table)
        .values(values)
        .returning(Operation::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    record(tx, &operation, ChangeKind::Created, "OPERATION_STARTED")?;
    Ok(operation)
}

/// Appends to the change log what became of an operation. The audit log has what it works on instead.
fn record(tx: &mut TenantTx<Write>, operation: &Operation, kind: ChangeKind, reason: &'static str) -> Result<()> {
    let after = serde_json::to_value(operation).map_err(Error::internal)?;
    tx.change(Change {
        state: operation.state.as_str(),
        operation: Some(operation.id),
        watched: Some((kind, after)),
        ..Change::of(operation.id.name(), reason, "", Value::Null)
    });
    Ok(())
}

/// Writes what has changed of an operation that is there and not done; the operation as it is then. What has ended stays as
/// it ended, also when an operator tries its job again.
async fn update<C>(
    tx: &mut TenantTx<Write>,
    id: OperationId,
    changes: C,
    reason: &'static str,
) -> Result<Option<Operation>>
where
    C: AsChangeset<Target = table::table, Changeset: QueryFragment<Pg> + Send> + Send,
{
    let tenant = tx.tenant();
    let written: Option<Operation> = diesel::update(
        table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id))).filter(table::state.eq_any(UNDONE)),
    )
    .set(changes)
    .returning(Operation::as_returning())
    .get_result(tx.connection()?)
    .await
    .optional()
    .map_err(from_diesel)?;
    if let Some(operation) = &written {
        record(tx, operation, ChangeKind::Updated, reason)?;
    }
    Ok(written)
}

/// Starts an operation and the job that does it. The index of open operations refuses a second one that holds its slot.
pub async fn start<J: OperationJob>(tx: &mut TenantTx<Write>, new: NewOperation, job: &J) -> Result<Operation> {
    start_in(tx, OperationState::Open, new, job).await
}

async fn start_in<J: OperationJob>(
    tx: &mut TenantTx<Write>,
    state: OperationState,
    new: NewOperation,
    job: &J,
) -> Result<Operation> {
    let job_id = JobId::new();
    let operation = insert(tx, new, state, Some(job_id)).await?;
    tx.enqueue(job_id, job, if state == OperationState::Queued { Due::Held } else { Due::Now }).await?;
    Ok(operation)
}

/// Starts a delete. Behind another open operation that holds its slot it waits, and asks that one to cancel.
pub async fn start_delete<J: OperationJob>(tx: &mut TenantTx<Write>, new: NewOperation, job: &J) -> Result<Operation> {
    let tenant = tx.tenant();
    let open = table::table
        .filter(table::tenant_id.eq(tenant).and(table::slot.eq(&new.slot)).and(table::state.eq(OperationState::Open)))
        .select(Operation::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(open) = open else { return start(tx, new, job).await };
    // What works on something below, e.g. on a snapshot of a VM, is none of it.
    if open.verb == Verb::Delete && open.target == new.target {
        return Err(delete_in_progress());
    }
    request_cancel(tx, &open).await?;
    start_in(tx, OperationState::Queued, new, job).await
}

/// Records an operation that was done at once, and holds no slot.
pub async fn record_done(tx: &mut TenantTx<Write>, new: NewOperation) -> Result<Operation> {
    insert(tx, new, OperationState::Succeeded, None).await
}

/// Reads an operation.
pub async fn get(reader: &mut impl TenantReader, id: OperationId) -> Result<Operation> {
    let tenant = reader.tenant();
    let one = move || table::table.find((tenant, id)).select(Operation::as_select());
    reader.find(one).await?.ok_or_else(|| missing(id))
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

/// Those that are not done.
const UNDONE: [OperationState; 2] = [OperationState::Open, OperationState::Queued];

/// The open operation that holds the slot of another one.
pub async fn holder<M: Mode>(tx: &mut TenantTx<M>, of: &Operation) -> Result<Option<OperationId>> {
    let Some(slot) = &of.slot else { return Ok(None) };
    table::table
        .filter(table::tenant_id.eq(of.tenant_id).and(table::slot.eq(slot)))
        .filter(table::state.eq(OperationState::Open).and(table::id.ne(of.id)))
        .select(table::id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

fn missing(id: OperationId) -> Error {
    Error::not_found("OPERATION_NOT_FOUND", id.name())
}

/// What filters of operations may name. Results and what is done are said in words of the contract.
const LISTING: Listing<table::table> = Listing {
    collection: OperationId::COLLECTION,
    id: Field::id("name", OperationId::COLLECTION, &table::id),
    fields: &[
        Field::sql("done", Kind::Bool, "state NOT IN ('OPEN', 'QUEUED')"),
        Field::path("metadata.target", targets::NAMES, &table::target),
        Field::words("metadata.verb", Verb::WORDS, &table::verb),
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
pub async fn list(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Operation>> {
    let tenant = reader.tenant();
    LISTING.read(reader, request, "", move || table::table.filter(table::tenant_id.eq(tenant)).into_boxed()).await
}

/// Asks an operation to cancel; done ones stay as they are.
pub async fn cancel(tx: &mut TenantTx<Write>, id: OperationId) -> Result<()> {
    let operation = lock(tx, id).await?;
    if operation.state.is_done() {
        return Ok(());
    }
    request_cancel(tx, &operation).await
}

/// Asks an operation to cancel, and makes its waiting job due. The job of a rollback keeps waiting: a cancel would lead
/// there anyway, and a call that was sent before may still arrive.
async fn request_cancel(tx: &mut TenantTx<Write>, operation: &Operation) -> Result<()> {
    let waits =
        operation.state == OperationState::Open && !operation.cancel_requested && operation.grace_from.is_none();
    operation.job_id.filter(|_| waits).into_iter().for_each(|job| tx.release(job));
    update(tx, operation.id, table::cancel_requested.eq(true), "OPERATION_CANCEL_REQUESTED").await.map(|_| ())
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
    record(tx, &operation, ChangeKind::Deleted, "OPERATION_DELETED")
}

/// Says how far an operation is.
pub async fn progress(tx: &mut TenantTx<Write>, id: OperationId, step: &str, percent: i32) -> Result<()> {
    let started = sql::<Nullable<Timestamptz>>("coalesce(started_at, now())");
    let changes = (table::step.eq(step), table::progress_percent.eq(percent), table::started_at.eq(started));
    update(tx, id, changes, "OPERATION_PROGRESS").await.map(|_| ())
}

/// Begins the grace of an operation: when its rollback begins, and again when no worker was there to use it.
pub async fn begin_grace(tx: &mut TenantTx<Write>, id: OperationId) -> Result<()> {
    let mine = table::tenant_id.eq(tx.tenant()).and(table::id.eq(id));
    let noted = diesel::update(table::table.filter(mine)).set(table::grace_from.eq(now));
    noted.execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}

/// Ends an operation, and lets a delete that waits for its slot begin.
pub async fn end(tx: &mut TenantTx<Write>, id: OperationId, end: &End) -> Result<()> {
    let tenant = tx.tenant();
    let ended = table::ended_at.eq(now);
    let written = match end {
        End::Succeeded(tombstone) => {
            let changes = (
                table::state.eq(OperationState::Succeeded),
                table::step.eq("done"),
                table::progress_percent.eq(100),
                table::tombstone.eq(tombstone.as_ref().map(|Tombstone(was)| was)),
                ended,
            );
            update(tx, id, changes, "OPERATION_SUCCEEDED").await?
        }
        End::Failed(failure) => {
            let changes = (
                table::state.eq(OperationState::Failed),
                table::error_code.eq(failure.code),
                table::error_reason.eq(&failure.reason),
                table::error_message.eq(&failure.message),
                table::error_details.eq(details(failure)?),
                ended,
            );
            update(tx, id, changes, "OPERATION_FAILED").await?
        }
        End::Cancelled => {
            update(tx, id, (table::state.eq(OperationState::Cancelled), ended), "OPERATION_CANCELLED").await?
        }
    };
    let Some(slot) = written.and_then(|operation| operation.slot) else { return Ok(()) };
    let queued: Option<Operation> = diesel::update(
        table::table
            .filter(table::tenant_id.eq(tenant).and(table::slot.eq(slot)).and(table::state.eq(OperationState::Queued))),
    )
    // Its time begins now, as long as it was from its beginning: it could do nothing before.
    .set((table::state.eq(OperationState::Open), table::deadline_at.eq(sql::<Timestamptz>(RESTARTED))))
    .returning(Operation::as_returning())
    .get_result(tx.connection()?)
    .await
    .optional()
    .map_err(from_diesel)?;
    if let Some(queued) = queued {
        queued.job_id.into_iter().for_each(|job| tx.release(job));
        record(tx, &queued, ChangeKind::Updated, "OPERATION_BEGUN")?;
    }
    Ok(())
}

fn details(failure: &Failure) -> Result<Option<Value>> {
    let faults = Some(&failure.faults).filter(|faults| !faults.is_empty());
    faults.map(serde_json::to_value).transpose().map_err(Error::internal)
}

/// The deadline of an operation that begins now.
const RESTARTED: &str = "now() + (deadline_at - created_at)";

impl Watched for Operation {
    const COLLECTION: &'static str = OperationId::COLLECTION;

    fn uuid(&self) -> Uuid {
        self.id.0
    }

    /// Those that are not done yet.
    async fn page<M: Mode>(tx: &mut TenantTx<M>, _: &Access, after: Uuid, limit: i64) -> Result<Vec<Self>> {
        let tenant = tx.tenant();
        table::table
            .filter(table::tenant_id.eq(tenant).and(table::id.gt(OperationId(after))))
            .filter(table::state.eq_any(UNDONE))
            .order(table::id)
            .limit(limit)
            .select(Self::as_select())
            .load(tx.connection()?)
            .await
            .map_err(from_diesel)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn change_rows_of_before_targets_are_read() {
        let id = "0199a000-0000-7000-8000-000000000001";
        let kept = |verb: &str, snapshot: Value| {
            json!({
                "tenant_id": id, "id": id, "verb": verb, "state": "OPEN", "vm_id": id, "job_id": id, "step": "",
                "progress_percent": 0, "cancel_requested": false, "error_code": null, "error_reason": null,
                "error_message": null, "tombstone": null, "actor": "system", "created_at": "2026-11-27T00:00:00Z",
                "started_at": null, "ended_at": null, "snapshot_id": snapshot, "deadline_at": "2026-11-27T02:00:00Z"
            })
        };
        let read = |row| serde_json::from_value::<Operation>(row).expect("an operation");
        let of_vm = read(kept("STOP", Value::Null));
        assert_eq!((of_vm.verb, of_vm.target.as_str()), (Verb::Stop, &*format!("vms/{id}")));
        let of_snapshot = read(kept("DELETE_SNAPSHOT", id.into()));
        assert_eq!((of_snapshot.verb, of_snapshot.target), (Verb::Delete, format!("vms/{id}/snapshots/{id}")));

        let written = serde_json::to_value(Operation { slot: Some("vms/x".to_owned()), ..of_vm }).expect("JSON");
        assert_eq!(serde_json::to_value(read(written.clone())).expect("JSON"), written);
    }
}
