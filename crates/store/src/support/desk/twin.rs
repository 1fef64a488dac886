//! A ticket's twin in the desk, and what both had when they were last the same.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::DeskState;

use crate::schema::{desk_items as items, desk_tickets as table, ticket_comments as comments, tickets};
use crate::support::staff::{self, set_desk_error};
use crate::support::tickets::Ticket;
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// A ticket and a desk.
#[derive(Clone, Copy, Debug)]
pub struct TwinKey<'a> {
    /// The desk's name: its numbers mean nothing in another.
    pub desk: &'a str,
    pub tenant: TenantId,
    pub ticket: TicketId,
}

/// A twin.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Twin {
    /// None until it is known.
    pub remote_id: Option<String>,
    /// Whether something may be there of which no answer came, put there since `begun_at`.
    pub open_try: bool,
    pub begun_at: DateTime<Utc>,
    pub state: String,
    pub remote_state: String,
    pub priority: String,
    pub subject: String,
    pub description: String,
    pub retry_at: Option<DateTime<Utc>>,
    pub attempts: i32,
    pub remote_updated_at: Option<DateTime<Utc>>,
    pub deleted: bool,
    pub read_failures: i32,
}

/// Reads a twin; makes it where there is none.
pub(super) async fn get_or_make(tx: &mut SystemTx, key: TwinKey<'_>) -> Result<Twin> {
    let TwinKey { desk, tenant, ticket } = key;
    let new = (table::tenant_id.eq(tenant), table::ticket_id.eq(ticket), table::desk.eq(desk), table::begun_at.eq(now));
    let make = diesel::insert_into(table::table).values(new).on_conflict_do_nothing();
    make.execute(tx.connection()?).await.map_err(from_diesel)?;
    get(tx, key).await
}

async fn get(tx: &mut SystemTx, TwinKey { desk, tenant, ticket }: TwinKey<'_>) -> Result<Twin> {
    let row = table::table.find((tenant, ticket, desk)).select(Twin::as_select());
    row.first(tx.connection()?).await.map_err(from_diesel)
}

/// Reads a ticket and its twin, and when a member last said something; locks the ticket.
pub async fn lock(tx: &mut SystemTx, key: TwinKey<'_>) -> Result<(Ticket, Twin, Option<DateTime<Utc>>)> {
    let ticket = staff::lock(tx, key.tenant, key.ticket).await?.ticket;
    let said_at = comments::table
        .filter(comments::tenant_id.eq(key.tenant).and(comments::ticket_id.eq(key.ticket)))
        .filter(comments::author_id.is_not_null())
        .order(comments::id.desc())
        .select(comments::created_at)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    Ok((ticket, get(tx, key).await?, said_at))
}

