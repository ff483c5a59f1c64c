//! Every pass in a process that ends at every point of the database in turn, just before a commit or just
//! after it, and then in another process: the end is the same, and nothing happened twice.

use crate::files::sent;
use crate::sandboxes::{FREE, ask, said_ready};
use crate::*;
use service::loops::{due_pass, expire_pass, prune_pass, reap_pass};
use service::{Idempotency, SandboxRow};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A process whose database ends when it has come to so many more points; never at 0.
pub(crate) struct Mortal {
    pub(crate) service: Service,
    fuse: Arc<AtomicU32>,
}

impl Mortal {
    pub(crate) fn new(world: &World) -> Mortal {
        let fuse = Arc::new(AtomicU32::new(0));
        let burning = fuse.clone();
        let points = Points::with(move |_| {
            let left = burning.load(Ordering::SeqCst);
            burning.store(left.saturating_sub(1), Ordering::SeqCst);
            if left == 1 {
                // The thread of the database ends, and with it all that was not committed.
                resume_unwind(Box::new("the process ends here"));
            }
        });
        let db = world.dir.path().join("db");
        let store = Store::open_sqlite(&db, points).unwrap();
        let blobs = Blobs::open(&world.dir.path().join("blobs")).unwrap();
        let service = Service::new(store, blobs, world.clock.clone(), || Some(u64::MAX));
        Mortal { service, fuse }
    }

    pub(crate) fn dies_at(&self, point: u32) {
        self.fuse.store(point, Ordering::SeqCst);
    }

    /// Whether it got through without dying.
    pub(crate) fn lives(&self) -> bool {
        self.fuse.load(Ordering::SeqCst) > 0
    }
}

/// Tells that no version of a job was skipped or written twice.
pub(crate) async fn check_events(world: &World, rows: &[JobRow]) {
    for row in rows {
        let row = world.get(&row.id).await;
        let events = world.service.job_events(&user(), &row.id, 0, 100).await;
        let versions: Vec<u64> = events.unwrap().iter().map(|event| event.version).collect();
        assert_eq!(versions, (1..=row.version).collect::<Vec<_>>());
    }
}

/// A node with a job of each kind, and one that waits for it alone.
async fn loaded(world: &World) -> Vec<JobRow> {
    let node = node(1);
    world.register(&node, "a").await;
    let pinned = JobSpec {
        node: Some(node_id(1)),
        ..spec()
    };
    let mut rows = Vec::new();
    for spec in [spec(), retried(2), spec(), spec()] {
        world.create(spec).await;
        rows.push(world.poll(&node, NOW).await.leases.remove(0));
    }
    for row in &rows[..3] {
        let report = world.service.job_started(&node, &row.id, started(row));
        report.await.unwrap();
    }
    world
        .service
        .job_cancel(&user(), &rows[2].id)
        .await
        .unwrap();
    rows.push(world.create(pinned).await);
    rows
}

async fn check_judged(world: &World, rows: &[JobRow]) {
    let mut ends = Vec::new();
    for row in rows {
        let row = world.get(&row.id).await;
        ends.push(match row.state.outcome() {
            Some(outcome) => outcome.name(),
            None => row.state.name(),
        });
    }
    assert_eq!(ends, ["lost", "queued", "canceled", "queued", "lost"]);
    check_events(world, rows).await;
}

#[tokio::test]
async fn a_reaper_that_dies_anywhere_is_followed_by_one_that_ends_its_work() {
    for point in 1.. {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let rows = loaded(&world).await;
        let next = world.again();
        for _ in 0..limits::LEASE_MS / 30_000 {
            world.clock.advance(30_000);
            reap_pass(&next).await.unwrap();
            reap_pass(&mortal.service).await.unwrap();
        }
        world.clock.advance(30_000);
        mortal.dies_at(point);
        let pass = reap_pass(&mortal.service).await;
        assert_eq!(pass.is_ok(), mortal.lives(), "{point}: {pass:?}");
        reap_pass(&next).await.unwrap();
        check_judged(&world, &rows).await;
        assert_eq!(world.node_kinds(1).await, ["node.online", "node.offline"]);
        if mortal.lives() {
            assert!(point > 10, "the pass has more points than {point}");
            return;
        }
    }
}

