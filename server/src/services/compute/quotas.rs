//! Quotas: members see theirs, operators of the platform set them.

use tonic::{Request, Response, Status};
use virtualstack_model::compute::quota::Limits;
use virtualstack_model::iam::tenant::TenantState;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::compute::quotas::{self, Quota};
use virtualstack_store::iam::tenants::{self, Key, Tenant};
use virtualstack_store::{Store, SystemTx};

use crate::call::caller::Caller;
use crate::call::status::from_error;
use crate::generated::virtualstack::compute::v1::quota_service_server::QuotaService;
use crate::wire;
use crate::wire::quota::quota_message;

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
}

#[tonic::async_trait]
impl QuotaService for Quotas {
    async fn get_quota(&self, request: Request<proto::GetQuotaRequest>) -> Result<Response<proto::Quota>, Status> {
        let scope = Caller::of(&request)?.tenant();
        reply(self.store.read(&scope, async |tx| quotas::get(tx).await).await)
    }

    async fn get_tenant_quota(
        &self,
        request: Request<proto::GetTenantQuotaRequest>,
    ) -> Result<Response<proto::Quota>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let found = self
            .store
            .system(caller.platform(), async |tx| {
                let tenant = find(tx, "name", &name).await?;
                quotas::get_any(tx, tenant.id).await
            })
            .await;
        reply(found)
    }

    async fn update_tenant_quota(
        &self,
        request: Request<proto::UpdateTenantQuotaRequest>,
    ) -> Result<Response<proto::Quota>, Status> {
        let caller = Caller::of(&request)?;
        let proto::UpdateTenantQuotaRequest { quota, update_mask, validate_only } = request.into_inner();
        let wanted = quota.unwrap_or_default();
        let limits = wire::quota::limits(&wanted.limits.unwrap_or_default());
        let fields = wire::update_mask(update_mask, &UPDATABLE, |field| {
            field != "limits" && merged(Limits::default(), limits, &[field]) != Limits::default()
        })
        .map_err(from_error)?;
        let updated = self
            .store
            .system(caller.platform(), async |tx| {
                tx.rehearse(validate_only);
                let tenant = find(tx, "quota.name", &wanted.name).await?;
                if tenant.state == TenantState::Deleted {
                    let message = "the quota of a deleted tenant cannot be changed";
                    return Err(Error::precondition("TENANT_DELETED", tenant.id.name(), message));
                }
                let before = quotas::lock(tx, tenant.id).await?;
                Error::check_etag(&wanted.etag, &before.etag())?;
                let audit = caller.platform_audit(Quota::name(tenant.id));
                let limits = merged(before.limits, limits, &fields);
                if limits == before.limits {
                    tx.log(tenant.id, &audit, &[]).await?;
                    return Ok(before);
                }
                quotas::set_limits(tx, &audit, &before, limits).await
            })
            .await;
        reply(updated)
    }
}

fn reply(quota: Result<Quota>) -> Result<Response<proto::Quota>, Status> {
    quota.map(|row| Response::new(quota_message(&row))).map_err(from_error)
}

/// The tenant whose quota the name in `field` is.
async fn find(tx: &mut SystemTx, field: &str, name: &str) -> Result<Tenant> {
    let tenant = name.strip_suffix("/quota").filter(|tenant| tenant.starts_with("tenants/"));
    let tenant = tenant.ok_or_else(|| Error::invalid(field, "must be a full name, tenants/{tenant}/quota"))?;
    let found = tenants::find_any(tx, &Key::parse(tenant)).await?;
    found.ok_or_else(|| Error::not_found("TENANT_NOT_FOUND", tenant))
}

/// Limits with those that an update names put in.
fn merged(mut limits: Limits, wanted: Limits, fields: &[&str]) -> Limits {
    for field in fields {
        match *field {
            "limits" => limits = wanted,
            "limits.vms" => limits.vms = wanted.vms,
            "limits.vcpus" => limits.vcpus = wanted.vcpus,
            "limits.memory_mib" => limits.memory_mib = wanted.memory_mib,
            "limits.disk_gib" => limits.disk_gib = wanted.disk_gib,
            "limits.snapshots" => limits.snapshots = wanted.snapshots,
            "limits.templates" => limits.templates = wanted.templates,
            _ => limits.template_bytes = wanted.template_bytes,
        }
    }
    limits
}
