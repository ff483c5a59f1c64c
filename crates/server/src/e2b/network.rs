//! What a sandbox may reach, as E2B's clients say it: two lists, of which `allowOut` counts first, and everything
//! that neither names is let out.

use model::block::Block;
use model::host::Host;
use model::limits;
use model::network::{
    BadEntry, DnsServer, Entry, NetworkMode, NetworkRules, Order, RequestAsked, RequestRule,
    Secured, Upstream,
};
use model::secret::{SecretHow, SecretUse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{NetworkChange, SecretValue};
use std::collections::BTreeMap;

use super::refusal::Refusal;
use super::wire::refuse;
use crate::convert::network::certificates;

/// What the SDKs call `ALL_TRAFFIC`.
const EVERYTHING: &str = "0.0.0.0/0";

/// The lists, and what belongs to them and is not known here.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lists {
    allow_out: Option<Vec<String>>,
    deny_out: Option<Vec<String>>,
    dns_servers: Option<Vec<String>>,
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
    #[serde(skip_serializing)]
    password: Option<Password>,
    /// What tells one request from another in the stead of the password, whose hash could be tried out.
    #[serde(skip_deserializing)]
    password_is: Option<String>,
    tls: Option<ProxyTls>,
}

/// A password, or a secret in its stead as `Secret.fill` says it. Shown by no `Debug`, and written nowhere.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What the use of a password in clear is called until it is kept.
const GIVEN: &str = "given";

/// The longest password: RFC 1929, section 2.
const PASSWORD_BYTES_MAX: usize = 255;

/// Says what the password in clear is called that was kept.
pub(super) fn name_given(uses: &mut [SecretUse], name: &str) {
    let is_given = |one: &&mut SecretUse| one.how == SecretHow::Upstream && one.name == GIVEN;
    for one in uses.iter_mut().filter(is_given) {
        name.clone_into(&mut one.name);
    }
}

/// How it is spoken to.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyTls {
    enabled: Option<bool>,
    server_name: Option<String>,
    ca_cert: Option<String>,
}

impl ProxyTls {
    fn secured(&self) -> Result<Secured, Refusal> {
        let name = self.server_name.as_deref().map(Host::parse).transpose();
        let name = name.map_err(|_| {
            Refusal::bad("network.egressProxy.tls.serverName: it is no name of a host")
        })?;
        Ok(Secured { name })
    }
}

impl EgressProxy {
    fn upstream(&self) -> Result<Upstream, Refusal> {
        let user = self.username.as_deref();
        if user.is_none() && self.password.is_some() {
            let why = "network.egressProxy.password: a password goes with a username";
            return Err(Refusal::bad(why));
        }
        let upstream = Upstream::of(&self.address, user).map_err(|_| {
            Refusal::bad("network.egressProxy: an address is HOST:PORT, and a username plain text without `@:/`")
        })?;
        Ok(match self.secured() {
            Some(tls) => upstream.secured(tls.secured()?),
            None => upstream,
        })
    }

    /// How TLS is spoken with it, where it is: what says nothing of whether it is on, is.
    fn secured(&self) -> Option<&ProxyTls> {
        self.tls.as_ref().filter(|tls| tls.enabled != Some(false))
    }

    /// Whose word is taken that it is the proxy.
    fn ca(&self) -> Result<Option<String>, Refusal> {
        let Some(pem) = self.secured().and_then(|tls| tls.ca_cert.as_ref()) else {
            return Ok(None);
        };
        let place = "network.egressProxy.tls.caCert";
        if pem.len() > limits::NETWORK_CA_BYTES_MAX {
            let most = limits::NETWORK_CA_BYTES_MAX;
            return Err(Refusal::bad(format!("{place}: at most {most} bytes")));
        }
        let read = certificates(pem);
        read.map_err(|why| Refusal::bad(format!("{place}: {why}")))?;
        Ok(Some(pem.clone()))
    }

    /// The secret that its password is.
    fn secret(&self) -> Result<Option<SecretUse>, Refusal> {
        let Some(Password(password)) = &self.password else {
            return Ok(None);
        };
        let filled = password
            .strip_prefix(BEFORE)
            .and_then(|rest| rest.strip_suffix(AFTER));
        let name = match filled {
            Some(name) => name,
            None => {
                self.clear()?;
                GIVEN
            }
        };
        Ok(Some(SecretUse {
            name: name.to_owned(),
            id: None,
            version: 0,
            how: SecretHow::Upstream,
        }))
    }
}

