//! What a yes is good for beside what it was said to: the same request once more, or whatever the same principal asks
//! for the same reasons until some time.

use super::ask::{self, Ask};
use super::{cancel, counts, expire};
use crate::change::Note;
use crate::error::Fail;
use crate::hex::hex;
use crate::permit::changed;
use crate::{Ctx, Error, Service};
use model::approval::{Scope, Yes};
use model::id::PrincipalId;
use model::limits;
use model::policy::{Kind, Refusal};
use model::spec::Invalid;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use store::Tx;
use store::approval::{self, ApprovalRow};

/// How many that count are looked through.
const LOOKED_AT: u32 = 100;

/// What names a request: whoever sends another one has to ask again.
pub(crate) fn digest(operation: &str, of: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string(&(operation, of));
    let text = text.map_err(|error| Error::internal("write a request", error))?;
    Ok(hex(&Sha256::digest(text)))
}

/// A yes, as what it lets through keeps it.
pub(crate) fn of(row: &ApprovalRow) -> Option<Yes> {
    Some(Yes {
        approval: row.id.clone(),
        by: row.decided_by.clone()?,
        at_ms: row.decided_at_ms?,
        comment: row.comment.clone(),
        scope: row.scope?,
        reasons: row.reasons.clone(),
    })
}

impl Service {
    /// A yes that was said before and is to all of this, if there is one.
    pub(crate) async fn yes_before(
        &self,
        ctx: &Ctx,
        digest: &str,
        all: &[Refusal],
    ) -> Result<Option<Yes>, Error> {
        let (tenant, who, now) = (ctx.tenant.clone(), ctx.principal.clone(), self.now_ms());
        let digest = digest.to_owned();
        let found = self.look(move |tx| {
            let rows = approval::standing(tx, &tenant, &who, &digest, now, LOOKED_AT)?;
            Ok(rows)
        });
        let found = found.await?;
        Ok(found.iter().filter_map(of).find(|yes| yes.covers(all)))
    }

    /// The yes to a request that somebody sends again; where there is none, a person is asked, and the request refused
    /// with what it waits for.
    ///
    /// # Errors
    /// [`Error::Invalid`] `approval_needed`; [`Error::TooMuch`].
    pub(crate) async fn yes_or_ask(
        &self,
        ctx: &Ctx,
        ask: Ask<'_>,
        all: &[Refusal],
    ) -> Result<Yes, Error> {
        match self.yes_before(ctx, &ask.digest, all).await? {
            Some(yes) => Ok(yes),
            None => Err(self.asked_for(ctx, ask, all).await?),
        }
    }

    /// The refusal of a request that a person is asked for.
    pub(crate) async fn asked_for(
        &self,
        ctx: &Ctx,
        ask: Ask<'_>,
        all: &[Refusal],
    ) -> Result<Error, Error> {
        Ok(needed(&self.asked_row(ctx, ask).await?, all))
    }

    /// What waits for this request; the same one again waits for the same. What waited with other reasons is not what
    /// a person has to see now, and ends: else each try would leave one more, which nobody can use.
    pub(crate) async fn asked_row(&self, ctx: &Ctx, ask: Ask<'_>) -> Result<ApprovalRow, Error> {
        let new = self.approval_new(ctx, ask)?;
        let now = self.now_ms();
        let waits = self.unit(move |tx| {
            ask::check_there(tx, &new)?;
            // Whoever asks has at most so many that wait.
            for _ in 0..=limits::APPROVALS_OF_ONE_MAX {
                let same = approval::pending_same(tx, &new.tenant, &new.principal, &new.digest)?;
                match same {
                    None => break,
                    Some(row) if row.expires_at_ms <= now => {
                        let note = Note::new(&Ctx::internal("expire"), now);
                        expire(tx, &row.id, note)?;
                    }
                    Some(row) if row.reasons == new.reasons => return Ok(row),
                    Some(row) => {
                        let why = "the same is asked for with other reasons by now";
                        cancel(tx, &row, (&new.principal, now), why)?;
                    }
                }
            }
            ask::check_room(tx, &new)?;
            Ok::<_, Fail>(ask::write(tx, &new)?)
        });
        waits.await
    }
}

/// The refusal of a request that has to be sent again after a yes. Its first detail names what it waits for.
pub(crate) fn needed(row: &ApprovalRow, all: &[Refusal]) -> Error {
    let waits = Invalid {
        field: "approval".to_owned(),
        code: Kind::NeedsApproval.code(),
        message: row.id.to_string(),
    };
    let reasons = all.iter().map(Refusal::invalid);
    Error::Invalid(std::iter::once(waits).chain(reasons).collect())
}

/// Refuses what goes by a yes that does not count any more: it is decided anew then. Read before anything is written.
pub(crate) fn check(tx: &mut Tx<'_>, yes: Option<&Yes>, now_ms: u64) -> Result<(), Fail> {
    let Some(yes) = yes else { return Ok(()) };
    let row = approval::get(tx, None, &yes.approval)?;
    match row.is_some_and(|row| counts(&row, now_ms)) {
        true => Ok(()),
        false => Err(changed("the yes was used or taken back meanwhile").into()),
    }
}

/// Uses a yes up that was for one request, in the transaction of what it lets through.
pub(crate) fn use_up(
    tx: &mut Tx<'_>,
    yes: Option<&Yes>,
    by: (&PrincipalId, u64),
) -> Result<(), Fail> {
    let Some(yes) = yes.filter(|yes| yes.scope != Scope::Session) else {
        return Ok(());
    };
    let row = approval::get(tx, None, &yes.approval)?.ok_or(Error::NotFound)?;
    let next = ApprovalRow {
        used_at_ms: Some(by.1),
        ..row.clone()
    };
    approval::put(tx, &row, &next, "approval.used", by)?;
    Ok(())
}
