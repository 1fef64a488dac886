//! A VM's event log: the change log, read for one VM.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use virtualstack_model::Result;
use virtualstack_model::id::{OperationId, VmId};
use virtualstack_model::vm::VmState;

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::changes as table;
use crate::tx::{Mode, TenantTx};

/// An event as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct VmEvent {
    pub position: i64,
    pub created_at: DateTime<Utc>,
    pub reason: String,
    pub message: String,
    pub state: String,
    pub operation_id: Option<OperationId>,
    pub actor: String,
}

/// What filters and orders of events may name. Positions follow the order of commits, and so do their times but for the
/// moments that transactions take.
const LISTING: Listing<table::table> = Listing {
    collection: "events",
    id: Field::int64("", &table::position),
    fields: &[
        Field::time("createTime", &table::created_at).sorted_by_id(),
        Field::words("state", VmState::WORDS, &table::state),
        Field::code("reason", &table::reason),
        Field::text("message", &table::message).searched(),
        Field::id("operation", OperationId::COLLECTION, &table::operation_id),
        Field::code("actor", &table::actor),
    ],
};

/// Lists what happened to a VM, newest first.
pub async fn list<M: Mode>(tx: &mut TenantTx<M>, request: &ListRequest, vm: VmId) -> Result<Listed<VmEvent>> {
    let tenant = tx.tenant();
    let name = vm.name();
    // In the words of the indexes, which hold the changes of VMs only.
    let of_vms = || sql::<Bool>("resource LIKE 'vms/%'");
    let events = || {
        let own = table::tenant_id.eq(tenant.0).and(table::resource.eq(vm.name()));
        table::table.filter(own).filter(of_vms()).into_boxed()
    };
    LISTING.read(tx, request, &name, events).await
}
