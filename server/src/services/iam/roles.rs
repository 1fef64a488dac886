//! Roles of the caller's tenant, and the catalogue of permissions.

use std::collections::BTreeSet;

use virtualstack_model::error::Violation;
use virtualstack_model::iam::access::Access;
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::id::UserId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1::{
    CreateRoleRequest, DeleteRoleRequest, GetRoleRequest, ListPermissionsRequest, ListPermissionsResponse,
    ListRoleUsersRequest, ListRoleUsersResponse, ListRolesRequest, ListRolesResponse, Permission, Role,
    SetRoleUsersRequest, SetRoleUsersResponse, UpdateRoleRequest,
};
use virtualstack_store::iam::roles::{self, Key};
use virtualstack_store::iam::users;
use virtualstack_store::{Read, Store, TenantTx, Write};

use super::users::message as user_message;
use crate::call::TenantCall;
use crate::call::codec;
use crate::call::list::{List as _, page};
use crate::call::message::{time, update_mask};
use crate::call::write::Answer;
use crate::generated::virtualstack::iam::v1::{PermissionService, RoleService};

/// What a tenant may change.
const UPDATABLE: [&str; 3] = ["display_name", "description", "permissions"];

/// What it takes to change the permissions of roles.
const ASSIGN_PERMISSIONS: &str = "permission:assign";

pub(crate) struct Roles {
    pub(crate) store: Store,
}

impl RoleService for Roles {
    async fn list_roles(&self, call: TenantCall<ListRolesRequest>) -> Result<ListRolesResponse> {
        let request = call.request.list();
        let listed = roles::list(&mut self.store.single(&call.tenant()), &request).await?;
        Ok(page(listed, message))
    }

    async fn get_role(&self, call: TenantCall<GetRoleRequest>) -> Result<Role> {
        let key = Key::parse("name", &call.request.name)?;
        roles::get(&mut self.store.single(&call.tenant()), &key).await.map(message)
    }

    async fn create_role(&self, call: TenantCall<CreateRoleRequest>) -> Result<Role> {
        let desired = call.request.role.clone().unwrap_or_default();
        let create = async |tx: &mut TenantTx<Write>| {
            let id = RoleId::new();
            check_permissions(tx, call.access(), &[], &desired.permissions).await?;
            tx.audit_resource(id.name());
            let made = roles::insert(tx, id, &desired.display_name, &desired.description, &desired.permissions);
            made.await.map(message)
        };
        call.write(&self.store, "", create).await
    }

