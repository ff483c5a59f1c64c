//! `cofferdam sandbox log`: what was run in a sandbox.

use crate::cli::failure::Failure;
use crate::cli::job::when;
use crate::cli::sandbox::about;
use crate::cli::table;
use api::client::Client;
use api::exec::{ExecEnd, ExecKind, ExecListQuery, ExecView};

/// Prints a page of it.
pub(crate) async fn log(client: &Client, id: &str, limit: u32, json: bool) -> Result<(), Failure> {
    let query = ExecListQuery {
        limit: Some(limit),
        before: None,
    };
    let page = client.sandbox_jobs(id, &query).await.map_err(about(id))?;
    if json {
        return table::print(&table::to_json(&page)?);
    }
    table(&page.jobs, page.next.is_some(), Of::One)
}

/// Whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// One sandbox's.
    One,
    /// Of several.
    Many,
}

/// The same as a table; with the sandbox of each, where they are of several.
pub(crate) fn table(jobs: &[ExecView], more: bool, of: Of) -> Result<(), Failure> {
    if jobs.is_empty() {
        table::note("nothing was run there");
        return Ok(());
    }
    let mut titles = vec!["STARTED (UTC)", "BY", "AS", "ENDED", "COMMAND"];
    let mut rows: Vec<_> = jobs.iter().map(row).collect();
    if of == Of::Many {
        titles.insert(0, "SANDBOX");
        for (row, one) in rows.iter_mut().zip(jobs) {
            row.insert(0, one.sandbox_id.clone());
        }
    }
    table::print(&table::layout(&titles, rows))?;
    if more {
        table::note("there are more; --limit shows up to 500");
    }
    Ok(())
}

fn row(one: &ExecView) -> Vec<String> {
    let (principal, user, command) = match &one.asked {
        Some(asked) => {
            let more = if asked.cut { " ..." } else { "" };
            let words: Vec<String> = asked.argv.iter().map(|word| shown(word)).collect();
            let language = asked
                .context
                .as_ref()
                .map(|context| shown(&context.language));
            let language = language.map_or_else(String::new, |language| language + ": ");
            let command = language + &words.join(" ") + more;
            (shown(&asked.principal), shown(&asked.user), command)
        }
        None => {
            let missed = one.missed.unwrap_or_default();
            let gap = format!("(no record of {missed} starts or ends)");
            (String::new(), String::new(), gap)
        }
    };
    vec![
        when(one.started_at_ms),
        principal,
        user,
        ended(one),
        command,
    ]
}

/// A word of a command on one line of a terminal: it comes from whoever asked.
fn shown(word: &str) -> String {
    word.chars().flat_map(table::printable).collect()
}

fn ended(one: &ExecView) -> String {
    if one.kind == ExecKind::Missed {
        return "missed".to_owned();
    }
    match &one.end {
        None => "runs".to_owned(),
        Some(ExecEnd::Exited { code }) => code.to_string(),
        Some(ExecEnd::Signaled { signal }) => format!("signal {signal}"),
        Some(ExecEnd::Raised { name }) => shown(name),
        Some(ExecEnd::TimedOut) => "timed out".to_owned(),
        Some(ExecEnd::NotStarted { .. }) => "not started".to_owned(),
        Some(ExecEnd::Unknown) => "unknown".to_owned(),
        Some(ExecEnd::Lost) => "with the sandbox".to_owned(),
    }
}
