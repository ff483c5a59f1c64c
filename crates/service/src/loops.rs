//! What happens without being asked: leases of silent nodes are judged, and what has lived too long
//! goes. Each pass is bounded and can be called by itself; each can die anywhere and be run again.

mod expire;
mod reap;

pub use expire::{Expired, expire_pass};
pub use reap::{Reaped, reap_pass};

pub(crate) use reap::Watch;

use crate::Service;
use std::time::Duration;
use tokio::sync::watch;

/// Time between two passes: much less than any time that they judge.
const EVERY: Duration = Duration::from_secs(5);
/// Rows that one pass changes at most, so that requests are answered between two passes.
const BATCH: u32 = 200;

/// Runs all passes until `stop` says true or is dropped.
pub async fn run(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            changed = stop.changed() => {
                if changed.is_err() || *stop.borrow_and_update() {
                    return;
                }
                continue;
            }
        }
        match reap_pass(&service).await {
            Ok(Reaped { requeued, ended }) if requeued + ended > 0 => {
                tracing::warn!(
                    requeued,
                    ended,
                    "nodes were silent, and their leases were judged lost"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = error.cause(), "failed to judge silent nodes"),
        }
        match expire_pass(&service).await {
            Ok(expired) if expired != Expired::default() => {
                tracing::debug!(?expired, "what has lived too long is gone");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = error.cause(), "failed to expire"),
        }
    }
}
