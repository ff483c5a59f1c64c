//! Connections to the outside, in both languages. What a record says is kept as the JSON that the node sent.

use api::Code;
use api::egress::{
    ANSWERS_MAX, EgressAdded, EgressConnection, EgressDecision, EgressList, EgressQuery,
    EgressRecord, EgressTested, EgressView,
};
use model::host::Host;
use model::network::Trial;
use service::{
    EgressFilter, EgressHosts, EgressLook, EgressOwner, EgressPage, EgressRow, NewEgress,
};
use std::net::IpAddr;

use super::from_wire::{bad_id, page_limit};
use crate::error::Error;

/// A text of a record: what a guest has chosen of it is a host, which has 253 bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// A reason, which is a word of ours.
const CODE_BYTES_MAX: usize = 64;

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
        host: record.host.clone(),
        code: record.code.clone(),
        record: serde_json::to_string(&record).map_err(Error::internal)?,
    };
    Ok((owner, new))
}

/// Which records a query asks for.
pub(crate) fn ask(query: EgressQuery) -> Result<EgressLook, Error> {
    let is_word = |code: &str| {
        let is_of_one =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !code.is_empty() && code.len() <= CODE_BYTES_MAX && code.bytes().all(is_of_one)
    };
    if query.code.as_deref().is_some_and(|code| !is_word(code)) {
        let message = "a reason is a word such as `host_not_allowed`";
        return Err(Error::field(Code::InvalidArgument, "code", message));
    }
    Ok(EgressLook {
        after: query.after.unwrap_or(0),
        limit: page_limit(query.limit)?,
        filter: EgressFilter {
            decision: query.decision.map(EgressDecision::as_str),
            hosts: query.host.as_deref().map(hosts).transpose()?,
            code: query.code,
            from_ms: query.from,
            to_ms: query.to,
        },
    })
}

/// `HOST`, `ADDRESS` or `*.DOMAIN`, in the one form in which records have them.
fn hosts(text: &str) -> Result<EgressHosts, Error> {
    let bad = || {
        let message = "hosts are looked for as HOST, ADDRESS or *.DOMAIN, without a port";
        Error::field(Code::InvalidArgument, "host", message)
    };
    if let Some(domain) = text.strip_prefix("*.") {
        return match Host::parse(domain) {
            Ok(Host::Name(domain)) => Ok(EgressHosts::Below(domain)),
            Ok(Host::Address(_)) | Err(_) => Err(bad()),
        };
    }
    // As it stands in a record, an address of IPv6 is in brackets; people write it without.
    let address = text.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6);
    let bracketed = address.map(|address| format!("[{address}]"));
    let host = Host::parse(bracketed.as_deref().unwrap_or(text));
    Ok(EgressHosts::One(host.map_err(|_| bad())?.to_string()))
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
