//! What a node says of its machine, and one that nobody understands.

use api::client::{ClientError, JobCreateOptions};
use api::fleet::{NodeDriver, NodeHost, NodeReserved};
use api::job::JobCreate;
use api::node::{NodeHeartbeat, NodeProtocol};
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
    // The node of these tests has a version that is none.
    assert_eq!(
        (answer.upgrade_available, answer.min_compatible),
        (false, 1)
    );
    let seen = world.user.node_list().await.unwrap().nodes.remove(0);
    assert_eq!((seen.host, seen.failures), (Some(host), 0));
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
