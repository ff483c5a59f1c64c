//! The node protocol: a node dials in, says what it has, takes leases and reports.
//!
//! The node's id is never in a body; it comes from the credential of the connection, so that one
//! node cannot speak for another. Every report carries the epoch of its lease: the same report
//! again is a `duplicate`, a different one is 409 `conflict`, an old epoch is 409 `stale_epoch`. With each report
//! goes the token of the lease, in the header `cofferdam-lease`; with what is about many at once, and about what is over,
//! the node's incarnation. What comes without the right one is 403 `lease_token_wrong`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::dropped::NodeDropped;
use crate::encoding::{self, BadData, Encoding};
use crate::fleet::{NodeHost, NodeKind, NodeReserved};
use crate::job::{Enforced, FileInput, LimitsAsked, RetryAsked, StateName, StreamReport, Usage};
use crate::log::StreamName;
use crate::network::{Network, NetworkWork};
use crate::sandbox::SandboxStateName;
use crate::secret::SecretUse;
use crate::volume::VolumeWork;

/// The longest token of a lease: an epoch, a dot and 32 digits, and room for a server that has another way.
pub const LEASE_TOKEN_MAX_BYTES: usize = 128;
/// A node says that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRegister {
    /// Its name, for people.
    pub name: String,
    /// Made anew at each start of the agent, so that a restart is seen.
    pub incarnation: String,
    /// The version of its binary.
    pub version: String,
    /// What sort of machine it is; a server when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NodeKind>,
    /// How many jobs it runs at one time.
    pub slots: u32,
    /// The drivers that work on it.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// What it can enforce, for people: `cgroup` is `v1`, `landlock` is `7`, ...
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// What it calls itself for placement, at most 32. What its enrollment gave it counts before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The versions of this protocol that it speaks.
    #[serde(default)]
    pub protocol: NodeProtocol,
}

/// The server knows the node now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeRegistered {
    /// The id that the credential stands for.
    pub node_id: String,
    /// How long a lease holds without a heartbeat.
    pub lease_ms: u64,
    /// How often to send one.
    pub heartbeat_ms: u64,
    /// What the server believes that this node holds. A node kills what it has and is not here,
    /// and reports the end of what is here and it does not have.
    pub held: Vec<HeldLease>,
    /// The same of sandboxes that live on. What is to be done with them comes with the first poll.
    #[serde(default)]
    pub held_sandboxes: Vec<HeldSandbox>,
    /// What is to be shown about each of them, in the header `cofferdam-lease`, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lease_tokens: BTreeMap<String, String>,
    /// The newest version of this protocol that the server speaks.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
}

/// Of servers that did not say it.
fn first_protocol() -> u32 {
    1
}

/// A lease that the server believes a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldLease {
    /// The job.
    pub job_id: String,
    /// Which try.
    pub attempt: u32,
    /// The epoch of the lease.
    pub epoch: u64,
    /// Where the job is in its life.
    pub state: StateName,
    /// Somebody asked it to stop.
    pub cancel_requested: bool,
}

/// A job at one epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRef {
    /// The job.
    pub job_id: String,
    /// The epoch of the lease.
    pub epoch: u64,
}

/// A node renews its leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeHeartbeat {
    /// The incarnation it registered with.
    pub incarnation: String,
    /// What it has at the moment.
    #[serde(default)]
    pub running: Vec<JobRef>,
    /// The sandboxes that live on and that it has, each at the epoch of the last order that it knows.
    /// One that was ready or paused and is not named for a minute has failed.
    #[serde(default)]
    pub sandboxes: Vec<SandboxRef>,
    /// The snapshots of which it has bytes, half ones too; at most 4096.
    #[serde(default)]
    pub snapshots: Vec<String>,
    /// The volumes of which it has bytes, half ones too; at most 4096.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Its machine, as it is at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<NodeHost>,
    /// The versions of this protocol that it speaks.
    #[serde(default)]
    pub protocol: NodeProtocol,
    /// Reports that it has given up, at most 32; only to a server that speaks version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<NodeDropped>,
}

/// Versions of the node protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeProtocol {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl Default for NodeProtocol {
    /// The first version, in which nodes did not say this.
    fn default() -> Self {
        Self { min: 1, max: 1 }
    }
}

