//! What a sandbox may reach, as E2B's clients say it: two lists, of which `allowOut` counts first, and everything
//! that neither names is let out.

use model::block::Block;
use model::limits;
use model::network::{
    BadEntry, Entry, NetworkMode, NetworkRules, Order, RequestAsked, RequestRule, Upstream,
};
use model::secret::{SecretHow, SecretUse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::NetworkChange;
use std::collections::BTreeMap;

use super::refusal::Refusal;
use super::wire::refuse;

/// What the SDKs call `ALL_TRAFFIC`.
const EVERYTHING: &str = "0.0.0.0/0";

/// The lists, and what belongs to them and is not known here.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lists {
    allow_out: Option<Vec<String>>,
    deny_out: Option<Vec<String>>,
    dns_servers: Option<Value>,
    egress_proxy: Option<EgressProxy>,
    rules: Option<Value>,
    allow_in: Option<Value>,
    deny_in: Option<Value>,
}

/// A SOCKS5 proxy that connections leave through.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct EgressProxy {
    address: String,
    username: Option<String>,
    password: Option<String>,
    tls: Option<Value>,
}

impl EgressProxy {
    fn upstream(&self) -> Result<Upstream, Refusal> {
        let is_off =
            |tls: &Value| tls.is_null() || *tls == json!(false) || tls["enabled"] == json!(false);
        if !self.tls.as_ref().is_none_or(is_off) {
            let why = "network.egressProxy.tls: the proxy is spoken to without TLS; leave it out";
            return Err(Refusal::bad(why));
        }
        let user = self.username.as_deref();
        if user.is_none() && self.password.is_some() {
            let why = "network.egressProxy.password: a password goes with a username";
            return Err(Refusal::bad(why));
        }
        Upstream::of(&self.address, user).map_err(|_| {
            Refusal::bad("network.egressProxy: an address is HOST:PORT, and a username plain text without `@:/`")
        })
    }

    /// The secret that its password is.
    fn secret(&self) -> Result<Option<SecretUse>, Refusal> {
        let Some(password) = &self.password else {
            return Ok(None);
        };
        let name = password
            .strip_prefix(BEFORE)
            .and_then(|rest| rest.strip_suffix(AFTER));
        let name = name.ok_or_else(|| {
            Refusal::bad(
                "network.egressProxy.password: passwords are kept as secrets here: make one, and give \
                 `Secret.fill(NAME)` instead",
            )
        })?;
        Ok(Some(SecretUse {
            name: name.to_owned(),
            id: None,
            version: 0,
            how: SecretHow::Upstream,
        }))
    }
}

/// The body that puts other lists in the place of those that there are; what it leaves out is empty.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct NetworkUpdate {
    #[serde(flatten)]
    lists: Lists,
    allow_internet_access: Option<bool>,
}

impl NetworkUpdate {
    /// What is asked, in the words of the house. Secrets that are named stand in the place of all that there are;
    /// where none is, those stay and are not added, so that another door can have them added again.
    ///
    /// # Errors
    /// A refusal that names what there is not, or is no entry.
    pub(crate) fn change(&self, has: &[SecretUse]) -> Result<NetworkChange, Refusal> {
        let asked = self.lists.secrets()?;
        let is_header = |one: &SecretUse| matches!(one.how, SecretHow::Header { .. });
        let rules = NetworkRules {
            withhold_secrets: asked.is_empty() && has.iter().any(is_header),
            ..self.lists.rules(self.allow_internet_access)?
        };
        let secrets = (!asked.is_empty()).then_some(asked);
        Ok(NetworkChange { rules, secrets })
    }
}

/// A rule about requests to a host.
#[derive(Debug, Deserialize)]
struct HostRule {
    transform: Option<Transform>,
}

/// What is changed of them.
#[derive(Debug, Deserialize)]
struct Transform {
    headers: Option<BTreeMap<String, String>>,
}

/// Where the SDKs' `Secret.fill` has the name of a secret.
const BEFORE: &str = "${e2b.secrets.";
const AFTER: &str = "}";

