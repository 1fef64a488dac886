//! Principals: the account, membership and roles behind a credential in a tenant, and the epoch that they rest on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bytea, Cidr, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use virtualstack_model::credential::Credential;
use virtualstack_model::iam::access::{Access, HeldRole, KeyLimit};
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::tenant::TenantState;
use virtualstack_model::iam::user::{self, AccountState, MembershipState};
use virtualstack_model::id::{AccountId, ApiKeyId, SessionId, TenantId, UserId};
use virtualstack_model::log::Actor;
use virtualstack_model::{Error, Result};

use crate::iam::epoch;
use crate::schema::permissions;
use crate::tx::error::{from_diesel, key_invalid, session_ended};
use crate::tx::scope::TenantScope;
use crate::tx::{Mode, SystemTx, TenantTx, Write};

/// A verified caller.
#[derive(Clone, Debug)]
pub struct Principal {
    pub access: Access,
    /// What they were authenticated by.
    pub credential: Credential,
    /// What a decision by this principal rests on.
    pub epoch: i64,
    /// When session or key was made.
    pub created_at: DateTime<Utc>,
    /// When session or key ends, if it does.
    pub expires_at: Option<DateTime<Utc>>,
    /// Where the credential may be used from; everywhere, if empty.
    allowed_cidrs: Vec<IpNetwork>,
}

impl Principal {
    /// Who acts, for audit rows.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let Access { account, user, .. } = self.access;
        Actor::User { account, user: Some(user), credential: Some(self.credential.clone()) }
    }

    /// Whether the credential may be used from this address.
    #[must_use]
    pub fn may_come_from(&self, client: Option<IpAddr>) -> bool {
        self.allowed_cidrs.is_empty()
            || client.is_some_and(|client| self.allowed_cidrs.iter().any(|network| network.contains(client)))
    }
}

/// The roles of membership `m` in its tenant `home`, with their permissions. Platform permissions count in the
/// provider's tenant only, whatever a role says.
const ROLES: &str = "(SELECT coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'display_name', r.display_name, \
        'permissions', ARRAY (SELECT rp.permission FROM iam.tenant_role_permissions rp \
                              WHERE rp.tenant_id = r.tenant_id AND rp.role_id = r.id \
                                AND (home.slug = 'provider' OR rp.permission NOT LIKE 'platform:%'))) \
        ORDER BY r.display_name), '[]') \
     FROM iam.user_tenant_roles ur JOIN iam.tenant_roles r ON r.tenant_id = ur.tenant_id AND r.id = ur.role_id \
     WHERE ur.tenant_id = m.tenant_id AND ur.membership_id = m.id)";

#[derive(Deserialize)]
struct RoleRow {
    id: RoleId,
    display_name: String,
    permissions: BTreeSet<String>,
}

fn roles(json: Value) -> Result<Vec<HeldRole>> {
    let rows: Vec<RoleRow> = serde_json::from_value(json).map_err(Error::internal)?;
    let held =
        |row: RoleRow| HeldRole { id: Some(row.id), display_name: row.display_name, permissions: row.permissions };
    Ok(rows.into_iter().map(held).collect())
}

#[derive(QueryableByName)]
struct MemberRow {
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = SqlUuid)]
    account: Uuid,
    #[diesel(sql_type = SqlUuid)]
    member: Uuid,
    #[diesel(sql_type = Text)]
    account_state: AccountState,
    #[diesel(sql_type = Text)]
    tenant_state: TenantState,
    #[diesel(sql_type = Text)]
    member_state: MembershipState,
    #[diesel(sql_type = Jsonb)]
    roles: Value,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

impl MemberRow {
    fn access(self) -> Result<Access> {
        Ok(Access {
            tenant: TenantId(self.tenant),
            tenant_state: self.tenant_state,
            account: AccountId(self.account),
            account_state: self.account_state,
            user: UserId(self.member),
            member_state: self.member_state,
            roles: roles(self.roles)?,
            key: None,
        })
    }
}

