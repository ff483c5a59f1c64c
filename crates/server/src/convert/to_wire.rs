//! What is, in the words of the wire.

use crate::convert::{approval, sandbox};
use api::artifact::{ArtifactList, ArtifactView};
use api::blob::BlobView;
use api::encoding;
use api::event::{EventList, EventView};
use api::job::{
    EnforcedState, FileInput, JobList, JobView, LimitsAsked, OutcomeKind, RetryAsked, SpecView,
    StateName, TimingsMs,
};
use api::log::{LogPage, LogSegment, StreamName};
use api::node::{
    HeldLease, JobRef, Lease, LeaseSpec, NodeHeartbeatAnswer, NodePollAnswer, NodeRegistered,
    ReportAnswer, ReportResult,
};
use model::enforcement::{Enforced, Held, StreamReport, Usage};
use model::event::Event;
use model::job::{JobState, Outcome};
use model::spec::{AskedLimits, InputFile, JobSpec};
use service::{
    ArtifactRow, Beat, Caller, Ctx, JobPage, JobRow, LeaseRef, OutputPage, Polled, Registered,
    Report, Segment, Written,
};
use std::collections::BTreeMap;

/// A page is cut when its rows are larger than this together: 500 jobs may have 96 KiB of arguments
/// each, and a client must be able to hold a page.
const PAGE_BYTES: usize = 1 << 20;

pub(crate) fn job(row: JobRow, artifacts: Vec<ArtifactRow>) -> JobView {
    let timings_ms = timings(&row);
    let approval = approval::of_job(row.spec.permit.as_deref());
    JobView {
        approval,
        id: row.id.to_string(),
        state: state(&row.state),
        outcome: outcome(&row.state),
        spec: spec_view(row.spec),
        attempt: row.attempt,
        version: row.version,
        principal: row.principal.to_string(),
        node: row.node.map(|node| node.to_string()),
        driver: row.driver,
        cancel_requested: row.cancel_requested,
        created_at_ms: row.created_at_ms,
        queued_at_ms: row.queued_at_ms,
        leased_at_ms: row.leased_at_ms,
        started_at_ms: row.started_at_ms,
        finished_at_ms: row.finished_at_ms,
        timings_ms,
        usage: row.usage.map(usage),
        enforcement: enforcement(row.enforcement),
        stdout: row.stdout.map(stream_report),
        stderr: row.stderr.map(stream_report),
        egress_denied: row.egress_denied,
        detail: row.detail,
        waiting: None,
        artifacts: artifacts.into_iter().map(artifact).collect(),
    }
}

pub(crate) fn job_list(page: JobPage) -> JobList {
    let jobs = page
        .jobs
        .into_iter()
        .map(|row| job(row, Vec::new()))
        .collect();
    JobList {
        jobs,
        execs: Vec::new(),
        next: page.next,
    }
}

/// How many of these jobs fit on a page; at least one.
pub(crate) fn fitting(rows: &[JobRow]) -> usize {
    fitting_of(rows.iter().map(|row| weight(&row.spec)))
}

/// How many things of these lengths fit on a page; at least one.
pub(super) fn fitting_of(weights: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |weight: &usize| {
        bytes += weight;
        bytes <= PAGE_BYTES
    };
    weights.take_while(fits).count().max(1)
}

/// About how long a job is on the wire: what a request can make long, and the rest.
fn weight(spec: &JobSpec) -> usize {
    let texts = spec.argv.iter().chain(spec.env.keys()).chain(&spec.outputs);
    let files = spec.files.iter().map(|file| file.path.len() + 120);
    2048 + texts.map(|text| text.len() + 3).sum::<usize>() + files.sum::<usize>()
}

pub(crate) fn event_list(events: Vec<Event>, limit: u32) -> EventList {
    let full = events.len() >= limit as usize;
    let next = events.last().map(|event| event.version).filter(|_| full);
    EventList {
        events: events.into_iter().map(event).collect(),
        next,
    }
}

fn event(event: Event) -> EventView {
    // Written by the service as an object; what is not one is shown as the text it is.
    let data = serde_json::from_str(&event.data).unwrap_or(serde_json::Value::String(event.data));
    EventView {
        version: event.version,
        kind: event.kind,
        at_ms: event.at_ms,
        principal: event.principal,
        data,
    }
}

/// A page of a log: the segments of one stream or both, as many as fit.
pub(crate) fn log_page(page: OutputPage, after: u64, only: Option<StreamName>) -> LogPage {
    let (mut next, mut bytes, mut complete) = (page.next, 0, page.complete);
    let (mut last, mut segments) = (after, Vec::new());
    for segment in page.segments {
        bytes += segment.data.len();
        if bytes > PAGE_BYTES && last != after {
            (next, complete) = (last, false);
            break;
        }
        last = segment.seq;
        if only.is_none_or(|only| only.as_str() == segment.stream) {
            segments.push(log_segment(segment));
        }
    }
    let (stdout, stderr) = (
        page.stdout.map(stream_report),
        page.stderr.map(stream_report),
    );
    LogPage {
        segments,
        next,
        complete,
        stdout,
        stderr,
    }
}

