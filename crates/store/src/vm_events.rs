//! A VM's event log: the change log, read for one VM.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;
use virtualstack_model::id::{OperationId, VmId};

use crate::error::from_diesel;
use crate::page::Page;
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

/// Lists what happened to a VM, newest first.
pub async fn list<M: Mode>(tx: &mut TenantTx<M>, vm: VmId, page: &Page<i64>) -> Result<(Vec<VmEvent>, String)> {
    let tenant = tx.tenant();
    let rows = table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::resource.eq(vm.name())))
        .filter(table::position.lt(page.after.unwrap_or(i64::MAX)))
        .select(VmEvent::as_select())
        .order(table::position.desc())
        .limit(page.limit())
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    page.cut(rows, |event| event.position)
}
