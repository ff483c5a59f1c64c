//! The door of nodes with the real binary, as somebody sees it who can reach its port and has nothing to show.
#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

use e2e::{Place, Process, free_port, until};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Whoever attacks does not mind whose door it is.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

struct Server {
    place: Place,
    port: u16,
    _process: Process,
}

impl Server {
    fn start() -> Server {
        let (place, port) = (Place::new(), free_port());
        let config = format!(
            "[server]\nstate = \"{}\"\n[server.nodes]\nlisten = \"127.0.0.1:{port}\"\n\
             names = [\"127.0.0.1\"]\n",
            place.state().display()
        );
        std::fs::write(place.work().join("server.toml"), config).unwrap();
        let mut command = place.command(&["server", "--config", "server.toml"]);
        let log = std::fs::File::create(place.work().join("server.log")).unwrap();
        let process = command.stderr(Stdio::from(log)).spawn().unwrap();
        let server = Server {
            place,
            port,
            _process: Process(process),
        };
        let is_up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(until(is_up), "{}", server.said());
        server
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.place.work().join("server.log")).unwrap_or_default()
    }

    /// A connection on which hands were shaken, or nothing.
    fn dial(&self) -> Option<Stream> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        stream.flush().ok()?;
        Some(stream)
    }

    /// Of a new connection: the answer to what is sent, up to the end of the connection.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.dial().unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        rest(&mut stream)
    }
}

fn rest(stream: &mut Stream) -> String {
    let mut answer = Vec::new();
    // It may close without the alert that ends TLS.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Attack: The door of nodes is flooded by who has no certificate.
#[test]
fn whoever_has_shown_nothing_gets_one_answer_and_sends_little() {
    let server = Server::start();
    let began = Instant::now();
    let answer = server.ask("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let answer = server.ask("GET /v1/jobs HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    // A body of two megabytes is refused before a byte of it is kept.
    let head = "POST /node/v1/enroll HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let answer = server.ask(&format!("{head}content-length: 2097152\r\n\r\n{{"));
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let body = r#"{"token": "cfn_a_b", "name": "x", "csr": "x"}"#;
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let answer = server.ask(&request);
    assert!(answer.contains("enroll_token_unknown"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// Attack: All places at the door of nodes are taken by who has no certificate.
#[test]
fn those_who_have_shown_nothing_cannot_take_all_places() {
    let server = Server::start();
    // Places of those of whom nothing is known: 128. What is beyond them is closed, and does not wait.
    let mut all: Vec<Stream> = (0..140).filter_map(|_| server.dial()).collect();
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let answered = all.iter_mut().rev().filter_map(|stream| {
        stream.write_all(request).ok()?;
        Some(rest(stream)).filter(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    let answered = answered.count();
    assert!((128..140).contains(&answered), "{answered}");
    // And they are given back.
    let answer = server.ask("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
