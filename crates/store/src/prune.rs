//! What goes when it has been kept long enough, with everything that belongs to it but for its events: those are
//! the record of what happened, and go by their own time (see [`crate::audit::retire`]).

use crate::{StoreError, Tx, Value};
use model::id::{JobId, TenantId};
use std::collections::HashSet;

/// Deletes finished jobs that ended before `ended_before_ms`, at most `limit`, the oldest first. Returns
/// how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn jobs_older(tx: &mut Tx<'_>, ended_before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    // Ids begin with the time of their making, so that no index is needed: a job that ended before was
    // made before, and of those that were there are only a few that have not ended.
    let made_before = JobId::from_parts(ended_before_ms, [0; 10]);
    let rows = tx.query(
        "SELECT id FROM job WHERE id < $1 AND state = 'finished' AND finished_at_ms < $2 \
         ORDER BY id LIMIT $3",
        &[
            made_before.as_str().into(),
            ended_before_ms.into(),
            limit.into(),
        ],
    )?;
    rows.iter()
        .map(|row| delete_job(tx, &row.parsed("id")?))
        .sum()
}

/// Deletes finished jobs of a tenant that ended before `ended_before_ms` and of which there are `keep`
/// newer jobs, at most `limit`, the oldest first. Returns how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn jobs_beyond(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    keep: u32,
    ended_before_ms: u64,
    limit: u32,
) -> Result<u64, StoreError> {
    let newest = tx.query_one(
        "SELECT created_at_ms, id FROM job WHERE tenant = $1 \
         ORDER BY created_at_ms DESC, id DESC LIMIT 1 OFFSET $2",
        &[tenant.as_str().into(), keep.into()],
    )?;
    let Some(newest) = newest else { return Ok(0) };
    let (mut made_ms, mut id) = (newest.number("created_at_ms")?, newest.text("id")?);
    if made_ms >= ended_before_ms {
        // What ended before was made before, and nothing younger is to be passed.
        (made_ms, id) = (ended_before_ms, String::new());
    }
    let rows = tx.query(
        "SELECT id FROM job WHERE tenant = $1 AND (created_at_ms < $2 \
         OR (created_at_ms = $3 AND id <= $4)) AND state = 'finished' AND finished_at_ms < $5 \
         ORDER BY created_at_ms, id LIMIT $6",
        &[
            tenant.as_str().into(),
            made_ms.into(),
            made_ms.into(),
            id.into(),
            ended_before_ms.into(),
            limit.into(),
        ],
    )?;
    rows.iter()
        .map(|row| delete_job(tx, &row.parsed("id")?))
        .sum()
}

/// A finished job with all that belongs to it; the blobs of its files stay, because others may name them.
/// Returns how many jobs went.
fn delete_job(tx: &mut Tx<'_>, id: &JobId) -> Result<u64, StoreError> {
    let id: [Value; 1] = [id.as_str().into()];
    let deleted = tx.execute("DELETE FROM job WHERE id = $1 AND state = 'finished'", &id)?;
    if deleted == 1 {
        tx.execute("DELETE FROM output_segment WHERE job_id = $1", &id)?;
        tx.execute("DELETE FROM artifact WHERE job_id = $1", &id)?;
        tx.execute("DELETE FROM egress WHERE owner = $1", &id)?;
    }
    Ok(deleted)
}

/// Tenants that have jobs, by name after `after`, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tenants(
    tx: &mut Tx<'_>,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantId>, StoreError> {
    let sql = "SELECT tenant FROM job WHERE tenant > $1 ORDER BY tenant LIMIT 1";
    tenants_of(tx, sql, after, limit)
}

/// Tenants one by one, each with the statement that finds the next: one step of an index for each, where a
/// list of distinct ones would read all of it.
pub(crate) fn tenants_of(
    tx: &mut Tx<'_>,
    sql: &'static str,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantId>, StoreError> {
    let mut found: Vec<TenantId> = Vec::new();
    while found.len() < limit as usize {
        let last = found.last().or(after).map_or("", TenantId::as_str);
        match tx.query_one(sql, &[last.into()])? {
            Some(row) => found.push(row.parsed("tenant")?),
            None => break,
        }
    }
    Ok(found)
}

/// The digests of one part of the blobs, see [`crate::blob::Blobs::list`], that some row names.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn named_blobs(tx: &mut Tx<'_>, part: u8) -> Result<HashSet<String>, StoreError> {
    // A letter after the hexadecimal digits ends the part.
    let (from, to) = (format!("{part:02x}"), format!("{part:02x}g"));
    let artifacts = tx.query(
        "SELECT digest FROM artifact WHERE digest > $1 AND digest < $2",
        &[(*from).into(), (*to).into()],
    )?;
    let uploads = tx.query(
        "SELECT digest FROM upload WHERE digest > $1 AND digest < $2",
        &[from.into(), to.into()],
    )?;
    let rows = artifacts.iter().chain(&uploads);
    rows.map(|row| row.text("digest")).collect()
}
