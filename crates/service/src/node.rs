//! Nodes: they come, they renew their leases, they go.

use crate::change::{Note, apply};
use crate::enroll::check_labels;
use crate::error::Fail;
use crate::lose::lose;
use crate::place::report_news;
use crate::sandbox::network::pending_of;
use crate::sandbox::{SandboxLife, SandboxRef, SandboxWork, change, work};
use crate::{Ctx, Error, Service, locked, oldest};
use model::id::{JobId, NodeId, SandboxId, TenantId};
use model::job::{JobEvent, JobState};
use model::lease::Lease;
use model::limits;
use model::node::{
    Connectivity, HostReport, NodeEvent, NodeKind, NodeState, PROTOCOL, Scheduling, is_compatible,
    is_older,
};
use model::place::{DRIVER, KIND, Labels, Trouble, is_label};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use store::event::{self, NewEvent};
use store::job::{self, JobRow};
use store::node::{self, NodeRow};
use store::sandbox::SandboxRow;
use store::{Tx, queue};
use tokio::time::Instant;

/// Jobs of one node that are looked at: twice as many as it gets, because two requests may both see the last place.
/// One that were not looked at would be told to a node as none of its own, and it would end it.
pub(crate) const HELD_MAX: u32 = 2 * limits::NODE_JOBS_MAX;

/// Texts that a node says about itself, and how many of them.
const FACT_BYTES_MAX: usize = 1024;
const FACTS_MAX: usize = 256;
/// Of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a node says when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHello {
    /// Its name for people.
    pub name: String,
    /// Of its process.
    pub incarnation: String,
    /// Of its program.
    pub version: String,
    /// What sort of machine it is.
    pub kind: NodeKind,
    /// Jobs at one time.
    pub slots: u32,
    /// What it calls itself for placement; what its enrollment gave it counts before.
    pub labels: Labels,
    /// Drivers that it has.
    pub drivers: Vec<String>,
    /// What it can do; `memory_bytes` and `cpus` bound what jobs may ask for.
    pub facts: BTreeMap<String, String>,
    /// The newest version of the protocol that it speaks.
    pub protocol: u32,
}

/// What a node is told when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// How long its leases last.
    pub lease_ms: u64,
    /// How often to renew them.
    pub heartbeat_ms: u64,
    /// The jobs that it is believed to have.
    pub held: Vec<JobRow>,
    /// The sandboxes that it is believed to have.
    pub sandboxes: Vec<SandboxRow>,
}

/// A job under one lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// The job.
    pub job_id: JobId,
    /// Of the lease.
    pub epoch: u64,
}

/// What a node is told when it renews its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// How long its leases last from the moment it asked.
    pub lease_ms: u64,
    /// How often to renew them from now on.
    pub heartbeat_ms: u64,
    /// Jobs that are to end.
    pub cancel: Vec<LeaseRef>,
    /// Jobs that are not its own any more.
    pub stale: Vec<LeaseRef>,
    /// All orders for sandboxes, told before or not.
    pub sandboxes: Vec<SandboxWork>,
    /// How long each sandbox that stands may live on.
    pub sandbox_lives: Vec<SandboxLife>,
    /// Sandboxes that are not its own any more.
    pub stale_sandboxes: Vec<SandboxRef>,
    /// Sandboxes whose rules it is to put in force, told before or not.
    pub networks: Vec<SandboxRow>,
    /// The version of this program, where that of the node is older.
    pub upgrade: Option<&'static str>,
    /// The jobs and sandboxes that it is believed to have, by id and epoch.
    pub held: Vec<(String, u64)>,
}

/// The lease of a job that has one.
pub(crate) fn lease_ref(row: &JobRow) -> LeaseRef {
    LeaseRef {
        job_id: row.id.clone(),
        epoch: row.epoch,
    }
}

pub(crate) fn is_stopping(row: &&JobRow) -> bool {
    matches!(row.state, JobState::Stopping { .. })
}

/// Another process has registered for this node since, or the node was forgotten.
pub(crate) fn unregistered() -> Error {
    Error::conflict("this process of the node is not the registered one")
}

