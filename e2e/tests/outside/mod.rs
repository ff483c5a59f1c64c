//! A server outside that speaks https, for the tests that add secrets to what leaves.

use e2e::Place;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An address of this machine that no variable keeps from the proxy.
pub(crate) const ADDRESS: &str = "127.0.0.2";

/// A server outside that speaks https, and the heads of the requests that it got.
pub(crate) struct Outside {
    pub(crate) port: u16,
    /// The authority that vouches for it, in PEM.
    authority: String,
    heard: Mutex<Receiver<String>>,
}

impl Outside {
    /// One that answers with what this makes of the head of a request, of fields and a body, which are ASCII.
    pub(crate) fn answering(say: fn(&str) -> String) -> Outside {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::IpAddress(ADDRESS.parse().expect("an address"))];
        let leaf = leaf.signed_by(&own, &issuer).expect("a certificate");
        let own: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(own.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], own)
            .expect("a certificate");
        let listener = TcpListener::bind((ADDRESS, 0)).expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let (tell, heard) = channel();
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, tell) = (config.clone(), tell.clone());
                std::thread::spawn(move || answer(stream, config, &tell, say));
            }
        });
        Outside {
            port,
            authority,
            heard: Mutex::new(heard),
        }
    }

    /// The options of a server of this place whose sandboxes may reach this one and believe its authority.
    pub(crate) fn trusted(&self, place: &Place) -> [String; 4] {
        let file = place.work().join("trust.pem");
        std::fs::write(&file, &self.authority).expect("a file");
        let file = file.display().to_string();
        ["--egress-allow", ADDRESS, "--egress-trust", &file].map(str::to_owned)
    }

    /// The head of the next request.
    pub(crate) fn next(&self) -> String {
        let heard = self.heard.lock().expect("one asks");
        heard
            .recv_timeout(Duration::from_secs(20))
            .expect("a request")
    }
}

fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    tell: &Sender<String>,
    say: fn(&str) -> String,
) {
    let connection = ServerConnection::new(config).expect("TLS");
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let said = say(&head);
    // Nobody may listen.
    drop(tell.send(head));
    drop(stream.write_all(said.as_bytes()));
    stream.conn.send_close_notify();
    drop(stream.flush());
}
