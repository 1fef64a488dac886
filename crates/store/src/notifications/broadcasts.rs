//! Broadcasts, as those see them who write them. Whom one reaches is computed when it is read, so who joins later is among them.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use virtualstack_model::iam::user::MembershipState;
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Audit, Change, changed_fields};
use virtualstack_model::notifications::broadcast::{AudienceKind, Window};
use virtualstack_model::notifications::id::{BroadcastId, NotificationId};
use virtualstack_model::notifications::kind::Severity;
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{broadcasts as table, changes, memberships, tenant_roles as roles};
use crate::tx::error::from_diesel;
use crate::tx::reader::Reader;
use crate::tx::store::TxFn;
use crate::tx::{Mode, Read, SystemTx, TenantTx, Write, etag};

/// Drafts of one owner, at most.
const DRAFTS: i64 = 1_000;

/// Broadcasts of one owner that are active and not over, at most: each costs its readers something.
const LIVE: i64 = 200;

/// Activations of a tenant's own within 24 hours, at most.
const MOST_A_DAY: i64 = 50;

/// A broadcast as it is kept.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = table, primary_key(tenant_id, id), treat_none_as_null = true)]
pub struct Broadcast {
    /// Whose it is.
    pub tenant_id: TenantId,
    pub id: BroadcastId,
    /// Whether operators tell it beyond their tenant.
    pub platform: bool,
    pub title: String,
    pub body: String,
    pub severity: Severity,
    pub link: String,
    pub audience: AudienceKind,
    pub audience_ids: Vec<Uuid>,
    pub audience_roles: Vec<String>,
    pub start_time: Option<DateTime<Utc>>,
    pub end_time: Option<DateTime<Utc>>,
    pub active: bool,
    pub dismissible: bool,
    pub require_acknowledgement: bool,
    pub by_mail: bool,
    /// Of its notification, since it was first activated.
    pub notice_id: Option<NotificationId>,
    pub told_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

impl Broadcast {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// Full name, for whom it is.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.tenant_id, self.id, self.platform)
    }

    /// When it is told.
    #[must_use]
    pub fn window(&self) -> Window {
        Window { active: self.active, start: self.start_time, end: self.end_time }
    }

    fn fields(&self) -> [(&'static str, Value); 11] {
        [
            ("title", json!(self.title)),
            ("body", json!(format!("{} characters, {}", self.body.chars().count(), digest(&self.body)))),
            ("severity", json!(self.severity)),
            ("link", json!(self.link)),
            ("audience", json!({"kind": self.audience, "ids": self.audience_ids, "roles": self.audience_roles})),
            ("startTime", json!(self.start_time)),
            ("endTime", json!(self.end_time)),
            ("active", json!(self.active)),
            ("dismissible", json!(self.dismissible)),
            ("requireAcknowledgement", json!(self.require_acknowledgement)),
            ("byMail", json!(self.by_mail)),
        ]
    }
}

/// What tells a text from another in a log that is not to repeat it.
fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(8).fold(String::from("sha256 "), |hex, byte| format!("{hex}{byte:02x}"))
}

/// The full name of a broadcast.
#[must_use]
pub fn name(owner: TenantId, id: BroadcastId, platform: bool) -> String {
    if platform { id.name() } else { id.name_in(owner) }
}

/// A broadcast that is not there.
fn missing(owner: TenantId, id: BroadcastId, platform: bool) -> Error {
    Error::not_found("BROADCAST_NOT_FOUND", name(owner, id, platform))
}