/// The version of this program, for a node whose own is older.
#[must_use]
pub fn upgrade_for(version: &str) -> Option<&'static str> {
    is_older(version, VERSION).then_some(VERSION)
}

/// Refuses a node with which nothing can be said. It is not heard, so its leases end in their time.
///
/// # Errors
/// [`Error::Conflict`] `node_incompatible`.
pub fn node_speaks(theirs: (u32, u32)) -> Result<(), Error> {
    if is_compatible(PROTOCOL, theirs) {
        return Ok(());
    }
    let ((least, most), (min, max)) = (PROTOCOL, theirs);
    let message = format!(
        "the node speaks versions {min} to {max} of the protocol, and this server {least} to {most}"
    );
    Err(Error::conflict_of("node_incompatible", message))
}

impl Service {
    /// A node's process has come. Its leases go on, whichever process took them.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Forbidden`] for a node that was sent away for good.
    pub async fn node_register(&self, ctx: &Ctx, hello: NodeHello) -> Result<Registered, Error> {
        let id = ctx.only_node()?.clone();
        check_hello(&hello)?;
        // Here, because nobody waits for a node that comes.
        self.lease_key().await?;
        let (now, lease) = (self.now_ms(), self.lease());
        let note = Note::new(ctx, now);
        let (wake, incarnation) = (self.wake().of_node(&id), hello.incarnation.clone());
        let (node, name) = (id.clone(), hello.name.clone());
        let (held, sandboxes) = self
            .unit(move |tx| {
                let before = node::get(tx, &id)?;
                let state = match &before {
                    Some(before) => before.state.step(NodeEvent::Seen),
                    None => Some(NodeState {
                        connectivity: Connectivity::Online,
                        scheduling: Scheduling::Active,
                    }),
                };
                let gone = || Error::Forbidden("the node is decommissioned".to_owned());
                let until = now.saturating_add(lease.ms());
                let mut row = row_of(&id, &hello, state.ok_or_else(gone)?, (now, until));
                // What the operator has given it counts before what it calls itself.
                row.labels.extend(labels_of(tx, &id)?);
                // And before both, what it isolates with, by which policies go, and what it is.
                set_own(&mut row.labels, &hello);
                let was = before.map(|before| before.state.connectivity);
                node::upsert(tx, &row)?;
                node::set_protocol(tx, &id, hello.protocol)?;
                if was != Some(row.state.connectivity) {
                    note_node(tx, &row, "node.online", &note)?;
                }
                let held = job::held_by(tx, &id, HELD_MAX)?;
                Ok((held, work::held_by(tx, &id)?))
            })
            .await?;
        tracing::info!(%node, name, "a node has registered");
        self.forget_roots();
        wake.forget_told(&incarnation);
        Ok(Registered {
            lease_ms: lease.ms(),
            heartbeat_ms: lease.renew_ms(),
            held,
            sandboxes,
        })
    }

    /// A node renews all its leases, and learns which jobs are to end, what is to be done with sandboxes, and
    /// what is not its own.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another process has registered for this node; [`Error::Invalid`].
    pub async fn node_heartbeat(
        &self,
        ctx: &Ctx,
        incarnation: &str,
        running: &[LeaseRef],
        sandboxes: &[SandboxRef],
    ) -> Result<Beat, Error> {
        let beat = self.node_heartbeat_of(ctx, incarnation, (running, sandboxes), None);
        beat.await
    }

