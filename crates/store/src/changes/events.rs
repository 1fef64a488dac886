//! Event lists: the change log, read for one resource.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use virtualstack_model::Result;
use virtualstack_model::id::OperationId;

use crate::listing::{Field, ListRequest, Listed, Listing, literal};
use crate::schema::changes as table;
use crate::tx::reader::TenantReader;

/// An event as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct RecordedEvent {
    pub position: i64,
    pub created_at: DateTime<Utc>,
    pub reason: String,
    pub message: String,
    pub state: String,
    pub operation_id: Option<OperationId>,
    pub actor: String,
}

/// What filters and orders of events may name, but for the state, whose words are the resource's. Positions follow the
/// order of commits, and so do their times.
pub(crate) const fn fields(state: Field<table::table>) -> [Field<table::table>; 6] {
    [
        Field::time("createTime", &table::created_at).sorted_by_id(),
        state,
        Field::code("reason", &table::reason),
        Field::text("message", &table::message).searched(),
        Field::id("operation", OperationId::COLLECTION, &table::operation_id),
        Field::code("actor", &table::actor),
    ]
}

/// Lists what happened to a resource, newest first. `collection` is the condition of the collection's indexes in their own
/// words.
pub(crate) async fn list(
    reader: &mut impl TenantReader,
    listing: &Listing<table::table>,
    request: &ListRequest,
    collection: &'static str,
    resource: &str,
) -> Result<Listed<RecordedEvent>> {
    let tenant = reader.tenant();
    let name = resource.to_owned();
    let events = move || {
        let own = table::tenant_id.eq(tenant.0).and(table::resource.eq(name.clone()));
        table::table.filter(own).filter(literal::<_, Bool>(collection)).into_boxed()
    };
    listing.read(reader, request, resource, events).await
}