/// The leases are renewed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeHeartbeatAnswer {
    /// How long they hold from the moment at which the heartbeat was sent.
    pub lease_ms: u64,
    /// How often to send one from now on.
    pub heartbeat_ms: u64,
    /// Jobs to be stopped.
    pub cancel: Vec<JobRef>,
    /// Leases that are no longer this node's: kill, and report nothing.
    pub stale: Vec<JobRef>,
    /// Everything that is to be done with sandboxes, told before or not.
    #[serde(default)]
    pub sandboxes: Vec<SandboxWork>,
    /// How long each sandbox that stands may live on from the moment at which the heartbeat was sent.
    #[serde(default)]
    pub sandbox_lives: Vec<SandboxLife>,
    /// Sandboxes that are no longer this node's: take them away, and report nothing.
    #[serde(default)]
    pub stale_sandboxes: Vec<SandboxRef>,
    /// Snapshots whose bytes are to be removed, told before or not; then report `removed`.
    #[serde(default)]
    pub remove_snapshots: Vec<String>,
    /// Volumes whose bytes are to be removed; one that a later heartbeat does not name is gone.
    #[serde(default)]
    pub remove_volumes: Vec<String>,
    /// Rules of networks that are to be put in force.
    #[serde(default)]
    pub networks: Vec<NetworkWork>,
    /// The server's version is newer than the node's.
    #[serde(default)]
    pub upgrade_available: bool,
    /// The server's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_version: Option<String>,
    /// The oldest version of this protocol that the server speaks.
    #[serde(default)]
    pub min_compatible: u32,
    /// The newest.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// What is to be shown about each job and sandbox from now on, in the header `cofferdam-lease`, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lease_tokens: BTreeMap<String, String>,
    /// Of the reports that were given up, those that the server has taken note of, by their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

/// What sandboxes of a node used. May get lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeUsage {
    /// At most 1,000; what is said of a sandbox that this node has not is passed over.
    pub sandboxes: Vec<SandboxUsed>,
}

/// What one sandbox used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxUsed {
    /// The sandbox.
    pub sandbox_id: String,
    /// The oldest first; at most 32.
    pub samples: Vec<UsageSample>,
}

/// What a sandbox used at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageSample {
    /// How long ago when this was sent; what is older than five minutes is passed over.
    pub age_ms: u64,
    /// Processor time since its start.
    pub cpu_us: u64,
    /// Memory without the cache.
    pub memory_bytes: u64,
    /// What the kernel keeps of files and would give back.
    pub cache_bytes: u64,
    /// Storage that is filled.
    pub disk_bytes: u64,
}

/// A node asks for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePoll {
    /// The incarnation it registered with.
    pub incarnation: String,
    /// How many jobs it can take now.
    pub free_slots: u32,
    /// How many sandboxes that live on it can take now; 0 for a node that has none.
    #[serde(default)]
    pub free_sandboxes: u32,
    /// What the limits of what it has name, so that it gets nothing that does not fit beside that.
    #[serde(default)]
    pub reserved: NodeReserved,
    /// How long to wait for the first one; cut to one minute.
    pub wait_ms: u64,
}

/// What there is to do; empty when there was nothing in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePollAnswer {
    /// Jobs that are now this node's.
    pub leases: Vec<Lease>,
    /// Jobs to be stopped. A hint: heartbeats say it too.
    #[serde(default)]
    pub cancel: Vec<JobRef>,
    /// What is to be done with sandboxes. Each order is told once; heartbeats say it again.
    #[serde(default)]
    pub sandboxes: Vec<SandboxWork>,
    /// Snapshots whose bytes are to be removed. Each is told once; heartbeats say it again.
    #[serde(default)]
    pub remove_snapshots: Vec<String>,
    /// Rules of networks that are to be put in force.
    #[serde(default)]
    pub networks: Vec<NetworkWork>,
    /// What is to be shown about each job and sandbox here, in the header `cofferdam-lease`, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lease_tokens: BTreeMap<String, String>,
}

/// A sandbox at the epoch of one order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxRef {
    /// The sandbox.
    pub sandbox_id: String,
    /// The epoch of the last order.
    pub epoch: u64,
}

/// A sandbox that the server believes a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldSandbox {
    /// The sandbox.
    pub sandbox_id: String,
    /// The epoch of the last order.
    pub epoch: u64,
    /// Where it is in its life.
    pub state: SandboxStateName,
    /// How long it may live on.
    pub life_ms: u64,
}

/// How long a sandbox may live on. Its supervisor ends it then, also when the server cannot be reached;
/// the server itself ends it two minutes earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxLife {
    /// The sandbox.
    pub sandbox_id: String,
    /// The epoch of the last order.
    pub epoch: u64,
    /// From the moment at which the request was sent.
    pub life_ms: u64,
}

/// An order: what is to be done with a sandbox. The same order may be told several times, and is carried
/// out once. Unknown fields are refused as in a [`Lease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxWork {
    /// The sandbox, `sbx_...`.
    pub sandbox_id: String,
    /// Who owns it.
    pub tenant: String,
    /// Of this order, to be carried by every report until the next one.
    pub epoch: u64,
    /// What to do.
    pub want: SandboxWant,
    /// How long it may live, once the order is carried out, from the moment at which the request was sent.
    pub life_ms: u64,
    /// Opens the door of its guest.
    pub access_token: String,
    /// What it was asked to be.
    pub spec: SandboxWorkSpec,
    /// What to copy it to; only with `snapshot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyWork>,
    /// What runs in it is to end: by a pause before it is kept, by a resume before it is ready. It comes
    /// back with another boot id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reboot: bool,
    /// It gets another place afterwards: all that is known of this one is told before it is said to be gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// What a sandbox is copied to, and what it is afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyWork {
    /// The snapshot, `snp_...`.
    pub snapshot_id: String,
    /// It was paused before, and stays so.
    pub paused: bool,
}

