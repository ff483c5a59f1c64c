//! Jobs.

use crate::db::to_json;
use crate::{Row, StoreError, Tx, Value, event, queue};
use model::enforcement::{Enforced, StreamReport, Usage};
use model::id::{JobId, NodeId, PrincipalId, SandboxId, TenantId};
use model::job::JobState;
use model::quota;
use model::spec::JobSpec;
use std::collections::HashMap;

/// A job as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its name.
    pub id: JobId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Where it is.
    pub state: JobState,
    /// How often it was changed, from 1.
    pub version: u64,
    /// How often it was leased, less what was given back unstarted.
    pub attempt: u32,
    /// Of its last lease.
    pub epoch: u64,
    /// What was asked.
    pub spec: JobSpec,
    /// Somebody asked it to end.
    pub cancel_requested: bool,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// When it was queued last.
    pub queued_at_ms: Option<u64>,
    /// When it was leased last.
    pub leased_at_ms: Option<u64>,
    /// When its command was let go last.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
    /// The node that has it, or had it last.
    pub node: Option<NodeId>,
    /// What isolates it.
    pub driver: Option<String>,
    /// The sandbox of its last attempt.
    pub sandbox_id: Option<SandboxId>,
    /// What is in force.
    pub enforcement: Vec<Enforced>,
    /// What it used.
    pub usage: Option<Usage>,
    /// More about its end, for a person.
    pub detail: Option<String>,
    /// Connections to the outside that its rules denied.
    pub egress_denied: u64,
    /// What became of standard output.
    pub stdout: Option<StreamReport>,
    /// What became of standard error.
    pub stderr: Option<StreamReport>,
    /// Of the report that ended it, to know it again.
    pub report_hash: Option<String>,
}

/// A job that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asks for it.
    pub principal: PrincipalId,
    /// Where it begins: `queued` or `awaiting_approval`.
    pub state: JobState,
    /// What is asked.
    pub spec: JobSpec,
    /// Now.
    pub at_ms: u64,
    /// Why no node that is known can have it, for its first event.
    pub why: Option<String>,
}

/// A change of a job: the next state, the event that says so, and what else is known by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobChange {
    /// The next state.
    pub state: JobState,
    /// The attempt after the change.
    pub attempt: u32,
    /// The event, such as `job.leased`.
    pub kind: &'static str,
    /// More for the event, a JSON object.
    pub data: String,
    /// Who does it.
    pub principal: PrincipalId,
    /// Now.
    pub at_ms: u64,
    /// Known at the start.
    pub driver: Option<String>,
    /// Known at the start.
    pub sandbox_id: Option<SandboxId>,
    /// Known at the start, or at the end.
    pub enforcement: Option<Vec<Enforced>>,
    /// Known at the end.
    pub end: Option<JobEnd>,
}

/// What is known of a job when it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobEnd {
    /// What it used.
    pub usage: Option<Usage>,
    /// For a person.
    pub detail: Option<String>,
    /// What became of standard output.
    pub stdout: Option<StreamReport>,
    /// What became of standard error.
    pub stderr: Option<StreamReport>,
    /// Of the report.
    pub report_hash: Option<String>,
}

/// What was told of a job after it had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateReport {
    /// The event.
    pub kind: &'static str,
    /// What was told, a JSON object.
    pub data: String,
    /// Who tells it.
    pub principal: PrincipalId,
    /// Now.
    pub at_ms: u64,
}

/// All columns; every query names them, so that a column that is added is not read by accident.
macro_rules! columns {
    () => {
        "id, tenant, principal, state, state_json, version, attempt, epoch, node, spec, \
         cancel_requested, created_at_ms, queued_at_ms, leased_at_ms, started_at_ms, \
         finished_at_ms, driver, sandbox_id, enforcement, usage_json, detail, egress_denied, stdout_json, \
         stderr_json, report_hash"
    };
}

