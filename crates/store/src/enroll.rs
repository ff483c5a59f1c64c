//! Letting machines in as nodes: tokens, enrollments, and the certificates that count.

use crate::db::to_json;
use crate::{Row, StoreError, Tx};
use model::id::{EnrollTokenId, NodeId, PrincipalId, TenantId};
use std::collections::BTreeMap;

/// What is known of a token. Its text is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollTokenRow {
    /// Its name for programs.
    pub id: EnrollTokenId,
    /// Whose nodes it makes.
    pub tenant: TenantId,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// SHA-256 of its text, in hexadecimal digits.
    pub digest: String,
    /// What its node is to carry.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at_ms: u64,
    /// Until when it can be used.
    pub expires_at_ms: u64,
    /// When it was used, for which node, and the digest of that machine's public key.
    pub used: Option<(u64, NodeId, String)>,
    /// When it was taken back.
    pub revoked_at_ms: Option<u64>,
}

/// A machine that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentRow {
    /// The node that it is.
    pub node: NodeId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name for people, when it was let in.
    pub name: String,
    /// What its token gave it.
    pub labels: BTreeMap<String, String>,
    /// When.
    pub enrolled_at_ms: u64,
    /// When it was sent away for good.
    pub decommissioned_at_ms: Option<u64>,
}

/// A certificate that a node was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// SHA-256 of its DER, in hexadecimal digits.
    pub fingerprint: String,
    /// Whose.
    pub node: NodeId,
    /// When it was given.
    pub issued_at_ms: u64,
    /// Until when it counts.
    pub expires_at_ms: u64,
    /// Since when it does not any more.
    pub revoked_at_ms: Option<u64>,
}

macro_rules! token_columns {
    () => {
        "id, tenant, principal, digest, labels, created_at_ms, expires_at_ms, used_at_ms, node, \
         key_digest, revoked_at_ms"
    };
}

fn token_from(row: &Row) -> Result<EnrollTokenRow, StoreError> {
    let used = match row.number_or_null("used_at_ms")? {
        None => None,
        Some(at_ms) => Some((at_ms, row.parsed("node")?, row.text("key_digest")?)),
    };
    Ok(EnrollTokenRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        principal: row.parsed("principal")?,
        digest: row.text("digest")?,
        labels: row.json("labels")?,
        created_at_ms: row.number("created_at_ms")?,
        expires_at_ms: row.number("expires_at_ms")?,
        used,
        revoked_at_ms: row.number_or_null("revoked_at_ms")?,
    })
}

/// Adds a token.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert_token(tx: &mut Tx<'_>, row: &EnrollTokenRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO enroll_token (id, tenant, principal, digest, labels, created_at_ms, \
         expires_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            row.id.as_str().into(),
            row.tenant.as_str().into(),
            row.principal.as_str().into(),
            (*row.digest).into(),
            to_json(&row.labels)?.into(),
            row.created_at_ms.into(),
            row.expires_at_ms.into(),
        ],
    )
    .map(drop)
}

/// Forgets tokens that were made before then. What was made with them stays.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn forget_tokens(tx: &mut Tx<'_>, before_ms: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM enroll_token WHERE created_at_ms < $1";
    tx.execute(sql, &[before_ms.into()]).map(drop)
}

/// A token of a tenant.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn token(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    id: &EnrollTokenId,
) -> Result<Option<EnrollTokenRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        token_columns!(),
        " FROM enroll_token WHERE tenant = $1 AND id = $2"
    );
    let row = tx.query_one(sql, &[tenant.as_str().into(), id.as_str().into()])?;
    row.as_ref().map(token_from).transpose()
}

/// A token, by the digest of its text.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn token_of_digest(
    tx: &mut Tx<'_>,
    digest: &str,
) -> Result<Option<EnrollTokenRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        token_columns!(),
        " FROM enroll_token WHERE digest = $1"
    );
    let row = tx.query_one(sql, &[digest.into()])?;
    row.as_ref().map(token_from).transpose()
}

