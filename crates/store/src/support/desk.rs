//! What the provider's desk, where it is another program, has of tickets. Tasks of the worker read and write this; no tenant does.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::log::Audit;
use virtualstack_model::support::id::{TicketCommentId, TicketId};
use virtualstack_model::support::ticket::{CommentSource, DeskState, TicketPriority, TicketState};

use crate::schema::{
    all_attachments as files, all_comments as comments, desk_cursors as cursors, desk_items as items,
    desk_tickets as table, internal_comments as internal, memberships, tenants, ticket_staff as staff, tickets,
};
use crate::support::comments::{self as public, Comment};
use crate::support::staff_comments::StaffComment;
use crate::support::staff_files::{self, StaffAttachment};
use crate::support::tickets::{self as ours, Event, Ticket, Visible};
use crate::tx::error::from_diesel;
use crate::tx::{SystemTx, TenantTx, Write};

/// A ticket's twin, and what both had when they were last the same.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = table, treat_none_as_null = true)]
pub struct Twin {
    /// None until it is known.
    pub remote_id: Option<String>,
    pub begun_at: DateTime<Utc>,
    pub state: String,
    pub remote_state: String,
    pub priority: String,
    pub subject: String,
    pub description: String,
    pub remote_updated_at: Option<DateTime<Utc>>,
    pub retry_at: Option<DateTime<Utc>>,
    pub attempts: i32,
}

/// Tickets that have changed since the desk has heard of them, and are due: the oldest of each tenant first, so that no tenant has the
/// desk to itself.
pub async fn to_send(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, TicketId)>> {
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
            FROM support.tickets t LEFT JOIN support.desk_tickets d ON d.tenant_id = t.tenant_id AND d.ticket_id = t.id \
            WHERE t.desk_version < t.version AND (d.ticket_id IS NULL OR d.retry_at <= now()) \
        ) due ORDER BY turn, updated_at LIMIT $1",
    )
    .bind::<BigInt, _>(limit)
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
    pub tenant_name: String,
    pub requester_email: String,
    pub requester_name: String,
    /// Those that the desk does not have, oldest first.
    pub comments: Vec<StaffComment>,
    pub files: Vec<StaffAttachment>,
}