fn from_row(row: &Row) -> Result<JobRow, StoreError> {
    let state: JobState = row.json("state_json")?;
    if state.name() != row.text("state")? {
        return Err(StoreError::Corrupt {
            what: format!("the state of {}", row.text("id")?),
        });
    }
    let optional_id =
        |column: &str| -> Result<Option<String>, StoreError> { row.text_or_null(column) };
    let corrupt = || StoreError::Corrupt {
        what: "an id of a job's row".to_owned(),
    };
    Ok(JobRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        state,
        version: row.number("version")?,
        attempt: u32::try_from(row.number("attempt")?).map_err(|_| corrupt())?,
        epoch: row.number("epoch")?,
        spec: row.json("spec")?,
        cancel_requested: row.number("cancel_requested")? != 0,
        created_at_ms: row.number("created_at_ms")?,
        queued_at_ms: row.number_or_null("queued_at_ms")?,
        leased_at_ms: row.number_or_null("leased_at_ms")?,
        started_at_ms: row.number_or_null("started_at_ms")?,
        finished_at_ms: row.number_or_null("finished_at_ms")?,
        node: optional_id("node")?
            .map(|id| id.parse())
            .transpose()
            .map_err(|_| corrupt())?,
        driver: row.text_or_null("driver")?,
        sandbox_id: optional_id("sandbox_id")?
            .map(|id| id.parse())
            .transpose()
            .map_err(|_| corrupt())?,
        enforcement: row.json_or_null("enforcement")?.unwrap_or_default(),
        usage: row.json_or_null("usage_json")?,
        detail: row.text_or_null("detail")?,
        egress_denied: row.number("egress_denied")?,
        stdout: row.json_or_null("stdout_json")?,
        stderr: row.json_or_null("stderr_json")?,
        report_hash: row.text_or_null("report_hash")?,
    })
}

/// Adds a job, its place in the queue if it is queued, and its first event.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &NewJob) -> Result<JobRow, StoreError> {
    let row = insert_unplaced(tx, new)?;
    if row.state == JobState::Queued {
        queue::insert(tx, &row)?;
    }
    Ok(row)
}

/// Adds a job and its first event, and no place in the queue: for one that the same transaction gives to
/// a node, so that no place is made only to be taken away. Otherwise [`queue::insert`] is to follow.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert_unplaced(tx: &mut Tx<'_>, new: &NewJob) -> Result<JobRow, StoreError> {
    let queued = (new.state == JobState::Queued).then_some(new.at_ms);
    let takes = quota::taken(&new.spec.limits);
    tx.send(
        "INSERT INTO job (id, tenant, principal, state, state_json, version, attempt, epoch, spec, \
         cancel_requested, created_at_ms, queued_at_ms, cpu_millis, memory_bytes, disk_bytes) \
         VALUES ($1, $2, $3, $4, $5, 1, 0, 0, $6, 0, $7, $8, $9, $10, $11)",
        &[
            new.id.as_str().into(),
            new.tenant.as_str().into(),
            new.principal.as_str().into(),
            new.state.name().into(),
            to_json(&new.state)?.into(),
            to_json(&new.spec)?.into(),
            new.at_ms.into(),
            queued.into(),
            takes.cpu_millis.into(),
            takes.memory_bytes.into(),
            takes.disk_bytes.into(),
        ],
    )?;
    let row = JobRow {
        id: new.id.clone(),
        tenant: new.tenant.clone(),
        principal: new.principal.clone(),
        state: new.state.clone(),
        version: 1,
        attempt: 0,
        epoch: 0,
        spec: new.spec.clone(),
        cancel_requested: false,
        created_at_ms: new.at_ms,
        queued_at_ms: queued,
        leased_at_ms: None,
        started_at_ms: None,
        finished_at_ms: None,
        node: None,
        driver: None,
        sandbox_id: None,
        enforcement: Vec::new(),
        usage: None,
        detail: None,
        egress_denied: 0,
        stdout: None,
        stderr: None,
        report_hash: None,
    };
    let kind = if queued.is_some() {
        "job.queued"
    } else {
        "job.awaiting_approval"
    };
    let data = match &new.why {
        Some(why) => serde_json::json!({"why": why}).to_string(),
        None => "{}".to_owned(),
    };
    event::append(tx, &event_of(&row, kind, &data, &new.principal, new.at_ms))?;
    Ok(row)
}