impl EgressProxy {
    /// The password, where it is one and no secret.
    fn clear(&self) -> Result<Option<&str>, Refusal> {
        let Some(Password(password)) = &self.password else {
            return Ok(None);
        };
        if password.starts_with(BEFORE) && password.ends_with(AFTER) {
            return Ok(None);
        }
        if password.contains("${") || !(1..=PASSWORD_BYTES_MAX).contains(&password.len()) {
            let why = "network.egressProxy.password: it is one secret as `Secret.fill` says it, or a password of 1 to 255 \
                       bytes";
            return Err(Refusal::bad(why));
        }
        Ok(Some(password))
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
    /// As for [`Lists::password`].
    ///
    /// # Errors
    /// The same.
    pub(crate) fn password(&self) -> Result<Option<SecretValue>, Refusal> {
        self.lists.password()
    }

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
    /// The password of the proxy, where it is in clear.
    ///
    /// # Errors
    /// A refusal of what can be none.
    pub(super) fn password(&self) -> Result<Option<SecretValue>, Refusal> {
        let clear = self.egress_proxy.as_ref().map(EgressProxy::clear);
        let clear = clear.transpose()?.flatten();
        Ok(clear.map(|text| SecretValue::new(text.as_bytes().to_vec())))
    }

    /// From now on the request is told from others by this, in the stead of the password in it.
    pub(super) fn bind_password(&mut self, tag: Option<String>) {
        if let Some(proxy) = &mut self.egress_proxy {
            let filled = proxy.password.as_ref().map(|Password(text)| text.clone());
            proxy.password_is = tag.or(filled);
        }
    }

    /// Whether anything is said of where connections go. What a profile or a policy has in the place of that would be
    /// another way than the one that was asked for.
    pub(super) fn is_any(&self) -> bool {
        let lists = [&self.allow_out, &self.deny_out, &self.dns_servers];
        let is_listed = lists.into_iter().flatten().any(|list| !list.is_empty());
        is_listed || self.egress_proxy.is_some()
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
        refuse("network.allowIn", self.allow_in.as_ref())?;
        refuse("network.denyIn", self.deny_in.as_ref())?;
        let (_, plain) = self.transforms()?;
        let proxy = self.egress_proxy.as_ref();
        let upstream = proxy.map(EgressProxy::upstream).transpose()?;
        let upstream_ca = proxy.map(EgressProxy::ca).transpose()?.flatten();
        let dns = self.dns()?;
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
            upstream_ca,
            dns,
            ..NetworkRules::default()
        })
    }

    /// Addresses, as at E2B; a port beside one is taken, too.
    fn dns(&self) -> Result<Vec<DnsServer>, Refusal> {
        let texts = self.dns_servers.as_deref().unwrap_or_default();
        let most = limits::NETWORK_DNS_MAX;
        if texts.len() > most {
            let why = format!("network.dnsServers: at most {most} of them");
            return Err(Refusal::bad(why));
        }
        let read = |text: &String| {
            text.parse()
                .map_err(|_| Refusal::bad("network.dnsServers: each is an address"))
        };
        texts.iter().map(read).collect()
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_servers: Vec<String>,
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
        egress_proxy: rules.upstream.as_ref().map(|one| proxy(one, rules)),
        dns_servers: rules.dns.iter().map(ToString::to_string).collect(),
    }
}

