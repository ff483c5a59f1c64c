//! Rules about requests: which methods and paths of a host are let out, and which header fields are set on
//! the way. Pure.
//!
//! A path is compared as it is written. What a server might read as another path than we do is refused where
//! paths are compared: dots, encoded dots and slashes, backslashes, empty parts.

use crate::reason::Reason;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use model::host::Host;

/// The ports of a host that its rules are about, where none is named.
const USUAL_PORTS: [u16; 2] = [80, 443];

/// Whom rules are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host and no other.
    Exact(Host),
    /// Every name below this one, and not itself.
    Below(String),
}

impl HostPattern {
    pub(super) fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (HostPattern::Exact(own), host) => own == host,
            (HostPattern::Below(own), Host::Name(name)) => name
                .strip_suffix(own.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            (HostPattern::Below(_), Host::Address(_)) => false,
        }
    }
}

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
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

/// A header field that is set, whatever the client wrote there.
#[derive(Debug, Clone)]
pub struct SetHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value. `is_sensitive` where it holds a secret: it leaves through TLS or not at all, and is shown
    /// to nobody.
    pub value: HeaderValue,
}

/// What is let out, and with what.
#[derive(Debug, Clone, Default)]
pub struct HttpRule {
    /// These methods; all where there is none.
    pub methods: Vec<Method>,
    /// These paths; all where there is none.
    pub paths: Vec<PathPattern>,
    /// These are set.
    pub headers: Vec<SetHeader>,
}

impl HttpRule {
    fn matches(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && (self.paths.is_empty() || self.paths.iter().any(|own| own.matches(path)))
    }
}

/// The rules of a host.
#[derive(Debug, Clone)]
pub struct HostRules {
    /// Whose.
    pub host: HostPattern,
    /// At which ports; 80 and 443 where there is none.
    pub ports: Vec<u16>,
    /// A request that matches none of these is denied; where there is none, every request is let out. The
    /// header fields of all that match are set, in this order.
    pub rules: Vec<HttpRule>,
    /// These are set on whatever is let out, before those.
    pub headers: Vec<SetHeader>,
}

impl HostRules {
    fn is_about(&self, host: &Host, port: u16) -> bool {
        let ports = if self.ports.is_empty() {
            USUAL_PORTS.as_slice()
        } else {
            &self.ports
        };
        ports.contains(&port) && self.host.matches(host)
    }
}

/// Whether any rule is about this host at this port.
pub fn is_about(all: &[HostRules], host: &Host, port: u16) -> bool {
    all.iter().any(|one| one.is_about(host, port))
}

/// A request, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Whom it is for.
    pub host: &'a Host,
    /// At which port.
    pub port: u16,
    /// Whether it leaves through TLS.
    pub is_tls: bool,
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query.
    pub path: &'a str,
}

/// Decides about a request to a host that has rules: what is set, or why it stays inside. Where two entries are
/// about the same host, both must let it out.
///
/// # Errors
/// [`Reason::HttpRule`], [`Reason::OddPath`], [`Reason::ClearSecret`].
pub fn judge<'r>(all: &'r [HostRules], asked: Asked<'_>) -> Result<Vec<&'r SetHeader>, Reason> {
    let mut headers = Vec::new();
    let about = |one: &&HostRules| one.is_about(asked.host, asked.port);
    for own in all.iter().filter(about) {
        if own.rules.iter().any(|rule| !rule.paths.is_empty()) && is_odd(asked.path) {
            return Err(Reason::OddPath);
        }
        let rules = own.rules.iter();
        let mut matching = rules
            .filter(|rule| rule.matches(asked.method, asked.path))
            .peekable();
        if matching.peek().is_none() && !own.rules.is_empty() {
            return Err(Reason::HttpRule);
        }
        headers.extend(&own.headers);
        headers.extend(matching.flat_map(|rule| &rule.headers));
    }
    if !asked.is_tls && headers.iter().any(|one| one.value.is_sensitive()) {
        return Err(Reason::ClearSecret);
    }
    Ok(headers)
}

