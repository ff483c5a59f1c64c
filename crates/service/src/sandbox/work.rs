//! What nodes are told about sandboxes. The rows say what is to be done; memory holds only what a node
//! was told, so that a poll does not answer the same again and again.

use super::change::{Note, apply};
use super::create::place;
use crate::error::Fail;
use crate::permit::is_stale;
use crate::place::{Room, asking, row_gets_work};
use crate::poll::Free;
use crate::wake::{For, NodeWake};
use crate::{Ctx, Error, Service, locked};
use model::id::{NodeId, SandboxId};
use model::lease::Lease;
use model::limits;
use model::sandbox::{SandboxEvent, SandboxState, Want};
use std::collections::HashSet;
use store::Tx;
use store::queue::Granted;
use store::sandbox::{self, SandboxRow};

/// Sandboxes that are looked at of one node: twice as many as it gets, because two requests may both see
/// the last place.
const HELD_MAX: u32 = 2 * limits::NODE_SANDBOXES_MAX;

/// A sandbox at the epoch of one order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SandboxRef {
    /// The sandbox.
    pub id: SandboxId,
    /// Of the order.
    pub epoch: u64,
}

/// An order to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxWork {
    /// What to do.
    pub want: Want,
    /// How long it may live once that is done, in milliseconds from when the node asked.
    pub life_ms: u64,
    /// With which sandbox.
    pub row: SandboxRow,
}

/// How long a sandbox may live on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxLife {
    /// The sandbox.
    pub id: SandboxId,
    /// Of the last order.
    pub epoch: u64,
    /// In milliseconds from when the node asked.
    pub life_ms: u64,
}

/// Until when the supervisor of a sandbox lets it live: for longer than we do, because we may be away for
/// a moment, and never for ever, because we may be away for good. Pure.
pub fn life_ms(row: &SandboxRow, now_ms: u64) -> u64 {
    let left = |until: Option<u64>| until.unwrap_or(now_ms).saturating_sub(now_ms);
    let life = match row.state {
        SandboxState::Requested | SandboxState::Provisioning | SandboxState::Resuming { .. } => {
            row.ttl_ms.saturating_add(limits::SANDBOX_ORDER_MS)
        }
        SandboxState::Pausing { .. } => limits::SANDBOX_PAUSED_MS,
        SandboxState::Ready | SandboxState::Paused { .. } | SandboxState::Snapshotting { .. } => {
            left(row.due_at_ms)
        }
        SandboxState::Recreating
        | SandboxState::Destroying
        | SandboxState::Destroyed
        | SandboxState::Failed { .. } => 0,
    };
    life.saturating_add(limits::LIFE_MARGIN_MS)
}

fn work_of(row: &SandboxRow, now_ms: u64) -> Option<SandboxWork> {
    Some(SandboxWork {
        want: row.state.want()?,
        life_ms: life_ms(row, now_ms),
        row: row.clone(),
    })
}

fn order_of(work: &SandboxWork) -> SandboxRef {
    SandboxRef {
        id: work.row.id.clone(),
        epoch: work.row.epoch,
    }
}

/// Orders on their way to a poll of their node. Dropped before they are delivered, they wake another poll:
/// one can end between any two lines, because its connection can.
pub(crate) struct Untold {
    service: Service,
    node: NodeId,
    works: Vec<SandboxWork>,
}

impl Untold {
    pub(crate) fn new(service: &Service, node: &NodeId, rows: Vec<&SandboxRow>) -> Untold {
        let now_ms = service.now_ms();
        Untold {
            service: service.clone(),
            node: node.clone(),
            works: rows
                .into_iter()
                .filter_map(|row| work_of(row, now_ms))
                .collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.works.is_empty()
    }

    /// The answer is being written. If it does not arrive, the next heartbeat says the same.
    pub(crate) fn deliver(mut self) -> Vec<SandboxWork> {
        let works = std::mem::take(&mut self.works);
        let wake = self.service.wake().of_node(&self.node);
        locked(&wake.told_sandboxes).extend(works.iter().map(order_of));
        works
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if !self.works.is_empty() {
            self.service.wake().node(&self.node);
        }
    }
}

impl std::fmt::Debug for Untold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.works.iter().map(|work| &work.row.id);
        f.debug_list().entries(ids).finish()
    }
}

/// Of a node's sandboxes with an order, those that no poll has told it yet. Orders that are carried out are
/// forgotten.
pub(crate) fn untold(wake: &NodeWake, wanted: Vec<SandboxRow>) -> Vec<SandboxRow> {
    let order = |row: &SandboxRow| SandboxRef {
        id: row.id.clone(),
        epoch: row.epoch,
    };
    let all: HashSet<SandboxRef> = wanted.iter().map(order).collect();
    let mut told = locked(&wake.told_sandboxes);
    told.retain(|order| all.contains(order));
    let is_new = |row: &SandboxRow| !told.contains(&order(row));
    wanted.into_iter().filter(is_new).collect()
}

