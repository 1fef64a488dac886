//! Password resets: one token per account, good once, for an hour. Tokens are made by the worker when it sends the mail;
//! here is what they hash to, and themselves sealed: whoever asks again within the hour is sent the same one.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::iam::user::AccountState;
use virtualstack_model::id::AccountId;
use virtualstack_model::{Error, Result};

use crate::iam::mail_tokens::MailToken;
use crate::iam::{accounts, sessions};
use crate::schema::{password_resets as table, users};
use crate::seal::MasterKey;
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

/// What tokens are sealed for.
fn purpose(account: AccountId) -> String {
    format!("password reset {account}")
}

/// A right to set a new password.
pub struct Right {
    /// To whom its token is to be sent.
    pub holder: Holder,
    pub token: MailToken,
    pub ends: DateTime<Utc>,
}

/// The right of an account that goes on, or a new one with the token that was minted for it: a second request ends nothing,
/// and makes nothing longer. None where nobody has such an account.
pub async fn begin(
    tx: &mut SystemTx,
    account: AccountId,
    key: &MasterKey,
    minted: &MailToken,
) -> Result<Option<Right>> {
    let Some(holder) = first(tx, holders().filter(users::id.eq(account))).await? else { return Ok(None) };
    // Of two at once the second one waits here.
    users::table
        .find(account)
        .select(users::id)
        .for_no_key_update()
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let kept: Option<(Option<Vec<u8>>, DateTime<Utc>)> = table::table
        .find(account.0)
        .filter(table::expires_at.gt(Utc::now()))
        .select((table::sealed_token, table::expires_at))
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    // One that was kept by the release before, or sealed with a key that is gone, cannot be sent again.
    if let Some((Some(sealed), ends)) = kept
        && let Ok(text) = key.open(&purpose(account), &sealed)
        && let Ok(text) = String::from_utf8(text)
    {
        return Ok(Some(Right { holder, token: MailToken::of(text), ends }));
    }
    let ends = Utc::now() + TERM;
    let sealed = key.seal(&purpose(account), minted.text().as_bytes())?;
    let token = (table::digest.eq(minted.digest()), table::sealed_token.eq(sealed), table::expires_at.eq(ends));
    diesel::insert_into(table::table)
        .values((table::account_id.eq(account.0), token.clone()))
        .on_conflict(table::account_id)
        .do_update()
        .set(token)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(Some(Right { holder, token: MailToken::of(minted.text().to_owned()), ends }))
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
