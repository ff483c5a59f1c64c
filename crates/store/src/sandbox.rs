//! Sandboxes that live on.

mod waiting;

pub use self::waiting::{has, is_requested, requested, wishes};
use crate::db::to_json;
use crate::{Row, StoreError, Tx, Value, egress, event, exec, queue};
use model::enforcement::Enforced;
use model::id::{NodeId, PrincipalId, SandboxId, SnapshotId, TenantId};
use model::limits;
use model::network::NetworkRules;
use model::quota;
use model::sandbox::SandboxState;
use model::sandbox_spec::{AccessToken, SandboxSpec};
use model::secret::{Leaving, SecretUse};
use std::collections::BTreeMap;

/// States in which a sandbox is over.
const OVER: [&str; 2] = ["destroyed", "failed"];

/// A sandbox as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxRow {
    /// Its name for programs.
    pub id: SandboxId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Where it is.
    pub state: SandboxState,
    /// How often it was changed, from 1.
    pub version: u64,
    /// Of the last order to its node: to make, pause, resume, copy or destroy it. 0 before the first.
    pub epoch: u64,
    /// The node that has it, or had it last.
    pub node: Option<NodeId>,
    /// What was asked.
    pub spec: SandboxSpec,
    /// Labels of whoever asked.
    pub metadata: BTreeMap<String, String>,
    /// Opens the door of its guest.
    pub access_token: AccessToken,
    /// How long it lives, counted from when it is ready.
    pub ttl_ms: u64,
    /// When its time is over; only while it is ready, or copied and ready again then.
    pub expires_at_ms: Option<u64>,
    /// When it has to be looked at next; never for one that is over.
    pub due_at_ms: Option<u64>,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// When a node got it.
    pub placed_at_ms: Option<u64>,
    /// When it was ready last.
    pub ready_at_ms: Option<u64>,
    /// When it was paused last.
    pub paused_at_ms: Option<u64>,
    /// When it was destroyed or failed.
    pub ended_at_ms: Option<u64>,
    /// What isolates it.
    pub driver: Option<String>,
    /// What is in force.
    pub enforcement: Vec<Enforced>,
    /// Why it ended, or is to end.
    pub reason: Option<String>,
    /// What it may reach, once somebody has changed it.
    pub network: Option<NetworkRules>,
    /// Counts these changes.
    pub network_epoch: u64,
    /// The last one that its node has put in force.
    pub network_done: u64,
    /// Why its node has given up the newest rules; those in force are `network` then.
    pub network_refused: Option<String>,
    /// The secrets for what leaves, once somebody has changed them.
    pub leaving: Option<Leaving>,
    /// Connections that its rules denied.
    pub egress_denied: u64,
    /// Counts its places, from 1: each time it was made anew, it got another one.
    pub incarnation: u64,
    /// The last number that commands of its earlier places have.
    pub exec_base: u64,
}

impl SandboxRow {
    /// What it may reach, as it was said last.
    pub fn rules(&self) -> &NetworkRules {
        self.network.as_ref().unwrap_or(&self.spec.network)
    }

    /// The secrets that it uses, as it was said last.
    pub fn secrets(&self) -> Vec<SecretUse> {
        self.spec.secrets_with(self.leaving.as_ref())
    }

    /// Whether its node has to hear of other rules than those in force.
    pub fn is_network_pending(&self) -> bool {
        self.network_done < self.network_epoch
    }
}

/// A sandbox that is new. It begins as `requested`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSandbox {
    /// Its name.
    pub id: SandboxId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asks for it.
    pub principal: PrincipalId,
    /// What is asked.
    pub spec: SandboxSpec,
    /// Labels.
    pub metadata: BTreeMap<String, String>,
    /// Opens the door of its guest.
    pub access_token: AccessToken,
    /// How long it is to live.
    pub ttl_ms: u64,
    /// Until when it may wait for a node.
    pub due_at_ms: u64,
    /// Now.
    pub at_ms: u64,
}

