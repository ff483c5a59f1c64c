//! What was run in sandboxes, between the wire and the service.

use api::exec::{ExecAsked, ExecEnd, ExecFact, ExecKind, ExecList, ExecView};
use model::id::SandboxId;
use serde::{Deserialize, Serialize};
use service::{ExecPage, ExecRow};

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
            asked: json(&Started { pid, asked })?,
        },
        ExecFact::Ended {
            at_ms,
            of,
            end,
            stdout_bytes,
            stderr_bytes,
            ..
        } => service::ExecFact::Ended {
            of,
            at_ms,
            end: json(&Ended {
                end,
                stdout_bytes,
                stderr_bytes,
            })?,
        },
        ExecFact::Missed { seq, at_ms, count } => service::ExecFact::Missed { seq, at_ms, count },
    })
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(Error::internal)
}

/// A page of records.
pub(crate) fn list(id: &SandboxId, page: ExecPage) -> ExecList {
    let over = page.over_at_ms;
    let jobs = page.rows.into_iter().map(|row| view(id, row, over));
    ExecList {
        jobs: jobs.collect(),
        next: page.next,
    }
}

fn view(id: &SandboxId, row: ExecRow, over_at_ms: Option<u64>) -> ExecView {
    // What a row has was written by this file; what cannot be read any more is shown as absent.
    let started: Option<Started> = row
        .started
        .and_then(|text| serde_json::from_str(&text).ok());
    let ended: Option<Ended> = row.ended.and_then(|text| serde_json::from_str(&text).ok());
    let is_lost = row.ended_at_ms.is_none() && over_at_ms.is_some();
    let (end, stdout_bytes, stderr_bytes) = match ended {
        Some(ended) => (Some(ended.end), ended.stdout_bytes, ended.stderr_bytes),
        None => (is_lost.then_some(ExecEnd::Lost), 0, 0),
    };
    let (pid, asked) = started.map_or((None, None), |one| (one.pid, Some(one.asked)));
    let is_step = asked.as_ref().is_some_and(|asked| asked.context.is_some());
    let kind = match row.missed {
        Some(_) => ExecKind::Missed,
        None if is_step => ExecKind::Step,
        None => ExecKind::Exec,
    };
    ExecView {
        kind,
        sandbox_id: id.to_string(),
        seq: row.seq,
        started_at_ms: row.started_at_ms,
        ended_at_ms: row.ended_at_ms.or(over_at_ms),
        pid,
        asked,
        end,
        stdout_bytes,
        stderr_bytes,
        missed: row.missed,
    }
}
