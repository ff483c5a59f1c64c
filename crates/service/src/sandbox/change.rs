//! Decide about a sandbox with `model`, write with `store`, and tell whoever waits.

use crate::approval;
use crate::change::cut;
use crate::error::Fail;
use crate::snapshot::change::{abandoned, settle};
use crate::{Ctx, Error, Service, snapshot};
use model::enforcement::Enforced;
use model::event::Event;
use model::id::{NodeId, PrincipalId, TenantId};
use model::limits;
use model::node::{HostChange, HostMoment};
use model::sandbox::{SandboxEvent, SandboxState, Step};
use serde_json::{Map, Value};
use store::Tx;
use store::sandbox::{SandboxChange, SandboxRow};

/// What is known beside the event itself.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) principal: PrincipalId,
    pub(crate) at_ms: u64,
    pub(crate) why: Option<String>,
    /// The node that gets it.
    pub(crate) node: Option<NodeId>,
    /// Another time to live than it has.
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) driver: Option<String>,
    pub(crate) enforcement: Option<Vec<Enforced>>,
    /// The last number that its commands have.
    pub(crate) execs: Option<u64>,
    /// What its host was around the order that it is about.
    pub(crate) host: Option<HostChange>,
}

impl Note {
    pub(crate) fn new(ctx: &Ctx, at_ms: u64) -> Note {
        Note {
            principal: ctx.principal.clone(),
            at_ms,
            why: None,
            node: None,
            ttl_ms: None,
            driver: None,
            enforcement: None,
            execs: None,
            host: None,
        }
    }

    pub(crate) fn because(mut self, why: &str) -> Note {
        self.why = Some(cut(why));
        self
    }
}

/// What follows from an event, ready to be written; `None` when it was so already.
pub(crate) fn decide(
    row: &SandboxRow,
    event: &SandboxEvent,
    note: Note,
) -> Result<Option<SandboxChange>, Error> {
    let Step::Moved(state) = row.state.step(event)? else {
        return Ok(None);
    };
    let ttl_ms = note.ttl_ms.unwrap_or(row.ttl_ms);
    let expires_at_ms = expires(row, &state, note.at_ms.saturating_add(ttl_ms));
    // Each order has an epoch that no report has carried yet.
    let epoch = row.epoch + u64::from(state.want().is_some());
    let why = if let SandboxState::Failed { why } = &state {
        Some(why.clone())
    } else {
        note.why
    };
    let node = note.node.as_ref().or(row.node.as_ref());
    // Nodes are for the first tenant alone: by these numbers another one would see what its neighbours do.
    let host = note.host.filter(|_| row.tenant == TenantId::local());
    Ok(Some(SandboxChange {
        kind: kind(&state),
        data: data(node, epoch, expires_at_ms, &state, (why.as_deref(), host)),
        reason: why.filter(|_| state.is_over() || state == SandboxState::Destroying),
        due_at_ms: due(row, &state, note.at_ms, expires_at_ms),
        principal: note.principal,
        at_ms: note.at_ms,
        epoch,
        node: note.node,
        ttl_ms,
        expires_at_ms,
        driver: note.driver,
        enforcement: note.enforcement,
        execs: note.execs,
        state,
    }))
}

/// When its time is over: counted from when it is ready, and a copy in between changes nothing.
fn expires(row: &SandboxRow, next: &SandboxState, at_ms: u64) -> Option<u64> {
    let was_copied = matches!(row.state, SandboxState::Snapshotting { .. });
    match next {
        SandboxState::Ready if was_copied => row.expires_at_ms,
        SandboxState::Ready => Some(at_ms),
        SandboxState::Snapshotting { paused: false, .. } => row.expires_at_ms,
        SandboxState::Requested
        | SandboxState::Provisioning
        | SandboxState::Pausing { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { paused: true, .. }
        | SandboxState::Recreating
        | SandboxState::Destroying
        | SandboxState::Destroyed
        | SandboxState::Failed { .. } => None,
    }
}

/// When a sandbox that has come into this state has to be looked at if nothing happens before. One that
/// is being destroyed, or whose place is, ends with its node at the latest.
fn due(
    row: &SandboxRow,
    state: &SandboxState,
    at_ms: u64,
    expires_at_ms: Option<u64>,
) -> Option<u64> {
    let was_copied = matches!(row.state, SandboxState::Snapshotting { .. });
    let paused_at = row.paused_at_ms.filter(|_| was_copied).unwrap_or(at_ms);
    match state {
        SandboxState::Ready => expires_at_ms,
        SandboxState::Provisioning
        | SandboxState::Pausing { .. }
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { .. } => Some(at_ms.saturating_add(limits::SANDBOX_ORDER_MS)),
        SandboxState::Paused { .. } => Some(paused_at.saturating_add(limits::SANDBOX_PAUSED_MS)),
        SandboxState::Requested => Some(at_ms.saturating_add(row.spec.queue_timeout_ms)),
        SandboxState::Recreating
        | SandboxState::Destroying
        | SandboxState::Destroyed
        | SandboxState::Failed { .. } => None,
    }
}

fn kind(next: &SandboxState) -> &'static str {
    match next {
        SandboxState::Requested => "sandbox.requested",
        SandboxState::Provisioning => "sandbox.provisioning",
        SandboxState::Ready => "sandbox.ready",
        SandboxState::Pausing { .. } => "sandbox.pausing",
        SandboxState::Paused { .. } => "sandbox.paused",
        SandboxState::Resuming { .. } => "sandbox.resuming",
        SandboxState::Snapshotting { .. } => "sandbox.snapshotting",
        SandboxState::Recreating => "sandbox.recreating",
        SandboxState::Destroying => "sandbox.destroying",
        SandboxState::Destroyed => "sandbox.destroyed",
        SandboxState::Failed { .. } => "sandbox.failed",
    }
}