/// A header field with the one secret that it holds.
fn with_secret(host: &str, header: &str, value: &str) -> Option<SecretUse> {
    let (before, rest) = value.split_once(BEFORE)?;
    let (name, after) = rest.split_once(AFTER)?;
    let has_more = [before, after]
        .iter()
        .any(|text| text.contains("${") || text.contains("{}"));
    (!has_more).then(|| SecretUse {
        name: name.to_owned(),
        id: None,
        version: 0,
        how: SecretHow::Header {
            host: host.to_lowercase(),
            header: header.to_owned(),
            format: format!("{before}{{}}{after}"),
        },
    })
}

/// What is set on requests to hosts: secrets, and fields that everybody may see.
type Transforms = (Vec<SecretUse>, Vec<RequestAsked>);

impl Lists {
    /// Whether anything is listed.
    pub(super) fn is_any(&self) -> bool {
        let mut lists = [&self.allow_out, &self.deny_out].into_iter().flatten();
        lists.any(|list| !list.is_empty())
    }

    /// The secrets that are added to requests.
    ///
    /// # Errors
    /// As for [`Lists::transforms`].
    pub(super) fn secrets(&self) -> Result<Vec<SecretUse>, Refusal> {
        let (mut secrets, _) = self.transforms()?;
        if let Some(proxy) = &self.egress_proxy {
            secrets.extend(proxy.secret()?);
        }
        Ok(secrets)
    }

    /// What is done to requests.
    ///
    /// # Errors
    /// A refusal of what can be filled in elsewhere and not here.
    fn transforms(&self) -> Result<Transforms, Refusal> {
        let Some(rules) = self.rules.clone().filter(|rules| !rules.is_null()) else {
            return Ok(Transforms::default());
        };
        let rules: BTreeMap<String, Vec<HostRule>> = serde_json::from_value(rules)
            .map_err(|_| Refusal::bad("network.rules: hosts, each with a list of transforms"))?;
        let (mut secrets, mut plain) = Transforms::default();
        for (host, rules) in &rules {
            let transforms = rules.iter().filter_map(|rule| rule.transform.as_ref());
            let mut set = BTreeMap::new();
            for (header, value) in transforms.filter_map(|one| one.headers.as_ref()).flatten() {
                if !value.contains("${") {
                    set.insert(header.clone(), value.clone());
                    continue;
                }
                secrets.push(with_secret(host, header, value).ok_or_else(|| {
                    Refusal::bad(
                        "network.rules: a header holds plain text, or one secret as `Secret.fill` says it; \
                         nothing else is filled in",
                    )
                })?);
            }
            if !set.is_empty() {
                plain.push(RequestAsked {
                    host: host.clone(),
                    set,
                    ..RequestAsked::default()
                });
            }
        }
        Ok((secrets, plain))
    }

    /// The same, beside whether there is a network at all.
    ///
    /// # Errors
    /// As for [`NetworkUpdate::change`].
    pub(super) fn rules(&self, open: Option<bool>) -> Result<NetworkRules, Refusal> {
        refuse("network.dnsServers", self.dns_servers.as_ref()).map_err(|_| {
            Refusal::bad(
                "network.dnsServers: names are answered inside the sandbox, for what the rules allow, and \
                 UDP goes nowhere else; leave it out, or give []",
            )
        })?;
        refuse("network.allowIn", self.allow_in.as_ref())?;
        refuse("network.denyIn", self.deny_in.as_ref())?;
        let (_, plain) = self.transforms()?;
        let upstream = self
            .egress_proxy
            .as_ref()
            .map(EgressProxy::upstream)
            .transpose()?;
        let requests = RequestRule::read(&plain).map_err(|found| {
            let first = found
                .first()
                .map(|one| format!("{}: {}", one.field, one.message));
            Refusal::bad(first.unwrap_or_default())
        })?;
        let allow = entries("network.allowOut", self.allow_out.as_deref())?;
        let mut deny = entries("network.denyOut", self.deny_out.as_deref())?;
        if deny.iter().any(Entry::is_name) {
            let message = "network.denyOut: addresses and blocks can be denied, names cannot; deny \
                           0.0.0.0/0 and allow names";
            return Err(Refusal::bad(message));
        }
        if open == Some(false) {
            deny.insert(0, Entry::everything());
        }
        let is_closed = deny.iter().any(Entry::is_everything);
        // Where everything else is let out, allowing a name would mean nothing, and is a mistake of somebody's.
        if allow.iter().any(Entry::is_name) && !is_closed {
            let message = "network.allowOut: names can be allowed where denyOut has 0.0.0.0/0, which is \
                           everything else";
            return Err(Refusal::bad(message));
        }
        if is_closed && allow.is_empty() {
            return Ok(NetworkRules::all_or_nothing(false));
        }
        let order = if allow.is_empty() {
            Order::default()
        } else {
            Order::AllowFirst
        };
        Ok(NetworkRules {
            mode: NetworkMode::Unrestricted,
            allow,
            deny,
            order,
            requests,
            upstream,
            ..NetworkRules::default()
        })
    }
}

