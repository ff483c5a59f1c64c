//! Jobs on the wire: how one is asked for, and how it is shown.

use crate::approval::ApprovalOfJob;
use crate::exec::ExecView;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::artifact::ArtifactView;
use crate::network::Network;
use crate::place::Placement;
use crate::profile::ProfileUse;
use crate::secret::SecretUse;

/// The longest time that one request waits for an outcome. A client that wants to wait longer
/// asks again, so that a dead peer is noticed and a restart of the server loses little.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// One command to be run in a sandbox of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobCreate {
    /// The program and its arguments; the first is looked up on the sandbox's `PATH`.
    pub argv: Vec<String>,
    /// The recipe for the sandbox, `NAME` or `NAME:VERSION`; the built-in default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Variables added to the sandbox's small clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory to start in, inside the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The root: the name of one that the operator has given to the node, such as `ubuntu:22.04`, or the
    /// path of a directory on the node. The host's `/usr` and friends when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// How long the command may run; 300,000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What the command may use. A limit that is named is enforced, or the job is refused.
    #[serde(default)]
    pub limits: LimitsAsked,
    /// Files to be placed in the sandbox before the command starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileInput>,
    /// Paths in the sandbox to be kept as artifacts when the command has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// The standard streams will be attached to; the command is held until they are.
    #[serde(default)]
    pub attach: bool,
    /// Whether the job may be run again after its node was lost.
    #[serde(default)]
    pub retry: RetryAsked,
    /// How long the job may wait for a node; without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// The one node that may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What its node must have or should have.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Secrets that it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential is taken out of its output, too: `[secret pattern:NAME]` stands instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scrub_patterns: bool,
    /// What it may reach; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// Limits that a request names. Absent means the machine's best default, not "no limit".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsAsked {
    /// Processor time per second, in thousandths of one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Memory of all processes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Everything written, in all writable places together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// A file to be placed in the sandbox; its bytes were sent to `POST /v1/blobs` before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileInput {
    /// Where it goes, inside the sandbox. A relative path starts at the working directory.
    pub path: String,
    /// The SHA-256 of its bytes, as 64 lowercase hexadecimal digits.
    pub digest: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its permission bits, for example 420 (octal 644).
    #[serde(default = "default_mode")]
    pub mode: u32,
}

fn default_mode() -> u32 {
    0o644
}

/// Whether and how often a job may be started again when its node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryAsked {
    /// 1 means that the command is not safe to repeat: it is started at most once.
    pub max_attempts: u32,
}

impl Default for RetryAsked {
    fn default() -> Self {
        Self { max_attempts: 1 }
    }
}

/// What `POST /v1/jobs` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Answer when the job has ended, or after this time: `30s`, `500ms`, `2m`, or a number of
    /// seconds. At most five minutes; a longer time is cut to that.
    #[serde(default)]
    pub wait: Option<String>,
}

/// What `GET /v1/jobs` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobListQuery {
    /// Only jobs in this state; none but those of kind `job` have one.
    #[serde(default)]
    #[param(inline)]
    pub state: Option<StateName>,
    /// What is listed; `job` when absent, and with a `sandbox` all that was run in it.
    #[serde(default)]
    #[param(inline)]
    pub kind: Option<JobKind>,
    /// Only what was run in this sandbox that lives on.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub before: Option<String>,
}

/// What a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// One command in a sandbox of its own.
    Job,
    /// A command in a sandbox that lives on.
    Exec,
    /// Code in a context of such a sandbox.
    Step,
}

impl JobKind {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Exec => "exec",
            Self::Step => "step",
        }
    }
}

/// The states of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// A person has to say yes first.
    AwaitingApproval,
    /// Waits for a node.
    Queued,
    /// A node has it and builds the sandbox.
    Leased,
    /// The command runs.
    Running,
    /// The command is being stopped.
    Stopping,
    /// It has an outcome and will not change again.
    Finished,
}

impl StateName {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

/// The ways in which a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// Exit code 0.
    Succeeded,
    /// Another exit code; 128+N for a signal, 126 and 127 for a command that cannot be run.
    Failed,
    /// Killed at its time limit.
    TimedOut,
    /// Somebody asked it to stop.
    Canceled,
    /// Its node was lost and it was not safe to run it again.
    Lost,
    /// It was not run because something that was asked for cannot be had.
    Refused,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// The way.
    pub kind: OutcomeKind,
    /// What a process that stands for the job should exit with: the command's own code, 124 timed
    /// out, 125 ours, 137 canceled.
    pub exit_code: i32,
    /// The reason, for `lost` and `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One job as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// The id, `job_...`.
    pub id: String,
    /// Where it is in its life.
    pub state: StateName,
    /// How it ended; absent until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What was asked, without the values of environment variables.
    pub spec: SpecView,
    /// Which try this is, from 1; 0 before the first.
    pub attempt: u32,
    /// Counts the changes of this record.
    pub version: u64,
    /// Who asked.
    pub principal: String,
    /// The node that has or had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The driver that isolated it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Somebody asked it to stop.
    pub cancel_requested: bool,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was last put in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at_ms: Option<u64>,
    /// When a node took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased_at_ms: Option<u64>,
    /// When its command was let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When its outcome was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// How long each part took.
    pub timings_ms: TimingsMs,
    /// What it used; absent until it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What was in force around it, and how.
    pub enforcement: Vec<Enforced>,
    /// What became of its standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StreamReport>,
    /// What became of its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamReport>,
    /// Connections to the outside that its rules denied, as far as its node has told.
    #[serde(default)]
    pub egress_denied: u64,
    /// More about its end, for a person: "out of memory", "program `foo` was not found".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why no node has it yet, where that is known: only of a job that waits, and only of one job that was asked
    /// for by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// What it waits for where a person has to say yes, or the yes that it goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalOfJob>,
    /// The files that were kept.
    pub artifacts: Vec<ArtifactView>,
}

