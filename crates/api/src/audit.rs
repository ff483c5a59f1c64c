//! The record of what happened, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What `GET /v1/audit` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditListQuery {
    /// Only events behind this place: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Only what this principal did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Only what happened to things of this kind: `job`, `sandbox`, `secret`, `node`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Only what happened to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// Only this, such as `job.finished`; all that begins with it where it ends with a dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Not before this time, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Before this time, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its place in the record: those that were committed later have higher ones.
    pub place: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who did it.
    pub principal: String,
    /// What happened, such as `job.finished`.
    pub kind: String,
    /// To what kind of thing.
    pub resource: String,
    /// To which.
    pub resource_id: String,
    /// The version of it that this change made.
    pub version: u64,
    /// More about it; the fields depend on the kind.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// A page of the record, the oldest first. It may be empty although there is more: so many events are looked at
/// for one page and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The events. All of them are sealed.
    pub events: Vec<AuditView>,
    /// Give this as `after` to read on, now or later.
    pub next: String,
    /// There is more already.
    pub more: bool,
}

/// What `GET /v1/audit/check` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditCheckQuery {
    /// Only seals with numbers above this: the `last` of the page before.
    #[serde(default)]
    pub after: u64,
}

/// Something that is wrong with the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditFlaw {
    /// At the seal with this number.
    pub seal: u64,
    /// `gap`, `order`, `count`, `changed`, `head`, `cut` or `signature`.
    pub code: String,
    /// What that means.
    pub message: String,
}

/// The last seal at some time, signed outside the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// The number of the seal.
    pub number: u64,
    /// Its digest, SHA-256.
    pub digest: String,
    /// When it was signed, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What came of checking some seals against their events, each other, and what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditChecked {
    /// How many seals.
    pub seals: u64,
    /// How many events under them.
    pub events: u64,
    /// The number of the last one.
    pub last: u64,
    /// Its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The events up to the end of this seal were kept long enough and are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<u64>,
    /// What was signed last, if this server signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<AuditHead>,
    /// What is wrong; nothing, where all is well.
    pub flaws: Vec<AuditFlaw>,
    /// There are more seals.
    pub more: bool,
}
