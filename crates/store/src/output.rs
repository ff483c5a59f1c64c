//! Output of jobs, in pieces.

use crate::{Row, StoreError, Tx};
use model::id::JobId;
use model::node::PROTOCOL_DECLARED_GAPS;

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

/// Adds a piece of the attempt that some node has now; its `seq` is given here. Directly before it, the node says,
/// at most `dropped_bytes` of the stream are missing for good. A node of a protocol in which that cannot be said may
/// begin anywhere.
///
/// # Errors
/// [`StoreError::Conflict`] when other bytes are there, [`StoreError::Hole`] when it begins before the end of what is
/// stored of its stream or later than was said, [`StoreError::Stale`] when no node has this attempt any more, or
/// [`StoreError`] of the database.
pub fn append(
    tx: &mut Tx<'_>,
    job: &JobId,
    new: &Segment,
    dropped_bytes: u64,
) -> Result<Appended, StoreError> {
    let speaks = lock(tx, job, new.attempt)?;
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
    let (last, ends) = so_far(tx, job, new)?;
    let declares = speaks.is_some_and(|speaks| speaks >= u64::from(PROTOCOL_DECLARED_GAPS));
    if declares && !goes_on(ends, new.offset_bytes, dropped_bytes) {
        let (stream, begins) = (&new.stream, new.offset_bytes);
        let what = format!(
            "a piece of {stream} begins at {begins} with {dropped_bytes} bytes dropped before it, and what is stored \
             of {stream} ends at {ends}"
        );
        return Err(StoreError::Hole { what });
    }
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

/// Whether a piece that begins there goes on where its stream ends, but for what was dropped directly before it. It
/// may have been less: of a piece whose answer did not come, the node does not know whether it is stored. Pure.
fn goes_on(ends: u64, begins: u64, dropped_bytes: u64) -> bool {
    begins
        .checked_sub(ends)
        .is_some_and(|missing| missing <= dropped_bytes)
}

/// The last `seq` of the job, and where what is stored of this stream ends.
fn so_far(tx: &mut Tx<'_>, job: &JobId, new: &Segment) -> Result<(u64, u64), StoreError> {
    let row = tx.query_one(
        "SELECT COALESCE((SELECT offset_bytes + LENGTH(data) FROM output_segment \
         WHERE job_id = $1 AND attempt = $2 AND stream = $3 ORDER BY offset_bytes DESC LIMIT 1), 0) AS ends, \
         COALESCE(MAX(seq), 0) AS last FROM output_segment WHERE job_id = $4",
        &[
            job.as_str().into(),
            new.attempt.into(),
            (*new.stream).into(),
            job.as_str().into(),
        ],
    )?;
    row.map_or(Ok((0, 0)), |row| {
        Ok((row.number("last")?, row.number("ends")?))
    })
}

/// Keeps all others from adding to this job's output, and its state as it is, until the transaction
/// ends. Otherwise two streams would take the same `seq`, or a later one would be seen before an earlier
/// one and a reader's cursor would pass over it, or a piece would come after the job's end. Says which protocol
/// the node speaks that has it, where that is known.
fn lock(tx: &mut Tx<'_>, job: &JobId, attempt: u32) -> Result<Option<u64>, StoreError> {
    let sql = if tx.has_row_locks() {
        "SELECT (SELECT protocol FROM node WHERE node.id = job.node) AS speaks FROM job \
         WHERE id = $1 AND attempt = $2 AND state IN ('leased', 'running', 'stopping') FOR UPDATE"
    } else {
        "SELECT (SELECT protocol FROM node WHERE node.id = job.node) AS speaks FROM job \
         WHERE id = $1 AND attempt = $2 AND state IN ('leased', 'running', 'stopping')"
    };
    let row = tx.query_one(sql, &[job.as_str().into(), attempt.into()])?;
    let row = row.ok_or_else(|| StoreError::Stale {
        what: format!("the output of {job}"),
    })?;
    row.number_or_null("speaks")
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
