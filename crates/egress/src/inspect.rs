//! Looking into HTTPS, for the hosts that have rules about requests or secrets, and for no others.
//!
//! The client inside speaks TLS with us, by a certificate of the sandbox's own authority; each of its requests
//! is judged, gets its header fields, and leaves through TLS with the real host, whose certificate is checked
//! as a browser does. The name in the target, in TLS and in the request must be the same.
//!
//! What is known of a secret that is set here never goes inside: not in an answer of ours, a record or a log.
//! What the host outside answers is its own, but for values that it was sent.

mod authority;
mod hide;
pub mod roots;
pub mod rule;

use crate::answer::{Body, refused};
use crate::clean;
use crate::decide::{Ask, Refusal, precheck};
use crate::dial::reach;
use crate::http::{self, HEAD_PATIENCE};
use crate::index;
use crate::outside::Outside;
use crate::proxy::{Now, Way};
use crate::reason::Reason;
use crate::record::{Method as How, Recording};
use crate::target::{self, HTTP, Target};
use crate::traffic::{Counted, Reread};
use crate::upstream::Password;
pub use authority::Authority;
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use model::host::Host;
use model::network::{Denial, How as AskedHow, Request as AskedRequest};
pub use roots::Roots;
use rule::SecretField;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use scrub::Known;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client};

/// The port of `https`.
const HTTPS: u16 = 443;

/// How long a handshake may take, on either side.
pub(crate) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// Hosts whose certificates are kept. A sandbox has rules about a few; a pattern may be about many.
const SIGNED_MAX: usize = 64;

/// From this age on, a certificate is signed anew: two thirds of its life are left.
const SIGNED_FRESH_S: u64 = 30 * 24 * 3600;

/// The first byte of TLS: a record of the type `handshake`, RFC 8446 section 5.1.
const TLS: u8 = 22;

/// HTTP/1.1 alone is spoken, inside and outside: RFC 7301, 6.
const ALPN: &[u8] = b"http/1.1";

/// What looks into the HTTPS of one sandbox.
pub struct Inspector {
    secrets: Vec<SecretField>,
    /// What is needed beside for the proxy that connections leave through.
    password: Option<Password>,
    authority: Authority,
    roots: Roots,
    outside: TlsConnector,
    /// The newest last.
    signed: Mutex<Vec<Signed>>,
    known: Option<Arc<Known>>,
}

struct Signed {
    host: Host,
    at_s: u64,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inspector({} secrets)", self.secrets.len())
    }
}

impl Inspector {
    /// What is added to requests, and the authority that the programs of the sandbox trust.
    ///
    /// # Errors
    /// Where TLS cannot be set up at all.
    pub fn new(
        secrets: Vec<SecretField>,
        authority: Authority,
        roots: &Roots,
    ) -> Result<Inspector, rustls::Error> {
        let outside = client(roots)?;
        Ok(Inspector {
            secrets,
            password: None,
            authority,
            roots: roots.clone(),
            outside: TlsConnector::from(Arc::new(outside)),
            signed: Mutex::default(),
            known: None,
        })
    }

    /// The same, and these values are taken out of what hosts answer.
    #[must_use]
    pub fn hiding(self, known: Option<Arc<Known>>) -> Inspector {
        Inspector { known, ..self }
    }

    /// The same with the password of the proxy that connections leave through.
    #[must_use]
    pub fn with_password(self, password: Option<Password>) -> Inspector {
        Inspector { password, ..self }
    }

    pub(crate) fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// Whom this machine trusts outside.
    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether a secret is added to requests to this host.
    pub fn is_about(&self, target: &Target) -> bool {
        let mut secrets = self.secrets.iter();
        secrets.any(|one| one.to.names(&target.host, target.port))
    }

    /// The same at any port.
    pub fn is_about_host(&self, host: &Host) -> bool {
        self.secrets.iter().any(|one| one.to.is_about(host))
    }

    fn config(&self, host: &Host, now_s: u64) -> Result<Arc<ServerConfig>, Reason> {
        let fresh = |one: &Signed| now_s.saturating_sub(one.at_s) < SIGNED_FRESH_S;
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.retain(fresh);
        if let Some(at) = signed.iter().position(|one| one.host == *host) {
            let found = signed.remove(at);
            let config = found.config.clone();
            signed.push(found);
            return Ok(config);
        }
        let config = self.sign(host, now_s).map_err(|error| {
            tracing::error!(%error, "no certificate can be made for a sandbox");
            Reason::Internal
        })?;
        if signed.len() >= SIGNED_MAX {
            signed.remove(0);
        }
        signed.push(Signed {
            host: host.clone(),
            at_s: now_s,
            config: config.clone(),
        });
        Ok(config)
    }

