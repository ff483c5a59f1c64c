//! Builds of profiles: what each is to do, who carries it out, what it has to say, and the files for it.

use crate::db::to_json;
use crate::{Row, StoreError, Tx, event};
use model::build::BuildState;
use model::id::{BuildId, PrincipalId, ProfileId, SandboxId, SnapshotId, TenantId};
use model::profile::Recipe;
use model::spec::AskedLimits;

/// A build as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// Its name for programs.
    pub id: BuildId,
    /// What it is a build of.
    pub profile: ProfileId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Where it is.
    pub state: BuildState,
    /// How often its state was changed, from 1.
    pub version: u64,
    /// The tags that mean it once it is ready.
    pub tags: Vec<String>,
    /// Limits of sandboxes that are made with it.
    pub limits: AskedLimits,
    /// What it is to do, once that is known.
    pub recipe: Option<Recipe>,
    /// How often it was begun.
    pub attempt: u32,
    /// Until when whoever carries it out has it.
    pub lease_until_ms: u64,
    /// The sandbox of this attempt.
    pub sandbox: Option<SandboxId>,
    /// What was saved; of one that is not ready, what is about to be.
    pub snapshot: Option<SnapshotId>,
    /// Names all that its recipe does to files, so that another can begin with it.
    pub done_key: Option<String>,
    /// Entries of its log.
    pub logs: u64,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// When its recipe was known.
    pub begun_at_ms: Option<u64>,
    /// When it was ready, or had failed.
    pub ended_at_ms: Option<u64>,
}

/// A change of a build's state, with the event that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildChange {
    /// The next state.
    pub state: BuildState,
    /// More for the event, a JSON object.
    pub data: String,
    /// Who does it.
    pub principal: PrincipalId,
    /// Now.
    pub at_ms: u64,
}

/// How important an entry of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a mistake.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
}

impl Level {
    const ALL: [Level; 4] = [Level::Debug, Level::Info, Level::Warn, Level::Error];

    /// In the database, so that it can be compared there.
    fn number(self) -> u64 {
        match self {
            Level::Debug => 0,
            Level::Info => 1,
            Level::Warn => 2,
            Level::Error => 3,
        }
    }
}

/// An entry of a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// When.
    pub at_ms: u64,
    /// How important.
    pub level: Level,
    /// Of which part of the build.
    pub phase: String,
    /// What.
    pub message: String,
}

/// Files that were sent for builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Whose.
    pub tenant: TenantId,
    /// The name that whoever sent them has for them.
    pub name: String,
    /// SHA-256 of the archive.
    pub digest: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// When they were sent or asked for last.
    pub used_at_ms: u64,
}

/// All columns; every query names them, so that a column that is added is not read by accident.
macro_rules! columns {
    () => {
        "id, profile, tenant, principal, state, state_json, version, tags, limits, recipe, attempt, \
         lease_until_ms, sandbox, snapshot, done_key, logs, created_at_ms, begun_at_ms, ended_at_ms"
    };
}

fn from_row(row: &Row) -> Result<BuildRow, StoreError> {
    let state: BuildState = row.json("state_json")?;
    let id: BuildId = row.parsed("id")?;
    let corrupt = |what: &str| StoreError::Corrupt {
        what: format!("the {what} of {id}"),
    };
    if state.name() != row.text("state")? {
        return Err(corrupt("state"));
    }
    let sandbox = row.text_or_null("sandbox")?.map(|id| id.parse());
    let snapshot = row.text_or_null("snapshot")?.map(|id| id.parse());
    let attempt = u32::try_from(row.number("attempt")?);
    Ok(BuildRow {
        profile: row.parsed("profile")?,
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        version: row.number("version")?,
        tags: row.json("tags")?,
        limits: row.json("limits")?,
        recipe: row.json_or_null("recipe")?,
        attempt: attempt.map_err(|_| corrupt("attempt"))?,
        lease_until_ms: row.number("lease_until_ms")?,
        sandbox: sandbox.transpose().map_err(|_| corrupt("sandbox"))?,
        snapshot: snapshot.transpose().map_err(|_| corrupt("snapshot"))?,
        done_key: row.text_or_null("done_key")?,
        logs: row.number("logs")?,
        created_at_ms: row.number("created_at_ms")?,
        begun_at_ms: row.number_or_null("begun_at_ms")?,
        ended_at_ms: row.number_or_null("ended_at_ms")?,
        state,
        id,
    })
}

