//! The queue: a narrow table that holds exactly the jobs that wait.

mod held;

pub use self::held::{Held, held, hold, hold_larger, next_principal, next_tenant, release};
use crate::db::to_json;
use crate::job::{self, JobRow};
use crate::{Row, StoreError, Tx};
use model::id::{JobId, NodeId};
use model::place::Wish;
use model::policy::PermitUse;
use std::collections::{HashMap, HashSet};
use std::str::FromStr;

/// Adds a job that waits from now on.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, row: &JobRow) -> Result<(), StoreError> {
    insert_as(tx, row, false)
}

/// Adds a job that waits from now on, perhaps one that no claim is to look at before it is released.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert_as(tx: &mut Tx<'_>, row: &JobRow, is_held: bool) -> Result<(), StoreError> {
    let queued = row.queued_at_ms.unwrap_or(row.created_at_ms);
    // A job that has run waits anew: the time that it ran is not time that nobody took it.
    let waits_since = match row.started_at_ms {
        Some(_) => queued,
        None => PermitUse::waits_since(row.spec.permit.as_deref(), row.created_at_ms),
    };
    let wait = row.spec.queue_timeout_ms;
    let expires = wait.map(|wait| waits_since.saturating_add(wait));
    tx.send(
        "INSERT INTO queue (job_id, tenant, pinned_node, not_before_ms, queued_at_ms, \
         expires_at_ms, wish, principal, held) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[
            row.id.as_str().into(),
            row.tenant.as_str().into(),
            row.spec.node.as_ref().map(NodeId::as_str).into(),
            queued.into(),
            queued.into(),
            expires.into(),
            wish_text(row.spec.wish().as_ref())?.into(),
            row.principal.as_str().into(),
            is_held.into(),
        ],
    )
}

/// Takes out a job that does not wait any more.
pub(crate) fn delete(tx: &mut Tx<'_>, id: &JobId) -> Result<(), StoreError> {
    tx.send("DELETE FROM queue WHERE job_id = $1", &[id.as_str().into()])
}

/// Lets a job that waits be passed over until this time, if it waits for nothing later. Its place stays as old as it is.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn postpone(tx: &mut Tx<'_>, id: &JobId, until_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE queue SET not_before_ms = $1 WHERE job_id = $2 AND not_before_ms < $3";
    let values = [until_ms.into(), id.as_str().into(), until_ms.into()];
    tx.send(sql, &values)
}

/// Lets a job that waits be passed over until this time and no longer, whatever it was postponed to. It is never taken
/// before the time that it waits from. Its place stays as old as it is.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn wait_until(tx: &mut Tx<'_>, id: &JobId, until_ms: u64) -> Result<(), StoreError> {
    tx.send(
        "UPDATE queue SET not_before_ms = CASE WHEN queued_at_ms > $1 THEN queued_at_ms \
         ELSE $2 END WHERE job_id = $3",
        &[until_ms.into(), until_ms.into(), id.as_str().into()],
    )
}

/// How many jobs that wait are looked at for each that is asked for, so that there is something to
/// rotate between and something left when others have locked the first of them.
const LOOK_AT: u32 = 4;
/// How many are looked at when few are asked for.
const LOOK_AT_LEAST: u32 = 16;

/// How many are looked at when so many are asked for.
pub(crate) fn window(limit: u32) -> u32 {
    limit.saturating_mul(LOOK_AT).max(LOOK_AT_LEAST)
}

/// A wish as it is in an index. The same wish is the same text.
pub(crate) fn wish_text(wish: Option<&Wish>) -> Result<Option<String>, StoreError> {
    wish.map(to_json).transpose()
}

/// Something that waits and has a wish, which the node that asks can fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// As it is in the database.
    pub text: String,
    /// What waits for less long is left to others.
    pub before_ms: u64,
}

/// The different wishes of jobs that wait and that `node` may take, at most `limit`, in their order from `after` on,
/// as they are in the database. Each costs one step in each of two indexes, however many jobs have it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn wishes(
    tx: &mut Tx<'_>,
    node: &NodeId,
    after: &str,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    distinct(tx, (FIRST_WISH, ALL_WISHES), node, after, limit)
}

// What is for one node alone and what is for any are looked for apart here and below, each in an index of its own:
// with `OR` between them, a poll would read all that waits for others.

