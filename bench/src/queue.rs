//! Durable jobs through the queue: created, leased, started and finished with full sync, each step with its event, by
//! nodes that do nothing.

#[path = "../../e2e/src/postgres.rs"]
#[expect(dead_code, unreachable_pub, reason = "tests ask more of it")]
mod postgres;

use crate::timing::Row;
use anyhow::{Context as _, Result, bail, ensure};
use model::access::Action;
use model::id::NodeId;
use model::job::Outcome;
use model::points::Points;
use model::spec::{AskedLimits, JobSpec, Retry};
use postgres::Postgres;
use service::{Clock, Ctx, Finished, NodeHello, Service, Started};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::Store;
use store::blob::Blobs;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Jobs in all, and how many clients bring them.
const JOBS: usize = 20_000;
const CLIENTS: usize = 128;
/// Jobs that the node carries out at once.
const SLOTS: u32 = 256;

/// How long jobs go on beside a transaction that somebody holds open, unless `COFFERDAM_BENCH_HELD_SECONDS` says so.
const HELD_SECONDS: u64 = 30;

/// On SQLite, without and with the loops, which seal the record beside it.
pub(crate) async fn on_sqlite() -> Result<Vec<Row>> {
    let place = Place::sqlite()?;
    let services = [place.service(&place.store()?)?];
    let key = key(&services[0]).await?;
    let bare = rate(&services, Loops::Still, None).await?;
    let sealed = rate(&services, Loops::Run, None).await?;
    let shown = rate(&services, Loops::Run, Some(&key)).await?;
    let again = rate(&services, Loops::Still, None).await?;
    let text = |rate: f64| format!("{rate:.0} jobs/s, 4 changes and 4 events each, full sync");
    let name = "durable no-op jobs through the queue";
    let with_record = Row::plain("the same while the record is sealed", text(sealed), sealed);
    let with_both = "the same while the record is sealed, each request with a key";
    let both = format!("{}; without either {again:.0} after it", text(shown));
    Ok(vec![
        Row::plain(name, text(bare), bare).target(">= 3000"),
        with_record,
        Row::plain(with_both, both, shown).target(">= 0.9 of without either"),
        authorization(&services[0], &key).await?,
    ])
}

/// What is found out about whoever shows a key, and whether they may, for one request.
async fn authorization(service: &Service, key: &str) -> Result<Row> {
    const TIMES: u32 = 200_000;
    let start = Instant::now();
    for _ in 0..TIMES {
        by_key(service, key).await?.may(Action::JobWrite)?;
    }
    let each = start.elapsed() / TIMES;
    let text = format!("{} ns", each.as_nanos());
    let micros = each.as_secs_f64() * 1e6;
    Ok(Row::plain(
        "whose key it is and whether they may, µs",
        text,
        micros,
    ))
}

/// The key of the admin of a tenant of its own.
async fn key(service: &Service) -> Result<String> {
    let owner = Ctx::user("uid:0".parse()?, "bench");
    let made = service.tenant_create(&owner, "bench", "root").await?;
    Ok(made.key.1)
}

async fn by_key(service: &Service, key: &str) -> Result<Ctx> {
    let who = service.key_who(key).await?;
    Ok(Ctx::of(who.context("a key that counts")?, "bench"))
}

/// Through two servers on one PostgreSQL, each with its loops and a node, and then beside a transaction that is held
/// open, which keeps the database from clearing up what is dead.
pub(crate) async fn on_postgres() -> Result<Vec<Row>> {
    let name = "the same through two servers on PostgreSQL";
    let postgres = match Postgres::start_as_it_comes() {
        Ok(postgres) => postgres,
        Err(why) => return Ok(vec![Row::plain(name, format!("skipped: {why}"), 0.0)]),
    };
    let place = Place::postgres(&postgres)?;
    let services = [
        place.service(&place.store()?)?,
        place.service(&place.store()?)?,
    ];
    let free = rate(&services, Loops::Run, None).await?;
    let seconds = std::env::var("COFFERDAM_BENCH_HELD_SECONDS").ok();
    let seconds = seconds.map_or(Ok(HELD_SECONDS), |text| text.parse())?;
    let held = hold(&postgres)?;
    let last = beside(&services, free, Duration::from_secs(seconds)).await?;
    drop(held);
    let text = |rate: f64| format!("{rate:.0} jobs/s, 4 changes and 4 events each, full sync");
    let after = format!("{}, the last after {seconds} s", text(last));
    Ok(vec![
        Row::plain(name, text(free), free).target(">= 2000"),
        Row::plain("the same beside a transaction held open", after, last)
            .target(">= half of that without it"),
    ])
}

/// Goes on for so long; says after each minute how it compares with what it was before, because what the database
/// cannot clear up grows all the time. The last rate.
async fn beside(services: &[Service], free: f64, length: Duration) -> Result<f64> {
    let begin = Instant::now();
    let (mut last, mut said) = (free, 0);
    while begin.elapsed() < length {
        last = rate(services, Loops::Run, None).await?;
        let minutes = begin.elapsed().as_secs() / 60;
        if minutes > said {
            said = minutes;
            let verdict = if last * 2.0 >= free { "held" } else { "missed" };
            let ratio = last / free;
            crate::print(&format!(
                "beside a transaction held open for {minutes} min: {last:.0} jobs/s, {ratio:.2} of before, goal 0.5: {verdict}"
            ));
        }
    }
    Ok(last)
}

