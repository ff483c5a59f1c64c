//! What somebody has written in a profile, version by version.

use super::{Happened, ProfileRow, stale, tell};
use crate::db::to_json;
use crate::{Row, StoreError, Tx};
use model::id::{PrincipalId, ProfileId};
use model::limits;
use model::profile::ProfileSpec;

/// A version of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Which, from 1.
    pub number: u64,
    /// What it says.
    pub spec: ProfileSpec,
    /// Who wrote it.
    pub principal: PrincipalId,
    /// When.
    pub created_at_ms: u64,
}

fn from_row(row: &Row) -> Result<VersionRow, StoreError> {
    Ok(VersionRow {
        number: row.number("number")?,
        spec: row.json("spec")?,
        principal: row.parsed("principal")?,
        created_at_ms: row.number("created_at_ms")?,
    })
}

/// Adds the next version of a profile, if nobody has changed it since `row` was read, with the event. The oldest
/// goes where there are too many.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn put(
    tx: &mut Tx<'_>,
    row: &ProfileRow,
    spec: &ProfileSpec,
    what: Happened<'_>,
) -> Result<ProfileRow, StoreError> {
    let next = ProfileRow {
        version: row.version + 1,
        latest: row.latest + 1,
        updated_at_ms: what.at_ms,
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE profile SET version = $1, latest = $2, updated_at_ms = $3 \
         WHERE id = $4 AND version = $5",
        &[
            next.version.into(),
            next.latest.into(),
            what.at_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(&row.id));
    }
    tx.execute(
        "INSERT INTO profile_version (profile, number, spec, principal, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5)",
        &[
            row.id.as_str().into(),
            next.latest.into(),
            to_json(spec)?.into(),
            what.principal.as_str().into(),
            what.at_ms.into(),
        ],
    )?;
    let oldest = next.latest.saturating_sub(limits::PROFILE_VERSIONS_MAX);
    tx.execute(
        "DELETE FROM profile_version WHERE profile = $1 AND number <= $2",
        &[row.id.as_str().into(), oldest.into()],
    )?;
    tell(tx, &next, what)?;
    Ok(next)
}

/// A version of a profile.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    profile: &ProfileId,
    number: u64,
) -> Result<Option<VersionRow>, StoreError> {
    let sql = "SELECT number, spec, principal, created_at_ms FROM profile_version \
               WHERE profile = $1 AND number = $2";
    let row = tx.query_one(sql, &[profile.as_str().into(), number.into()])?;
    row.as_ref().map(from_row).transpose()
}

/// Versions of a profile, newest first, those before `before`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    profile: &ProfileId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<VersionRow>, StoreError> {
    let rows = tx.query(
        "SELECT number, spec, principal, created_at_ms FROM profile_version \
         WHERE profile = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        &[
            profile.as_str().into(),
            before.unwrap_or(u64::MAX).into(),
            limit.into(),
        ],
    )?;
    rows.iter().map(from_row).collect()
}