/// A change of a sandbox: its next state, which may be the one that it has, the event that says so, and
/// what else is known by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxChange {
    /// The next state.
    pub state: SandboxState,
    /// The event, such as `sandbox.ready`.
    pub kind: &'static str,
    /// More for the event, a JSON object.
    pub data: String,
    /// Who does it.
    pub principal: PrincipalId,
    /// Now.
    pub at_ms: u64,
    /// Of the last order, after the change.
    pub epoch: u64,
    /// The node that gets it.
    pub node: Option<NodeId>,
    /// How long it lives, after the change.
    pub ttl_ms: u64,
    /// When its time is over, after the change.
    pub expires_at_ms: Option<u64>,
    /// When it has to be looked at next, after the change.
    pub due_at_ms: Option<u64>,
    /// Known when it is ready.
    pub driver: Option<String>,
    /// Known when it is ready.
    pub enforcement: Option<Vec<Enforced>>,
    /// Known when it ends.
    pub reason: Option<String>,
    /// Known when its place is gone and it waits for another: the last number that its commands have so far.
    pub execs: Option<u64>,
}

/// Which sandboxes are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxFilter {
    /// In one of these states; in any when there are none.
    pub states: Vec<&'static str>,
    /// With all of these entries in their metadata; of more than [`limits::METADATA_FILTERS_MAX`], the
    /// first ones.
    pub metadata: BTreeMap<String, String>,
}

/// All columns; every query names them, so that a column that is added is not read by accident.
macro_rules! columns {
    () => {
        "id, tenant, principal, state, state_json, version, epoch, node, spec, metadata, \
         access_token, ttl_ms, expires_at_ms, due_at_ms, created_at_ms, placed_at_ms, ready_at_ms, \
         paused_at_ms, ended_at_ms, driver, enforcement, reason, network, network_epoch, \
         network_done, network_refused, leaving, egress_denied, incarnation, exec_base"
    };
}

fn from_row(row: &Row) -> Result<SandboxRow, StoreError> {
    let state: SandboxState = row.json("state_json")?;
    let corrupt = |what: &str, id: String| StoreError::Corrupt {
        what: format!("the {what} of {id}"),
    };
    if state.name() != row.text("state")? {
        return Err(corrupt("state", row.text("id")?));
    }
    let node = row.text_or_null("node")?.map(|id| id.parse()).transpose();
    let Ok(node) = node else {
        return Err(corrupt("node", row.text("id")?));
    };
    Ok(SandboxRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        state,
        version: row.number("version")?,
        epoch: row.number("epoch")?,
        node,
        spec: row.json("spec")?,
        metadata: row.json("metadata")?,
        access_token: AccessToken::new(row.text("access_token")?),
        ttl_ms: row.number("ttl_ms")?,
        expires_at_ms: row.number_or_null("expires_at_ms")?,
        due_at_ms: row.number_or_null("due_at_ms")?,
        created_at_ms: row.number("created_at_ms")?,
        placed_at_ms: row.number_or_null("placed_at_ms")?,
        ready_at_ms: row.number_or_null("ready_at_ms")?,
        paused_at_ms: row.number_or_null("paused_at_ms")?,
        ended_at_ms: row.number_or_null("ended_at_ms")?,
        driver: row.text_or_null("driver")?,
        enforcement: row.json_or_null("enforcement")?.unwrap_or_default(),
        reason: row.text_or_null("reason")?,
        network: row.json_or_null("network")?,
        network_epoch: row.number("network_epoch")?,
        network_done: row.number("network_done")?,
        network_refused: row.text_or_null("network_refused")?,
        leaving: row.json_or_null("leaving")?,
        egress_denied: row.number("egress_denied")?,
        incarnation: row.number("incarnation")?,
        exec_base: row.number("exec_base")?,
    })
}

pub(crate) fn rows(rows: &[Row]) -> Result<Vec<SandboxRow>, StoreError> {
    rows.iter().map(from_row).collect()
}

/// Adds a sandbox and its first event.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &NewSandbox) -> Result<SandboxRow, StoreError> {
    let row = row_of(new);
    let takes = quota::taken(&row.spec.limits);
    tx.execute(
        "INSERT INTO sandbox (id, tenant, principal, state, state_json, version, epoch, \
         pinned_node, spec, metadata, access_token, ttl_ms, due_at_ms, created_at_ms, snapshot, \
         wish, cpu_millis, memory_bytes, disk_bytes) \
         VALUES ($1, $2, $3, $4, $5, 1, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        &[
            row.id.as_str().into(),
            row.tenant.as_str().into(),
            row.principal.as_str().into(),
            row.state.name().into(),
            to_json(&row.state)?.into(),
            row.spec.node.as_ref().map(NodeId::as_str).into(),
            to_json(&row.spec)?.into(),
            to_json(&row.metadata)?.into(),
            row.access_token.text().into(),
            row.ttl_ms.into(),
            row.due_at_ms.into(),
            row.created_at_ms.into(),
            row.spec.snapshot().map(SnapshotId::as_str).into(),
            queue::wish_text(row.spec.wish().as_ref())?.into(),
            takes.cpu_millis.into(),
            takes.memory_bytes.into(),
            takes.disk_bytes.into(),
        ],
    )?;
    let data = let_through(&row);
    append(
        tx,
        &row,
        "sandbox.requested",
        &data,
        &new.principal,
        new.at_ms,
    )?;
    Ok(row)
}

