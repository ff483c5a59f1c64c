//! The service on a real database, with a clock that stands still and nodes that are these tests.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod approvals;
mod audit;
mod builds;
mod capacity;
mod deaths;
mod dropped;
mod enroll;
mod execs;
mod files;
mod fleet_deaths;
mod jwt;
mod lease_token;
mod leaving;
mod life;
mod loops;
mod modules;
mod network;
mod people;
mod pin;
mod place;
mod policies;
mod poll;
#[expect(
    unreachable_pub,
    dead_code,
    reason = "it is that of the whole-system tests"
)]
#[path = "../../../../e2e/src/postgres.rs"]
mod postgres;
mod profiles;
mod prune;
mod quotas;
mod recreate;
mod refusals;
mod replicas;
mod report;
mod roots;
mod sandbox_nodes;
mod sandboxes;
mod secrets;
mod snapshots;
mod together;
mod volumes;

use crate::postgres::Postgres;
use model::enforcement::StreamReport;
use model::id::{JobId, NodeId, TenantId};
use model::job::{JobState, Outcome};
use model::limits;
use model::points::Points;
use model::spec::{AskedLimits, JobSpec, Retry};
use service::{Blobs, Clock, Ctx, Finished, JobRow, NodeHello, Polled, Service, Started};
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Store, event};

/// Long enough to be a hang when it passes.
const LONG: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::ZERO;

struct World {
    dir: tempfile::TempDir,
    clock: Clock,
    service: Service,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::fake(1_800_000_000_000);
        let service = open(dir.path(), &clock);
        World {
            dir,
            clock,
            service,
        }
    }

    /// Another process on the same state.
    fn again(&self) -> Service {
        open(self.dir.path(), &self.clock)
    }

    /// The same, on storage of which so much is free.
    fn with_free(&self, free: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Service {
        let store = self.store();
        let blobs = Blobs::open(&self.dir.path().join("blobs")).unwrap();
        Service::new(store, blobs, self.clock.clone(), free)
    }

    /// The database, past the service.
    fn store(&self) -> Store {
        Store::open_sqlite(&self.dir.path().join("db"), Points::none()).unwrap()
    }

    /// What happened to a node.
    async fn node_kinds(&self, number: u8) -> Vec<String> {
        let id = node_id(number);
        let list = move |tx: &mut store::Tx<'_>| event::list(tx, "node", id.as_str(), 0, 100);
        let events = self.store().read(list).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    /// All parts of the blobs are looked through.
    async fn sweep(&self) -> u32 {
        let mut removed = 0;
        for _ in 0..32 {
            let pass = service::loops::prune_pass(&self.service).await.unwrap();
            removed += pass.blobs;
        }
        removed
    }

    /// Who is behind the text of a key.
    async fn by_key(&self, text: &str) -> Ctx {
        let who = self.service.key_who(text).await.unwrap().unwrap();
        Ctx::of(who, "req_3")
    }

    /// The admin of another tenant, which is made for it.
    async fn acme(&self) -> Ctx {
        let made = self.service.tenant_create(&user(), "acme", "root").await;
        self.by_key(&made.unwrap().key.1).await
    }

    async fn create(&self, spec: JobSpec) -> JobRow {
        self.service.job_create(&user(), spec, None).await.unwrap()
    }

    async fn get(&self, id: &JobId) -> JobRow {
        self.service.job_get(&user(), id).await.unwrap()
    }

    /// A job that is leased to a new node.
    async fn leased(&self, spec: JobSpec) -> (Ctx, JobRow) {
        let node = node(1);
        self.register(&node, "a").await;
        self.create(spec).await;
        let polled = self.poll(&node, NOW).await;
        (node, polled.leases.into_iter().next().unwrap())
    }

    /// A job whose command was let go.
    async fn running(&self, spec: JobSpec) -> (Ctx, JobRow) {
        let (node, row) = self.leased(spec).await;
        let report = self.service.job_started(&node, &row.id, started(&row));
        assert!(!report.await.unwrap().cancel);
        (node, row)
    }

    async fn register(&self, node: &Ctx, incarnation: &str) -> Vec<JobRow> {
        let hello = hello(incarnation);
        let registered = self.service.node_register(node, hello).await.unwrap();
        registered.held
    }

    async fn poll(&self, node: &Ctx, wait: Duration) -> Polled {
        self.service.node_poll(node, "a", 1, wait).await.unwrap()
    }

    async fn kinds(&self, id: &JobId) -> Vec<String> {
        let events = self.service.job_events(&user(), id, 0, 100).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    /// A whole lease goes by in which the loops run and nodes are silent.
    async fn silence(&self) {
        for _ in 0..=limits::LEASE_MS / 30_000 {
            self.clock.advance(30_000);
            service::loops::reap_pass(&self.service).await.unwrap();
        }
    }
}

fn open(dir: &std::path::Path, clock: &Clock) -> Service {
    let store = Store::open_sqlite(&dir.join("db"), Points::none()).unwrap();
    let blobs = Blobs::open(&dir.join("blobs")).unwrap();
    Service::new(store, blobs, clock.clone(), || Some(u64::MAX))
}

/// Two servers on a PostgreSQL, each with its own memory.
#[expect(
    clippy::print_stdout,
    reason = "what was skipped is counted by what is said"
)]
fn two_servers() -> Option<(Postgres, tempfile::TempDir, [Service; 2])> {
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let one = || {
        let store = Store::open_postgres(&postgres.address(), Points::none()).unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        Service::new(store, blobs, Clock::system(), || Some(u64::MAX))
    };
    let servers = [one(), one()];
    Some((postgres, dir, servers))
}