#[tokio::test]
async fn a_goodbye_that_dies_anywhere_is_ended_by_the_reaper() {
    for point in 1.. {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let rows = loaded(&world).await;
        mortal.dies_at(point);
        let gone = mortal.service.node_gone(&node(1)).await;
        assert_eq!(gone.is_ok(), mortal.lives(), "{point}: {gone:?}");
        world.silence().await;
        check_judged(&world, &rows).await;
        if mortal.lives() {
            return;
        }
    }
}

#[tokio::test]
async fn jobs_of_a_node_whose_goodbye_was_cut_off_in_the_middle_are_judged() {
    let world = World::new();
    let rows = loaded(&world).await;
    // We can be here if the node had more jobs than are judged in one transaction.
    let gone = |tx: &mut store::Tx<'_>| store::node::delete(tx, &node_id(1));
    world.store().write(gone).await.unwrap();
    world.silence().await;
    check_judged(&world, &rows).await;
}

#[tokio::test]
async fn a_claim_that_dies_around_its_commit_loses_no_job() {
    for (point, epoch) in [(1, 1), (2, 2)] {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let node = node(1);
        world.register(&node, "a").await;
        let row = world.create(spec()).await;
        mortal.dies_at(point);
        let polled = mortal.service.node_poll(&node, "a", 1, NOW).await;
        assert_eq!(polled.unwrap_err().code(), "unavailable");
        // The node does not know of the lease, which shows when it renews.
        world.clock.advance(2 * limits::HEARTBEAT_MS + 1);
        world
            .service
            .node_heartbeat(&node, "a", &[], &[])
            .await
            .unwrap();
        let lease = world.poll(&node, NOW).await.leases.remove(0);
        assert_eq!((&lease.id, lease.epoch), (&row.id, epoch));
        assert_eq!(lease.attempt, 1);
        check_events(&world, &[row]).await;
    }
}

#[tokio::test]
async fn timeouts_in_the_queue_survive_the_death_of_their_pass() {
    for point in 1.. {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let mut rows = Vec::new();
        for _ in 0..3 {
            let late = JobSpec {
                queue_timeout_ms: Some(1000),
                ..spec()
            };
            rows.push(world.create(late).await);
        }
        world.clock.advance(1001);
        mortal.dies_at(point);
        let pass = expire_pass(&mortal.service).await;
        assert_eq!(pass.is_ok(), mortal.lives(), "{point}: {pass:?}");
        expire_pass(&world.service).await.unwrap();
        for row in &rows {
            let row = world.get(&row.id).await;
            assert_eq!(row.state.outcome().unwrap().name(), "refused");
        }
        check_events(&world, &rows).await;
        if mortal.lives() {
            return;
        }
    }
}

/// How many files there are below a directory.
fn files(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap();
    let count = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path) } else { 1 }
    };
    entries.map(count).sum()
}

#[tokio::test]
async fn what_is_pruned_goes_whole_wherever_the_pruning_dies() {
    for point in 1.. {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let (node, row) = world.running(spec()).await;
        let file = sent(&world, &node, b"kept of a job").await;
        let new = service::NewArtifact {
            epoch: 1,
            attempt: 1,
            path: "out".to_owned(),
            mode: 0o600,
            digest: file.digest,
            size_bytes: file.size_bytes,
        };
        let service = &world.service;
        service.artifact_put(&node, &row.id, new).await.unwrap();
        let report = finished(&row, Outcome::Succeeded);
        service.job_finished(&node, &row.id, report).await.unwrap();
        let upload = sent(&world, &user(), b"for a job").await;
        service.blob_done(&user(), &upload).await.unwrap();
        // Both were written long before, by any clock.
        world.clock.advance(2 * limits::RETAIN_JOBS_MS);
        mortal.dies_at(point);
        let pass = prune_pass(&mortal.service).await;
        assert_eq!(pass.is_ok(), mortal.lives(), "{point}: {pass:?}");
        world.sweep().await;
        assert!(service.job_get(&user(), &row.id).await.is_err());
        assert_eq!(files(&world.dir.path().join("blobs")), 0, "{point}");
        let node_left = world.node_kinds(1).await;
        assert_eq!(node_left, ["node.online", "node.gone"]);
        if mortal.lives() {
            return;
        }
    }
}

