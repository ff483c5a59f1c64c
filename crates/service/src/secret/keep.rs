//! Passwords that came with a request, as E2B's clients send them: kept as secrets are, sealed in a row of their own,
//! so that no other row, no event and no answer has them. They are named by who sent them and by what they are, so that
//! the same request once more names the same; they are in nobody's list, and go when no sandbox uses them any more.

use super::{seal_failed, tell, version_of};
use crate::error::Fail;
use crate::seal::SecretValue;
use crate::{Ctx, Error, Service, random};
use model::access::Action;
use model::id::SecretId;
use model::limits;
use std::collections::BTreeMap;
use store::Tx;
use store::secret::{self, SecretRow};

/// How long one is there that nobody uses yet: whoever sent it is still being answered.
const UNUSED_MS: u64 = 600_000;

/// Those that go in one pass.
const BATCH: u32 = 100;

impl Service {
    /// Keeps a value for what is about to be asked for, and gives the name by which that uses it: the same one for the
    /// same value of the same principal.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty value or one that is too long; [`Error::TooMuch`]; [`Error::SecretKey`];
    /// [`Error::Conflict`] where another secret has that name.
    pub async fn secret_keep(&self, ctx: &Ctx, value: SecretValue) -> Result<String, Error> {
        ctx.may(Action::SandboxWrite)?;
        super::NewValue::from(value.clone()).check()?;
        let keys = self.secret_keys().await?.clone();
        let at_ms = self.now_ms();
        let id = SecretId::from_parts(at_ms, random()?);
        let row = SecretRow {
            name: keys.given_name((&ctx.tenant, &ctx.principal), &value),
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
            if let Some(there) = secret::get(tx, &row.tenant, &row.name)? {
                return touch(tx, &there, at_ms);
            }
            check_room(tx, &row)?;
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

/// It is about to be used once more, and stays for that. No event: nothing that anybody sees of it is another.
fn touch(tx: &mut Tx<'_>, there: &SecretRow, at_ms: u64) -> Result<(), Fail> {
    if !there.given {
        let message = format!("a secret is called `{}`; give it another name", there.name);
        return Err(Error::conflict(message).into());
    }
    let next = SecretRow {
        updated_at_ms: at_ms.max(there.updated_at_ms),
        ..there.clone()
    };
    Ok(secret::update(tx, there, &next, None)?)
}

/// Whether one more may be kept. One who sends ever others must not take the room of all.
fn check_room(tx: &mut Tx<'_>, row: &SecretRow) -> Result<(), Fail> {
    let (all, own) = (limits::SECRETS_MAX, limits::SECRETS_GIVEN_OF_ONE_MAX);
    let is_full = secret::count(tx, &row.tenant, true)? >= all
        || secret::count_given(tx, &row.tenant, &row.principal)? >= own;
    if !is_full {
        return Ok(());
    }
    let message =
        format!("a principal has at most {own} passwords of sandboxes, and all have {all}");
    let code = "too_much";
    Err(Error::TooMuch { code, message }.into())
}

/// Deletes those that nobody uses any more. Says how many, and whether there may be more.
pub(crate) async fn forget_unused(service: &Service, now: u64) -> Result<(u64, bool), Error> {
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
            Ok((unused.len() as u64, unused.len() == BATCH as usize))
        })
        .await
}