fn stale(row: &BuildRow) -> StoreError {
    StoreError::Stale {
        what: row.id.to_string(),
    }
}

fn append(
    tx: &mut Tx<'_>,
    row: &BuildRow,
    (kind, data): (&str, &str),
    principal: &PrincipalId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let new = event::NewEvent {
        tenant: &row.tenant,
        resource: "build",
        resource_id: row.id.as_str(),
        version: row.version,
        kind,
        data,
        principal,
        at_ms,
    };
    event::append(tx, &new)
}

/// Adds a build that has no recipe yet, with its first event.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &BuildRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO build (id, profile, tenant, principal, state, state_json, version, tags, \
         limits, attempt, lease_until_ms, logs, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 0, $10)",
        &[
            new.id.as_str().into(),
            new.profile.as_str().into(),
            new.tenant.as_str().into(),
            new.principal.as_str().into(),
            new.state.name().into(),
            to_json(&new.state)?.into(),
            new.version.into(),
            to_json(&new.tags)?.into(),
            to_json(&new.limits)?.into(),
            new.created_at_ms.into(),
        ],
    )?;
    let data = serde_json::json!({"profile": new.profile.as_str()}).to_string();
    let said = ("build.waiting", data.as_str());
    append(tx, new, said, &new.principal, new.created_at_ms)
}

/// A build; with a tenant, only if it is that tenant's.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    id: &BuildId,
) -> Result<Option<BuildRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM build WHERE id = $1");
    let row = tx.query_one(sql, &[id.as_str().into()])?;
    let row = row.as_ref().map(from_row).transpose()?;
    Ok(row.filter(|row| tenant.is_none_or(|tenant| *tenant == row.tenant)))
}

/// Builds of a profile, newest first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(tx: &mut Tx<'_>, profile: &ProfileId, limit: u32) -> Result<Vec<BuildRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM build WHERE profile = $1 ORDER BY created_at_ms DESC, id DESC LIMIT $2"
    );
    let rows = tx.query(sql, &[profile.as_str().into(), limit.into()])?;
    rows.iter().map(from_row).collect()
}

/// How many builds of a profile are kept.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, profile: &ProfileId) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM build WHERE profile = $1";
    let row = tx.query_one(sql, &[profile.as_str().into()])?;
    row.map_or(Ok(0), |row| row.number("there"))
}

/// How many builds of a tenant are not over, counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_open(tx: &mut Tx<'_>, tenant: &TenantId, most: u64) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS there FROM (SELECT 1 FROM build WHERE tenant = $1 \
               AND ended_at_ms IS NULL LIMIT $2) AS counted";
    let row = tx.query_one(sql, &[tenant.as_str().into(), most.into()])?;
    row.map_or(Ok(0), |row| row.number("there"))
}

/// Gives a build that waits its recipe; its state is changed after that.
///
/// # Errors
/// [`StoreError::Stale`] when it was changed since `row` was read, or [`StoreError`] of the database.
pub fn put_recipe(
    tx: &mut Tx<'_>,
    row: &BuildRow,
    recipe: &Recipe,
    at_ms: u64,
) -> Result<BuildRow, StoreError> {
    let changed = tx.execute(
        "UPDATE build SET recipe = $1, begun_at_ms = $2 WHERE id = $3 AND version = $4",
        &[
            to_json(recipe)?.into(),
            at_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(row));
    }
    Ok(BuildRow {
        recipe: Some(recipe.clone()),
        begun_at_ms: Some(at_ms),
        ..row.clone()
    })
}

/// Writes the next state of a build, if nobody has changed it or taken it since `row` was read, with its event.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn move_to(
    tx: &mut Tx<'_>,
    row: &BuildRow,
    change: &BuildChange,
) -> Result<BuildRow, StoreError> {
    let next = BuildRow {
        state: change.state.clone(),
        version: row.version + 1,
        ended_at_ms: change.state.is_over().then_some(change.at_ms),
        lease_until_ms: 0,
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE build SET state = $1, state_json = $2, version = $3, ended_at_ms = $4, \
         lease_until_ms = 0 WHERE id = $5 AND version = $6 AND attempt = $7",
        &[
            next.state.name().into(),
            to_json(&next.state)?.into(),
            next.version.into(),
            next.ended_at_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
            row.attempt.into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(row));
    }
    let kind = match &change.state {
        BuildState::Waiting => "build.waiting",
        BuildState::Building => "build.building",
        BuildState::Ready => "build.ready",
        BuildState::Failed { .. } => "build.failed",
    };
    let said = (kind, change.data.as_str());
    append(tx, &next, said, &change.principal, change.at_ms)?;
    Ok(next)
}

