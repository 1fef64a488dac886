//! Files of tickets, as the tenant sees them. Their bytes are in the object store.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, Text};
use diesel_async::RunQueryDsl;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::support::attachment::MAX_FILES;
use virtualstack_model::support::id::{TicketAttachmentId, TicketId};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::ticket_attachments as table;
use crate::support::tickets::{self, Event, Ticket, Visible};
use crate::support::usage;
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{SystemTx, TenantTx, Write};

/// A file as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = table)]
pub struct Attachment {
    pub tenant_id: TenantId,
    pub id: TicketAttachmentId,
    pub ticket_id: TicketId,
    pub file_name: String,
    pub size_bytes: i64,
    pub content_type: String,
    pub sha256: String,
    /// None of the provider's.
    pub author_id: Option<UserId>,
    pub author_name: String,
    pub created_at: DateTime<Utc>,
}

/// A file that is not there.
pub(super) fn missing(ticket: TicketId, id: TicketAttachmentId) -> Error {
    Error::not_found("TICKET_ATTACHMENT_NOT_FOUND", id.name_in(ticket))
}

/// Reads a file of a ticket that was seen.
pub async fn get(reader: &mut impl TenantReader, ticket: TicketId, id: TicketAttachmentId) -> Result<Attachment> {
    let tenant = reader.tenant();
    let one = move || {
        let row = table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id)));
        row.filter(table::ticket_id.eq(ticket)).select(Attachment::as_select())
    };
    reader.find(one).await?.ok_or_else(|| missing(ticket, id))
}

/// What filters and orders of files may name.
const LISTING: Listing<table::table> = Listing {
    collection: TicketAttachmentId::COLLECTION,
    id: Field::id("name", TicketAttachmentId::COLLECTION, &table::id),
    fields: &[
        Field::text("fileName", &table::file_name).sorted().searched(),
        Field::int64("sizeBytes", &table::size_bytes).sorted(),
        Field::text("contentType", &table::content_type),
        Field::time("createTime", &table::created_at).sorted_by_id(),
    ],
};

/// Lists the files of a ticket that was seen.
pub async fn list(
    reader: &mut impl TenantReader,
    ticket: TicketId,
    request: &ListRequest,
) -> Result<Listed<Attachment>> {
    let tenant = reader.tenant();
    let of_ticket =
        move || table::table.filter(table::tenant_id.eq(tenant).and(table::ticket_id.eq(ticket))).into_boxed();
    LISTING.read(reader, request, &ticket.name(), of_ticket).await
}

/// Locks a ticket that can take one more file of so many bytes. `most` is what all files of the tenant may have together; none
/// where the provider sends one.
pub async fn expect_room(
    tx: &mut TenantTx<Write>,
    (visible, ticket): (Visible, TicketId),
    size_bytes: i64,
    most: Option<i64>,
) -> Result<Ticket> {
    let before = tickets::lock(tx, visible, ticket).await?;
    before.state.expect_not_closed(ticket, "take files")?;
    let of_ticket = table::table.filter(table::tenant_id.eq(before.tenant_id).and(table::ticket_id.eq(ticket)));
    let files: i64 = of_ticket.count().get_result(tx.connection()?).await.map_err(from_diesel)?;
    check_count(ticket, files)?;
    usage::add_bytes(tx, size_bytes, most).await?;
    Ok(before)
}

/// Refuses a file of a ticket that has as many as it may have.
pub(super) fn check_count(ticket: TicketId, files: i64) -> Result<()> {
    if files < MAX_FILES {
        return Ok(());
    }
    let message = format!("the ticket has {files} files, the most that it may have; delete one");
    Err(Error::precondition("TOO_MANY_ATTACHMENTS", ticket.name(), message))
}

/// Adds a file whose bytes are there.
pub async fn add(tx: &mut TenantTx<Write>, visible: Visible, attachment: &Attachment, most: Option<i64>) -> Result<()> {
    let before = expect_room(tx, (visible, attachment.ticket_id), attachment.size_bytes, most).await?;
    diesel::insert_into(table::table).values(attachment).execute(tx.connection()?).await.map_err(from_diesel)?;
    let message = format!("{} sent a file", attachment.author_name);
    tickets::update(tx, &before, &mut before.clone(), Event::new("TICKET_FILE_ADDED", message), None).await
}

/// Removes a file. One of the provider's only the provider removes.
pub async fn remove(
    tx: &mut TenantTx<Write>,
    (visible, ticket): (Visible, TicketId),
    id: TicketAttachmentId,
    by_provider: bool,
) -> Result<Attachment> {
    let before = tickets::lock(tx, visible, ticket).await?;
    let attachment = get(tx, ticket, id).await?;
    if attachment.author_id.is_none() && !by_provider {
        return Err(Error::denied("ATTACHMENT_OF_PROVIDER", format!("{} is the provider's", id.name_in(ticket))));
    }
    let row = table::table.filter(table::tenant_id.eq(attachment.tenant_id).and(table::id.eq(id)));
    diesel::delete(row).execute(tx.connection()?).await.map_err(from_diesel)?;
    usage::add_bytes(tx, -attachment.size_bytes, None).await?;
    let event = Event::new("TICKET_FILE_DELETED", "A file was deleted");
    tickets::update(tx, &before, &mut before.clone(), event, None).await?;
    Ok(attachment)
}

/// Those of these names of objects that belong to a file: "attachments/{tenant}/{file}/{first byte}".
pub async fn known(tx: &mut SystemTx, objects: &[String]) -> Result<Vec<String>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        object: String,
    }
    let rows: Vec<Row> = diesel::sql_query(
        "WITH said AS MATERIALIZED ( \
            SELECT object, split_part(object, '/', 2)::uuid AS tenant_id, split_part(object, '/', 3)::uuid AS id \
            FROM unnest($1) AS all_said (object) WHERE object ~ '^[a-z]+/[0-9a-f-]{36}/[0-9a-f-]{36}/' \
         ) SELECT object FROM said JOIN support.all_attachments a USING (tenant_id, id)",
    )
    .bind::<Array<Text>, _>(objects)
    .load(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    Ok(rows.into_iter().map(|row| row.object).collect())
}