/// Whether some server could read another path there.
fn is_odd(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2e", "%2f", "%5c", "%00", "%25", "\\", ";"];
    let mut parts = path.split('/').skip(1).peekable();
    let mut is_odd = !path.starts_with('/') || hidden.iter().any(|text| lower.contains(text));
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        is_odd |= part == "." || part == ".." || (part.is_empty() && !is_last);
    }
    is_odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &'static str, value: &'static str, is_secret: bool) -> SetHeader {
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(is_secret);
        SetHeader {
            name: HeaderName::from_static(name),
            value,
        }
    }

    fn rules() -> Vec<HostRules> {
        let exact = |name: &str| HostPattern::Exact(Host::parse(name).unwrap());
        let read = HttpRule {
            methods: vec![Method::GET],
            paths: vec![
                PathPattern::Exact("/v1/models".to_owned()),
                PathPattern::Below("/v1/files/".to_owned()),
            ],
            headers: vec![set("x-read", "1", false)],
        };
        let all = HttpRule {
            methods: vec![Method::GET, Method::POST],
            paths: vec![PathPattern::Below("/v1/".to_owned())],
            headers: vec![set("authorization", "Bearer s", true)],
        };
        vec![
            HostRules {
                host: exact("api.test"),
                ports: Vec::new(),
                rules: vec![read, all],
                headers: Vec::new(),
            },
            // The same host again: it narrows nothing, and sets something.
            HostRules {
                host: exact("api.test"),
                ports: vec![443],
                rules: Vec::new(),
                headers: vec![set("x-always", "1", false)],
            },
            HostRules {
                host: HostPattern::Below("open.test".to_owned()),
                ports: vec![8443],
                rules: Vec::new(),
                headers: vec![set("x-open", "1", false)],
            },
        ]
    }

    fn ask(host: &str, port: u16, is_tls: bool, method: &str, path: &str) -> String {
        let rules = rules();
        let host = Host::parse(host).unwrap();
        let method: Method = method.parse().unwrap();
        let asked = Asked {
            host: &host,
            port,
            is_tls,
            method: &method,
            path,
        };
        match judge(&rules, asked) {
            Ok(headers) => {
                let names: Vec<&str> = headers.iter().map(|one| one.name.as_str()).collect();
                names.join(" ")
            }
            Err(reason) => reason.code().to_owned(),
        }
    }

    #[test]
    fn what_matches_no_rule_stays_inside_and_all_that_match_set_their_fields() {
        for (method, path, expect) in [
            ("GET", "/v1/models", "x-read authorization x-always"),
            ("GET", "/v1/models/", "authorization x-always"),
            ("POST", "/v1/models", "authorization x-always"),
            ("GET", "/v1/files/a", "x-read authorization x-always"),
            ("GET", "/v1/", "authorization x-always"),
            ("GET", "/v1", "http_rule"),
            ("GET", "/v2/x", "http_rule"),
            ("DELETE", "/v1/models", "http_rule"),
            ("get", "/v1/models", "http_rule"),
            ("GET", "/v1/files/../../admin", "odd_path"),
            ("GET", "/v1/./x", "odd_path"),
            ("GET", "/v1//x", "odd_path"),
            ("GET", "//v1/x", "odd_path"),
            ("GET", "/v1/%2e%2E/x", "odd_path"),
            ("GET", "/v1/..%2fx", "odd_path"),
            ("GET", "/v1/a%252e", "odd_path"),
            ("GET", "/v1/a\\..\\b", "odd_path"),
            ("GET", "/v1/..;/b", "odd_path"),
            ("OPTIONS", "*", "odd_path"),
        ] {
            assert_eq!(ask("api.test", 443, true, method, path), expect, "{path}");
        }
    }

    #[test]
    fn a_secret_leaves_through_tls_or_not_at_all() {
        assert_eq!(
            ask("api.test", 80, false, "POST", "/v1/x"),
            "secret_needs_tls"
        );
        assert_eq!(ask("a.open.test", 8443, false, "PUT", "/../x"), "x-open");
    }

    #[test]
    fn a_pattern_is_about_its_host_and_no_other() {
        let rules = rules();
        for (host, port, expect) in [
            ("api.test", 443, true),
            ("API.test.", 80, true),
            ("api.test", 8443, false),
            ("x.api.test", 443, false),
            ("xapi.test", 443, false),
            ("a.open.test", 8443, true),
            ("a.b.open.test", 8443, true),
            ("open.test", 8443, false),
            ("aopen.test", 8443, false),
            ("a.open.test", 443, false),
            ("127.0.0.1", 443, false),
        ] {
            let host = Host::parse(host).unwrap();
            assert_eq!(is_about(&rules, &host, port), expect, "{host}:{port}");
        }
    }
}
