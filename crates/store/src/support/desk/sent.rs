//! What the desk is to have, and what it has of that.

use chrono::{DateTime, Utc};
use diesel::dsl::{case_when, now, sql};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::DeskState;

use super::twin::{self, Twin, TwinKey};
use crate::schema::{
    all_attachments as files, all_comments as comments, desk_items as items, desk_tickets as table, memberships,
    tenants, ticket_staff as staff, tickets,
};
use crate::support::staff::set_desk_error;
use crate::support::staff_comments::StaffComment;
use crate::support::staff_files::StaffAttachment;
use crate::support::tickets::Ticket;
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// Comments and files that are read at once, each.
const ITEMS: i64 = 20;

/// Tickets that have changed since the desk has heard of them, and are due: the oldest of each tenant first, so that no tenant has the
/// desk to itself.
pub async fn to_send(tx: &mut SystemTx, desk: &str, limit: i64) -> Result<Vec<(TenantId, TicketId)>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        tenant_id: Uuid,
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT tenant_id, id FROM ( \
            SELECT t.tenant_id, t.id, t.updated_at, row_number() OVER (PARTITION BY t.tenant_id ORDER BY t.updated_at) AS turn \
            FROM ( \
                SELECT tenant_id, id, updated_at FROM support.tickets WHERE desk_version < version \
                UNION \
                SELECT t.tenant_id, t.id, t.updated_at FROM support.ticket_staff s \
                JOIN support.tickets t ON t.tenant_id = s.tenant_id AND t.id = s.ticket_id WHERE s.unsent > 0 \
            ) t LEFT JOIN support.desk_tickets d ON d.tenant_id = t.tenant_id AND d.ticket_id = t.id AND d.desk = $2 \
            WHERE d.ticket_id IS NULL OR d.retry_at <= now() \
        ) due ORDER BY turn, updated_at LIMIT $1",
    )
    .bind::<BigInt, _>(limit)
    .bind::<Text, _>(desk)
    .load(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    Ok(rows.into_iter().map(|row| (TenantId(row.tenant_id), TicketId(row.id))).collect())
}

/// All that the desk is to have of a ticket.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub ticket: Ticket,
    pub twin: Twin,
    /// What the desk has heard of.
    pub desk_version: i64,
    /// Changes that the tenant does not see, and the desk does not have.
    pub unsent: i32,
    pub tenant_name: String,
    pub requester_email: String,
    pub requester_name: String,
    /// Those that the desk does not have, oldest first: no more than may be sent at once.
    pub comments: Vec<StaffComment>,
    pub files: Vec<StaffAttachment>,
}

impl Outgoing {
    /// Whether there may be more to send than was read.
    #[must_use]
    pub fn is_part(&self) -> bool {
        let is_full = |length: usize| i64::try_from(length).is_ok_and(|length| length >= ITEMS);
        is_full(self.comments.len()) || is_full(self.files.len())
    }

    /// Whether the desk lacks something that the tenant sees.
    const fn is_public(&self) -> bool {
        self.desk_version < self.ticket.version
    }
}

