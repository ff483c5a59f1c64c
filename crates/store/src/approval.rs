//! Approvals: what waits for a person, what they said, and what a yes is still good for.

use crate::db::to_json;
use crate::{Row, StoreError, Tx, Value, event};
use model::approval::{ApprovalState, Scope, Subject};
use model::id::{ApprovalId, KeyId, PrincipalId, TenantId};
use std::collections::BTreeSet;

/// An approval as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRow {
    /// Its name.
    pub id: ApprovalId,
    /// Whose.
    pub tenant: TenantId,
    /// Who asked.
    pub principal: PrincipalId,
    /// What it is about.
    pub subject: Subject,
    /// Which: the job, the sandbox or the policy; empty for a sandbox that is not there yet.
    pub subject_id: String,
    /// Of the request, in hexadecimal digits; empty for a job, which is there itself.
    pub digest: String,
    /// Where it is.
    pub state: ApprovalState,
    /// How often it was changed, from 1.
    pub version: u64,
    /// What is asked, in one line.
    pub summary: String,
    /// What is asked, a JSON object without values of secrets and variables.
    pub request: String,
    /// Why a person has to say yes.
    pub reasons: BTreeSet<String>,
    /// Why somebody asks, in their own words.
    pub why: String,
    /// The key that was shown.
    pub key: Option<KeyId>,
    /// For whom whoever asked acts: they may not decide it.
    pub makers: BTreeSet<PrincipalId>,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Until when somebody may decide it.
    pub expires_at_ms: u64,
    /// When it was decided, or over.
    pub decided_at_ms: Option<u64>,
    /// Who decided it, or ended it.
    pub decided_by: Option<PrincipalId>,
    /// What they said.
    pub comment: String,
    /// They let it through without judging it.
    pub waived: bool,
    /// What a yes is good for.
    pub scope: Option<Scope>,
    /// Until when.
    pub until_ms: Option<u64>,
    /// When a yes for one request was used.
    pub used_at_ms: Option<u64>,
    /// When a yes was taken back.
    pub revoked_at_ms: Option<u64>,
}

macro_rules! columns {
    () => {
        "approval.id, approval.tenant, approval.principal, approval.subject, approval.subject_id, \
         approval.digest, approval.state, approval.version, approval.summary, approval.request, \
         approval.reasons, approval.why, approval.api_key, approval.makers, approval.created_at_ms, \
         approval.expires_at_ms, approval.decided_at_ms, approval.decided_by, approval.comment, \
         approval.waived, approval.scope, approval.until_ms, approval.used_at_ms, approval.revoked_at_ms"
    };
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt {
        what: what.to_owned(),
    }
}

fn from_row(row: &Row) -> Result<ApprovalRow, StoreError> {
    let key = row.text_or_null("api_key")?;
    let by = row.text_or_null("decided_by")?;
    let scope = row.text_or_null("scope")?;
    let scope_of = |text: String| Scope::parse(&text).ok_or_else(|| corrupt("a scope"));
    Ok(ApprovalRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        subject: Subject::parse(&row.text("subject")?).ok_or_else(|| corrupt("a subject"))?,
        subject_id: row.text("subject_id")?,
        digest: row.text("digest")?,
        state: ApprovalState::parse(&row.text("state")?)
            .ok_or_else(|| corrupt("the state of an approval"))?,
        version: row.number("version")?,
        summary: row.text("summary")?,
        request: row.text("request")?,
        reasons: row.json("reasons")?,
        why: row.text("why")?,
        key: key
            .map(|id| id.parse())
            .transpose()
            .map_err(|_| corrupt("a key of an approval"))?,
        makers: row.json("makers")?,
        created_at_ms: row.number("created_at_ms")?,
        expires_at_ms: row.number("expires_at_ms")?,
        decided_at_ms: row.number_or_null("decided_at_ms")?,
        decided_by: by
            .map(|id| id.parse())
            .transpose()
            .map_err(|_| corrupt("who decided an approval"))?,
        comment: row.text("comment")?,
        waived: row.number("waived")? != 0,
        scope: scope.map(scope_of).transpose()?,
        until_ms: row.number_or_null("until_ms")?,
        used_at_ms: row.number_or_null("used_at_ms")?,
        revoked_at_ms: row.number_or_null("revoked_at_ms")?,
    })
}

