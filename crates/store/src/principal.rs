//! Who acts, where somebody has let them in.

use crate::{Row, StoreError, Tx, quota, tenant};
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
    /// The issuer of tokens that has named it first, and alone speaks for it; absent where somebody let it in by hand.
    pub issuer: Option<String>,
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
        issuer: row.text_or_null("issuer")?,
        principal: row.parsed("principal")?,
        created_at_ms: row.number("created_at_ms")?,
    })
}

/// Adds a principal; `false` when there is one of this name, or its tenant is gone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, row: &PrincipalRow) -> Result<bool, StoreError> {
    if !tenant::stays(tx, &row.tenant)? {
        return Ok(false);
    }
    let added = tx.execute(
        "INSERT INTO principal (tenant, id, kind, role, issuer, principal, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        &[
            row.tenant.as_str().into(),
            row.id.as_str().into(),
            row.kind.as_str().into(),
            row.role.as_str().into(),
            row.issuer.as_deref().into(),
            row.principal.as_str().into(),
            row.created_at_ms.into(),
        ],
    )?;
    if added == 1 {
        is_back(tx, row)?;
    }
    Ok(added == 1)
}

/// Whoever is let in was not sent away any more.
fn is_back(tx: &mut Tx<'_>, row: &PrincipalRow) -> Result<(), StoreError> {
    let of = [row.tenant.as_str().into(), row.id.as_str().into()];
    let sql = "DELETE FROM principal_removed WHERE tenant = $1 AND id = $2";
    tx.execute(sql, &of).map(drop)
}

/// Whether a principal is there, and stays so until this transaction ends: whoever sends it away waits, and then sees
/// what was added to it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn stays(tx: &mut Tx<'_>, tenant: &TenantId, id: &PrincipalId) -> Result<bool, StoreError> {
    let sql = match tx.has_row_locks() {
        true => "SELECT id FROM principal WHERE tenant = $1 AND id = $2 FOR SHARE",
        false => "SELECT id FROM principal WHERE tenant = $1 AND id = $2",
    };
    let row = tx.query_one(sql, &[tenant.as_str().into(), id.as_str().into()])?;
    Ok(row.is_some())
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
        "SELECT tenant, id, kind, role, issuer, principal, created_at_ms FROM principal \
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
        "SELECT tenant, id, kind, role, issuer, principal, created_at_ms FROM principal \
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

/// Whether a tenant has somebody but this one who may let others in: an admin that is no agent.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn has_other_admin(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &PrincipalId,
) -> Result<bool, StoreError> {
    let row = tx.query_one(
        "SELECT id FROM principal WHERE tenant = $1 AND id <> $2 AND role = 'admin' \
         AND kind <> 'agent' LIMIT 1",
        &[tenant.as_str().into(), id.as_str().into()],
    )?;
    Ok(row.is_some())
}

/// Gives a principal another role, if it still has the one that was seen; `false` where it has not, or is gone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn set_role(tx: &mut Tx<'_>, seen: &PrincipalRow, role: Role) -> Result<bool, StoreError> {
    let changed = tx.execute(
        "UPDATE principal SET role = $1 WHERE tenant = $2 AND id = $3 AND role = $4",
        &[
            role.as_str().into(),
            seen.tenant.as_str().into(),
            seen.id.as_str().into(),
            seen.role.as_str().into(),
        ],
    )?;
    Ok(changed == 1)
}

/// Deletes a principal with its keys and its quota, itself first, so that a key that is made at this moment is seen, and writes down
/// that it was sent away. What it has made stays.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &PrincipalId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let of = [tenant.as_str().into(), id.as_str().into()];
    let gone = tx.execute("DELETE FROM principal WHERE tenant = $1 AND id = $2", &of)?;
    tx.execute("DELETE FROM api_key WHERE tenant = $1 AND owner = $2", &of)?;
    quota::delete(tx, tenant, &Whose::Principal(id.clone()))?;
    if gone == 0 {
        // It went just now, perhaps with its whole tenant, of which nothing is to be left behind.
        return Ok(());
    }
    tx.execute(
        "INSERT INTO principal_removed (tenant, id, removed_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant, id) DO NOTHING",
        &[tenant.as_str().into(), id.as_str().into(), at_ms.into()],
    )
    .map(drop)
}

/// Whether a principal was sent away, and not let in again.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn was_removed(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &PrincipalId,
) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM principal_removed WHERE tenant = $1 AND id = $2";
    let row = tx.query_one(sql, &[tenant.as_str().into(), id.as_str().into()])?;
    Ok(row.is_some())
}

/// How many principals of a tenant were sent away.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_removed(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS n FROM principal_removed WHERE tenant = $1";
    let row = tx.query_one(sql, &[tenant.as_str().into()])?;
    row.map_or(Ok(0), |row| row.number("n"))
}