/// Where the database and the blobs of some servers are.
struct Place {
    dir: tempfile::TempDir,
    /// That of a PostgreSQL, where it is none of SQLite.
    address: Option<String>,
}

impl Place {
    fn sqlite() -> Result<Place> {
        let dir = tempfile::tempdir()?;
        Ok(Place { dir, address: None })
    }

    fn postgres(postgres: &Postgres) -> Result<Place> {
        let address = Some(postgres.address());
        Ok(Place {
            address,
            ..Place::sqlite()?
        })
    }

    fn store(&self) -> Result<Store> {
        Ok(match &self.address {
            Some(address) => Store::open_postgres(address, Points::none())?,
            None => Store::open_sqlite(&self.dir.path().join("cofferdam.db"), Points::none())?,
        })
    }

    fn service(&self, store: &Store) -> Result<Service> {
        let blobs = Blobs::open(&self.dir.path().join("blobs"))?;
        Ok(Service::new(store.clone(), blobs, Clock::system(), || None))
    }
}

/// A transaction that sees the database as it is now, until this is dropped.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        // It has nothing to lose.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "psql gets what cargo gives to this program"
)]
fn hold(postgres: &Postgres) -> Result<Held> {
    let mut psql = Command::new("psql");
    let psql = psql.args(["-qAt", "-d", &postgres.address()]);
    let mut held = Held(psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let (stdin, stdout) = (held.0.stdin.as_mut(), held.0.stdout.as_mut());
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
        bail!("psql has no streams");
    };
    writeln!(stdin, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;")?;
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    ensure!(said.trim() == "1", "psql says {said:?}");
    Ok(held)
}

/// Whether what a server does beside requests is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loops {
    Run,
    Still,
}

/// Jobs that come to their end per second, by clients and one node for each server. With a key, each request shows it.
async fn rate(services: &[Service], loops: Loops, key: Option<&str>) -> Result<f64> {
    let done = Arc::new(AtomicUsize::new(0));
    let mut beside = JoinSet::new();
    let (_stop, stopped) = watch::channel(false);
    for (number, service) in (1..).zip(services) {
        let node = Ctx::node(NodeId::from_parts(1, [number; 10]), "bench");
        service.node_register(&node, hello()).await?;
        beside.spawn(work(service.clone(), node, done.clone()));
        if loops == Loops::Run {
            let (service, stopped) = (service.clone(), stopped.clone());
            beside.spawn(async move {
                service::loops::run(service, stopped).await;
                Ok(())
            });
        }
    }
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for (_, service) in (0..CLIENTS).zip(services.iter().cycle()) {
        clients.spawn(bring(service.clone(), key.map(str::to_owned)));
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    while done.load(Ordering::Relaxed) < JOBS / CLIENTS * CLIENTS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(crate::per_second(JOBS / CLIENTS * CLIENTS, start.elapsed()))
}

fn hello() -> NodeHello {
    NodeHello {
        name: "bench".to_owned(),
        incarnation: "bench".to_owned(),
        version: "0".to_owned(),
        kind: model::node::NodeKind::Server,
        slots: SLOTS,
        labels: BTreeMap::new(),
        drivers: vec!["fake".to_owned()],
        facts: BTreeMap::new(),
        protocol: model::node::PROTOCOL.1,
    }
}

async fn bring(service: Service, key: Option<String>) -> Result<()> {
    for _ in 0..JOBS / CLIENTS {
        let user = match &key {
            Some(key) => by_key(&service, key).await?,
            None => Ctx::user("uid:0".parse()?, "bench"),
        };
        service.job_create(&user, spec(), None).await?;
    }
    Ok(())
}

/// A node that polls, and reports each job started and finished at once.
async fn work(service: Service, node: Ctx, done: Arc<AtomicUsize>) -> Result<()> {
    loop {
        let polled = service
            .node_poll(&node, "bench", SLOTS, Duration::from_secs(1))
            .await?;
        let mut tokens = service.lease_tokens_of_poll(&node, &polled).await?;
        for row in polled.leases {
            let node = node.clone().showing(tokens.remove(row.id.as_str()));
            let (service, done) = (service.clone(), done.clone());
            tokio::spawn(async move {
                let (epoch, attempt) = (row.epoch, row.attempt);
                let started = Started {
                    epoch,
                    attempt,
                    driver: "fake".to_owned(),
                    sandbox_id: None,
                    enforcement: Vec::new(),
                };
                service.job_started(&node, &row.id, started).await?;
                service
                    .job_finished(&node, &row.id, finished(epoch, attempt))
                    .await?;
                done.fetch_add(1, Ordering::Relaxed);
                anyhow::Ok(())
            });
        }
    }
}

fn finished(epoch: u64, attempt: u32) -> Finished {
    Finished {
        epoch,
        attempt,
        outcome: Outcome::Succeeded,
        usage: None,
        enforcement: None,
        stdout: model::enforcement::StreamReport::default(),
        stderr: model::enforcement::StreamReport::default(),
        detail: None,
        segments: Vec::new(),
    }
}

fn spec() -> JobSpec {
    JobSpec {
        profile: "default".to_owned(),
        made_by: None,
        permit: None,
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
    }
}
