//! Whether the values of a configuration can be: the same for `config check` and for those who start with it, so
//! that what was checked starts. The bounds are those of `up`.

use super::{Approvals, Node, Server};
use crate::cli::args::SPARES_MAX;
use crate::cli::failure::Failure;
use crate::dial;
use crate::up::check_trust;
use api::Code;
use api::client::{Endpoint, Token};
use model::limits::{
    NODE_JOBS_MAX, NODE_LABELS_MAX, NODE_SANDBOXES_MAX, RATE_BURST_MAX, ROOTS_MAX,
};
use model::place::{OF_ITSELF, is_label};
use model::rate::{Class, Rates};
use model::root::RootName;
use std::path::Path;

/// The name that people give a machine: the same bound as where it is enrolled.
const NAME_BYTES_MAX: usize = 255;
/// What a side of a label is.
const LABEL: &str = "1 to 63 letters, digits and - _ . /";

/// Refuses the first value of a server that cannot be.
pub(super) fn server(server: &Server) -> Result<(), Failure> {
    state("server", &server.state)?;
    if let Some(listen) = server.listen
        && !listen.ip().is_loopback()
        && server.tls.is_none()
    {
        let why = format!("is `{listen}`: without `tls` only loopback addresses are served");
        let hint = "add `tls` and `domain`, or listen on 127.0.0.1";
        return Err(wrong("server.listen", &why).hint(hint));
    }
    if let Some(domain) = &server.domain {
        let parsed = domain.parse::<server::Domain>();
        parsed.map_err(|error| wrong("server.domain", &format!("failed to {error}")))?;
    }
    if let Some(tls) = server.tls.as_ref().filter(|tls| *tls != "self") {
        if !tls.contains(',') {
            let why = format!("is `{tls}`: say `self`, or CERT.pem,KEY.pem");
            return Err(wrong("server.tls", &why));
        }
        if server.domain.is_none() {
            return Err(wrong(
                "server.domain",
                "is missing: the certificate in `tls` is for it",
            ));
        }
    }
    if let Some(approvals) = &server.approvals {
        self::approvals(approvals)?;
    }
    for name in server.nodes.iter().flat_map(|nodes| &nodes.names) {
        if !dial::is_name(name) {
            let why = format!("has `{name}`, which is neither a name nor an address of a machine");
            let hint = "write what nodes dial, without https:// and without a port";
            return Err(wrong("server.nodes.names", &why).hint(hint));
        }
    }
    Ok(())
}

/// Refuses the first rate that is none.
pub(super) fn rates(rates: &Rates) -> Result<(), Failure> {
    for class in Class::ALL {
        if !rates.of(class).is_valid() {
            let why = format!("has a number that is not 1 to {RATE_BURST_MAX}");
            let hint = "without a rate, `off = true` in development says so for all";
            return Err(wrong(&format!("rates.{}", class.as_str()), &why).hint(hint));
        }
    }
    Ok(())
}

fn approvals(approvals: &Approvals) -> Result<(), Failure> {
    let url = approvals.webhook.as_deref();
    let url = url.ok_or_else(|| wrong("server.approvals.webhook", "is missing"))?;
    crate::webhook::check(url).map_err(|why| wrong("server.approvals.webhook", &why))?;
    if approvals.webhook_secret_file.is_none() {
        let why = "is missing: without a signature anybody could say what this server says";
        return Err(wrong("server.approvals.webhook_secret_file", why));
    }
    Ok(())
}