/// Whether none of its transactions waited for each other in a circle. The tries that follow hide that from whoever
/// asked. The database counts them too, but says so late.
fn no_deadlock(postgres: &Postgres) {
    let said = postgres.said();
    // Else nothing was read, and nothing is in that.
    assert!(said.contains("ready to accept connections"), "{said}");
    assert!(!said.contains("deadlock"), "{said}");
}

fn user() -> Ctx {
    Ctx::user("uid:1000".parse().unwrap(), "req_1")
}

fn stranger() -> Ctx {
    let tenant: TenantId = "ten_other".parse().unwrap();
    Ctx { tenant, ..user() }
}

fn node_id(number: u8) -> NodeId {
    NodeId::from_parts(1, [number; 10])
}

fn node(number: u8) -> Ctx {
    Ctx::node(node_id(number), "req_2")
}

fn hello(incarnation: &str) -> NodeHello {
    let facts = [("memory_bytes", "4294967296"), ("cpus", "2")];
    NodeHello {
        name: "here".to_owned(),
        incarnation: incarnation.to_owned(),
        version: "0.1.0".to_owned(),
        kind: model::node::NodeKind::Server,
        slots: 4,
        labels: BTreeMap::new(),
        drivers: vec!["linux".to_owned()],
        facts: facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        protocol: 1,
    }
}

fn spec() -> JobSpec {
    JobSpec {
        profile: "default".to_owned(),
        argv: vec!["true".to_owned()],
        env: BTreeMap::new(),
        cwd: None,
        root: None,
        timeout_ms: 1000,
        limits: AskedLimits::default(),
        files: Vec::new(),
        outputs: Vec::new(),
        attach: false,
        retry: Retry { max_attempts: 1 },
        queue_timeout_ms: None,
        placement: model::place::Placement::default(),
        node: None,
        secrets: Vec::new(),
        scrub_patterns: false,
        network: model::network::NetworkRules::default(),
        made_by: None,
        permit: None,
    }
}

fn retried(max_attempts: u32) -> JobSpec {
    JobSpec {
        retry: Retry { max_attempts },
        ..spec()
    }
}

fn started(row: &JobRow) -> Started {
    Started {
        epoch: row.epoch,
        attempt: row.attempt,
        driver: "linux".to_owned(),
        sandbox_id: None,
        enforcement: Vec::new(),
    }
}

fn finished(row: &JobRow, outcome: Outcome) -> Finished {
    Finished {
        epoch: row.epoch,
        attempt: row.attempt,
        outcome,
        usage: None,
        enforcement: None,
        stdout: StreamReport::default(),
        stderr: StreamReport::default(),
        detail: None,
        segments: Vec::new(),
    }
}

/// What a node says of a job whose sandbox is not there.
fn lost(row: &JobRow, why: &str) -> Finished {
    let why = why.to_owned();
    finished(row, Outcome::Lost { why })
}

fn ended(outcome: Outcome) -> JobState {
    JobState::Finished { outcome }
}
