//! The caller's own account.

use serde_json::json;
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::log::{Change, changed_fields};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1::{
    ChangePasswordRequest, CreateUserRequest, GetMeRequest, UpdateMeRequest, User,
};
use virtualstack_store::iam::{accounts, users};
use virtualstack_store::{AccountTx, Store};

use super::users::user_message;
use crate::auth::limits::Limits;
use crate::auth::passwords::{self, Checked, Passwords};
use crate::call::AccountCall;
use crate::call::caller::AccountCaller;
use crate::call::codec;
use crate::call::message::update_mask;
use crate::generated::virtualstack::iam::v1::MeService;
use crate::shares::Holder;

pub(crate) struct Me {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
}

impl MeService for Me {
    async fn get_me(&self, call: AccountCall<GetMeRequest>) -> Result<User> {
        let scope = call.account();
        let row = self.store.account(&scope, async |tx| users::me(tx, scope.tenant()).await).await?;
        Ok(user_message(row, held_roles(&call)))
    }

    async fn update_me(&self, call: AccountCall<UpdateMeRequest>) -> Result<User> {
        let desired = call.request.user.clone().unwrap_or_default();
        let fields = update_mask(call.request.update_mask.clone(), &["display_name"], |_| true)?;
        let scope = call.account();
        let update = async |tx: &mut AccountTx| {
            let before = users::me(tx, scope.tenant()).await?;
            if fields.is_empty() {
                return Ok(before);
            }
            let mut user = user_message(before.clone(), Vec::new());
            user.display_name.clone_from(&desired.display_name);
            codec::validate(&CreateUserRequest { user: Some(user), ..Default::default() })?;
            accounts::set_display_name(tx, &desired.display_name).await?;
            let fields = changed_fields([("displayName", json!(before.display_name), json!(desired.display_name))]);
            let change = Change::update(before.id.name(), "USER_UPDATED", fields);
            tx.audit(&call.audit(scope.user().name()), &[change]).await?;
            users::me(tx, scope.tenant()).await
        };
        let row = call.write(&self.store, update).await?;
        Ok(user_message(row, held_roles(&call)))
    }

    /// Hashes take long, so the old one is read first and compared again when the new one is written.
    async fn change_password(&self, call: AccountCall<ChangePasswordRequest>) -> Result<()> {
        let (scope, session) = (call.account(), call.session()?);
        // Who has got hold of a session must not guess at the password with it.
        self.limits.account("changePassword", &scope.account().to_string(), call.info.client_address).await?;
        let read =
            async |tx: &mut AccountTx| Ok((users::me(tx, scope.tenant()).await?, accounts::password_hash(tx).await?));
        let (me, old) = self.store.account(&scope, read).await?;
        let ChangePasswordRequest { old_password, new_password } = call.request.clone();
        passwords::check_policy(&new_password, "new_password", &[&me.email, &me.display_name])?;
        let checked = self.passwords.check(old_password, old.clone(), Holder::Member(call.user())).await?;
        let old = old.filter(|_| checked != Checked::Wrong);
        let old = old.ok_or_else(|| Error::denied("PASSWORD_WRONG", "oldPassword: it is not the password"))?;
        let new = self.passwords.hash(new_password, Holder::Member(call.user())).await?;
        let change = async |tx: &mut AccountTx| {
            accounts::change_password(tx, &old, &new, session).await?;
            tx.audit(&call.audit(scope.user().name()), &[]).await
        };
        call.write(&self.store, change).await
    }
}

/// Full names of the roles that a caller holds.
fn held_roles(caller: &AccountCaller) -> Vec<String> {
    caller.access().roles.iter().filter_map(|role| role.id).map(RoleId::name).collect()
}
