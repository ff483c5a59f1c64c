//! A person says yes or no.

use super::{ask, over, owned, stepped, until, yes};
use crate::change::{self, Note};
use crate::error::Fail;
use crate::permit::{check_stamp, is_changed, outdated};
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::approval::{ApprovalEvent, ApprovalState, Barred, Scope, Subject, may_decide};
use model::id::{ApprovalId, PrincipalId};
use model::job::{JobEvent, JobState};
use model::limits;
use model::policy::{Decision, PermitUse, Refusal};
use model::principal;
use model::spec::JobSpec;
use std::collections::BTreeSet;
use store::approval::{self, ApprovalRow};
use store::job::{JobEnd, JobRow};
use store::{StoreError, Tx, job, key, permit};

/// Makers that are followed from whoever decides, one above the other.
const MAKERS_MAX: usize = 8;

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Yes.
    pub yes: bool,
    /// It is let through without being judged, and the comment says why.
    pub waived: bool,
    /// What a yes is good for.
    pub scope: Scope,
    /// How long one for a session counts, in milliseconds; at most [`limits::APPROVAL_USE_MS`].
    pub for_ms: Option<u64>,
    /// Why.
    pub comment: String,
}

impl Verdict {
    fn check(&self, row: &ApprovalRow) -> Result<(), Error> {
        let wrong = |field, message: &str| Err(Error::invalid(field, "invalid_argument", message));
        let most = limits::APPROVAL_TEXT_BYTES_MAX;
        if self.comment.len() > most {
            return wrong("comment", &format!("a comment has at most {most} bytes"));
        }
        if self.waived && self.comment.trim().is_empty() {
            return wrong("comment", "who lets something through unjudged says why");
        }
        if self
            .for_ms
            .is_some_and(|ms| ms == 0 || ms > limits::APPROVAL_USE_MS)
        {
            // The number alone, as of every field that ends with its unit.
            let most = limits::APPROVAL_USE_MS;
            let why = format!("a session has more than nothing and at most {most}");
            return wrong("for_ms", &why);
        }
        if self.for_ms.is_some() && self.scope != Scope::Session {
            return wrong("for_ms", "only a yes for a session counts for some time");
        }
        if self.yes && self.scope != Scope::Once && !row.subject.has_session() {
            return wrong("scope", "a yes to this is for this once");
        }
        Ok(())
    }
}

/// What became of a yes: it counts, or the policies of now do not let it and say why. The job, if it changed.
struct Said {
    answer: Result<ApprovalRow, String>,
    job: Option<JobRow>,
}

impl Service {
    /// Says yes or no to what somebody else asked for. The same again answers the same; the opposite is a conflict.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`]; [`Error::Invalid`] `approval_own` for what the caller asked for, or
    /// what acts for them, or what a program asked for that made them; [`Error::Conflict`] `approval_over`,
    /// `policy_changed`.
    pub async fn approval_decide(
        &self,
        ctx: &Ctx,
        id: &ApprovalId,
        verdict: Verdict,
    ) -> Result<ApprovalRow, Error> {
        ctx.may(Action::ApprovalWrite)?;
        let row = {
            let (ctx, id) = (ctx.clone(), id.clone());
            self.look(move |tx| owned(tx, &ctx, &id)).await?
        };
        if row.subject == Subject::Policy {
            ctx.may(Action::PolicyWrite)?;
        }
        {
            let (ctx, row) = (ctx.clone(), row.clone());
            self.look(move |tx| check_who(tx, &ctx, &row)).await?;
        }
        verdict.check(&row)?;
        // What was decided already changes nothing, whatever policies say by now.
        if verdict.yes && row.state != ApprovalState::Pending {
            return approved(ctx, &row, &verdict, self.now_ms()).map(|_| row);
        }
        match (verdict.yes, row.subject) {
            (false, _) => self.approval_reject(ctx, id, &verdict).await,
            (true, Subject::Job) => self.approve_job(ctx, &row, &verdict).await,
            (true, Subject::Sandbox | Subject::Network) => {
                self.approve_request(ctx, &row, &verdict).await
            }
            (true, Subject::Egress) => self.approve_egress(ctx, &row, &verdict).await,
            (true, Subject::Policy) => self.approve_policy(ctx, &row, &verdict).await,
        }
    }

    async fn approval_reject(
        &self,
        ctx: &Ctx,
        id: &ApprovalId,
        verdict: &Verdict,
    ) -> Result<ApprovalRow, Error> {
        let (ctx, id, now) = (ctx.clone(), id.clone(), self.now_ms());
        let said = verdict.comment.clone();
        let ended = self.unit(move |tx| {
            let row = owned(tx, &ctx, &id)?;
            let by = (&ctx.principal, now);
            let Some(next) = stepped(&row, ApprovalEvent::Reject, by, &said)? else {
                return Ok((row, None));
            };
            let next = approval::put(tx, &row, &next, "approval.rejected", by)?;
            let why = format!("approval_rejected: {} said no: {said}", ctx.principal);
            Ok::<_, Fail>((next, end_job(tx, &row, Note::new(&ctx, now), &why)?))
        });
        let (row, job) = ended.await?;
        if let Some(job) = job {
            self.announce(&job);
        }
        Ok(row)
    }

