//! Tenants: members see theirs, operators of the platform all of them.

use chrono::TimeDelta;
use prost_types::FieldMask;
use tonic::{Request, Response, Status};
use virtualstack_model::iam::tenant::{PROVIDER_SLUG, Settings, TenantState};
use virtualstack_model::iam::user;
use virtualstack_model::id::TenantId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_store::iam::tenants::{self, Edit, Key, Tenant};
use virtualstack_store::tenant_life::{self, FirstAdmin, NewTenant};
use virtualstack_store::{ListRequest, Listed, Store, SystemTx, request_ids};

use super::users::repeat;
use crate::auth::passwords::{self, Passwords};
use crate::call::caller::Caller;
use crate::call::codec;
use crate::call::status::from_error;
use crate::generated::virtualstack::iam::v1::tenant_service_server::TenantService;
use crate::wire;
use crate::wire::iam::tenant_message;

/// Lets its holder see every tenant.
const READ_ALL: &str = "platform:tenant:read";

/// The tenant that the access token is for. No tenant may have this slug.
const CURRENT: &str = "tenants/current";

/// Slugs that no tenant may have.
const RESERVED: [&str; 2] = ["current", PROVIDER_SLUG];

/// How long a deleted tenant is kept.
const KEPT: TimeDelta = TimeDelta::days(30);

const UPDATABLE: [&str; 4] = ["display_name", "settings", "settings.invitation_days", "settings.api_key_max_days"];

pub(crate) struct Tenants {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn list_tenants(
        &self,
        request: Request<proto::ListTenantsRequest>,
    ) -> Result<Response<proto::ListTenantsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let Listed { rows, next_page_token, total_size } =
            self.list(&caller, request.into_inner()).await.map_err(from_error)?;
        Ok(Response::new(proto::ListTenantsResponse {
            tenants: rows.into_iter().map(tenant_message).collect(),
            next_page_token,
            total_size,
        }))
    }

    async fn get_tenant(&self, request: Request<proto::GetTenantRequest>) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        reply(self.get(&caller, request.into_inner().name).await)
    }

    async fn create_tenant(
        &self,
        request: Request<proto::CreateTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        reply(self.create(&caller, request.into_inner()).await)
    }

    async fn update_tenant(
        &self,
        request: Request<proto::UpdateTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.tenant.unwrap_or_default();
        let fields = fields(request.update_mask, &wanted).map_err(from_error)?;
        let updated = self
            .store
            .system(caller.platform(), async |tx| {
                tx.rehearse(request.validate_only);
                let before = lock(tx, "tenant.name", &wanted.name).await?;
                if before.state == TenantState::Deleted {
                    return Err(deleted(&before, "a deleted tenant cannot be changed"));
                }
                let edit = edit(&before, &wanted, &fields)?;
                tenants::update_any(tx, &caller.platform_audit(before.id.name()), &before, &edit).await
            })
            .await;
        reply(updated)
    }

    async fn update_current_tenant(
        &self,
        request: Request<proto::UpdateCurrentTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.tenant.unwrap_or_default();
        let fields = fields(request.update_mask, &wanted).map_err(from_error)?;
        let audit = caller.audit(caller.tenant_id().name()).rehearsed(request.validate_only);
        let updated = self
            .store
            .write(&caller.tenant(), audit, async |tx| {
                let before = tenants::lock_current(tx).await?;
                let edit = edit(&before, &wanted, &fields)?;
                tenants::update(tx, &before, &edit).await
            })
            .await;
        reply(updated)
    }

    async fn delete_tenant(
        &self,
        request: Request<proto::DeleteTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("DeleteTenant", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let scope = caller.tenant();
        let request = request.into_inner();
        let kept = if request.force { TimeDelta::zero() } else { KEPT };
        let changed = self
            .store
            .system(caller.platform(), async |tx| {
                let before = lock(tx, "name", &request.name).await?;
                let name = before.id.name();
                if request_ids::answered_or_remember(tx, &scope, &repeat, &name).await?.is_some() {
                    return Ok(before);
                }
                Error::check_etag(&request.etag, &before.etag())?;
                not_the_provider(&before)?;
                if before.state == TenantState::Deleted && !request.force {
                    return Err(deleted(&before, "the tenant is deleted already; force purges it"));
                }
                tenants::delete(tx, &caller.platform_audit(before.id.name()), &before, kept).await
            })
            .await;
        reply(changed)
    }

    async fn undelete_tenant(
        &self,
        request: Request<proto::UndeleteTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let changed = self
            .store
            .system(caller.platform(), async |tx| {
                let before = lock(tx, "name", &name).await?;
                let name = before.id.name();
                if before.state != TenantState::Deleted {
                    return Err(Error::exists("TENANT_NOT_DELETED", name, "the tenant is not deleted"));
                }
                let undeleted = tenants::undelete(tx, &caller.platform_audit(&name), &before).await?;
                undeleted.ok_or_else(|| Error::precondition("TENANT_PURGED", name, "the purge of the tenant has begun"))
            })
            .await;
        reply(changed)
    }

    async fn suspend_tenant(
        &self,
        request: Request<proto::SuspendTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let changed = self
            .store
            .system(caller.platform(), async |tx| {
                let before = lock(tx, "name", &name).await?;
                not_the_provider(&before)?;
                let audit = caller.platform_audit(before.id.name());
                match before.state {
                    TenantState::Active => tenants::suspend(tx, &audit, &before).await,
                    TenantState::Suspended => Ok(before),
                    _ => Err(deleted(&before, "the tenant is deleted")),
                }
            })
            .await;
        reply(changed)
    }

    async fn activate_tenant(
        &self,
        request: Request<proto::ActivateTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let changed = self
            .store
            .system(caller.platform(), async |tx| {
                let before = lock(tx, "name", &name).await?;
                let audit = caller.platform_audit(before.id.name());
                match before.state {
                    TenantState::Suspended => tenants::activate(tx, &audit, &before).await,
                    TenantState::Active => Ok(before),
                    _ => Err(deleted(&before, "the tenant is deleted; undelete it")),
                }
            })
            .await;
        reply(changed)
    }
}

