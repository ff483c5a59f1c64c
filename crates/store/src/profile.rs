//! Profiles and the tags that say which of their builds is meant.

pub mod version;

use crate::{Row, StoreError, Tx, event};
use model::id::{BuildId, PrincipalId, ProfileId, TenantId};

/// A profile as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileRow {
    /// Its name for programs.
    pub id: ProfileId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// How often it was changed, from 1.
    pub version: u64,
    /// Its name for people, one of a kind in the tenant.
    pub name: Option<String>,
    /// Its owner says that everybody may use it. There is only one owner, so it changes nothing.
    pub is_public: bool,
    /// The newest version that somebody has written; 0 for one that builds make.
    pub latest: u64,
    /// When it was made.
    pub created_at_ms: u64,
    /// When it was changed last.
    pub updated_at_ms: u64,
}

/// A tag of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// The tag.
    pub tag: String,
    /// The build that it means.
    pub build: BuildId,
    /// Since when.
    pub assigned_at_ms: u64,
}

/// What happened to a profile, for its events.
#[derive(Debug, Clone, Copy)]
pub struct Happened<'a> {
    /// Such as `profile.tagged`.
    pub kind: &'static str,
    /// More, a JSON object.
    pub data: &'a str,
    /// Who did it.
    pub principal: &'a PrincipalId,
    /// When.
    pub at_ms: u64,
}

/// All columns; every query names them, so that a column that is added is not read by accident.
macro_rules! columns {
    () => {
        "id, tenant, principal, version, name, is_public, latest, created_at_ms, updated_at_ms"
    };
}

fn from_row(row: &Row) -> Result<ProfileRow, StoreError> {
    Ok(ProfileRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        version: row.number("version")?,
        name: row.text_or_null("name")?,
        is_public: row.number("is_public")? == 1,
        latest: row.number("latest")?,
        created_at_ms: row.number("created_at_ms")?,
        updated_at_ms: row.number("updated_at_ms")?,
    })
}

fn stale(id: &ProfileId) -> StoreError {
    StoreError::Stale {
        what: id.to_string(),
    }
}

/// Adds a profile with its first event.
///
/// # Errors
/// [`StoreError::Stale`] when its name was taken meanwhile, or [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &ProfileRow) -> Result<(), StoreError> {
    let added = tx.execute(
        "INSERT INTO profile (id, tenant, principal, version, name, is_public, latest, \
         created_at_ms, updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT DO NOTHING",
        &[
            new.id.as_str().into(),
            new.tenant.as_str().into(),
            new.principal.as_str().into(),
            new.version.into(),
            new.name.as_deref().into(),
            u64::from(new.is_public).into(),
            new.latest.into(),
            new.created_at_ms.into(),
            new.updated_at_ms.into(),
        ],
    )?;
    if added != 1 {
        return Err(stale(&new.id));
    }
    let made = Happened {
        kind: "profile.created",
        data: "{}",
        principal: &new.principal,
        at_ms: new.created_at_ms,
    };
    tell(tx, new, made)
}

fn tell(tx: &mut Tx<'_>, row: &ProfileRow, what: Happened<'_>) -> Result<(), StoreError> {
    let new = event::NewEvent {
        tenant: &row.tenant,
        resource: "profile",
        resource_id: row.id.as_str(),
        version: row.version,
        kind: what.kind,
        data: what.data,
        principal: what.principal,
        at_ms: what.at_ms,
    };
    event::append(tx, &new)
}

/// A profile of a tenant by its id.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &ProfileId,
) -> Result<Option<ProfileRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM profile WHERE tenant = $1 AND id = $2"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), id.as_str().into()])?;
    row.as_ref().map(from_row).transpose()
}

/// A profile of a tenant by its name.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn named(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    name: &str,
) -> Result<Option<ProfileRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM profile WHERE tenant = $1 AND name = $2 AND name IS NOT NULL"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), name.into()])?;
    row.as_ref().map(from_row).transpose()
}

/// Profiles of a tenant, newest first, those made before `before`; perhaps only those that builds make.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    before: Option<(u64, &ProfileId)>,
    (only_built, limit): (bool, u32),
) -> Result<Vec<ProfileRow>, StoreError> {
    let (before_ms, before_id) = before.map_or((u64::MAX, ""), |(ms, id)| (ms, id.as_str()));
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM profile WHERE tenant = $1 AND (created_at_ms < $2 OR (created_at_ms = $3 \
         AND id < $4)) AND latest <= $5 ORDER BY created_at_ms DESC, id DESC LIMIT $6"
    );
    let latest = if only_built { 0 } else { u64::MAX };
    let values = [
        tenant.as_str().into(),
        before_ms.into(),
        before_ms.into(),
        before_id.into(),
        latest.into(),
        limit.into(),
    ];
    tx.query(sql, &values)?.iter().map(from_row).collect()
}

