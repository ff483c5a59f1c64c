//! A server with a TCP door, and a node that does with sandboxes what it is told.

use std::net::SocketAddr;
use std::sync::Arc;

use api::client::{MemoryDialer, Token};
use api::node::{NodePoll, NodeRegister, SandboxReport, SandboxSaid, SandboxWant};
use api::{Client, Endpoint};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use model::id::NodeId;
use model::points::Points;
use serde_json::{Value, json};
use server::{Domain, Door, Links, Peer, Tls};
use service::{Blobs, Clock, Service};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::guest::{self, Guest};

pub(crate) const TOKEN: &str = "a-token-for-tests";
/// When everything happens: 2025-06-15, 15:06:40 UTC.
const NOW_MS: u64 = 1_750_000_000_000;

pub(crate) struct World {
    pub(crate) service: Service,
    pub(crate) tcp: SocketAddr,
    pub(crate) guest: Arc<Guest>,
    user_door: MemoryDialer,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn message(&self) -> String {
        let json = self.json();
        let message = json["message"].as_str().unwrap_or_default();
        format!("{} {message}", self.status.as_u16())
    }
}

/// A sandbox as a client got to know it.
pub(crate) struct Known {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) json: Value,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::at(None, None).await
    }

    /// One that is found by names of a domain, maybe through TLS.
    pub(crate) async fn at(domain: Option<Domain>, tls: Option<Tls>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cofferdam.db");
        let store = store::Store::open_sqlite(&path, Points::none()).unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        let service = Service::new(store, blobs, Clock::fake(NOW_MS), || Some(u64::MAX));
        service.secret_keys_from(|| {
            let current = service::MasterKey::parse("ab".repeat(32).as_bytes())?;
            let before = Vec::new();
            Ok(service::MasterKeys { current, before })
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let node_id = NodeId::from_parts(NOW_MS, [7; 10]);
        let (user_door, users) = mpsc::channel(4);
        let (node_door, nodes) = mpsc::channel(4);
        let token = Token::new(TOKEN);
        let doors = vec![
            Door::Memory {
                incoming: users,
                peer: Peer::User(service::Who::owner("uid:1000".parse().unwrap())),
            },
            Door::Memory {
                incoming: nodes,
                peer: Peer::Node(node_id.clone()),
            },
            Door::Tcp {
                listener,
                token,
                domain,
                tls,
                bypass: None,
            },
        ];
        let (links, stop) = (Links::default(), CancellationToken::new());
        let (link, linked) = mpsc::channel(64);
        links.insert(node_id.clone(), link);
        let guest = Arc::new(Guest::default());
        drop(tokio::spawn(guest::serve(guest.clone(), linked)));
        drop(tokio::spawn(server::serve(
            service.clone(),
            links,
            doors,
            stop.clone(),
        )));
        let node = Client::new(Endpoint::Memory(node_door));
        register(&node).await;
        drop(tokio::spawn(obey(node)));
        Self {
            service,
            tcp,
            guest,
            user_door,
            _stop: stop.drop_guard(),
            _dir: dir,
        }
    }

    /// The key of the control plane.
    pub(crate) fn key() -> String {
        server::e2b_api_key(TOKEN)
    }

    /// Asks over TCP, with just these headers.
    pub(crate) async fn ask(
        &self,
        line: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        exchange(stream, request(line, headers, body.into())).await
    }

    /// Asks over this connection.
    pub(crate) async fn ask_over(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        line: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        exchange(io, request(line, headers, body.into())).await
    }

    /// Asks over a connection that says itself who is there.
    pub(crate) async fn ask_trusted(&self, line: &str, headers: &[(&str, &str)]) -> Reply {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.user_door.send(theirs).await.unwrap();
        exchange(ours, request(line, headers, Bytes::new())).await
    }

    /// Asks the control plane with the key.
    pub(crate) async fn control(&self, line: &str, body: &Value) -> Reply {
        let host = self.tcp.to_string();
        let key = Self::key();
        let headers = [("host", host.as_str()), ("x-api-key", &key)];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.ask(line, &headers, body).await
    }

    /// A new sandbox, with what is asked beside the template.
    pub(crate) async fn sandbox(&self, more: Value) -> Known {
        let mut asked = json!({"templateID": "base"});
        let members = asked.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        let reply = self.control("POST /v2/sandboxes", &asked).await;
        assert_eq!(reply.status, 201, "{}", reply.message());
        let json = reply.json();
        Known {
            id: json["sandboxID"].as_str().unwrap().to_owned(),
            token: json["envdAccessToken"].as_str().unwrap().to_owned(),
            json,
        }
    }
}

fn request(line: &str, headers: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body)).unwrap()
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Reply {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    drop(tokio::spawn(connection));
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

async fn register(node: &Client) {
    let hello = NodeRegister {
        name: "test".to_owned(),
        incarnation: "1".to_owned(),
        version: "0".to_owned(),
        kind: None,
        slots: 1,
        drivers: vec!["fake".to_owned()],
        facts: ["root:ubuntu:22.04", "root:Mirror:5000/python"]
            .map(|name| (name.to_owned(), "1".to_owned()))
            .into(),
        labels: std::collections::BTreeMap::new(),
        protocol: api::node::NodeProtocol::default(),
    };
    node.node_register(&hello).await.unwrap();
}

/// Carries every order out at once, until the server is gone.
async fn obey(node: Client) {
    let poll = NodePoll {
        incarnation: "1".to_owned(),
        free_slots: 0,
        free_sandboxes: 100,
        reserved: api::fleet::NodeReserved::default(),
        wait_ms: 10_000,
    };
    while let Ok(answer) = node.node_poll(&poll).await {
        for id in answer.remove_snapshots {
            drop(node.node_snapshot_removed(&id).await);
        }
        for order in answer.sandboxes {
            let what = match order.want {
                SandboxWant::Make | SandboxWant::Resume => SandboxSaid::Ready {
                    driver: "fake".to_owned(),
                    enforcement: Vec::new(),
                },
                SandboxWant::Pause => SandboxSaid::Paused,
                SandboxWant::Snapshot => SandboxSaid::Saved { size_bytes: 7 },
                SandboxWant::Destroy => SandboxSaid::Destroyed,
            };
            let report = SandboxReport {
                epoch: order.epoch,
                what,
                host: None,
            };
            drop(node.node_sandbox_report(&order.sandbox_id, &report).await);
        }
    }
}
