//! Comments on tickets of all tenants, as the provider's staff see and write them.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::support::id::{TicketCommentId, TicketId};
use virtualstack_model::support::ticket::CommentSource;

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{all_comments as all, internal_comments as internal};
use crate::support::comments::{self, Comment};
use crate::support::staff::{Work, change_staff, name_of};
use crate::support::tickets::{self, Event, Visible};
use crate::tx::error::from_diesel;
use crate::tx::{SystemTx, TenantTx, Write};

/// A comment as staff see it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = all)]
pub struct StaffComment {
    pub tenant_id: TenantId,
    pub id: TicketCommentId,
    pub ticket_id: TicketId,
    pub author_id: Option<UserId>,
    pub author_name: String,
    pub body: String,
    pub internal: bool,
    pub source: CommentSource,
    pub created_at: DateTime<Utc>,
}

impl StaffComment {
    /// One that its tenant sees.
    fn of(comment: Comment) -> Self {
        let Comment { tenant_id, id, ticket_id, author_id, author_name, body, source, created_at } = comment;
        Self { tenant_id, id, ticket_id, author_id, author_name, body, internal: false, source, created_at }
    }
}

/// What filters and orders of comments may name.
const LISTING: Listing<all::table> = Listing {
    collection: TicketCommentId::COLLECTION,
    id: Field::id("name", TicketCommentId::COLLECTION, &all::id),
    fields: &[
        Field::id("author", UserId::COLLECTION, &all::author_id),
        Field::text("body", &all::body).searched(),
        Field::bool("internal", &all::internal),
        Field::words("source", CommentSource::WORDS, &all::source),
        Field::time("createTime", &all::created_at).sorted_by_id(),
    ],
};

/// Lists the comments on a ticket that was seen, internal ones among them.
pub async fn list(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    request: &ListRequest,
) -> Result<Listed<StaffComment>> {
    let of_ticket = move || all::table.filter(all::tenant_id.eq(tenant).and(all::ticket_id.eq(ticket))).into_boxed();
    LISTING.read(tx, request, &ticket.name_in(tenant), of_ticket).await
}

/// Reads a comment.
pub async fn get(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    id: TicketCommentId,
) -> Result<StaffComment> {
    all::table
        .filter(all::tenant_id.eq(tenant).and(all::id.eq(id)).and(all::ticket_id.eq(ticket)))
        .select(StaffComment::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| comments::missing(ticket, id))
}

/// Answers a ticket: its tenant sees that.
pub async fn answer(tx: &mut SystemTx, work: &Work<'_>, body: &str) -> Result<StaffComment> {
    let name = name_of(tx, work.provider, work.operator).await?;
    let id = work.ticket;
    let answer = async |inside: &mut TenantTx<Write>| {
        let before = tickets::lock(inside, Visible::All, id).await?;
        before.state.expect_not_closed(id, "take comments")?;
        let comment = Comment::new((before.tenant_id, id), None, name.clone(), body.to_owned());
        comments::insert(inside, &comment).await?;
        let mut after = before.clone();
        after.comment_count += 1;
        let event = Event::new("TICKET_ANSWERED", "The provider answered");
        tickets::update(inside, &before, &mut after, event, None).await?;
        Ok(comment)
    };
    tx.enter(work.tenant, work.audit, answer).await.map(StaffComment::of)
}

/// Notes something that only staff see. Nothing that the tenant sees moves, its logs included.
pub async fn note(tx: &mut SystemTx, work: &Work<'_>, body: &str) -> Result<StaffComment> {
    let name = name_of(tx, work.provider, work.operator).await?;
    let comment = Comment::new((work.tenant, work.ticket), None, name, body.to_owned());
    let Comment { tenant_id, id, ticket_id, author_name, body, source, created_at, .. } = &comment;
    diesel::insert_into(internal::table)
        .values((
            internal::tenant_id.eq(tenant_id),
            internal::id.eq(id),
            internal::ticket_id.eq(ticket_id),
            internal::author_name.eq(author_name),
            internal::body.eq(body),
            internal::source.eq(source),
            internal::created_at.eq(created_at),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    change_staff(tx, work, |staff| staff.internal_comments += 1).await?;
    tx.audit(Some(work.provider), work.audit).await?;
    Ok(StaffComment { internal: true, ..StaffComment::of(comment) })
}
