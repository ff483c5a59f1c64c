//! Snapshots: saved file systems of sandboxes.

use crate::db::to_json;
use crate::{Row, StoreError, Tx, Value, event};
use model::id::{NodeId, PrincipalId, SandboxId, SnapshotId, TenantId};
use model::sandbox_spec::SandboxSpec;
use model::snapshot::{SnapshotName, SnapshotState};

/// A snapshot as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Its name for programs.
    pub id: SnapshotId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Where it is.
    pub state: SnapshotState,
    /// How often it was changed, from 1.
    pub version: u64,
    /// What it is kept for.
    pub purpose: Purpose,
    /// The sandbox that it is a copy of.
    pub sandbox: SandboxId,
    /// The node that has its bytes.
    pub node: NodeId,
    /// The snapshot that its sandbox began with.
    pub parent: Option<SnapshotId>,
    /// All that it stands on, the oldest first, and itself as the last.
    pub layers: Vec<SnapshotId>,
    /// What it is called.
    pub name: Option<SnapshotName>,
    /// What its sandbox was asked to be.
    pub spec: SandboxSpec,
    /// The bytes of its own layer, once it is ready.
    pub bytes: Option<u64>,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// When it was ready.
    pub ready_at_ms: Option<u64>,
    /// When it was deleted or failed.
    pub ended_at_ms: Option<u64>,
}

/// What a snapshot is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody wants it; it stays until somebody wants it gone.
    Kept,
    /// To make some sandboxes once. Nobody sees it.
    Fork,
    /// Builds of profiles stand on it. Nobody sees it, and it goes with the last of them.
    Build,
}

impl Purpose {
    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Kept => "kept",
            Purpose::Fork => "fork",
            Purpose::Build => "build",
        }
    }
}

/// A snapshot that is new. It begins as `saving`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its name.
    pub id: SnapshotId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asks for it.
    pub principal: PrincipalId,
    /// What it is kept for.
    pub purpose: Purpose,
    /// The sandbox that is copied.
    pub sandbox: SandboxId,
    /// The node that has it.
    pub node: NodeId,
    /// What it is called.
    pub name: Option<SnapshotName>,
    /// What its sandbox was asked to be.
    pub spec: SandboxSpec,
    /// Now.
    pub at_ms: u64,
}

/// A change of a snapshot, with the event that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChange {
    /// The next state.
    pub state: SnapshotState,
    /// The event, such as `snapshot.ready`.
    pub kind: &'static str,
    /// More for the event, a JSON object.
    pub data: String,
    /// Who does it.
    pub principal: PrincipalId,
    /// Now.
    pub at_ms: u64,
    /// Known when it is ready.
    pub bytes: Option<u64>,
}

/// Which snapshots are asked for, of those that are not deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotFilter {
    /// Only this one.
    pub id: Option<SnapshotId>,
    /// Only copies of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Only those with this name.
    pub name: Option<String>,
    /// Only those with this tag.
    pub tag: Option<String>,
    /// Only those that sandboxes can begin with.
    pub ready: bool,
}

/// All columns; every query names them, so that a column that is added is not read by accident.
macro_rules! columns {
    () => {
        "id, tenant, principal, state, state_json, version, purpose, sandbox, node, parent, layers, \
         name, tag, spec, bytes, created_at_ms, ready_at_ms, ended_at_ms"
    };
}

fn from_row(row: &Row) -> Result<SnapshotRow, StoreError> {
    let state: SnapshotState = row.json("state_json")?;
    let id: SnapshotId = row.parsed("id")?;
    let corrupt = |what: &str| StoreError::Corrupt {
        what: format!("the {what} of {id}"),
    };
    if state.name() != row.text("state")? {
        return Err(corrupt("state"));
    }
    let purposes = [Purpose::Kept, Purpose::Fork, Purpose::Build];
    let purpose = row.text("purpose")?;
    let purpose = purposes.into_iter().find(|one| one.name() == purpose);
    let parent = row.text_or_null("parent")?.map(|id| id.parse()).transpose();
    let name = row.text_or_null("name")?.zip(row.text_or_null("tag")?);
    Ok(SnapshotRow {
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        version: row.number("version")?,
        purpose: purpose.ok_or_else(|| corrupt("purpose"))?,
        sandbox: row.parsed("sandbox")?,
        node: row.parsed("node")?,
        parent: parent.map_err(|_| corrupt("parent"))?,
        layers: row.json("layers")?,
        name: name.map(|(name, tag)| SnapshotName { name, tag }),
        spec: row.json("spec")?,
        bytes: row.number_or_null("bytes")?,
        created_at_ms: row.number("created_at_ms")?,
        ready_at_ms: row.number_or_null("ready_at_ms")?,
        ended_at_ms: row.number_or_null("ended_at_ms")?,
        state,
        id,
    })
}