/// Nearly always there is none, and that is known after one step.
const FIRST_WISH: &str = "SELECT MIN(wish) AS wish FROM ( \
     SELECT MIN(wish) AS wish FROM queue WHERE pinned_node IS NULL AND held = 0 AND wish > $1 \
     UNION ALL SELECT MIN(wish) FROM queue WHERE pinned_node = $2 AND held = 0 AND wish > $1) AS either";
const ALL_WISHES: &str = "WITH RECURSIVE found(wish, number) AS ( \
     SELECT (SELECT MIN(wish) FROM ( \
     SELECT MIN(wish) AS wish FROM queue WHERE pinned_node IS NULL AND held = 0 AND wish > $1 \
     UNION ALL SELECT MIN(wish) FROM queue WHERE pinned_node = $2 AND held = 0 AND wish > $1) AS either), \
     CAST(1 AS BIGINT) \
     UNION ALL SELECT (SELECT MIN(either.wish) FROM ( \
     SELECT MIN(queue.wish) AS wish FROM queue \
     WHERE queue.pinned_node IS NULL AND queue.held = 0 AND queue.wish > found.wish \
     UNION ALL SELECT MIN(queue.wish) FROM queue \
     WHERE queue.pinned_node = $2 AND queue.held = 0 AND queue.wish > found.wish) AS either), \
     found.number + 1 FROM found WHERE found.wish IS NOT NULL AND found.number < $3) \
     SELECT wish FROM found WHERE wish IS NOT NULL ORDER BY wish";

/// The two statements are one that gives the first, and one that gives all.
pub(crate) fn distinct(
    tx: &mut Tx<'_>,
    (first, all): (&'static str, &'static str),
    node: &NodeId,
    after: &str,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    let one = tx.query_one(first, &[after.into(), node.as_str().into()])?;
    if one
        .map(|row| row.text_or_null("wish"))
        .transpose()?
        .flatten()
        .is_none()
    {
        return Ok(Vec::new());
    }
    let rows = tx.query(all, &[after.into(), node.as_str().into(), limit.into()])?;
    rows.iter().map(|row| row.text("wish")).collect()
}

/// What waits without a wish; what waits with one. The oldest of both kinds, by their age.
const PLAIN: &str = "SELECT job_id, tenant, queued_at_ms FROM ( \
     SELECT * FROM (SELECT job_id, tenant, queued_at_ms FROM queue \
     WHERE wish IS NULL AND pinned_node IS NULL AND held = 0 AND not_before_ms <= $1 \
     AND queued_at_ms >= $2 ORDER BY queued_at_ms, job_id LIMIT $3) AS anyones \
     UNION ALL \
     SELECT * FROM (SELECT job_id, tenant, queued_at_ms FROM queue \
     WHERE wish IS NULL AND pinned_node = $4 AND held = 0 AND not_before_ms <= $1 \
     ORDER BY queued_at_ms, job_id LIMIT $3) AS own) AS either \
     ORDER BY queued_at_ms, job_id LIMIT $3";
const WISHED: &str = "SELECT job_id, tenant, queued_at_ms FROM ( \
     SELECT * FROM (SELECT job_id, tenant, queued_at_ms FROM queue \
     WHERE wish = $1 AND pinned_node IS NULL AND held = 0 AND not_before_ms <= $2 AND queued_at_ms <= $3 \
     ORDER BY queued_at_ms, job_id LIMIT $4) AS anyones \
     UNION ALL \
     SELECT * FROM (SELECT job_id, tenant, queued_at_ms FROM queue \
     WHERE wish = $1 AND pinned_node = $5 AND held = 0 AND not_before_ms <= $2 AND queued_at_ms <= $3 \
     ORDER BY queued_at_ms, job_id LIMIT $4) AS own) AS either \
     ORDER BY queued_at_ms, job_id LIMIT $4";

/// Jobs that a node may take now, at most `limit`: those without a wish, and those whose wishes it was
/// `granted`. Of the oldest that wait, the oldest of each tenant,
/// then the second of each, and so on, so that one with many jobs does not get all of a batch.
///
/// On PostgreSQL the places of these jobs are locked until the end of the transaction, and places that
/// others have locked are passed over. Only places that are taken are locked: somebody else would find
/// the queue empty while one job of many is taken.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn claim(
    tx: &mut Tx<'_>,
    node: &NodeId,
    limit: u32,
    now_ms: u64,
    granted: &[Granted],
) -> Result<Vec<JobRow>, StoreError> {
    let (jobs, _) = claim_from(tx, node, (limit, 0), now_ms, granted)?;
    Ok(jobs)
}

