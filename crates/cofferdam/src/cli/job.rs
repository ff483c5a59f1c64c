//! `cofferdam job`: looking at jobs.

use crate::cli::args::{JobArgs, JobCommand, JobLs};
use crate::cli::failure::Failure;
use crate::cli::fetch::fetch;
use crate::cli::inside;
use crate::cli::sandbox;
use crate::cli::table::{self, printable};
use crate::cli::units;
use api::Code;
use api::client::{Client, ClientError};
use api::job::{Enforced, JobListQuery, JobView};
use api::log::{LogEvent, LogQuery, LogSegment, StreamName};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Does what was asked about jobs.
pub(crate) async fn job(client: &Client, args: JobArgs) -> Result<ExitCode, Failure> {
    match args.command {
        JobCommand::Ls(ls) => list(client, ls).await?,
        JobCommand::Get { id, json } => {
            let id = known(&id)?;
            let view = client.job_get(id).await.map_err(about(id))?;
            table::print(&if json {
                table::to_json(&view)?
            } else {
                describe(&view)
            })?;
        }
        JobCommand::Logs { id, follow, json } => {
            let id = known(&id)?;
            if follow {
                follow_logs(client, id, json).await?;
            } else {
                logs(client, id, json).await?;
            }
        }
        JobCommand::Cancel { id, json } => {
            let id = known(&id)?;
            let view = client.job_cancel(id).await.map_err(about(id))?;
            table::print(&if json {
                table::to_json(&view)?
            } else {
                format!("{} {}\n", view.id, state_of(&view))
            })?;
        }
        JobCommand::Artifacts { id, get, json } => {
            let id = known(&id)?;
            match get {
                Some(path) => get_artifact(client, id, &path, json).await?,
                None => artifacts(client, id, json).await?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An id that can be in a path; an empty one would ask for something else.
fn known(id: &str) -> Result<&str, Failure> {
    if id.is_empty() {
        Err(no_job(id))
    } else {
        Ok(id)
    }
}

fn no_job(id: &str) -> Failure {
    let failure = Failure::new(Code::NotFound, format!("there is no job `{id}`"));
    failure.hint("`cofferdam job ls` lists the jobs of this state directory, or of this server")
}

/// Names the job that is not there.
pub(super) fn about(id: &str) -> impl Fn(ClientError) -> Failure {
    move |error| {
        if error.is(Code::NotFound) {
            no_job(id)
        } else if error.is(Code::Conflict) {
            Failure::from(error).hint(format!("`cofferdam job get {id}` shows it as it is"))
        } else {
            error.into()
        }
    }
}

async fn list(client: &Client, ls: JobLs) -> Result<(), Failure> {
    let is_of_sandboxes = ls.sandbox.is_some() || ls.kind.as_ref().is_some_and(|k| k != "job");
    let query = JobListQuery {
        state: ls
            .only
            .as_deref()
            .map(|name| parse("state", name))
            .transpose()?,
        kind: ls
            .kind
            .as_deref()
            .map(|name| parse("kind", name))
            .transpose()?,
        sandbox: ls.sandbox.clone(),
        limit: Some(ls.limit),
        before: None,
    };
    let page = client.job_list(&query).await;
    let page = page.map_err(|error| match &ls.sandbox {
        Some(id) => sandbox::about(id)(error),
        None => error.into(),
    })?;
    if ls.json {
        return table::print(&table::to_json(&page)?);
    }
    if is_of_sandboxes {
        return inside::log::table(&page.execs, page.next.is_some(), inside::log::Of::Many);
    }
    if page.jobs.is_empty() {
        table::note(&match ls.only {
            Some(state) => format!("no job is {state}"),
            None => "there are no jobs yet; `cofferdam run -- COMMAND` makes one".to_owned(),
        });
        return Ok(());
    }
    let rows = page.jobs.iter().map(|job| {
        let took = job.timings_ms.total.map(units::show_ms).unwrap_or_default();
        let created = when(job.created_at_ms);
        vec![job.id.clone(), state_of(job), created, took, command(job)]
    });
    let titles = ["ID", "STATE", "CREATED (UTC)", "TOOK", "COMMAND"];
    table::print(&table::layout(&titles, rows.collect()))?;
    if page.next.is_some() {
        table::note("there are more; --limit shows up to 500");
    }
    Ok(())
}

/// A name that the command line has checked.
fn parse<T: serde::de::DeserializeOwned>(what: &str, name: &str) -> Result<T, Failure> {
    let parsed = serde_json::from_value(serde_json::Value::String(name.to_owned()));
    parsed.map_err(|error| Failure::ours(&format!("read the {what}"), &error))
}

/// The state, or how it ended.
fn state_of(view: &JobView) -> String {
    match &view.outcome {
        None => view.state.as_str().to_owned(),
        Some(outcome) => {
            let name = serde_json::to_value(outcome.kind).unwrap_or_default();
            let name = name.as_str().unwrap_or("finished").to_owned();
            if name == "failed" {
                format!("failed ({})", outcome.exit_code)
            } else {
                name
            }
        }
    }
}

pub(crate) fn when(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The command on one line; what could move the cursor of a terminal is shown, not sent.
fn command(view: &JobView) -> String {
    const SHOWN: usize = 60;
    let text = view.spec.argv.join(" ");
    let mut text: Vec<char> = text.chars().flat_map(printable).take(SHOWN + 1).collect();
    if text.len() > SHOWN {
        text.truncate(SHOWN - 1);
        text.push('\u{2026}');
    }
    text.into_iter().collect()
}

fn describe(view: &JobView) -> String {
    let mut rows = vec![
        row("job", &view.id),
        row("state", &state_of(view)),
        row("command", &command(view)),
        row("created", &format!("{} UTC", when(view.created_at_ms))),
    ];
    let said = view.approval.as_ref();
    let by = said.and_then(|said| said.approved_by.as_ref());
    rows.extend(by.map(|by| row("approved by", by)));
    rows.extend(view.node.as_ref().map(|node| row("node", node)));
    let timings = [
        ("queued for", view.timings_ms.queued),
        ("prepared in", view.timings_ms.provision),
        ("ran for", view.timings_ms.run),
    ];
    rows.extend(
        timings
            .iter()
            .filter_map(|(name, ms)| Some(row(name, &units::show_ms((*ms)?)))),
    );
    if let Some(usage) = &view.usage {
        rows.push(row("processor", &units::show_ms(usage.cpu_ms)));
        let memory = usage.memory_peak_bytes.map(units::show_size);
        rows.extend(memory.map(|memory| row("most memory", &memory)));
    }
    if view.egress_denied > 0 {
        let denied = format!(
            "{}; see `cofferdam egress log {}`",
            view.egress_denied, view.id
        );
        rows.push(row("denials", &denied));
    }
    let streams = [&view.stdout, &view.stderr].into_iter().flatten();
    let found: u64 = streams.map(|stream| stream.patterns_found).sum();
    if found > 0 {
        rows.push(row("credentials taken out", &found.to_string()));
    }
    let why = view
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.why.as_ref());
    rows.extend(
        why.into_iter()
            .chain(&view.detail)
            .chain(&view.waiting)
            .map(|text| row("detail", text)),
    );
    table::layout(&["", ""], rows) + &clauses(&view.enforcement)
}

/// What was in force, below an empty line; nothing when nothing was.
pub(crate) fn clauses(enforcement: &[Enforced]) -> String {
    let rows = enforcement.iter().map(|clause| {
        let value = clause.value.as_deref().map(amount).unwrap_or_default();
        let held = serde_json::to_value(clause.state).unwrap_or_default();
        let held = held.as_str().unwrap_or_default().replace('_', " ");
        let asked = if clause.asked { "asked" } else { "default" };
        let how = clause.how.clone();
        vec![clause.clause.clone(), held, asked.to_owned(), how, value]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\n{}",
        table::layout(&["CLAUSE", "", "", "HOW", "VALUE"], rows)
    )
}

/// Amounts as people write them.
fn amount(value: &str) -> String {
    let millis = value.strip_suffix(" thousandths of a processor");
    if let Some(millis) = millis.and_then(|millis| millis.parse().ok()) {
        return units::show_cpus(millis);
    }
    if !value.contains(" bytes") {
        return value.to_owned();
    }
    let word = |word: &str| {
        word.parse()
            .map_or_else(|_| word.to_owned(), units::show_size)
    };
    let words: Vec<String> = value.split(' ').map(word).collect();
    words.join(" ").replace(" bytes", "")
}

pub(crate) fn row(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.chars().flat_map(printable).collect()]
}

async fn logs(client: &Client, id: &str, json: bool) -> Result<(), Failure> {
    let mut query = LogQuery::default();
    loop {
        let page = client.job_logs(id, &query).await.map_err(about(id))?;
        let last = page.segments.is_empty();
        query.after = Some(page.next);
        for segment in page.segments {
            show(segment, json)?;
        }
        if last {
            return Ok(());
        }
    }
}

async fn follow_logs(client: &Client, id: &str, json: bool) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let following = client.job_logs_follow(id, after).await;
        let mut follow = following.map_err(about(id))?;
        while let Some(event) = follow.next().await? {
            match event {
                LogEvent::Output(segment) => show(segment, json)?,
                LogEvent::End(_) => return Ok(()),
            }
        }
        // The server went away in between; what was seen is not shown again.
        after = follow.last_seq();
    }
}

fn show(segment: LogSegment, json: bool) -> Result<(), Failure> {
    if json {
        return table::print(&table::to_line(&segment)?);
    }
    let stream = segment.stream;
    let bytes = segment
        .into_bytes()
        .map_err(|error| Failure::ours("read the output", &error))?;
    let written = match stream {
        StreamName::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush())
        }
        StreamName::Stderr => std::io::stderr().lock().write_all(&bytes),
    };
    written.map_err(|error| Failure::unwritten(&error))
}

