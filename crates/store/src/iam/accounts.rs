//! Accounts: people, their passwords, and the tenants they can enter.

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::iam::tenant::TenantState;
use virtualstack_model::iam::user::{AccountState, MembershipState};
use virtualstack_model::id::{AccountId, SessionId, TenantId};
use virtualstack_model::{Error, Result};

use crate::iam::{memberships, sessions};
use crate::schema::{memberships as members, password_resets, tenants, users as table};
use crate::tx::error::from_diesel;
use crate::tx::{AccountTx, SystemTx};

/// What a login needs to know of an account.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Credentials {
    pub id: AccountId,
    /// None before an invitation was accepted.
    pub password_hash: Option<String>,
    pub state: AccountState,
    pub last_tenant_id: Option<TenantId>,
}

/// A tenant that an account is a member of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub id: TenantId,
    pub slug: String,
    pub display_name: String,
    pub tenant_state: TenantState,
    pub member_state: MembershipState,
}

impl Choice {
    /// Whether the account can enter it now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tenant_state == TenantState::Active && self.member_state == MembershipState::Active
    }
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

/// Makes an account; whose address is known stays as it is. Without a password nobody can sign in before an invitation
/// is accepted. Says whether it was made.
pub async fn ensure(
    tx: &mut SystemTx,
    email: &str,
    display_name: &str,
    password_hash: Option<&str>,
) -> Result<(AccountId, bool)> {
    let made = diesel::insert_into(table::table)
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
    let account = account.ok_or_else(|| Error::internal("an account that was just made is gone"))?;
    Ok((account.id, made == 1))
}

/// Locks an account whose password was checked against `hash`; says whether it is still what was checked. A change of the
/// password waits then, and ends the session that comes of the check.
pub async fn lock_checked(tx: &mut SystemTx, account: AccountId, hash: Option<&str>) -> Result<bool> {
    let row = table::table.find(account).select((table::password_hash, table::state)).for_no_key_update();
    let (now, state): (Option<String>, AccountState) = row.first(tx.connection()?).await.map_err(from_diesel)?;
    Ok(state == AccountState::Active && now.as_deref() == hash)
}

/// Writes a hash of newer parameters for the same password, unless the password was changed meanwhile.
pub async fn rehash(tx: &mut SystemTx, account: AccountId, old: &str, new: &str) -> Result<()> {
    diesel::update(table::table.find(account).filter(table::password_hash.eq(old)))
        .set(table::password_hash.eq(new))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Reads the hash of the account's own password.
pub async fn password_hash(tx: &mut AccountTx) -> Result<Option<String>> {
    let account = tx.account;
    tx.as_system(async |system| {
        let hash = table::table.find(account).select(table::password_hash);
        hash.first(system.connection()?).await.map_err(from_diesel)
    })
    .await
}

/// Changes the account's own password, if it still is the one that was checked. All of its sessions but `session` end,
/// and so does a reset that somebody may have asked for.
pub async fn change_password(tx: &mut AccountTx, old: &str, new: &str, session: SessionId) -> Result<()> {
    let account = tx.account;
    tx.as_system(async |system| {
        let changed = diesel::update(table::table.find(account).filter(table::password_hash.eq(old)))
            .set((table::password_hash.eq(new), table::updated_at.eq(Utc::now())))
            .execute(system.connection()?)
            .await
            .map_err(from_diesel)?;
        if changed == 0 {
            return Err(Error::aborted("PASSWORD_CHANGED", "the password has changed meanwhile; try again with it"));
        }
        sessions::end_all(system, account, Some(session)).await?;
        let resets = diesel::delete(password_resets::table.find(account.0));
        resets.execute(system.connection()?).await.map_err(from_diesel).map(|_| ())
    })
    .await
}

/// Gives an account another password.
pub async fn set_password(tx: &mut SystemTx, account: AccountId, hash: &str) -> Result<()> {
    diesel::update(table::table.find(account))
        .set((table::password_hash.eq(hash), table::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Somebody who accepts an invitation.
#[derive(Clone, Copy, Debug)]
pub enum Invited<'a> {
    /// An account whose password was checked against this hash.
    Known { account: AccountId, password_hash: &'a str },
    /// Who has no account, or one without a password.
    New {
        /// Hash of the password to be.
        password_hash: &'a str,
        /// Name for people; that of the account, or the address, if empty.
        display_name: &'a str,
    },
}

/// Makes the account of who accepts an invitation, or locks the one that was checked; its name for people too. An
/// account that is not as it was when the password was checked or hashed is refused.
pub(crate) async fn claim(tx: &mut SystemTx, email: &str, invited: Invited<'_>) -> Result<(AccountId, String)> {
    let changed = || Error::aborted("ACCOUNT_CHANGED", "the account has changed meanwhile; repeat the call");
    let found: Option<(AccountId, Option<String>, AccountState, String)> = table::table
        .filter(table::email.eq(email))
        .select((table::id, table::password_hash, table::state, table::display_name))
        .for_no_key_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    match (invited, found) {
        (Invited::New { password_hash, display_name }, None) => {
            let name = if display_name.is_empty() { email } else { display_name };
            match ensure(tx, email, name, Some(password_hash)).await? {
                (id, true) => Ok((id, name.to_owned())),
                (_, false) => Err(changed()),
            }
        }
        (Invited::New { password_hash, display_name }, Some((id, None, AccountState::Active, name))) => {
            let name = if display_name.is_empty() { name } else { display_name.to_owned() };
            diesel::update(table::table.find(id))
                .set(table::display_name.eq(&name))
                .execute(tx.connection()?)
                .await
                .map_err(from_diesel)?;
            set_password(tx, id, password_hash).await?;
            Ok((id, name))
        }
        (Invited::Known { account, password_hash }, Some((id, Some(hash), AccountState::Active, name)))
            if id == account && hash == password_hash =>
        {
            Ok((id, name))
        }
        _ => Err(changed()),
    }
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

/// The tenants that an account is a member of, by slug, with what may keep it out.
pub async fn choices(tx: &mut SystemTx, account: AccountId) -> Result<Vec<Choice>> {
    type Row = (TenantId, String, String, TenantState, MembershipState);
    let rows: Vec<Row> = members::table
        .inner_join(tenants::table.on(tenants::id.eq(members::tenant_id)))
        .filter(members::account_id.eq(account.0))
        .filter(members::state.ne(MembershipState::Removed.as_str()))
        .order(tenants::slug)
        .select((tenants::id, tenants::slug, tenants::display_name, tenants::state, members::state))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let choice = |(id, slug, display_name, tenant_state, member_state): Row| Choice {
        id,
        slug,
        display_name,
        tenant_state,
        member_state,
    };
    Ok(rows.into_iter().map(choice).collect())
}

/// Changes the account's display name, as all of its tenants see it.
pub async fn set_display_name(tx: &mut AccountTx, display_name: &str) -> Result<()> {
    let account = tx.account;
    diesel::update(table::table.find(account))
        .set((table::display_name.eq(display_name), table::updated_at.eq(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    memberships::rename_all(tx.connection()?, account, display_name).await
}
