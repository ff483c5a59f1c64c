//! `cofferdam audit`: what happened, and that nobody has changed it since.

use crate::cli::args::{AuditArgs, AuditCommand, AuditFilter};
use crate::cli::failure::Failure;
use crate::cli::job::{row, when};
use crate::cli::table;
use api::Code;
use api::audit::{AuditCheckQuery, AuditChecked, AuditListQuery, AuditView};
use api::client::Client;
use std::process::ExitCode;

/// The most events of one page.
const PAGE: u32 = 500;

/// Does what was asked about the record.
pub(crate) async fn audit(client: &Client, args: AuditArgs) -> Result<ExitCode, Failure> {
    match args.command {
        AuditCommand::Ls {
            filter,
            limit,
            json: true,
        } => lines(client, query(filter), u64::from(limit)).await,
        AuditCommand::Ls { filter, limit, .. } => ls(client, query(filter), limit).await,
        AuditCommand::Export { filter } => lines(client, query(filter), u64::MAX).await,
        AuditCommand::Verify { json } => verify(client, json).await,
    }
}

fn query(filter: AuditFilter) -> AuditListQuery {
    let since_ms = filter
        .since
        .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let from = since_ms.map(|since| now_ms().saturating_sub(since));
    AuditListQuery {
        principal: filter.principal,
        resource_id: filter.id,
        kind: filter.kind,
        from,
        ..AuditListQuery::default()
    }
}

