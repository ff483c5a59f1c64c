//! Nodes that are silent for too long, their leases, and what waits for them alone.

use super::BATCH;
use crate::change::Note;
use crate::error::Fail;
use crate::lose::lose;
use crate::node::note_node;
use crate::sandbox::change;
use crate::{Ctx, Error, Service, locked};
use model::id::{NodeId, SandboxId};
use model::job::JobState;
use model::lease::Lease;
use model::node::NodeEvent;
use store::job::JobRow;
use store::{queue, sandbox};

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reaped {
    /// Jobs that wait again.
    pub requeued: u32,
    /// Jobs that are over.
    pub ended: u32,
    /// Nodes that are not there any more.
    pub offline: u32,
    /// Sandboxes that went with their node.
    pub sandboxes: u32,
}

/// How long this process has been watching without a gap.
#[derive(Debug)]
pub(crate) struct Watch {
    since_ms: u64,
    last_ms: u64,
    /// When all jobs that nodes have were looked through last, and nothing was found.
    looked_ms: Option<u64>,
}

/// While all nodes are heard, their jobs are looked through so often: a look costs a step for each job that some node
/// has, and on PostgreSQL for each that had one since whoever holds a transaction open has begun it.
const LOOK_EVERY_MS: u64 = 15_000;
/// For so long after a node has fallen silent they are looked through in each pass: what was leased to it at that
/// moment may be committed later.
const SILENT_MS: u64 = 60_000;

impl Watch {
    pub(crate) fn new(now_ms: u64) -> Watch {
        Watch {
            since_ms: now_ms,
            last_ms: now_ms,
            looked_ms: None,
        }
    }

    /// Whether it is time to look through all jobs that nodes have, though none has fallen silent lately.
    fn is_due(&self, now_ms: u64) -> bool {
        let looked = self.looked_ms;
        looked.is_none_or(|looked| now_ms.abs_diff(looked) >= LOOK_EVERY_MS)
    }

    fn looked(&mut self, now_ms: u64, found: bool) {
        self.looked_ms = (!found).then_some(now_ms);
    }

    /// Whether every node has had a full lease of time to be heard. While we were not there, no node
    /// could renew, and that is not the nodes' fault.
    fn long_enough(&mut self, now_ms: u64, lease: Lease) -> bool {
        let gap = now_ms.checked_sub(self.last_ms);
        if gap.is_none_or(|gap| gap > lease.gap_max_ms()) {
            self.since_ms = now_ms;
        }
        self.last_ms = now_ms;
        now_ms.saturating_sub(self.since_ms) >= lease.ms()
    }

    /// Since when nodes could be heard without a gap.
    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    fn start_over(&mut self, now_ms: u64) {
        *self = Watch::new(now_ms);
    }
}

/// Says of silent nodes that they are not there, and judges their leases lost, each by its job's retry rule.
/// What waits for such a node alone is lost too.
///
/// # Errors
/// [`Error::Unavailable`] and its like; then the watch starts over, because nodes could not renew.
pub async fn reap_pass(service: &Service) -> Result<Reaped, Error> {
    let now = service.now_ms();
    if !locked(&service.inner.watch).long_enough(now, service.lease()) {
        return Ok(Reaped::default());
    }
    let reaped = reap(service, now).await;
    if reaped.is_err() {
        locked(&service.inner.watch).start_over(now);
    }
    reaped
}