/// What its first event says: the yes that it goes by, of which nothing else in the record tells where that is for a
/// session.
fn let_through(row: &SandboxRow) -> String {
    let permit = row.spec.permit.as_ref();
    match permit.and_then(|permit| permit.yes.as_ref()) {
        Some(yes) => serde_json::json!({"approval": yes.approval.as_str()}).to_string(),
        None => "{}".to_owned(),
    }
}

fn row_of(new: &NewSandbox) -> SandboxRow {
    SandboxRow {
        id: new.id.clone(),
        tenant: new.tenant.clone(),
        principal: new.principal.clone(),
        state: SandboxState::Requested,
        version: 1,
        epoch: 0,
        node: None,
        spec: new.spec.clone(),
        metadata: new.metadata.clone(),
        access_token: new.access_token.clone(),
        ttl_ms: new.ttl_ms,
        expires_at_ms: None,
        due_at_ms: Some(new.due_at_ms),
        created_at_ms: new.at_ms,
        placed_at_ms: None,
        ready_at_ms: None,
        paused_at_ms: None,
        ended_at_ms: None,
        driver: None,
        enforcement: Vec::new(),
        reason: None,
        network: None,
        network_epoch: 0,
        network_done: 0,
        network_refused: None,
        leaving: None,
        egress_denied: 0,
        incarnation: 1,
        exec_base: 0,
    }
}

pub(crate) fn append(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    kind: &str,
    data: &str,
    principal: &PrincipalId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let new = event::NewEvent {
        tenant: &row.tenant,
        resource: "sandbox",
        resource_id: row.id.as_str(),
        version: row.version,
        kind,
        data,
        principal,
        at_ms,
    };
    event::append(tx, &new)
}

/// Holds a sandbox as it is until this transaction ends: what ends it waits, and then sees what was added about it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn hold(tx: &mut Tx<'_>, id: &SandboxId) -> Result<(), StoreError> {
    if !tx.has_row_locks() {
        return Ok(());
    }
    let sql = "SELECT id FROM sandbox WHERE id = $1 FOR SHARE";
    tx.query_one(sql, &[id.as_str().into()]).map(drop)
}

/// A sandbox; with a tenant, only if it is that tenant's.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    id: &SandboxId,
) -> Result<Option<SandboxRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM sandbox WHERE id = $1");
    let row = tx.query_one(sql, &[id.as_str().into()])?;
    let row = row.as_ref().map(from_row).transpose()?;
    Ok(row.filter(|row| tenant.is_none_or(|tenant| *tenant == row.tenant)))
}

/// What all lists have in common. States and entries of metadata are looked for as pieces of text: a state
/// between commas, and an entry as it stands in the JSON text of the map, where a quotation mark within a
/// key or a value has a backslash before it. Those that serve the content of a volume are in no list: nobody
/// has asked for them.
macro_rules! list {
    ($live:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM sandbox WHERE tenant = $1 AND (created_at_ms < $2 OR (created_at_ms = $3 \
             AND id < $4)) AND ($5 = '' OR REPLACE($6, ',' || state || ',', '') <> $7) \
             AND ($8 = '' OR REPLACE(metadata, $9, '') <> metadata) \
             AND ($10 = '' OR REPLACE(metadata, $11, '') <> metadata) \
             AND ($12 = '' OR REPLACE(metadata, $13, '') <> metadata) \
             AND ($14 = '' OR REPLACE(metadata, $15, '') <> metadata)",
            $live,
            r#" AND spec NOT LIKE '{"profile":"volume","serves_volume":true%'"#,
            " ORDER BY created_at_ms DESC, id DESC LIMIT $16"
        )
    };
}

