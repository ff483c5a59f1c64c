//! Whom a request is for, read strictly: RFC 9112 section 3.2.

use crate::reason::Reason;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Scheme;
use hyper::{Method, Version};
use model::host::Host;

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// In its one form.
    pub host: Host,
    /// Never 0.
    pub port: u16,
}

impl Target {
    /// `host:port`, without a port that is the scheme's own.
    pub fn authority(&self, usual: u16) -> String {
        if self.port == usual {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The port of `http`.
pub const HTTP: u16 = 80;

/// Reads the target of a request to a proxy: absolute form with `http`, or the authority of CONNECT. The Host
/// field must name the same host and port. RFC 9112 lets a proxy ignore the field; who sends two different
/// names wants two readers to believe different things.
///
/// # Errors
/// Why it cannot be read.
pub fn of(head: &Parts) -> Result<Target, Reason> {
    let is_connect = head.method == Method::CONNECT;
    let usual = match head.uri.scheme() {
        None if is_connect => None,
        Some(scheme) if !is_connect && *scheme == Scheme::HTTP => Some(HTTP),
        Some(_) if !is_connect => return Err(Reason::BadScheme),
        _ => return Err(Reason::BadTarget),
    };
    let authority = head.uri.authority().ok_or(Reason::BadTarget)?;
    let target = parse(authority.as_str(), usual)?;
    let mut fields = head.headers.get_all(HOST).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => {
            let field = field.to_str().map_err(|_| Reason::HostMismatch)?;
            // Of CONNECT, some clients leave the port out.
            let named = parse(field, usual.or(Some(target.port)));
            if named == Ok(target.clone()) {
                Ok(target)
            } else {
                Err(Reason::HostMismatch)
            }
        }
        (None, _) if head.version < Version::HTTP_11 => Ok(target),
        _ => Err(Reason::HostMismatch),
    }
}

/// Checks a request in a tunnel: its target is a path, and its one Host field names the other end of the
/// tunnel. `usual` is the port that may be left out.
///
/// # Errors
/// [`Reason::BadTarget`], [`Reason::HostMismatch`].
pub(crate) fn check_origin(head: &Parts, target: &Target, usual: u16) -> Result<(), Reason> {
    let is_path = head.uri.authority().is_none() && head.uri.scheme().is_none();
    if head.method == Method::CONNECT || !is_path {
        return Err(Reason::BadTarget);
    }
    let mut fields = head.headers.get_all(HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(Reason::HostMismatch);
    };
    let field = field.to_str().map_err(|_| Reason::HostMismatch)?;
    if parse(field, Some(usual)).as_ref() == Ok(target) {
        Ok(())
    } else {
        Err(Reason::HostMismatch)
    }
}

/// Reads `host[:port]`. Nothing may stand before an `@`: no program sends a password to a proxy there, and
/// `good@evil` is read both ways.
pub(crate) fn parse(authority: &str, usual: Option<u16>) -> Result<Target, Reason> {
    // The colons of an IPv6 address are inside its brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        Some(digits) => number(digits).ok_or(Reason::BadTarget)?,
        None => usual.ok_or(Reason::BadTarget)?,
    };
    let host = Host::parse(host).map_err(Reason::BadHost)?;
    Ok(Target { host, port })
}

/// A port in its only form: no sign, no leading zero, not 0.
fn number(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn read(method: &str, uri: &str, hosts: &[&str], version: Version) -> String {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let Ok(request) = request.body(()) else {
            return "no uri".to_owned();
        };
        match of(&request.into_parts().0) {
            Ok(target) => target.authority(0),
            Err(reason) => reason.code().to_owned(),
        }
    }

    /// Method, target, Host fields, and what is read or why not.
    const TARGETS: &[(&str, &str, &[&str], &str)] = &[
        ("GET", "http://a.example/x", &["a.example"], "a.example:80"),
        (
            "GET",
            "http://a.example/x",
            &["a.example:80"],
            "a.example:80",
        ),
        (
            "GET",
            "http://a.example:8080/",
            &["A.Example.:8080"],
            "a.example:8080",
        ),
        ("GET", "http://[::1]/", &["[::1]"], "[::1]:80"),
        ("GET", "http://[::1]:81/", &["[::1]:81"], "[::1]:81"),
        ("GET", "http://a.example/", &[], "host_mismatch"),
        ("GET", "http://a.example/", &["b.example"], "host_mismatch"),
        (
            "GET",
            "http://a.example/",
            &["a.example:81"],
            "host_mismatch",
        ),
        (
            "GET",
            "http://a.example/",
            &["a.example", "a.example"],
            "host_mismatch",
        ),
        (
            "GET",
            "http://a.example/",
            &["a.example, b.example"],
            "host_mismatch",
        ),
        ("GET", "http://a.example/", &[""], "host_mismatch"),
        ("GET", "http://u:p@a.example/", &["a.example"], "bad_target"),
        (
            "GET",
            "http://good.example@evil.example/",
            &["evil.example"],
            "bad_host",
        ),
        ("GET", "https://a.example/", &["a.example"], "bad_scheme"),
        ("GET", "ftp://a.example/", &["a.example"], "bad_scheme"),
        ("GET", "/x", &["a.example"], "bad_target"),
        ("OPTIONS", "*", &["a.example"], "bad_target"),
        ("GET", "http://a.example:0/", &["a.example:0"], "bad_target"),
        ("GET", "http://a.example:080/", &["a.example"], "bad_target"),
        ("GET", "http://a.example:/", &["a.example"], "bad_target"),
        ("GET", "http://2130706433/", &["2130706433"], "odd_address"),
        ("GET", "http://0x7f.1/", &["0x7f.1"], "odd_address"),
        (
            "CONNECT",
            "a.example:443",
            &["a.example:443"],
            "a.example:443",
        ),
        ("CONNECT", "a.example:443", &["a.example"], "a.example:443"),
        (
            "CONNECT",
            "a.example:443",
            &["a.example:80"],
            "host_mismatch",
        ),
        (
            "CONNECT",
            "a.example:443",
            &["b.example:443"],
            "host_mismatch",
        ),
        ("CONNECT", "a.example:0", &["a.example:0"], "bad_target"),
        ("CONNECT", "a.example", &["a.example"], "bad_target"),
        (
            "CONNECT",
            "http://a.example:443/",
            &["a.example:443"],
            "bad_target",
        ),
        (
            "CONNECT",
            "[::ffff:7f00:1]:443",
            &["127.0.0.1:443"],
            "127.0.0.1:443",
        ),
    ];

    #[test]
    fn the_target_and_the_host_field_say_the_same_or_are_refused() {
        for (method, uri, hosts, expect) in TARGETS {
            assert_eq!(
                read(method, uri, hosts, Version::HTTP_11),
                *expect,
                "{method} {uri} {hosts:?}"
            );
        }
        let old = read("CONNECT", "a.example:443", &[], Version::HTTP_10);
        assert_eq!(old, "a.example:443");
    }
}
