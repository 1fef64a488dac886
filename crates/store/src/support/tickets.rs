//! Tickets, as their tenant sees them.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::{OperationId, TenantId, UserId};
use virtualstack_model::log::{Change, ChangeKind, changed_fields};
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::{DeskState, MANAGE, TicketCategory, TicketPriority, TicketState};
use virtualstack_model::{Error, Result};

use crate::changes::watch::Watched;
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::tickets as table;
use crate::support::{facts, usage};
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{Mode, SystemTx, TenantTx, Write, etag};

/// A ticket as it is kept.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset, Serialize, Deserialize)]
#[diesel(table_name = table, primary_key(tenant_id, id), treat_none_as_null = true)]
pub struct Ticket {
    pub tenant_id: TenantId,
    pub id: TicketId,
    pub number: i32,
    pub subject: String,
    pub description: String,
    pub category: TicketCategory,
    pub priority: TicketPriority,
    pub state: TicketState,
    pub requester_id: UserId,
    pub assignee_name: String,
    pub vm_id: Option<VmId>,
    pub operation_id: Option<OperationId>,
    pub facts: Value,
    /// Without the internal ones.
    pub comment_count: i32,
    pub desk_state: DeskState,
    pub desk_ticket: String,
    pub desk_synced_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
    pub closed_at: Option<DateTime<Utc>>,
    pub version: i64,
}

impl Ticket {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// Puts it in a state, and says since when it is resolved or closed.
    pub fn enter(&mut self, state: TicketState) {
        if state == self.state {
            return;
        }
        let now = Some(Utc::now());
        (self.resolved_at, self.closed_at) = match state {
            TicketState::Open | TicketState::Pending => (None, None),
            TicketState::Resolved => (now, None),
            TicketState::Closed => (self.resolved_at, now),
        };
        self.state = state;
    }

    const fn is_open(&self) -> bool {
        !matches!(self.state, TicketState::Closed)
    }

    /// The change row of something that happened, with the ticket as it is after it.
    fn changed(&self, Event { reason, message }: Event, kind: ChangeKind, fields: Value) -> Result<Change> {
        let after = serde_json::to_value(self).map_err(Error::internal)?;
        let state = self.state.as_str();
        Ok(Change { state, watched: Some((kind, after)), ..Change::of(self.id.name(), reason, message, fields) })
    }
}

/// Something that happened to a ticket.
#[derive(Clone, Debug)]
pub struct Event {
    pub reason: &'static str,
    pub message: String,
}

impl Event {
    /// With a message for people.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Which tickets of a tenant somebody sees.
#[derive(Clone, Copy, Debug)]
pub enum Visible {
    /// Those that they wrote.
    Own(UserId),
    All,
}

impl Visible {
    /// What a member sees.
    #[must_use]
    pub fn of(access: &Access) -> Self {
        if access.allows(MANAGE) { Self::All } else { Self::Own(access.user) }
    }

    fn shows(self, ticket: &Ticket) -> bool {
        match self {
            Self::Own(user) => ticket.requester_id == user,
            Self::All => true,
        }
    }

    /// What page tokens are bound to.
    fn variant(self) -> String {
        match self {
            Self::Own(user) => user.name(),
            Self::All => String::new(),
        }
    }
}

/// What a tenant may have at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Tickets that are not closed.
    pub open_tickets: i32,
    /// Tickets in an hour.
    pub tickets_per_hour: i64,
    /// Comments in an hour.
    pub comments_per_hour: i64,
    /// Whether tickets are answered here, and no other desk is to have them.
    pub desk_is_local: bool,
}

/// A ticket that is not there, or not to be seen.
pub(crate) fn missing(id: TicketId) -> Error {
    Error::not_found("TICKET_NOT_FOUND", id.name())
}

