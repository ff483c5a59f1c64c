//! The record of everything: events in the order of their commits, and the seals over them.
//!
//! A seal is over all events of a tenant with a mark from that of the seal before up to its own. Marks are given
//! so that what has one below [`Sealable::up_to`] is all there: nothing can commit among it any more. On SQLite
//! the mark is the position, because one writer gives them in the order of commits; on PostgreSQL it is the number
//! of the transaction.

use crate::{Row, StoreError, Tx, Value};
use model::event::Event;
use model::id::TenantId;

/// The first mark; rows that were there before there were seals have a lower one.
pub const FIRST_MARK: u64 = 1;

/// Transactions that may be under way from before the marks have gone on elsewhere.
const LAG_MAX: u64 = 100_000;

/// Events that go in one transaction, about: SQLite has one writer, and everybody waits for it.
const GONE_AT_ONCE: u64 = 20_000;

/// An event in the order of commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its place in the order; several can have the same, and are then in the order of their positions.
    pub mark: u64,
    /// What happened.
    pub event: Event,
}

/// A place in the order: after the event with this mark and this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The mark.
    pub mark: u64,
    /// The position.
    pub position: u64,
}

/// Events without a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealable {
    /// Where the last seals of all tenants end.
    pub from: u64,
    /// All of them with marks below `up_to`, in order.
    pub events: Vec<Marked>,
    /// Where the next ones begin.
    pub up_to: u64,
    /// There are more that could be sealed.
    pub more: bool,
}

/// A seal over the events of a tenant from one mark up to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Whose.
    pub tenant: TenantId,
    /// From 1, without gaps.
    pub number: u64,
    /// The mark at which the one before ended.
    pub from_mark: u64,
    /// The first mark that is not under it any more.
    pub to_mark: u64,
    /// So many events.
    pub events: u64,
    /// With all that are under seals before it, also those that are gone.
    pub total: u64,
    /// When it was made.
    pub sealed_at_ms: u64,
    /// The digest of the one before, in hexadecimal digits.
    pub before: String,
    /// Over the events, in hexadecimal digits. What this seal says can be checked when they are gone.
    pub content: String,
    /// Over this and what is above, in hexadecimal digits.
    pub digest: String,
    /// Its events were kept long enough and are gone; it stays, because the next one stands on it.
    pub retired: bool,
}

/// Whether nobody else makes seals until this transaction ends. Two that did would make the same one, and one of
/// them would fail on its number.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn alone(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    if !tx.has_row_locks() {
        return Ok(true);
    }
    // A row, because whoever may connect at all can hold an advisory lock, and so hold the seals back.
    let sql = "SELECT id FROM audit_alone FOR UPDATE SKIP LOCKED";
    Ok(tx.query_one(sql, &[])?.is_some())
}

/// Events that nobody has sealed and among which nothing can come any more, about `limit` of them.
///
/// # Errors
/// [`StoreError`] of the database; [`StoreError::Corrupt`] where the marks of the database went back, because it
/// was brought back from a copy.
pub fn unsealed(tx: &mut Tx<'_>, limit: u32) -> Result<Sealable, StoreError> {
    let from = sealed_to(tx)?;
    let to = settled(tx)?;
    if to < from && from - to <= LAG_MAX {
        // Just after marks have gone on elsewhere, somebody's transaction may be older than that.
        return Ok(Sealable {
            from,
            events: Vec::new(),
            up_to: from,
            more: false,
        });
    }
    if to < from {
        let what = format!("marks of events, which are at {to} and were sealed to {from}");
        return Err(StoreError::Corrupt { what });
    }
    let mut events = between(tx, None, (from, to), limit + 1)?;
    let more = events.len() > limit as usize;
    let mut up_to = to;
    if let Some(last) = events.last().map(|one| one.mark).filter(|_| more) {
        // All of one mark or none. A transaction of ours writes far fewer events than a pass takes.
        if events.first().is_some_and(|first| first.mark == last) {
            events = between(tx, None, (last, last + 1), u32::MAX)?;
            up_to = last + 1;
        } else {
            events.retain(|one| one.mark < last);
            up_to = last;
        }
    }
    Ok(Sealable {
        from,
        events,
        up_to,
        more,
    })
}