/// Sandboxes of a node with an order.
pub(crate) fn wanted_of(tx: &mut Tx<'_>, node: &NodeId) -> Result<Vec<SandboxRow>, Fail> {
    Ok(sandbox::wanted_of(tx, node, HELD_MAX)?)
}

/// Sandboxes that a node has.
pub(crate) fn held_by(tx: &mut Tx<'_>, node: &NodeId) -> Result<Vec<SandboxRow>, Fail> {
    Ok(sandbox::held_by(tx, node, HELD_MAX)?)
}

/// What a heartbeat tells about sandboxes, beside those that have failed by it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SandboxBeat {
    pub(crate) works: Vec<SandboxWork>,
    pub(crate) lives: Vec<SandboxLife>,
    pub(crate) stale: Vec<SandboxRef>,
}

/// Compares what a node has with what it should have. Pure.
pub(crate) fn beat(held: &[&SandboxRow], has: &[SandboxRef], now_ms: u64) -> SandboxBeat {
    let ours: HashSet<&SandboxId> = held.iter().map(|row| &row.id).collect();
    let stands = |row: &&&SandboxRow| row.state.want().is_none();
    let life = |row: &SandboxRow| SandboxLife {
        id: row.id.clone(),
        epoch: row.epoch,
        life_ms: life_ms(row, now_ms),
    };
    SandboxBeat {
        works: held.iter().filter_map(|row| work_of(row, now_ms)).collect(),
        lives: held.iter().filter(stands).map(|row| life(row)).collect(),
        stale: has
            .iter()
            .filter(|one| !ours.contains(&one.id))
            .cloned()
            .collect(),
    }
}

/// Sandboxes that should stand and that their node does not know any more. Gives those that failed by this.
pub(crate) fn fail_unknown(
    tx: &mut Tx<'_>,
    held: &[SandboxRow],
    has: &[SandboxRef],
    lease: Lease,
    note: &Note,
) -> Result<Vec<SandboxRow>, Fail> {
    let has: HashSet<&SandboxId> = has.iter().map(|one| &one.id).collect();
    let mut failed = Vec::new();
    for row in held {
        let since = row.ready_at_ms.max(row.paused_at_ms).unwrap_or(note.at_ms);
        let old = note.at_ms.saturating_sub(since) > lease.unknown_after_ms();
        if old && row.state.want().is_none() && !has.contains(&row.id) {
            let why = "its node does not have it any more".to_owned();
            failed.extend(apply(tx, row, &SandboxEvent::Fail { why }, note.clone())?);
        }
    }
    Ok(failed)
}

/// A node that says more than it can have is wrong.
pub(crate) fn check_refs(has: &[SandboxRef]) -> Result<(), Error> {
    if has.len() <= HELD_MAX as usize {
        return Ok(());
    }
    let message = format!("a node has at most {HELD_MAX} sandboxes");
    Err(Error::invalid("sandboxes", "too_many", message))
}

impl Service {
    /// Gives requested sandboxes to a node. If its poll goes away meanwhile, the next one finds them by the
    /// rows.
    pub(crate) async fn place_sandboxes(
        &self,
        ctx: &Ctx,
        node: &NodeId,
        free: Free,
        granted: Vec<Granted>,
    ) -> Result<Vec<SandboxRow>, Error> {
        let (node, note) = (node.clone(), Note::new(ctx, self.now_ms()));
        let placed = self.unit(move |tx| {
            let (mut placed, mut stale) = (Vec::new(), Vec::new());
            let now = note.at_ms;
            let row = store::node::get(tx, &node)?;
            let Some(row) = row.filter(|row| row_gets_work(row, now)) else {
                return Ok::<_, Fail>((placed, stale));
            };
            let stamp = store::policy::stamp(tx)?;
            let mut fits = Room::of(asking(&row, free, For::Sandboxes, now));
            let has = sandbox::count_held(tx, &node, limits::NODE_SANDBOXES_MAX)?;
            let has = u32::try_from(has).unwrap_or(u32::MAX);
            let room = limits::NODE_SANDBOXES_MAX
                .saturating_sub(has)
                .min(free.sandboxes);
            let mut rows = sandbox::requested(tx, &node, room, &granted)?;
            if rows.iter().any(|row| is_stale(&row.spec, stamp)) {
                // As for jobs: who waits behind these is not held up by them.
                rows = sandbox::requested(tx, &node, limits::NODE_SANDBOXES_MAX, &granted)?;
            }
            for row in rows {
                if is_stale(&row.spec, stamp) {
                    stale.push(row);
                } else if placed.len() < room as usize && fits.take(row.spec.wish()) {
                    placed.extend(place(tx, &row, &node, note.clone())?);
                }
            }
            Ok((placed, stale))
        });
        let (placed, stale) = placed.await?;
        if !stale.is_empty() {
            // The poll may go away, and what it has found must not wait for this.
            let service = self.clone();
            drop(tokio::spawn(
                async move { service.sandboxes_renew(stale).await },
            ));
        }
        Ok(placed)
    }
}
