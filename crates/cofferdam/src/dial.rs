//! How a node dials its servers, and a server another one: TLS, in which it believes one authority and shows its
//! certificate.

use crate::cli::failure::Failure;
use crate::node_authority::digest;
use api::Code;
use api::client::{ClientError, Dial, Dialing, Stream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Whom a node believes.
pub(crate) enum Trust {
    /// Whoever this authority, in PEM, has signed.
    Authority(String),
    /// The authority with this SHA-256, which the server shows: all that a token can name.
    Pinned(String),
}

/// How long a connection and its handshake may take: two round trips and a signature, over whatever line. It is what a
/// client waits for at most.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// The same where there is another server to try, so that the client is still there when that is dialled.
const DIAL_NEXT: Duration = Duration::from_secs(2);

/// Dials one server, or the first of several that answers.
pub(crate) struct Dialer {
    places: Arc<[Place]>,
    /// The one that answered last. It is tried first, so that a node stays where it is.
    at: Arc<AtomicUsize>,
    connector: TlsConnector,
    shown: Arc<Shown>,
}

/// Where a server is.
#[derive(Debug)]
struct Place {
    /// `HOST:PORT`.
    authority: String,
    /// For whom its certificate has to be.
    name: ServerName<'static>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialer({})", self.authority())
    }
}

/// The certificate of now. Connections that are open keep what they began with.
#[derive(Debug)]
struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read();
        shown.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_certs(&self) -> bool {
        let shown = self.0.read();
        shown.unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Dialer {
    /// For the server at `https://HOST:PORT`, with a certificate and its key in PEM, or none.
    pub(crate) fn new(
        url: &str,
        trust: Trust,
        own: Option<(String, String)>,
    ) -> Result<Arc<Dialer>, Failure> {
        Dialer::any(&[url], trust, own)
    }

    /// The same for several, of which whoever answers is as good as another.
    pub(crate) fn any(
        urls: &[&str],
        trust: Trust,
        own: Option<(String, String)>,
    ) -> Result<Arc<Dialer>, Failure> {
        let places = urls.iter().map(|url| {
            let (authority, name) = server_of(url)?;
            Ok(Place { authority, name })
        });
        Dialer::of(places.collect::<Result<_, Failure>>()?, trust, own)
    }

    /// For a server at `HOST:PORT`, which has to show that it is this one, whatever is dialled by that.
    pub(crate) fn named(
        authority: &str,
        name: &str,
        trust: Trust,
        own: (String, String),
    ) -> Result<Arc<Dialer>, Failure> {
        let wrong = |error| Failure::ours("dial another server", &error);
        let name = ServerName::try_from(name.to_owned()).map_err(wrong)?;
        let authority = authority.to_owned();
        Dialer::of(vec![Place { authority, name }], trust, Some(own))
    }

    fn of(
        places: Vec<Place>,
        trust: Trust,
        own: Option<(String, String)>,
    ) -> Result<Arc<Dialer>, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = Arc::new(Shown(RwLock::new(None)));
        let verifier = verifier(trust, &provider)?;
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions();
        let config = config.map_err(|error| Failure::ours("prepare TLS", &error))?;
        let resolver: Arc<dyn ResolvesClientCert> = Arc::<Shown>::clone(&shown);
        let mut config = config
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is resumed would show the certificate that it began with.
        config.resumption = rustls::client::Resumption::disabled();
        let dialer = Dialer {
            places: places.into(),
            at: Arc::default(),
            connector: TlsConnector::from(Arc::new(config)),
            shown,
        };
        if let Some((certificate, key)) = own {
            dialer.show(&certificate, &key)?;
        }
        Ok(Arc::new(dialer))
    }

    /// `HOST:PORT` of the first.
    pub(crate) fn authority(&self) -> &str {
        self.places.first().map_or("", |place| &place.authority)
    }

    /// Shows another certificate from now on.
    pub(crate) fn show(&self, certificate: &str, key: &str) -> Result<(), Failure> {
        let broken = |_| {
            Failure::new(
                Code::StateUnusable,
                "the certificate of this node cannot be read",
            )
        };
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(broken)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(broken)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|error| Failure::state("use the certificate", &error))?;
        let shown = self.shown.0.write();
        *shown.unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    /// Whether it shows this certificate, in PEM.
    #[cfg(test)]
    pub(crate) fn shows(&self, certificate: &str) -> bool {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain: Vec<_> = chain.flatten().collect();
        let shown = self.shown.0.read();
        let shown = shown.unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().is_some_and(|shown| shown.cert == chain)
    }
}

