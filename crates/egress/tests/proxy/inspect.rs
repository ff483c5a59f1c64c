//! HTTPS that is looked into: between a client that trusts the sandbox's authority and servers that show
//! certificates of an authority of their own.

use crate::direct;
use crate::world::{PATIENCE, World, lists, open, read_all, read_until, server, trap};
use egress::direct::{CONNECT, DENIED, RESOLVE, YES};
use egress::inspect::rule::SecretField;
use egress::inspect::{Authority, Inspector, Roots};
use egress::record::{EgressRecord, Method, Verdict};
use hyper::header::{HeaderName, HeaderValue};
use model::network::{NetworkAsked, NetworkMode, NetworkRules, RequestAsked, RequestRule};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::{EchGreaseConfig, EchMode};
use rustls::crypto::hpke::Hpke as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use scrub::Known;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates have a life, and rustls looks at the real clock"
)]
fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock").as_secs()
}

/// With a real clock: certificates have a life.
fn world(exceptions: &[&str], rules: NetworkRules) -> World {
    World::at(|| now_s() * 1000, exceptions, rules, World::resolver())
}

/// An authority outside, and what servers show that it has signed.
pub(crate) struct Outside {
    params: CertificateParams,
    key: KeyPair,
}

impl Outside {
    pub(crate) fn new() -> Outside {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        Outside { params, key }
    }

    pub(crate) fn pem(&self) -> String {
        let own = self.params.self_signed(&self.key);
        own.expect("a certificate").pem()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::of_pem(&self.pem())
    }

    pub(crate) fn config(&self, name: &str) -> Arc<ServerConfig> {
        let issuer = Issuer::new(self.params.clone(), &self.key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new([name.to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
        let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key);
        Arc::new(config.expect("a certificate"))
    }

    /// A server that answers each request with these bytes; what it read comes out.
    pub(crate) async fn server(
        &self,
        name: &str,
        answer: &'static str,
    ) -> (u16, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let (seen, read) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(self.config(name));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let head = read_until(&mut stream, "\r\n\r\n").await;
                    drop(stream.write_all(answer.as_bytes()).await);
                    drop(stream.shutdown().await);
                    drop(seen.send(head).await);
                });
            }
        });
        (port, read)
    }
}

/// A world in which `api.test` at this port is looked into.
pub(crate) struct Looked {
    pub(crate) world: World,
    authority: String,
    port: u16,
}

fn secrets(port: u16) -> Vec<SecretField> {
    let mut value = HeaderValue::from_static("Bearer canary");
    value.set_sensitive(true);
    vec![SecretField {
        to: format!("api.test:{port}").parse().expect("an entry"),
        name: HeaderName::from_static("authorization"),
        value,
    }]
}

/// `GET` and `POST` below `/v1/`, with fields of which a secret counts before one.
fn requests(port: u16) -> Vec<RequestRule> {
    let set = [("x-plain", "plain"), ("authorization", "of a rule")];
    let rule = RequestAsked {
        host: "api.test".to_owned(),
        port: Some(port),
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        paths: vec!["/v1/*".to_owned()],
        set: set
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..RequestAsked::default()
    };
    let asked = NetworkAsked {
        requests: vec![rule],
        ..NetworkAsked::default()
    };
    NetworkRules::read(&asked).expect("sound rules").requests
}

impl Looked {
    pub(crate) fn new(outside: &Outside, port: u16) -> Looked {
        Looked::with(world(&["127.0.0.1"], open()), outside, port)
    }

    fn with(world: World, outside: &Outside, port: u16) -> Looked {
        Looked::hiding(world, outside, port, None)
    }

    /// The same where these values are taken out of answers.
    fn hiding(world: World, outside: &Outside, port: u16, known: Option<Arc<Known>>) -> Looked {
        let authority = Authority::make(now_s()).expect("an authority");
        // What was kept is what goes on.
        let text = authority.to_text();
        let authority = Authority::from_text(&text).expect("an authority");
        let certificate = authority.certificate().to_owned();
        let inspector = Inspector::new(secrets(port), authority, &outside.roots());
        world.way.look_into(inspector.expect("TLS").hiding(known));
        let rules = world.way.rules().as_ref().clone();
        world.way.set_rules(NetworkRules {
            requests: requests(port),
            ..rules
        });
        Looked {
            world,
            authority: certificate,
            port,
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.authority.as_bytes());
        roots
            .add(own.expect("a certificate"))
            .expect("an authority");
        roots
    }

