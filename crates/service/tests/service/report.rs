//! What nodes say, said again, said otherwise, and said too late.

use crate::*;
use service::{LeaseRef, NodeHello, OutputPiece, Stream};

pub(crate) fn piece(data: &[u8]) -> Vec<OutputPiece> {
    vec![OutputPiece {
        stream: Stream::Stdout,
        offset_bytes: 0,
        dropped_before: 0,
        data: data.to_vec(),
    }]
}

#[tokio::test]
async fn the_same_report_again_is_a_duplicate_and_another_is_a_conflict() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let (service, id) = (&world.service, &row.id);
    let again = service.job_started(&node, id, started(&row)).await.unwrap();
    assert!(again.duplicate && !again.cancel);
    let mut other = started(&row);
    other.driver = "other".to_owned();
    let error = service.job_started(&node, id, other).await.unwrap_err();
    assert_eq!(error.code(), "conflict");

    let wrote = service.job_output(&node, id, 1, 1, piece(b"a")).await;
    assert!(!wrote.unwrap().duplicate);
    let wrote = service.job_output(&node, id, 1, 1, piece(b"a")).await;
    assert!(wrote.unwrap().duplicate);
    let wrote = service.job_output(&node, id, 1, 1, piece(b"b")).await;
    assert_eq!(wrote.unwrap_err().code(), "conflict");

    let report = finished(&row, Outcome::Succeeded);
    let ended = service.job_finished(&node, id, report.clone()).await;
    assert!(!ended.unwrap().duplicate);
    let ended = service.job_finished(&node, id, report).await;
    assert!(ended.unwrap().duplicate);
    let report = finished(&row, Outcome::TimedOut);
    let ended = service.job_finished(&node, id, report).await;
    assert_eq!(ended.unwrap_err().code(), "conflict");
    assert_eq!(world.kinds(id).await.len(), 4);
}

/// A running job of a node that declares gaps, and that node as it shows the token of the lease.
async fn declaring(world: &World) -> (Ctx, JobRow) {
    let node = node(1);
    let of_now = NodeHello {
        protocol: 3,
        ..hello("a")
    };
    let registered = world.service.node_register(&node, of_now).await;
    registered.unwrap();
    world.create(spec()).await;
    let polled = world.poll(&node, NOW).await;
    let tokens = world.service.lease_tokens_of_poll(&node, &polled).await;
    let row = polled.leases.into_iter().next().unwrap();
    let node = node.showing(tokens.unwrap().remove(row.id.as_str()));
    let report = world.service.job_started(&node, &row.id, started(&row));
    report.await.unwrap();
    (node, row)
}

/// Attack: A node leaves out of a log what nobody is to see, or writes one part of it over another.
#[tokio::test]
async fn a_hole_in_a_log_that_was_not_declared_is_refused_and_changes_nothing() {
    let world = World::new();
    let (node, row) = declaring(&world).await;
    let (service, id) = (&world.service, &row.id);
    let at = |offset_bytes, dropped_before, data: &[u8]| OutputPiece {
        stream: Stream::Stdout,
        offset_bytes,
        dropped_before,
        data: data.to_vec(),
    };
    let send = async |pieces: Vec<OutputPiece>| {
        let wrote = service.job_output(&node, id, 1, 1, pieces).await;
        let wrote = wrote.map(|report| report.duplicate);
        wrote.map_err(|error| error.code())
    };
    let stored = async || {
        let page = service.output_list(&user(), id, 0, 99).await.unwrap();
        let pieces = page.segments.into_iter();
        pieces.map(|one| one.offset_bytes).collect::<Vec<_>>()
    };
    assert_eq!(send(vec![at(0, 0, b"01234")]).await, Ok(false));
    for refused in [at(3, 0, b"345"), at(8, 0, b"8"), at(8, 1, b"8")] {
        // Nor is what is good in the same report.
        let both = vec![at(5, 0, b"5"), refused];
        assert_eq!(send(both).await, Err("output_hole"));
        assert_eq!(stored().await, [0]);
    }
    assert_eq!(send(vec![at(8, 3, b"89")]).await, Ok(false));
    // Its answer did not come; and the one before it is late.
    assert_eq!(send(vec![at(8, 3, b"89")]).await, Ok(true));
    assert_eq!(send(vec![at(0, 0, b"01234")]).await, Ok(true));
    let before = world.get(id).await;
    let mut end = finished(&row, Outcome::Succeeded);
    end.segments = vec![at(10, 0, b"a"), at(20, 8, b"b")];
    let refused = service.job_finished(&node, id, end.clone()).await;
    assert_eq!(refused.unwrap_err().code(), "output_hole");
    assert_eq!(world.get(id).await, before);
    assert_eq!(stored().await, [0, 8]);
    end.segments[1].dropped_before = 9;
    for duplicate in [false, true] {
        let report = service.job_finished(&node, id, end.clone()).await;
        assert_eq!(report.unwrap().duplicate, duplicate);
    }
    assert_eq!(stored().await, [0, 8, 10, 20]);
}

