//! Comments on tickets, as the tenant sees them: the staff's notes among themselves are in another table.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::support::id::{TicketCommentId, TicketId};
use virtualstack_model::support::ticket::CommentSource;
use virtualstack_model::{Error, Result};

use crate::iam::users;
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::ticket_comments as table;
use crate::support::tickets::{self, Bounds, Event, Visible};
use crate::support::usage;
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{TenantTx, Write};

/// A comment as it is kept.
#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = table)]
pub struct Comment {
    pub tenant_id: TenantId,
    pub id: TicketCommentId,
    pub ticket_id: TicketId,
    /// None of the provider's.
    pub author_id: Option<UserId>,
    pub author_name: String,
    pub body: String,
    pub source: CommentSource,
    pub created_at: DateTime<Utc>,
}

impl Comment {
    /// A comment that is written now.
    pub(super) fn new(
        (tenant_id, ticket_id): (TenantId, TicketId),
        author_id: Option<UserId>,
        author_name: String,
        body: String,
    ) -> Self {
        let (id, source, created_at) = (TicketCommentId::new(), CommentSource::Api, Utc::now());
        Self { tenant_id, id, ticket_id, author_id, author_name, body, source, created_at }
    }
}

/// A comment that is not there.
pub(super) fn missing(ticket: TicketId, id: TicketCommentId) -> Error {
    Error::not_found("TICKET_COMMENT_NOT_FOUND", id.name_in(ticket))
}

/// Reads a comment on a ticket that was seen.
pub async fn get(reader: &mut impl TenantReader, ticket: TicketId, id: TicketCommentId) -> Result<Comment> {
    let tenant = reader.tenant();
    let one = move || {
        let row = table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id)));
        row.filter(table::ticket_id.eq(ticket)).select(Comment::as_select())
    };
    reader.find(one).await?.ok_or_else(|| missing(ticket, id))
}

/// What filters and orders of comments may name.
const LISTING: Listing<table::table> = Listing {
    collection: TicketCommentId::COLLECTION,
    id: Field::id("name", TicketCommentId::COLLECTION, &table::id),
    fields: &[
        Field::id("author", UserId::COLLECTION, &table::author_id),
        Field::text("body", &table::body).searched(),
        Field::words("source", CommentSource::WORDS, &table::source),
        Field::time("createTime", &table::created_at).sorted_by_id(),
    ],
};

/// Lists the comments on a ticket that was seen.
pub async fn list(reader: &mut impl TenantReader, ticket: TicketId, request: &ListRequest) -> Result<Listed<Comment>> {
    let tenant = reader.tenant();
    let of_ticket =
        move || table::table.filter(table::tenant_id.eq(tenant).and(table::ticket_id.eq(ticket))).into_boxed();
    LISTING.read(reader, request, &ticket.name(), of_ticket).await
}

/// Adds a comment of a member's, which is the provider's turn.
pub async fn add(
    tx: &mut TenantTx<Write>,
    (visible, ticket): (Visible, TicketId),
    author: UserId,
    body: String,
    bounds: Bounds,
) -> Result<Comment> {
    let before = tickets::lock(tx, visible, ticket).await?;
    let state = before.state.commented_by_tenant(ticket)?;
    check_rate(tx, bounds.comments_per_hour).await?;
    let name = users::get(tx, author).await?.user.display_name;
    let comment = Comment::new((before.tenant_id, ticket), Some(author), name, body);
    insert(tx, &comment).await?;
    let mut after = before.clone();
    after.enter(state);
    after.comment_count += 1;
    let message = format!("{} commented", comment.author_name);
    tickets::update(tx, &before, &mut after, Event::new("TICKET_COMMENTED", message), None).await?;
    Ok(comment)
}

/// Puts a comment in that its tenant sees.
pub(super) async fn insert(tx: &mut TenantTx<Write>, comment: &Comment) -> Result<()> {
    diesel::insert_into(table::table).values(comment).execute(tx.connection()?).await.map_err(from_diesel)?;
    Ok(())
}

/// Refuses one more comment of a tenant that has written many. Those of the provider do not count.
async fn check_rate(tx: &mut TenantTx<Write>, most: i64) -> Result<()> {
    usage::lock(tx).await?;
    let written: i64 = table::table
        .filter(table::tenant_id.eq(tx.tenant()).and(table::author_id.is_not_null()))
        .filter(sql::<Bool>("created_at > now() - interval '1 hour'"))
        .count()
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if written < most {
        return Ok(());
    }
    let message = format!("the tenant has written {written} comments within an hour, the most that it may write");
    let retry_after = Some(std::time::Duration::from_secs(60));
    Err(Error::ResourceExhausted { reason: "TOO_MANY_COMMENTS", message, retry_after })
}