fn data(
    node: Option<&NodeId>,
    epoch: u64,
    expires_at_ms: Option<u64>,
    next: &SandboxState,
    (why, host): (Option<&str>, Option<HostChange>),
) -> String {
    let mut data = Map::new();
    if let Some(node) = node {
        data.insert("node".to_owned(), node.as_str().into());
        data.insert("epoch".to_owned(), epoch.into());
    }
    if let Some(expires) = expires_at_ms {
        data.insert("expires_at_ms".to_owned(), expires.into());
    }
    if let SandboxState::Pausing { memory }
    | SandboxState::Paused { memory }
    | SandboxState::Resuming { memory } = next
    {
        data.insert("memory".to_owned(), (*memory).into());
    }
    if let Some(why) = why {
        data.insert("why".to_owned(), why.into());
    }
    if let Some(host) = host.filter(|_| ends_an_order(next)) {
        data.insert("host".to_owned(), host_of(host));
    }
    Value::Object(data).to_string()
}

/// Whether this is what a sandbox comes to when it was made or taken away: `requested` where it is made anew
/// elsewhere. An order that follows at once is written with the same note and is not what the host was changed by.
fn ends_an_order(next: &SandboxState) -> bool {
    match next {
        SandboxState::Requested
        | SandboxState::Ready
        | SandboxState::Destroyed
        | SandboxState::Failed { .. } => true,
        SandboxState::Provisioning
        | SandboxState::Pausing { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { .. }
        | SandboxState::Recreating
        | SandboxState::Destroying => false,
    }
}

/// The event for somebody who may not see nodes.
pub(crate) fn without_host(mut event: Event) -> Event {
    if let Ok(Value::Object(mut data)) = serde_json::from_str(&event.data)
        && data.remove("host").is_some()
    {
        event.data = Value::Object(data).to_string();
    }
    event
}

fn host_of(change: HostChange) -> Value {
    let moment = |at: HostMoment| {
        serde_json::json!({
            "load_milli": at.load_milli,
            "memory_available_bytes": at.memory_available_bytes,
            "sandboxes": at.sandboxes,
        })
    };
    serde_json::json!({"before": moment(change.before), "after": moment(change.after)})
}

/// Decides and writes in one go; `None` when it was so already.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    event: &SandboxEvent,
    mut note: Note,
) -> Result<Option<SandboxRow>, Fail> {
    let (principal, at_ms) = (note.principal.clone(), note.at_ms);
    if row.state == SandboxState::Recreating && *event == SandboxEvent::Destroyed {
        note.execs = Some(store::exec::close(tx, &row.id, at_ms)?);
    }
    let Some(change) = decide(row, event, note)? else {
        return Ok(None);
    };
    let next = store::sandbox::move_to(tx, row, &change)?;
    if next.state.is_over() && !row.state.is_over() {
        // Nobody is to say yes to what no sandbox is there for any more, whatever ended it.
        let by = (&change.principal, change.at_ms);
        approval::close(tx, row.id.as_str(), by, "the sandbox is over")?;
    }
    if let SandboxState::Snapshotting { snapshot, .. } = &row.state
        && *event != SandboxEvent::SnapshotDone
    {
        // Whatever ended the sandbox, or gave the order up, nobody will say any more that the copy is there.
        let why = abandoned(&format!("the sandbox is {}", next.state.name()));
        let bytes = None;
        let note = snapshot::change::Note {
            principal,
            at_ms,
            bytes,
        };
        settle(tx, snapshot, &why, &note)?;
    }
    Ok(Some(next))
}

/// Gives a sandbox another time to live: from now on if it is ready, from when it will be if it is not.
pub(crate) fn extend(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    ttl_ms: u64,
    note: Note,
) -> Result<SandboxRow, Fail> {
    let is_copied = matches!(row.state, SandboxState::Snapshotting { paused: false, .. });
    let runs = row.state == SandboxState::Ready || is_copied;
    let expires_at_ms = runs.then(|| note.at_ms.saturating_add(ttl_ms));
    let data = serde_json::json!({"ttl_ms": ttl_ms, "expires_at_ms": expires_at_ms});
    let change = SandboxChange {
        state: row.state.clone(),
        kind: "sandbox.extended",
        data: data.to_string(),
        principal: note.principal,
        at_ms: note.at_ms,
        epoch: row.epoch,
        node: None,
        ttl_ms,
        expires_at_ms,
        due_at_ms: expires_at_ms.filter(|_| !is_copied).or(row.due_at_ms),
        driver: None,
        enforcement: None,
        reason: None,
        execs: None,
    };
    Ok(store::sandbox::move_to(tx, row, &change)?)
}

/// Judges a sandbox of a node that is gone or silent. What was to be taken away went with it.
pub(crate) fn lose(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    note: Note,
) -> Result<Option<SandboxRow>, Fail> {
    let why = "node lost";
    let event = if row.state == SandboxState::Destroying {
        SandboxEvent::Destroyed
    } else {
        let why = why.to_owned();
        SandboxEvent::Fail { why }
    };
    apply(tx, row, &event, note.because(why))
}

impl Service {
    /// Wakes whoever waits for what has just become of a sandbox.
    pub(crate) fn announce_sandbox(&self, row: &SandboxRow) {
        if row.state == SandboxState::Requested {
            self.wake().queue();
        }
        let is_wanted = row.state.want().is_some() || row.is_network_pending();
        if let Some(node) = row.node.as_ref().filter(|_| is_wanted) {
            self.wake().node(node);
        }
        self.wake().sandbox_is(row);
        if row.state.is_over() {
            self.quota_freed(&row.tenant);
        }
    }
}
