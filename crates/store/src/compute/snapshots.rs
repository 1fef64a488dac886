//! Snapshots of virtual machines.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::json;
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::quota::Amounts;
use virtualstack_model::compute::snapshot::{SnapshotState, TIME_LIMIT};
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_model::log::Change;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};

use crate::compute::event::Event;
use crate::compute::quotas;
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::operations::NewOperation;
use crate::schema::snapshots as table;
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{Mode, TenantTx, Write, etag};

/// A snapshot as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = table)]
pub struct Snapshot {
    pub tenant_id: TenantId,
    pub id: SnapshotId,
    pub vm_id: VmId,
    pub display_name: String,
    pub description: String,
    pub state: SnapshotState,
    pub state_reason: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    pub creator: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl Snapshot {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// The full name.
    #[must_use]
    pub fn name(&self) -> String {
        self.id.name_in(self.vm_id)
    }

    fn changed(&self, event: &Event) -> Change {
        Change {
            state: self.state.as_str(),
            operation: event.operation,
            ..Change::of(self.name(), event.reason, event.message.clone(), json!({"state": self.state}))
        }
    }
}

/// An operation on a snapshot of a VM, which holds the VM.
#[must_use]
pub fn operation(id: OperationId, verb: Verb, vm: VmId, snapshot: SnapshotId) -> NewOperation {
    NewOperation { id, verb, target: snapshot.name_in(vm), slot: vm.name(), time_limit: TIME_LIMIT }
}

/// Reads a snapshot of a VM.
pub async fn get(reader: &mut impl TenantReader, vm: VmId, id: SnapshotId) -> Result<Snapshot> {
    let found = find(reader, id).await?.filter(|snapshot| snapshot.vm_id == vm);
    found.ok_or_else(|| Error::not_found("SNAPSHOT_NOT_FOUND", id.name_in(vm)))
}

/// Reads a snapshot that may be gone.
pub async fn find(reader: &mut impl TenantReader, id: SnapshotId) -> Result<Option<Snapshot>> {
    let tenant = reader.tenant();
    let one = move || table::table.find((tenant, id)).select(Snapshot::as_select());
    reader.find(one).await
}

/// Reads several snapshots at once; those that are gone are left out.
pub async fn get_many<M: Mode>(tx: &mut TenantTx<M>, ids: &[SnapshotId]) -> Result<Vec<Snapshot>> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq_any(ids)))
        .select(Snapshot::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// What filters and orders of snapshots may name.
const LISTING: Listing<table::table> = Listing {
    collection: SnapshotId::COLLECTION,
    id: Field::id("name", SnapshotId::COLLECTION, &table::id),
    fields: &[
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::text("description", &table::description).searched(),
        Field::words("state", SnapshotState::WORDS, &table::state).sorted(),
        Field::text("creator", &table::creator),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists the snapshots of a VM.
pub async fn list(reader: &mut impl TenantReader, vm: VmId, request: &ListRequest) -> Result<Listed<Snapshot>> {
    let tenant = reader.tenant();
    let of_vm = move || table::table.filter(table::tenant_id.eq(tenant).and(table::vm_id.eq(vm))).into_boxed();
    LISTING.read(reader, request, &vm.name(), of_vm).await
}

/// How many snapshots a VM has, those included that are being made or deleted.
pub async fn count<M: Mode>(tx: &mut TenantTx<M>, vm: VmId) -> Result<i64> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::vm_id.eq(vm)))
        .count()
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Puts a new snapshot in, within the quota.
pub async fn insert(tx: &mut TenantTx<Write>, snapshot: &Snapshot, operation: OperationId) -> Result<()> {
    diesel::insert_into(table::table).values(snapshot).execute(tx.connection()?).await.map_err(from_diesel)?;
    quotas::reserve(tx, &Amounts::SNAPSHOT).await?;
    let message = format!("Snapshot {} was requested", snapshot.display_name);
    tx.change(snapshot.changed(&Event { reason: "SNAPSHOT_CREATE_REQUESTED", message, operation: Some(operation) }));
    Ok(())
}

/// Writes a snapshot's state, with the change that says why. One that is gone stays so.
pub async fn update_state(
    tx: &mut TenantTx<Write>,
    id: SnapshotId,
    state: SnapshotState,
    state_reason: &str,
    event: &Event,
) -> Result<()> {
    let tenant = tx.tenant();
    let written: Option<Snapshot> =
        diesel::update(table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id))))
            .set((
                table::state.eq(state),
                table::state_reason.eq(state_reason),
                table::updated_at.eq(Utc::now()),
                table::version.eq(table::version + 1),
            ))
            .returning(Snapshot::as_returning())
            .get_result(tx.connection()?)
            .await
            .optional()
            .map_err(from_diesel)?;
    if let Some(snapshot) = written {
        tx.change(snapshot.changed(event));
    }
    Ok(())
}

/// Removes a snapshot, with the change that says why; what it was, unless it is gone already.
pub async fn remove(tx: &mut TenantTx<Write>, id: SnapshotId, event: &Event) -> Result<Option<Snapshot>> {
    let tenant = tx.tenant();
    let removed: Option<Snapshot> =
        diesel::delete(table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id))))
            .returning(Snapshot::as_returning())
            .get_result(tx.connection()?)
            .await
            .optional()
            .map_err(from_diesel)?;
    if let Some(snapshot) = &removed {
        quotas::adjust(tx, &Amounts::default().since(&Amounts::SNAPSHOT)).await?;
        tx.change(snapshot.changed(event));
    }
    Ok(removed)
}

/// Removes all snapshots of a VM that ceases to be.
pub(crate) async fn remove_all(tx: &mut TenantTx<Write>, vm: VmId) -> Result<()> {
    let of_vm = table::table.filter(table::tenant_id.eq(tx.tenant()).and(table::vm_id.eq(vm)));
    let removed = diesel::delete(of_vm).execute(tx.connection()?).await.map_err(from_diesel)?;
    let snapshots = -i64::try_from(removed).map_err(Error::internal)?;
    quotas::adjust(tx, &Amounts { snapshots, ..Amounts::default() }).await?;
    Ok(())
}
