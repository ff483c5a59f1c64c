//! `cofferdam egress`: what was asked of the outside, and what would become of it.

use crate::cli::args::{EgressArgs, EgressCommand, EgressLog};
use crate::cli::audit::now_ms;
use crate::cli::failure::Failure;
use crate::cli::job::{self, row, when};
use crate::cli::sandbox::{about, known};
use crate::cli::table;
use api::Code;
use api::client::Client;
use api::egress::{
    EgressConnection, EgressConnectionList, EgressConnectionQuery, EgressDecision, EgressEvent,
    EgressList, EgressQuery, EgressTest, EgressView,
};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// The most records of one page.
const PAGE: u32 = 500;

/// Does what was asked about the way out.
pub(crate) async fn egress(client: &Client, args: EgressArgs) -> Result<ExitCode, Failure> {
    match args.command {
        EgressCommand::Log(args) => {
            let (id, json, follow) = (args.id.clone(), args.json, args.follow);
            let query = query(args);
            if follow {
                follow_log(client, &id, query, json).await
            } else {
                log(client, &id, query, json).await
            }
        }
        EgressCommand::Connections {
            id,
            follow,
            limit,
            json,
        } => connections(client, id.as_deref(), limit, (follow, json)).await,
        EgressCommand::Test {
            target,
            sandbox,
            headers,
            json,
        } => test(client, asked(target, headers)?, &sandbox, json).await,
    }
}

fn query(args: EgressLog) -> EgressQuery {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    EgressQuery {
        after: Some(args.after),
        decision: args.denied.then_some(EgressDecision::Denied),
        host: args.host,
        code: args.code,
        from: args.since.map(|since| now_ms().saturating_sub(ms(since))),
        to: None,
        limit: (!args.follow).then_some(args.limit),
    }
}

/// Shows records as they come. Where the server goes away in between, what was seen is not shown again.
async fn follow_log(
    client: &Client,
    id: &str,
    mut query: EgressQuery,
    json: bool,
) -> Result<ExitCode, Failure> {
    let id = known(id)?;
    let mut titles = true;
    loop {
        let following = client.egress_follow(id, &query).await;
        let mut follow = following.map_err(|error| {
            if id.starts_with("job_") {
                job::about(id)(error)
            } else {
                about(id)(error)
            }
        })?;
        while let Some(event) = follow.next().await? {
            match event {
                EgressEvent::Record(record) if json => table::print(&table::to_line(&record)?)?,
                EgressEvent::Record(record) => {
                    // Columns of what is not there yet have no width.
                    if titles && table::has_reader() {
                        table::print(&(TITLES.join("  ") + "\n"))?;
                    }
                    titles = false;
                    table::print(&as_it_comes(&record))?;
                }
                EgressEvent::End(_) => return Ok(ExitCode::SUCCESS),
            }
        }
        query.after = follow.last_seq();
    }
}

/// A record on a line of its own. Pure.
fn as_it_comes(one: &EgressView) -> String {
    let between = if table::has_reader() { "  " } else { "\t" };
    let plain = |field: String| field.chars().flat_map(table::printable).collect::<String>();
    let fields: Vec<String> = line(one).into_iter().map(plain).collect();
    fields.join(between) + "\n"
}

/// What a line of records has.
const TITLES: [&str; 9] = ["N", "AT (UTC)", "HOW", "TO", "", "RULE", "OUT", "IN", "MS"];

