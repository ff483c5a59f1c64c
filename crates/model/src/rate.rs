//! Rates: how many requests somebody may send, as a bucket that fills with time and of which each request takes one.

use crate::limits;
use serde::{Deserialize, Serialize};

const SECOND_NS: u64 = 1_000_000_000;

/// How fast a bucket fills, and how much is in a full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests in a second, for as long as anybody likes: 1 to [`limits::RATE_BURST_MAX`].
    pub per_second: u32,
    /// Requests at once after a pause: 1 to [`limits::RATE_BURST_MAX`].
    pub burst: u32,
}

impl Rate {
    /// So many in a second, and so many at once.
    pub const fn new(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    /// Whether both numbers can be.
    pub fn is_valid(self) -> bool {
        let range = 1..=limits::RATE_BURST_MAX;
        range.contains(&self.per_second) && range.contains(&self.burst)
    }

    /// Between two requests, in nanoseconds. Rounded up, so that there are never more than the rate says.
    fn interval_ns(self) -> u64 {
        SECOND_NS.div_ceil(u64::from(self.per_second.max(1)))
    }

    /// How long an empty bucket takes to be full, in seconds, rounded up.
    pub fn window_s(self) -> u64 {
        let full = self.interval_ns().saturating_mul(u64::from(self.burst));
        full.div_ceil(SECOND_NS)
    }
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// To see something.
    Reads,
    /// To change something.
    Writes,
    /// To make something that runs or is kept.
    Creates,
    /// Of a node.
    Nodes,
    /// Of somebody who has shown nothing, or nothing that counts, by the address.
    Strangers,
    /// With a credential that does not count, by the address.
    Failures,
}

impl Class {
    /// All.
    pub const ALL: [Class; 6] = [
        Class::Reads,
        Class::Writes,
        Class::Creates,
        Class::Nodes,
        Class::Strangers,
        Class::Failures,
    ];

    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Reads => "reads",
            Class::Writes => "writes",
            Class::Creates => "creates",
            Class::Nodes => "nodes",
            Class::Strangers => "strangers",
            Class::Failures => "failures",
        }
    }
}

/// The rates of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// No rates, and no quotas either: development only.
    pub off: bool,
    /// Of each principal: what only looks.
    pub reads: Rate,
    /// Of each principal: what changes something.
    pub writes: Rate,
    /// Of each principal: jobs, sandboxes and what else is made. They are not counted as writes.
    pub creates: Rate,
    /// Of each node.
    pub nodes: Rate,
    /// Of each address, without a credential that counts.
    pub strangers: Rate,
    /// Of each address, with a wrong one.
    pub failures: Rate,
}

impl Default for Rates {
    /// Far above what a busy program asks for, and far below what a server can answer: they are for what runs wild.
    fn default() -> Rates {
        Rates {
            off: false,
            reads: Rate::new(2000, 4000),
            writes: Rate::new(1000, 2000),
            creates: Rate::new(500, 1000),
            nodes: Rate::new(5000, 10_000),
            strangers: Rate::new(100, 400),
            failures: Rate::new(20, 200),
        }
    }
}

impl Rates {
    /// That of a kind of request.
    pub fn of(&self, class: Class) -> Rate {
        match class {
            Class::Reads => self.reads,
            Class::Writes => self.writes,
            Class::Creates => self.creates,
            Class::Nodes => self.nodes,
            Class::Strangers => self.strangers,
            Class::Failures => self.failures,
        }
    }
}

/// A bucket. A new one is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When it is full again, on the clock of whoever asks. That is all there is to know.
    full_at_ns: u64,
}

/// How a bucket is after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// What is left.
    pub left: u32,
    /// In how many nanoseconds it is full.
    pub full_in_ns: u64,
    /// In how many nanoseconds there is one again; 0 where the request has had one.
    pub wait_ns: u64,
}

impl Level {
    /// Whether the request has had one.
    pub fn is_let_in(&self) -> bool {
        self.wait_ns == 0
    }

    /// When to come again, in seconds, rounded up and at least one.
    pub fn wait_s(&self) -> u64 {
        self.wait_ns.div_ceil(SECOND_NS).max(1)
    }

    /// When it is full, in seconds, rounded up.
    pub fn full_in_s(&self) -> u64 {
        self.full_in_ns.div_ceil(SECOND_NS)
    }
}

impl Bucket {
    /// Takes one, if there is one. `now_ns` is of a clock that never goes back.
    pub fn take(&mut self, rate: Rate, now_ns: u64) -> Level {
        let level = self.look(rate, now_ns);
        if !level.is_let_in() {
            return level;
        }
        let interval = rate.interval_ns();
        self.full_at_ns = self.full_at_ns.max(now_ns).saturating_add(interval);
        Level {
            left: level.left.saturating_sub(1),
            full_in_ns: self.full_at_ns.saturating_sub(now_ns),
            wait_ns: 0,
        }
    }

    /// How it is for a request that would come now.
    pub fn look(&self, rate: Rate, now_ns: u64) -> Level {
        let interval = rate.interval_ns();
        let all = interval.saturating_mul(u64::from(rate.burst));
        let full_in_ns = self.full_at_ns.saturating_sub(now_ns);
        let free = all.saturating_sub(full_in_ns);
        Level {
            left: u32::try_from(free / interval).unwrap_or(u32::MAX),
            full_in_ns,
            wait_ns: interval.saturating_sub(free),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_then_as_fast_as_it_fills() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(10, 3));
        let lefts: Vec<u32> = (0..3).map(|_| bucket.take(rate, 7).left).collect();
        assert_eq!(lefts, [2, 1, 0]);
        let level = bucket.take(rate, 7);
        assert!(!level.is_let_in());
        assert_eq!((level.wait_ns, level.wait_s()), (100_000_000, 1));
        assert!(bucket.take(rate, 7 + 100_000_000).is_let_in());
        assert!(!bucket.take(rate, 7 + 100_000_000).is_let_in());
        assert_eq!(bucket.look(rate, SECOND_NS).left, 3);
    }

    #[test]
    fn all_default_rates_can_be_and_nothing_is_no_rate() {
        for class in Class::ALL {
            assert!(Rates::default().of(class).is_valid(), "{}", class.as_str());
        }
        assert!(!Rate::new(0, 1).is_valid());
        assert!(!Rate::new(1, limits::RATE_BURST_MAX + 1).is_valid());
        assert_eq!(Rate::new(500, 1000).window_s(), 2);
    }

    proptest! {
        #[test]
        fn in_no_window_are_more_let_in_than_the_burst_and_what_came_in_it(
            per_second in 1..5000_u32,
            burst in 1..50_u32,
            pauses in proptest::collection::vec(0..2_000_000_000_u64, 1..200),
            hurry in 0..5_u32,
        ) {
            let (mut bucket, rate) = (Bucket::default(), Rate::new(per_second, burst));
            let (mut now, mut times) = (0_u64, Vec::new());
            for pause in pauses {
                now += pause >> (hurry * 6);
                let before = bucket.look(rate, now);
                let level = bucket.take(rate, now);
                prop_assert_eq!(before.is_let_in(), level.is_let_in());
                prop_assert!(level.left <= burst);
                if level.is_let_in() {
                    times.push(now);
                } else {
                    prop_assert!(bucket.look(rate, now + level.wait_ns).is_let_in());
                }
            }
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    let came = u128::from(to - from) * u128::from(per_second) / u128::from(SECOND_NS);
                    let most = u128::from(burst) + came;
                    prop_assert!((last - first + 1) as u128 <= most);
                }
            }
        }
    }
}