    /// The same, with what the node says of its machine. What of that is other than before is an event.
    ///
    /// # Errors
    /// Those of [`Service::node_heartbeat`].
    pub async fn node_heartbeat_of(
        &self,
        ctx: &Ctx,
        incarnation: &str,
        (running, sandboxes): (&[LeaseRef], &[SandboxRef]),
        report: Option<HostReport>,
    ) -> Result<Beat, Error> {
        let id = ctx.only_node()?.clone();
        work::check_refs(sandboxes)?;
        let (now, lease) = (self.now_ms(), self.lease());
        let plain = Note::new(ctx, now);
        let note = plain.clone().because("the node does not know of the lease");
        let known: HashSet<LeaseRef> = running.iter().cloned().collect();
        let sandbox_note = change::Note::new(ctx, now);
        let (incarnation, has) = (incarnation.to_owned(), sandboxes.to_vec());
        let report = report.map(HostReport::bounded);
        let wake = self.wake().of_node(&id);
        let since = match locked(&wake.held).from(now) {
            0 => 0,
            // Before the node was to know of them, twice.
            _ => now.saturating_sub(2 * lease.unknown_after_ms()),
        };
        let seen = self
            .unit(move |tx| {
                let until = now.saturating_add(lease.ms());
                let before = node::get(tx, &id)?;
                if !node::renew(tx, &id, &incarnation, until, report.as_ref())? {
                    return Err(unregistered().into());
                }
                if let (Some(before), Some(report)) = (&before, &report) {
                    report_news(tx, before, report, &plain)?;
                }
                let before = before.ok_or_else(unregistered)?;
                let row = NodeRow {
                    lease_expires_at_ms: until,
                    ..before
                };
                heard(tx, &row, &note)?;
                let (held, whole) = held_of(tx, (&id, &known), since)?;
                let requeued = requeue_unknown(tx, &held, &known, lease, &note)?;
                let sandboxes = work::held_by(tx, &id)?;
                let failed = work::fail_unknown(tx, &sandboxes, &has, lease, &sandbox_note)?;
                Ok(Seen {
                    version: row.version,
                    networks: pending_of(tx, &id)?,
                    held,
                    whole,
                    requeued,
                    sandboxes,
                    failed,
                })
            })
            .await?;
        if seen.whole.is_some() {
            let (oldest_ms, whole) = (now, seen.whole);
            locked(&wake.held).see(oldest::Seen { oldest_ms, whole }, 0, now);
        }
        for row in &seen.requeued {
            self.announce(row);
        }
        for row in &seen.failed {
            self.announce_sandbox(row);
        }
        Ok(beat_of(&seen, running, sandboxes, (now, lease)))
    }

    /// A node says goodbye: it is forgotten, and what it has, or what waits for it alone, is judged lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn node_gone(&self, ctx: &Ctx) -> Result<(), Error> {
        let id = ctx.only_node()?.clone();
        let note = Note::new(ctx, self.now_ms());
        loop {
            let (id, note) = (id.clone(), note.clone());
            // The node goes first: if the process ends before the last job or sandbox is judged, the
            // reaper finds those whose node is not there.
            let (rows, most) = self.unit(move |tx| gone(tx, &id, &note)).await?;
            for row in &rows {
                self.announce(row);
            }
            if most < HELD_MAX as usize {
                break;
            }
        }
        self.forget_roots();
        self.lose_sandboxes(&id, &change::Note::new(ctx, note.at_ms))
            .await
    }

    /// Judges the sandboxes of a node that is gone.
    async fn lose_sandboxes(&self, id: &NodeId, note: &change::Note) -> Result<(), Error> {
        let (id, note) = (id.clone(), note.clone());
        let lost = self.unit(move |tx| {
            let mut lost = Vec::new();
            for row in work::held_by(tx, &id)? {
                lost.extend(change::lose(tx, &row, note.clone())?);
            }
            Ok::<_, Fail>(lost)
        });
        for row in &lost.await? {
            self.announce_sandbox(row);
        }
        Ok(())
    }
}

/// What a heartbeat has found and changed.
struct Seen {
    version: String,
    networks: Vec<SandboxRow>,
    held: Vec<JobRow>,
    /// How long it took to look at all of them, if they were.
    whole: Option<Duration>,
    requeued: Vec<JobRow>,
    sandboxes: Vec<SandboxRow>,
    failed: Vec<SandboxRow>,
}

