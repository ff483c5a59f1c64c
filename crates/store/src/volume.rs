//! Volumes: named directories that outlive sandboxes, and which sandboxes have them.

use crate::{Row, StoreError, Tx, Value, event};
use model::id::{NodeId, PrincipalId, SandboxId, TenantId, VolumeId};
use model::volume::VolumeState;

/// A volume as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRow {
    /// Its name for programs.
    pub id: VolumeId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Its name for people; one of a kind among those of the tenant that are not to go.
    pub name: String,
    /// Where it is.
    pub state: VolumeState,
    /// How often it was changed, from 1.
    pub version: u64,
    /// The node that has its bytes.
    pub node: NodeId,
    /// What it holds at most.
    pub size_bytes: u64,
    /// The sandbox that serves its content, or did last.
    pub server: Option<SandboxId>,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// When a sandbox had it first. Since then its node must have its bytes.
    pub made_at_ms: Option<u64>,
    /// When it was deleted.
    pub ended_at_ms: Option<u64>,
}

/// All columns; every query names them, so that a column that is added is not read by accident.
macro_rules! columns {
    () => {
        "id, tenant, principal, name, state, version, node, size_bytes, server, created_at_ms, \
         made_at_ms, ended_at_ms"
    };
}

fn from_row(row: &Row) -> Result<VolumeRow, StoreError> {
    let id: VolumeId = row.parsed("id")?;
    let corrupt = |what: &str| StoreError::Corrupt {
        what: format!("the {what} of {id}"),
    };
    let state = row.text("state")?;
    let state = VolumeState::ALL.into_iter().find(|one| one.name() == state);
    let server = row.text_or_null("server")?.map(|id| id.parse()).transpose();
    Ok(VolumeRow {
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        name: row.text("name")?,
        state: state.ok_or_else(|| corrupt("state"))?,
        version: row.number("version")?,
        node: row.parsed("node")?,
        size_bytes: row.number("size_bytes")?,
        server: server.map_err(|_| corrupt("server"))?,
        created_at_ms: row.number("created_at_ms")?,
        made_at_ms: row.number_or_null("made_at_ms")?,
        ended_at_ms: row.number_or_null("ended_at_ms")?,
        id,
    })
}

fn ids(rows: &[Row]) -> Result<Vec<VolumeId>, StoreError> {
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// Adds a volume and its first event.
///
/// # Errors
/// [`StoreError::Stale`] when its name was taken meanwhile, or [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, row: &VolumeRow) -> Result<(), StoreError> {
    let added = tx.execute(
        "INSERT INTO volume (id, tenant, principal, name, state, version, node, size_bytes, \
         created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        &[
            row.id.as_str().into(),
            row.tenant.as_str().into(),
            row.principal.as_str().into(),
            (*row.name).into(),
            row.state.name().into(),
            row.version.into(),
            row.node.as_str().into(),
            row.size_bytes.into(),
            row.created_at_ms.into(),
        ],
    )?;
    if added != 1 {
        return Err(stale(row));
    }
    append(tx, row, "volume.created", &row.principal, row.created_at_ms)
}

fn stale(row: &VolumeRow) -> StoreError {
    StoreError::Stale {
        what: row.id.to_string(),
    }
}

fn append(
    tx: &mut Tx<'_>,
    row: &VolumeRow,
    kind: &str,
    principal: &PrincipalId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let new = event::NewEvent {
        tenant: &row.tenant,
        resource: "volume",
        resource_id: row.id.as_str(),
        version: row.version,
        kind,
        data: "{}",
        principal,
        at_ms,
    };
    event::append(tx, &new)
}

/// A volume by its id, whatever its state; with a tenant, only if it is that tenant's.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    id: &VolumeId,
) -> Result<Option<VolumeRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM volume WHERE id = $1");
    let row = tx.query_one(sql, &[id.as_str().into()])?;
    let row = row.as_ref().map(from_row).transpose()?;
    Ok(row.filter(|row| tenant.is_none_or(|tenant| *tenant == row.tenant)))
}

/// The volume that is called so now.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn named(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    name: &str,
) -> Result<Option<VolumeRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM volume WHERE tenant = $1 AND name = $2 AND state = 'created'"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), name.into()])?;
    row.as_ref().map(from_row).transpose()
}

/// A volume by its id, and nobody changes it until this transaction ends: whoever wants it gone waits for
/// whoever begins with it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn lock(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &VolumeId,
) -> Result<Option<VolumeRow>, StoreError> {
    if tx.has_row_locks() {
        let sql = "SELECT id FROM volume WHERE id = $1 FOR UPDATE";
        tx.query(sql, &[id.as_str().into()])?;
    }
    get(tx, Some(tenant), id)
}

/// Volumes of a tenant that are not to go, by name, those after the name `after`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: &str,
    limit: u32,
) -> Result<Vec<VolumeRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM volume WHERE tenant = $1 AND state = 'created' AND name > $2 ORDER BY name LIMIT $3"
    );
    let rows = tx.query(sql, &[tenant.as_str().into(), after.into(), limit.into()])?;
    rows.iter().map(from_row).collect()
}

/// How many volumes of a tenant are not gone, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, tenant: &TenantId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM (SELECT 1 FROM volume WHERE tenant = $1 \
               AND ended_at_ms IS NULL LIMIT $2) AS counted";
    counted(tx, sql, tenant.as_str(), most)
}

