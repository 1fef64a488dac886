//! Members of the caller's tenant.

use virtualstack_model::credential::Credential;
use virtualstack_model::iam::access::{ASSIGN_ROLES, Access};
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::user::{MembershipState, normalize_email};
use virtualstack_model::id::UserId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1::{
    ActivateUserRequest, AssignRoleRequest, CreateUserRequest, DeactivateUserRequest, DeleteUserRequest,
    GetUserRequest, ListUsersRequest, ListUsersResponse, UnassignRoleRequest, UpdateUserRequest, User, user,
};
use virtualstack_store::iam::roles::{self, Key, Role};
use virtualstack_store::iam::users::{self, Member, NewUser};
use virtualstack_store::{Store, TenantTx, Write};

use crate::auth::limits::Limits;
use crate::auth::passwords::{self, Passwords};
use crate::call::TenantCall;
use crate::call::codec;
use crate::call::list::{List as _, page};
use crate::call::message::{time, update_mask};
use crate::call::write::Answer;
use crate::generated::virtualstack::iam::v1::UserService;
use crate::shares::Holder;

pub(crate) struct Users {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
}

impl UserService for Users {
    async fn list_users(&self, call: TenantCall<ListUsersRequest>) -> Result<ListUsersResponse> {
        let request = call.request.list();
        let listed = users::list(&mut self.store.single(&call.tenant()), &request, None).await?;
        Ok(page(listed, message))
    }

    async fn get_user(&self, call: TenantCall<GetUserRequest>) -> Result<User> {
        let id = UserId::parse("name", &call.request.name)?;
        users::get(&mut self.store.single(&call.tenant()), id).await.map(message)
    }

    async fn create_user(&self, mut call: TenantCall<CreateUserRequest>) -> Result<User> {
        // Taken out of the request, of which a digest is kept: none that is this quick to make may be kept of a password.
        let password = call.request.user.as_mut().map(|user| std::mem::take(&mut user.password)).unwrap_or_default();
        let desired = call.request.user.clone().unwrap_or_default();
        let email = normalize_email(&desired.email);
        if !desired.roles.is_empty() {
            call.access().authorize(ASSIGN_ROLES)?;
        }
        if !call.request.validate_only {
            self.limits.mail(Some(call.tenant_id()), &email).await?;
        }
        let hash = self.hash(password, &[&email, &desired.display_name], Holder::Tenant(call.tenant_id())).await?;
        // An operator who helps out is no member.
        let inviter = match call.principal.credential {
            Credential::Support { .. } => None,
            Credential::Session(_) | Credential::ApiKey { .. } => Some(call.user()),
        };
        let add = async |tx: &mut TenantTx<Write>| {
            let access = tx.access()?;
            let roles = grantable(tx, &access, "user.roles", &desired.roles).await?;
            let new = NewUser {
                email: &email,
                display_name: &desired.display_name,
                password_hash: hash.as_deref(),
                roles: &roles,
                inviter,
            };
            let member = users::add(tx, &new).await?;
            tx.audit_resource(member.user.id.name());
            Ok(message(member))
        };
        call.change_access(&self.store, "", add).await
    }

    async fn update_user(&self, call: TenantCall<UpdateUserRequest>) -> Result<User> {
        let desired = call.request.user.clone().unwrap_or_default();
        let id = UserId::parse("user.name", &desired.name)?;
        let fields = update_mask(call.request.update_mask.clone(), &["display_name"], |_| true)?;
        let update = async |tx: &mut TenantTx<Write>| {
            let before = users::lock(tx, id).await?;
            Error::check_etag(&desired.etag, &before.user.etag())?;
            let mut user = message(before.clone());
            if !fields.is_empty() {
                user.display_name.clone_from(&desired.display_name);
            }
            // The rules hold for the user that comes of it, not for the part that was sent.
            codec::validate(&CreateUserRequest { user: Some(user.clone()), ..Default::default() })?;
            if user.display_name == before.user.display_name {
                return Ok(message(before));
            }
            users::rename(tx, &before, &user.display_name).await.map(message)
        };
        call.write(&self.store, id.name(), update).await
    }

