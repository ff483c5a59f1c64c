//! Profiles on the wire: what one says, and how it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::job::LimitsAsked;
use crate::network::Network;
use crate::place::Placement;

/// What a profile says for the sandboxes and jobs that are asked for with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileSpec {
    /// What its sandboxes begin with; the programs of the node when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ProfileBase>,
    /// Limits where the request names none.
    #[serde(default)]
    pub limits: LimitsAsked,
    /// How long a sandbox lives, or a job runs, where the request does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The longest: what is longer is cut, and the answer says so. At most 24 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_max_ms: Option<u64>,
    /// Variables; those of the request go over them. They are shown to whoever may see the profile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where commands start that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// As whom they run, in a sandbox that lives on; `user` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Commands and files may be asked for as the sandbox's own root.
    #[serde(default)]
    pub allow_root: bool,
    /// What a shell starts with each sandbox that lives on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// What succeeds when the sandbox is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// What may be reached where the request does not say, and the most that it may ask for. When absent, only the
    /// request counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What the node must have or should have. A request may add to it, and not take away from what must be.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Secrets that may be used, and how; none when the list is empty. When absent: all, as files and headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretRule>>,
}

/// What sandboxes of a profile begin with: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileBase {
    /// A root file system that the operator has given to nodes, by its name, or a directory of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// A snapshot, by its id or its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// A profile that builds have made, by its id or its name, perhaps with a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// Secrets that a profile lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRule {
    /// Which; `*` for all.
    pub name: String,
    /// In which ways.
    #[serde(rename = "as")]
    pub ways: Vec<SecretWay>,
    /// As a header: to which hosts, written as entries of a network; to all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// How a secret may get into a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretWay {
    /// As a file.
    File,
    /// As a variable, which every child inherits.
    Env,
    /// As a header of what goes out, and never inside.
    Header,
}

/// Who says what a profile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileKind {
    /// Somebody has written it, version by version.
    Written,
    /// Builds make it, as E2B's clients ask for templates.
    Built,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileView {
    /// Its name for programs.
    pub id: String,
    /// Its name for people; one that builds make may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who says what it is.
    pub kind: ProfileKind,
    /// The newest version, or the one that was asked for; 0 for one that builds make.
    pub version: u64,
    /// What that version says; not in a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<ProfileSpec>,
    /// Tags of its builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How many builds of it are kept.
    pub builds: u64,
    /// Who made it.
    pub principal: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was changed last.
    pub updated_at_ms: u64,
}

/// A page of profiles, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileList {
    /// The profiles.
    pub profiles: Vec<ProfileView>,
    /// The `before` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Those that are there from the start, and cannot be changed.
    pub built_in: Vec<String>,
}

/// Which page of profiles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProfileListQuery {
    /// At most so many, 1 to 500; 100 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub before: Option<String>,
}

/// A version of a profile. `GET` of `NAME:VERSION` answers what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileVersion {
    /// Which, from 1.
    pub version: u64,
    /// Who wrote it.
    pub principal: String,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A page of versions, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileVersionList {
    /// The versions that are kept, the newest 100 of a profile.
    pub versions: Vec<ProfileVersion>,
    /// The `before` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Which page of versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProfileVersionQuery {
    /// At most so many, 1 to 500; 100 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Only those before this version.
    #[serde(default)]
    pub before: Option<u64>,
}

/// What a sandbox or a job keeps of its profile. A later version of that changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileUse {
    /// The profile.
    pub id: String,
    /// What it was called then.
    pub name: String,
    /// The version; 0 for one that builds make.
    pub version: u64,
    /// The build, of one that builds make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The longest time that it allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_max_ms: Option<u64>,
    /// The time that was asked for, where it was cut to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_asked_ms: Option<u64>,
    /// The most that may be reached, also later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}
