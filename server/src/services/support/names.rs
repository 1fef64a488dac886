//! Names of tickets and of what belongs to them: short ones for members, long ones that begin with the tenant for operators.

use virtualstack_model::id::TenantId;
use virtualstack_model::log::Audit;
use virtualstack_model::support::id::{TicketAttachmentId, TicketCommentId, TicketId, split_tenant};
use virtualstack_model::{Error, Result};
use virtualstack_store::SystemTx;
use virtualstack_store::iam::tenants::{self, Key};
use virtualstack_store::support::staff::Work;
use virtualstack_store::support::tickets::Visible;

use crate::auth::journal::{Journal, Whose};
use crate::call::{PlatformCall, TenantCall};

/// What the caller sees.
pub(super) fn visible<R>(call: &TenantCall<R>) -> Visible {
    Visible::of(call.access())
}

/// The ticket that a tenant names. Names that begin with a tenant are for operators: to a tenant they are nothing.
pub(super) fn ticket_id(field: &str, name: &str) -> Result<TicketId> {
    match split_tenant(name) {
        Some(_) => Err(Error::not_found("TICKET_NOT_FOUND", name)),
        None => TicketId::parse(field, name),
    }
}

pub(super) fn comment_id(field: &str, name: &str) -> Result<(TicketId, TicketCommentId)> {
    match split_tenant(name) {
        Some(_) => Err(Error::not_found("TICKET_COMMENT_NOT_FOUND", name)),
        None => TicketCommentId::parse_in(field, name),
    }
}

pub(super) fn attachment_id(field: &str, name: &str) -> Result<(TicketId, TicketAttachmentId)> {
    match split_tenant(name) {
        Some(_) => Err(Error::not_found("TICKET_ATTACHMENT_NOT_FOUND", name)),
        None => TicketAttachmentId::parse_in(field, name),
    }
}

/// An operator at work on a ticket.
pub(super) fn work<'a, R>(call: &PlatformCall<R>, tenant: TenantId, ticket: TicketId, audit: &'a Audit) -> Work<'a> {
    Work { tenant, ticket, audit, operator: call.user(), provider: call.tenant_id() }
}

/// Writes down that an operator has read something of a ticket: in the tenant's log; in the provider's where the tenant does not see it,
/// whose log shall not tell that there is something.
pub(super) fn read_in<R>(
    journal: &Journal,
    call: &PlatformCall<R>,
    (tenant, ticket): (TenantId, TicketId),
    internal: bool,
) {
    let (whose, name) = if internal { (call.tenant_id(), ticket.name_in(tenant)) } else { (tenant, ticket.name()) };
    journal.record(Whose::Tenant(whose), call.audit(name));
}

/// The tenant that a name says; "current" is the operator's own.
pub(super) async fn find_tenant(tx: &mut SystemTx, name: &str, own: TenantId) -> Result<TenantId> {
    if name == "tenants/current" {
        return Ok(own);
    }
    let found = tenants::find_any(tx, &Key::parse(name)).await?;
    found.map(|tenant| tenant.id).ok_or_else(|| Error::not_found("TENANT_NOT_FOUND", name))
}

/// The tenant of a long name, and the rest. Short names are for tenants: to an operator they are nothing.
async fn find_within<'n>(tx: &mut SystemTx, name: &'n str, own: TenantId) -> Result<(TenantId, &'n str)> {
    let missing = || Error::not_found("TICKET_NOT_FOUND", name);
    let (tenant, rest) = split_tenant(name).ok_or_else(missing)?;
    Ok((find_tenant(tx, tenant, own).await?, rest))
}

pub(super) async fn find_ticket(
    tx: &mut SystemTx,
    field: &str,
    name: &str,
    own: TenantId,
) -> Result<(TenantId, TicketId)> {
    let (tenant, rest) = find_within(tx, name, own).await?;
    Ok((tenant, TicketId::parse(field, rest)?))
}

pub(super) async fn find_comment(
    tx: &mut SystemTx,
    field: &str,
    name: &str,
    own: TenantId,
) -> Result<(TenantId, TicketId, TicketCommentId)> {
    let (tenant, rest) = find_within(tx, name, own).await?;
    let (ticket, comment) = TicketCommentId::parse_in(field, rest)?;
    Ok((tenant, ticket, comment))
}

pub(super) async fn find_attachment(
    tx: &mut SystemTx,
    field: &str,
    name: &str,
    own: TenantId,
) -> Result<(TenantId, TicketId, TicketAttachmentId)> {
    let (tenant, rest) = find_within(tx, name, own).await?;
    let (ticket, attachment) = TicketAttachmentId::parse_in(field, rest)?;
    Ok((tenant, ticket, attachment))
}
