//! How work finds a node.

use crate::*;
use std::collections::HashSet;

#[tokio::test]
async fn a_job_is_leased_to_the_poll_that_waits_in_the_commit_that_makes_it() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    for looks in 0..100 {
        let (service, poller) = (world.service.clone(), node.clone());
        let poll = tokio::spawn(async move { service.node_poll(&poller, "a", 1, LONG).await });
        // Each is answered by the readers that the poll waits for, too, so that it gets to its place.
        for _ in 0..looks {
            world.service.ready().await.unwrap();
        }
        let row = world.create(spec()).await;
        let polled = poll.await.unwrap().unwrap();
        assert_eq!(polled.leases[0].id, row.id);
        if row.state.lease().is_some() {
            assert_eq!(polled.leases, std::slice::from_ref(&row));
            assert_eq!(world.kinds(&row.id).await, ["job.queued", "job.leased"]);
            return;
        }
    }
    panic!("no job was leased in the commit that made it");
}

#[tokio::test]
async fn a_poll_that_is_gone_at_any_moment_loses_nothing() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let mut made = HashSet::new();
    for round in 0..40_u32 {
        let (service, poller) = (world.service.clone(), node.clone());
        let poll = tokio::spawn(async move { service.node_poll(&poller, "a", 1, LONG).await });
        // Answered by the readers that the poll waits for, too, so that it is in its place, or nearly.
        for _ in 0..round / 4 {
            world.service.ready().await.unwrap();
        }
        let (service, gone) = (world.service.clone(), poll.abort_handle());
        let create =
            tokio::spawn(
                async move { service.job_create(&user(), spec(), None).await.unwrap().id },
            );
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        made.insert(create.await.unwrap());
        if let Ok(Ok(polled)) = poll.await {
            made.retain(|id| polled.leases.iter().all(|row| row.id != *id));
        }
    }
    let mut got = HashSet::new();
    while got.len() < made.len() {
        let polled = world.service.node_poll(&node, "a", 64, LONG).await.unwrap();
        assert!(!polled.leases.is_empty(), "{} of {}", got.len(), made.len());
        got.extend(polled.leases.into_iter().map(|row| row.id));
    }
    assert_eq!(got, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_never_share_a_job() {
    let world = World::new();
    let mut polls = Vec::new();
    for number in [1, 2] {
        let (node, service) = (node(number), world.service.clone());
        world.register(&node, "a").await;
        polls.push(tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let wait = Duration::from_secs(2);
                let polled = service.node_poll(&node, "a", 2, wait).await.unwrap();
                if polled.leases.is_empty() {
                    return got;
                }
                got.extend(polled.leases.into_iter().map(|row| (row.id, row.epoch)));
            }
        }));
    }
    let mut made = HashSet::new();
    for _ in 0..60 {
        made.insert((world.create(spec()).await.id, 1));
    }
    let mut got = Vec::new();
    for poll in polls {
        got.extend(poll.await.unwrap());
    }
    assert_eq!(got.len(), 60);
    assert_eq!(got.into_iter().collect::<HashSet<_>>(), made);
}

#[tokio::test]
async fn a_pinned_job_goes_to_its_node_only() {
    let world = World::new();
    for number in [1, 2] {
        world.register(&node(number), "a").await;
    }
    let mut pinned = spec();
    pinned.node = Some(node_id(2));
    let row = world.create(pinned).await;
    assert!(world.poll(&node(1), NOW).await.leases.is_empty());
    assert_eq!(world.poll(&node(2), NOW).await.leases[0].id, row.id);
}

#[tokio::test]
async fn a_poll_sees_the_job_of_another_process() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let (service, poller) = (world.service.clone(), node.clone());
    let poll = tokio::spawn(async move { service.node_poll(&poller, "a", 1, LONG).await.unwrap() });
    let other = world.again();
    let row = other.job_create(&user(), spec(), None).await.unwrap();
    assert_eq!(poll.await.unwrap().leases[0].id, row.id);
}

#[tokio::test]
async fn an_older_process_of_a_node_gets_no_work() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    world.register(&node, "b").await;
    let polled = world.service.node_poll(&node, "a", 1, NOW).await;
    assert_eq!(polled.unwrap_err().code(), "conflict");
    let beat = world.service.node_heartbeat(&node, "a", &[], &[]).await;
    assert_eq!(beat.unwrap_err().code(), "conflict");
}

#[tokio::test]
async fn a_lease_whose_answer_was_lost_goes_back_to_the_queue() {
    let world = World::new();
    let (node, row) = world.leased(spec()).await;
    let service = &world.service;
    world.clock.advance(limits::HEARTBEAT_MS);
    service.node_heartbeat(&node, "a", &[], &[]).await.unwrap();
    assert_eq!(world.get(&row.id).await.state.name(), "leased");
    world.clock.advance(limits::HEARTBEAT_MS + 1);
    service.node_heartbeat(&node, "a", &[], &[]).await.unwrap();
    let back = world.get(&row.id).await;
    assert_eq!((back.state, back.attempt), (JobState::Queued, 0));
}

#[tokio::test]
async fn a_job_that_was_canceled_while_the_answer_of_its_lease_was_lost_ends() {
    let world = World::new();
    let (node, row) = world.leased(spec()).await;
    let service = &world.service;
    service.job_cancel(&user(), &row.id).await.unwrap();
    assert_eq!(world.get(&row.id).await.state.name(), "stopping");
    world.clock.advance(2 * limits::HEARTBEAT_MS + 1);
    service.node_heartbeat(&node, "a", &[], &[]).await.unwrap();
    let over = world.get(&row.id).await;
    assert_eq!(over.state.outcome().unwrap().name(), "canceled");
}

#[tokio::test]
async fn a_poll_that_waits_ends_at_once_when_its_node_is_decommissioned() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let (service, asking) = (world.service.clone(), node.clone());
    let wait = Duration::from_secs(20);
    let poll = tokio::spawn(async move { service.node_poll(&asking, "a", 0, wait).await });
    tokio::task::yield_now().await;
    let order = service::NodeOrder::Decommission;
    let (user, id) = (user(), node_id(1));
    let ordered = world.service.node_order(&user, &id, order);
    ordered.await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), poll).await;
    assert_eq!(ended.unwrap().unwrap().unwrap_err().code(), "forbidden");
}

#[tokio::test]
async fn what_a_draining_node_still_has_is_ended_and_what_it_has_not_begun_goes_elsewhere() {
    let world = World::new();
    let (node, running) = world.running(spec()).await;
    let sandbox = world.ready(crate::sandboxes::ask()).await;
    let leased = world.create(spec()).await;
    assert_eq!(world.poll(&node, NOW).await.leases[0].id, leased.id);
    let (user, id) = (user(), node_id(1));
    let early = world.service.node_evict(&user, &id).await;
    assert_eq!(early.unwrap_err().code(), "conflict");
    let drain = service::NodeOrder::Drain;
    world.service.node_order(&user, &id, drain).await.unwrap();
    for _ in 0..2 {
        world.service.node_evict(&user, &id).await.unwrap();
        assert_eq!(world.get(&running.id).await.state.name(), "stopping");
        assert_eq!(world.get(&leased.id).await.state, JobState::Queued);
        let gone = world.service.sandbox_get(&user, &sandbox.id).await;
        assert_eq!(gone.unwrap().state.name(), "destroying");
    }
}
