//! Notifications, as the one sees them whose they are: personal ones, and broadcasts that are told now.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use virtualstack_model::id::{AccountId, TenantId, UserId};
use virtualstack_model::notifications::id::NotificationId;
use virtualstack_model::notifications::kind::{NotificationKind, Severity};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{broadcast_marks as marks, broadcasts, notices, told as table};
use crate::tx::error::from_diesel;
use crate::tx::{AccountTx, Read, SystemTx, TenantTx};

/// A notification as its member sees it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Notification {
    pub id: NotificationId,
    user_id: UserId,
    pub kind: NotificationKind,
    pub title: String,
    pub body: String,
    pub severity: Severity,
    pub resource: String,
    pub link: String,
    pub created_at: DateTime<Utc>,
    pub read_at: Option<DateTime<Utc>>,
    pub dismissed_at: Option<DateTime<Utc>>,
    dismissible: bool,
    require_acknowledgement: bool,
}

/// What filters and orders of notifications may name.
const LISTING: Listing<table::table> = Listing {
    collection: NotificationId::COLLECTION,
    id: Field::id("name", NotificationId::COLLECTION, &table::id),
    fields: &[
        Field::words("kind", NotificationKind::WORDS, &table::kind),
        Field::words("severity", Severity::WORDS, &table::severity),
        Field::time("readTime", &table::read_at),
        Field::time("createTime", &table::created_at).sorted(),
    ],
};

type Query = table::BoxedQuery<'static, diesel::pg::Pg>;

/// What a member is told. The account's role sees no broadcast as such, so that is read as the system: of this account alone.
fn of_member(tx: &AccountTx, tenant: TenantId) -> impl Fn() -> Query + Send + Sync + Clone + use<> {
    let account = tx.account;
    move || table::table.filter(table::account_id.eq(account.0).and(table::tenant_id.eq(tenant))).into_boxed()
}

/// Lists those of the member in a tenant; without those that were dismissed, unless they are asked for.
pub async fn list(
    tx: &mut AccountTx,
    tenant: TenantId,
    show_dismissed: bool,
    request: &ListRequest,
) -> Result<Listed<Notification>> {
    let all = of_member(tx, tenant);
    let base = move || {
        if show_dismissed { all() } else { all().filter(table::dismissed_at.is_null()) }
    };
    let variant = format!("{} {} {show_dismissed}", tenant.name(), tx.account.0);
    // A broadcast has its id before it is told.
    let order_by = if request.order_by.is_empty() { "createTime desc".to_owned() } else { request.order_by.clone() };
    let request = ListRequest { order_by, ..request.clone() };
    let read = async |tx: &mut SystemTx| LISTING.read(tx, &request, &variant, base.clone()).await;
    tx.as_system(read).await
}

/// What a member is told, newest first, without what was dismissed: no more than `most`.
pub async fn latest(tx: &mut TenantTx<Read>, account: AccountId, most: i64) -> Result<Vec<Notification>> {
    let tenant = tx.tenant();
    let read = async |tx: &mut SystemTx| {
        let own = table::account_id.eq(account.0).and(table::tenant_id.eq(tenant)).and(table::dismissed_at.is_null());
        let latest = table::table
            .filter(own)
            .order((table::created_at.desc(), table::id.desc()))
            .limit(most)
            .select(Notification::as_select());
        latest.load(tx.connection()?).await.map_err(from_diesel)
    };
    tx.as_system(read).await
}

/// How many the member has not read, nor dismissed.
pub async fn unread(tx: &mut AccountTx, tenant: TenantId) -> Result<i64> {
    let all = of_member(tx, tenant);
    let count = async |tx: &mut SystemTx| {
        let unread = all().filter(table::read_at.is_null().and(table::dismissed_at.is_null()));
        unread.count().get_result(tx.connection()?).await.map_err(from_diesel)
    };
    tx.as_system(count).await
}

/// Reads one.
pub async fn get(tx: &mut AccountTx, tenant: TenantId, id: NotificationId) -> Result<Notification> {
    let all = of_member(tx, tenant);
    let get = async |tx: &mut SystemTx| {
        let one = all().filter(table::id.eq(id)).select(Notification::as_select());
        one.first(tx.connection()?).await.optional().map_err(from_diesel)
    };
    tx.as_system(get).await?.ok_or_else(|| Error::not_found("NOTIFICATION_NOT_FOUND", id.name()))
}

