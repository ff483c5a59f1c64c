//! Passwords that came with a request, as E2B's clients send them: kept as secrets are, sealed in a row of their own,
//! so that no other row, no event and no answer has them. They are named by their id, are in nobody's list, and go when
//! no sandbox uses them any more.

use super::{seal_failed, tell, version_of};
use crate::seal::SecretValue;
use crate::{Ctx, Error, Service, random};
use model::access::Action;
use model::id::SecretId;
use model::limits;
use std::collections::BTreeMap;
use store::secret::{self, SecretRow};

/// How long one is there that nobody uses yet: whoever sent it is still being answered.
const UNUSED_MS: u64 = 600_000;

/// Those that go in one pass.
const BATCH: u32 = 100;

impl Service {
    /// Keeps a value for what is about to be asked for, and gives the name by which that uses it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty value or one that is too long; [`Error::TooMuch`]; [`Error::SecretKey`].
    pub async fn secret_keep(&self, ctx: &Ctx, value: SecretValue) -> Result<String, Error> {
        ctx.may(Action::SandboxWrite)?;
        super::NewValue::from(value.clone()).check()?;
        let keys = self.secret_keys().await?.clone();
        let at_ms = self.now_ms();
        let id = SecretId::from_parts(at_ms, random()?);
        let row = SecretRow {
            name: format!("given.{id}"),
            id,
            tenant: ctx.tenant.clone(),
            version: 1,
            revision: 1,
            metadata: BTreeMap::new(),
            source: None,
            given: true,
            principal: ctx.principal.clone(),
            created_at_ms: at_ms,
            updated_at_ms: at_ms,
        };
        let kept = row.name.clone();
        self.unit(move |tx| {
            if secret::count(tx, &row.tenant, true)? >= limits::SECRETS_MAX {
                let message = format!(
                    "there are {} passwords of sandboxes already",
                    limits::SECRETS_MAX
                );
                let code = "too_much";
                return Err(Error::TooMuch { code, message }.into());
            }
            let sealed = keys.seal(&row, 1, &value).map_err(seal_failed)?;
            secret::insert(tx, &row, &sealed)?;
            let data = version_of(&row);
            tell(tx, &row, "secret.created", &data, &row.principal, at_ms)
        })
        .await?;
        Ok(kept)
    }

    /// A text that is the same for the same value, and from which nobody who reads the database can try out which it
    /// is.
    ///
    /// # Errors
    /// [`Error::SecretKey`].
    pub async fn secret_tag(&self, value: &SecretValue) -> Result<String, Error> {
        Ok(self.secret_keys().await?.tag(value))
    }
}

/// Deletes those that nobody uses any more. Says how many.
pub(crate) async fn forget_unused(service: &Service, now: u64) -> Result<u64, Error> {
    let before = now.saturating_sub(UNUSED_MS);
    let by = Ctx::internal("prune").principal;
    service
        .unit(move |tx| {
            let unused = secret::unused(tx, before, BATCH)?;
            for row in &unused {
                secret::delete(tx, row)?;
                let last = SecretRow {
                    revision: row.revision + 1,
                    ..row.clone()
                };
                tell(tx, &last, "secret.deleted", &version_of(&last), &by, now)?;
            }
            Ok(unused.len() as u64)
        })
        .await
}
