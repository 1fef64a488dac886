//! Tickets of all tenants, as the provider's staff work on them. What the tenant sees is written in the tenant, with its logs; what only
//! staff see stands in tables that no tenant's transaction can read.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::iam::user::MembershipState;
use virtualstack_model::id::{OperationId, TenantId, UserId};
use virtualstack_model::log::Audit;
use virtualstack_model::support::id::{TicketAttachmentId, TicketCommentId, TicketId};
use virtualstack_model::support::ticket::{CommentSource, DeskState, TicketCategory, TicketPriority, TicketState};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{
    all_attachments as all_files, all_comments as all, internal_attachments as internal_files,
    internal_comments as internal, memberships, ticket_staff as staff, tickets as table,
};
use crate::support::attachments::{self, Attachment};
use crate::support::comments::{self, Comment};
use crate::support::tickets::{self, Event, Ticket, Visible};
use crate::tx::error::from_diesel;
use crate::tx::{SystemTx, TenantTx, Write};

/// What only staff know of a ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = staff, treat_none_as_null = true)]
pub struct Staff {
    pub assignee_id: Option<UserId>,
    pub internal_comments: i32,
    pub desk_error: String,
    pub version: i64,
}

/// A ticket as staff see it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct StaffTicket {
    #[diesel(embed)]
    pub ticket: Ticket,
    #[diesel(embed)]
    pub staff: Option<Staff>,
}

impl StaffTicket {
    /// Changes with each change, those included that the tenant does not see.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.ticket.version, self.staff.as_ref().map_or(0, |staff| staff.version))
    }
}

type Joined = diesel::dsl::LeftJoinQuerySource<table::table, staff::table, On>;
type On =
    diesel::dsl::And<diesel::dsl::Eq<table::tenant_id, staff::tenant_id>, diesel::dsl::Eq<table::id, staff::ticket_id>>;

fn joined() -> diesel::dsl::LeftJoin<table::table, diesel::dsl::On<staff::table, On>> {
    table::table.left_join(staff::table.on(table::tenant_id.eq(staff::tenant_id).and(table::id.eq(staff::ticket_id))))
}

/// What filters and orders of tickets may name.
const LISTING: Listing<Joined> = Listing {
    collection: TicketId::COLLECTION,
    id: Field::id("name", TicketId::COLLECTION, &table::id),
    fields: &[
        Field::id("tenant", TenantId::COLLECTION, &table::tenant_id),
        Field::int32("number", &table::number).sorted(),
        Field::text("subject", &table::subject).sorted().searched(),
        Field::text("description", &table::description).searched(),
        Field::words("category", TicketCategory::WORDS, &table::category).sorted(),
        Field::words("priority", TicketPriority::WORDS, &table::priority).sorted(),
        Field::words("state", TicketState::WORDS, &table::state).sorted(),
        Field::id("requester", UserId::COLLECTION, &table::requester_id),
        Field::sql("assignee", crate::listing::Kind::Id(UserId::COLLECTION), "support.ticket_staff.assignee_id"),
        Field::id("vm", VmId::COLLECTION, &table::vm_id),
        Field::id("operation", OperationId::COLLECTION, &table::operation_id),
        Field::words("desk.state", DeskState::WORDS, &table::desk_state),
        Field::time("createTime", &table::created_at).sorted_by_id(),
        Field::time("updateTime", &table::updated_at).sorted(),
        Field::time("resolveTime", &table::resolved_at).sorted(),
        Field::time("closeTime", &table::closed_at).sorted(),
    ],
};

/// Lists the tickets of a tenant, or of all.
pub async fn list(tx: &mut SystemTx, tenant: Option<TenantId>, request: &ListRequest) -> Result<Listed<StaffTicket>> {
    let variant = tenant.map(TenantId::name).unwrap_or_default();
    let base = move || match tenant {
        Some(tenant) => joined().filter(table::tenant_id.eq(tenant)).into_boxed(),
        None => joined().into_boxed(),
    };
    LISTING.read(tx, request, &variant, base).await
}

/// Tickets of all tenants that were resolved before a time, and still are: at most so many.
pub async fn resolved_before(
    tx: &mut SystemTx,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(TenantId, TicketId)>> {
    table::table
        .filter(table::state.eq(TicketState::Resolved).and(table::resolved_at.lt(before)))
        .order(table::resolved_at)
        .limit(limit)
        .select((table::tenant_id, table::id))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)
}

