//! Whom a request is for, by its Host and its headers: a port of a sandbox, the sandbox that signed
//! its address, or the control plane. Pure.
//!
//! Only names below `localhost` are taken for sandboxes. Browsers and the SDKs resolve those to this
//! machine and to no other, so a web page cannot make one of its own names mean us.

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};

use super::refusal::Refusal;

/// The port at which every sandbox has its envd, which here is the guest itself.
pub(crate) const ENVD_PORT: u16 = 49983;
/// The port at which every sandbox runs code in contexts, unless a program of its own listens there.
pub(crate) const CODE_PORT: u16 = 49999;
/// Names the sandbox where the host name does not.
pub(crate) const SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
/// Names its port.
pub(crate) const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");
/// The longest id that is looked up; ours have 32 digits.
const ID_BYTES_MAX: usize = 64;

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aim {
    /// A port of a sandbox.
    Port(Target),
    /// The files of a sandbox that is not named: its token or its signature says which.
    Signed,
    /// The control plane as E2B's clients know it.
    Control,
}

/// A port of a sandbox, as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// An id at E2B's edge: lower-case letters and digits. There may be no such sandbox.
    pub(crate) id: String,
    pub(crate) port: u16,
}

/// Whom a request is for; `None` when it is none of E2B's.
///
/// # Errors
/// A refusal where a sandbox is meant and cannot be understood.
pub(crate) fn aim(parts: &Parts) -> Result<Option<Aim>, Refusal> {
    let host = host(parts);
    if let Some(target) = by_host(&host)? {
        return Ok(Some(Aim::Port(target)));
    }
    let path = parts.uri.path();
    if let Some(target) = by_headers(&host, &parts.headers)? {
        // Older clients say to the control plane, too, which sandbox they are about to speak to. Of its
        // routes envd has only the one.
        let is_control = target.port == ENVD_PORT && is_control(path) && path != "/health";
        let aim = if is_control {
            Aim::Control
        } else {
            Aim::Port(target)
        };
        return Ok(Some(aim));
    }
    if path == "/files" {
        return Ok(Some(Aim::Signed));
    }
    Ok(is_control(path).then_some(Aim::Control))
}

/// The name in the Host header without its port, in lower case; empty where there is none.
pub(crate) fn host(parts: &Parts) -> String {
    let host = parts
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    crate::auth::without_port(host).to_ascii_lowercase()
}

/// Whether a name can only mean this machine, in whatever resolver.
pub(crate) fn is_below_localhost(host: &str) -> bool {
    host.ends_with(".localhost")
}