/// The newest tokens of a tenant.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn tokens(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    limit: u32,
) -> Result<Vec<EnrollTokenRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        token_columns!(),
        " FROM enroll_token WHERE tenant = $1 ORDER BY created_at_ms DESC, id DESC LIMIT $2"
    );
    let rows = tx.query(sql, &[tenant.as_str().into(), limit.into()])?;
    rows.iter().map(token_from).collect()
}

/// Spends a token for a node, if nobody has spent it or taken it back since it was read.
///
/// # Errors
/// [`StoreError::Stale`] if somebody has, or [`StoreError`] of the database.
pub fn spend_token(
    tx: &mut Tx<'_>,
    id: &EnrollTokenId,
    node: &NodeId,
    key_digest: &str,
    at_ms: u64,
) -> Result<(), StoreError> {
    let spent = tx.execute(
        "UPDATE enroll_token SET used_at_ms = $1, node = $2, key_digest = $3 \
         WHERE id = $4 AND used_at_ms IS NULL AND revoked_at_ms IS NULL",
        &[
            at_ms.into(),
            node.as_str().into(),
            key_digest.into(),
            id.as_str().into(),
        ],
    )?;
    only_one(spent, id.as_str())
}

/// Takes a token back, if nobody has spent it or taken it back since it was read.
///
/// # Errors
/// [`StoreError::Stale`] if somebody has, or [`StoreError`] of the database.
pub fn revoke_token(tx: &mut Tx<'_>, id: &EnrollTokenId, at_ms: u64) -> Result<(), StoreError> {
    let revoked = tx.execute(
        "UPDATE enroll_token SET revoked_at_ms = $1 \
         WHERE id = $2 AND used_at_ms IS NULL AND revoked_at_ms IS NULL",
        &[at_ms.into(), id.as_str().into()],
    )?;
    only_one(revoked, id.as_str())
}

fn only_one(changed: u64, what: &str) -> Result<(), StoreError> {
    if changed == 1 {
        return Ok(());
    }
    Err(StoreError::Stale {
        what: what.to_owned(),
    })
}

fn enrollment_from(row: &Row) -> Result<EnrollmentRow, StoreError> {
    Ok(EnrollmentRow {
        node: row.parsed("node")?,
        tenant: row.parsed("tenant")?,
        name: row.text("name")?,
        labels: row.json("labels")?,
        enrolled_at_ms: row.number("enrolled_at_ms")?,
        decommissioned_at_ms: row.number_or_null("decommissioned_at_ms")?,
    })
}

/// Adds a machine.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert(tx: &mut Tx<'_>, row: &EnrollmentRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO node_enrollment (node, tenant, name, labels, enrolled_at_ms) \
         VALUES ($1, $2, $3, $4, $5)",
        &[
            row.node.as_str().into(),
            row.tenant.as_str().into(),
            (*row.name).into(),
            to_json(&row.labels)?.into(),
            row.enrolled_at_ms.into(),
        ],
    )
    .map(drop)
}

/// A machine that was let in.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(tx: &mut Tx<'_>, node: &NodeId) -> Result<Option<EnrollmentRow>, StoreError> {
    let row = tx.query_one(
        "SELECT node, tenant, name, labels, enrolled_at_ms, decommissioned_at_ms \
         FROM node_enrollment WHERE node = $1",
        &[node.as_str().into()],
    )?;
    row.as_ref().map(enrollment_from).transpose()
}

/// The machines that were let in, by id, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn list(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<EnrollmentRow>, StoreError> {
    let rows = tx.query(
        "SELECT node, tenant, name, labels, enrolled_at_ms, decommissioned_at_ms \
         FROM node_enrollment ORDER BY node LIMIT $1",
        &[limit.into()],
    )?;
    rows.iter().map(enrollment_from).collect()
}

