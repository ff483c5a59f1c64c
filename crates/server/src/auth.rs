//! Who is behind a connection, and whether a request may come in at all.
//!
//! The attackers here are the other users of the machine, who can reach a loopback port and guess,
//! and web pages in a browser on it, which can make requests but cannot choose every header.
//! A page that rebinds its own name to 127.0.0.1 is caught by `Host`; one that posts across origins
//! by `Origin`; both lack the token. What a request may *do* is decided in `service`.

use std::net::{IpAddr, SocketAddr};

use api::{Code, routes};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use model::id::{NodeId, PrincipalId, TenantId};
use rustls::pki_types::CertificateDer;
use service::Who;
use subtle::ConstantTimeEq as _;

use crate::App;
use crate::e2b::aim;
use crate::e2b::domain::Domain;
use crate::e2b::keys::Keys;
use crate::error::Error;
use crate::node_door::NodeGate;

/// Who a connection or a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A person or program that asks for jobs.
    User(Who),
    /// A node. Its id is never read from a body.
    Node(NodeId),
}

/// What stands between a connection and the routes.
#[derive(Debug, Clone)]
pub(crate) enum Gate {
    /// The transport itself said who it is: a socket of this user, or memory.
    Known(Peer),
    /// A Unix socket peer with another uid. It gets an answer instead of a closed connection, so
    /// that the person behind it learns why.
    Stranger,
    /// Anybody who can reach the port.
    Tcp(TcpGate),
    /// Anybody who can reach the port of nodes.
    Node(NodeGate),
}

/// What a request has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nothing, at a route that is open to everybody.
    Nothing,
    /// Enough: it is known who sent it.
    Peer(Peer),
    /// What looks like a key, or like a token that an issuer has signed. The service says whose it is.
    Text(String),
    /// Nothing, where the configuration of a development says who that is.
    Development(Bypass),
}

/// As whom a development lets in who shows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    /// Whose things it opens.
    pub tenant: TenantId,
    /// Who acts: one of the table.
    pub principal: PrincipalId,
}

/// The checks of the TCP door.
#[derive(Debug, Clone)]
pub(crate) struct TcpGate {
    token: Secret,
    keys: Keys,
    listen: SocketAddr,
    owner: Who,
    domain: Option<Domain>,
    /// Of the origins of our own pages.
    scheme: &'static str,
    bypass: Option<Bypass>,
}

/// Who is behind a request at E2B's door, and what they must show there.
#[derive(Debug, Clone)]
pub(crate) enum Visitor {
    /// The transport itself has said who it is.
    Known(Who),
    /// Anybody.
    Stranger {
        /// What opens the control plane for `owner`; other keys are in the table.
        keys: Keys,
        owner: Who,
    },
}

impl Visitor {
    pub(crate) fn keys(&self) -> Option<&Keys> {
        match self {
            Self::Known(_) => None,
            Self::Stranger { keys, .. } => Some(keys),
        }
    }
}

