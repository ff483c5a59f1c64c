//! Policies on the wire: what one says, and what becomes of a request by all that apply.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::approval::ApprovalOfJob;
use crate::job::{JobCreate, LimitsAsked};
use crate::network::{Network, NetworkMode};
use crate::profile::SecretRule;
use crate::sandbox::SandboxCreate;

/// For whom a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyLayer {
    /// Everybody; only the operator's tenant writes these.
    Global,
    /// Everybody of the tenant.
    Tenant,
    /// One principal of it.
    Principal,
    /// Every sandbox that has a volume of that name.
    Volume,
}

/// What a policy says. What it does not say it leaves open; layers only narrow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// The form of this document; there is 1.
    pub version: u32,
    /// For whom it is.
    pub layer: PolicyLayer,
    /// The principal with its kind, such as `user:alice`, or the name of the volume, for these layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Where it is named among those of its layer, 0 to 1000. It changes nothing that is decided.
    #[serde(default)]
    pub priority: u16,
    /// What may be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<PolicyNetwork>,
    /// Which files may go in and out with a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PolicyFiles>,
    /// Which commands. A guard rail and no wall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<PolicyCommands>,
    /// Packages that may be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<PolicyDependencies>,
    /// The most of each.
    #[serde(default)]
    pub resources: PolicyResources,
    /// Values that the label `driver` of a node may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drivers: Option<BTreeSet<String>>,
    /// Which profiles and roots.
    #[serde(default)]
    pub profiles: PolicyProfiles,
    /// Secrets that may be used, and how; none when the list is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretRule>>,
    /// What a person has to say yes to, or nobody may.
    #[serde(default)]
    pub approvals: PolicyApprovals,
    /// A module in Rego, of the package `policy`, whose `allow` must be true too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rego: Option<String>,
}

/// What may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyNetwork {
    /// The most; `allowlist` when absent and there is a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkMode>,
    /// Nothing but these: names, `*.DOMAIN` or `*`, perhaps with a port. At most 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Never these, addresses among them. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// Packages that may be installed, as `NAME==VERSION`, at most 2,000 of each manager: what they depend on is to be
/// listed, too. A sandbox that has a way out finds them in an index of its own, and who else serves packages of that
/// manager is closed. A manager without a list is held to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyDependencies {
    /// Python packages, compared by their names and versions in normal form (PEP 503, PEP 440).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip: Option<BTreeSet<String>>,
    /// JavaScript packages, `@SCOPE/NAME==VERSION` among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npm: Option<BTreeSet<String>>,
    /// A network that lets out more than names of a list may be had all the same. Who is known to serve packages is
    /// closed there, and who is not known is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_known_indexes: bool,
}

/// Which files may go in and out with a request: absolute paths, and all below them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFiles {
    /// Where files may be put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<BTreeSet<String>>,
    /// Which may be taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<BTreeSet<String>>,
    /// Sandboxes that live on, where nobody looks at paths, may be had all the same.
    #[serde(default)]
    pub unchecked_in_sandboxes: bool,
}

/// Which commands: patterns of words that a command begins with, in which `*` stands for anything in one word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyCommands {
    /// Never these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbid: Vec<String>,
    /// These only after a person has said yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approve: Vec<String>,
    /// Nothing but these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Commands of a shell may not be joined, substituted or redirected.
    #[serde(default)]
    pub no_operators: bool,
    /// Sandboxes that live on, where nobody reads commands, may be had all the same.
    #[serde(default)]
    pub unchecked_in_sandboxes: bool,
}

/// The most of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyResources {
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes of storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// How long a command may run, or a sandbox live without being extended: what is longer is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Connections to the outside at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// New ones in any minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u64>,
    /// Bytes both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_bytes: Option<u64>,
}

/// Which profiles and roots; a name may end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyProfiles {
    /// Profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<BTreeSet<String>>,
    /// Root file systems. The programs of the node are there in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<BTreeSet<String>>,
    /// Whether sandboxes may have a root of their own. E2B's clients always ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_root: Option<bool>,
}

/// What is said to a matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyAnswer {
    /// Nobody is asked.
    Skip,
    /// A person has to say yes.
    NeedsApproval,
    /// Never.
    Forbidden,
}

/// What a person has to say yes to, or nobody may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyApprovals {
    /// Everything public is to be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_unrestricted: Option<PolicyAnswer>,
    /// A sandbox is to have a root of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_root: Option<PolicyAnswer>,
    /// A secret is to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PolicyAnswer>,
    /// A policy is to be written or deleted: never `forbidden`, which nobody could take back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_change: Option<PolicyAnswer>,
    /// How long something waits for a person, in milliseconds: at most a day, which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Its name for programs.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The newest version, or the one that was asked for.
    pub version: u64,
    /// What that says.
    pub spec: PolicySpec,
    /// Who wrote it.
    pub principal: String,
    /// When the policy was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When this version was written.
    pub updated_at_ms: u64,
}

/// All policies of a tenant, by their names: at most 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyList {
    /// The policies.
    pub policies: Vec<PolicyView>,
}

/// A version of a policy. `GET` of `NAME:VERSION` answers what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersion {
    /// Which, from 1.
    pub version: u64,
    /// Who wrote it.
    pub principal: String,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// The versions of a policy that are kept, the newest 100, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersionList {
    /// The versions.
    pub versions: Vec<PolicyVersion>,
}

/// A request that is decided and not carried out: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// Whose request it is; that of whoever asks when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// A job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobCreate>,
    /// A sandbox that lives on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxCreate>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyVerdict {
    /// It may be.
    Allowed,
    /// It may not.
    Refused,
    /// A person has to say yes.
    NeedsApproval,
}

/// Why a request is not let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRefusal {
    /// The code that the request would get.
    pub code: String,
    /// Which clause, as it is in a document, or which part of the request.
    pub clause: String,
    /// Why.
    pub message: String,
    /// The layers that have the clause, as `LAYER/PRIORITY/NAME@VERSION`.
    pub by: Vec<String>,
}

/// A part of what follows from all policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyTrace {
    /// Which clause.
    pub clause: String,
    /// What holds.
    pub value: String,
    /// The layers that say so.
    pub by: Vec<String>,
}

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyTested {
    /// What.
    pub verdict: PolicyVerdict,
    /// Why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<PolicyRefusal>,
    /// What it could reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The limits that would be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsAsked>,
    /// How long it could run or live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The policies that apply.
    pub layers: Vec<String>,
    /// Who decided what.
    pub trace: Vec<PolicyTrace>,
}

/// What a job or a sandbox keeps of the policies that it was decided by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PermitView {
    /// The policies that applied; none where there was no policy.
    pub layers: Vec<String>,
    /// Who decided what.
    pub trace: Vec<PolicyTrace>,
    /// The yes that it goes by, where it needed one and has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalOfJob>,
}