pub(crate) fn now_ms() -> u64 {
    // Time as people read it: what they ask for began so long before they asked.
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Gives every event to `each`, until there were so many. Says whether there are more.
async fn events(
    client: &Client,
    mut query: AuditListQuery,
    mut left: u64,
    mut each: impl FnMut(AuditView) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut more = true;
    while more && left > 0 {
        query.limit = Some(PAGE.min(u32::try_from(left).unwrap_or(PAGE)));
        let page = client.audit(&query).await?;
        left = left.saturating_sub(page.events.len() as u64);
        page.events.into_iter().try_for_each(&mut each)?;
        query.after = Some(page.next);
        more = page.more;
    }
    Ok(more)
}

async fn lines(client: &Client, query: AuditListQuery, most: u64) -> Result<ExitCode, Failure> {
    let each = |one: AuditView| {
        let line = serde_json::to_string(&one);
        let line = line.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        table::print(&(line + "\n"))
    };
    events(client, query, most, each).await?;
    Ok(ExitCode::SUCCESS)
}

async fn ls(client: &Client, query: AuditListQuery, limit: u32) -> Result<ExitCode, Failure> {
    let mut rows = Vec::new();
    let each = |one: AuditView| {
        let to = to(&one);
        rows.push(vec![when(one.at_ms), one.principal, one.kind, to]);
        Ok(())
    };
    let more = events(client, query, u64::from(limit), each).await?;
    if rows.is_empty() {
        table::note("nothing of that kind has happened");
        return Ok(ExitCode::SUCCESS);
    }
    let titles = ["AT (UTC)", "WHO", "WHAT", "TO"];
    table::print(&table::layout(&titles, rows))?;
    if more {
        table::note("there are more; --limit shows up to 10000, --since only the last, export all");
    }
    Ok(ExitCode::SUCCESS)
}

/// What it happened to; of a request that was refused, what was asked for, which has no name of its own.
fn to(one: &AuditView) -> String {
    let text = |name: &str| one.data.get(name).and_then(serde_json::Value::as_str);
    let left_out = one.data.get("left_out").and_then(serde_json::Value::as_u64);
    match (one.kind.as_str(), text("action"), left_out) {
        ("request.refused", Some(action), _) => {
            let about = text("about").map(|about| format!(" {about}"));
            format!("{action}{}", about.unwrap_or_default())
        }
        ("request.refused", None, Some(left_out)) => format!("{left_out} more"),
        ("policy.refused", ..) => match text("operation") {
            Some(operation) => format!("{operation}{}", clauses(one)),
            None => one.resource_id.clone(),
        },
        _ => one.resource_id.clone(),
    }
}

/// Clauses that are shown in one line; the others are counted.
const CLAUSES: usize = 4;

/// Which clauses refused it.
fn clauses(one: &AuditView) -> String {
    let all = one
        .data
        .get("clauses")
        .and_then(serde_json::Value::as_array);
    let all = all.map(Vec::as_slice).unwrap_or_default();
    let named = all.iter().take(CLAUSES);
    let named = named.filter_map(|one| one.get("clause")?.as_str());
    let named: Vec<&str> = named.collect();
    match (named.is_empty(), all.len().saturating_sub(CLAUSES)) {
        (true, _) => String::new(),
        (false, 0) => format!(" {}", named.join(" ")),
        (false, more) => format!(" {} and {more} more", named.join(" ")),
    }
}

async fn verify(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let mut all = client.audit_check(&AuditCheckQuery::default()).await?;
    while all.more {
        let after = all.last;
        let page = client.audit_check(&AuditCheckQuery { after }).await?;
        all = AuditChecked {
            seals: all.seals + page.seals,
            events: all.events + page.events,
            retired: page.retired.or(all.retired),
            flaws: all.flaws.into_iter().chain(page.flaws).collect(),
            ..page
        };
    }
    let is_well = all.flaws.is_empty();
    table::print(&if json {
        table::to_json(&all)?
    } else {
        table::layout(&["", ""], said(&all))
    })?;
    Ok(ExitCode::from(u8::from(!is_well)))
}

fn said(all: &AuditChecked) -> Vec<Vec<String>> {
    let mut rows = vec![
        row("seals", &all.seals.to_string()),
        row("events", &all.events.to_string()),
    ];
    rows.extend(
        all.retired
            .map(|number| row("gone by age", &format!("up to seal {number}"))),
    );
    rows.extend(
        all.digest
            .as_ref()
            .map(|digest| row("last", &format!("seal {} {digest}", all.last))),
    );
    rows.push(match &all.head {
        Some(head) => row(
            "signed",
            &format!("seal {}, {}", head.number, when(head.at_ms)),
        ),
        None => row("signed", "nothing yet"),
    });
    rows.extend(all.flaws.iter().map(|flaw| {
        row(
            &format!("seal {}", flaw.seal),
            &format!("{}: {}", flaw.code, flaw.message),
        )
    }));
    if all.flaws.is_empty() {
        rows.push(row("", "nothing was changed"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(kind: &str, data: Value) -> String {
        let view = json!({"place": "1", "at_ms": 1, "principal": "user:bob", "kind": kind,
            "resource": "refusal", "resource_id": "ref_1", "version": 1, "data": data});
        to(&serde_json::from_value(view).unwrap())
    }

    #[test]
    fn of_a_refused_request_the_list_shows_what_was_asked_for() {
        let action = "PUT /v1/principals/{name}";
        for (kind, data, expect) in [
            (
                "request.refused",
                json!({"action": action, "about": "user:eve"}),
                "PUT /v1/principals/{name} user:eve",
            ),
            ("request.refused", json!({"action": action}), action),
            ("request.refused", json!({"left_out": 980}), "980 more"),
            ("request.refused", json!({}), "ref_1"),
            ("policy.refused", json!({"action": action}), "ref_1"),
            (
                "policy.refused",
                json!({"operation": "job.create", "clauses": []}),
                "job.create",
            ),
            (
                "policy.refused",
                json!({"operation": "job.create", "clauses": [{"clause": "network.mode"}, {"clause": "commands"}]}),
                "job.create network.mode commands",
            ),
            (
                "policy.refused",
                json!({"operation": "job.create", "clauses": vec![json!({"clause": "a"}); 6]}),
                "job.create a a a a and 2 more",
            ),
        ] {
            assert_eq!(of(kind, data), expect);
        }
    }
}