/// Builds that are to be carried out and that nobody has, those first that have waited longest.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn free(tx: &mut Tx<'_>, now_ms: u64, limit: u32) -> Result<Vec<BuildRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM build WHERE state = 'building' AND lease_until_ms <= $1 \
         ORDER BY lease_until_ms, begun_at_ms LIMIT $2"
    );
    let rows = tx.query(sql, &[now_ms.into(), limit.into()])?;
    rows.iter().map(from_row).collect()
}

/// Takes a build, as the next attempt. What an attempt before has left is not its own.
///
/// # Errors
/// [`StoreError::Stale`] when somebody else has it or has changed it, or [`StoreError`] of the database.
pub fn take(
    tx: &mut Tx<'_>,
    row: &BuildRow,
    attempt: u32,
    lease_until_ms: u64,
) -> Result<BuildRow, StoreError> {
    let changed = tx.execute(
        "UPDATE build SET attempt = $1, lease_until_ms = $2, sandbox = NULL, snapshot = NULL \
         WHERE id = $3 AND version = $4 AND attempt = $5 AND state = 'building'",
        &[
            attempt.into(),
            lease_until_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
            row.attempt.into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(row));
    }
    Ok(BuildRow {
        attempt,
        lease_until_ms,
        sandbox: None,
        snapshot: None,
        ..row.clone()
    })
}

/// Ends the leases of all builds. Returns how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn end_leases(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    let sql = "UPDATE build SET lease_until_ms = 0 WHERE state = 'building' AND lease_until_ms > 0";
    tx.execute(sql, &[])
}

/// What whoever carries a build out writes down of it. Says whether it still has it.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn keep(tx: &mut Tx<'_>, row: &BuildRow) -> Result<bool, StoreError> {
    let changed = tx.execute(
        "UPDATE build SET lease_until_ms = $1, sandbox = $2, snapshot = $3, done_key = $4 \
         WHERE id = $5 AND attempt = $6 AND state = 'building'",
        &[
            row.lease_until_ms.into(),
            row.sandbox.as_ref().map(SandboxId::as_str).into(),
            row.snapshot.as_ref().map(SnapshotId::as_str).into(),
            row.done_key.as_deref().into(),
            row.id.as_str().into(),
            row.attempt.into(),
        ],
    )?;
    Ok(changed == 1)
}

/// The newest ready build of a tenant that has done what this key names, and whose files are there.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn done(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    done_key: &str,
) -> Result<Option<BuildRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM build WHERE tenant = $1 AND done_key = $2 AND state = 'ready' AND EXISTS \
         (SELECT 1 FROM snapshot WHERE snapshot.id = build.snapshot AND snapshot.state = 'ready') \
         ORDER BY created_at_ms DESC, id DESC LIMIT 1"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), done_key.into()])?;
    row.as_ref().map(from_row).transpose()
}

/// Adds entries to the log of a build, of which there are `row.logs`. Says whether whoever does it still has
/// the build.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn log(tx: &mut Tx<'_>, row: &BuildRow, entries: &[LogRow]) -> Result<bool, StoreError> {
    let next = row.logs + entries.len() as u64;
    let changed = tx.execute(
        "UPDATE build SET logs = $1 WHERE id = $2 AND attempt = $3 AND logs = $4 \
         AND state = 'building'",
        &[
            next.into(),
            row.id.as_str().into(),
            row.attempt.into(),
            row.logs.into(),
        ],
    )?;
    if changed != 1 {
        return Ok(false);
    }
    for (seq, entry) in (row.logs..).zip(entries) {
        tx.execute(
            "INSERT INTO build_log (build, seq, at_ms, level, phase, message) \
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                row.id.as_str().into(),
                seq.into(),
                entry.at_ms.into(),
                entry.level.number().into(),
                (*entry.phase).into(),
                (*entry.message).into(),
            ],
        )?;
    }
    Ok(true)
}

/// Which entries of a log are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// At least so important.
    pub level: Level,
    /// Without the first so many of those.
    pub offset: u64,
    /// At most so many.
    pub limit: u32,
    /// The newest first.
    pub backward: bool,
    /// Only those since then, or going backward those until then.
    pub from_ms: Option<u64>,
}