/// Reads a ticket.
pub async fn get(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<StaffTicket> {
    joined()
        .filter(table::tenant_id.eq(tenant).and(table::id.eq(id)))
        .select(StaffTicket::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| Error::not_found("TICKET_NOT_FOUND", id.name_in(tenant)))
}

/// Reads a ticket and locks it until the end of the transaction.
pub async fn lock(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<StaffTicket> {
    let row = table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id)));
    row.select(table::id).for_update().execute(tx.connection()?).await.map_err(from_diesel)?;
    get(tx, tenant, id).await
}

/// An operator at work on a ticket.
#[derive(Clone, Debug)]
pub struct Work<'a> {
    pub tenant: TenantId,
    pub ticket: TicketId,
    /// Of what the tenant sees; of the rest there is a row that belongs to no tenant.
    pub audit: &'a Audit,
    /// The operator, as a member of the provider's tenant.
    pub operator: UserId,
    pub provider: TenantId,
}

/// What is told of a change, and who gets the ticket, if it is given or taken away.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    pub reason: &'static str,
    pub message: &'static str,
    pub assignee: Option<Option<UserId>>,
}

/// Changes what the tenant sees of a ticket, and gives it to a member of the provider's tenant.
pub async fn change(
    tx: &mut SystemTx,
    work: &Work<'_>,
    edit: Edit,
    f: impl Fn(&mut Ticket) -> Result<()> + Send + Sync,
) -> Result<()> {
    let Edit { reason, message, assignee } = edit;
    let name = match assignee {
        Some(assignee) => Some(assign(tx, work, assignee).await?),
        None => None,
    };
    let id = work.ticket;
    let change = async |inside: &mut TenantTx<Write>| {
        let before = tickets::lock(inside, Visible::All, id).await?;
        let mut after = before.clone();
        f(&mut after)?;
        if let Some(name) = &name {
            after.assignee_name.clone_from(name);
        }
        if after != before {
            tickets::update(inside, &before, &mut after, Event::new(reason, message), None).await?;
        }
        Ok(())
    };
    tx.enter(work.tenant, work.audit, change).await
}

/// Gives a ticket to a member of the provider's tenant, or takes it away; the name that the tenant is told.
async fn assign(tx: &mut SystemTx, work: &Work<'_>, assignee: Option<UserId>) -> Result<String> {
    let name = match assignee {
        Some(user) => operator_name(tx, work.provider, user).await?.ok_or_else(|| {
            Error::invalid("ticket.assignee", format!("{} is no active member of the provider's tenant", user.name()))
        })?,
        None => String::new(),
    };
    change_staff(tx, work, |staff| staff.assignee_id = assignee).await?;
    Ok(name)
}

