//! Password resets: one token per account, good once, for an hour. Tokens are made by the worker when it sends the mail;
//! here is only what they hash to.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::iam::user::AccountState;
use virtualstack_model::id::AccountId;
use virtualstack_model::{Error, Result};

use crate::iam::{accounts, sessions};
use crate::schema::{password_resets as table, users};
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// How long a token is good for.
const TERM: TimeDelta = TimeDelta::hours(1);

/// An account whose password can be reset: somebody chose one before.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = users)]
pub struct Holder {
    pub id: AccountId,
    pub email: String,
    pub display_name: String,
}

type Holders<'a> = users::BoxedQuery<'a, diesel::pg::Pg>;

/// Who has no password yet has an invitation instead.
fn holders<'a>() -> Holders<'a> {
    users::table.filter(users::state.eq(AccountState::Active).and(users::password_hash.is_not_null())).into_boxed()
}

async fn first(tx: &mut SystemTx, holders: Holders<'_>) -> Result<Option<Holder>> {
    holders.select(Holder::as_select()).first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// The account of a normalised address whose password can be reset.
pub async fn holder(tx: &mut SystemTx, email: &str) -> Result<Option<Holder>> {
    first(tx, holders().filter(users::email.eq(email))).await
}

/// Keeps the digest of a new token, which replaces an older one; to whom the token is to be sent, and when it ends. None
/// where nobody has such an account.
pub async fn begin(tx: &mut SystemTx, account: AccountId, digest: &[u8]) -> Result<Option<(Holder, DateTime<Utc>)>> {
    let Some(holder) = first(tx, holders().filter(users::id.eq(account))).await? else { return Ok(None) };
    let ends = Utc::now() + TERM;
    let token = (table::digest.eq(digest), table::expires_at.eq(ends));
    diesel::insert_into(table::table)
        .values((table::account_id.eq(account.0), token))
        .on_conflict(table::account_id)
        .do_update()
        .set(token)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(Some((holder, ends)))
}

/// Whose token it is, if it is good.
pub async fn by_token(tx: &mut SystemTx, digest: &[u8]) -> Result<Holder> {
    let account: Option<AccountId> = table::table
        .filter(table::digest.eq(digest).and(table::expires_at.gt(Utc::now())))
        .select(table::account_id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let account = account.ok_or_else(invalid)?;
    first(tx, holders().filter(users::id.eq(account))).await?.ok_or_else(invalid)
}

/// Uses a token up: the account gets the password, and all of its sessions end.
pub async fn redeem(tx: &mut SystemTx, digest: &[u8], password_hash: &str) -> Result<AccountId> {
    let account = by_token(tx, digest).await?.id;
    // Of several uses at once one deletes the row.
    let used = diesel::delete(table::table.filter(table::digest.eq(digest)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if used == 0 {
        return Err(invalid());
    }
    accounts::set_password(tx, account, password_hash).await?;
    sessions::end_all(tx, account, None).await?;
    Ok(account)
}

/// Takes back what an account may reset its password by.
pub async fn withdraw(tx: &mut SystemTx, account: AccountId) -> Result<()> {
    let reset = diesel::delete(table::table.find(account.0));
    reset.execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}

/// Forgets tokens that have ended.
pub async fn prune(tx: &mut SystemTx) -> Result<usize> {
    diesel::delete(table::table.filter(table::expires_at.le(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Why a token is worth nothing is not told.
fn invalid() -> Error {
    Error::precondition(
        "RESET_TOKEN_INVALID",
        "passwordResets",
        "the token is not valid: it has ended, or was used; ask for a new one",
    )
}
