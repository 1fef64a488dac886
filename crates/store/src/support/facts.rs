//! What is known of the thing that a ticket is about, at the moment in which it is written. It may look different when the
//! ticket is read, or be gone.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::{Map, Value};
use virtualstack_model::Result;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::id::OperationId;

use crate::compute::vms;
use crate::operations::{self, Operation};
use crate::schema::logs;
use crate::tx::error::from_diesel;
use crate::tx::{TenantTx, Write};

/// Facts of a VM and of an operation. One that is not there is refused.
pub(super) async fn of(tx: &mut TenantTx<Write>, vm: Option<VmId>, operation: Option<OperationId>) -> Result<Value> {
    let mut facts = Map::new();
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.insert(name.to_owned(), value.into());
        }
    };
    if let Some(id) = vm {
        let vm = vms::get(tx, id).await?;
        fact("vm.displayName", vm.display_name);
        fact("vm.state", vm.state.to_string());
        fact("vm.stateReason", vm.state_reason);
    }
    if let Some(id) = operation {
        let operation = operations::get(tx, id).await?;
        fact("operation.requestId", request_id(tx, &operation).await?);
        fact("operation.target", operation.target);
        fact("operation.verb", operation.verb.to_string());
        fact("operation.state", operation.state.to_string());
        fact("operation.reason", operation.error_reason.unwrap_or_default());
        fact("operation.error", operation.error_message.unwrap_or_default());
    }
    Ok(facts.into())
}

/// Id of the request that started an operation: both rows are of one transaction, and so of one time.
async fn request_id(tx: &mut TenantTx<Write>, operation: &Operation) -> Result<String> {
    let of_start = logs::tenant_id.eq(tx.tenant().0).and(logs::created_at.eq(operation.created_at));
    let found: Option<String> = logs::table
        .filter(of_start.and(logs::actor.eq(&operation.actor)))
        .select(logs::request_id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    Ok(found.unwrap_or_default())
}
