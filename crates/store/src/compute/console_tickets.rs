//! Tickets for consoles: sealed, fetched once, and gone when they are too old.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;
use virtualstack_model::id::OperationId;

use crate::schema::console_tickets as table;
use crate::tx::error::from_diesel;
use crate::tx::{Mode, SystemTx, TenantTx, Write};

/// What tickets are sealed for. The operation's name stands behind it: a ticket opens for its own operation only.
#[must_use]
pub fn purpose(operation: OperationId) -> String {
    format!("console-ticket {}", operation.name())
}

/// Keeps a sealed ticket until it is fetched.
pub async fn put(
    tx: &mut TenantTx<Write>,
    operation: OperationId,
    sealed: &[u8],
    expires_at: DateTime<Utc>,
) -> Result<()> {
    diesel::insert_into(table::table)
        .values((
            table::tenant_id.eq(tx.tenant().0),
            table::operation_id.eq(operation.0),
            table::sealed_ticket.eq(sealed),
            table::expires_at.eq(expires_at),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Whether the ticket of an operation waits to be fetched.
pub async fn waits<M: Mode>(tx: &mut TenantTx<M>, operation: OperationId) -> Result<bool> {
    let of_operation = table::table
        .filter(table::tenant_id.eq(tx.tenant().0).and(table::operation_id.eq(operation.0)))
        .filter(table::expires_at.gt(Utc::now()));
    diesel::select(diesel::dsl::exists(of_operation)).get_result(tx.connection()?).await.map_err(from_diesel)
}

/// Fetches the ticket of an operation, which is gone with that; none where it was fetched already, or is too old.
pub async fn take(tx: &mut TenantTx<Write>, operation: OperationId) -> Result<Option<(Vec<u8>, DateTime<Utc>)>> {
    let tenant = tx.tenant();
    let ticket: Option<(Vec<u8>, DateTime<Utc>)> =
        diesel::delete(table::table.filter(table::tenant_id.eq(tenant.0).and(table::operation_id.eq(operation.0))))
            .returning((table::sealed_ticket, table::expires_at))
            .get_result(tx.connection()?)
            .await
            .optional()
            .map_err(from_diesel)?;
    Ok(ticket.filter(|(_, expires_at)| *expires_at > Utc::now()))
}

/// Forgets tickets that are too old.
pub async fn prune(tx: &mut SystemTx) -> Result<usize> {
    diesel::delete(table::table.filter(table::expires_at.lt(Utc::now())))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
}
