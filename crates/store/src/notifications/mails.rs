//! Mails that tell of notifications: one of a member and a kind for all that has come since the one before, and one an account of a
//! broadcast.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::iam::user::MembershipState;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::language::Language;
use virtualstack_model::notifications::id::{BroadcastId, NotificationId};
use virtualstack_model::notifications::jobs::NotificationMail;
use virtualstack_model::notifications::kind::{Channel, NotificationKind};

use crate::notifications::preferences;
use crate::schema::{broadcasts, mails as table, memberships, notices, tenants, told};
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// Notifications that one mail tells of in full.
const ITEMS: i64 = 50;

/// Broadcasts of one run at most; the next goes on.
const BROADCASTS: i64 = 50;

/// Makes mails of what is due, for members who got none of the kind within `pause_seconds`: no more than `limit`.
pub async fn begin(tx: &mut SystemTx, pause_seconds: i64, limit: i64) -> Result<()> {
    #[derive(QueryableByName)]
    struct Due {
        #[diesel(sql_type = SqlUuid)]
        tenant_id: Uuid,
        #[diesel(sql_type = SqlUuid)]
        user_id: Uuid,
        #[diesel(sql_type = Text)]
        kind: String,
    }
    let due: Vec<Due> = diesel::sql_query(
        "SELECT DISTINCT tenant_id, user_id, kind FROM notifications.notices n WHERE mail_due AND NOT EXISTS ( \
            SELECT FROM notifications.mails m WHERE m.tenant_id = n.tenant_id AND m.user_id = n.user_id AND m.kind = n.kind \
            AND m.created_at > now() - $1 * interval '1 second') LIMIT $2",
    )
    .bind::<BigInt, _>(pause_seconds)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    for Due { tenant_id, user_id, kind } in due {
        let mail = Uuid::now_v7();
        let of = (table::tenant_id.eq(tenant_id), table::user_id.eq(user_id), table::kind.eq(&kind));
        let new = diesel::insert_into(table::table).values((table::id.eq(mail), of));
        new.execute(tx.connection()?).await.map_err(from_diesel)?;
        let of_member = notices::tenant_id.eq(TenantId(tenant_id)).and(notices::user_id.eq(UserId(user_id)));
        let taken = notices::table.filter(of_member.and(notices::kind.eq(&kind)).and(notices::mail_due));
        diesel::update(taken)
            .set((notices::mail_due.eq(false), notices::mail_id.eq(mail)))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        tx.enqueue_for(TenantId(tenant_id), &NotificationMail { mail }).await?;
    }
    Ok(())
}

