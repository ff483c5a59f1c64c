//! What was run in sandboxes that live on. Each command is a row by its number in the sandbox; how it ended
//! is added once. What was asked and how it ended are JSON of the doors, which nobody here reads.

use crate::event::NewEvent;
use crate::{Row, StoreError, Tx, event};
use model::id::{PrincipalId, SandboxId, TenantId};

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command.
    Exec,
    /// Code in a context.
    Step,
    /// A gap.
    Missed,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Exec, Kind::Step, Kind::Missed];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Exec => "exec",
            Kind::Step => "step",
            Kind::Missed => "missed",
        }
    }
}

/// A command, or a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRow {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its number there.
    pub seq: u64,
    /// What it is.
    pub kind: Kind,
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
    /// When its sandbox ended, if it has; not written with the row.
    pub over_at_ms: Option<u64>,
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
pub fn insert(tx: &mut Tx<'_>, tenant: &TenantId, row: &ExecRow) -> Result<bool, StoreError> {
    let inserted = tx.execute(
        "INSERT INTO exec (tenant, kind, sandbox_id, seq, started_at_ms, ended_at_ms, started, ended, \
         missed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        &[
            tenant.as_str().into(),
            row.kind.name().into(),
            row.sandbox.as_str().into(),
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

/// Ends what has no end, nobody knows how: the place in which it ran is gone. Returns the last number that a
/// command of the sandbox has, 0 when there is none.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn close(tx: &mut Tx<'_>, sandbox: &SandboxId, at_ms: u64) -> Result<u64, StoreError> {
    let sql = "UPDATE exec SET ended_at_ms = $1 WHERE sandbox_id = $2 AND ended_at_ms IS NULL";
    tx.execute(sql, &[at_ms.into(), sandbox.as_str().into()])?;
    let sql = "SELECT COALESCE(MAX(seq), 0) AS last FROM exec WHERE sandbox_id = $1";
    let row = tx.query_one(sql, &[sandbox.as_str().into()])?;
    row.map_or(Ok(0), |row| row.number("last"))
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

/// What all lists read.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT exec.sandbox_id, exec.kind, exec.seq, exec.started_at_ms, exec.ended_at_ms, \
             exec.started, exec.ended, exec.missed, sandbox.ended_at_ms AS over_at_ms \
             FROM exec LEFT JOIN sandbox ON sandbox.id = exec.sandbox_id WHERE ",
            $rest
        )
    };
}

/// Rows of a sandbox with numbers below `before`, of one kind or of all, the newest first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    sandbox: &SandboxId,
    kind: Option<Kind>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<ExecRow>, StoreError> {
    let kind = kind.map_or("", Kind::name);
    let rows = tx.query(
        select!(
            "exec.sandbox_id = $1 AND exec.seq < $2 AND ($3 = '' OR exec.kind = $4) \
             ORDER BY exec.seq DESC LIMIT $5"
        ),
        &[
            sandbox.as_str().into(),
            before.unwrap_or(u64::MAX).into(),
            kind.into(),
            kind.into(),
            limit.into(),
        ],
    )?;
    rows.iter().map(from_row).collect()
}

/// Where a page of all sandboxes goes on: after the row of this time, sandbox and number.
pub type Before<'b> = (u64, &'b SandboxId, u64);

/// Rows of one kind of all sandboxes of a tenant, the newest first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn of_tenant(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    kind: Kind,
    before: Option<Before<'_>>,
    limit: u32,
) -> Result<Vec<ExecRow>, StoreError> {
    let (ms, sandbox, seq) =
        before.map_or((u64::MAX, "", 0), |(ms, id, seq)| (ms, id.as_str(), seq));
    let rows = tx.query(
        select!(
            "exec.tenant = $1 AND exec.kind = $2 \
             AND (exec.started_at_ms, exec.sandbox_id, exec.seq) < ($3, $4, $5) \
             ORDER BY exec.started_at_ms DESC, exec.sandbox_id DESC, exec.seq DESC LIMIT $6"
        ),
        &[
            tenant.as_str().into(),
            kind.name().into(),
            ms.into(),
            sandbox.into(),
            seq.into(),
            limit.into(),
        ],
    )?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<ExecRow, StoreError> {
    let kind = row.text("kind")?;
    let kind = Kind::ALL.into_iter().find(|one| one.name() == kind);
    Ok(ExecRow {
        sandbox: row.parsed("sandbox_id")?,
        kind: kind.ok_or_else(|| StoreError::Corrupt {
            what: "the kind of a command".to_owned(),
        })?,
        over_at_ms: row.number_or_null("over_at_ms")?,
        seq: row.number("seq")?,
        started_at_ms: row.number("started_at_ms")?,
        ended_at_ms: row.number_or_null("ended_at_ms")?,
        started: row.text_or_null("started")?,
        ended: row.text_or_null("ended")?,
        missed: row.number_or_null("missed")?,
    })
}

/// Deletes rows of a sandbox up to this number.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, sandbox: &SandboxId, up_to: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM exec WHERE sandbox_id = $1 AND seq <= $2";
    tx.execute(sql, &[sandbox.as_str().into(), up_to.into()])
        .map(drop)
}
