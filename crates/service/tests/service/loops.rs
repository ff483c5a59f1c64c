//! What happens without being asked, and what a restart leaves as it was.

use crate::*;
use service::loops::{expire_pass, reap_pass};

#[tokio::test]
async fn a_job_of_a_silent_node_is_lost_or_queued_again_by_its_retry_rule() {
    for (max_attempts, state) in [(1, "finished"), (2, "queued")] {
        let world = World::new();
        let (_, row) = world.running(retried(max_attempts)).await;
        world.silence().await;
        let after = world.get(&row.id).await;
        assert_eq!(after.state.name(), state);
        let kinds = world.kinds(&row.id).await;
        let kind = if max_attempts == 1 {
            "job.finished"
        } else {
            "job.requeued"
        };
        assert_eq!(kinds.last().unwrap(), kind);
    }
}

#[tokio::test]
async fn a_job_that_was_not_let_go_is_queued_again_and_the_try_counts() {
    let world = World::new();
    let (_, row) = world.leased(spec()).await;
    world.silence().await;
    let after = world.get(&row.id).await;
    assert_eq!((after.state, after.attempt), (JobState::Queued, 1));
}

#[tokio::test]
async fn a_job_whose_lease_is_lost_before_it_starts_is_not_tried_for_ever() {
    let world = World::new();
    let (node, mut row) = world.leased(spec()).await;
    for attempt in 1..=limits::ATTEMPTS_MAX {
        assert_eq!(row.attempt, attempt);
        let lost = world
            .service
            .job_finished(&node, &row.id, lost(&row, "it died"));
        lost.await.unwrap();
        let next = world.poll(&node, NOW).await.leases;
        match next.into_iter().next() {
            Some(next) => row = next,
            None => assert_eq!(attempt, limits::ATTEMPTS_MAX),
        }
    }
    let why = "it died".to_owned();
    assert_eq!(world.get(&row.id).await.state, ended(Outcome::Lost { why }));
}

#[tokio::test]
async fn a_node_is_there_while_it_renews_and_every_change_of_that_is_an_event() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    world.register(&node, "b").await;
    let beat = || world.service.node_heartbeat(&node, "b", &[], &[]);
    beat().await.unwrap();
    assert_eq!(world.node_kinds(1).await, ["node.online"]);
    world.silence().await;
    world.silence().await;
    assert_eq!(world.node_kinds(1).await, ["node.online", "node.offline"]);
    beat().await.unwrap();
    beat().await.unwrap();
    world.service.node_gone(&node).await.unwrap();
    world.service.node_gone(&node).await.unwrap();
    let kinds = ["node.online", "node.offline", "node.online", "node.gone"];
    assert_eq!(world.node_kinds(1).await, kinds);
}

#[tokio::test]
async fn a_node_that_renews_keeps_its_jobs() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    for _ in 0..30 {
        world.clock.advance(30_000);
        let beat = world.service.node_heartbeat(&node, "a", &[], &[]);
        beat.await.unwrap();
        reap_pass(&world.service).await.unwrap();
    }
    assert_eq!(world.get(&row.id).await.state.name(), "running");
}

#[tokio::test]
async fn a_service_that_was_away_gives_nodes_a_full_lease_to_be_heard() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    world.clock.advance(10 * limits::LEASE_MS);
    reap_pass(&world.service).await.unwrap();
    let again = world.again();
    reap_pass(&again).await.unwrap();
    assert_eq!(world.get(&row.id).await.state.name(), "running");
    again.node_heartbeat(&node, "a", &[], &[]).await.unwrap();
    for _ in 0..2 {
        world.clock.advance(30_000);
        reap_pass(&again).await.unwrap();
    }
    assert_eq!(world.get(&row.id).await.state.name(), "running");
}

#[tokio::test]
async fn a_restart_in_the_middle_changes_nothing() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let waiting = world.create(spec()).await;
    let again = world.again();
    let held = again.node_register(&node, hello("b")).await.unwrap().held;
    assert_eq!(held[0].id, row.id);
    let report = finished(&row, Outcome::Succeeded);
    again
        .job_finished(&node, &row.id, report.clone())
        .await
        .unwrap();
    let report = world.service.job_finished(&node, &row.id, report).await;
    assert!(report.unwrap().duplicate);
    let polled = again.node_poll(&node, "b", 1, NOW).await.unwrap();
    assert_eq!(polled.leases[0].id, waiting.id);
}

#[tokio::test]
async fn a_node_that_says_goodbye_leaves_its_jobs_judged() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    world.service.node_gone(&node).await.unwrap();
    let after = world.get(&row.id).await;
    assert!(matches!(after.state.outcome(), Some(Outcome::Lost { .. })));
    let polled = world.service.node_poll(&node, "a", 1, NOW).await;
    assert_eq!(polled.unwrap_err().code(), "conflict");
}

#[tokio::test]
async fn a_job_that_waits_too_long_is_refused() {
    let world = World::new();
    let row = world
        .create(JobSpec {
            queue_timeout_ms: Some(1000),
            ..spec()
        })
        .await;
    assert_eq!(expire_pass(&world.service).await.unwrap().jobs, 0);
    world.clock.advance(1001);
    assert_eq!(expire_pass(&world.service).await.unwrap().jobs, 1);
    let after = world.get(&row.id).await;
    assert!(matches!(
        after.state.outcome(),
        Some(Outcome::Refused { .. })
    ));
}

#[tokio::test]
async fn the_loops_end_when_they_are_told_to() {
    let world = World::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let run = tokio::spawn(service::loops::run(world.service.clone(), stopped));
    stop.send(true).unwrap();
    run.await.unwrap();
}

#[tokio::test]
async fn a_lease_is_as_long_as_the_operator_says_for_nodes_and_for_the_loops() {
    let world = World::new();
    let lease = model::lease::Lease::of_seconds(5).unwrap();
    world.service.leases_are(lease);
    let (node, row) = world.running(spec()).await;
    let again = world
        .service
        .node_register(&node, hello("a"))
        .await
        .unwrap();
    assert_eq!((again.lease_ms, again.heartbeat_ms), (5000, 500));
    let pass = async || {
        world.clock.advance(lease.look_ms());
        reap_pass(&world.service).await.unwrap()
    };
    for _ in 0..30 {
        let beat = world.service.node_heartbeat(&node, "a", &[], &[]);
        assert_eq!(beat.await.unwrap().heartbeat_ms, 500);
        pass().await;
    }
    assert_eq!(world.get(&row.id).await.state.name(), "running");
    for _ in 0..9 {
        pass().await;
    }
    assert_eq!(world.get(&row.id).await.state.name(), "running");
    pass().await;
    pass().await;
    assert_eq!(world.get(&row.id).await.state.name(), "finished");
}
