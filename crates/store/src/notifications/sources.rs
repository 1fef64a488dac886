//! What notifications are made of: the change log, keys that end soon, and quotas that are nearly used. A task of the worker reads them;
//! of each thing a member is told once, however often it is read.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::iam::user::MembershipState;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::language::Language;
use virtualstack_model::notifications::id::NotificationId;
use virtualstack_model::notifications::kind::{Channel, NotificationKind};

use crate::notifications::preferences::{self, Preferences};
use crate::schema::{changes, cursors, invitations, memberships, notices as table, quota_marks as marks};
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// Changes of a tenant that are read at once, and positions that are passed at most.
const BATCH: i64 = 500;
const SPAN: i64 = 10_000;

/// Reasons of changes that somebody is told of.
const TOLD: [&str; 3] = ["TICKET_ANSWERED", "OPERATION_FAILED", "INVITATION_ACCEPTED"];

/// A change that somebody is told of.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = changes)]
pub struct Told {
    pub position: i64,
    pub reason: String,
    pub resource: String,
    pub message: String,
    pub after: Option<Value>,
    pub fields: Value,
}

/// A notification to make.
#[derive(Clone, Debug)]
pub struct NewNotification {
    pub kind: NotificationKind,
    /// What it is made of.
    pub source: String,
    pub title: String,
    pub body: String,
    pub resource: String,
}

/// Who is told.
#[derive(Clone, Debug)]
pub struct Recipient {
    tenant: TenantId,
    user: UserId,
    account: Uuid,
    preferences: Preferences,
}

impl Recipient {
    /// The language that they are written to in.
    #[must_use]
    pub fn language(&self) -> Language {
        self.preferences.language
    }
}

/// An active member who is told something; none where there is none any more.
pub async fn recipient(tx: &mut SystemTx, tenant: TenantId, user: UserId) -> Result<Option<Recipient>> {
    let account: Option<Uuid> = memberships::table
        .filter(memberships::tenant_id.eq(tenant.0).and(memberships::id.eq(user)))
        .filter(memberships::state.eq(MembershipState::Active.as_str()))
        .select(memberships::account_id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(account) = account else { return Ok(None) };
    Ok(Some(Recipient { tenant, user, account, preferences: preferences::of(tx, tenant, user).await? }))
}

/// Tenants whose change log has grown since it was read, and up to where.
pub async fn grown(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, i64, i64)>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        tenant_id: Uuid,
        #[diesel(sql_type = BigInt)]
        read: i64,
        #[diesel(sql_type = BigInt)]
        head: i64,
    }
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT h.tenant_id, coalesce(c.position, 0) AS read, h.position AS head FROM audit.change_heads h \
         LEFT JOIN notifications.cursors c ON c.tenant_id = h.tenant_id \
         WHERE h.position > coalesce(c.position, 0) ORDER BY h.changed_at LIMIT $1",
    )
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    Ok(rows.into_iter().map(|row| (TenantId(row.tenant_id), row.read, row.head)).collect())
}

/// Changes of a tenant since a position that somebody is told of; and up to where the log is read with them.
pub async fn read(tx: &mut SystemTx, tenant: TenantId, read: i64, head: i64) -> Result<(Vec<Told>, i64)> {
    let end = head.min(read + SPAN);
    let rows: Vec<Told> = changes::table
        .filter(changes::tenant_id.eq(tenant.0).and(changes::position.gt(read)).and(changes::position.le(end)))
        .filter(changes::reason.eq_any(TOLD))
        .order(changes::position)
        .limit(BATCH)
        .select(Told::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == BATCH);
    let until = rows.last().filter(|_| full).map_or(end, |last| last.position);
    Ok((rows, until))
}

/// Remembers up to where the change log of a tenant is read.
pub async fn remember(tx: &mut SystemTx, tenant: TenantId, until: i64) -> Result<()> {
    diesel::insert_into(cursors::table)
        .values((cursors::tenant_id.eq(tenant), cursors::position.eq(until)))
        .on_conflict(cursors::tenant_id)
        .do_update()
        .set(cursors::position.eq(until))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Makes a notification, once, told in the ways that its recipient wants.
pub async fn make(tx: &mut SystemTx, to: &Recipient, new: &NewNotification) -> Result<()> {
    let wants = |channel| to.preferences.wants(new.kind, channel);
    diesel::insert_into(table::table)
        .values((
            table::account_id.eq(to.account),
            table::id.eq(NotificationId::new()),
            table::tenant_id.eq(to.tenant),
            table::user_id.eq(to.user),
            table::kind.eq(new.kind),
            table::source.eq(&new.source),
            table::title.eq(&new.title),
            table::body.eq(&new.body),
            table::severity.eq(new.kind.severity()),
            table::resource.eq(&new.resource),
            table::in_app.eq(wants(Channel::InApp)),
            table::mail_due.eq(wants(Channel::Email)),
        ))
        .on_conflict_do_nothing()
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// An API key that ends soon.
#[derive(Clone, Debug, QueryableByName)]
pub struct ExpiringKey {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub owner_id: Uuid,
    #[diesel(sql_type = Text)]
    pub display_name: String,
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
    /// The key and its end: one that is put off is another.
    #[diesel(sql_type = Text)]
    pub source: String,
}

/// Keys that end within days, and whose owner was not told of that end.
pub async fn expiring_keys(tx: &mut SystemTx, days: i64, limit: i64) -> Result<Vec<ExpiringKey>> {
    diesel::sql_query(
        "SELECT k.* FROM ( \
            SELECT tenant_id, id, owner_id, display_name, expires_at, \
                'apiKeys/' || id || ' ' || extract(epoch FROM expires_at) AS source FROM iam.api_keys \
            WHERE expires_at > now() AND expires_at < now() + $1 * interval '1 day') k \
         JOIN iam.memberships m ON m.tenant_id = k.tenant_id AND m.id = k.owner_id AND m.state = 'ACTIVE' \
         WHERE NOT EXISTS (SELECT FROM notifications.notices n \
            WHERE n.tenant_id = k.tenant_id AND n.user_id = k.owner_id AND n.source = k.source) \
         ORDER BY k.expires_at LIMIT $2",
    )
    .bind::<BigInt, _>(days)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await
    .map_err(from_diesel)
}

/// An amount of a quota that is nearly used.
#[derive(Clone, Debug, QueryableByName)]
pub struct NearlyUsed {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = Text)]
    pub amount: String,
    #[diesel(sql_type = BigInt)]
    pub used: i64,
    #[diesel(sql_type = BigInt)]
    pub limit: i64,
}

