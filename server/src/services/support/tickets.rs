//! Tickets, for the members of their tenant.

use chrono::TimeDelta;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::id::OperationId;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::{TicketCategory, TicketPriority};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::support::v1 as proto;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Resource;
use virtualstack_store::support::comments;
use virtualstack_store::support::tickets::{self, Bounds, Event, NewTicket, Ticket, Visible};
use virtualstack_store::{Read, Store, TenantTx, Write};

use super::messages::{category_of, comment_message, priority_of, ticket_message};
use super::names::{comment_id, ticket_id, visible};
use crate::call::list::{List as _, page};
use crate::call::message::update_mask;
use crate::call::write::{Answer, Mutation};
use crate::call::{TenantCall, codec};
use crate::config::Config;
use crate::generated::virtualstack::support::v1::TicketService;
use crate::services::watched::Packed;

const UPDATABLE: [&str; 4] = ["subject", "description", "category", "priority"];

pub(crate) struct Tickets {
    store: Store,
    bounds: Bounds,
    /// How long after it was closed a ticket can be opened again.
    reopen_limit: TimeDelta,
}

impl Tickets {
    pub(crate) fn new(store: Store, config: &Config) -> Self {
        let bounds = Bounds {
            open_tickets: config.max_open_tickets_per_tenant,
            tickets_per_hour: config.tickets_per_tenant_per_hour,
            comments_per_hour: config.ticket_comments_per_tenant_per_hour,
            desk_is_local: config.desk_is_local,
        };
        Self { store, bounds, reopen_limit: TimeDelta::seconds(config.ticket_reopen_seconds.into()) }
    }
}

impl TicketService for Tickets {
    async fn list_tickets(&self, call: TenantCall<proto::ListTicketsRequest>) -> Result<proto::ListTicketsResponse> {
        let (request, visible) = (call.request.list(), visible(&call));
        let listed = tickets::list(&mut self.store.single(&call.tenant()), visible, &request).await?;
        Ok(page(listed, ticket_message))
    }

    async fn get_ticket(&self, call: TenantCall<proto::GetTicketRequest>) -> Result<proto::Ticket> {
        let id = ticket_id("name", &call.request.name)?;
        tickets::get(&mut self.store.single(&call.tenant()), visible(&call), id).await.map(ticket_message)
    }

    async fn create_ticket(&self, call: TenantCall<proto::CreateTicketRequest>) -> Result<proto::Ticket> {
        let new = new_ticket(&call, &call.request.ticket.clone().unwrap_or_default())?;
        let create = async |tx: &mut TenantTx<Write>| {
            let ticket = tickets::insert(tx, new.clone(), self.bounds).await?;
            tx.audit_resource(ticket.id.name());
            Ok(ticket_message(ticket))
        };
        call.write(&self.store, "", create).await
    }

    async fn update_ticket(&self, call: TenantCall<proto::UpdateTicketRequest>) -> Result<proto::Ticket> {
        let desired = call.request.ticket.clone().unwrap_or_default();
        let id = ticket_id("ticket.name", &desired.name)?;
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| match field {
            "subject" => !desired.subject.is_empty(),
            "description" => !desired.description.is_empty(),
            "category" => desired.category != 0,
            _ => desired.priority != 0,
        })?;
        let update = |ticket: &mut Ticket| {
            ticket.state.expect_not_closed(id, "be changed")?;
            merge(ticket, &desired, &fields)
        };
        let event = Event::new("TICKET_UPDATED", "The ticket was changed");
        self.change(&call, id, &desired.etag, event, update).await
    }

    async fn close_ticket(&self, call: TenantCall<proto::CloseTicketRequest>) -> Result<proto::Ticket> {
        let id = ticket_id("name", &call.request.name)?;
        let close = |ticket: &mut Ticket| {
            ticket.enter(ticket.state.close(id)?);
            Ok(())
        };
        let event = Event::new("TICKET_CLOSED", "The ticket was closed");
        self.change(&call, id, "", event, close).await
    }

    async fn reopen_ticket(&self, call: TenantCall<proto::ReopenTicketRequest>) -> Result<proto::Ticket> {
        let id = ticket_id("name", &call.request.name)?;
        let reopen = |ticket: &mut Ticket| {
            ticket.enter(ticket.state.reopen(id, ticket.closed_at, self.reopen_limit)?);
            Ok(())
        };
        let event = Event::new("TICKET_REOPENED", "The ticket was opened again");
        self.change(&call, id, "", event, reopen).await
    }

    async fn list_ticket_comments(
        &self,
        call: TenantCall<proto::ListTicketCommentsRequest>,
    ) -> Result<proto::ListTicketCommentsResponse> {
        let (request, ticket) = (call.request.list(), ticket_id("parent", &call.request.parent)?);
        let visible = visible(&call);
        let read = async |tx: &mut TenantTx<Read>| {
            tickets::get(tx, visible, ticket).await?;
            comments::list(tx, ticket, &request).await
        };
        let listed = self.store.read(&call.tenant(), read).await?;
        Ok(page(listed, comment_message))
    }

    async fn get_ticket_comment(
        &self,
        call: TenantCall<proto::GetTicketCommentRequest>,
    ) -> Result<proto::TicketComment> {
        let (ticket, id) = comment_id("name", &call.request.name)?;
        let visible = visible(&call);
        let read = async |tx: &mut TenantTx<Read>| {
            tickets::get(tx, visible, ticket).await?;
            comments::get(tx, ticket, id).await
        };
        self.store.read(&call.tenant(), read).await.map(comment_message)
    }

    async fn create_ticket_comment(
        &self,
        call: TenantCall<proto::CreateTicketCommentRequest>,
    ) -> Result<proto::TicketComment> {
        let ticket = ticket_id("parent", &call.request.parent)?;
        let said = call.request.comment.clone().unwrap_or_default();
        if said.internal {
            return Err(Error::invalid("comment.internal", "is for operators of the platform"));
        }
        let (visible, author) = (visible(&call), call.user());
        let add = async |tx: &mut TenantTx<Write>| {
            let comment = comments::add(tx, (visible, ticket), author, said.body.clone(), self.bounds).await?;
            tx.audit_resource(comment.id.name_in(ticket));
            Ok(comment_message(comment))
        };
        call.write(&self.store, ticket.name(), add).await
    }
}