/// Reads what the desk is to have of a ticket, which from now on has a twin.
pub async fn outgoing(tx: &mut SystemTx, key: TwinKey<'_>) -> Result<Outgoing> {
    let twin = twin::get_or_make(tx, key).await?;
    let TwinKey { desk, tenant, ticket: id } = key;
    let (ticket, desk_version): (Ticket, i64) = tickets::table
        .find((tenant, id))
        .select((Ticket::as_select(), tickets::desk_version))
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let unsent: Option<i32> = staff::table
        .find((tenant, id))
        .select(staff::unsent)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let (requester_email, requester_name) = memberships::table
        .filter(memberships::tenant_id.eq(tenant.0).and(memberships::id.eq(ticket.requester_id)))
        .select((memberships::email, memberships::display_name))
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let tenant_name = tenants::table
        .filter(tenants::id.eq(tenant))
        .select(tenants::display_name)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let lacks = |view: &str| {
        sql::<Bool>(&format!(
            "NOT EXISTS (SELECT FROM support.desk_items i WHERE i.tenant_id = {view}.tenant_id AND i.id = {view}.id AND i.desk = "
        ))
        .bind::<Text, _>(desk.to_owned())
        .sql(")")
    };
    let comments = comments::table
        .filter(comments::tenant_id.eq(tenant).and(comments::ticket_id.eq(id)))
        .filter(lacks("all_comments"))
        .order(comments::id)
        .limit(ITEMS)
        .select(StaffComment::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let files = files::table
        .filter(files::tenant_id.eq(tenant).and(files::ticket_id.eq(id)))
        .filter(lacks("all_attachments"))
        .order(files::id)
        .limit(ITEMS)
        .select(StaffAttachment::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let unsent = unsent.unwrap_or_default();
    Ok(Outgoing { ticket, twin, desk_version, unsent, tenant_name, requester_email, requester_name, comments, files })
}

/// The desk has all of a ticket as it was read. What has changed since is still to be sent.
pub async fn synced(tx: &mut SystemTx, key: TwinKey<'_>, sent: &Outgoing) -> Result<()> {
    let version = sent.ticket.version;
    // What the tenant does not see moves nothing that it sees.
    if sent.is_public() {
        let as_read = tickets::table.find((key.tenant, key.ticket)).filter(tickets::desk_version.eq(sent.desk_version));
        let state = case_when::<_, _, Text>(tickets::version.eq(version), DeskState::Synced.as_str())
            .otherwise(DeskState::Pending.as_str());
        diesel::update(as_read)
            .set((
                tickets::desk_version.eq(version),
                tickets::desk_state.eq(state),
                tickets::desk_synced_at.eq(now.into_sql::<Timestamptz>().nullable()),
            ))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
    }
    diesel::update(staff::table.find((key.tenant, key.ticket)))
        .set((staff::unsent.eq(staff::unsent - sent.unsent), staff::desk_error.eq("")))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::update(table::table.find((key.tenant, key.ticket, key.desk)))
        .set((table::attempts.eq(0), table::retry_at.eq(now.into_sql::<Timestamptz>().nullable())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Says when the next try of a ticket is due, if ever; not where somebody has asked for one meanwhile. Whether it did.
pub async fn put_off(
    tx: &mut SystemTx,
    key: TwinKey<'_>,
    before: &Twin,
    attempts: i32,
    retry_at: Option<DateTime<Utc>>,
) -> Result<bool> {
    let row = table::table.find((key.tenant, key.ticket, key.desk));
    let as_read = row.filter(table::retry_at.is_not_distinct_from(before.retry_at));
    let done = diesel::update(as_read)
        .set((table::attempts.eq(attempts), table::retry_at.eq(retry_at)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(done == 1)
}

/// The desk has refused something of a ticket, which is not tried again until somebody asks for it. The tenant is told of it where it
/// sees what was refused.
pub async fn failed(tx: &mut SystemTx, tenant: TenantId, id: TicketId, is_public: bool, error: &str) -> Result<()> {
    if is_public {
        diesel::update(tickets::table.find((tenant, id)))
            .set(tickets::desk_state.eq(DeskState::Failed))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
    }
    set_desk_error(tx, tenant, id, error).await
}

/// The desk has deleted a twin.
pub async fn deleted(tx: &mut SystemTx, key: TwinKey<'_>, why: &str) -> Result<()> {
    failed(tx, key.tenant, key.ticket, true, why).await?;
    diesel::update(table::table.find((key.tenant, key.ticket, key.desk)))
        .set((table::deleted.eq(true), table::read_at.eq(None::<DateTime<Utc>>)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// The desk refuses a comment or a file: those after it are sent all the same.
pub async fn refuse(tx: &mut SystemTx, key: TwinKey<'_>, item: Uuid) -> Result<()> {
    let TwinKey { desk, tenant, ticket } = key;
    let refused = (items::tenant_id.eq(tenant), items::ticket_id.eq(ticket), items::desk.eq(desk), items::id.eq(item));
    let done = diesel::insert_into(items::table).values(refused).on_conflict_do_nothing().execute(tx.connection()?);
    done.await.map_err(from_diesel).map(|_| ())
}

/// Has a ticket sent again, with all that the desk may lack of it or has refused. What is open of a try before stays open.
pub async fn send_again(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<()> {
    diesel::update(tickets::table.find((tenant, id)))
        .set((tickets::desk_version.eq(0), tickets::desk_state.eq(DeskState::Pending)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let of_ticket = items::table.filter(items::tenant_id.eq(tenant).and(items::ticket_id.eq(id)));
    let refused = of_ticket.filter(items::remote_id.is_null());
    diesel::delete(refused).execute(tx.connection()?).await.map_err(from_diesel)?;
    let twins = table::table.filter(table::tenant_id.eq(tenant).and(table::ticket_id.eq(id)));
    diesel::update(twins)
        .set((table::retry_at.eq(Some(Utc::now())), table::attempts.eq(0)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    set_desk_error(tx, tenant, id, "").await
}