/// A secret that is compared in constant time and never shown.
#[derive(Clone)]
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl TcpGate {
    pub(crate) fn new(token: &str, listen: SocketAddr, owner: Who) -> Self {
        Self {
            token: Secret(token.as_bytes().to_vec()),
            keys: Keys::new(token),
            listen,
            owner,
            domain: None,
            scheme: "http",
            bypass: None,
        }
    }

    /// The same, with whom a development lets in who shows nothing. It counts on a loopback address alone, whoever asks for it.
    pub(crate) fn with_bypass(self, bypass: Option<Bypass>) -> Self {
        let bypass = bypass.filter(|_| self.listen.ip().is_loopback());
        Self { bypass, ..self }
    }

    /// The same, found by names of this domain too, and maybe through TLS.
    pub(crate) fn named(self, domain: Option<Domain>, is_tls: bool) -> Self {
        let scheme = if is_tls { "https" } else { "http" };
        Self {
            domain,
            scheme,
            ..self
        }
    }

    fn admit(&self, parts: &Parts) -> Result<Shown, Error> {
        check_host(parts, |host| self.is_ours(host))?;
        check_origin(parts, self.scheme)?;
        if [routes::HEALTHZ, routes::LOGIN].contains(&parts.uri.path()) {
            return Ok(Shown::Nothing);
        }
        if let Some(bypass) = &self.bypass
            && !parts.headers.contains_key(AUTHORIZATION)
        {
            check_no_browser(parts)?;
            return Ok(Shown::Development(bypass.clone()));
        }
        let sent = bearer(parts).ok_or_else(|| unauthenticated("a bearer token is missing"))?;
        if bool::from(sent.ct_eq(&self.token.0)) {
            return Ok(Shown::Peer(Peer::User(self.owner.clone())));
        }
        let text = std::str::from_utf8(sent).ok();
        let known = |text: &&str| service::is_key_text(text) || service::is_jwt_text(text);
        text.filter(known)
            .map(|text| Shown::Text(text.to_owned()))
            .ok_or_else(|| unauthenticated("the bearer token is wrong"))
    }

    /// At E2B's door sandboxes have names of their own, and their pages origins.
    fn visitor(&self, parts: &Parts, is_control: bool) -> Result<Visitor, Error> {
        check_host(parts, |host| {
            let name = without_port(host).to_ascii_lowercase();
            let below = |domain: &Domain| domain.label(&name).is_some();
            let is_below = self.domain.as_ref().is_some_and(below);
            self.is_ours(host) || is_below || aim::is_below_localhost(&name)
        })?;
        if is_control {
            check_origin(parts, self.scheme)?;
        }
        Ok(Visitor::Stranger {
            keys: self.keys.clone(),
            owner: self.owner.clone(),
        })
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        match address.unwrap_or(name).parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.listen.ip(),
            Err(_) => {
                let name = name.to_ascii_lowercase();
                let domain = self.domain.as_ref();
                name == "localhost" || domain.is_some_and(|domain| domain.is_control(&name))
            }
        }
    }
}

impl Gate {
    /// The same for a connection on which these certificates were shown.
    pub(crate) fn shown(self, certificates: Option<&[CertificateDer<'_>]>) -> Self {
        match self {
            Self::Node(_) => Self::Node(NodeGate::of(certificates)),
            Self::Known(_) | Self::Stranger | Self::Tcp(_) => self,
        }
    }

    /// Whether it is known who is behind it, or the door is not one at which that is asked before the first request.
    pub(crate) async fn is_known(&self, app: &App) -> bool {
        match self {
            Self::Node(gate) => gate.is_known(app).await,
            Self::Known(_) | Self::Stranger | Self::Tcp(_) => true,
        }
    }

    /// Lets a request in, as far as that can be said without the database.
    pub(crate) fn admit(&self, parts: &Parts) -> Result<Shown, Error> {
        match self {
            Self::Known(peer) => {
                if parts.uri.path() == routes::MCP {
                    check_page(parts)?;
                }
                Ok(Shown::Peer(peer.clone()))
            }
            Self::Stranger => Err(unauthenticated("this socket belongs to another user")),
            Self::Tcp(gate) => gate.admit(parts),
            // It takes a look at the database, so it was asked before.
            Self::Node(_) => Err(unauthenticated("a client certificate is missing")),
        }
    }

    /// The domain below which the door has names for sandboxes.
    pub(crate) fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Tcp(gate) => gate.domain.as_ref(),
            Self::Known(_) | Self::Stranger | Self::Node(_) => None,
        }
    }

    /// Says who is at E2B's door. What they must show depends on where they want to go, and is asked
    /// there.
    pub(crate) fn visitor(&self, parts: &Parts, is_control: bool) -> Result<Visitor, Error> {
        match self {
            Self::Known(Peer::Node(_)) | Self::Node(_) => {
                Err(Error::new(Code::Forbidden, "this door is not for nodes"))
            }
            Self::Known(Peer::User(who)) => Ok(Visitor::Known(who.clone())),
            Self::Stranger => Err(unauthenticated("this socket belongs to another user")),
            Self::Tcp(gate) => gate.visitor(parts, is_control),
        }
    }
}

/// Who is behind a key, or a token, that was shown.
pub(crate) async fn behind(app: &App, text: &str) -> Result<Who, Error> {
    let who = app.service.shown_who(text).await?;
    who.ok_or_else(|| unauthenticated("the key is unknown, was taken back, or its time is over"))
}