fn event_of<'e>(
    row: &'e JobRow,
    kind: &'e str,
    data: &'e str,
    principal: &'e PrincipalId,
    at_ms: u64,
) -> event::NewEvent<'e> {
    event::NewEvent {
        tenant: &row.tenant,
        resource: "job",
        resource_id: row.id.as_str(),
        version: row.version,
        kind,
        data,
        principal,
        at_ms,
    }
}

/// Adds an event of a job as it is now.
pub(crate) fn tell(
    tx: &mut Tx<'_>,
    row: &JobRow,
    kind: &str,
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<(), StoreError> {
    event::append(tx, &event_of(row, kind, "{}", principal, at_ms))
}

/// A job; with a tenant, only if it is that tenant's.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    id: &JobId,
) -> Result<Option<JobRow>, StoreError> {
    // Whatever changes a job counts on its version.
    let rows = tx.query_apart(ONE, &[id.as_str().into()])?;
    let row = rows.first().map(from_row).transpose()?;
    Ok(row.filter(|row| tenant.is_none_or(|tenant| *tenant == row.tenant)))
}

const ONE: &str = concat!("SELECT ", columns!(), " FROM job WHERE id = $1");
const ALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM job WHERE id = ANY(string_to_array($1, ','))"
);

/// Reads jobs for the units of one transaction, which will each ask for one of them.
///
/// # Errors
/// [`StoreError`] of the database.
pub(crate) fn foresee(tx: &mut Tx<'_>, ids: &[JobId]) -> Result<(), StoreError> {
    for row in tx.query(ALL, &[joined(ids).into()])? {
        tx.foresee(ONE, row.text("id")?, row);
    }
    Ok(())
}

