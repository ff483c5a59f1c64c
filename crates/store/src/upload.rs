//! Blobs that somebody sent, to be named by a job.

use crate::{Row, StoreError, Tx};
use model::id::TenantId;

/// A blob that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Whose it is.
    pub tenant: TenantId,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// How many.
    pub size_bytes: u64,
    /// When it was sent last.
    pub created_at_ms: u64,
}

fn from_row(row: &Row) -> Result<UploadRow, StoreError> {
    Ok(UploadRow {
        tenant: row.parsed("tenant")?,
        digest: row.text("digest")?,
        size_bytes: row.number("size_bytes")?,
        created_at_ms: row.number("created_at_ms")?,
    })
}

/// Remembers a blob; one that was sent before is new again.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn put(tx: &mut Tx<'_>, new: &UploadRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO upload (tenant, digest, size_bytes, created_at_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant, digest) DO UPDATE SET created_at_ms = excluded.created_at_ms",
        &[
            new.tenant.as_str().into(),
            (*new.digest).into(),
            new.size_bytes.into(),
            new.created_at_ms.into(),
        ],
    )
    .map(drop)
}

/// A blob of a tenant.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    digest: &str,
) -> Result<Option<UploadRow>, StoreError> {
    let row = tx.query_one(
        "SELECT tenant, digest, size_bytes, created_at_ms FROM upload \
         WHERE tenant = $1 AND digest = $2",
        &[tenant.as_str().into(), digest.into()],
    )?;
    row.as_ref().map(from_row).transpose()
}

/// Blobs that were sent before `before_ms`, oldest first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn older(tx: &mut Tx<'_>, before_ms: u64, limit: u32) -> Result<Vec<UploadRow>, StoreError> {
    let rows = tx.query(
        "SELECT tenant, digest, size_bytes, created_at_ms FROM upload \
         WHERE created_at_ms < $1 ORDER BY created_at_ms LIMIT $2",
        &[before_ms.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// Forgets a blob, unless it was sent again after `before_ms`. Returns whether nobody else has sent it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn forget(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    digest: &str,
    before_ms: u64,
) -> Result<bool, StoreError> {
    tx.execute(
        "DELETE FROM upload WHERE tenant = $1 AND digest = $2 AND created_at_ms < $3",
        &[tenant.as_str().into(), digest.into(), before_ms.into()],
    )?;
    let sql = "SELECT digest FROM upload WHERE digest = $1 LIMIT 1";
    Ok(tx.query(sql, &[digest.into()])?.is_empty())
}