/// What a node has: all of it, or where looking at all takes long, what it says that it has and what it was given since
/// then. What it has lost sight of before is found by the next look at all.
fn held_of(
    tx: &mut Tx<'_>,
    (node, said): (&NodeId, &HashSet<LeaseRef>),
    since_ms: u64,
) -> Result<(Vec<JobRow>, Option<Duration>), Fail> {
    let began = Instant::now();
    let mut held = job::held_since(tx, node, since_ms, HELD_MAX)?;
    if since_ms == 0 {
        return Ok((held, Some(began.elapsed())));
    }
    let found: HashSet<JobId> = held.iter().map(|row| row.id.clone()).collect();
    let said = said.iter().map(|lease| &lease.job_id);
    let others = said.filter(|id| !found.contains(id)).cloned();
    let others: Vec<JobId> = others.take(HELD_MAX as usize).collect();
    held.extend(job::held_among(tx, node, &others)?);
    Ok((held, None))
}

/// What a node is told by its heartbeat. Pure.
fn beat_of(
    seen: &Seen,
    running: &[LeaseRef],
    has: &[SandboxRef],
    (now, lease): (u64, Lease),
) -> Beat {
    let ours: HashSet<LeaseRef> = seen.held.iter().map(lease_ref).collect();
    let stopping = seen.held.iter().filter(is_stopping);
    let stale = running.iter().filter(|lease| !ours.contains(lease));
    let failed: HashSet<&SandboxId> = seen.failed.iter().map(|row| &row.id).collect();
    let stand = |row: &&SandboxRow| !failed.contains(&row.id);
    let standing: Vec<&SandboxRow> = seen.sandboxes.iter().filter(stand).collect();
    let sandboxes = work::beat(&standing, has, now);
    let jobs = seen.held.iter().map(|row| (row.id.to_string(), row.epoch));
    let places = standing.iter().map(|row| (row.id.to_string(), row.epoch));
    Beat {
        lease_ms: lease.ms(),
        heartbeat_ms: lease.renew_ms(),
        cancel: stopping.map(lease_ref).collect(),
        stale: stale.cloned().collect(),
        sandboxes: sandboxes.works,
        sandbox_lives: sandboxes.lives,
        stale_sandboxes: sandboxes.stale,
        networks: seen.networks.clone(),
        upgrade: upgrade_for(&seen.version),
        held: jobs.chain(places).collect(),
    }
}

/// Forgets a node and judges some of its jobs: those that changed, and how many of one kind there were.
fn gone(tx: &mut Tx<'_>, id: &NodeId, note: &Note) -> Result<(Vec<JobRow>, usize), Fail> {
    if let Some(node) = node::get(tx, id)? {
        forget_node(tx, &node, note)?;
    }
    let held = job::held_by(tx, id, HELD_MAX)?;
    let waiting = queue::pinned_to(tx, id, HELD_MAX)?;
    let mut lost = Vec::new();
    for row in held.iter().chain(&waiting) {
        lost.extend(lose(tx, row, "the node is gone", note.clone())?);
    }
    Ok((lost, held.len().max(waiting.len())))
}

/// Forgets a node, with the event that says so.
pub(crate) fn forget_node(tx: &mut Tx<'_>, row: &NodeRow, note: &Note) -> Result<(), Fail> {
    node::delete(tx, &row.id)?;
    note_node(tx, row, "node.gone", note)
}

/// Writes what has become of a node, after its row was written.
pub(crate) fn note_node(
    tx: &mut Tx<'_>,
    row: &NodeRow,
    kind: &str,
    note: &Note,
) -> Result<(), Fail> {
    note_node_with(tx, row, kind, serde_json::Value::Null, note)
}

/// The same with what has changed of it.
pub(crate) fn note_node_with(
    tx: &mut Tx<'_>,
    row: &NodeRow,
    kind: &str,
    changes: serde_json::Value,
    note: &Note,
) -> Result<(), Fail> {
    let mut data = serde_json::json!({"name": row.name, "incarnation": row.incarnation});
    if !changes.is_null()
        && let Some(data) = data.as_object_mut()
    {
        data.insert("changes".to_owned(), changes);
    }
    let version = event::last_version(tx, "node", row.id.as_str())? + 1;
    let new = NewEvent {
        tenant: &TenantId::local(),
        resource: "node",
        resource_id: row.id.as_str(),
        version,
        kind,
        data: &data.to_string(),
        principal: &note.principal,
        at_ms: note.at_ms,
    };
    Ok(event::append(tx, &new)?)
}