async fn log(
    client: &Client,
    id: &str,
    mut query: EgressQuery,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut left = query.limit.unwrap_or(PAGE);
    let mut records = Vec::new();
    let mut more = true;
    while more && left > 0 {
        query.limit = Some(left.min(PAGE));
        let page = page(client, id, &query).await?;
        left = left.saturating_sub(u32::try_from(page.records.len()).unwrap_or(left));
        query.after = Some(page.next);
        more = page.more;
        records.extend(page.records);
    }
    if json {
        for record in &records {
            let line = serde_json::to_string(record);
            let line = line.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            table::print(&(line + "\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if records.is_empty() {
        table::note(nothing(&query));
        return Ok(ExitCode::SUCCESS);
    }
    table::print(&table::layout(&TITLES, records.iter().map(line).collect()))?;
    if more {
        table::note("there are more; --limit shows up to 10000, --after goes on");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said where there is no record. Who asked for some of them has not heard of the others. Pure.
fn nothing(asked: &EgressQuery) -> &'static str {
    if asked.host.is_some() || asked.code.is_some() || asked.from.is_some() {
        return "nothing that is over is what you look for";
    }
    match asked.decision {
        None => "it has asked for nothing, or nothing that is over",
        Some(EgressDecision::Allowed) => "nothing that is over was allowed",
        Some(EgressDecision::Denied) => "nothing that is over was denied",
        Some(EgressDecision::Failed) => "nothing that is over failed",
    }
}

/// How often what is under way is shown anew.
const EVERY: Duration = Duration::from_secs(1);

async fn connections(
    client: &Client,
    id: Option<&str>,
    limit: u32,
    (follow, json): (bool, bool),
) -> Result<ExitCode, Failure> {
    let id = id.map(known).transpose()?;
    let query = EgressConnectionQuery { limit: Some(limit) };
    loop {
        let list = client.egress_connections(id, &query).await;
        let list = list.map_err(|error| match id {
            Some(id) if id.starts_with("job_") => job::about(id)(error),
            Some(id) => about(id)(error),
            None => error.into(),
        })?;
        show(&list, json)?;
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn show(list: &EgressConnectionList, json: bool) -> Result<(), Failure> {
    if json {
        for one in &list.connections {
            table::print(&table::to_line(one)?)?;
        }
    } else if list.connections.is_empty() {
        table::note("nothing is under way");
    } else {
        let titles = [
            "OF", "AGE MS", "HOW", "TO", "ADDRESS", "", "RULE", "OUT", "IN",
        ];
        let rows = list.connections.iter().map(open_line).collect();
        table::print(&table::layout(&titles, rows))?;
    }
    for node in &list.silent_nodes {
        table::note(&format!("{node} did not say what it has"));
    }
    if list.more {
        table::note("there are more; --limit shows up to 500");
    }
    Ok(())
}

fn open_line(one: &EgressConnection) -> Vec<String> {
    let of = one.job_id.as_ref().unwrap_or(&one.sandbox_id);
    vec![
        of.clone(),
        one.age_ms.to_string(),
        one.method.clone(),
        to(&one.host, one.port),
        one.address.clone().unwrap_or_default(),
        one.decision
            .map_or("deciding", EgressDecision::as_str)
            .to_owned(),
        one.rule.clone().unwrap_or_default(),
        one.bytes_out.to_string(),
        one.bytes_in.to_string(),
    ]
}

/// Of a name that was asked for, and of what could not be read, there is no port.
fn to(host: &str, port: u16) -> String {
    match port {
        0 => host.to_owned(),
        port => format!("{host}:{port}"),
    }
}

async fn page(client: &Client, id: &str, query: &EgressQuery) -> Result<EgressList, Failure> {
    let id = known(id)?;
    if id.starts_with("job_") {
        client.job_egress(id, query).await.map_err(job::about(id))
    } else {
        client.sandbox_egress(id, query).await.map_err(about(id))
    }
}

fn line(one: &EgressView) -> Vec<String> {
    let to = to(one.host.as_deref().unwrap_or("?"), one.port) + &answers(one);
    let became = one.code.as_deref().unwrap_or(one.decision.as_str());
    vec![
        one.seq.to_string(),
        when(one.at_ms),
        one.method.clone(),
        to,
        became.to_owned(),
        one.rule.clone().unwrap_or_default(),
        one.bytes_out.to_string(),
        one.bytes_in.to_string(),
        one.duration_ms.to_string(),
    ]
}

/// What is to be tried. Of two fields with one name the second would take the place of the first, without a word.
fn asked(url: String, fields: Vec<(String, String)>) -> Result<EgressTest, Failure> {
    let mut headers = BTreeMap::new();
    for (name, value) in fields {
        if headers.contains_key(&name) {
            let message = format!("--header: `{name}` is there twice");
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        headers.insert(name, value);
    }
    Ok(EgressTest { url, headers })
}

/// What a name has outside, of which a line of a table has room for two; `--json` has all that are on record. Pure.
fn answers(one: &EgressView) -> String {
    const SHOWN: usize = 2;
    let mut parts: Vec<String> = one.answers.iter().take(SHOWN).cloned().collect();
    let listed = one.answers.len().saturating_sub(SHOWN);
    let more = u64::try_from(listed).unwrap_or(u64::MAX);
    let more = more.saturating_add(one.answers_unlisted.into());
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    if parts.is_empty() {
        return String::new();
    }
    format!(" ({})", parts.join(", "))
}

async fn test(
    client: &Client,
    asked: EgressTest,
    sandbox: &str,
    json: bool,
) -> Result<ExitCode, Failure> {
    let tested = client.sandbox_egress_test(known(sandbox)?, &asked).await;
    let tested = tested.map_err(about(sandbox))?;
    let is_denied = tested.decision != EgressDecision::Allowed;
    table::print(&if json {
        table::to_json(&tested)?
    } else {
        let mut rows = vec![
            row("to", &format!("{}:{}", tested.host, tested.port)),
            row("decision", tested.decision.as_str()),
            row("rule", &tested.rule),
        ];
        let adds = tested.adds.iter();
        rows.extend(adds.map(|one| row("adds", &format!("{}: secret {}", one.header, one.secret))));
        rows.extend(tested.code.as_ref().map(|code| row("code", code)));
        rows.extend(tested.hint.as_ref().map(|hint| row("hint", hint)));
        table::layout(&["", ""], rows)
    })?;
    Ok(ExitCode::from(u8::from(is_denied)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_tried_once() {
        let pair = |name: &str| (name.to_owned(), "1".to_owned());
        let tried = asked("u".to_owned(), vec![pair("a"), pair("b")]);
        assert_eq!(tried.map(|tried| tried.headers.len()).ok(), Some(2));
        assert!(asked("u".to_owned(), vec![pair("a"), pair("a")]).is_err());
    }

    #[test]
    fn a_name_is_shown_with_what_it_has_outside() {
        let mut one: EgressView = serde_json::from_value(serde_json::json!({
            "seq": 1, "at_ms": 1, "sandbox_id": "sbx_1", "method": "dns", "host": "a.test", "port": 0,
            "decision": "allowed", "bytes_out": 0, "bytes_in": 0, "duration_ms": 1
        }))
        .unwrap();
        assert_eq!(line(&one)[3], "a.test");
        one.answers_unlisted = 1;
        assert_eq!(line(&one)[3], "a.test (1 more)");
        one.answers = ["9.9.9.9", "2606:4700::1", "9.9.9.10"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(line(&one)[3], "a.test (9.9.9.9, 2606:4700::1, 2 more)");
    }

    #[test]
    fn that_nothing_was_denied_says_nothing_of_what_was_allowed() {
        let mut query = EgressQuery::default();
        assert!(nothing(&query).contains("asked for nothing"));
        query.decision = Some(EgressDecision::Denied);
        assert_eq!(nothing(&query), "nothing that is over was denied");
        query.host = Some("a.example".to_owned());
        assert!(nothing(&query).contains("what you look for"));
    }
}
