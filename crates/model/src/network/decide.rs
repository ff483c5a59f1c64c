//! The decision about one destination. Pure: whoever resolves names and dials asks twice, before it resolves
//! and once more with the addresses.

use super::{Entry, NetworkMode, NetworkRules, Order, Preset, RequestRule};
use crate::dependency::{Ecosystem, INDEX_PORT};
use crate::host::Host;
use crate::spec::Invalid;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// How something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How<'h> {
    /// A request in clear, of which everything is seen.
    Request {
        /// Its method.
        method: &'h str,
        /// It brings a body.
        has_body: bool,
    },
    /// A tunnel, of which the host and the port are seen.
    Tunnel,
}

/// Why rules deny. The codes are what programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// There is no network.
    NoEgress,
    /// An entry of the deny list names it.
    Denied,
    /// No entry of the allow list names it.
    NotAllowed,
    /// What cannot be seen into may do more than read.
    Opaque,
    /// It does more than read.
    NotReading,
    /// The name in the TLS greeting is another than the one that was asked for.
    SniMismatch,
    /// The TLS greeting has no name.
    SniMissing,
    /// The TLS greeting may hide another name than the one that it shows (Encrypted Client Hello, RFC 9849).
    Ech,
    /// No rule of the host lets such a request out.
    HttpRule,
    /// The path has more than one meaning, and the host has rules about paths.
    OddPath,
    /// The package is not in the list of those that may be installed, or whoever is asked serves others, too.
    DependencyNotAllowed,
}

impl Denial {
    /// The code; never changes its meaning.
    pub fn code(self) -> &'static str {
        match self {
            Denial::NoEgress => "no_egress",
            Denial::Denied => "host_denied",
            Denial::NotAllowed => "host_not_allowed",
            Denial::Opaque => "read_only_tunnel",
            Denial::NotReading => "read_only_method",
            Denial::SniMismatch => "sni_mismatch",
            Denial::SniMissing => "sni_missing",
            Denial::Ech => "ech",
            Denial::HttpRule => "http_rule",
            Denial::OddPath => "odd_path",
            Denial::DependencyNotAllowed => "dependency_not_allowed",
        }
    }

    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Denial::NoEgress => {
                "there is no network: ask for one with `--net MODE`, `network` in the request, or E2B's \
                 `allow_internet_access`"
            }
            Denial::Denied => {
                "the rule above denies it; whoever made the sandbox can change its rules"
            }
            Denial::NotAllowed => {
                "ask whoever made the sandbox: `cofferdam approval ask --sandbox ID --to HOST:PORT` adds it after a \
                 yes; `cofferdam sandbox net ID` says all rules anew, so those that are to stay as well; \
                 `--allow HOST:PORT` does from the start"
            }
            Denial::Opaque => {
                "in mode `read-only` only plain `http://` can be read; https needs another mode"
            }
            Denial::NotReading => "in mode `read-only` there are GET and HEAD without a body",
            Denial::SniMismatch => {
                "the name in the TLS greeting must be the host that was asked for"
            }
            Denial::SniMissing => "send the name of the host in the TLS greeting (SNI)",
            Denial::Ech => {
                "the TLS greeting has Encrypted Client Hello, real or made up (GREASE), behind which any name can \
                 stand: turn it off in the client (Chromium: `--disable-features=EncryptedClientHello`; Firefox: \
                 `network.dns.echconfig.enabled` false and `security.tls.ech.grease_probability` 0), or ask whoever \
                 made the sandbox for a rule about requests to this host, which are then looked into"
            }
            Denial::HttpRule => {
                "ask whoever made the sandbox for a rule about this method and path of the host, \
                 `--rule 'METHOD https://HOST/PATH'`; where the rule above requires or refuses fields of the header, \
                 send the request as it says"
            }
            Denial::OddPath => "write the path without dots, encoded slashes and empty parts",
            Denial::DependencyNotAllowed => {
                "only listed packages can be installed, each by its exact name and version, what they depend on \
                 among them, and from the index that the environment names (PIP_INDEX_URL, npm_config_registry); \
                 ask whoever keeps the policy to add NAME==VERSION to `dependencies`"
            }
        }
    }
}

