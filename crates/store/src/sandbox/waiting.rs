//! Sandboxes that wait for a node.

use super::{SandboxRow, get};
use crate::queue::{self, Granted};
use crate::{StoreError, Tx};
use model::id::{NodeId, SandboxId};

/// Whether a sandbox waits that any node may take, or this one alone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn is_requested(tx: &mut Tx<'_>, node: &NodeId) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM sandbox WHERE state = 'requested' AND wish IS NULL \
               AND (pinned_node IS NULL OR pinned_node = $1) LIMIT 1";
    Ok(!tx.query(sql, &[node.as_str().into()])?.is_empty())
}

/// Whether a sandbox waits that has this wish, and that `node` may take.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn has(tx: &mut Tx<'_>, node: &NodeId, wish: &Granted) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM sandbox WHERE state = 'requested' AND wish = $1 \
               AND created_at_ms <= $2 AND (pinned_node IS NULL OR pinned_node = $3) LIMIT 1";
    let of = [
        (*wish.text).into(),
        wish.before_ms.into(),
        node.as_str().into(),
    ];
    Ok(!tx.query(sql, &of)?.is_empty())
}

/// The different wishes of sandboxes that wait, as [`queue::wishes`] of jobs.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn wishes(tx: &mut Tx<'_>, after: &str, limit: u32) -> Result<Vec<String>, StoreError> {
    let first = "SELECT MIN(wish) AS wish FROM sandbox WHERE state = 'requested' AND wish > $1";
    let next = "WITH RECURSIVE found(wish, number) AS ( \
         SELECT (SELECT MIN(wish) FROM sandbox WHERE state = 'requested' AND wish > $1), \
         CAST(1 AS BIGINT) \
         UNION ALL SELECT (SELECT MIN(sandbox.wish) FROM sandbox \
         WHERE sandbox.state = 'requested' AND sandbox.wish > found.wish), found.number + 1 \
         FROM found WHERE found.wish IS NOT NULL AND found.number < $2) \
         SELECT wish FROM found WHERE wish IS NOT NULL ORDER BY wish";
    queue::distinct(tx, (first, next), after, limit)
}

/// Sandboxes that wait for a node and that this one may take, at most `limit`: the oldest of each tenant,
/// then the second of each, and locked against other nodes, as jobs are claimed.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn requested(
    tx: &mut Tx<'_>,
    node: &NodeId,
    limit: u32,
    granted: &[Granted],
) -> Result<Vec<SandboxRow>, StoreError> {
    let sql = "SELECT id, tenant, created_at_ms FROM sandbox WHERE state = 'requested' \
               AND wish IS NULL AND (pinned_node IS NULL OR pinned_node = $1) \
               ORDER BY created_at_ms, id LIMIT $2";
    let window = queue::window(limit);
    let mut waiting = tx.query(sql, &[node.as_str().into(), window.into()])?;
    for wish in granted {
        let sql = "SELECT id, tenant, created_at_ms FROM sandbox WHERE state = 'requested' \
                   AND wish = $1 AND created_at_ms <= $2 \
                   AND (pinned_node IS NULL OR pinned_node = $3) \
                   ORDER BY created_at_ms, id LIMIT $4";
        let of = [
            (*wish.text).into(),
            wish.before_ms.into(),
            node.as_str().into(),
            window.into(),
        ];
        waiting.extend(tx.query(sql, &of)?);
    }
    if !granted.is_empty() {
        waiting = queue::oldest(waiting, "created_at_ms", window)?;
    }
    let mut found = Vec::new();
    for id in queue::rotate::<SandboxId>(&waiting, "id")? {
        if found.len() >= limit as usize {
            break;
        }
        if lock(tx, &id)? {
            found.extend(get(tx, None, &id)?);
        }
    }
    Ok(found)
}

/// Locks a sandbox that waits, if it still does and nobody else has locked it.
fn lock(tx: &mut Tx<'_>, id: &SandboxId) -> Result<bool, StoreError> {
    if !tx.has_row_locks() {
        return Ok(true);
    }
    let sql = "SELECT id FROM sandbox WHERE id = $1 AND state = 'requested' FOR UPDATE SKIP LOCKED";
    Ok(!tx.query(sql, &[id.as_str().into()])?.is_empty())
}