    /// A client that sends what looks like Encrypted Client Hello (GREASE, RFC 9849 section 6.2), as browsers do.
    pub(crate) fn greasing(&self) -> TlsConnector {
        let suite = rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
        let (key, _) = suite.generate_key_pair().expect("a key");
        let config = ClientConfig::builder_with_provider(provider())
            .with_ech(EchMode::Grease(EchGreaseConfig::new(suite, key)))
            .expect("TLS 1.3")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    fn connector(&self) -> TlsConnector {
        self.speaking(&[])
    }

    /// A client that says which protocols it speaks, RFC 7301.
    pub(crate) fn speaking(&self, protocols: &[&str]) -> TlsConnector {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        let protocols = protocols.iter();
        config.alpn_protocols = protocols.map(|one| one.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    pub(crate) async fn tunnel(&self) -> DuplexStream {
        self.tunnel_to("api.test").await
    }

    pub(crate) async fn tunnel_to(&self, host: &str) -> DuplexStream {
        let mut stream = self.world.connect();
        let port = self.port;
        let head = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a tunnel");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream
    }

    /// The same by SOCKS5.
    async fn socks(&self) -> DuplexStream {
        let mut stream = self.world.connect();
        let mut asked = vec![5, 1, 0, 5, 1, 0, 3, 8];
        asked.extend_from_slice(b"api.test");
        asked.extend_from_slice(&self.port.to_be_bytes());
        stream.write_all(&asked).await.expect("a tunnel");
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.expect("a reply");
        assert_eq!(said[..4], [5, 0, 5, 0]);
        stream
    }

    /// The same of a program that knows no proxy.
    async fn direct(&self) -> DuplexStream {
        let mut stream = direct::connect(&self.world);
        let asked = direct::question(CONNECT, self.port, b"api.test");
        stream.write_all(&asked).await.expect("a connection");
        assert_eq!(stream.read_u8().await.expect("an answer"), YES);
        stream
    }

    /// What is answered to a request in TLS under this name.
    pub(crate) async fn ask(&self, tunnel: DuplexStream, named: &str, request: &str) -> String {
        self.ask_by(self.connector(), tunnel, (named, request))
            .await
    }

    pub(crate) async fn ask_by(
        &self,
        connector: TlsConnector,
        tunnel: DuplexStream,
        (named, request): (&str, &str),
    ) -> String {
        let name = ServerName::try_from(named.to_owned()).expect("a name");
        let stream = connector.connect(name, tunnel).await;
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return format!("no TLS: {error}"),
        };
        let request = request.replace("HOST", &format!("api.test:{}", self.port));
        stream
            .write_all(request.as_bytes())
            .await
            .expect("a stream");
        let mut all = Vec::new();
        // The end of TLS is not always said.
        let reading = async { while stream.read_buf(&mut all).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("an end");
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn record(&mut self) -> EgressRecord {
        self.world.next().await
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
pub(crate) const GET: &str =
    "GET /v1/x?y HTTP/1.1\r\nhost: HOST\r\nauthorization: mine\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_leaves_with_the_secret_that_the_client_never_had() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    for tunnel in [
        looked.tunnel().await,
        looked.socks().await,
        looked.direct().await,
    ] {
        let answer = looked.ask(tunnel, "api.test", GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("hi") && !answer.contains("canary"),
            "{answer}"
        );
        let asked = seen.recv().await.expect("a request");
        assert!(asked.starts_with("GET /v1/x?y HTTP/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("authorization: Bearer canary\r\n"),
            "{asked}"
        );
        assert!(asked.contains("x-plain: plain\r\n"), "{asked}");
        assert!(
            !asked.contains("mine") && !asked.contains("of a rule"),
            "{asked}"
        );
        let record = looked.record().await;
        assert_eq!(
            (record.method, record.verdict, record.port),
            (Method::Https, Verdict::Allowed, port)
        );
        assert_eq!(record.host.expect("a host").to_string(), "api.test");
        assert!(record.bytes_out > 100 && record.bytes_in > 100);
    }
}

/// A host that shows what it was sent tells it in the words of its first line, in a form that nobody can look
/// through, or piece by piece.
#[tokio::test]
async fn a_secret_does_not_come_back_in_an_answer_that_cannot_be_looked_through() {
    let outside = Outside::new();
    for (answer, expected) in [
        (
            "HTTP/1.1 200 Bearer canary\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi",
            "x-proxy-error: bad_answer\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\n",
        ),
    ] {
        let (port, mut seen) = outside.server("api.test", answer).await;
        let looked = Looked::new(&outside, port);
        let request = GET.replace(
            "connection",
            "range: bytes=0-1\r\nif-range: x\r\nconnection",
        );
        let told = looked
            .ask(looked.tunnel().await, "api.test", &request)
            .await;
        assert!(
            told.contains(expected) && !told.contains("canary"),
            "{told}"
        );
        let asked = seen.recv().await.expect("a request");
        assert!(!asked.contains("range"), "{asked}");
    }
}

/// Attack: a host that shows what it was sent writes it into fields that come after its body (trailers).
#[tokio::test]
async fn a_secret_does_not_come_back_in_fields_behind_a_body() {
    let outside = Outside::new();
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-shown\r\n\r\n\
                  2\r\nhi\r\n0\r\nx-shown: Bearer canary\r\n\r\n";
    let (port, mut seen) = outside.server("api.test", answer).await;
    let known = Known::new([("token", &b"Bearer canary"[..])]).expect("a value");
    let world = world(&["127.0.0.1"], open());
    let looked = Looked::hiding(world, &outside, port, known);
    // A client that says it wants them.
    let request = GET.replace("connection: close", "te: trailers\r\nconnection: te, close");
    let tunnel = looked.tunnel().await;
    let told = looked.ask(tunnel, "api.test", &request).await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(told.ends_with("\r\n0\r\n\r\n"), "{told}");
    assert!(
        !told.contains("canary") && !told.contains("x-shown"),
        "{told}"
    );
    let asked = seen.recv().await.expect("a request");
    assert!(asked.contains("Bearer canary\r\n"), "{asked}");
}

#[tokio::test]
async fn what_no_rule_lets_out_is_refused_inside_the_tunnel_and_reaches_nobody() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    for (request, code) in [
        ("DELETE /v1/x HTTP/1.1\r\nhost: HOST\r\n", "http_rule"),
        ("GET /admin HTTP/1.1\r\nhost: HOST\r\n", "http_rule"),
        ("GET /v1/../admin HTTP/1.1\r\nhost: HOST\r\n", "odd_path"),
        (
            "GET /v1/%c0%ae%C0%AE/a HTTP/1.1\r\nhost: HOST\r\n",
            "odd_path",
        ),
        // Its server may take it for another one.
        (
            "POST /v1/x HTTP/1.1\r\nhost: HOST\r\nx-http-method-override: DELETE\r\n",
            "http_rule",
        ),
        (
            "POST /v1/x HTTP/1.1\r\nhost: HOST\r\nx-http-method: GET\r\nx-method-override: PUT\r\n",
            "http_rule",
        ),
        (
            "GET /v1/x HTTP/1.1\r\nhost: HOST\r\nx-original-url: /admin?/v1/\r\n",
            "http_rule",
        ),
        (
            "GET /v1/x HTTP/1.1\r\nhost: HOST\r\nX-Rewrite-URL: https://api.test/v1/x\r\n",
            "odd_path",
        ),
        ("GET /v1/x HTTP/1.1\r\nhost: evil.test\r\n", "host_mismatch"),
        ("GET /v1/x HTTP/1.1\r\n", "host_mismatch"),
        (
            "GET http://evil.test/v1/x HTTP/1.1\r\nhost: HOST\r\n",
            "bad_target",
        ),
        (
            "CONNECT evil.test:1 HTTP/1.1\r\nhost: evil.test:1\r\n",
            "bad_target",
        ),
    ] {
        let tunnel = looked.tunnel().await;
        let request = format!("{request}connection: close\r\n\r\n");
        let answer = looked.ask(tunnel, "api.test", &request).await;
        assert!(
            answer.contains(&format!("x-proxy-error: {code}\r\n")),
            "{answer}"
        );
        assert!(!answer.contains("canary"), "{answer}");
        let record = looked.record().await;
        let denied = matches!(record.verdict, Verdict::Denied(_));
        assert_eq!(denied, code == "http_rule", "{record:?}");
        if denied {
            let rule = format!("rule GET,POST https://api.test:{port}/v1/*");
            assert_eq!(record.rule.as_deref(), Some(rule.as_str()));
            assert!(answer.contains(&rule), "{answer}");
        }
    }
    // In clear the same rules hold.
    let url = format!("http://api.test:{port}/admin");
    let answer = looked.world.get(&url).await;
    assert!(answer.contains("x-proxy-error: http_rule\r\n"), "{answer}");
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn rules_that_come_later_cut_what_nobody_looks_into_and_judge_the_next_request() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    let none = open();
    let authority = Authority::make(now_s()).expect("an authority");
    let inspector = Inspector::new(Vec::new(), authority, &outside.roots());
    // A world of its own, which has nothing to look into yet.
    looked.world = world(&["127.0.0.1"], none.clone());
    let mut opaque = looked.tunnel().await;
    opaque.write_all(b"\x16\x03").await.expect("a stream");
    let requests = requests(port);
    let rules = NetworkRules {
        requests,
        ..none.clone()
    };
    looked.world.way.set_rules(rules);
    read_all(&mut opaque).await;
    assert_eq!(looked.world.next_code().await, "http_rule");
    // With nothing to look into them, requests stay inside.
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(answer.starts_with("no TLS"), "{answer}");
    assert_eq!(looked.world.next_code().await, "internal");
    assert!(!looked.world.way.can_look());
    looked.world.way.look_into(inspector.expect("TLS"));
    // Another authority than the client trusts, but it is looked into.
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(answer.starts_with("no TLS"), "{answer}");
    assert_eq!(looked.world.next_code().await, "client_tls");
    assert!(seen.try_recv().is_err());
    // In clear the field of the rule is set.
    let (clear, mut heard) = server(OK).await;
    let rules = NetworkRules {
        requests: self::requests(clear),
        ..none
    };
    looked.world.way.set_rules(rules);
    let url = format!("http://api.test:{clear}/v1/x");
    let answer = looked.world.get(&url).await;
    assert!(answer.ends_with("hi"), "{answer}");
    let heard = heard.recv().await.expect("a request");
    assert!(heard.contains("authorization: of a rule\r\n"), "{heard}");
}

#[tokio::test]
async fn a_request_that_is_under_way_is_cut_when_rules_do_not_let_it_out_any_more() {
    let (port, held) = trap().await;
    let mut world = world(&["127.0.0.1"], open());
    let rules = NetworkRules {
        requests: requests(port),
        ..open()
    };
    world.way.set_rules(rules.clone());
    let mut stream = world.connect();
    let host = format!("api.test:{port}");
    let head = format!("GET http://{host}/v1/x HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a stream");
    // It has reached the other side, which does not answer.
    let (mut outside, _) = held.accept().await.expect("a connection");
    read_until(&mut outside, "\r\n\r\n").await;
    let narrower = RequestAsked {
        paths: vec!["/v2/*".to_owned()],
        ..rules.requests[0].asked()
    };
    let asked = NetworkAsked {
        mode: Some(NetworkMode::Unrestricted),
        requests: vec![narrower],
        ..NetworkAsked::default()
    };
    let rules = NetworkRules::read(&asked).expect("sound rules");
    world.way.set_rules(rules);
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.contains("x-proxy-error: http_rule\r\n"), "{answer}");
    assert_eq!(world.next_code().await, "http_rule");
}

#[tokio::test]
async fn without_a_proxy_too_each_request_to_a_host_with_rules_is_judged() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    let stream = looked.direct().await;
    let request = "GET /admin HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n";
    let answer = looked.ask(stream, "api.test", request).await;
    assert!(answer.contains("x-proxy-error: http_rule\r\n"), "{answer}");
    assert_eq!(looked.world.next_code().await, "http_rule");
    let stream = looked.direct().await;
    let answer = looked.ask(stream, "evil.test", GET).await;
    assert!(answer.starts_with("no TLS"), "{answer}");
    assert_eq!(looked.world.next_code().await, "sni_mismatch");
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn where_only_reading_is_allowed_the_names_that_can_be_read_are_there() {
    let outside = Outside::new();
    let rules = lists(NetworkMode::ReadOnly, &[], &[]);
    let mut looked = Looked::with(world(&["127.0.0.1"], rules), &outside, 443);
    for (host, answer, code) in [
        ("api.test", YES, "allowed"),
        ("other.test", DENIED, "read_only_tunnel"),
    ] {
        let mut stream = direct::connect(&looked.world);
        let asked = direct::question(RESOLVE, 0, host.as_bytes());
        stream.write_all(&asked).await.expect("a question");
        assert_eq!(stream.read_u8().await.expect("an answer"), answer);
        assert_eq!(looked.world.next_code().await, code);
    }
}

#[tokio::test]
async fn the_name_in_tls_is_that_of_the_tunnel() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "evil.test", GET).await;
    assert!(answer.starts_with("no TLS"), "{answer}");
    assert_eq!(looked.world.next_code().await, "sni_mismatch");
    // Without a name, as to an address.
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "127.0.0.1", GET).await;
    assert!(answer.starts_with("no TLS"), "{answer}");
    assert_eq!(looked.world.next_code().await, "sni_mismatch");
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_host_that_cannot_show_who_it_is_gets_no_secret() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("other.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(
        answer.contains("x-proxy-error: outside_tls\r\n"),
        "{answer}"
    );
    assert_eq!(looked.world.next_code().await, "outside_tls");
    // One that another authority has signed, and one without TLS.
    let (port, mut others) = Outside::new().server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(
        answer.contains("x-proxy-error: outside_tls\r\n"),
        "{answer}"
    );
    assert_eq!(looked.world.next_code().await, "outside_tls");
    let clear = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let looked = Looked::new(&outside, clear.local_addr().expect("a port").port());
    let hearing = tokio::spawn(async move {
        let (mut stream, _) = clear.accept().await.expect("a connection");
        stream.write_all(b"SSH-2.0-x\r\n").await.expect("a stream");
        read_all(&mut stream).await
    });
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(
        answer.contains("x-proxy-error: outside_tls\r\n"),
        "{answer}"
    );
    assert!(!hearing.await.expect("a hearing").contains("canary"));
    assert!(seen.try_recv().is_err() && others.try_recv().is_err());
}

