//! Where the bytes of a file are: in objects that are named by the tenant, the file, and where they begin in it.

use virtualstack_model::compute::template::PIECE_BYTES;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::id::TicketAttachmentId;
use virtualstack_model::{Error, Result};
use virtualstack_objects::Key;

/// The objects of a file, and how many bytes of it each has.
pub(super) fn pieces(tenant: TenantId, id: TicketAttachmentId, size_bytes: i64) -> Vec<Result<(Key, u64)>> {
    let size = usize::try_from(size_bytes).unwrap_or_default();
    let of = |first: usize| Ok((key(tenant, id, first)?, (size - first).min(PIECE_BYTES) as u64));
    (0..size).step_by(PIECE_BYTES).map(of).collect()
}

/// The object of a file that begins at a byte of it.
pub(super) fn key(tenant: TenantId, id: TicketAttachmentId, first_byte: usize) -> Result<Key> {
    Key::new(["attachments", &tenant.to_string(), &id.to_string(), &first_byte.to_string()]).map_err(Error::internal)
}
