//! What sandboxes may reach, once somebody changes it.

use crate::db::to_json;
use crate::sandbox::{SandboxRow, append};
use crate::{StoreError, Tx};
use model::enforcement::Enforced;
use model::id::PrincipalId;
use model::network::NetworkRules;
use model::secret::Leaving;

/// Who changes rules, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub principal: PrincipalId,
    /// When.
    pub at_ms: u64,
    /// More for the event, a JSON object.
    pub data: String,
}

/// Writes other rules, and the secrets for what leaves by them, for the node to put in force, with their event, if
/// nobody has changed the sandbox since `row` was read.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn set(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    (rules, leaving): (&NetworkRules, Option<&Leaving>),
    by: &By,
) -> Result<SandboxRow, StoreError> {
    let next = SandboxRow {
        version: row.version + 1,
        network: Some(rules.clone()),
        network_epoch: row.network_epoch + 1,
        network_refused: None,
        leaving: leaving.cloned(),
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE sandbox SET network = $1, network_epoch = $2, network_refused = NULL, leaving = $3, \
         version = $4 WHERE id = $5 AND version = $6",
        &[
            to_json(rules)?.into(),
            next.network_epoch.into(),
            leaving.map(to_json).transpose()?.into(),
            next.version.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    written(tx, &next, changed, "sandbox.network_changed", by)
}

/// Writes that the node has put the newest rules in force, and what is in force by them, with the event.
///
/// # Errors
/// As for [`set`].
pub fn done(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    enforcement: &[Enforced],
    by: &By,
) -> Result<SandboxRow, StoreError> {
    let next = SandboxRow {
        version: row.version + 1,
        network_done: row.network_epoch,
        enforcement: enforcement.to_vec(),
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE sandbox SET network_done = $1, enforcement = $2, version = $3 \
         WHERE id = $4 AND version = $5",
        &[
            next.network_done.into(),
            to_json(&next.enforcement)?.into(),
            next.version.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    written(tx, &next, changed, "sandbox.network_applied", by)
}

/// Writes that the node cannot put the newest rules in force, why, and the rules that are in force instead, with
/// the event.
///
/// # Errors
/// As for [`set`].
pub fn refused(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    (in_force, leaving, why): (&NetworkRules, Option<&Leaving>, &str),
    by: &By,
) -> Result<SandboxRow, StoreError> {
    let next = SandboxRow {
        version: row.version + 1,
        network: Some(in_force.clone()),
        leaving: leaving.cloned(),
        network_done: row.network_epoch,
        network_refused: Some(why.to_owned()),
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE sandbox SET network = $1, network_done = $2, network_refused = $3, leaving = $4, \
         version = $5 WHERE id = $6 AND version = $7",
        &[
            to_json(in_force)?.into(),
            next.network_done.into(),
            why.into(),
            leaving.map(to_json).transpose()?.into(),
            next.version.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    written(tx, &next, changed, "sandbox.network_refused", by)
}

fn written(
    tx: &mut Tx<'_>,
    next: &SandboxRow,
    changed: u64,
    kind: &str,
    by: &By,
) -> Result<SandboxRow, StoreError> {
    if changed != 1 {
        return Err(StoreError::Stale {
            what: next.id.to_string(),
        });
    }
    append(tx, next, kind, &by.data, &by.principal, by.at_ms)?;
    Ok(next.clone())
}
