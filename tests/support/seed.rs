//! Orders that a seed makes. It is printed when a test fails, and taken from VIRTUALSTACK_TEST_SEED.

use std::time::Duration;

/// Makes an order of its seed: SplitMix64.
pub(crate) struct Seed(u64);

impl Seed {
    /// A new one, or the one that is asked for.
    pub(crate) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "asks this run of the tests to repeat another one")]
        let given = std::env::var("VIRTUALSTACK_TEST_SEED").ok();
        let seed = given.map_or_else(
            || chrono::Utc::now().timestamp_micros().unsigned_abs(),
            |seed| seed.parse().expect("VIRTUALSTACK_TEST_SEED: a number"),
        );
        #[expect(clippy::print_stdout, reason = "shown when the test fails")]
        let () = println!("VIRTUALSTACK_TEST_SEED={seed}");
        Self(seed)
    }

    /// One that another one has made.
    pub(crate) fn of(seed: usize) -> Self {
        Self(u64::try_from(seed).expect("a number"))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let end = u64::try_from(end).expect("a small number");
        usize::try_from((mixed ^ (mixed >> 31)) % end).expect("a small number")
    }

    /// Less than so many milliseconds.
    pub(crate) fn millis(&mut self, end: usize) -> Duration {
        Duration::from_millis(u64::try_from(self.below(end)).expect("a small number"))
    }

    /// The same things in another order.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}
