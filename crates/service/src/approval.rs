//! Approvals: what waits for a person, as those see it who ask and those who decide.
//!
//! Something waits as a row beside what it is about, written in one transaction with that. What a yes does is written in
//! the transaction of the yes, so that nobody who dies in between leaves a yes that did nothing, or a job that runs
//! without one. Before a yes counts, the policies of then are asked once more; who was shown less than they want now
//! has not said yes to it.

pub(crate) mod ask;
mod decide;
mod egress;
mod notice;
mod policy;
pub(crate) mod yes;

pub use decide::Verdict;
pub use egress::EgressAsk;
pub use notice::{Notice, NoticeKey};

use crate::change::Note;
use crate::error::Fail;
use crate::{Ctx, Error, Service, page};
use model::access::Action;
use model::approval::{ApprovalEvent, ApprovalState, ApprovalStep, Scope, Subject};
use model::id::{ApprovalId, PrincipalId};
use model::limits;
use store::approval::{self, ApprovalRow};
use store::job::JobRow;
use store::{StoreError, Tx};

/// Approvals that one page has at most: each may have a long request.
const PAGE_MAX: u32 = 100;
/// Approvals that wait about one thing and are ended with it, that are read at a time: each may have a long request.
const ABOUT_ONE: u32 = 16;

/// A page of approvals, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalPage {
    /// The approvals.
    pub approvals: Vec<ApprovalRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// The approval, if it is this tenant's.
fn owned(tx: &mut Tx<'_>, ctx: &Ctx, id: &ApprovalId) -> Result<ApprovalRow, Fail> {
    approval::get(tx, Some(&ctx.tenant), id)?.ok_or(Fail::Ours(Error::NotFound))
}

impl Service {
    /// An approval as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn approval_get(&self, ctx: &Ctx, id: &ApprovalId) -> Result<ApprovalRow, Error> {
        ctx.may(Action::ApprovalRead)?;
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| owned(tx, &ctx, &id)).await
    }

    /// Approvals of the tenant, newest first: of one state, if one is named, and after the page that ended with
    /// `before`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `before` that no page ended with.
    pub async fn approval_list(
        &self,
        ctx: &Ctx,
        state: Option<ApprovalState>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<ApprovalPage, Error> {
        ctx.may(Action::ApprovalRead)?;
        let limit = limit.clamp(1, PAGE_MAX);
        let before = before.map(cursor).transpose()?;
        let tenant = ctx.tenant.clone();
        let mut approvals = self
            .look(move |tx| {
                let before = before.as_ref().map(|(ms, id)| (*ms, id));
                Ok(approval::list(tx, &tenant, state, before, limit + 1)?)
            })
            .await?;
        let next = page::cut(&mut approvals, limit, |row| {
            format!("{}.{}", row.created_at_ms, row.id)
        });
        Ok(ApprovalPage { approvals, next })
    }

    /// Takes a yes back that would still count: one for a session, or one that was not used yet. What it has let
    /// through already goes on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `approval_over` where there is nothing to take back.
    pub async fn approval_revoke(&self, ctx: &Ctx, id: &ApprovalId) -> Result<ApprovalRow, Error> {
        ctx.may(Action::ApprovalWrite)?;
        let (ctx, id, now) = (ctx.clone(), id.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = owned(tx, &ctx, &id)?;
            if row.revoked_at_ms.is_some() {
                return Ok(row);
            }
            if !counts(&row, now) {
                return Err(over("there is no yes that still counts").into());
            }
            let next = ApprovalRow {
                revoked_at_ms: Some(now),
                ..row.clone()
            };
            let by = (&ctx.principal, now);
            Ok(approval::put(tx, &row, &next, "approval.revoked", by)?)
        })
        .await
    }
}

/// Whether it is a yes to something that is still to come.
fn counts(row: &ApprovalRow, now_ms: u64) -> bool {
    row.state == ApprovalState::Approved
        && row.until_ms.is_some_and(|until| until > now_ms)
        && row.used_at_ms.is_none()
        && row.revoked_at_ms.is_none()
}

