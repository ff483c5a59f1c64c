//! Where a look begins that is taken all the time: beside a transaction that somebody holds open, a database passes all
//! that is dead between the beginning of an index and what is there.

use std::time::Duration;

/// Where the places of jobs that wait begin, as this process has seen it last: see [`store::queue::claim_from`]. Where
/// it is wrong, a job that waits before that is found by the next look at all of them.
#[derive(Debug, Default)]
pub(crate) struct Oldest {
    from_ms: u64,
    /// When all are to be looked at again.
    again_ms: u64,
}

/// What a look has seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// When the oldest that it found was queued.
    pub(crate) oldest_ms: u64,
    /// How long it took to look at all places; `None` where it began later.
    pub(crate) whole: Option<Duration>,
}

/// Time between two looks at all places while something is found without, at least and at most: a twentieth of the
/// time goes by with it.
const LOOK_LEAST_MS: u64 = 1_000;
const LOOK_MOST_MS: u64 = 30_000;
const LOOK_PART: u64 = 20;
/// A job may be committed so long after the moment that it is queued at.
pub(crate) const LATE_MS: u64 = 1_000;

impl Oldest {
    /// From where on to look; 0 is everywhere.
    pub(crate) fn from(&self, now_ms: u64) -> u64 {
        // A clock that was set back must not keep anybody from looking.
        let is_known =
            (self.again_ms.saturating_sub(LOOK_MOST_MS)..self.again_ms).contains(&now_ms);
        if is_known { self.from_ms } else { 0 }
    }

    /// What a look has seen that began there.
    pub(crate) fn see(&mut self, seen: Seen, began_ms: u64, now_ms: u64) {
        // One that did not look at all, and began elsewhere, says nothing of what another has found before it.
        if seen.whole.is_none() && began_ms != self.from_ms {
            return;
        }
        self.from_ms = seen.oldest_ms.min(now_ms).saturating_sub(LATE_MS);
        if let Some(took) = seen.whole {
            let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let pause = took.saturating_mul(LOOK_PART);
            self.again_ms = now_ms.saturating_add(pause.clamp(LOOK_LEAST_MS, LOOK_MOST_MS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(oldest_ms: u64, whole_ms: Option<u64>) -> Seen {
        Seen {
            oldest_ms,
            whole: whole_ms.map(Duration::from_millis),
        }
    }

    #[test]
    fn all_places_are_looked_at_in_a_twentieth_of_the_time_and_else_those_behind_the_oldest() {
        let mut oldest = Oldest::default();
        assert_eq!(oldest.from(50_000), 0, "nothing was seen yet");
        oldest.see(seen(48_000, Some(1)), 0, 50_000);
        assert_eq!(oldest.from(50_000), 48_000 - LATE_MS);
        assert_eq!(oldest.from(50_999), 48_000 - LATE_MS);
        assert_eq!(oldest.from(51_000), 0);
        // What was found without looking at all of them says where to begin, and not that all were looked at.
        oldest.see(seen(50_400, None), 47_000, 50_500);
        assert_eq!(oldest.from(50_999), 50_400 - LATE_MS);
        assert_eq!(oldest.from(51_000), 0);
        oldest.see(seen(50_000, Some(200)), 0, 51_000);
        assert_eq!(oldest.from(54_999), 49_000);
        assert_eq!(oldest.from(55_000), 0);
        oldest.see(seen(50_000, Some(1 << 40)), 0, 55_000);
        assert_eq!(oldest.from(55_000 + LOOK_MOST_MS - 1), 49_000);
        assert_eq!(oldest.from(55_000 + LOOK_MOST_MS), 0);
        // A clock that was set back does not keep anybody from looking.
        assert_eq!(oldest.from(54_999), 0);
        // What is queued for later begins when it may be taken.
        oldest.see(seen(90_000, Some(0)), 0, 60_000);
        assert_eq!(oldest.from(60_000), 60_000 - LATE_MS);
    }

    #[test]
    fn a_look_that_began_elsewhere_does_not_hide_what_a_whole_one_has_seen() {
        let mut oldest = Oldest::default();
        oldest.see(seen(50_000, Some(1)), 0, 50_000);
        let began = oldest.from(50_500);
        oldest.see(seen(20_000, Some(1)), 0, 51_000);
        oldest.see(seen(50_400, None), began, 51_001);
        assert_eq!(oldest.from(51_002), 20_000 - LATE_MS);
    }
}
