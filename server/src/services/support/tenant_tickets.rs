//! Tickets of all tenants, for operators of the platform.

use chrono::TimeDelta;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::support::v1 as proto;
use virtualstack_store::support::desk;
use virtualstack_store::support::staff::{self, Edit};
use virtualstack_store::support::staff_comments;
use virtualstack_store::support::tickets::Ticket;
use virtualstack_store::{Store, SystemTx};

use super::messages::{priority_of, staff_comment_message, staff_message, state_of};
use super::names::{find_comment, find_tenant, find_ticket, read_in, work};
use crate::auth::journal::{Journal, Whose};
use crate::call::PlatformCall;
use crate::call::list::{List as _, page};
use crate::call::message::update_mask;
use crate::call::write::{Answer, Mutation};
use crate::generated::virtualstack::support::v1::TenantTicketService;

const UPDATABLE: [&str; 3] = ["state", "priority", "assignee"];

/// What stands for all tenants.
const ALL: &str = "tenants/-";

pub(crate) struct TenantTickets {
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) desk_is_local: bool,
}

impl TenantTicketService for TenantTickets {
    async fn list_tenant_tickets(
        &self,
        call: PlatformCall<proto::ListTenantTicketsRequest>,
    ) -> Result<proto::ListTenantTicketsResponse> {
        let (request, parent) = (call.request.list(), &call.request.parent);
        let list = async |tx: &mut SystemTx| {
            let tenant = if parent == ALL { None } else { Some(find_tenant(tx, parent, call.tenant_id()).await?) };
            Ok((tenant, staff::list(tx, tenant, &request).await?))
        };
        let (tenant, listed) = self.store.system(call.platform(), list).await?;
        // Who reads those of all stands in the provider's log.
        let (whose, parent) = tenant.map_or((call.tenant_id(), ALL.to_owned()), |tenant| (tenant, tenant.name()));
        self.journal.record(Whose::Tenant(whose), call.audit(format!("{parent}/tickets")));
        Ok(page(listed, staff_message))
    }

    async fn get_tenant_ticket(&self, call: PlatformCall<proto::GetTenantTicketRequest>) -> Result<proto::Ticket> {
        let get = async |tx: &mut SystemTx| {
            let (tenant, id) = find_ticket(tx, "name", &call.request.name, call.tenant_id()).await?;
            staff::get(tx, tenant, id).await
        };
        let row = self.store.system(call.platform(), get).await?;
        self.journal.record(Whose::Tenant(row.ticket.tenant_id), call.audit(row.ticket.id.name()));
        Ok(staff_message(row))
    }

