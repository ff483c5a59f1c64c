//! Asking servers that are not ours, over HTTP: whom a provider of identities has as its keys, and a token for somebody.
//! Also how TLS to a server of ours is spoken that shows a certificate which this machine trusts.
//!
//! Only https, or http on a loopback address. A redirect is not followed: what is sent would go along, and who answers
//! then was named by nobody here.

use api::client::{Dial, Dialing};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// Where distributions keep the certificates that they trust: Debian, Fedora, SUSE, Alpine.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// How long one question may take, with its connection.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest address.
const URL_BYTES_MAX: usize = 2048;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// An answer: its status, and its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Who is asked.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

impl Site {
    /// Reads `https://HOST[:PORT][/PATH]`, or `http://` of a loopback address.
    pub(crate) fn parse(url: &str) -> Result<Site, String> {
        let form = || "an address is https://HOST[:PORT][/PATH]".to_owned();
        if url.len() > URL_BYTES_MAX || url.contains('#') {
            return Err(form());
        }
        let uri: Uri = url.parse().map_err(|_| form())?;
        let authority = uri.authority().ok_or_else(form)?;
        let host = authority.host().to_owned();
        if authority.as_str().contains('@') || host.is_empty() {
            return Err(form());
        }
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(&host) => false,
            Some("http") => {
                return Err("use https: in the clear, anybody on the way could answer".to_owned());
            }
            _ => return Err(form()),
        };
        let port = authority
            .port_u16()
            .unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Site {
            uri,
            host,
            port,
            is_tls,
        })
    }

    /// A literal IPv6 address stands in brackets in a URL, and not where it is dialled.
    fn dial_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    async fn ask(&self, request: Request<Full<Bytes>>, ask: Ask<'_>) -> Result<Answer, String> {
        let work = async {
            let stream = TcpStream::connect((self.dial_host(), self.port)).await;
            let stream = stream.map_err(|error| format!("connect: {error}"))?;
            if !self.is_tls {
                return exchange(stream, request, ask.most).await;
            }
            let ca = ask.ca.map(Path::to_owned);
            let config = tokio::task::spawn_blocking(move || tls(ca.as_deref())).await;
            let config = config.map_err(|_| "prepare TLS".to_owned())??;
            let name = ServerName::try_from(self.dial_host().to_owned());
            let name = name.map_err(|_| "its host is no name for TLS".to_owned())?;
            let secured = TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await;
            let secured = secured.map_err(|error| format!("TLS: {error}"))?;
            exchange(secured, request, ask.most).await
        };
        let done = tokio::time::timeout(DEADLINE, work).await;
        done.unwrap_or_else(|_| Err("no answer came in time".to_owned()))
    }

    fn request(&self, method: Method) -> hyper::http::request::Builder {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |host| host.as_str());
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
    }
}

/// Whom to trust, and how much to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// A file of certificates in place of those that this machine trusts.
    pub(crate) ca: Option<&'a Path>,
    /// The longest answer, in bytes.
    pub(crate) most: usize,
}

/// What is there, if the answer says that it is.
pub(crate) async fn get(url: &str, ask: Ask<'_>) -> Result<Vec<u8>, String> {
    let site = Site::parse(url)?;
    let request = site.request(Method::GET).body(Full::default());
    let request = request.map_err(|error| error.to_string())?;
    match site.ask(request, ask).await? {
        Answer { status: 200, body } => Ok(body),
        // The body is not passed on: nobody here knows what is in it.
        Answer { status, .. } => Err(format!("it answered HTTP {status}")),
    }
}

