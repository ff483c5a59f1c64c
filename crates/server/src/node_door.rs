//! The door for nodes that are not in this process: who is behind a connection, and what may come in.
//!
//! The attackers here are whoever can reach the port, and a machine that was a node once. In production the
//! connection is TLS, and a client certificate says which node it is. That the client has the key of the
//! certificate is checked here; whether the certificate counts says the table of those that were given, by
//! fingerprint, so that no name in a certificate is ever read, and taking one back takes effect within
//! [`BELIEVED`]. Without a certificate one route is open: the one where a token makes a node.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::client::Token;
use api::{Code, routes};
use http::header::AUTHORIZATION;
use http::request::Parts;
use model::id::{NodeId, ServerId};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::App;
use crate::auth::Peer;
use crate::error::Error;
use crate::tls::Tls;

/// How long it is believed that a certificate counts without another look: short for whoever takes one back,
/// long beside the requests of a node that is at work.
const BELIEVED: Duration = Duration::from_secs(5);
/// What a bearer token of development begins with; the id of the node and the token follow.
const DEVELOPMENT: &str = "dev.";

/// What nodes have to show.
#[derive(Debug, Clone)]
pub enum NodeProof {
    /// A certificate, in TLS.
    Certificate(Tls),
    /// A token that all nodes share, in the clear. For development on one machine: whoever has it is any
    /// node.
    Shared(Token),
}

/// A port for nodes.
#[derive(Debug)]
pub struct NodeDoor {
    /// Where.
    pub listener: tokio::net::TcpListener,
    /// What to show there.
    pub proof: NodeProof,
}

impl NodeDoor {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }
}

/// What stands between one connection of a node and the routes.
#[derive(Debug, Clone)]
pub(crate) enum NodeGate {
    /// With this certificate, by its fingerprint; without one, for whoever wants to become a node.
    Certificate(Option<Arc<Shown>>),
    /// With the token that all share.
    Shared(Token),
}

/// A certificate that was shown, and what was last found out about it.
#[derive(Debug)]
pub(crate) struct Shown {
    fingerprint: String,
    known: Mutex<Option<(Instant, NodeId)>>,
}

/// The certificate that a request came with; there to be looked at again while a link lasts.
#[derive(Debug, Clone)]
pub(crate) struct ShownBy(pub(crate) Arc<Shown>);

impl Shown {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self {
            fingerprint: fingerprint(certificate),
            known: Mutex::default(),
        }
    }

    /// Which node it stands for.
    pub(crate) async fn node(&self, app: &App) -> Result<NodeId, Error> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((_, node)) = known.filter(|(at, _)| at.elapsed() < BELIEVED) {
            return Ok(node);
        }
        let node = app.service.node_of_certificate(&self.fingerprint).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), node.clone()));
        Ok(node)
    }
}

/// SHA-256 of a certificate, in hexadecimal digits.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(certificate.as_ref());
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl NodeGate {
    /// For a connection on which these certificates were shown.
    pub(crate) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let own = certificates.and_then(<[_]>::first);
        Self::Certificate(own.map(|own| Arc::new(Shown::of(own))))
    }

    /// Whether a certificate was shown that counts, or the token that all share is what is asked for.
    pub(crate) async fn is_known(&self, app: &App) -> bool {
        match self {
            Self::Certificate(None) => false,
            Self::Certificate(Some(shown)) => {
                // Another server that wants to borrow a link must not wait behind strangers either.
                shown.node(app).await.is_ok()
                    || app
                        .service
                        .server_of_certificate(&shown.fingerprint)
                        .await
                        .is_ok()
            }
            Self::Shared(_) => true,
        }
    }

    /// Whether the connection ends after an answer: it has none of the places of nodes, and those that it may have
    /// are few.
    pub(crate) fn is_for_one(&self) -> bool {
        matches!(self, Self::Certificate(_)) && self.last_known().is_none()
    }

    /// The node that the certificate stood for when it was last looked at.
    pub(crate) fn last_known(&self) -> Option<NodeId> {
        let Self::Certificate(Some(shown)) = self else {
            return None;
        };
        let known = shown.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|(_, node)| node.clone())
    }

    /// Lets a request in and says who sent it; `None` for whoever wants to become a node.
    pub(crate) async fn admit(&self, app: &App, parts: &mut Parts) -> Result<Option<Peer>, Error> {
        if parts.uri.path() == routes::HEALTHZ {
            return Ok(None);
        }
        let node = match self {
            // Servers have no other route here, and nodes not this one.
            Self::Certificate(Some(shown)) if parts.uri.path() == routes::PEER_LINK => {
                let server = app.service.server_of_certificate(&shown.fingerprint);
                parts.extensions.insert(Lends(server.await?));
                return Ok(None);
            }
            Self::Certificate(Some(shown)) => {
                let node = shown.node(app).await?;
                parts.extensions.insert(ShownBy(Arc::clone(shown)));
                node
            }
            Self::Certificate(None) if parts.uri.path() == routes::NODE_ENROLL => {
                parts.extensions.insert(Newcomer);
                return Ok(None);
            }
            Self::Certificate(None) => {
                let message = "a client certificate is missing";
                return Err(Error::new(Code::Unauthenticated, message));
            }
            Self::Shared(token) => shared(token, parts)?,
        };
        Ok(Some(Peer::Node(node)))
    }
}

/// The server that asks for a link.
#[derive(Debug, Clone)]
pub(crate) struct Lends(pub(crate) ServerId);

/// Whoever wants to become a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newcomer;

fn shared(token: &Token, parts: &Parts) -> Result<NodeId, Error> {
    let wrong = || Error::new(Code::Unauthenticated, "the token of development is wrong");
    let sent = parts.headers.get(AUTHORIZATION);
    let sent = sent.and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|text| text.strip_prefix("Bearer ")?.strip_prefix(DEVELOPMENT));
    let (node, sent) = sent
        .and_then(|text| text.split_once('.'))
        .ok_or_else(wrong)?;
    let is_right = bool::from(sent.as_bytes().ct_eq(token.text().as_bytes()));
    if !is_right {
        return Err(wrong());
    }
    node.parse().map_err(|_| wrong())
}

/// The bearer token of a node in development.
#[must_use]
pub fn shared_token(node: &NodeId, token: &Token) -> Token {
    Token::new(format!("{DEVELOPMENT}{node}.{}", token.text()))
}

/// Takes every certificate whose key the client has. Who signed it does not count: the table does.
#[derive(Debug)]
pub(crate) struct AnyCertificate(pub(crate) WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
