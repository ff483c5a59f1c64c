//! Vault's key-value engine, version 2, over its HTTP API (developer.hashicorp.com/vault/api-docs,
//! "KV secrets engine - version 2", and OpenBao's, which is the same): `GET /v1/MOUNT/data/PATH` with the
//! token in a header; the fields of the newest version are in `data.data`.
//!
//! A redirect is not followed: the token would go along.

use crate::keys::KeyPlace;
use crate::web::{Stream, is_loopback, secret, tls};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use service::SecretValue;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Bytes of an answer: Vault stores entries of at most 1 MiB.
const ANSWER_MAX: usize = 2 << 20;

/// Where a Vault is, and as whom it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vault {
    is_tls: bool,
    host: String,
    port: u16,
    mount: String,
    token: KeyPlace,
    ca: Option<PathBuf>,
    namespace: Option<String>,
}

impl Vault {
    /// Reads `https://HOST[:PORT][/MOUNT]?token=PLACE[&ca=PATH][&namespace=NAME]`.
    pub(super) fn parse(url: &str) -> Result<Vault, String> {
        let form = "a Vault is https://HOST[:PORT][/MOUNT]?token=file:PATH or env:NAME\
                    [&ca=PATH][&namespace=NAME]";
        let (place, query) = url.split_once('?').ok_or(form)?;
        let uri: hyper::Uri = place.parse().map_err(|_| form)?;
        let authority = uri.authority().ok_or(form)?;
        // Whatever is before an `@` is a credential on a command line.
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(form.to_owned());
        }
        let host = authority.host().to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(&host) => false,
            Some("http") => {
                return Err("use https: the token would cross the network in the clear".to_owned());
            }
            _ => return Err(form.to_owned()),
        };
        let mount = match uri.path().trim_matches('/') {
            "" => "secret",
            mount => mount,
        };
        let mut vault = Vault {
            is_tls,
            host,
            port: authority.port_u16().unwrap_or(8200),
            mount: segments(mount).ok_or(form)?,
            token: KeyPlace::Env("VAULT_TOKEN".to_owned()),
            ca: None,
            namespace: None,
        };
        let mut has_token = false;
        for pair in query.split('&') {
            match pair.split_once('=').ok_or(form)? {
                ("token", place) => {
                    vault.token = KeyPlace::parse(place)?;
                    has_token = true;
                }
                ("ca", path) if path.starts_with('/') => vault.ca = Some(path.into()),
                ("namespace", name) if HeaderValue::from_str(name).is_ok() => {
                    vault.namespace = Some(name.to_owned());
                }
                _ => return Err(form.to_owned()),
            }
        }
        has_token.then_some(vault).ok_or_else(|| form.to_owned())
    }

    /// The field of a secret that `PATH#FIELD` names, as the newest version has it.
    pub(super) async fn ask(&self, reference: &str) -> Result<SecretValue, String> {
        let (path, field) = reference
            .rsplit_once('#')
            .ok_or("the reference is PATH#FIELD")?;
        let path = segments(path).ok_or("the path has empty parts, or leaves its mount")?;
        let place = self.token.clone();
        let token = tokio::task::spawn_blocking(move || place.read()).await;
        let token = token.map_err(|_| "its token cannot be read".to_owned())?;
        let token = token.map_err(|error| format!("its token cannot be had: {error}"))?;
        let stream = TcpStream::connect((self.dial_host(), self.port)).await;
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        let request = self.request(&path, &token)?;
        let body = if self.is_tls {
            secret(self.secured(stream).await?, request, ANSWER_MAX).await?
        } else {
            secret(stream, request, ANSWER_MAX).await?
        };
        field_of(&body, field)
    }

    /// A literal IPv6 address stands in brackets in a URL, and not where it is dialled.
    fn dial_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    async fn secured(&self, stream: TcpStream) -> Result<impl Stream + use<>, String> {
        let ca = self.ca.clone();
        let config = tokio::task::spawn_blocking(move || tls(ca.as_deref())).await;
        let config = config.map_err(|_| "prepare TLS".to_owned())??;
        let name = ServerName::try_from(self.dial_host().to_owned());
        let name = name.map_err(|_| "its host is no name for TLS".to_owned())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let secured = connector.connect(name, stream).await;
        secured.map_err(|error| format!("TLS: {error}"))
    }

    fn request(&self, path: &str, token: &SecretValue) -> Result<Request<Empty<Bytes>>, String> {
        let mut token = HeaderValue::from_bytes(token.bytes().trim_ascii())
            .map_err(|_| "its token does not fit in a header".to_owned())?;
        token.set_sensitive(true);
        let mut request = Request::get(format!("/v1/{}/data/{path}", self.mount))
            .header(HOST, format!("{}:{}", self.host, self.port))
            // Agents may be told to refuse whatever a browser could be made to send.
            .header("x-vault-request", "true")
            .header(HeaderName::from_static("x-vault-token"), token);
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        request
            .body(Empty::new())
            .map_err(|error| error.to_string())
    }
}

/// A path of a URL, from one that a person wrote; nothing where a part of it is empty or leads upwards.
fn segments(path: &str) -> Option<String> {
    let mut written = String::new();
    for part in path.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return None;
        }
        if !written.is_empty() {
            written.push('/');
        }
        for byte in part.bytes() {
            // What RFC 3986, section 2.3 leaves as it is.
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                written.push(byte.into());
            } else {
                // Writing into a text cannot fail.
                let _ = write!(written, "%{byte:02X}");
            }
        }
    }
    Some(written)
}

#[derive(Deserialize)]
struct Answer {
    data: Version,
}

#[derive(Deserialize)]
struct Version {
    /// Nothing for a version that was deleted.
    data: Option<BTreeMap<String, Field>>,
}

