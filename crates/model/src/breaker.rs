//! How long a node waits before it asks again where nobody answers. Pure: time and chance are passed in.
//!
//! A few failures are a restart of the other side, and waited for in moments. More are an outage, or a server that
//! will not have this node: then it is asked seldom, so that a thousand nodes do not hold down what comes up again.

/// Failures in a row after which it is an outage.
const FAILURES: u32 = 5;
/// The first pause, in milliseconds; each next one is twice as long.
const PAUSE_MS: u64 = 100;
/// The pause in an outage, in milliseconds, at first and at most.
const COOL_MS: u64 = 30_000;
const COOL_MAX_MS: u64 = 300_000;

/// Whether somebody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// As far as anybody knows; so many tries in a row have failed.
    Closed {
        /// How many.
        failures: u32,
    },
    /// Nobody did. One try is made when this pause is over.
    Open {
        /// In milliseconds.
        cool_ms: u64,
    },
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker::Closed { failures: 0 }
    }
}

impl Breaker {
    /// A try has failed: what follows, and how many milliseconds to wait before the next one. `chance` is random,
    /// so that nodes that failed together do not come again together. What the other side has asked for counts, to
    /// five minutes.
    #[must_use]
    pub fn failed(self, chance: u16, retry_after_ms: Option<u64>) -> (Breaker, u64) {
        let (next, pause) = match self {
            Breaker::Closed { failures } if failures + 1 < FAILURES => {
                let failures = failures + 1;
                (Breaker::Closed { failures }, PAUSE_MS << (failures - 1))
            }
            Breaker::Closed { .. } => (Breaker::Open { cool_ms: COOL_MS }, COOL_MS),
            Breaker::Open { cool_ms } => {
                let cool_ms = cool_ms.saturating_mul(2).min(COOL_MAX_MS);
                (Breaker::Open { cool_ms }, cool_ms)
            }
        };
        // From three quarters to the whole, so that it is never longer than the bound.
        let jittered = pause - pause * u64::from(chance) / u64::from(u16::MAX) / 4;
        let asked = retry_after_ms.unwrap_or(0).min(COOL_MAX_MS);
        (next, jittered.max(asked))
    }

    /// A try has gone well, or the other side was heard on another way, so that a try is worth it.
    #[must_use]
    pub fn heard(self) -> Breaker {
        Breaker::default()
    }

    /// Whether it is asked seldom.
    pub fn is_open(self) -> bool {
        matches!(self, Breaker::Open { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_failures_open_it_for_half_a_minute_and_each_one_more_for_twice_as_long() {
        let mut breaker = Breaker::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            let (next, wait) = breaker.failed(0, None);
            breaker = next;
            waits.push(wait);
        }
        let expect = [
            100, 200, 400, 800, 30_000, 60_000, 120_000, 240_000, 300_000, 300_000,
        ];
        assert_eq!(waits, expect);
        assert!(breaker.is_open());
        assert_eq!(
            breaker.heard().failed(0, None),
            (Breaker::Closed { failures: 1 }, 100)
        );
    }

    #[test]
    fn what_the_other_side_asks_for_is_waited_for_and_not_for_longer_than_five_minutes() {
        let wait = |asked| Breaker::default().failed(0, Some(asked)).1;
        assert_eq!(
            [wait(0), wait(7000), wait(u64::MAX)],
            [100, 7000, COOL_MAX_MS]
        );
    }

    proptest! {
        #[test]
        fn a_wait_is_never_nothing_and_never_beyond_five_minutes(
            steps in proptest::collection::vec((any::<u16>(), any::<Option<u64>>(), any::<bool>()), 0..40)
        ) {
            let mut breaker = Breaker::default();
            for (chance, asked, heard) in steps {
                let (next, wait) = breaker.failed(chance, asked);
                prop_assert!((75..=COOL_MAX_MS).contains(&wait));
                breaker = if heard { next.heard() } else { next };
                prop_assert_eq!(breaker.is_open() && heard, false);
            }
        }
    }
}
