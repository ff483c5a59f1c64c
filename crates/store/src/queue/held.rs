//! Places of jobs for which there is no room in a quota. No claim looks at them, so that one tenant's thousands cost
//! the others nothing.

use crate::{StoreError, Tx, Value};
use model::id::{JobId, PrincipalId, TenantId};
use model::quota::{Amounts, Limit, Taken, Whose};

/// A job that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub id: JobId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Since when it waits.
    pub queued_at_ms: u64,
    /// What it takes while a node has it.
    pub takes: Taken,
}

/// Holds what waits of a tenant, or of one of its principals, at most `limit` places; returns how many. On PostgreSQL
/// places that others have locked are left: whoever has them holds them itself, and to wait for it would be to wait in a
/// circle.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn hold(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    whose: &Whose,
    limit: u32,
) -> Result<u64, StoreError> {
    let locks = tx.has_row_locks();
    match whose {
        Whose::Tenant => {
            let sql = match locks {
                true => {
                    "UPDATE queue SET held = 1 WHERE job_id IN (SELECT job_id FROM queue \
                     WHERE tenant = $1 AND held = 0 LIMIT $2 FOR UPDATE SKIP LOCKED)"
                }
                false => {
                    "UPDATE queue SET held = 1 WHERE job_id IN (SELECT job_id FROM queue \
                     WHERE tenant = $1 AND held = 0 LIMIT $2)"
                }
            };
            tx.execute(sql, &[tenant.as_str().into(), limit.into()])
        }
        Whose::Principal(id) => {
            let sql = match locks {
                true => {
                    "UPDATE queue SET held = 1 WHERE job_id IN (SELECT job_id FROM queue \
                     WHERE tenant = $1 AND held = 0 AND principal = $2 LIMIT $3 \
                     FOR UPDATE SKIP LOCKED)"
                }
                false => {
                    "UPDATE queue SET held = 1 WHERE job_id IN (SELECT job_id FROM queue \
                     WHERE tenant = $1 AND held = 0 AND principal = $2 LIMIT $3)"
                }
            };
            let of = [tenant.as_str().into(), id.as_str().into(), limit.into()];
            tx.execute(sql, &of)
        }
    }
}

macro_rules! larger {
    ($lock:literal) => {
        concat!(
            "UPDATE queue SET held = 1 WHERE job_id IN (SELECT queue.job_id FROM queue ",
            "JOIN job ON job.id = queue.job_id WHERE queue.tenant = $1 AND queue.held = 0 ",
            "AND (queue.principal = $2 OR $2 = '') ",
            "AND (job.cpu_millis > $3 OR job.memory_bytes > $4 OR job.disk_bytes > $5) LIMIT $6",
            $lock,
            ")"
        )
    };
}

/// The same of what takes more than `most` of something, and of nothing else.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn hold_larger(
    tx: &mut Tx<'_>,
    (tenant, whose): (&TenantId, &Whose),
    most: &Amounts,
    limit: u32,
) -> Result<u64, StoreError> {
    let sql = match tx.has_row_locks() {
        true => larger!(" FOR UPDATE OF queue SKIP LOCKED"),
        false => larger!(""),
    };
    let of = match whose {
        Whose::Tenant => "",
        Whose::Principal(id) => id.as_str(),
    };
    let [cpu, memory, disk] = at_most(most);
    let of = [
        tenant.as_str().into(),
        of.into(),
        cpu,
        memory,
        disk,
        limit.into(),
    ];
    tx.execute(sql, &of)
}

/// The most of what a job takes, as large as a number can be where nothing is said.
fn at_most(most: &Amounts) -> [Value; 3] {
    let limits = [Limit::CpuMillis, Limit::MemoryBytes, Limit::DiskBytes];
    limits.map(|limit| most.get(&limit).copied().unwrap_or(u64::MAX).into())
}

/// Lets a job be claimed again, if it still waits.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn release(tx: &mut Tx<'_>, id: &JobId) -> Result<(), StoreError> {
    let sql = "UPDATE queue SET held = 0 WHERE job_id = $1 AND held = 1";
    tx.execute(sql, &[id.as_str().into()]).map(drop)
}

/// The first tenant after `after` that has something held: one step in an index that is empty nearly always.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn next_tenant(
    tx: &mut Tx<'_>,
    after: Option<&TenantId>,
) -> Result<Option<TenantId>, StoreError> {
    let sql = "SELECT tenant FROM queue WHERE held = 1 AND tenant > $1 ORDER BY tenant LIMIT 1";
    let after = after.map_or("", TenantId::as_str);
    let row = tx.query_one(sql, &[after.into()])?;
    row.map(|row| row.parsed("tenant")).transpose()
}

/// The first principal after `after` of a tenant that has something held.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn next_principal(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: Option<&PrincipalId>,
) -> Result<Option<PrincipalId>, StoreError> {
    let sql = "SELECT principal FROM queue WHERE held = 1 AND tenant = $1 AND principal > $2 \
               ORDER BY principal LIMIT 1";
    let after = after.map_or("", PrincipalId::as_str);
    let row = tx.query_one(sql, &[tenant.as_str().into(), after.into()])?;
    row.map(|row| row.parsed("principal")).transpose()
}

/// The jobs of a principal that are held and take no more than `most` of anything, the oldest first, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn held(
    tx: &mut Tx<'_>,
    (tenant, principal): (&TenantId, &PrincipalId),
    most: &Amounts,
    limit: u32,
) -> Result<Vec<Held>, StoreError> {
    let sql = "SELECT queue.job_id, queue.principal, queue.queued_at_ms, job.cpu_millis, job.memory_bytes, \
               job.disk_bytes FROM queue JOIN job ON job.id = queue.job_id WHERE queue.held = 1 \
               AND queue.tenant = $1 AND queue.principal = $2 AND job.cpu_millis <= $3 \
               AND job.memory_bytes <= $4 AND job.disk_bytes <= $5 \
               ORDER BY queue.queued_at_ms, queue.job_id LIMIT $6";
    let [cpu, memory, disk] = at_most(most);
    let of = [
        tenant.as_str().into(),
        principal.as_str().into(),
        cpu,
        memory,
        disk,
        limit.into(),
    ];
    let rows = tx.query(sql, &of)?;
    let one = |row: &crate::Row| {
        Ok(Held {
            id: row.parsed("job_id")?,
            principal: row.parsed("principal")?,
            queued_at_ms: row.number("queued_at_ms")?,
            takes: Taken {
                cpu_millis: row.number("cpu_millis")?,
                memory_bytes: row.number("memory_bytes")?,
                disk_bytes: row.number("disk_bytes")?,
            },
        })
    };
    rows.iter().map(one).collect()
}