impl Tenants {
    async fn list(&self, caller: &Caller, request: proto::ListTenantsRequest) -> Result<Listed<Tenant>> {
        let proto::ListTenantsRequest { page_size, page_token, filter, order_by, show_total, show_deleted } = request;
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let all = caller.holds(READ_ALL);
        if show_deleted && !all {
            return Err(Error::denied(
                "PERMISSION_MISSING",
                format!("showDeleted: this needs the permission {READ_ALL}"),
            ));
        }
        if all {
            let listed = async |tx: &mut SystemTx| tenants::list_any(tx, &request, show_deleted).await;
            self.store.system(caller.platform(), listed).await
        } else if caller.is_api_key() {
            self.store.read(&caller.tenant(), async |tx| tenants::list_current(tx, &request).await).await
        } else {
            self.store.account(&caller.account(), async |tx| tenants::list_mine(tx, &request).await).await
        }
    }

    async fn get(&self, caller: &Caller, name: String) -> Result<Tenant> {
        let key = if name == CURRENT { Key::Id(caller.tenant_id()) } else { Key::parse(&name) };
        // Also for who is in it without being a member, by an API key or to help out.
        let current = self.store.read(&caller.tenant(), async |tx| tenants::current(tx).await).await?;
        let found = if key.is_of(&current) {
            Some(current)
        } else if caller.holds(READ_ALL) {
            self.store.system(caller.platform(), async |tx| tenants::find_any(tx, &key).await).await?
        } else {
            let mine = self.store.account(&caller.account(), async |tx| tenants::find_mine(tx, &key).await).await?;
            mine.filter(|_| !caller.is_api_key())
        };
        found.ok_or_else(|| not_found(&name))
    }