impl Tickets {
    /// Changes a ticket that the caller sees.
    async fn change<R: Mutation>(
        &self,
        call: &TenantCall<R>,
        id: TicketId,
        etag: &str,
        event: Event,
        f: impl Fn(&mut Ticket) -> Result<()> + Send + Sync,
    ) -> Result<proto::Ticket> {
        let (visible, most_open) = (visible(call), Some(self.bounds.open_tickets));
        let change = async |tx: &mut TenantTx<Write>| {
            let before = tickets::lock(tx, visible, id).await?;
            Error::check_etag(etag, &before.etag())?;
            let mut ticket = before.clone();
            f(&mut ticket)?;
            if ticket != before {
                tickets::update(tx, &before, &mut ticket, event.clone(), most_open).await?;
            }
            Ok(ticket_message(ticket))
        };
        call.write(&self.store, id.name(), change).await
    }
}

impl Answer<TenantTx<Write>> for proto::Ticket {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        // Who asks again has asked before, and so seen it.
        tickets::get(tx, Visible::All, ticket_id("request_id", name)?).await.map(ticket_message)
    }
}

impl Answer<TenantTx<Write>> for proto::TicketComment {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        let (ticket, id) = comment_id("request_id", name)?;
        comments::get(tx, ticket, id).await.map(comment_message)
    }
}

impl Packed for Ticket {
    async fn pack(_: &mut TenantTx<Read>, rows: Vec<Self>) -> Result<Vec<Resource>> {
        Ok(rows.into_iter().map(|row| Resource::Ticket(ticket_message(row))).collect())
    }
}

/// Puts the fields that an update names into a ticket. The rules hold for what comes of it, not for the part that was sent.
fn merge(ticket: &mut Ticket, desired: &proto::Ticket, fields: &[&str]) -> Result<()> {
    let missing = |field: &str| Error::invalid(format!("ticket.{field}"), "is required");
    for field in fields {
        match *field {
            "subject" => ticket.subject.clone_from(&desired.subject),
            "description" => ticket.description.clone_from(&desired.description),
            "category" => ticket.category = category_of(desired.category()).ok_or_else(|| missing("category"))?,
            _ => ticket.priority = priority_of(desired.priority()).ok_or_else(|| missing("priority"))?,
        }
    }
    let merged = ticket_message(ticket.clone());
    codec::validate(&proto::CreateTicketRequest { ticket: Some(merged), ..Default::default() })
}

/// The ticket that a request writes.
fn new_ticket<R>(call: &TenantCall<R>, desired: &proto::Ticket) -> Result<NewTicket> {
    for (field, is_set) in [("state", desired.state != 0), ("assignee", !desired.assignee.is_empty())] {
        if is_set {
            return Err(Error::invalid(format!("ticket.{field}"), "is for operators of the platform"));
        }
    }
    let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let vm = named(&desired.vm).map(|name| VmId::parse("ticket.vm", &name)).transpose()?;
    let operation = named(&desired.operation).map(|name| OperationId::parse("ticket.operation", &name)).transpose()?;
    // What is known of them is kept with the ticket: who may not read it learns nothing of it here.
    if let Some(vm) = vm.filter(|_| !call.access().allows("vm:read")) {
        return Err(Error::not_found("VM_NOT_FOUND", vm.name()));
    }
    if let Some(operation) = operation.filter(|_| !call.access().allows("operation:read")) {
        return Err(Error::not_found("OPERATION_NOT_FOUND", operation.name()));
    }
    Ok(NewTicket {
        subject: desired.subject.clone(),
        description: desired.description.clone(),
        category: category_of(desired.category()).unwrap_or(TicketCategory::Question),
        priority: priority_of(desired.priority()).unwrap_or(TicketPriority::Medium),
        requester: call.user(),
        vm,
        operation,
    })
}
