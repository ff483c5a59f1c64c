//! What a sandbox may reach: the rules that somebody asked for, as values, and the decision by them.
//!
//! Hosts are read into their one form where rules are made and where they are asked, and compared in no other.
//! What is closed in every mode, such as private addresses, is not said here: the node that dials knows it.

mod ceiling;
mod decide;
mod dns;
mod entry;
mod narrow;
mod preset;
mod reach;
mod request;
mod trial;
mod upstream;

pub use decide::{Denial, How, Rule, Verdict};
pub use dns::{BadDnsServer, DnsServer};
pub use entry::{BadEntry, Entry};
pub use narrow::BEYOND;
pub use preset::Preset;
pub(crate) use request::may_be_set;
pub use request::{Field, Request, RequestAsked, RequestRule};
pub use trial::{BadUrl, CLEAR_SECRET, Trial};
pub use upstream::{BadUpstream, Secured, Upstream};

use crate::dependency::Dependencies;
use crate::limits;
use crate::spec::{Findings, Invalid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Characters of an entry that cannot be read in the message that says so: names have 253.
const SHOWN_CHARS_MAX: usize = 80;

/// What is let out where no entry says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Nothing, and there is no way out.
    #[default]
    None,
    /// What is listed.
    Allowlist,
    /// Reading in clear, from everywhere or from what is listed.
    ReadOnly,
    /// Everything public.
    Unrestricted,
}

impl NetworkMode {
    /// All of them.
    pub const ALL: [NetworkMode; 4] = [
        NetworkMode::None,
        NetworkMode::Allowlist,
        NetworkMode::ReadOnly,
        NetworkMode::Unrestricted,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            NetworkMode::None => "none",
            NetworkMode::Allowlist => "allowlist",
            NetworkMode::ReadOnly => "read-only",
            NetworkMode::Unrestricted => "unrestricted",
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which list counts where both name a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// What is denied is denied, whatever allows it.
    #[default]
    DenyFirst,
    /// What is allowed is allowed, whatever denies it: E2B's order.
    AllowFirst,
}

/// How much a sandbox may do with its network. Each is enforced as well as the node's own bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct NetworkCaps {
    /// Connections at a time.
    pub connections: Option<u32>,
    /// New connections and requests in any minute.
    pub per_minute: Option<u32>,
    /// Bytes both ways together, over the whole life on one node: of a process of the node that is killed, what passed
    /// in its last second may not be counted.
    pub bytes: Option<u64>,
}

/// The rules of one sandbox or job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct NetworkRules {
    /// What holds for whatever no entry names.
    pub mode: NetworkMode,
    /// What is let out.
    pub allow: Vec<Entry>,
    /// What is not.
    pub deny: Vec<Entry>,
    /// Lists by name, which are let out as if they stood in `allow`.
    pub presets: Vec<Preset>,
    /// Which of the two lists counts first.
    pub order: Order,
    /// How much.
    pub caps: NetworkCaps,
    /// What may be asked of some hosts, and with what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestRule>,
    /// Those of a profile, which a request has to pass beside `requests`. They let out nothing by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profile_requests: Vec<RequestRule>,
    /// Secrets of the sandbox are not added to its requests any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub withhold_secrets: bool,
    /// Whatever is let out leaves through this proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// The certificates, in PEM, of whom is believed that he is that proxy; those that the node trusts when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ca: Option<String>,
    /// Names are resolved by these; by the node's own resolver when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<DnsServer>,
    /// Packages that may be installed. An index in the proxy serves them, and who serves others is closed.
    #[serde(skip_serializing_if = "Dependencies::is_empty")]
    pub dependencies: Dependencies,
}

/// How rules stand in rows: rows of version 0.2 and before say only whether there is a network.
#[derive(Deserialize)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for as long as a row is read"
)]
enum Stored {
    Old(bool),
    Rules {
        mode: NetworkMode,
        #[serde(default)]
        allow: Vec<Entry>,
        #[serde(default)]
        deny: Vec<Entry>,
        #[serde(default)]
        presets: Vec<Preset>,
        #[serde(default)]
        order: Order,
        #[serde(default)]
        caps: NetworkCaps,
        #[serde(default)]
        requests: Vec<RequestRule>,
        #[serde(default)]
        profile_requests: Vec<RequestRule>,
        #[serde(default)]
        withhold_secrets: bool,
        #[serde(default)]
        upstream: Option<Upstream>,
        #[serde(default)]
        upstream_ca: Option<String>,
        #[serde(default)]
        dns: Vec<DnsServer>,
        #[serde(default)]
        dependencies: Dependencies,
    },
}

