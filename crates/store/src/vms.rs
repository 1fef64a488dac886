//! Virtual machines.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_model::audit::Change;
use virtualstack_model::id::{OperationId, TemplateId, TenantId, UserId, VmId};
use virtualstack_model::vm::{PowerState, VmState};
use virtualstack_model::{Error, Result};

use crate::error::from_diesel;
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::virtual_machines as table;
use crate::tx::{Mode, SystemTx, TenantTx, Write};

/// A VM as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = table)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct Vm {
    pub tenant_id: TenantId,
    pub id: VmId,
    pub display_name: String,
    pub description: String,
    pub state: VmState,
    pub state_reason: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    pub disk_gib: i32,
    pub template_id: TemplateId,
    pub template_reference: String,
    pub template_display_name: String,
    pub guest_os: String,
    pub ip_addresses: Vec<String>,
    pub labels: Value,
    pub owner_id: UserId,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub observed_at: Option<DateTime<Utc>>,
    pub observed_power_state: Option<PowerState>,
    pub deleted_at: Option<DateTime<Utc>>,
    pub purge_at: Option<DateTime<Utc>>,
    pub version: i64,
}

impl Vm {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    /// Refuses a change that was made for an older VM. An empty etag asks for no such check.
    pub fn check_etag(&self, etag: &str) -> Result<()> {
        if etag.is_empty() || etag == self.etag() {
            return Ok(());
        }
        Err(Error::aborted("ETAG_MISMATCH", "etag: the VM has changed since it was read"))
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        serde_json::from_value(self.labels.clone()).unwrap_or_default()
    }
}

/// A VM that is not there.
fn missing(id: VmId) -> Error {
    Error::not_found("VM_NOT_FOUND", id.name())
}

/// Reads a VM.
pub async fn get<M: Mode>(tx: &mut TenantTx<M>, id: VmId) -> Result<Vm> {
    find(tx, id).await?.ok_or_else(|| missing(id))
}

/// Reads a VM that may be gone.
pub async fn find<M: Mode>(tx: &mut TenantTx<M>, id: VmId) -> Result<Option<Vm>> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq(id)))
        .select(Vm::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Reads a VM and locks it until the end of the transaction.
pub async fn lock(tx: &mut TenantTx<Write>, id: VmId) -> Result<Vm> {
    find_locked(tx, id).await?.ok_or_else(|| missing(id))
}

/// Reads and locks a VM that may be gone.
pub async fn find_locked(tx: &mut TenantTx<Write>, id: VmId) -> Result<Option<Vm>> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq(id)))
        .select(Vm::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Reads several VMs at once; those that are gone are left out.
pub async fn get_many<M: Mode>(tx: &mut TenantTx<M>, ids: &[VmId]) -> Result<Vec<Vm>> {
    let tenant = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::id.eq_any(ids)))
        .select(Vm::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// What filters and orders of VMs may name.
const LISTING: Listing<table::table> = Listing {
    collection: VmId::COLLECTION,
    id: Field::id("name", VmId::COLLECTION, &table::id),
    fields: &[
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::text("description", &table::description).searched(),
        Field::words("state", VmState::WORDS, &table::state).sorted(),
        Field::int32("cpuCount", &table::cpu_count).sorted(),
        Field::int32("memoryMib", &table::memory_mib).sorted(),
        Field::int32("diskGib", &table::disk_gib).sorted(),
        Field::id("template", TemplateId::COLLECTION, &table::template_id),
        Field::text("templateDisplayName", &table::template_display_name),
        Field::text("guestOs", &table::guest_os),
        Field::list("ipAddresses", &table::ip_addresses),
        Field::map("labels", &table::labels),
        Field::id("owner", UserId::COLLECTION, &table::owner_id),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
        Field::time("observeTime", &table::observed_at).sorted(),
        Field::words("observedPowerState", PowerState::WORDS, &table::observed_power_state),
        Field::time("deleteTime", &table::deleted_at).sorted(),
        Field::time("purgeTime", &table::purge_at).sorted(),
    ],
};

/// Lists VMs.
pub async fn list<M: Mode>(tx: &mut TenantTx<M>, request: &ListRequest, show_deleted: bool) -> Result<Listed<Vm>> {
    let tenant = tx.tenant();
    let variant = if show_deleted { "showDeleted" } else { "" };
    let base = || {
        let vms = table::table.filter(table::tenant_id.eq(tenant)).into_boxed();
        if show_deleted { vms } else { vms.filter(table::deleted_at.is_null()) }
    };
    LISTING.read(tx, request, variant, base).await
}

/// Puts a new VM in, with the change that says so.
pub async fn insert(tx: &mut TenantTx<Write>, vm: &Vm, operation: OperationId) -> Result<()> {
    diesel::insert_into(table::table).values(vm).execute(tx.connection()?).await.map_err(from_diesel)?;
    tx.change(Change {
        resource: vm.id.name(),
        reason: "VM_CREATE_REQUESTED",
        message: format!("Creation from template {} was requested", vm.template_display_name),
        state: vm.state.as_str(),
        operation: Some(operation),
        fields: json!({"displayName": vm.display_name, "cpuCount": vm.cpu_count, "memoryMib": vm.memory_mib, "diskGib": vm.disk_gib}),
    });
    Ok(())
}

/// What happened to a VM, as its change row says it.
#[derive(Clone, Debug)]
pub struct Event {
    /// A stable word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
}

/// What a workflow writes of a VM. Fields that are none stay as they are.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// New state.
    pub state: Option<VmState>,
    /// Why; kept only with the state it came with.
    pub state_reason: String,
    /// Power state and addresses, as just observed.
    pub observed: Option<(PowerState, Vec<String>)>,
    /// Set when it is soft-deleted: the time of its purge.
    pub purge_at: Option<DateTime<Utc>>,
}

