//! What time it is. Passed in, so that tests can hold it still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// By so much a clock may differ from the database's before it is set: less than what anything here is judged by, and
/// more than a look takes, so that it does not go back and forth.
const SLACK_MS: u64 = 50;

/// A clock. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// The machine's, and by how much others go by another.
    System(Arc<AtomicI64>),
    Fake(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's.
    pub fn system() -> Clock {
        Clock(Kind::System(Arc::default()))
    }

    /// One that stands still at `now_ms` until it is moved.
    pub fn fake(now_ms: u64) -> Clock {
        Clock(Kind::Fake(Arc::new(AtomicU64::new(now_ms))))
    }

    /// Milliseconds since 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everybody else is passed"
    )]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Kind::Fake(now) => now.load(Ordering::SeqCst),
            Kind::System(ahead) => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                // A clock before 1970 is a broken one; 0 makes every lease look fresh, which is safe.
                let own = since.map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                });
                own.saturating_add_signed(ahead.load(Ordering::Relaxed))
            }
        }
    }

    /// Goes by another clock from now on, which showed this time between two looks at ours. Servers of one database
    /// judge each other's leases, so they go by one clock, and that is the database's.
    pub(crate) fn follow(&self, there_ms: u64, (before_ms, after_ms): (u64, u64)) {
        let Kind::System(ahead) = &self.0 else { return };
        // What took long says nothing; neither does it when our own clock was set meanwhile.
        let Some(took) = after_ms.checked_sub(before_ms) else {
            return;
        };
        let here = before_ms.saturating_add(took / 2);
        let apart = there_ms.abs_diff(here);
        if apart <= SLACK_MS.max(took) {
            return;
        }
        let apart = i64::try_from(apart).unwrap_or(i64::MAX);
        let by = if there_ms < here { -apart } else { apart };
        ahead.fetch_add(by, Ordering::Relaxed);
        tracing::warn!(
            ms = by,
            "the clock of this machine is not that of the database, which counts"
        );
    }

    /// Moves a fake clock on; the machine's goes by itself.
    pub fn advance(&self, ms: u64) {
        if let Kind::Fake(now) = &self.0 {
            now.fetch_add(ms, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_by_another_when_they_are_clearly_apart() {
        let clock = Clock::system();
        let own = clock.now_ms();
        clock.follow(own + 20, (own, own + 2));
        assert!(clock.now_ms() < own + 1000, "that is nothing");
        clock.follow(own + 3_600_000, (own, own + 7_200_000));
        assert!(clock.now_ms() < own + 1000, "that says nothing");
        clock.follow(own + 600_000, (own, own + 2));
        assert!(clock.now_ms() >= own + 599_000);
        let ahead = clock.now_ms();
        clock.follow(ahead - 600_000, (ahead, ahead));
        assert!(clock.now_ms() < own + 10_000, "and back");
    }
}
