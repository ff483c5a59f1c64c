//! Volumes that nobody will ask about any more.

use super::BATCH;
use crate::{Ctx, Error, Service};
use model::limits;
use store::volume;

/// Forgets volumes that were deleted long enough ago. Of one that is to go and whose node is not known any
/// more nobody will ever say that it is gone, so it is.
pub(super) async fn prune_volumes(service: &Service, now: u64) -> Result<u64, Error> {
    let left = service.look(|tx| Ok(volume::without_node(tx, BATCH)?));
    let left = left.await?;
    if !left.is_empty() {
        let principal = Ctx::internal("prune").principal;
        let gone = service.unit(move |tx| crate::volume::forget(tx, &left, &principal, now));
        gone.await?;
    }
    let old = now.saturating_sub(limits::RETAIN_JOBS_MS);
    service
        .unit(move |tx| Ok(volume::prune(tx, old, BATCH)?))
        .await
}