    async fn create(&self, caller: &Caller, mut request: proto::CreateTenantRequest) -> Result<Tenant> {
        let password = std::mem::take(&mut request.admin_password);
        // Without the password: what is kept of a body is no hash to keep a password by.
        let repeat = repeat("CreateTenant", &request, &request.request_id)?;
        let wanted = request.tenant.take().unwrap_or_default();
        if RESERVED.contains(&wanted.slug.as_str()) {
            return Err(Error::invalid("tenant.slug", "is reserved"));
        }
        let email = user::normalize_email(&request.admin_email);
        let name = if request.admin_display_name.is_empty() { &email } else { &request.admin_display_name };
        if !password.is_empty() {
            passwords::check_policy(&password, "admin_password", &[&email, name, &wanted.slug])?;
        }
        // The same work with and without one, and whether or not the address has an account.
        let with_password = !password.is_empty();
        let hash = self.passwords.hash(password).await?;
        let admin =
            FirstAdmin { email: &email, display_name: name, password_hash: with_password.then_some(hash.as_str()) };
        let new = NewTenant {
            id: TenantId::new(),
            slug: &wanted.slug,
            display_name: &wanted.display_name,
            settings: settings(&wanted),
        };
        let scope = caller.tenant();
        self.store
            .system(caller.platform(), async |tx| {
                tx.rehearse(request.validate_only);
                if let Some(first) = request_ids::answered_or_remember(tx, &scope, &repeat, &new.id.name()).await? {
                    return tenants::find_any(tx, &Key::parse(&first)).await?.ok_or_else(|| not_found(&first));
                }
                let made = tenant_life::create(tx, &new).await?;
                tenant_life::add_first_admin(tx, &caller.platform_audit(made.id.name()), &made, &admin).await?;
                Ok(made)
            })
            .await
    }
}

fn reply(tenant: Result<Tenant>) -> Result<Response<proto::Tenant>, Status> {
    tenant.map(tenant_message).map(Response::new).map_err(from_error)
}

/// Reads a tenant by the name that `field` gives, and locks it.
async fn lock(tx: &mut SystemTx, field: &str, name: &str) -> Result<Tenant> {
    if !name.starts_with("tenants/") {
        return Err(Error::invalid(field, "must be a full name, tenants/{tenant}"));
    }
    tenants::lock_any(tx, &Key::parse(name)).await?.ok_or_else(|| not_found(name))
}

fn not_found(name: &str) -> Error {
    Error::not_found("TENANT_NOT_FOUND", name)
}

fn deleted(tenant: &Tenant, message: &str) -> Error {
    Error::precondition("TENANT_DELETED", tenant.id.name(), message)
}

/// Nobody could take it back.
fn not_the_provider(tenant: &Tenant) -> Result<()> {
    if tenant.slug == PROVIDER_SLUG {
        let message = "the provider's tenant can be neither suspended nor deleted";
        return Err(Error::precondition("PROVIDER_TENANT", tenant.id.name(), message));
    }
    Ok(())
}

/// The fields that an update names, or those that are set.
fn fields(mask: Option<FieldMask>, wanted: &proto::Tenant) -> Result<Vec<&'static str>> {
    wire::update_mask(mask, &UPDATABLE, |field| match field {
        "display_name" => !wanted.display_name.is_empty(),
        "settings" => wanted.settings.is_some(),
        _ => false,
    })
}

fn settings(tenant: &proto::Tenant) -> Settings {
    let settings = tenant.settings.unwrap_or_default();
    Settings { invitation_days: settings.invitation_days, api_key_max_days: settings.api_key_max_days }
}

/// What an update makes of a tenant. The rules hold for the tenant that comes of it, not for the part that was sent.
fn edit(before: &Tenant, wanted: &proto::Tenant, fields: &[&str]) -> Result<Edit> {
    Error::check_etag(&wanted.etag, &before.etag())?;
    let (mut edit, sent) = (before.edit(), settings(wanted));
    for field in fields {
        match *field {
            "display_name" => edit.display_name.clone_from(&wanted.display_name),
            "settings" => edit.settings = sent,
            "settings.invitation_days" => edit.settings.invitation_days = sent.invitation_days,
            _ => edit.settings.api_key_max_days = sent.api_key_max_days,
        }
    }
    let mut after = tenant_message(before.clone());
    after.display_name.clone_from(&edit.display_name);
    after.settings = Some(proto::tenant::Settings {
        invitation_days: edit.settings.invitation_days,
        api_key_max_days: edit.settings.api_key_max_days,
    });
    let admin_email = "nobody@example.com".to_owned();
    codec::validate(&proto::CreateTenantRequest { tenant: Some(after), admin_email, ..Default::default() })?;
    Ok(edit)
}