async fn reap(service: &Service, now: u64) -> Result<Reaped, Error> {
    let mut reaped = Reaped::default();
    let silent = service.look(move |tx| Ok(store::node::silent_online(tx, now, BATCH)?));
    for row in silent.await? {
        reaped.offline += u32::from(offline(service, row.id, now).await?);
    }
    let is_due = locked(&service.inner.watch).is_due(now);
    let since = now.saturating_sub(SILENT_MS);
    let (held, waiting) = service
        .look(move |tx| {
            let held = match is_due || store::node::fell_silent(tx, since, now)? {
                true => Some(store::job::with_silent_node(tx, now, BATCH)?),
                false => None,
            };
            Ok((held, queue::pinned_to_silent(tx, now, BATCH)?))
        })
        .await?;
    if let Some(held) = &held {
        locked(&service.inner.watch).looked(now, !held.is_empty());
    }
    let held = held.unwrap_or_default();
    for row in held.into_iter().chain(waiting) {
        match reap_one(service, row, now).await? {
            Some(JobState::Queued) => reaped.requeued += 1,
            Some(_) => reaped.ended += 1,
            None => {}
        }
    }
    let silent = service.look(move |tx| Ok(sandbox::with_silent_node(tx, now, BATCH)?));
    for row in silent.await? {
        reaped.sandboxes += u32::from(reap_sandbox(service, row.id, now).await?);
    }
    Ok(reaped)
}

/// Judges one sandbox of a node that is silent.
async fn reap_sandbox(service: &Service, id: SandboxId, now: u64) -> Result<bool, Error> {
    let note = change::Note::new(&Ctx::internal("reap"), now);
    let lost = service
        .unit(move |tx| {
            // Looked at again, in the transaction of the change: the node may have been heard since.
            let row = sandbox::get(tx, None, &id)?.filter(|row| !row.state.is_over());
            let Some((row, node)) = row.and_then(|row| Some((row.clone(), row.node?))) else {
                return Ok::<_, Fail>(None);
            };
            let heard = store::node::get(tx, &node)?;
            if heard.is_some_and(|heard| heard.lease_expires_at_ms >= now) {
                return Ok(None);
            }
            change::lose(tx, &row, note.clone())
        })
        .await?;
    if let Some(row) = &lost {
        service.announce_sandbox(row);
    }
    Ok(lost.is_some())
}

/// Says of a node that it is not there. Its jobs are judged each by itself, by what the node's row says of
/// its leases, so it does not matter if the process ends in between.
async fn offline(service: &Service, id: NodeId, now: u64) -> Result<bool, Error> {
    let note = Note::new(&Ctx::internal("reap"), now);
    let node = id.clone();
    let is_offline = service
        .unit(move |tx| {
            let Some(row) = store::node::get(tx, &id)? else {
                return Ok::<_, Fail>(false);
            };
            let silent = row.lease_expires_at_ms < now;
            match row.state.step(NodeEvent::Silent) {
                Some(state) if silent && state != row.state => {
                    store::node::move_to(tx, &row, state)?;
                    note_node(tx, &row, "node.offline", &note)?;
                    Ok(true)
                }
                // Heard since, or judged by another process.
                _ => Ok(false),
            }
        })
        .await?;
    if is_offline {
        tracing::warn!(%node, "a node is offline: its leases are over");
    }
    Ok(is_offline)
}

/// Judges one job of a node that is silent: one that it has, or one that waits for it alone.
async fn reap_one(service: &Service, seen: JobRow, now: u64) -> Result<Option<JobState>, Error> {
    let note = Note::new(&Ctx::internal("reap"), now);
    let moved = service
        .unit(move |tx| {
            // Looked at again, in the transaction of the change: the node may have been heard since.
            let Some(row) = store::job::get(tx, None, &seen.id)? else {
                return Ok::<_, Fail>(None);
            };
            let node = if row.state == JobState::Queued {
                row.spec.node.as_ref()
            } else {
                row.state.lease().map(|(node, _)| node)
            };
            let Some(node) = node.filter(|_| row.epoch == seen.epoch) else {
                return Ok(None);
            };
            let heard = store::node::get(tx, node)?;
            if heard.is_some_and(|heard| heard.lease_expires_at_ms >= now) {
                return Ok(None);
            }
            lose(tx, &row, "the node is silent", note.clone())
        })
        .await?;
    if let Some(row) = &moved {
        service.announce(row);
    }
    Ok(moved.map(|row| row.state))
}
