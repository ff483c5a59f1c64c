//! The loops: they take no input, read rows, decide, write rows, and may die in any line.

mod expire;
mod reap;

pub use expire::expire_pass;
pub use reap::reap_pass;

use crate::Service;
use std::time::Duration;

/// How often the loops look.
const EVERY: Duration = Duration::from_secs(5);
/// Rows that one pass handles of each kind; the next pass takes the next.
pub(crate) const BATCH: u32 = 200;

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows that were changed.
    pub changed: u64,
    /// Rows that could not be; the next pass tries again.
    pub failed: u64,
}

/// Runs the loops for ever; dropping it anywhere is safe.
pub async fn run(service: &Service) {
    loop {
        tokio::time::sleep(EVERY).await;
        for (name, counts) in [
            ("reap", reap_pass(service).await),
            ("expire", expire_pass(service).await),
        ] {
            if counts != Counts::default() {
                let Counts { changed, failed } = counts;
                tracing::info!(pass = name, changed, failed, "a pass has changed something");
            }
        }
    }
}
