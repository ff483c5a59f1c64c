//! What was asked, in the words of the house, with every default filled in.

use std::time::Duration;

use api::Code;
use api::job::{EnforcedState, FileInput, JobCreate, LimitsAsked, wait_from_text};
use api::log::StreamName;
use api::node::{
    ArtifactPutQuery, JobFinished, JobStarted, NodeRegister, OutcomeReport, OutputSegment,
};
use model::enforcement::{Enforced, Held, StreamReport, Usage};
use model::id::{NodeId, SandboxId};
use model::job::Outcome;
use model::limits;
use model::profile::Says;
use model::spec::{AskedLimits, InputFile, JobSpec, Retry};
use service::{
    Finished, LeaseRef, NewArtifact, NodeHello, OutputPiece, ProfileAsk, Started, Stream, Written,
};

use super::fleet;
use crate::error::Error;

/// The profile of a job or a sandbox that names none.
pub(super) const PROFILE_DEFAULT: &str = "default";

/// What a job is to be, and by which profile.
pub(crate) fn job_ask(job: JobCreate) -> Result<(JobSpec, Option<ProfileAsk>), Error> {
    let says = Says {
        network: job.network.is_some(),
        timeout: job.timeout_ms.is_some(),
    };
    let (profile, asked) = super::profile::chosen(job.profile.clone(), says);
    Ok((job_spec(job, profile)?, asked))
}

fn job_spec(job: JobCreate, profile: String) -> Result<JobSpec, Error> {
    Ok(JobSpec {
        profile,
        argv: job.argv,
        env: job.env,
        cwd: job.cwd,
        root: job.root,
        timeout_ms: job.timeout_ms.unwrap_or(limits::TIMEOUT_DEFAULT_MS),
        limits: asked_limits(job.limits),
        files: job.files.into_iter().map(input_file).collect(),
        outputs: job.outputs,
        attach: job.attach,
        retry: Retry {
            max_attempts: job.retry.max_attempts,
        },
        queue_timeout_ms: job.queue_timeout_ms,
        node: job.node.map(|node| node_id(&node)).transpose()?,
        placement: super::place::of(job.placement),
        secrets: super::secret::uses(job.secrets)?,
        scrub_patterns: job.scrub_patterns,
        network: super::network::of_new(false, job.network)?,
        made_by: None,
        permit: None,
    })
}

pub(super) fn asked_limits(asked: LimitsAsked) -> AskedLimits {
    AskedLimits {
        cpu_millis: asked.cpu_millis,
        memory_bytes: asked.memory_bytes,
        pids: asked.pids,
        disk_bytes: asked.disk_bytes,
    }
}

fn input_file(file: FileInput) -> InputFile {
    InputFile {
        path: file.path,
        digest: file.digest,
        size_bytes: file.size_bytes,
        mode: file.mode,
    }
}

pub(super) fn node_id(text: &str) -> Result<NodeId, Error> {
    text.parse().map_err(|error| bad_id("node", &error))
}

pub(crate) fn bad_id(field: &str, error: &model::id::IdError) -> Error {
    Error::field(Code::InvalidArgument, field, error.to_string())
}

/// The time of `?wait=`; no time when absent.
pub(crate) fn wait(text: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = text else {
        return Ok(Duration::ZERO);
    };
    wait_from_text(text).ok_or_else(|| {
        let message = "wait must be a duration such as `30s`, `500ms` or `2m`";
        Error::field(Code::InvalidArgument, "wait", message)
    })
}

/// The number of rows of a page.
pub(crate) fn page_limit(asked: Option<u32>) -> Result<u32, Error> {
    match asked.unwrap_or(limits::PAGE_DEFAULT) {
        limit if (1..=limits::PAGE_MAX).contains(&limit) => Ok(limit),
        _ => {
            let message = format!("limit must be between 1 and {}", limits::PAGE_MAX);
            Err(Error::field(Code::InvalidArgument, "limit", message))
        }
    }
}

fn outcome(report: OutcomeReport) -> Result<Outcome, Error> {
    Ok(match report {
        OutcomeReport::Succeeded => Outcome::Succeeded,
        OutcomeReport::Failed { exit_code } if (1..=255).contains(&exit_code) => {
            Outcome::Failed { exit_code }
        }
        OutcomeReport::Failed { .. } => {
            let message = "a failed command has an exit code from 1 to 255";
            return Err(Error::field(
                Code::InvalidArgument,
                "outcome.exit_code",
                message,
            ));
        }
        OutcomeReport::TimedOut => Outcome::TimedOut,
        OutcomeReport::Canceled => Outcome::Canceled,
        OutcomeReport::Lost { why } => Outcome::Lost { why },
        OutcomeReport::Refused { why } => Outcome::Refused { why },
    })
}