/// A node that was silent has renewed its leases.
fn heard(tx: &mut Tx<'_>, row: &NodeRow, note: &Note) -> Result<(), Fail> {
    match row.state.step(NodeEvent::Seen) {
        Some(state) if state != row.state => {
            node::move_to(tx, row, state)?;
            note_node(tx, row, "node.online", note)
        }
        _ => Ok(()),
    }
}

/// Jobs that were leased and that the node never heard of. Their commands were never let go, and a
/// `started` that comes late carries an old epoch, so another node may have them at once. A lease that its
/// node does not name never reached it: the answer that carried it was lost.
fn requeue_unknown(
    tx: &mut Tx<'_>,
    held: &[JobRow],
    known: &HashSet<LeaseRef>,
    lease: Lease,
    note: &Note,
) -> Result<Vec<JobRow>, Fail> {
    let mut requeued = Vec::new();
    for row in held {
        let since = row.leased_at_ms.unwrap_or(note.at_ms);
        let old = note.at_ms.saturating_sub(since) > lease.unknown_after_ms();
        let unstarted = row.started_at_ms.is_none();
        if old && unstarted && !known.contains(&lease_ref(row)) {
            let event = JobEvent::Release { epoch: row.epoch };
            requeued.extend(apply(tx, row, &event, note.clone())?);
        }
    }
    Ok(requeued)
}

fn row_of(id: &NodeId, hello: &NodeHello, state: NodeState, (now, until): (u64, u64)) -> NodeRow {
    NodeRow {
        id: id.clone(),
        name: hello.name.clone(),
        incarnation: hello.incarnation.clone(),
        version: hello.version.clone(),
        slots: hello.slots,
        drivers: hello.drivers.clone(),
        facts: hello.facts.clone(),
        state,
        lease_expires_at_ms: until,
        registered_at_ms: now,
        labels: hello.labels.clone(),
        trouble: Trouble::default(),
        report: None,
    }
}

/// What a node isolates with is a label that nobody writes: the first of its drivers, in which it runs things. So
/// is what kind of machine it is.
fn set_own(labels: &mut Labels, hello: &NodeHello) {
    labels.insert(KIND.to_owned(), hello.kind.as_str().to_owned());
    labels.remove(DRIVER);
    let driver = hello.drivers.first().filter(|driver| is_label(driver));
    labels.extend(driver.map(|driver| (DRIVER.to_owned(), driver.clone())));
}

/// What its enrollment gave a node.
fn labels_of(tx: &mut Tx<'_>, id: &NodeId) -> Result<Labels, Fail> {
    let enrollment = store::enroll::get(tx, id)?;
    Ok(enrollment.map(|row| row.labels).unwrap_or_default())
}

fn check_hello(hello: &NodeHello) -> Result<(), Error> {
    let texts = [&hello.name, &hello.incarnation, &hello.version];
    let facts = hello.facts.iter().flat_map(|(key, value)| [key, value]);
    let all = texts.into_iter().chain(&hello.drivers).chain(facts);
    let long = all.clone().any(|text| text.len() > FACT_BYTES_MAX);
    if long || hello.facts.len() > FACTS_MAX || hello.drivers.len() > FACTS_MAX {
        let message = "a node may say less about itself";
        return Err(Error::invalid("facts", "too_long", message));
    }
    check_labels(&hello.labels)?;
    if hello.slots > limits::NODE_JOBS_MAX {
        let message = format!(
            "a node runs at most {} jobs at a time",
            limits::NODE_JOBS_MAX
        );
        return Err(Error::invalid("slots", "too_many", message));
    }
    if hello.incarnation.is_empty() {
        let message = "must not be empty";
        return Err(Error::invalid("incarnation", "invalid_argument", message));
    }
    Ok(())
}
