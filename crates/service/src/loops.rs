//! What happens without being asked: leases of silent nodes are judged, who has waited too long is told, and
//! what has been kept long enough goes. Each pass is bounded and can be called by itself; each can die
//! anywhere and be run again.

mod approvals;
mod due;
mod expire;
mod prune;
mod reap;
mod snapshots;
mod uploads;
mod volumes;

pub use approvals::approvals_pass;
pub use due::{Due, due_pass};
pub use expire::{Expired, expire_pass};
pub use prune::{Pruned, prune_pass};
pub use reap::{Reaped, reap_pass};
pub use snapshots::unbuilt_pass;

pub(crate) use reap::Watch;

use crate::Service;
use crate::audit::{PASSES, head_pass, seal_pass};
use crate::key::used_pass;
pub use crate::quota::release::release_pass;
pub use crate::refusal::{Recorded, refusals_pass};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Time between two looks for sandboxes whose time is over: whoever gave one five seconds looks after six
/// whether it is gone. Such a look reads an index that is empty most of the time.
const TICK: Duration = Duration::from_millis(500);
/// Of so many ticks, one makes the other passes: every five seconds, which is much less than any time that
/// they judge. Silent nodes are looked for as often as leases ask for it.
const ROUND_TICKS: u32 = 10;
/// Of so many rounds, one removes what has been kept long enough, which is long in any case: once a minute.
const PRUNE_ROUNDS: u32 = 12;
/// Rows that one pass changes at most, so that requests are answered between two passes.
const BATCH: u32 = 200;

/// Runs all passes until `stop` says true or is dropped.
pub async fn run(service: Service, mut stop: watch::Receiver<bool>) {
    let (mut until_round, mut until_prune) = (ROUND_TICKS, 0);
    let look = Duration::from_millis(service.lease().look_ms());
    let mut looked = Instant::now();
    let mut seal_failed = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            changed = stop.changed() => {
                if changed.is_err() || *stop.borrow_and_update() {
                    return;
                }
                continue;
            }
        }
        due(&service).await;
        release(&service).await;
        if looked.elapsed() + TICK > look {
            looked = Instant::now();
            reap(&service).await;
        }
        refusals(&service).await;
        seal(&service, &mut seal_failed).await;
        until_round -= 1;
        if until_round > 0 {
            continue;
        }
        until_round = ROUND_TICKS;
        expire(&service).await;
        unbuilt(&service).await;
        used(&service).await;
        if until_prune > 0 {
            until_prune -= 1;
        } else {
            head(&service).await;
            until_prune = if prune(&service).await {
                0
            } else {
                PRUNE_ROUNDS - 1
            };
        }
    }
}

async fn reap(service: &Service) {
    match reap_pass(service).await {
        Ok(reaped) if reaped != Reaped::default() => {
            tracing::warn!(
                ?reaped,
                "nodes were silent, and their leases were judged lost"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(error = error.cause(), "failed to judge silent nodes"),
    }
}

async fn release(service: &Service) {
    match release_pass(service).await {
        Ok(0) => {}
        Ok(jobs) => tracing::debug!(jobs, "there is room for jobs that were held"),
        Err(error) => tracing::warn!(error = error.cause(), "failed to look for room in quotas"),
    }
}

async fn due(service: &Service) {
    match due_pass(service).await {
        Ok(due) if due != Due::default() => tracing::debug!(?due, "sandboxes came to their time"),
        Ok(_) => {}
        Err(error) => tracing::warn!(error = error.cause(), "failed to look after sandboxes"),
    }
}

/// Seals what is settled, as much as others can wait for. That it failed is said once: it is tried twice a second.
async fn seal(service: &Service, failed: &mut bool) {
    for _ in 0..PASSES {
        match seal_pass(service).await {
            Ok((_, true)) => {}
            Ok((_, false)) => {
                *failed = false;
                return;
            }
            Err(error) => {
                if !std::mem::replace(failed, true) {
                    tracing::warn!(error = error.cause(), "failed to seal what happened");
                }
                return;
            }
        }
    }
}

async fn head(service: &Service) {
    if let Err(error) = head_pass(service).await {
        tracing::warn!(error = error.cause(), "failed to sign what was sealed");
    }
}

async fn expire(service: &Service) {
    match expire_pass(service).await {
        Ok(Expired { jobs }) if jobs > 0 => {
            tracing::debug!(jobs, "no node took jobs in time");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(error = error.cause(), "failed to expire"),
    }
    match approvals_pass(service).await {
        Ok(0) => {}
        Ok(approvals) => tracing::debug!(approvals, "nobody decided approvals in time"),
        Err(error) => tracing::warn!(error = error.cause(), "failed to end approvals"),
    }
}

async fn unbuilt(service: &Service) {
    match unbuilt_pass(service).await {
        Ok(0) => {}
        Ok(copies) => tracing::debug!(copies, "what no build names any more is given up"),
        Err(error) => tracing::warn!(error = error.cause(), "failed to give up old copies"),
    }
}

async fn refusals(service: &Service) {
    match refusals_pass(service).await {
        Ok(Recorded { lost, .. }) if lost > 0 => {
            tracing::warn!(lost, "refused requests are not in the record");
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(error = error.cause(), "failed to write what was refused");
        }
    }
}

async fn used(service: &Service) {
    if let Err(error) = used_pass(service).await {
        tracing::warn!(
            error = error.cause(),
            "failed to write down which keys were used"
        );
    }
}

/// Says whether there is more to be done at once.
async fn prune(service: &Service) -> bool {
    match prune_pass(service).await {
        Ok(pruned) => {
            if pruned != Pruned::default() {
                tracing::debug!(?pruned, "what was kept long enough is gone");
            }
            pruned.more
        }
        Err(error) => {
            tracing::warn!(error = error.cause(), "failed to remove what is old");
            false
        }
    }
}
