//! Leases of nodes that are silent for too long.

use super::BATCH;
use crate::change::Note;
use crate::error::Fail;
use crate::node::lose;
use crate::{Ctx, Error, Service, locked};
use model::id::{JobId, NodeId};
use model::job::JobState;
use model::limits;

/// Passes that are further apart than this were not running in between: the process was suspended, the
/// clock jumped, or the database was away.
const GAP_MAX_MS: u64 = 60_000;

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reaped {
    /// Jobs that wait again.
    pub requeued: u32,
    /// Jobs that are over.
    pub ended: u32,
}

/// How long this process has been watching without a gap.
#[derive(Debug)]
pub(crate) struct Watch {
    since_ms: u64,
    last_ms: u64,
}

impl Watch {
    pub(crate) fn new(now_ms: u64) -> Watch {
        Watch {
            since_ms: now_ms,
            last_ms: now_ms,
        }
    }

    /// Whether every node has had a full lease of time to be heard. While we were not there, no node
    /// could renew, and that is not the nodes' fault.
    fn long_enough(&mut self, now_ms: u64) -> bool {
        let gap = now_ms.checked_sub(self.last_ms);
        if gap.is_none_or(|gap| gap > GAP_MAX_MS) {
            self.since_ms = now_ms;
        }
        self.last_ms = now_ms;
        now_ms.saturating_sub(self.since_ms) >= limits::LEASE_MS
    }

    fn start_over(&mut self, now_ms: u64) {
        *self = Watch::new(now_ms);
    }
}

/// Judges the leases of silent nodes lost, each by its job's retry rule.
///
/// # Errors
/// [`Error::Unavailable`] and its like; then the watch starts over, because nodes could not renew.
pub async fn reap_pass(service: &Service) -> Result<Reaped, Error> {
    let now = service.now_ms();
    if !locked(&service.inner.watch).long_enough(now) {
        return Ok(Reaped::default());
    }
    let reaped = reap(service, now).await;
    if reaped.is_err() {
        locked(&service.inner.watch).start_over(now);
    }
    reaped
}

async fn reap(service: &Service, now: u64) -> Result<Reaped, Error> {
    let silent = service.look(move |tx| Ok(store::job::with_silent_node(tx, now, BATCH)?));
    let mut reaped = Reaped::default();
    for row in silent.await? {
        let Some(node) = row.node else { continue };
        let moved = reap_one(service, row.id, row.epoch, node, now).await?;
        match moved {
            Some(JobState::Queued) => reaped.requeued += 1,
            Some(_) => reaped.ended += 1,
            None => {}
        }
    }
    Ok(reaped)
}

async fn reap_one(
    service: &Service,
    id: JobId,
    epoch: u64,
    node: NodeId,
    now: u64,
) -> Result<Option<JobState>, Error> {
    let note = Note::new(&Ctx::internal("reap"), now);
    let moved = service
        .unit(move |tx| {
            // Looked at again, in the transaction of the change: the node may have been heard since.
            let heard = store::node::get(tx, &node)?;
            let row = store::job::get(tx, None, &id)?;
            let silent = heard.is_none_or(|heard| heard.lease_expires_at_ms < now);
            match row {
                Some(row) if silent && row.epoch == epoch && row.state.lease().is_some() => {
                    lose(tx, &row, "the node is silent", note.clone())
                }
                _ => Ok::<_, Fail>(None),
            }
        })
        .await?;
    if let Some(row) = &moved {
        service.announce(row);
    }
    Ok(moved.map(|row| row.state))
}
