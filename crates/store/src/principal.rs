//! Who acts, where somebody has let them in.

use crate::{Row, StoreError, Tx, quota};
use model::id::{PrincipalId, TenantId};
use model::principal::{PrincipalKind, Role};
use model::quota::Whose;

/// A principal of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalRow {
    /// Whose.
    pub tenant: TenantId,
    /// Its name with its kind, such as `user:alice`; one of a kind in the tenant.
    pub id: PrincipalId,
    /// What acts.
    pub kind: PrincipalKind,
    /// What it may.
    pub role: Role,
    /// Who let it in.
    pub principal: PrincipalId,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
}

pub(crate) fn kind_of(row: &Row) -> Result<PrincipalKind, StoreError> {
    let text = row.text("kind")?;
    PrincipalKind::parse(&text).ok_or(StoreError::Corrupt {
        what: "the kind of a principal".to_owned(),
    })
}

pub(crate) fn role_of(row: &Row) -> Result<Role, StoreError> {
    let text = row.text("role")?;
    Role::parse(&text).ok_or(StoreError::Corrupt {
        what: "the role of a principal".to_owned(),
    })
}

fn from_row(row: &Row) -> Result<PrincipalRow, StoreError> {
    Ok(PrincipalRow {
        tenant: row.parsed("tenant")?,
        id: row.parsed("id")?,
        kind: kind_of(row)?,
        role: role_of(row)?,
        principal: row.parsed("principal")?,
        created_at_ms: row.number("created_at_ms")?,
    })
}

/// Adds a principal.
///
/// # Errors
/// [`StoreError`] of the database; also when there is one of this name.
pub fn insert(tx: &mut Tx<'_>, row: &PrincipalRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO principal (tenant, id, kind, role, principal, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            row.tenant.as_str().into(),
            row.id.as_str().into(),
            row.kind.as_str().into(),
            row.role.as_str().into(),
            row.principal.as_str().into(),
            row.created_at_ms.into(),
        ],
    )
    .map(drop)
}

/// A principal of a tenant.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &str,
) -> Result<Option<PrincipalRow>, StoreError> {
    let row = tx.query_one(
        "SELECT tenant, id, kind, role, principal, created_at_ms FROM principal \
         WHERE tenant = $1 AND id = $2",
        &[tenant.as_str().into(), id.into()],
    )?;
    row.as_ref().map(from_row).transpose()
}

/// Principals of a tenant by id, those after `after`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: &str,
    limit: u32,
) -> Result<Vec<PrincipalRow>, StoreError> {
    let rows = tx.query(
        "SELECT tenant, id, kind, role, principal, created_at_ms FROM principal \
         WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3",
        &[tenant.as_str().into(), after.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// How many principals a tenant has.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS n FROM principal WHERE tenant = $1";
    let row = tx.query_one(sql, &[tenant.as_str().into()])?;
    row.map_or(Ok(0), |row| row.number("n"))
}

/// Deletes a principal with its keys and its quota. What it has made stays.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, tenant: &TenantId, id: &PrincipalId) -> Result<(), StoreError> {
    let of = [tenant.as_str().into(), id.as_str().into()];
    quota::delete(tx, tenant, &Whose::Principal(id.clone()))?;
    tx.execute("DELETE FROM api_key WHERE tenant = $1 AND owner = $2", &of)?;
    tx.execute("DELETE FROM principal WHERE tenant = $1 AND id = $2", &of)
        .map(drop)
}
