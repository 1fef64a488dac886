//! Leave to work across tenants, for what looks for work by itself.

use virtualstack_store::{SystemPurpose, SystemScope};

/// Leave to look for what is due in all tenants.
#[expect(clippy::disallowed_methods, reason = "reconcilers find the tenants by themselves")]
pub(crate) fn reconciler() -> SystemScope {
    SystemScope::new(SystemPurpose::Reconcile)
}
