//! Chance that can be repeated: what a test draws is a function of its seed.

use std::time::Duration;

/// Makes numbers of its seed.
#[derive(Clone, Debug)]
pub(crate) struct Seed(fastrand::Rng);

impl Seed {
    /// A new one, printed for who wants to repeat the test, or the one that VIRTUALSTACK_TEST_SEED asks for.
    pub(crate) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "asks this run of the tests to repeat another one")]
        let given = std::env::var("VIRTUALSTACK_TEST_SEED").ok();
        let seed = given.map_or_else(
            || chrono::Utc::now().timestamp_micros().unsigned_abs(),
            |seed| seed.parse().expect("VIRTUALSTACK_TEST_SEED: a number"),
        );
        Self(fastrand::Rng::with_seed(seed)).printed()
    }

    /// That of a round. The first one has this very seed, so that one round alone repeats whichever has failed.
    pub(crate) fn of_round(&self, number: usize) -> Self {
        if number == 0 { self.clone() } else { self.split(number).printed() }
    }

    #[expect(clippy::print_stdout, reason = "shown when the test fails")]
    fn printed(self) -> Self {
        println!("VIRTUALSTACK_TEST_SEED={}", self.0.get_seed());
        self
    }

    /// A seed of its own for one of several that draw side by side, each in a time of its own.
    pub(crate) fn split(&self, number: usize) -> Self {
        let number = u64::try_from(number).expect("a small number");
        let mut between = fastrand::Rng::with_seed(self.0.get_seed().wrapping_add(number + 1));
        Self(fastrand::Rng::with_seed(between.u64(..)))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
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
        uuid::Builder::from_random_bytes(self.0.u128(..).to_be_bytes()).into_uuid()
    }

    /// The same things in another order.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        self.0.shuffle(things);
    }
}
