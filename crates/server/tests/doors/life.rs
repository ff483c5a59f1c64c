//! A job from its request to its outcome, with the tests as the node; and the end of the server.

use std::time::Duration;

use api::client::JobCreateOptions;
use api::job::{
    Enforced, EnforcedState, JobCreate, JobView, OutcomeKind, StateName, StreamReport, Usage,
};
use api::log::{LogEvent, LogQuery, StreamName};
use api::node::{
    ArtifactPutQuery, JobFinished, JobOutput, JobRef, JobRelease, JobStarted, Lease, NodeHeartbeat,
    NodePoll, NodeRegister, OutcomeReport, OutputSegment, ReportResult,
};
use api::{Client, Code, Endpoint};
use insta::assert_snapshot;
use server::{Door, Links};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::world::{World, bare, steady_ids};

pub(crate) fn hello() -> NodeRegister {
    NodeRegister {
        name: "test".into(),
        incarnation: "first".into(),
        version: "0".into(),
        kind: None,
        slots: 4,
        drivers: vec!["fake".into()],
        facts: [("memory_bytes".to_owned(), (1u64 << 34).to_string())].into(),
        labels: std::collections::BTreeMap::new(),
        protocol: api::node::NodeProtocol::default(),
    }
}

pub(crate) async fn register(world: &World) {
    let registered = world.node.node_register(&hello()).await.unwrap();
    assert_eq!(registered.node_id, world.node_id.to_string());
    assert!(registered.held.is_empty());
}

pub(crate) async fn lease(world: &World) -> Lease {
    let poll = NodePoll {
        incarnation: "first".into(),
        free_slots: 1,
        free_sandboxes: 0,
        reserved: api::fleet::NodeReserved::default(),
        wait_ms: 10_000,
    };
    let mut answer = world.node.node_poll(&poll).await.unwrap();
    answer.leases.pop().unwrap()
}