fn entries(field: &str, texts: Option<&[String]>) -> Result<Vec<Entry>, Refusal> {
    let texts = texts.unwrap_or_default();
    let most = limits::NETWORK_ENTRIES_MAX;
    if texts.len() > most {
        return Err(Refusal::bad(format!("{field}: at most {most} entries")));
    }
    let read = |text: &String| {
        entry(text).map_err(|why| {
            let text: String = text.chars().take(limits::PROFILE_BYTES_MAX).collect();
            Refusal::bad(format!("{field}: `{text}`: failed to {why}"))
        })
    };
    texts.iter().map(read).collect()
}

/// An entry of theirs. A block may be written by any of its addresses.
fn entry(text: &str) -> Result<Entry, BadEntry> {
    if text == EVERYTHING {
        return Ok(Entry::everything());
    }
    match Block::around(text) {
        Some(block) => block.to_string().parse(),
        None => text.parse(),
    }
}

/// The lists, as they are shown.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListsView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow_out: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny_out: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rules: BTreeMap<String, Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_proxy: Option<Value>,
}

/// Rules that were made at another door are shown as far as these words go.
pub(super) fn view(rules: &NetworkRules) -> ListsView {
    let text = |entry: &Entry| {
        if entry.is_everything() {
            EVERYTHING.to_owned()
        } else {
            entry.to_string()
        }
    };
    let presets = rules.presets.iter().flat_map(|preset| preset.hosts());
    let presets = presets.map(ToString::to_string);
    let mut deny_out: Vec<String> = rules.deny.iter().map(text).collect();
    let is_closed = matches!(rules.mode, NetworkMode::None | NetworkMode::Allowlist);
    if is_closed && !deny_out.iter().any(|one| one == EVERYTHING) {
        deny_out.push(EVERYTHING.to_owned());
    }
    ListsView {
        allow_out: rules.allow.iter().map(text).chain(presets).collect(),
        deny_out,
        rules: transforms(rules),
        egress_proxy: rules.upstream.as_ref().map(proxy),
    }
}

/// The proxy without its password, which is not known here.
fn proxy(upstream: &Upstream) -> Value {
    match upstream.user() {
        None => json!({"address": upstream.address()}),
        Some(user) => json!({"address": upstream.address(), "username": user}),
    }
}

