//! Whom a request is for, by its Host and its headers: a port of a sandbox, the sandbox that signed
//! its address, or the control plane. Pure.
//!
//! Only names below `localhost`, and below the domain that whoever runs the server has named, are taken
//! for sandboxes. Browsers and the SDKs resolve the former to this machine and to no other, and nobody
//! else decides about the latter, so a web page cannot make one of its own names mean us.

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};

use super::domain::Domain;
use super::refusal::Refusal;
use super::{cors, proxy};

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
    /// A browser asks whether a page may ask envd.
    Permission,
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
pub(crate) fn aim(parts: &Parts, domain: Option<&Domain>) -> Result<Option<Aim>, Refusal> {
    let host = host(parts);
    let path = parts.uri.path();
    // It looks at no sandbox, so that a page cannot find out which there are.
    let is_permission = cors::wanted(parts)
        .is_some_and(|method| proxy::rule(&method, path, ENVD_PORT) != proxy::Rule::Hidden);
    if let Some(target) = by_host(&host, domain)? {
        let is_permission = is_permission && target.port == ENVD_PORT;
        let aim = if is_permission {
            Aim::Permission
        } else {
            Aim::Port(target)
        };
        return Ok(Some(aim));
    }
    // Which sandbox is meant a page cannot say yet.
    let is_shared = path == "/files" || cors::names_a_sandbox(&parts.headers);
    if is_permission && is_shared {
        return Ok(Some(Aim::Permission));
    }
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
fn by_host(host: &str, domain: Option<&Domain>) -> Result<Option<Target>, Refusal> {
    let own = domain.and_then(|domain| domain.label(host));
    let local = || Some(host.split_once('.').filter(|_| is_below_localhost(host))?.0);
    let Some(label) = own.or_else(local) else {
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
        check_at(None, host, headers, path, expect);
    }

    fn check_at(
        domain: Option<&str>,
        host: &str,
        headers: &[(&str, &str)],
        path: &str,
        expect: &str,
    ) {
        let domain: Option<Domain> = domain.map(|domain| domain.parse().unwrap());
        // A path with a method in front of it, or one that is just read.
        let (method, path) = path.split_once(' ').unwrap_or(("GET", path));
        let mut request = http::Request::builder().method(method).uri(path);
        request = request.header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = match aim(&parts, domain.as_ref()) {
            Ok(Some(Aim::Port(target))) => format!("{}:{}", target.id, target.port),
            Ok(Some(Aim::Signed)) => "signed".to_owned(),
            Ok(Some(Aim::Control)) => "control".to_owned(),
            Ok(Some(Aim::Permission)) => "permission".to_owned(),
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
    fn a_domain_of_ones_own_names_them_too() {
        let check = |host, expect| check_at(Some("sbx.example"), host, &[], "/sandboxes", expect);
        check("49983-abc1.SBX.example:7300", "abc1:49983");
        check("3000-abc1-legacy.sbx.example", "abc1:3000");
        check("x-abc1.sbx.example", "400 invalid sandbox port");
        check("3000-abc1.localhost", "abc1:3000");
        check("api.sbx.example", "control");
        check("sbx.example", "control");
        // Not below it, and below something else that is.
        check("3000-abc1.x.sbx.example", "control");
        check("3000-abc1.sbx.example.evil", "control");
        let both = [("e2b-sandbox-id", "abc1"), ("e2b-sandbox-port", "3000")];
        let check = |host, expect| check_at(Some("sbx.example"), host, &both, "/x", expect);
        check("sandbox.sbx.example", "abc1:3000");
        check("api.sbx.example", "-");
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
    fn a_page_is_told_that_it_may_ask_envd_and_nothing_about_a_sandbox() {
        let asks = |method| {
            let origin = ("origin", "https://page.example");
            let headers = (
                "access-control-request-headers",
                "X-Access-Token,E2b-Sandbox-Id",
            );
            [origin, headers, ("access-control-request-method", method)]
        };
        for (host, line, expect) in [
            (
                "49983-abc1.localhost",
                "OPTIONS /process.Process/Start",
                "permission",
            ),
            (
                "49983-abc1.localhost",
                "OPTIONS /files?path=a",
                "permission",
            ),
            (
                "localhost:7300",
                "OPTIONS /filesystem.Filesystem/Stat",
                "permission",
            ),
            ("localhost:7300", "OPTIONS /files", "permission"),
            // The program at that port says itself what it lets pages do.
            ("3000-abc1.localhost", "OPTIONS /files", "abc1:3000"),
            ("49983-abc1.localhost", "OPTIONS /init", "abc1:49983"),
            ("localhost:7300", "OPTIONS /sandboxes", "control"),
            ("localhost:7300", "OPTIONS /v1/jobs", "-"),
            ("localhost:7300", "OPTIONS /", "-"),
        ] {
            check(host, &asks("POST"), line, expect);
        }
        let delete = asks("DELETE");
        check(
            "49983-abc1.localhost",
            &delete,
            "OPTIONS /files",
            "abc1:49983",
        );
        let line = "OPTIONS /process.Process/Start";
        check("localhost", &asks("POST")[..1], line, "-");
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
