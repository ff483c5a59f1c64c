//! Durable jobs through the queue: created, leased, started and finished on SQLite with full sync, each
//! step with its event, by a node that does nothing.

use crate::timing::Row;
use anyhow::Result;
use model::id::NodeId;
use model::job::Outcome;
use model::points::Points;
use model::spec::{AskedLimits, JobSpec, Retry};
use service::{Clock, Ctx, Finished, NodeHello, Service, Started};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::Store;
use store::blob::Blobs;

/// Jobs in all, and how many clients bring them.
const JOBS: usize = 20_000;
const CLIENTS: usize = 128;
/// Jobs that the node carries out at once.
const SLOTS: u32 = 256;

pub(crate) async fn durable_jobs() -> Result<Row> {
    let dir = tempfile::tempdir()?;
    let store = Store::open_sqlite(&dir.path().join("cofferdam.db"), Points::none())?;
    let blobs = Blobs::open(&dir.path().join("blobs"))?;
    let service = Service::new(store, blobs, Clock::system(), || None);
    let node = Ctx::node(NodeId::from_parts(1, [1; 10]), "bench");
    service.node_register(&node, hello()).await?;
    let done = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let working = tokio::spawn(work(service.clone(), node, done.clone()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(bring(service.clone())))
        .collect();
    for client in clients {
        client.await??;
    }
    while done.load(Ordering::Relaxed) < JOBS / CLIENTS * CLIENTS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = start.elapsed();
    working.abort();
    let rate = crate::per_second(JOBS / CLIENTS * CLIENTS, took);
    let text = format!("{rate:.0} jobs/s, 4 changes and 4 events each, full sync");
    Ok(Row::plain("durable no-op jobs through the queue", text, rate).target(">= 3000"))
}

fn hello() -> NodeHello {
    NodeHello {
        name: "bench".to_owned(),
        incarnation: "bench".to_owned(),
        version: "0".to_owned(),
        slots: SLOTS,
        labels: BTreeMap::new(),
        drivers: vec!["fake".to_owned()],
        facts: BTreeMap::new(),
    }
}

async fn bring(service: Service) -> Result<()> {
    let user = Ctx::user("uid:0".parse()?, "bench");
    for _ in 0..JOBS / CLIENTS {
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
        for row in polled.leases {
            let (service, node, done) = (service.clone(), node.clone(), done.clone());
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
