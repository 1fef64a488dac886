//! The adapters to the outside.

use std::fmt;

use serde::Deserialize;

pub mod desk;
pub mod hypervisor;
pub mod mail;
mod tls;

/// A password; never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
