//! Rules about requests: which methods and paths of a host are let out, with which fields, and which are set on the
//! way. Pure.
//!
//! A path is compared as it is written. What a server might read as another path than we do is refused where
//! paths are compared: dots, encoded dots and slashes, backslashes, empty parts.

mod field;

use super::{Denial, Entry, NetworkMode, NetworkRules, Rule, Verdict};
use crate::host::Host;
use crate::limits;
use crate::spec::{Findings, Invalid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

pub use field::Field;

/// The code of what is wrong with a rule.
const CODE: &str = "network_rules";

/// The ports of a host that a rule is about, where it names none: those of `http` and `https`.
const USUAL_PORTS: [u16; 2] = [80, 443];

/// The longest text of a rule in records and answers, in bytes.
const SHOWN_BYTES_MAX: usize = 240;

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
enum PathPattern {
    /// This one.
    Exact(String),
    /// This one, which ends in `/`, and all below it.
    Below(String),
}

impl PathPattern {
    fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(own) => own == path,
            PathPattern::Below(own) => path.starts_with(own.as_str()),
        }
    }
}

impl From<String> for PathPattern {
    fn from(text: String) -> PathPattern {
        match text.strip_suffix('*') {
            Some(below) => PathPattern::Below(below.to_owned()),
            None => PathPattern::Exact(text),
        }
    }
}

impl From<PathPattern> for String {
    fn from(path: PathPattern) -> String {
        match path {
            PathPattern::Exact(path) => path,
            PathPattern::Below(path) => path + "*",
        }
    }
}

/// A rule about requests to a host. One that names methods or paths is a way out, and a request must have one of them.
/// One that names neither is about all requests: what it says of fields holds for each, and its own are set on each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestRule {
    /// A name, all names below one, or an address; without a port.
    host: Entry,
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<PathPattern>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    require: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refuse: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<String, String>,
}

/// A rule as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestAsked {
    /// `HOST`, `*.DOMAIN` or `ADDRESS`.
    pub host: String,
    /// At which port; 80 and 443 where there is none.
    pub port: Option<u16>,
    /// These methods; all where there is none.
    pub methods: Vec<String>,
    /// These paths, `/exact` or `/below/*`; all where there is none.
    pub paths: Vec<String>,
    /// Fields that must be there with these values, `*` for any but an empty one.
    pub require: BTreeMap<String, String>,
    /// Fields that must not be there.
    pub refuse: Vec<String>,
    /// Fields that are set, whatever the client wrote there. They are not secret.
    pub set: BTreeMap<String, String>,
}

impl RequestRule {
    /// Reads rules.
    ///
    /// # Errors
    /// All that is wrong, each with its place below `network.rules`.
    pub fn read(asked: &[RequestAsked]) -> Result<Vec<RequestRule>, Vec<Invalid>> {
        let mut found = Findings::default();
        let rules = read("network.rules", asked, &mut found);
        found.verdict().map(|()| rules)
    }

    /// Whether it does nothing but set fields.
    pub fn only_sets(&self) -> bool {
        !self.narrows()
    }

    /// The same as it was written.
    pub fn asked(&self) -> RequestAsked {
        RequestAsked {
            host: self.host.to_string(),
            port: self.port,
            methods: self.methods.clone(),
            paths: self.paths.iter().cloned().map(String::from).collect(),
            require: self.require.clone(),
            refuse: self.refuse.clone(),
            set: self.set.clone(),
        }
    }

    /// Whether it is about this host, at whichever port.
    pub(super) fn is_about_host(&self, host: &Host) -> bool {
        self.host.names(host, 0)
    }

    fn is_about(&self, host: &Host, port: u16) -> bool {
        self.ports().contains(&port) && self.is_about_host(host)
    }

    /// The ports that it is about.
    pub(super) fn ports(&self) -> &[u16] {
        match &self.port {
            Some(port) => std::slice::from_ref(port),
            None => &USUAL_PORTS,
        }
    }

    /// The hosts that it is about, as entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let ports = self.ports().iter();
        ports.map(|port| self.host.clone().at(*port))
    }

    fn is_about_all(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }

    fn narrows(&self) -> bool {
        !(self.is_about_all() && self.require.is_empty() && self.refuse.is_empty())
    }

    fn names(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|own| own == method))
            && (self.paths.is_empty() || self.paths.iter().any(|own| own.matches(path)))
    }

    fn suits(&self, fields: &[Field<'_>]) -> bool {
        let mut require = self.require.iter();
        require.all(|(name, value)| field::has_value(fields, name, value))
            && !self.refuse.iter().any(|name| field::has(fields, name))
    }

    fn matches(&self, asked: Request<'_>) -> bool {
        self.names(asked.method, asked.path) && self.suits(asked.fields)
    }

    /// The fields that it requires and refuses, by their names: the values are for whoever sees the rules.
    fn fields_text(&self) -> String {
        let require: Vec<&str> = self.require.keys().map(String::as_str).collect();
        let both = [
            ("requires", require.join(", ")),
            ("refuses", self.refuse.join(", ")),
        ];
        let both = both.into_iter().filter(|(_, names)| !names.is_empty());
        let both: Vec<String> = both
            .map(|(what, names)| format!("{what} {names}"))
            .collect();
        both.join("; ")
    }
}