/// How many volumes a node has bytes of, or may have, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_on(tx: &mut Tx<'_>, node: &NodeId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM (SELECT 1 FROM volume WHERE node = $1 \
               AND ended_at_ms IS NULL LIMIT $2) AS counted";
    counted(tx, sql, node.as_str(), most)
}

fn counted(tx: &mut Tx<'_>, sql: &'static str, of: &str, most: u64) -> Result<u64, StoreError> {
    let row = tx.query_one(sql, &[of.into(), most.into()])?;
    row.map_or(Ok(0), |row| row.number("there"))
}

/// Writes the next state of a volume, if nobody has changed it since `row` was read, with its event.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn move_to(
    tx: &mut Tx<'_>,
    row: &VolumeRow,
    state: VolumeState,
    principal: &PrincipalId,
    at_ms: u64,
) -> Result<VolumeRow, StoreError> {
    let (kind, ended_at_ms) = match state {
        VolumeState::Created => ("volume.created", None),
        VolumeState::Deleting => ("volume.deleting", None),
        VolumeState::Deleted => ("volume.deleted", Some(at_ms)),
    };
    let next = VolumeRow {
        state,
        version: row.version + 1,
        ended_at_ms,
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE volume SET state = $1, version = $2, ended_at_ms = $3 \
         WHERE id = $4 AND version = $5 AND state = $6",
        &[
            next.state.name().into(),
            next.version.into(),
            next.ended_at_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
            row.state.name().into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(row));
    }
    append(tx, &next, kind, principal, at_ms)?;
    Ok(next)
}

/// A sandbox has it from now on, also one that is not made yet.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn use_in(tx: &mut Tx<'_>, id: &VolumeId, sandbox: &SandboxId) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO sandbox_volume (volume, sandbox) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        &[id.as_str().into(), sandbox.as_str().into()],
    )
    .map(drop)
}

/// The sandboxes that have it and are not on their way out, at most `limit`. The one that serves its
/// content is none of them.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn users(tx: &mut Tx<'_>, row: &VolumeRow, limit: u32) -> Result<Vec<SandboxId>, StoreError> {
    let rows = tx.query(
        "SELECT sandbox.id AS id FROM sandbox_volume \
         JOIN sandbox ON sandbox.id = sandbox_volume.sandbox WHERE sandbox_volume.volume = $1 \
         AND sandbox.ended_at_ms IS NULL AND sandbox.state <> 'destroying' \
         AND sandbox.spec NOT LIKE '{\"profile\":\"volume\",\"serves_volume\":true%' ORDER BY sandbox.id LIMIT $2",
        &[row.id.as_str().into(), limit.into()],
    )?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// The sandbox that serves its content.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn set_server(tx: &mut Tx<'_>, id: &VolumeId, sandbox: &SandboxId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE volume SET server = $1 WHERE id = $2 AND state = 'created'",
        &[sandbox.as_str().into(), id.as_str().into()],
    )
    .map(drop)
}

/// A sandbox stands that has them: their node has their bytes.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn made(tx: &mut Tx<'_>, sandbox: &SandboxId, at_ms: u64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE volume SET made_at_ms = $1 WHERE made_at_ms IS NULL AND id IN \
         (SELECT volume FROM sandbox_volume WHERE sandbox = $2)",
        &[at_ms.into(), sandbox.as_str().into()],
    )
    .map(drop)
}

/// The volumes of which a node has bytes, or may have.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn on_node(tx: &mut Tx<'_>, node: &NodeId, limit: u32) -> Result<Vec<VolumeId>, StoreError> {
    let sql = "SELECT id FROM volume WHERE node = $1 AND ended_at_ms IS NULL ORDER BY id LIMIT $2";
    ids(&tx.query(sql, &[node.as_str().into(), limit.into()])?)
}

/// Volumes of a node that are to go and that no sandbox has any more.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn removable(tx: &mut Tx<'_>, node: &NodeId, limit: u32) -> Result<Vec<VolumeRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM volume WHERE state = 'deleting' AND node = $1 AND ended_at_ms IS NULL \
         AND NOT EXISTS (SELECT 1 FROM sandbox_volume \
         JOIN sandbox ON sandbox.id = sandbox_volume.sandbox \
         WHERE sandbox_volume.volume = volume.id AND sandbox.ended_at_ms IS NULL) \
         ORDER BY id LIMIT $2"
    );
    let rows = tx.query(sql, &[node.as_str().into(), limit.into()])?;
    rows.iter().map(from_row).collect()
}

/// Volumes that are to go and whose node is not known any more: nobody will say that they are gone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn without_node(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<VolumeRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM volume WHERE state = 'deleting' AND ended_at_ms IS NULL AND NOT EXISTS \
         (SELECT 1 FROM node WHERE node.id = volume.node) ORDER BY id LIMIT $1"
    );
    let rows = tx.query(sql, &[limit.into()])?;
    rows.iter().map(from_row).collect()
}

/// Forgets volumes that were deleted before `ended_before_ms`, with their events, at most `limit`. Returns
/// how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, ended_before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    let rows = tx.query(
        "SELECT id FROM volume WHERE ended_at_ms IS NOT NULL AND ended_at_ms < $1 LIMIT $2",
        &[ended_before_ms.into(), limit.into()],
    )?;
    for row in &rows {
        let id: [Value; 1] = [row.text("id")?.into()];
        tx.execute("DELETE FROM volume WHERE id = $1", &id)?;
        tx.execute("DELETE FROM sandbox_volume WHERE volume = $1", &id)?;
    }
    Ok(rows.len() as u64)
}