/// As whom a development lets in who has shown nothing.
pub(crate) async fn bypassed(app: &App, bypass: &Bypass) -> Result<Who, Error> {
    let Bypass { tenant, principal } = bypass;
    let who = app.service.development_who(tenant, principal).await?;
    who.ok_or_else(|| unauthenticated("there is no such principal as [dev] names; make it first"))
}

/// Refuses whatever a browser says of itself. The page that made it ask needs no token here, so that even one of our own
/// origin is too much, and so is a request without `Origin`: a picture, a link.
fn check_no_browser(parts: &Parts) -> Result<(), Error> {
    let says = |name: &str| parts.headers.contains_key(name);
    let named = [
        "origin",
        "referer",
        "sec-fetch-site",
        "sec-fetch-mode",
        "sec-fetch-dest",
    ];
    if named.into_iter().any(says) {
        let message = "a browser sent this, and no browser is let in without a token";
        return Err(Error::new(Code::ForbiddenOrigin, message));
    }
    check_host(parts, is_loopback_host)
}

/// Whether a Host header names this machine by a loopback address, or as `localhost`.
fn is_loopback_host(host: &str) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    name == "localhost" || address.parse().is_ok_and(is_loopback)
}

fn unauthenticated(message: &'static str) -> Error {
    Error::new(Code::Unauthenticated, message)
}

/// Exactly one Host, and one that a web page cannot have rebound to us. The port does not
/// matter: a tunnel may have changed it, and a page cannot use it to look like another name.
fn check_host(parts: &Parts, is_ours: impl Fn(&str) -> bool) -> Result<(), Error> {
    let refused = || Error::new(Code::ForbiddenHost, "the Host header is not one of ours");
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(refused());
    };
    let host = host.to_str().map_err(|_| refused())?;
    // `GET http://evil/ HTTP/1.1` names a host in its first line, too.
    let in_target = parts.uri.authority().map(http::uri::Authority::as_str);
    let ours = is_ours(host) && in_target.is_none_or(is_ours);
    if ours { Ok(()) } else { Err(refused()) }
}

/// Absent (a program), or the very origin that the request is for (our own console).
fn check_origin(parts: &Parts, scheme: &str) -> Result<(), Error> {
    let Some(origin) = parts.headers.get(ORIGIN) else {
        return Ok(());
    };
    let host = parts
        .headers
        .get(HOST)
        .map_or(&[][..], http::HeaderValue::as_bytes);
    let same = origin
        .as_bytes()
        .strip_prefix(scheme.as_bytes())
        .and_then(|origin| origin.strip_prefix(b"://"))
        .is_some_and(|origin| origin == host);
    let alone = parts.headers.get_all(ORIGIN).iter().count() == 1;
    if same && alone {
        Ok(())
    } else {
        Err(Error::new(
            Code::ForbiddenOrigin,
            "a web page of another origin sent this",
        ))
    }
}

/// Refuses what a web page may have sent through a socket of this user. That asks for no token, and somebody
/// may have made a TCP port lead there; so the Model Context Protocol wants `Host` and `Origin` looked at
/// wherever it is spoken.
fn check_page(parts: &Parts) -> Result<(), Error> {
    check_host(parts, is_loopback_host)?;
    check_origin(parts, "http")
}

