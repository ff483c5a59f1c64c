//! A domain of one's own, through TLS.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::StatusCode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use server::Tls;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::{Reply, World};

const DOMAIN: &str = "sbx.example";

/// A world behind TLS, and the certificate that its clients trust.
struct Secured {
    world: World,
    tls: Tls,
    trusted: String,
}

/// A chain and its key.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed([format!("*.{DOMAIN}")]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

impl Secured {
    async fn new() -> Self {
        let (trusted, key) = pair();
        let domain = DOMAIN.parse().unwrap();
        let tls = Tls::new(&domain, trusted.as_bytes(), key.as_bytes()).unwrap();
        let world = World::at(Some(domain), Some(tls.clone())).await;
        Self {
            world,
            tls,
            trusted,
        }
    }

    /// A connection of a client that asks for HTTP/2 too, as the SDKs do.
    async fn connect(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let trusted = CertificateDer::from_pem_slice(self.trusted.as_bytes()).unwrap();
        roots.add(trusted).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.world.tcp).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    async fn ask(&self, name: &str, line: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        let stream = self.connect(name).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let host = format!("{name}:{}", self.world.tcp.port());
        let mut all = vec![("host", host.as_str())];
        all.extend(headers);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        World::ask_over(stream, line, &all, body).await
    }
}

#[tokio::test]
async fn a_client_that_knows_only_the_domain_makes_a_sandbox_and_finds_its_ports_and_files() {
    let secured = Secured::new().await;
    let key = World::key();
    let api = format!("api.{DOMAIN}");
    let asked = json!({"templateID": "base"});
    let headers = [("x-api-key", key.as_str())];
    let reply = secured
        .ask(&api, "POST /v2/sandboxes", &headers, asked)
        .await;
    assert_eq!(reply.status, 201, "{}", reply.message());
    let made = reply.json();
    let id = made["sandboxID"].as_str().unwrap();
    let token = made["envdAccessToken"].as_str().unwrap();
    let domain = format!("{DOMAIN}:{}", secured.world.tcp.port());
    assert_eq!(made["domain"], domain);
    for line in [
        format!("GET /sandboxes/{id}"),
        format!("POST /v2/sandboxes/{id}/connect"),
    ] {
        let reply = secured.ask(&api, &line, &headers, Value::Null).await;
        assert_eq!(reply.json()["domain"], domain, "{line}");
    }

    let envd = format!("49983-{id}.{DOMAIN}");
    let reply = secured.ask(&envd, "GET /health", &[], Value::Null).await;
    assert_eq!(reply.status, 204);
    let call = "POST /process.Process/List";
    let reply = secured.ask(&envd, call, &[], json!({})).await;
    assert_eq!(reply.status, 401);
    let opens = [("x-access-token", token)];
    let reply = secured.ask(&envd, call, &opens, json!({})).await;
    assert_eq!(reply.json()["target"], "/process.Process/List");

    let upload = "POST /files?path=a.txt";
    let reply = secured.ask(&envd, upload, &opens, json!("text")).await;
    assert_eq!(reply.status, 200, "{}", reply.message());
    let signature = STANDARD_NO_PAD.encode(Sha256::digest(format!("a.txt:read::{token}")));
    let signature = signature.replace('+', "%2B").replace('/', "%2F");
    let line = format!("GET /files?path=a.txt&signature=v1_{signature}");
    // By the name of the sandbox, and where the signature alone says whose it is.
    for name in [envd.clone(), format!("sandbox.{DOMAIN}")] {
        let reply = secured.ask(&name, &line, &[], Value::Null).await;
        assert_eq!(reply.status, 200, "{name}");
    }
    let shared = [
        ("e2b-sandbox-id", id),
        ("e2b-sandbox-port", "49983"),
        ("x-access-token", token),
    ];
    let name = format!("sandbox.{DOMAIN}");
    let reply = secured.ask(&name, call, &shared, json!({})).await;
    assert_eq!(reply.json()["target"], "/process.Process/List");
}

/// Attack: One name is said in TLS and another one in the request.
#[tokio::test]
async fn a_name_of_somebody_else_is_refused_whatever_certificate_it_was_asked_with() {
    let secured = Secured::new().await;
    let stream = secured.connect(&format!("api.{DOMAIN}")).await.unwrap();
    let headers = [("host", "api.evil.example"), ("x-api-key", &*World::key())];
    let reply = World::ask_over(stream, "GET /sandboxes", &headers, "").await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(secured.connect("api.evil.example").await.is_err());
}

/// Attack: A door of TLS is spoken to in the clear, or held open in silence.
#[tokio::test]
async fn who_speaks_in_the_clear_or_says_nothing_gets_nothing_and_holds_nobody_up() {
    let secured = Secured::new().await;
    let mut plain = TcpStream::connect(secured.world.tcp).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut heard = Vec::new();
    drop(plain.read_to_end(&mut heard).await);
    // An alert of TLS at most.
    assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(secured.world.tcp).await.unwrap());
    }
    let api = format!("api.{DOMAIN}");
    let reply = secured.ask(&api, "GET /health", &[], Value::Null).await;
    assert_eq!(reply.status, 204);
}

#[tokio::test]
async fn another_certificate_is_shown_without_a_start_and_a_bad_one_never() {
    let mut secured = Secured::new().await;
    let (chain, key) = pair();
    let (_, other_key) = pair();
    let bad = secured.tls.replace(chain.as_bytes(), other_key.as_bytes());
    assert!(bad.is_err());
    let api = format!("api.{DOMAIN}");
    assert!(secured.connect(&api).await.is_ok());
    secured
        .tls
        .replace(chain.as_bytes(), key.as_bytes())
        .unwrap();
    assert!(secured.connect(&api).await.is_err(), "the old one is shown");
    secured.trusted = chain;
    assert!(secured.connect(&api).await.is_ok());
}
