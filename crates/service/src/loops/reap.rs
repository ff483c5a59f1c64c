//! Takes leases from nodes that are silent.

use crate::loops::{BATCH, Counts};
use crate::{Ctx, Service};
use model::limits;

/// Judges the leases of nodes that have not renewed in time. After a start nobody is judged for a whole
/// lease: the nodes could not renew while this was away.
pub async fn reap_pass(service: &Service) -> Counts {
    let now = service.now_ms();
    if now < service.inner.started_at_ms.saturating_add(limits::LEASE_MS) {
        return Counts::default();
    }
    let silent = service
        .inner
        .store
        .read(move |tx| store::job::with_silent_node(tx, now, BATCH));
    let Ok(silent) = silent.await else {
        return Counts {
            changed: 0,
            failed: 1,
        };
    };
    let ctx = Ctx::internal("reap");
    let mut counts = Counts::default();
    for row in silent {
        match service.lease_lost(&ctx, &row, "its node was silent").await {
            Ok(_) => counts.changed += 1,
            Err(error) => {
                tracing::warn!(%error, job.id = %row.id, "failed to take a lease from a silent node");
                counts.failed += 1;
            }
        }
    }
    counts
}