/// Sends a machine away for good: none of its certificates counts any more.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn decommission(tx: &mut Tx<'_>, node: &NodeId, at_ms: u64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE node_enrollment SET decommissioned_at_ms = $1 \
         WHERE node = $2 AND decommissioned_at_ms IS NULL",
        &[at_ms.into(), node.as_str().into()],
    )?;
    tx.execute(
        "UPDATE node_certificate SET revoked_at_ms = $1 WHERE node = $2 AND revoked_at_ms IS NULL",
        &[at_ms.into(), node.as_str().into()],
    )
    .map(drop)
}

/// Forgets a machine. Its certificates stay, so that they are known as what does not count.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn delete(tx: &mut Tx<'_>, node: &NodeId) -> Result<(), StoreError> {
    let sql = "DELETE FROM node_enrollment WHERE node = $1";
    tx.execute(sql, &[node.as_str().into()]).map(drop)
}

fn certificate_from(row: &Row) -> Result<CertificateRow, StoreError> {
    Ok(CertificateRow {
        fingerprint: row.text("fingerprint")?,
        node: row.parsed("node")?,
        issued_at_ms: row.number("issued_at_ms")?,
        expires_at_ms: row.number("expires_at_ms")?,
        revoked_at_ms: row.number_or_null("revoked_at_ms")?,
    })
}

/// Adds a certificate, and forgets those of the same node that ended before then.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn insert_certificate(
    tx: &mut Tx<'_>,
    row: &CertificateRow,
    forget_before_ms: u64,
) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM node_certificate WHERE node = $1 AND expires_at_ms < $2",
        &[row.node.as_str().into(), forget_before_ms.into()],
    )?;
    tx.execute(
        "INSERT INTO node_certificate (fingerprint, node, issued_at_ms, expires_at_ms) \
         VALUES ($1, $2, $3, $4)",
        &[
            (*row.fingerprint).into(),
            row.node.as_str().into(),
            row.issued_at_ms.into(),
            row.expires_at_ms.into(),
        ],
    )
    .map(drop)
}

/// A certificate, by its fingerprint.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn certificate(
    tx: &mut Tx<'_>,
    fingerprint: &str,
) -> Result<Option<CertificateRow>, StoreError> {
    let row = tx.query_one(
        "SELECT fingerprint, node, issued_at_ms, expires_at_ms, revoked_at_ms \
         FROM node_certificate WHERE fingerprint = $1",
        &[fingerprint.into()],
    )?;
    row.as_ref().map(certificate_from).transpose()
}

/// The certificates of a node that count, the newest first, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn certificates_of(
    tx: &mut Tx<'_>,
    node: &NodeId,
    now_ms: u64,
    limit: u32,
) -> Result<Vec<CertificateRow>, StoreError> {
    let rows = tx.query(
        "SELECT fingerprint, node, issued_at_ms, expires_at_ms, revoked_at_ms \
         FROM node_certificate WHERE node = $1 AND expires_at_ms > $2 AND revoked_at_ms IS NULL \
         ORDER BY issued_at_ms DESC, fingerprint LIMIT $3",
        &[node.as_str().into(), now_ms.into(), limit.into()],
    )?;
    rows.iter().map(certificate_from).collect()
}

/// How many jobs and sandboxes a node has.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn load_of(tx: &mut Tx<'_>, node: &NodeId) -> Result<(u64, u64), StoreError> {
    let jobs = tx.query_one(
        "SELECT COUNT(*) AS count FROM job WHERE node = $1 \
         AND state IN ('leased', 'running', 'stopping')",
        &[node.as_str().into()],
    )?;
    let sandboxes = tx.query_one(
        "SELECT COUNT(*) AS count FROM sandbox WHERE node = $1 AND node IS NOT NULL \
         AND ended_at_ms IS NULL",
        &[node.as_str().into()],
    )?;
    let count = |row: Option<Row>| row.map_or(Ok(0), |row| row.number("count"));
    Ok((count(jobs)?, count(sandboxes)?))
}
