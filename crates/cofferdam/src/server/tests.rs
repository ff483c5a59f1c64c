//! The door of nodes, with real TLS on loopback.

use super::*;
use crate::dial::{Dialer, Trust};
use crate::identity::{Identity, client, keep_certificate};
use api::attach::{LinkOpen, LinkTarget};
use api::client::{Client, ClientError};
use api::fleet::{Hidden, NodeEnroll, NodeRenew};
use api::job::JobListQuery;
use api::node::NodeRegister;
use model::id::NodeId;
use model::points::Points;
use model::rate::{Rate, Rates};
use rcgen::{CertificateParams, KeyPair};
use service::{Ctx, EnrollTokenRow, NodeOrder};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) service: Service,
    links: Links,
    pub(super) url: String,
    pub(super) authority: Authority,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) fn user() -> Ctx {
    Ctx::user("uid:1000".parse().unwrap(), "req_1")
}

pub(super) fn hello() -> NodeRegister {
    NodeRegister {
        name: "a".to_owned(),
        incarnation: "1".to_owned(),
        version: "0".to_owned(),
        kind: None,
        slots: 1,
        drivers: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        protocol: api::node::NodeProtocol::default(),
        facts: BTreeMap::new(),
    }
}

impl World {
    pub(super) async fn new() -> World {
        World::with_rates(Rates::default()).await
    }

    /// One that takes so many requests.
    async fn with_rates(rates: Rates) -> World {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(&dir.path().join("server"));
        state.make().unwrap();
        let service = compose::service(&state, Points::none()).unwrap();
        service.rates_are(rates);
        let nodes = Nodes {
            listen: "127.0.0.1:0".parse().unwrap(),
            names: vec!["127.0.0.1".to_owned()],
            address: None,
            token: None,
        };
        let authority = authority_of(&state, Some(&nodes), Mode::Production).unwrap();
        let id = replica::new_id().unwrap();
        let door = node_door(&id, &service, &nodes, authority.as_ref())
            .await
            .unwrap();
        let address = door.address().unwrap().to_string();
        let url = format!("https://{address}");
        let (links, stop) = (Links::default(), CancellationToken::new());
        let replica = Replica::new(id, None, authority, Some(address)).unwrap();
        replica.beat(&service).await.unwrap();
        links.ask(replica.peers(&service));
        let doors = vec![Door::Nodes(door)];
        tokio::spawn(server::serve(
            service.clone(),
            links.clone(),
            doors,
            stop.clone(),
        ));
        let authority = Authority::open(&state.dir().join("node-authority.json"), now_s()).unwrap();
        World {
            dir,
            service,
            links,
            url,
            authority,
            stop,
        }
    }

    async fn token(&self) -> String {
        self.made().await.1
    }

    /// An enrollment token and its text.
    pub(super) async fn made(&self) -> (EnrollTokenRow, String) {
        let made = self
            .service
            .enroll_token_create(&user(), BTreeMap::new())
            .await;
        made.unwrap()
    }

    /// The database, past the service.
    pub(super) fn store(&self) -> store::Store {
        let state = State::at(&self.dir.path().join("server"));
        store::Store::open_sqlite(&state.database(), Points::none()).unwrap()
    }

    fn node_state(&self, name: &str) -> State {
        let state = State::at(&self.dir.path().join(name));
        state.make().unwrap();
        state
    }

    pub(super) async fn enrolled(&self, name: &str) -> Identity {
        let (state, token) = (self.node_state(name), self.token().await);
        Identity::enroll(&state, &self.url, &token, name)
            .await
            .unwrap()
    }

    pub(super) fn as_node(&self, own: &Identity) -> Client {
        client(own.dialer(&self.url).unwrap())
    }