/// The proxy without its password, which is not known here.
fn proxy(upstream: &Upstream, rules: &NetworkRules) -> Value {
    let mut shown = json!({"address": upstream.address()});
    if let Some(user) = upstream.user() {
        shown["username"] = user.into();
    }
    if let Some(tls) = upstream.tls() {
        shown["tls"] = json!({"enabled": true});
        if let Some(name) = &tls.name {
            shown["tls"]["serverName"] = name.to_string().into();
        }
        if let Some(pem) = &rules.upstream_ca {
            shown["tls"]["caCert"] = pem.as_str().into();
        }
    }
    shown
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
                "unrestricted +[] -[]",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","tls":{"enabled":true,"caCert":"x"}}}"#,
                "network.egressProxy.tls.caCert",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","tls":{"serverName":"*.a.test"}}}"#,
                "network.egressProxy.tls.serverName",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","tls":{"enabled":false,"caCert":"x"}}}"#,
                "unrestricted +[] -[]",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","username":"u","password":"p"}}"#,
                "unrestricted +[] -[]",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","password":"p"}}"#,
                "network.egressProxy.password",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","username":"u","password":"${e2b.x}"}}"#,
                "network.egressProxy.password",
            ),
            (
                r#"{"egressProxy":{"address":"a.test:1080","username":"u","password":""}}"#,
                "network.egressProxy.password",
            ),
            (r#"{"dnsServers":["1.1.1.1"]}"#, "unrestricted +[] -[]"),
            (r#"{"dnsServers":["dns.test"]}"#, "network.dnsServers"),
            (
                r#"{"dnsServers":["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]}"#,
                "network.dnsServers",
            ),
            (r#"{"denyIn":["0.0.0.0/0"]}"#, "network.denyIn"),
        ] {
            assert_eq!(read(body), expect, "{body}");
        }
    }

    #[test]
    fn a_password_in_clear_is_shown_by_nothing_and_two_requests_with_others_are_told_apart() {
        let body =
            r#"{"egressProxy":{"address":"a.test:1080","username":"u","password":"hunter22"}}"#;
        let mut lists: Lists = serde_json::from_str(body).unwrap();
        assert_eq!(lists.password().unwrap().unwrap().bytes(), b"hunter22");
        assert_eq!(lists.secrets().unwrap()[0].name, GIVEN);
        lists.bind_password(Some("tag".to_owned()));
        let written = serde_json::to_string(&lists).unwrap();
        assert!(written.contains(r#""password_is":"tag""#), "{written}");
        let shown = format!("{written} {lists:?}");
        assert!(!shown.contains("hunter22"), "{shown}");
        let mut uses = lists.secrets().unwrap();
        name_given(&mut uses, "given.0f");
        assert_eq!(uses[0].name, "given.0f");
        // A secret that somebody calls so is his own.
        let body = body.replace("hunter22", "${e2b.secrets.k}");
        let mut lists: Lists = serde_json::from_str(&body).unwrap();
        assert_eq!(lists.password().unwrap(), None);
        lists.bind_password(None);
        assert!(
            serde_json::to_string(&lists)
                .unwrap()
                .contains("e2b.secrets.k")
        );
    }

    #[test]
    fn a_proxy_or_servers_of_dns_are_never_another_way_than_was_asked_for() {
        for (body, expect) in [
            ("{}", false),
            (r#"{"allowOut":[],"dnsServers":[]}"#, false),
            (r#"{"egressProxy":null}"#, false),
            (r#"{"denyOut":["1.1.1.1"]}"#, true),
            (r#"{"dnsServers":["1.1.1.1"]}"#, true),
            (r#"{"egressProxy":{"address":"a.test:1080"}}"#, true),
        ] {
            let lists: Lists = serde_json::from_str(body).unwrap();
            assert_eq!(lists.is_any(), expect, "{body}");
        }
    }

    #[test]
    fn a_proxy_in_tls_and_servers_of_dns_are_shown_as_they_were_asked_for() {
        let body = r#"{"dnsServers":["1.1.1.1","10.0.0.2:5353"],"egressProxy":{"address":"10.0.0.1:1080",
            "username":"u","tls":{"enabled":true,"serverName":"Proxy.test"}}}"#;
        let update: NetworkUpdate = serde_json::from_str(body).unwrap();
        let rules = update.change(&[]).unwrap().rules;
        let expect = "socks5+tls://u@10.0.0.1:1080?name=proxy.test";
        assert_eq!(rules.upstream.as_ref().unwrap().to_string(), expect);
        let shown = serde_json::to_value(view(&rules)).unwrap();
        assert_eq!(shown["dnsServers"], json!(["1.1.1.1", "10.0.0.2:5353"]));
        assert_eq!(
            shown["egressProxy"],
            json!({"address": "10.0.0.1:1080", "username": "u",
                "tls": {"enabled": true, "serverName": "proxy.test"}})
        );
    }
}
