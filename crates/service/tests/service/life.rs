//! From the request to the outcome, as those see it who asked.

use crate::*;
use service::{Error, Idempotency, OutputPiece, Stream};

#[tokio::test]
async fn a_job_lives_from_the_queue_to_its_outcome() {
    let world = World::new();
    let (node, row) = world.leased(spec()).await;
    assert_eq!((row.epoch, row.attempt), (1, 1));
    world
        .service
        .job_started(&node, &row.id, started(&row))
        .await
        .unwrap();
    let piece = OutputPiece {
        stream: Stream::Stdout,
        offset_bytes: 0,
        dropped_before: 0,
        data: b"hello".to_vec(),
    };
    let report = Finished {
        segments: vec![piece],
        detail: Some("fine".to_owned()),
        ..finished(&row, Outcome::Failed { exit_code: 3 })
    };
    world
        .service
        .job_finished(&node, &row.id, report)
        .await
        .unwrap();
    let row = world
        .service
        .job_wait(&user(), &row.id, LONG)
        .await
        .unwrap();
    assert_eq!(row.state, ended(Outcome::Failed { exit_code: 3 }));
    assert_eq!(row.detail.as_deref(), Some("fine"));
    let page = world
        .service
        .output_list(&user(), &row.id, 0, 10)
        .await
        .unwrap();
    assert!(page.complete);
    assert_eq!(page.segments[0].data, b"hello");
    let kinds = ["job.queued", "job.leased", "job.running", "job.finished"];
    assert_eq!(world.kinds(&row.id).await, kinds);
}

#[tokio::test]
async fn whoever_waits_is_woken_by_output_and_by_the_end() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let (service, id) = (world.service.clone(), row.id.clone());
    let output = tokio::spawn(async move {
        service
            .output_wait(&user(), &id, 0, 10, LONG)
            .await
            .unwrap()
    });
    let (service, id) = (world.service.clone(), row.id.clone());
    let end = tokio::spawn(async move { service.job_wait(&user(), &id, LONG).await.unwrap() });
    let piece = OutputPiece {
        stream: Stream::Stderr,
        offset_bytes: 0,
        dropped_before: 0,
        data: vec![1],
    };
    let service = &world.service;
    service
        .job_output(&node, &row.id, 1, 1, vec![piece])
        .await
        .unwrap();
    assert_eq!(output.await.unwrap().segments[0].stream, "stderr");
    service
        .job_finished(&node, &row.id, finished(&row, Outcome::Succeeded))
        .await
        .unwrap();
    assert_eq!(end.await.unwrap().state, ended(Outcome::Succeeded));
}

#[tokio::test]
async fn canceling_a_job_that_waits_ends_it() {
    let world = World::new();
    let row = world.create(spec()).await;
    let canceled = world.service.job_cancel(&user(), &row.id).await.unwrap();
    assert_eq!(canceled.state, ended(Outcome::Canceled));
    let again = world.service.job_cancel(&user(), &row.id).await.unwrap();
    assert_eq!(again.version, canceled.version);
}

#[tokio::test]
async fn a_job_that_is_canceled_while_leased_is_not_let_go() {
    let world = World::new();
    let (node, row) = world.leased(spec()).await;
    let stopping = world.service.job_cancel(&user(), &row.id).await.unwrap();
    assert_eq!(stopping.state.name(), "stopping");
    let report = world.service.job_started(&node, &row.id, started(&row));
    assert!(report.await.unwrap().cancel);
    let service = &world.service;
    service
        .job_release(&node, &row.id, row.epoch, "canceled")
        .await
        .unwrap();
    assert_eq!(world.get(&row.id).await.state, ended(Outcome::Canceled));
}

#[tokio::test]
async fn canceling_a_job_that_runs_wakes_the_poll_of_its_node_and_is_told_once() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let (service, poller) = (world.service.clone(), node.clone());
    let poll = tokio::spawn(async move { service.node_poll(&poller, "a", 0, LONG).await.unwrap() });
    world.service.job_cancel(&user(), &row.id).await.unwrap();
    let polled = poll.await.unwrap();
    assert_eq!(polled.cancel[0].job_id, row.id);
    assert!(world.poll(&node, NOW).await.cancel.is_empty());
    let beat = world
        .service
        .node_heartbeat(&node, "a", &[], &[])
        .await
        .unwrap();
    assert_eq!(beat.cancel[0].epoch, row.epoch);
    let report = finished(&row, Outcome::Canceled);
    world
        .service
        .job_finished(&node, &row.id, report)
        .await
        .unwrap();
    assert_eq!(world.get(&row.id).await.state, ended(Outcome::Canceled));
}

