//! Tickets of all tenants, as the provider's staff work on them. What the tenant sees is written in the tenant, with its logs; what only
//! staff see stands in tables that no tenant's transaction can read.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::iam::user::MembershipState;
use virtualstack_model::id::{OperationId, TenantId, UserId};
use virtualstack_model::log::Audit;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::{DeskState, TicketCategory, TicketPriority, TicketState};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{memberships, ticket_staff as staff, tickets as table};
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

/// The name that an operator has in the provider's tenant.
pub async fn name_of(tx: &mut SystemTx, provider: TenantId, operator: UserId) -> Result<String> {
    Ok(operator_name(tx, provider, operator).await?.unwrap_or_default())
}

/// Changes the staff's side of a ticket.
pub(super) async fn change_staff(tx: &mut SystemTx, work: &Work<'_>, f: impl FnOnce(&mut Staff)) -> Result<()> {
    // The ticket first, as everybody else does.
    lock(tx, work.tenant, work.ticket).await?;
    let key = (staff::tenant_id.eq(work.tenant), staff::ticket_id.eq(work.ticket));
    let make = diesel::insert_into(staff::table).values(key).on_conflict_do_nothing();
    make.execute(tx.connection()?).await.map_err(from_diesel)?;
    let row = || staff::table.filter(staff::tenant_id.eq(work.tenant).and(staff::ticket_id.eq(work.ticket)));
    let locked = row().select(Staff::as_select()).for_update().first(tx.connection()?).await;
    let mut now: Staff = locked.map_err(from_diesel)?;
    f(&mut now);
    now.version += 1;
    // Another desk is to have it, too.
    let change = (&now, staff::unsent.eq(staff::unsent + 1));
    diesel::update(row()).set(change).execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}

/// Something came that only staff see, and some comments with it.
pub(super) async fn seen_by_staff(tx: &mut SystemTx, tenant: TenantId, id: TicketId, comments: i32) -> Result<()> {
    diesel::insert_into(staff::table)
        .values((staff::tenant_id.eq(tenant), staff::ticket_id.eq(id), staff::internal_comments.eq(comments)))
        .on_conflict((staff::tenant_id, staff::ticket_id))
        .do_update()
        .set((staff::internal_comments.eq(staff::internal_comments + comments), staff::version.eq(staff::version + 1)))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Tells operators what is in the way of a ticket, or that nothing is.
pub(super) async fn set_desk_error(tx: &mut SystemTx, tenant: TenantId, id: TicketId, error: &str) -> Result<()> {
    diesel::insert_into(staff::table)
        .values((staff::tenant_id.eq(tenant), staff::ticket_id.eq(id), staff::desk_error.eq(error)))
        .on_conflict((staff::tenant_id, staff::ticket_id))
        .do_update()
        .set(staff::desk_error.eq(error))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}