/// How many profiles a tenant has, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, tenant: &TenantId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM (SELECT 1 FROM profile WHERE tenant = $1 \
               LIMIT $2) AS counted";
    let row = tx.query_one(sql, &[tenant.as_str().into(), most.into()])?;
    row.map_or(Ok(0), |row| row.number("there"))
}

/// Writes that a profile was changed, if nobody has changed it since `row` was read, with the event. Whoever
/// changes its tags or its builds does this first, so that two of them do not pass each other.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn touch(
    tx: &mut Tx<'_>,
    row: &ProfileRow,
    is_public: bool,
    what: Happened<'_>,
) -> Result<ProfileRow, StoreError> {
    let next = ProfileRow {
        version: row.version + 1,
        is_public,
        updated_at_ms: what.at_ms,
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE profile SET version = $1, is_public = $2, updated_at_ms = $3 \
         WHERE id = $4 AND version = $5",
        &[
            next.version.into(),
            u64::from(is_public).into(),
            what.at_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(&row.id));
    }
    tell(tx, &next, what)?;
    Ok(next)
}

/// Deletes a profile with its versions, its tags, its builds and what they had to say, if nobody has changed it since `row`
/// was read. Its events stay.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, row: &ProfileRow, what: Happened<'_>) -> Result<(), StoreError> {
    let values = [row.id.as_str().into(), row.version.into()];
    let sql = "DELETE FROM profile WHERE id = $1 AND version = $2";
    if tx.execute(sql, &values)? != 1 {
        return Err(stale(&row.id));
    }
    let id = [row.id.as_str().into()];
    tx.execute("DELETE FROM profile_tag WHERE profile = $1", &id)?;
    tx.execute("DELETE FROM profile_version WHERE profile = $1", &id)?;
    let sql = "DELETE FROM build_log WHERE build IN (SELECT id FROM build WHERE profile = $1)";
    tx.execute(sql, &id)?;
    tx.execute("DELETE FROM build WHERE profile = $1", &id)?;
    let gone = ProfileRow {
        version: row.version + 1,
        ..row.clone()
    };
    tell(tx, &gone, what)
}

/// Lets a tag mean a build, whatever it meant before.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tag_put(tx: &mut Tx<'_>, profile: &ProfileId, tag: &TagRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO profile_tag (profile, tag, build, assigned_at_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (profile, tag) DO UPDATE SET build = excluded.build, \
         assigned_at_ms = excluded.assigned_at_ms",
        &[
            profile.as_str().into(),
            (*tag.tag).into(),
            tag.build.as_str().into(),
            tag.assigned_at_ms.into(),
        ],
    )
    .map(drop)
}

/// Takes a tag away. Says whether there was one.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tag_remove(tx: &mut Tx<'_>, profile: &ProfileId, tag: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM profile_tag WHERE profile = $1 AND tag = $2";
    Ok(tx.execute(sql, &[profile.as_str().into(), tag.into()])? == 1)
}

/// The tags of a profile, the one that was assigned last first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tags(tx: &mut Tx<'_>, profile: &ProfileId, limit: u32) -> Result<Vec<TagRow>, StoreError> {
    let rows = tx.query(
        "SELECT tag, build, assigned_at_ms FROM profile_tag WHERE profile = $1 \
         ORDER BY assigned_at_ms DESC, tag LIMIT $2",
        &[profile.as_str().into(), limit.into()],
    )?;
    let one = |row: &Row| {
        Ok(TagRow {
            tag: row.text("tag")?,
            build: row.parsed("build")?,
            assigned_at_ms: row.number("assigned_at_ms")?,
        })
    };
    rows.iter().map(one).collect()
}

/// The build that a tag of a profile means.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tagged(
    tx: &mut Tx<'_>,
    profile: &ProfileId,
    tag: &str,
) -> Result<Option<BuildId>, StoreError> {
    let sql = "SELECT build FROM profile_tag WHERE profile = $1 AND tag = $2";
    let row = tx.query_one(sql, &[profile.as_str().into(), tag.into()])?;
    row.map(|row| row.parsed("build")).transpose()
}