/// What is set on requests, as far as it is no secret.
fn transforms(rules: &NetworkRules) -> BTreeMap<String, Vec<Value>> {
    let mut shown: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for rule in rules.requests.iter().filter(|rule| rule.only_sets()) {
        let asked = rule.asked();
        let transform = json!({"transform": {"headers": asked.set}});
        shown.entry(asked.host).or_default().push(transform);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> String {
        let update: NetworkUpdate = serde_json::from_str(body).unwrap();
        match update.change(&[]).map(|change| change.rules) {
            Ok(rules) => {
                let shown = view(&rules);
                let order = match rules.order {
                    Order::AllowFirst => " allow first",
                    Order::DenyFirst => "",
                };
                format!(
                    "{}{order} +{:?} -{:?}",
                    rules.mode, shown.allow_out, shown.deny_out
                )
            }
            Err(refusal) => {
                let text = refusal.to_string();
                let place = text.split(": ").next().unwrap_or_default();
                place.trim_start_matches("400 ").to_owned()
            }
        }
    }

    #[test]
    fn a_header_holds_one_secret_and_goes_to_its_host() {
        let read = |rules: &str| {
            let lists: Lists = serde_json::from_str(&format!("{{\"rules\":{rules}}}")).unwrap();
            let uses = lists.secrets().map_err(|refusal| refusal.to_string())?;
            let one = |one: SecretUse| match one.how {
                SecretHow::Header {
                    host,
                    header,
                    format,
                } => format!("{} {host} {header} {format}", one.name),
                other @ (SecretHow::File | SecretHow::Env { .. } | SecretHow::Upstream) => {
                    format!("{other:?}")
                }
            };
            Ok::<_, String>(uses.into_iter().map(one).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(read("null").unwrap(), "");
        assert_eq!(read(r#"{"a.test":[{}]}"#).unwrap(), "");
        let rules = r#"{"API.test":[{"transform":{"headers":{"Authorization":"Bearer ${e2b.secrets.key}"}}}],
            "*.b.test":[{"transform":{"headers":{"x":"${e2b.secrets.other}"}}}]}"#;
        assert_eq!(
            read(rules).unwrap(),
            "other *.b.test x {}, key api.test Authorization Bearer {}"
        );
        for value in [
            "${e2b.secrets.a",
            "${e2b.secrets.a} ${e2b.secrets.b}",
            "{} ${e2b.secrets.a}",
            "${e2b.identity.tokens.aws}",
        ] {
            let rules =
                format!(r#"{{"a.test":[{{"transform":{{"headers":{{"x":"{value}"}}}}}}]}}"#);
            assert!(
                read(&rules).unwrap_err().contains("network.rules"),
                "{value}"
            );
        }
        assert!(read("[1]").is_err());
    }

    #[test]
    fn plain_headers_are_set_and_an_update_names_all_secrets_or_takes_them_away() {
        let read = |body: &str, has: &[SecretUse]| {
            let update: NetworkUpdate = serde_json::from_str(body).unwrap();
            update.change(has).map(|change| change.rules)
        };
        let plain = r#"{"rules":{"A.test":[{"transform":{"headers":{"x":"1"}}},
            {"transform":{"headers":{"x":"2","y":"3"}}}]}}"#;
        let rules = read(plain, &[]).unwrap();
        let shown = serde_json::to_value(view(&rules)).unwrap();
        assert_eq!(
            shown["rules"],
            json!({"a.test": [{"transform": {"headers": {"x": "2", "y": "3"}}}]})
        );
        assert!(!rules.withhold_secrets && rules.mode == NetworkMode::Unrestricted);
        // A rule opens nothing by itself.
        let closed = format!(r#"{{"denyOut":["0.0.0.0/0"],{}"#, &plain[1..]);
        assert_eq!(read(&closed, &[]).unwrap().mode, NetworkMode::None);
        let two = r#"{"rules":{"a.test":[{"transform":{"headers":{
            "x":"${e2b.secrets.k}","y":"${e2b.secrets.l}"}}}]}}"#;
        let lists: Lists = serde_json::from_str(two).unwrap();
        let has = lists.secrets().unwrap();
        assert!(!read(two, &has).unwrap().withhold_secrets);
        assert!(read(plain, &has).unwrap().withhold_secrets);
        assert!(read("{}", &has).unwrap().withhold_secrets);
        let one = r#"{"rules":{"a.test":[{"transform":{"headers":{"x":"${e2b.secrets.k}"}}}]}}"#;
        assert!(!read(one, &has).unwrap().withhold_secrets);
        let update: NetworkUpdate = serde_json::from_str(one).unwrap();
        let lists: Lists = serde_json::from_str(one).unwrap();
        assert_eq!(
            update.change(&has).unwrap().secrets,
            Some(lists.secrets().unwrap())
        );
        let update: NetworkUpdate = serde_json::from_str(plain).unwrap();
        assert_eq!(update.change(&has).unwrap().secrets, None);
    }

    /// The cases that are refused and taken are those of E2B's own documents and answers.
    #[test]
    fn lists_are_read_as_e2b_means_them() {
        for (body, expect) in [
            ("{}", "unrestricted +[] -[]"),
            (r#"{"allowOut":[],"denyOut":null}"#, "unrestricted +[] -[]"),
            (r#"{"allow_internet_access":true}"#, "unrestricted +[] -[]"),
            (
                r#"{"allow_internet_access":false}"#,
                r#"none +[] -["0.0.0.0/0"]"#,
            ),
            (r#"{"denyOut":["0.0.0.0/0"]}"#, r#"none +[] -["0.0.0.0/0"]"#),
            (
                r#"{"denyOut":["8.8.8.8"]}"#,
                r#"unrestricted +[] -["8.8.8.8"]"#,
            ),
            (
                r#"{"denyOut":["8.8.8.8/24"]}"#,
                r#"unrestricted +[] -["8.8.8.0/24"]"#,
            ),
            (
                r#"{"denyOut":["0.0.0.0/0"],"allowOut":["8.8.8.8"]}"#,
                r#"unrestricted allow first +["8.8.8.8"] -["0.0.0.0/0"]"#,
            ),
            (
                r#"{"allow_internet_access":false,"allowOut":["*.Example.com"]}"#,
                r#"unrestricted allow first +["*.example.com"] -["0.0.0.0/0"]"#,
            ),
            (
                r#"{"allowOut":["8.8.8.8"],"denyOut":["10.0.0.0/8"]}"#,
                r#"unrestricted allow first +["8.8.8.8"] -["10.0.0.0/8"]"#,
            ),
            (
                r#"{"allowOut":["8.8.0.0/16"]}"#,
                r#"unrestricted allow first +["8.8.0.0/16"] -[]"#,
            ),
            (r#"{"denyOut":["example.com"]}"#, "network.denyOut"),
            (
                r#"{"denyOut":["0.0.0.0/0","example.com"]}"#,
                "network.denyOut",
            ),
            (r#"{"denyOut":["not a cidr"]}"#, "network.denyOut"),
            (r#"{"allowOut":["google.com"]}"#, "network.allowOut"),
            (
                r#"{"allowOut":["*.example.com"],"denyOut":["10.0.0.0/8"]}"#,
                "network.allowOut",
            ),
            (
                r#"{"allowOut":["a.*.com"],"denyOut":["0.0.0.0/0"]}"#,
                "network.allowOut",
            ),
        ] {
            assert_eq!(read(body), expect, "{body}");
        }
    }

    #[test]
    fn what_is_beside_the_lists_is_read_or_refused_with_its_place() {
        for (body, expect) in [
            (r#"{"rules":{"a.example":[{}]}}"#, "unrestricted +[] -[]"),
            (
                r#"{"rules":{"a.example":[{"transform":{"headers":{"x":"${e2b.secrets.k}"}}}]}}"#,
                "unrestricted +[] -[]",
            ),
            (
                r#"{"rules":{"10.0.0.0/8":[{"transform":{"headers":{"x":"y"}}}]}}"#,
                "network.rules[0].host",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080"}}"#,
                "unrestricted +[] -[]",
            ),
            (
                r#"{"egressProxy":{"address":"a.test"}}"#,
                "network.egressProxy",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","tls":{"enabled":true}}}"#,
                "network.egressProxy.tls",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","username":"u","password":"p"}}"#,
                "network.egressProxy.password",
            ),
            (r#"{"dnsServers":["1.1.1.1"]}"#, "network.dnsServers"),
            (r#"{"denyIn":["0.0.0.0/0"]}"#, "network.denyIn"),
        ] {
            assert_eq!(read(body), expect, "{body}");
        }
    }
}
