//! Connections to the outside, as nodes tell of them: rows of a sandbox or a job, numbered as they come. What a
//! record says is JSON of the doors, which nobody here reads.

use crate::{Row, StoreError, Tx};
use model::id::{JobId, SandboxId};

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A sandbox that lives on.
    Sandbox(SandboxId),
    /// A job.
    Job(JobId),
}

impl Owner {
    /// Its id, which says by its prefix which of the two it is.
    pub fn as_str(&self) -> &str {
        match self {
            Owner::Sandbox(id) => id.as_str(),
            Owner::Job(id) => id.as_str(),
        }
    }
}

/// A record that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEgress {
    /// The node's name for it: the same again is stored once.
    pub name: String,
    /// When it was asked for.
    pub at_ms: u64,
    /// `allowed`, `denied` or `failed`.
    pub decision: &'static str,
    /// All of it.
    pub record: String,
}

/// A record, and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRow {
    /// Among those of its owner, from 1.
    pub seq: u64,
    /// All of it.
    pub record: String,
}

/// The number of the last record of an owner; 0 without any.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn last(tx: &mut Tx<'_>, owner: &Owner) -> Result<u64, StoreError> {
    let sql = "SELECT COALESCE(MAX(seq), 0) AS last FROM egress WHERE owner = $1";
    let row = tx.query_one(sql, &[owner.as_str().into()])?;
    row.map_or(Ok(0), |row| row.number("last"))
}

/// Adds a record under a number. False when there is one of that name.
///
/// # Errors
/// [`StoreError`] of the database; also when the number is taken.
pub fn insert(
    tx: &mut Tx<'_>,
    owner: &Owner,
    seq: u64,
    new: &NewEgress,
) -> Result<bool, StoreError> {
    let inserted = tx.execute(
        "INSERT INTO egress (owner, seq, name, at_ms, decision, record) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (owner, name) DO NOTHING",
        &[
            owner.as_str().into(),
            seq.into(),
            (*new.name).into(),
            new.at_ms.into(),
            new.decision.into(),
            (*new.record).into(),
        ],
    )?;
    Ok(inserted == 1)
}

/// Counts denials on the owner's row, beside its version: nobody waits for them.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_denied(tx: &mut Tx<'_>, owner: &Owner, denied: u64) -> Result<(), StoreError> {
    let sql = match owner {
        Owner::Sandbox(_) => "UPDATE sandbox SET egress_denied = egress_denied + $1 WHERE id = $2",
        Owner::Job(_) => "UPDATE job SET egress_denied = egress_denied + $1 WHERE id = $2",
    };
    tx.execute(sql, &[denied.into(), owner.as_str().into()])?;
    Ok(())
}

/// Records of an owner with numbers after `after`, the oldest first; only those with this decision, if one is
/// given.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    owner: &Owner,
    after: u64,
    decision: Option<&str>,
    limit: u32,
) -> Result<Vec<EgressRow>, StoreError> {
    let decision = decision.unwrap_or_default();
    let rows = tx.query(
        "SELECT seq, record FROM egress WHERE owner = $1 AND seq > $2 \
         AND ($3 = '' OR decision = $4) ORDER BY seq LIMIT $5",
        &[
            owner.as_str().into(),
            after.into(),
            decision.into(),
            decision.into(),
            limit.into(),
        ],
    )?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<EgressRow, StoreError> {
    Ok(EgressRow {
        seq: row.number("seq")?,
        record: row.text("record")?,
    })
}

/// Deletes records of an owner up to this number.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, owner: &str, up_to: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM egress WHERE owner = $1 AND seq <= $2";
    tx.execute(sql, &[owner.into(), up_to.into()]).map(drop)
}