/// Where the last seals of all tenants end.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn sealed_to(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    let last = tx.query_one("SELECT MAX(to_mark) AS mark FROM audit_seal", &[])?;
    let last = last.map_or(Ok(None), |row| row.number_or_null("mark"))?;
    Ok(last.unwrap_or(FIRST_MARK))
}

/// The first mark below which nothing can come any more.
fn settled(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    let sql = if tx.has_row_locks() {
        "SELECT event_mark(pg_snapshot_xmin(pg_current_snapshot())) AS mark"
    } else {
        // Not the highest that is there: the last ones may have been kept long enough.
        "SELECT COALESCE(MAX(seq), 0) + 1 AS mark FROM sqlite_sequence WHERE name = 'event_inbox'"
    };
    let row = tx.query_one(sql, &[])?;
    row.map_or(Ok(FIRST_MARK), |row| row.number("mark"))
}

/// Events with marks from the first up to the second, in order, at most `limit`: of one tenant or of all.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn between(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    (from, to): (u64, u64),
    limit: u32,
) -> Result<Vec<Marked>, StoreError> {
    let after = Place {
        mark: from.saturating_sub(1),
        position: u64::MAX,
    };
    list(tx, tenant, after, to, limit)
}

/// Events after a place and below a mark, in order, at most `limit`: of one tenant or of all.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    after: Place,
    to: u64,
    limit: u32,
) -> Result<Vec<Marked>, StoreError> {
    // An empty name is that of no tenant, and here of all.
    let sql = if tx.has_row_locks() {
        "SELECT position, mark, tenant, resource, resource_id, version, kind, data, principal, at_ms \
         FROM event_inbox WHERE mark >= $1 AND (mark > $2 OR position > $3) AND mark < $4 \
         AND ($5 = '' OR tenant = $6) ORDER BY mark, position LIMIT $7"
    } else {
        "SELECT position, position AS mark, tenant, resource, resource_id, version, kind, data, \
         principal, at_ms FROM event_inbox WHERE position >= $1 AND (position > $2 OR position > $3) \
         AND position < $4 AND ($5 = '' OR tenant = $6) ORDER BY position LIMIT $7"
    };
    let name = tenant.map_or("", TenantId::as_str);
    let rows = tx.query(
        sql,
        &[
            after.mark.into(),
            after.mark.into(),
            after.position.into(),
            to.into(),
            name.into(),
            name.into(),
            limit.into(),
        ],
    )?;
    rows.iter().map(marked).collect()
}

fn marked(row: &Row) -> Result<Marked, StoreError> {
    Ok(Marked {
        tenant: row.parsed("tenant")?,
        mark: row.number("mark")?,
        event: crate::event::of_row(row)?,
    })
}

/// Adds a seal.
///
/// # Errors
/// [`StoreError`] of the database; also when somebody else has made this one.
pub fn insert(tx: &mut Tx<'_>, new: &Seal) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO audit_seal (tenant, number, from_mark, to_mark, events, total, sealed_at_ms, \
         before, content, digest, retired) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)",
        &[
            new.tenant.as_str().into(),
            new.number.into(),
            new.from_mark.into(),
            new.to_mark.into(),
            new.events.into(),
            new.total.into(),
            new.sealed_at_ms.into(),
            new.before.as_str().into(),
            new.content.as_str().into(),
            new.digest.as_str().into(),
        ],
    )
    .map(drop)
}

/// The last seal of a tenant.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn last(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<Option<Seal>, StoreError> {
    let row = tx.query_one(
        "SELECT tenant, number, from_mark, to_mark, events, total, sealed_at_ms, before, \
         content, digest, retired \
         FROM audit_seal WHERE tenant = $1 ORDER BY number DESC LIMIT 1",
        &[tenant.as_str().into()],
    )?;
    row.as_ref().map(seal).transpose()
}

/// Seals of a tenant with numbers above `after`, in order, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn seals(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    after: u64,
    limit: u32,
) -> Result<Vec<Seal>, StoreError> {
    let rows = tx.query(
        "SELECT tenant, number, from_mark, to_mark, events, total, sealed_at_ms, before, \
         content, digest, retired \
         FROM audit_seal WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3",
        &[tenant.as_str().into(), after.into(), limit.into()],
    )?;
    rows.iter().map(seal).collect()
}

