//! Which wishes of what waits a node can fulfil, and what becomes of those that nobody can. Decided by
//! `model::place`; here the rows are read for it.

use crate::change::Note;
use crate::error::Fail;
use crate::node::note_node_with;
use crate::poll::Free;
use crate::wake::For;
use crate::{Error, Service};
use model::id::NodeId;
use model::limits;
use model::node::{Connectivity, HostReport, Scheduling};
use model::place::{self, Candidate, Capacity, Strategy, Unfit, Wish};
use std::sync::atomic::{AtomicBool, Ordering};
use store::Tx;
use store::job::JobRow;
use store::node::{self, NodeRow};
use store::queue::{self, Granted};
use store::sandbox;

/// Nodes that are looked at to find one that fits.
const NODES_MAX: u32 = 1000;
/// Nodes of which it is counted what they have, to tell why a job waits: each is two queries.
const COUNTED_MAX: usize = 64;
/// Wishes that one claim has a query for.
const GRANTED_MAX: usize = 16;

/// A setting of the server; it can be read without a lock.
#[derive(Debug, Default)]
pub(crate) struct Setting(AtomicBool);

impl Setting {
    fn strategy(&self) -> Strategy {
        if self.0.load(Ordering::Relaxed) {
            Strategy::Pack
        } else {
            Strategy::Spread
        }
    }
}

impl Service {
    /// Whom to give work to first, from now on, where several nodes ask at one time.
    pub fn place_by(&self, strategy: Strategy) {
        let pack = strategy == Strategy::Pack;
        self.inner.placement.0.store(pack, Ordering::Relaxed);
    }

    pub(crate) fn strategy(&self) -> Strategy {
        self.inner.placement.strategy()
    }

    /// Why no node has a job yet; `None` when it does not wait, or one could have it now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn job_waits_for(&self, row: &JobRow) -> Result<Option<String>, Error> {
        if row.state != model::job::JobState::Queued {
            return Ok(None);
        }
        let wish = row.spec.wish().unwrap_or_default();
        let (pin, now) = (row.spec.node.clone(), self.now_ms());
        let why = self.look(move |tx| {
            let nodes = all(tx, pin.as_ref(), now)?;
            Ok(place::why_not(&wish, &nodes))
        });
        Ok(why.await?.map(|why| why.to_string()))
    }
}

/// Whether a node may be given work: it is here, renews its leases, nobody has closed it, and it does not say that
/// it can take none.
pub(crate) fn row_gets_work(row: &NodeRow, now_ms: u64) -> bool {
    is_open(row, now_ms) && row.report.as_ref().is_none_or(HostReport::is_healthy)
}

fn is_open(row: &NodeRow, now_ms: u64) -> bool {
    let refuses = |report: &HostReport| report.refuses.is_some();
    row.state.scheduling == Scheduling::Active
        && row.lease_expires_at_ms >= now_ms
        && !row.report.as_ref().is_some_and(refuses)
}

/// A node as the decision sees it.
pub(crate) fn candidate(row: &NodeRow, slots: (u32, u32), now_ms: u64) -> Candidate {
    let fact = |name: &str| -> Option<u64> { row.facts.get(name)?.parse().ok() };
    let report = row.report.as_ref();
    Candidate {
        labels: row.labels.clone(),
        capacity: Capacity {
            cpu_millis: fact("cpus").map(|cpus| cpus.saturating_mul(1000)),
            memory_bytes: fact("memory_bytes"),
            disk_bytes: fact("disk_bytes"),
        },
        reserved: report.map(|report| report.reserved).unwrap_or_default(),
        gets_work: is_open(row, now_ms),
        healthy: report.is_none_or(HostReport::is_healthy),
        trouble: row.trouble.count(now_ms),
        slots,
    }
}

/// A node that asks, as the decision sees it: what it says now counts, not what its last heartbeat said.
pub(crate) fn asking(row: &NodeRow, free: Free, what: For, now_ms: u64) -> Candidate {
    let slots = match what {
        For::Jobs => (
            row.slots.saturating_sub(free.slots),
            row.slots.max(free.slots),
        ),
        // How many it has in all it does not say; that all nodes are measured by the same is enough.
        For::Sandboxes => {
            let most = limits::NODE_SANDBOXES_MAX;
            (most.saturating_sub(free.sandboxes), most)
        }
    };
    Candidate {
        reserved: free.reserved,
        ..candidate(row, slots, now_ms)
    }
}

/// All nodes, or one.
fn all(tx: &mut Tx<'_>, pin: Option<&NodeId>, now_ms: u64) -> Result<Vec<Candidate>, Fail> {
    let mut rows = node::list(tx, NODES_MAX)?;
    rows.retain(|row| pin.is_none_or(|pin| *pin == row.id));
    let count = rows.len() <= COUNTED_MAX;
    let mut seen = Vec::new();
    for row in &rows {
        if row.state.scheduling == Scheduling::Decommissioned {
            continue;
        }
        let jobs = if count {
            store::enroll::load_of(tx, &row.id)?.0
        } else {
            0
        };
        let used = u32::try_from(jobs).unwrap_or(u32::MAX);
        seen.push(candidate(row, (used, row.slots), now_ms));
    }
    Ok(seen)
}

