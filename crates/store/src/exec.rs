//! What was run in sandboxes that live on. Each command is a row by its number in the sandbox; how it ended
//! is added once. What was asked and how it ended are JSON of the doors, which nobody here reads.

use crate::event::NewEvent;
use crate::{Row, StoreError, Tx, Value, event};
use model::id::{PrincipalId, SandboxId, TenantId};

/// A command, or a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRow {
    /// Its number in the sandbox.
    pub seq: u64,
    /// When it was asked for.
    pub started_at_ms: u64,
    /// When it ended; a gap has ended from the start.
    pub ended_at_ms: Option<u64>,
    /// What was asked; none for a gap.
    pub started: Option<String>,
    /// How it ended.
    pub ended: Option<String>,
    /// How many facts are missing; none for a command.
    pub missed: Option<u64>,
}

/// Whose it is, and who says so.
#[derive(Debug, Clone)]
pub struct Of {
    /// Whose the sandbox is.
    pub tenant: TenantId,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Who tells it.
    pub principal: PrincipalId,
    /// Now.
    pub at_ms: u64,
}

/// Adds a row. False when there is one of that number.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, sandbox: &SandboxId, row: &ExecRow) -> Result<bool, StoreError> {
    let inserted = tx.execute(
        "INSERT INTO exec (sandbox_id, seq, started_at_ms, ended_at_ms, started, ended, missed) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        &[
            sandbox.as_str().into(),
            row.seq.into(),
            row.started_at_ms.into(),
            row.ended_at_ms.into(),
            row.started.clone().into(),
            row.ended.clone().into(),
            row.missed.into(),
        ],
    )?;
    Ok(inserted == 1)
}

/// Adds how a command ended. False when that is known, or there is no such command.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn end(
    tx: &mut Tx<'_>,
    sandbox: &SandboxId,
    seq: u64,
    ended_at_ms: u64,
    ended: &str,
) -> Result<bool, StoreError> {
    let ended = tx.execute(
        "UPDATE exec SET ended_at_ms = $1, ended = $2 \
         WHERE sandbox_id = $3 AND seq = $4 AND ended_at_ms IS NULL",
        &[
            ended_at_ms.into(),
            ended.into(),
            sandbox.as_str().into(),
            seq.into(),
        ],
    )?;
    Ok(ended == 1)
}

/// Adds the event of a row, of which each has one.
///
/// # Errors
/// [`StoreError`] of the database; also when the row has an event already.
pub fn tell(tx: &mut Tx<'_>, of: &Of, seq: u64, kind: &str, data: &str) -> Result<(), StoreError> {
    event::append(
        tx,
        &NewEvent {
            tenant: &of.tenant,
            resource: "exec",
            resource_id: &name(&of.sandbox, seq),
            version: 1,
            kind,
            data,
            principal: &of.principal,
            at_ms: of.at_ms,
        },
    )
}

/// How events know a row: names of one sandbox are in the order of their numbers.
fn name(sandbox: &SandboxId, seq: u64) -> String {
    format!("{sandbox}/{seq:020}")
}

/// Rows of a sandbox with numbers below `before`, the newest first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    sandbox: &SandboxId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<ExecRow>, StoreError> {
    let rows = tx.query(
        "SELECT seq, started_at_ms, ended_at_ms, started, ended, missed FROM exec \
         WHERE sandbox_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
        &[
            sandbox.as_str().into(),
            before.unwrap_or(u64::MAX).into(),
            limit.into(),
        ],
    )?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<ExecRow, StoreError> {
    Ok(ExecRow {
        seq: row.number("seq")?,
        started_at_ms: row.number("started_at_ms")?,
        ended_at_ms: row.number_or_null("ended_at_ms")?,
        started: row.text_or_null("started")?,
        ended: row.text_or_null("ended")?,
        missed: row.number_or_null("missed")?,
    })
}

/// Deletes rows of a sandbox up to this number, with their events.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, sandbox: &SandboxId, up_to: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM exec WHERE sandbox_id = $1 AND seq <= $2";
    let gone = tx.execute(sql, &[sandbox.as_str().into(), up_to.into()])?;
    if gone == 0 {
        return Ok(());
    }
    let names: [Value; 2] = [name(sandbox, 0).into(), name(sandbox, up_to).into()];
    let sql = "DELETE FROM event_inbox WHERE resource = 'exec' AND resource_id >= $1 \
               AND resource_id <= $2";
    tx.execute(sql, &names).map(drop)
}
