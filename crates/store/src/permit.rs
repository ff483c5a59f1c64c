//! What jobs and sandboxes that wait keep of the policies that they were decided by, when they are decided again.

use crate::db::to_json;
use crate::job::{self, JobRow};
use crate::sandbox::{self, SandboxRow};
use crate::{StoreError, Tx, queue};
use model::id::PrincipalId;
use model::job::JobState;
use model::quota;
use model::sandbox::SandboxState;
use model::sandbox_spec::SandboxSpec;
use model::spec::JobSpec;

/// Writes what a job is to be from now on, if it still waits and nobody has changed it since `row` was read, with the
/// event. Its place in the queue is by what it is then.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn job_put(
    tx: &mut Tx<'_>,
    row: &JobRow,
    spec: &JobSpec,
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<JobRow, StoreError> {
    let next = JobRow {
        version: row.version + 1,
        spec: spec.clone(),
        ..row.clone()
    };
    let waits = row.state == JobState::Queued;
    let takes = quota::taken(&spec.limits);
    // The place before the row, as a claim locks them.
    if waits {
        queue::delete(tx, &row.id)?;
    }
    let changed = tx.execute(
        "UPDATE job SET spec = $1, version = $2, cpu_millis = $3, memory_bytes = $4, \
         disk_bytes = $5 WHERE id = $6 AND version = $7 AND state = $8",
        &[
            to_json(spec)?.into(),
            next.version.into(),
            takes.cpu_millis.into(),
            takes.memory_bytes.into(),
            takes.disk_bytes.into(),
            row.id.as_str().into(),
            row.version.into(),
            row.state.name().into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(row.id.as_str()));
    }
    if waits {
        queue::insert(tx, &next)?;
    }
    job::tell(tx, &next, "job.permitted", (principal, at_ms))?;
    Ok(next)
}

/// The same for a sandbox that waits for a node, with the rules that it is to have and how long it is to live.
///
/// # Errors
/// As for [`job_put`].
pub fn sandbox_put(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    (spec, ttl_ms): (&SandboxSpec, u64),
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<SandboxRow, StoreError> {
    let rules = row.network.as_ref().map(|_| spec.network.clone());
    let takes = quota::taken(&spec.limits);
    let next = SandboxRow {
        version: row.version + 1,
        spec: spec.clone(),
        network: rules,
        ttl_ms,
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE sandbox SET spec = $1, wish = $2, network = $3, ttl_ms = $4, version = $5, \
         cpu_millis = $6, memory_bytes = $7, disk_bytes = $8 \
         WHERE id = $9 AND version = $10 AND state = $11",
        &[
            to_json(spec)?.into(),
            queue::wish_text(spec.wish().as_ref())?.into(),
            next.network.as_ref().map(to_json).transpose()?.into(),
            ttl_ms.into(),
            next.version.into(),
            takes.cpu_millis.into(),
            takes.memory_bytes.into(),
            takes.disk_bytes.into(),
            row.id.as_str().into(),
            row.version.into(),
            SandboxState::Requested.name().into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(row.id.as_str()));
    }
    sandbox::append(tx, &next, "sandbox.permitted", "{}", principal, at_ms)?;
    Ok(next)
}

fn stale(what: &str) -> StoreError {
    StoreError::Stale {
        what: what.to_owned(),
    }
}