/// Columns of [`MemberRow`], of account `u`, membership `m` in tenant `home`, and the tenant `t` that is entered.
fn member_columns() -> String {
    format!(
        "t.id AS tenant, u.id AS account, m.id AS member, u.state AS account_state, t.state AS tenant_state, \
         m.state AS member_state, {ROLES} AS roles, \
         CASE WHEN home.id = t.id THEN t.authz_epoch ELSE t.authz_epoch + home.authz_epoch END AS epoch"
    )
}

#[derive(QueryableByName)]
struct SessionRow {
    #[diesel(embed)]
    member: MemberRow,
    #[diesel(sql_type = Nullable<Text>)]
    support_reason: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    expires_at: DateTime<Utc>,
}

/// Resolves who a session is in a tenant. The states of tenant and membership are part of the answer.
pub async fn of_session(tx: &mut SystemTx, session: SessionId, tenant: TenantId) -> Result<Principal> {
    let row: Option<SessionRow> = diesel::sql_query(format!(
        "SELECT {}, s.support_reason, s.created_at, s.expires_at \
         FROM iam.sessions s JOIN iam.users u ON u.id = s.account_id JOIN iam.tenants t ON t.id = $2 \
         JOIN iam.tenants home ON CASE WHEN s.support_tenant_id IS NULL THEN home.id = t.id ELSE home.slug = 'provider' END \
         JOIN iam.memberships m ON m.tenant_id = home.id AND m.account_id = s.account_id \
         WHERE s.id = $1 AND iam.goes_on(s) AND coalesce(s.support_tenant_id, t.id) = t.id",
        member_columns()
    ))
    .bind::<SqlUuid, _>(session.0)
    .bind::<SqlUuid, _>(tenant.0)
    .get_result(tx.connection()?)
    .await
    .optional()
    .map_err(from_diesel)?;
    let row = row.ok_or_else(session_ended)?;
    let epoch = row.member.epoch;
    let mut access = row.member.access()?;
    if access.account_state != AccountState::Active {
        return Err(session_ended());
    }
    let credential = match row.support_reason {
        None => Credential::Session(session),
        Some(reason) => {
            access.roles = support_role(tx, &access.roles).await?;
            Credential::Support { session, reason: reason.into() }
        }
    };
    Ok(Principal {
        access,
        credential,
        epoch,
        created_at: row.created_at,
        expires_at: Some(row.expires_at),
        allowed_cidrs: Vec::new(),
    })
}

/// What an operator with these roles in the provider's tenant has in another one. Who may not enter tenants any more has
/// no session there any more.
async fn support_role(tx: &mut SystemTx, roles: &[HeldRole]) -> Result<Vec<HeldRole>> {
    if !roles.iter().any(|role| role.permissions.contains(user::ENTER_TENANTS)) {
        return Err(session_ended());
    }
    let codes: Vec<String> =
        permissions::table.select(permissions::code).load(tx.connection()?).await.map_err(from_diesel)?;
    let permissions = codes.into_iter().filter(|code| user::support_grants(code)).collect();
    Ok(vec![HeldRole { id: None, display_name: user::SUPPORT.to_owned(), permissions }])
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(embed)]
    member: MemberRow,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Array<Text>)]
    permissions: Vec<String>,
    #[diesel(sql_type = Array<Cidr>)]
    allowed_cidrs: Vec<IpNetwork>,
    #[diesel(sql_type = Bytea)]
    digest: Vec<u8>,
    #[diesel(sql_type = Nullable<Bytea>)]
    previous_digest: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    previous_expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Integer)]
    generation: i32,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
}

/// Reads what a key is, by a condition on its row `k`.
fn key(condition: &str) -> String {
    format!(
        "SELECT {}, k.id, k.permissions, k.allowed_cidrs, k.digest, k.previous_digest, k.previous_expires_at, \
            k.generation, k.version, k.created_at, k.expires_at \
         FROM iam.api_keys k JOIN iam.memberships m ON m.tenant_id = k.tenant_id AND m.id = k.owner_id \
         JOIN iam.users u ON u.id = m.account_id JOIN iam.tenants t ON t.id = k.tenant_id JOIN iam.tenants home ON home.id = t.id \
         WHERE {condition}",
        member_columns()
    )
}

