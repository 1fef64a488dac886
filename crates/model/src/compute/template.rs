//! Templates that VMs are made from: states, and what is legal in each.

use chrono::TimeDelta;

use crate::compute::id::TemplateId;
use crate::error::{Error, Result};
use crate::sql::text_enum;

text_enum! {
    /// What a template is on the hypervisor.
    TemplateKind {
        /// A machine image that is cloned.
        Ova = "OVA",
        Iso = "ISO",
    }
}

text_enum! {
    /// Whose a template is.
    TemplateScope {
        Provider = "PROVIDER",
        Tenant = "TENANT",
    }
}

text_enum! {
    /// Who may use a template of the provider's.
    Audience {
        All = "ALL",
        /// Those that it was granted to.
        Tenants = "TENANTS",
    }
}

text_enum! {
    /// Life cycle of a template. The provider's are READY or UNAVAILABLE.
    TemplateState {
        Ready = "READY",
        /// It is no longer found on the hypervisor.
        Unavailable = "UNAVAILABLE",
        /// Its file is being uploaded, or waits for the import.
        Uploading = "UPLOADING",
        /// Its file is being checked.
        Validating = "VALIDATING",
        /// It is being made on the hypervisor.
        Importing = "IMPORTING",
        Failed = "FAILED",
        Deleting = "DELETING",
    }
}

/// How long an import may take: checking and copying a file of 128 GiB takes hours on slow storage.
pub const IMPORT_TIME_LIMIT: TimeDelta = TimeDelta::hours(12);

/// How long a delete may take.
pub const DELETE_TIME_LIMIT: TimeDelta = TimeDelta::hours(1);

/// Bytes of one piece of a file, at most: what is kept of an upload in memory.
pub const PIECE_BYTES: usize = 8 << 20;

/// Bytes of a piece that may come as often as there are bytes for it, …
pub const LEAST_PIECE: i64 = 1 << 20;

/// … and pieces of one file that may be smaller. Uploads that break off make such.
pub const SMALL_PIECES: i64 = 1024;

impl TemplateId {
    /// What full names of templates are like.
    pub const NAMES: &'static str = "templates/{uuid}";
}

impl TemplateState {
    /// Refuses what only a template in a state allows: `work` is for the message.
    pub fn expect(self, expected: Self, template: TemplateId, work: &str) -> Result<()> {
        if self == expected {
            return Ok(());
        }
        let message = format!("a template that is {self} does not allow {work}; it must be {expected}");
        Err(Error::precondition("TEMPLATE_STATE", template.name(), message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_does_not_fit_is_named() {
        let id = TemplateId::new();
        assert!(TemplateState::Uploading.expect(TemplateState::Uploading, id, "an upload").is_ok());
        let error = TemplateState::Ready.expect(TemplateState::Uploading, id, "an upload").expect_err("refused");
        assert_eq!(error.reason(), "TEMPLATE_STATE");
        assert!(error.to_string().contains("READY") && error.to_string().contains("UPLOADING"), "{error}");
    }
}