    async fn delete_user(&self, call: TenantCall<DeleteUserRequest>) -> Result<()> {
        let id = UserId::parse("name", &call.request.name)?;
        let delete = async |tx: &mut TenantTx<Write>| {
            let member = users::lock(tx, id).await?;
            Error::check_etag(&call.request.etag, &member.user.etag())?;
            users::remove(tx, &member).await
        };
        call.change_access(&self.store, id.name(), delete).await
    }

    async fn activate_user(&self, call: TenantCall<ActivateUserRequest>) -> Result<User> {
        let id = UserId::parse("name", &call.request.name)?;
        let activate = async |tx: &mut TenantTx<Write>| {
            // Who comes back has the roles again.
            let codes = roles::permissions_of(tx, &[id]).await?;
            tx.access()?.check_grant(codes.iter().map(String::as_str))?;
            users::activate(tx, id).await.map(message)
        };
        call.change_access(&self.store, id.name(), activate).await
    }

    async fn deactivate_user(&self, call: TenantCall<DeactivateUserRequest>) -> Result<User> {
        let id = UserId::parse("name", &call.request.name)?;
        let deactivate = async |tx: &mut TenantTx<Write>| users::deactivate(tx, id).await.map(message);
        call.change_access(&self.store, id.name(), deactivate).await
    }

    async fn assign_role(&self, call: TenantCall<AssignRoleRequest>) -> Result<User> {
        let id = UserId::parse("name", &call.request.name)?;
        let assign = async |tx: &mut TenantTx<Write>| {
            let access = tx.access()?;
            users::lock(tx, id).await?;
            for role in grantable(tx, &access, "role", std::slice::from_ref(&call.request.role)).await? {
                roles::assign(tx, &role, &[id]).await?;
            }
            users::get(tx, id).await.map(message)
        };
        call.change_access(&self.store, id.name(), assign).await
    }

    async fn unassign_role(&self, call: TenantCall<UnassignRoleRequest>) -> Result<User> {
        let id = UserId::parse("name", &call.request.name)?;
        let unassign = async |tx: &mut TenantTx<Write>| {
            users::lock(tx, id).await?;
            let role = roles::get(tx, &Key::parse("role", &call.request.role)?).await?;
            roles::unassign(tx, &role, &[id]).await?;
            users::get(tx, id).await.map(message)
        };
        call.change_access(&self.store, id.name(), unassign).await
    }
}

impl Answer<TenantTx<Write>> for User {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        users::get(tx, UserId::parse("request_id", name)?).await.map(message)
    }
}

impl Users {
    /// The hash of the password that a new account gets, if any. The same work is done without one, and whether or
    /// not there is an account: the time tells nothing.
    async fn hash(&self, password: String, about: &[&str], holder: Holder) -> Result<Option<String>> {
        let given = !password.is_empty();
        if given {
            passwords::check_policy(&password, "user.password", about)?;
        }
        let hash = self.passwords.hash(password, holder).await?;
        Ok(given.then_some(hash))
    }
}

/// Roles that the caller may give: all of their permissions are the caller's too.
async fn grantable(tx: &mut TenantTx<Write>, access: &Access, field: &str, names: &[String]) -> Result<Vec<Role>> {
    let mut found = Vec::new();
    for name in names {
        found.push(roles::get(tx, &Key::parse(field, name)?).await?);
    }
    let codes = found.iter().flat_map(|role| &role.permissions).map(String::as_str);
    access.check_grant(codes)?;
    Ok(found)
}

/// A member, and the full names of their roles.
pub(crate) fn user_message(row: users::User, roles: Vec<String>) -> User {
    let state = match row.state {
        MembershipState::Invited => user::State::Invited,
        MembershipState::Active => user::State::Active,
        MembershipState::Inactive | MembershipState::Removed => user::State::Inactive,
    };
    User {
        name: row.id.name(),
        etag: row.etag(),
        email: row.email,
        display_name: row.display_name,
        state: state.into(),
        roles,
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        password: String::new(),
    }
}

/// A member with their roles.
pub(crate) fn message(member: Member) -> User {
    user_message(member.user, member.roles.into_iter().map(RoleId::name).collect())
}
