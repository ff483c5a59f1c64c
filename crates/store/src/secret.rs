//! Secrets. Values come sealed and leave sealed; nothing here can open them.

use crate::db::to_json;
use crate::{Row, StoreError, Tx};
use model::id::{PrincipalId, SecretId, TenantId};
use model::secret::SecretSource;
use std::collections::BTreeMap;

/// What is known of a secret; never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name for programs; another secret of the same name later has another.
    pub id: SecretId,
    /// Whose.
    pub tenant: TenantId,
    /// Its name for people, one of a kind in the tenant.
    pub name: String,
    /// The newest version, from 1.
    pub version: u64,
    /// Of the row: one more with each event.
    pub revision: u64,
    /// Labels.
    pub metadata: BTreeMap<String, String>,
    /// Where the value of the newest version is, if it is not kept here. For people: what counts is sealed
    /// with the version.
    pub source: Option<SecretSource>,
    /// It came with a request and belongs to what was asked for: it is in no list, and goes when nothing uses it.
    pub given: bool,
    /// Who made it.
    pub principal: PrincipalId,
    /// When it was made.
    pub created_at_ms: u64,
    /// When its newest version was.
    pub updated_at_ms: u64,
}

/// A value, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which master key wraps the data key.
    pub key_id: String,
    /// The data key: nonce, ciphertext, tag.
    pub wrapped_key: Vec<u8>,
    /// The value, or where it is: nonce, ciphertext, tag.
    pub value: Vec<u8>,
    /// It says where the value is. Sealed as such, so that a value cannot pass for it.
    pub is_source: bool,
}

/// A sealed value and all that it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedVersion {
    /// Of which secret.
    pub secret: SecretRow,
    /// Which version.
    pub version: u64,
    /// The value.
    pub sealed: Sealed,
}

fn from_row(row: &Row) -> Result<SecretRow, StoreError> {
    Ok(SecretRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        name: row.text("name")?,
        version: row.number("version")?,
        revision: row.number("revision")?,
        metadata: row.json("metadata")?,
        source: row.json_or_null("source")?,
        given: row.number("given")? != 0,
        principal: row.parsed("principal")?,
        created_at_ms: row.number("created_at_ms")?,
        updated_at_ms: row.number("updated_at_ms")?,
    })
}

fn sealed_of(row: &Row) -> Result<Sealed, StoreError> {
    Ok(Sealed {
        key_id: row.text("key_id")?,
        wrapped_key: row.bytes("wrapped_key")?,
        value: row.bytes("sealed")?,
        is_source: row.number("is_source")? != 0,
    })
}

fn source_json(row: &SecretRow) -> Result<Option<String>, StoreError> {
    row.source.as_ref().map(to_json).transpose()
}

/// Adds a secret with its first version.
///
/// # Errors
/// [`StoreError::Stale`] when its name was taken meanwhile, or [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &SecretRow, sealed: &Sealed) -> Result<(), StoreError> {
    let added = tx.execute(
        "INSERT INTO secret (id, tenant, name, version, revision, metadata, source, given, principal, \
         created_at_ms, updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT DO NOTHING",
        &[
            new.id.as_str().into(),
            new.tenant.as_str().into(),
            (*new.name).into(),
            new.version.into(),
            new.revision.into(),
            to_json(&new.metadata)?.into(),
            source_json(new)?.into(),
            u64::from(new.given).into(),
            new.principal.as_str().into(),
            new.created_at_ms.into(),
            new.updated_at_ms.into(),
        ],
    )?;
    if added != 1 {
        return Err(stale(new));
    }
    insert_version(tx, new, sealed)
}

fn stale(row: &SecretRow) -> StoreError {
    StoreError::Stale {
        what: row.id.to_string(),
    }
}

fn insert_version(tx: &mut Tx<'_>, row: &SecretRow, sealed: &Sealed) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO secret_version (secret_id, version, key_id, wrapped_key, sealed, \
         is_source, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            row.id.as_str().into(),
            row.version.into(),
            (*sealed.key_id).into(),
            sealed.wrapped_key.clone().into(),
            sealed.value.clone().into(),
            u64::from(sealed.is_source).into(),
            row.updated_at_ms.into(),
        ],
    )
    .map(drop)
}

/// A secret of a tenant, by its name or its id, which cannot be mistaken for each other.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    name_or_id: &str,
) -> Result<Option<SecretRow>, StoreError> {
    let row = tx.query_one(
        "SELECT id, tenant, name, version, revision, metadata, source, given, principal, created_at_ms, \
         updated_at_ms FROM secret WHERE tenant = $1 AND (name = $2 OR id = $2)",
        &[tenant.as_str().into(), name_or_id.into()],
    )?;
    row.as_ref().map(from_row).transpose()
}

