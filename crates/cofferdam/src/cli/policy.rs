//! `cofferdam policy`: rules about what may be asked for, written in a file.

use crate::cli::args::{PolicyArgs, PolicyCommand};
use crate::cli::failure::{Failure, missing};
use crate::cli::job::when;
use crate::cli::{profile, table};
use api::Code;
use api::client::{Client, ClientError};
use api::people::PeopleListQuery;
use api::policy::{
    PermitView, PolicyLayer, PolicyTest, PolicyTested, PolicyTrace, PolicyVerdict, PolicyView,
};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// What a test of a request that is not allowed ends with. A test that could not be made ends with 125.
const NOT_ALLOWED: u8 = 1;
/// What ids of sandboxes begin with.
const SANDBOX: &str = "sbx_";

/// Does what was asked about policies.
pub(crate) async fn policy(client: &Client, args: PolicyArgs) -> Result<ExitCode, Failure> {
    let text = match args.command {
        PolicyCommand::Ls { json } => list(client, json).await?,
        PolicyCommand::Get {
            name,
            versions: true,
            json,
        } => versions(client, &name, json).await?,
        PolicyCommand::Get { name, json, .. } => get(client, &name, json).await?,
        PolicyCommand::Set { name, file, json } => {
            check_name(&name)?;
            let spec = read(&file)?;
            let view = client.policy_put(&name, &spec).await?;
            if let Some(of) = view.spec.of.as_deref() {
                say_missing(client, view.spec.layer, of).await;
            }
            one(&view, json)?
        }
        PolicyCommand::Rm { name, json } => {
            let gone = client.policy_delete(&name).await;
            one(&gone.map_err(about(&name))?, json)?
        }
        PolicyCommand::Test { file, json } => return test(client, &file, json).await,
        PolicyCommand::Explain { id, json } => explain(client, &id, json).await?,
    };
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The name and the version, by which it can be asked for.
fn one(view: &PolicyView, json: bool) -> Result<String, Failure> {
    if json {
        return table::to_json(view);
    }
    Ok(format!("{}\t{}\n", view.name, view.version))
}

/// Says so where what a policy is for is not there now: it counts from when it is, and a slip of the pen looks alike.
async fn say_missing(client: &Client, layer: PolicyLayer, of: &str) {
    let (is_missing, what) = match layer {
        PolicyLayer::Global | PolicyLayer::Tenant => return,
        PolicyLayer::Principal => (is_nobody(client, of).await, "principal"),
        PolicyLayer::Volume => (is_no_volume(client, of).await, "volume"),
    };
    if is_missing {
        table::note(&format!(
            "there is no {what} `{of}` now: `cofferdam {what} ls` lists those that there are"
        ));
    }
}

/// Whether there is no volume of this name. Of whoever may not look at volumes it is not known.
async fn is_no_volume(client: &Client, name: &str) -> bool {
    let there = client.volume_get(name).await;
    there.is_err_and(|error| error.is(Code::NotFound))
}

/// Whether there is no such principal. A policy for one that is not there is for nobody, and so is a test; their writer
/// would find that out when it matters. Of whoever may not look at principals it is not known.
async fn is_nobody(client: &Client, of: &str) -> bool {
    let Some(after) = before(of) else {
        return false;
    };
    let query = PeopleListQuery {
        after: Some(after),
        limit: Some(500),
    };
    let Ok(page) = client.principal_list(&query).await else {
        return false;
    };
    let ids: Vec<&str> = page.principals.iter().map(|one| one.id.as_str()).collect();
    is_missing(of, &ids, page.next.is_some())
}

/// Whether nobody is called this, by a page that begins before where it would stand: the page has all there are, or
/// goes past it. Ids are in the order of their bytes.
fn is_missing(of: &str, ids: &[&str], has_more: bool) -> bool {
    let is_past = !has_more || ids.last().is_some_and(|last| *last > of);
    is_past && !ids.contains(&of)
}

/// An id that stands before this one in a list; `None` for one that is in no list: a user of the machine.
fn before(of: &str) -> Option<String> {
    let is_made = ["user:", "agent:", "automation:"]
        .iter()
        .any(|kind| of.starts_with(kind));
    let mut before = of.to_owned();
    before.pop().filter(|_| is_made)?;
    Some(before)
}

async fn get(client: &Client, name: &str, json: bool) -> Result<String, Failure> {
    let view = client.policy_get(name).await.map_err(about(name))?;
    if json {
        return table::to_json(&view);
    }
    table::to_json(&view.spec)
}

async fn list(client: &Client, json: bool) -> Result<String, Failure> {
    let all = client.policy_list().await?;
    if json {
        return table::to_json(&all);
    }
    let rows = all.policies.into_iter().map(|view| {
        let layer = match view.spec.layer {
            PolicyLayer::Global => "global",
            PolicyLayer::Tenant => "tenant",
            PolicyLayer::Principal => "principal",
            PolicyLayer::Volume => "volume",
        };
        vec![
            view.name,
            layer.to_owned(),
            view.spec.of.unwrap_or_default(),
            view.version.to_string(),
            when(view.updated_at_ms),
        ]
    });
    Ok(table::layout(
        &["NAME", "LAYER", "OF", "VERSION", "CHANGED"],
        rows.collect(),
    ))
}

async fn versions(client: &Client, name: &str, json: bool) -> Result<String, Failure> {
    let kept = client.policy_versions(name).await.map_err(about(name))?;
    if json {
        return table::to_json(&kept);
    }
    let rows = kept.versions.iter().map(|one| {
        let version = one.version.to_string();
        vec![version, when(one.created_at_ms), one.principal.clone()]
    });
    Ok(table::layout(&["VERSION", "WHEN", "WHO"], rows.collect()))
}

async fn test(client: &Client, file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let text = profile::file_text(file)?;
    let asked: PolicyTest = serde_json::from_str(&text).map_err(|why| {
        let message = format!("failed to read {}: {why}", file.display());
        Failure::new(Code::InvalidArgument, message).hint("docs/policies.md has one to start from")
    })?;
    let tested = client.policy_test(&asked).await?;
    let text = if json {
        table::to_json(&tested)?
    } else {
        told(&tested)
    };
    table::print(&text)?;
    if let Some(of) = asked.principal.as_deref()
        && is_nobody(client, of).await
    {
        table::note(&format!(
            "there is no principal `{of}`; this is what it would get"
        ));
    }
    Ok(match tested.verdict {
        PolicyVerdict::Allowed => ExitCode::SUCCESS,
        PolicyVerdict::Refused | PolicyVerdict::NeedsApproval => ExitCode::from(NOT_ALLOWED),
    })
}

fn told(tested: &PolicyTested) -> String {
    let mut text = match tested.verdict {
        PolicyVerdict::Allowed => "allowed\n".to_owned(),
        PolicyVerdict::Refused => "refused\n".to_owned(),
        PolicyVerdict::NeedsApproval => "a person has to say yes\n".to_owned(),
    };
    for one in &tested.refusals {
        let by = one.by.join(" ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}: {} ({by})", one.clause, one.message);
    }
    text + &traces(&tested.trace)
}

async fn explain(client: &Client, id: &str, json: bool) -> Result<String, Failure> {
    let permit = if id.starts_with(SANDBOX) {
        client.sandbox_permit(id).await
    } else {
        client.job_permit(id).await
    };
    let hint = "`cofferdam job ls` and `cofferdam sandbox ls` list them, by id";
    let permit: PermitView = permit.map_err(missing("job or sandbox", id, hint))?;
    if json {
        return table::to_json(&permit);
    }
    if permit.layers.is_empty() {
        table::note("no policy applied");
    }
    Ok(let_through(&permit) + &traces(&permit.trace))
}

/// Who said yes, where it needed one.
fn let_through(permit: &PermitView) -> String {
    let yes = permit.approval.as_ref();
    let by = yes.and_then(|yes| Some((yes.approved_by.as_deref()?, &*yes.id)));
    by.map_or_else(String::new, |(who, id)| {
        format!("approved by  {who}  {id}\n")
    })
}

fn traces(all: &[PolicyTrace]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let rows = all.iter().map(|one| {
        let by = one.by.join(" ");
        vec![one.clause.clone(), one.value.clone(), by]
    });
    table::layout(&["CLAUSE", "VALUE", "BY"], rows.collect())
}

/// A policy of this name could not be asked for: that is where requests are tried.
fn check_name(name: &str) -> Result<(), Failure> {
    if name != "test" {
        return Ok(());
    }
    let message = "a policy cannot be called `test`";
    let failure = Failure::new(Code::InvalidArgument, message);
    Err(failure.hint("another name; `cofferdam policy test FILE` tries a request, without a name"))
}

fn about(name: &str) -> impl Fn(ClientError) -> Failure {
    let hint = "`cofferdam policy ls` lists the policies that there are";
    missing("policy", name, hint)
}

fn read(path: &Path) -> Result<api::policy::PolicySpec, Failure> {
    profile::document(path).map_err(|failure| {
        // Of a file that is not there, the hint of where it was looked for is the better one.
        if failure.is(Code::InvalidArgument) {
            return failure.hint("docs/policies.md has one with every field");
        }
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_missing_where_the_list_goes_past_it_also_if_the_list_goes_on() {
        for (ids, has_more, expect) in [
            (&["user:alice"][..], false, false),
            (&[], false, true),
            (&["user:alice", "user:bob"], true, false),
            (&["user:alicf"], false, true),
            (&["user:alicf", "user:bob"], true, true),
            // It may stand on the next page.
            (&["user:alica", "user:alicd"], true, false),
            (&[], true, false),
        ] {
            let found = is_missing("user:alice", ids, has_more);
            assert_eq!(found, expect, "{ids:?} {has_more}");
        }
    }

    #[test]
    fn a_permit_names_who_said_yes_where_somebody_had_to() {
        let of = |approval: serde_json::Value| -> PermitView {
            let all = serde_json::json!({"layers": [], "trace": [], "approval": approval});
            serde_json::from_value(all).unwrap()
        };
        let yes = serde_json::json!({"id": "apv_1", "reasons": [], "approved_by": "user:eve"});
        assert_eq!(let_through(&of(yes)), "approved by  user:eve  apv_1\n");
        assert_eq!(let_through(&of(serde_json::Value::Null)), "");
    }

    #[test]
    fn policies_that_the_document_shows_can_be_written_as_they_stand() {
        let document = include_str!("../../../../docs/policies.md");
        let shown = document.split("```toml\n").skip(1);
        let shown: Vec<&str> = shown.filter_map(|part| part.split("```").next()).collect();
        assert!(!shown.is_empty());
        for text in shown {
            let spec: api::policy::PolicySpec = profile::parse(text, false).unwrap();
            assert_eq!(spec.version, 1);
        }
        let tests = document.split("```json\n").skip(1);
        for text in tests.filter_map(|part| part.split("```").next()) {
            let asked: PolicyTest = serde_json::from_str(text).unwrap();
            assert!(asked.job.is_some() != asked.sandbox.is_some());
        }
        let wrong = profile::parse::<api::policy::PolicySpec>(
            "version = 1\nlayer = \"tenant\"\nx = 1",
            false,
        );
        assert!(wrong.is_err());
    }
}
