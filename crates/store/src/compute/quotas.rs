//! Quotas: the row of a tenant says what it may have and what it has.
//!
//! Nothing outside of the store moves a counter. The functions that write VMs and snapshots do, in the same commit, by what
//! the rows hold after that more or less than before: so what was reserved is given back on every way out.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;
use virtualstack_model::compute::quota::{Amounts, Limits};
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Audit, Change, changed_fields};
use virtualstack_model::{Error, Result};

use crate::schema::quotas as table;
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{SystemTx, TenantTx, Write, etag};

/// What a tenant may have and has.
#[derive(Clone, Debug)]
pub struct Quota {
    pub tenant_id: TenantId,
    pub limits: Limits,
    pub usage: Amounts,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl Quota {
    /// Full name of a tenant's quota.
    #[must_use]
    pub fn name(tenant: TenantId) -> String {
        format!("{}/quota", tenant.name())
    }

    /// Changes with each change of a limit.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = table)]
struct Row {
    tenant_id: TenantId,
    max_vms: Option<i64>,
    max_vcpus: Option<i64>,
    max_memory_mib: Option<i64>,
    max_disk_gib: Option<i64>,
    max_snapshots: Option<i64>,
    max_templates: Option<i64>,
    max_template_bytes: Option<i64>,
    vms: i64,
    vcpus: i64,
    memory_mib: i64,
    disk_gib: i64,
    snapshots: i64,
    templates: i64,
    template_bytes: i64,
    updated_at: DateTime<Utc>,
    version: i64,
}

impl From<Row> for Quota {
    fn from(row: Row) -> Self {
        Self {
            tenant_id: row.tenant_id,
            limits: Limits {
                vms: row.max_vms,
                vcpus: row.max_vcpus,
                memory_mib: row.max_memory_mib,
                disk_gib: row.max_disk_gib,
                snapshots: row.max_snapshots,
                templates: row.max_templates,
                template_bytes: row.max_template_bytes,
            },
            usage: Amounts {
                vms: row.vms,
                vcpus: row.vcpus,
                memory_mib: row.memory_mib,
                disk_gib: row.disk_gib,
                snapshots: row.snapshots,
                templates: row.templates,
                template_bytes: row.template_bytes,
            },
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

/// Gives a new tenant its quota.
pub(crate) async fn create(tx: &mut SystemTx, tenant: TenantId, limits: &Limits) -> Result<()> {
    diesel::insert_into(table::table)
        .values((table::tenant_id.eq(tenant), Maxima::from(*limits)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Limits as they are kept.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = table, treat_none_as_null = true)]
struct Maxima {
    max_vms: Option<i64>,
    max_vcpus: Option<i64>,
    max_memory_mib: Option<i64>,
    max_disk_gib: Option<i64>,
    max_snapshots: Option<i64>,
    max_templates: Option<i64>,
    max_template_bytes: Option<i64>,
}

impl From<Limits> for Maxima {
    fn from(limits: Limits) -> Self {
        Self {
            max_vms: limits.vms,
            max_vcpus: limits.vcpus,
            max_memory_mib: limits.memory_mib,
            max_disk_gib: limits.disk_gib,
            max_snapshots: limits.snapshots,
            max_templates: limits.templates,
            max_template_bytes: limits.template_bytes,
        }
    }
}

/// Reads the tenant's quota.
pub async fn get(reader: &mut impl TenantReader) -> Result<Quota> {
    let tenant = reader.tenant();
    let row: Option<Row> = reader.find(move || table::table.find(tenant).select(Row::as_select())).await?;
    there(tenant, row)
}

/// Reads any tenant's quota.
pub async fn get_any(tx: &mut SystemTx, tenant: TenantId) -> Result<Quota> {
    let row = table::table.find(tenant).select(Row::as_select());
    there(tenant, row.first(tx.connection()?).await.optional().map_err(from_diesel)?)
}

/// Reads any tenant's quota and locks it until the end of the transaction.
pub async fn lock(tx: &mut SystemTx, tenant: TenantId) -> Result<Quota> {
    let row = table::table.find(tenant).select(Row::as_select()).for_update();
    there(tenant, row.first(tx.connection()?).await.optional().map_err(from_diesel)?)
}

/// A tenant that was purged meanwhile has none.
fn there(tenant: TenantId, row: Option<Row>) -> Result<Quota> {
    row.map(Quota::from).ok_or_else(|| Error::not_found("TENANT_NOT_FOUND", tenant.name()))
}

/// Sets the limits of a tenant, and writes its logs. What is used already stays.
pub async fn set_limits(tx: &mut SystemTx, audit: &Audit, before: &Quota, limits: Limits) -> Result<Quota> {
    let tenant = before.tenant_id;
    let row: Row = diesel::update(table::table.find(tenant))
        .set((Maxima::from(limits), table::updated_at.eq(Utc::now()), table::version.eq(table::version + 1)))
        .returning(Row::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let fields = changed_fields([("limits", json!(before.limits), json!(limits))]);
    let change = Change::update(Quota::name(tenant), "QUOTA_UPDATED", fields);
    tx.log(tenant, audit, &[change]).await?;
    Ok(row.into())
}

/// Refuses what would go past a limit, and takes nothing.
pub(crate) async fn check(tx: &mut TenantTx<Write>, asked: &Amounts) -> Result<()> {
    let Quota { limits, usage, .. } = get(tx).await?;
    limits.check(&usage.with(asked), asked)
}

/// Takes more for what a tenant asks for; refused beyond a limit. Others who ask wait for the end of this transaction.
pub(crate) async fn reserve(tx: &mut TenantTx<Write>, asked: &Amounts) -> Result<()> {
    match adjust(tx, asked).await? {
        Some(quota) => quota.limits.check(&quota.usage, asked),
        None => Ok(()),
    }
}

/// Counts what has come to be, or ceased to be, whatever the limits say; the quota after it.
pub(crate) async fn adjust(tx: &mut TenantTx<Write>, by: &Amounts) -> Result<Option<Quota>> {
    if by.is_zero() {
        return Ok(None);
    }
    let row: Row = diesel::update(table::table.find(tx.tenant()))
        .set((
            table::vms.eq(table::vms + by.vms),
            table::vcpus.eq(table::vcpus + by.vcpus),
            table::memory_mib.eq(table::memory_mib + by.memory_mib),
            table::disk_gib.eq(table::disk_gib + by.disk_gib),
            table::snapshots.eq(table::snapshots + by.snapshots),
            table::templates.eq(table::templates + by.templates),
            table::template_bytes.eq(table::template_bytes + by.template_bytes),
        ))
        .returning(Row::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(Some(row.into()))
}