/// Which rule decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// What the mode says of whatever no entry names.
    Mode(NetworkMode),
    /// This entry of the allow list.
    Allow(Entry),
    /// This entry of the deny list.
    Deny(Entry),
    /// This entry of a preset.
    Preset(Preset, Entry),
    /// What an entry says of the host, and the TLS greeting does not bear out.
    Greeting,
    /// This rule about requests.
    Request(RequestRule),
    /// The list of packages of this ecosystem.
    Dependencies(Ecosystem),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Mode(mode) => write!(f, "mode {mode}"),
            Rule::Allow(entry) => write!(f, "allow {entry}"),
            Rule::Deny(entry) => write!(f, "deny {entry}"),
            Rule::Preset(preset, entry) => write!(f, "preset {preset}: {entry}"),
            Rule::Greeting => f.write_str("the TLS greeting agrees with the host"),
            Rule::Request(rule) => write!(f, "rule {rule}"),
            Rule::Dependencies(ecosystem) => {
                let index = ecosystem.index();
                write!(
                    f,
                    "dependencies.{ecosystem}: packages come from http://{index}/ alone"
                )
            }
        }
    }
}

/// What the rules say, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: it may pass, as far as is known so far.
    pub denial: Option<Denial>,
    /// Who says so.
    pub rule: Rule,
}

impl Verdict {
    fn allowed(rule: Rule) -> Verdict {
        Verdict { denial: None, rule }
    }

    fn denied(denial: Denial, rule: Rule) -> Verdict {
        Verdict {
            denial: Some(denial),
            rule,
        }
    }

    /// Whether it may pass.
    pub fn is_allowed(&self) -> bool {
        self.denial.is_none()
    }
}

/// The port of an entry that is about this host at one port alone.
fn own_port(entry: &Entry, host: &Host) -> Option<u16> {
    entry.port().filter(|port| entry.names(host, *port))
}

impl NetworkRules {
    /// What can be said before a name is resolved. A name that is refused here tells nobody's resolver anything.
    pub fn before(&self, how: How<'_>, host: &Host, port: u16) -> Verdict {
        let mode = Rule::Mode(self.mode);
        if self.mode == NetworkMode::None {
            return Verdict::denied(Denial::NoEgress, mode);
        }
        if let Some(verdict) = self.of_packages(host, port) {
            return verdict;
        }
        if self.mode == NetworkMode::ReadOnly {
            match how {
                How::Tunnel => return Verdict::denied(Denial::Opaque, mode),
                How::Request { method, has_body } => {
                    if has_body || !matches!(method, "GET" | "HEAD") {
                        return Verdict::denied(Denial::NotReading, mode);
                    }
                }
            }
        }
        let denied = || self.denying(host, port);
        let allowed = || self.allowing(host, port);
        let (first, second) = match self.order {
            Order::DenyFirst => (denied(), allowed()),
            Order::AllowFirst => (allowed(), denied()),
        };
        let named = first.or(second);
        let is_denied = named.as_ref().is_some_and(|verdict| !verdict.is_allowed());
        if !is_denied && let Some(verdict) = self.off_rules(how == How::Tunnel, host, port) {
            return verdict;
        }
        if let Some(verdict) = named {
            return verdict;
        }
        if self.is_closed() {
            Verdict::denied(Denial::NotAllowed, mode)
        } else {
            Verdict::allowed(mode)
        }
    }