/// Those of these jobs that are there, in this order.
///
/// # Errors
/// [`StoreError`] of the database.
pub(crate) fn get_all(tx: &mut Tx<'_>, ids: &[JobId]) -> Result<Vec<JobRow>, StoreError> {
    if tx.has_row_locks() {
        // One message for all of them; SQLite is no message away.
        let mut found = HashMap::new();
        for row in tx.query(ALL, &[joined(ids).into()])? {
            found.insert(row.text("id")?, from_row(&row)?);
        }
        return Ok(ids
            .iter()
            .filter_map(|id| found.remove(id.as_str()))
            .collect());
    }
    let rows = ids.iter().map(|id| get(tx, None, id));
    Ok(rows
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// Ids as one text, for a statement that asks for all of them.
pub(crate) fn joined(ids: &[JobId]) -> String {
    let ids: Vec<&str> = ids.iter().map(JobId::as_str).collect();
    ids.join(",")
}

/// Jobs of a tenant, newest first; those created before `before`, and of these in one state.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    state: Option<&str>,
    before: Option<(u64, &JobId)>,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    let (before_ms, before_id) = before.map_or((u64::MAX, ""), |(ms, id)| (ms, id.as_str()));
    // Two texts, each with an index that it follows from its first row to its last: with a state that may be
    // none, both databases would read everything that is older.
    let all = concat!(
        "SELECT ",
        columns!(),
        " FROM job WHERE tenant = $1 AND (created_at_ms, id) < ($2, $3) \
         ORDER BY created_at_ms DESC, id DESC LIMIT $4"
    );
    let of_state = concat!(
        "SELECT ",
        columns!(),
        " FROM job WHERE tenant = $1 AND (created_at_ms, id) < ($2, $3) AND state = $4 \
         ORDER BY created_at_ms DESC, id DESC LIMIT $5"
    );
    let mut values: Vec<Value> = vec![tenant.as_str().into(), before_ms.into(), before_id.into()];
    values.extend(state.map(Into::into));
    values.push(limit.into());
    let sql = if state.is_some() { of_state } else { all };
    tx.query(sql, &values)?.iter().map(from_row).collect()
}

/// Writes the next state of a job, if nobody has changed it since `row` was read, with its event and
/// its place in the queue.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, here or instead of the commit; or [`StoreError`] of the database.
pub fn move_to(tx: &mut Tx<'_>, row: &JobRow, change: &JobChange) -> Result<JobRow, StoreError> {
    let next = after(row, change);
    let waited = row.state == JobState::Queued;
    let waits = next.state == JobState::Queued;
    // The place in the queue before the row, as a claim locks them: in the other order, a cancel and a
    // claim of the same job would each wait for what the other has.
    if waited && !waits {
        queue::delete(tx, &row.id)?;
    }
    let mut values = changed_columns(&next)?;
    values.extend([
        row.id.as_str().into(),
        row.version.into(),
        row.state.name().into(),
        row.epoch.into(),
    ]);
    tx.send_one(
        "UPDATE job SET state = $1, state_json = $2, version = $3, attempt = $4, epoch = $5, \
         node = $6, cancel_requested = $7, queued_at_ms = $8, leased_at_ms = $9, \
         started_at_ms = $10, finished_at_ms = $11, driver = $12, sandbox_id = $13, \
         enforcement = $14, usage_json = $15, detail = $16, stdout_json = $17, stderr_json = $18, \
         report_hash = $19 WHERE id = $20 AND version = $21 AND state = $22 AND epoch = $23",
        &values,
        row.id.as_str(),
    )?;
    event::append(
        tx,
        &event_of(
            &next,
            change.kind,
            &change.data,
            &change.principal,
            change.at_ms,
        ),
    )?;
    if waits && !waited {
        queue::insert(tx, &next)?;
    }
    Ok(next)
}

/// What a change may write, in the order of the statement of [`move_to`].
fn changed_columns(next: &JobRow) -> Result<Vec<Value>, StoreError> {
    let enforcement = Some(&next.enforcement).filter(|clauses| !clauses.is_empty());
    Ok(vec![
        next.state.name().into(),
        to_json(&next.state)?.into(),
        next.version.into(),
        next.attempt.into(),
        next.epoch.into(),
        next.node.as_ref().map(NodeId::as_str).into(),
        next.cancel_requested.into(),
        next.queued_at_ms.into(),
        next.leased_at_ms.into(),
        next.started_at_ms.into(),
        next.finished_at_ms.into(),
        next.driver.clone().into(),
        next.sandbox_id.as_ref().map(SandboxId::as_str).into(),
        enforcement.map(to_json).transpose()?.into(),
        next.usage.as_ref().map(to_json).transpose()?.into(),
        next.detail.clone().into(),
        next.stdout.as_ref().map(to_json).transpose()?.into(),
        next.stderr.as_ref().map(to_json).transpose()?.into(),
        next.report_hash.clone().into(),
    ])
}

/// The row after a change.
fn after(row: &JobRow, change: &JobChange) -> JobRow {
    let mut next = row.clone();
    next.version += 1;
    next.attempt = change.attempt;
    next.state = change.state.clone();
    match &change.state {
        JobState::AwaitingApproval => {}
        JobState::Queued => next.queued_at_ms = Some(change.at_ms),
        JobState::Leased { node, epoch } => {
            next.node = Some(node.clone());
            next.epoch = *epoch;
            next.leased_at_ms = Some(change.at_ms);
            // Of the attempt before: nothing of it is in force any more.
            next.started_at_ms = None;
            next.driver = None;
            next.sandbox_id = None;
            next.enforcement.clear();
            next.usage = None;
            next.detail = None;
            next.stdout = None;
            next.stderr = None;
            next.report_hash = None;
        }
        JobState::Running { .. } => next.started_at_ms = Some(change.at_ms),
        JobState::Stopping { .. } => next.cancel_requested = true,
        JobState::Finished { .. } => next.finished_at_ms = Some(change.at_ms),
    }
    next.driver = change.driver.clone().or(next.driver);
    next.sandbox_id = change.sandbox_id.clone().or(next.sandbox_id);
    if let Some(enforcement) = &change.enforcement {
        next.enforcement.clone_from(enforcement);
    }
    if let Some(end) = change.end.clone() {
        next.usage = end.usage;
        next.detail = end.detail;
        next.stdout = end.stdout;
        next.stderr = end.stderr;
        next.report_hash = end.report_hash;
    }
    next
}

/// Keeps what is told of a job that has ended already: as an event, and with the hash by which the report
/// is known again. Nothing else of the job changes.
///
/// # Errors
/// [`StoreError::Stale`] when somebody else was faster, or [`StoreError`] of the database.
pub fn keep_late(
    tx: &mut Tx<'_>,
    row: &JobRow,
    report_hash: &str,
    late: &LateReport,
) -> Result<JobRow, StoreError> {
    let next = JobRow {
        version: row.version + 1,
        report_hash: Some(report_hash.to_owned()),
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE job SET version = $1, report_hash = $2 \
         WHERE id = $3 AND version = $4 AND state = 'finished'",
        &[
            next.version.into(),
            report_hash.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    if changed != 1 {
        return Err(StoreError::Stale {
            what: row.id.to_string(),
        });
    }
    event::append(
        tx,
        &event_of(&next, late.kind, &late.data, &late.principal, late.at_ms),
    )?;
    Ok(next)
}

/// By an expression, for which there is one index: see `0036_few.sql`.
pub(crate) const HELD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM job WHERE (CASE WHEN state IN ('leased', 'running', 'stopping') THEN node END) = $1 \
     AND leased_at_ms >= $2 ORDER BY id LIMIT $3"
);

/// Jobs that a node has.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn held_by(tx: &mut Tx<'_>, node: &NodeId, limit: u32) -> Result<Vec<JobRow>, StoreError> {
    held_since(tx, node, 0, limit)
}

/// Jobs that a node has and that it was given since then.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn held_since(
    tx: &mut Tx<'_>,
    node: &NodeId,
    since_ms: u64,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    let values = [node.as_str().into(), since_ms.into(), limit.into()];
    tx.query(HELD, &values)?.iter().map(from_row).collect()
}