fn tell(
    tx: &mut Tx<'_>,
    row: &ApprovalRow,
    kind: &str,
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<(), StoreError> {
    let data = serde_json::json!({
        "subject": row.subject, "subject_id": row.subject_id, "asked_by": row.principal,
        "summary": row.summary, "reasons": row.reasons, "why": row.why, "comment": row.comment,
        "waived": row.waived, "scope": row.scope, "until_ms": row.until_ms,
    })
    .to_string();
    let new = event::NewEvent {
        tenant: &row.tenant,
        resource: "approval",
        resource_id: row.id.as_str(),
        version: row.version,
        kind,
        data: &data,
        principal,
        at_ms,
    };
    event::append(tx, &new)
}

/// Adds an approval that waits, with its event.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, new: &ApprovalRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO approval (id, tenant, principal, subject, subject_id, digest, state, version, \
         summary, request, reasons, why, api_key, makers, created_at_ms, expires_at_ms, comment, waived, \
         told_version, tell_attempts, tell_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, \
         $12, $13, $14, $15, $16, $17, $18, 0, 0, $19)",
        &[
            new.id.as_str().into(),
            new.tenant.as_str().into(),
            new.principal.as_str().into(),
            new.subject.as_str().into(),
            (*new.subject_id).into(),
            (*new.digest).into(),
            new.state.as_str().into(),
            new.version.into(),
            (*new.summary).into(),
            (*new.request).into(),
            to_json(&new.reasons)?.into(),
            (*new.why).into(),
            new.key.as_ref().map(KeyId::as_str).into(),
            to_json(&new.makers)?.into(),
            new.created_at_ms.into(),
            new.expires_at_ms.into(),
            (*new.comment).into(),
            new.waived.into(),
            new.created_at_ms.into(),
        ],
    )?;
    let by = (&new.principal, new.created_at_ms);
    tell(tx, new, "approval.asked", by)
}

/// Writes what became of an approval, if nobody has changed it since `row` was read, with the event.
///
/// # Errors
/// [`StoreError::Stale`] when somebody has, or [`StoreError`] of the database.
pub fn put(
    tx: &mut Tx<'_>,
    row: &ApprovalRow,
    next: &ApprovalRow,
    kind: &'static str,
    by: (&PrincipalId, u64),
) -> Result<ApprovalRow, StoreError> {
    let next = ApprovalRow {
        version: row.version + 1,
        ..next.clone()
    };
    let changed = tx.execute(
        "UPDATE approval SET state = $1, version = $2, decided_at_ms = $3, decided_by = $4, \
         comment = $5, waived = $6, scope = $7, until_ms = $8, used_at_ms = $9, revoked_at_ms = $10, \
         tell_attempts = 0, tell_at_ms = $11 WHERE id = $12 AND version = $13",
        &[
            next.state.as_str().into(),
            next.version.into(),
            next.decided_at_ms.into(),
            next.decided_by.as_ref().map(PrincipalId::as_str).into(),
            (*next.comment).into(),
            next.waived.into(),
            next.scope.map(Scope::as_str).into(),
            next.until_ms.into(),
            next.used_at_ms.into(),
            next.revoked_at_ms.into(),
            by.1.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    if changed != 1 {
        return Err(StoreError::Stale {
            what: row.id.to_string(),
        });
    }
    tell(tx, &next, kind, by)?;
    Ok(next)
}

/// An approval; with a tenant, only if it is that tenant's.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(
    tx: &mut Tx<'_>,
    tenant: Option<&TenantId>,
    id: &ApprovalId,
) -> Result<Option<ApprovalRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM approval WHERE id = $1");
    let row = tx.query_one(sql, &[id.as_str().into()])?;
    let row = row.as_ref().map(from_row).transpose()?;
    Ok(row.filter(|row| tenant.is_none_or(|tenant| *tenant == row.tenant)))
}

