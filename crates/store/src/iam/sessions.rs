//! Sessions, refresh tokens, and what a session may do.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::{exists, now, sql};
use diesel::expression::SqlLiteral;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use ipnetwork::IpNetwork;
use uuid::Uuid;
use virtualstack_model::id::{AccountId, SessionId, TenantId};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{refresh_tokens, sessions as table};
use crate::tx::error::{from_diesel, session_ended};
use crate::tx::{AccountTx, SystemTx};

/// A second use within this time from the same client is taken for a lost reply, and answered once.
const LOST_REPLY: &str = "coalesce(used_at > now() - interval '10 seconds', false)";

/// A tenant that an operator enters, and why.
#[derive(Clone, Debug)]
pub struct Support {
    pub tenant: TenantId,
    pub reason: String,
    /// The session that it is begun from, and ends with.
    pub parent: SessionId,
}

/// When a lifetime that begins now is over, by the database's clock: all times of sessions and refresh tokens are.
fn in_time(lifetime: TimeDelta) -> SqlLiteral<Timestamptz> {
    sql(&format!("now() + interval '{} milliseconds'", lifetime.num_milliseconds()))
}

/// It is over now.
fn ended() -> SqlLiteral<Nullable<Timestamptz>> {
    sql("now()")
}

/// Starts a session, maybe of an operator in a tenant that is not theirs.
pub async fn start(
    tx: &mut SystemTx,
    account: AccountId,
    lifetime: TimeDelta,
    client: Option<IpAddr>,
    support: Option<&Support>,
) -> Result<SessionId> {
    let id = SessionId::new();
    diesel::insert_into(table::table)
        .values((
            table::id.eq(id.0),
            table::account_id.eq(account.0),
            table::expires_at.eq(in_time(lifetime)),
            table::client_address.eq(client.map(IpNetwork::from)),
            table::support_tenant_id.eq(support.map(|support| support.tenant.0)),
            table::support_reason.eq(support.map(|support| &support.reason)),
            table::parent_id.eq(support.map(|support| support.parent.0)),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(id)
}

/// Holds a session until the end of the transaction: it cannot end before what is begun from it is there to end too.
pub async fn hold(tx: &mut SystemTx, session: SessionId) -> Result<()> {
    let going_on = table::table.find(session.0).filter(table::ended_at.is_null().and(table::expires_at.gt(now)));
    let held = going_on.select(table::id).for_share().execute(tx.connection()?).await.map_err(from_diesel)?;
    if held == 1 { Ok(()) } else { Err(session_ended()) }
}

/// Lets a session live on. An operator's in a tenant that is not theirs ends when it was to end.
pub async fn extend(tx: &mut SystemTx, session: SessionId, lifetime: TimeDelta, client: Option<IpAddr>) -> Result<()> {
    diesel::update(table::table.find(session.0).filter(table::support_tenant_id.is_null()))
        .set((table::expires_at.eq(in_time(lifetime)), table::client_address.eq(client.map(IpNetwork::from))))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// A session as its account sees it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Session {
    pub id: SessionId,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    client_address: Option<IpNetwork>,
    pub support_tenant_id: Option<TenantId>,
    pub support_reason: Option<String>,
}

impl Session {
    /// The address of the last login or refresh; of the login alone for support sessions, which no refresh extends.
    #[must_use]
    pub fn client_address(&self) -> Option<IpAddr> {
        self.client_address.map(|network| network.ip())
    }
}

/// A session that is not there for the account.
#[must_use]
pub fn missing(id: SessionId) -> Error {
    Error::not_found("SESSION_NOT_FOUND", id.name())
}

/// Sessions of an account that go on.
fn open<'a>(account: AccountId) -> table::BoxedQuery<'a, Pg> {
    table::table.filter(table::account_id.eq(account.0)).filter(sql::<Bool>("iam.goes_on(sessions)")).into_boxed()
}

/// Reads a session of the account.
pub async fn get(tx: &mut AccountTx, session: SessionId) -> Result<Session> {
    let found = open(tx.account).filter(table::id.eq(session.0)).select(Session::as_select());
    let found = found.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    found.ok_or_else(|| missing(session))
}

/// What filters and orders of sessions may name.
const LISTING: Listing<table::table> = Listing {
    collection: SessionId::COLLECTION,
    id: Field::id("name", SessionId::COLLECTION, &table::id),
    fields: &[
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("expireTime", &table::expires_at).sorted(),
    ],
};

/// Lists the sessions of the account.
pub async fn list(tx: &mut AccountTx, request: &ListRequest) -> Result<Listed<Session>> {
    let account = tx.account;
    LISTING.read(tx, request, "", move || open(account)).await
}

/// Ends a session of the account, and what was begun from it. Says whether there was one to end.
pub async fn end(tx: &mut AccountTx, session: SessionId) -> Result<bool> {
    let account = tx.account;
    let going_on = table::account_id.eq(account.0).and(table::ended_at.is_null()).and(table::expires_at.gt(now));
    let ended = diesel::update(table::table.find(session.0).filter(going_on))
        .set(table::ended_at.eq(ended()))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(ended > 0)
}

/// Ends all sessions of an account, or all but one. Their refresh tokens end with them.
pub async fn end_all(tx: &mut SystemTx, account: AccountId, but: Option<SessionId>) -> Result<()> {
    diesel::update(table::table.filter(table::account_id.eq(account.0).and(table::ended_at.is_null())))
        .filter(table::id.nullable().is_distinct_from(but.map(|session| session.0)))
        .set(table::ended_at.eq(ended()))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Keeps the digest of a new refresh token.
pub async fn add_refresh_token(tx: &mut SystemTx, session: SessionId, tenant: TenantId, digest: &[u8]) -> Result<()> {
    diesel::insert_into(refresh_tokens::table)
        .values((
            refresh_tokens::digest.eq(digest),
            refresh_tokens::session_id.eq(session.0),
            refresh_tokens::tenant_id.eq(tenant.0),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// What the use of a refresh token comes to.
#[derive(Clone, Debug)]
pub enum Redeemed {
    /// New tokens may be given.
    Good {
        /// The session it belongs to.
        session: SessionId,
        /// The tenant it is for.
        tenant: TenantId,
    },
    /// It was used before: somebody else may hold it, so the session was ended.
    Reused,
    /// Nobody knows it, or its session has ended.
    Unknown,
}

/// Whose refresh token it is.
pub async fn owner(tx: &mut SystemTx, digest: &[u8]) -> Result<Option<AccountId>> {
    refresh_tokens::table
        .inner_join(table::table.on(table::id.eq(refresh_tokens::session_id)))
        .filter(refresh_tokens::digest.eq(digest))
        .select(table::account_id)
        .first(tx.connection()?)
        .await
        .optional()
        .map(|account| account.map(AccountId))
        .map_err(from_diesel)
}

/// Uses a refresh token up. The caller commits whatever comes of it.
pub async fn redeem(tx: &mut SystemTx, digest: &[u8], client: Option<IpAddr>) -> Result<Redeemed> {
    type Row = (Uuid, Uuid, Option<DateTime<Utc>>, bool, Option<IpNetwork>, bool);
    let row: Option<Row> = refresh_tokens::table
        .filter(refresh_tokens::digest.eq(digest))
        .select((
            refresh_tokens::session_id,
            refresh_tokens::tenant_id,
            refresh_tokens::used_at,
            sql::<Bool>(LOST_REPLY),
            refresh_tokens::used_from,
            refresh_tokens::repeated,
        ))
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some((session, tenant, used_at, just_used, used_from, repeated)) = row else { return Ok(Redeemed::Unknown) };
    let client = client.map(IpNetwork::from);
    let mut lost_reply = just_used && used_from == client && !repeated;
    if let Some(used_at) = used_at.filter(|_| lost_reply) {
        // Whoever has used a later one has got the reply. A token is made in the transaction that uses the one before it up, at
        // the same time by the same clock.
        let later = refresh_tokens::table
            .filter(refresh_tokens::session_id.eq(session).and(refresh_tokens::digest.ne(digest)))
            .filter(refresh_tokens::created_at.ge(used_at).and(refresh_tokens::used_at.is_not_null()));
        let arrived: bool = diesel::select(exists(later)).get_result(tx.connection()?).await.map_err(from_diesel)?;
        lost_reply = !arrived;
    }
    if used_at.is_some() && !lost_reply {
        diesel::update(table::table.find(session))
            .set(table::ended_at.eq(ended()))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        return Ok(Redeemed::Reused);
    }
    diesel::update(refresh_tokens::table.find(digest))
        .set((
            refresh_tokens::used_at.eq(sql::<Nullable<Timestamptz>>("coalesce(used_at, now())")),
            refresh_tokens::used_from.eq(client),
            refresh_tokens::repeated.eq(used_at.is_some()),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(Redeemed::Good { session: SessionId(session), tenant: TenantId(tenant) })
}

/// Forgets up to `limit` sessions that ended or ran out before `before`, with their refresh tokens.
pub async fn prune(tx: &mut SystemTx, before: DateTime<Utc>, limit: i64) -> Result<()> {
    let gone: Vec<Uuid> = table::table
        .filter(table::expires_at.lt(before).or(table::ended_at.lt(before)))
        .limit(limit)
        .select(table::id)
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::delete(refresh_tokens::table.filter(refresh_tokens::session_id.eq_any(&gone)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::delete(table::table.filter(table::id.eq_any(&gone)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