    /// What can be said of a host before anybody says at which port: it is denied where every port of it is.
    pub fn at_any_port(&self, how: How<'_>, host: &Host) -> Verdict {
        if self.has_way_out()
            && let Some(verdict) = self.of_packages(host, INDEX_PORT)
        {
            return verdict;
        }
        let presets = self.presets.iter().flat_map(|preset| preset.entries());
        let entries = self.allow.iter().chain(&self.deny);
        let ports = entries.filter_map(|entry| own_port(entry, host));
        let rules = self.all_requests();
        let rules = rules.filter(|rule| rule.is_about_host(host));
        let ports: BTreeSet<u16> = ports
            .chain(presets.filter_map(|entry| own_port(&entry, host)))
            .chain(rules.flat_map(|rule| rule.ports()).copied())
            .collect();
        // All ports that no entry is about have the same verdict; there are more ports than entries.
        let other = (1..=u16::MAX).find(|port| !ports.contains(port));
        let verdict = self.before(how, host, other.unwrap_or(u16::MAX));
        if verdict.is_allowed() {
            return verdict;
        }
        let mut others = ports.into_iter().map(|port| self.before(how, host, port));
        others.find(Verdict::is_allowed).unwrap_or(verdict)
    }

    /// What is to be said with the addresses of the host known. One that is denied denies the name as a whole:
    /// which of them were dialled would be the name's choice.
    pub fn after(&self, how: How<'_>, host: &Host, port: u16, addresses: &[IpAddr]) -> Verdict {
        let before = self.before(how, host, port);
        let by = &before.rule;
        let is_named = matches!(by, Rule::Allow(_) | Rule::Preset(..) | Rule::Request(_));
        if !before.is_allowed() || (is_named && self.order == Order::AllowFirst) {
            return before;
        }
        for address in addresses {
            let of = Host::of_address(*address);
            if self.order == Order::AllowFirst && self.allowing(&of, port).is_some() {
                continue;
            }
            if let Some(denied) = self.denying(&of, port) {
                return denied;
            }
        }
        before
    }

    /// Whether the name in a TLS greeting is the one that was asked for. Of an address, whose name nobody asked
    /// for, it must not be one that is denied. Without rules about names there is nothing to pass by.
    pub fn greeting(&self, asked: &Host, port: u16, greeting: Option<&Host>) -> Verdict {
        match (asked, greeting) {
            (Host::Name(_), None) => Verdict::denied(Denial::SniMissing, Rule::Greeting),
            (Host::Name(_), Some(said)) if said != asked => {
                Verdict::denied(Denial::SniMismatch, Rule::Greeting)
            }
            (Host::Address(_), Some(said)) => {
                if let Some(verdict) = self.of_packages(said, port) {
                    return verdict;
                }
                if let Some(rule) = self.narrowing(said) {
                    return Verdict::denied(Denial::HttpRule, Rule::Request(rule.clone()));
                }
                let is_allowed = self.order == Order::AllowFirst
                    && (self.allowing(said, port).is_some()
                        || self.allowing(asked, port).is_some());
                self.denying(said, port)
                    .filter(|_| !is_allowed)
                    .unwrap_or_else(|| Verdict::allowed(Rule::Greeting))
            }
            _ => Verdict::allowed(Rule::Greeting),
        }
    }

    /// Whether a greeting may pass behind whose name another one can stand that nobody sees (Encrypted Client Hello,
    /// RFC 9849, section 5): the one that is seen is the client's choice. It may where no name is kept in that the
    /// other could be.
    pub fn hiding(&self, asked: &Host, port: u16) -> Verdict {
        if self.keeps_names_in(asked, port) {
            Verdict::denied(Denial::Ech, Rule::Greeting)
        } else {
            Verdict::allowed(Rule::Greeting)
        }
    }

    /// Whether there is a name that may not be greeted at this port by whoever may ask for this host.
    fn keeps_names_in(&self, asked: &Host, port: u16) -> bool {
        if !self.dependencies.is_empty() || self.narrows_a_name() {
            return true;
        }
        let is_let = || self.allowing(asked, port).is_some();
        let is_let_first = || self.order == Order::AllowFirst && is_let();
        let mut stars = self.allow.iter().filter(|entry| entry.is_any_host());
        let has_star = stars.any(|entry| entry.names(asked, port));
        if has_star || matches!(asked, Host::Address(_)) {
            // Every name may be greeted, but for those that are denied; and none is where what is allowed comes first.
            return !is_let_first() && self.denies_a_name(port);
        }
        if self.is_closed() {
            return true;
        }
        // Whom its name lets out first is not asked for its addresses in `deny`, and others are.
        (is_let_first() && !self.deny.is_empty()) || self.denies_a_name(port)
    }