fn rows(rows: &[Row]) -> Result<Vec<SnapshotRow>, StoreError> {
    rows.iter().map(from_row).collect()
}

fn ids(rows: &[Row]) -> Result<Vec<SnapshotId>, StoreError> {
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// Adds a snapshot and its first event.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &NewSnapshot) -> Result<SnapshotRow, StoreError> {
    let row = row_of(new);
    let (name, tag) = row.name.as_ref().map(|n| (&*n.name, &*n.tag)).unzip();
    tx.execute(
        "INSERT INTO snapshot (id, tenant, principal, state, state_json, version, purpose, sandbox, \
         node, parent, layers, name, tag, spec, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        &[
            row.id.as_str().into(),
            row.tenant.as_str().into(),
            row.principal.as_str().into(),
            row.state.name().into(),
            to_json(&row.state)?.into(),
            row.purpose.name().into(),
            row.sandbox.as_str().into(),
            row.node.as_str().into(),
            row.parent.as_ref().map(SnapshotId::as_str).into(),
            to_json(&row.layers)?.into(),
            name.into(),
            tag.into(),
            to_json(&row.spec)?.into(),
            row.created_at_ms.into(),
        ],
    )?;
    append(tx, &row, "snapshot.saving", "{}", &new.principal, new.at_ms)?;
    Ok(row)
}

fn row_of(new: &NewSnapshot) -> SnapshotRow {
    let parent = new.spec.snapshot().cloned();
    let below = new.spec.layers.iter().cloned();
    SnapshotRow {
        id: new.id.clone(),
        tenant: new.tenant.clone(),
        principal: new.principal.clone(),
        state: SnapshotState::Saving,
        version: 1,
        purpose: new.purpose,
        sandbox: new.sandbox.clone(),
        node: new.node.clone(),
        parent,
        layers: below.chain([new.id.clone()]).collect(),
        name: new.name.clone(),
        spec: new.spec.clone(),
        bytes: None,
        created_at_ms: new.at_ms,
        ready_at_ms: None,
        ended_at_ms: None,
    }
}

fn append(
    tx: &mut Tx<'_>,
    row: &SnapshotRow,
    kind: &str,
    data: &str,
    principal: &PrincipalId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let new = event::NewEvent {
        tenant: &row.tenant,
        resource: "snapshot",
        resource_id: row.id.as_str(),
        version: row.version,
        kind,
        data,
        principal,
        at_ms,
    };
    event::append(tx, &new)
}

/// A snapshot; with a tenant, only if it is that tenant's.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    id: &SnapshotId,
) -> Result<Option<SnapshotRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM snapshot WHERE id = $1");
    let row = tx.query_one(sql, &[id.as_str().into()])?;
    let row = row.as_ref().map(from_row).transpose()?;
    Ok(row.filter(|row| tenant.is_none_or(|tenant| *tenant == row.tenant)))
}

/// The same, and nobody changes it until this transaction ends: whoever wants it gone waits for whoever
/// begins with it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn lock(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &SnapshotId,
) -> Result<Option<SnapshotRow>, StoreError> {
    if tx.has_row_locks() {
        let sql = "SELECT id FROM snapshot WHERE id = $1 FOR UPDATE";
        tx.query(sql, &[id.as_str().into()])?;
    }
    get(tx, Some(tenant), id)
}

/// The newest ready snapshot that is called so.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn named(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    name: &SnapshotName,
) -> Result<Option<SnapshotRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM snapshot WHERE tenant = $1 AND name = $2 AND tag = $3 AND name IS NOT NULL \
         AND state = 'ready' ORDER BY created_at_ms DESC, id DESC LIMIT 1"
    );
    let (name, tag) = (name.name.as_str(), name.tag.as_str());
    let row = tx.query_one(sql, &[tenant.as_str().into(), name.into(), tag.into()])?;
    row.as_ref().map(from_row).transpose()
}