/// As `--rule` writes it, with the names of fields behind it, cut to what a record holds.
impl fmt::Display for RequestRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.methods.join(",");
        if !text.is_empty() {
            text.push(' ');
        }
        match self.port {
            Some(80) => text.push_str("http://"),
            Some(_) => text.push_str("https://"),
            None => {}
        }
        text.push_str(&self.host.to_string());
        if let Some(port) = self.port.filter(|port| !USUAL_PORTS.contains(port)) {
            text.push(':');
            text.push_str(&port.to_string());
        }
        let paths = self.paths.iter().cloned().map(String::from);
        text.push_str(&paths.collect::<Vec<_>>().join(","));
        let fields = self.fields_text();
        if !fields.is_empty() {
            text.push_str(&[" (", &fields, ")"].concat());
        }
        if text.len() > SHOWN_BYTES_MAX {
            let cut = text.floor_char_boundary(SHOWN_BYTES_MAX);
            text.truncate(cut);
            text.push_str("...");
        }
        f.write_str(&text)
    }
}

/// A request, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whom it is for.
    pub host: &'a Host,
    /// At which port.
    pub port: u16,
    /// Its method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// The fields that it leaves with, before any are set.
    pub fields: &'a [Field<'a>],
}

impl NetworkRules {
    /// Rules that a request has to pass one beside the other: those that were asked for, and the profile's.
    fn layers(&self) -> [&[RequestRule]; 2] {
        [&self.requests, &self.profile_requests]
    }

    /// All of them, whoever wrote them.
    pub(super) fn all_requests(&self) -> impl Iterator<Item = &RequestRule> {
        self.layers().into_iter().flatten()
    }

    /// Rules for which tunnels are looked into. In mode `read-only` that opens HTTPS, which those of a profile are not
    /// to do where nobody asked for it.
    fn looking(&self) -> impl Iterator<Item = &RequestRule> {
        let beside = self.profile_requests.iter();
        let beside = beside.filter(|_| self.mode != NetworkMode::ReadOnly);
        self.requests.iter().chain(beside)
    }

    /// Whether what is asked of this host is judged request by request.
    pub fn looks_into(&self, host: &Host, port: u16) -> bool {
        self.looking().any(|rule| rule.is_about(host, port))
    }

    /// Whether it is at any port.
    pub fn looks_into_host(&self, host: &Host) -> bool {
        self.looking().any(|rule| rule.is_about_host(host))
    }

    /// Whether there are any rules about requests.
    pub fn has_requests(&self) -> bool {
        self.all_requests().next().is_some()
    }

    /// Decides about a request to a host that may have rules: which fields are set, or why it stays inside. Where
    /// rules name methods or paths, one of those must let it out; where a profile's do, one of these too. What rules
    /// that name neither say of fields holds beside that. The fields of the profile come last, and count.
    ///
    /// # Errors
    /// A verdict that denies.
    pub fn judge(&self, asked: Request<'_>) -> Result<Vec<(&str, &str)>, Box<Verdict>> {
        let mut set = Vec::new();
        for rules in self.layers() {
            set.extend(judge_by(rules, asked)?);
        }
        Ok(set)
    }

    /// Denies what rules about a host leave no room for: a tunnel that nobody can look into, and every port that
    /// none of them is about.
    pub(super) fn off_rules(&self, is_tunnel: bool, host: &Host, port: u16) -> Option<Verdict> {
        let mut layers = self.layers().into_iter();
        let rule = layers.find_map(|rules| off_layer(rules, is_tunnel, host, port));
        rule.map(|rule| denied(Denial::HttpRule, rule))
    }

    /// The rule that narrows what may be asked of a host.
    pub(super) fn narrowing(&self, host: &Host) -> Option<&RequestRule> {
        let mut rules = self.all_requests();
        rules.find(|rule| rule.narrows() && rule.is_about_host(host))
    }

    /// Whether what may be asked of some name is narrowed.
    pub(super) fn narrows_a_name(&self) -> bool {
        let mut rules = self.all_requests();
        rules.any(|rule| rule.narrows() && rule.host.is_name())
    }