    fn sign(
        &self,
        host: &Host,
        now_s: u64,
    ) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
        let (certificate, key) = self.authority.sign(host, now_s)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

/// A field that is set on a request.
pub(crate) type Field = (HeaderName, HeaderValue);

/// What is set on a request, or why it stays inside: by the rules as they are now, which look at the fields that it
/// leaves with before any are set. A secret comes last, and counts.
pub(crate) fn judge(
    now: &Now,
    target: &Target,
    is_tls: bool,
    (head, leaving): (&Parts, &HeaderMap),
) -> Result<Vec<Field>, Refusal> {
    let rules = &now.rules;
    let leaving = clean::fields(leaving);
    let asked = |method, path| AskedRequest {
        host: &target.host,
        port: target.port,
        method,
        path,
        fields: &leaving,
    };
    let mut fields = Vec::new();
    // A request may be taken for another one, which the rules must let out too.
    for path in http::paths(head) {
        let methods = http::overrides(head).chain([head.method.as_str()]);
        for method in methods {
            let judged = rules.judge(asked(method, path));
            judged.map_err(|verdict| Refusal::by(&verdict))?;
        }
    }
    let set = rules.judge(asked(head.method.as_str(), head.uri.path()));
    for (name, value) in set.map_err(|verdict| Refusal::by(&verdict))? {
        // They were looked at when the rules were read.
        let name = name.parse().map_err(|_| Reason::Internal)?;
        fields.push((name, value.parse().map_err(|_| Reason::Internal)?));
    }
    let mut inspector = now.inspector.iter();
    if let Some(inspector) = inspector.find(|_| !rules.withhold_secrets) {
        let secrets = rule::fields(&inspector.secrets, (&target.host, target.port), is_tls)?;
        fields.extend(
            secrets
                .iter()
                .map(|one| (one.name.clone(), one.value.clone())),
        );
    }
    Ok(fields)
}

/// How TLS is spoken with a real host that these authorities vouch for.
pub(crate) fn client(roots: &Roots) -> Result<ClientConfig, rustls::Error> {
    let mut outside = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.0.clone())
        .with_no_client_auth();
    outside.alpn_protocols = vec![ALPN.to_vec()];
    Ok(outside)
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The least that may be asked of a host that is looked into.
pub(crate) const READS: AskedHow<'static> = AskedHow::Request {
    method: "GET",
    has_body: false,
};

/// Whether a tunnel to a host that is looked into may begin. Its requests are judged one by one; a host that may
/// not even be read is refused here.
pub(crate) fn begin(way: &Way, target: &Target, recording: &mut Recording) -> Result<(), Refusal> {
    recording.asks(target);
    let ask = Ask {
        how: READS,
        host: &target.host,
        port: target.port,
    };
    precheck(&way.rules(), ask).map_err(|refusal| recording.denied(refusal))
}

/// Serves a tunnel to a host that is looked into, to its end. What fails before the first request is recorded
/// as of the tunnel.
pub(crate) async fn serve<S>(way: &Way, target: Target, mut client: S, mut tunnel: Recording)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = BytesMut::with_capacity(1024);
    let reading = tokio::time::timeout(HEAD_PATIENCE, client.read_buf(&mut first));
    if !matches!(reading.await, Ok(Ok(1..))) {
        // Nothing was asked.
        return tunnel.discard();
    }
    let first: Bytes = first.freeze();
    let is_tls = first.first() == Some(&TLS);
    let client = Reread { first, io: client };
    if !is_tls {
        tunnel.discard();
        return requests(way, target, client, false).await;
    }
    if way.ecosystem_of(&target).is_some() {
        // There is no certificate for it, and nobody between.
        return drop(tunnel.denied(Reason::BadRequest.into()));
    }
    match accept(way, &target, client).await {
        Ok(client) => {
            tunnel.discard();
            requests(way, target, client, true).await;
        }
        Err(refusal) => drop(tunnel.denied(refusal)),
    }
}

/// TLS with the client, under the name of the target.
async fn accept<S>(
    way: &Way,
    target: &Target,
    client: S,
) -> Result<tokio_rustls::server::TlsStream<S>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let inspector = way.inspector().ok_or(Reason::Internal)?;
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), client);
    let hello = tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor).await;
    let hello = hello.map_err(|_| Reason::ClientTls)?;
    let hello = hello.map_err(|_| Reason::ClientTls)?;
    let named = hello.client_hello().server_name().map(Host::parse);
    match (named, &target.host) {
        (Some(Ok(named)), host) if named == *host => {}
        // RFC 6066 section 3: an address is not named.
        (None, Host::Address(_)) => {}
        _ => return Err(Reason::Rules(Denial::SniMismatch).into()),
    }
    let config = inspector.config(&target.host, way.now_s())?;
    let stream = tokio::time::timeout(HANDSHAKE_PATIENCE, hello.into_stream(config)).await;
    let stream = stream.map_err(|_| Reason::ClientTls)?;
    Ok(stream.map_err(|_| Reason::ClientTls)?)
}

