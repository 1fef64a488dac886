//! What the provider's desk, where it is another program, has of tickets. Tasks of the worker read and write this; no tenant does.

mod cursor;
mod received;
mod sent;
mod twin;

pub use cursor::{Cursor, cursor, polled, set_cursor};
pub use received::{Author, Received, follow, heard, is_of, known, receive, receive_file, requester};
pub use sent::{Outgoing, failed, outgoing, put_off, refuse, send_again, synced, to_send};
pub use twin::{
    Twin, TwinKey, Unread, deleted, find, lock, number, pair, read_again, save, save_common, taken, to_read, unread,
};

use crate::schema::ticket_staff as staff;
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::id::TicketId;

/// Tells operators what is in the way of a ticket, or that nothing is.
async fn set_error(tx: &mut SystemTx, tenant: TenantId, id: TicketId, error: &str) -> Result<()> {
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
