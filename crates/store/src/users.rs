//! Users: accounts as members of one tenant. The tenant's rows carry address and name, so that no tenant reads accounts.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::id::{AccountId, RoleId, TenantId, UserId};
use virtualstack_model::user::MembershipState;
use virtualstack_model::{Error, Result};

use crate::error::from_diesel;
use crate::schema::{memberships as table, tenant_roles, user_tenant_roles, users as accounts};
use crate::tx::{AccountTx, SystemTx};

/// A member as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = table)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct User {
    pub id: UserId,
    pub account_id: AccountId,
    pub email: String,
    pub display_name: String,
    pub state: MembershipState,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl User {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }
}

/// Reads the account as a member of the tenant that its credential is for; an operator who has entered it is none.
pub async fn me(tx: &mut AccountTx, tenant: TenantId) -> Result<User> {
    let account = tx.account;
    table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::account_id.eq(account.0)))
        .select(User::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| Error::not_found("USER_NOT_FOUND", "users/me"))
}

/// Makes an account an active member with a system role; one who is a member already keeps their other roles.
pub async fn add_active(tx: &mut SystemTx, tenant: TenantId, account: AccountId, role: &str) -> Result<UserId> {
    let (email, display_name): (String, String) = accounts::table
        .find(account)
        .select((accounts::email, accounts::display_name))
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::insert_into(table::table)
        .values((
            table::tenant_id.eq(tenant.0),
            table::id.eq(UserId::new().0),
            table::account_id.eq(account.0),
            table::email.eq(email),
            table::display_name.eq(display_name),
            table::state.eq(MembershipState::Active.as_str()),
        ))
        .on_conflict_do_nothing()
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let user: UserId = table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::account_id.eq(account.0)))
        .select(table::id)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let role_id: RoleId = tenant_roles::table
        .filter(tenant_roles::tenant_id.eq(tenant.0).and(tenant_roles::display_name.eq(role)))
        .select(tenant_roles::id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| Error::not_found("ROLE_NOT_FOUND", format!("roles/{role}")))?;
    diesel::insert_into(user_tenant_roles::table)
        .values((
            user_tenant_roles::tenant_id.eq(tenant.0),
            user_tenant_roles::membership_id.eq(user.0),
            user_tenant_roles::role_id.eq(role_id.0),
        ))
        .on_conflict_do_nothing()
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(user)
}
