//! Files that were kept of jobs.

use crate::{Row, StoreError, Tx};
use model::id::{ArtifactId, JobId, PrincipalId, TenantId};

/// A file that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRow {
    /// Its name.
    pub id: ArtifactId,
    /// Of which job.
    pub job_id: JobId,
    /// Of which attempt.
    pub attempt: u32,
    /// Where it was, inside the sandbox.
    pub path: String,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// How many.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// When it was kept.
    pub created_at_ms: u64,
}

fn from_row(row: &Row) -> Result<ArtifactRow, StoreError> {
    let small = |column: &str| -> Result<u32, StoreError> {
        let corrupt = |_| StoreError::Corrupt {
            what: format!("column {column} of an artifact"),
        };
        u32::try_from(row.number(column)?).map_err(corrupt)
    };
    Ok(ArtifactRow {
        id: row.parsed("id")?,
        job_id: row.parsed("job_id")?,
        attempt: small("attempt")?,
        path: row.text("path")?,
        digest: row.text("digest")?,
        size_bytes: row.number("size_bytes")?,
        mode: small("mode")?,
        created_at_ms: row.number("created_at_ms")?,
    })
}

/// Adds a file of a job of `tenant` that `principal` asked for. One that an earlier try of the same report has added is given back instead.
///
/// # Errors
/// [`StoreError::Conflict`] when another file of this path is there, or [`StoreError`] of the database.
pub fn insert(
    tx: &mut Tx<'_>,
    new: &ArtifactRow,
    (tenant, principal): (&TenantId, &PrincipalId),
) -> Result<ArtifactRow, StoreError> {
    let added = tx.execute(
        "INSERT INTO artifact (id, job_id, attempt, path, digest, size_bytes, mode, \
         created_at_ms, tenant, principal) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT DO NOTHING",
        &[
            new.id.as_str().into(),
            new.job_id.as_str().into(),
            new.attempt.into(),
            (*new.path).into(),
            (*new.digest).into(),
            new.size_bytes.into(),
            new.mode.into(),
            new.created_at_ms.into(),
            tenant.as_str().into(),
            principal.as_str().into(),
        ],
    )?;
    if added == 1 {
        return Ok(new.clone());
    }
    let row = tx.query_one(
        "SELECT id, job_id, attempt, path, digest, size_bytes, mode, created_at_ms FROM artifact \
         WHERE job_id = $1 AND attempt = $2 AND path = $3",
        &[
            new.job_id.as_str().into(),
            new.attempt.into(),
            (*new.path).into(),
        ],
    )?;
    let there = row.as_ref().map(from_row).transpose()?;
    let what = format!("artifact {} of {}", new.path, new.job_id);
    there
        .filter(|row| row.digest == new.digest)
        .ok_or(StoreError::Conflict { what })
}

/// Files of a job's last attempt, by path.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(tx: &mut Tx<'_>, job: &JobId, attempt: u32) -> Result<Vec<ArtifactRow>, StoreError> {
    let rows = tx.query(
        "SELECT id, job_id, attempt, path, digest, size_bytes, mode, created_at_ms FROM artifact \
         WHERE job_id = $1 AND attempt = $2 ORDER BY path",
        &[job.as_str().into(), attempt.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// One file of a job.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    job: &JobId,
    id: &ArtifactId,
) -> Result<Option<ArtifactRow>, StoreError> {
    let row = tx.query_one(
        "SELECT id, job_id, attempt, path, digest, size_bytes, mode, created_at_ms FROM artifact \
         WHERE id = $1 AND job_id = $2",
        &[id.as_str().into(), job.as_str().into()],
    )?;
    row.as_ref().map(from_row).transpose()
}

/// Whether any job has kept a file of these bytes.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn is_kept(tx: &mut Tx<'_>, digest: &str) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM artifact WHERE digest = $1 LIMIT 1";
    Ok(!tx.query(sql, &[digest.into()])?.is_empty())
}