    fn denies_a_name(&self, port: u16) -> bool {
        let mut names = self.deny.iter().filter(|entry| entry.is_name());
        names.any(|entry| entry.port().is_none_or(|only| only == port))
    }

    /// What lists of packages say of a host, whatever the other lists say: that it is the index of one, or serves what
    /// is not on it.
    fn of_packages(&self, host: &Host, port: u16) -> Option<Verdict> {
        if let Some(ecosystem) = self.dependencies.index(host, port) {
            return Some(Verdict::allowed(Rule::Dependencies(ecosystem)));
        }
        let ecosystem = self.dependencies.closing(host)?;
        let by = Rule::Dependencies(ecosystem);
        Some(Verdict::denied(Denial::DependencyNotAllowed, by))
    }

    /// Whether a place may not be dialled for what leaves through it, by its name or by one of its addresses. What is
    /// denied is so in either order: nobody allows a proxy by allowing what is reached through it.
    pub fn denies(&self, host: &Host, port: u16, addresses: &[IpAddr]) -> Option<&Entry> {
        let of = addresses.iter().map(|address| Host::of_address(*address));
        let all: Vec<Host> = of.chain([host.clone()]).collect();
        let mut deny = self.deny.iter();
        deny.find(|entry| all.iter().any(|host| entry.names(host, port)))
    }

    /// Whether every host that is let out is named, so that what a name is closed for is closed: where an address or
    /// everything is let out, whoever serves packages is among them by another name.
    pub fn names_all(&self) -> bool {
        let rules = self.in_one_order();
        let entries = rules.requests.iter().flat_map(RequestRule::entries);
        rules.is_closed()
            && rules
                .allow
                .iter()
                .cloned()
                .chain(entries)
                .all(|one| one.is_name())
    }

    /// Refuses lists of packages that somebody asks for beside a network that lets out what it does not name: they
    /// would be held to less than they say. A policy may mean that (`only_known_indexes`), and a request may not.
    ///
    /// # Errors
    /// `network_rules`, with its place.
    pub fn check_packages(&self) -> Result<(), Vec<Invalid>> {
        if self.dependencies.is_empty() || !self.has_way_out() || self.names_all() {
            return Ok(());
        }
        let message = "lists of packages go with an allow list of names: what lets out addresses, or whatever it \
                       does not name, lets out others that serve packages";
        Err(vec![Invalid {
            field: "network.dependencies".to_owned(),
            code: "network_rules",
            message: message.to_owned(),
        }])
    }

    /// Whether what no entry names is denied.
    pub(super) fn is_closed(&self) -> bool {
        match self.mode {
            NetworkMode::None | NetworkMode::Allowlist => true,
            NetworkMode::ReadOnly => {
                !(self.allow.is_empty() && self.presets.is_empty() && self.requests.is_empty())
            }
            NetworkMode::Unrestricted => false,
        }
    }

    fn denying(&self, host: &Host, port: u16) -> Option<Verdict> {
        let entry = self.deny.iter().find(|entry| entry.names(host, port))?;
        Some(Verdict::denied(Denial::Denied, Rule::Deny(entry.clone())))
    }

    fn allowing(&self, host: &Host, port: u16) -> Option<Verdict> {
        if let Some(entry) = self.allow.iter().find(|entry| entry.names(host, port)) {
            return Some(Verdict::allowed(Rule::Allow(entry.clone())));
        }
        let mut presets = self.presets.iter();
        let preset = presets.find_map(|preset| Some((*preset, preset.entry(host, port)?)));
        if let Some((preset, entry)) = preset {
            return Some(Verdict::allowed(Rule::Preset(preset, entry)));
        }
        let rule = self.allowing_rule(host, port)?;
        Some(Verdict::allowed(Rule::Request(rule.clone())))
    }
}
