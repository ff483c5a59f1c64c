//! Snapshots through the doors, with the test as the node.

use api::Code;
use api::client::JobCreateOptions;
use api::event::EventListQuery;
use api::node::{NodeHeartbeat, ReportResult, SandboxReport, SandboxSaid, SandboxWant};
use api::sandbox::{SandboxCreate, SandboxStateName};
use api::snapshot::{SandboxFork, SnapshotCreate, SnapshotListQuery, SnapshotStateName};
use insta::assert_snapshot;

use crate::life::register;
use crate::sandbox::{LONG, asked, obey};
use crate::world::{World, bare, with_body};

#[tokio::test]
async fn a_snapshot_lives_through_all_its_routes() {
    let world = World::new().await;
    register(&world).await;
    let user = &world.user;
    let waiting = JobCreateOptions {
        wait: LONG,
        ..JobCreateOptions::default()
    };
    let first = asked();
    let made = tokio::join!(
        user.sandbox_create(&first, &waiting),
        obey(&world, SandboxWant::Make)
    );
    let id = made.0.unwrap().id;
    let name = SnapshotCreate {
        name: Some("env:v1".to_owned()),
    };
    let (copy, order) = tokio::join!(
        user.snapshot_create(&id, &name, LONG),
        obey(&world, SandboxWant::Snapshot)
    );
    let copy = copy.unwrap();
    assert_eq!(order.copy.unwrap().snapshot_id, copy.id);
    let reply = world.ask(bare("GET", &format!("/v1/snapshots/{}", copy.id)));
    assert_snapshot!("snapshot_ready", reply.await.whole());
    let query = SnapshotListQuery {
        sandbox: Some(id.clone()),
        name: Some("env".to_owned()),
        ..SnapshotListQuery::default()
    };
    let listed = user.snapshot_list(&query).await.unwrap();
    assert_eq!(listed.snapshots.first(), Some(&copy));

    let from = SandboxCreate {
        snapshot: Some("env:v1".to_owned()),
        ..SandboxCreate::default()
    };
    let (begun, order) = tokio::join!(
        user.sandbox_create(&from, &waiting),
        obey(&world, SandboxWant::Make)
    );
    let begun = begun.unwrap();
    assert_eq!(order.spec.layers, [copy.id.as_str()]);
    assert_eq!(begun.spec.snapshot.as_ref(), Some(&copy.id));

    fork(&world, &id).await;
    assert_eq!(user.snapshot_list(&query).await.unwrap().snapshots.len(), 1);

    for _ in 0..2 {
        let given_up = user.snapshot_delete(&copy.id).await.unwrap();
        assert_eq!(given_up.state, SnapshotStateName::Deleting);
    }
    let late = user.sandbox_create(&from, &waiting).await.unwrap_err();
    assert!(late.is(Code::NotFound), "{late:?}");
    let anew = user.sandbox_recreate(&begun.id, None).await.unwrap();
    let shown = (anew.id.as_str(), anew.state, anew.spec.snapshot.as_ref());
    assert_eq!(
        shown,
        (&*begun.id, SandboxStateName::Recreating, Some(&copy.id))
    );
    user.sandbox_destroy(&anew.id, None).await.unwrap();
    said_gone(&world, &begun.id).await;
    assert_eq!(beat(&world).await, [copy.id.as_str()]);
    world.node.node_snapshot_removed(&copy.id).await.unwrap();
    let gone = user.snapshot_get(&copy.id).await.unwrap();
    assert_eq!(gone.state, SnapshotStateName::Deleted);
    let old = user.sandbox_get(&begun.id).await.unwrap();
    assert_eq!(old.state, SandboxStateName::Destroyed);
}

async fn fork(world: &World, id: &str) {
    let fork = SandboxFork {
        count: Some(1),
        timeout_ms: None,
    };
    let (forks, _) = tokio::join!(
        world.user.sandbox_fork(id, &fork),
        obey(world, SandboxWant::Snapshot)
    );
    let forks = forks.unwrap().forks;
    assert_eq!(forks.len(), 1);
    assert!(forks.iter().all(|one| one.sandbox.is_some()));
    obey(world, SandboxWant::Make).await;
}

/// The node says that nothing is left of it.
async fn said_gone(world: &World, id: &str) {
    let query = EventListQuery::default();
    let events = world.user.sandbox_events(id, &query).await.unwrap().events;
    let epochs = events
        .iter()
        .filter_map(|event| event.data["epoch"].as_u64());
    let report = SandboxReport {
        epoch: epochs.max().unwrap(),
        what: SandboxSaid::Destroyed,
        host: None,
    };
    let said = world.node.node_sandbox_report(id, &report).await;
    assert_eq!(said.unwrap().result, ReportResult::Accepted);
}

async fn beat(world: &World) -> Vec<String> {
    let beat = NodeHeartbeat {
        incarnation: "first".to_owned(),
        running: Vec::new(),
        sandboxes: Vec::new(),
        snapshots: Vec::new(),
        volumes: Vec::new(),
        host: None,
        protocol: api::node::NodeProtocol::default(),
        dropped: Vec::new(),
    };
    world
        .node
        .node_heartbeat(&beat)
        .await
        .unwrap()
        .remove_snapshots
}

#[tokio::test]
async fn what_is_wrong_with_a_snapshot_is_named() {
    let world = World::new().await;
    let nobody = "/v1/sandboxes/sbx_0197747bb4007000800000000000dead";
    let copies = format!("{nobody}/snapshots");
    let forks = format!("{nobody}/fork");
    for (path, body, code) in [
        (&*copies, r#"{"name":"A b"}"#, "invalid_argument"),
        (&*copies, r#"{"memory":true}"#, "unknown_field"),
        (&*copies, "{", "malformed_json"),
        (&*copies, "{}", "not_found"),
        (&*forks, r#"{"count":101}"#, "invalid_argument"),
        (&*forks, r#"{"count":1}"#, "not_found"),
        ("/v1/sandboxes", r#"{"snapshot":"A b"}"#, "invalid_argument"),
        ("/v1/sandboxes", r#"{"snapshot":"none"}"#, "not_found"),
    ] {
        let reply = world.ask(with_body("POST", path, body)).await;
        assert_eq!(reply.json()["code"], code, "{path} {body}");
    }
    let nothing = "/v1/snapshots/snp_0197747bb4007000800000000000dead";
    for (method, path, code) in [
        ("GET", nothing, "not_found"),
        ("DELETE", nothing, "not_found"),
        ("GET", "/v1/snapshots/x", "not_found"),
        ("GET", "/v1/snapshots?before=x", "invalid_argument"),
        ("GET", "/v1/snapshots?limit=0", "invalid_argument"),
        ("GET", "/v1/snapshots?sandbox=x", "invalid_argument"),
        ("GET", "/v1/snapshots?name=A", "invalid_argument"),
        ("GET", "/v1/snapshots?color=red", "unknown_field"),
    ] {
        let reply = world.ask(bare(method, path)).await;
        assert_eq!(reply.json()["code"], code, "{method} {path}");
    }
    let stranger = world
        .node
        .node_snapshot_removed("snp_0197747bb4007000800000000000dead");
    assert!(stranger.await.unwrap_err().is(Code::NotFound));
}