/// Tells that no version of a sandbox was skipped or written twice.
async fn check_sandbox_events(world: &World, id: &model::id::SandboxId) -> SandboxRow {
    let row = world.sandbox(id).await;
    let events = world.service.sandbox_events(&user(), id, 0, 100).await;
    let versions: Vec<u64> = events.unwrap().iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=row.version).collect::<Vec<_>>());
    row
}

#[tokio::test]
async fn a_sandbox_whose_creation_dies_around_its_commit_is_made_once() {
    for point in [1, 2] {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let node = node(1);
        world.register(&node, "a").await;
        let key = || {
            let (key, request_hash) = ("k".to_owned(), "h".to_owned());
            Some(Idempotency { key, request_hash })
        };
        mortal.dies_at(point);
        let made = mortal.service.sandbox_create(&user(), ask(), key()).await;
        assert_eq!(made.unwrap_err().code(), "unavailable");
        let row = world.service.sandbox_create(&user(), ask(), key()).await;
        let id = row.unwrap().id;
        let works = world.works(&node, NOW).await;
        assert_eq!((works.len(), &works[0].row.id), (1, &id));
        check_sandbox_events(&world, &id).await;
    }
}

#[tokio::test]
async fn an_order_whose_commit_or_answer_is_lost_is_told_by_the_next_poll() {
    for point in [1, 2] {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let node = node(1);
        world.register(&node, "a").await;
        let row = world.make(ask()).await;
        mortal.dies_at(point);
        let polled = mortal.service.node_poll(&node, "a", FREE, NOW).await;
        assert_eq!(polled.unwrap_err().code(), "unavailable");
        let works = world.works(&node, NOW).await;
        assert_eq!((works.len(), works[0].row.epoch), (1, 1));
        let ready = world.says(&row, said_ready()).await;
        assert_eq!(ready.state.name(), "ready");
        check_sandbox_events(&world, &row.id).await;
    }
}

#[tokio::test]
async fn a_report_whose_answer_is_lost_is_a_duplicate_when_it_comes_again() {
    for (point, duplicate) in [(1, false), (2, true)] {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let row = world.provisioning(ask()).await;
        mortal.dies_at(point);
        let node = node(1);
        let report = mortal
            .service
            .sandbox_report(&node, &row.id, 1, said_ready(), None);
        assert_eq!(report.await.unwrap_err().code(), "unavailable");
        let again = world
            .service
            .sandbox_report(&node, &row.id, 1, said_ready(), None);
        assert_eq!(again.await.unwrap().duplicate, duplicate);
        let row = check_sandbox_events(&world, &row.id).await;
        assert_eq!((row.state.name(), row.version), ("ready", 3));
    }
}

#[tokio::test]
async fn expiry_and_the_reaping_of_sandboxes_survive_the_death_of_their_pass() {
    for point in 1.. {
        let world = World::new();
        let mortal = Mortal::new(&world);
        let mut rows = Vec::new();
        for _ in 0..3 {
            rows.push(world.ready(ask()).await);
        }
        world.clock.advance(60_000);
        mortal.dies_at(point);
        let pass = due_pass(&mortal.service).await;
        assert_eq!(pass.is_ok(), mortal.lives(), "{point}: {pass:?}");
        due_pass(&world.service).await.unwrap();
        for row in &rows {
            let row = check_sandbox_events(&world, &row.id).await;
            assert_eq!(row.state.name(), "destroying");
        }
        let gone = mortal.service.node_gone(&node(1)).await;
        assert_eq!(gone.is_ok(), mortal.lives());
        world.silence().await;
        for row in &rows {
            let row = check_sandbox_events(&world, &row.id).await;
            assert_eq!(row.state.name(), "destroyed");
        }
        if mortal.lives() {
            assert!(point > 6, "the pass has more points than {point}");
            return;
        }
    }
}