async fn artifacts(client: &Client, id: &str, json: bool) -> Result<(), Failure> {
    let list = client.artifact_list(id).await.map_err(about(id))?;
    if json {
        return table::print(&table::to_json(&list)?);
    }
    if list.artifacts.is_empty() {
        table::note("no files were kept of this job; `run --out PATH` keeps some");
        return Ok(());
    }
    let rows = list.artifacts.iter().map(|artifact| {
        let path = artifact.path.chars().flat_map(printable).collect();
        let size = units::show_size(artifact.size_bytes);
        vec![path, size, artifact.digest.clone()]
    });
    table::print(&table::layout(&["PATH", "SIZE", "SHA-256"], rows.collect()))
}

/// Writes one file that was kept into this directory.
async fn get_artifact(client: &Client, id: &str, path: &str, json: bool) -> Result<(), Failure> {
    let list = client.artifact_list(id).await.map_err(about(id))?;
    let found = list.artifacts.iter().find(|artifact| artifact.path == path);
    let missing = || {
        let failure = Failure::new(
            Code::NotFound,
            format!("no file `{path}` was kept of this job"),
        );
        failure.hint(format!(
            "`cofferdam job artifacts {id}` lists those that were"
        ))
    };
    let artifact = found.ok_or_else(missing)?;
    let name = Path::new(path).file_name();
    let name = name.map_or_else(|| Path::new("artifact"), Path::new);
    fetch(client, id, artifact, name).await?;
    if json {
        return table::print(&table::to_json(artifact)?);
    }
    let shown: String = name.to_string_lossy().chars().flat_map(printable).collect();
    table::print(&format!("{shown}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_units_and_other_values_as_they_are() {
        assert_eq!(amount("268435456 bytes"), "256 MiB");
        let of_which = "335544320 bytes, of which 67108864 for the disk";
        assert_eq!(amount(of_which), "320 MiB, of which 64 MiB for the disk");
        assert_eq!(amount("1000 thousandths of a processor"), "1");
        for value in ["256", "user, mount, pid", "none", "abi 6", ""] {
            assert_eq!(amount(value), value);
        }
    }

    #[test]
    fn an_empty_id_asks_for_no_other_route() {
        assert!(known("").unwrap_err().to_string().contains("no job ``"));
        assert_eq!(known("x").unwrap(), "x");
    }
}
