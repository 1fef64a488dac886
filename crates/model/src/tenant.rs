//! Tenants.

use crate::sql::words;

/// Slug of the one tenant whose members operate the platform.
pub const PROVIDER_SLUG: &str = "provider";

words! {
    /// Whether a tenant's members can work.
    TenantState {
        /// They can.
        Active = "ACTIVE",
        /// Nobody reads or does anything in it.
        Suspended = "SUSPENDED",
    }
}
