//! Notifications, as the one sees them whose they are.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use virtualstack_model::id::TenantId;
use virtualstack_model::notifications::id::NotificationId;
use virtualstack_model::notifications::kind::{NotificationKind, Severity};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::notices as table;
use crate::tx::AccountTx;
use crate::tx::error::from_diesel;

/// A notification as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Notification {
    pub id: NotificationId,
    pub kind: NotificationKind,
    pub title: String,
    pub body: String,
    pub severity: Severity,
    pub resource: String,
    pub created_at: DateTime<Utc>,
    pub read_at: Option<DateTime<Utc>>,
    pub dismissed_at: Option<DateTime<Utc>>,
}

/// What filters and orders of notifications may name.
const LISTING: Listing<table::table> = Listing {
    collection: NotificationId::COLLECTION,
    id: Field::id("name", NotificationId::COLLECTION, &table::id),
    fields: &[
        Field::words("kind", NotificationKind::WORDS, &table::kind),
        Field::words("severity", Severity::WORDS, &table::severity),
        Field::time("readTime", &table::read_at),
        Field::time("createTime", &table::created_at).sorted_by_id(),
    ],
};

type Query = table::BoxedQuery<'static, diesel::pg::Pg>;

fn of_member(tx: &AccountTx, tenant: TenantId) -> impl Fn() -> Query + Send + Sync + use<> {
    let account = tx.account;
    let shown = table::tenant_id.eq(tenant).and(table::in_app);
    move || table::table.filter(table::account_id.eq(account.0).and(shown)).into_boxed()
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
    LISTING.read(tx, request, &format!("{} {show_dismissed}", tenant.name()), base).await
}

/// How many the member has not read, nor dismissed.
pub async fn unread(tx: &mut AccountTx, tenant: TenantId) -> Result<i64> {
    let unread = of_member(tx, tenant)().filter(table::read_at.is_null().and(table::dismissed_at.is_null()));
    unread.count().get_result(tx.connection()?).await.map_err(from_diesel)
}

/// Reads one.
pub async fn get(tx: &mut AccountTx, tenant: TenantId, id: NotificationId) -> Result<Notification> {
    of_member(tx, tenant)()
        .filter(table::id.eq(id))
        .select(Notification::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| Error::not_found("NOTIFICATION_NOT_FOUND", id.name()))
}

/// Marks one as read, and dismisses it if that is wanted; what it was first stays.
pub async fn mark(tx: &mut AccountTx, tenant: TenantId, id: NotificationId, dismiss: bool) -> Result<Notification> {
    get(tx, tenant, id).await?;
    let account = tx.account;
    let one = || table::table.filter(table::account_id.eq(account.0).and(table::id.eq(id)));
    if dismiss {
        let set = table::dismissed_at.eq(sql::<Nullable<Timestamptz>>("now()"));
        let open = one().filter(table::dismissed_at.is_null());
        diesel::update(open).set(set).execute(tx.connection()?).await.map_err(from_diesel)?;
    } else {
        let set = table::read_at.eq(sql::<Nullable<Timestamptz>>("now()"));
        let unread = one().filter(table::read_at.is_null());
        diesel::update(unread).set(set).execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    get(tx, tenant, id).await
}

/// Marks all as read.
pub async fn mark_all(tx: &mut AccountTx, tenant: TenantId) -> Result<()> {
    let account = tx.account;
    let unread = table::account_id.eq(account.0).and(table::tenant_id.eq(tenant)).and(table::read_at.is_null());
    diesel::update(table::table.filter(unread))
        .set(table::read_at.eq(sql::<Nullable<Timestamptz>>("now()")))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}
