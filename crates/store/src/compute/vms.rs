//! Virtual machines.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::dsl;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_model::compute::id::{TemplateId, VmId};
use virtualstack_model::compute::quota::Amounts;
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::{PowerState, Size, VmState, time_limit};
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::{OperationId, TenantId, UserId};
use virtualstack_model::log::{Change, ChangeKind, changed_fields};
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};

use crate::changes::events::{self, RecordedEvent};
use crate::changes::watch::Watched;
use crate::compute::event::Event;
use crate::compute::{quotas, snapshots};
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::operations::NewOperation;
use crate::schema::{changes, virtual_machines as table};
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{Mode, SystemTx, TenantTx, Write, etag};

/// A VM as it is kept.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset, Serialize, Deserialize)]
#[diesel(table_name = table, primary_key(tenant_id, id), treat_none_as_null = true)]
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
    pub template_kind: TemplateKind,
    pub hypervisor: String,
    #[serde(alias = "wanted_cpu_count")]
    pub desired_cpu_count: Option<i32>,
    #[serde(alias = "wanted_memory_mib")]
    pub desired_memory_mib: Option<i32>,
    #[serde(alias = "wanted_disk_gib")]
    pub desired_disk_gib: Option<i32>,
    #[serde(alias = "occupies")]
    pub counted: bool,
    /// Sizes of all disks but the first together.
    #[serde(default)]
    pub further_disk_gib: i32,
}

impl Vm {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// Its size.
    #[must_use]
    pub const fn size(&self) -> Size {
        Size { cpu_count: self.cpu_count, memory_mib: self.memory_mib, disk_gib: self.disk_gib }
    }

    /// The size that it is to have: its own, but for what an open operation changes.
    #[must_use]
    pub fn desired_size(&self) -> Size {
        Size {
            cpu_count: self.desired_cpu_count.unwrap_or(self.cpu_count),
            memory_mib: self.desired_memory_mib.unwrap_or(self.memory_mib),
            disk_gib: self.desired_disk_gib.unwrap_or(self.disk_gib),
        }
    }

    /// What it counts for in the quota: while its size changes, the larger one; once it is deleted, its disk; and where
    /// nothing of it is on the hypervisor, nothing.
    #[must_use]
    pub fn quota_usage(&self) -> Amounts {
        if !self.counted {
            return Amounts::default();
        }
        let (size, desired) = (self.size(), self.desired_size());
        let disk_gib = i64::from(size.disk_gib.max(desired.disk_gib)) + i64::from(self.further_disk_gib);
        if self.deleted_at.is_some() {
            return Amounts { disk_gib, ..Amounts::default() };
        }
        Amounts {
            vms: 1,
            vcpus: size.cpu_count.max(desired.cpu_count).into(),
            memory_mib: size.memory_mib.max(desired.memory_mib).into(),
            disk_gib,
            ..Amounts::default()
        }
    }

    /// Whether it was looked for on the hypervisor last, and not found.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.observed_at.is_some() && self.observed_power_state.is_none()
    }

    /// The change row of an event, with the VM as it is after it.
    fn changed(&self, event: Event, kind: ChangeKind, fields: Value) -> Result<Change> {
        Ok(Change {
            resource: self.id.name(),
            reason: event.reason,
            message: event.message,
            state: self.state.as_str(),
            operation: event.operation,
            fields,
            watched: Some((kind, serde_json::to_value(self).map_err(Error::internal)?)),
        })
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        serde_json::from_value(self.labels.clone()).unwrap_or_default()
    }
}

/// An operation on a VM.
#[must_use]
pub fn operation(id: OperationId, verb: Verb, vm: VmId) -> NewOperation {
    NewOperation { id, verb, target: vm.name(), slot: vm.name(), time_limit: time_limit(verb) }
}

impl Watched for Vm {
    const COLLECTION: &'static str = VmId::COLLECTION;

    fn uuid(&self) -> Uuid {
        self.id.0
    }

    /// Deleted ones too, until they are purged.
    async fn page<M: Mode>(tx: &mut TenantTx<M>, _: &Access, after: Uuid, limit: i64) -> Result<Vec<Self>> {
        let tenant = tx.tenant();
        table::table
            .filter(table::tenant_id.eq(tenant).and(table::id.gt(VmId(after))))
            .order(table::id)
            .limit(limit)
            .select(Self::as_select())
            .load(tx.connection()?)
            .await
            .map_err(from_diesel)
    }
}