/// Each amount of a quota, as the contract calls it.
const AMOUNTS: &str = "compute.quotas q CROSS JOIN LATERAL (VALUES ('vms', q.vms, q.max_vms), ('vcpus', q.vcpus, q.max_vcpus), \
    ('memoryMib', q.memory_mib, q.max_memory_mib), ('diskGib', q.disk_gib, q.max_disk_gib), \
    ('snapshots', q.snapshots, q.max_snapshots), ('templates', q.templates, q.max_templates), \
    ('templateBytes', q.template_bytes, q.max_template_bytes)) a (amount, used, \"limit\")";

/// Amounts that have come to 90 % of their limits since they were told. Those that have fallen below 80 % are forgotten, and told
/// again when they rise.
pub async fn nearly_used(tx: &mut SystemTx, limit: i64) -> Result<Vec<NearlyUsed>> {
    let forget = format!(
        "DELETE FROM notifications.quota_marks m USING {AMOUNTS} WHERE q.tenant_id = m.tenant_id AND a.amount = m.amount \
         AND (a.\"limit\" IS NULL OR a.used * 10 < a.\"limit\" * 8)"
    );
    diesel::sql_query(forget).execute(tx.connection()?).await.map_err(from_diesel)?;
    let found = format!(
        "SELECT q.tenant_id, a.amount, a.used, a.\"limit\" FROM {AMOUNTS} WHERE a.\"limit\" > 0 AND a.used * 10 >= a.\"limit\" * 9 \
         AND NOT EXISTS (SELECT FROM notifications.quota_marks m WHERE m.tenant_id = q.tenant_id AND m.amount = a.amount) LIMIT $1"
    );
    diesel::sql_query(found).bind::<BigInt, _>(limit).load(tx.connection()?).await.map_err(from_diesel)
}

/// Remembers that an amount was told; whether it was not.
pub async fn mark(tx: &mut SystemTx, found: &NearlyUsed) -> Result<bool> {
    let mark = (marks::tenant_id.eq(found.tenant_id), marks::amount.eq(&found.amount));
    let done = diesel::insert_into(marks::table).values(mark).on_conflict_do_nothing().execute(tx.connection()?);
    Ok(done.await.map_err(from_diesel)? == 1)
}

/// Active members of a tenant who hold a permission by a role.
pub async fn holders(tx: &mut SystemTx, tenant: TenantId, permission: &str) -> Result<Vec<UserId>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT DISTINCT m.id FROM iam.memberships m \
         JOIN iam.user_tenant_roles r ON r.tenant_id = m.tenant_id AND r.membership_id = m.id \
         JOIN iam.tenant_role_permissions p ON p.tenant_id = r.tenant_id AND p.role_id = r.role_id \
         WHERE m.tenant_id = $1 AND m.state = 'ACTIVE' AND p.permission = $2",
    )
    .bind::<SqlUuid, _>(tenant.0)
    .bind::<Text, _>(permission)
    .load(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    Ok(rows.into_iter().map(|row| UserId(row.id)).collect())
}

/// Who has invited somebody, if a member did.
pub async fn inviter(tx: &mut SystemTx, tenant: TenantId, invitation: Uuid) -> Result<Option<UserId>> {
    let found: Option<Option<UserId>> = invitations::table
        .filter(invitations::tenant_id.eq(tenant.0).and(invitations::id.eq(invitation)))
        .select(invitations::inviter_id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    Ok(found.flatten())
}

/// Forgets notifications and mails that are older than days: so many of each.
pub async fn forget(tx: &mut SystemTx, days: i64, limit: i64) -> Result<()> {
    // Mails of a broadcast go with it: or they would be sent once more.
    for (table, key, which) in [("notices", "account_id, id", "true"), ("mails", "id", "notice_id IS NULL")] {
        let forget = format!(
            "DELETE FROM notifications.{table} WHERE ({key}) IN (SELECT {key} FROM notifications.{table} \
             WHERE created_at < now() - $1 * interval '1 day' AND {which} ORDER BY created_at LIMIT $2)"
        );
        let forget = diesel::sql_query(forget).bind::<BigInt, _>(days).bind::<BigInt, _>(limit);
        forget.execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    Ok(())
}
