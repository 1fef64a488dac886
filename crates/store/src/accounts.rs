//! Accounts: people, their passwords, and the tenants they can enter.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::id::{AccountId, TenantId, UserId};
use virtualstack_model::tenant::TenantState;
use virtualstack_model::user::{AccountState, MembershipState};
use virtualstack_model::{Error, Result};

use crate::error::from_diesel;
use crate::schema::{memberships, tenants, users as table};
use crate::tx::{AccountTx, SystemTx};

/// What a login needs to know of an account.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
#[expect(missing_docs, reason = "the migration says what the columns are")]
pub struct Credentials {
    pub id: AccountId,
    pub password_hash: String,
    pub state: AccountState,
    pub last_tenant_id: Option<TenantId>,
}

/// A tenant that an account can enter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct Choice {
    pub id: TenantId,
    pub slug: String,
    pub display_name: String,
}

/// An account as a member of a tenant.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct Member {
    pub user: UserId,
    pub email: String,
    pub display_name: String,
    pub state: MembershipState,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Finds the account of a normalised address.
pub async fn by_email(tx: &mut SystemTx, email: &str) -> Result<Option<Credentials>> {
    table::table
        .filter(table::email.eq(email))
        .select(Credentials::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Makes an account; whose address is known stays as it is.
pub async fn ensure(tx: &mut SystemTx, email: &str, display_name: &str, password_hash: &str) -> Result<AccountId> {
    diesel::insert_into(table::table)
        .values((
            table::id.eq(AccountId::new()),
            table::email.eq(email),
            table::display_name.eq(display_name),
            table::password_hash.eq(password_hash),
        ))
        .on_conflict_do_nothing()
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let account = by_email(tx, email).await?;
    account.map(|account| account.id).ok_or_else(|| Error::internal("an account that was just made is gone"))
}

/// Writes a password hash, e.g. one of newer parameters.
pub async fn set_password_hash(tx: &mut SystemTx, account: AccountId, hash: &str) -> Result<()> {
    diesel::update(table::table.find(account))
        .set((table::password_hash.eq(hash), table::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Remembers the tenant that was entered last.
pub async fn set_last_tenant(tx: &mut SystemTx, account: AccountId, tenant: TenantId) -> Result<()> {
    diesel::update(table::table.find(account).filter(table::last_tenant_id.is_distinct_from(tenant.0)))
        .set(table::last_tenant_id.eq(tenant.0))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// The tenants that an account can enter, by slug.
pub async fn choices(tx: &mut SystemTx, account: AccountId) -> Result<Vec<Choice>> {
    let rows: Vec<(TenantId, String, String)> = memberships::table
        .inner_join(tenants::table.on(tenants::id.eq(memberships::tenant_id)))
        .filter(memberships::account_id.eq(account.0))
        .filter(memberships::state.ne(MembershipState::Inactive.as_str()))
        .filter(tenants::state.eq(TenantState::Active.as_str()))
        .order(tenants::slug)
        .select((tenants::id, tenants::slug, tenants::display_name))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(rows.into_iter().map(|(id, slug, display_name)| Choice { id, slug, display_name }).collect())
}

/// Reads the account as a member of the tenant that its token is for.
pub async fn me(tx: &mut AccountTx, tenant: TenantId) -> Result<Member> {
    type Row = (Uuid, String, String, String, DateTime<Utc>, DateTime<Utc>, DateTime<Utc>);
    let account = tx.account;
    let row: Row = memberships::table
        .inner_join(table::table.on(table::id.eq(memberships::account_id)))
        .filter(memberships::tenant_id.eq(tenant.0).and(memberships::account_id.eq(account.0)))
        .select((
            memberships::id,
            table::email,
            table::display_name,
            memberships::state,
            memberships::created_at,
            memberships::updated_at,
            table::updated_at,
        ))
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let (user, email, display_name, state, created_at, membership_updated, account_updated) = row;
    Ok(Member {
        user: UserId(user),
        email,
        display_name,
        state: MembershipState::from_word(&state).unwrap_or(MembershipState::Inactive),
        created_at,
        updated_at: membership_updated.max(account_updated),
    })
}

/// Changes the account's display name.
pub async fn set_display_name(tx: &mut AccountTx, display_name: &str) -> Result<()> {
    let account = tx.account;
    diesel::update(table::table.find(account))
        .set((table::display_name.eq(display_name), table::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