/// Sandboxes of a tenant, newest first; those created before `before`, and of these the ones that the
/// filter asks for.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    filter: &SandboxFilter,
    before: Option<(u64, &SandboxId)>,
    limit: u32,
) -> Result<Vec<SandboxRow>, StoreError> {
    let (before_ms, before_id) = before.map_or((u64::MAX, ""), |(ms, id)| (ms, id.as_str()));
    let mut states = String::new();
    if !filter.states.is_empty() {
        states = format!(",{},", filter.states.join(","));
    }
    let mut values: Vec<Value> = vec![
        tenant.as_str().into(),
        before_ms.into(),
        before_ms.into(),
        before_id.into(),
        (*states).into(),
        (*states).into(),
        (*states).into(),
    ];
    let mut entries = filter.metadata.iter();
    for _ in 0..limits::METADATA_FILTERS_MAX {
        let entry = entries.next().map(|(key, value)| entry_text(key, value));
        let entry = entry.transpose()?.unwrap_or_default();
        values.extend([(*entry).into(), entry.into()]);
    }
    values.push(limit.into());
    let none_is_over = filter.states.iter().all(|state| !OVER.contains(state));
    let live = none_is_over && !filter.states.is_empty();
    let sql = if live {
        list!(" AND ended_at_ms IS NULL")
    } else {
        list!("")
    };
    rows(&tx.query(sql, &values)?)
}

/// An entry as it stands in the text of a map.
fn entry_text(key: &str, value: &str) -> Result<String, StoreError> {
    Ok(format!("{}:{}", to_json(&key)?, to_json(&value)?))
}

/// Writes the next state of a sandbox, if nobody has changed it since `row` was read, with its event.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn move_to(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    change: &SandboxChange,
) -> Result<SandboxRow, StoreError> {
    let next = after(row, change);
    let mut values = changed_columns(&next)?;
    values.extend([
        row.id.as_str().into(),
        row.version.into(),
        row.state.name().into(),
        row.epoch.into(),
    ]);
    let changed = tx.execute(
        "UPDATE sandbox SET state = $1, state_json = $2, version = $3, epoch = $4, node = $5, \
         ttl_ms = $6, expires_at_ms = $7, due_at_ms = $8, placed_at_ms = $9, ready_at_ms = $10, \
         paused_at_ms = $11, ended_at_ms = $12, driver = $13, enforcement = $14, reason = $15, \
         incarnation = $16, exec_base = $17 \
         WHERE id = $18 AND version = $19 AND state = $20 AND epoch = $21",
        &values,
    )?;
    if changed != 1 {
        return Err(StoreError::Stale {
            what: row.id.to_string(),
        });
    }
    let (principal, at_ms) = (&change.principal, change.at_ms);
    append(tx, &next, change.kind, &change.data, principal, at_ms)?;
    Ok(next)
}

/// Gives a sandbox another token. Whoever has the old one has nothing any more.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn put_access_token(
    tx: &mut Tx<'_>,
    id: &SandboxId,
    token: &AccessToken,
) -> Result<(), StoreError> {
    let sql = "UPDATE sandbox SET access_token = $1 WHERE id = $2";
    tx.execute(sql, &[token.text().into(), id.as_str().into()])
        .map(drop)
}

/// What a change may write, in the order of the statement of [`move_to`].
fn changed_columns(next: &SandboxRow) -> Result<Vec<Value>, StoreError> {
    let enforcement = Some(&next.enforcement).filter(|clauses| !clauses.is_empty());
    Ok(vec![
        next.state.name().into(),
        to_json(&next.state)?.into(),
        next.version.into(),
        next.epoch.into(),
        next.node.as_ref().map(NodeId::as_str).into(),
        next.ttl_ms.into(),
        next.expires_at_ms.into(),
        next.due_at_ms.into(),
        next.placed_at_ms.into(),
        next.ready_at_ms.into(),
        next.paused_at_ms.into(),
        next.ended_at_ms.into(),
        next.driver.clone().into(),
        enforcement.map(to_json).transpose()?.into(),
        next.reason.clone().into(),
        next.incarnation.into(),
        next.exec_base.into(),
    ])
}

