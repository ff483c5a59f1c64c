//! Approvals: what waits for a person, and what they say.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Where an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has decided.
    Pending,
    /// A person said yes.
    Approved,
    /// A person said no.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// What it is about is over, or is not what was asked any more.
    Canceled,
}

impl ApprovalState {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Canceled => "canceled",
        }
    }
}

/// What an approval is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalSubject {
    /// A job, which waits for it and begins after a yes.
    Job,
    /// A sandbox: after a yes the same request passes once, within 24 hours.
    Sandbox,
    /// Other rules for the network of a sandbox: as for a sandbox.
    Network,
    /// One more host for a sandbox; a yes opens it.
    Egress,
    /// A policy that is to be written or deleted; a yes does that.
    Policy,
}

impl ApprovalSubject {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Sandbox => "sandbox",
            Self::Network => "network",
            Self::Egress => "egress",
            Self::Policy => "policy",
        }
    }
}

/// What a yes is good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalScope {
    /// This one thing.
    #[default]
    Once,
    /// Whatever the same principal asks for the same reasons, for `for_ms`.
    Session,
    /// This one thing; and a proposal to change the policies that want it, which waits for somebody who may write them.
    Rule,
}

impl ApprovalScope {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Session => "session",
            Self::Rule => "rule",
        }
    }
}

/// What a person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalVerdict {
    /// Yes.
    Approve,
    /// Yes, without having judged it; `comment` says why.
    Waive,
    /// No.
    Reject,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalDecide {
    /// Yes or no.
    pub verdict: ApprovalVerdict,
    /// Why, at most 2,048 bytes; it is in the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// What a yes is good for.
    #[serde(default)]
    pub scope: ApprovalScope,
    /// How long one for a session counts, in milliseconds: at most 24 hours, one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// A host that a sandbox is to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressAsked {
    /// The sandbox, `sbx_...`.
    pub sandbox: String,
    /// `HOST:PORT`, one name and no pattern; the port is 443 when absent.
    pub to: String,
}

/// Something that a person is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalCreate {
    /// A host that a sandbox is to reach.
    pub egress: EgressAsked,
    /// Why, at most 2,048 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Which approvals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ApprovalListQuery {
    /// Only those in this state.
    #[serde(default)]
    #[param(inline)]
    pub state: Option<ApprovalState>,
    /// At most so many, 1 to 100; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub before: Option<String>,
}

/// An approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// The id, `apv_...`.
    pub id: String,
    /// Where it is.
    pub state: ApprovalState,
    /// What it is about.
    pub subject: ApprovalSubject,
    /// The job, the sandbox or the policy, where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject_id: String,
    /// Who asked.
    pub principal: String,
    /// What is asked, in one line; words of whoever asked.
    pub summary: String,
    /// What is asked, without values of variables and secrets; only of one approval that was asked for by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub request: Option<serde_json::Value>,
    /// Why a person has to say yes: the words to which a yes is.
    pub reasons: Vec<String>,
    /// Why it is asked for, in the words of whoever asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The key that was shown with the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For whom whoever asked acts; they may not decide it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts_for: Vec<String>,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Until when it can be decided.
    pub expires_at_ms: u64,
    /// When it was decided, or over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at_ms: Option<u64>,
    /// Who decided it, or ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// What they said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It was let through without being judged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waived: bool,
    /// What the yes is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ApprovalScope>,
    /// Until when it counts for what is still to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// When a yes for one request was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at_ms: Option<u64>,
    /// When it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<u64>,
}

/// A page of approvals, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalList {
    /// The approvals, without their requests.
    pub approvals: Vec<ApprovalView>,
    /// Give this as `before` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a job had to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalOfJob {
    /// The approval, `apv_...`: what it waits for, or the yes that it goes by.
    pub id: String,
    /// Why a person has to say yes.
    pub reasons: Vec<String>,
    /// Who said yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// When, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at_ms: Option<u64>,
    /// What they said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}