/// `{port}-{id}.{domain}`. What stands behind a second dash is what old clients add, and means nothing.
fn by_host(host: &str) -> Result<Option<Target>, Refusal> {
    let Some((label, _)) = host.split_once('.').filter(|_| is_below_localhost(host)) else {
        return Ok(None);
    };
    let mut words = label.split('-');
    let (Some(port), Some(id)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    target(id, port).map(Some)
}

/// By the headers, which count only where the host name cannot say it.
fn by_headers(host: &str, headers: &HeaderMap) -> Result<Option<Target>, Refusal> {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_shared = host == "localhost"
        || host.starts_with("sandbox.")
        || address.unwrap_or(host).parse::<std::net::IpAddr>().is_ok();
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    match (text(&SANDBOX_ID), text(&SANDBOX_PORT)) {
        (Some(id), Some(port)) if is_shared => target(id, port).map(Some),
        (Some(_), None) | (None, Some(_)) if is_shared => {
            let message = "missing header: E2b-Sandbox-Id and E2b-Sandbox-Port go together";
            Err(Refusal::new(StatusCode::BAD_REQUEST, message))
        }
        _ => Ok(None),
    }
}

fn target(id: &str, port: &str) -> Result<Target, Refusal> {
    let refused = |message| Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(plain) {
        return refused("invalid sandbox id");
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok(Target {
            id: id.to_owned(),
            port,
        }),
        _ => refused("invalid sandbox port"),
    }
}

/// Whether a path belongs to E2B's control plane. Ours are below `/v1` and `/node`, so none is both.
fn is_control(path: &str) -> bool {
    let mut words = path.split('/').skip(1);
    let version = |word: &&str| matches!(*word, "v2" | "v3");
    let first = words.next().unwrap_or_default();
    let noun = match Some(first).filter(version) {
        Some(_) => words.next().unwrap_or_default(),
        None => first,
    };
    matches!(
        noun,
        "health"
            | "sandboxes"
            | "templates"
            | "default-templates"
            | "snapshots"
            | "volumes"
            | "volumecontent"
            | "secrets"
            | "teams"
            | "api-keys"
            | "access-tokens"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `id:port`, `signed`, `control`, `-`, or the refusal.
    fn check(host: &str, headers: &[(&str, &str)], path: &str, expect: &str) {
        let mut request = http::Request::get(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = match aim(&parts) {
            Ok(Some(Aim::Port(target))) => format!("{}:{}", target.id, target.port),
            Ok(Some(Aim::Signed)) => "signed".to_owned(),
            Ok(Some(Aim::Control)) => "control".to_owned(),
            Ok(None) => "-".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        assert_eq!(found, expect, "{host} {headers:?} {path}");
    }

    #[test]
    fn a_host_name_names_a_port_of_a_sandbox() {
        for (host, expect) in [
            ("49983-abc1.localhost:7300", "abc1:49983"),
            ("3000-ABC1.sbx.Localhost", "abc1:3000"),
            ("3000-abc1-legacy.localhost", "abc1:3000"),
            ("0-abc1.localhost", "400 invalid sandbox port"),
            ("65536-abc1.localhost", "400 invalid sandbox port"),
            ("x-abc1.localhost", "400 invalid sandbox port"),
            ("3000-.localhost", "400 invalid sandbox id"),
            ("3000-a_b.localhost", "400 invalid sandbox id"),
            // A name that somebody else can point at us.
            ("3000-abc1.evil.example", "-"),
            ("3000-abc1.localhost.evil.example", "-"),
            ("sandbox.localhost", "-"),
            ("localhost", "-"),
        ] {
            check(host, &[], "/v1/jobs", expect);
        }
        let long = format!("3000-{}.localhost", "a".repeat(65));
        check(&long, &[], "/", "400 invalid sandbox id");
    }

    #[test]
    fn headers_name_it_where_the_host_cannot() {
        let both = [("e2b-sandbox-id", "abc1"), ("e2b-sandbox-port", "49999")];
        for host in [
            "localhost:7300",
            "127.0.0.1:7300",
            "[::1]:7300",
            "sandbox.localhost",
        ] {
            check(host, &both, "/sandboxes", "abc1:49999");
            for one in both {
                let message = "400 missing header: E2b-Sandbox-Id and E2b-Sandbox-Port go together";
                check(host, &[one], "/", message);
            }
        }
        check("api.localhost", &both, "/sandboxes", "control");
        let envd = [("e2b-sandbox-id", "abc1"), ("e2b-sandbox-port", "49983")];
        check("localhost", &envd, "/sandboxes/abc1/connect", "control");
        check("localhost", &envd, "/health", "abc1:49983");
        check("localhost", &envd, "/files", "abc1:49983");
        check("3000-other.localhost", &both, "/", "other:3000");
        let bad = [("e2b-sandbox-id", "../x"), ("e2b-sandbox-port", "1")];
        check("localhost", &bad, "/", "400 invalid sandbox id");
    }

    #[test]
    fn what_names_no_sandbox_is_for_the_control_plane_or_not_for_this_door() {
        for (path, expect) in [
            ("/sandboxes", "control"),
            ("/v2/sandboxes?limit=1", "control"),
            ("/v3/templates", "control"),
            ("/health", "control"),
            ("/files?path=a", "signed"),
            ("/filesystem", "-"),
            ("/v1/jobs", "-"),
            ("/v2/jobs", "-"),
            ("/v2", "-"),
            ("/healthz", "-"),
            ("/metrics", "-"),
            ("/", "-"),
        ] {
            check("localhost", &[], path, expect);
        }
    }
}