    /// A yes to a job: it waits for a node from now on.
    async fn approve_job(
        &self,
        ctx: &Ctx,
        row: &ApprovalRow,
        verdict: &Verdict,
    ) -> Result<ApprovalRow, Error> {
        let id = row.subject_id.parse().map_err(|_| Error::NotFound)?;
        let proposed = self.proposals(ctx, row, verdict).await?;
        let (tenant, mut tries) = (row.tenant.clone(), 1);
        let found = self.look(move |tx| Ok(job::get(tx, Some(&tenant), &id)?));
        let job = found.await?.ok_or(Error::NotFound)?;
        loop {
            self.policies_forget();
            let decided = self.job_again(&job, "job.create").await?;
            let (of, note) = (row.id.clone(), Note::new(ctx, self.now_ms()));
            let (ctx, verdict, job) = (ctx.clone(), verdict.clone(), job.clone());
            let proposed = proposed.clone();
            let said = self.unit(move |tx| {
                let row = owned(tx, &ctx, &of)?;
                let said = job_said(tx, &ctx, (&row, &job), &verdict, &decided, &note)?;
                if said.answer.is_ok() && said.job.is_some() {
                    propose(tx, &proposed)?;
                }
                Ok(said)
            });
            match said.await {
                Err(error) if is_changed(&error, tries) => tries += 1,
                Err(error) => return Err(error),
                Ok(said) => return self.told_of(said),
            }
        }
    }

    fn told_of(&self, said: Said) -> Result<ApprovalRow, Error> {
        if let Some(job) = said.job {
            self.announce(&job);
        }
        said.answer.map_err(|why| over(&why))
    }

    /// A yes to a request that is to be sent again.
    async fn approve_request(
        &self,
        ctx: &Ctx,
        row: &ApprovalRow,
        verdict: &Verdict,
    ) -> Result<ApprovalRow, Error> {
        let (ctx, id, now) = (ctx.clone(), row.id.clone(), self.now_ms());
        let verdict = verdict.clone();
        let proposed = self.proposals(&ctx, row, &verdict).await?;
        self.unit(move |tx| {
            let row = owned(tx, &ctx, &id)?;
            let Some(next) = approved(&ctx, &row, &verdict, now)? else {
                return Ok(row);
            };
            let by = (&ctx.principal, now);
            let row = approval::put(tx, &row, &next, "approval.approved", by)?;
            propose(tx, &proposed)?;
            Ok(row)
        })
        .await
    }
}

/// Proposals that follow from a yes.
pub(super) fn propose(tx: &mut Tx<'_>, proposed: &[ApprovalRow]) -> Result<(), Fail> {
    for row in proposed {
        ask::write(tx, row)?;
    }
    Ok(())
}

/// Nobody says yes or no to themselves; nor does whoever a program has made for what it asks.
fn check_who(tx: &mut Tx<'_>, ctx: &Ctx, row: &ApprovalRow) -> Result<(), Fail> {
    let why = match may_decide(&ctx.principal, &row.principal, &row.makers) {
        Ok(()) if principal::is_program(&row.principal) && is_made_by(tx, ctx, &row.principal)? => {
            "whoever asked is a program, and has made you or your key"
        }
        Ok(()) => return Ok(()),
        Err(Barred::Asker) => "whoever asks for something does not decide it",
        Err(Barred::Maker) => "whoever asked acts for you: you made it, or the key that it showed",
    };
    Err(Error::invalid("approval", "approval_own", why).into())
}

/// Whether this caller comes from `maker`: it made them, or the key that they show, or somebody who did. Of whom more
/// are above than are followed, it is not known that they do not.
fn is_made_by(tx: &mut Tx<'_>, ctx: &Ctx, maker: &PrincipalId) -> Result<bool, StoreError> {
    let mut above = vec![ctx.principal.clone()];
    if let Some(shown) = &ctx.key
        && let Some(known) = key::get(tx, &ctx.tenant, shown)?
    {
        above.push(known.made_by);
    }
    let mut seen = BTreeSet::new();
    while let Some(one) = above.pop() {
        if one == *maker {
            return Ok(true);
        }
        // Somebody who was sent away and let in again may be below whom they made.
        if seen.contains(&one) {
            continue;
        }
        if seen.len() == MAKERS_MAX {
            return Ok(true);
        }
        if let Some(known) = store::principal::get(tx, &ctx.tenant, one.as_str())? {
            above.push(known.principal);
        }
        seen.insert(one);
    }
    Ok(false)
}