/// Serves the requests on a tunnel.
async fn requests<S>(way: &Way, target: Target, client: S, is_tls: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let (way, target) = (way.clone(), target.clone());
        async move { Ok::<_, Infallible>(answer(&way, &target, is_tls, request).await) }
    });
    let connection = http::server().serve_connection(TokioIo::new(client), service);
    // However it ended, it is over.
    if let Err(error) = connection.await
        && error.is_parse()
    {
        let mut recording = way.record(if is_tls { How::Https } else { How::Http });
        recording.asks(&target);
        drop(recording.denied(Reason::BadRequest.into()));
    }
}

async fn answer(
    way: &Way,
    target: &Target,
    is_tls: bool,
    request: Request<Incoming>,
) -> Response<Body> {
    let usual = if is_tls { HTTPS } else { HTTP };
    let mut recording = way.record(if is_tls { How::Https } else { How::Http });
    let (head, body) = request.into_parts();
    if let Some(ecosystem) = way.ecosystem_of(target) {
        recording.asks(target);
        return match target::check_origin(&head, target, usual) {
            Ok(()) => index::answer(way, ecosystem, &head, recording).await,
            Err(reason) => {
                let refusal = recording.denied(reason.into());
                refused(&refusal, &target.authority(usual))
            }
        };
    }
    let now = way.now();
    let passing = passed(way, &now, (target, usual), (head, body), &mut recording);
    match passing.await {
        Ok(mut answer) => {
            let known = now.inspector.as_ref().and_then(|one| one.known.as_ref());
            let hide = known.and_then(|known| hide::begin(&mut answer, known));
            answer.map(|body| Body::Passed {
                body,
                hide: hide.map(Box::new),
                _recording: Box::new(recording),
            })
        }
        Err(refusal) => {
            let refusal = recording.denied(refusal);
            refused(&refusal, &target.authority(usual))
        }
    }
}

async fn passed(
    way: &Way,
    now: &Now,
    (target, usual): (&Target, u16),
    (head, body): (Parts, Incoming),
    recording: &mut Recording,
) -> Result<Response<Incoming>, Refusal> {
    recording.asks(target);
    let is_tls = usual == HTTPS;
    let inspector = now.inspector.as_ref().ok_or(Reason::Internal)?;
    target::check_origin(&head, target, usual)?;
    let leaving = clean::leaving(&head.headers);
    let fields = judge(now, target, is_tls, (&head, &leaving))?;
    let outside = reach(way, http::asked(&head, &body), target, recording).await?;
    let mut head = http::outgoing(head, &target.authority(usual))?;
    let has_secret =
        !rule::fields(&inspector.secrets, (&target.host, target.port), is_tls)?.is_empty();
    set(&mut head, fields);
    if has_secret || inspector.known.is_some() {
        hide::ask_plainly(&mut head);
    }
    let answer = if is_tls {
        let outside = secure(&inspector.outside, &target.host, outside).await?;
        http::pass(way, target, (head, leaving, body), outside, recording).await
    } else {
        http::pass(way, target, (head, leaving, body), outside, recording).await
    };
    let answer = answer?;
    if has_secret && !hide::is_plain(&answer) {
        return Err(Reason::BadAnswer.into());
    }
    Ok(answer)
}

/// Sets header fields, in place of those that the client wrote.
pub(crate) fn set(head: &mut Parts, fields: Vec<Field>) {
    for (name, value) in fields {
        clean::put(&mut head.headers, name, value);
    }
}

/// TLS with the real host.
pub(crate) async fn secure(
    tls: &TlsConnector,
    host: &Host,
    outside: Counted<Outside>,
) -> Result<client::TlsStream<Counted<Outside>>, Reason> {
    let name = server_name(host).ok_or(Reason::OutsideTls)?;
    let connecting = tls.connect(name, outside);
    let stream = tokio::time::timeout(HANDSHAKE_PATIENCE, connecting).await;
    let stream = stream.map_err(|_| Reason::ConnectTimeout)?;
    stream.map_err(|_| Reason::OutsideTls)
}

/// The name that a host's certificate has.
pub(crate) fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.clone()).ok(),
        Host::Address(address) => Some(ServerName::IpAddress((*address).into())),
    }
}