pub(crate) fn log_segment(segment: Segment) -> LogSegment {
    let (encoding, data) = encoding::encode(&segment.data);
    let stream = if segment.stream == "stderr" {
        StreamName::Stderr
    } else {
        StreamName::Stdout
    };
    LogSegment {
        seq: segment.seq,
        attempt: segment.attempt,
        stream,
        offset_bytes: segment.offset_bytes,
        at_ms: segment.at_ms,
        encoding,
        data,
    }
}

pub(crate) fn artifact_list(rows: Vec<ArtifactRow>) -> ArtifactList {
    ArtifactList {
        artifacts: rows.into_iter().map(artifact).collect(),
    }
}

pub(crate) fn artifact(row: ArtifactRow) -> ArtifactView {
    ArtifactView {
        id: row.id.to_string(),
        path: row.path,
        digest: row.digest,
        size_bytes: row.size_bytes,
        mode: row.mode,
    }
}

pub(crate) fn blob(written: Written) -> BlobView {
    BlobView {
        digest: written.digest,
        size_bytes: written.size_bytes,
    }
}

pub(crate) fn registered(ctx: &Ctx, registered: Registered, now_ms: u64) -> NodeRegistered {
    let node_id = match &ctx.caller {
        Caller::Node(node) => node.to_string(),
        Caller::User(_) | Caller::Internal => String::new(),
    };
    NodeRegistered {
        node_id,
        lease_ms: registered.lease_ms,
        heartbeat_ms: registered.heartbeat_ms,
        held: registered.held.into_iter().map(held_lease).collect(),
        held_sandboxes: sandbox::held(registered.sandboxes, now_ms),
        lease_tokens: BTreeMap::new(),
        protocol: model::node::PROTOCOL.1,
    }
}

fn held_lease(row: JobRow) -> HeldLease {
    HeldLease {
        job_id: row.id.to_string(),
        attempt: row.attempt,
        epoch: row.epoch,
        state: state(&row.state),
        cancel_requested: row.cancel_requested,
    }
}

pub(crate) fn renewed(renewed: Beat) -> NodeHeartbeatAnswer {
    NodeHeartbeatAnswer {
        lease_ms: renewed.lease_ms,
        heartbeat_ms: renewed.heartbeat_ms,
        cancel: job_refs(renewed.cancel),
        stale: job_refs(renewed.stale),
        sandboxes: sandbox::works(renewed.sandboxes),
        sandbox_lives: sandbox::lives(renewed.sandbox_lives),
        stale_sandboxes: sandbox::refs(renewed.stale_sandboxes),
        remove_snapshots: Vec::new(),
        remove_volumes: Vec::new(),
        networks: super::network::works(&renewed.networks),
        upgrade_available: renewed.upgrade.is_some(),
        latest_version: renewed.upgrade.map(str::to_owned),
        min_compatible: model::node::PROTOCOL.0,
        protocol: model::node::PROTOCOL.1,
        lease_tokens: BTreeMap::new(),
        dropped: Vec::new(),
    }
}

pub(crate) fn polled(polled: Polled) -> NodePollAnswer {
    NodePollAnswer {
        leases: polled.leases.into_iter().map(lease).collect(),
        cancel: job_refs(polled.cancel),
        sandboxes: sandbox::works(polled.sandboxes),
        remove_snapshots: snapshot_ids(&polled.remove_snapshots),
        networks: super::network::works(&polled.networks),
        lease_tokens: BTreeMap::new(),
    }
}

