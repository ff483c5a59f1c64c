//! What is, in the words of the wire.

use api::artifact::ArtifactView;
use api::encoding;
use api::job::{
    EnforcedState, FileInput, JobView, LimitsAsked, OutcomeKind, RetryAsked, SpecView, StateName,
    TimingsMs,
};
use api::log::{LogSegment, StreamName};
use api::node::LeaseSpec;
use model::enforcement::{Enforced, Held, StreamReport, Usage};
use model::job::{JobState, Outcome};
use model::spec::{AskedLimits, InputFile, JobSpec};
use service::JobRow;

pub(crate) fn job(row: JobRow) -> JobView {
    let timings_ms = timings(&row);
    JobView {
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
        queued_at_ms: Some(row.queued_at_ms),
        leased_at_ms: row.leased_at_ms,
        started_at_ms: row.started_at_ms,
        finished_at_ms: row.finished_at_ms,
        timings_ms,
        usage: row.usage.map(usage),
        enforcement: enforcement(row.enforcement),
        stdout: row.stdout.map(stream_report),
        stderr: row.stderr.map(stream_report),
        detail: row.detail,
        artifacts: Vec::new(),
    }
}

/// The parts of a job's life that have ended. Clocks of two machines may disagree, so a part is
/// never negative.
fn timings(row: &JobRow) -> TimingsMs {
    let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    TimingsMs {
        queued: between(Some(row.queued_at_ms), row.leased_at_ms),
        provision: between(row.leased_at_ms, row.started_at_ms),
        run: between(row.started_at_ms, row.finished_at_ms),
        total: between(Some(row.created_at_ms), row.finished_at_ms),
    }
}

pub(crate) fn state(state: &JobState) -> StateName {
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
    let JobState::Finished { outcome } = state else { return None };
    let (kind, why) = match outcome {
        Outcome::Succeeded => (OutcomeKind::Succeeded, None),
        Outcome::Failed { .. } => (OutcomeKind::Failed, None),
        Outcome::TimedOut => (OutcomeKind::TimedOut, None),
        Outcome::Canceled => (OutcomeKind::Canceled, None),
        Outcome::Lost { why } => (OutcomeKind::Lost, Some(why.clone())),
        Outcome::Refused { why } => (OutcomeKind::Refused, Some(why.clone())),
    };
    Some(api::job::Outcome { kind, exit_code: outcome.exit_code(), why })
}

fn spec_view(spec: JobSpec) -> SpecView {
    SpecView {
        profile: spec.profile,
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
    }
}

/// What a node is to run; the only place where values of variables leave the server.
pub(crate) fn lease_spec(spec: JobSpec) -> LeaseSpec {
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
        retry: RetryAsked { max_attempts: spec.retry.max_attempts },
        queue_timeout_ms: spec.queue_timeout_ms,
        node: spec.node.map(|node| node.to_string()),
    }
}

fn limits_asked(asked: AskedLimits) -> LimitsAsked {
    LimitsAsked {
        cpu_millis: asked.cpu_millis,
        memory_bytes: asked.memory_bytes,
        pids: asked.pids,
        disk_bytes: asked.disk_bytes,
    }
}

fn file_input(file: InputFile) -> FileInput {
    FileInput { path: file.path, digest: file.digest, size_bytes: file.size_bytes, mode: file.mode }
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

fn enforcement(clauses: Vec<Enforced>) -> Vec<api::job::Enforced> {
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

pub(crate) fn stream_report(report: StreamReport) -> api::job::StreamReport {
    api::job::StreamReport {
        total_bytes: report.total_bytes,
        kept_bytes: report.kept_bytes,
        truncated: report.truncated,
        lost_bytes: report.lost_bytes,
    }
}
