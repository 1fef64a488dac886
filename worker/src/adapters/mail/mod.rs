//! Mail to people: what sends it, and the adapters that do.
//!
//! A mail may arrive twice: after a fault in the middle nobody knows whether the other side took it. Mails hold secrets,
//! so neither text nor address stands in a fault or in the log.

use std::path::Path;
use std::sync::Arc;

mod config;
mod file;
mod letter;
mod mailer;
mod smtp;
mod words;

pub use config::{Config, ConfigError, Kind, Security};
pub use file::File;
pub use letter::Letter;
pub use mailer::{Fault, Mailer, Message};
pub use smtp::Smtp;
pub use words::Words;

/// The mailer of checked settings; `folder` is that of [`Kind::File`] where the settings name none.
pub fn connect(config: &Config, folder: &Path) -> Result<Arc<dyn Mailer>, ConfigError> {
    config.check()?;
    Ok(match config.kind {
        Kind::File => Arc::new(File::new(config, config.folder.as_deref().unwrap_or(folder))?),
        Kind::Smtp => Arc::new(Smtp::new(config)?),
    })
}
