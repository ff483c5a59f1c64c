//! Keys: texts that stand for a principal, of which only digests are here.

use crate::db::to_json;
use crate::principal::{kind_of, role_of};
use crate::{Row, StoreError, Tx, principal, tenant};
use model::access::Scopes;
use model::id::{KeyId, PrincipalId, TenantId};
use model::principal::{PrincipalKind, Role};

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its name for programs.
    pub id: KeyId,
    /// Whose.
    pub tenant: TenantId,
    /// For whom it stands.
    pub owner: PrincipalId,
    /// Its name for people.
    pub name: String,
    /// How its text begins.
    pub prefix: String,
    /// What it is narrowed to.
    pub scopes: Scopes,
    /// Who made it.
    pub made_by: PrincipalId,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Until when it counts.
    pub expires_at_ms: Option<u64>,
    /// When it was used last, give or take a minute.
    pub used_at_ms: Option<u64>,
}

/// Digests of the texts of a key, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDigests {
    /// SHA-256 of its text.
    pub own: String,
    /// SHA-256 of the form of it that E2B's clients take.
    pub e2b: String,
}

/// A key, and for whom it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOwner {
    /// The key.
    pub key: KeyRow,
    /// What its owner is.
    pub kind: PrincipalKind,
    /// What its owner may.
    pub role: Role,
}

macro_rules! columns {
    () => {
        "api_key.id, api_key.tenant, api_key.owner, api_key.name, api_key.prefix, api_key.scopes, \
         api_key.principal, api_key.created_at_ms, api_key.expires_at_ms, api_key.used_at_ms"
    };
}

fn from_row(row: &Row) -> Result<KeyRow, StoreError> {
    let scopes: Vec<String> = row.json("scopes")?;
    let corrupt = |_| StoreError::Corrupt {
        what: "the scopes of a key".to_owned(),
    };
    Ok(KeyRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        owner: row.parsed("owner")?,
        name: row.text("name")?,
        prefix: row.text("prefix")?,
        // A key must not be wider than it was written because this program does not know a scope.
        scopes: Scopes::parse(scopes.iter().map(String::as_str)).map_err(corrupt)?,
        made_by: row.parsed("principal")?,
        created_at_ms: row.number("created_at_ms")?,
        expires_at_ms: row.number_or_null("expires_at_ms")?,
        used_at_ms: row.number_or_null("used_at_ms")?,
    })
}

/// Adds a key; `false` when its tenant or its owner is gone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, row: &KeyRow, digests: &KeyDigests) -> Result<bool, StoreError> {
    // In this order, which is that of whoever deletes a tenant.
    if !tenant::stays(tx, &row.tenant)? || !principal::stays(tx, &row.tenant, &row.owner)? {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO api_key (id, tenant, owner, name, prefix, digest, e2b_digest, scopes, principal, \
         created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            row.id.as_str().into(),
            row.tenant.as_str().into(),
            row.owner.as_str().into(),
            (*row.name).into(),
            (*row.prefix).into(),
            (*digests.own).into(),
            (*digests.e2b).into(),
            to_json(&row.scopes.texts())?.into(),
            row.made_by.as_str().into(),
            row.created_at_ms.into(),
            row.expires_at_ms.into(),
        ],
    )?;
    Ok(true)
}

/// The key with one of these digests, and its owner; of a principal or a tenant that is gone there is none.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn of_digest(tx: &mut Tx<'_>, digest: &str) -> Result<Option<KeyOwner>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        ", principal.kind, principal.role FROM api_key JOIN principal \
         ON principal.tenant = api_key.tenant AND principal.id = api_key.owner \
         JOIN tenant ON tenant.id = api_key.tenant \
         WHERE api_key.digest = $1 OR api_key.e2b_digest = $2"
    );
    let Some(row) = tx.query_one(sql, &[digest.into(), digest.into()])? else {
        return Ok(None);
    };
    Ok(Some(KeyOwner {
        key: from_row(&row)?,
        kind: kind_of(&row)?,
        role: role_of(&row)?,
    }))
}

/// A key of a tenant.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(tx: &mut Tx<'_>, tenant: &TenantId, id: &KeyId) -> Result<Option<KeyRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM api_key WHERE tenant = $1 AND id = $2"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), id.as_str().into()])?;
    row.as_ref().map(from_row).transpose()
}

/// Keys of a tenant by id, which is the order in which they were made, those after `after`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: &str,
    limit: u32,
) -> Result<Vec<KeyRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM api_key WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3"
    );
    let rows = tx.query(sql, &[tenant.as_str().into(), after.into(), limit.into()])?;
    rows.iter().map(from_row).collect()
}

/// How many keys a tenant has.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS n FROM api_key WHERE tenant = $1";
    let row = tx.query_one(sql, &[tenant.as_str().into()])?;
    row.map_or(Ok(0), |row| row.number("n"))
}

/// Writes down when a key was used, if it is still there and nobody has said a later time.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn used(tx: &mut Tx<'_>, id: &KeyId, at_ms: u64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE api_key SET used_at_ms = $1 WHERE id = $2 AND (used_at_ms IS NULL OR used_at_ms < $3)",
        &[at_ms.into(), id.as_str().into(), at_ms.into()],
    )
    .map(drop)
}

/// Deletes a key.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, id: &KeyId) -> Result<(), StoreError> {
    let sql = "DELETE FROM api_key WHERE id = $1";
    tx.execute(sql, &[id.as_str().into()]).map(drop)
}

/// Deletes keys whose time was over before `ended_before_ms`, at most `limit`. Returns how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, ended_before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM api_key WHERE id IN (SELECT id FROM api_key WHERE expires_at_ms IS NOT NULL \
         AND expires_at_ms < $1 LIMIT $2)",
        &[ended_before_ms.into(), limit.into()],
    )
}
