//! What comes from the desk.

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::UserId;
use virtualstack_model::log::Audit;
use virtualstack_model::support::id::TicketCommentId;
use virtualstack_model::support::ticket::{CommentSource, TicketPriority, TicketState};

use super::twin::{self, TwinKey};
use crate::schema::{
    all_attachments as files, all_comments as comments, desk_items as items, internal_comments as internal,
    memberships, tickets,
};
use crate::support::comments::{self as public, Comment};
use crate::support::staff::seen_by_staff;
use crate::support::staff_files::{self, StaffAttachment};
use crate::support::tickets::{self as ours, Event, Visible};
use crate::tx::error::from_diesel;
use crate::tx::{SystemTx, TenantTx, Write};

/// Those of these of the desk's comments and files that stand here.
pub async fn known(tx: &mut SystemTx, desk: &str, remote_ids: &[String]) -> Result<Vec<String>> {
    let known = items::table.filter(items::desk.eq(desk).and(items::remote_id.eq_any(remote_ids)));
    known.select(items::remote_id.assume_not_null()).load(tx.connection()?).await.map_err(from_diesel)
}

/// How many of the comments that a twin has stand here.
pub async fn heard(tx: &mut SystemTx, key: TwinKey<'_>) -> Result<usize> {
    let of_ticket = items::table.filter(items::tenant_id.eq(key.tenant).and(items::ticket_id.eq(key.ticket)));
    // A file that came with a comment is none.
    let comments = of_ticket.filter(items::desk.eq(key.desk)).filter(items::remote_id.not_like("file %"));
    let count: i64 = comments.count().get_result(tx.connection()?).await.map_err(from_diesel)?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Whether a comment or a file of ours is of a ticket.
pub async fn is_of(tx: &mut SystemTx, key: TwinKey<'_>, item: Uuid) -> Result<bool> {
    let comment = comments::table.filter(comments::tenant_id.eq(key.tenant).and(comments::ticket_id.eq(key.ticket)));
    let comment = comment.filter(comments::id.eq(TicketCommentId(item)));
    let file = files::table.filter(files::tenant_id.eq(key.tenant).and(files::ticket_id.eq(key.ticket)));
    let file = file.filter(files::id.eq(virtualstack_model::support::id::TicketAttachmentId(item)));
    let is_there = diesel::select(diesel::dsl::exists(comment).or(diesel::dsl::exists(file)));
    is_there.get_result(tx.connection()?).await.map_err(from_diesel)
}

/// Who says something.
#[derive(Clone, Debug)]
pub struct Author {
    /// A member of the tenant.
    pub user: Option<UserId>,
    pub name: String,
}

/// Who wrote a ticket.
pub async fn requester(tx: &mut SystemTx, key: TwinKey<'_>) -> Result<Author> {
    let of_ticket = tickets::table.find((key.tenant, key.ticket)).select(tickets::requester_id);
    let user: UserId = of_ticket.first(tx.connection()?).await.map_err(from_diesel)?;
    let name = memberships::table
        .filter(memberships::tenant_id.eq(key.tenant.0).and(memberships::id.eq(user)))
        .select(memberships::display_name)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(Author { user: Some(user), name })
}

/// A comment of the desk's.
#[derive(Clone, Debug)]
pub struct Received {
    pub remote_id: String,
    pub author: Author,
    pub body: String,
    pub internal: bool,
    /// What the tenant is told of it.
    pub event: Event,
}

/// Puts a comment of the desk's in, once.
pub async fn receive(tx: &mut SystemTx, audit: &Audit, key: TwinKey<'_>, received: &Received) -> Result<()> {
    let Received { remote_id, author, body, internal: is_internal, event } = received;
    let comment = Comment {
        tenant_id: key.tenant,
        id: TicketCommentId::new(),
        ticket_id: key.ticket,
        author_id: author.user,
        author_name: author.name.clone(),
        body: body.clone(),
        source: CommentSource::Desk,
        created_at: Utc::now(),
    };
    if !twin::pair(tx, key, comment.id.0, remote_id).await? {
        return Ok(());
    }
    if *is_internal {
        diesel::insert_into(internal::table)
            .values((
                internal::tenant_id.eq(key.tenant),
                internal::id.eq(comment.id),
                internal::ticket_id.eq(key.ticket),
                internal::author_name.eq(&author.name),
                internal::body.eq(body),
                internal::source.eq(comment.source),
            ))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        return seen_by_staff(tx, key.tenant, key.ticket, 1).await;
    }
    let answer = async |inside: &mut TenantTx<Write>| {
        let before = ours::lock(inside, Visible::All, key.ticket).await?;
        public::insert(inside, &comment).await?;
        let mut after = before.clone();
        after.comment_count += 1;
        ours::update(inside, &before, &mut after, event.clone(), None).await
    };
    tx.enter(key.tenant, audit, answer).await
}

/// Adds a file of the desk's, whose bytes are there, once; whether it did.
pub async fn receive_file(
    tx: &mut SystemTx,
    audit: &Audit,
    key: TwinKey<'_>,
    remote_id: &str,
    file: &StaffAttachment,
) -> Result<bool> {
    if !twin::pair(tx, key, file.id.0, remote_id).await? {
        return Ok(false);
    }
    staff_files::put(tx, audit, file).await?;
    if file.internal {
        seen_by_staff(tx, key.tenant, key.ticket, 0).await?;
    }
    Ok(true)
}

/// Puts a ticket in the state and priority that the desk gives it.
pub async fn follow(
    tx: &mut SystemTx,
    audit: &Audit,
    key: TwinKey<'_>,
    state: Option<TicketState>,
    priority: Option<TicketPriority>,
) -> Result<()> {
    let follow = async |inside: &mut TenantTx<Write>| {
        let before = ours::lock(inside, Visible::All, key.ticket).await?;
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
    tx.enter(key.tenant, audit, follow).await
}