/// A VM that is not there.
fn missing(id: VmId) -> Error {
    Error::not_found("VM_NOT_FOUND", id.name())
}

/// Reads a VM.
pub async fn get(reader: &mut impl TenantReader, id: VmId) -> Result<Vm> {
    find(reader, id).await?.ok_or_else(|| missing(id))
}

/// Reads a VM that may be gone.
pub async fn find(reader: &mut impl TenantReader, id: VmId) -> Result<Option<Vm>> {
    let tenant = reader.tenant();
    let one = move || table::table.find((tenant, id)).select(Vm::as_select());
    reader.find(one).await
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
pub async fn list(reader: &mut impl TenantReader, request: &ListRequest, show_deleted: bool) -> Result<Listed<Vm>> {
    let tenant = reader.tenant();
    let variant = if show_deleted { "showDeleted" } else { "" };
    let base = move || {
        let vms = table::table.filter(table::tenant_id.eq(tenant)).into_boxed();
        if show_deleted { vms } else { vms.filter(table::deleted_at.is_null()) }
    };
    LISTING.read(reader, request, variant, base).await
}

/// What filters and orders of a VM's events may name.
const EVENTS: Listing<changes::table> = Listing {
    collection: "events",
    id: Field::int64("", &changes::position),
    fields: &events::fields(Field::words("state", VmState::WORDS, &changes::state)),
};

/// Lists what happened to a VM, newest first.
pub async fn list_events(
    reader: &mut impl TenantReader,
    request: &ListRequest,
    vm: VmId,
) -> Result<Listed<RecordedEvent>> {
    events::list(reader, &EVENTS, request, "resource LIKE 'vms/%'", &vm.name()).await
}

/// Puts a new VM in, within the quota, with the change that says so.
pub async fn insert(tx: &mut TenantTx<Write>, vm: &Vm, operation: OperationId) -> Result<()> {
    diesel::insert_into(table::table).values(vm).execute(tx.connection()?).await.map_err(from_diesel)?;
    quotas::reserve(tx, &vm.quota_usage()).await?;
    let message = format!("Creation from template {} was requested", vm.template_display_name);
    let event = Event { reason: "VM_CREATE_REQUESTED", message, operation: Some(operation) };
    let fields = json!({"displayName": vm.display_name, "cpuCount": vm.cpu_count, "memoryMib": vm.memory_mib, "diskGib": vm.disk_gib});
    let change = vm.changed(event, ChangeKind::Created, fields)?;
    tx.change(change);
    Ok(())
}

/// What an operation or a workflow writes of a VM. Fields that are none stay as they are.
#[derive(Clone, Debug, Default)]
pub struct Update {
    pub state: Option<VmState>,
    /// Why; kept only with the state it came with.
    pub state_reason: String,
    /// Power state and addresses, as just observed. A VM that was looked for and not found has no power state.
    pub observed: Option<(Option<PowerState>, Vec<String>)>,
    /// Its size, as just observed: it is what an operation has made of it.
    pub size: Option<Size>,
    /// Set when it is soft-deleted: the time of its purge.
    pub purge_at: Option<DateTime<Utc>>,
}

/// Writes a VM's state, with the change that says why.
pub async fn update_state(tx: &mut TenantTx<Write>, vm: &mut Vm, update: Update, event: Event) -> Result<()> {
    let before = vm.clone();
    let now = Utc::now();
    if let Some(state) = update.state {
        vm.state = state;
        vm.state_reason = update.state_reason;
    }
    if let Some((power, addresses)) = update.observed {
        vm.observed_power_state = power;
        vm.ip_addresses = addresses;
        vm.observed_at = Some(now);
    }
    if let Some(size) = update.size {
        (vm.cpu_count, vm.memory_mib, vm.disk_gib) = (size.cpu_count, size.memory_mib, size.disk_gib);
        (vm.desired_cpu_count, vm.desired_memory_mib, vm.desired_disk_gib) = (None, None, None);
    }
    if let Some(purge_at) = update.purge_at {
        vm.deleted_at.get_or_insert(now);
        vm.purge_at = Some(purge_at);
    }
    let mut fields = changed_fields([
        ("cpuCount", json!(before.cpu_count), json!(vm.cpu_count)),
        ("memoryMib", json!(before.memory_mib), json!(vm.memory_mib)),
        ("diskGib", json!(before.disk_gib), json!(vm.disk_gib)),
    ]);
    fields.insert("state".to_owned(), json!([before.state, vm.state]));
    save(tx, &before, vm).await?;
    let by = vm.quota_usage().since(&before.quota_usage());
    quotas::adjust(tx, &by).await?;
    let change = vm.changed(event, ChangeKind::Updated, fields.into())?;
    tx.change(change);
    Ok(())
}

/// Writes what a tenant may change at once: display name, description, labels.
pub async fn update_metadata(tx: &mut TenantTx<Write>, before: &Vm, vm: &mut Vm, operation: OperationId) -> Result<()> {
    let fields = changed_fields([
        ("displayName", json!(before.display_name), json!(vm.display_name)),
        ("description", json!(before.description), json!(vm.description)),
        ("labels", before.labels.clone(), vm.labels.clone()),
    ]);
    save(tx, before, vm).await?;
    let message = format!("Changed: {}", fields.keys().cloned().collect::<Vec<_>>().join(", "));
    let event = Event { reason: "VM_UPDATED", message, operation: Some(operation) };
    let change = vm.changed(event, ChangeKind::Updated, fields.into())?;
    tx.change(change);
    Ok(())
}

/// Says what size an operation is to give a VM, within the quota.
pub async fn set_desired_size(
    tx: &mut TenantTx<Write>,
    vm: &mut Vm,
    state: VmState,
    size: Size,
    event: Event,
) -> Result<()> {
    let before = vm.clone();
    vm.state = state;
    vm.state_reason.clear();
    vm.desired_cpu_count = Some(size.cpu_count);
    vm.desired_memory_mib = Some(size.memory_mib);
    vm.desired_disk_gib = Some(size.disk_gib);
    save(tx, &before, vm).await?;
    quotas::reserve(tx, &vm.quota_usage().since(&before.quota_usage())).await?;
    let change = vm.changed(event, ChangeKind::Updated, json!({"desired": [before.desired_size(), size]}))?;
    tx.change(change);
    Ok(())
}

/// Takes back a delete, within the quota.
pub async fn undelete(tx: &mut TenantTx<Write>, vm: &mut Vm, state: VmState, operation: OperationId) -> Result<()> {
    let before = vm.clone();
    vm.state = state;
    vm.state_reason.clear();
    vm.deleted_at = None;
    vm.purge_at = None;
    save(tx, &before, vm).await?;
    quotas::reserve(tx, &vm.quota_usage().since(&before.quota_usage())).await?;
    let message = "The delete was taken back".to_owned();
    let event = Event { reason: "VM_UNDELETED", message, operation: Some(operation) };
    let change = vm.changed(event, ChangeKind::Updated, json!({"state": [before.state, vm.state]}))?;
    tx.change(change);
    Ok(())
}

async fn save(tx: &mut TenantTx<Write>, before: &Vm, vm: &mut Vm) -> Result<()> {
    // Clocks differ, and the order of a VM's changes is that of its row.
    vm.updated_at = Utc::now().max(before.updated_at);
    vm.version = before.version + 1;
    diesel::update(table::table.filter(table::tenant_id.eq(vm.tenant_id).and(table::id.eq(vm.id))))
        .set(&*vm)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Removes a VM and its snapshots, with the change that says why.
pub async fn remove(tx: &mut TenantTx<Write>, vm: &Vm, event: Event) -> Result<()> {
    snapshots::remove_all(tx, vm.id).await?;
    // What it holds is what the row says, not what the caller has made of it.
    let removed: Option<Vm> =
        diesel::delete(table::table.filter(table::tenant_id.eq(vm.tenant_id).and(table::id.eq(vm.id))))
            .returning(Vm::as_returning())
            .get_result(tx.connection()?)
            .await
            .optional()
            .map_err(from_diesel)?;
    let Some(removed) = removed else { return Ok(()) };
    quotas::adjust(tx, &Amounts::default().since(&removed.quota_usage())).await?;
    let last = Vm { state: VmState::Deleted, version: removed.version + 1, ..removed };
    let change = last.changed(event, ChangeKind::Deleted, json!({"state": [vm.state, null]}))?;
    tx.change(change);
    Ok(())
}

/// Deleted VMs whose purge is due, across tenants.
pub async fn purgeable(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, VmId)>> {
    let rows: Vec<(Uuid, Uuid)> = table::table
        .filter(table::purge_at.le(dsl::now).and(table::state.eq(VmState::Deleted)))
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
