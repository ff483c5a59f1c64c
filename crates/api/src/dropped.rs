//! Reports that a node has given up, told with its heartbeat.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Reports that were given up and are told with one heartbeat; the rest is told with the next.
pub const DROPPED_MAX: usize = 32;

/// A report that a node has given up: the server refused it for good, or failed over it too often. Told again
/// until it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDropped {
    /// Made by the node, 32 hexadecimal digits.
    pub id: String,
    /// What it was.
    pub what: DroppedWhat,
    /// The job or the sandbox; empty where it was about several.
    pub about: String,
    /// What it was refused with.
    pub code: String,
    /// Others that the node had no room to tell of.
    #[serde(default)]
    pub more: u64,
}

/// What a report that was given up had told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DroppedWhat {
    /// The start of a job.
    Started,
    /// Output of a job.
    Output,
    /// The end of a job.
    Finished,
    /// A job that was given back.
    Release,
    /// What has become of a sandbox.
    Sandbox,
    /// Rules of a network.
    Network,
    /// What was run in a sandbox.
    Execs,
    /// What was asked of the outside.
    Egress,
}

impl DroppedWhat {
    /// As it is on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Output => "output",
            Self::Finished => "finished",
            Self::Release => "release",
            Self::Sandbox => "sandbox",
            Self::Network => "network",
            Self::Execs => "execs",
            Self::Egress => "egress",
        }
    }
}
