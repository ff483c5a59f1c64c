//! Snapshots that nobody will ask about any more.

use super::BATCH;
use crate::error::Fail;
use crate::snapshot::change::{apply, forget_without_node, note_of};
use crate::{Ctx, Error, Service};
use model::id::SnapshotId;
use model::limits;
use model::snapshot::SnapshotEvent;
use store::snapshot;

/// Gives up what a fork has left that died before its last line, and what a node had that is not known any
/// more, and forgets what has been gone for long enough. Says how many were forgotten.
pub(super) async fn prune_snapshots(service: &Service, now: u64) -> Result<u64, Error> {
    let before = now.saturating_sub(limits::FORK_MS);
    let forks = service.look(move |tx| Ok(snapshot::old_forks(tx, before, BATCH)?));
    for id in forks.await? {
        give_up(service, id, now).await?;
    }
    let left = service.look(|tx| Ok(snapshot::without_node(tx, BATCH)?));
    for id in left.await? {
        give_up(service, id, now).await?;
    }
    let old = now.saturating_sub(limits::RETAIN_JOBS_MS);
    service
        .unit(move |tx| Ok(snapshot::prune(tx, old, BATCH)?))
        .await
}

/// Gives up what builds have saved that no build names any more: those of tries that were cut off, of builds that
/// failed, and of profiles that are deleted. Says how many.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn unbuilt_pass(service: &Service) -> Result<u32, Error> {
    let now = service.now_ms();
    let bare = service.look(|tx| Ok(snapshot::without_build(tx, BATCH)?));
    let mut gone = 0;
    for id in bare.await? {
        give_up_bare(service, id, now).await?;
        gone += 1;
    }
    Ok(gone)
}

/// One that no build names, unless one does by now: whoever finishes a build locks what it begins with.
async fn give_up_bare(service: &Service, id: SnapshotId, now: u64) -> Result<(), Error> {
    let note = note_of(&Ctx::internal("prune"), now);
    let gone = service.unit(move |tx| {
        // Whosever it is.
        let Some(row) = snapshot::get(tx, None, &id)? else {
            return Ok::<_, Fail>(None);
        };
        let Some(row) = snapshot::lock(tx, &row.tenant, &id)? else {
            return Ok(None);
        };
        if snapshot::has_build(tx, &id)? {
            return Ok(None);
        }
        apply(tx, &row, &SnapshotEvent::Delete, &note)?;
        Ok(Some(row.node))
    });
    if let Some(node) = gone.await? {
        service.wake().node(&node);
    }
    Ok(())
}

/// Each in a transaction of its own: what a pass that ends in between has not come to, the next one finds.
async fn give_up(service: &Service, id: SnapshotId, now: u64) -> Result<(), Error> {
    let note = note_of(&Ctx::internal("prune"), now);
    let gone = service.unit(move |tx| {
        let Some(row) = snapshot::get(tx, None, &id)? else {
            return Ok::<_, Fail>(());
        };
        let next = apply(tx, &row, &SnapshotEvent::Delete, &note)?.unwrap_or(row);
        forget_without_node(tx, next, &note)?;
        Ok(())
    });
    gone.await
}
