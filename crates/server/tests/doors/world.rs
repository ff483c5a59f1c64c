//! A server with every kind of door, a database in a temporary directory, and a clock that stands.

use std::fmt::Write as _;
use std::net::SocketAddr;

use api::client::{MemoryDialer, Token};
use api::{Client, Endpoint};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use model::id::NodeId;
use model::points::Points;
use model::principal::{PrincipalKind, Role};
use model::rate::{Rate, Rates};
use server::{Door, Links, Peer};
use service::{Blobs, Clock, Ctx, NewKey, Service};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "a-token-for-tests";
/// When everything happens: 2025-06-15, 15:06:40 UTC.
const NOW_MS: u64 = 1_750_000_000_000;

pub(crate) struct World {
    pub(crate) service: Service,
    pub(crate) clock: Clock,
    pub(crate) links: Links,
    pub(crate) node_id: NodeId,
    pub(crate) user: Client,
    pub(crate) node: Client,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: Option<JoinHandle<()>>,
    pub(crate) tcp: SocketAddr,
    user_door: MemoryDialer,
    node_door: MemoryDialer,
    pub(crate) dir: tempfile::TempDir,
}

/// A request without a body.
pub(crate) fn bare(method: &str, path: &str) -> Request<Full<Bytes>> {
    with_body(method, path, "")
}

pub(crate) fn with_body(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    request.body(Full::from(body.to_owned())).unwrap()
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("no code").to_owned()
    }

    /// Everything that a client sees, with ids that are the same in every run.
    pub(crate) fn whole(&self) -> String {
        let mut text = format!("{}\n", self.status);
        for (name, value) in &self.headers {
            if name != "date" && name != "content-length" {
                writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
            }
        }
        let json = self.json();
        let body = if json.is_null() {
            String::from_utf8(self.body.to_vec()).unwrap()
        } else {
            serde_json::to_string_pretty(&json).unwrap()
        };
        steady_ids(&format!("{text}\n{body}"))
    }
}

/// Replaces the random digits of ids by the order in which they appear.
pub(crate) fn steady_ids(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut out = String::new();
    let mut rest = text;
    while let Some((at, prefix)) = ["job_", "art_", "node_", "req_", "sbx_", "snp_"]
        .iter()
        .filter_map(|prefix| rest.find(prefix).map(|at| (at, *prefix)))
        .min()
    {
        let (before, after) = rest.split_at(at + prefix.len());
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let digits = after.len() - after.trim_start_matches(hex).len();
        out.push_str(before);
        if digits >= 24 {
            let id = format!("{prefix}{}", &after[..digits]);
            let known = seen.iter().position(|other| *other == id);
            let number = known.unwrap_or_else(|| {
                seen.push(id);
                seen.len() - 1
            });
            write!(out, "<{number}>").unwrap();
            rest = &after[digits..];
        } else {
            rest = after;
        }
    }
    out + rest
}

