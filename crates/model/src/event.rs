//! What happened: one event for each change of state, written in the transaction of the change.

use serde::{Deserialize, Serialize};

/// An event, as it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Ascending in the order of writing.
    pub position: u64,
    /// What it is about, such as `job`.
    pub resource: String,
    /// Which.
    pub resource_id: String,
    /// The version of the resource after the change, from 1.
    pub version: u64,
    /// Such as `job.leased`.
    pub kind: String,
    /// More, as a JSON object.
    pub data: String,
    /// Who did it.
    pub principal: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}