/// Entries of the log of a build.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn logs(tx: &mut Tx<'_>, id: &BuildId, query: LogQuery) -> Result<Vec<LogRow>, StoreError> {
    let sql = if query.backward {
        "SELECT at_ms, level, phase, message FROM build_log WHERE build = $1 AND level >= $2 \
         AND at_ms <= $3 ORDER BY seq DESC LIMIT $4 OFFSET $5"
    } else {
        "SELECT at_ms, level, phase, message FROM build_log WHERE build = $1 AND level >= $2 \
         AND at_ms >= $3 ORDER BY seq LIMIT $4 OFFSET $5"
    };
    // As late as a database can say it.
    let any = if query.backward { u64::MAX >> 1 } else { 0 };
    let values = [
        id.as_str().into(),
        query.level.number().into(),
        query.from_ms.unwrap_or(any).into(),
        query.limit.into(),
        query.offset.into(),
    ];
    let one = |row: &Row| {
        let level = row.number("level")?;
        let level = Level::ALL.into_iter().find(|one| one.number() == level);
        let corrupt = || StoreError::Corrupt {
            what: format!("the log of {id}"),
        };
        Ok(LogRow {
            at_ms: row.number("at_ms")?,
            level: level.ok_or_else(corrupt)?,
            phase: row.text("phase")?,
            message: row.text("message")?,
        })
    };
    tx.query(sql, &values)?.iter().map(one).collect()
}

/// Forgets builds that nobody needs: those that were asked for before `unused_ms` and never begun, those ready
/// since before it that no tag means, and those that failed before `failed_ms`. Their events stay. Returns how
/// many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(
    tx: &mut Tx<'_>,
    unused_ms: u64,
    failed_ms: u64,
    limit: u32,
) -> Result<u64, StoreError> {
    let rows = tx.query(
        "SELECT id FROM build WHERE (state = 'waiting' AND created_at_ms < $1) \
         OR (state = 'failed' AND ended_at_ms < $2) OR (state = 'ready' AND ended_at_ms < $3 \
         AND NOT EXISTS (SELECT 1 FROM profile_tag WHERE profile_tag.build = build.id)) \
         ORDER BY id LIMIT $4",
        &[
            unused_ms.into(),
            failed_ms.into(),
            unused_ms.into(),
            limit.into(),
        ],
    )?;
    for row in &rows {
        let id = [row.text("id")?.into()];
        tx.execute("DELETE FROM build_log WHERE build = $1", &id)?;
        tx.execute("DELETE FROM build WHERE id = $1", &id)?;
    }
    Ok(rows.len() as u64)
}

/// Remembers files that were sent; the same name may mean others from then on.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn put_file(tx: &mut Tx<'_>, new: &FileRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO build_file (tenant, name, digest, size_bytes, used_at_ms) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, name) DO UPDATE SET \
         digest = excluded.digest, size_bytes = excluded.size_bytes, \
         used_at_ms = excluded.used_at_ms",
        &[
            new.tenant.as_str().into(),
            (*new.name).into(),
            (*new.digest).into(),
            new.size_bytes.into(),
            new.used_at_ms.into(),
        ],
    )
    .map(drop)
}

/// Files that were sent under a name.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn file(tx: &mut Tx<'_>, tenant: &TenantId, name: &str) -> Result<Option<FileRow>, StoreError> {
    let row = tx.query_one(
        "SELECT tenant, name, digest, size_bytes, used_at_ms FROM build_file \
         WHERE tenant = $1 AND name = $2",
        &[tenant.as_str().into(), name.into()],
    )?;
    let one = |row: Row| {
        Ok(FileRow {
            tenant: row.parsed("tenant")?,
            name: row.text("name")?,
            digest: row.text("digest")?,
            size_bytes: row.number("size_bytes")?,
            used_at_ms: row.number("used_at_ms")?,
        })
    };
    row.map(one).transpose()
}

/// Forgets files that nobody has sent or asked for since `before_ms`. Their bytes go as those of other uploads.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune_files(tx: &mut Tx<'_>, before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    let rows = tx.query(
        "SELECT tenant, name FROM build_file WHERE used_at_ms < $1 ORDER BY used_at_ms LIMIT $2",
        &[before_ms.into(), limit.into()],
    )?;
    for row in &rows {
        let values = [
            row.text("tenant")?.into(),
            row.text("name")?.into(),
            before_ms.into(),
        ];
        let sql = "DELETE FROM build_file WHERE tenant = $1 AND name = $2 AND used_at_ms < $3";
        tx.execute(sql, &values)?;
    }
    Ok(rows.len() as u64)
}