pub(crate) fn enforcement(clauses: Vec<api::job::Enforced>) -> Vec<Enforced> {
    let one = |clause: api::job::Enforced| Enforced {
        clause: clause.clause,
        how: clause.how,
        value: clause.value,
        asked: clause.asked,
        state: match clause.state {
            EnforcedState::Held => Held::Held,
            EnforcedState::NotHeld => Held::NotHeld,
        },
    };
    clauses.into_iter().map(one).collect()
}

fn usage(usage: api::job::Usage) -> Usage {
    Usage {
        cpu_ms: usage.cpu_ms,
        memory_peak_bytes: usage.memory_peak_bytes,
        pids_peak: usage.pids_peak,
        disk_bytes: usage.disk_bytes,
        wall_ms: usage.wall_ms,
    }
}

fn stream_report(report: api::job::StreamReport) -> StreamReport {
    StreamReport {
        total_bytes: report.total_bytes,
        kept_bytes: report.kept_bytes,
        truncated: report.truncated,
        lost_bytes: report.lost_bytes,
        patterns_found: report.patterns_found,
    }
}

pub(crate) fn hello(hello: NodeRegister) -> NodeHello {
    NodeHello {
        name: hello.name,
        incarnation: hello.incarnation,
        version: hello.version,
        kind: hello.kind.map(fleet::kind).unwrap_or_default(),
        slots: hello.slots,
        drivers: hello.drivers,
        facts: hello.facts,
        labels: hello.labels,
        protocol: hello.protocol.max,
    }
}

pub(crate) fn dropped(one: api::dropped::NodeDropped) -> service::DroppedReport {
    service::DroppedReport {
        id: one.id,
        what: one.what.as_str(),
        about: one.about,
        code: one.code,
        more: one.more,
    }
}

pub(crate) fn job_refs(refs: Vec<api::node::JobRef>) -> Result<Vec<LeaseRef>, Error> {
    let one = |one: api::node::JobRef| {
        let job_id = one
            .job_id
            .parse()
            .map_err(|error| bad_id("running", &error))?;
        Ok(LeaseRef {
            job_id,
            epoch: one.epoch,
        })
    };
    refs.into_iter().map(one).collect()
}

pub(crate) fn started(report: JobStarted) -> Result<Started, Error> {
    let sandbox_id = report.sandbox_id.map(|id| id.parse::<SandboxId>());
    Ok(Started {
        epoch: report.epoch,
        attempt: report.attempt,
        driver: report.driver,
        sandbox_id: sandbox_id
            .transpose()
            .map_err(|error| bad_id("sandbox_id", &error))?,
        enforcement: enforcement(report.enforcement),
    })
}

pub(crate) fn pieces(segments: Vec<OutputSegment>) -> Result<Vec<OutputPiece>, Error> {
    segments.into_iter().map(piece).collect()
}

fn piece(segment: OutputSegment) -> Result<OutputPiece, Error> {
    let stream = match segment.stream {
        StreamName::Stdout => Stream::Stdout,
        StreamName::Stderr => Stream::Stderr,
    };
    let (offset_bytes, dropped) = (segment.offset_bytes, segment.dropped_before);
    let bad = |error: api::encoding::BadData| {
        Error::field(Code::InvalidArgument, "segments", error.to_string())
    };
    let data = segment.into_bytes().map_err(bad)?.into();
    Ok(OutputPiece {
        stream,
        offset_bytes,
        dropped_before: dropped.unwrap_or_default(),
        data,
    })
}

pub(crate) fn finished(report: JobFinished) -> Result<Finished, Error> {
    Ok(Finished {
        epoch: report.epoch,
        attempt: report.attempt,
        outcome: outcome(report.outcome)?,
        usage: report.usage.map(usage),
        enforcement: report.enforcement.map(enforcement),
        stdout: stream_report(report.stdout),
        stderr: stream_report(report.stderr),
        detail: report.detail,
        segments: pieces(report.segments)?,
    })
}

pub(crate) fn artifact(query: ArtifactPutQuery, written: Written) -> NewArtifact {
    NewArtifact {
        epoch: query.epoch,
        attempt: query.attempt,
        path: query.path,
        mode: query.mode,
        digest: written.digest,
        size_bytes: written.size_bytes,
    }
}
