//! Output of jobs, in pieces.

use crate::{Row, StoreError, Tx};
use model::id::JobId;

/// A piece of one output stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its place in the order of arrival, from 1.
    pub seq: u64,
    /// Of which attempt.
    pub attempt: u32,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Where it starts in the stream.
    pub offset_bytes: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// When it arrived.
    pub at_ms: u64,
}

/// Whether a piece was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It was.
    New,
    /// The same piece is there already.
    Duplicate,
}

fn from_row(row: &Row) -> Result<Segment, StoreError> {
    Ok(Segment {
        seq: row.number("seq")?,
        attempt: u32::try_from(row.number("attempt")?).unwrap_or(u32::MAX),
        stream: row.text("stream")?,
        offset_bytes: row.number("offset_bytes")?,
        data: row.bytes("data")?,
        at_ms: row.number("at_ms")?,
    })
}

/// Adds a piece of the attempt that some node has now; its `seq` is given here.
///
/// # Errors
/// [`StoreError::Conflict`] when other bytes are there, [`StoreError::Stale`] when no node has this
/// attempt any more, or [`StoreError`] of the database.
pub fn append(tx: &mut Tx<'_>, job: &JobId, new: &Segment) -> Result<Appended, StoreError> {
    lock(tx, job, new.attempt)?;
    let there = tx.query_one(
        "SELECT seq, attempt, stream, offset_bytes, data, at_ms FROM output_segment \
         WHERE job_id = $1 AND attempt = $2 AND stream = $3 AND offset_bytes = $4",
        &[
            job.as_str().into(),
            new.attempt.into(),
            (*new.stream).into(),
            new.offset_bytes.into(),
        ],
    )?;
    if let Some(row) = there {
        let same = from_row(&row)?.data == new.data;
        let what = format!("output of {job} at {}", new.offset_bytes);
        return if same {
            Ok(Appended::Duplicate)
        } else {
            Err(StoreError::Conflict { what })
        };
    }
    let sql = "SELECT COALESCE(MAX(seq), 0) AS last FROM output_segment WHERE job_id = $1";
    let last = tx.query_one(sql, &[job.as_str().into()])?;
    let last = last.map_or(Ok(0), |row| row.number("last"))?;
    tx.execute(
        "INSERT INTO output_segment (job_id, seq, attempt, stream, offset_bytes, data, at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            job.as_str().into(),
            (last + 1).into(),
            new.attempt.into(),
            (*new.stream).into(),
            new.offset_bytes.into(),
            new.data.clone().into(),
            new.at_ms.into(),
        ],
    )?;
    Ok(Appended::New)
}

/// Keeps all others from adding to this job's output, and its state as it is, until the transaction
/// ends. Otherwise two streams would take the same `seq`, or a later one would be seen before an earlier
/// one and a reader's cursor would pass over it, or a piece would come after the job's end.
fn lock(tx: &mut Tx<'_>, job: &JobId, attempt: u32) -> Result<(), StoreError> {
    let sql = if tx.has_row_locks() {
        "SELECT id FROM job WHERE id = $1 AND attempt = $2 \
         AND state IN ('leased', 'running', 'stopping') FOR UPDATE"
    } else {
        "SELECT id FROM job WHERE id = $1 AND attempt = $2 \
         AND state IN ('leased', 'running', 'stopping')"
    };
    let row = tx.query_one(sql, &[job.as_str().into(), attempt.into()])?;
    row.map(drop).ok_or_else(|| StoreError::Stale {
        what: format!("the output of {job}"),
    })
}

/// Pieces of a job after `after`, in the order of arrival.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    job: &JobId,
    after: u64,
    limit: u32,
) -> Result<Vec<Segment>, StoreError> {
    let rows = tx.query(
        "SELECT seq, attempt, stream, offset_bytes, data, at_ms FROM output_segment \
         WHERE job_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        &[job.as_str().into(), after.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// Bytes that are kept of an attempt of a job.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn bytes(tx: &mut Tx<'_>, job: &JobId, attempt: u32) -> Result<u64, StoreError> {
    let sql = "SELECT CAST(COALESCE(SUM(LENGTH(data)), 0) AS BIGINT) AS kept \
               FROM output_segment WHERE job_id = $1 AND attempt = $2";
    let row = tx.query_one(sql, &[job.as_str().into(), attempt.into()])?;
    row.map_or(Ok(0), |row| row.number("kept"))
}