    async fn update_tenant_ticket(
        &self,
        call: PlatformCall<proto::UpdateTenantTicketRequest>,
    ) -> Result<proto::Ticket> {
        let desired = call.request.ticket.clone().unwrap_or_default();
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| match field {
            "state" => desired.state != 0,
            "priority" => desired.priority != 0,
            _ => !desired.assignee.is_empty(),
        })?;
        let assignee = Some(&desired.assignee).filter(|name| !name.is_empty());
        let assignee = assignee.map(|name| UserId::parse("ticket.assignee", name)).transpose()?;
        let is_named = |field| fields.contains(&field);
        let missing = |field: &str| Error::invalid(format!("ticket.{field}"), "is required");
        let change = |ticket: &mut Ticket| {
            if is_named("state") {
                let state = state_of(desired.state()).ok_or_else(|| missing("state"))?;
                ticket.enter(ticket.state.set(state, ticket.id)?);
            }
            if is_named("priority") {
                ticket.priority = priority_of(desired.priority()).ok_or_else(|| missing("priority"))?;
            }
            Ok(())
        };
        let edit = Edit {
            reason: "TICKET_UPDATED",
            message: "The provider changed the ticket",
            assignee: Some(assignee).filter(|_| is_named("assignee")),
        };
        self.change(&call, ("ticket.name", &desired.name, &desired.etag), edit, change).await
    }

    async fn close_tenant_ticket(&self, call: PlatformCall<proto::CloseTenantTicketRequest>) -> Result<proto::Ticket> {
        let close = |ticket: &mut Ticket| {
            ticket.enter(ticket.state.close(ticket.id)?);
            Ok(())
        };
        let edit = Edit { reason: "TICKET_CLOSED", message: "The provider closed the ticket", assignee: None };
        self.change(&call, ("name", &call.request.name, ""), edit, close).await
    }

    async fn reopen_tenant_ticket(
        &self,
        call: PlatformCall<proto::ReopenTenantTicketRequest>,
    ) -> Result<proto::Ticket> {
        let reopen = |ticket: &mut Ticket| {
            ticket.enter(ticket.state.reopen(ticket.id, ticket.closed_at, TimeDelta::MAX)?);
            Ok(())
        };
        let edit = Edit { reason: "TICKET_REOPENED", message: "The provider opened the ticket again", assignee: None };
        self.change(&call, ("name", &call.request.name, ""), edit, reopen).await
    }

    async fn sync_tenant_ticket(&self, call: PlatformCall<proto::SyncTenantTicketRequest>) -> Result<proto::Ticket> {
        let sync = async |tx: &mut SystemTx| {
            let (tenant, id) = find_ticket(tx, "name", &call.request.name, call.tenant_id()).await?;
            staff::lock(tx, tenant, id).await?;
            if self.desk_is_local {
                let message = "there is no other desk that could have the ticket: it is answered here";
                return Err(Error::precondition("DESK_IS_LOCAL", id.name_in(tenant), message));
            }
            desk::send_again(tx, tenant, id).await?;
            tx.audit(Some(call.tenant_id()), &call.audit(id.name_in(tenant))).await?;
            staff::get(tx, tenant, id).await.map(staff_message)
        };
        call.write(&self.store, sync).await
    }

    async fn list_tenant_ticket_comments(
        &self,
        call: PlatformCall<proto::ListTenantTicketCommentsRequest>,
    ) -> Result<proto::ListTenantTicketCommentsResponse> {
        let request = call.request.list();
        let list = async |tx: &mut SystemTx| {
            let (tenant, id) = find_ticket(tx, "parent", &call.request.parent, call.tenant_id()).await?;
            staff::get(tx, tenant, id).await?;
            Ok(((tenant, id), staff_comments::list(tx, (tenant, id), &request).await?))
        };
        let ((tenant, id), listed) = self.store.system(call.platform(), list).await?;
        self.journal.record(Whose::Tenant(tenant), call.audit(id.name()));
        Ok(page(listed, staff_comment_message))
    }

    async fn get_tenant_ticket_comment(
        &self,
        call: PlatformCall<proto::GetTenantTicketCommentRequest>,
    ) -> Result<proto::TicketComment> {
        let get = async |tx: &mut SystemTx| {
            let (tenant, ticket, id) = find_comment(tx, "name", &call.request.name, call.tenant_id()).await?;
            staff_comments::get(tx, (tenant, ticket), id).await
        };
        let row = self.store.system(call.platform(), get).await?;
        read_in(&self.journal, &call, (row.tenant_id, row.ticket_id), row.internal);
        Ok(staff_comment_message(row))
    }

    async fn create_tenant_ticket_comment(
        &self,
        call: PlatformCall<proto::CreateTenantTicketCommentRequest>,
    ) -> Result<proto::TicketComment> {
        let said = call.request.comment.clone().unwrap_or_default();
        let add = async |tx: &mut SystemTx| {
            let (tenant, id) = find_ticket(tx, "parent", &call.request.parent, call.tenant_id()).await?;
            staff::lock(tx, tenant, id).await?;
            let name = if said.internal { id.name_in(tenant) } else { id.name() };
            let audit = call.audit(name);
            let work = work(&call, tenant, id, &audit);
            let comment = if said.internal {
                staff_comments::note(tx, &work, &said.body).await?
            } else {
                staff_comments::answer(tx, &work, &said.body).await?
            };
            Ok(staff_comment_message(comment))
        };
        call.write(&self.store, add).await
    }
}

impl TenantTickets {
    /// Changes the ticket of this name, if it still has this etag; the ticket after it.
    async fn change<R: Mutation>(
        &self,
        call: &PlatformCall<R>,
        (field, name, etag): (&'static str, &str, &str),
        edit: Edit,
        f: impl Fn(&mut Ticket) -> Result<()> + Send + Sync,
    ) -> Result<proto::Ticket> {
        let change = async |tx: &mut SystemTx| {
            let (tenant, id) = find_ticket(tx, field, name, call.tenant_id()).await?;
            Error::check_etag(etag, &staff::lock(tx, tenant, id).await?.etag())?;
            let audit = call.audit(id.name());
            staff::change(tx, &work(call, tenant, id, &audit), edit, &f).await?;
            staff::get(tx, tenant, id).await.map(staff_message)
        };
        call.write(&self.store, change).await
    }
}

impl Answer<SystemTx> for proto::Ticket {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut SystemTx, name: &str) -> Result<Self> {
        // It is the name that was answered, with the tenant's id.
        let (tenant, id) = find_ticket(tx, "request_id", name, TenantId::new()).await?;
        staff::get(tx, tenant, id).await.map(staff_message)
    }
}

impl Answer<SystemTx> for proto::TicketComment {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut SystemTx, name: &str) -> Result<Self> {
        let (tenant, ticket, id) = find_comment(tx, "request_id", name, TenantId::new()).await?;
        staff_comments::get(tx, (tenant, ticket), id).await.map(staff_comment_message)
    }
}