pub(crate) fn snapshot_ids(ids: &[model::id::SnapshotId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn job_refs(refs: Vec<LeaseRef>) -> Vec<JobRef> {
    let one = |one: LeaseRef| JobRef {
        job_id: one.job_id.to_string(),
        epoch: one.epoch,
    };
    refs.into_iter().map(one).collect()
}

fn lease(row: JobRow) -> Lease {
    Lease {
        job_id: row.id.to_string(),
        tenant: row.tenant.to_string(),
        attempt: row.attempt,
        epoch: row.epoch,
        spec: lease_spec(row.spec),
    }
}

pub(crate) fn reported(reported: Report) -> ReportAnswer {
    let result = if reported.duplicate {
        ReportResult::Duplicate
    } else {
        ReportResult::Accepted
    };
    ReportAnswer {
        result,
        cancel: reported.cancel,
    }
}

/// The parts of a job's life that have ended. Clocks of two machines may disagree, so a part is
/// never negative.
fn timings(row: &JobRow) -> TimingsMs {
    let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    TimingsMs {
        queued: between(row.queued_at_ms, row.leased_at_ms),
        provision: between(row.leased_at_ms, row.started_at_ms),
        run: between(row.started_at_ms, row.finished_at_ms),
        total: between(Some(row.created_at_ms), row.finished_at_ms),
    }
}

fn state(state: &JobState) -> StateName {
    match state {
        JobState::AwaitingApproval => StateName::AwaitingApproval,
        JobState::Queued => StateName::Queued,
        JobState::Leased { .. } => StateName::Leased,
        JobState::Running { .. } => StateName::Running,
        JobState::Stopping { .. } => StateName::Stopping,
        JobState::Finished { .. } => StateName::Finished,
    }
}

fn outcome(state: &JobState) -> Option<api::job::Outcome> {
    let JobState::Finished { outcome } = state else {
        return None;
    };
    let (kind, why) = match outcome {
        Outcome::Succeeded => (OutcomeKind::Succeeded, None),
        Outcome::Failed { .. } => (OutcomeKind::Failed, None),
        Outcome::TimedOut => (OutcomeKind::TimedOut, None),
        Outcome::Canceled => (OutcomeKind::Canceled, None),
        Outcome::Lost { why } => (OutcomeKind::Lost, Some(why.clone())),
        Outcome::Refused { why } => (OutcomeKind::Refused, Some(why.clone())),
    };
    Some(api::job::Outcome {
        kind,
        exit_code: outcome.exit_code(),
        why,
    })
}

fn spec_view(spec: JobSpec) -> SpecView {
    SpecView {
        profile: match &spec.made_by {
            Some(made_by) => made_by.name.clone(),
            None => spec.profile,
        },
        made_by: super::profile::used(spec.made_by),
        argv: spec.argv,
        env_names: spec.env.into_keys().collect(),
        cwd: spec.cwd,
        root: spec.root,
        timeout_ms: spec.timeout_ms,
        limits: limits_asked(spec.limits),
        files: spec.files.into_iter().map(file_input).collect(),
        outputs: spec.outputs,
        attach: spec.attach,
        max_attempts: spec.retry.max_attempts,
        queue_timeout_ms: spec.queue_timeout_ms,
        node: spec.node.map(|node| node.to_string()),
        placement: super::place::view(spec.placement),
        secrets: super::secret::uses_view(spec.secrets),
        scrub_patterns: spec.scrub_patterns,
        network: super::network::of_job(&spec.network),
    }
}

/// What a node is to run; the only place where values of variables leave the server.
fn lease_spec(spec: JobSpec) -> LeaseSpec {
    LeaseSpec {
        profile: spec.profile,
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd,
        root: spec.root,
        timeout_ms: spec.timeout_ms,
        limits: limits_asked(spec.limits),
        files: spec.files.into_iter().map(file_input).collect(),
        outputs: spec.outputs,
        attach: spec.attach,
        retry: RetryAsked {
            max_attempts: spec.retry.max_attempts,
        },
        queue_timeout_ms: spec.queue_timeout_ms,
        node: spec.node.map(|node| node.to_string()),
        secrets: super::secret::uses_view(spec.secrets),
        scrub_patterns: spec.scrub_patterns,
        network: super::network::of_job(&spec.network),
    }
}

pub(super) fn limits_asked(asked: AskedLimits) -> LimitsAsked {
    LimitsAsked {
        cpu_millis: asked.cpu_millis,
        memory_bytes: asked.memory_bytes,
        pids: asked.pids,
        disk_bytes: asked.disk_bytes,
    }
}

fn file_input(file: InputFile) -> FileInput {
    FileInput {
        path: file.path,
        digest: file.digest,
        size_bytes: file.size_bytes,
        mode: file.mode,
    }
}

fn usage(usage: Usage) -> api::job::Usage {
    api::job::Usage {
        cpu_ms: usage.cpu_ms,
        wall_ms: usage.wall_ms,
        memory_peak_bytes: usage.memory_peak_bytes,
        pids_peak: usage.pids_peak,
        disk_bytes: usage.disk_bytes,
    }
}

pub(super) fn enforcement(clauses: Vec<Enforced>) -> Vec<api::job::Enforced> {
    let one = |clause: Enforced| api::job::Enforced {
        clause: clause.clause,
        how: clause.how,
        value: clause.value,
        asked: clause.asked,
        state: match clause.state {
            Held::Held => EnforcedState::Held,
            Held::NotHeld => EnforcedState::NotHeld,
        },
    };
    clauses.into_iter().map(one).collect()
}

fn stream_report(report: StreamReport) -> api::job::StreamReport {
    api::job::StreamReport {
        total_bytes: report.total_bytes,
        kept_bytes: report.kept_bytes,
        truncated: report.truncated,
        lost_bytes: report.lost_bytes,
        patterns_found: report.patterns_found,
    }
}