/// The same, where what any node may take is looked for among those that were queued at `from_ms` or later, which is
/// not held to where it spares nothing. On PostgreSQL places that were taken stay in the index as long as anybody, such
/// as a copy that is being made, may still see them, and each look from the beginning passes all of them. Says also when
/// the oldest place that it has seen was queued, whoever has that now.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn claim_from(
    tx: &mut Tx<'_>,
    node: &NodeId,
    (limit, from_ms): (u32, u64),
    now_ms: u64,
    granted: &[Granted],
) -> Result<(Vec<JobRow>, Option<u64>), StoreError> {
    let window = window(limit);
    let from_ms = if tx.has_row_locks() { from_ms } else { 0 };
    let of_all = [
        now_ms.into(),
        from_ms.into(),
        window.into(),
        node.as_str().into(),
    ];
    let mut rows = tx.query(PLAIN, &of_all)?;
    for wish in granted {
        let of = [
            (*wish.text).into(),
            now_ms.into(),
            wish.before_ms.into(),
            window.into(),
            node.as_str().into(),
        ];
        rows.extend(tx.query(WISHED, &of)?);
    }
    if !granted.is_empty() {
        rows = oldest(rows, "queued_at_ms", window)?;
    }
    let mut oldest_ms: Option<u64> = None;
    for row in &rows {
        let at_ms = row.number("queued_at_ms")?;
        oldest_ms = Some(oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms)));
    }
    let mut ids = rotate(&rows, "job_id")?.into_iter();
    let mut jobs = Vec::new();
    loop {
        let missing = (limit as usize).saturating_sub(jobs.len());
        let next: Vec<JobId> = ids.by_ref().take(missing).collect();
        if next.is_empty() {
            return Ok((jobs, oldest_ms));
        }
        let locked = lock(tx, next)?;
        jobs.extend(job::get_all(tx, &locked)?);
    }
}

/// Locks the places of these, and keeps those that are still there and that nobody else has locked.
fn lock(tx: &mut Tx<'_>, ids: Vec<JobId>) -> Result<Vec<JobId>, StoreError> {
    if !tx.has_row_locks() {
        return Ok(ids);
    }
    // With a plain `held = 0`, PostgreSQL takes all places from the index by tenant, and throws most of them away.
    let sql = "SELECT job_id FROM queue WHERE job_id = ANY(string_to_array($1, ',')) \
         AND held + 0 = 0 FOR UPDATE SKIP LOCKED";
    let rows = tx.query(sql, &[job::joined(&ids).into()])?;
    let rows = rows.iter().map(|row| row.text("job_id"));
    let locked = rows.collect::<Result<HashSet<_>, _>>()?;
    let is_locked = |id: &JobId| locked.contains(id.as_str());
    Ok(ids.into_iter().filter(is_locked).collect())
}

/// The first of each tenant, then the second of each; their ids are in `column`.
pub(crate) fn rotate<Id: FromStr>(rows: &[Row], column: &str) -> Result<Vec<Id>, StoreError> {
    let mut seen = HashMap::<String, usize>::new();
    let mut ranked = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let rank = seen.entry(row.text("tenant")?).or_default();
        ranked.push((*rank, place, row.parsed::<Id>(column)?));
        *rank += 1;
    }
    ranked.sort_by_key(|(rank, place, _)| (*rank, *place));
    Ok(ranked.into_iter().map(|(_, _, id)| id).collect())
}

/// The first of what several statements gave, by the time in `column`.
pub(crate) fn oldest(rows: Vec<Row>, column: &str, window: u32) -> Result<Vec<Row>, StoreError> {
    let timed = rows.into_iter().map(|row| Ok((row.number(column)?, row)));
    let mut timed = timed.collect::<Result<Vec<(u64, Row)>, StoreError>>()?;
    timed.sort_by_key(|(at, _)| *at);
    timed.truncate(window as usize);
    Ok(timed.into_iter().map(|(_, row)| row).collect())
}