/// Secrets of a tenant by name, those after the name `after`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: &str,
    limit: u32,
) -> Result<Vec<SecretRow>, StoreError> {
    let rows = tx.query(
        "SELECT id, tenant, name, version, revision, metadata, source, given, principal, created_at_ms, \
         updated_at_ms FROM secret WHERE tenant = $1 AND given = 0 AND name > $2 ORDER BY name LIMIT $3",
        &[tenant.as_str().into(), after.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// How many secrets a tenant has; or how many that came with requests.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, tenant: &TenantId, given: bool) -> Result<u64, StoreError> {
    let row = tx.query_one(
        "SELECT COUNT(*) AS n FROM secret WHERE tenant = $1 AND given = $2",
        &[tenant.as_str().into(), u64::from(given).into()],
    )?;
    row.map_or(Ok(0), |row| row.number("n"))
}

/// How many secrets came with requests of one principal.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_given(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
) -> Result<u64, StoreError> {
    let row = tx.query_one(
        "SELECT COUNT(*) AS n FROM secret WHERE tenant = $1 AND given = 1 AND principal = $2",
        &[tenant.as_str().into(), principal.as_str().into()],
    )?;
    row.map_or(Ok(0), |row| row.number("n"))
}

/// Some that came with requests, the last time before this moment, and that no sandbox uses which is not over.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn unused(tx: &mut Tx<'_>, before_ms: u64, limit: u32) -> Result<Vec<SecretRow>, StoreError> {
    let rows = tx.query(
        "SELECT id, tenant, name, version, revision, metadata, source, given, principal, created_at_ms, \
         updated_at_ms FROM secret WHERE given = 1 AND created_at_ms < $1 AND updated_at_ms < $2 AND NOT EXISTS (SELECT 1 FROM sandbox \
         WHERE sandbox.tenant = secret.tenant AND sandbox.ended_at_ms IS NULL \
         AND (sandbox.spec LIKE '%' || secret.id || '%' OR sandbox.leaving LIKE '%' || secret.id || '%')) \
         ORDER BY created_at_ms, id LIMIT $3",
        &[before_ms.into(), before_ms.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// Writes what is new of a secret: its version, revision, metadata and time. `before` is as it was read.
///
/// # Errors
/// [`StoreError::Stale`] when it was changed since, or [`StoreError`] of the database.
pub fn update(
    tx: &mut Tx<'_>,
    before: &SecretRow,
    next: &SecretRow,
    sealed: Option<&Sealed>,
) -> Result<(), StoreError> {
    let changed = tx.execute(
        "UPDATE secret SET version = $1, revision = $2, metadata = $3, source = $4, \
         updated_at_ms = $5 WHERE id = $6 AND revision = $7",
        &[
            next.version.into(),
            next.revision.into(),
            to_json(&next.metadata)?.into(),
            source_json(next)?.into(),
            next.updated_at_ms.into(),
            before.id.as_str().into(),
            before.revision.into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(before));
    }
    sealed.map_or(Ok(()), |sealed| insert_version(tx, next, sealed))
}

/// Forgets versions of a secret before `version`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn forget_before(tx: &mut Tx<'_>, id: &SecretId, version: u64) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM secret_version WHERE secret_id = $1 AND version < $2",
        &[id.as_str().into(), version.into()],
    )
    .map(drop)
}

/// Deletes a secret with all its versions, if it was not changed since `row` was read. That one which came with a request
/// is used again is no revision of it, so the time counts too.
///
/// # Errors
/// [`StoreError::Stale`] when it was, or [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, row: &SecretRow) -> Result<(), StoreError> {
    let deleted = tx.execute(
        "DELETE FROM secret WHERE id = $1 AND revision = $2 AND updated_at_ms = $3",
        &[
            row.id.as_str().into(),
            row.revision.into(),
            row.updated_at_ms.into(),
        ],
    )?;
    if deleted != 1 {
        return Err(stale(row));
    }
    tx.execute(
        "DELETE FROM secret_version WHERE secret_id = $1",
        &[row.id.as_str().into()],
    )
    .map(drop)
}

/// One version of a secret.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn version(tx: &mut Tx<'_>, id: &SecretId, version: u64) -> Result<Option<Sealed>, StoreError> {
    let row = tx.query_one(
        "SELECT secret_id, key_id, wrapped_key, sealed, is_source FROM secret_version \
         WHERE secret_id = $1 AND version = $2",
        &[id.as_str().into(), version.into()],
    )?;
    row.as_ref().map(sealed_of).transpose()
}

/// Some versions whose data key is not wrapped by the master key `key_id`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn not_of_key(
    tx: &mut Tx<'_>,
    key_id: &str,
    limit: u32,
) -> Result<Vec<SealedVersion>, StoreError> {
    let rows = tx.query(
        "SELECT secret.id, tenant, name, secret.version, revision, metadata, source, given, principal, \
         secret.created_at_ms, updated_at_ms, secret_version.version AS of_version, key_id, \
         wrapped_key, sealed, is_source FROM secret_version JOIN secret ON secret.id = secret_id \
         WHERE key_id <> $1 ORDER BY secret_id, secret_version.version LIMIT $2",
        &[key_id.into(), limit.into()],
    )?;
    let one = |row: &Row| {
        Ok(SealedVersion {
            secret: from_row(row)?,
            version: row.number("of_version")?,
            sealed: sealed_of(row)?,
        })
    };
    rows.iter().map(one).collect()
}

/// Writes the data key of a version, wrapped by another master key.
///
/// # Errors
/// [`StoreError::Stale`] when somebody else did, or [`StoreError`] of the database.
pub fn rewrap(
    tx: &mut Tx<'_>,
    before: &SealedVersion,
    key_id: &str,
    wrapped_key: &[u8],
) -> Result<(), StoreError> {
    let changed = tx.execute(
        "UPDATE secret_version SET key_id = $1, wrapped_key = $2 \
         WHERE secret_id = $3 AND version = $4 AND key_id = $5",
        &[
            key_id.into(),
            wrapped_key.to_vec().into(),
            before.secret.id.as_str().into(),
            before.version.into(),
            (*before.sealed.key_id).into(),
        ],
    )?;
    if changed == 1 {
        Ok(())
    } else {
        Err(stale(&before.secret))
    }
}
