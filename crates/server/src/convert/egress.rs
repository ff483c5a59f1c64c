//! Connections to the outside, in both languages. What a record says is kept as the JSON that the node sent.

use api::Code;
use api::egress::{
    ANSWERS_MAX, EgressAdded, EgressConnection, EgressDecision, EgressList, EgressRecord,
    EgressTested, EgressView,
};
use model::network::Trial;
use service::{EgressOwner, EgressPage, EgressRow, NewEgress};
use std::net::IpAddr;

use super::from_wire::bad_id;
use crate::error::Error;

/// A text of a record: what a guest has chosen of it is a host, which has 253 bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// What a node tells.
pub(crate) fn records(records: Vec<EgressRecord>) -> Result<Vec<(EgressOwner, NewEgress)>, Error> {
    records.into_iter().map(record).collect()
}

/// Whose a connection is, by what a node says.
pub(crate) fn owner(one: &EgressConnection) -> Result<EgressOwner, Error> {
    owned(one.job_id.as_deref(), &one.sandbox_id)
}

/// Whether no text of it is longer than a record may have.
pub(crate) fn is_short(one: &EgressConnection) -> bool {
    let may_be = [one.job_id.as_ref(), one.address.as_ref(), one.rule.as_ref()];
    let are = [&one.sandbox_id, &one.method, &one.host];
    let mut texts = may_be.into_iter().flatten().chain(are);
    texts.all(|text| text.len() <= TEXT_BYTES_MAX)
}

fn owned(job: Option<&str>, sandbox: &str) -> Result<EgressOwner, Error> {
    Ok(match job {
        Some(id) => EgressOwner::Job(id.parse().map_err(|error| bad_id("job_id", &error))?),
        None => {
            let id = sandbox.parse();
            EgressOwner::Sandbox(id.map_err(|error| bad_id("sandbox_id", &error))?)
        }
    })
}

fn record(record: EgressRecord) -> Result<(EgressOwner, NewEgress), Error> {
    let owner = owned(record.job_id.as_deref(), &record.sandbox_id)?;
    let texts = [&record.host, &record.address, &record.code, &record.rule];
    let mut lengths = texts.into_iter().flatten().map(String::len);
    if lengths.any(|len| len > TEXT_BYTES_MAX) || record.method.len() > TEXT_BYTES_MAX {
        let message = format!("a text has at most {TEXT_BYTES_MAX} bytes");
        return Err(Error::field(Code::InvalidArgument, "records", message));
    }
    let is_address = |text: &String| text.parse::<IpAddr>().is_ok();
    if record.answers.len() > ANSWERS_MAX || !record.answers.iter().all(is_address) {
        let message = format!("answers are at most {ANSWERS_MAX} addresses");
        return Err(Error::field(Code::InvalidArgument, "records", message));
    }
    let new = NewEgress {
        name: record.name.clone(),
        at_ms: record.at_ms,
        decision: record.decision.as_str(),
        record: serde_json::to_string(&record).map_err(Error::internal)?,
    };
    Ok((owner, new))
}

/// A page of records. What cannot be read any more was written by another version, and is left out.
pub(crate) fn list(page: EgressPage) -> EgressList {
    EgressList {
        records: page.rows.into_iter().filter_map(view).collect(),
        next: page.next,
        more: page.more,
    }
}

fn view(row: EgressRow) -> Option<EgressView> {
    let record: EgressRecord = serde_json::from_str(&row.record).ok()?;
    Some(EgressView {
        seq: row.seq,
        at_ms: record.at_ms,
        sandbox_id: record.sandbox_id,
        job_id: record.job_id,
        method: record.method,
        host: record.host,
        port: record.port,
        address: record.address,
        answers: record.answers,
        answers_unlisted: record.answers_unlisted,
        ttl_s: record.ttl_s,
        decision: record.decision,
        code: record.code,
        rule: record.rule,
        bytes_out: record.bytes_out,
        bytes_in: record.bytes_in,
        duration_ms: record.duration_ms,
    })
}

pub(crate) fn tested(trial: Trial) -> EgressTested {
    EgressTested {
        host: trial.host.to_string(),
        port: trial.port,
        decision: match trial.code {
            None => EgressDecision::Allowed,
            Some(_) => EgressDecision::Denied,
        },
        code: trial.code.map(str::to_owned),
        rule: trial.rule,
        hint: trial.hint.map(str::to_owned),
        adds: trial
            .adds
            .into_iter()
            .map(|(header, secret)| EgressAdded { header, secret })
            .collect(),
    }
}
