//! Tenants.

use serde::{Deserialize, Serialize};

use crate::sql::text_enum;

/// Slug of the one tenant whose members operate the platform.
pub const PROVIDER_SLUG: &str = "provider";

text_enum! {
    /// Whether a tenant's members can work.
    TenantState {
        Active = "ACTIVE",
        /// Nobody reads or does anything in it.
        Suspended = "SUSPENDED",
        /// Deleted; nobody gets in, and it is purged later.
        Deleted = "DELETED",
        /// Gone but for its audit log.
        Purged = "PURGED",
    }
}

impl TenantState {
    /// The words that clients see: what is purged is gone.
    pub const SHOWN: &'static [&'static str] =
        &[Self::Active.as_str(), Self::Suspended.as_str(), Self::Deleted.as_str()];
}

/// What a tenant's admins can set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Days that an invitation is open when it does not say; 0 is [`INVITATION_DAYS`].
    pub invitation_days: i32,
    /// Days that a new API key may be good for at most; 0 is without end.
    pub api_key_max_days: i32,
}

/// Days that an invitation is open where neither it nor the tenant says.
pub const INVITATION_DAYS: i32 = 7;
