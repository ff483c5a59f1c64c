//! Nodes.

use crate::db::to_json;
use crate::{Row, StoreError, Tx};
use model::id::NodeId;
use model::node::{HostReport, NodeState};
use model::place::{Labels, Trouble};
use std::collections::BTreeMap;

/// A node as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name for programs.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Of its process.
    pub incarnation: String,
    /// Of its program.
    pub version: String,
    /// Jobs at one time.
    pub slots: u32,
    /// Drivers that it has.
    pub drivers: Vec<String>,
    /// What it said about itself.
    pub facts: BTreeMap<String, String>,
    /// Whether it is there and gets work.
    pub state: NodeState,
    /// Until when it has its leases.
    pub lease_expires_at_ms: u64,
    /// When its process came.
    pub registered_at_ms: u64,
    /// What it is called, for whoever wants something placed on it.
    pub labels: Labels,
    /// How much it has failed lately. Written by [`trouble`] alone.
    pub trouble: Trouble,
    /// What its last heartbeat said of its machine. Written by [`renew`] alone.
    pub report: Option<HostReport>,
}

fn from_row(row: &Row) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        id: row.parsed("id")?,
        name: row.text("name")?,
        incarnation: row.text("incarnation")?,
        version: row.text("version")?,
        slots: u32::try_from(row.number("slots")?).unwrap_or(u32::MAX),
        drivers: row.json("drivers")?,
        facts: row.json("facts")?,
        state: row.json("state_json")?,
        lease_expires_at_ms: row.number("lease_expires_at_ms")?,
        registered_at_ms: row.number("registered_at_ms")?,
        labels: row.json("labels")?,
        trouble: row.json_or_null("trouble")?.unwrap_or_default(),
        report: row.json_or_null("report")?,
    })
}

/// Adds a node, or writes it anew.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn upsert(tx: &mut Tx<'_>, node: &NodeRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO node (id, name, incarnation, version, slots, drivers, facts, state_json, \
         lease_expires_at_ms, registered_at_ms, labels) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, incarnation = excluded.incarnation, \
         version = excluded.version, slots = excluded.slots, drivers = excluded.drivers, \
         facts = excluded.facts, state_json = excluded.state_json, \
         lease_expires_at_ms = excluded.lease_expires_at_ms, \
         registered_at_ms = excluded.registered_at_ms, labels = excluded.labels",
        &[
            node.id.as_str().into(),
            (*node.name).into(),
            (*node.incarnation).into(),
            (*node.version).into(),
            node.slots.into(),
            to_json(&node.drivers)?.into(),
            to_json(&node.facts)?.into(),
            to_json(&node.state)?.into(),
            node.lease_expires_at_ms.into(),
            node.registered_at_ms.into(),
            to_json(&node.labels)?.into(),
        ],
    )
    .map(drop)
}

/// A node.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(tx: &mut Tx<'_>, id: &NodeId) -> Result<Option<NodeRow>, StoreError> {
    let row = tx.query_one(
        "SELECT id, name, incarnation, version, slots, drivers, facts, state_json, \
         lease_expires_at_ms, registered_at_ms, labels, trouble, report FROM node WHERE id = $1",
        &[id.as_str().into()],
    )?;
    row.as_ref().map(from_row).transpose()
}

/// All nodes, by id, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<NodeRow>, StoreError> {
    let rows = tx.query(
        "SELECT id, name, incarnation, version, slots, drivers, facts, state_json, \
         lease_expires_at_ms, registered_at_ms, labels, trouble, report FROM node ORDER BY id LIMIT $1",
        &[limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// Renews the leases of a node's process, and writes what it says of its machine, if it does. False when another process has registered since.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn renew(
    tx: &mut Tx<'_>,
    id: &NodeId,
    incarnation: &str,
    lease_expires_at_ms: u64,
    report: Option<&HostReport>,
) -> Result<bool, StoreError> {
    let renewed = tx.execute(
        "UPDATE node SET lease_expires_at_ms = $1, report = COALESCE($2, report) \
         WHERE id = $3 AND incarnation = $4",
        &[
            lease_expires_at_ms.into(),
            report.map(to_json).transpose()?.into(),
            id.as_str().into(),
            incarnation.into(),
        ],
    )?;
    Ok(renewed == 1)
}

/// Writes the newest version of the protocol that a node's process speaks.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn set_protocol(tx: &mut Tx<'_>, id: &NodeId, protocol: u32) -> Result<(), StoreError> {
    let sql = "UPDATE node SET protocol = $1 WHERE id = $2";
    tx.execute(sql, &[protocol.into(), id.as_str().into()])
        .map(drop)
}

