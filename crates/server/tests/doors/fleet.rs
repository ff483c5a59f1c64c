//! What a node says of its machine, and one that nobody understands.

use api::client::{ClientError, JobCreateOptions};
use api::dropped::{DroppedWhat, NodeDropped};
use api::fleet::{
    NodeBusy, NodeDriver, NodeHost, NodeKind, NodeLeftovers, NodePressure, NodeReserved,
};
use api::job::JobCreate;
use api::log::{LogQuery, StreamName};
use api::node::{
    JobOutput, JobStarted, NodeHeartbeat, NodePoll, NodePollAnswer, NodeProtocol, OutputSegment,
};
use api::place::Placement;

use crate::life::{hello, job, register};
use crate::world::World;

fn beat() -> NodeHeartbeat {
    NodeHeartbeat {
        incarnation: "first".into(),
        running: Vec::new(),
        snapshots: Vec::new(),
        volumes: Vec::new(),
        sandboxes: Vec::new(),
        host: None,
        protocol: NodeProtocol::default(),
        dropped: Vec::new(),
    }
}

fn refusal(error: &ClientError) -> (&str, Option<u64>) {
    let ClientError::Api(failure) = error else {
        return (error.code(), None);
    };
    (&failure.body.code, failure.retry_after_ms)
}

#[tokio::test]
async fn a_node_of_another_protocol_is_refused_and_told_when_to_come_again_and_changes_nothing() {
    let world = World::new().await;
    let protocol = NodeProtocol { min: 0, max: 0 };
    let mut old = hello();
    old.protocol = protocol;
    let error = world.node.node_register(&old).await.unwrap_err();
    assert_eq!(refusal(&error), ("node_incompatible", Some(300_000)));
    assert!(world.user.node_list().await.unwrap().nodes.is_empty());
    register(&world).await;
    let before = world.user.node_list().await.unwrap();
    world.clock.advance(1000);
    let beat = NodeHeartbeat { protocol, ..beat() };
    let error = world.node.node_heartbeat(&beat).await.unwrap_err();
    assert_eq!(refusal(&error), ("node_incompatible", Some(300_000)));
    assert_eq!(world.user.node_list().await.unwrap(), before);
}

#[tokio::test]
async fn a_heartbeat_is_answered_with_what_the_server_is_and_the_machine_is_seen() {
    let world = World::new().await;
    register(&world).await;
    let host = NodeHost {
        kernel: "6.1".into(),
        cpus: 2,
        load_milli: 1250,
        memory_bytes: 9,
        memory_free_bytes: 5,
        disk_bytes: 7,
        disk_free_bytes: 3,
        reserved: NodeReserved {
            memory_bytes: 1,
            disk_bytes: 2,
        },
        busy: Some(NodeBusy {
            load_5_milli: 600,
            load_15_milli: 110,
            threads: 345,
            jobs: 1,
            sandboxes: 2,
            spares: 3,
            pressure: Some(NodePressure {
                cpu_milli: 12,
                memory_milli: 1,
                io_milli: 1000,
            }),
        }),
        leftovers: Some(NodeLeftovers {
            count: 2,
            bytes: 4096,
            at_ms: 1,
            partial: true,
        }),
        drivers: vec![NodeDriver {
            name: "fake".into(),
            healthy: false,
            why: Some("no cgroups".into()),
        }],
        refuses: Some("disk_full: 3 bytes are free".into()),
    };
    let beat = NodeHeartbeat {
        host: Some(host.clone()),
        ..beat()
    };
    let answer = world.node.node_heartbeat(&beat).await.unwrap();
    // The node of these tests has a version that is none, so that nobody can say which is newer.
    assert_eq!(
        (answer.upgrade_available, answer.min_compatible),
        (false, 1)
    );
    let seen = world.user.node_list().await.unwrap().nodes.remove(0);
    assert_eq!((seen.host, seen.failures), (Some(host), 0));
}

#[tokio::test]
async fn a_node_that_is_older_than_the_server_is_told_so_and_shown_so() {
    let world = World::new().await;
    let mut old = hello();
    old.version = "0.0.1".to_owned();
    world.node.node_register(&old).await.unwrap();
    let answer = world.node.node_heartbeat(&beat()).await.unwrap();
    assert!(answer.upgrade_available);
    let now = answer.latest_version.unwrap();
    let seen = world.user.node_list().await.unwrap().nodes.remove(0);
    assert_eq!(
        (seen.version.as_deref(), seen.upgrade_available),
        (Some("0.0.1"), true)
    );
    assert!(
        world
            .user
            .node_get(&seen.id)
            .await
            .unwrap()
            .upgrade_available
    );
    let mut upgraded = hello();
    upgraded.version.clone_from(&now);
    world.node.node_register(&upgraded).await.unwrap();
    let answer = world.node.node_heartbeat(&beat()).await.unwrap();
    assert_eq!(
        (answer.upgrade_available, answer.latest_version),
        (false, None)
    );
    let seen = world.user.node_list().await.unwrap().nodes.remove(0);
    assert_eq!((seen.version, seen.upgrade_available), (Some(now), false));
}