impl KeyRow {
    /// What the key may do. Whether its time is over is for the caller to see.
    fn access(member: MemberRow, id: ApiKeyId, permissions: Vec<String>) -> Result<Access> {
        let mut access = member.access()?;
        access.key = Some(KeyLimit { id, permissions: permissions.into_iter().collect() });
        Ok(access)
    }
}

/// Resolves whom an API key acts for, by its public part and the SHA-256 of its secret. Every way in which it can be
/// wrong looks the same.
pub async fn of_key(tx: &mut SystemTx, public_id: &str, digest: &[u8]) -> Result<Principal> {
    let row: Option<KeyRow> = diesel::sql_query(key("k.public_id = $1"))
        .bind::<Text, _>(public_id)
        .get_result(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let row = row.ok_or_else(key_invalid)?;
    let now = Utc::now();
    let overlaps = row.previous_expires_at.is_some_and(|end| end > now);
    let previous = row.previous_digest.filter(|_| overlaps).unwrap_or_default();
    // Both are compared, whichever fits.
    let (current, previous) = (row.digest.ct_eq(digest), previous.ct_eq(digest));
    let mut expires_at = row.expires_at;
    let generation = if bool::from(current) {
        row.generation
    } else if bool::from(previous) {
        expires_at = expires_at.into_iter().chain(row.previous_expires_at).min();
        row.generation - 1
    } else {
        return Err(key_invalid());
    };
    let epoch = row.member.epoch;
    let id = ApiKeyId(row.id);
    let access = KeyRow::access(row.member, id, row.permissions)?;
    if expires_at.is_some_and(|end| end <= now) || access.account_state != AccountState::Active {
        return Err(key_invalid());
    }
    Ok(Principal {
        access,
        credential: Credential::ApiKey { id, generation, version: row.version },
        epoch,
        created_at: row.created_at,
        expires_at,
        allowed_cidrs: row.allowed_cidrs,
    })
}

/// Makes changes of access in the tenant wait for one another, and reads anew what the caller may do: they may have
/// waited behind a change that took it from them. Whoever changes access begins with this.
pub async fn reauthorize(tx: &mut TenantTx<Write>, scope: &TenantScope) -> Result<Access> {
    epoch::lock(tx).await?;
    let decide = async |system: &mut SystemTx| match &scope.credential {
        Credential::Session(session) | Credential::Support { session, .. } => {
            Ok(of_session(system, *session, scope.tenant).await?.access)
        }
        Credential::ApiKey { id, .. } => {
            let row: Option<KeyRow> = diesel::sql_query(key("k.id = $1"))
                .bind::<SqlUuid, _>(id.0)
                .get_result(system.connection()?)
                .await
                .optional()
                .map_err(from_diesel)?;
            let row = row.ok_or_else(key_invalid)?;
            KeyRow::access(row.member, *id, row.permissions)
        }
    };
    let access = tx.as_system(decide).await?;
    tx.access = Some(access.clone());
    Ok(access)
}

/// What decides the access of a member of the tenant; none where there is no such member.
pub async fn of_member<M: Mode>(tx: &mut TenantTx<M>, user: UserId) -> Result<Option<Access>> {
    let tenant = tx.tenant();
    // The state of the account decides too, and tenants do not see accounts.
    tx.as_system(async |system: &mut SystemTx| member(system, tenant, user).await).await
}

/// The same for the system.
pub(crate) async fn member(tx: &mut SystemTx, tenant: TenantId, user: UserId) -> Result<Option<Access>> {
    let sql = format!(
        "SELECT {} FROM iam.memberships m JOIN iam.users u ON u.id = m.account_id \
         JOIN iam.tenants t ON t.id = m.tenant_id JOIN iam.tenants home ON home.id = t.id \
         WHERE m.tenant_id = $1 AND m.id = $2 AND m.state <> 'REMOVED'",
        member_columns()
    );
    let read = diesel::sql_query(sql).bind::<SqlUuid, _>(tenant.0).bind::<SqlUuid, _>(user.0);
    let row = read.get_result::<MemberRow>(tx.connection()?).await.optional().map_err(from_diesel)?;
    row.map(MemberRow::access).transpose()
}
