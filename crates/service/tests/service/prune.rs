//! What has been kept long enough goes with all that belongs to it, and nothing else does.

use crate::files::{sent, with_file};
use crate::*;
use service::loops::{Pruned, prune_pass};
use service::{Idempotency, NewArtifact, OutputPiece, Stream, Written};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::UNIX_EPOCH;

impl World {
    /// A job that has ended, with output and a file.
    async fn with_all(&self, bytes: &[u8]) -> (JobRow, Written) {
        let (node, row) = self.running(spec()).await;
        let piece = OutputPiece {
            stream: Stream::Stdout,
            offset_bytes: 0,
            dropped_before: 0,
            data: b"hello".to_vec(),
        };
        let written = sent(self, &node, bytes).await;
        let new = NewArtifact {
            epoch: row.epoch,
            attempt: row.attempt,
            path: "out".to_owned(),
            mode: 0o600,
            digest: written.digest.clone(),
            size_bytes: written.size_bytes,
        };
        self.service
            .artifact_put(&node, &row.id, new)
            .await
            .unwrap();
        let report = Finished {
            segments: vec![piece],
            ..finished(&row, Outcome::Succeeded)
        };
        self.service
            .job_finished(&node, &row.id, report)
            .await
            .unwrap();
        (row, written)
    }

    fn blob(&self, digest: &str) -> std::path::PathBuf {
        self.dir
            .path()
            .join("blobs")
            .join(&digest[..2])
            .join(digest)
    }

    /// The bytes of a blob were written so long before now, by the clock that stands still.
    fn written(&self, digest: &str, ago_ms: u64) {
        let at = Duration::from_millis(self.clock.now_ms() - ago_ms);
        let file = File::open(self.blob(digest)).unwrap();
        file.set_modified(UNIX_EPOCH + at).unwrap();
    }

    /// Rows of a table that name a job.
    async fn rows(&self, sql: &'static str, id: &JobId) -> u64 {
        let id = id.clone();
        let count = move |tx: &mut store::Tx<'_>| {
            let row = tx.query_one(sql, &[id.as_str().into()])?;
            row.map_or(Ok(0), |row| row.number("n"))
        };
        self.store().read(count).await.unwrap()
    }
}

const BELONGS: [&str; 3] = [
    "SELECT COUNT(*) AS n FROM job WHERE id = $1",
    "SELECT COUNT(*) AS n FROM output_segment WHERE job_id = $1",
    "SELECT COUNT(*) AS n FROM artifact WHERE job_id = $1",
];

#[tokio::test]
async fn a_job_goes_a_month_after_its_end_with_all_that_belongs_to_it() {
    let world = World::new();
    let (old, file) = world.with_all(b"old").await;
    world.register(&node(2), "a").await;
    world.create(spec()).await;
    let unfinished = world.poll(&node(2), NOW).await.leases.remove(0);
    world.clock.advance(limits::RETAIN_JOBS_MS);
    let (young, kept) = world.with_all(b"young").await;
    assert_eq!(prune_pass(&world.service).await.unwrap().jobs, 0);
    world.clock.advance(1);
    for digest in [&file.digest, &kept.digest] {
        world.written(digest, limits::BLOB_GRACE_MS + 1);
    }
    let pass = prune_pass(&world.service).await.unwrap();
    assert_eq!((pass.jobs, pass.more), (1, false));
    let gone = world.service.job_get(&user(), &old.id).await;
    assert_eq!(gone.unwrap_err().code(), "not_found");
    for sql in BELONGS {
        assert_eq!(world.rows(sql, &old.id).await, 0, "{sql}");
        assert!(world.rows(sql, &young.id).await > 0, "{sql}");
    }
    assert_eq!(world.get(&unfinished.id).await, unfinished);
    world.sweep().await;
    assert!(!world.blob(&file.digest).exists());
    assert!(world.blob(&kept.digest).exists());
}

#[tokio::test]
async fn bytes_that_a_younger_job_names_too_stay() {
    let world = World::new();
    let (_, file) = world.with_all(b"same").await;
    world.clock.advance(limits::RETAIN_JOBS_MS + 1);
    let (young, _) = world.with_all(b"same").await;
    world.written(&file.digest, limits::RETAIN_JOBS_MS);
    assert_eq!(world.sweep().await, 0);
    let kept = world.service.artifact_list(&user(), &young.id).await;
    let kept = kept.unwrap().remove(0);
    let ctx = user();
    let open = world.service.artifact_open(&ctx, &young.id, &kept.id);
    let (_, mut file) = open.await.unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "same");
}

#[tokio::test]
async fn bytes_whose_row_is_still_to_come_are_left_alone_for_an_hour() {
    let world = World::new();
    let written = sent(&world, &user(), b"abc").await;
    world.written(&written.digest, limits::BLOB_GRACE_MS);
    assert_eq!(world.sweep().await, 0);
    world.clock.advance(1);
    assert_eq!(world.sweep().await, 1);
    assert!(!world.blob(&written.digest).exists());
}