impl Dial for Dialer {
    fn dial(&self) -> Dialing {
        let (places, at) = (self.places.clone(), self.at.clone());
        let connector = self.connector.clone();
        Box::pin(async move {
            let first = at.load(Ordering::Relaxed);
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            let most = match places.len() {
                1 => DIAL_MAX,
                _ => DIAL_NEXT,
            };
            for step in 0..places.len() {
                let number = (first + step) % places.len();
                let Some(place) = places.get(number) else {
                    break;
                };
                match tokio::time::timeout(most, dial_one(place, &connector)).await {
                    Ok(Ok(stream)) => {
                        at.store(number, Ordering::Relaxed);
                        return Ok(stream);
                    }
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
                // Who dials next begins there, also when nobody waits for this one any more.
                at.store((number + 1) % places.len(), Ordering::Relaxed);
            }
            Err(last)
        })
    }
}

async fn dial_one(place: &Place, connector: &TlsConnector) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(&place.authority).await?;
    // Small requests and answers alternate; Nagle's algorithm would add 40 ms to each.
    stream.set_nodelay(true)?;
    let stream = connector.connect(place.name.clone(), stream).await?;
    Ok(Box::new(stream))
}

/// What to do when a server of nodes was not reached, by what is wrong there.
pub(crate) fn remedy(error: &ClientError) -> Option<&'static str> {
    let ClientError::Unreachable { source, .. } = error else {
        return None;
    };
    let failed = source.downcast_ref::<io::Error>()?;
    let tls = failed
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls {
        return Some(remedy_of_tls(tls));
    }
    let kind = failed.kind();
    Some(if kind == io::ErrorKind::ConnectionRefused {
        "nobody listens there: start `cofferdam server`, and name the port of `listen` in [server.nodes]"
    } else if matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    ) {
        "what listens there hangs up: name the port of `listen` in [server.nodes], which speaks TLS"
    } else {
        "check the host, the port and the way there: --server https://HOST:PORT"
    })
}

fn remedy_of_tls(error: &rustls::Error) -> &'static str {
    use CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext};
    use CertificateError::{NotValidYet, NotValidYetContext};
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    if let InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) = error {
        "the server's certificate is not for this name: add it to `names` of [server.nodes] and start the server again"
    } else if let InvalidCertificate(
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
    ) = error
    {
        "the server's certificate is not for this time: check the clocks of both machines"
    } else if let InvalidCertificate(_) = error {
        "another authority answers there than the one that the token names: copy the token whole, or make one on that \
         server with `cofferdam node enroll-token`"
    } else if let InvalidMessage(_) = error {
        "what answers there does not speak TLS: name the port of `listen` in [server.nodes]"
    } else {
        "the server does not want this connection: its log says more"
    }
}

/// Whether a certificate can be for this: a name, or an address, and nothing else.
pub(crate) fn is_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

/// Whether this is `https://HOST:PORT`.
pub(crate) fn is_server(url: &str) -> bool {
    server_of(url).is_ok()
}

fn server_of(url: &str) -> Result<(String, ServerName<'static>), Failure> {
    let wrong = || {
        let message = format!("failed to use `{url}` as a server for nodes");
        Failure::new(Code::InvalidArgument, message).hint("use https://HOST:PORT")
    };
    let authority = url.strip_prefix("https://").ok_or_else(wrong)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    Ok((authority.to_owned(), name))
}

fn verifier(
    trust: Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    match trust {
        Trust::Pinned(pin) => Ok(Arc::new(Pinned {
            pin,
            provider: provider.clone(),
        })),
        Trust::Authority(pem) => {
            let broken = || Failure::new(Code::StateUnusable, "the authority cannot be read");
            let root = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| broken())?;
            let verifier = believing(root, provider).map_err(|_| broken())?;
            Ok(verifier)
        }
    }
}

fn believing(
    root: CertificateDer<'static>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(|_| unknown())
}

/// Believes whoever was signed by the authority with this fingerprint, which is among what the server shows.
#[derive(Debug)]
struct Pinned {
    pin: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut others = others.iter();
        let root = others
            .find(|one| digest(one) == self.pin)
            .ok_or_else(unknown)?;
        let verifier = believing(root.clone().into_owned(), &self.provider)?;
        verifier.verify_server_cert(own, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_https_and_a_port() {
        let host = |url: &str| server_of(url).ok().map(|(authority, _)| authority);
        assert_eq!(
            host("https://control.example:7301/").unwrap(),
            "control.example:7301"
        );
        assert_eq!(host("https://[::1]:7301").unwrap(), "[::1]:7301");
        for url in [
            "http://h:1",
            "https://h",
            "https://h:x",
            "https://a b:1",
            "h:1",
            "",
        ] {
            assert_eq!(host(url), None, "{url}");
        }
    }
}
