//! What the provider's desk, where it is another program, has of tickets. Tasks of the worker read and write this; no tenant does.

mod cursor;
mod received;
mod sent;
mod twin;

pub use cursor::{Cursor, ask, cursor, polled, set_cursor};
pub use received::{Author, Received, follow, heard, is_of, known, receive, receive_file, requester};
pub use sent::{Outgoing, deleted, failed, outgoing, put_off, refuse, send_again, synced, to_send};
pub use twin::{
    Twin, TwinKey, Unread, find, lock, number, pair, read_again, save, save_common, taken, to_read, unread,
};