/// Writes a VM's state, with the change that says why.
pub async fn update_state(tx: &mut TenantTx<Write>, vm: &mut Vm, update: Update, event: Event) -> Result<()> {
    let before = vm.state;
    let now = Utc::now();
    if let Some(state) = update.state {
        vm.state = state;
        vm.state_reason = update.state_reason;
    }
    if let Some((power, addresses)) = update.observed {
        vm.observed_power_state = Some(power);
        vm.ip_addresses = addresses;
        vm.observed_at = Some(now);
    }
    if let Some(purge_at) = update.purge_at {
        vm.deleted_at.get_or_insert(now);
        vm.purge_at = Some(purge_at);
    }
    vm.updated_at = now;
    vm.version += 1;
    diesel::update(table::table.filter(table::tenant_id.eq(vm.tenant_id).and(table::id.eq(vm.id))))
        .set((
            table::state.eq(vm.state),
            table::state_reason.eq(&vm.state_reason),
            table::observed_power_state.eq(vm.observed_power_state),
            table::ip_addresses.eq(&vm.ip_addresses),
            table::observed_at.eq(vm.observed_at),
            table::deleted_at.eq(vm.deleted_at),
            table::purge_at.eq(vm.purge_at),
            table::updated_at.eq(vm.updated_at),
            table::version.eq(vm.version),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    tx.change(Change {
        resource: vm.id.name(),
        reason: event.reason,
        message: event.message,
        state: vm.state.as_str(),
        operation: event.operation,
        fields: json!({"state": [before, vm.state]}),
    });
    Ok(())
}

/// Writes what a tenant may change at once: display name, description, labels.
pub async fn update_metadata(tx: &mut TenantTx<Write>, before: &Vm, vm: &mut Vm, operation: OperationId) -> Result<()> {
    vm.updated_at = Utc::now();
    vm.version += 1;
    diesel::update(table::table.filter(table::tenant_id.eq(vm.tenant_id).and(table::id.eq(vm.id))))
        .set((
            table::display_name.eq(&vm.display_name),
            table::description.eq(&vm.description),
            table::labels.eq(&vm.labels),
            table::updated_at.eq(vm.updated_at),
            table::version.eq(vm.version),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let mut fields = serde_json::Map::new();
    for (field, old, new) in [
        ("displayName", json!(before.display_name), json!(vm.display_name)),
        ("description", json!(before.description), json!(vm.description)),
        ("labels", before.labels.clone(), vm.labels.clone()),
    ] {
        if old != new {
            fields.insert(field.to_owned(), json!([old, new]));
        }
    }
    tx.change(Change {
        resource: vm.id.name(),
        reason: "VM_UPDATED",
        message: format!("Changed: {}", fields.keys().cloned().collect::<Vec<_>>().join(", ")),
        state: vm.state.as_str(),
        operation: Some(operation),
        fields: fields.into(),
    });
    Ok(())
}

/// Removes a VM, with the change that says why.
pub async fn remove(tx: &mut TenantTx<Write>, vm: &Vm, event: Event) -> Result<()> {
    diesel::delete(table::table.filter(table::tenant_id.eq(vm.tenant_id).and(table::id.eq(vm.id))))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    tx.change(Change {
        resource: vm.id.name(),
        reason: event.reason,
        message: event.message,
        state: VmState::Deleted.as_str(),
        operation: event.operation,
        fields: json!({"state": [vm.state, null]}),
    });
    Ok(())
}

/// Deleted VMs whose purge is due, across tenants.
pub async fn purgeable(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, VmId)>> {
    let rows: Vec<(Uuid, Uuid)> = table::table
        .filter(table::purge_at.le(Utc::now()).and(table::state.eq(VmState::Deleted)))
        .order(table::purge_at)
        .limit(limit)
        .select((table::tenant_id, table::id))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(rows.into_iter().map(|(tenant, vm)| (TenantId(tenant), VmId(vm))).collect())
}

/// VMs of a tenant that nobody is deleting yet.
pub async fn of_tenant(tx: &mut SystemTx, tenant: TenantId, limit: i64) -> Result<Vec<VmId>> {
    table::table
        .filter(table::tenant_id.eq(tenant).and(table::state.ne(VmState::Deleting)))
        .limit(limit)
        .select(table::id)
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Whether a tenant has any VM left.
pub async fn any_of_tenant(tx: &mut SystemTx, tenant: TenantId) -> Result<bool> {
    let left = table::table.filter(table::tenant_id.eq(tenant));
    diesel::select(diesel::dsl::exists(left)).get_result(tx.connection()?).await.map_err(from_diesel)
}