/// What a node may have of what waits with a wish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    /// Wishes that it can fulfil and of which something waits.
    pub(crate) granted: Vec<Granted>,
    /// Where the next look goes on, so that wishes that nobody can fulfil do not hide others for ever.
    pub(crate) next: String,
}

/// Looks through the wishes from `after` on for some that this node can fulfil.
pub(crate) fn grants(
    tx: &mut Tx<'_>,
    row: &NodeRow,
    (what, free): (For, Free),
    after: &str,
    now_ms: u64,
) -> Result<Grants, Fail> {
    let mut wishes = |after: &str| match what {
        For::Jobs => queue::wishes(tx, after, limits::WISHES_MAX),
        For::Sandboxes => sandbox::wishes(tx, after, limits::WISHES_MAX),
    };
    let mut texts = wishes(after)?;
    if texts.is_empty() && !after.is_empty() {
        texts = wishes("")?;
    }
    if texts.is_empty() {
        return Ok(Grants::default());
    }
    let me = asking(row, free, what, now_ms);
    let mut others = None;
    let is_all = texts.len() < limits::WISHES_MAX as usize;
    let mut found = Grants {
        next: texts
            .last()
            .filter(|_| !is_all)
            .cloned()
            .unwrap_or_default(),
        granted: Vec::new(),
    };
    for text in texts {
        // One that a later version has written is not for us to judge.
        let Ok(wish) = serde_json::from_str::<Wish>(&text) else {
            continue;
        };
        if place::unfit(&wish, &me).is_some() {
            continue;
        }
        let before_ms = match place::preferred(&wish, &me) {
            true => now_ms,
            false => {
                let others = match &mut others {
                    Some(others) => others,
                    none => none.insert(beside(tx, row, now_ms)?),
                };
                let leaves = place::leaves_it(&wish, &me, others, 0);
                now_ms.saturating_sub(if leaves { limits::PREFER_MS } else { 0 })
            }
        };
        let one = Granted { text, before_ms };
        let waits = match what {
            For::Jobs => queue::has(tx, &row.id, &one)?,
            For::Sandboxes => sandbox::has(tx, &row.id, &one)?,
        };
        if waits {
            found.granted.push(one);
        }
        if found.granted.len() >= GRANTED_MAX {
            let last = found.granted.last().map(|one| one.text.clone());
            found.next = last.unwrap_or_default();
            break;
        }
    }
    Ok(found)
}

/// The others. What they have free only they know; that they are there and large enough must do.
fn beside(tx: &mut Tx<'_>, me: &NodeRow, now_ms: u64) -> Result<Vec<Candidate>, Fail> {
    let rows = node::list(tx, NODES_MAX)?;
    let others = rows
        .iter()
        .filter(|row| row.id != me.id && row.state.connectivity == Connectivity::Online);
    Ok(others.map(|row| candidate(row, (0, 1), now_ms)).collect())
}

/// Keeps count of what one claim gives to a node: two that fit alone may not fit together.
#[derive(Debug)]
pub(crate) struct Room(Candidate);

impl Room {
    pub(crate) fn of(me: Candidate) -> Room {
        // Places are counted by whoever claims.
        let slots = (0, 1);
        Room(Candidate { slots, ..me })
    }

    /// Takes what is wished for, if it is there.
    pub(crate) fn take(&mut self, wish: Option<Wish>) -> bool {
        let Some(wish) = wish else {
            return true;
        };
        let fits = place::unfit(&wish, &self.0).is_none();
        if fits {
            self.0.reserved.add(&wish);
        }
        fits
    }
}

/// Whether any of these nodes could ever have it; if not, why. Without nodes nobody knows.
pub(crate) fn ever(wish: &Wish, rows: &[&NodeRow]) -> Option<Unfit> {
    let mut closest = None;
    for row in rows {
        closest = Some(place::never(wish, &candidate(row, (0, 1), 0))?);
    }
    closest
}

/// What a heartbeat says of a machine that is other than before, as an event.
pub(crate) fn report_news(
    tx: &mut Tx<'_>,
    before: &NodeRow,
    report: &HostReport,
    note: &Note,
) -> Result<(), Fail> {
    let Some(was) = &before.report else {
        return Ok(());
    };
    let news = report.news(was);
    if news.is_empty() {
        return Ok(());
    }
    note_node_with(tx, before, "node.changed", serde_json::json!(news), note)
}

/// A node has lost something that it had.
pub(crate) fn count_failure(tx: &mut Tx<'_>, id: &NodeId, now_ms: u64) -> Result<(), Fail> {
    if let Some(row) = node::get(tx, id)? {
        node::trouble(tx, id, row.trouble.failed(now_ms))?;
    }
    Ok(())
}
