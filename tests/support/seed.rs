//! Chance that can be repeated: what a test draws is a function of its seed.

use std::time::Duration;

/// Makes numbers of its seed: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Seed(u64);

impl Seed {
    /// A new one, printed for who wants to repeat the test, or the one that VIRTUALSTACK_TEST_SEED asks for.
    pub(crate) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "asks this run of the tests to repeat another one")]
        let given = std::env::var("VIRTUALSTACK_TEST_SEED").ok();
        let seed = given.map_or_else(
            || chrono::Utc::now().timestamp_micros().unsigned_abs(),
            |seed| seed.parse().expect("VIRTUALSTACK_TEST_SEED: a number"),
        );
        Self(seed).printed()
    }

    /// That of a round. The first one has this very seed, so that one round alone repeats whichever has failed.
    pub(crate) fn of_round(&self, number: usize) -> Self {
        if number == 0 { self.clone() } else { self.split(number).printed() }
    }

    #[expect(clippy::print_stdout, reason = "shown when the test fails")]
    fn printed(self) -> Self {
        println!("VIRTUALSTACK_TEST_SEED={}", self.0);
        self
    }

    /// A seed of its own for one of several that draw side by side, each in a time of its own.
    pub(crate) fn split(&self, number: usize) -> Self {
        let number = u64::try_from(number).expect("a small number");
        let mut child = Self(self.0 ^ (number + 1).wrapping_mul(0xd134_2543_de82_ef95));
        child.next();
        child
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a small number");
        usize::try_from(self.next() % end).expect("a small number")
    }

    /// True in so many cases of a hundred.
    pub(crate) fn percent(&mut self, cases: usize) -> bool {
        self.below(100) < cases
    }

    /// One of several.
    pub(crate) fn pick<T: Clone>(&mut self, things: &[T]) -> T {
        things[self.below(things.len())].clone()
    }

    /// Less than so many milliseconds.
    pub(crate) fn millis(&mut self, end: usize) -> Duration {
        Duration::from_millis(u64::try_from(self.below(end)).expect("a small number"))
    }

    /// A UUID.
    pub(crate) fn uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes((u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes())
            .into_uuid()
    }

    /// The same things in another order.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}
