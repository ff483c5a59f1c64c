//! Sandboxes that live on, on the wire: how one is asked for, and how it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::job::{Enforced, LimitsAsked};
use crate::network::Network;
use crate::place::Placement;
use crate::profile::ProfileUse;
use crate::secret::SecretUse;
use crate::volume::VolumeUse;

/// A sandbox that is to live on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and has its own name in the API"
)]
pub struct SandboxCreate {
    /// The recipe: `NAME`, `NAME:VERSION`, or `NAME:TAG` of a built one; the built-in default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// A name for people, at most 128 bytes; several may have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels to find it by: at most 64, and 16 KiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Variables of every command in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The snapshot to begin with, by its id or its name. Root, node and, where nothing else is said here,
    /// variables, limits and `allow_root` are then those of its sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The root: the name of one that the operator has given to the node, such as `ubuntu:22.04`, or the
    /// path of a directory on the node. The host's `/usr` and friends when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// What everything in it together may use. A limit that is named is enforced, or the sandbox fails.
    #[serde(default)]
    pub limits: LimitsAsked,
    /// It may reach everything public: short for `network` with mode `unrestricted`.
    #[serde(default)]
    pub allow_internet: bool,
    /// What it may reach; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Commands and files may be asked for as its own root, who is nobody outside.
    #[serde(default)]
    pub allow_root: bool,
    /// How long it lives, counted from when it is ready; 900,000 when absent. Cut to 24 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What happens when its time is over.
    #[serde(default)]
    pub on_expiry: OnExpiry,
    /// Whoever wants to reach it while it is paused brings it back.
    #[serde(default)]
    pub auto_resume: bool,
    /// How long it may wait for a node; 300,000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// The one node that may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What its node must have or should have.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Secrets that it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential, such as a token of GitHub or a private key, is taken out of what its commands,
    /// terminals and contexts write, at every door.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scrub_patterns: bool,
    /// Volumes in its files, at most eight; only with `allow_root`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeUse>,
}

/// What happens to a sandbox when its time is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// It is taken away.
    #[default]
    Kill,
    /// It is paused.
    Pause,
    /// It is paused, and what runs in it ends: only its files are kept.
    PauseWithoutMemory,
}

/// What a pause keeps of a sandbox beside its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxPause {
    /// What runs in it goes on when it comes back; true when absent. With false it ends, and what it
    /// held of the memory is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// How a paused sandbox comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxResume {
    /// What ran in it goes on, where the pause has kept it; true when absent. With false it begins with
    /// its files alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// A new time to live, counted from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxTimeout {
    /// How long it lives from now on; 0 ends it. Cut to 24 h.
    pub timeout_ms: u64,
}

/// Somebody comes to use a sandbox: it is resumed if it is paused, and lives at least so long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxConnect {
    /// How long it lives from now on, if that is longer than it would; cut to 24 h. When absent,
    /// only one that is paused gets time: as much as it had at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// If it is paused: what ran in it goes on, where the pause has kept it; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// The states of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxStateName {
    /// Waits for a node.
    Requested,
    /// A node makes it.
    Provisioning,
    /// It can be used.
    Ready,
    /// It is being paused.
    Pausing,
    /// It is kept, and nothing in it runs.
    Paused,
    /// It is being brought back.
    Resuming,
    /// It is being copied.
    Snapshotting,
    /// Its place is being taken away, and it gets another one.
    Recreating,
    /// It is being taken away.
    Destroying,
    /// Nothing of it is left but this record.
    Destroyed,
    /// It never stood, or fell; `reason` says why.
    Failed,
}

impl SandboxStateName {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Requested,
        Self::Provisioning,
        Self::Ready,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
        Self::Snapshotting,
        Self::Recreating,
        Self::Destroying,
        Self::Destroyed,
        Self::Failed,
    ];

    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Provisioning => "provisioning",
            Self::Ready => "ready",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Snapshotting => "snapshotting",
            Self::Recreating => "recreating",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
            Self::Failed => "failed",
        }
    }

    /// Reads the name; `None` for another text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// One sandbox as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxView {
    /// The id, `sbx_...`.
    pub id: String,
    /// Where it is in its life.
    pub state: SandboxStateName,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its labels.
    pub metadata: BTreeMap<String, String>,
    /// What was asked, without the values of environment variables.
    pub spec: SandboxSpecView,
    /// How long it lives, counted from when it is ready or was extended.
    pub timeout_ms: u64,
    /// Counts the changes of this record.
    pub version: u64,
    /// Counts its places, from 1: each time it was made anew, it got another one.
    #[serde(default)]
    pub incarnation: u64,
    /// Who asked.
    pub principal: String,
    /// The node that has or had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The driver that isolates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When a node got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_at_ms: Option<u64>,
    /// When it was ready last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at_ms: Option<u64>,
    /// When it was paused last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at_ms: Option<u64>,
    /// What ran in it is kept by its pause; only while it is pausing, paused or resuming.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_kept: Option<bool>,
    /// When it was destroyed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// When its time is over; only while it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// What is in force around it, and how.
    pub enforcement: Vec<Enforced>,
    /// What it may reach, as it was said last.
    pub network: Network,
    /// Its node has not put `network` in force yet; what was said before holds until then.
    #[serde(default)]
    pub network_pending: bool,
    /// Why its node has given up the rules that were asked for last; `network` says which are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_refused: Option<String>,
    /// Connections to the outside that its rules denied, as far as its node has told.
    #[serde(default)]
    pub egress_denied: u64,
    /// Why it ended, or is to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Opens the door of its guest. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
}

