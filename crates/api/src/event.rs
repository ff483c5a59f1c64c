//! What happened to a job, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What `GET /v1/jobs/{id}/events` and `GET /v1/sandboxes/{id}/events` take in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventListQuery {
    /// Only events after this version: the `next` of the page before.
    #[serde(default)]
    pub after: Option<u64>,
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// One change of a job or a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// The version of the record that this change made.
    pub version: u64,
    /// What happened: `job.queued`, `job.leased`, `job.running`, `job.finished`, `sandbox.ready`, ...
    pub kind: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who caused it.
    pub principal: String,
    /// More about it; the fields depend on the kind.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// A page of what happened to a job or a sandbox, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The events.
    pub events: Vec<EventView>,
    /// Give this as `after` to read on; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