/// Those of these jobs that a node has.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn held_among(
    tx: &mut Tx<'_>,
    node: &NodeId,
    ids: &[JobId],
) -> Result<Vec<JobRow>, StoreError> {
    let mut rows = match ids {
        [] => Vec::new(),
        ids => get_all(tx, ids)?,
    };
    rows.retain(|row| {
        let is_held = match row.state {
            JobState::Leased { .. } | JobState::Running { .. } | JobState::Stopping { .. } => true,
            JobState::AwaitingApproval | JobState::Queued | JobState::Finished { .. } => false,
        };
        is_held && row.node.as_ref() == Some(node)
    });
    Ok(rows)
}

/// By an expression too.
pub(crate) const STOPPING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM job WHERE (CASE WHEN state = 'stopping' THEN node END) = $1 ORDER BY id LIMIT $2"
);

/// Jobs of a node that are to end.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn stopping_on(tx: &mut Tx<'_>, node: &NodeId, limit: u32) -> Result<Vec<JobRow>, StoreError> {
    tx.query(STOPPING, &[node.as_str().into(), limit.into()])?
        .iter()
        .map(from_row)
        .collect()
}

/// Jobs whose node is gone, or has not renewed its leases in time.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn with_silent_node(
    tx: &mut Tx<'_>,
    now_ms: u64,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM job WHERE state IN ('leased', 'running', 'stopping') AND NOT EXISTS \
         (SELECT 1 FROM node WHERE node.id = job.node AND node.lease_expires_at_ms >= $1) \
         ORDER BY id LIMIT $2"
    );
    tx.query(sql, &[now_ms.into(), limit.into()])?
        .iter()
        .map(from_row)
        .collect()
}

pub(crate) const COUNT: &str = "SELECT COUNT(*) AS waiting, MIN(queued_at_ms) AS oldest FROM \
     (SELECT queued_at_ms FROM queue WHERE tenant = $1 AND queued_at_ms >= $2 \
     ORDER BY queued_at_ms LIMIT $3) AS places";

/// How many jobs of a tenant wait that were queued since then, counted up to `most`, and when the oldest of them was.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_queued(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    from_ms: u64,
    most: u64,
) -> Result<(u64, Option<u64>), StoreError> {
    let row = tx.query_one(
        COUNT,
        &[tenant.as_str().into(), from_ms.into(), most.into()],
    )?;
    row.map_or(Ok((0, None)), |row| {
        Ok((row.number("waiting")?, row.number_or_null("oldest")?))
    })
}