/// Approvals of a tenant, newest first; those asked for before `before`, and of these in one state.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    state: Option<ApprovalState>,
    before: Option<(u64, &ApprovalId)>,
    limit: u32,
) -> Result<Vec<ApprovalRow>, StoreError> {
    let (before_ms, before_id) = before.map_or((u64::MAX, ""), |(ms, id)| (ms, id.as_str()));
    let all = concat!(
        "SELECT ",
        columns!(),
        " FROM approval WHERE tenant = $1 AND (created_at_ms, id) < ($2, $3) \
         ORDER BY created_at_ms DESC, id DESC LIMIT $4"
    );
    let of_state = concat!(
        "SELECT ",
        columns!(),
        " FROM approval WHERE tenant = $1 AND (created_at_ms, id) < ($2, $3) AND state = $4 \
         ORDER BY created_at_ms DESC, id DESC LIMIT $5"
    );
    let mut values: Vec<Value> = vec![tenant.as_str().into(), before_ms.into(), before_id.into()];
    values.extend(state.map(|state| state.as_str().into()));
    values.push(limit.into());
    let sql = if state.is_some() { of_state } else { all };
    tx.query(sql, &values)?.iter().map(from_row).collect()
}

/// How many wait of a tenant, and how many of these one principal asked for, each counted up to `most`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn count_pending(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
    most: u64,
) -> Result<(u64, u64), StoreError> {
    let count = |row: Option<Row>| row.map_or(Ok(0), |row| row.number("n"));
    let of_tenant = "SELECT COUNT(*) AS n FROM (SELECT 1 FROM approval WHERE tenant = $1 \
                     AND state = 'pending' LIMIT $2) AS places";
    let all = tx.query_one(of_tenant, &[tenant.as_str().into(), most.into()])?;
    let of_one = "SELECT COUNT(*) AS n FROM (SELECT 1 FROM approval WHERE tenant = $1 \
                  AND principal = $2 AND state = 'pending' LIMIT $3) AS places";
    let values = [
        tenant.as_str().into(),
        principal.as_str().into(),
        most.into(),
    ];
    let own = tx.query_one(of_one, &values)?;
    Ok((count(all)?, count(own)?))
}

/// What waits about one thing, such as a job: there is at most one of a job.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn pending_of(
    tx: &mut Tx<'_>,
    subject_id: &str,
    limit: u32,
) -> Result<Vec<ApprovalRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM approval WHERE subject_id = $1 AND state = 'pending' ORDER BY id LIMIT $2"
    );
    tx.query(sql, &[subject_id.into(), limit.into()])?
        .iter()
        .map(from_row)
        .collect()
}

/// What a principal has waiting that is this same request.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn pending_same(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
    digest: &str,
) -> Result<Option<ApprovalRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM approval WHERE tenant = $1 AND principal = $2 AND state = 'pending' AND digest = $3 \
         ORDER BY id LIMIT 1"
    );
    let values = [
        tenant.as_str().into(),
        principal.as_str().into(),
        digest.into(),
    ];
    let row = tx.query_one(sql, &values)?;
    row.as_ref().map(from_row).transpose()
}

/// What a principal was said yes to that counts at this time: for a session, or for this one request and not used
/// yet. Not what was said to one of the same name who was sent away since.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn standing(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
    digest: &str,
    now_ms: u64,
    limit: u32,
) -> Result<Vec<ApprovalRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM approval WHERE tenant = $1 AND principal = $2 AND state = 'approved' \
         AND until_ms > $3 AND revoked_at_ms IS NULL AND used_at_ms IS NULL \
         AND (scope = 'session' OR digest = $4) AND NOT EXISTS (SELECT 1 FROM principal \
         WHERE principal.tenant = approval.tenant AND principal.id = approval.principal \
         AND principal.created_at_ms > approval.created_at_ms) ORDER BY approval.id DESC LIMIT $5"
    );
    let values = [
        tenant.as_str().into(),
        principal.as_str().into(),
        now_ms.into(),
        digest.into(),
        limit.into(),
    ];
    tx.query(sql, &values)?.iter().map(from_row).collect()
}

