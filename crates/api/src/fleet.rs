//! Nodes of a fleet: how one is let in, what is known of it, and what becomes of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zeroize::Zeroize;

/// A value that lets somebody in. It appears in no log and no `Debug`, and leaves memory when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Asks for a token with which one node can be enrolled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollTokenCreate {
    /// What the node is to carry: at most 32, keys and values of at most 63 bytes. One without a value is a tag.
    /// `driver` and `kind` are not given: each node has them of itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What is known of an enrollment token. Its text is not: only a digest of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollTokenView {
    /// Its name.
    pub id: String,
    /// What the node is to carry.
    pub labels: BTreeMap<String, String>,
    /// `open`, `used`, `expired` or `revoked`.
    pub state: String,
    /// The node that was enrolled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Until when it can be used.
    pub expires_at_ms: u64,
}

/// A new enrollment token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollTokenMade {
    /// What is known of it from now on.
    #[serde(flatten)]
    pub view: EnrollTokenView,
    /// Its text, told once. It names the authority of the server, so that the node believes no other.
    pub token: Hidden,
}

/// The newest enrollment tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollTokenList {
    /// At most 100, the newest first.
    pub tokens: Vec<EnrollTokenView>,
}

/// A machine asks to be a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeEnroll {
    /// An enrollment token.
    pub token: Hidden,
    /// What people call the node.
    pub name: String,
    /// A request for a certificate (PKCS #10, RFC 2986) in PEM. Only its key counts; names are given by the
    /// server.
    pub csr: String,
}

/// A machine is a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeEnrolled {
    /// Its id.
    pub node_id: String,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The certificate of the authority that signs nodes and the server's node door, in PEM.
    pub authority: String,
    /// Until when the certificate counts, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// A node asks for a new certificate, with the one that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRenew {
    /// As in [`NodeEnroll`].
    pub csr: String,
}

/// Which link a node opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NodeLinkQuery {
    /// `interactive` or `bulk`.
    pub class: String,
}

/// What the limits of what a node has name in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReserved {
    /// Of memory.
    pub memory_bytes: u64,
    /// Of storage on the disk.
    pub disk_bytes: u64,
}

/// The machine of a node, as it was when its last heartbeat was sent. Texts are cut to 256 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeHost {
    /// The kernel, as `uname -r` says it.
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// How many processes want one, as a mean over a minute, in thousandths.
    pub load_milli: u64,
    /// All memory.
    pub memory_bytes: u64,
    /// Memory that could be had.
    pub memory_free_bytes: u64,
    /// The disk that it keeps its things on.
    pub disk_bytes: u64,
    /// What is free of it.
    pub disk_free_bytes: u64,
    /// What limits name of it.
    pub reserved: NodeReserved,
    /// How busy it is; absent from nodes that did not say it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<NodeBusy>,
    /// What is left behind on it; absent until the node has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<NodeLeftovers>,
    /// How it isolates, and whether that works; at most 16.
    pub drivers: Vec<NodeDriver>,
    /// Why it takes nothing new; absent when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
}

/// How busy the machine of a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeBusy {
    /// How many processes want a processor, as a mean over five minutes, in thousandths.
    pub load_5_milli: u64,
    /// The same over fifteen.
    pub load_15_milli: u64,
    /// Threads on the machine, ours and all others.
    pub threads: u64,
    /// Jobs that the node has, by its own count.
    pub jobs: u32,
    /// Sandboxes that live on.
    pub sandboxes: u32,
    /// Sandboxes that stand ready for the next jobs.
    pub spares: u32,
    /// How much is waited there; absent where the kernel does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<NodePressure>,
}

/// In how much of the last ten seconds something had to wait, in thousandths: `some avg10` of the kernel's
/// `Documentation/accounting/psi.rst`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePressure {
    /// For a processor.
    pub cpu_milli: u32,
    /// For memory.
    pub memory_milli: u32,
    /// For a disk.
    pub io_milli: u32,
}

/// What earlier nodes have left behind on a machine and nobody has a record of, as `cofferdam node reap` finds it
/// there by its defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeLeftovers {
    /// Directories of nodes, and control groups of sandboxes; at most 10000 are counted.
    pub count: u32,
    /// Bytes of disk that they take, as far as they were looked at.
    pub bytes: u64,
    /// When it was looked, in milliseconds since 1970, by the clock of the node.
    pub at_ms: u64,
    /// Not all could be looked at, so that there may be more: who holds control groups only root sees, and of very
    /// many files only the first are counted.
    #[serde(default)]
    pub partial: bool,
}

/// Whether a driver of a node works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDriver {
    /// Which.
    pub name: String,
    /// It has not failed several times in a row.
    pub healthy: bool,
    /// What it failed with last, while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Which link a server borrows, and from which server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PeerLinkQuery {
    /// The server that is believed to hold it.
    pub server: String,
    /// Of which node.
    pub node: String,
    /// `interactive` or `bulk`.
    pub class: String,
}

/// A process that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// Its id, another one after each start.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// Whether it was heard in the last 15 seconds.
    pub heard: bool,
    /// Where other servers dial it, as `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// When it was heard last.
    pub heard_at_ms: u64,
    /// The links that it holds.
    pub links: Vec<LinkView>,
}

/// A link of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkView {
    /// Of which node.
    pub node: String,
    /// `interactive` or `bulk`.
    pub class: String,
    /// Rises with each link of this node and class.
    pub epoch: u64,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Servers on one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerList {
    /// At most 100, the newest first.
    pub servers: Vec<ServerView>,
}

/// What sort of machine a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// It stands somewhere and stays on.
    Server,
    /// Somebody sits at it, and may close its lid.
    Desktop,
    /// Somebody carries it about.
    Mobile,
    /// It is there for other devices, which are no nodes.
    Bridge,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// `pending`, `online` or `offline`.
    pub connectivity: String,
    /// `active`, `cordoned`, `draining` or `decommissioned`.
    pub scheduling: String,
    /// The version of its program; none before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The program of the server that answers is newer.
    #[serde(default)]
    pub upgrade_available: bool,
    /// What sort of machine it says that it is: `server`, `desktop`, `mobile` or `bridge`; none before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Jobs that it takes at one time.
    pub slots: u32,
    /// Jobs that it has.
    pub jobs: u32,
    /// Sandboxes that live on it.
    pub sandboxes: u32,
    /// How it isolates.
    pub drivers: Vec<String>,
    /// What its enrollment token gave it, what it calls itself besides, and `driver` and `kind`, which each node has
    /// of itself.
    pub labels: BTreeMap<String, String>,
    /// Those of its labels that have no value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Losses that count against it: after two it gets fewer jobs at one time. They halve every minute.
    #[serde(default)]
    pub failures: u32,
    /// Its machine, by its last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<NodeHost>,
    /// What it said about itself.
    pub facts: BTreeMap<String, String>,
    /// Until when its leases go on, in milliseconds since 1970; none before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_expires_at_ms: Option<u64>,
    /// When it was enrolled; none for the node of `up`, which nobody has to let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at_ms: Option<u64>,
}

/// All nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// At most 1000, by id.
    pub nodes: Vec<NodeView>,
}

/// Whether a node is to get work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeOrder {
    /// Nothing new, for now.
    Cordon,
    /// New work again.
    Uncordon,
    /// Nothing new any more; what it has goes on to its end.
    Drain,
    /// Of one that drains: what it still has is ended. Jobs that it has not begun wait for another node.
    Evict,
    /// It is not believed any more, from now on and for good.
    Decommission,
}

/// Says what is to become of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    /// What.
    pub order: NodeOrder,
}
