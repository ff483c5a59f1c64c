//! How long a node's right to its jobs and sandboxes lasts, and every time that follows from it.

use crate::limits;

/// The shortest lease that can be asked for, in seconds: renewals of a busy machine come that late.
pub const SECONDS_MIN: u64 = 2;
/// The longest, in seconds: as long as it lasts, the jobs of a machine that is gone are given to nobody.
pub const SECONDS_MAX: u64 = 3600;

/// Renewals that fit into one lease: ten misses before it matters.
const RENEWALS: u64 = 10;
/// The shortest time that one renewal may take: connecting and TLS on a machine that does other things.
const TRY_MIN_MS: u64 = 1000;
/// The longest: as any other request.
const TRY_MAX_MS: u64 = 30_000;
/// The longest time between two looks for silent nodes.
const LOOK_MAX_MS: u64 = 5000;
/// The shortest: as often as anything is looked at.
const LOOK_MIN_MS: u64 = 500;
/// Looks that are further apart than this were not made in between, at most and at least.
const GAP_MAX_MS: u64 = 60_000;
const GAP_MIN_MS: u64 = 1500;

/// The length of a lease. The servers of one database have the same, and tell it to their nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    ms: u64,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease {
            ms: limits::LEASE_MS,
        }
    }
}

impl Lease {
    /// One of so many seconds, [`SECONDS_MIN`] to [`SECONDS_MAX`].
    #[must_use]
    pub fn of_seconds(seconds: u64) -> Option<Lease> {
        let fits = (SECONDS_MIN..=SECONDS_MAX).contains(&seconds);
        fits.then(|| Lease { ms: seconds * 1000 })
    }

    /// In milliseconds. A node's fence ends that long after the renewal was sent, and the server judges it that
    /// long after it came: so the one is always before the other, and needs no margin for it.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.ms
    }

    /// Between two renewals, in milliseconds. Orders come with their answers, so never less often than
    /// [`limits::HEARTBEAT_MS`].
    #[must_use]
    pub fn renew_ms(self) -> u64 {
        (self.ms / RENEWALS).min(limits::HEARTBEAT_MS)
    }

    /// What a server has not heard of for so long, in milliseconds, its node does not have: two renewals, because
    /// one may have been sent before.
    #[must_use]
    pub fn unknown_after_ms(self) -> u64 {
        2 * self.renew_ms()
    }

    /// Between two looks for nodes that are silent, in milliseconds.
    #[must_use]
    pub fn look_ms(self) -> u64 {
        (self.ms / RENEWALS).clamp(LOOK_MIN_MS, LOOK_MAX_MS)
    }

    /// Looks that are further apart than this, in milliseconds, were not made in between: the server was
    /// suspended, its clock jumped, or its database was away. Then every node gets a whole lease to be heard.
    #[must_use]
    pub fn gap_max_ms(self) -> u64 {
        (self.ms / 4).clamp(GAP_MIN_MS, GAP_MAX_MS)
    }
}

/// How long one renewal may take, in milliseconds, where the server said to send one so often. Over a link that
/// is cut it would wait for the kernel, for minutes, and the next one behind it.
#[must_use]
pub fn try_ms(renew_ms: u64) -> u64 {
    renew_ms.saturating_mul(2).clamp(TRY_MIN_MS, TRY_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Lease> {
        (SECONDS_MIN..=SECONDS_MAX).map(|seconds| Lease::of_seconds(seconds).unwrap())
    }

    #[test]
    fn a_lease_has_a_least_and_a_most() {
        for seconds in [0, SECONDS_MIN - 1, SECONDS_MAX + 1, u64::MAX] {
            assert_eq!(Lease::of_seconds(seconds), None, "{seconds}");
        }
        assert_eq!(Lease::of_seconds(300), Some(Lease::default()));
    }

    #[test]
    fn nobody_who_said_nothing_gets_other_times_than_before() {
        let lease = Lease::default();
        let times = [
            lease.ms(),
            lease.renew_ms(),
            lease.unknown_after_ms(),
            lease.look_ms(),
            lease.gap_max_ms(),
            try_ms(lease.renew_ms()),
        ];
        assert_eq!(times, [300_000, 30_000, 60_000, 5000, 60_000, 30_000]);
    }

    /// One renewal is lost on the way and waited for to its end; the next one still comes in time.
    #[test]
    fn a_renewal_that_is_lost_ends_no_lease() {
        for lease in all() {
            let next = 2 * lease.renew_ms() + try_ms(lease.renew_ms());
            assert!(next < lease.ms(), "{lease:?} {next}");
        }
    }

    /// While nobody looked, no renewal counted; so less than a lease is missed without being seen.
    #[test]
    fn a_server_that_was_away_sees_that_it_was_before_a_lease_could_end() {
        for lease in all() {
            assert!(2 * lease.look_ms() < lease.gap_max_ms(), "{lease:?}");
            let unseen = lease.gap_max_ms() + lease.renew_ms();
            assert!(unseen < lease.ms(), "{lease:?}");
        }
    }

    #[test]
    fn an_order_that_was_lost_is_told_again_within_its_time() {
        for lease in all() {
            assert!(3 * lease.renew_ms() < limits::SANDBOX_ORDER_MS, "{lease:?}");
        }
    }
}
