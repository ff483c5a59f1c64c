//! Bytes of a sandbox, and how many it may have.

use model::limits;
use std::sync::atomic::{AtomicU64, Ordering};

/// What may pass is reserved before it does, and what did not is given back: else each of several connections would
/// see the same rest, and all of them would pass it.
#[derive(Debug)]
pub(crate) struct Total {
    /// Those that are reserved, too.
    passed: AtomicU64,
    most: AtomicU64,
    /// Reservations that are not settled. Nobody waits for anything while he has one.
    held: AtomicU64,
}

/// Why nothing can be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Others have reserved what is left, and may give some of it back.
    ForNow,
    /// All has passed.
    ForGood,
}

impl Default for Total {
    fn default() -> Total {
        Total {
            passed: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
            held: AtomicU64::new(0),
        }
    }
}

impl Total {
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    /// So many passed before; more than any rules let pass are as good as that, and far from where numbers end.
    pub(crate) fn go_on_from(&self, bytes: u64) {
        let bytes = bytes.min(limits::NETWORK_BYTES_MAX);
        self.passed.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn allow(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether nothing more can pass.
    pub(crate) fn is_used_up(&self) -> bool {
        self.is_full() && self.held.load(Ordering::Acquire) == 0 && self.is_full()
    }

    fn is_full(&self) -> bool {
        self.passed.load(Ordering::Acquire) >= self.most.load(Ordering::Relaxed)
    }

    /// Reserves at most so many, of which there is one at least where any are wanted. Each is settled.
    pub(crate) fn reserve(&self, wanted: u64) -> Result<u64, Full> {
        loop {
            self.held.fetch_add(1, Ordering::AcqRel);
            let most = self.most.load(Ordering::Relaxed);
            let left = |passed: u64| most.checked_sub(passed).filter(|left| *left > 0);
            let with = |passed: u64| left(passed).map(|left| passed + wanted.min(left));
            let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
            if let Ok(before) = self.passed.fetch_update(set, fetch, with) {
                return Ok(wanted.min(most.saturating_sub(before)));
            }
            let has_others = self.held.fetch_sub(1, Ordering::AcqRel) > 1;
            if has_others {
                return Err(Full::ForNow);
            }
            // Whoever had something reserved has given it back before he was not counted any more.
            if self.is_full() {
                return Err(Full::ForGood);
            }
        }
    }

    /// Of so many that were reserved, so many passed.
    pub(crate) fn settle(&self, reserved: u64, passed: u64) {
        let unused = reserved.saturating_sub(passed);
        self.passed.fetch_sub(unused, Ordering::AcqRel);
        self.held.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_by_one_is_not_had_by_another_and_what_is_not_used_is() {
        let total = Total::default();
        total.allow(Some(10));
        assert_eq!((total.reserve(4), total.reserve(9)), (Ok(4), Ok(6)));
        assert_eq!(total.reserve(1), Err(Full::ForNow));
        assert!(!total.is_used_up(), "some of it may come back");
        total.settle(4, 1);
        assert_eq!(total.reserve(9), Ok(3));
        total.settle(3, 3);
        total.settle(6, 6);
        assert_eq!(total.reserve(1), Err(Full::ForGood));
        assert!(total.is_used_up());
        // More may be allowed later, and less than has passed.
        total.allow(Some(11));
        assert_eq!(total.reserve(5), Ok(1));
        total.settle(1, 0);
        total.allow(Some(2));
        assert_eq!(total.reserve(5), Err(Full::ForGood));
    }

    #[test]
    fn what_passed_before_counts_and_as_much_as_can_be_is_all_that_may_pass() {
        let total = Total::default();
        total.go_on_from(7);
        total.allow(Some(10));
        assert_eq!((total.passed(), total.reserve(9)), (7, Ok(3)));
        total.settle(3, 2);
        assert_eq!(total.passed(), 9);
        let total = Total::default();
        total.go_on_from(u64::MAX);
        total.allow(Some(limits::NETWORK_BYTES_MAX));
        assert_eq!(total.reserve(1), Err(Full::ForGood));
        // Where nothing is bounded, it goes on.
        total.allow(None);
        assert_eq!(total.reserve(1), Ok(1));
    }

    #[test]
    fn however_many_reserve_at_once_all_that_may_pass_does_and_no_more() {
        const MOST: u64 = 1_000_003;
        let (total, passed) = (Total::default(), AtomicU64::new(0));
        total.allow(Some(MOST));
        let one = |step: u64| {
            loop {
                match total.reserve(step) {
                    Ok(reserved) => {
                        // Some come to nothing, and some to less.
                        let moved = reserved - reserved / 3;
                        passed.fetch_add(moved, Ordering::Relaxed);
                        total.settle(reserved, moved);
                    }
                    Err(Full::ForNow) => std::thread::yield_now(),
                    Err(Full::ForGood) => return,
                }
            }
        };
        std::thread::scope(|scope| {
            for step in [1_000, 7_001, 65_536, 300_000] {
                let one = &one;
                scope.spawn(move || one(step));
            }
        });
        assert_eq!(passed.load(Ordering::Relaxed), MOST);
    }
}