/// Marks one as read, which acknowledges it, or dismisses it; what it was first stays.
pub async fn mark(tx: &mut AccountTx, tenant: TenantId, id: NotificationId, dismiss: bool) -> Result<Notification> {
    let found = get(tx, tenant, id).await?;
    if dismiss && !found.dismissible {
        return Err(Error::precondition("NOT_DISMISSIBLE", id.name(), "it stays as long as it is told"));
    }
    if dismiss && found.require_acknowledgement && found.read_at.is_none() {
        let message = "it is to be acknowledged first: mark it as read";
        return Err(Error::precondition("NOT_ACKNOWLEDGED", id.name(), message));
    }
    if found.kind == NotificationKind::Broadcast {
        mark_broadcasts(tx, tenant, &[found], dismiss).await?;
    } else {
        let account = tx.account;
        let one = || notices::table.filter(notices::account_id.eq(account.0).and(notices::id.eq(id)));
        let at = || sql::<Nullable<Timestamptz>>("now()");
        if dismiss {
            let open = one().filter(notices::dismissed_at.is_null());
            diesel::update(open)
                .set(notices::dismissed_at.eq(at()))
                .execute(tx.connection()?)
                .await
                .map_err(from_diesel)?;
        } else {
            let unread = one().filter(notices::read_at.is_null());
            diesel::update(unread)
                .set(notices::read_at.eq(at()))
                .execute(tx.connection()?)
                .await
                .map_err(from_diesel)?;
        }
    }
    get(tx, tenant, id).await
}

/// Marks broadcasts as read or dismissed, unless they are, or are deleted meanwhile.
async fn mark_broadcasts(tx: &mut AccountTx, tenant: TenantId, all: &[Notification], dismiss: bool) -> Result<()> {
    let account = tx.account;
    let ids: Vec<_> = all.iter().map(|one| one.id).collect();
    let keep = async |tx: &mut SystemTx| {
        let there = broadcasts::table.filter(broadcasts::notice_id.eq_any(&ids)).select(broadcasts::notice_id);
        there.for_key_share().load(tx.connection()?).await.map_err(from_diesel)
    };
    let there: Vec<Option<NotificationId>> = tx.as_system(keep).await?;
    let mut rows: Vec<_> = all.iter().filter(|one| there.contains(&Some(one.id))).collect();
    // In one order, so that two devices do not wait for each other.
    rows.sort_by_key(|one| one.id.0);
    let rows = rows.into_iter().map(|one| {
        let key = (marks::notice_id.eq(one.id), marks::user_id.eq(one.user_id));
        let whose = (marks::tenant_id.eq(tenant), marks::account_id.eq(account.0));
        let at = sql::<Nullable<Timestamptz>>("now()");
        (key, whose, (!dismiss).then_some(marks::read_at.eq(at.clone())), dismiss.then_some(marks::dismissed_at.eq(at)))
    });
    let make = diesel::insert_into(marks::table)
        .values(rows.collect::<Vec<_>>())
        .on_conflict((marks::notice_id, marks::user_id))
        .do_update();
    // What it was first stays.
    let made = if dismiss {
        let first = sql::<Nullable<Timestamptz>>("coalesce(broadcast_marks.dismissed_at, now())");
        make.set(marks::dismissed_at.eq(first)).execute(tx.connection()?).await
    } else {
        let first = sql::<Nullable<Timestamptz>>("coalesce(broadcast_marks.read_at, now())");
        make.set(marks::read_at.eq(first)).execute(tx.connection()?).await
    };
    made.map_err(from_diesel).map(|_| ())
}

/// Broadcasts that are marked at once, at most: more than are told to anybody.
const MOST: i64 = 1_000;

/// Marks all as read, but those that are to be acknowledged: that is done one by one.
pub async fn mark_all(tx: &mut AccountTx, tenant: TenantId) -> Result<()> {
    let all = of_member(tx, tenant);
    let unread = async |tx: &mut SystemTx| {
        let broadcasts = all().filter(table::kind.eq(NotificationKind::Broadcast)).filter(table::read_at.is_null());
        let broadcasts = broadcasts.filter(table::require_acknowledgement.eq(false)).limit(MOST);
        broadcasts.select(Notification::as_select()).load(tx.connection()?).await.map_err(from_diesel)
    };
    let broadcasts: Vec<Notification> = tx.as_system(unread).await?;
    mark_broadcasts(tx, tenant, &broadcasts, false).await?;
    let account = tx.account;
    let unread = notices::account_id.eq(account.0).and(notices::tenant_id.eq(tenant)).and(notices::read_at.is_null());
    diesel::update(notices::table.filter(unread))
        .set(notices::read_at.eq(sql::<Nullable<Timestamptz>>("now()")))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}