/// What a field is; what is no text is not looked at further.
#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Text(String),
    Other(serde::de::IgnoredAny),
}

/// The error of the parser would say what it found, which is the value.
fn field_of(body: &[u8], field: &str) -> Result<SecretValue, String> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| "its answer is not that of a key-value engine, version 2".to_owned())?;
    let mut fields = answer.data.data.ok_or("the newest version is deleted")?;
    match fields.remove(field) {
        Some(Field::Text(text)) => Ok(SecretValue::new(text.into_bytes())),
        Some(Field::Other(_)) => Err("the field is no text".to_owned()),
        None => Err("there is no such field".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn a_vault_is_read_and_one_that_would_tell_its_token_is_refused() {
        let vault = Vault::parse("https://v.example/kv/team?token=env:T&ca=/ca.pem&namespace=a/b");
        let vault = vault.unwrap();
        assert_eq!((vault.port, &*vault.mount), (8200, "kv/team"));
        assert_eq!(vault.namespace.as_deref(), Some("a/b"));
        assert_eq!(
            Vault::parse("http://127.0.0.1:1?token=env:T")
                .unwrap()
                .mount,
            "secret"
        );
        for bad in [
            "https://v.example",
            "https://v.example?",
            "https://v.example?ca=/x",
            "https://v.example?token=x",
            "https://u:p@v.example?token=env:T",
            "https://v.example/../x?token=env:T",
            "https://v.example?token=env:T&ca=x",
            "https://v.example?token=env:T&other=x",
            "http://v.example?token=env:T",
            "http://127.0.0.1.evil.example?token=env:T",
            "vault.example?token=env:T",
        ] {
            assert!(Vault::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_is_written_for_a_url_and_never_leads_upwards() {
        assert_eq!(segments("a/b c/d?e").as_deref(), Some("a/b%20c/d%3Fe"));
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".", ".."] {
            assert_eq!(segments(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_field_is_read_and_no_error_says_what_is_there() {
        let body =
            br#"{"data":{"data":{"a":"canary","n":31337,"o":{"x":"canary"}},"metadata":{}}}"#;
        assert_eq!(field_of(body, "a").unwrap().bytes(), b"canary");
        for (body, field) in [
            (&body[..], "b"),
            (body, "n"),
            (body, "o"),
            (br#"{"data":{"data":null}}"#, "a"),
            (br#"{"data":{"a":"canary"}}"#, "a"),
            (br#"{"data":"canary"}"#, "a"),
            (b"canary", "a"),
            (b"", "a"),
        ] {
            let error = field_of(body, field).map(drop).unwrap_err();
            assert!(
                !error.contains("canary") && !error.contains("31337"),
                "{error}"
            );
        }
    }

    /// Takes one request and gives one answer.
    async fn serve(mut stream: impl Stream, answer: &str) -> String {
        let mut request = vec![0; 4096];
        let mut read = 0;
        while !request[..read].ends_with(b"\r\n\r\n") {
            read += stream.read(&mut request[read..]).await.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(request[..read].to_vec()).unwrap()
    }

    fn written(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
        path.display().to_string()
    }

    async fn answered(answer: &str) -> (Result<SecretValue, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let token = written(&dir, "token", "hvs.canary\n");
        let url = format!("http://127.0.0.1:{port}/kv?namespace=ns&token=file:{token}");
        let vault = Vault::parse(&url).unwrap();
        let serving = async { serve(listener.accept().await.unwrap().0, answer).await };
        tokio::join!(vault.ask("app/d b#pass"), serving)
    }

    const BODY: &str = r#"{"data":{"data":{"pass":"value"},"metadata":{"version":2}}}"#;

    fn good() -> String {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length";
        format!("{head}: {}\r\n\r\n{BODY}", BODY.len())
    }

    #[tokio::test]
    async fn a_vault_is_asked_as_its_documentation_says() {
        let (value, request) = answered(&good()).await;
        assert_eq!(value.unwrap().bytes(), b"value");
        assert!(
            request.starts_with("GET /v1/kv/data/app/d%20b HTTP/1.1\r\n"),
            "{request}"
        );
        for header in [
            "x-vault-token: hvs.canary",
            "x-vault-request: true",
            "x-vault-namespace: ns",
        ] {
            assert!(request.contains(header), "{request}");
        }
    }

    #[tokio::test]
    async fn over_tls_only_a_certificate_that_is_trusted_gets_the_token() {
        let names = vec!["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let other = rcgen::generate_simple_self_signed(names).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let dir = tempfile::tempdir().unwrap();
        let token = written(&dir, "token", "hvs.canary");
        for (trusted, ca) in [(true, &made), (false, &other)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let ca = written(&dir, "ca", &ca.cert.pem());
            let url = format!("https://127.0.0.1:{port}?ca={ca}&token=file:{token}");
            let vault = Vault::parse(&url).unwrap();
            let serving = async {
                let (stream, _) = listener.accept().await.unwrap();
                let secured = acceptor.accept(stream).await;
                match secured {
                    Ok(stream) => serve(stream, &good()).await,
                    Err(_) => String::new(),
                }
            };
            let (value, request) = tokio::join!(vault.ask("a#pass"), serving);
            assert_eq!(value.is_ok(), trusted, "{value:?}");
            assert_eq!(request.contains("hvs.canary"), trusted, "{request}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_an_error_without_what_it_says() {
        for answer in [
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\ncanary",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\ncanary",
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://canary/\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n{\"data\"",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary",
            "canary",
            "",
        ] {
            let (value, _) = answered(answer).await;
            let error = value.unwrap_err();
            assert!(!error.contains("canary"), "{answer}: {error}");
        }
    }
}