/// Reads what the desk is to have of a ticket, which from now on has a twin.
pub async fn outgoing(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<Outgoing> {
    let key = (table::tenant_id.eq(tenant), table::ticket_id.eq(id), table::begun_at.eq(Utc::now()));
    let make = diesel::insert_into(table::table).values(key).on_conflict_do_nothing();
    make.execute(tx.connection()?).await.map_err(from_diesel)?;
    let twin = twin(tx, tenant, id).await?;
    let (ticket, desk_version): (Ticket, i64) = tickets::table
        .find((tenant, id))
        .select((Ticket::as_select(), tickets::desk_version))
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let (requester_email, requester_name) = requester(tx, tenant, ticket.requester_id).await?;
    let tenant_name = tenants::table
        .filter(tenants::id.eq(tenant))
        .select(tenants::display_name)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let unsent = "NOT EXISTS (SELECT FROM support.desk_items i WHERE i.tenant_id = all_comments.tenant_id AND i.id = all_comments.id)";
    let comments = comments::table
        .filter(comments::tenant_id.eq(tenant).and(comments::ticket_id.eq(id)))
        .filter(sql::<Bool>(unsent))
        .order(comments::id)
        .select(StaffComment::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let files = files::table
        .filter(files::tenant_id.eq(tenant).and(files::ticket_id.eq(id)))
        .filter(sql::<Bool>(
            "NOT EXISTS (SELECT FROM support.desk_items i WHERE i.tenant_id = all_attachments.tenant_id AND i.id = all_attachments.id)",
        ))
        .order(files::id)
        .select(StaffAttachment::as_select())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(Outgoing { ticket, twin, desk_version, tenant_name, requester_email, requester_name, comments, files })
}

async fn twin(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<Twin> {
    let row = table::table.find((tenant, id)).select(Twin::as_select());
    row.first(tx.connection()?).await.map_err(from_diesel)
}

async fn requester(tx: &mut SystemTx, tenant: TenantId, user: UserId) -> Result<(String, String)> {
    memberships::table
        .filter(memberships::tenant_id.eq(tenant.0).and(memberships::id.eq(user)))
        .select((memberships::email, memberships::display_name))
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Writes what is known of a twin.
pub async fn save(tx: &mut SystemTx, tenant: TenantId, id: TicketId, twin: &Twin) -> Result<()> {
    let row = table::table.filter(table::tenant_id.eq(tenant).and(table::ticket_id.eq(id)));
    diesel::update(row).set(twin).execute(tx.connection()?).await.map_err(from_diesel)?;
    let ticket = tickets::table.filter(tickets::tenant_id.eq(tenant).and(tickets::id.eq(id)));
    let number = twin.remote_id.clone().unwrap_or_default();
    diesel::update(ticket)
        .set(tickets::desk_ticket.eq(number))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Reads a ticket.
pub async fn ticket(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<Ticket> {
    let row = tickets::table.find((tenant, id)).select(Ticket::as_select());
    row.first(tx.connection()?).await.map_err(from_diesel)
}

/// Writes what was read of a twin, and leaves alone how far it is sent.
pub async fn save_read(tx: &mut SystemTx, tenant: TenantId, id: TicketId, twin: &Twin) -> Result<()> {
    let row = table::table.filter(table::tenant_id.eq(tenant).and(table::ticket_id.eq(id)));
    diesel::update(row)
        .set((
            table::state.eq(&twin.state),
            table::remote_state.eq(&twin.remote_state),
            table::priority.eq(&twin.priority),
            table::remote_updated_at.eq(twin.remote_updated_at),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// The desk has all of a ticket as it was read. What has changed since is still to be sent.
pub async fn synced(tx: &mut SystemTx, sent: &Outgoing) -> Result<()> {
    let (tenant, id, version) = (sent.ticket.tenant_id, sent.ticket.id, sent.ticket.version);
    let ticket = tickets::table.filter(tickets::tenant_id.eq(tenant).and(tickets::id.eq(id)));
    let ticket = ticket.filter(tickets::desk_version.eq(sent.desk_version));
    diesel::update(ticket)
        .set((
            tickets::desk_version.eq(version),
            tickets::desk_state.eq(DeskState::Synced),
            tickets::desk_synced_at.eq(Some(Utc::now())),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    set_error(tx, tenant, id, "").await
}

/// The desk has refused something of a ticket: it is not tried again until somebody asks for it.
pub async fn failed(tx: &mut SystemTx, tenant: TenantId, id: TicketId, error: &str) -> Result<()> {
    let ticket = tickets::table.filter(tickets::tenant_id.eq(tenant).and(tickets::id.eq(id)));
    diesel::update(ticket)
        .set(tickets::desk_state.eq(DeskState::Failed))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    set_error(tx, tenant, id, error).await
}

/// Has a ticket sent again, with all that the desk may lack of it.
pub async fn send_again(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<()> {
    let ticket = tickets::table.filter(tickets::tenant_id.eq(tenant).and(tickets::id.eq(id)));
    diesel::update(ticket)
        .set((tickets::desk_version.eq(0), tickets::desk_state.eq(DeskState::Pending)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let twin = table::table.filter(table::tenant_id.eq(tenant).and(table::ticket_id.eq(id)));
    diesel::update(twin)
        .set((table::retry_at.eq(Some(Utc::now())), table::attempts.eq(0)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    set_error(tx, tenant, id, "").await
}

async fn set_error(tx: &mut SystemTx, tenant: TenantId, id: TicketId, error: &str) -> Result<()> {
    diesel::insert_into(staff::table)
        .values((staff::tenant_id.eq(tenant), staff::ticket_id.eq(id), staff::desk_error.eq(error)))
        .on_conflict((staff::tenant_id, staff::ticket_id))
        .do_update()
        .set(staff::desk_error.eq(error))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Says which of the desk's a comment or a file of ours is; whether it was not known.
pub async fn pair(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    item: Uuid,
    remote_id: &str,
) -> Result<bool> {
    let pair =
        (items::tenant_id.eq(tenant), items::id.eq(item), items::ticket_id.eq(ticket), items::remote_id.eq(remote_id));
    let done = diesel::insert_into(items::table).values(pair).on_conflict_do_nothing().execute(tx.connection()?);
    Ok(done.await.map_err(from_diesel)? == 1)
}

/// The ticket whose twin has this number, and what is known of it.
pub async fn find(tx: &mut SystemTx, remote_id: &str) -> Result<Option<(TenantId, TicketId, Twin)>> {
    table::table
        .filter(table::remote_id.eq(remote_id))
        .select((table::tenant_id, table::ticket_id, Twin::as_select()))
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Those of these of the desk's comments and files that stand here.
pub async fn known(tx: &mut SystemTx, remote_ids: &[String]) -> Result<Vec<String>> {
    let known = items::table.filter(items::remote_id.eq_any(remote_ids)).select(items::remote_id);
    known.load(tx.connection()?).await.map_err(from_diesel)
}

/// A comment of the desk's.
#[derive(Clone, Debug)]
pub struct Received {
    pub remote_id: String,
    pub author_name: String,
    pub body: String,
    pub internal: bool,
    /// Whether the requester says it, by mail to the desk.
    pub by_requester: bool,
}

/// Puts a comment of the desk's in, once.
pub async fn receive(
    tx: &mut SystemTx,
    audit: &Audit,
    (tenant, id): (TenantId, TicketId),
    received: &Received,
) -> Result<()> {
    let Received { remote_id, author_name, body, internal: is_internal, by_requester } = received;
    let comment = Comment {
        tenant_id: tenant,
        id: TicketCommentId::new(),
        ticket_id: id,
        author_id: None,
        author_name: author_name.clone(),
        body: body.clone(),
        source: CommentSource::Desk,
        created_at: Utc::now(),
    };
    if !pair(tx, (tenant, id), comment.id.0, remote_id).await? {
        return Ok(());
    }
    if *is_internal {
        diesel::insert_into(internal::table)
            .values((
                internal::tenant_id.eq(tenant),
                internal::id.eq(comment.id),
                internal::ticket_id.eq(id),
                internal::author_name.eq(author_name),
                internal::body.eq(body),
                internal::source.eq(comment.source),
            ))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        diesel::insert_into(staff::table)
            .values((staff::tenant_id.eq(tenant), staff::ticket_id.eq(id), staff::internal_comments.eq(1)))
            .on_conflict((staff::tenant_id, staff::ticket_id))
            .do_update()
            .set((staff::internal_comments.eq(staff::internal_comments + 1), staff::version.eq(staff::version + 1)))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        return Ok(());
    }
    let answer = async |inside: &mut TenantTx<Write>| {
        let before = ours::lock(inside, Visible::All, id).await?;
        let mut comment = comment.clone();
        let mut event = Event::new("TICKET_ANSWERED", "The provider answered");
        if *by_requester {
            comment.author_id = Some(before.requester_id);
            event = Event::new("TICKET_COMMENTED", "The requester answered by mail");
        }
        public::insert(inside, &comment).await?;
        let mut after = before.clone();
        after.comment_count += 1;
        ours::update(inside, &before, &mut after, event, None).await
    };
    tx.enter(tenant, audit, answer).await
}

/// Adds a file of the desk's, whose bytes are there, once; whether it did.
pub async fn receive_file(tx: &mut SystemTx, audit: &Audit, remote_id: &str, file: &StaffAttachment) -> Result<bool> {
    let (tenant, ticket) = (file.tenant_id, file.ticket_id);
    if !pair(tx, (tenant, ticket), file.id.0, remote_id).await? {
        return Ok(false);
    }
    staff_files::put(tx, audit, file).await?;
    Ok(true)
}

/// Puts a ticket in the state and priority that the desk gives it.
pub async fn follow(
    tx: &mut SystemTx,
    audit: &Audit,
    (tenant, id): (TenantId, TicketId),
    state: Option<TicketState>,
    priority: Option<TicketPriority>,
) -> Result<()> {
    let follow = async |inside: &mut TenantTx<Write>| {
        let before = ours::lock(inside, Visible::All, id).await?;
        let mut after = before.clone();
        if let Some(state) = state {
            after.enter(state);
        }
        after.priority = priority.unwrap_or(after.priority);
        if after != before {
            let event = Event::new("TICKET_UPDATED", "The provider changed the ticket");
            ours::update(inside, &before, &mut after, event, None).await?;
        }
        Ok(())
    };
    tx.enter(tenant, audit, follow).await
}

/// How far a desk was read.
#[derive(Clone, Copy, Debug, Queryable, Selectable)]
#[diesel(table_name = cursors)]
pub struct Cursor {
    /// By the desk's clock.
    pub read_until: DateTime<Utc>,
    pub polled_at: DateTime<Utc>,
}

/// How far a desk was read, if it was.
pub async fn cursor(tx: &mut SystemTx, desk: &str) -> Result<Option<Cursor>> {
    let row = cursors::table.find(desk).select(Cursor::as_select());
    row.first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// Remembers how far a desk was read, and when.
pub async fn set_cursor(
    tx: &mut SystemTx,
    desk: &str,
    read_until: DateTime<Utc>,
    polled_at: DateTime<Utc>,
) -> Result<()> {
    let now = (cursors::read_until.eq(read_until), cursors::polled_at.eq(polled_at));
    diesel::insert_into(cursors::table)
        .values((cursors::desk.eq(desk), now))
        .on_conflict(cursors::desk)
        .do_update()
        .set(now)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}
