//! Who owns things.

use crate::{Row, StoreError, Tx, quota};
use model::id::{PrincipalId, TenantId};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name for programs; never given again.
    pub id: TenantId,
    /// Its name for people, one of a kind.
    pub name: String,
    /// Who made it.
    pub principal: PrincipalId,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
}

fn from_row(row: &Row) -> Result<TenantRow, StoreError> {
    Ok(TenantRow {
        id: row.parsed("id")?,
        name: row.text("name")?,
        principal: row.parsed("principal")?,
        created_at_ms: row.number("created_at_ms")?,
    })
}

/// Adds a tenant; `false` when the name is taken.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, row: &TenantRow) -> Result<bool, StoreError> {
    let added = tx.execute(
        "INSERT INTO tenant (id, name, principal, created_at_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
        &[
            row.id.as_str().into(),
            (*row.name).into(),
            row.principal.as_str().into(),
            row.created_at_ms.into(),
        ],
    )?;
    Ok(added == 1)
}

/// Whether a tenant is there, and stays so until this transaction ends: whoever deletes it waits, and then sees what
/// was added to it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn stays(tx: &mut Tx<'_>, id: &TenantId) -> Result<bool, StoreError> {
    let sql = match tx.has_row_locks() {
        true => "SELECT id FROM tenant WHERE id = $1 FOR SHARE",
        false => "SELECT id FROM tenant WHERE id = $1",
    };
    Ok(tx.query_one(sql, &[id.as_str().into()])?.is_some())
}

/// The same, and nobody adds a principal to it or sends one away until this transaction ends.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn alone(tx: &mut Tx<'_>, id: &TenantId) -> Result<bool, StoreError> {
    let sql = match tx.has_row_locks() {
        true => "SELECT id FROM tenant WHERE id = $1 FOR UPDATE",
        false => "SELECT id FROM tenant WHERE id = $1",
    };
    Ok(tx.query_one(sql, &[id.as_str().into()])?.is_some())
}

/// A tenant, by its id or its name, which cannot be mistaken for each other.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(tx: &mut Tx<'_>, name_or_id: &str) -> Result<Option<TenantRow>, StoreError> {
    let row = tx.query_one(
        "SELECT id, name, principal, created_at_ms FROM tenant WHERE id = $1 OR name = $2",
        &[name_or_id.into(), name_or_id.into()],
    )?;
    row.as_ref().map(from_row).transpose()
}

/// Tenants by id, those after `after`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(tx: &mut Tx<'_>, after: &str, limit: u32) -> Result<Vec<TenantRow>, StoreError> {
    let rows = tx.query(
        "SELECT id, name, principal, created_at_ms FROM tenant WHERE id > $1 ORDER BY id LIMIT $2",
        &[after.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// How many tenants there are.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    let row = tx.query_one("SELECT COUNT(*) AS n FROM tenant", &[])?;
    row.map_or(Ok(0), |row| row.number("n"))
}

/// Deletes a tenant with its principals, their keys, and all quotas. From the outside in: each statement waits for
/// whoever adds to what it deletes, and the next one sees what was added.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, id: &TenantId) -> Result<(), StoreError> {
    quota::delete_all(tx, id)?;
    let id = [id.as_str().into()];
    tx.execute("DELETE FROM tenant WHERE id = $1", &id)?;
    tx.execute("DELETE FROM principal WHERE tenant = $1", &id)?;
    tx.execute("DELETE FROM principal_removed WHERE tenant = $1", &id)?;
    tx.execute("DELETE FROM approval WHERE tenant = $1", &id)?;
    tx.execute("DELETE FROM api_key WHERE tenant = $1", &id)
        .map(drop)
}

/// Whether a tenant has a job that has not ended.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn has_open_job(tx: &mut Tx<'_>, id: &TenantId) -> Result<bool, StoreError> {
    let row = tx.query_one(
        "SELECT id FROM job WHERE tenant = $1 AND state IN ('awaiting_approval', 'queued', 'leased', \
         'running', 'stopping') LIMIT 1",
        &[id.as_str().into()],
    )?;
    Ok(row.is_some())
}