#[tokio::test]
async fn a_node_of_a_protocol_without_declared_gaps_begins_a_piece_anywhere() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let mut pieces = piece(b"tail");
    pieces[0].offset_bytes = 7;
    let wrote = world.service.job_output(&node, &row.id, 1, 1, pieces);
    assert!(!wrote.await.unwrap().duplicate);
}

#[tokio::test]
async fn a_conflicting_last_piece_stores_no_outcome() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let wrote = world.service.job_output(&node, &row.id, 1, 1, piece(b"a"));
    wrote.await.unwrap();
    let report = Finished {
        segments: piece(b"b"),
        ..finished(&row, Outcome::Succeeded)
    };
    let without = Finished {
        segments: Vec::new(),
        ..report.clone()
    };
    let error = world.service.job_finished(&node, &row.id, report).await;
    assert_eq!(error.unwrap_err().code(), "conflict");
    assert_eq!(world.get(&row.id).await.state.name(), "running");
    // A node that has lost what it noted says it again without.
    let told = world.service.job_finished(&node, &row.id, without).await;
    assert!(!told.unwrap().duplicate);
    assert_eq!(world.get(&row.id).await.state.name(), "finished");
}

#[tokio::test]
async fn a_report_of_an_old_lease_is_stale() {
    let world = World::new();
    let (node, old) = world.leased(spec()).await;
    let (service, id) = (&world.service, &old.id);
    service.job_release(&node, id, 1, "full").await.unwrap();
    assert!(
        service
            .job_release(&node, id, 1, "full")
            .await
            .unwrap()
            .duplicate
    );
    let late = service.job_started(&node, id, started(&old)).await;
    assert_eq!(late.unwrap_err().code(), "stale_epoch");
    let new = world.poll(&node, NOW).await.leases.remove(0);
    assert_eq!((new.epoch, new.attempt), (2, 1));
    let reports = [
        service.job_started(&node, id, started(&old)).await,
        service.job_output(&node, id, 1, 1, piece(b"a")).await,
        service
            .job_finished(&node, id, finished(&old, Outcome::Succeeded))
            .await,
        service.job_release(&node, id, 1, "full").await,
        service.job_finished(&node, id, lost(&old, "gone")).await,
    ];
    for report in reports {
        assert_eq!(report.unwrap_err().code(), "stale_epoch");
    }
    let running = [LeaseRef {
        job_id: id.clone(),
        epoch: 1,
    }];
    let beat = service
        .node_heartbeat(&node, "a", &running, &[])
        .await
        .unwrap();
    assert_eq!(beat.stale, running);
}

/// Attack: A node reports of what another one has.
#[tokio::test]
async fn a_node_cannot_speak_for_another() {
    let world = World::new();
    let (_, row) = world.leased(spec()).await;
    let other = node(2);
    world.register(&other, "a").await;
    let report = world.service.job_started(&other, &row.id, started(&row));
    assert_eq!(report.await.unwrap_err().code(), "not_your_lease");
    let report = finished(&row, Outcome::Succeeded);
    let report = world.service.job_finished(&other, &row.id, report).await;
    assert_eq!(report.unwrap_err().code(), "not_your_lease");
}

