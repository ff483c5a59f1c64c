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

/// Adds a tenant.
///
/// # Errors
/// [`StoreError`] of the database; also when the name is taken.
pub fn insert(tx: &mut Tx<'_>, row: &TenantRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO tenant (id, name, principal, created_at_ms) VALUES ($1, $2, $3, $4)",
        &[
            row.id.as_str().into(),
            (*row.name).into(),
            row.principal.as_str().into(),
            row.created_at_ms.into(),
        ],
    )
    .map(drop)
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

/// Deletes a tenant with its principals, their keys, and all quotas.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, id: &TenantId) -> Result<(), StoreError> {
    quota::delete_all(tx, id)?;
    let id = [id.as_str().into()];
    tx.execute("DELETE FROM api_key WHERE tenant = $1", &id)?;
    tx.execute("DELETE FROM principal WHERE tenant = $1", &id)?;
    tx.execute("DELETE FROM approval WHERE tenant = $1", &id)?;
    tx.execute("DELETE FROM tenant WHERE id = $1", &id)
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