/// The tests ask as often as they like, from one address.
fn open_rates() -> Rates {
    let many = Rate::new(100_000, 100_000);
    Rates {
        strangers: many,
        failures: many,
        ..Rates::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(None, open_rates()).await
    }

    /// One in development, in which who shows nothing is somebody.
    pub(crate) async fn bypassed(as_whom: &str) -> Self {
        let bypass = server::Bypass {
            tenant: model::id::TenantId::local(),
            principal: as_whom.parse().unwrap(),
        };
        Self::with(Some(bypass), open_rates()).await
    }

    /// One that takes so many requests.
    pub(crate) async fn with_rates(rates: Rates) -> Self {
        Self::with(None, rates).await
    }

    async fn with(bypass: Option<server::Bypass>, rates: Rates) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store =
            store::Store::open_sqlite(&dir.path().join("cofferdam.db"), Points::none()).unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        let clock = Clock::fake(NOW_MS);
        let service = Service::new(store, blobs, clock.clone(), || Some(u64::MAX));
        service.secret_keys_from(|| {
            let current = service::MasterKey::parse("ab".repeat(32).as_bytes())?;
            let before = Vec::new();
            Ok(service::MasterKeys { current, before })
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let node_id = NodeId::from_parts(NOW_MS, [7; 10]);
        let (user_door, user_incoming) = mpsc::channel(4);
        let (node_door, node_incoming) = mpsc::channel(4);
        let doors = vec![
            Door::Memory {
                incoming: user_incoming,
                peer: Peer::User(service::Who::owner("uid:1000".parse().unwrap())),
            },
            Door::Memory {
                incoming: node_incoming,
                peer: Peer::Node(node_id.clone()),
            },
            Door::Tcp {
                listener,
                token: Token::new(TOKEN),
                domain: None,
                tls: None,
                bypass,
            },
        ];
        let (links, stop) = (Links::default(), CancellationToken::new());
        service.rates_are(rates);
        let serving = server::serve(service.clone(), links.clone(), doors, stop.clone());
        Self {
            service,
            clock,
            links,
            node_id,
            user: Client::new(Endpoint::Memory(user_door.clone())),
            node: Client::new(Endpoint::Memory(node_door.clone())),
            stop,
            serving: Some(tokio::spawn(serving)),
            tcp,
            user_door,
            node_door,
            dir,
        }
    }

    /// Asks as a person.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Reply {
        exchange(memory(&self.user_door).await, request).await
    }

    /// The text of a new key for a new principal of the first tenant, or of another one.
    pub(crate) async fn key(&self, tenant: &str, role: Role, scopes: &[&str]) -> String {
        let ctx = self.admin(tenant).await;
        let name = format!("{}-{}", role.as_str(), scopes.join("-").replace(':', "-"));
        self.key_of(&ctx, (PrincipalKind::User, &name, role), scopes)
            .await
    }

    /// The same of an agent of the first tenant.
    pub(crate) async fn agent_key(&self, role: Role) -> String {
        let ctx = self.admin("").await;
        self.key_of(&ctx, (PrincipalKind::Agent, "agent", role), &[])
            .await
    }

    /// An admin of the first tenant, or of another one, which is made.
    pub(crate) async fn admin(&self, tenant: &str) -> Ctx {
        let owner = Ctx::user("uid:1000".parse().unwrap(), "req_1");
        if tenant.is_empty() {
            return owner;
        }
        let made = self.service.tenant_create(&owner, tenant, "admin").await;
        match made {
            Ok(made) => {
                let who = self.service.key_who(&made.key.1).await.unwrap().unwrap();
                Ctx::of(who, "req_2")
            }
            // It is there: whoever makes it twice is its first admin again.
            Err(_) => {
                let page = self.service.tenant_list(&owner, None, 100).await.unwrap();
                let row = page.tenants.into_iter().find(|row| row.name == tenant);
                Ctx {
                    tenant: row.unwrap().id,
                    ..owner
                }
            }
        }
    }

    async fn key_of(
        &self,
        ctx: &Ctx,
        (kind, name, role): (PrincipalKind, &str, Role),
        scopes: &[&str],
    ) -> String {
        let row = self.service.principal_create(ctx, kind, name, role).await;
        let new = NewKey {
            owner: row.unwrap().id.to_string(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..NewKey::default()
        };
        self.service.key_create(ctx, new).await.unwrap().1
    }

    /// Asks over TCP with this key.
    pub(crate) async fn ask_with(&self, key: &str, line: &str, body: &str) -> Reply {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = with_body(method, path, body);
        let bearer = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        self.ask_tcp(request).await
    }

    /// Asks as the node.
    pub(crate) async fn ask_as_node(&self, request: Request<Full<Bytes>>) -> Reply {
        exchange(memory(&self.node_door).await, request).await
    }

    /// Asks one thing after the other over one connection to the door of memory, as a person or as the node.
    pub(crate) async fn ask_both(
        &self,
        as_node: bool,
        requests: [Request<Full<Bytes>>; 2],
    ) -> [Reply; 2] {
        let door = if as_node {
            &self.node_door
        } else {
            &self.user_door
        };
        let io = TokioIo::new(memory(door).await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        drop(tokio::spawn(connection));
        let [first, second] = requests;
        let first = reply(sender.send_request(first).await.unwrap()).await;
        sender.ready().await.unwrap();
        let second = sender.send_request(second).await.unwrap();
        [first, reply(second).await]
    }

    /// Asks over TCP, with just these headers.
    pub(crate) async fn ask_tcp(&self, request: Request<Full<Bytes>>) -> Reply {
        exchange(TcpStream::connect(self.tcp).await.unwrap(), request).await
    }
}

async fn memory(door: &MemoryDialer) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    door.send(theirs).await.unwrap();
    ours
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Reply {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    drop(tokio::spawn(connection));
    reply(sender.send_request(request).await.unwrap()).await
}

async fn reply(response: http::Response<hyper::body::Incoming>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}