    async fn update_role(&self, call: TenantCall<UpdateRoleRequest>) -> Result<Role> {
        let desired = call.request.role.clone().unwrap_or_default();
        let key = Key::parse("role.name", &desired.name)?;
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| match field {
            "display_name" => !desired.display_name.is_empty(),
            "description" => !desired.description.is_empty(),
            _ => !desired.permissions.is_empty(),
        })?;
        let access_changes = fields.contains(&"permissions");
        let update = async |tx: &mut TenantTx<Write>| {
            let access = if access_changes { tx.access()? } else { call.access().clone() };
            let before = roles::lock_custom(tx, &key).await?;
            tx.audit_resource(before.id.name());
            Error::check_etag(&desired.etag, &before.etag())?;
            let mut role = before.clone();
            for field in &fields {
                match *field {
                    "display_name" => role.display_name.clone_from(&desired.display_name),
                    "description" => role.description.clone_from(&desired.description),
                    _ => role.permissions.clone_from(&desired.permissions),
                }
            }
            // The rules hold for the role that comes of it, not for the part that was sent.
            codec::validate(&CreateRoleRequest { role: Some(message(role.clone())), ..CreateRoleRequest::default() })?;
            check_permissions(tx, &access, &before.permissions, &role.permissions).await?;
            role.permissions.sort();
            let after = if role == before { before } else { roles::update(tx, &before, &role).await? };
            Ok(message(after))
        };
        if access_changes {
            call.change_access(&self.store, &desired.name, update).await
        } else {
            call.write(&self.store, &desired.name, update).await
        }
    }

    async fn delete_role(&self, call: TenantCall<DeleteRoleRequest>) -> Result<()> {
        let key = Key::parse("name", &call.request.name)?;
        let delete = async |tx: &mut TenantTx<Write>| {
            let role = roles::lock_custom(tx, &key).await?;
            tx.audit_resource(role.id.name());
            Error::check_etag(&call.request.etag, &role.etag())?;
            roles::delete(tx, &role).await
        };
        call.change_access(&self.store, &call.request.name, delete).await
    }

    async fn list_role_users(&self, call: TenantCall<ListRoleUsersRequest>) -> Result<ListRoleUsersResponse> {
        let key = Key::parse("parent", &call.request.parent)?;
        let request = call.request.list();
        let read = async |tx: &mut TenantTx<Read>| {
            let role = roles::get(tx, &key).await?;
            users::list(tx, &request, Some(role.id)).await
        };
        let listed = self.store.read(&call.tenant(), read).await?;
        Ok(page(listed, user_message))
    }

    async fn set_role_users(&self, call: TenantCall<SetRoleUsersRequest>) -> Result<SetRoleUsersResponse> {
        let key = Key::parse("name", &call.request.name)?;
        let parse = |(index, name): (usize, &String)| UserId::parse(&format!("users[{index}]"), name);
        let desired: Vec<_> = call.request.users.iter().enumerate().map(parse).collect::<Result<_>>()?;
        let set = async |tx: &mut TenantTx<Write>| {
            let role = roles::get(tx, &key).await?;
            tx.audit_resource(role.id.name());
            users::check_members(tx, &desired).await?;
            let before = roles::holders_of(tx, role.id).await?;
            let after: BTreeSet<_> = desired.iter().copied().collect();
            let added: Vec<_> = after.difference(&before).copied().collect();
            let removed: Vec<_> = before.difference(&after).copied().collect();
            if !added.is_empty() {
                tx.access()?.check_grant(role.permissions.iter().map(String::as_str))?;
                roles::assign(tx, &role, &added).await?;
            }
            roles::unassign(tx, &role, &removed).await
        };
        call.change_access(&self.store, &call.request.name, set).await?;
        Ok(SetRoleUsersResponse { users: desired.into_iter().map(UserId::name).collect() })
    }
}

impl Answer<TenantTx<Write>> for Role {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        roles::get(tx, &Key::parse("request_id", name)?).await.map(message)
    }
}

/// Whether the caller may make the permissions of a role what the caller says: all of them exist, and those that come in are
/// the caller's too.
async fn check_permissions(
    tx: &mut TenantTx<Write>,
    access: &Access,
    before: &[String],
    desired: &[String],
) -> Result<()> {
    let known = roles::known(tx, desired).await?;
    let unknown = desired.iter().enumerate().filter(|(_, code)| !known.contains(*code));
    let violations: Vec<_> = unknown
        .map(|(index, code)| {
            Violation::new(&format!("role.permissions[{index}]"), format!("there is no permission {code}"))
        })
        .collect();
    if !violations.is_empty() {
        return Err(Error::invalid_all(violations));
    }
    let sets: [BTreeSet<&str>; 2] = [before, desired].map(|codes| codes.iter().map(String::as_str).collect());
    let [before, desired] = &sets;
    if before == desired {
        return Ok(());
    }
    access.authorize(ASSIGN_PERMISSIONS)?;
    access.check_grant(desired.difference(before).copied())
}

pub(crate) struct Permissions {
    pub(crate) store: Store,
}

impl PermissionService for Permissions {
    async fn list_permissions(&self, call: TenantCall<ListPermissionsRequest>) -> Result<ListPermissionsResponse> {
        let request = call.request.list();
        let listed = roles::list_permissions(&mut self.store.single(&call.tenant()), &request).await?;
        Ok(page(listed, permission_message))
    }
}

/// A role.
pub(crate) fn message(row: roles::Role) -> Role {
    Role {
        name: row.id.name(),
        etag: row.etag(),
        display_name: row.display_name,
        description: row.description,
        permissions: row.permissions,
        system: row.system,
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
    }
}

/// A permission of the catalogue.
pub(crate) fn permission_message(row: roles::Permission) -> Permission {
    Permission { code: row.code, title: row.title, description: row.description, module: row.module }
}
