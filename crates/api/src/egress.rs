//! Connections of sandboxes to the outside, on the wire: as nodes tell of them, and as they are shown.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// Records of one report at most.
pub const RECORDS_MAX: usize = 1000;

/// Addresses of a name that one record lists.
pub const ANSWERS_MAX: usize = 16;

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressDecision {
    /// It was let out, and answered.
    Allowed,
    /// A rule said no.
    Denied,
    /// No rule said no, and it came to nothing.
    Failed,
}

impl EgressDecision {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// One connection or request, told when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressRecord {
    /// The node's name for it: the same again is stored once. At most 64 bytes.
    pub name: String,
    /// When it was asked for, by the clock of its node.
    pub at_ms: u64,
    /// The sandbox; of a job, the one that it brought with it.
    pub sandbox_id: String,
    /// The job, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// `http`, `https`, `connect`, `socks5`, `direct`, `dns`, `udp` or `icmp`.
    pub method: String,
    /// The host in its one form; absent where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// 0 where it could not be read, and of `dns`.
    pub port: u16,
    /// What was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Of `dns`: addresses that the name has outside, at most 16; the sandbox is told others. None that is closed in
    /// every mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// Of `dns`: how many more it has, closed ones and those beyond 16.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answers_unlisted: u32,
    /// Of `dns`: how long the sandbox may keep what it was told, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u32>,
    /// What became of it.
    pub decision: EgressDecision,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The rule that let it out or did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Bytes that went out.
    pub bytes_out: u64,
    /// Bytes that came back.
    pub bytes_in: u64,
    /// From the request to its end.
    pub duration_ms: u64,
}

/// What sandboxes and jobs of a node have asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeEgress {
    /// The oldest first; at most 1,000. What is said of others' is passed over.
    pub records: Vec<EgressRecord>,
}

/// One connection or request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressView {
    /// Its number among those of its sandbox or job, in the order in which they ended.
    pub seq: u64,
    /// When it was asked for, by the clock of its node.
    pub at_ms: u64,
    /// The sandbox; of a job, the one that it brought with it.
    pub sandbox_id: String,
    /// The job, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// `http`, `https`, `connect`, `socks5`, `direct`, `dns`, `udp` or `icmp`.
    pub method: String,
    /// The host in its one form; absent where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// 0 where it could not be read, and of `dns`.
    pub port: u16,
    /// What was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Of `dns`: addresses that the name has outside, at most 16; the sandbox is told others. None that is closed in
    /// every mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// Of `dns`: how many more it has, closed ones and those beyond 16.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answers_unlisted: u32,
    /// Of `dns`: how long the sandbox may keep what it was told, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u32>,
    /// What became of it.
    pub decision: EgressDecision,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The rule that let it out or did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Bytes that went out.
    pub bytes_out: u64,
    /// Bytes that came back.
    pub bytes_in: u64,
    /// From the request to its end.
    pub duration_ms: u64,
}

/// What `GET /v1/sandboxes/{id}/egress` and `GET /v1/jobs/{id}/egress` take in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EgressQuery {
    /// Only records with numbers above this: the `next` of the page before.
    #[serde(default)]
    pub after: Option<u64>,
    /// Only those of which this became.
    #[serde(default)]
    #[param(inline)]
    pub decision: Option<EgressDecision>,
    /// Only those to this host, or, as `*.DOMAIN`, to all names below one and not itself.
    #[serde(default)]
    pub host: Option<String>,
    /// Only those that were refused or failed for this reason, such as `host_not_allowed`.
    #[serde(default)]
    pub code: Option<String>,
    /// Not before this time, in milliseconds since 1970, by the clock of the node.
    #[serde(default)]
    pub from: Option<u64>,
    /// Before this time, likewise.
    #[serde(default)]
    pub to: Option<u64>,
    /// At most so many, 1 to 500; 50 when absent. Of a stream it says nothing.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A page of records, the oldest first. The last 10,000 of each sandbox and job are kept, for as long as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressList {
    /// The records.
    pub records: Vec<EgressView>,
    /// Give this as `after` to read on, now or later.
    pub next: u64,
    /// There are more already.
    pub more: bool,
}

/// The name of the server-sent event that carries an [`EgressView`].
pub const SSE_RECORD: &str = "record";

/// What the last server-sent event of a stream of records carries, whose name is that of a log's last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressEnd {
    /// All records up to this number were looked at.
    pub next: u64,
}

/// One step of records that are being followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressEvent {
    /// Something that was asked for is over.
    Record(Box<EgressView>),
    /// So is the sandbox or the job. The last one.
    End(EgressEnd),
}

/// Connections that a node tells of at once: as many as it lets out at a time.
pub const CONNECTIONS_MAX: usize = 4096;

/// Bytes of what a node tells of them: each is some 400, and 1,000 where names and rules are as long as they may be.
pub const CONNECTIONS_BYTES_MAX: u64 = 8 << 20;

/// One connection or request that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressConnection {
    /// When it was asked for, by the clock of its node.
    pub at_ms: u64,
    /// Since then.
    pub age_ms: u64,
    /// The sandbox; of a job, the one that it brought with it.
    pub sandbox_id: String,
    /// The job, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// `http`, `https`, `connect`, `socks5`, `direct`, `dns`, `udp` or `icmp`.
    pub method: String,
    /// The host in its one form.
    pub host: String,
    /// 0 of `dns`.
    pub port: u16,
    /// What was dialled, once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `allowed`; absent while it is judged, resolved or dialled, and of a tunnel that is looked into, whose requests
    /// are judged one by one and are listed beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<EgressDecision>,
    /// The rule that lets it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Bytes that went out so far.
    pub bytes_out: u64,
    /// Bytes that came back so far.
    pub bytes_in: u64,
}

/// What a node says of what is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConnections {
    /// The oldest first; at most [`CONNECTIONS_MAX`].
    pub connections: Vec<EgressConnection>,
    /// There are more.
    pub more: bool,
}

/// What is under way now, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressConnectionList {
    /// The connections.
    pub connections: Vec<EgressConnection>,
    /// There are more.
    pub more: bool,
    /// Nodes that did not say what they have.
    pub silent_nodes: Vec<String>,
}

/// What the routes take in the query that answer what is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EgressConnectionQuery {
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// What somebody wants to know of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressTest {
    /// `http://HOST[:PORT]/...`, `https://HOST[:PORT]/...` or `HOST:PORT`.
    pub url: String,
    /// Fields of the header that the request would have, at most 64, for rules that are about them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// What would become of it. No name is resolved and nothing is dialled: a name that passes here may still have an
/// address that is closed or denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressTested {
    /// The host in its one form.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `allowed` or `denied`.
    pub decision: EgressDecision,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The rule that says so.
    pub rule: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Fields of the header that would be set to secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adds: Vec<EgressAdded>,
}

/// A field of the header that would be set to a secret. The value is shown nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressAdded {
    /// The field.
    pub header: String,
    /// The name of the secret.
    pub secret: String,
}