/// Broadcasts that are told now and by mail, and of which somebody may have none: longest ago first. Who is addressed later is looked
/// for every `again_seconds`.
pub async fn broadcasts_to_mail(tx: &mut SystemTx, again_seconds: i64) -> Result<Vec<(TenantId, BroadcastId)>> {
    let now = || sql::<Nullable<Timestamptz>>("now()");
    let again = sql::<Nullable<Timestamptz>>("now() - interval '1 second' * ").bind::<BigInt, _>(again_seconds);
    broadcasts::table
        .filter(broadcasts::active.and(broadcasts::by_mail))
        .filter(broadcasts::start_time.is_null().or(broadcasts::start_time.le(now())))
        .filter(broadcasts::end_time.is_null().or(broadcasts::end_time.gt(now())))
        .filter(broadcasts::mailed_at.is_null().or(broadcasts::mailed_at.lt(again)))
        .order((broadcasts::mailed_at.asc().nulls_first(), broadcasts::id))
        .limit(BROADCASTS)
        .select((broadcasts::tenant_id, broadcasts::id))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Makes mails of a broadcast for those accounts that have none of it, and of whose members one wants it: no more than `limit`.
pub async fn begin_broadcast(tx: &mut SystemTx, owner: TenantId, broadcast: BroadcastId, limit: i64) -> Result<()> {
    #[derive(QueryableByName)]
    struct Addressed {
        #[diesel(sql_type = SqlUuid)]
        tenant_id: Uuid,
        #[diesel(sql_type = SqlUuid)]
        user_id: Uuid,
        #[diesel(sql_type = SqlUuid)]
        account_id: Uuid,
        #[diesel(sql_type = SqlUuid)]
        notice_id: Uuid,
    }
    let addressed: Vec<Addressed> = diesel::sql_query(
        "SELECT DISTINCT ON (account_id) tenant_id, user_id, account_id, notice_id FROM notifications.addressed a \
         WHERE owner_id = $1 AND broadcast_id = $2 AND active \
            AND NOT EXISTS (SELECT FROM notifications.mails m WHERE m.notice_id = a.notice_id AND m.account_id = a.account_id) \
            AND NOT EXISTS (SELECT FROM notifications.preferences p WHERE p.tenant_id = a.tenant_id AND p.user_id = a.user_id \
                AND 'BROADCAST' = ANY (p.not_by_mail)) \
         ORDER BY account_id, user_id LIMIT $3",
    )
    .bind::<SqlUuid, _>(owner.0)
    .bind::<SqlUuid, _>(broadcast.0)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    let rows: Vec<_> = addressed
        .iter()
        .map(|to| {
            let of = (table::tenant_id.eq(to.tenant_id), table::user_id.eq(to.user_id));
            let what = (table::kind.eq(NotificationKind::Broadcast), table::notice_id.eq(to.notice_id));
            (table::id.eq(Uuid::now_v7()), of, what, table::account_id.eq(to.account_id))
        })
        .collect();
    let new = diesel::insert_into(table::table).values(rows).on_conflict_do_nothing().returning(table::id);
    let made: Vec<Uuid> = new.get_results(tx.connection()?).await.map_err(from_diesel)?;
    for mail in &made {
        // In turns of those who tell, so that it holds up nobody else's mails.
        tx.enqueue_for(owner, &NotificationMail { mail: *mail }).await?;
    }
    if i64::try_from(addressed.len()).is_ok_and(|found| found < limit) {
        mailed(tx, owner, broadcast).await?;
    }
    Ok(())
}

/// Remembers that nobody was found who has no mail of a broadcast.
pub async fn mailed(tx: &mut SystemTx, owner: TenantId, broadcast: BroadcastId) -> Result<()> {
    diesel::update(broadcasts::table.find((owner, broadcast)))
        .set(broadcasts::mailed_at.eq(sql::<Nullable<Timestamptz>>("now()")))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// What a mail is to say.
#[derive(Clone, Debug)]
pub struct Content {
    pub email: String,
    pub tenant: TenantId,
    pub tenant_name: String,
    pub user: UserId,
    pub language: Language,
    pub kind: NotificationKind,
    /// Whether it is what a tenant's admins wrote, and not the provider.
    pub of_tenant: bool,
    /// The latest ones, newest last.
    pub items: Vec<Item>,
    /// How many there are in all.
    pub count: i64,
}

/// A notification as a mail tells it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = notices)]
pub struct Item {
    pub title: String,
    pub body: String,
}

/// What a mail is to say; none where nobody is to get it any more, or all of it was read meanwhile. One of a broadcast that is not told
/// now is forgotten: there may be another when it is told again, or by another membership.
pub async fn content(tx: &mut SystemTx, mail: Uuid) -> Result<Option<Content>> {
    let unsent = table::table.filter(table::id.eq(mail).and(table::sent_at.is_null()));
    let unsent = unsent.select((table::tenant_id, table::user_id, table::kind, table::notice_id));
    let unsent = unsent.first(tx.connection()?).await.optional();
    let found: Option<(TenantId, UserId, NotificationKind, Option<NotificationId>)> = unsent.map_err(from_diesel)?;
    let Some((tenant, user, kind, notice)) = found else { return Ok(None) };
    let broadcast = match notice {
        Some(notice) => match of_broadcast(tx, user, notice).await? {
            Some(broadcast) => Some(broadcast),
            None => {
                diesel::delete(table::table.find(mail)).execute(tx.connection()?).await.map_err(from_diesel)?;
                return Ok(None);
            }
        },
        None => None,
    };
    let email: Option<String> = memberships::table
        .filter(memberships::tenant_id.eq(tenant.0).and(memberships::id.eq(user)))
        .filter(memberships::state.eq(MembershipState::Active.as_str()))
        .select(memberships::email)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(email) = email else { return Ok(None) };
    let preferences = preferences::of(tx, tenant, user).await?;
    if !preferences.wants(kind, Channel::Email) {
        return Ok(None);
    }
    let tenant_name: String = tenants::table
        .filter(tenants::id.eq(tenant))
        .select(tenants::display_name)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let of_tenant = broadcast.as_ref().is_some_and(|broadcast| !broadcast.platform);
    let (items, count) = match broadcast {
        Some(Told { item, .. }) => {
            let count = i64::from(item.is_some());
            (item.into_iter().collect(), count)
        }
        None => of_notices(tx, mail).await?,
    };
    let language = preferences.language;
    let content = Content { email, tenant, tenant_name, user, language, kind, of_tenant, items, count };
    Ok((count > 0).then_some(content))
}

/// Notifications that a mail is to tell of and that were not read meanwhile: the latest of them, and how many there are.
async fn of_notices(tx: &mut SystemTx, mail: Uuid) -> Result<(Vec<Item>, i64)> {
    let unread = || notices::table.filter(notices::mail_id.eq(mail)).filter(notices::read_at.is_null());
    let count: i64 = unread().count().get_result(tx.connection()?).await.map_err(from_diesel)?;
    let mut items: Vec<Item> = unread()
        .order(notices::id.desc())
        .limit(ITEMS)
        .select(Item::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    items.reverse();
    Ok((items, count))
}

/// A broadcast that is told to a member.
struct Told {
    /// Whether it is the provider's.
    platform: bool,
    /// None where it was read.
    item: Option<Item>,
}

/// A broadcast, if it is told to a member now.
async fn of_broadcast(tx: &mut SystemTx, user: UserId, notice: NotificationId) -> Result<Option<Told>> {
    let now = told::table.filter(told::id.eq(notice).and(told::user_id.eq(user)));
    let found: Option<(String, String, String, Option<DateTime<Utc>>)> = now
        .select((told::title, told::body, told::link, told::read_at))
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some((title, body, link, read_at)) = found else { return Ok(None) };
    let platform: bool = broadcasts::table
        .filter(broadcasts::notice_id.eq(notice))
        .select(broadcasts::platform)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let body = if link.is_empty() { body } else { format!("{body}\n{link}") };
    Ok(Some(Told { platform, item: read_at.is_none().then_some(Item { title, body }) }))
}

/// Remembers that a mail was handed over.
pub async fn sent(tx: &mut SystemTx, mail: Uuid) -> Result<()> {
    diesel::update(table::table.find(mail))
        .set(table::sent_at.eq(Some(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}
