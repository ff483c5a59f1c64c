//! Root file systems that nodes have by name, and what is made on them.

use crate::sandboxes::{ask, said_ready};
use crate::*;
use model::id::SnapshotId;
use service::{Error, SandboxAsk, SandboxSaid, SnapshotRef};

/// A node that has these roots, each with its identity.
fn with_roots(roots: &[(&str, &str)]) -> NodeHello {
    let mut hello = hello("a");
    let facts = roots
        .iter()
        .map(|(name, identity)| (format!("root:{name}"), (*identity).to_owned()));
    hello.facts.extend(facts);
    hello
}

async fn comes(world: &World, number: u8, roots: &[(&str, &str)]) {
    let ctx = node(number);
    let came = world.service.node_register(&ctx, with_roots(roots));
    came.await.unwrap();
}

fn on(name: &str) -> SandboxAsk {
    let mut ask = ask();
    ask.spec.root = Some(name.to_owned());
    ask
}

fn job_on(name: &str) -> JobSpec {
    JobSpec {
        root: Some(name.to_owned()),
        ..spec()
    }
}

fn why(refused: Result<impl std::fmt::Debug, Error>) -> (&'static str, String) {
    let refused = refused.unwrap_err();
    (refused.code(), refused.to_string())
}

#[tokio::test]
async fn a_name_that_no_node_has_is_refused_with_those_that_there_are() {
    let world = World::new();
    comes(&world, 1, &[("debian:bookworm", "1"), ("alpine", "2")]).await;
    let message = "the request is invalid: root: no root file system is called `debian:bullseye`; there are \
                   `alpine`, `debian:bookworm`";
    let refused = world
        .service
        .sandbox_create(&user(), on("debian:bullseye"), None)
        .await;
    let (code, said) = why(refused);
    assert_eq!((code, &*said), ("unknown_root", message));
    let refused = world
        .service
        .job_create(&user(), job_on("debian:bullseye"), None)
        .await;
    assert_eq!(why(refused).0, "unknown_root");
    let refused = world.service.job_create(&user(), job_on("-x"), None).await;
    assert_eq!(why(refused).0, "root_name");
    let list = world.service.root_list(&user()).await.unwrap();
    let names: Vec<_> = list.iter().map(|root| &*root.name).collect();
    assert_eq!(names, ["alpine", "debian:bookworm"]);
    assert!(world.service.root_list(&node(1)).await.is_err());
    // One that it has no more is gone at once.
    comes(&world, 1, &[]).await;
    assert_eq!(
        world.service.root_find(&user(), "alpine").await.unwrap(),
        None
    );
    let refused = world
        .service
        .job_create(&user(), job_on("alpine"), None)
        .await;
    assert!(why(refused).1.ends_with("there is none here"));
}

#[tokio::test]
async fn the_first_node_is_waited_for_and_not_for_ever() {
    let world = World::new();
    let (ctx, spec) = (user(), job_on("alpine"));
    let (made, ()) = tokio::join!(
        world.service.job_create(&ctx, spec.clone(), None),
        comes(&world, 1, &[("alpine", "1")])
    );
    assert_eq!(made.unwrap().state, JobState::Queued);
    let pinned = JobSpec {
        node: Some(node_id(9)),
        ..spec
    };
    let refused = world.service.job_create(&ctx, pinned, None).await;
    assert_eq!(why(refused).0, "no_capacity");
}

#[tokio::test]
async fn where_nodes_differ_it_is_bound_to_one_that_has_the_root() {
    let world = World::new();
    comes(&world, 1, &[("alpine", "1")]).await;
    let row = world.create(job_on("alpine")).await;
    assert_eq!((row.spec.node, row.spec.queue_timeout_ms), (None, None));
    comes(&world, 2, &[]).await;
    let row = world.create(job_on("alpine")).await;
    assert_eq!(row.spec.node, Some(node_id(1)));
    assert!(row.spec.queue_timeout_ms.is_some());
    let row = world
        .service
        .sandbox_create(&user(), on("alpine"), None)
        .await
        .unwrap();
    assert_eq!(row.spec.node, Some(node_id(1)));
    assert_eq!(row.spec.root_identity.as_deref(), Some("1"));
    // Whoever binds it elsewhere by himself is told.
    let mut elsewhere = on("alpine");
    elsewhere.spec.node = Some(node_id(2));
    let refused = world.service.sandbox_create(&user(), elsewhere, None).await;
    assert_eq!(why(refused).0, "unknown_root");
    // Two by one name are not the same.
    comes(&world, 2, &[("alpine", "2")]).await;
    let row = world
        .service
        .sandbox_create(&user(), on("alpine"), None)
        .await
        .unwrap();
    assert!(row.spec.node.is_some() && row.spec.root_identity.is_some());
}

#[tokio::test]
async fn what_was_saved_begins_on_the_root_that_it_was_written_on_and_on_no_other() {
    let world = World::new();
    comes(&world, 1, &[("alpine", "1"), ("other", "1")]).await;
    let row = world.make(on("alpine")).await;
    world.works(&node(1), NOW).await;
    let row = world.says(&row, said_ready()).await;
    let copy = world
        .service
        .snapshot_create(&user(), &row.id, None, None)
        .await
        .unwrap();
    world.says(&row, SandboxSaid::Saved { bytes: 7 }).await;
    let from = |root: Option<&str>| {
        let mut ask = ask();
        ask.spec.root = root.map(str::to_owned);
        ask.from = Some(SnapshotRef::Id(SnapshotId::clone(&copy.id)));
        ask
    };
    let same = world
        .service
        .sandbox_create(&user(), from(None), None)
        .await
        .unwrap();
    let spec = (
        same.spec.root.as_deref(),
        same.spec.root_identity.as_deref(),
    );
    assert_eq!(spec, (Some("alpine"), Some("1")));
    let refused = world
        .service
        .sandbox_create(&user(), from(Some("other")), None)
        .await;
    assert_eq!(why(refused).0, "invalid_argument");
    comes(&world, 1, &[("alpine", "2"), ("other", "1")]).await;
    let refused = world
        .service
        .sandbox_create(&user(), from(None), None)
        .await;
    assert_eq!(why(refused).0, "root_changed");
    // One that stands on nothing gets what is there.
    let new = world
        .service
        .sandbox_create(&user(), on("alpine"), None)
        .await
        .unwrap();
    assert_eq!(new.spec.root_identity.as_deref(), Some("2"));
    comes(&world, 1, &[]).await;
    let refused = world
        .service
        .sandbox_create(&user(), from(None), None)
        .await;
    assert_eq!(why(refused).0, "unknown_root");
}
