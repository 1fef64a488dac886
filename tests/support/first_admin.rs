//! Who is there from the start in every test.

use virtualstack_server::{FirstAdmin, HashCost};

/// Password of everybody in tests.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Slug of the demo tenant.
pub(crate) const DEMO: &str = "demo";

/// Address of the platform's admin.
pub(crate) const ADMIN: &str = "admin@example.com";

/// The platform's admin, who is the demo tenant's too.
pub(super) fn first_admin() -> FirstAdmin {
    FirstAdmin { email: ADMIN.to_owned(), password: PASSWORD.to_owned(), demo_tenant: Some(DEMO.to_owned()) }
}

/// What hashes of passwords cost tests.
pub(super) fn least_cost() -> HashCost {
    #[expect(clippy::disallowed_methods, reason = "tests sign in all the time, with a password that everybody knows")]
    HashCost::least()
}
