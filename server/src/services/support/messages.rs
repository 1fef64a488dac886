//! Tickets and comments as clients see them: their tenant by short names, operators by those that begin with the tenant.

use std::collections::BTreeMap;

use virtualstack_model::compute::id::VmId;
use virtualstack_model::id::{OperationId, TenantId, UserId};
use virtualstack_model::support::ticket::{CommentSource, DeskState, TicketCategory, TicketPriority, TicketState};
use virtualstack_proto::virtualstack::support::v1 as proto;
use virtualstack_proto::virtualstack::support::v1::ticket::desk;
use virtualstack_proto::virtualstack::support::v1::{ticket, ticket_comment};
use virtualstack_store::support::attachments::Attachment;
use virtualstack_store::support::comments::Comment;
use virtualstack_store::support::staff::{Staff, StaffTicket};
use virtualstack_store::support::staff_comments::StaffComment;
use virtualstack_store::support::staff_files::StaffAttachment;
use virtualstack_store::support::tickets::Ticket;

use crate::call::message::time;

/// Who wrote what the provider's staff wrote.
const PROVIDER: &str = "provider";

/// A ticket as its tenant sees it.
pub(super) fn ticket_message(row: Ticket) -> proto::Ticket {
    let facts: BTreeMap<_, _> = serde_json::from_value(row.facts.clone()).unwrap_or_default();
    proto::Ticket {
        name: row.id.name(),
        uid: row.id.to_string(),
        etag: row.etag(),
        number: row.number,
        subject: row.subject,
        description: row.description,
        category: category(row.category).into(),
        priority: priority(row.priority).into(),
        state: state(row.state).into(),
        requester: row.requester_id.name(),
        assignee: String::new(),
        assignee_display_name: row.assignee_name,
        vm: row.vm_id.map(VmId::name).unwrap_or_default(),
        operation: row.operation_id.map(OperationId::name).unwrap_or_default(),
        facts,
        desk: Some(ticket::Desk {
            state: desk_state(row.desk_state).into(),
            ticket_id: row.desk_ticket,
            sync_time: row.desk_synced_at.map(time),
            error: String::new(),
        }),
        comment_count: row.comment_count,
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        resolve_time: row.resolved_at.map(time),
        close_time: row.closed_at.map(time),
    }
}

/// A ticket as operators see it.
pub(super) fn staff_message(row: StaffTicket) -> proto::Ticket {
    let (etag, name) = (row.etag(), row.ticket.id.name_in(row.ticket.tenant_id));
    let Staff { assignee_id, internal_comments, desk_error, .. } = row.staff.unwrap_or_default();
    let mut message = ticket_message(row.ticket);
    (message.name, message.etag) = (name, etag);
    message.assignee = assignee_id.map(UserId::name).unwrap_or_default();
    message.comment_count += internal_comments;
    if let Some(desk) = &mut message.desk {
        desk.error = desk_error;
    }
    message
}

/// A comment as its tenant sees it.
pub(super) fn comment_message(row: Comment) -> proto::TicketComment {
    proto::TicketComment {
        name: row.id.name_in(row.ticket_id),
        uid: row.id.to_string(),
        author: author(row.author_id),
        author_display_name: row.author_name,
        body: row.body,
        internal: false,
        source: source(row.source).into(),
        create_time: Some(time(row.created_at)),
    }
}

/// A comment as operators see it.
pub(super) fn staff_comment_message(row: StaffComment) -> proto::TicketComment {
    proto::TicketComment {
        name: in_tenant(row.tenant_id, &row.id.name_in(row.ticket_id)),
        uid: row.id.to_string(),
        author: author(row.author_id),
        author_display_name: row.author_name,
        body: row.body,
        internal: row.internal,
        source: source(row.source).into(),
        create_time: Some(time(row.created_at)),
    }
}

/// A file as its tenant sees it.
pub(super) fn attachment_message(row: Attachment) -> proto::TicketAttachment {
    let name = row.id.name_in(row.ticket_id);
    proto::TicketAttachment { name, ..staff_attachment_message(StaffAttachment::of(row)) }
}

/// A file as operators see it.
pub(super) fn staff_attachment_message(row: StaffAttachment) -> proto::TicketAttachment {
    proto::TicketAttachment {
        name: in_tenant(row.tenant_id, &row.id.name_in(row.ticket_id)),
        uid: row.id.to_string(),
        file_name: row.file_name,
        size_bytes: row.size_bytes,
        content_type: row.content_type,
        sha256: row.sha256,
        author: author(row.author_id),
        author_display_name: row.author_name,
        internal: row.internal,
        create_time: Some(time(row.created_at)),
    }
}

fn in_tenant(tenant: TenantId, name: &str) -> String {
    format!("{}/{name}", tenant.name())
}

fn author(user: Option<UserId>) -> String {
    user.map_or_else(|| PROVIDER.to_owned(), UserId::name)
}

const fn category(category: TicketCategory) -> ticket::Category {
    match category {
        TicketCategory::Incident => ticket::Category::Incident,
        TicketCategory::Request => ticket::Category::Request,
        TicketCategory::Question => ticket::Category::Question,
        TicketCategory::Billing => ticket::Category::Billing,
    }
}

const fn priority(priority: TicketPriority) -> ticket::Priority {
    match priority {
        TicketPriority::Low => ticket::Priority::Low,
        TicketPriority::Medium => ticket::Priority::Medium,
        TicketPriority::High => ticket::Priority::High,
        TicketPriority::Urgent => ticket::Priority::Urgent,
    }
}

const fn state(state: TicketState) -> ticket::State {
    match state {
        TicketState::Open => ticket::State::Open,
        TicketState::Pending => ticket::State::Pending,
        TicketState::Resolved => ticket::State::Resolved,
        TicketState::Closed => ticket::State::Closed,
    }
}

const fn desk_state(state: DeskState) -> desk::State {
    match state {
        DeskState::Local => desk::State::Local,
        DeskState::Pending => desk::State::Pending,
        DeskState::Synced => desk::State::Synced,
        DeskState::Failed => desk::State::Failed,
    }
}

const fn source(source: CommentSource) -> ticket_comment::Source {
    match source {
        CommentSource::Api => ticket_comment::Source::Api,
        CommentSource::Desk => ticket_comment::Source::Desk,
    }
}

/// The category that a request says, if it says one.
pub(super) const fn category_of(said: ticket::Category) -> Option<TicketCategory> {
    match said {
        ticket::Category::Unspecified => None,
        ticket::Category::Incident => Some(TicketCategory::Incident),
        ticket::Category::Request => Some(TicketCategory::Request),
        ticket::Category::Question => Some(TicketCategory::Question),
        ticket::Category::Billing => Some(TicketCategory::Billing),
    }
}

/// The priority that a request says, if it says one.
pub(super) const fn priority_of(said: ticket::Priority) -> Option<TicketPriority> {
    match said {
        ticket::Priority::Unspecified => None,
        ticket::Priority::Low => Some(TicketPriority::Low),
        ticket::Priority::Medium => Some(TicketPriority::Medium),
        ticket::Priority::High => Some(TicketPriority::High),
        ticket::Priority::Urgent => Some(TicketPriority::Urgent),
    }
}

/// The state that a request says, if it says one.
pub(super) const fn state_of(said: ticket::State) -> Option<TicketState> {
    match said {
        ticket::State::Unspecified => None,
        ticket::State::Open => Some(TicketState::Open),
        ticket::State::Pending => Some(TicketState::Pending),
        ticket::State::Resolved => Some(TicketState::Resolved),
        ticket::State::Closed => Some(TicketState::Closed),
    }
}
