//! Approvals, in both languages.

use api::approval as wire;
use model::approval::{ApprovalState, Scope, Subject, Yes};
use model::policy::PermitUse;
use service::{ApprovalPage, ApprovalRow, EgressAsk, Verdict};

use super::from_wire;
use crate::error::Error;

fn state_view(state: ApprovalState) -> wire::ApprovalState {
    match state {
        ApprovalState::Pending => wire::ApprovalState::Pending,
        ApprovalState::Approved => wire::ApprovalState::Approved,
        ApprovalState::Rejected => wire::ApprovalState::Rejected,
        ApprovalState::Expired => wire::ApprovalState::Expired,
        ApprovalState::Canceled => wire::ApprovalState::Canceled,
    }
}

pub(crate) fn state(state: wire::ApprovalState) -> ApprovalState {
    match state {
        wire::ApprovalState::Pending => ApprovalState::Pending,
        wire::ApprovalState::Approved => ApprovalState::Approved,
        wire::ApprovalState::Rejected => ApprovalState::Rejected,
        wire::ApprovalState::Expired => ApprovalState::Expired,
        wire::ApprovalState::Canceled => ApprovalState::Canceled,
    }
}

fn subject(subject: Subject) -> wire::ApprovalSubject {
    match subject {
        Subject::Job => wire::ApprovalSubject::Job,
        Subject::Sandbox => wire::ApprovalSubject::Sandbox,
        Subject::Network => wire::ApprovalSubject::Network,
        Subject::Egress => wire::ApprovalSubject::Egress,
        Subject::Policy => wire::ApprovalSubject::Policy,
    }
}

fn scope_view(scope: Scope) -> wire::ApprovalScope {
    match scope {
        Scope::Once => wire::ApprovalScope::Once,
        Scope::Session => wire::ApprovalScope::Session,
        Scope::Rule => wire::ApprovalScope::Rule,
    }
}

/// What a person says.
pub(crate) fn verdict(said: wire::ApprovalDecide) -> Verdict {
    let (yes, waived) = match said.verdict {
        wire::ApprovalVerdict::Approve => (true, false),
        wire::ApprovalVerdict::Waive => (true, true),
        wire::ApprovalVerdict::Reject => (false, false),
    };
    Verdict {
        yes,
        waived,
        scope: match said.scope {
            wire::ApprovalScope::Once => Scope::Once,
            wire::ApprovalScope::Session => Scope::Session,
            wire::ApprovalScope::Rule => Scope::Rule,
        },
        for_ms: said.for_ms,
        comment: said.comment,
    }
}

/// What somebody asks for.
pub(crate) fn ask(asked: wire::ApprovalCreate) -> Result<EgressAsk, Error> {
    let sandbox = asked.egress.sandbox.parse();
    Ok(EgressAsk {
        sandbox: sandbox.map_err(|error| from_wire::bad_id("egress.sandbox", &error))?,
        to: asked.egress.to,
        why: asked.why,
    })
}

/// An approval with all that is asked.
pub(crate) fn whole(row: ApprovalRow) -> wire::ApprovalView {
    // Written by the service as an object; what is not one is shown as the text it is.
    let text = serde_json::Value::String(row.request.clone());
    let request = serde_json::from_str(&row.request).unwrap_or(text);
    wire::ApprovalView {
        request: Some(request),
        ..line(row)
    }
}

fn line(row: ApprovalRow) -> wire::ApprovalView {
    wire::ApprovalView {
        id: row.id.to_string(),
        state: state_view(row.state),
        subject: subject(row.subject),
        subject_id: row.subject_id,
        principal: row.principal.to_string(),
        summary: row.summary,
        request: None,
        reasons: row.reasons.into_iter().collect(),
        why: row.why,
        key: row.key.map(|key| key.to_string()),
        acts_for: row.makers.iter().map(ToString::to_string).collect(),
        created_at_ms: row.created_at_ms,
        expires_at_ms: row.expires_at_ms,
        decided_at_ms: row.decided_at_ms,
        decided_by: row.decided_by.map(|by| by.to_string()),
        comment: row.comment,
        waived: row.waived,
        scope: row.scope.map(scope_view),
        until_ms: row.until_ms,
        used_at_ms: row.used_at_ms,
        revoked_at_ms: row.revoked_at_ms,
    }
}

pub(crate) fn page(page: ApprovalPage) -> wire::ApprovalList {
    wire::ApprovalList {
        approvals: page.approvals.into_iter().map(line).collect(),
        next: page.next,
    }
}

/// The yes that something goes by.
pub(crate) fn of_yes(yes: &Yes) -> wire::ApprovalOfJob {
    wire::ApprovalOfJob {
        id: yes.approval.to_string(),
        reasons: yes.reasons.iter().cloned().collect(),
        approved_by: Some(yes.by.to_string()),
        approved_at_ms: Some(yes.at_ms),
        comment: yes.comment.clone(),
    }
}

/// What a job waits for, or which yes it goes by.
pub(crate) fn of_job(permit: Option<&PermitUse>) -> Option<wire::ApprovalOfJob> {
    let permit = permit?;
    if let Some(yes) = &permit.yes {
        return Some(of_yes(yes));
    }
    let asked = permit.asked.as_ref()?;
    Some(wire::ApprovalOfJob {
        id: asked.approval.to_string(),
        reasons: asked.reasons.iter().cloned().collect(),
        approved_by: None,
        approved_at_ms: None,
        comment: String::new(),
    })
}