fn bearer(parts: &Parts) -> Option<&[u8]> {
    let value = parts.headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn gate() -> TcpGate {
        let owner = Who::owner("uid:1000".parse().unwrap());
        TcpGate::new("right", "10.1.2.3:7300".parse().unwrap(), owner)
    }

    fn check(headers: &[(&str, &str)], target: &str, expect: Result<(), Code>) {
        check_at(gate(), headers, target, expect);
    }

    fn check_at(gate: TcpGate, headers: &[(&str, &str)], target: &str, expect: Result<(), Code>) {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let got = Gate::Tcp(gate)
            .admit(&parts)
            .map(drop)
            .map_err(|error| error.code());
        assert_eq!(got, expect, "{headers:?} {target}");
    }

    #[test]
    fn only_names_that_a_page_cannot_rebind_are_hosts() {
        let token = ("authorization", "Bearer right");
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:7300",
            "127.9.9.9",
            "[::1]:7300",
        ] {
            check(&[("host", host), token], "/v1/jobs", Ok(()));
        }
        check(&[("host", "10.1.2.3:7300"), token], "/v1/jobs", Ok(()));
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.1.2.4",
            "",
            "[::2]",
            "127.0.0.1.nip.io",
        ] {
            check(
                &[("host", host), token],
                "/v1/jobs",
                Err(Code::ForbiddenHost),
            );
            check(
                &[("host", host), token],
                "/healthz",
                Err(Code::ForbiddenHost),
            );
        }
        check(&[token], "/v1/jobs", Err(Code::ForbiddenHost));
        check(
            &[("host", "localhost"), ("host", "evil"), token],
            "/v1/jobs",
            Err(Code::ForbiddenHost),
        );
        check(
            &[("host", "localhost"), token],
            "http://evil/v1/jobs",
            Err(Code::ForbiddenHost),
        );
    }

    #[test]
    fn only_the_same_origin_passes() {
        let host = ("host", "localhost:7300");
        let token = ("authorization", "bearer right");
        check(
            &[host, token, ("origin", "http://localhost:7300")],
            "/v1/jobs",
            Ok(()),
        );
        for origin in [
            "null",
            "http://evil",
            "http://localhost:1",
            "https://localhost:7300",
            "",
        ] {
            check(
                &[host, token, ("origin", origin)],
                "/v1/jobs",
                Err(Code::ForbiddenOrigin),
            );
        }
    }

    #[test]
    fn a_domain_adds_its_own_name_and_api_and_tls_changes_the_origin() {
        let gate = || gate().named(Some("sbx.example".parse().unwrap()), true);
        let token = ("authorization", "Bearer right");
        for (host, expect) in [
            ("SBX.example", Ok(())),
            ("api.sbx.example:7300", Ok(())),
            ("localhost", Ok(())),
            // A sandbox's own name: what it serves must not reach the other doors.
            ("3000-abc1.sbx.example", Err(Code::ForbiddenHost)),
            ("sandbox.sbx.example", Err(Code::ForbiddenHost)),
            ("x.api.sbx.example", Err(Code::ForbiddenHost)),
            ("example", Err(Code::ForbiddenHost)),
        ] {
            check_at(gate(), &[("host", host), token], "/v1/jobs", expect);
        }
        let host = ("host", "api.sbx.example:7300");
        for (origin, expect) in [
            ("https://api.sbx.example:7300", Ok(())),
            ("http://api.sbx.example:7300", Err(Code::ForbiddenOrigin)),
            (
                "https://3000-abc1.sbx.example:7300",
                Err(Code::ForbiddenOrigin),
            ),
        ] {
            let headers = [host, token, ("origin", origin)];
            check_at(gate(), &headers, "/v1/jobs", expect);
        }
    }

    #[test]
    fn a_page_gets_no_tools_by_a_socket_that_a_port_leads_to() {
        let ours = |headers: &[(&str, &str)], path: &str| {
            let mut request = Request::post(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let gate = Gate::Known(Peer::User(Who::owner("uid:1000".parse().unwrap())));
            gate.admit(&parts).map(drop).map_err(|error| error.code())
        };
        let rebound = [
            ("host", "evil.example:80"),
            ("origin", "http://evil.example:80"),
        ];
        assert_eq!(ours(&rebound, "/mcp"), Err(Code::ForbiddenHost));
        let foreign = [("host", "localhost"), ("origin", "http://evil.example")];
        assert_eq!(ours(&foreign, "/mcp"), Err(Code::ForbiddenOrigin));
        assert_eq!(ours(&[("host", "[::1]:7300")], "/mcp"), Ok(()));
        assert_eq!(ours(&[("host", "anything")], "/v1/jobs"), Ok(()));
    }

    #[test]
    fn only_the_whole_token_passes() {
        let host = ("host", "localhost");
        for value in [
            "Bearer wrong",
            "Bearer righ",
            "Bearer rightt",
            "Basic right",
            "right",
            "Bearer",
        ] {
            let header = ("authorization", value);
            check(&[host, header], "/v1/jobs", Err(Code::Unauthenticated));
        }
        check(&[host], "/v1/jobs", Err(Code::Unauthenticated));
        check(&[host], "/healthz", Ok(()));
    }
}
