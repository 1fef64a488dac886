//! Sessions, refresh tokens, and what a session may do.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use ipnetwork::IpNetwork;
use uuid::Uuid;
use virtualstack_model::id::{AccountId, SessionId, TenantId, UserId};
use virtualstack_model::{Error, Result};

use crate::error::from_diesel;
use crate::schema::{refresh_tokens, sessions as table};
use crate::tx::{AccountTx, SystemTx};

/// A second use within this time from the same client is taken for a lost reply, and answered once.
const LOST_REPLY: TimeDelta = TimeDelta::seconds(10);

/// Who a session is in a tenant, and what they may do there.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "names of the contract")]
pub struct Principal {
    pub session: SessionId,
    pub account: AccountId,
    pub tenant: TenantId,
    pub user: UserId,
    /// What a decision by this principal rests on.
    pub epoch: i64,
    pub roles: Vec<String>,
    pub permissions: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct PrincipalRow {
    #[diesel(sql_type = SqlUuid)]
    account: Uuid,
    #[diesel(sql_type = SqlUuid)]
    member: Uuid,
    #[diesel(sql_type = Text)]
    tenant_state: String,
    #[diesel(sql_type = Text)]
    membership_state: String,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = Array<Text>)]
    roles: Vec<String>,
    #[diesel(sql_type = Array<Text>)]
    permissions: Vec<String>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    expires_at: DateTime<Utc>,
}

/// Resolves who a session is in a tenant.
pub async fn principal(tx: &mut SystemTx, session: SessionId, tenant: TenantId) -> Result<Principal> {
    let row: Option<PrincipalRow> = diesel::sql_query(
        "SELECT s.account_id AS account, m.id AS member, t.state AS tenant_state, m.state AS membership_state, \
            t.authz_epoch AS epoch, s.created_at, s.expires_at, \
            ARRAY (SELECT r.display_name FROM iam.user_tenant_roles ur \
                   JOIN iam.tenant_roles r ON r.tenant_id = ur.tenant_id AND r.id = ur.role_id \
                   WHERE ur.tenant_id = m.tenant_id AND ur.membership_id = m.id ORDER BY 1) AS roles, \
            ARRAY (SELECT DISTINCT rp.permission FROM iam.user_tenant_roles ur \
                   JOIN iam.tenant_role_permissions rp ON rp.tenant_id = ur.tenant_id AND rp.role_id = ur.role_id \
                   WHERE ur.tenant_id = m.tenant_id AND ur.membership_id = m.id ORDER BY 1) AS permissions \
         FROM iam.sessions s JOIN iam.users u ON u.id = s.account_id \
         JOIN iam.memberships m ON m.account_id = s.account_id AND m.tenant_id = $2 \
         JOIN iam.tenants t ON t.id = m.tenant_id \
         WHERE s.id = $1 AND s.ended_at IS NULL AND s.expires_at > now() AND u.state = 'ACTIVE'",
    )
    .bind::<SqlUuid, _>(session.0)
    .bind::<SqlUuid, _>(tenant.0)
    .get_result(tx.connection()?)
    .await
    .optional()
    .map_err(from_diesel)?;
    let row = row.ok_or_else(|| Error::unauthenticated("SESSION_ENDED", "the session has ended; sign in again"))?;
    if row.tenant_state != "ACTIVE" {
        return Err(Error::denied("TENANT_SUSPENDED", "the tenant is suspended"));
    }
    if row.membership_state != "ACTIVE" {
        return Err(Error::denied("MEMBERSHIP_INACTIVE", "the membership in this tenant is not active"));
    }
    Ok(Principal {
        session,
        account: AccountId(row.account),
        tenant,
        user: UserId(row.member),
        epoch: row.epoch,
        roles: row.roles,
        permissions: row.permissions,
        created_at: row.created_at,
        expires_at: row.expires_at,
    })
}

/// Starts a session.
pub async fn start(tx: &mut SystemTx, account: AccountId, lifetime: TimeDelta) -> Result<SessionId> {
    let id = SessionId::new();
    diesel::insert_into(table::table)
        .values((table::id.eq(id.0), table::account_id.eq(account.0), table::expires_at.eq(Utc::now() + lifetime)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(id)
}

/// Lets a session live on.
pub async fn extend(tx: &mut SystemTx, session: SessionId, lifetime: TimeDelta) -> Result<()> {
    diesel::update(table::table.find(session.0))
        .set(table::expires_at.eq(Utc::now() + lifetime))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Ends a session of the account.
pub async fn end(tx: &mut AccountTx, session: SessionId) -> Result<()> {
    diesel::update(table::table.find(session.0).filter(table::ended_at.is_null()))
        .set(table::ended_at.eq(Utc::now()))
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
    type Row = (Uuid, Uuid, Option<DateTime<Utc>>, Option<IpNetwork>, bool);
    let row: Option<Row> = refresh_tokens::table
        .filter(refresh_tokens::digest.eq(digest))
        .select((
            refresh_tokens::session_id,
            refresh_tokens::tenant_id,
            refresh_tokens::used_at,
            refresh_tokens::used_from,
            refresh_tokens::repeated,
        ))
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some((session, tenant, used_at, used_from, repeated)) = row else { return Ok(Redeemed::Unknown) };
    let client = client.map(IpNetwork::from);
    let lost_reply = used_at.is_some_and(|used| Utc::now() - used < LOST_REPLY) && used_from == client && !repeated;
    if used_at.is_some() && !lost_reply {
        diesel::update(table::table.find(session))
            .set(table::ended_at.eq(Utc::now()))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        return Ok(Redeemed::Reused);
    }
    diesel::update(refresh_tokens::table.find(digest))
        .set((
            refresh_tokens::used_at.eq(used_at.unwrap_or_else(Utc::now)),
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
