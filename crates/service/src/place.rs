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

/// How often one look goes on to the next wishes: with a thousand of them in a look, a hundred thousand that nobody can
/// fulfil keep others from their node for two minutes, and not for ever.
const WINDOWS: u32 = 16;

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

    /// Why no node has a job yet: a quota, or the nodes; `None` when it does not wait, or one could have it now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn job_waits_for(&self, row: &JobRow) -> Result<Option<String>, Error> {
        if row.state == model::job::JobState::AwaitingApproval {
            let permit = row.spec.permit.as_ref();
            let asked = permit.and_then(|permit| permit.asked.as_ref());
            return Ok(asked.map(|asked| format!("a person has to say yes: {}", asked.approval)));
        }
        if row.state != model::job::JobState::Queued {
            return Ok(None);
        }
        if let Some(over) = self.quota_keeps(row).await? {
            return Ok(Some(over.to_string()));
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
        labels: place::with_kind(row.labels.clone()),
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

/// Looks through the wishes from `after` on for some that this node can fulfil. Where there is none among the first, it
/// goes on: what nobody can fulfil must not hold up what this node can, and there may be much of it.
pub(crate) fn grants(
    tx: &mut Tx<'_>,
    row: &NodeRow,
    (what, free): (For, Free),
    after: &str,
    now_ms: u64,
) -> Result<Grants, Fail> {
    let mut look = Look {
        row,
        me: asking(row, free, what, now_ms),
        what,
        now_ms,
        others: None,
    };
    let mut next = after.to_owned();
    for _ in 0..WINDOWS {
        let texts = look.wishes(tx, &next)?;
        let is_all = texts.len() < limits::WISHES_MAX as usize;
        let last = texts.last().filter(|_| !is_all).cloned();
        let found = look.granted(tx, texts, last.unwrap_or_default())?;
        if !found.granted.is_empty() || found.next.is_empty() {
            return Ok(found);
        }
        next = found.next;
    }
    let granted = Vec::new();
    Ok(Grants { next, granted })
}

/// One look of a node through the wishes.
struct Look<'r> {
    row: &'r NodeRow,
    me: Candidate,
    what: For,
    now_ms: u64,
    /// Read when the first wish is found that another node may have before.
    others: Option<Vec<Candidate>>,
}

impl Look<'_> {
    /// The wishes behind one; behind the last one, the first ones.
    fn wishes(&self, tx: &mut Tx<'_>, after: &str) -> Result<Vec<String>, Fail> {
        let mut of = |after: &str| match self.what {
            For::Jobs => queue::wishes(tx, &self.row.id, after, limits::WISHES_MAX),
            For::Sandboxes => sandbox::wishes(tx, &self.row.id, after, limits::WISHES_MAX),
        };
        let texts = of(after)?;
        if texts.is_empty() && !after.is_empty() {
            return Ok(of("")?);
        }
        Ok(texts)
    }

    fn granted(
        &mut self,
        tx: &mut Tx<'_>,
        texts: Vec<String>,
        next: String,
    ) -> Result<Grants, Fail> {
        let mut granted = Vec::new();
        for text in texts {
            // One that a later version has written is not for us to judge.
            let Ok(wish) = serde_json::from_str::<Wish>(&text) else {
                continue;
            };
            if place::unfit(&wish, &self.me).is_some() {
                continue;
            }
            let mut one = Granted {
                text,
                before_ms: self.now_ms,
            };
            if !self.waits(tx, &one)? {
                continue;
            }
            one.before_ms = self.before_ms(tx, &wish)?;
            if one.before_ms < self.now_ms && !self.waits(tx, &one)? {
                continue;
            }
            granted.push(one);
            if granted.len() >= GRANTED_MAX {
                let next = granted
                    .last()
                    .map(|one| one.text.clone())
                    .unwrap_or_default();
                return Ok(Grants { next, granted });
            }
        }
        Ok(Grants { next, granted })
    }

    /// Whether something that this node may have waits with a wish.
    fn waits(&self, tx: &mut Tx<'_>, one: &Granted) -> Result<bool, Fail> {
        Ok(match self.what {
            For::Jobs => queue::has(tx, &self.row.id, one)?,
            For::Sandboxes => sandbox::has(tx, &self.row.id, one)?,
        })
    }

    /// Since when it must have waited: what another node would rather have is left to that one for a while.
    fn before_ms(&mut self, tx: &mut Tx<'_>, wish: &Wish) -> Result<u64, Fail> {
        if place::preferred(wish, &self.me) {
            return Ok(self.now_ms);
        }
        let others = match &mut self.others {
            Some(others) => others,
            none => none.insert(beside(tx, self.row, self.now_ms)?),
        };
        let leaves = place::leaves_it(wish, &self.me, others, 0);
        let wait = if leaves { limits::PREFER_MS } else { 0 };
        Ok(self.now_ms.saturating_sub(wait))
    }
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