/// The newest version of the protocol that a node's process speaks; `None` for one that is not there.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn protocol(tx: &mut Tx<'_>, id: &NodeId) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT protocol FROM node WHERE id = $1";
    let row = tx.query_one(sql, &[id.as_str().into()])?;
    row.map(|row| row.number("protocol")).transpose()
}

/// Writes how much a node has failed lately.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn trouble(tx: &mut Tx<'_>, id: &NodeId, trouble: Trouble) -> Result<(), StoreError> {
    let sql = "UPDATE node SET trouble = $1 WHERE id = $2";
    tx.execute(sql, &[to_json(&trouble)?.into(), id.as_str().into()])
        .map(drop)
}

/// Nodes whose leases ended before `before_ms`, the most silent first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn silent(tx: &mut Tx<'_>, before_ms: u64, limit: u32) -> Result<Vec<NodeRow>, StoreError> {
    let rows = tx.query(
        "SELECT id, name, incarnation, version, slots, drivers, facts, state_json, \
         lease_expires_at_ms, registered_at_ms, labels, trouble, report FROM node WHERE lease_expires_at_ms < $1 \
         ORDER BY lease_expires_at_ms, id LIMIT $2",
        &[before_ms.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// Nodes that are said to be there and whose leases ended before `before_ms`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn silent_online(
    tx: &mut Tx<'_>,
    before_ms: u64,
    limit: u32,
) -> Result<Vec<NodeRow>, StoreError> {
    // As text, because both databases read it so: those that were found before must not take the places
    // of those that were not.
    let rows = tx.query(
        "SELECT id, name, incarnation, version, slots, drivers, facts, state_json, \
         lease_expires_at_ms, registered_at_ms, labels, trouble, report FROM node WHERE lease_expires_at_ms < $1 \
         AND state_json LIKE '%\"online\"%' ORDER BY id LIMIT $2",
        &[before_ms.into(), limit.into()],
    )?;
    rows.iter().map(from_row).collect()
}

/// Whether the leases of any node have ended from `since_ms` on and before `before_ms`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn fell_silent(tx: &mut Tx<'_>, since_ms: u64, before_ms: u64) -> Result<bool, StoreError> {
    let sql =
        "SELECT id FROM node WHERE lease_expires_at_ms >= $1 AND lease_expires_at_ms < $2 LIMIT 1";
    Ok(!tx
        .query(sql, &[since_ms.into(), before_ms.into()])?
        .is_empty())
}

/// Writes a node's next state, if it was not heard since `row` was read.
///
/// # Errors
/// [`StoreError::Stale`] when it was, or [`StoreError`] of the database.
pub fn move_to(tx: &mut Tx<'_>, row: &NodeRow, state: NodeState) -> Result<(), StoreError> {
    let changed = tx.execute(
        "UPDATE node SET state_json = $1 WHERE id = $2 AND incarnation = $3 \
         AND lease_expires_at_ms = $4",
        &[
            to_json(&state)?.into(),
            row.id.as_str().into(),
            (*row.incarnation).into(),
            row.lease_expires_at_ms.into(),
        ],
    )?;
    if changed == 1 {
        return Ok(());
    }
    Err(StoreError::Stale {
        what: row.id.to_string(),
    })
}

/// Forgets a node.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, id: &NodeId) -> Result<(), StoreError> {
    tx.execute("DELETE FROM node WHERE id = $1", &[id.as_str().into()])
        .map(drop)
}