/// Approvals that nobody has decided in time.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn expired(tx: &mut Tx<'_>, now_ms: u64, limit: u32) -> Result<Vec<ApprovalRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM approval WHERE state = 'pending' AND expires_at_ms <= $1 \
         ORDER BY expires_at_ms LIMIT $2"
    );
    tx.query(sql, &[now_ms.into(), limit.into()])?
        .iter()
        .map(from_row)
        .collect()
}

/// Deletes approvals that were over before this time, at most `limit`. Their events stay.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, before_ms: u64, limit: u32) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM approval WHERE id IN (SELECT id FROM approval WHERE state <> 'pending' \
         AND decided_at_ms < $1 ORDER BY decided_at_ms LIMIT $2)",
        &[before_ms.into(), limit.into()],
    )
}

/// A change that a webhook has not been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// The approval as it is now: of several changes the last is told.
    pub row: ApprovalRow,
    /// How often it was tried.
    pub attempts: u64,
}

/// Changes that are to be told now, and that were to be told, or tried again, since `since_ms`. When something was asked
/// for is no measure: that its time is over comes last.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn untold(
    tx: &mut Tx<'_>,
    now_ms: u64,
    since_ms: u64,
    limit: u32,
) -> Result<Vec<Untold>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        ", approval.tell_attempts FROM approval WHERE told_version < version AND tell_at_ms <= $1 \
         AND tell_at_ms >= $2 ORDER BY tell_at_ms LIMIT $3"
    );
    let rows = tx.query(sql, &[now_ms.into(), since_ms.into(), limit.into()])?;
    let one = |row: &Row| -> Result<Untold, StoreError> {
        Ok(Untold {
            row: from_row(row)?,
            attempts: row.number("tell_attempts")?,
        })
    };
    rows.iter().map(one).collect()
}

/// Takes a try to tell a change, which is tried again at `next_ms` unless it was told. False where somebody else has
/// taken it, or where there is another change by now.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn telling(tx: &mut Tx<'_>, one: &Untold, next_ms: u64) -> Result<bool, StoreError> {
    let changed = tx.execute(
        "UPDATE approval SET tell_attempts = $1, tell_at_ms = $2 \
         WHERE id = $3 AND version = $4 AND tell_attempts = $5",
        &[
            (one.attempts + 1).into(),
            next_ms.into(),
            one.row.id.as_str().into(),
            one.row.version.into(),
            one.attempts.into(),
        ],
    )?;
    Ok(changed == 1)
}

/// A try has failed: the next one is at `next_ms`, unless there is another change by now.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn retold(tx: &mut Tx<'_>, one: &Untold, next_ms: u64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE approval SET tell_at_ms = $1 WHERE id = $2 AND version = $3 AND tell_attempts = $4",
        &[
            next_ms.into(),
            one.row.id.as_str().into(),
            one.row.version.into(),
            one.attempts.into(),
        ],
    )
    .map(drop)
}

/// Writes down that a change was told.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn told(tx: &mut Tx<'_>, row: &ApprovalRow) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE approval SET told_version = $1 WHERE id = $2 AND told_version < $3",
        &[
            row.version.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )
    .map(drop)
}

/// Gives up to tell a change, with the event that says so. Nothing where there is another change by now.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn never_told(
    tx: &mut Tx<'_>,
    row: &ApprovalRow,
    by: (&PrincipalId, u64),
) -> Result<(), StoreError> {
    let next = ApprovalRow {
        version: row.version + 1,
        ..row.clone()
    };
    let changed = tx.execute(
        "UPDATE approval SET version = $1, told_version = $2 WHERE id = $3 AND version = $4",
        &[
            next.version.into(),
            next.version.into(),
            row.id.as_str().into(),
            row.version.into(),
        ],
    )?;
    match changed {
        1 => tell(tx, &next, "approval.untold", by),
        _ => Ok(()),
    }
}