/// The row after a change.
fn after(row: &SandboxRow, change: &SandboxChange) -> SandboxRow {
    let mut next = SandboxRow {
        state: change.state.clone(),
        version: row.version + 1,
        epoch: change.epoch,
        node: change.node.clone().or_else(|| row.node.clone()),
        ttl_ms: change.ttl_ms,
        expires_at_ms: change.expires_at_ms,
        due_at_ms: change.due_at_ms,
        driver: change.driver.clone().or_else(|| row.driver.clone()),
        reason: change.reason.clone().or_else(|| row.reason.clone()),
        ..row.clone()
    };
    if let Some(enforcement) = &change.enforcement {
        next.enforcement.clone_from(enforcement);
    }
    let was_copied = matches!(row.state, SandboxState::Snapshotting { .. });
    if change.state == row.state || (was_copied && !change.state.is_over()) {
        // After a copy it is what it was, since when it was.
        return next;
    }
    let at = Some(change.at_ms);
    match &change.state {
        SandboxState::Provisioning => next.placed_at_ms = at,
        SandboxState::Ready => next.ready_at_ms = at,
        SandboxState::Paused { .. } => next.paused_at_ms = at,
        SandboxState::Destroyed | SandboxState::Failed { .. } => next.ended_at_ms = at,
        SandboxState::Requested => {
            next = placeless(next);
            next.incarnation += 1;
            next.exec_base = change.execs.unwrap_or(row.exec_base);
        }
        SandboxState::Recreating => (next.ended_at_ms, next.reason) = (None, None),
        SandboxState::Pausing { .. }
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { .. }
        | SandboxState::Destroying => {}
    }
    next
}

/// Without what was true of the place that it had. Its node is nobody to whom it matters any more.
fn placeless(row: SandboxRow) -> SandboxRow {
    SandboxRow {
        node: None,
        driver: None,
        enforcement: Vec::new(),
        placed_at_ms: None,
        ready_at_ms: None,
        paused_at_ms: None,
        ..row
    }
}

/// Sandboxes that a node has, by id: those that are not over.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn held_by(tx: &mut Tx<'_>, node: &NodeId, limit: u32) -> Result<Vec<SandboxRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM sandbox WHERE node = $1 AND node IS NOT NULL AND ended_at_ms IS NULL \
         ORDER BY id LIMIT $2"
    );
    rows(&tx.query(sql, &[node.as_str().into(), limit.into()])?)
}

/// Sandboxes of a node whose rules it has not put in force, by id: those that stand. One that is being made may
/// have been ordered with older rules, and is told when it stands.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn network_pending_of(
    tx: &mut Tx<'_>,
    node: &NodeId,
    limit: u32,
) -> Result<Vec<SandboxRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM sandbox WHERE node = $1 AND node IS NOT NULL AND ended_at_ms IS NULL \
         AND network_done < network_epoch \
         AND state IN ('ready', 'pausing', 'paused', 'resuming', 'snapshotting') ORDER BY id LIMIT $2"
    );
    rows(&tx.query(sql, &[node.as_str().into(), limit.into()])?)
}

/// How many of these there are, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_held(tx: &mut Tx<'_>, node: &NodeId, most: u32) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS held FROM (SELECT 1 FROM sandbox WHERE node = $1 \
               AND node IS NOT NULL AND ended_at_ms IS NULL LIMIT $2) AS counted";
    let row = tx.query_one(sql, &[node.as_str().into(), most.into()])?;
    row.map_or(Ok(0), |row| row.number("held"))
}

/// Sandboxes of a node that it has an order for, by id.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn wanted_of(
    tx: &mut Tx<'_>,
    node: &NodeId,
    limit: u32,
) -> Result<Vec<SandboxRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM sandbox WHERE node = $1 AND node IS NOT NULL AND ended_at_ms IS NULL \
         AND state IN ('provisioning', 'pausing', 'resuming', 'snapshotting', 'recreating', \
         'destroying') ORDER BY id LIMIT $2"
    );
    rows(&tx.query(sql, &[node.as_str().into(), limit.into()])?)
}

/// Whether a sandbox waits for a node at all.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn any_requested(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM sandbox WHERE state = 'requested' LIMIT 1";
    Ok(!tx.query(sql, &[])?.is_empty())
}

/// Sandboxes that have to be looked at by now, the longest overdue first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn due(tx: &mut Tx<'_>, now_ms: u64, limit: u32) -> Result<Vec<SandboxRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM sandbox WHERE due_at_ms IS NOT NULL AND due_at_ms <= $1 \
         ORDER BY due_at_ms LIMIT $2"
    );
    rows(&tx.query(sql, &[now_ms.into(), limit.into()])?)
}

