//! Files of tickets of all tenants, as the provider's staff see and send them.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::log::Audit;
use virtualstack_model::support::id::{TicketAttachmentId, TicketId};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{all_attachments as all, internal_attachments as internal};
use crate::support::attachments::{self, Attachment};
use crate::support::staff::{self, Work, change_staff};
use crate::support::tickets::Visible;
use crate::tx::error::from_diesel;
use crate::tx::{SystemTx, TenantTx, Write};

/// A file as staff see it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = all)]
pub struct StaffAttachment {
    pub tenant_id: TenantId,
    pub id: TicketAttachmentId,
    pub ticket_id: TicketId,
    pub file_name: String,
    pub size_bytes: i64,
    pub content_type: String,
    pub sha256: String,
    pub author_id: Option<UserId>,
    pub author_name: String,
    pub internal: bool,
    pub created_at: DateTime<Utc>,
}

impl StaffAttachment {
    /// One that its tenant sees.
    #[must_use]
    pub fn of(attachment: Attachment) -> Self {
        let Attachment { tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, .. } = attachment;
        let Attachment { author_id, author_name, created_at, .. } = attachment;
        Self {
            tenant_id,
            id,
            ticket_id,
            file_name,
            size_bytes,
            content_type,
            sha256,
            author_id,
            author_name,
            internal: false,
            created_at,
        }
    }
}

/// What filters and orders of files may name.
const LISTING: Listing<all::table> = Listing {
    collection: TicketAttachmentId::COLLECTION,
    id: Field::id("name", TicketAttachmentId::COLLECTION, &all::id),
    fields: &[
        Field::text("fileName", &all::file_name).sorted().searched(),
        Field::int64("sizeBytes", &all::size_bytes).sorted(),
        Field::text("contentType", &all::content_type),
        Field::bool("internal", &all::internal),
        Field::time("createTime", &all::created_at).sorted_by_id(),
    ],
};

/// Lists the files of a ticket that was seen, internal ones among them.
pub async fn list(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    request: &ListRequest,
) -> Result<Listed<StaffAttachment>> {
    let of_ticket = move || all::table.filter(all::tenant_id.eq(tenant).and(all::ticket_id.eq(ticket))).into_boxed();
    LISTING.read(tx, request, &ticket.name_in(tenant), of_ticket).await
}

/// Reads a file.
pub async fn get(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    id: TicketAttachmentId,
) -> Result<StaffAttachment> {
    all::table
        .filter(all::tenant_id.eq(tenant).and(all::id.eq(id)).and(all::ticket_id.eq(ticket)))
        .select(StaffAttachment::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| attachments::missing(ticket, id))
}

/// Refuses a file of a ticket that takes none.
pub async fn expect_room(tx: &mut SystemTx, tenant: TenantId, ticket: TicketId, internal: bool) -> Result<()> {
    let found = staff::get(tx, tenant, ticket).await?.ticket;
    if !internal {
        found.state.expect_not_closed(ticket, "take files")?;
    }
    let of_ticket = all::tenant_id.eq(tenant).and(all::ticket_id.eq(ticket));
    let files = all::table.filter(of_ticket.and(all::internal.eq(internal))).count();
    attachments::check_count(ticket, files.get_result(tx.connection()?).await.map_err(from_diesel)?)
}

/// Adds a file whose bytes are there.
pub async fn add(tx: &mut SystemTx, work: &Work<'_>, file: &StaffAttachment) -> Result<()> {
    // Others who add one to the ticket wait.
    staff::lock(tx, work.tenant, work.ticket).await?;
    expect_room(tx, work.tenant, work.ticket, file.internal).await?;
    put(tx, work.audit, file).await?;
    if !file.internal {
        return Ok(());
    }
    change_staff(tx, work, |_| {}).await?;
    tx.audit(Some(work.provider), work.audit).await
}

/// Writes the row of a file, in its tenant where that sees it.
pub(super) async fn put(tx: &mut SystemTx, audit: &Audit, file: &StaffAttachment) -> Result<()> {
    let StaffAttachment { tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, .. } = file.clone();
    let StaffAttachment { author_id, author_name, created_at, .. } = file.clone();
    if !file.internal {
        let attachment = Attachment {
            tenant_id,
            id,
            ticket_id,
            file_name,
            size_bytes,
            content_type,
            sha256,
            author_id,
            author_name,
            created_at,
        };
        let add = async |inside: &mut TenantTx<Write>| attachments::add(inside, Visible::All, &attachment, None).await;
        return tx.enter(tenant_id, audit, add).await;
    }
    diesel::insert_into(internal::table)
        .values((
            internal::tenant_id.eq(tenant_id),
            internal::id.eq(id),
            internal::ticket_id.eq(ticket_id),
            internal::file_name.eq(file_name),
            internal::size_bytes.eq(size_bytes),
            internal::content_type.eq(content_type),
            internal::sha256.eq(sha256),
            internal::author_name.eq(author_name),
            internal::created_at.eq(created_at),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Removes a file.
pub async fn remove(tx: &mut SystemTx, work: &Work<'_>, id: TicketAttachmentId) -> Result<StaffAttachment> {
    let found = get(tx, (work.tenant, work.ticket), id).await?;
    if found.internal {
        let row = internal::table.filter(internal::tenant_id.eq(work.tenant).and(internal::id.eq(id)));
        diesel::delete(row).execute(tx.connection()?).await.map_err(from_diesel)?;
        change_staff(tx, work, |_| {}).await?;
        tx.audit(Some(work.provider), work.audit).await?;
        return Ok(found);
    }
    let ticket = work.ticket;
    let remove = async |inside: &mut TenantTx<Write>| {
        attachments::remove(inside, (Visible::All, ticket), id, true).await.map(|_| ())
    };
    tx.enter(work.tenant, work.audit, remove).await?;
    Ok(found)
}