/// Reads a ticket.
pub async fn get(reader: &mut impl TenantReader, visible: Visible, id: TicketId) -> Result<Ticket> {
    let tenant = reader.tenant();
    let one = move || table::table.find((tenant, id)).select(Ticket::as_select());
    let found: Option<Ticket> = reader.find(one).await?;
    found.filter(|ticket| visible.shows(ticket)).ok_or_else(|| missing(id))
}

/// Reads a ticket and locks it until the end of the transaction.
pub async fn lock(tx: &mut TenantTx<Write>, visible: Visible, id: TicketId) -> Result<Ticket> {
    let found: Option<Ticket> = table::table
        .filter(table::tenant_id.eq(tx.tenant()).and(table::id.eq(id)))
        .select(Ticket::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    found.filter(|ticket| visible.shows(ticket)).ok_or_else(|| missing(id))
}

/// What filters and orders of tickets may name.
const LISTING: Listing<table::table> = Listing {
    collection: TicketId::COLLECTION,
    id: Field::id("name", TicketId::COLLECTION, &table::id),
    fields: &[
        Field::int32("number", &table::number).sorted(),
        Field::text("subject", &table::subject).sorted().searched(),
        Field::text("description", &table::description).searched(),
        Field::words("category", TicketCategory::WORDS, &table::category).sorted(),
        Field::words("priority", TicketPriority::WORDS, &table::priority).sorted(),
        Field::words("state", TicketState::WORDS, &table::state).sorted(),
        Field::id("requester", UserId::COLLECTION, &table::requester_id),
        Field::id("vm", VmId::COLLECTION, &table::vm_id),
        Field::id("operation", OperationId::COLLECTION, &table::operation_id),
        Field::int32("commentCount", &table::comment_count).sorted(),
        Field::time("createTime", &table::created_at).sorted_by_id(),
        Field::time("updateTime", &table::updated_at).sorted(),
        Field::time("resolveTime", &table::resolved_at).sorted(),
        Field::time("closeTime", &table::closed_at).sorted(),
    ],
};

type Query = table::BoxedQuery<'static, diesel::pg::Pg>;

fn visible_of(tenant: TenantId, visible: Visible) -> Query {
    let of_tenant = table::table.filter(table::tenant_id.eq(tenant)).into_boxed();
    match visible {
        Visible::Own(user) => of_tenant.filter(table::requester_id.eq(user)),
        Visible::All => of_tenant,
    }
}

/// Lists tickets.
pub async fn list(reader: &mut impl TenantReader, visible: Visible, request: &ListRequest) -> Result<Listed<Ticket>> {
    let tenant = reader.tenant();
    LISTING.read(reader, request, &visible.variant(), move || visible_of(tenant, visible)).await
}

/// A ticket to write.
#[derive(Clone, Debug)]
pub struct NewTicket {
    pub subject: String,
    pub description: String,
    pub category: TicketCategory,
    pub priority: TicketPriority,
    pub requester: UserId,
    pub vm: Option<VmId>,
    pub operation: Option<OperationId>,
}

/// Writes a new ticket, with what is known of what it is about.
pub async fn insert(tx: &mut TenantTx<Write>, new: NewTicket, bounds: Bounds) -> Result<Ticket> {
    let facts = facts::of(tx, new.vm, new.operation).await?;
    let number = usage::take_number(tx, bounds.open_tickets).await?;
    check_rate(tx, bounds.tickets_per_hour).await?;
    let created_at = Utc::now();
    let ticket = Ticket {
        tenant_id: tx.tenant(),
        id: TicketId::new(),
        number,
        subject: new.subject,
        description: new.description,
        category: new.category,
        priority: new.priority,
        state: TicketState::Open,
        requester_id: new.requester,
        assignee_name: String::new(),
        vm_id: new.vm,
        operation_id: new.operation,
        facts,
        comment_count: 0,
        desk_state: if bounds.desk_is_local { DeskState::Local } else { DeskState::Pending },
        desk_ticket: String::new(),
        desk_synced_at: None,
        created_at,
        updated_at: created_at,
        resolved_at: None,
        closed_at: None,
        version: 1,
    };
    diesel::insert_into(table::table).values(&ticket).execute(tx.connection()?).await.map_err(from_diesel)?;
    let fields = json!({"subject": ticket.subject, "category": ticket.category, "priority": ticket.priority});
    let change = ticket.changed(Event::new("TICKET_CREATED", "The ticket was written"), ChangeKind::Created, fields)?;
    tx.change(change);
    Ok(ticket)
}

/// Refuses one more ticket of a tenant that has written many, and closed them again. The number that it takes has others wait.
async fn check_rate(tx: &mut TenantTx<Write>, most: i64) -> Result<()> {
    let written: i64 = table::table
        .filter(table::tenant_id.eq(tx.tenant()))
        .filter(sql::<Bool>("created_at > now() - interval '1 hour'"))
        .count()
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if written < most {
        return Ok(());
    }
    let message = format!("the tenant has written {written} tickets within an hour, the most that it may write");
    let retry_after = Some(std::time::Duration::from_secs(60));
    Err(Error::ResourceExhausted { reason: "TOO_MANY_NEW_TICKETS", message, retry_after })
}

/// Writes a ticket that has changed, with the change that says why. `most_open` is for who opens it again.
pub async fn update(
    tx: &mut TenantTx<Write>,
    before: &Ticket,
    ticket: &mut Ticket,
    event: Event,
    most_open: Option<i32>,
) -> Result<()> {
    // Clocks differ, and the order of a ticket's changes is that of its row.
    ticket.updated_at = Utc::now().max(before.updated_at);
    ticket.version = before.version + 1;
    if ticket.desk_state == DeskState::Synced {
        ticket.desk_state = DeskState::Pending;
    }
    diesel::update(table::table.filter(table::tenant_id.eq(ticket.tenant_id).and(table::id.eq(ticket.id))))
        .set(&*ticket)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    match (before.is_open(), ticket.is_open()) {
        (true, false) => usage::count(tx, -1, None).await?,
        (false, true) => usage::count(tx, 1, most_open).await?,
        _ => {}
    }
    let length = |text: &str| json!(format!("{} characters", text.chars().count()));
    let mut fields = changed_fields([
        ("subject", json!(before.subject), json!(ticket.subject)),
        ("category", json!(before.category), json!(ticket.category)),
        ("priority", json!(before.priority), json!(ticket.priority)),
        ("state", json!(before.state), json!(ticket.state)),
        ("assigneeDisplayName", json!(before.assignee_name), json!(ticket.assignee_name)),
        ("commentCount", json!(before.comment_count), json!(ticket.comment_count)),
    ]);
    if before.description != ticket.description {
        let told = json!([length(&before.description), length(&ticket.description)]);
        fields.insert("description".to_owned(), told);
    }
    let change = ticket.changed(event, ChangeKind::Updated, fields.into())?;
    tx.change(change);
    Ok(())
}

/// Something of a ticket is to be sent once more.
pub async fn unsent(tx: &mut SystemTx, tenant: TenantId, id: TicketId) -> Result<()> {
    let ticket = table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id)));
    // Each counts, so that none is lost while one before it is sent.
    let unsent = table::desk_version.eq(table::desk_version - 1);
    diesel::update(ticket).set(unsent).execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}

impl Watched for Ticket {
    const COLLECTION: &'static str = TicketId::COLLECTION;

    const OWN: bool = true;

    fn uuid(&self) -> Uuid {
        self.id.0
    }

    fn is_visible(&self, access: &Access) -> bool {
        Visible::of(access).shows(self)
    }

    async fn page<M: Mode>(tx: &mut TenantTx<M>, access: &Access, after: Uuid, limit: i64) -> Result<Vec<Self>> {
        visible_of(tx.tenant(), Visible::of(access))
            .filter(table::id.gt(TicketId(after)))
            .order(table::id)
            .limit(limit)
            .select(Self::as_select())
            .load(tx.connection()?)
            .await
            .map_err(from_diesel)
    }
}
