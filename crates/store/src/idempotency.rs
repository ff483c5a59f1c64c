//! Keys under which a request was made before.

use crate::{StoreError, Tx};
use model::id::{PrincipalId, TenantId};

/// Keys that one call forgets: what a busy hour leaves, in a transaction that others hardly notice.
const PRUNE_MAX: u32 = 10_000;

/// Whose key it is, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOwner {
    /// The tenant.
    pub tenant: TenantId,
    /// Who asks.
    pub principal: PrincipalId,
    /// What is asked, such as `job.create`.
    pub operation: String,
    /// The key.
    pub key: String,
}

/// What was made under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Of the request.
    pub request_hash: String,
    /// What it made.
    pub resource_id: String,
}

/// What was made under this key, if anything.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn get(tx: &mut Tx<'_>, owner: &KeyOwner) -> Result<Option<Remembered>, StoreError> {
    let row = tx.query_one(
        "SELECT request_hash, resource_id FROM idempotency \
         WHERE tenant = $1 AND principal = $2 AND operation = $3 AND key = $4",
        &[
            owner.tenant.as_str().into(),
            owner.principal.as_str().into(),
            (*owner.operation).into(),
            (*owner.key).into(),
        ],
    )?;
    let remembered = |row: crate::Row| -> Result<Remembered, StoreError> {
        Ok(Remembered {
            request_hash: row.text("request_hash")?,
            resource_id: row.text("resource_id")?,
        })
    };
    row.map(remembered).transpose()
}

/// Remembers what is made under a key, in the transaction that makes it.
///
/// # Errors
/// [`StoreError::Stale`] when somebody was faster, or [`StoreError`] of the database.
pub fn put(
    tx: &mut Tx<'_>,
    owner: &KeyOwner,
    remember: &Remembered,
    at_ms: u64,
) -> Result<(), StoreError> {
    let added = tx.execute(
        "INSERT INTO idempotency (tenant, principal, operation, key, request_hash, resource_id, \
         created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        &[
            owner.tenant.as_str().into(),
            owner.principal.as_str().into(),
            (*owner.operation).into(),
            (*owner.key).into(),
            (*remember.request_hash).into(),
            (*remember.resource_id).into(),
            at_ms.into(),
        ],
    )?;
    if added == 1 {
        Ok(())
    } else {
        Err(StoreError::Stale {
            what: owner.key.clone(),
        })
    }
}

/// Forgets keys that are older, at most [`PRUNE_MAX`] of them, the oldest first. Returns how many.
///
/// # Errors
/// [`StoreError`] of the database.
pub fn prune(tx: &mut Tx<'_>, before_ms: u64) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM idempotency WHERE (tenant, principal, operation, key) IN \
         (SELECT tenant, principal, operation, key FROM idempotency WHERE created_at_ms < $1 \
         ORDER BY created_at_ms LIMIT $2)",
        &[before_ms.into(), PRUNE_MAX.into()],
    )
}