/// What is to be done with a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxWant {
    /// Make it, then report `ready`.
    Make,
    /// Stop it in its tracks and keep it, then report `paused`.
    Pause,
    /// Bring it back, then report `ready`.
    Resume,
    /// Copy what was written in it, then report `saved` or `not_saved`; afterwards it is what it was.
    Snapshot,
    /// Take it away, then report `destroyed`; also one that is not here.
    Destroy,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a sandbox was asked to be, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxWorkSpec {
    /// The recipe.
    pub profile: String,
    /// Variables of every command, added to the clean environment.
    pub env: BTreeMap<String, String>,
    /// The root that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Which one it is to be: a node that has another by that name refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_identity: Option<String>,
    /// The limits that were named.
    pub limits: LimitsAsked,
    /// What it may reach.
    #[serde(default)]
    pub network: Network,
    /// Of these rules.
    #[serde(default)]
    pub network_epoch: u64,
    /// The last number that commands of its earlier places have: those of the next one go on from there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub exec_base: u64,
    /// Commands and files may be asked for as its own root.
    #[serde(default)]
    pub allow_root: bool,
    /// Secrets that it uses; their values are asked for when they are needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential is taken out of what is told of it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scrub_patterns: bool,
    /// The snapshots that it begins with, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// Volumes in its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeWork>,
    /// As whom commands run that do not say; `user` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where commands start that do not say; in the home of their user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// What is started with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartWork>,
}

/// What is started with a sandbox, before it is reported `ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartWork {
    /// What a shell reads; nothing is started when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Succeeds when it is ready; it is ready at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

/// What has become of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxReport {
    /// The epoch of the last order. After 409 `stale_epoch` this report counts no more; what does is in
    /// the next poll or heartbeat.
    pub epoch: u64,
    /// What has become of it.
    pub what: SandboxSaid,
    /// The host around the order, where it was to make the sandbox or to take it away. Absent from nodes of before
    /// version 3, and where the host cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostChange>,
}

/// What a host was before and after an order was carried out. It is the host's change: what else happened there
/// meanwhile is in it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    /// Before its node began.
    pub before: HostMoment,
    /// When it was done, before this was said.
    pub after: HostMoment,
}

/// A host at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostMoment {
    /// How many processes want a processor, as a mean over a minute, in thousandths.
    pub load_milli: u64,
    /// Bytes of memory that could be had.
    pub memory_available_bytes: u64,
    /// Sandboxes that live on, by its node's count: those that are being made or taken away are in it, but the one
    /// that this is about only where it stands.
    pub sandboxes: u32,
}

/// What a node says about a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SandboxSaid {
    /// The order is known and is being carried out. Need not be said.
    Provisioning,
    /// It stands, or stands again, and can be used.
    Ready {
        /// The driver that isolates it.
        driver: String,
        /// What is in force around it.
        enforcement: Vec<Enforced>,
    },
    /// It is kept, and nothing in it runs.
    Paused,
    /// It was copied, and is what it was before.
    Saved {
        /// Bytes of the copy.
        size_bytes: u64,
    },
    /// It could not be copied. Nothing is left of the try, and it is what it was before.
    NotSaved {
        /// Why.
        why: String,
    },
    /// Nothing is left of it, as was ordered.
    Destroyed,
    /// It could not be made, or has ended by itself. Nothing is left of it.
    Failed {
        /// How.
        why: String,
    },
}

/// A node's time-limited right to a job. Unknown fields are refused although this is an answer:
/// a clause that a node does not know must not be ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The job.
    pub job_id: String,
    /// Who owns it.
    pub tenant: String,
    /// Which try, from 1.
    pub attempt: u32,
    /// The epoch, to be carried by every report.
    pub epoch: u64,
    /// What to run.
    pub spec: LeaseSpec,
}

