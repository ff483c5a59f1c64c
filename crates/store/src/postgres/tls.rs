//! TLS to a PostgreSQL, in which the other end is always checked.

use super::address::CONNECT;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The certificates that a machine believes have some 200 KiB.
const BYTES_MAX: u64 = 4 << 20;
/// Where systems keep them: Debian and Alpine, Fedora, SUSE, and the name that BSD and macOS have.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Nobody is there to believe.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthority {
    /// The file cannot be read.
    #[error("read {}", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// It has no certificate in PEM.
    #[error("find a certificate in PEM in {}", .0.display())]
    None(PathBuf),
    /// This system has no list where systems have it.
    #[error("find whom this system believes; name a file with `sslrootcert`")]
    NoSystem,
    /// The library does not take our settings.
    #[error("prepare TLS")]
    Settings(#[source] rustls::Error),
}

/// Whom to believe. Clones believe the same.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Believes who is in this file, or whom the system believes.
    pub(super) fn believing(file: Option<&Path>) -> Result<Tls, BadAuthority> {
        let system = || SYSTEM.iter().map(Path::new).find(|path| path.exists());
        let path = file.or_else(system).ok_or(BadAuthority::NoSystem)?;
        let unreadable = |error| BadAuthority::Unreadable(path.to_owned(), error);
        let mut text = Vec::new();
        let opened = std::fs::File::open(path).map_err(unreadable)?;
        opened
            .take(BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
        roots.add_parsable_certificates(found);
        if roots.is_empty() {
            return Err(BadAuthority::None(path.to_owned()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions();
        let config = config.map_err(BadAuthority::Settings)?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Tls(Arc::new(config)))
    }
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, InvalidDnsNameError> {
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Handshake(TlsConnector::from(self.0.clone()), name))
    }
}

/// With whom to shake hands.
pub(crate) struct Handshake(TlsConnector, ServerName<'static>);

type Shaking<S> = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Shaking<S>;

    fn connect(self, stream: S) -> Shaking<S> {
        Box::pin(async move {
            let shaking = self.0.connect(self.1, stream);
            let shaken = tokio::time::timeout(CONNECT, shaking).await;
            Ok(Encrypted(Box::new(shaken.map_err(io::Error::from)??)))
        })
    }
}

/// A connection through TLS.
pub(crate) struct Encrypted<S>(Box<TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> postgres::tls::TlsStream for Encrypted<S> {
    /// None: the other end was checked by its name, and a database that insists on more refuses us.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
