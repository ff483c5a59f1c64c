//! What a sandbox or a job may reach, on the wire.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

use crate::job::Enforced;
use crate::secret::SecretUse;

/// What holds for whatever no entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// There is no way out.
    None,
    /// What `allow` and `presets` name, and nothing else.
    Allowlist,
    /// GET and HEAD without a body over plain HTTP; from what `allow` and `presets` name, where they name
    /// anything.
    ReadOnly,
    /// Everything public that `deny` does not name.
    Unrestricted,
}

impl NetworkMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::Allowlist,
        Self::ReadOnly,
        Self::Unrestricted,
    ];

    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Allowlist => "allowlist",
            Self::ReadOnly => "read-only",
            Self::Unrestricted => "unrestricted",
        }
    }
}

/// Which list counts where both name a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkOrder {
    /// `deny`.
    #[default]
    DenyFirst,
    /// `allow` and `presets`, as E2B's clients mean it.
    AllowFirst,
}

impl NetworkOrder {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What a sandbox or a job may reach. An entry is `HOST`, `*.DOMAIN` (every name below it, and not itself),
/// `ADDRESS`, `ADDRESS/BITS` or `*`, and perhaps `:PORT` behind it; an IPv6 address stands in brackets before a
/// port. Addresses that are not public are closed in every mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// When absent: `allowlist` where something is allowed, else `unrestricted` where something is denied, else
    /// `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkMode>,
    /// At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// At most 256. A name is also denied when one of its addresses is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Lists by name, as if their entries stood in `allow`: `pypi`, `npm`, `debian`, `ubuntu`, `alpine`,
    /// `crates`, `go`, `github`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub presets: Vec<String>,
    /// Which list counts where both name a destination.
    #[serde(default, skip_serializing_if = "NetworkOrder::is_usual")]
    pub order: NetworkOrder,
    /// How much.
    #[serde(default, skip_serializing_if = "NetworkLimits::is_none")]
    pub limits: NetworkLimits,
    /// What may be asked of some hosts, and with what; at most 64. A host with rules that name methods or paths is
    /// let out only as one of them says; its requests are looked into, those of HTTPS too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<NetworkRule>,
    /// Those of the profile, which hold beside `rules`: a request must be let out by both. Shown; what is asked for
    /// may repeat it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profile_rules: Vec<NetworkRule>,
    /// Secrets that the sandbox was made with are not added to its requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withhold_secrets: bool,
    /// A SOCKS5 proxy that whatever is let out leaves through: `socks5://[USER@]HOST:PORT`, or
    /// `socks5+tls://[USER@]HOST:PORT[?name=NAME]` for one that is spoken to in TLS, with the name in its certificate.
    /// Its password is a secret that is used as `upstream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 900)]
    pub upstream: Option<String>,
    /// Whose word is taken that it is that proxy, as certificates in PEM; whom the node trusts when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16384)]
    pub upstream_ca: Option<String>,
    /// Names are resolved by these servers of DNS, at most three, each `ADDRESS` or `ADDRESS:PORT`: public, or opened by
    /// the operator of the node. By the node's own resolver when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Packages that may be installed, as `NAME==VERSION`, by ecosystem: `pip`, `npm`; at most 2,000 of each. An index of
    /// the sandbox's own serves them, and who else serves packages of that manager is closed. What policies list is
    /// held beside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, BTreeSet<String>>,
    /// For a sandbox that lives: these secrets, as `header` or `upstream`, in the place of all that it uses for what
    /// leaves, each in its newest version; when absent those stay. For a new sandbox or job there is `secrets`
    /// beside `network`, and a sandbox shows all of its own there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretUse>>,
}

/// A rule about requests to a host. In the modes `allowlist` and `read-only` it names its host as an entry of
/// `allow` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkRule {
    /// `HOST`, `*.DOMAIN` or `ADDRESS`.
    pub host: String,
    /// 80 and 443 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// In capitals; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// `/exact` or `/below/*`, without the query; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Which fields of the header there must be and not be, and which are set on what is let out.
    #[serde(default, skip_serializing_if = "RuleHeaders::is_none")]
    pub headers: RuleHeaders,
}

/// What there must be in the header of a request, and what is done to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleHeaders {
    /// Fields that must be there, each with this value, `*` for any but an empty one. Where a field is there several
    /// times, each must have it. A rule without methods and paths says it of all requests to its host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, String>,
    /// Fields that must not be there. Names are compared without case, and `_` is `-`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuse: Vec<String>,
    /// Fields that are set, whatever the client wrote there. They are shown to whoever sees the sandbox; for a
    /// secret there is `secrets`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
}

impl RuleHeaders {
    fn is_none(&self) -> bool {
        self.require.is_empty() && self.refuse.is_empty() && self.set.is_empty()
    }
}

/// How much a sandbox or a job may do with its network, within the bounds of its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkLimits {
    /// Connections at a time, 1,024 at most and when absent; more wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// New connections and requests in a minute, 60,000 when absent; more get 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Bytes both ways together; then everything is cut. Counted over the life on one node; of an agent that is killed,
    /// the last second may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl NetworkLimits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A node is to put these rules in the place of those that a sandbox has. The same may be told several times.
/// Unknown fields are refused as in a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkWork {
    /// The sandbox.
    pub sandbox_id: String,
    /// Of these rules; one that is not newer than what the node has is only to be reported.
    pub epoch: u64,
    /// The rules.
    pub network: Network,
}

/// A node has put rules in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkReport {
    /// Of the rules.
    pub epoch: u64,
    /// What is in force around the sandbox now.
    pub enforcement: Vec<Enforced>,
    /// These rules are not in force, and will not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<NetworkRefused>,
}

/// Why rules are not in force, and which are instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkRefused {
    /// Why, in a sentence of at most 1,024 bytes.
    pub why: String,
    /// The rules in force.
    pub in_force: Network,
}
