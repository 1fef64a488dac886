//! How long and how often, for runs that are longer than those of every day.

/// A setting of the test run.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
    let given = std::env::var(name).ok();
    given.map_or(default, |given| given.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

/// How often a test is gone through that is worth more than one look: VIRTUALSTACK_TEST_ROUNDS.
pub(crate) fn rounds(default: u64) -> usize {
    usize::try_from(setting("VIRTUALSTACK_TEST_ROUNDS", default)).expect("a small number")
}
