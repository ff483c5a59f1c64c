//! What sandboxes use over time: rows of many moments each.

use crate::{StoreError, Tx, Value};
use model::id::{NodeId, SandboxId};
use model::usage::UsagePoint;

/// The time whose moments are in one row: few rows for a day, and little to write again for one moment.
const ROW_MS: u64 = 10 * 60 * 1000;
/// Rows that are read at once: of more than a day.
const ROWS_MAX: u32 = 200;

/// Adds moments of a sandbox that this node has; nothing for one that it has not, or that is over.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn append(
    tx: &mut Tx<'_>,
    node: &NodeId,
    sandbox: &SandboxId,
    points: &[UsagePoint],
) -> Result<(), StoreError> {
    let mut rest = points;
    while let Some(first) = rest.first() {
        let row_ms = first.at_ms - first.at_ms % ROW_MS;
        let same = |point: &&UsagePoint| point.at_ms - point.at_ms % ROW_MS == row_ms;
        let count = rest.iter().take_while(same).count();
        let (these, others) = rest.split_at(count);
        rest = others;
        let text: String = these.iter().map(written).collect();
        let values: [Value; 4] = [
            row_ms.into(),
            text.into(),
            sandbox.as_str().into(),
            node.as_str().into(),
        ];
        // A row ends at 16 KiB: a node that follows the rules writes 60 moments of some 50 bytes.
        let sql = "INSERT INTO sandbox_usage (sandbox, row_ms, points) \
                   SELECT id, CAST($1 AS BIGINT), CAST($2 AS TEXT) FROM sandbox \
                   WHERE id = $3 AND node = $4 AND ended_at_ms IS NULL \
                   ON CONFLICT (sandbox, row_ms) DO UPDATE \
                   SET points = sandbox_usage.points || excluded.points \
                   WHERE length(sandbox_usage.points) < 16384";
        tx.execute(sql, &values)?;
    }
    Ok(())
}

/// One moment as text; numbers and commas, and one semicolon behind it.
fn written(point: &UsagePoint) -> String {
    let UsagePoint {
        at_ms,
        cpu_us,
        memory_bytes,
        cache_bytes,
        disk_bytes,
    } = point;
    format!("{at_ms},{cpu_us},{memory_bytes},{cache_bytes},{disk_bytes};")
}

/// What cannot be read is passed over: a point less is no harm.
fn read(text: &str) -> Option<UsagePoint> {
    let mut numbers = text.split(',').map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Some(UsagePoint {
        at_ms: next()?,
        cpu_us: next()?,
        memory_bytes: next()?,
        cache_bytes: next()?,
        disk_bytes: next()?,
    })
}

/// The moments of a sandbox from `from_ms` to `to_ms`, in about the order of time; of more than a day and a
/// half, the newest.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    sandbox: &SandboxId,
    from_ms: u64,
    to_ms: u64,
) -> Result<Vec<UsagePoint>, StoreError> {
    let rows = tx.query(
        "SELECT sandbox, points FROM sandbox_usage \
         WHERE sandbox = $1 AND row_ms >= $2 AND row_ms <= $3 ORDER BY row_ms DESC LIMIT $4",
        &[
            sandbox.as_str().into(),
            from_ms.saturating_sub(ROW_MS).into(),
            to_ms.into(),
            ROWS_MAX.into(),
        ],
    )?;
    let mut points = Vec::new();
    for row in rows.iter().rev() {
        let text = row.text("points")?;
        let inside = |point: &UsagePoint| (from_ms..=to_ms).contains(&point.at_ms);
        points.extend(text.split(';').filter_map(read).filter(inside));
    }
    Ok(points)
}

/// Deletes rows of before `before_ms`, at most `limit`. Returns how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    let sql = "DELETE FROM sandbox_usage WHERE (sandbox, row_ms) IN \
               (SELECT sandbox, row_ms FROM sandbox_usage WHERE row_ms < $1 LIMIT $2)";
    tx.execute(sql, &[before_ms.into(), limit.into()])
}