/// Refuses the first value of a node that cannot be.
pub(super) fn node(node: &Node) -> Result<(), Failure> {
    state("node", &node.state)?;
    for url in &node.server {
        // The token does not matter here.
        let is_plain = Endpoint::parse(url, Some(Token::new("x"))).is_ok();
        let is_plain = is_plain && url.starts_with("http://");
        if !is_plain && !dial::is_server(url) {
            return Err(wrong(
                "node.server",
                &format!("is `{url}` and not https://HOST:PORT"),
            ));
        }
    }
    if let Some(name) = &node.name
        && (name.is_empty() || name.len() > NAME_BYTES_MAX)
    {
        let why = format!("has {} bytes and not 1 to {NAME_BYTES_MAX}", name.len());
        return Err(wrong("node.name", &why));
    }
    labels(node)?;
    between("node.slots", node.slots, 1, NODE_JOBS_MAX)?;
    between("node.sandboxes", node.sandboxes, 0, NODE_SANDBOXES_MAX)?;
    between("node.spares", node.spares, 0, SPARES_MAX)?;
    roots(&node.roots)?;
    for text in &node.egress_allow {
        let parsed = text.parse::<::node::Exception>();
        parsed.map_err(|error| {
            let hint = "such as 10.1.2.3, 10.1.0.0/16:443 or [fd00::1]:443";
            wrong("node.egress_allow", &format!("has `{text}`: {error}")).hint(hint)
        })?;
    }
    check_trust(&node.egress_trust)?;
    let urls = [
        ("node.pip_index", &node.pip_index),
        ("node.npm_registry", &node.npm_registry),
    ];
    for (key, url) in urls
        .into_iter()
        .filter_map(|(key, url)| Some((key, url.as_ref()?)))
    {
        let parsed = url.parse::<::node::Source>();
        parsed.map_err(|error| {
            let why = format!("is `{url}`: failed to {error}");
            wrong(key, &why).hint("such as https://pypi.org/simple")
        })?;
    }
    if !["linux", "fake"].contains(&node.driver.as_str()) {
        let why = format!("is `{}` and neither `linux` nor `fake`", node.driver);
        return Err(wrong("node.driver", &why));
    }
    Ok(())
}

/// As the server would refuse them, when the node comes.
fn labels(node: &Node) -> Result<(), Failure> {
    let keys = || node.labels.keys().map(|key| ("node.labels", key));
    let tags = || node.tags.iter().map(|tag| ("node.tags", tag));
    for (at, name) in keys().chain(tags()) {
        if !is_label(name) {
            return Err(wrong(at, &format!("has `{name}`, which is not {LABEL}")));
        }
        if OF_ITSELF.contains(&name.as_str()) {
            let why = format!("has `{name}`, which each node has of itself");
            let failure = wrong(at, &why);
            return Err(failure.hint("take it out; what sort of machine it is says `kind`"));
        }
    }
    for (key, value) in &node.labels {
        if !value.is_empty() && !is_label(value) {
            let why = format!("has `{key}` with `{value}`, which is not {LABEL}");
            return Err(wrong("node.labels", &why));
        }
    }
    if let Some(tag) = node.tags.iter().find(|tag| node.labels.contains_key(*tag)) {
        let why = format!("has `{tag}`, which is in `labels` too");
        return Err(wrong("node.tags", &why));
    }
    let count = node.labels.len() + node.tags.len();
    if count > NODE_LABELS_MAX {
        let why = format!("and `tags` have {count} and not at most {NODE_LABELS_MAX} together");
        return Err(wrong("node.labels", &why));
    }
    Ok(())
}

fn roots(asked: &[String]) -> Result<(), Failure> {
    if asked.len() > ROOTS_MAX {
        let why = format!("has {} and not at most {ROOTS_MAX}", asked.len());
        return Err(wrong("node.roots", &why));
    }
    for text in asked {
        let pair = text.split_once('=').filter(|(_, dir)| !dir.is_empty());
        let (name, _) = pair.ok_or_else(|| {
            let why = format!("has `{text}` and not NAME=DIR");
            wrong("node.roots", &why).hint("such as debian:bookworm=/srv/roots/bookworm")
        })?;
        let parsed = name.parse::<RootName>();
        parsed.map_err(|error| wrong("node.roots", &format!("has `{name}`: {error}")))?;
    }
    Ok(())
}

/// One that depends on where the program is started would be another one from a unit than from a shell.
fn state(part: &str, dir: &Path) -> Result<(), Failure> {
    if dir.is_absolute() {
        return Ok(());
    }
    let why = format!("is `{}`, which does not begin with /", dir.display());
    Err(wrong(&format!("{part}.state"), &why))
}

fn between(key: &str, value: u32, least: u32, most: u32) -> Result<(), Failure> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, &format!("is {value} and not {least} to {most}")))
}

pub(super) fn wrong(key: &str, why: &str) -> Failure {
    Failure::new(Code::ConfigInvalid, format!("`{key}` {why}"))
}