/// What was asked, as it is shown. Values of environment variables are left out: people put
/// secrets there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and has its own name in the API"
)]
pub struct SandboxSpecView {
    /// The recipe.
    pub profile: String,
    /// What is kept of the profile, where it is one of somebody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<ProfileUse>,
    /// The names of the variables that were set.
    pub env_names: Vec<String>,
    /// The root that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The snapshot that it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The limits that were named.
    pub limits: LimitsAsked,
    /// It was asked to reach something of the outside; `network` says what that is now.
    pub allow_internet: bool,
    /// Commands and files may be asked for as its own root.
    #[serde(default)]
    pub allow_root: bool,
    /// What happens when its time is over.
    pub on_expiry: OnExpiry,
    /// Whoever wants to reach it while it is paused brings it back.
    pub auto_resume: bool,
    /// How long it may wait for a node.
    pub queue_timeout_ms: u64,
    /// The one node that may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What its node must have or should have.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// The secrets that it uses; never their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential is taken out of what its commands, terminals and contexts write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scrub_patterns: bool,
    /// The volumes in its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeUse>,
}

/// What `GET /v1/sandboxes` takes in the query, besides `metadata.KEY=VALUE`, at most four times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SandboxListQuery {
    /// Only sandboxes in one of these states, with commas between them.
    #[serde(default)]
    #[param(value_type = Option<String>, example = "ready,paused")]
    pub states: Vec<SandboxStateName>,
    /// Only sandboxes with all of these labels.
    #[param(ignore)]
    pub metadata: BTreeMap<String, String>,
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub before: Option<String>,
}

/// A page of sandboxes, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxList {
    /// The sandboxes, without their access tokens.
    pub sandboxes: Vec<SandboxView>,
    /// Give this as `before` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Whether and how a sandbox can be reached at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReachabilityView {
    /// Where it is in its life. Only one that is `ready` answers.
    pub state: SandboxStateName,
    /// Its first process.
    pub guest: GuestReach,
    /// Where somebody listens inside, the least port first; at most 256. Empty where the guest does not
    /// answer.
    pub ports: Vec<PortReach>,
    /// Where E2B's clients find its commands and files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envd_url: Option<String>,
    /// The way by headers; none where the server has no TCP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_header: Option<HeaderReach>,
    /// What stands before a port and a slash in the address by path, which needs the server's token; none
    /// where the server has no TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_path: Option<String>,
    /// Its ports need the header `e2b-traffic-access-token`.
    pub needs_traffic_token: bool,
}

/// Whether a guest answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestReach {
    /// It has answered within five seconds.
    pub answers: bool,
    /// After how many microseconds, by way of its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_us: Option<u64>,
}

/// A port inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortReach {
    /// The port.
    pub port: u16,
    /// Its address by name; none where the server has no TCP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// How a port is reached where its name cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeaderReach {
    /// The address of all of them.
    pub url: String,
    /// The header that says which sandbox is meant.
    pub sandbox_header: String,
    /// What it says for this one.
    pub sandbox_value: String,
    /// The header that says which port.
    pub port_header: String,
}

/// Which time somebody wants to know the usage of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// From when, in milliseconds since 1970; the last day when absent.
    pub from: Option<u64>,
    /// Until when; now when absent.
    pub to: Option<u64>,
}

/// What a sandbox uses and used, of the last day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Thousandths of a processor that it may use.
    pub cpu_millis_max: u32,
    /// Memory that it may use.
    pub memory_bytes_max: u64,
    /// Storage that it may fill.
    pub disk_bytes_max: u64,
    /// The oldest first, at most 500. A running sandbox is looked at about every ten seconds, and now, if
    /// now was asked for; of more moments, each point is of a part of the time.
    pub points: Vec<UsagePoint>,
}

/// What a sandbox used in the time up to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsagePoint {
    /// The moment, in milliseconds since 1970.
    pub at_ms: u64,
    /// Processor time since its start.
    pub cpu_us: u64,
    /// Thousandths of a processor since the point before; of the first nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Memory without the cache; the most that was seen.
    pub memory_bytes: u64,
    /// What the kernel keeps of files and would give back; the most that was seen.
    pub cache_bytes: u64,
    /// Storage that is filled; the most that was seen.
    pub disk_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_to_be_said() {
        let asked: SandboxCreate = serde_json::from_str("{}").unwrap();
        assert_eq!(asked, SandboxCreate::default());
        let error = serde_json::from_str::<SandboxCreate>(r#"{"ttl":1}"#);
        assert!(error.unwrap_err().to_string().starts_with("unknown field"));
    }

    #[test]
    fn states_come_back_from_their_names() {
        for state in SandboxStateName::ALL {
            assert_eq!(SandboxStateName::parse(state.as_str()), Some(state));
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{}\"", state.as_str()));
        }
        assert_eq!(SandboxStateName::parse("gone"), None);
    }
}
