//! What was run in sandboxes, between the wire and the service.

use api::exec::{ExecAsked, ExecEnd, ExecFact, ExecKind, ExecList, ExecView};
use api::job::JobList;
use serde::{Deserialize, Serialize};
use service::{ExecBefore, ExecKind as Kind, ExecPage, ExecRow};

use crate::error::Error;

/// What is kept of a start.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    pid: Option<i32>,
    asked: ExecAsked,
}

/// What is kept of an end.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    end: ExecEnd,
    stdout_bytes: u64,
    stderr_bytes: u64,
    /// Not in older rows.
    #[serde(default)]
    patterns_found: u64,
}

/// The facts of a report.
pub(crate) fn facts(facts: Vec<ExecFact>) -> Result<Vec<service::ExecFact>, Error> {
    facts.into_iter().map(fact).collect()
}

fn fact(fact: ExecFact) -> Result<service::ExecFact, Error> {
    Ok(match fact {
        ExecFact::Started {
            seq,
            at_ms,
            pid,
            asked,
        } => service::ExecFact::Started {
            seq,
            at_ms,
            is_step: asked.context.is_some(),
            asked: json(&Started { pid, asked })?,
        },
        ExecFact::Ended {
            at_ms,
            of,
            end,
            stdout_bytes,
            stderr_bytes,
            patterns_found,
            ..
        } => service::ExecFact::Ended {
            of,
            at_ms,
            end: json(&Ended {
                end,
                stdout_bytes,
                stderr_bytes,
                patterns_found,
            })?,
        },
        ExecFact::Missed { seq, at_ms, count } => service::ExecFact::Missed { seq, at_ms, count },
    })
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(Error::internal)
}

/// A page of records.
pub(crate) fn list(page: ExecPage) -> ExecList {
    let last = page.rows.last().filter(|_| page.is_full);
    ExecList {
        next: last.map(|row| row.seq),
        jobs: page.rows.into_iter().map(view).collect(),
    }
}

/// A page of records of all sandboxes, or of one.
pub(crate) fn job_list(page: ExecPage, is_of_one: bool) -> JobList {
    let next = page.rows.last().filter(|_| page.is_full);
    let next = next.map(|row| {
        if is_of_one {
            row.seq.to_string()
        } else {
            format!("{}.{}.{}", row.started_at_ms, row.sandbox, row.seq)
        }
    });
    JobList {
        jobs: Vec::new(),
        execs: page.rows.into_iter().map(view).collect(),
        next,
    }
}

/// Where a page of all sandboxes begins, from the text that the page before ended with.
pub(crate) fn before(text: &str) -> Option<ExecBefore> {
    let (ms, rest) = text.split_once('.')?;
    let (id, seq) = rest.split_once('.')?;
    Some((ms.parse().ok()?, id.parse().ok()?, seq.parse().ok()?))
}

fn view(row: ExecRow) -> ExecView {
    // What a row has was written by this file; what cannot be read any more is shown as absent.
    let started: Option<Started> = row
        .started
        .and_then(|text| serde_json::from_str(&text).ok());
    let is_ended = row.ended.is_some() || row.missed.is_some();
    let ended: Option<Ended> = row.ended.and_then(|text| serde_json::from_str(&text).ok());
    let ended_at_ms = row.ended_at_ms.or(row.over_at_ms);
    // Its place is gone, and nobody has said how it ended.
    let is_lost = !is_ended && ended_at_ms.is_some();
    let written = ended.as_ref();
    let written = written.map(|one| (one.stdout_bytes, one.stderr_bytes, one.patterns_found));
    let (stdout_bytes, stderr_bytes, patterns_found) = written.unwrap_or_default();
    let end = match ended {
        Some(ended) => Some(ended.end),
        None => is_lost.then_some(ExecEnd::Lost),
    };
    let (pid, asked) = started.map_or((None, None), |one| (one.pid, Some(one.asked)));
    ExecView {
        kind: match row.kind {
            Kind::Exec => ExecKind::Exec,
            Kind::Step => ExecKind::Step,
            Kind::Missed => ExecKind::Missed,
        },
        sandbox_id: row.sandbox.to_string(),
        seq: row.seq,
        started_at_ms: row.started_at_ms,
        ended_at_ms,
        pid,
        asked,
        end,
        stdout_bytes,
        stderr_bytes,
        patterns_found,
        missed: row.missed,
    }
}
