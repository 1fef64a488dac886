//! Quotas: members see theirs, operators of the platform set them.

use virtualstack_model::compute::quota::{Amounts, Limits};
use virtualstack_model::iam::tenant::TenantState;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::compute::quotas::{self, Quota};
use virtualstack_store::iam::tenants::{self, Key, Tenant};
use virtualstack_store::{Store, SystemTx};

use crate::auth::journal::{Journal, Whose};
use crate::call::message::{time, update_mask};
use crate::call::write::Answer;
use crate::call::{PlatformCall, TenantCall};
use crate::config::DefaultQuota;
use crate::generated::virtualstack::compute::v1::QuotaService;

const UPDATABLE: [&str; 8] = [
    "limits",
    "limits.vms",
    "limits.vcpus",
    "limits.memory_mib",
    "limits.disk_gib",
    "limits.snapshots",
    "limits.templates",
    "limits.template_bytes",
];

pub(crate) struct Quotas {
    pub(crate) store: Store,
    pub(crate) journal: Journal,
}

impl QuotaService for Quotas {
    async fn get_quota(&self, call: TenantCall<proto::GetQuotaRequest>) -> Result<proto::Quota> {
        let found = quotas::get(&mut self.store.single(&call.tenant())).await;
        found.map(|row| message(&row))
    }

    async fn get_tenant_quota(&self, call: PlatformCall<proto::GetTenantQuotaRequest>) -> Result<proto::Quota> {
        let found = self.store.system(call.platform(), async |tx| {
            let tenant = find(tx, "name", &call.request.name).await?;
            quotas::get_any(tx, tenant.id).await
        });
        let row = found.await?;
        self.journal.record(Whose::Tenant(row.tenant_id), call.audit(Quota::name(row.tenant_id)));
        Ok(message(&row))
    }

    async fn update_tenant_quota(&self, call: PlatformCall<proto::UpdateTenantQuotaRequest>) -> Result<proto::Quota> {
        let proto::UpdateTenantQuotaRequest { quota, update_mask: mask, .. } = call.request.clone();
        let desired = quota.unwrap_or_default();
        let limits = limits(&desired.limits.unwrap_or_default());
        let fields = update_mask(mask, &UPDATABLE, |field| {
            field != "limits" && merged(Limits::default(), limits, &[field]) != Limits::default()
        })?;
        let update = async |tx: &mut SystemTx| {
            let tenant = find(tx, "quota.name", &desired.name).await?;
            if tenant.state == TenantState::Deleted {
                let message = "the quota of a deleted tenant cannot be changed";
                return Err(Error::precondition("TENANT_DELETED", tenant.id.name(), message));
            }
            let before = quotas::lock(tx, tenant.id).await?;
            Error::check_etag(&desired.etag, &before.etag())?;
            let audit = call.audit(Quota::name(tenant.id));
            let limits = merged(before.limits, limits, &fields);
            if limits == before.limits {
                tx.log(tenant.id, &audit, &[]).await?;
                return Ok(message(&before));
            }
            quotas::set_limits(tx, &audit, &before, limits).await.map(|row| message(&row))
        };
        call.write(&self.store, update).await
    }
}

impl Answer<SystemTx> for proto::Quota {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut SystemTx, name: &str) -> Result<Self> {
        let tenant = find(tx, "request_id", name).await?;
        quotas::get_any(tx, tenant.id).await.map(|row| message(&row))
    }
}

/// The tenant whose quota the name in `field` is.
async fn find(tx: &mut SystemTx, field: &str, name: &str) -> Result<Tenant> {
    let tenant = name.strip_suffix("/quota").filter(|tenant| tenant.starts_with("tenants/"));
    let tenant = tenant.ok_or_else(|| Error::invalid(field, "must be a full name, tenants/{tenant}/quota"))?;
    let found = tenants::find_any(tx, &Key::parse(tenant)).await?;
    found.ok_or_else(|| Error::not_found("TENANT_NOT_FOUND", tenant))
}

/// Limits with those that an update names put in.
fn merged(mut limits: Limits, desired: Limits, fields: &[&str]) -> Limits {
    for field in fields {
        match *field {
            "limits" => limits = desired,
            "limits.vms" => limits.vms = desired.vms,
            "limits.vcpus" => limits.vcpus = desired.vcpus,
            "limits.memory_mib" => limits.memory_mib = desired.memory_mib,
            "limits.disk_gib" => limits.disk_gib = desired.disk_gib,
            "limits.snapshots" => limits.snapshots = desired.snapshots,
            "limits.templates" => limits.templates = desired.templates,
            _ => limits.template_bytes = desired.template_bytes,
        }
    }
    limits
}

impl From<DefaultQuota> for Limits {
    fn from(quota: DefaultQuota) -> Self {
        let DefaultQuota { vms, vcpus, memory_mib, disk_gib, snapshots, templates, template_bytes } = quota;
        Self { vms, vcpus, memory_mib, disk_gib, snapshots, templates, template_bytes }
    }
}

/// A tenant's quota.
pub(crate) fn message(row: &Quota) -> proto::Quota {
    proto::Quota {
        name: Quota::name(row.tenant_id),
        limits: Some(limits_message(&row.limits)),
        usage: Some(usage_message(&row.usage)),
        update_time: Some(time(row.updated_at)),
        etag: row.etag(),
    }
}

/// Limits: those that there are.
pub(crate) fn limits_message(limits: &Limits) -> proto::QuotaAmounts {
    proto::QuotaAmounts {
        vms: limits.vms.map(count),
        vcpus: limits.vcpus.map(count),
        memory_mib: limits.memory_mib.map(count),
        disk_gib: limits.disk_gib.map(count),
        snapshots: limits.snapshots.map(count),
        templates: limits.templates.map(count),
        template_bytes: limits.template_bytes,
    }
}

/// Usage: all that is counted.
pub(crate) fn usage_message(usage: &Amounts) -> proto::QuotaAmounts {
    proto::QuotaAmounts {
        vms: Some(count(usage.vms)),
        vcpus: Some(count(usage.vcpus)),
        memory_mib: Some(count(usage.memory_mib)),
        disk_gib: Some(count(usage.disk_gib)),
        snapshots: Some(count(usage.snapshots)),
        templates: Some(count(usage.templates)),
        template_bytes: Some(usage.template_bytes),
    }
}

/// Limits that a request gives.
pub(crate) fn limits(message: &proto::QuotaAmounts) -> Limits {
    Limits {
        vms: message.vms.map(i64::from),
        vcpus: message.vcpus.map(i64::from),
        memory_mib: message.memory_mib.map(i64::from),
        disk_gib: message.disk_gib.map(i64::from),
        snapshots: message.snapshots.map(i64::from),
        templates: message.templates.map(i64::from),
        template_bytes: message.template_bytes,
    }
}

/// The contract counts in 32 bits: what is more is told as the most there is.
fn count(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