/// Writes what is there by what was sent.
pub async fn save(tx: &mut SystemTx, key: TwinKey<'_>, twin: &Twin) -> Result<()> {
    diesel::update(table::table.find((key.tenant, key.ticket, key.desk)))
        .set((
            table::remote_id.eq(&twin.remote_id),
            table::open_try.eq(twin.open_try),
            table::begun_at.eq(twin.begun_at),
            table::subject.eq(&twin.subject),
            table::description.eq(&twin.description),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    save_common(tx, key, twin).await
}

/// Writes the state and priority that both have.
pub async fn save_common(tx: &mut SystemTx, key: TwinKey<'_>, twin: &Twin) -> Result<()> {
    diesel::update(table::table.find((key.tenant, key.ticket, key.desk)))
        .set((
            table::state.eq(&twin.state),
            table::remote_state.eq(&twin.remote_state),
            table::priority.eq(&twin.priority),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Says which number a ticket has in the desk.
pub async fn number(tx: &mut SystemTx, tenant: TenantId, id: TicketId, number: &str) -> Result<()> {
    diesel::update(tickets::table.find((tenant, id)))
        .set(tickets::desk_ticket.eq(number))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// The ticket whose twin has this number, and what is known of it.
pub async fn find(tx: &mut SystemTx, desk: &str, remote_id: &str) -> Result<Option<(TenantId, TicketId, Twin)>> {
    table::table
        .filter(table::desk.eq(desk).and(table::remote_id.eq(remote_id)))
        .select((table::tenant_id, table::ticket_id, Twin::as_select()))
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Says which of the desk's a comment or a file of ours is; whether neither was known.
pub async fn pair(tx: &mut SystemTx, key: TwinKey<'_>, item: Uuid, remote_id: &str) -> Result<bool> {
    let TwinKey { desk, tenant, ticket } = key;
    let of_ticket = (items::tenant_id.eq(tenant), items::ticket_id.eq(ticket), items::desk.eq(desk));
    let pair = (of_ticket, items::id.eq(item), items::remote_id.eq(remote_id));
    let done = diesel::insert_into(items::table).values(pair).on_conflict_do_nothing().execute(tx.connection()?);
    Ok(done.await.map_err(from_diesel)? == 1)
}

/// Twins that are to be read though the desk does not say that they have changed.
pub async fn to_read(tx: &mut SystemTx, desk: &str, limit: i64) -> Result<Vec<String>> {
    let due = table::table.filter(table::desk.eq(desk).and(table::read_at.le(now)).and(table::remote_id.is_not_null()));
    let due = due.order(table::read_at).limit(limit).select(table::remote_id.assume_not_null());
    due.load(tx.connection()?).await.map_err(from_diesel)
}

/// Has a twin read, though the desk does not say that it has changed.
pub async fn read_again(tx: &mut SystemTx, key: TwinKey<'_>) -> Result<()> {
    diesel::update(table::table.find((key.tenant, key.ticket, key.desk)))
        .set((
            table::read_at.eq(now.into_sql::<Timestamptz>().nullable()),
            table::remote_updated_at.eq(None::<DateTime<Utc>>),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// All was taken over of a twin. `at` is when it had changed, by the desk's clock; none where it may have changed since.
pub async fn taken(tx: &mut SystemTx, key: TwinKey<'_>, twin: &Twin, at: Option<DateTime<Utc>>) -> Result<()> {
    if twin.deleted {
        let was_failed =
            tickets::table.find((key.tenant, key.ticket)).filter(tickets::desk_state.eq(DeskState::Failed));
        // Whether it is the same on both sides is told by what is sent next.
        diesel::update(was_failed)
            .set((tickets::desk_state.eq(DeskState::Pending), tickets::desk_version.eq(0)))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
    }
    diesel::update(table::table.find((key.tenant, key.ticket, key.desk)))
        .set((
            table::remote_updated_at.eq(at),
            table::deleted.eq(false),
            table::read_at.eq(None::<DateTime<Utc>>),
            table::read_failures.eq(0),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if twin.deleted {
        let due = table::retry_at.eq(now.into_sql::<Timestamptz>().nullable());
        let row = table::table.find((key.tenant, key.ticket, key.desk));
        diesel::update(row).set(due).execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    if twin.deleted || twin.read_failures >= TOLD_AFTER {
        set_desk_error(tx, key.tenant, key.ticket, "").await?;
    }
    Ok(())
}

/// Reads that fail before operators are told.
const TOLD_AFTER: i32 = 3;

/// Why a twin could not be read, and how long until the next try.
#[derive(Clone, Copy, Debug)]
pub struct Unread<'a> {
    pub why: &'a str,
    pub pause: TimeDelta,
}

/// A twin could not be read: it is tried again, and the others are not kept waiting.
pub async fn unread(tx: &mut SystemTx, key: TwinKey<'_>, Unread { why, pause }: Unread<'_>) -> Result<()> {
    let failures: i32 = diesel::update(table::table.find((key.tenant, key.ticket, key.desk)))
        .set((
            table::read_failures.eq(table::read_failures + 1),
            table::read_at.eq(Some(Utc::now() + pause)),
            table::remote_updated_at.eq(None::<DateTime<Utc>>),
        ))
        .returning(table::read_failures)
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if failures >= TOLD_AFTER {
        set_desk_error(tx, key.tenant, key.ticket, why).await?;
    }
    Ok(())
}