/// Snapshots of a tenant that somebody keeps, newest first; those made before `before`, and of these the
/// ones that the filter asks for.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    filter: &SnapshotFilter,
    before: Option<(u64, &SnapshotId)>,
    limit: u32,
) -> Result<Vec<SnapshotRow>, StoreError> {
    let (before_ms, before_id) = before.map_or((u64::MAX, ""), |(ms, id)| (ms, id.as_str()));
    let state = if filter.ready { "ready" } else { "" };
    let id = filter.id.as_ref().map_or("", SnapshotId::as_str);
    let sandbox = filter.sandbox.as_ref().map_or("", SandboxId::as_str);
    let name = filter.name.as_deref().unwrap_or_default();
    let tag = filter.tag.as_deref().unwrap_or_default();
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM snapshot WHERE tenant = $1 AND (created_at_ms < $2 OR (created_at_ms = $3 \
         AND id < $4)) AND purpose = 'kept' AND state <> 'deleted' AND ($5 = '' OR state = $6) \
         AND ($7 = '' OR sandbox = $8) AND ($9 = '' OR name = $10) AND ($11 = '' OR tag = $12) \
         AND ($13 = '' OR id = $14) ORDER BY created_at_ms DESC, id DESC LIMIT $15"
    );
    let mut values: Vec<Value> = vec![
        tenant.as_str().into(),
        before_ms.into(),
        before_ms.into(),
        before_id.into(),
    ];
    for text in [state, sandbox, name, tag, id] {
        values.extend([text.into(), text.into()]);
    }
    values.push(limit.into());
    rows(&tx.query(sql, &values)?)
}

/// Writes the next state of a snapshot, if nobody has changed it since `row` was read, with its event.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn move_to(
    tx: &mut Tx<'_>,
    row: &SnapshotRow,
    change: &SnapshotChange,
) -> Result<SnapshotRow, StoreError> {
    let next = after(row, change);
    let changed = tx.execute(
        "UPDATE snapshot SET state = $1, state_json = $2, version = $3, bytes = $4, \
         ready_at_ms = $5, ended_at_ms = $6 WHERE id = $7 AND version = $8 AND state = $9",
        &[
            next.state.name().into(),
            to_json(&next.state)?.into(),
            next.version.into(),
            next.bytes.into(),
            next.ready_at_ms.into(),
            next.ended_at_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
            row.state.name().into(),
        ],
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

/// The row after a change.
fn after(row: &SnapshotRow, change: &SnapshotChange) -> SnapshotRow {
    let at = Some(change.at_ms);
    let mut next = SnapshotRow {
        state: change.state.clone(),
        version: row.version + 1,
        bytes: change.bytes.or(row.bytes),
        ..row.clone()
    };
    match &change.state {
        SnapshotState::Ready => next.ready_at_ms = at,
        SnapshotState::Deleted | SnapshotState::Failed { .. } => next.ended_at_ms = at,
        // One that had failed may have left something, and its node is asked.
        SnapshotState::Saving | SnapshotState::Deleting => next.ended_at_ms = None,
    }
    next
}

/// How many snapshots of a tenant are not gone, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, tenant: &TenantId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM (SELECT 1 FROM snapshot WHERE tenant = $1 \
               AND ended_at_ms IS NULL LIMIT $2) AS counted";
    counted(tx, sql, tenant.as_str(), most)
}

/// How many copies of a sandbox are not gone, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_of(tx: &mut Tx<'_>, sandbox: &SandboxId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM (SELECT 1 FROM snapshot WHERE sandbox = $1 \
               AND ended_at_ms IS NULL LIMIT $2) AS counted";
    counted(tx, sql, sandbox.as_str(), most)
}

/// How many snapshots a node has bytes of, or may have, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_on(tx: &mut Tx<'_>, node: &NodeId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM (SELECT 1 FROM snapshot WHERE node = $1 \
               AND ended_at_ms IS NULL LIMIT $2) AS counted";
    counted(tx, sql, node.as_str(), most)
}

fn counted(tx: &mut Tx<'_>, sql: &'static str, of: &str, most: u64) -> Result<u64, StoreError> {
    let row = tx.query_one(sql, &[of.into(), most.into()])?;
    row.map_or(Ok(0), |row| row.number("there"))
}