#[tokio::test]
async fn without_tls_a_secret_stays_inside() {
    let outside = Outside::new();
    let (port, mut seen) = server(OK).await;
    let mut looked = Looked::new(&outside, port);
    let mut tunnel = looked.tunnel().await;
    let request = GET.replace("HOST", &format!("api.test:{port}"));
    tunnel
        .write_all(request.as_bytes())
        .await
        .expect("a stream");
    let answer = read_all(&mut tunnel).await;
    assert!(
        answer.contains("x-proxy-error: secret_needs_tls\r\n"),
        "{answer}"
    );
    assert_eq!(looked.world.next_code().await, "secret_needs_tls");
    // The same in absolute form.
    let answer = looked
        .world
        .get(&format!("http://api.test:{port}/v1/x"))
        .await;
    assert!(
        answer.contains("x-proxy-error: secret_needs_tls\r\n"),
        "{answer}"
    );
    assert_eq!(looked.world.next_code().await, "secret_needs_tls");
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_tunnel_that_is_looked_into_opens_nothing_that_is_closed() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::with(world(&[], open()), &outside, port);
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(
        answer.contains("x-proxy-error: address_loopback\r\n"),
        "{answer}"
    );
    assert_eq!(looked.world.next_code().await, "address_loopback");
    let looked = Looked::with(
        world(&[], NetworkRules::all_or_nothing(false)),
        &outside,
        port,
    );
    let head = format!("CONNECT api.test:{port} HTTP/1.1\r\nhost: api.test:{port}\r\n\r\n");
    let answer = looked.world.say(head).await;
    assert!(answer.contains("x-proxy-error: no_egress\r\n"), "{answer}");
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn what_is_no_tls_and_no_http_ends_and_holds_nothing_up() {
    let outside = Outside::new();
    let (port, _seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    for garbage in [
        &b"\x16\x03\x01\xff\xff"[..],
        b"\x16garbage that is no handshake at all, and long enough to be looked at",
        b"\x00\x01\x02",
        b"SSH-2.0-x\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut tunnel = looked.tunnel().await;
        tunnel.write_all(garbage).await.expect("a stream");
        tunnel.shutdown().await.expect("a stream");
        read_all(&mut tunnel).await;
    }
    // And it serves on.
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for code in [
        "client_tls",
        "client_tls",
        "bad_request",
        "bad_request",
        "bad_request",
    ] {
        assert_eq!(looked.world.next_code().await, code);
    }
}

#[tokio::test]
async fn a_host_without_rules_is_not_looked_into() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("free.test", OK).await;
    let looked = Looked::new(&outside, port);
    let mut stream = looked.world.connect();
    let head = format!("CONNECT free.test:{port} HTTP/1.1\r\nhost: free.test:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a tunnel");
    read_until(&mut stream, "\r\n\r\n").await;
    // The certificate is the server's own, which the sandbox's authority has not signed.
    let answer = looked.ask(stream, "free.test", GET).await;
    assert!(answer.starts_with("no TLS"), "{answer}");
    assert!(seen.try_recv().is_err());
}

/// Other secrets come with other rules, in one moment: a tunnel of before that nobody looked into is cut, one that is
/// looked into goes on with the others, and what looked in first and came late changes nothing.
#[tokio::test]
async fn secrets_that_come_later_are_added_and_cut_tunnels_that_nobody_looks_into() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    looked.world = world(&["127.0.0.1"], open());
    let inspector = |value: &'static str| {
        let authority = Authority::make(now_s()).expect("an authority");
        let certificate = authority.certificate().to_owned();
        let mut fields = secrets(port);
        fields[0].value = HeaderValue::from_static(value);
        (
            Inspector::new(fields, authority, &outside.roots()).expect("TLS"),
            certificate,
        )
    };
    let mut opaque = looked.tunnel().await;
    opaque.write_all(b"\x16\x03").await.expect("a stream");
    let (first, authority) = inspector("first");
    looked.world.way.set(open(), Some(first));
    read_all(&mut opaque).await;
    assert_eq!(looked.world.next_code().await, "http_rule");
    looked.authority = authority;
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(answer.ends_with("hi"), "{answer}");
    assert!(
        seen.recv()
            .await
            .expect("a request")
            .contains("authorization: first\r\n")
    );
    let (second, authority) = inspector("second");
    looked.authority = authority;
    looked.world.way.set(open(), Some(second));
    looked.world.way.look_into(inspector("late").0);
    let tunnel = looked.tunnel().await;
    let answer = looked.ask(tunnel, "api.test", GET).await;
    assert!(answer.ends_with("hi"), "{answer}");
    assert!(
        seen.recv()
            .await
            .expect("a request")
            .contains("authorization: second\r\n")
    );
    let withheld = NetworkRules {
        withhold_secrets: true,
        ..open()
    };
    looked.world.way.set_rules(withheld);
    let tunnel = looked.tunnel().await;
    looked.ask(tunnel, "api.test", GET).await;
    assert!(
        seen.recv()
            .await
            .expect("a request")
            .contains("authorization: mine\r\n")
    );
}
