//! Roles of the caller's tenant, and the catalogue of permissions.

use std::collections::BTreeSet;

use tonic::{Request, Response, Status};
use virtualstack_model::error::Violation;
use virtualstack_model::iam::access::Access;
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::id::UserId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1::{
    CreateRoleRequest, DeleteRoleRequest, GetRoleRequest, ListPermissionsRequest, ListPermissionsResponse,
    ListRoleUsersRequest, ListRoleUsersResponse, ListRolesRequest, ListRolesResponse, Role, SetRoleUsersRequest,
    SetRoleUsersResponse, UpdateRoleRequest,
};
use virtualstack_store::iam::roles::{self, Key};
use virtualstack_store::iam::users;
use virtualstack_store::{ListRequest, Listed, Store, TenantTx, Write, request_ids};

use super::users::repeat;
use crate::call::caller::Caller;
use crate::call::codec;
use crate::call::status::from_error;
use crate::generated::virtualstack::iam::v1::permission_service_server::PermissionService;
use crate::generated::virtualstack::iam::v1::role_service_server::RoleService;
use crate::wire;
use crate::wire::iam::{member_message, permission_message, role_message};

/// What a tenant may change.
const UPDATABLE: [&str; 3] = ["display_name", "description", "permissions"];

/// What it takes to change the permissions of roles.
const ASSIGN_PERMISSIONS: &str = "permission:assign";

pub(crate) struct Roles {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl RoleService for Roles {
    async fn list_roles(&self, request: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let ListRolesRequest { page_size, page_token, filter, order_by, show_total } = request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } =
            self.store.read(&scope, async |tx| roles::list(tx, &request).await).await.map_err(from_error)?;
        let roles = rows.into_iter().map(role_message).collect();
        Ok(Response::new(ListRolesResponse { roles, next_page_token, total_size }))
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> Result<Response<Role>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let key = Key::parse("name", &request.get_ref().name).map_err(from_error)?;
        let role = self.store.read(&scope, async |tx| roles::get(tx, &key).await).await.map_err(from_error)?;
        Ok(Response::new(role_message(role)))
    }