/// Sandboxes whose node is gone, or has not renewed its leases in time.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn with_silent_node(
    tx: &mut Tx<'_>,
    now_ms: u64,
    limit: u32,
) -> Result<Vec<SandboxRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM sandbox WHERE node IS NOT NULL AND ended_at_ms IS NULL AND NOT EXISTS \
         (SELECT 1 FROM node WHERE node.id = sandbox.node AND node.lease_expires_at_ms >= $1) \
         ORDER BY id LIMIT $2"
    );
    rows(&tx.query(sql, &[now_ms.into(), limit.into()])?)
}

/// Sandboxes that began with a snapshot, by id.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn from_snapshot(
    tx: &mut Tx<'_>,
    snapshot: &SnapshotId,
    limit: u32,
) -> Result<Vec<SandboxRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM sandbox WHERE snapshot = $1 AND snapshot IS NOT NULL ORDER BY id LIMIT $2"
    );
    rows(&tx.query(sql, &[snapshot.as_str().into(), limit.into()])?)
}

/// How many sandboxes of a tenant are not over, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_live(tx: &mut Tx<'_>, tenant: &TenantId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS live FROM (SELECT 1 FROM sandbox WHERE tenant = $1 \
               AND ended_at_ms IS NULL LIMIT $2) AS counted";
    let row = tx.query_one(sql, &[tenant.as_str().into(), most.into()])?;
    row.map_or(Ok(0), |row| row.number("live"))
}

/// Deletes sandboxes that ended before `ended_before_ms`, with their events, at most `limit`, the oldest
/// first. Returns how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, ended_before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    // Ids begin with the time of their making, so that no index is needed, as for jobs.
    let made_before = SandboxId::from_parts(ended_before_ms, [0; 10]);
    let rows = tx.query(
        "SELECT id FROM sandbox WHERE id < $1 AND ended_at_ms < $2 ORDER BY id LIMIT $3",
        &[
            made_before.as_str().into(),
            ended_before_ms.into(),
            limit.into(),
        ],
    )?;
    delete(tx, &rows)
}

/// Deletes sandboxes of a tenant that ended before `ended_before_ms` and of which there are `keep` newer
/// ones, at most `limit`, the oldest first. Returns how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune_beyond(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    keep: u32,
    ended_before_ms: u64,
    limit: u32,
) -> Result<u64, StoreError> {
    let newest = tx.query_one(
        "SELECT created_at_ms, id FROM sandbox WHERE tenant = $1 \
         ORDER BY created_at_ms DESC, id DESC LIMIT 1 OFFSET $2",
        &[tenant.as_str().into(), keep.into()],
    )?;
    let Some(newest) = newest else { return Ok(0) };
    let made_ms = newest.number("created_at_ms")?;
    let rows = tx.query(
        "SELECT id FROM sandbox WHERE tenant = $1 AND (created_at_ms < $2 \
         OR (created_at_ms = $3 AND id <= $4)) AND ended_at_ms < $5 \
         ORDER BY created_at_ms, id LIMIT $6",
        &[
            tenant.as_str().into(),
            made_ms.into(),
            made_ms.into(),
            newest.text("id")?.into(),
            ended_before_ms.into(),
            limit.into(),
        ],
    )?;
    delete(tx, &rows)
}

fn delete(tx: &mut Tx<'_>, rows: &[Row]) -> Result<u64, StoreError> {
    let mut deleted = 0;
    for row in rows {
        let id: [Value; 1] = [row.text("id")?.into()];
        let sql = "DELETE FROM sandbox WHERE id = $1 AND ended_at_ms IS NOT NULL";
        if tx.execute(sql, &id)? == 1 {
            exec::prune(tx, &row.parsed("id")?, u64::MAX)?;
            tx.execute("DELETE FROM sandbox_volume WHERE sandbox = $1", &id)?;
            egress::prune(tx, &row.text("id")?, u64::MAX)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Tenants that have sandboxes, by name after `after`, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tenants(
    tx: &mut Tx<'_>,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantId>, StoreError> {
    let sql = "SELECT tenant FROM sandbox WHERE tenant > $1 ORDER BY tenant LIMIT 1";
    crate::prune::tenants_of(tx, sql, after, limit)
}
