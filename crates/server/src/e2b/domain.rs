//! The domain below which sandboxes have names of their own: `{port}-{id}.{domain}`. Pure.
//!
//! Whoever starts the server vouches for it: a web page whose owner can point names of this domain
//! somewhere else can make them mean us.

use std::str::FromStr;

use http::HeaderMap;
use http::header::HOST;

/// The longest name: a host name has 253 bytes (RFC 1123, 2.1), of which a label for the sandbox and its
/// dot may take 64.
const NAME_BYTES_MAX: usize = 253 - 64;
/// The longest label (RFC 1035, 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A domain of whoever runs the server, and the port at which clients find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    name: String,
    port: Option<u16>,
}

/// This is no domain below which there can be names for sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "take `{0}` for a domain: it has at least two labels of letters, digits and dashes, and maybe a port, as in sbx.localhost:7300"
)]
pub struct BadDomain(String);

impl FromStr for Domain {
    type Err = BadDomain;

    /// Reads `NAME` or `NAME:PORT`.
    fn from_str(text: &str) -> Result<Self, BadDomain> {
        let bad = || BadDomain(text.chars().take(NAME_BYTES_MAX).collect());
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let labels: Vec<&str> = name.split('.').collect();
        // Clients refuse a certificate for `*.localhost` or `*.com`; and what ends in a number is an address.
        let is_address = labels.last().is_none_or(|last| last.parse::<u32>().is_ok());
        let fits = name.len() <= NAME_BYTES_MAX && labels.len() >= 2 && !is_address;
        if !fits || port == Some(0) || !labels.iter().all(|label| is_label(label)) {
            return Err(bad());
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            port,
        })
    }
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let edge = label.starts_with('-') || label.ends_with('-');
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && !edge && label.bytes().all(plain)
}

impl Domain {
    /// The name, in lower case, without a port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port that clients add to it, if it was named.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The label in front of the domain, of a host name in lower case without a port.
    pub(crate) fn label<'a>(&self, host: &'a str) -> Option<&'a str> {
        let label = host.strip_suffix(&self.name)?.strip_suffix('.')?;
        // One label, which is what a wildcard certificate is for.
        (!label.is_empty() && !label.contains('.')).then_some(label)
    }

    /// Whether the control plane is meant: the domain itself, or `api` in front of it.
    pub(crate) fn is_control(&self, host: &str) -> bool {
        host == self.name || self.label(host) == Some("api")
    }

    /// The domain as clients have to write it: with the port that was named, or else the one that this
    /// client dialled, which a tunnel may have changed.
    pub(crate) fn answer(&self, dialled: Option<u16>) -> String {
        let port = self.port.or(dialled);
        match port.filter(|port| *port != HTTPS_PORT) {
            Some(port) => format!("{}:{port}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The port that a URL with `https` means when it names none.
const HTTPS_PORT: u16 = 443;

/// What stands behind the names of a sandbox's ports, for somebody who found us at this host.
pub(crate) fn told(domain: Option<&Domain>, headers: &HeaderMap) -> Option<String> {
    let dialled = || -> Option<u16> {
        let host = headers.get(HOST)?.to_str().ok()?;
        let (_, port) = host.rsplit_once(':')?;
        port.parse().ok()
    };
    match domain {
        Some(domain) => Some(domain.answer(dialled())),
        // Below `localhost` there are names for everybody, and no certificates, so that without a port
        // nobody would find us.
        None => dialled().map(|port| format!("localhost:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_domain_has_two_labels_and_maybe_a_port() {
        for (text, name, port) in [
            ("sbx.localhost", "sbx.localhost", None),
            ("SBX.Example.com:8443", "sbx.example.com", Some(8443)),
            ("a-b.c1", "a-b.c1", None),
        ] {
            let domain: Domain = text.parse().unwrap();
            assert_eq!((domain.name(), domain.port()), (name, port), "{text}");
        }
        let long = format!("{}.example", "a.".repeat(100));
        let label = format!("{}.example", "a".repeat(64));
        for bad in [
            "",
            "localhost",
            "com:1",
            "127.0.0.1",
            "1.2",
            "[::1]",
            "a..b",
            ".a.b",
            "a.b.",
            "-a.b",
            "a-.b",
            "a_b.c",
            "*.a.b",
            "a.b:0",
            "a.b:65536",
            "a.b:",
            "a.b:1:2",
            "a.b/c",
            "a.b c",
            "ä.example",
            &long,
            &label,
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_label_in_front_of_the_domain_is_a_name_below_it() {
        let domain: Domain = "sbx.example".parse().unwrap();
        for (host, expect) in [
            ("api.sbx.example", Some("api")),
            ("3000-a.sbx.example", Some("3000-a")),
            ("sbx.example", None),
            (".sbx.example", None),
            ("a.b.sbx.example", None),
            ("asbx.example", None),
            ("api.sbx.example.evil", None),
        ] {
            assert_eq!(domain.label(host), expect, "{host}");
        }
        assert!(domain.is_control("sbx.example") && domain.is_control("api.sbx.example"));
        assert!(!domain.is_control("sandbox.sbx.example"));
    }

    #[test]
    fn a_client_is_told_the_port_at_which_it_finds_us() {
        let own = |text: &str| Some(text.parse::<Domain>().unwrap());
        for (domain, host, expect) in [
            (None, "127.0.0.1:7300", Some("localhost:7300")),
            (None, "[::1]:7300", Some("localhost:7300")),
            (None, "localhost", None),
            (None, "localhost:x", None),
            (own("a.b"), "api.a.b:7300", Some("a.b:7300")),
            (own("a.b"), "api.a.b", Some("a.b")),
            (own("a.b:8443"), "api.a.b:7300", Some("a.b:8443")),
            (own("a.b:443"), "127.0.0.1:7300", Some("a.b")),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(told(domain.as_ref(), &headers).as_deref(), expect, "{host}");
        }
    }
}
