//! The caller's own account.

use serde_json::json;
use tonic::{Request, Response, Status};
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::log::{Change, changed_fields};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1::{
    ChangePasswordRequest, CreateUserRequest, GetMeRequest, UpdateMeRequest, User,
};
use virtualstack_store::iam::{accounts, users};
use virtualstack_store::{AccountTx, Store};

use crate::auth::limits::Limits;
use crate::auth::passwords::{self, Checked, Passwords};
use crate::call::caller::Caller;
use crate::call::codec;
use crate::call::status::from_error;
use crate::generated::virtualstack::iam::v1::me_service_server::MeService;
use crate::wire;
use crate::wire::iam::user_message;

pub(crate) struct Me {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
}

#[tonic::async_trait]
impl MeService for Me {
    async fn get_me(&self, request: Request<GetMeRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let scope = caller.account();
        let row =
            self.store.account(&scope, async |tx| users::me(tx, scope.tenant()).await).await.map_err(from_error)?;
        Ok(Response::new(user_message(row, held_roles(&caller))))
    }

    async fn update_me(&self, request: Request<UpdateMeRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.user.unwrap_or_default();
        let fields = wire::update_mask(request.update_mask, &["display_name"], |_| true).map_err(from_error)?;
        let scope = caller.account();
        let audit = caller.audit(scope.user().name());
        let row = self
            .store
            .account(&scope, async |tx| {
                tx.rehearse(request.validate_only);
                let before = users::me(tx, scope.tenant()).await?;
                if fields.is_empty() {
                    return Ok(before);
                }
                let mut user = user_message(before.clone(), Vec::new());
                user.display_name.clone_from(&wanted.display_name);
                codec::validate(&CreateUserRequest { user: Some(user), ..Default::default() })?;
                accounts::set_display_name(tx, &wanted.display_name).await?;
                let fields = changed_fields([("displayName", json!(before.display_name), json!(wanted.display_name))]);
                tx.audit(&audit, &[Change::update(before.id.name(), "USER_UPDATED", fields)]).await?;
                users::me(tx, scope.tenant()).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(user_message(row, held_roles(&caller))))
    }

    async fn change_password(&self, request: Request<ChangePasswordRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        self.set_password(&caller, request.into_inner()).await.map_err(from_error)?;
        Ok(Response::new(()))
    }
}

impl Me {
    /// Hashes take long, so the old one is read first and compared again when the new one is written.
    async fn set_password(&self, caller: &Caller, request: ChangePasswordRequest) -> Result<()> {
        let (scope, session) = (caller.account(), caller.session()?);
        // Who has got hold of a session must not guess at the password with it.
        self.limits.account("changePassword", &scope.account().to_string(), caller.info.client_address).await?;
        let read =
            async |tx: &mut AccountTx| Ok((users::me(tx, scope.tenant()).await?, accounts::password_hash(tx).await?));
        let (me, old) = self.store.account(&scope, read).await?;
        passwords::check_policy(&request.new_password, "new_password", &[&me.email, &me.display_name])?;
        let checked = self.passwords.check(request.old_password, old.clone()).await?;
        let old = old.filter(|_| checked != Checked::Wrong);
        let old = old.ok_or_else(|| Error::denied("PASSWORD_WRONG", "oldPassword: it is not the password"))?;
        let new = self.passwords.hash(request.new_password).await?;
        let audit = caller.audit(scope.user().name());
        self.store
            .account(&scope, async |tx| {
                accounts::change_password(tx, &old, &new, session).await?;
                tx.audit(&audit, &[]).await
            })
            .await
    }
}

/// Full names of the roles that a caller holds.
fn held_roles(caller: &Caller) -> Vec<String> {
    caller.principal.access.roles.iter().filter_map(|role| role.id).map(RoleId::name).collect()
}
