//! Quotas, and what is used of them: counted from the rows of jobs, places, sandboxes and files at the moment when
//! somebody wants more. There is no counter, so there is none that could be wrong.

use crate::db::to_json;
use crate::{Row, StoreError, Tx, Value};
use model::id::{PrincipalId, TenantId};
use model::quota::{Amounts, Limit, Whose, amounts_from, amounts_named};
use std::collections::BTreeMap;

/// A quota of a tenant, or of a principal of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRow {
    /// Of which tenant.
    pub tenant: TenantId,
    /// Of the tenant itself, or of one of its principals.
    pub whose: Whose,
    /// What it may have.
    pub most: Amounts,
    /// Who said so last.
    pub made_by: PrincipalId,
    /// When, in milliseconds since 1970.
    pub updated_at_ms: u64,
}

/// How it is in the table: that of the tenant is under no name.
fn name(whose: &Whose) -> &str {
    match whose {
        Whose::Tenant => "",
        Whose::Principal(id) => id.as_str(),
    }
}

macro_rules! columns {
    () => {
        "tenant, principal, most, made_by, updated_at_ms"
    };
}

fn from_row(row: &Row) -> Result<QuotaRow, StoreError> {
    let most: BTreeMap<String, u64> = row.json("most")?;
    let corrupt = |what: &str| StoreError::Corrupt {
        what: format!("the limit `{what}` of a quota"),
    };
    let whose = match row.text("principal")?.as_str() {
        "" => Whose::Tenant,
        id => Whose::Principal(id.parse().map_err(|_| corrupt(id))?),
    };
    Ok(QuotaRow {
        tenant: row.parsed("tenant")?,
        whose,
        // One that this program does not know would not be held.
        most: amounts_from(&most).map_err(corrupt)?,
        made_by: row.parsed("made_by")?,
        updated_at_ms: row.number("updated_at_ms")?,
    })
}

/// A quota.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    whose: &Whose,
) -> Result<Option<QuotaRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM quota WHERE tenant = $1 AND principal = $2"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), name(whose).into()])?;
    row.as_ref().map(from_row).transpose()
}

/// Quotas by tenant and principal, that of the tenant before those of its principals, those after `after`; of one
/// tenant, or of all.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    after: Option<(&TenantId, &Whose)>,
    limit: u32,
) -> Result<Vec<QuotaRow>, StoreError> {
    let (all, of_one) = (
        concat!(
            "SELECT ",
            columns!(),
            " FROM quota WHERE (tenant, principal) > ($1, $2) ORDER BY tenant, principal LIMIT $3"
        ),
        concat!(
            "SELECT ",
            columns!(),
            " FROM quota WHERE tenant = $1 AND principal > $2 ORDER BY principal LIMIT $3"
        ),
    );
    let rows = match (tenant, after) {
        // The first one of a tenant is under no name, which is after nothing.
        (Some(tenant), None) => {
            let mut rows = Vec::from_iter(get(tx, tenant, &Whose::Tenant)?);
            let of = [tenant.as_str().into(), "".into(), limit.into()];
            rows.extend(rows_of(&tx.query(of_one, &of)?)?);
            rows.truncate(limit as usize);
            return Ok(rows);
        }
        (Some(tenant), Some((_, whose))) => tx.query(
            of_one,
            &[tenant.as_str().into(), name(whose).into(), limit.into()],
        )?,
        (None, after) => {
            let (tenant, whose) =
                after.map_or(("", ""), |(tenant, whose)| (tenant.as_str(), name(whose)));
            tx.query(all, &[tenant.into(), whose.into(), limit.into()])?
        }
    };
    rows_of(&rows)
}

fn rows_of(rows: &[Row]) -> Result<Vec<QuotaRow>, StoreError> {
    rows.iter().map(from_row).collect()
}

/// How many a tenant has, its own among them.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS n FROM quota WHERE tenant = $1";
    let row = tx.query_one(sql, &[tenant.as_str().into()])?;
    row.map_or(Ok(0), |row| row.number("n"))
}

/// Says what somebody may have from now on.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn put(tx: &mut Tx<'_>, row: &QuotaRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO quota (tenant, principal, most, made_by, updated_at_ms) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, principal) DO UPDATE SET \
         most = excluded.most, made_by = excluded.made_by, updated_at_ms = excluded.updated_at_ms",
        &[
            row.tenant.as_str().into(),
            name(&row.whose).into(),
            to_json(&amounts_named(&row.most))?.into(),
            row.made_by.as_str().into(),
            row.updated_at_ms.into(),
        ],
    )?;
    count_up(tx)
}

/// Takes a quota away; says whether there was one.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, tenant: &TenantId, whose: &Whose) -> Result<bool, StoreError> {
    let sql = "DELETE FROM quota WHERE tenant = $1 AND principal = $2";
    let gone = tx.execute(sql, &[tenant.as_str().into(), name(whose).into()])?;
    if gone > 0 {
        count_up(tx)?;
    }
    Ok(gone > 0)
}