/// The mark at which seals end that were made before this time: what happened since is behind it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn mark_before(tx: &mut Tx<'_>, at_ms: u64) -> Result<u64, StoreError> {
    let row = tx.query_one(
        "SELECT to_mark FROM audit_seal WHERE sealed_at_ms < $1 \
         ORDER BY sealed_at_ms DESC, to_mark DESC LIMIT 1",
        &[at_ms.into()],
    )?;
    row.map_or(Ok(FIRST_MARK), |row| row.number("to_mark"))
}

/// When the oldest event happened that nobody has sealed, in milliseconds since 1970.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn unsealed_since(tx: &mut Tx<'_>) -> Result<Option<u64>, StoreError> {
    let from = sealed_to(tx)?;
    let sql = if tx.has_row_locks() {
        "SELECT at_ms FROM event_inbox WHERE mark >= $1 ORDER BY mark LIMIT 1"
    } else {
        "SELECT at_ms FROM event_inbox WHERE position >= $1 ORDER BY position LIMIT 1"
    };
    let row = tx.query_one(sql, &[from.into()])?;
    row.map(|row| row.number("at_ms")).transpose()
}

/// Tenants that have seals, by name after `after`, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tenants(
    tx: &mut Tx<'_>,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantId>, StoreError> {
    let sql = "SELECT tenant FROM audit_seal WHERE tenant > $1 ORDER BY tenant LIMIT 1";
    crate::prune::tenants_of(tx, sql, after, limit)
}

/// Takes away the events of the oldest seals of a tenant, at most `limit` seals: of those that were made before
/// `before_ms`, and of those beyond the newest `keep` events. The seals go too, but for the newest of them: the one
/// after stands on it. Says how many, and whether there may be more.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn retire(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    (before_ms, keep): (u64, u64),
    limit: u32,
) -> Result<(u64, bool), StoreError> {
    let total = last(tx, tenant)?.map_or(0, |last| last.total);
    let rows = tx.query(
        "SELECT tenant, number, from_mark, to_mark, events, total, sealed_at_ms, before, \
         content, digest, retired \
         FROM audit_seal WHERE tenant = $1 ORDER BY number LIMIT $2",
        &[tenant.as_str().into(), limit.into()],
    )?;
    let seals: Vec<Seal> = rows.iter().map(seal).collect::<Result<_, _>>()?;
    let there = seals.len();
    // Times and totals only grow, so the first that is to stay is the end.
    let is_old = |seal: &Seal| {
        seal.retired || seal.sealed_at_ms < before_ms || seal.total < total.saturating_sub(keep)
    };
    let mut events = 0_u64;
    let old: Vec<Seal> = seals
        .into_iter()
        .take_while(|seal| {
            let begun = events < GONE_AT_ONCE;
            events += if seal.retired { 0 } else { seal.events };
            begun && is_old(seal)
        })
        .collect();
    let Some(newest) = old.last().filter(|newest| !newest.retired) else {
        return Ok((0, false));
    };
    let sql = if tx.has_row_locks() {
        "DELETE FROM event_inbox WHERE tenant = $1 AND mark < $2"
    } else {
        "DELETE FROM event_inbox WHERE tenant = $1 AND position < $2"
    };
    let name: Value = tenant.as_str().into();
    tx.execute(sql, &[name.clone(), newest.to_mark.into()])?;
    let sql = "DELETE FROM audit_seal WHERE tenant = $1 AND number < $2";
    tx.execute(sql, &[name.clone(), newest.number.into()])?;
    let sql = "UPDATE audit_seal SET retired = 1 WHERE tenant = $1 AND number = $2";
    tx.execute(sql, &[name, newest.number.into()])?;
    let gone = old.iter().filter(|seal| !seal.retired).count() as u64;
    Ok((gone, old.len() == there || events >= GONE_AT_ONCE))
}

fn seal(row: &Row) -> Result<Seal, StoreError> {
    Ok(Seal {
        tenant: row.parsed("tenant")?,
        number: row.number("number")?,
        from_mark: row.number("from_mark")?,
        to_mark: row.number("to_mark")?,
        events: row.number("events")?,
        total: row.number("total")?,
        sealed_at_ms: row.number("sealed_at_ms")?,
        before: row.text("before")?,
        content: row.text("content")?,
        digest: row.text("digest")?,
        retired: row.number("retired")? == 1,
    })
}