#[tokio::test]
async fn a_node_says_what_kind_it_is_and_one_that_says_nothing_is_a_server() {
    let world = World::new().await;
    register(&world).await;
    let seen = world.user.node_list().await.unwrap().nodes.remove(0);
    assert_eq!(seen.kind.as_deref(), Some("server"));
    assert_eq!((&*seen.labels["kind"], seen.tags.len()), ("server", 0));
    let mut again = hello();
    again.incarnation = "second".to_owned();
    again.kind = Some(NodeKind::Bridge);
    let labels = [("gpu", ""), ("kind", "server"), ("zone", "a")];
    again.labels = labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    world.node.node_register(&again).await.unwrap();
    let seen = world.user.node_list().await.unwrap().nodes.remove(0);
    assert_eq!(seen.kind.as_deref(), Some("bridge"));
    assert_eq!(
        (&*seen.labels["kind"], seen.tags),
        ("bridge", vec!["gpu".to_owned()])
    );
}

/// A job that a node of now has, and what that was told with it.
async fn polled(world: &World) -> (String, NodePollAnswer) {
    let mut now = hello();
    now.protocol = NodeProtocol { min: 1, max: 3 };
    let registered = world.node.node_register(&now).await.unwrap();
    assert_eq!(registered.protocol, 3);
    let options = JobCreateOptions::default();
    let made = world.user.job_create(&job(&["true"]), &options).await;
    let id = made.unwrap().id;
    let poll = NodePoll {
        incarnation: "first".into(),
        free_slots: 1,
        free_sandboxes: 0,
        reserved: NodeReserved::default(),
        wait_ms: 10_000,
    };
    let polled = world.node.node_poll(&poll).await.unwrap();
    (id, polled)
}

fn started(epoch: u64) -> JobStarted {
    JobStarted {
        epoch,
        attempt: 1,
        driver: "fake".into(),
        sandbox_id: None,
        enforcement: Vec::new(),
    }
}

#[tokio::test]
async fn a_node_shows_the_token_of_its_lease_and_without_it_is_refused() {
    let world = World::new().await;
    let (id, polled) = polled(&world).await;
    let started = started(polled.leases[0].epoch);
    let said = world.node.node_job_started(&id, &started).await;
    assert_eq!(refusal(&said.unwrap_err()), ("lease_token_wrong", None));
    world.node.lease_token(&id, &polled.lease_tokens[&id]);
    world.node.node_job_started(&id, &started).await.unwrap();
    let answer = world.node.node_heartbeat(&beat()).await.unwrap();
    assert_eq!(answer.lease_tokens[&id], polled.lease_tokens[&id]);
}

#[tokio::test]
async fn what_is_missing_of_a_stream_is_declared_or_refused_and_is_a_gap_for_who_reads() {
    let world = World::new().await;
    let (id, polled) = polled(&world).await;
    world.node.lease_token(&id, &polled.lease_tokens[&id]);
    let epoch = polled.leases[0].epoch;
    world
        .node
        .node_job_started(&id, &started(epoch))
        .await
        .unwrap();
    let send = async |offset, dropped_before, bytes: &[u8]| {
        let segment = OutputSegment::new(StreamName::Stdout, offset, bytes);
        let report = JobOutput {
            epoch,
            attempt: 1,
            segments: vec![OutputSegment {
                dropped_before,
                ..segment
            }],
        };
        world.node.node_job_output(&id, &report).await
    };
    send(0, None, b"head").await.unwrap();
    for (offset, dropped) in [(2, None), (9, None), (9, Some(4)), (9, Some(0))] {
        let error = send(offset, dropped, b"tail").await.unwrap_err();
        assert_eq!(refusal(&error), ("output_hole", None));
        assert!(!error.body().retryable);
    }
    send(9, Some(5), b"tail").await.unwrap();
    let page = world.user.job_logs(&id, &LogQuery::default()).await;
    let pieces = page.unwrap().segments.into_iter();
    let seen: Vec<_> = pieces.map(|one| (one.seq, one.offset_bytes)).collect();
    assert_eq!(seen, [(1, 0), (2, 9)]);
}

#[tokio::test]
async fn what_a_node_gave_up_is_taken_note_of_and_what_is_wrong_with_it_ends_no_lease() {
    let world = World::new().await;
    register(&world).await;
    let dropped = NodeDropped {
        id: "ab".repeat(16),
        what: DroppedWhat::Finished,
        about: "job_1".to_owned(),
        code: "conflict".to_owned(),
        more: 0,
    };
    let mut beat = beat();
    beat.dropped = vec![dropped.clone()];
    let answer = world.node.node_heartbeat(&beat).await.unwrap();
    assert_eq!(answer.dropped, [dropped.id]);
    beat.dropped[0].id = "no".to_owned();
    let answer = world.node.node_heartbeat(&beat).await.unwrap();
    assert!(answer.dropped.is_empty() && answer.lease_ms > 0);
}

#[tokio::test]
async fn a_job_says_where_it_is_to_be_and_what_it_waits_for() {
    let world = World::new().await;
    register(&world).await;
    let asked = JobCreate {
        placement: Placement {
            on: [("zone".to_owned(), "moon".to_owned())].into(),
            ..Placement::default()
        },
        ..job(&["true"])
    };
    let options = JobCreateOptions::default();
    let made = world.user.job_create(&asked, &options).await;
    let seen = world.user.job_get(&made.unwrap().id).await.unwrap();
    assert_eq!(seen.spec.placement, asked.placement);
    let why = "no node has the label zone=moon";
    assert_eq!(seen.waiting.as_deref(), Some(why));
    let mut wrong = asked;
    wrong.placement.on = [("a b".to_owned(), String::new())].into();
    let refused = world.user.job_create(&wrong, &options).await;
    assert_eq!(refused.unwrap_err().code(), "invalid_argument");
}
