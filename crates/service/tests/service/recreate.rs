//! Sandboxes made anew: one place after the other, never two.

use crate::sandboxes::*;
use crate::*;
use model::sandbox::{SandboxState, Want};
use service::{ExecFact, Idempotency, SandboxRow, SandboxSaid};

fn key(name: &str) -> Option<Idempotency> {
    Some(Idempotency {
        key: name.to_owned(),
        request_hash: "h".to_owned(),
    })
}

impl World {
    async fn recreate(&self, row: &SandboxRow) -> Result<SandboxRow, service::Error> {
        self.service.sandbox_recreate(&user(), &row.id, None).await
    }
}

#[tokio::test]
async fn a_sandbox_made_anew_is_the_same_in_another_place() {
    let world = World::new();
    let row = world.ready(ask()).await;
    world.clock.advance(5);
    let goes = world.recreate(&row).await.unwrap();
    assert_eq!(
        (&goes.state, goes.incarnation),
        (&SandboxState::Recreating, 1)
    );
    assert!(goes.epoch > row.epoch && goes.expires_at_ms.is_none());
    assert_eq!(world.works(&node(1), NOW).await[0].want, Want::Destroy);
    // Its node has room, and so it has the next order in the same moment.
    let made = world.says(&row, SandboxSaid::Destroyed).await;
    assert_eq!(
        (&made.state, made.incarnation),
        (&SandboxState::Provisioning, 2)
    );
    assert!(made.epoch > goes.epoch && made.ready_at_ms.is_none());
    assert_eq!(world.works(&node(1), NOW).await[0].want, Want::Make);
    let again = world.says(&row, said_ready()).await;
    assert_eq!((&again.id, &again.spec), (&row.id, &row.spec));
    assert_ne!(again.access_token, row.access_token);
    assert_eq!(again.expires_at_ms, row.expires_at_ms.map(|at| at + 5));
    let kinds = world.sandbox_kinds(&row.id).await;
    let after = ["recreating", "requested", "provisioning", "ready"];
    assert_eq!(kinds[kinds.len() - 4..], after);
}

#[tokio::test]
async fn one_that_no_node_has_had_waits_on_and_one_that_failed_waits_again() {
    let world = World::new();
    let row = world.make(ask()).await;
    let same = world.recreate(&row).await.unwrap();
    assert_eq!(
        (&same.state, same.version),
        (&SandboxState::Requested, row.version)
    );
    world.clock.advance(row.spec.queue_timeout_ms + 1);
    service::loops::due_pass(&world.service).await.unwrap();
    assert!(world.sandbox(&row.id).await.state.is_over());
    let waits = world.recreate(&row).await.unwrap();
    assert_eq!(
        (&waits.state, waits.ended_at_ms),
        (&SandboxState::Requested, None)
    );
    assert!(waits.due_at_ms > row.due_at_ms && waits.reason.is_none());
}

#[tokio::test]
async fn one_that_fell_is_made_anew_when_its_node_has_nothing_of_it_any_more() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let why = "fell".to_owned();
    world.says(&row, SandboxSaid::Failed { why }).await;
    let goes = world.recreate(&row).await.unwrap();
    assert_eq!(goes.state, SandboxState::Recreating);
    assert_eq!((goes.ended_at_ms, &goes.reason), (None, &None));
    let twice = world.recreate(&row).await.unwrap();
    assert_eq!(twice.version, goes.version);
    let made = world.says(&row, SandboxSaid::Destroyed).await;
    assert_eq!(made.state, SandboxState::Provisioning);
}

#[tokio::test]
async fn what_is_wanted_gone_stays_so_and_theirs_is_not_found() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let theirs = world
        .service
        .sandbox_recreate(&stranger(), &row.id, None)
        .await;
    assert_eq!(theirs.unwrap_err().code(), "not_found");
    let goes = world.recreate(&row).await.unwrap();
    world
        .service
        .sandbox_destroy(&user(), &row.id)
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(
            world.recreate(&row).await.unwrap_err().code(),
            "sandbox_gone"
        );
        // What its node says of the order before does not count any more.
        let (node, late) = (node(1), SandboxSaid::Destroyed);
        let late = world
            .service
            .sandbox_report(&node, &row.id, goes.epoch, late, None);
        assert!(late.await.is_err());
    }
    let gone = world.says(&row, SandboxSaid::Destroyed).await;
    assert_eq!(gone.state, SandboxState::Destroyed);
    assert_eq!(
        world.recreate(&row).await.unwrap_err().code(),
        "sandbox_gone"
    );
}

#[tokio::test]
async fn the_same_key_makes_it_anew_once() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let with = async |id, name| world.service.sandbox_recreate(&user(), id, key(name)).await;
    with(&row.id, "k1234567").await.unwrap();
    world.says(&row, SandboxSaid::Destroyed).await;
    let ready = world.says(&row, said_ready()).await;
    let again = with(&row.id, "k1234567").await.unwrap();
    assert_eq!((again.version, again.incarnation), (ready.version, 2));
    let other = with(&row.id, "k7654321").await.unwrap();
    assert_eq!(other.state, SandboxState::Recreating);
}

#[tokio::test]
async fn commands_of_the_next_place_are_numbered_on_and_those_without_end_ended_with_theirs() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let started = |seq| ExecFact::Started {
        seq,
        at_ms: 5,
        is_step: false,
        asked: "{}".to_owned(),
    };
    let tell = async |facts| world.service.exec_report(&node(1), &row.id, facts).await;
    let ended = ExecFact::Ended {
        of: 1,
        at_ms: 6,
        end: "{}".to_owned(),
    };
    tell(vec![started(1), ended, started(3)]).await.unwrap();
    world.recreate(&row).await.unwrap();
    let made = world.says(&row, SandboxSaid::Destroyed).await;
    assert_eq!(made.exec_base, 3);
    tell(vec![started(4)]).await.unwrap();
    let page = world
        .service
        .exec_list(&user(), &row.id, (None, None), 9)
        .await;
    let rows = page.unwrap().rows;
    let seen: Vec<_> = rows
        .iter()
        .map(|one| (one.seq, one.ended_at_ms.is_some()))
        .collect();
    assert_eq!(seen, [(4, false), (3, true), (1, true)]);
}

#[tokio::test]
async fn one_whose_node_is_lost_meanwhile_failed() {
    let world = World::new();
    let row = world.ready(ask()).await;
    world.recreate(&row).await.unwrap();
    world.clock.advance(model::limits::LEASE_MS * 3);
    service::loops::reap_pass(&world.service).await.unwrap();
    world.clock.advance(1000);
    for _ in 0..400 {
        world.clock.advance(1000);
        service::loops::reap_pass(&world.service).await.unwrap();
    }
    let lost = world.sandbox(&row.id).await;
    assert!(
        matches!(lost.state, SandboxState::Failed { .. }),
        "{lost:?}"
    );
}
