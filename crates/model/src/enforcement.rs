//! What was in force around a job, and what the job used.

use serde::{Deserialize, Serialize};

/// One clause of a job's confinement, as it was really in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// What it is about, such as `memory` or `network`.
    pub clause: String,
    /// By what, such as `cgroup_v2`; for a clause that is not held, why not.
    pub how: String,
    /// The value, where there is one, such as `536870912 bytes`.
    pub value: Option<String>,
    /// Somebody asked for it: then it is held, or the job was refused.
    pub asked: bool,
    /// Whether it is held.
    pub state: Held,
}

/// Whether a clause is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// It is.
    Held,
    /// It is not, on this machine, and nobody had asked for it.
    NotHeld,
}

/// What a job used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Most memory at any time in bytes; unknown without control groups.
    pub memory_peak_bytes: Option<u64>,
    /// Most processes at any time.
    pub pids_peak: Option<u64>,
    /// Storage written in bytes.
    pub disk_bytes: Option<u64>,
    /// From start to end in milliseconds.
    pub wall_ms: u64,
}

/// What became of one output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamReport {
    /// Bytes that the command wrote.
    pub total_bytes: u64,
    /// Bytes of them that are kept.
    pub kept_bytes: u64,
    /// The middle was dropped because there was more than is kept.
    pub truncated: bool,
    /// Bytes that were lost because a node died.
    pub lost_bytes: u64,
    /// Credentials that nobody named and that were taken out by their shape. At least: what was found before an
    /// agent was killed is not counted.
    #[serde(default)]
    pub patterns_found: u64,
}