impl JobView {
    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state == StateName::Finished
    }
}

/// What was asked, as it is shown. Values of environment variables are left out: people put
/// secrets there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpecView {
    /// The recipe for the sandbox.
    pub profile: String,
    /// What is kept of the profile, where it is one of somebody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<ProfileUse>,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The names of the variables that were set.
    pub env_names: Vec<String>,
    /// The directory it starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The root that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// How long it may run.
    pub timeout_ms: u64,
    /// The limits that were named.
    pub limits: LimitsAsked,
    /// The files that were placed.
    pub files: Vec<FileInput>,
    /// The paths that are kept.
    pub outputs: Vec<String>,
    /// Its standard streams are attached to.
    pub attach: bool,
    /// How often it may be started.
    pub max_attempts: u32,
    /// How long it may wait for a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// The one node that may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What its node must have or should have.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// The secrets that it uses; never their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential is taken out of its output, too: `[secret pattern:NAME]` stands instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scrub_patterns: bool,
    /// What it may reach, where that is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// How long each part of a job's life took, in milliseconds; a part that has not ended is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimingsMs {
    /// From the queue to a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// From the node to the command's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision: Option<u64>,
    /// From the command's start to the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// From the request to the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// What a job used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Processor time of all its processes.
    pub cpu_ms: u64,
    /// Time on the wall, from start to end.
    pub wall_ms: u64,
    /// The most memory at one time, where the machine can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// The most processes at one time, where the machine can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_peak: Option<u64>,
    /// What it left written, where the machine can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// One clause that was in force around a job, or was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Enforced {
    /// What: `memory`, `pids`, `cpu`, `disk`, `network`, `seccomp`, ...
    pub clause: String,
    /// By what means: `cgroup_v1`, `tmpfs`, `landlock`, ...
    pub how: String,
    /// To which value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Somebody asked for it; otherwise it is a default.
    pub asked: bool,
    /// Whether it held.
    pub state: EnforcedState,
}

/// Whether a clause was in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnforcedState {
    /// It was in force.
    Held,
    /// This machine could not do it; only defaults may end here.
    NotHeld,
}

/// What became of one output stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamReport {
    /// What the command wrote.
    pub total_bytes: u64,
    /// What was kept of it.
    pub kept_bytes: u64,
    /// The middle was dropped because the cap was reached.
    pub truncated: bool,
    /// What was lost because the node or its link went away.
    #[serde(default)]
    pub lost_bytes: u64,
    /// Credentials that nobody named and that were taken out by their shape, where `scrub_patterns` asked for it. At
    /// least so many: what was found before an agent was killed is not counted.
    #[serde(default)]
    pub patterns_found: u64,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The jobs of kind `job`, without their artifacts.
    pub jobs: Vec<JobView>,
    /// What was run in sandboxes that live on, when that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub execs: Vec<ExecView>,
    /// Give this as `before` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Reads the text of `?wait=`; `None` when it is not a duration. Cuts to [`WAIT_MAX`].
#[must_use]
pub fn wait_from_text(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return None,
    };
    Some(Duration::from_millis(millis.unwrap_or(u64::MAX)).min(WAIT_MAX))
}

/// Writes a duration as the text of `?wait=`.
#[must_use]
pub fn wait_to_text(wait: Duration) -> String {
    format!("{}ms", wait.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_limit_is_refused() {
        let text = r#"{"argv":["true"],"limits":{"memory":1}}"#;
        let error = serde_json::from_str::<JobCreate>(text)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("unknown field `memory`"), "{error}");
    }

    #[test]
    fn only_argv_is_needed() {
        let job: JobCreate = serde_json::from_str(r#"{"argv":["true"]}"#).unwrap();
        assert_eq!(
            job,
            JobCreate {
                argv: vec!["true".into()],
                ..JobCreate::default()
            }
        );
    }

    #[test]
    fn wait_reads_units_and_is_cut_to_the_longest() {
        let cases = [
            ("30s", Some(30_000)),
            ("30", Some(30_000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("0", Some(0)),
            ("9999m", Some(300_000)),
            ("18446744073709551615", Some(300_000)),
            ("99999999999999999999", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("s", None),
            ("1h", None),
        ];
        for (text, millis) in cases {
            assert_eq!(
                wait_from_text(text),
                millis.map(Duration::from_millis),
                "{text:?}"
            );
        }
        assert_eq!(
            wait_from_text(&wait_to_text(Duration::from_millis(1_234))),
            Some(Duration::from_millis(1_234))
        );
    }
}
