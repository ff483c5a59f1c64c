//! Policies, version by version, and the stamp that says which state all of them are in.

use crate::db::to_json;
use crate::{Row, StoreError, Tx, event};
use model::id::{PolicyId, PrincipalId, TenantId};
use model::limits;
use model::policy::Policy;

/// A policy as it is in the database, with its newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its name for programs.
    pub id: PolicyId,
    /// Who wrote it, and for whom it is unless it is for everybody.
    pub tenant: TenantId,
    /// Who wrote the newest version.
    pub principal: PrincipalId,
    /// Its name for people, one of a kind in the tenant.
    pub name: String,
    /// How often it was changed, from 1.
    pub version: u64,
    /// The number of the newest version of what it says, from 1.
    pub latest: u64,
    /// What it says.
    pub policy: Policy,
    /// When it was made.
    pub created_at_ms: u64,
    /// When it was changed last.
    pub updated_at_ms: u64,
}

/// A version of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersionRow {
    /// Which, from 1.
    pub number: u64,
    /// What it says.
    pub policy: Policy,
    /// Who wrote it.
    pub principal: PrincipalId,
    /// When.
    pub created_at_ms: u64,
}

macro_rules! columns {
    () => {
        "id, tenant, principal, name, version, latest, spec, created_at_ms, updated_at_ms"
    };
}

fn from_row(row: &Row) -> Result<PolicyRow, StoreError> {
    Ok(PolicyRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        name: row.text("name")?,
        version: row.number("version")?,
        latest: row.number("latest")?,
        policy: row.json("spec")?,
        created_at_ms: row.number("created_at_ms")?,
        updated_at_ms: row.number("updated_at_ms")?,
    })
}

fn version_from_row(row: &Row) -> Result<PolicyVersionRow, StoreError> {
    Ok(PolicyVersionRow {
        number: row.number("number")?,
        policy: row.json("spec")?,
        principal: row.parsed("principal")?,
        created_at_ms: row.number("created_at_ms")?,
    })
}

/// Which state all policies together are in; `None` when there is none at all.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn stamp(tx: &mut Tx<'_>) -> Result<Option<u64>, StoreError> {
    Ok(stamps(tx)?.policies)
}

/// Which states policies and quotas are in; `None` where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamps {
    /// That of policies.
    pub policies: Option<u64>,
    /// That of quotas.
    pub quotas: Option<u64>,
}

/// The same, and that of quotas, which are in one row.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn stamps(tx: &mut Tx<'_>) -> Result<Stamps, StoreError> {
    // Whether there is one is asked and not counted: of two that write at a time, neither sees the other's policy or
    // quota.
    let sql = "SELECT stamp, CASE WHEN EXISTS (SELECT 1 FROM policy) THEN 1 ELSE 0 END AS policies, \
               quota_stamp, CASE WHEN EXISTS (SELECT 1 FROM quota) THEN 1 ELSE 0 END AS quotas \
               FROM policy_stamp WHERE one = 1";
    // What counts it up shares no transaction.
    let rows = tx.query_apart(sql, &[])?;
    let Some(row) = rows.first() else {
        return Ok(Stamps::default());
    };
    let stamp = |stamp, there| -> Result<Option<u64>, StoreError> {
        let stamp = row.number(stamp)?;
        Ok((row.number(there)? > 0).then_some(stamp))
    };
    Ok(Stamps {
        policies: stamp("stamp", "policies")?,
        quotas: stamp("quota_stamp", "quotas")?,
    })
}

/// Whoever decided by another state has to decide again.
fn count_up(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let sql = "UPDATE policy_stamp SET stamp = stamp + 1 WHERE one = 1";
    tx.execute(sql, &[]).map(drop)
}

fn stale(id: &PolicyId) -> StoreError {
    StoreError::Stale {
        what: id.to_string(),
    }
}

fn tell(tx: &mut Tx<'_>, row: &PolicyRow, kind: &str, at_ms: u64) -> Result<(), StoreError> {
    let data =
        serde_json::json!({"name": row.name, "version": row.latest, "layer": row.policy.layer})
            .to_string();
    let new = event::NewEvent {
        tenant: &row.tenant,
        resource: "policy",
        resource_id: row.id.as_str(),
        version: row.version,
        kind,
        data: &data,
        principal: &row.principal,
        at_ms,
    };
    event::append(tx, &new)
}

/// Adds a policy with its first version and the event.
///
/// # Errors
/// [`StoreError::Stale`] when its name was taken meanwhile, or [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &PolicyRow) -> Result<(), StoreError> {
    let added = tx.execute(
        "INSERT INTO policy (id, tenant, principal, name, layer, version, latest, spec, created_at_ms, \
         updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        &[
            new.id.as_str().into(),
            new.tenant.as_str().into(),
            new.principal.as_str().into(),
            (*new.name).into(),
            new.policy.layer.as_str().into(),
            new.version.into(),
            new.latest.into(),
            to_json(&new.policy)?.into(),
            new.created_at_ms.into(),
            new.updated_at_ms.into(),
        ],
    )?;
    if added != 1 {
        return Err(stale(&new.id));
    }
    version_put(tx, new)?;
    count_up(tx)?;
    tell(tx, new, "policy.created", new.created_at_ms)
}

