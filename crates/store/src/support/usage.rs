//! What a tenant has of tickets: the last number, and how many are open.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::{Error, Result};

use crate::schema::ticket_usage as table;
use crate::tx::error::from_diesel;
use crate::tx::{TenantTx, Write};

/// Has others wait who write in the tenant's tickets, until the commit: what is counted before does not change meanwhile.
pub(super) async fn lock(tx: &mut TenantTx<Write>) -> Result<()> {
    let row = table::table.find(tx.tenant()).select(table::last_number).for_update();
    row.execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}

/// Takes the number of a new ticket, which is open. Others who write one wait until the commit.
pub(super) async fn take_number(tx: &mut TenantTx<Write>, most_open: i32) -> Result<i32> {
    let tenant = tx.tenant();
    let (number, open): (i32, i32) = diesel::insert_into(table::table)
        .values((table::tenant_id.eq(tenant), table::last_number.eq(1), table::open_tickets.eq(1)))
        .on_conflict(table::tenant_id)
        .do_update()
        .set((table::last_number.eq(table::last_number + 1), table::open_tickets.eq(table::open_tickets + 1)))
        .returning((table::last_number, table::open_tickets))
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    check(open, most_open)?;
    Ok(number)
}

/// Counts a ticket that was opened again, or one less where one was closed. Only who opens one meets the bound.
pub(super) async fn count(tx: &mut TenantTx<Write>, change: i32, most_open: Option<i32>) -> Result<()> {
    let open: i32 = diesel::update(table::table.filter(table::tenant_id.eq(tx.tenant())))
        .set(table::open_tickets.eq(table::open_tickets + change))
        .returning(table::open_tickets)
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    most_open.map_or(Ok(()), |most| check(open, most))
}

/// Counts the bytes of a file that comes, within a bound, or goes.
pub(super) async fn add_bytes(tx: &mut TenantTx<Write>, bytes: i64, most: Option<i64>) -> Result<()> {
    let there: i64 = diesel::update(table::table.filter(table::tenant_id.eq(tx.tenant())))
        .set(table::attachment_bytes.eq(table::attachment_bytes + bytes))
        .returning(table::attachment_bytes)
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let Some(most) = most.filter(|most| there > *most) else { return Ok(()) };
    let message = format!("the files of the tenant's tickets may have {most} bytes together; delete some");
    Err(Error::ResourceExhausted { reason: "TOO_MANY_ATTACHMENT_BYTES", message, retry_after: None })
}

fn check(open: i32, most: i32) -> Result<()> {
    if open <= most {
        return Ok(());
    }
    let message = format!("the tenant has {most} tickets that are not closed, the most that it may have; close some");
    Err(Error::ResourceExhausted { reason: "TOO_MANY_TICKETS", message, retry_after: None })
}