/// What filters and orders of broadcasts may name.
const LISTING: Listing<table::table> = Listing {
    collection: BroadcastId::COLLECTION,
    id: Field::id("name", BroadcastId::COLLECTION, &table::id),
    fields: &[
        Field::text("title", &table::title).sorted().searched(),
        Field::text("body", &table::body).searched(),
        Field::words("severity", Severity::WORDS, &table::severity).sorted(),
        Field::bool("active", &table::active),
        Field::time("startTime", &table::start_time).sorted(),
        Field::time("endTime", &table::end_time).sorted(),
        Field::time("createTime", &table::created_at).sorted_by_id(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists the broadcasts of an owner: those of operators, or those of its own.
pub async fn list(
    reader: &mut impl Reader,
    owner: TenantId,
    platform: bool,
    request: &ListRequest,
) -> Result<Listed<Broadcast>> {
    let of_owner = move || {
        let own = table::tenant_id.eq(owner).and(table::platform.eq(platform));
        table::table.filter(own).into_boxed()
    };
    LISTING.read(reader, request, &format!("{} {platform}", owner.name()), of_owner).await
}

/// Reads a broadcast and locks it until the end of the transaction. Who counts broadcasts is [`alone`] first.
pub async fn lock(tx: &mut TenantTx<Write>, id: BroadcastId, platform: bool) -> Result<Broadcast> {
    let owner = tx.tenant();
    table::table
        .filter(table::tenant_id.eq(owner).and(table::id.eq(id)).and(table::platform.eq(platform)))
        .select(Broadcast::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| missing(owner, id, platform))
}

/// Reads a broadcast.
pub async fn get(tx: &mut SystemTx, owner: TenantId, id: BroadcastId, platform: bool) -> Result<Broadcast> {
    table::table
        .filter(table::tenant_id.eq(owner).and(table::id.eq(id)).and(table::platform.eq(platform)))
        .select(Broadcast::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| missing(owner, id, platform))
}

/// Reads one of operators, whose it may be.
pub async fn find(tx: &mut SystemTx, id: BroadcastId) -> Result<Broadcast> {
    table::table
        .filter(table::id.eq(id).and(table::platform))
        .select(Broadcast::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| Error::not_found("BROADCAST_NOT_FOUND", id.name()))
}

/// Reads one of the tenant's own.
pub async fn get_own<M: Mode>(tx: &mut TenantTx<M>, id: BroadcastId) -> Result<Broadcast> {
    let owner = tx.tenant();
    let own = table::tenant_id.eq(owner).and(table::id.eq(id)).and(table::platform.eq(false));
    table::table
        .filter(own)
        .select(Broadcast::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| missing(owner, id, false))
}

/// Those of these members that there are.
pub async fn members(tx: &mut SystemTx, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let found = memberships::table
        .filter(memberships::id.eq_any(ids).and(memberships::state.ne(MembershipState::Removed.as_str())))
        .select(memberships::id);
    found.load(tx.connection()?).await.map_err(from_diesel)
}

/// Those of these members that the tenant has.
pub async fn own_members(tx: &mut TenantTx<Write>, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let own = memberships::tenant_id
        .eq(tx.tenant().0)
        .and(memberships::id.eq_any(ids))
        .and(memberships::state.ne(MembershipState::Removed.as_str()));
    let own = memberships::table.filter(own);
    own.select(memberships::id).load(tx.connection()?).await.map_err(from_diesel)
}

/// Those of these roles that the tenant has.
pub async fn own_roles(tx: &mut TenantTx<Write>, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let own = roles::table.filter(roles::tenant_id.eq(tx.tenant().0).and(roles::id.eq_any(ids)));
    own.select(roles::id).load(tx.connection()?).await.map_err(from_diesel)
}

/// Does `f` as the owner of broadcasts of operators, with its logs.
pub async fn within<T, F>(tx: &mut SystemTx, owner: TenantId, audit: &Audit, f: F) -> Result<T>
where
    T: Send,
    F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
{
    tx.enter(owner, audit, f).await
}

/// Writes a new broadcast: a draft.
pub async fn insert(tx: &mut TenantTx<Write>, broadcast: &Broadcast) -> Result<()> {
    alone(tx).await?;
    let drafts = table::tenant_id.eq(broadcast.tenant_id).and(table::platform.eq(broadcast.platform));
    let drafts = table::table.filter(drafts.and(table::notice_id.is_null()));
    let count: i64 = drafts.count().get_result(tx.connection()?).await.map_err(from_diesel)?;
    if count >= DRAFTS {
        return Err(too_many(format!("there are {DRAFTS} drafts, the most that there may be; delete some")));
    }
    diesel::insert_into(table::table).values(broadcast).execute(tx.connection()?).await.map_err(from_diesel)?;
    let fields = broadcast.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    tx.change(Change::of(broadcast.name(), "BROADCAST_CREATED", "The broadcast was written", Value::Object(fields)));
    Ok(())
}

fn too_many(message: String) -> Error {
    Error::ResourceExhausted { reason: "TOO_MANY_BROADCASTS", message, retry_after: None }
}

/// Makes changes of an owner's broadcasts wait for each other, so that what is counted stays so.
async fn alone(tx: &mut TenantTx<Write>) -> Result<()> {
    let lock = "SELECT pg_advisory_xact_lock(hashtext('virtualstack.broadcasts'), hashtext($1))";
    let lock = diesel::sql_query(lock).bind::<Text, _>(tx.tenant().to_string());
    lock.execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}

/// Refuses one more broadcast that is active and not over where there are too many.
async fn expect_few_live(tx: &mut TenantTx<Write>, broadcast: &Broadcast) -> Result<()> {
    let own = table::tenant_id.eq(broadcast.tenant_id).and(table::platform.eq(broadcast.platform));
    let live = table::active.and(table::end_time.is_null().or(table::end_time.gt(Utc::now())));
    let others = table::table.filter(own.and(live).and(table::id.ne(broadcast.id)));
    let count: i64 = others.count().get_result(tx.connection()?).await.map_err(from_diesel)?;
    if count >= LIVE {
        let message = format!("{LIVE} broadcasts are active, the most that there may be; deactivate some");
        return Err(too_many(message));
    }
    Ok(())
}

/// Writes a broadcast that has changed, with why.
pub async fn update(
    tx: &mut TenantTx<Write>,
    before: &Broadcast,
    after: &mut Broadcast,
    (reason, message): (&'static str, &'static str),
) -> Result<()> {
    let now = Utc::now();
    if after.window().is_live(now) && !before.window().is_live(now) {
        expect_few_live(tx, after).await?;
    }
    after.updated_at = now.max(before.updated_at);
    after.version = before.version + 1;
    // Whoever has no mail of it yet is looked for at once.
    diesel::update(table::table.filter(table::tenant_id.eq(after.tenant_id).and(table::id.eq(after.id))))
        .set((&*after, table::mailed_at.eq(None::<DateTime<Utc>>)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let pairs = before.fields().into_iter().zip(after.fields());
    let fields = changed_fields(pairs.map(|((name, before), (_, after))| (name, before, after)));
    tx.change(Change::of(after.name(), reason, message, fields.into()));
    Ok(())
}

/// Changes a broadcast, if it still has this etag; as it is then.
pub async fn change(
    tx: &mut TenantTx<Write>,
    (id, platform): (BroadcastId, bool),
    etag: &str,
    why: (&'static str, &'static str),
    f: impl Fn(&mut Broadcast) -> Result<()> + Send + Sync,
) -> Result<Broadcast> {
    alone(tx).await?;
    let before = lock(tx, id, platform).await?;
    Error::check_etag(etag, &before.etag())?;
    let mut after = before.clone();
    f(&mut after)?;
    if after != before {
        update(tx, &before, &mut after, why).await?;
    }
    Ok(after)
}

/// Activates a broadcast: what it tells has a name from the first time on.
pub fn activate(broadcast: &mut Broadcast) -> Result<()> {
    let now = Utc::now();
    broadcast.window().expect_not_over(&broadcast.name(), now)?;
    if broadcast.active {
        return Err(Error::precondition("BROADCAST_STATE", broadcast.name(), "it is active already"));
    }
    broadcast.active = true;
    if broadcast.notice_id.is_none() {
        (broadcast.notice_id, broadcast.told_at) = (Some(NotificationId::new()), Some(now));
    }
    Ok(())
}

/// Refuses another activation where a tenant has had its share of the last day: each may mail all of its members.
pub async fn expect_few_activations(tx: &mut TenantTx<Write>) -> Result<()> {
    let lately = changes::created_at.gt(sql::<Timestamptz>("now() - interval '1 day'"));
    // As the index says it; those of operators have other names.
    let of_broadcasts = sql::<Bool>("reason = 'BROADCAST_ACTIVATED'");
    let own = changes::tenant_id.eq(tx.tenant()).and(changes::resource.like("tenants/%"));
    let lately = own.and(of_broadcasts).and(lately);
    let count: i64 = changes::table.filter(lately).count().get_result(tx.connection()?).await.map_err(from_diesel)?;
    if count >= MOST_A_DAY {
        let message = format!("a tenant activates {MOST_A_DAY} broadcasts within 24 hours at most; try again later");
        return Err(too_many(message));
    }
    Ok(())
}

/// Deactivates a broadcast: nobody is told of it any more.
pub fn deactivate(broadcast: &mut Broadcast) -> Result<()> {
    if !broadcast.active {
        return Err(Error::precondition("BROADCAST_STATE", broadcast.name(), "it is not active"));
    }
    broadcast.active = false;
    Ok(())
}

/// Deletes a broadcast, and what members have done with it.
pub async fn delete(tx: &mut TenantTx<Write>, broadcast: &Broadcast) -> Result<()> {
    let row = table::table.filter(table::tenant_id.eq(broadcast.tenant_id).and(table::id.eq(broadcast.id)));
    diesel::delete(row).execute(tx.connection()?).await.map_err(from_diesel)?;
    tx.change(Change::of(broadcast.name(), "BROADCAST_DELETED", "The broadcast was deleted", json!({})));
    Ok(())
}

/// How many a broadcast is for, and what they have done.
#[derive(Clone, Copy, Debug, Default, QueryableByName)]
pub struct Reach {
    #[diesel(sql_type = BigInt)]
    pub addressed: i64,
    #[diesel(sql_type = BigInt)]
    pub read: i64,
    #[diesel(sql_type = BigInt)]
    pub dismissed: i64,
    #[diesel(sql_type = BigInt)]
    pub mailed: i64,
}

/// How many one of the tenant's own reaches now.
pub async fn own_reach(tx: &mut TenantTx<Read>, id: BroadcastId) -> Result<Reach> {
    let owner = tx.tenant();
    tx.as_system(async |tx: &mut SystemTx| reach(tx, owner, id).await).await
}

/// How many a broadcast reaches now.
pub async fn reach(tx: &mut SystemTx, owner: TenantId, id: BroadcastId) -> Result<Reach> {
    diesel::sql_query(
        "SELECT count(*) AS addressed, count(k.read_at) AS read, count(k.dismissed_at) AS dismissed, \
            (SELECT count(*) FROM notifications.mails m JOIN notifications.broadcasts o ON o.notice_id = m.notice_id \
                WHERE o.tenant_id = $1 AND o.id = $2 AND m.sent_at IS NOT NULL) AS mailed \
         FROM notifications.broadcasts b JOIN notifications.addressed a ON a.owner_id = b.tenant_id AND a.broadcast_id = b.id \
         LEFT JOIN notifications.broadcast_marks k ON k.notice_id = b.notice_id AND k.user_id = a.user_id \
         WHERE b.tenant_id = $1 AND b.id = $2",
    )
    .bind::<SqlUuid, _>(owner.0)
    .bind::<SqlUuid, _>(id.0)
    .get_result(tx.connection()?)
    .await
    .map_err(from_diesel)
}
