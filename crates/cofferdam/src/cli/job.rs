//! `cofferdam job`: looking at jobs.

use crate::cli::args::{JobArgs, JobCommand};
use crate::cli::failure::Failure;
use crate::cli::{run, table, units};
use api::Code;
use api::client::Client;
use api::job::{JobListQuery, JobView, StateName};
use api::log::{LogEvent, LogQuery, LogSegment, StreamName};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Does what was asked about jobs.
pub(crate) async fn job(client: &Client, args: JobArgs) -> Result<ExitCode, Failure> {
    match args.command {
        JobCommand::Ls { only, limit, json } => list(client, only, limit, json).await?,
        JobCommand::Get { id, json } => {
            let view = client.job_get(&id).await?;
            table::print(&if json {
                to_json(&view)?
            } else {
                describe(&view)
            });
        }
        JobCommand::Logs { id, follow } => {
            if follow {
                follow_logs(client, &id).await?;
            } else {
                logs(client, &id).await?;
            }
        }
        JobCommand::Cancel { id } => {
            let view = client.job_cancel(&id).await?;
            table::print(&format!("{} {}\n", view.id, state_of(&view)));
        }
        JobCommand::Artifacts { id, get, json } => artifacts(client, &id, get, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::ours(&error))?;
    Ok(text + "\n")
}

async fn list(
    client: &Client,
    state: Option<String>,
    limit: u32,
    json: bool,
) -> Result<(), Failure> {
    let state = state.map(|name| parse_state(&name)).transpose()?;
    let query = JobListQuery {
        state,
        limit: Some(limit),
        before: None,
    };
    let page = client.job_list(&query).await?;
    if json {
        table::print(&to_json(&page)?);
        return Ok(());
    }
    let rows = page.jobs.iter().map(|job| {
        let took = job.timings_ms.total.map(units::show_ms).unwrap_or_default();
        vec![
            job.id.clone(),
            state_of(job),
            when(job.created_at_ms),
            took,
            command(job),
        ]
    });
    let titles = ["ID", "STATE", "CREATED", "TOOK", "COMMAND"];
    table::print(&table::layout(&titles, rows.collect()));
    if page.next.is_some() {
        table::note("there are more; --limit shows up to 500");
    }
    Ok(())
}

fn parse_state(name: &str) -> Result<StateName, Failure> {
    let parsed = serde_json::from_value(serde_json::Value::String(name.to_owned()));
    parsed.map_err(|_| {
        let message = "the states are queued, leased, running, stopping, finished";
        Failure::new(Code::InvalidArgument, message)
    })
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

fn when(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The command on one line; what could move the cursor of a terminal is shown, not sent.
fn command(view: &JobView) -> String {
    const SHOWN: usize = 60;
    let text = view.spec.argv.join(" ");
    let text: String = text.chars().flat_map(printable).take(SHOWN).collect();
    text
}

fn printable(c: char) -> Vec<char> {
    if c.is_control() {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

fn describe(view: &JobView) -> String {
    let mut rows = vec![
        row("job", &view.id),
        row("state", &state_of(view)),
        row("command", &command(view)),
        row("created", &when(view.created_at_ms)),
    ];
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
    let why = view
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.why.as_ref());
    rows.extend(
        why.into_iter()
            .chain(&view.detail)
            .map(|text| row("detail", text)),
    );
    let clauses = view.enforcement.iter().map(|clause| {
        let value = clause.value.as_deref().unwrap_or_default();
        let held = serde_json::to_value(clause.state).unwrap_or_default();
        let held = held.as_str().unwrap_or_default().replace('_', " ");
        let asked = if clause.asked { "asked" } else { "default" };
        vec![
            clause.clause.clone(),
            held,
            asked.to_owned(),
            clause.how.clone(),
            value.to_owned(),
        ]
    });
    let clauses: Vec<_> = clauses.collect();
    let mut text = table::layout(&["", ""], rows);
    if !clauses.is_empty() {
        text.push('\n');
        text.push_str(&table::layout(&["CLAUSE", "", "", "HOW", "VALUE"], clauses));
    }
    text
}

fn row(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.chars().flat_map(printable).collect()]
}

async fn logs(client: &Client, id: &str) -> Result<(), Failure> {
    let mut query = LogQuery::default();
    loop {
        let page = client.job_logs(id, &query).await?;
        let last = page.segments.is_empty();
        query.after = Some(page.next);
        page.segments.into_iter().try_for_each(write_segment)?;
        if last {
            return Ok(());
        }
    }
}

async fn follow_logs(client: &Client, id: &str) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let mut follow = client.job_logs_follow(id, after).await?;
        while let Some(event) = follow.next().await? {
            match event {
                LogEvent::Output(segment) => write_segment(segment)?,
                LogEvent::End(_) => return Ok(()),
            }
        }
        // The server went away in between; what was seen is not shown again.
        after = follow.last_seq();
    }
}

fn write_segment(segment: LogSegment) -> Result<(), Failure> {
    let stream = segment.stream;
    let bytes = segment
        .into_bytes()
        .map_err(|error| Failure::ours(&error))?;
    let written = match stream {
        StreamName::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush())
        }
        StreamName::Stderr => std::io::stderr().lock().write_all(&bytes),
    };
    written.map_err(|error| Failure::ours(&error))
}

async fn artifacts(
    client: &Client,
    id: &str,
    get: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let list = client.artifact_list(id).await?;
    if let Some(path) = get {
        let found = list.artifacts.iter().find(|artifact| artifact.path == path);
        let missing = || Failure::new(Code::NotFound, format!("`{path}` was not kept of this job"));
        let artifact = found.ok_or_else(missing)?;
        let name = Path::new(&path)
            .file_name()
            .map(Path::new)
            .unwrap_or_else(|| Path::new("artifact"));
        run::fetch(client, id, &artifact.id, name).await?;
        table::print(&format!("{}\n", name.display()));
        return Ok(());
    }
    if json {
        table::print(&to_json(&list)?);
        return Ok(());
    }
    let rows = list.artifacts.iter().map(|artifact| {
        let path = artifact.path.chars().flat_map(printable).collect();
        vec![
            path,
            units::show_size(artifact.size_bytes),
            artifact.digest.clone(),
        ]
    });
    table::print(&table::layout(&["PATH", "SIZE", "SHA-256"], rows.collect()));
    Ok(())
}
