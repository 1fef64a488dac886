//! The provider's desk, where tickets are answered in another program: what it does, and the adapters that do.
//!
//! No desk has a way to repeat a call that was done without knowing. So all that we put there bears our id, and whoever has lost a
//! reply looks for it before it is put again: a ticket by a field or a tag, a comment by the last line of its text.

mod config;
mod contract;
mod freshservice;
mod html;

use std::sync::Arc;

pub use config::{Config, ConfigError, Kind};
pub use contract::{
    By, Change, Changed, Class, Desk, Fault, NewComment, NewFile, NewTicket, Remote, RemoteComment, RemoteFile,
};
pub use freshservice::Freshservice;

/// The desk of checked settings; None where tickets are answered here.
pub fn connect(config: &Config) -> Result<Option<Arc<dyn Desk>>, ConfigError> {
    config.check()?;
    Ok(match config.kind {
        Kind::Local => None,
        Kind::Freshservice => Some(Arc::new(Freshservice::new(config)?)),
    })
}
