//! `cofferdam approval`: what waits for a person, and what they say. What is shown was written by whoever asks, so it
//! is shown so that it cannot move the cursor.

use crate::cli::args::{ApprovalArgs, ApprovalCommand, ApprovalStateArg, ScopeArg, YesArgs};
use crate::cli::failure::Failure;
use crate::cli::job::when;
use crate::cli::sandbox;
use crate::cli::table::{self, printable};
use api::Code;
use api::approval::{
    ApprovalCreate, ApprovalDecide, ApprovalList, ApprovalListQuery, ApprovalScope, ApprovalState,
    ApprovalVerdict, ApprovalView, EgressAsked,
};
use api::client::{Client, ClientError};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Rows that are asked for at a time.
const PAGE: u32 = 100;

/// Does what was asked about approvals.
pub(crate) async fn approval(client: &Client, args: ApprovalArgs) -> Result<ExitCode, Failure> {
    let text = match args.command {
        ApprovalCommand::Ls {
            only,
            all,
            limit,
            json,
        } => {
            let state = match (only, all) {
                (_, true) => None,
                (None, false) => Some(ApprovalState::Pending),
                (Some(state), false) => Some(state_of(state)),
            };
            list(client, state, limit, json).await?
        }
        ApprovalCommand::Show { id, json } => {
            let view = client.approval_get(known(&id)?).await;
            let view = view.map_err(about(&id))?;
            if json {
                table::to_json(&view)?
            } else {
                describe(&view)?
            }
        }
        ApprovalCommand::Approve { yes, comment } => {
            said(client, ApprovalVerdict::Approve, yes, comment).await?
        }
        ApprovalCommand::Waive { yes, comment } => {
            said(client, ApprovalVerdict::Waive, yes, comment).await?
        }
        ApprovalCommand::Reject { id, comment, json } => {
            let no = YesArgs {
                id,
                scope: ScopeArg::Once,
                time: None,
                json,
            };
            said(client, ApprovalVerdict::Reject, no, comment).await?
        }
        ApprovalCommand::Revoke { id, json } => {
            let view = client.approval_revoke(known(&id)?).await;
            one(&view.map_err(about(&id))?, json)?
        }
        ApprovalCommand::Ask {
            sandbox,
            to,
            why,
            json,
        } => {
            let asked = ApprovalCreate {
                egress: EgressAsked {
                    sandbox: sandbox.clone(),
                    to,
                },
                why,
            };
            let view = client.approval_create(&asked).await;
            one(&view.map_err(sandbox::about(&sandbox))?, json)?
        }
    };
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn said(
    client: &Client,
    verdict: ApprovalVerdict,
    yes: YesArgs,
    comment: String,
) -> Result<String, Failure> {
    let time = yes.time.map(|time| time.as_millis());
    let said = ApprovalDecide {
        verdict,
        comment,
        scope: match yes.scope {
            ScopeArg::Once => ApprovalScope::Once,
            ScopeArg::Session => ApprovalScope::Session,
            ScopeArg::Rule => ApprovalScope::Rule,
        },
        for_ms: time.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
    };
    let view = client.approval_decide(known(&yes.id)?, &said).await;
    let view = view.map_err(about(&yes.id))?;
    if yes.scope == ScopeArg::Rule && !yes.json {
        for id in proposed(client, &view.id).await {
            table::note(&format!("proposed {id}: `cofferdam approval show {id}`"));
        }
    }
    one(&view, yes.json)
}

/// What a yes as a rule proposes, which waits for somebody who may write policies. The yes counts already: that this is
/// not answered makes it no failure.
async fn proposed(client: &Client, of: &str) -> Vec<String> {
    let query = ApprovalListQuery {
        state: Some(ApprovalState::Pending),
        limit: Some(PAGE),
        before: None,
    };
    let page = client.approval_list(&query).await;
    let waiting = page.map(|page| page.approvals).unwrap_or_default();
    // Of policies nobody else writes what stands there.
    let from = format!("{of} ");
    let is_of = |one: &ApprovalView| one.subject.as_str() == "policy" && one.why.starts_with(&from);
    let proposed = waiting.into_iter().filter(is_of);
    proposed.map(|one| one.id).collect()
}

async fn list(
    client: &Client,
    state: Option<ApprovalState>,
    limit: u32,
    json: bool,
) -> Result<String, Failure> {
    let mut all = ApprovalList {
        approvals: Vec::new(),
        next: None,
    };
    loop {
        let left = limit as usize - all.approvals.len();
        let query = ApprovalListQuery {
            state,
            limit: Some(PAGE.min(u32::try_from(left).unwrap_or(PAGE))),
            before: all.next.take(),
        };
        let page = client.approval_list(&query).await?;
        all.approvals.extend(page.approvals);
        all.next = page.next;
        if all.next.is_none() || all.approvals.len() >= limit as usize {
            break;
        }
    }
    if json {
        return table::to_json(&all);
    }
    if all.approvals.is_empty() && state == Some(ApprovalState::Pending) {
        table::note("nothing waits for a person");
        return Ok(String::new());
    }
    let rows = all.approvals.iter().map(row);
    let head = ["ID", "STATE", "ABOUT", "WHO", "ASKED (UTC)", "WHAT"];
    Ok(table::layout(&head, rows.collect()))
}

fn row(view: &ApprovalView) -> Vec<String> {
    vec![
        view.id.clone(),
        state_word(view).to_owned(),
        view.subject.as_str().to_owned(),
        view.principal.clone(),
        when(view.created_at_ms),
        shown(&view.summary),
    ]
}

/// Where it is, by which it can be asked for.
fn one(view: &ApprovalView, json: bool) -> Result<String, Failure> {
    if json {
        return table::to_json(view);
    }
    Ok(format!("{}\t{}\n", view.id, state_word(view)))
}

/// Where it is, in a word: a yes that was taken back is none that somebody could count on.
fn state_word(view: &ApprovalView) -> &'static str {
    match view.revoked_at_ms {
        Some(_) => "revoked",
        None => view.state.as_str(),
    }
}

