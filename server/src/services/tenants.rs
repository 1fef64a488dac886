//! Tenants.

use tonic::{Request, Response, Status};
use virtualstack_model::{Error, tenant, user};
use virtualstack_proto::virtualstack::iam::v1::tenant::State;
use virtualstack_proto::virtualstack::iam::v1::{
    CreateTenantRequest, GetTenantRequest, ListTenantsRequest, ListTenantsResponse, Tenant,
};
use virtualstack_store::tenants::{self, Key};
use virtualstack_store::{ListRequest, Listed, Store, accounts};

use crate::caller::Caller;
use crate::generated::virtualstack::iam::v1::tenant_service_server::TenantService;
use crate::passwords::Passwords;
use crate::status::from_error;
use crate::wire;

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
        let ListTenantsRequest { page_size, page_token } = request.into_inner();
        let request = ListRequest { page_size, page_token, ..Default::default() };
        let listed = if caller.holds(READ_ALL) {
            self.store.system(caller.platform(), async |tx| tenants::list_any(tx, &request).await).await
        } else {
            self.store.account(&caller.account(), async |tx| tenants::list_mine(tx, &request).await).await
        };
        let Listed { rows, next_page_token, .. } = listed.map_err(from_error)?;
        Ok(Response::new(ListTenantsResponse {
            tenants: rows.into_iter().map(tenant_message).collect(),
            next_page_token,
        }))
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let key = if name == CURRENT { Key::Id(caller.principal.tenant) } else { Key::parse(&name) };
        let found = if caller.holds(READ_ALL) {
            self.store.system(caller.platform(), async |tx| tenants::find_any(tx, &key).await).await
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
                let account = accounts::ensure(tx, &email, name, &hash).await?;
                tenants::add_member(tx, made.id, account, "tenant_admin").await?;
                tx.audit(Some(caller.principal.tenant), &caller.audit(made.id.name())).await?;
                Ok(made)
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(tenant_message(made)))
    }
}

fn tenant_message(row: tenants::Tenant) -> Tenant {
    let state = match row.state {
        tenant::TenantState::Active => State::Active,
        tenant::TenantState::Suspended => State::Suspended,
    };
    Tenant {
        name: row.id.name(),
        slug: row.slug,
        display_name: row.display_name,
        state: state.into(),
        create_time: Some(wire::time(row.created_at)),
        update_time: Some(wire::time(row.updated_at)),
    }
}