pub(crate) fn job(argv: &[&str]) -> JobCreate {
    JobCreate {
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) async fn create(world: &World, job: &JobCreate) -> JobView {
    world
        .user
        .job_create(job, &JobCreateOptions::default())
        .await
        .unwrap()
}

pub(crate) fn started(lease: &Lease) -> JobStarted {
    JobStarted {
        epoch: lease.epoch,
        attempt: lease.attempt,
        driver: "fake".into(),
        sandbox_id: Some("sbx_0197747bb4007000800000000000beef".into()),
        enforcement: vec![Enforced {
            clause: "memory".into(),
            how: "cgroup_v1".into(),
            value: Some("536870912 bytes".into()),
            asked: false,
            state: EnforcedState::Held,
        }],
    }
}

pub(crate) fn finished(lease: &Lease, outcome: OutcomeReport) -> JobFinished {
    JobFinished {
        epoch: lease.epoch,
        attempt: lease.attempt,
        outcome,
        usage: Some(Usage {
            cpu_ms: 3,
            wall_ms: 40,
            ..Usage::default()
        }),
        enforcement: None,
        stdout: StreamReport {
            total_bytes: 3,
            kept_bytes: 3,
            ..StreamReport::default()
        },
        stderr: StreamReport::default(),
        detail: None,
        segments: Vec::new(),
    }
}

/// A job with a file in and a file out, as its node leased it.
async fn lease_with_files(world: &World) -> Lease {
    register(world).await;
    let blob = world.user.blob_put(&b"1,2\n"[..], None).await.unwrap();
    let mut asked = job(&["python3", "a.py"]);
    asked.env = [("KEY".to_owned(), "value".to_owned())].into();
    asked.outputs = vec!["out.html".into()];
    asked.files = vec![api::job::FileInput {
        path: "data.csv".into(),
        digest: blob.digest,
        size_bytes: 4,
        mode: 0o644,
    }];
    create(world, &asked).await;
    world.clock.advance(5);
    lease(world).await
}

#[tokio::test]
async fn a_lease_carries_all_that_the_node_needs() {
    let world = World::new().await;
    let lease = lease_with_files(&world).await;
    let shown = serde_json::to_string_pretty(&lease).unwrap();
    assert_snapshot!("life_lease", steady_ids(&shown));
    let mut input = world
        .node
        .node_blob_get(&lease.spec.files[0].digest)
        .await
        .unwrap();
    assert_eq!(input.size_bytes(), Some(4));
    assert_eq!(&input.chunk().await.unwrap().unwrap()[..], b"1,2\n");
    assert_eq!(input.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_report_again_is_a_duplicate_and_another_one_a_conflict() {
    let world = World::new().await;
    let lease = lease_with_files(&world).await;
    let (id, report) = (&lease.job_id, started(&lease));
    for expect in [ReportResult::Accepted, ReportResult::Duplicate] {
        assert_eq!(
            world
                .node
                .node_job_started(id, &report)
                .await
                .unwrap()
                .result,
            expect
        );
    }
    assert_eq!(
        world.user.job_get(id).await.unwrap().state,
        StateName::Running
    );
    let mut end = finished(&lease, OutcomeReport::Failed { exit_code: 3 });
    for expect in [ReportResult::Accepted, ReportResult::Duplicate] {
        assert_eq!(
            world.node.node_job_finished(id, &end).await.unwrap().result,
            expect
        );
    }
    end.outcome = OutcomeReport::Succeeded;
    let error = world.node.node_job_finished(id, &end).await.unwrap_err();
    assert!(error.is(Code::Conflict), "{error:?}");
}

#[tokio::test]
async fn a_finished_job_is_shown_with_all_that_is_known_of_it() {
    let world = World::new().await;
    let lease = lease_with_files(&world).await;
    let id = &lease.job_id;
    world.clock.advance(7);
    world
        .node
        .node_job_started(id, &started(&lease))
        .await
        .unwrap();
    let (epoch, attempt) = (lease.epoch, lease.attempt);
    let file = ArtifactPutQuery {
        epoch,
        attempt,
        path: "out.html".into(),
        mode: 0o644,
    };
    world
        .node
        .node_artifact_put(id, &file, &b"<script>"[..], Some(8))
        .await
        .unwrap();
    world.clock.advance(40);
    let mut end = finished(&lease, OutcomeReport::Failed { exit_code: 3 });
    end.segments = vec![OutputSegment::new(StreamName::Stdout, 0, b"hi\n")];
    end.detail = Some("the script failed".into());
    world.node.node_job_finished(id, &end).await.unwrap();

    let get = async |rest: &str| {
        world
            .ask(bare("GET", &format!("/v1/jobs/{id}{rest}")))
            .await
    };
    assert_snapshot!("life_job", get("").await.whole());
    assert_snapshot!("life_logs", get("/logs").await.whole());
    assert_snapshot!("life_events", get("/events").await.whole());
    let artifacts = get("/artifacts").await;
    assert_snapshot!("life_artifacts", artifacts.whole());
    let artifact = artifacts.json()["artifacts"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let bytes = get(&format!("/artifacts/{artifact}")).await;
    assert_snapshot!("life_artifact_bytes", bytes.whole());
    assert_snapshot!(
        "life_log_raw",
        get("/logs?format=raw&stream=stdout").await.whole()
    );
    assert!(get("/logs?format=raw&stream=stderr").await.body.is_empty());
}

#[tokio::test]
async fn a_waiting_create_is_answered_with_the_outcome() {
    let world = World::new().await;
    register(&world).await;
    let options = JobCreateOptions {
        wait: Some(Duration::from_secs(60)),
        ..Default::default()
    };
    let asked = job(&["true"]);
    let node = async {
        let lease = lease(&world).await;
        world
            .node
            .node_job_started(&lease.job_id, &started(&lease))
            .await
            .unwrap();
        let end = finished(&lease, OutcomeReport::Succeeded);
        world
            .node
            .node_job_finished(&lease.job_id, &end)
            .await
            .unwrap();
    };
    let (answer, ()) = tokio::join!(world.user.job_create(&asked, &options), node);
    let outcome = answer.unwrap().outcome.unwrap();
    assert_eq!(
        (outcome.kind, outcome.exit_code),
        (OutcomeKind::Succeeded, 0)
    );
}

#[tokio::test]
async fn cancel_twice_is_one_cancel_and_reaches_the_node() {
    let world = World::new().await;
    register(&world).await;
    let id = create(&world, &job(&["sleep"])).await.id;
    let lease = lease(&world).await;
    world
        .node
        .node_job_started(&id, &started(&lease))
        .await
        .unwrap();
    for _ in 0..2 {
        let view = world.user.job_cancel(&id).await.unwrap();
        assert_eq!(
            (view.state, view.cancel_requested),
            (StateName::Stopping, true)
        );
    }
    let ours = JobRef {
        job_id: id.clone(),
        epoch: lease.epoch,
    };
    let old = JobRef {
        job_id: id.clone(),
        epoch: lease.epoch + 1,
    };
    let beat = NodeHeartbeat {
        incarnation: "first".into(),
        running: vec![ours.clone(), old.clone()],
        snapshots: Vec::new(),
        volumes: Vec::new(),
        sandboxes: Vec::new(),
        host: None,
        protocol: api::node::NodeProtocol::default(),
        dropped: Vec::new(),
    };
    let answer = world.node.node_heartbeat(&beat).await.unwrap();
    assert_eq!((answer.cancel, answer.stale), (vec![ours], vec![old]));
    let end = finished(&lease, OutcomeReport::Canceled);
    world.node.node_job_finished(&id, &end).await.unwrap();
    assert_eq!(
        world
            .user
            .job_get(&id)
            .await
            .unwrap()
            .outcome
            .unwrap()
            .exit_code,
        137
    );
}

#[tokio::test]
async fn a_released_job_waits_again_and_its_old_lease_is_stale() {
    let world = World::new().await;
    register(&world).await;
    let id = create(&world, &job(&["true"])).await.id;
    let first = lease(&world).await;
    let release = JobRelease {
        epoch: first.epoch,
        why: "no room".into(),
    };
    world.node.node_job_release(&id, &release).await.unwrap();
    let second = lease(&world).await;
    assert_eq!((second.attempt, second.epoch), (1, first.epoch + 1));
    let error = world
        .node
        .node_job_started(&id, &started(&first))
        .await
        .unwrap_err();
    assert!(error.is(Code::StaleEpoch), "{error:?}");
}

#[tokio::test]
async fn a_log_is_followed_until_the_job_ends() {
    let world = World::new().await;
    register(&world).await;
    let id = create(&world, &job(&["cat"])).await.id;
    let lease = lease(&world).await;
    world
        .node
        .node_job_started(&id, &started(&lease))
        .await
        .unwrap();
    let write = async |stream, offset, bytes: &[u8]| {
        let segments = vec![OutputSegment::new(stream, offset, bytes)];
        let report = JobOutput {
            epoch: lease.epoch,
            attempt: lease.attempt,
            segments,
        };
        world.node.node_job_output(&id, &report).await.unwrap();
    };
    write(StreamName::Stdout, 0, b"one").await;
    let mut follow = world.user.job_logs_follow(&id, None).await.unwrap();
    let first = next_output(&mut follow).await;
    assert_eq!((first.0, &first.1[..]), (StreamName::Stdout, &b"one"[..]));
    write(StreamName::Stderr, 0, b"\xff\xfe").await;
    let second = next_output(&mut follow).await;
    assert_eq!(
        (second.0, &second.1[..]),
        (StreamName::Stderr, &b"\xff\xfe"[..])
    );

    let mut late = world
        .user
        .job_logs_follow(&id, follow.last_seq())
        .await
        .unwrap();
    let end = finished(&lease, OutcomeReport::Succeeded);
    world.node.node_job_finished(&id, &end).await.unwrap();
    for follow in [&mut follow, &mut late] {
        let Some(LogEvent::End(job)) = follow.next().await.unwrap() else {
            unreachable!("no end")
        };
        assert_eq!(job.state, StateName::Finished);
        assert_eq!(follow.next().await.unwrap(), None);
    }
    let query = LogQuery {
        stream: Some(StreamName::Stderr),
        ..Default::default()
    };
    let page = world.user.job_logs(&id, &query).await.unwrap();
    assert_eq!(
        (page.segments.len(), page.next, page.complete),
        (1, 2, true)
    );
}

async fn next_output(follow: &mut api::client::LogFollow) -> (StreamName, bytes::Bytes) {
    let event = follow.next().await.unwrap();
    let Some(LogEvent::Output(segment)) = event else {
        unreachable!("no output but {event:?}")
    };
    (segment.stream, segment.into_bytes().unwrap())
}

#[tokio::test]
async fn an_upload_of_many_pieces_is_kept_whole_and_a_broken_one_not_at_all() {
    let world = World::new().await;
    let bytes = vec![b'x'; 3_000_000];
    let blob = world
        .user
        .blob_put(std::io::Cursor::new(bytes), Some(3_000_000))
        .await
        .unwrap();
    assert_eq!(blob.size_bytes, 3_000_000);
    let short = world.user.blob_put(&b"short"[..], Some(6)).await;
    assert!(short.is_err());
    let incoming = world.dir.path().join("blobs/incoming");
    let left = || std::fs::read_dir(&incoming).map_or(0, Iterator::count);
    while left() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_unix_socket_knows_its_peer() {
    let world = World::new().await;
    let path = world.dir.path().join("api.sock");
    let doors = vec![Door::Unix(UnixListener::bind(&path).unwrap())];
    let stop = CancellationToken::new();
    let serving = server::serve(world.service.clone(), Links::default(), doors, stop.clone());
    let serving = tokio::spawn(serving);
    let client = Client::new(Endpoint::Unix(path));
    let options = JobCreateOptions::default();
    let view = client.job_create(&job(&["true"]), &options).await.unwrap();
    assert_eq!(
        view.principal,
        format!("uid:{}", rustix::process::geteuid().as_raw())
    );
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_nobody_wait_until_the_end_of_their_time() {
    let mut world = World::new().await;
    register(&world).await;
    let id = create(&world, &job(&["true"])).await.id;
    lease(&world).await;
    let mut follow = world.user.job_logs_follow(&id, None).await.unwrap();
    let waiting = world.user.job_wait(&id, Duration::from_secs(300));
    let poll = NodePoll {
        incarnation: "first".into(),
        free_slots: 1,
        free_sandboxes: 0,
        reserved: api::fleet::NodeReserved::default(),
        wait_ms: 60_000,
    };
    let polling = world.node.node_poll(&poll);
    let stop = async {
        // Both have been answered by nobody when the stop comes: the poll is parked, and the wait
        // has read the job. Whichever is not there yet finds the doors closed, which is an end too.
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.stop.cancel();
    };
    let (waited, polled, ()) = tokio::join!(waiting, polling, stop);
    match waited {
        Ok(job) => assert_eq!(job.state, StateName::Leased),
        Err(error) => assert!(error.is(Code::Unavailable), "{error:?}"),
    }
    assert!(polled.unwrap_err().is(Code::Unavailable));
    assert_eq!(follow.next().await.unwrap(), None);
    world.serving.take().unwrap().await.unwrap();
    assert!(world.user.job_get(&id).await.is_err());
}