    /// The rule that names a host as an entry of `allow` does. Where E2B's lists hold, they alone let out.
    pub(super) fn allowing_rule(&self, host: &Host, port: u16) -> Option<&RequestRule> {
        let counts = matches!(self.mode, NetworkMode::Allowlist | NetworkMode::ReadOnly);
        let mut rules = self.requests.iter().filter(|_| counts);
        rules.find(|rule| rule.is_about(host, port))
    }
}

fn denied(denial: Denial, rule: &RequestRule) -> Verdict {
    Verdict {
        denial: Some(denial),
        rule: Rule::Request(rule.clone()),
    }
}

fn judge_by<'r>(
    rules: &'r [RequestRule],
    asked: Request<'_>,
) -> Result<impl Iterator<Item = (&'r str, &'r str)> + use<'r>, Box<Verdict>> {
    let about = |rule: &&RequestRule| rule.is_about(asked.host, asked.port);
    let rules: Vec<&RequestRule> = rules.iter().filter(about).collect();
    let with_paths = rules.iter().find(|rule| !rule.paths.is_empty());
    if let Some(rule) = with_paths.filter(|_| is_odd(asked.path)) {
        return Err(Box::new(denied(Denial::OddPath, rule)));
    }
    if let Some(rule) = refusing(&rules, asked) {
        return Err(Box::new(denied(Denial::HttpRule, rule)));
    }
    let letting: Vec<&RequestRule> = rules
        .into_iter()
        .filter(|rule| rule.matches(asked))
        .collect();
    let set = letting.into_iter().flat_map(|rule| &rule.set);
    Ok(set.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The rule by which a request stays inside. One about all requests is no way out beside the others: written down to
/// refuse a field, it would open every method and path.
fn refusing<'r>(rules: &[&'r RequestRule], asked: Request<'_>) -> Option<&'r RequestRule> {
    let (all, ways): (Vec<&RequestRule>, Vec<&RequestRule>) =
        rules.iter().copied().partition(|rule| rule.is_about_all());
    if let Some(rule) = all.into_iter().find(|rule| !rule.suits(asked.fields)) {
        return Some(rule);
    }
    if ways.iter().any(|rule| rule.matches(asked)) {
        return None;
    }
    // One that names the method and the path says more of what is missing.
    let near = ways
        .iter()
        .find(|rule| rule.names(asked.method, asked.path));
    near.or_else(|| ways.first()).copied()
}

fn off_layer<'r>(
    rules: &'r [RequestRule],
    is_tunnel: bool,
    host: &Host,
    port: u16,
) -> Option<&'r RequestRule> {
    let mut about = rules.iter().filter(|rule| rule.is_about_host(host));
    if rules.iter().any(|rule| rule.is_about(host, port)) {
        about.find(|rule| is_tunnel && rule.is_about(host, port))
    } else {
        about.find(|rule| rule.narrows())
    }
}

/// Whether some server could read another path there.
fn is_odd(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    // `%c0` and `%c1` begin no character, nor do the others that are cut off here; old servers read `%c0%ae` and
    // `%e0%80%ae` as a dot, and `%u002e` too.
    let hidden = [
        "%2e", "%2f", "%5c", "%00", "%25", "%u", "%c0", "%c1", "%e0%8", "%e0%9", "%f0%8", "%f8%8",
        "%fc%8", "\\", ";",
    ];
    let mut parts = path.split('/').skip(1).peekable();
    let mut is_odd = !path.starts_with('/') || hidden.iter().any(|text| lower.contains(text));
    // Who reads escapes twice makes `%2e` of `%%32e`: the first sign of a percent is none of an escape.
    is_odd |= lower.split('%').skip(1).any(|rest| !is_escape(rest));
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        is_odd |= part == "." || part == ".." || (part.is_empty() && !is_last);
    }
    is_odd
}

/// Whether this begins with the two digits that belong behind the sign, RFC 3986 section 2.1.
fn is_escape(rest: &str) -> bool {
    let mut digits = rest.bytes().take(2);
    digits.len() == 2 && digits.all(|byte| byte.is_ascii_hexdigit())
}

/// Fields that say where a request goes and where it ends, or what is between two neighbours. RFC 9110 section
/// 7.6.1.
const NOT_SET: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether text is the name of a field: RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=limits::REQUEST_FIELD_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(token)
}

/// Whether text is a value of a field. RFC 9110 section 5.5: an end of a line would be a field of somebody else's.
fn is_value(text: &str) -> bool {
    let plain = |b: u8| b == b' ' || b.is_ascii_graphic();
    let is_short = text.len() <= limits::REQUEST_FIELD_BYTES_MAX;
    is_short && text.trim() == text && text.bytes().all(plain)
}