/// What is answered to a form.
pub(crate) async fn post(url: &str, form: &[(&str, &str)], ask: Ask<'_>) -> Result<Answer, String> {
    let site = Site::parse(url)?;
    // `application/x-www-form-urlencoded` is how a query is written.
    let pairs: Vec<(&str, Option<String>)> = form
        .iter()
        .map(|(name, value)| (*name, Some((*value).to_owned())))
        .collect();
    let body = api::routes::query(&pairs).split_off(1);
    let request = site
        .request(Method::POST)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(body)));
    site.ask(request.map_err(|error| error.to_string())?, ask)
        .await
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whom to trust: the given file alone, or what this machine trusts.
pub(crate) fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let system = || ROOTS.iter().map(Path::new).find(|path| path.exists());
    let path = ca
        .or_else(system)
        .ok_or("no certificates are trusted here: name a file of some")?;
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

/// Asks once, and reads an answer of at most so many bytes. Nothing is followed.
async fn exchange<B>(
    stream: impl Stream,
    request: Request<B>,
    most: usize,
) -> Result<Answer, String>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| format!("ask: {error}");
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(failed)?;
    // It ends with this: of whoever no longer waits, no connection is left, whatever the other end does.
    let mut carrying = JoinSet::new();
    carrying.spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|_| "its answer broke off, or is too long".to_owned())?;
        let body = body.to_bytes().to_vec();
        Ok(Answer { status, body })
    };
    answer.await
}

/// The same over a connection that is there, for an answer that may be a secret and says that it is one.
pub(crate) async fn secret<B>(
    stream: impl Stream,
    request: Request<B>,
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, String>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let Answer { status, body } = exchange(stream, request, most).await?;
    let body = Zeroizing::new(body);
    match status {
        200..=299 => Ok(body),
        // The body is not passed on: nobody here knows what is in it.
        _ => Err(format!("it answered HTTP {status}")),
    }
}

/// Dials a server of ours that shows a certificate.
pub(crate) struct Dialer {
    site: Site,
    connector: TlsConnector,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialer({})", self.site.host)
    }
}

impl Dialer {
    /// For `https://HOST[:PORT]`, and `HOST[:PORT]` of it.
    pub(crate) fn to(url: &str, ca: Option<&Path>) -> Result<(String, Arc<dyn Dial>), String> {
        let site = Site::parse(url)?;
        if !site.is_tls || !matches!(site.uri.path(), "" | "/") || site.uri.query().is_some() {
            return Err("a server is https://HOST[:PORT]".to_owned());
        }
        let mut config = tls(ca)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let authority = site.uri.authority().map(ToString::to_string);
        let connector = TlsConnector::from(Arc::new(config));
        let dialer: Arc<dyn Dial> = Arc::new(Dialer { site, connector });
        Ok((authority.unwrap_or_default(), dialer))
    }
}

impl Dial for Dialer {
    fn dial(&self) -> Dialing {
        let (site, connector) = (self.site.clone(), self.connector.clone());
        Box::pin(async move {
            let name = ServerName::try_from(site.dial_host().to_owned());
            let name = name.map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
            let stream = TcpStream::connect((site.dial_host(), site.port)).await?;
            // Small requests and answers alternate; Nagle's algorithm would add 40 ms to each.
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn api::client::Stream>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_asked_and_never_with_a_password_in_the_address() {
        for good in [
            "https://a.example",
            "https://a.example:8443/x/y?z=1",
            "http://127.0.0.1:1/x",
            "http://[::1]:1/",
            "http://localhost:1",
        ] {
            assert!(Site::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example",
            "http://127.0.0.1.evil.example/",
            "https://u:p@a.example/",
            "https://a.example/#x",
            "https:///x",
            "ftp://a.example",
            "a.example",
            "",
            &format!("https://a.example/{}", "x".repeat(3000)),
        ] {
            assert!(Site::parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "http://127.0.0.1:1",
            "https://a.example/x",
            "https://a.example?x",
        ] {
            assert!(Dialer::to(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_no_trust() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca");
        std::fs::write(&path, "nothing").unwrap();
        assert!(tls(Some(&path)).is_err());
        assert!(tls(Some(&dir.path().join("none"))).is_err());
    }
}
