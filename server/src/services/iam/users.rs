//! Members of the caller's tenant.

use tonic::{Request, Response, Status};
use virtualstack_model::credential::Credential;
use virtualstack_model::iam::access::Access;
use virtualstack_model::iam::user::normalize_email;
use virtualstack_model::id::UserId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1::{
    ActivateUserRequest, AssignRoleRequest, CreateUserRequest, DeactivateUserRequest, DeleteUserRequest,
    GetUserRequest, ListUsersRequest, ListUsersResponse, UnassignRoleRequest, UpdateUserRequest, User,
};
use virtualstack_store::iam::roles::{self, Key, Role};
use virtualstack_store::iam::users::{self, NewUser};
use virtualstack_store::request_ids::{self, Request as RequestId};
use virtualstack_store::{ListRequest, Listed, Store, TenantTx, Write};

use crate::auth::passwords::{self, Passwords};
use crate::call::caller::Caller;
use crate::call::codec;
use crate::call::status::from_error;
use crate::generated::virtualstack::iam::v1::user_service_server::UserService;
use crate::wire;
use crate::wire::iam::member_message;

/// What it takes to give roles.
const ASSIGN: &str = "role:assign";

pub(crate) struct Users {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
}

#[tonic::async_trait]
impl UserService for Users {
    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let ListUsersRequest { page_size, page_token, filter, order_by, show_total } = request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } =
            self.store.read(&scope, async |tx| users::list(tx, &request, None).await).await.map_err(from_error)?;
        let users = rows.into_iter().map(member_message).collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token, total_size }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let id = UserId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let member = self.store.read(&scope, async |tx| users::get(tx, id).await).await.map_err(from_error)?;
        Ok(Response::new(member_message(member)))
    }

    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let mut request = request.into_inner();
        let password = request.user.as_mut().map(|user| std::mem::take(&mut user.password)).unwrap_or_default();
        // Without the password, of which no digest that is this quick to make may be kept.
        let repeat = repeat("CreateUser", &request, &request.request_id).map_err(from_error)?;
        let wanted = request.user.unwrap_or_default();
        let email = normalize_email(&wanted.email);
        if !wanted.roles.is_empty() {
            caller.principal.access.authorize(ASSIGN).map_err(from_error)?;
        }
        let hash = self.hash(password, &[&email, &wanted.display_name]).await.map_err(from_error)?;
        // An operator who helps out is no member.
        let inviter = match caller.principal.credential {
            Credential::Support { .. } => None,
            Credential::Session(_) | Credential::ApiKey { .. } => Some(caller.principal.access.user),
        };
        let made = self
            .store
            .write(&caller.tenant(), caller.audit("").rehearsed(request.validate_only), async |tx| {
                // Of two calls with one request id the slower one waits here, and then finds the faster one's answer.
                let access = caller.decide_again(tx).await?;
                if let Some(name) = request_ids::answered(tx, &repeat).await? {
                    return users::get(tx, UserId::parse("request_id", &name)?).await;
                }
                let roles = grantable(tx, &access, "user.roles", &wanted.roles).await?;
                let new = NewUser {
                    email: &email,
                    display_name: &wanted.display_name,
                    password_hash: hash.as_deref(),
                    roles: &roles,
                    inviter,
                };
                let member = users::add(tx, &new).await?;
                tx.audit_resource(member.user.id.name());
                request_ids::remember(tx, &repeat, &member.user.id.name()).await?;
                Ok(member)
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(member_message(made)))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.user.unwrap_or_default();
        let id = UserId::parse("user.name", &wanted.name).map_err(from_error)?;
        let fields = wire::update_mask(request.update_mask, &["display_name"], |_| true).map_err(from_error)?;
        let member = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()).rehearsed(request.validate_only), async |tx| {
                let before = users::lock(tx, id).await?;
                Error::check_etag(&wanted.etag, &before.user.etag())?;
                let mut user = member_message(before.clone());
                if !fields.is_empty() {
                    user.display_name.clone_from(&wanted.display_name);
                }
                // The rules hold for the user that comes of it, not for the part that was sent.
                codec::validate(&CreateUserRequest { user: Some(user.clone()), ..Default::default() })?;
                if user.display_name == before.user.display_name {
                    return Ok(before);
                }
                users::rename(tx, &before, &user.display_name).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(member_message(member)))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("DeleteUser", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let id = UserId::parse("name", &request.name).map_err(from_error)?;
        self.store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| {
                caller.decide_again(tx).await?;
                if request_ids::answered(tx, &repeat).await?.is_some() {
                    return Ok(());
                }
                request_ids::remember(tx, &repeat, &request.name).await?;
                let member = users::lock(tx, id).await?;
                Error::check_etag(&request.etag, &member.user.etag())?;
                users::remove(tx, &member).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }

    async fn activate_user(&self, request: Request<ActivateUserRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let id = UserId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let member = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| {
                let access = caller.decide_again(tx).await?;
                // Who comes back has the roles again.
                let codes = roles::permissions_of(tx, id).await?;
                access.check_grant(codes.iter().map(String::as_str))?;
                users::activate(tx, id).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(member_message(member)))
    }

    async fn deactivate_user(&self, request: Request<DeactivateUserRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let id = UserId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let member = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| {
                caller.decide_again(tx).await?;
                users::deactivate(tx, id).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(member_message(member)))
    }

    async fn assign_role(&self, request: Request<AssignRoleRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = UserId::parse("name", &request.name).map_err(from_error)?;
        let member = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| {
                let access = caller.decide_again(tx).await?;
                users::lock(tx, id).await?;
                for role in grantable(tx, &access, "role", std::slice::from_ref(&request.role)).await? {
                    roles::assign(tx, &role, &[id]).await?;
                }
                users::get(tx, id).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(member_message(member)))
    }

    async fn unassign_role(&self, request: Request<UnassignRoleRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = UserId::parse("name", &request.name).map_err(from_error)?;
        let member = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| {
                caller.decide_again(tx).await?;
                users::lock(tx, id).await?;
                let role = roles::get(tx, &Key::parse("role", &request.role)?).await?;
                roles::unassign(tx, &role, &[id]).await?;
                users::get(tx, id).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(member_message(member)))
    }
}

impl Users {
    /// The hash of the password that a new account gets, if any. The same work is done without one, and whether or
    /// not there is an account: the time tells nothing.
    async fn hash(&self, password: String, about: &[&str]) -> Result<Option<String>> {
        let given = !password.is_empty();
        if given {
            passwords::check_policy(&password, "user.password", about)?;
        }
        let hash = self.passwords.hash(password).await?;
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

/// What tells a repeat of a request from a new one: its id, and that it says the same.
pub(super) fn repeat(method: &'static str, request: &impl prost::Message, id: &str) -> Result<RequestId> {
    RequestId::new(method, id, &request.encode_to_vec())
}
