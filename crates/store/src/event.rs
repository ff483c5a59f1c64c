//! Events: written once, in the transaction of what they tell, and never changed.

use crate::{Row, StoreError, Tx};
use model::event::Event;
use model::id::{PrincipalId, TenantId};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;

/// An event that is new.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'e> {
    /// Whose it is.
    pub tenant: &'e TenantId,
    /// What it is about, such as `job`.
    pub resource: &'e str,
    /// Which.
    pub resource_id: &'e str,
    /// The version of the resource after the change.
    pub version: u64,
    /// Such as `job.leased`.
    pub kind: &'e str,
    /// A JSON object.
    pub data: &'e str,
    /// Who did it.
    pub principal: &'e PrincipalId,
    /// When.
    pub at_ms: u64,
}

/// What one event says, in bytes: the rules of a network, which are the longest, can be twenty times that, and they
/// are sealed, listed and kept for long.
const DATA_BYTES_MAX: usize = 8 * 1024;

/// What an event says: as it is, or where that is too long how long it was, and its digest (SHA-256, FIPS 180-4).
fn said(data: &str) -> Cow<'_, str> {
    if data.len() <= DATA_BYTES_MAX {
        return Cow::Borrowed(data);
    }
    let digest = Sha256::digest(data);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = data.len();
    Cow::Owned(format!(
        r#"{{"left_out":{{"bytes":{bytes},"sha256":"{hex}"}}}}"#
    ))
}

/// Adds an event. What it says beyond eight kilobytes is left out, and told by its length and digest.
///
/// # Errors
/// [`StoreError`] of the database; also when the resource has an event of this version already.
pub fn append(tx: &mut Tx<'_>, new: &NewEvent<'_>) -> Result<(), StoreError> {
    tx.send(
        "INSERT INTO event_inbox (tenant, resource, resource_id, version, kind, data, principal, \
         at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            new.tenant.as_str().into(),
            new.resource.into(),
            new.resource_id.into(),
            new.version.into(),
            new.kind.into(),
            said(new.data).as_ref().into(),
            new.principal.as_str().into(),
            new.at_ms.into(),
        ],
    )
}

/// Events of one resource with a version over `after`, in order.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    resource: &str,
    resource_id: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    let rows = tx.query(
        "SELECT position, resource, resource_id, version, kind, data, principal, at_ms \
         FROM event_inbox WHERE resource = $1 AND resource_id = $2 AND version > $3 \
         ORDER BY version LIMIT $4",
        &[
            resource.into(),
            resource_id.into(),
            after.into(),
            limit.into(),
        ],
    )?;
    rows.iter().map(of_row).collect()
}

/// The event of a row with all columns.
pub(crate) fn of_row(row: &Row) -> Result<Event, StoreError> {
    Ok(Event {
        position: row.number("position")?,
        resource: row.text("resource")?,
        resource_id: row.text("resource_id")?,
        version: row.number("version")?,
        kind: row.text("kind")?,
        data: row.text("data")?,
        principal: row.text("principal")?,
        at_ms: row.number("at_ms")?,
    })
}

/// What an event is about, for whoever has to look at it by himself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its number among all.
    pub position: u64,
    /// What it is about, such as `job`.
    pub resource: String,
    /// Which.
    pub resource_id: String,
    /// Such as `job.leased`.
    pub kind: String,
    /// A JSON object.
    pub data: String,
}

/// The newest events of all resources with a number over `after`, the newest first. One with a lower number may be
/// committed later.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn newest(tx: &mut Tx<'_>, after: u64, limit: u32) -> Result<Vec<Heard>, StoreError> {
    let rows = tx.query(
        "SELECT position, resource, resource_id, kind, data FROM event_inbox WHERE position > $1 \
         ORDER BY position DESC LIMIT $2",
        &[after.into(), limit.into()],
    )?;
    let one = |row: &crate::Row| -> Result<Heard, StoreError> {
        Ok(Heard {
            position: row.number("position")?,
            resource: row.text("resource")?,
            resource_id: row.text("resource_id")?,
            kind: row.text("kind")?,
            data: row.text("data")?,
        })
    };
    rows.iter().map(one).collect()
}

/// The version of the last event of a resource, 0 when it has none. For one whose row has no version of
/// its own; the row is written first, so that nobody else counts at the same time.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn last_version(tx: &mut Tx<'_>, resource: &str, resource_id: &str) -> Result<u64, StoreError> {
    let row = tx.query_one(
        "SELECT version FROM event_inbox WHERE resource = $1 AND resource_id = $2 \
         ORDER BY version DESC LIMIT 1",
        &[resource.into(), resource_id.into()],
    )?;
    row.map_or(Ok(0), |row| row.number("version"))
}