const ONE_PLAIN: &str = "SELECT job_id FROM queue WHERE wish IS NULL AND pinned_node IS NULL AND held = 0 \
     UNION ALL SELECT job_id FROM queue WHERE wish IS NULL AND pinned_node = $1 AND held = 0 LIMIT 1";
const ONE_PLAIN_FROM: &str = "SELECT job_id FROM queue \
     WHERE wish IS NULL AND pinned_node IS NULL AND held = 0 AND queued_at_ms >= $1 \
     ORDER BY queued_at_ms, job_id LIMIT 1";

/// Whether nothing waits that any node may take, or `node` alone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn is_empty(tx: &mut Tx<'_>, node: &NodeId) -> Result<bool, StoreError> {
    Ok(tx.query(ONE_PLAIN, &[node.as_str().into()])?.is_empty())
}

/// The same, first among those that were queued at `from_ms` or later: see [`claim_from`].
///
/// # Errors
/// [`StoreError`] of the database.
pub fn is_empty_from(tx: &mut Tx<'_>, node: &NodeId, from_ms: u64) -> Result<bool, StoreError> {
    let is_there = from_ms > 0 && !tx.query(ONE_PLAIN_FROM, &[from_ms.into()])?.is_empty();
    Ok(!is_there && is_empty(tx, node)?)
}

const ONE_WISHED: &str = "SELECT job_id FROM queue \
     WHERE wish = $1 AND pinned_node IS NULL AND held = 0 AND queued_at_ms <= $2 \
     UNION ALL SELECT job_id FROM queue \
     WHERE wish = $1 AND pinned_node = $3 AND held = 0 AND queued_at_ms <= $2 LIMIT 1";

/// Whether something waits that has this wish, and that `node` may take.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn has(tx: &mut Tx<'_>, node: &NodeId, wish: &Granted) -> Result<bool, StoreError> {
    let of = [
        (*wish.text).into(),
        wish.before_ms.into(),
        node.as_str().into(),
    ];
    Ok(!tx.query(ONE_WISHED, &of)?.is_empty())
}

/// Whether anything waits that some node might take.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn has_any(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let plain = "SELECT job_id FROM queue WHERE wish IS NULL AND held = 0 LIMIT 1";
    let wishing = "SELECT job_id FROM queue WHERE wish IS NOT NULL AND held = 0 LIMIT 1";
    Ok(!tx.query(plain, &[])?.is_empty() || !tx.query(wishing, &[])?.is_empty())
}

const EXPIRED: &str = "SELECT job_id FROM queue WHERE expires_at_ms < $1 \
     ORDER BY expires_at_ms, job_id LIMIT $2";

/// Jobs that have waited longer than they may, those first whose time was over first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn expired(tx: &mut Tx<'_>, now_ms: u64, limit: u32) -> Result<Vec<JobRow>, StoreError> {
    let rows = tx.query(EXPIRED, &[now_ms.into(), limit.into()])?;
    let mut jobs = Vec::new();
    for row in rows {
        jobs.extend(job::get(tx, None, &row.parsed("job_id")?)?);
    }
    Ok(jobs)
}

/// Jobs that wait for one node alone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn pinned_to(tx: &mut Tx<'_>, node: &NodeId, limit: u32) -> Result<Vec<JobRow>, StoreError> {
    let sql = "SELECT job_id FROM queue WHERE pinned_node = $1 ORDER BY job_id LIMIT $2";
    let rows = tx.query(sql, &[node.as_str().into(), limit.into()])?;
    jobs(tx, &rows)
}

/// Jobs that wait for one node alone, which is gone or has not renewed its leases in time.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn pinned_to_silent(
    tx: &mut Tx<'_>,
    now_ms: u64,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    let sql = "SELECT job_id FROM queue WHERE pinned_node IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM node WHERE node.id = queue.pinned_node \
         AND node.lease_expires_at_ms >= $1) ORDER BY job_id LIMIT $2";
    let rows = tx.query(sql, &[now_ms.into(), limit.into()])?;
    jobs(tx, &rows)
}

fn jobs(tx: &mut Tx<'_>, places: &[Row]) -> Result<Vec<JobRow>, StoreError> {
    let mut jobs = Vec::new();
    for place in places {
        jobs.extend(job::get(tx, None, &place.parsed("job_id")?)?);
    }
    Ok(jobs)
}

#[cfg(test)]
pub(crate) mod tests;
