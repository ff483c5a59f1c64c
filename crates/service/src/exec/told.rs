//! Up to which fact nodes have told what was run. In memory: whoever waits for a fact does so for moments.

use crate::{Service, locked};
use model::id::SandboxId;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Sandboxes that are remembered. When there are more, all are forgotten: who waits then waits for nothing,
/// and not for long.
const SANDBOXES_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: Mutex<HashMap<SandboxId, u64>>,
    more: Notify,
}

impl Service {
    /// Facts up to this number are stored.
    pub fn exec_stored(&self, id: &SandboxId, last: u64) {
        let told = &self.inner.execs_told;
        let mut known = locked(&told.last);
        if known.len() >= SANDBOXES_MAX {
            known.clear();
        }
        let before = known.entry(id.clone()).or_default();
        *before = last.max(*before);
        drop(known);
        told.more.notify_waiters();
    }

    /// Waits until facts up to this number are stored, at most so long.
    pub async fn exec_told(&self, id: &SandboxId, last: u64, up_to: Duration) {
        let until = Instant::now() + up_to;
        let told = &self.inner.execs_told;
        loop {
            // Before the look, so that what is told between the look and the wait is not missed.
            let more = told.more.notified();
            let is_told = locked(&told.last).get(id).is_some_and(|told| *told >= last);
            if is_told || tokio::time::timeout_at(until, more).await.is_err() {
                return;
            }
        }
    }
}
