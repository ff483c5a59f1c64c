//! TLS at the TCP door: the certificate that is shown, and handshakes that end.
//!
//! HTTP/1.1 is all that is offered: streams of HTTP/2 would share one connection's place among many
//! requests, and could not be handed over to a WebSocket.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::e2b::domain::Domain;
use crate::node_door::AnyCertificate;

/// How long a handshake may take: two round trips and a signature, over whatever line.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes at one time. Whoever connects and says nothing holds one until the deadline; each costs a
/// signature and some 20 KiB. The kernel keeps those that wait.
const HANDSHAKES_MAX: usize = 256;
/// Certificates of a chain: a few, where there are many signers.
const CHAIN_MAX: usize = 16;

/// What the TCP door shows to those who want TLS. Clones show the same.
#[derive(Debug, Clone)]
pub struct Tls {
    acceptor: Acceptor,
    shown: Arc<Shown>,
    handshakes: Arc<Semaphore>,
    /// Whose names the certificate has to be for; none where it is for nodes, which know whom to believe.
    domain: Option<Domain>,
}

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// There is none in the text, or too many.
    #[error("find 1 to {CHAIN_MAX} certificates in PEM")]
    Chain,
    /// There is no private key in the text.
    #[error("find a private key in PEM")]
    Key,
    /// The key is of another certificate, or of a kind that is not known.
    #[error("use the key for the certificate")]
    Pair(#[source] rustls::Error),
    /// Clients would refuse it.
    #[error("find names below {0} in the certificate; it has to be for *.{0}")]
    Names(String),
    /// The library does not take our settings.
    #[error("prepare TLS")]
    Settings(#[source] rustls::Error),
}

#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor(..)")
    }
}

/// The certificate and key of now. Connections that are open keep what they began with.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read();
        let shown = shown.unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

impl Tls {
    /// Shows this chain, whose first certificate is ours and for all names below the domain, with this
    /// key, both in PEM (RFC 7468).
    ///
    /// # Errors
    /// When they cannot be read, do not belong together, or are for other names.
    pub fn new(domain: &Domain, chain: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        Self::shown(Some(domain), chain, key)
    }

    /// The same for the door of nodes: the certificate is for whatever names nodes know it by, and clients
    /// are asked for theirs.
    ///
    /// # Errors
    /// As [`Tls::new`], but for names.
    pub fn for_nodes(chain: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        Self::shown(None, chain, key)
    }

    fn shown(domain: Option<&Domain>, chain: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = certified(domain, chain, key, &provider)?;
        let shown = Arc::new(Shown(RwLock::new(shown)));
        let asked = AnyCertificate(provider.signature_verification_algorithms);
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions();
        let config = config.map_err(BadCertificate::Settings)?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Shown>::clone(&shown);
        let config = match domain {
            Some(_) => config.with_no_client_auth(),
            None => config.with_client_cert_verifier(Arc::new(asked)),
        };
        let mut config = config.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: Acceptor(TlsAcceptor::from(Arc::new(config))),
            shown,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            domain: domain.cloned(),
        })
    }

    /// Shows another one from now on.
    ///
    /// # Errors
    /// As [`Tls::new`]; the one before is shown on.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), BadCertificate> {
        let provider = aws_lc_rs::default_provider();
        let new = certified(self.domain.as_ref(), chain, key, &provider)?;
        let shown = self.shown.0.write();
        *shown.unwrap_or_else(std::sync::PoisonError::into_inner) = new;
        Ok(())
    }

    /// Waits for room for one more handshake.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.handshakes).acquire_owned().await.ok()
    }

    /// Shakes hands; nothing with whoever cannot, or takes too long.
    pub(crate) async fn shake(
        &self,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
    ) -> Option<TlsStream<TcpStream>> {
        let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, self.acceptor.0.accept(stream)).await;
        drop(place);
        match shaken {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                // Whoever can reach the port can cause as many of these as they like.
                tracing::debug!(%error, "a handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

fn certified(
    domain: Option<&Domain>,
    chain: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, BadCertificate> {
    let chain = CertificateDer::pem_slice_iter(chain).take(CHAIN_MAX + 1);
    let chain: Vec<_> = chain
        .collect::<Result<_, _>>()
        .map_err(|_| BadCertificate::Chain)?;
    let Some(own) = chain.first().filter(|_| chain.len() <= CHAIN_MAX) else {
        return Err(BadCertificate::Chain);
    };
    if let Some(domain) = domain {
        check_names(domain, own)?;
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadCertificate::Key)?;
    let certified = CertifiedKey::from_der(chain, key, provider);
    certified.map(Arc::new).map_err(BadCertificate::Pair)
}

/// A client that builds the name of a sandbox's port must be shown what is for that name.
fn check_names(domain: &Domain, own: &CertificateDer<'_>) -> Result<(), BadCertificate> {
    let name = domain.name();
    let bad = |_| BadCertificate::Names(name.to_owned());
    let parsed = ParsedCertificate::try_from(own).map_err(bad)?;
    let below = ServerName::try_from(format!("49983-a.{name}"));
    let below = below.map_err(|_| BadCertificate::Names(name.to_owned()))?;
    rustls::client::verify_server_name(&parsed, &below).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_goes_on_for_too_long_ends_and_gives_its_place_back() {
        let made = rcgen::generate_simple_self_signed(["*.sbx.example".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let domain = "sbx.example".parse().unwrap();
        let tls = Tls::new(&domain, chain.as_bytes(), key.as_bytes()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let place = tls.place().await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(tls.shake(stream, place).await.is_none());
        assert_eq!(began.elapsed().as_secs(), HANDSHAKE_DEADLINE.as_secs());
        assert_eq!(tls.handshakes.available_permits(), HANDSHAKES_MAX);
    }
}