#[tokio::test]
async fn a_blob_that_is_sent_again_while_it_is_pruned_survives() {
    let world = World::new();
    for round in 0..50 {
        let bytes = format!("round {round}");
        let old = sent(&world, &user(), bytes.as_bytes()).await;
        let file = File::open(world.blob(&old.digest)).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        let hour = Duration::from_millis(limits::BLOB_GRACE_MS);
        file.set_modified(written - 2 * hour).unwrap();
        let before = (written - hour).duration_since(UNIX_EPOCH).unwrap();
        let before = u64::try_from(before.as_millis()).unwrap();
        // Two processes at the same time: one removes the old bytes, the other writes the same anew.
        let blobs = Blobs::open(&world.dir.path().join("blobs")).unwrap();
        let digest = old.digest.clone();
        let mut writer = world.service.blob_writer(&user()).await.unwrap();
        writer.write_all(bytes.as_bytes()).unwrap();
        let remove = std::thread::spawn(move || blobs.remove_older(&digest, before).unwrap());
        let again = writer.finish().unwrap();
        remove.join().unwrap();
        world.written(&again.digest, 0);
        world.service.blob_done(&user(), &again).await.unwrap();
        world.create(with_file(&again)).await;
    }
    assert_eq!(world.sweep().await, 0);
}

#[tokio::test]
async fn keys_uploads_and_nodes_go_when_their_time_is_over() {
    let world = World::new();
    let key = || Idempotency {
        key: "some-key".to_owned(),
        request_hash: "h".to_owned(),
    };
    let ctx = user();
    let make = || world.service.job_create(&ctx, spec(), Some(key()));
    let first = make().await.unwrap();
    world.register(&node(1), "a").await;
    let written = sent(&world, &user(), b"abc").await;
    world.service.blob_done(&user(), &written).await.unwrap();
    world.clock.advance(limits::IDEMPOTENCY_MS);
    assert_eq!(prune_pass(&world.service).await.unwrap(), Pruned::default());
    assert_eq!(make().await.unwrap().id, first.id);
    // The node's lease began before the day did.
    world.clock.advance(limits::LEASE_MS + 1);
    let pass = prune_pass(&world.service).await.unwrap();
    assert_eq!((pass.keys, pass.uploads, pass.nodes), (1, 1, 1));
    assert_ne!(make().await.unwrap().id, first.id);
    assert_eq!(world.node_kinds(1).await, ["node.online", "node.gone"]);
}

#[tokio::test]
async fn a_node_that_still_has_a_job_is_not_forgotten() {
    let world = World::new();
    let (_, row) = world.running(spec()).await;
    world
        .clock
        .advance(limits::NODE_FORGET_MS + limits::LEASE_MS + 1);
    assert_eq!(prune_pass(&world.service).await.unwrap().nodes, 0);
    world.silence().await;
    assert_eq!(world.get(&row.id).await.state.name(), "finished");
    assert_eq!(prune_pass(&world.service).await.unwrap().nodes, 1);
}

/// So many copies of a job that has ended, made before it and ended when it did.
async fn copies(world: &World, id: &JobId, count: u32) {
    let id = id.clone();
    let copy = move |tx: &mut store::Tx<'_>| {
        tx.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1) \
             INSERT INTO job (id, tenant, principal, state, state_json, version, attempt, epoch, \
             spec, cancel_requested, created_at_ms, finished_at_ms) \
             SELECT printf('job_%032x', n), tenant, principal, state, state_json, version, \
             attempt, epoch, spec, 0, n, finished_at_ms FROM n, job WHERE id = $2",
            &[count.into(), id.as_str().into()],
        )
    };
    assert_eq!(world.store().write(copy).await.unwrap(), u64::from(count));
}

#[tokio::test]
async fn of_too_many_jobs_the_oldest_go_but_not_in_the_hour_after_their_end() {
    let world = World::new();
    let row = world.create(spec()).await;
    world.service.job_cancel(&user(), &row.id).await.unwrap();
    copies(&world, &row.id, limits::RETAIN_JOBS_MAX + 39).await;
    world.clock.advance(limits::RETAIN_LEAST_MS);
    assert_eq!(prune_pass(&world.service).await.unwrap().jobs, 0);
    world.clock.advance(1);
    let pass = prune_pass(&world.service).await.unwrap();
    assert_eq!((pass.jobs, pass.more), (40, false));
    let oldest: JobId = format!("job_{:032x}", 40).parse().unwrap();
    assert!(world.service.job_get(&user(), &oldest).await.is_err());
    let next: JobId = format!("job_{:032x}", 41).parse().unwrap();
    world.get(&next).await;
    assert_eq!(prune_pass(&world.service).await.unwrap().jobs, 0);
}

#[tokio::test]
async fn a_pass_is_bounded_and_says_that_there_is_more() {
    let world = World::new();
    let row = world.create(spec()).await;
    world.service.job_cancel(&user(), &row.id).await.unwrap();
    copies(&world, &row.id, 2500).await;
    world.clock.advance(limits::RETAIN_JOBS_MS + 1);
    let mut passes = Vec::new();
    loop {
        let pass = prune_pass(&world.service).await.unwrap();
        passes.push(pass.jobs);
        if !pass.more {
            break;
        }
    }
    assert_eq!(passes, [1024, 1024, 453]);
}