fn over(message: &str) -> Error {
    Error::conflict_of("approval_over", message)
}

/// What an event makes of an approval, ready to be written; `None` where it was so already.
fn stepped(
    row: &ApprovalRow,
    event: ApprovalEvent,
    (by, now_ms): (&PrincipalId, u64),
    comment: &str,
) -> Result<Option<ApprovalRow>, Error> {
    let step = row.state.step(event);
    let step = step.map_err(|denied| over(&denied.to_string()))?;
    let ApprovalStep::Moved(state) = step else {
        return Ok(None);
    };
    Ok(Some(ApprovalRow {
        state,
        decided_at_ms: Some(now_ms),
        decided_by: Some(by.clone()),
        comment: comment.to_owned(),
        ..row.clone()
    }))
}

/// Ends what waits about something that is over. Written in the transaction in which that is.
pub(crate) fn close(
    tx: &mut Tx<'_>,
    subject_id: &str,
    (by, now_ms): (&PrincipalId, u64),
    why: &str,
) -> Result<(), StoreError> {
    // As often as all that may wait of a tenant could be about it; what was ended is not read again.
    for _ in 0..=limits::APPROVALS_MAX / u64::from(ABOUT_ONE) {
        let rows = approval::pending_of(tx, subject_id, ABOUT_ONE)?;
        for row in &rows {
            cancel(tx, row, (by, now_ms), why)?;
        }
        if rows.len() < ABOUT_ONE as usize {
            break;
        }
    }
    Ok(())
}

/// Ends one that waits and that nobody needs any more.
fn cancel(
    tx: &mut Tx<'_>,
    row: &ApprovalRow,
    by: (&PrincipalId, u64),
    why: &str,
) -> Result<(), StoreError> {
    if let Ok(Some(next)) = stepped(row, ApprovalEvent::Cancel, by, why) {
        approval::put(tx, row, &next, "approval.canceled", by)?;
    }
    Ok(())
}

/// Until when a yes of this scope counts for what is still to come; `None` where it counts for nothing more.
fn until(row: &ApprovalRow, scope: Scope, for_ms: Option<u64>, now_ms: u64) -> Option<u64> {
    let life = match (scope, row.subject) {
        (Scope::Session, _) => for_ms.unwrap_or(limits::APPROVAL_SESSION_MS),
        (_, Subject::Sandbox | Subject::Network) => limits::APPROVAL_USE_MS,
        // What waits by itself needs no second request, and what a yes does is done.
        (_, Subject::Job | Subject::Egress | Subject::Policy) => return None,
    };
    Some(now_ms.saturating_add(life.min(limits::APPROVAL_USE_MS)))
}

/// Where a page begins, from the text that the page before ended with.
fn cursor(text: &str) -> Result<(u64, ApprovalId), Error> {
    let wrong = || Error::invalid("before", "invalid_argument", "no page ended with this");
    let (ms, id) = text.split_once('.').ok_or_else(wrong)?;
    let ms = ms.parse().map_err(|_| wrong())?;
    Ok((ms, id.parse().map_err(|_| wrong())?))
}

/// Ends an approval whose time is over, with the job that waits for it. Looked at again, in the transaction of the
/// change: somebody may have decided it since.
pub(crate) fn expire(
    tx: &mut Tx<'_>,
    id: &ApprovalId,
    note: Note,
) -> Result<(bool, Option<JobRow>), Fail> {
    let Some(row) = approval::get(tx, None, id)? else {
        return Ok((false, None));
    };
    let (principal, now_ms) = (note.principal.clone(), note.at_ms);
    if row.state != ApprovalState::Pending || row.expires_at_ms > now_ms {
        return Ok((false, None));
    }
    let by = (&principal, now_ms);
    let Some(next) = stepped(&row, ApprovalEvent::Expire, by, "nobody decided it in time")? else {
        return Ok((false, None));
    };
    approval::put(tx, &row, &next, "approval.expired", by)?;
    let why = "approval_expired: nobody decided it in time";
    Ok((true, decide::end_job(tx, &row, note, why)?))
}
