//! The fence around a job that may be started once more elsewhere: when no server has heard of this node for a
//! lease, its sandbox ends, by the supervisor's clock, before another node may have the job.
//!
//! It is counted from when the last renewal that was acknowledged was *sent*, which is before the server wrote
//! down until when the lease lasts, and never from the start of the sandbox: a node that has been silent for a
//! lease, and hears an old answer, lets nothing go. `crates/model/tests/lease` finds both faults where they are
//! made.

use super::chain;
use crate::Node;
use api::node::LeaseSpec;
use driver::driver::Handle;
use model::limits;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// Until when the leases of this node last, on the boot-time clock in milliseconds.
pub(crate) type Until = watch::Sender<u64>;

/// Milliseconds of the boot-time clock, which goes on while the machine sleeps.
pub(crate) fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// A renewal that was sent at this moment was acknowledged.
pub(crate) fn renewed(node: &Node, sent_boot_ms: u64, lease_ms: u64) {
    let until = sent_boot_ms.saturating_add(lease_ms);
    node.inner.lease_until.send_replace(until);
}

/// The fence of one job.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    node: Node,
    /// The job may be started again.
    is_up: bool,
    /// When its sandbox ends in any case.
    ends_boot_ms: u64,
}

impl Fence {
    pub(super) fn new(node: &Node, spec: &LeaseSpec) -> Fence {
        let command = spec.timeout_ms.saturating_add(limits::GRACE_MS);
        let life = command.saturating_add(limits::LIFE_MARGIN_MS);
        Fence {
            node: node.clone(),
            is_up: spec.retry.max_attempts > 1,
            ends_boot_ms: boot_ms().saturating_add(life),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// How long its sandbox may live from now on.
    pub(super) fn life(&self) -> Duration {
        let lease = *self.node.inner.lease_until.borrow();
        let until = self.is_up.then_some(lease);
        left(self.ends_boot_ms, until, boot_ms())
    }

    /// Moves the deadline of its sandbox with each renewal.
    pub(super) async fn hold(self, handle: Handle) -> Infallible {
        let mut renewals = self.node.inner.lease_until.subscribe();
        while self.is_up && renewals.changed().await.is_ok() {
            if let Err(error) = self.node.inner.driver.extend(&handle, self.life()).await {
                let error = chain(&error);
                tracing::error!(sandbox.id = %handle.id, error, "failed to move a sandbox's deadline");
            }
        }
        std::future::pending().await
    }
}

/// What is left of the shorter of the two.
fn left(ends: u64, lease_until: Option<u64>, now: u64) -> Duration {
    let until = lease_until.map_or(ends, |lease| lease.min(ends));
    Duration::from_millis(until.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_the_shorter_of_the_jobs_time_and_the_lease_and_never_less_than_nothing() {
        let ms = Duration::from_millis;
        for (ends, lease, now, expected) in [
            (500, None, 100, 400),
            (500, Some(300), 100, 200),
            (500, Some(900), 100, 400),
            (500, Some(90), 100, 0),
            (50, Some(300), 100, 0),
            (50, None, 100, 0),
        ] {
            assert_eq!(
                left(ends, lease, now),
                ms(expected),
                "{ends} {lease:?} {now}"
            );
        }
    }
}