    /// What this server has signed, shown with a certificate that somebody made elsewhere, or none.
    pub(super) fn stranger(&self, signed_by: Option<&Authority>) -> Client {
        let own = signed_by.map(|authority| {
            let key = KeyPair::generate().unwrap();
            let csr = CertificateParams::default()
                .serialize_request(&key)
                .unwrap();
            let node = NodeId::from_parts(1, [7; 10]);
            let now_ms = now_s() * 1000;
            let signed = (authority.for_nodes().sign)(&csr.pem().unwrap(), &node, now_ms).unwrap();
            (signed.certificate, key.serialize_pem())
        });
        let trust = Trust::Authority(self.authority.for_nodes().certificate);
        client(Dialer::new(&self.url, trust, own).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_a_token_is_a_node_and_nothing_else() {
    let world = World::new().await;
    let own = world.enrolled("a").await;
    let node = world.as_node(&own);
    node.node_register(&hello()).await.unwrap();
    let seen = world.service.node_get(&user(), &own.node).await.unwrap();
    assert!(
        seen.row.is_some(),
        "it registered under the id of its certificate"
    );
    let jobs = node.job_list(&JobListQuery::default()).await;
    assert!(jobs.unwrap_err().is(Code::Forbidden));
    let known = Identity::known(&world.node_state("a")).unwrap().unwrap();
    assert_eq!(known.node, own.node);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_to_a_node_over_the_links_that_it_dialled() {
    let world = World::new().await;
    let own = world.enrolled("a").await;
    let (takes, mut taken) = mpsc::channel(4);
    let keeping = tokio::spawn(node::keep_links(
        world.as_node(&own),
        takes,
        std::sync::Arc::default(),
    ));
    let id = "sbx_1".to_owned();
    let target = LinkTarget::Sandbox { id };
    let mut client = loop {
        let (client, io) = tokio::io::duplex(1024);
        let open = LinkOpen {
            target: target.clone(),
            io,
        };
        if world.links.open(&own.node, open).await.is_ok() {
            break client;
        }
        tokio::task::yield_now().await;
    };
    let mut open = taken.recv().await.unwrap();
    assert_eq!(open.target, target);
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    open.io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    keeping.abort();
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    assert!(rest.is_empty(), "the link broke, and its streams with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_not_given_here_opens_nothing_whoever_signed_it() {
    let world = World::new().await;
    let elsewhere = world.dir.path().join("other.json");
    let other = Authority::open(&elsewhere, now_s()).unwrap();
    for authority in [&other, &world.authority] {
        let refused = world
            .stranger(Some(authority))
            .node_register(&hello())
            .await;
        let error = refused.unwrap_err();
        assert!(error.is(Code::CertificateUnknown), "{error:?}");
    }
    let bare = world.stranger(None).node_register(&hello()).await;
    assert!(bare.unwrap_err().is(Code::Unauthenticated));
    assert!(world.service.node_list(&user()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_sent_away_is_refused_and_one_that_renews_is_not() {
    let world = World::new().await;
    let own = world.enrolled("a").await;
    let node = world.as_node(&own);
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let csr = csr.pem().unwrap();
    let renewed = node
        .node_renew(&NodeRenew { csr: csr.clone() })
        .await
        .unwrap();
    let dialer = own.dialer(&world.url).unwrap();
    dialer
        .show(&renewed.certificate, &key.serialize_pem())
        .unwrap();
    client(dialer).node_register(&hello()).await.unwrap();
    world.as_node(&own).node_register(&hello()).await.unwrap();
    let order = NodeOrder::Decommission;
    world
        .service
        .node_order(&user(), &own.node, order)
        .await
        .unwrap();
    let refused = world.as_node(&own).node_register(&hello()).await;
    assert!(refused.unwrap_err().is(Code::CertificateRevoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_names_another_authority_is_sent_to_nobody() {
    let world = World::new().await;
    let token = world.token().await;
    let (secret, _) = token.rsplit_once('_').unwrap();
    let other = format!("{secret}_{}", "0".repeat(64));
    let state = world.node_state("a");
    let refused = Identity::enroll(&state, &world.url, &other, "a")
        .await
        .unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("reach") && said.contains("UnknownIssuer"),
        "{said}"
    );
    assert!(said.contains("another authority answers there"), "{said}");
    // The right one is still good.
    Identity::enroll(&state, &world.url, &token, "a")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_enrolled_is_told_why_the_server_was_not_reached() {
    let world = World::new().await;
    let token = world.token().await;
    let state = world.node_state("a");
    let refused = async |url: &str| {
        let refused = Identity::enroll(&state, url, &token, "a").await;
        refused.unwrap_err().to_string()
    };
    let port = world.url.rsplit_once(':').unwrap().1;
    let named = refused(&format!("https://localhost:{port}")).await;
    assert!(named.contains("add it to `names`"), "{named}");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = plain.local_addr().unwrap();
    let speaking = tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    });
    let said = refused(&format!("https://{at}")).await;
    assert!(said.contains("does not speak TLS"), "{said}");
    speaking.abort();
    drop(speaking.await);
    let said = refused(&format!("https://{at}")).await;
    assert!(said.contains("Connection refused"), "{said}");
    assert!(said.contains("nobody listens there"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_enrollment_tokens_is_stopped() {
    let rates = Rates {
        failures: Rate::new(1, 30),
        ..Rates::default()
    };
    let world = World::with_rates(rates).await;
    let stranger = world.stranger(None);
    let (mut unknown, mut stopped) = (0, 0);
    for number in 0..50 {
        let asked = NodeEnroll {
            token: Hidden(format!("cfn_{number:064x}_{}", "0".repeat(64))),
            name: "a".to_owned(),
            csr: String::new(),
        };
        let error = stranger.node_enroll(&asked).await.unwrap_err();
        if error.is(Code::EnrollTokenUnknown) {
            unknown += 1;
            continue;
        }
        assert!(error.is(Code::RateLimited), "{error:?}");
        let ClientError::Api(failure) = error else {
            panic!("the server said it");
        };
        assert_eq!(failure.retry_after_ms, Some(1000));
        stopped += 1;
    }
    assert!(
        unknown >= 29 && stopped >= 10,
        "{unknown} unknown, {stopped} stopped"
    );
}

const DAY_MS: u64 = 24 * 3600 * 1000;
/// For one request on a machine that does other things.
const SOON: Duration = Duration::from_secs(60);

/// Who this machine is by its disk, in the words of the file.
fn on_disk(state: &State) -> serde_json::Value {
    let text = std::fs::read(state.dir().join("identity.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The same machine, of whose certificate nine days are left.
fn with_nine_days_left(state: &State) -> Identity {
    let mut known = on_disk(state);
    known["expires_at_ms"] = (now_s() * 1000 + 9 * DAY_MS).into();
    std::fs::write(state.dir().join("identity.json"), known.to_string()).unwrap();
    Identity::known(state).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_nine_days_left_is_renewed_and_is_that_of_the_next_process() {
    let world = World::new().await;
    world.enrolled("a").await;
    let state = world.node_state("a");
    let own = with_nine_days_left(&state);
    let before = on_disk(&state);
    let old = before["certificate"].as_str().unwrap();
    let dialer = own.dialer(&world.url).unwrap();
    assert!(dialer.shows(old));
    let keeping = keep_certificate(state.clone(), own.clone(), dialer.clone());
    let keeping = tokio::spawn(keeping);
    let renewed = async {
        while dialer.shows(old) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, renewed).await.unwrap();
    keeping.abort();
    let after = on_disk(&state);
    assert!(dialer.shows(after["certificate"].as_str().unwrap()));
    assert_ne!(after["key"], before["key"]);
    for same in ["node", "server", "authority"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let until = after["expires_at_ms"].as_u64().unwrap();
    assert!(until > now_s() * 1000 + 29 * DAY_MS, "{until}");
    let file = std::fs::metadata(state.dir().join("identity.json")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!(!state.dir().join("identity.new").exists());
    client(dialer).node_register(&hello()).await.unwrap();
    let next = Identity::known(&state).unwrap().unwrap();
    assert_eq!(next.node, own.node);
    world.as_node(&next).node_register(&hello()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_before_its_new_certificate_has_its_name_goes_on_with_the_old_one() {
    let world = World::new().await;
    world.enrolled("a").await;
    let state = world.node_state("a");
    let own = with_nine_days_left(&state);
    let before = on_disk(&state);
    // What is there between writing and renaming: the server has signed another, and it is in a file beside, or
    // half of it is.
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key);
    let csr = csr.unwrap().pem().unwrap();
    let node = world.as_node(&own);
    node.node_renew(&NodeRenew { csr }).await.unwrap();
    let text = before.to_string();
    let half = text.get(..100).unwrap();
    std::fs::write(state.dir().join("identity.new"), half).unwrap();
    let next = Identity::known(&state).unwrap().unwrap();
    assert_eq!(on_disk(&state), before);
    let dialer = next.dialer(&world.url).unwrap();
    let old = before["certificate"].as_str().unwrap();
    assert!(dialer.shows(old));
    client(dialer.clone())
        .node_register(&hello())
        .await
        .unwrap();
    // And it renews, whatever is left there.
    let keeping = tokio::spawn(keep_certificate(state.clone(), next, dialer.clone()));
    let renewed = async {
        while dialer.shows(old) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, renewed).await.unwrap();
    keeping.abort();
    assert!(!state.dir().join("identity.new").exists());
    assert_ne!(on_disk(&state)["certificate"], before["certificate"]);
}