/// A yes where one was said before changes nothing, and whoever says it must not be told that it did: only the same
/// one again is answered the same.
fn check_same(row: &ApprovalRow, verdict: &Verdict) -> Result<(), Error> {
    if row.revoked_at_ms.is_some() {
        return Err(over("the yes was taken back; it has to be asked for again"));
    }
    let at_ms = row.decided_at_ms.unwrap_or_default();
    let is_same = row.waived == verdict.waived
        && row.scope == Some(verdict.scope)
        && row.until_ms == until(row, verdict.scope, verdict.for_ms, at_ms);
    if is_same {
        return Ok(());
    }
    Err(over(
        "a yes was said already, and is good for something else",
    ))
}

/// The row after a yes; `None` where the same was said already.
///
/// # Errors
/// [`Error::Conflict`] `approval_over` where it was decided otherwise, or its time is over.
pub(super) fn approved(
    ctx: &Ctx,
    row: &ApprovalRow,
    verdict: &Verdict,
    now_ms: u64,
) -> Result<Option<ApprovalRow>, Error> {
    if row.state == ApprovalState::Pending && row.expires_at_ms <= now_ms {
        return Err(over("its time is over"));
    }
    let by = (&ctx.principal, now_ms);
    let Some(next) = stepped(row, ApprovalEvent::Approve, by, &verdict.comment)? else {
        return check_same(row, verdict).map(|()| None);
    };
    Ok(Some(ApprovalRow {
        waived: verdict.waived,
        scope: Some(verdict.scope),
        until_ms: until(row, verdict.scope, verdict.for_ms, now_ms),
        ..next
    }))
}

type Decided = Option<(Decision<JobSpec>, Box<PermitUse>)>;

/// What a yes makes of a job, by what the policies of now say of it.
fn job_said(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    (row, seen): (&ApprovalRow, &JobRow),
    verdict: &Verdict,
    decided: &Decided,
    note: &Note,
) -> Result<Said, Fail> {
    let Some(next) = approved(ctx, row, verdict, note.at_ms)? else {
        let (answer, job) = (Ok(row.clone()), None);
        return Ok(Said { answer, job });
    };
    check_stamp(tx, decided.as_ref().map(|(_, permit)| permit.stamp))?;
    let job = job::get(tx, None, &seen.id)?.ok_or(Error::NotFound)?;
    let waits = job.state == JobState::AwaitingApproval && job.version == seen.version;
    if !waits {
        return Err(over("the job does not wait any more").into());
    }
    let unseen = |all: &[Refusal]| !ask::reasons(all).is_subset(&row.reasons);
    let refused = match decided {
        Some((Decision::Refused(all), _)) => Some(all),
        Some((Decision::NeedsApproval(_, all), _)) if unseen(all) => Some(all),
        _ => None,
    };
    if let Some(all) = refused {
        let why = outdated(all.iter().map(Refusal::invalid));
        let refuse = JobEvent::Refuse { why: why.clone() };
        let job = change::apply(tx, &job, &refuse, note.clone().because(&why))?;
        let answer = Err(why);
        return Ok(Said { answer, job });
    }
    let by = (&note.principal, note.at_ms);
    let row = approval::put(tx, row, &next, "approval.approved", by)?;
    let spec = with_yes(&job, decided, &row);
    let job = permit::job_put(tx, &job, &spec, by)?;
    let why = format!("{} said yes: {}", note.principal, row.comment);
    let job = change::apply(tx, &job, &JobEvent::Approve, note.clone().because(&why))?;
    let answer = Ok(row);
    Ok(Said { answer, job })
}

/// The job as the policies of now want it, with the yes on its permit.
fn with_yes(job: &JobRow, decided: &Decided, row: &ApprovalRow) -> JobSpec {
    let (spec, permit) = match decided {
        Some((Decision::Allowed(spec) | Decision::NeedsApproval(spec, _), permit)) => {
            (spec.clone(), Some(permit.clone()))
        }
        Some((Decision::Refused(_), _)) | None => (job.spec.clone(), job.spec.permit.clone()),
    };
    let permit = permit.map(|permit| {
        Box::new(PermitUse {
            asked: Some(ask::asked(row)),
            yes: yes::of(row),
            ..*permit
        })
    });
    JobSpec { permit, ..spec }
}

/// Ends the job that waited for this, with what its owner is told.
pub(crate) fn end_job(
    tx: &mut Tx<'_>,
    row: &ApprovalRow,
    note: Note,
    why: &str,
) -> Result<Option<JobRow>, Fail> {
    let Ok(id) = row.subject_id.parse() else {
        return Ok(None);
    };
    let Some(job) = job::get(tx, None, &id)? else {
        return Ok(None);
    };
    if row.subject != Subject::Job || job.state != JobState::AwaitingApproval {
        return Ok(None);
    }
    let end = JobEnd {
        detail: Some(change::cut(why)),
        ..JobEnd::default()
    };
    let note = Note {
        end: Some(end),
        ..note.because(why)
    };
    change::apply(tx, &job, &JobEvent::Reject, note)
}
