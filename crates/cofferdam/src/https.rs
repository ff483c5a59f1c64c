//! Asking servers that are none of ours: once, over a connection of its own, with a bound on the answer.

use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::body::{Body, Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::convert::Infallible;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

/// Where distributions keep the certificates that they trust: Debian, Fedora, SUSE, Alpine.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whether a name or an address is that of this machine alone.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Whom to trust: the given file alone, or what this machine trusts.
pub(crate) fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let system = || ROOTS.iter().map(Path::new).find(|path| path.exists());
    let path = ca
        .or_else(system)
        .ok_or("no certificates are trusted here: name some with ca=")?;
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    let mut roots = rustls::RootCertStore::empty();
    for one in CertificateDer::pem_slice_iter(&text) {
        // One of a hundred that this library does not take must not cost the others.
        drop(roots.add(one.map_err(|error| failed(&error))?));
    }
    if roots.is_empty() {
        return Err(failed(&"there is no certificate in it"));
    }
    let config = rustls::ClientConfig::builder();
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Asks once, and reads an answer that is one, at most so long. Nothing is followed: what was asked may carry a secret.
pub(crate) async fn exchange<B>(
    stream: impl Stream,
    request: Request<B>,
    answer_max: usize,
) -> Result<Zeroizing<Vec<u8>>, String>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| format!("ask: {error}");
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(failed)?;
    let carrying = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        if !response.status().is_success() {
            // The body is not passed on: nobody here knows what is in it.
            return Err(format!("it answered HTTP {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), answer_max)
            .collect()
            .await;
        let body = body.map_err(|_| "its answer broke off, or is too long".to_owned())?;
        Ok(Zeroizing::new(body.to_bytes().to_vec()))
    };
    let answer = answer.await;
    carrying.abort();
    answer
}