    async fn create_role(&self, request: Request<CreateRoleRequest>) -> Result<Response<Role>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("CreateRole", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let wanted = request.role.unwrap_or_default();
        let made = self
            .store
            .write(&caller.tenant(), caller.audit("").rehearsed(request.validate_only), async |tx| {
                let id = RoleId::new();
                if let Some(name) = request_ids::answered(tx, &repeat).await? {
                    return roles::get(tx, &Key::parse("request_id", &name)?).await;
                }
                request_ids::remember(tx, &repeat, &id.name()).await?;
                check_permissions(tx, &caller.principal.access, &[], &wanted.permissions).await?;
                tx.audit_resource(id.name());
                roles::insert(tx, id, &wanted.display_name, &wanted.description, &wanted.permissions).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(role_message(made)))
    }

    async fn update_role(&self, request: Request<UpdateRoleRequest>) -> Result<Response<Role>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.role.unwrap_or_default();
        let key = Key::parse("role.name", &wanted.name).map_err(from_error)?;
        let fields = wire::update_mask(request.update_mask, &UPDATABLE, |field| match field {
            "display_name" => !wanted.display_name.is_empty(),
            "description" => !wanted.description.is_empty(),
            _ => !wanted.permissions.is_empty(),
        })
        .map_err(from_error)?;
        let role = self
            .store
            .write(&caller.tenant(), caller.audit("").rehearsed(request.validate_only), async |tx| {
                let access = if fields.contains(&"permissions") {
                    caller.decide_again(tx).await?
                } else {
                    caller.principal.access.clone()
                };
                let before = roles::lock_custom(tx, &key).await?;
                tx.audit_resource(before.id.name());
                Error::check_etag(&wanted.etag, &before.etag())?;
                let mut role = before.clone();
                for field in &fields {
                    match *field {
                        "display_name" => role.display_name.clone_from(&wanted.display_name),
                        "description" => role.description.clone_from(&wanted.description),
                        _ => role.permissions.clone_from(&wanted.permissions),
                    }
                }
                // The rules hold for the role that comes of it, not for the part that was sent.
                codec::validate(&CreateRoleRequest {
                    role: Some(role_message(role.clone())),
                    ..CreateRoleRequest::default()
                })?;
                check_permissions(tx, &access, &before.permissions, &role.permissions).await?;
                role.permissions.sort();
                if role == before { Ok(before) } else { roles::update(tx, &before, &role).await }
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(role_message(role)))
    }

    async fn delete_role(&self, request: Request<DeleteRoleRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("DeleteRole", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let key = Key::parse("name", &request.name).map_err(from_error)?;
        self.store
            .write(&caller.tenant(), caller.audit(""), async |tx| {
                caller.decide_again(tx).await?;
                if let Some(name) = request_ids::answered(tx, &repeat).await? {
                    tx.audit_resource(name);
                    return Ok(());
                }
                request_ids::remember(tx, &repeat, &request.name).await?;
                let role = roles::lock_custom(tx, &key).await?;
                tx.audit_resource(role.id.name());
                Error::check_etag(&request.etag, &role.etag())?;
                roles::delete(tx, &role).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }

    async fn list_role_users(
        &self,
        request: Request<ListRoleUsersRequest>,
    ) -> Result<Response<ListRoleUsersResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let ListRoleUsersRequest { parent, page_size, page_token, filter, order_by, show_total } = request.into_inner();
        let key = Key::parse("parent", &parent).map_err(from_error)?;
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } = self
            .store
            .read(&scope, async |tx| {
                let role = roles::get(tx, &key).await?;
                users::list(tx, &request, Some(role.id)).await
            })
            .await
            .map_err(from_error)?;
        let users = rows.into_iter().map(member_message).collect();
        Ok(Response::new(ListRoleUsersResponse { users, next_page_token, total_size }))
    }

    async fn set_role_users(
        &self,
        request: Request<SetRoleUsersRequest>,
    ) -> Result<Response<SetRoleUsersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let key = Key::parse("name", &request.name).map_err(from_error)?;
        let parse = |(index, name): (usize, &String)| UserId::parse(&format!("users[{index}]"), name);
        let wanted: Vec<_> = request.users.iter().enumerate().map(parse).collect::<Result<_>>().map_err(from_error)?;
        self.store
            .write(&caller.tenant(), caller.audit(""), async |tx| {
                let access = caller.decide_again(tx).await?;
                let role = roles::get(tx, &key).await?;
                tx.audit_resource(role.id.name());
                users::check_members(tx, &wanted).await?;
                let before = roles::holders_of(tx, role.id).await?;
                let after: BTreeSet<_> = wanted.iter().copied().collect();
                let added: Vec<_> = after.difference(&before).copied().collect();
                let removed: Vec<_> = before.difference(&after).copied().collect();
                if !added.is_empty() {
                    access.check_grant(role.permissions.iter().map(String::as_str))?;
                    roles::assign(tx, &role, &added).await?;
                }
                roles::unassign(tx, &role, &removed).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(SetRoleUsersResponse { users: wanted.into_iter().map(UserId::name).collect() }))
    }
}

/// Whether the caller may make the permissions of a role what is wanted: all of them exist, and those that come in are
/// the caller's too.
async fn check_permissions(
    tx: &mut TenantTx<Write>,
    access: &Access,
    before: &[String],
    wanted: &[String],
) -> Result<()> {
    let known = roles::known(tx, wanted).await?;
    let unknown = wanted.iter().enumerate().filter(|(_, code)| !known.contains(*code));
    let violations: Vec<_> = unknown
        .map(|(index, code)| {
            Violation::new(&format!("role.permissions[{index}]"), format!("there is no permission {code}"))
        })
        .collect();
    if !violations.is_empty() {
        return Err(Error::invalid_all(violations));
    }
    let sets: [BTreeSet<&str>; 2] = [before, wanted].map(|codes| codes.iter().map(String::as_str).collect());
    let [before, wanted] = &sets;
    if before == wanted {
        return Ok(());
    }
    access.authorize(ASSIGN_PERMISSIONS)?;
    access.check_grant(wanted.difference(before).copied())
}

pub(crate) struct Permissions {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl PermissionService for Permissions {
    async fn list_permissions(
        &self,
        request: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let ListPermissionsRequest { page_size, page_token, filter, order_by, show_total } = request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } = self
            .store
            .read(&scope, async |tx| roles::list_permissions(tx, &request).await)
            .await
            .map_err(from_error)?;
        let permissions = rows.into_iter().map(permission_message).collect();
        Ok(Response::new(ListPermissionsResponse { permissions, next_page_token, total_size }))
    }
}