fn version_put(tx: &mut Tx<'_>, row: &PolicyRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO policy_version (policy, number, spec, principal, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5)",
        &[
            row.id.as_str().into(),
            row.latest.into(),
            to_json(&row.policy)?.into(),
            row.principal.as_str().into(),
            row.updated_at_ms.into(),
        ],
    )?;
    let oldest = row.latest.saturating_sub(limits::POLICY_VERSIONS_MAX);
    let sql = "DELETE FROM policy_version WHERE policy = $1 AND number <= $2";
    tx.execute(sql, &[row.id.as_str().into(), oldest.into()])
        .map(drop)
}

/// Writes the next version of a policy, if nobody has changed it since `row` was read, with the event. The oldest
/// goes where there are too many.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn put(
    tx: &mut Tx<'_>,
    row: &PolicyRow,
    policy: &Policy,
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<PolicyRow, StoreError> {
    let next = PolicyRow {
        version: row.version + 1,
        latest: row.latest + 1,
        principal: principal.clone(),
        policy: policy.clone(),
        updated_at_ms: at_ms,
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE policy SET version = $1, latest = $2, principal = $3, layer = $4, spec = $5, \
         updated_at_ms = $6 WHERE id = $7 AND version = $8",
        &[
            next.version.into(),
            next.latest.into(),
            principal.as_str().into(),
            policy.layer.as_str().into(),
            to_json(policy)?.into(),
            at_ms.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    if changed != 1 {
        return Err(stale(&row.id));
    }
    version_put(tx, &next)?;
    count_up(tx)?;
    tell(tx, &next, "policy.changed", at_ms)?;
    Ok(next)
}

/// Deletes a policy with its versions, if nobody has changed it since `row` was read. Its events stay.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn delete(
    tx: &mut Tx<'_>,
    row: &PolicyRow,
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<(), StoreError> {
    let values = [row.id.as_str().into(), row.version.into()];
    let sql = "DELETE FROM policy WHERE id = $1 AND version = $2";
    if tx.execute(sql, &values)? != 1 {
        return Err(stale(&row.id));
    }
    let id = [row.id.as_str().into()];
    tx.execute("DELETE FROM policy_version WHERE policy = $1", &id)?;
    count_up(tx)?;
    let gone = PolicyRow {
        version: row.version + 1,
        principal: principal.clone(),
        ..row.clone()
    };
    tell(tx, &gone, "policy.deleted", at_ms)
}

/// A policy of a tenant by its name.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn named(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    name: &str,
) -> Result<Option<PolicyRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM policy WHERE tenant = $1 AND name = $2"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), name.into()])?;
    row.as_ref().map(from_row).transpose()
}

/// Policies of a tenant by their names: there are at most [`limits::POLICIES_MAX`].
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<Vec<PolicyRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM policy WHERE tenant = $1 ORDER BY name LIMIT $2"
    );
    let values = [tenant.as_str().into(), limits::POLICIES_MAX.into()];
    tx.query(sql, &values)?.iter().map(from_row).collect()
}

/// Those that are for everybody, whoever wrote them. Whoever may write one is of one tenant, so there are not more.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn global(tx: &mut Tx<'_>) -> Result<Vec<PolicyRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM policy WHERE layer = 'global' ORDER BY tenant, name LIMIT $1"
    );
    let values = [limits::POLICIES_MAX.into()];
    tx.query(sql, &values)?.iter().map(from_row).collect()
}

/// A version of a policy.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn version(
    tx: &mut Tx<'_>,
    policy: &PolicyId,
    number: u64,
) -> Result<Option<PolicyVersionRow>, StoreError> {
    let sql = "SELECT number, spec, principal, created_at_ms FROM policy_version \
               WHERE policy = $1 AND number = $2";
    let row = tx.query_one(sql, &[policy.as_str().into(), number.into()])?;
    row.as_ref().map(version_from_row).transpose()
}

/// The versions of a policy that are kept, newest first.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn versions(tx: &mut Tx<'_>, policy: &PolicyId) -> Result<Vec<PolicyVersionRow>, StoreError> {
    let rows = tx.query(
        "SELECT number, spec, principal, created_at_ms FROM policy_version \
         WHERE policy = $1 ORDER BY number DESC LIMIT $2",
        &[policy.as_str().into(), limits::POLICY_VERSIONS_MAX.into()],
    )?;
    rows.iter().map(version_from_row).collect()
}