/// Takes all quotas of a tenant away.
pub(crate) fn delete_all(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<(), StoreError> {
    let sql = "DELETE FROM quota WHERE tenant = $1";
    let gone = tx.execute(sql, &[tenant.as_str().into()])?;
    if gone > 0 {
        count_up(tx)?;
    }
    Ok(())
}

/// Whoever remembers quotas has to read them again.
fn count_up(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let sql = "UPDATE policy_stamp SET quota_stamp = quota_stamp + 1 WHERE one = 1";
    tx.execute(sql, &[]).map(drop)
}

/// Makes those wait who want something by the same quotas, until the end of the transaction: what is counted after it
/// is not made old by somebody else who counts at the same time. Quotas are to be in order, and a transaction asks once
/// for all that it goes by, so that nobody waits in a circle. On SQLite there is one writer anyway.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn lock<'q>(
    tx: &mut Tx<'_>,
    quotas: impl IntoIterator<Item = (&'q TenantId, &'q Whose)>,
) -> Result<(), StoreError> {
    if !tx.has_row_locks() {
        return Ok(());
    }
    for (tenant, whose) in quotas {
        let sql = "SELECT tenant FROM quota WHERE tenant = $1 AND principal = $2 FOR UPDATE";
        tx.query(sql, &[tenant.as_str().into(), name(whose).into()])?;
    }
    Ok(())
}

/// What there is of what `limits` names, of a tenant or of one of its principals.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn used(
    tx: &mut Tx<'_>,
    (tenant, whose): (&TenantId, &Whose),
    limits: &[Limit],
) -> Result<Amounts, StoreError> {
    let mut used = Amounts::new();
    let asks = |any: &[Limit]| any.iter().any(|limit| limits.contains(limit));
    let sums = [Limit::CpuMillis, Limit::MemoryBytes, Limit::DiskBytes];
    let of = of_whom(tenant, whose);
    if asks(&sums) || asks(&[Limit::Jobs]) {
        let row = tx.query_one(in_force(whose), &of)?;
        add(&mut used, row.as_ref(), Limit::Jobs)?;
    }
    if asks(&sums) || asks(&[Limit::Sandboxes]) {
        let row = tx.query_one(alive(whose), &of)?;
        add(&mut used, row.as_ref(), Limit::Sandboxes)?;
    }
    for (limit, sql) in [
        (Limit::JobsWaiting, waiting(whose)),
        (Limit::ArtifactBytes, kept(whose)),
    ] {
        if asks(&[limit])
            && let Some(row) = tx.query_one(sql, &of)?
        {
            used.insert(limit, row.number("n")?);
        }
    }
    used.retain(|limit, _| limits.contains(limit));
    Ok(used)
}

fn of_whom(tenant: &TenantId, whose: &Whose) -> Vec<Value> {
    let mut of: Vec<Value> = vec![tenant.as_str().into()];
    if let Whose::Principal(id) = whose {
        of.push(id.as_str().into());
    }
    of
}

/// Adds what one statement has counted: how many, and what they take.
fn add(used: &mut Amounts, row: Option<&Row>, what: Limit) -> Result<(), StoreError> {
    let Some(row) = row else { return Ok(()) };
    used.insert(what, row.number("n")?);
    for (limit, column) in [
        (Limit::CpuMillis, "cpu"),
        (Limit::MemoryBytes, "memory"),
        (Limit::DiskBytes, "disk"),
    ] {
        let sum = used.entry(limit).or_default();
        *sum = sum.saturating_add(row.number(column)?);
    }
    Ok(())
}

/// PostgreSQL adds large numbers up to something that is no 64-bit integer; amounts are bounded so that it is one.
macro_rules! sums {
    ($of:literal) => {
        concat!(
            "SELECT COUNT(*) AS n, CAST(COALESCE(SUM(cpu_millis), 0) AS BIGINT) AS cpu, ",
            "CAST(COALESCE(SUM(memory_bytes), 0) AS BIGINT) AS memory, ",
            "CAST(COALESCE(SUM(disk_bytes), 0) AS BIGINT) AS disk FROM ",
            $of
        )
    };
}

fn in_force(whose: &Whose) -> &'static str {
    match whose {
        Whose::Tenant => {
            sums!("job WHERE tenant = $1 AND state IN ('leased', 'running', 'stopping')")
        }
        Whose::Principal(_) => sums!(
            "job WHERE tenant = $1 AND principal = $2 AND state IN ('leased', 'running', 'stopping')"
        ),
    }
}

fn alive(whose: &Whose) -> &'static str {
    match whose {
        Whose::Tenant => sums!("sandbox WHERE tenant = $1 AND ended_at_ms IS NULL"),
        Whose::Principal(_) => {
            sums!("sandbox WHERE tenant = $1 AND ended_at_ms IS NULL AND principal = $2")
        }
    }
}

fn waiting(whose: &Whose) -> &'static str {
    match whose {
        Whose::Tenant => "SELECT COUNT(*) AS n FROM queue WHERE tenant = $1",
        Whose::Principal(_) => {
            "SELECT COUNT(*) AS n FROM queue WHERE tenant = $1 AND held IN (0, 1) AND principal = $2"
        }
    }
}

fn kept(whose: &Whose) -> &'static str {
    match whose {
        Whose::Tenant => {
            "SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) AS n FROM artifact WHERE tenant = $1"
        }
        Whose::Principal(_) => {
            "SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) AS n FROM artifact \
             WHERE tenant = $1 AND principal = $2"
        }
    }
}