impl From<Stored> for NetworkRules {
    fn from(stored: Stored) -> NetworkRules {
        match stored {
            Stored::Old(open) => NetworkRules::all_or_nothing(open),
            Stored::Rules {
                mode,
                allow,
                deny,
                presets,
                order,
                caps,
                requests,
                profile_requests,
                withhold_secrets,
                upstream,
                upstream_ca,
                dns,
                dependencies,
            } => NetworkRules {
                mode,
                allow,
                deny,
                presets,
                order,
                caps,
                requests,
                profile_requests,
                withhold_secrets,
                upstream,
                upstream_ca,
                dns,
                dependencies,
            },
        }
    }
}

/// Rules as somebody writes them, before they are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkAsked {
    /// What holds for whatever no entry names; `allowlist` when only a list is given.
    pub mode: Option<NetworkMode>,
    /// See [`NetworkRules::allow`].
    pub allow: Vec<String>,
    /// See [`NetworkRules::deny`].
    pub deny: Vec<String>,
    /// See [`NetworkRules::presets`].
    pub presets: Vec<String>,
    /// See [`NetworkRules::order`].
    pub order: Order,
    /// See [`NetworkRules::caps`].
    pub caps: NetworkCaps,
    /// See [`NetworkRules::requests`].
    pub requests: Vec<RequestAsked>,
    /// See [`NetworkRules::profile_requests`].
    pub profile_requests: Vec<RequestAsked>,
    /// See [`NetworkRules::withhold_secrets`].
    pub withhold_secrets: bool,
    /// See [`NetworkRules::upstream`].
    pub upstream: Option<String>,
    /// See [`NetworkRules::upstream_ca`].
    pub upstream_ca: Option<String>,
    /// See [`NetworkRules::dns`].
    pub dns: Vec<String>,
    /// See [`NetworkRules::dependencies`]: `NAME==VERSION`, by the name of the ecosystem.
    pub dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl NetworkRules {
    /// Everything public, or nothing at all.
    pub fn all_or_nothing(open: bool) -> NetworkRules {
        let mode = if open {
            NetworkMode::Unrestricted
        } else {
            NetworkMode::None
        };
        NetworkRules {
            mode,
            ..NetworkRules::default()
        }
    }

    /// Whether there is a way out at all.
    pub fn has_way_out(&self) -> bool {
        self.mode != NetworkMode::None
    }

    /// Reads rules.
    ///
    /// # Errors
    /// All that is wrong, each with its place below `network`.
    pub fn read(asked: &NetworkAsked) -> Result<NetworkRules, Vec<Invalid>> {
        let mut found = Findings::default();
        let lists = !(asked.allow.is_empty()
            && asked.presets.is_empty()
            && asked.requests.is_empty()
            && asked.dependencies.is_empty());
        let default = if lists {
            NetworkMode::Allowlist
        } else if asked.deny.is_empty() {
            NetworkMode::None
        } else {
            NetworkMode::Unrestricted
        };
        let rules = NetworkRules {
            mode: asked.mode.unwrap_or(default),
            allow: entries("network.allow", &asked.allow, &mut found),
            deny: entries("network.deny", &asked.deny, &mut found),
            presets: presets(&asked.presets, &mut found),
            order: asked.order,
            caps: asked.caps,
            requests: request::read("network.rules", &asked.requests, &mut found),
            profile_requests: request::read(
                "network.profile_rules",
                &asked.profile_requests,
                &mut found,
            ),
            withhold_secrets: asked.withhold_secrets,
            upstream: upstream(asked.upstream.as_deref(), &mut found),
            upstream_ca: asked.upstream_ca.clone(),
            dns: servers(&asked.dns, &mut found),
            dependencies: Dependencies::read(
                "network.dependencies",
                "network_rules",
                &asked.dependencies,
                &mut found,
            ),
        };
        // What could not be read is not there, and need not be missed as well.
        if found.0.is_empty() {
            rules.check(&mut found);
        }
        found.verdict().map(|()| rules)
    }

    /// Whether the parts go together.
    fn check(&self, found: &mut Findings) {
        let lists = !self.allow.is_empty() || !self.presets.is_empty();
        let named = lists || !self.requests.is_empty() || !self.dependencies.is_empty();
        let any = named || !self.deny.is_empty();
        let code = "network_rules";
        match self.mode {
            NetworkMode::None if self.upstream.is_some() => {
                let message =
                    "in mode `none` nothing leaves through a proxy; say a mode, or what is allowed";
                found.add("network.upstream", code, message);
            }
            NetworkMode::None if !self.dns.is_empty() => {
                let message = "in mode `none` no name is resolved; say a mode, or what is allowed";
                found.add("network.dns", code, message);
            }
            NetworkMode::None if any => {
                let message = "in mode `none` there is nothing to allow or to deny";
                found.add("network.mode", code, message);
            }
            NetworkMode::Allowlist if !named => {
                let message =
                    "mode `allowlist` needs something that is allowed; for nothing there is `none`";
                found.add("network.allow", code, message);
            }
            NetworkMode::Unrestricted if lists && self.order == Order::DenyFirst => {
                let message = "in mode `unrestricted` an allow list would change nothing; did you mean \
                               `allowlist`, or the order `allow_first`?";
                found.add("network.allow", code, message);
            }
            NetworkMode::None
            | NetworkMode::Allowlist
            | NetworkMode::ReadOnly
            | NetworkMode::Unrestricted => {}
        }
        self.check_ca(found);
        let caps = [
            (
                "network.limits.connections",
                self.caps.connections.map(u64::from),
                limits::NETWORK_CONNECTIONS_MAX,
            ),
            (
                "network.limits.per_minute",
                self.caps.per_minute.map(u64::from),
                u64::from(u32::MAX),
            ),
            (
                "network.limits.bytes",
                self.caps.bytes,
                limits::NETWORK_BYTES_MAX,
            ),
        ];
        for (field, value, most) in caps {
            if let Some(value) = value {
                found.range(field, value, 1, most);
            }
        }
    }
}