/// Whether a field of a header may be set.
pub(crate) fn may_be_set(name: &str) -> bool {
    is_token(name) && !NOT_SET.contains(&name.to_ascii_lowercase().as_str())
}

/// Reads rules. What is wrong is found with its place below `field`.
pub(super) fn read(field: &str, asked: &[RequestAsked], found: &mut Findings) -> Vec<RequestRule> {
    found.count(field, asked.len(), limits::REQUEST_RULES_MAX);
    let bytes: usize = asked.iter().map(bytes).sum();
    if bytes > limits::REQUEST_RULES_BYTES_MAX {
        let most = limits::REQUEST_RULES_BYTES_MAX;
        let message = format!("{bytes} bytes of rules are too many; there may be {most}");
        found.add(field, CODE, message);
    }
    let numbered = asked.iter().enumerate().take(limits::REQUEST_RULES_MAX);
    let read = |(index, one)| read_one(&format!("{field}[{index}]"), one, &mut *found);
    numbered.filter_map(read).collect()
}

fn bytes(asked: &RequestAsked) -> usize {
    let fields = asked.require.iter().chain(&asked.set);
    let fields = fields.map(|(name, value)| name.len() + value.len());
    let lists = asked.methods.iter().chain(&asked.paths);
    let lists = lists.chain(&asked.refuse).map(String::len);
    asked.host.len() + fields.chain(lists).sum::<usize>()
}

fn read_one(field: &str, asked: &RequestAsked, found: &mut Findings) -> Option<RequestRule> {
    let before = found.0.len();
    let host = match asked.host.parse::<Entry>() {
        Ok(entry) if entry.is_host() => Some(entry),
        Ok(_) | Err(_) => {
            let message =
                "a rule is about HOST, *.DOMAIN or ADDRESS; the port has a field of its own";
            found.add(format!("{field}.host"), CODE, message);
            None
        }
    };
    if asked.port == Some(0) {
        found.add(format!("{field}.port"), CODE, "a port is 1 to 65535");
    }
    let most = limits::REQUEST_RULE_LIST_MAX;
    found.count(&format!("{field}.methods"), asked.methods.len(), most);
    for (index, method) in asked.methods.iter().enumerate().take(most) {
        if !is_method(method) {
            let message = "a method is written in capitals, such as GET; CONNECT is none of a host";
            found.add(format!("{field}.methods[{index}]"), CODE, message);
        }
    }
    found.count(&format!("{field}.paths"), asked.paths.len(), most);
    for (index, path) in asked.paths.iter().enumerate().take(most) {
        if !is_path(path) {
            let message = "a path is /exact or /below/*, without a query, dots, encoded slashes and empty parts";
            found.add(format!("{field}.paths[{index}]"), CODE, message);
        }
    }
    field::check(field, asked, found);
    read_set(field, &asked.set, found);
    let host = host.filter(|_| found.0.len() == before)?;
    Some(RequestRule {
        host,
        port: asked.port,
        methods: asked.methods.clone(),
        paths: asked.paths.iter().cloned().map(PathPattern::from).collect(),
        require: asked.require.clone(),
        refuse: asked.refuse.clone(),
        set: asked.set.clone(),
    })
}

fn read_set(field: &str, set: &BTreeMap<String, String>, found: &mut Findings) {
    let place = format!("{field}.headers.set");
    found.count(&place, set.len(), limits::REQUEST_RULE_LIST_MAX);
    for (name, value) in set.iter().take(limits::REQUEST_RULE_LIST_MAX) {
        if !may_be_set(name) {
            let message = "a field has the name of one, and is not about the connection";
            found.add(place.clone(), CODE, message);
        }
        if !is_value(value) {
            let message =
                "a value is printable ASCII without spaces at its ends, at most 4096 of it";
            found.add(place.clone(), CODE, message);
        }
    }
}

fn is_method(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_uppercase() || b == b'-';
    !text.is_empty() && text.len() <= 32 && text.bytes().all(plain) && text != "CONNECT"
}

fn is_path(text: &str) -> bool {
    let path = text.strip_suffix('*').unwrap_or(text);
    let below = path.len() < text.len();
    let plain = |b: u8| b.is_ascii_graphic() && !b"*?#".contains(&b);
    text.len() <= limits::REQUEST_PATH_BYTES_MAX
        && path.bytes().all(plain)
        && !is_odd(path)
        && (!below || path.ends_with('/'))
}

#[cfg(test)]
mod tests;
