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
    /// The host in its one form, where it could be read.
    pub host: Option<String>,
    /// Why not.
    pub code: Option<String>,
    /// All of it.
    pub record: String,
}

/// Hosts that are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// This one, in its one form.
    One(String),
    /// Every name below this one at any depth, and not itself.
    Below(String),
}

impl Hosts {
    /// As `LIKE` has it, with `!` before what would be read as a sign of its own. Pure.
    fn pattern(&self) -> String {
        let plain = |text: &str| {
            let text = text.replace('!', "!!");
            text.replace('%', "!%").replace('_', "!_")
        };
        match self {
            Hosts::One(host) => plain(host),
            Hosts::Below(domain) => format!("%.{}", plain(domain)),
        }
    }
}

/// What is looked for among the records of an owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressFilter {
    /// Only those of which this became.
    pub decision: Option<&'static str>,
    /// Only those to these. Records of older builds are of no host here.
    pub hosts: Option<Hosts>,
    /// Only those that were refused or failed for this reason. Records of older builds have none here.
    pub code: Option<String>,
    /// Not before this time, in milliseconds since 1970, by the clock of the node.
    pub from_ms: Option<u64>,
    /// Before this time, likewise.
    pub to_ms: Option<u64>,
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
        "INSERT INTO egress (owner, seq, name, at_ms, decision, host, code, record) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (owner, name) DO NOTHING",
        &[
            owner.as_str().into(),
            seq.into(),
            (*new.name).into(),
            new.at_ms.into(),
            new.decision.into(),
            new.host.clone().into(),
            new.code.clone().into(),
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

/// Records of an owner with numbers after `after`, the oldest first; only those that are looked for. They are found by
/// their owner and number, and an owner has so few that a look at each is cheaper than an index that each would have to
/// be written into.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    owner: &Owner,
    after: u64,
    filter: &EgressFilter,
    limit: u32,
) -> Result<Vec<EgressRow>, StoreError> {
    let decision = filter.decision.unwrap_or_default();
    let code = filter.code.as_deref().unwrap_or_default();
    let hosts = filter.hosts.as_ref().map(Hosts::pattern);
    let hosts = hosts.as_deref().unwrap_or_default();
    // Not `<`: what a node says of its clock may be the largest number that there is.
    let last_ms = filter.to_ms.map_or(u64::MAX, |to| to.saturating_sub(1));
    let rows = tx.query(
        "SELECT seq, record FROM egress WHERE owner = $1 AND seq > $2 \
         AND ($3 = '' OR decision = $4) AND ($5 = '' OR code = $6) \
         AND ($7 = '' OR host LIKE $8 ESCAPE '!') AND at_ms >= $9 AND at_ms <= $10 \
         ORDER BY seq LIMIT $11",
        &[
            owner.as_str().into(),
            after.into(),
            decision.into(),
            decision.into(),
            code.into(),
            code.into(),
            hosts.into(),
            hosts.into(),
            filter.from_ms.unwrap_or(0).into(),
            last_ms.into(),
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