impl NetworkRules {
    /// Whether the node needs what looks into HTTPS, or what belongs to it: whom it trusts.
    pub fn needs_trust(&self) -> bool {
        let upstream = self.upstream.as_ref();
        self.has_requests() || upstream.is_some_and(|upstream| upstream.tls().is_some())
    }

    /// What is in the certificates is looked at by whoever can read them.
    fn check_ca(&self, found: &mut Findings) {
        let Some(pem) = &self.upstream_ca else {
            return;
        };
        let is_used = self
            .upstream
            .as_ref()
            .is_some_and(|one| one.tls().is_some());
        let most = limits::NETWORK_CA_BYTES_MAX;
        let message = if !is_used {
            "certificates are for a proxy that is spoken to in TLS: socks5+tls://".to_owned()
        } else if pem.len() > most {
            format!("at most {most} bytes of certificates")
        } else if !pem.contains("-----BEGIN CERTIFICATE-----") || !pem.is_ascii() {
            "certificates are written in PEM, `-----BEGIN CERTIFICATE-----` and so on".to_owned()
        } else {
            return;
        };
        found.add("network.upstream_ca", "network_rules", message);
    }
}

fn servers(texts: &[String], found: &mut Findings) -> Vec<DnsServer> {
    found.count("network.dns", texts.len(), limits::NETWORK_DNS_MAX);
    let numbered = texts.iter().enumerate().take(limits::NETWORK_DNS_MAX);
    let mut servers = Vec::with_capacity(numbered.len());
    for (index, text) in numbered {
        match text.parse() {
            Ok(server) => servers.push(server),
            Err(_) => {
                let message = "a server of DNS is ADDRESS or ADDRESS:PORT";
                found.add(format!("network.dns[{index}]"), "network_rules", message);
            }
        }
    }
    servers
}

fn entries(field: &str, texts: &[String], found: &mut Findings) -> Vec<Entry> {
    found.count(field, texts.len(), limits::NETWORK_ENTRIES_MAX);
    let numbered = texts.iter().enumerate().take(limits::NETWORK_ENTRIES_MAX);
    let mut entries = Vec::with_capacity(numbered.len());
    for (index, text) in numbered {
        match text.parse() {
            Ok(entry) => entries.push(entry),
            Err(why) => {
                // Which of several it is, is seen at no door that names options instead of places.
                let shown = text.chars().filter(|one| !one.is_control());
                let shown: String = shown.take(SHOWN_CHARS_MAX).collect();
                let message = format!(
                    "`{shown}`: failed to {why}; an entry is HOST, *.DOMAIN, ADDRESS[/BITS] or *, and perhaps :PORT"
                );
                found.add(format!("{field}[{index}]"), "network_rules", message);
            }
        }
    }
    entries
}

fn upstream(text: Option<&str>, found: &mut Findings) -> Option<Upstream> {
    let read = text?.parse();
    if read.is_err() {
        let message = "a proxy is socks5://[USER@]HOST:PORT, or socks5+tls:// and the same; its password is a secret, which is used as `upstream`";
        found.add("network.upstream", "network_rules", message);
    }
    read.ok()
}

fn presets(names: &[String], found: &mut Findings) -> Vec<Preset> {
    found.count("network.presets", names.len(), Preset::ALL.len());
    let mut presets = Vec::new();
    for (index, name) in names.iter().enumerate().take(Preset::ALL.len()) {
        match Preset::parse(name) {
            Some(preset) => presets.push(preset),
            None => {
                let known = Preset::ALL.map(Preset::as_str).join(", ");
                let message = format!("there is no such preset; there are {known}");
                let field = format!("network.presets[{index}]");
                found.add(field, "network_rules", message);
            }
        }
    }
    presets
}

#[cfg(test)]
mod tests;