fn describe(view: &ApprovalView) -> Result<String, Failure> {
    let mut text = String::new();
    let mut say = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<10} {}", shown(value));
        }
    };
    say("id", &view.id);
    say("state", state_word(view));
    say("about", view.subject.as_str());
    say("which", &view.subject_id);
    say("asked by", &view.principal);
    say("acts for", &view.acts_for.join(" "));
    say("asked at", &when(view.created_at_ms));
    say("until", &when(view.expires_at_ms));
    say("why", &view.why);
    for reason in &view.reasons {
        say("needs", reason);
    }
    say("decided by", view.decided_by.as_deref().unwrap_or_default());
    say("comment", &view.comment);
    if view.waived {
        say("waived", "let through without being judged");
    }
    say("good for", view.scope.map_or("", ApprovalScope::as_str));
    for (name, at) in [
        ("decided at", view.decided_at_ms),
        ("counts to", view.until_ms),
        ("used at", view.used_at_ms),
        ("taken back", view.revoked_at_ms),
    ] {
        say(name, &at.map(when).unwrap_or_default());
    }
    // As JSON, in which nothing that somebody wrote ends its line or its text.
    if let Some(request) = &view.request {
        text.push_str("request\n");
        let json = table::to_json(request)?;
        let line = |line: &str| shown(line) + "\n";
        text.extend(json.lines().map(line));
    }
    Ok(text)
}

/// What is not seen, or turns the order of what is, is shown by its number: whoever asks must not make one command look
/// like another.
fn shown(text: &str) -> String {
    let visible = |c: char| {
        if is_hidden(c) {
            c.escape_unicode().collect()
        } else {
            printable(c)
        }
    };
    text.chars().flat_map(visible).collect()
}

/// Format characters (Unicode category Cf) that a terminal obeys or leaves out, and blanks of no width.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn state_of(state: ApprovalStateArg) -> ApprovalState {
    match state {
        ApprovalStateArg::Pending => ApprovalState::Pending,
        ApprovalStateArg::Approved => ApprovalState::Approved,
        ApprovalStateArg::Rejected => ApprovalState::Rejected,
        ApprovalStateArg::Expired => ApprovalState::Expired,
        ApprovalStateArg::Canceled => ApprovalState::Canceled,
    }
}

/// An id that can be in a path; an empty one would ask for something else.
fn known(id: &str) -> Result<&str, Failure> {
    if id.starts_with("apv_") {
        return Ok(id);
    }
    let failure = Failure::new(Code::NotFound, format!("there is no approval `{id}`"));
    Err(failure.hint("`cofferdam approval ls` lists what waits; their ids begin with `apv_`"))
}

fn about(id: &str) -> impl Fn(ClientError) -> Failure {
    move |error| {
        if !error.is(Code::NotFound) {
            return error.into();
        }
        let failure = Failure::new(Code::NotFound, format!("there is no approval `{id}`"));
        failure.hint("`cofferdam approval ls --all` lists them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_whoever_asks_has_written_cannot_move_the_cursor_of_whoever_decides() {
        let view: ApprovalView = serde_json::from_value(serde_json::json!({
            "id": "apv_1", "state": "pending", "subject": "job", "principal": "agent:bot",
            "summary": "ls\u{1b}[2K\rtrue", "request": {"argv": ["ls\u{1b}[2K\rtrue\u{202e}"]},
            "reasons": ["commands: x\ny"], "why": "\u{7}", "created_at_ms": 0, "expires_at_ms": 0,
        }))
        .unwrap();
        let text = describe(&view).unwrap() + &row(&view).join(" ");
        let is_plain = |c: char| c == '\n' || !c.is_control();
        assert!(text.chars().all(is_plain), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
        assert!(text.contains("needs      commands: x\\ny\n"), "{text}");
    }

    #[test]
    fn a_yes_that_was_taken_back_is_shown_as_revoked_and_not_as_approved() {
        let of = |revoked_at_ms: Option<u64>| -> ApprovalView {
            serde_json::from_value(serde_json::json!({
                "id": "apv_1", "state": "approved", "subject": "job", "principal": "agent:bot",
                "summary": "ls", "reasons": [], "created_at_ms": 0, "expires_at_ms": 0,
                "revoked_at_ms": revoked_at_ms,
            }))
            .unwrap()
        };
        for (view, word) in [(of(None), "approved"), (of(Some(7)), "revoked")] {
            assert_eq!(one(&view, false).unwrap(), format!("apv_1\t{word}\n"));
            assert_eq!(row(&view)[1], word);
            let shown = describe(&view).unwrap();
            assert!(shown.contains(&format!("state      {word}\n")), "{shown}");
        }
    }
}
