//! Sandboxes that wait for a node.

use super::{SandboxRow, get};
use crate::queue::{self, Granted};
use crate::{StoreError, Tx};
use model::id::{NodeId, SandboxId};

// Those for one node alone and those for any are looked for apart, as jobs are in `queue.rs`.

const ONE_PLAIN: &str = "SELECT id FROM sandbox \
     WHERE state = 'requested' AND wish IS NULL AND pinned_node IS NULL \
     UNION ALL SELECT id FROM sandbox \
     WHERE state = 'requested' AND wish IS NULL AND pinned_node = $1 LIMIT 1";
const ONE_WISHED: &str = "SELECT id FROM sandbox \
     WHERE state = 'requested' AND wish = $1 AND pinned_node IS NULL AND created_at_ms <= $2 \
     UNION ALL SELECT id FROM sandbox \
     WHERE state = 'requested' AND wish = $1 AND pinned_node = $3 AND created_at_ms <= $2 LIMIT 1";
const FIRST_WISH: &str = "SELECT MIN(wish) AS wish FROM ( \
     SELECT MIN(wish) AS wish FROM sandbox \
     WHERE state = 'requested' AND pinned_node IS NULL AND wish > $1 \
     UNION ALL SELECT MIN(wish) FROM sandbox \
     WHERE state = 'requested' AND pinned_node = $2 AND wish > $1) AS either";
const ALL_WISHES: &str = "WITH RECURSIVE found(wish, number) AS ( \
     SELECT (SELECT MIN(wish) FROM ( \
     SELECT MIN(wish) AS wish FROM sandbox \
     WHERE state = 'requested' AND pinned_node IS NULL AND wish > $1 \
     UNION ALL SELECT MIN(wish) FROM sandbox \
     WHERE state = 'requested' AND pinned_node = $2 AND wish > $1) AS either), \
     CAST(1 AS BIGINT) \
     UNION ALL SELECT (SELECT MIN(either.wish) FROM ( \
     SELECT MIN(sandbox.wish) AS wish FROM sandbox WHERE sandbox.state = 'requested' \
     AND sandbox.pinned_node IS NULL AND sandbox.wish > found.wish \
     UNION ALL SELECT MIN(sandbox.wish) FROM sandbox WHERE sandbox.state = 'requested' \
     AND sandbox.pinned_node = $2 AND sandbox.wish > found.wish) AS either), \
     found.number + 1 FROM found WHERE found.wish IS NOT NULL AND found.number < $3) \
     SELECT wish FROM found WHERE wish IS NOT NULL ORDER BY wish";
const PLAIN: &str = "SELECT id, tenant, created_at_ms FROM ( \
     SELECT * FROM (SELECT id, tenant, created_at_ms FROM sandbox \
     WHERE state = 'requested' AND wish IS NULL AND pinned_node IS NULL \
     ORDER BY created_at_ms, id LIMIT $1) AS anyones \
     UNION ALL \
     SELECT * FROM (SELECT id, tenant, created_at_ms FROM sandbox \
     WHERE state = 'requested' AND wish IS NULL AND pinned_node = $2 \
     ORDER BY created_at_ms, id LIMIT $1) AS own) AS either \
     ORDER BY created_at_ms, id LIMIT $1";
const WISHED: &str = "SELECT id, tenant, created_at_ms FROM ( \
     SELECT * FROM (SELECT id, tenant, created_at_ms FROM sandbox \
     WHERE state = 'requested' AND wish = $1 AND pinned_node IS NULL AND created_at_ms <= $2 \
     ORDER BY created_at_ms, id LIMIT $3) AS anyones \
     UNION ALL \
     SELECT * FROM (SELECT id, tenant, created_at_ms FROM sandbox \
     WHERE state = 'requested' AND wish = $1 AND pinned_node = $4 AND created_at_ms <= $2 \
     ORDER BY created_at_ms, id LIMIT $3) AS own) AS either \
     ORDER BY created_at_ms, id LIMIT $3";

/// Whether a sandbox waits that any node may take, or this one alone.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn is_requested(tx: &mut Tx<'_>, node: &NodeId) -> Result<bool, StoreError> {
    Ok(!tx.query(ONE_PLAIN, &[node.as_str().into()])?.is_empty())
}

/// Whether a sandbox waits that has this wish, and that `node` may take.
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

/// The different wishes of sandboxes that wait, as [`queue::wishes`] of jobs.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn wishes(
    tx: &mut Tx<'_>,
    node: &NodeId,
    after: &str,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    queue::distinct(tx, (FIRST_WISH, ALL_WISHES), node, after, limit)
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
    let window = queue::window(limit);
    let mut waiting = tx.query(PLAIN, &[window.into(), node.as_str().into()])?;
    for wish in granted {
        let of = [
            (*wish.text).into(),
            wish.before_ms.into(),
            window.into(),
            node.as_str().into(),
        ];
        waiting.extend(tx.query(WISHED, &of)?);
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

#[cfg(test)]
mod tests;
