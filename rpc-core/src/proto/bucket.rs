//! Token buckets: what a peer may do now and then, and not without end (docs/PROTOCOL.md §8.5). Integers alone; the time
//! is an argument.

use std::fmt;

use super::time::Time;

/// Tokens are kept in millionths, so that what flows in within a microsecond is the rate itself.
const TOKEN: u64 = 1_000_000;

/// So much at once, and so much a second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// How much at once.
    pub burst: u32,
    /// How much of it comes back within a second.
    pub per_second: u32,
}

impl Allowance {
    /// `burst` at once, `per_second` for ever.
    pub const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second }
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}/s", self.burst, self.per_second)
    }
}

/// What is left of an [`Allowance`]. Nothing flows in by itself: it is made up for when something is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    allowance: Allowance,
    level: u64,
    at: Time,
}

impl Bucket {
    /// A full one.
    pub const fn new(allowance: Allowance) -> Self {
        Self { allowance, level: allowance.burst as u64 * TOKEN, at: Time::from_micros(0) }
    }

    /// Takes `n` at the time `now`, behind giving `earned` back. `false`: there was less, and nothing is left.
    #[must_use]
    pub fn take(&mut self, n: u64, earned: u64, now: Time) -> bool {
        let level = self.level_at(now).saturating_add(earned.saturating_mul(TOKEN)).min(self.full());
        self.at = self.at.max(now);
        let left = level.checked_sub(n.saturating_mul(TOKEN));
        self.level = left.unwrap_or_default();
        left.is_some()
    }

    /// Whether nothing is missing.
    pub fn is_full(&self, now: Time) -> bool {
        self.level_at(now) >= self.full()
    }

    fn full(&self) -> u64 {
        u64::from(self.allowance.burst) * TOKEN
    }

    /// The level with what has flown in since, which may be more than it holds.
    fn level_at(&self, now: Time) -> u64 {
        let elapsed = now.as_micros().saturating_sub(self.at.as_micros());
        self.level.saturating_add(elapsed.saturating_mul(self.allowance.per_second.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn a_burst_passes_and_one_more_does_not() {
        let mut bucket = Bucket::new(Allowance::new(200, 33));
        for n in 1..=201 {
            assert_eq!(bucket.take(1, 0, at(0)), n <= 200, "{n}");
        }
    }

    #[test]
    fn it_refills_by_the_second_and_by_what_is_earned_and_never_above_its_burst() {
        let mut bucket = Bucket::new(Allowance::new(10, 2));
        assert!(bucket.take(10, 0, at(SECOND)));
        assert!(!bucket.take(1, 0, at(SECOND + SECOND / 2 - 1)), "half a second yields one, and not a moment sooner");
        assert!(bucket.take(1, 0, at(2 * SECOND)));
        assert!(bucket.take(3, 3, at(2 * SECOND)));
        assert!(!bucket.take(1, 0, at(2 * SECOND)));
        assert!(!bucket.take(11, 1000, at(100 * SECOND)), "a long rest and much merit make it full and no more");
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_gives_nothing() {
        let mut bucket = Bucket::new(Allowance::new(1, u32::MAX));
        assert!(bucket.take(1, 0, at(5 * SECOND)));
        assert!(!bucket.take(1, 0, at(4 * SECOND)));
        assert!(!bucket.take(1, 0, at(5 * SECOND)));
        assert!(bucket.take(1, 0, at(u64::MAX)));
    }

    proptest! {
        /// Within any span no more passes than the burst, what flowed in, and what was earned.
        #[test]
        fn no_more_passes_than_burst_rate_and_merit(
            (burst, rate) in (1u32..500, 0u32..500),
            steps in proptest::collection::vec((0u64..3, 0u64..3, 0u64..SECOND), 1..200),
        ) {
            let mut bucket = Bucket::new(Allowance::new(burst, rate));
            let (mut now, mut passed, mut earned_in_all) = (SECOND, 0u64, 0u64);
            for (n, earned, wait) in steps {
                now += wait;
                earned_in_all += earned;
                if bucket.take(n, earned, at(now)) {
                    passed += n;
                }
                let most = u64::from(burst) + u64::from(rate) * (now - SECOND) / SECOND + earned_in_all;
                prop_assert!(passed <= most, "{passed} of {most}");
            }
        }

        /// Who keeps to the rate is never refused, however long it goes on.
        #[test]
        fn whoever_keeps_to_the_rate_is_never_refused(rate in 1u32..1000, burst in 1u32..10, steps in 1u64..2000) {
            let mut bucket = Bucket::new(Allowance::new(burst, rate));
            let pace = SECOND.div_ceil(rate.into());
            for step in 1..=steps {
                prop_assert!(bucket.take(1, 0, at(step * pace)));
            }
        }

        /// No input makes it panic or hold more than its burst.
        #[test]
        fn no_numbers_overflow(burst: u32, rate: u32, steps: Vec<(u64, u64, u64)>) {
            let mut bucket = Bucket::new(Allowance::new(burst, rate));
            for (n, earned, now) in steps {
                let _ = bucket.take(n, earned, at(now));
                prop_assert!(bucket.level <= u64::from(burst) * TOKEN);
            }
        }
    }
}