/// What a node is to run, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseSpec {
    /// The recipe for the sandbox.
    pub profile: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables added to the clean environment.
    pub env: BTreeMap<String, String>,
    /// The directory to start in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The root that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// How long the command may run.
    pub timeout_ms: u64,
    /// The limits that were named.
    pub limits: LimitsAsked,
    /// The files to be placed.
    pub files: Vec<FileInput>,
    /// The paths to be kept.
    pub outputs: Vec<String>,
    /// The standard streams are attached to.
    pub attach: bool,
    /// How often it may be started.
    pub retry: RetryAsked,
    /// How long it may wait for a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// The one node that may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Secrets that it uses; their values are asked for when they are needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential is taken out of its output, too.
    #[serde(default)]
    pub scrub_patterns: bool,
    /// What it may reach; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// A sandbox is ready; the command is let go when this is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobStarted {
    /// The epoch of the lease.
    pub epoch: u64,
    /// Which try.
    pub attempt: u32,
    /// The driver that isolates it.
    pub driver: String,
    /// The sandbox, `sbx_...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// What is in force around it.
    pub enforcement: Vec<Enforced>,
}

/// What a job wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobOutput {
    /// The epoch of the lease.
    pub epoch: u64,
    /// Which try.
    pub attempt: u32,
    /// The pieces. Acknowledged means stored.
    pub segments: Vec<OutputSegment>,
}

/// A piece of one stream, at most 256 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSegment {
    /// The stream.
    pub stream: StreamName,
    /// Where it starts in that stream.
    pub offset_bytes: u64,
    /// Bytes of the stream directly before this piece that were dropped: they come neither now nor later. From
    /// protocol 3 on; a piece that begins later than the end of what is stored is refused without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_before: Option<u64>,
    /// How `data` is written.
    pub encoding: Encoding,
    /// The bytes.
    pub data: String,
}

impl OutputSegment {
    /// Wraps a piece of a stream, before which nothing was dropped.
    #[must_use]
    pub fn new(stream: StreamName, offset_bytes: u64, bytes: &[u8]) -> Self {
        let (encoding, data) = encoding::encode(bytes);
        Self {
            stream,
            offset_bytes,
            dropped_before: None,
            encoding,
            data,
        }
    }

    /// The bytes themselves.
    ///
    /// # Errors
    /// [`BadData`] when `data` does not decode.
    pub fn into_bytes(self) -> Result<Bytes, BadData> {
        encoding::decode(self.encoding, self.data)
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobFinished {
    /// The epoch of the lease.
    pub epoch: u64,
    /// Which try.
    pub attempt: u32,
    /// The end.
    pub outcome: OutcomeReport,
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What was in force, when that changed since the start or there was no start; else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Vec<Enforced>>,
    /// What became of standard output.
    #[serde(default)]
    pub stdout: StreamReport,
    /// What became of standard error.
    #[serde(default)]
    pub stderr: StreamReport,
    /// More about the end, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The last pieces of output, so that a short job needs no report of its own for them.
    /// They are stored before the outcome is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<OutputSegment>,
}

/// How a job ended, as its node saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OutcomeReport {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, 1 to 255.
    Failed {
        /// 128+N for a signal, 126 and 127 for a command that cannot be run.
        exit_code: i32,
    },
    /// Killed at its time limit.
    TimedOut,
    /// Stopped because somebody asked.
    Canceled,
    /// The sandbox was lost (the node restarted, its supervisor died).
    Lost {
        /// How.
        why: String,
    },
    /// It was not run because something that was asked for cannot be had here.
    Refused {
        /// What.
        why: String,
    },
}

/// A node gives a job back before it started, at no cost in attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRelease {
    /// The epoch of the lease.
    pub epoch: u64,
    /// Why, for the record.
    pub why: String,
}

/// A report was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportAnswer {
    /// Whether it was new.
    pub result: ReportResult,
    /// Somebody asked the job to stop: after `started`, do not let the command go.
    #[serde(default)]
    pub cancel: bool,
}

/// Whether a report was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportResult {
    /// It was, and is stored.
    Accepted,
    /// The same was stored before.
    Duplicate,
}

/// What `PUT /node/v1/jobs/{id}/artifacts` takes in the query; the body is the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ArtifactPutQuery {
    /// The epoch of the lease.
    pub epoch: u64,
    /// Which try.
    pub attempt: u32,
    /// Where the file was, inside the sandbox.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_with_a_clause_that_we_do_not_know_is_refused() {
        let text = r#"{"job_id":"job_1","tenant":"ten_local","attempt":1,"epoch":1,"egress":"none",
            "spec":{}}"#;
        let error = serde_json::from_str::<Lease>(text).unwrap_err().to_string();
        assert!(error.starts_with("unknown field `egress`"), "{error}");
    }

    #[test]
    fn outcomes_are_tagged_by_kind() {
        let text = serde_json::to_string(&OutcomeReport::Failed { exit_code: 3 }).unwrap();
        assert_eq!(text, r#"{"kind":"failed","exit_code":3}"#);
        let read: OutcomeReport = serde_json::from_str(r#"{"kind":"timed_out"}"#).unwrap();
        assert_eq!(read, OutcomeReport::TimedOut);
        assert!(serde_json::from_str::<OutcomeReport>(r#"{"kind":"failed"}"#).is_err());
    }
}
