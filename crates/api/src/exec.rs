//! What was run in sandboxes that live on: facts, as a guest tells them to its node and the node to the
//! server, and the records that are made of them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Facts of one report at most.
pub const FACTS_MAX: usize = 256;
/// The largest answer of a guest with facts: it sends 128 KiB and one fact more, which is below 40 KiB
/// even where JSON escapes every byte of it.
pub const FACTS_BYTES_MAX: usize = 512 * 1024;

/// A fact about a process that was asked for. Facts of a sandbox are numbered upwards from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExecFact {
    /// It was asked for.
    Started {
        /// The number of this fact, by which the process is known.
        seq: u64,
        /// When, by the clock of its machine.
        at_ms: u64,
        /// Its number inside, if it came to run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// What and by whom.
        asked: ExecAsked,
    },
    /// It has ended.
    Ended {
        /// The number of this fact.
        seq: u64,
        /// When, by the clock of its machine.
        at_ms: u64,
        /// The number of the fact that it was asked for.
        of: u64,
        /// How.
        end: ExecEnd,
        /// What it wrote to standard output, or its terminal.
        stdout_bytes: u64,
        /// What it wrote to standard error.
        stderr_bytes: u64,
        /// Credentials that nobody named and that were taken out of what it wrote, by their shape.
        #[serde(default, skip_serializing_if = "is_none")]
        patterns_found: u64,
    },
    /// There was no room for so many facts at this place.
    Missed {
        /// The number of this fact.
        seq: u64,
        /// When room came again.
        at_ms: u64,
        /// How many there were.
        count: u64,
    },
}

impl ExecFact {
    /// Its number.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        match self {
            Self::Started { seq, .. } | Self::Ended { seq, .. } | Self::Missed { seq, .. } => *seq,
        }
    }
}

/// What was asked for, and by whom. The guest says it, and nobody outside can make it say otherwise;
/// a workload that has taken the guest over could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecAsked {
    /// The program and its arguments, the first 8 KiB.
    pub argv: Vec<String>,
    /// Something of `argv` or `env_names` was left out.
    #[serde(default)]
    pub cut: bool,
    /// Where it started.
    pub cwd: String,
    /// As whom, inside.
    pub user: String,
    /// The names of the variables that were set for it. Their values are not kept.
    #[serde(default)]
    pub env_names: Vec<String>,
    /// The name that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// How much that looked like a credential was taken out of all this.
    #[serde(default, skip_serializing_if = "is_none")]
    pub patterns_found: u64,
    /// It had a terminal.
    #[serde(default)]
    pub pty: bool,
    /// The context in which it was a step; `argv` is its code then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ExecContext>,
    /// Who asked, as the door knew them.
    #[serde(default)]
    pub principal: String,
    /// The request with which they did.
    #[serde(default)]
    pub request_id: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

/// An interpreter that remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecContext {
    /// Its id in the sandbox.
    pub id: String,
    /// What it understands: `python`, `javascript`, `typescript` or `bash`.
    pub language: String,
}

/// How a process or a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum ExecEnd {
    /// By itself.
    Exited {
        /// Its code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// Which.
        signal: i32,
    },
    /// Its time was over, and it was killed.
    TimedOut,
    /// The code of a step failed.
    Raised {
        /// With what, such as `ValueError`.
        name: String,
    },
    /// It never ran.
    NotStarted {
        /// Why.
        why: String,
    },
    /// Nobody knows.
    Unknown,
    /// Its sandbox ended before it, or before its end was told.
    Lost,
}

/// Facts about processes of a sandbox, from its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeExecs {
    /// At most 256, upwards. The same again is stored once.
    pub facts: Vec<ExecFact>,
}

/// What `GET /v1/sandboxes/{id}/jobs` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExecListQuery {
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub before: Option<u64>,
}

/// A page of what was run in a sandbox, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecList {
    /// The records.
    pub jobs: Vec<ExecView>,
    /// Give this as `before` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One command that was run in a sandbox that lives on, or a gap in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecView {
    /// What it is.
    pub kind: ExecKind,
    /// The sandbox.
    pub sandbox_id: String,
    /// Its number there.
    pub seq: u64,
    /// When it was asked for, by the clock of its machine.
    pub started_at_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Its number inside, if it came to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// What was asked for, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<ExecAsked>,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ExecEnd>,
    /// What it wrote to standard output, or its terminal. Of what it wrote, only this is kept.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// What it wrote to standard error.
    #[serde(default)]
    pub stderr_bytes: u64,
    /// Credentials that nobody named and that were taken out of what it wrote, by their shape, where the sandbox was
    /// made with `scrub_patterns`.
    #[serde(default, skip_serializing_if = "is_none")]
    pub patterns_found: u64,
    /// How many facts are missing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecKind {
    /// A command.
    Exec,
    /// Code in a context.
    Step,
    /// A gap: more was run than could be kept at the time.
    Missed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_a_guest_writes_them() {
        let text = r#"{"seq":1,"at_ms":5,"kind":"started","pid":7,"asked":{"argv":["true"],"cut":false,
            "cwd":"/tmp","user":"user","env_names":["A"],"pty":false,"principal":"uid:1","request_id":"r"}}"#;
        let fact: ExecFact = serde_json::from_str(text).unwrap();
        assert!(
            matches!(&fact, ExecFact::Started { pid: Some(7), asked, .. } if asked.user == "user")
        );
        let text = r#"{"seq":2,"at_ms":6,"kind":"ended","of":1,"end":{"how":"exited","code":3},
            "stdout_bytes":1,"stderr_bytes":2}"#;
        let fact: ExecFact = serde_json::from_str(text).unwrap();
        assert_eq!(fact.seq(), 2);
        let end = ExecEnd::Exited { code: 3 };
        assert!(matches!(fact, ExecFact::Ended { of: 1, end: found, .. } if found == end));
    }
}