#[tokio::test]
async fn canceling_a_job_that_has_ended_otherwise_is_a_conflict() {
    let world = World::new();
    let (node, row) = world.running(spec()).await;
    let report = finished(&row, Outcome::Succeeded);
    world
        .service
        .job_finished(&node, &row.id, report)
        .await
        .unwrap();
    let error = world
        .service
        .job_cancel(&user(), &row.id)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "conflict");
}

#[tokio::test]
async fn a_request_with_the_same_key_makes_one_job() {
    let world = World::new();
    let key = |hash: &str| {
        Some(Idempotency {
            key: "k".to_owned(),
            request_hash: hash.to_owned(),
        })
    };
    let create = |hash: &str| {
        let (service, key) = (world.service.clone(), key(hash));
        tokio::spawn(async move { service.job_create(&user(), spec(), key).await })
    };
    let both = [create("h"), create("h")];
    let mut ids = Vec::new();
    for made in both {
        ids.push(made.await.unwrap().unwrap().id);
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        create("other").await.unwrap().unwrap_err().code(),
        "idempotency_mismatch"
    );
    world.service.job_cancel(&user(), &ids[0]).await.unwrap();
    let again = create("h").await.unwrap().unwrap();
    assert_eq!(again.state, ended(Outcome::Canceled));
}

#[tokio::test]
async fn a_job_of_another_tenant_is_not_there() {
    let world = World::new();
    let id = world.create(spec()).await.id;
    let (service, ctx) = (&world.service, stranger());
    let errors = [
        service.job_get(&ctx, &id).await.map(drop),
        service.job_cancel(&ctx, &id).await.map(drop),
        service.job_wait(&ctx, &id, LONG).await.map(drop),
        service.job_events(&ctx, &id, 0, 1).await.map(drop),
        service.output_list(&ctx, &id, 0, 1).await.map(drop),
        service.artifact_list(&ctx, &id).await.map(drop),
    ];
    for error in errors {
        assert!(matches!(error, Err(Error::NotFound)), "{error:?}");
    }
    let page = service.job_list(&ctx, None, None, 10).await.unwrap();
    assert!(page.jobs.is_empty());
}

#[tokio::test]
async fn nodes_do_not_ask_for_jobs_and_users_do_not_report() {
    let world = World::new();
    let made = world.service.job_create(&node(1), spec(), None).await;
    assert_eq!(made.unwrap_err().code(), "forbidden");
    let polled = world.service.node_poll(&user(), "a", 1, NOW).await;
    assert_eq!(polled.unwrap_err().code(), "forbidden");
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_by_state() {
    let world = World::new();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.create(spec()).await.id);
    }
    world.service.job_cancel(&user(), &made[0]).await.unwrap();
    let (ctx, mut seen, mut before) = (user(), Vec::new(), None);
    loop {
        let page = world.service.job_list(&ctx, None, before.as_deref(), 2);
        let page = page.await.unwrap();
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    seen.sort();
    made.sort();
    assert_eq!(seen, made);
    let page = world.service.job_list(&ctx, Some("queued"), None, 50);
    assert_eq!(page.await.unwrap().jobs.len(), 4);
    let page = world.service.job_list(&ctx, None, Some("junk"), 50);
    assert_eq!(page.await.unwrap_err().code(), "invalid_argument");
}

/// One that were not looked at would be told to its node as none of its own, and be ended there.
#[tokio::test]
async fn a_node_keeps_as_many_jobs_as_it_may_have() {
    let world = World::new();
    let node = node(1);
    let most = limits::NODE_JOBS_MAX;
    let hello = |slots| NodeHello {
        slots,
        ..hello("a")
    };
    let refused = world.service.node_register(&node, hello(most + 1)).await;
    assert_eq!(refused.unwrap_err().code(), "too_many");
    world
        .service
        .node_register(&node, hello(most))
        .await
        .unwrap();
    for _ in 0..most {
        world.create(spec()).await;
    }
    let mut running = Vec::new();
    while running.len() < most as usize {
        let polled = world
            .service
            .node_poll(&node, "a", most, NOW)
            .await
            .unwrap();
        assert!(!polled.leases.is_empty());
        running.extend(polled.leases.iter().map(|row| service::LeaseRef {
            job_id: row.id.clone(),
            epoch: row.epoch,
        }));
    }
    let beat = world.service.node_heartbeat(&node, "a", &running, &[]);
    assert_eq!(beat.await.unwrap().stale, []);
    let again = world.service.node_register(&node, hello(most)).await;
    assert_eq!(again.unwrap().held.len(), running.len());
}
