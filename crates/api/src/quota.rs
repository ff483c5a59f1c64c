//! How much a tenant, or one principal of it, may have at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Says what somebody may have. What is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaPut {
    /// The most of each, or `null` for no bound: `jobs` that nodes have, `jobs_waiting` in the queue, `sandboxes` that
    /// are not over, `cpu_millis`, `memory_bytes` and `disk_bytes` of both together, `artifact_bytes` of files kept of
    /// jobs.
    pub limits: BTreeMap<String, Option<u64>>,
}

/// One limit, and what there is by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaLimit {
    /// The most that may be.
    pub most: u64,
    /// What there is now, counted for this answer.
    pub used: u64,
}

/// A quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaView {
    /// The id of the tenant.
    pub tenant: String,
    /// What people call the tenant.
    pub tenant_name: String,
    /// The principal of it, such as `user:alice`; absent where it is that of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// By the names of the limits.
    pub limits: BTreeMap<String, QuotaLimit>,
    /// Who said so last.
    pub made_by: String,
    /// When, in milliseconds since 1970.
    pub updated_at_ms: u64,
}

/// A page of quotas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaList {
    /// By tenant; its own, and then those of its principals.
    pub quotas: Vec<QuotaView>,
    /// The `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