#[tokio::test]
async fn a_job_that_its_node_lost_follows_its_retry_rule() {
    let world = World::new();
    let (node, row) = world.running(retried(2)).await;
    let lost = Outcome::Lost {
        why: "the agent ended".to_owned(),
    };
    let service = &world.service;
    let report = finished(&row, lost.clone());
    service
        .job_finished(&node, &row.id, report.clone())
        .await
        .unwrap();
    assert_eq!(world.get(&row.id).await.state, JobState::Queued);
    let again = service.job_finished(&node, &row.id, report).await.unwrap();
    assert!(again.duplicate);
    let second = world.poll(&node, NOW).await.leases.remove(0);
    assert_eq!((second.epoch, second.attempt), (2, 2));
    service
        .job_started(&node, &row.id, started(&second))
        .await
        .unwrap();
    let report = super::lost(&second, "the agent ended");
    let told = service.job_finished(&node, &row.id, report.clone()).await;
    assert!(!told.unwrap().duplicate);
    assert_eq!(world.get(&row.id).await.state, ended(lost));
    let again = service.job_finished(&node, &row.id, report).await;
    assert!(again.unwrap().duplicate);
}

#[tokio::test]
async fn a_node_that_writes_too_much_is_refused() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let long = vec![0; limits::OUTPUT_SEGMENT_BYTES + 1];
    let wrote = world.service.job_output(&node, &row.id, 1, 1, piece(&long));
    assert_eq!(wrote.await.unwrap_err().code(), "too_long");
    let many = |n: u64| OutputPiece {
        stream: Stream::Stdout,
        offset_bytes: n * 200_000,
        dropped_before: 0,
        data: vec![0; 200_000],
    };
    let much: Vec<_> = (0..20).map(many).collect();
    let wrote = world.service.job_output(&node, &row.id, 1, 1, much).await;
    assert_eq!(wrote.unwrap_err().code(), "too_long");
}

#[tokio::test]
async fn what_a_node_reports_of_a_job_that_was_judged_lost_is_kept_beside_the_outcome() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    world.silence().await;
    let lost = world.get(&row.id).await;
    assert_eq!(lost.state.outcome().unwrap().name(), "lost");
    let report = finished(&row, Outcome::Failed { exit_code: 3 });
    let late = world.service.job_finished(&node, &row.id, report.clone());
    assert!(!late.await.unwrap().duplicate);
    let after = world.get(&row.id).await;
    assert_eq!(after.state, lost.state);
    assert_eq!(after.finished_at_ms, lost.finished_at_ms);
    let ctx = user();
    let events = world.service.job_events(&ctx, &row.id, lost.version, 9);
    let events = events.await.unwrap();
    assert_eq!(events[0].kind, "job.reported_late");
    assert!(
        events[0].data.contains(r#""outcome":"failed""#),
        "{events:?}"
    );
    let again = world.service.job_finished(&node, &row.id, report).await;
    assert!(again.unwrap().duplicate);
    let other = finished(&row, Outcome::Succeeded);
    let other = world.service.job_finished(&node, &row.id, other).await;
    assert_eq!(other.unwrap_err().code(), "conflict");
    assert_eq!(world.get(&row.id).await.version, lost.version + 1);
}

#[tokio::test]
async fn a_late_report_is_of_the_last_lease_and_its_attempt() {
    let world = World::new();
    let (node, first) = world.running(retried(2)).await;
    let why = "the agent ended".to_owned();
    let report = finished(&first, Outcome::Lost { why });
    let service = &world.service;
    service
        .job_finished(&node, &first.id, report)
        .await
        .unwrap();
    let second = world.poll(&node, NOW).await.leases.remove(0);
    let report = service.job_started(&node, &second.id, started(&second));
    report.await.unwrap();
    world.silence().await;
    let late = finished(&first, Outcome::Succeeded);
    let late = service.job_finished(&node, &first.id, late).await;
    assert_eq!(late.unwrap_err().code(), "stale_epoch");
    let mut late = finished(&second, Outcome::Succeeded);
    late.attempt = 1;
    let late = service.job_finished(&node, &first.id, late).await;
    assert_eq!(late.unwrap_err().code(), "conflict");
    let late = finished(&second, Outcome::Succeeded);
    service.job_finished(&node, &first.id, late).await.unwrap();
    let last = world.kinds(&first.id).await.pop().unwrap();
    assert_eq!(last, "job.reported_late");
}
