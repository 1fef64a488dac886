//! Tenants.

use tonic::{Request, Response, Status};
use virtualstack_model::{Error, user};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_proto::virtualstack::iam::v1::{
    CreateTenantRequest, GetTenantRequest, ListTenantsRequest, ListTenantsResponse, Tenant,
};
use virtualstack_store::tenants::{self, Key};
use virtualstack_store::{ListRequest, Listed, Store, accounts, users};

use crate::caller::Caller;
use crate::generated::virtualstack::iam::v1::tenant_service_server::TenantService;
use crate::passwords::Passwords;
use crate::status::from_error;
use crate::wire::iam::tenant_message;

/// Lets its holder see every tenant.
const READ_ALL: &str = "platform:tenant:read";

/// The tenant that the access token is for. No tenant may have this slug.
const CURRENT: &str = "tenants/current";

pub(crate) struct Tenants {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ListTenantsRequest { page_size, page_token, filter, order_by, show_total, show_deleted: _ } =
            request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let listed = if caller.holds(READ_ALL) {
            self.store.system(caller.platform(), async |tx| tenants::list_any(tx, &request).await).await
        } else if caller.is_api_key() {
            self.store.read(&caller.tenant(), async |tx| tenants::list_current(tx, &request).await).await
        } else {
            self.store.account(&caller.account(), async |tx| tenants::list_mine(tx, &request).await).await
        };
        let Listed { rows, next_page_token, total_size } = listed.map_err(from_error)?;
        Ok(Response::new(ListTenantsResponse {
            tenants: rows.into_iter().map(tenant_message).collect(),
            next_page_token,
            total_size,
        }))
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let key = if name == CURRENT { Key::Id(caller.tenant_id()) } else { Key::parse(&name) };
        let found = if matches!(key, Key::Id(id) if id == caller.tenant_id()) {
            self.store.read(&caller.tenant(), async |tx| tenants::current(tx).await.map(Some)).await
        } else if caller.holds(READ_ALL) {
            self.store.system(caller.platform(), async |tx| tenants::find_any(tx, &key).await).await
        } else if caller.is_api_key() {
            let is_own = |own: &tenants::Tenant| matches!(&key, Key::Slug(slug) if *slug == own.slug);
            self.store.read(&caller.tenant(), async |tx| Ok(Some(tenants::current(tx).await?).filter(is_own))).await
        } else {
            self.store.account(&caller.account(), async |tx| tenants::find_mine(tx, &key).await).await
        };
        let found = found.map_err(from_error)?.ok_or_else(|| from_error(Error::not_found("TENANT_NOT_FOUND", name)))?;
        Ok(Response::new(tenant_message(found)))
    }

    async fn create_tenant(&self, request: Request<CreateTenantRequest>) -> Result<Response<Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.tenant.unwrap_or_default();
        if CURRENT.strip_prefix("tenants/") == Some(&wanted.slug) {
            return Err(from_error(Error::invalid("tenant.slug", "is reserved")));
        }
        let email = user::normalize_email(&request.admin_email);
        let name = if request.admin_display_name.is_empty() { &email } else { &request.admin_display_name };
        let hash = self.passwords.hash(request.admin_password).await.map_err(from_error)?;
        let made = self
            .store
            .system(caller.platform(), async |tx| {
                let made = tenants::create(tx, &wanted.slug, &wanted.display_name).await?;
                let (account, _) = accounts::ensure(tx, &email, name, Some(&hash)).await?;
                users::add_active(tx, made.id, account, user::TENANT_ADMIN).await?;
                tx.audit(Some(caller.tenant_id()), &caller.audit(made.id.name())).await?;
                Ok(made)
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(tenant_message(made)))
    }
    async fn update_tenant(&self, _: Request<proto::UpdateTenantRequest>) -> Result<Response<proto::Tenant>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn update_current_tenant(
        &self,
        _: Request<proto::UpdateCurrentTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn delete_tenant(&self, _: Request<proto::DeleteTenantRequest>) -> Result<Response<proto::Tenant>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn undelete_tenant(
        &self,
        _: Request<proto::UndeleteTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn suspend_tenant(&self, _: Request<proto::SuspendTenantRequest>) -> Result<Response<proto::Tenant>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn activate_tenant(
        &self,
        _: Request<proto::ActivateTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }
}
