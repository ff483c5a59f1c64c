//! `approval`: what a person has decided. There is no tool that decides.

use api::Code;
use api::approval::{ApprovalState, ApprovalSubject, ApprovalView};
use api::job::JobView;

use crate::answer::{self, Answer};
use crate::args;
use crate::call::Hand;
use crate::refusal::Refusal;
use crate::run::ended;

pub(crate) async fn approval(hand: &Hand<'_>, args: args::Approval) -> Result<Answer, Refusal> {
    if !args.approval_id.starts_with("apv_") {
        let message = format!("there is no approval `{}`", args.approval_id);
        return Err(Refusal::new(Code::NotFound, message));
    }
    let view = hand.client().approval_get(&args.approval_id).await?;
    let decided = view.state == ApprovalState::Approved && view.subject == ApprovalSubject::Job;
    let job = match decided {
        true => Some(hand.client().job_get(&view.subject_id).await?),
        false => None,
    };
    let note = next(&view, job.as_ref());
    let run = match job.filter(JobView::is_finished) {
        Some(job) => Some(ended(hand, job).await?),
        None => None,
    };
    let said = answer::Approval {
        approval_id: view.id,
        state: view.state.as_str().to_owned(),
        about: view.subject.as_str().to_owned(),
        reasons: view.reasons,
        decided_by: view.decided_by,
        comment: Some(view.comment).filter(|comment| !comment.is_empty()),
        run,
        note,
    };
    Ok(said.answer())
}

/// What to do now. Pure.
fn next(view: &ApprovalView, job: Option<&JobView>) -> Option<String> {
    let note = match (view.state, job) {
        (ApprovalState::Pending, _) => "nobody has decided; tell your user, and look again later",
        (ApprovalState::Approved, Some(job)) if job.is_finished() => return None,
        (ApprovalState::Approved, Some(_)) => "it is on its way; look again in a moment",
        (ApprovalState::Approved, None) => "send the same request again, if it was one",
        (ApprovalState::Rejected | ApprovalState::Expired | ApprovalState::Canceled, _) => {
            "it was not done; do without it, or ask your user what to do"
        }
    };
    Some(note.to_owned())
}