/// The snapshots of which a node has bytes, or may have.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn on_node(tx: &mut Tx<'_>, node: &NodeId, limit: u32) -> Result<Vec<SnapshotId>, StoreError> {
    let sql =
        "SELECT id FROM snapshot WHERE node = $1 AND ended_at_ms IS NULL ORDER BY id LIMIT $2";
    ids(&tx.query(sql, &[node.as_str().into(), limit.into()])?)
}

/// Snapshots that are to go and on which nothing stands any more: no other snapshot, no sandbox, and no
/// copying that is still under way.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn removable(
    tx: &mut Tx<'_>,
    node: &NodeId,
    limit: u32,
) -> Result<Vec<SnapshotId>, StoreError> {
    let sql = "SELECT id FROM snapshot WHERE state = 'deleting' AND node = $1 \
               AND NOT EXISTS (SELECT 1 FROM snapshot AS child WHERE child.parent = snapshot.id \
               AND child.parent IS NOT NULL AND child.ended_at_ms IS NULL) \
               AND NOT EXISTS (SELECT 1 FROM sandbox WHERE sandbox.snapshot = snapshot.id \
               AND sandbox.snapshot IS NOT NULL AND sandbox.ended_at_ms IS NULL) \
               AND NOT EXISTS (SELECT 1 FROM sandbox WHERE sandbox.id = snapshot.sandbox \
               AND sandbox.state = 'snapshotting') ORDER BY id LIMIT $2";
    ids(&tx.query(sql, &[node.as_str().into(), limit.into()])?)
}

/// Snapshots that were made for a fork before `before_ms` and that nobody has given back.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn old_forks(
    tx: &mut Tx<'_>,
    before_ms: u64,
    limit: u32,
) -> Result<Vec<SnapshotId>, StoreError> {
    let sql = "SELECT id FROM snapshot WHERE purpose = 'fork' AND state = 'ready' \
               AND created_at_ms < $1 ORDER BY created_at_ms LIMIT $2";
    ids(&tx.query(sql, &[before_ms.into(), limit.into()])?)
}

/// Snapshots that were made for builds and that no build names any more.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn without_build(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<SnapshotId>, StoreError> {
    let sql = "SELECT id FROM snapshot WHERE purpose = 'build' AND state = 'ready' AND NOT EXISTS \
               (SELECT 1 FROM build WHERE build.snapshot = snapshot.id AND build.snapshot IS NOT NULL \
               AND build.state <> 'failed') ORDER BY id LIMIT $1";
    ids(&tx.query(sql, &[limit.into()])?)
}

/// Whether a build that has not failed names a snapshot. Asked when nobody else can change the snapshot.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn has_build(tx: &mut Tx<'_>, id: &SnapshotId) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM build WHERE snapshot = $1 AND snapshot IS NOT NULL \
               AND state <> 'failed' LIMIT 1";
    Ok(tx.query_one(sql, &[id.as_str().into()])?.is_some())
}

/// Snapshots that are to go and whose node is not known any more: nobody will say that they are gone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn without_node(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<SnapshotId>, StoreError> {
    let sql = "SELECT id FROM snapshot WHERE state = 'deleting' AND NOT EXISTS \
               (SELECT 1 FROM node WHERE node.id = snapshot.node) ORDER BY id LIMIT $1";
    ids(&tx.query(sql, &[limit.into()])?)
}

/// Forgets snapshots that ended before `ended_before_ms`, with their events, at most `limit`. Returns how
/// many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, ended_before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    // Ids begin with the time of their making, so that no index is needed, as for sandboxes.
    let made_before = SnapshotId::from_parts(ended_before_ms, [0; 10]);
    let rows = tx.query(
        "SELECT id FROM snapshot WHERE id < $1 AND ended_at_ms < $2 ORDER BY id LIMIT $3",
        &[
            made_before.as_str().into(),
            ended_before_ms.into(),
            limit.into(),
        ],
    )?;
    for row in &rows {
        let id: [Value; 1] = [row.text("id")?.into()];
        tx.execute(
            "DELETE FROM snapshot WHERE id = $1 AND ended_at_ms IS NOT NULL",
            &id,
        )?;
    }
    Ok(rows.len() as u64)
}