/// The name of an active member of the provider's tenant.
async fn operator_name(tx: &mut SystemTx, provider: TenantId, user: UserId) -> Result<Option<String>> {
    memberships::table
        .filter(memberships::tenant_id.eq(provider.0).and(memberships::id.eq(user)))
        .filter(memberships::state.eq(MembershipState::Active.as_str()))
        .select(memberships::display_name)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
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

/// Refuses a file of a ticket that takes none.
pub async fn expect_room(tx: &mut SystemTx, tenant: TenantId, ticket: TicketId, internal: bool) -> Result<()> {
    let found = get(tx, tenant, ticket).await?.ticket;
    if !internal {
        found.state.expect_not_closed(ticket, "take files")?;
    }
    let of_ticket = all_files::tenant_id.eq(tenant).and(all_files::ticket_id.eq(ticket));
    let files = all_files::table.filter(of_ticket.and(all_files::internal.eq(internal))).count();
    attachments::check_count(ticket, files.get_result(tx.connection()?).await.map_err(from_diesel)?)
}

/// Adds a file whose bytes are there.
pub async fn add_file(tx: &mut SystemTx, work: &Work<'_>, file: &StaffAttachment) -> Result<()> {
    // Others who add one to the ticket wait.
    lock(tx, work.tenant, work.ticket).await?;
    expect_room(tx, work.tenant, work.ticket, file.internal).await?;
    let StaffAttachment { tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, author_name, .. } =
        file.clone();
    let created_at = file.created_at;
    if !file.internal {
        let author_id = None;
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
        return tx.enter(work.tenant, work.audit, add).await;
    }
    diesel::insert_into(internal_files::table)
        .values((
            internal_files::tenant_id.eq(tenant_id),
            internal_files::id.eq(id),
            internal_files::ticket_id.eq(ticket_id),
            internal_files::file_name.eq(file_name),
            internal_files::size_bytes.eq(size_bytes),
            internal_files::content_type.eq(content_type),
            internal_files::sha256.eq(sha256),
            internal_files::author_name.eq(author_name),
            internal_files::created_at.eq(created_at),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    change_staff(tx, work, |_| {}).await?;
    tx.audit(Some(work.provider), work.audit).await
}

/// Removes a file.
pub async fn remove_file(tx: &mut SystemTx, work: &Work<'_>, id: TicketAttachmentId) -> Result<StaffAttachment> {
    let found = get_file(tx, (work.tenant, work.ticket), id).await?;
    if found.internal {
        let row =
            internal_files::table.filter(internal_files::tenant_id.eq(work.tenant).and(internal_files::id.eq(id)));
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

/// The name that an operator has in the provider's tenant.
pub async fn name_of(tx: &mut SystemTx, provider: TenantId, operator: UserId) -> Result<String> {
    Ok(operator_name(tx, provider, operator).await?.unwrap_or_default())
}

/// Changes the staff's side of a ticket.
async fn change_staff(tx: &mut SystemTx, work: &Work<'_>, f: impl FnOnce(&mut Staff)) -> Result<()> {
    let key = (staff::tenant_id.eq(work.tenant), staff::ticket_id.eq(work.ticket));
    let make = diesel::insert_into(staff::table).values(key).on_conflict_do_nothing();
    make.execute(tx.connection()?).await.map_err(from_diesel)?;
    let row = || staff::table.filter(staff::tenant_id.eq(work.tenant).and(staff::ticket_id.eq(work.ticket)));
    let locked = row().select(Staff::as_select()).for_update().first(tx.connection()?).await;
    let mut now: Staff = locked.map_err(from_diesel)?;
    f(&mut now);
    now.version += 1;
    diesel::update(row()).set(&now).execute(tx.connection()?).await.map_err(from_diesel)?;
    Ok(())
}

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
const COMMENTS: Listing<all::table> = Listing {
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
pub async fn list_comments(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    request: &ListRequest,
) -> Result<Listed<StaffComment>> {
    let of_ticket = move || all::table.filter(all::tenant_id.eq(tenant).and(all::ticket_id.eq(ticket))).into_boxed();
    COMMENTS.read(tx, request, &ticket.name_in(tenant), of_ticket).await
}

/// Reads a comment.
pub async fn get_comment(
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

/// A file as staff see it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = all_files)]
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
const FILES: Listing<all_files::table> = Listing {
    collection: TicketAttachmentId::COLLECTION,
    id: Field::id("name", TicketAttachmentId::COLLECTION, &all_files::id),
    fields: &[
        Field::text("fileName", &all_files::file_name).sorted().searched(),
        Field::int64("sizeBytes", &all_files::size_bytes).sorted(),
        Field::text("contentType", &all_files::content_type),
        Field::bool("internal", &all_files::internal),
        Field::time("createTime", &all_files::created_at).sorted_by_id(),
    ],
};

/// Lists the files of a ticket that was seen, internal ones among them.
pub async fn list_files(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    request: &ListRequest,
) -> Result<Listed<StaffAttachment>> {
    let of_ticket = move || {
        all_files::table.filter(all_files::tenant_id.eq(tenant).and(all_files::ticket_id.eq(ticket))).into_boxed()
    };
    FILES.read(tx, request, &ticket.name_in(tenant), of_ticket).await
}

/// Reads a file.
pub async fn get_file(
    tx: &mut SystemTx,
    (tenant, ticket): (TenantId, TicketId),
    id: TicketAttachmentId,
) -> Result<StaffAttachment> {
    all_files::table
        .filter(all_files::tenant_id.eq(tenant).and(all_files::id.eq(id)).and(all_files::ticket_id.eq(ticket)))
        .select(StaffAttachment::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| attachments::missing(ticket, id))
}
