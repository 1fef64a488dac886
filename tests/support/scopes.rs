//! Leave to work across tenants, for tests that look at the store itself.

use virtualstack_store::{SystemPurpose, SystemScope};

#[expect(clippy::disallowed_methods, reason = "a test is nobody's call")]
pub(crate) fn system(purpose: SystemPurpose) -> SystemScope {
    SystemScope::new(purpose)
}
