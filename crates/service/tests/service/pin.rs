//! Jobs that only one node may take.

use crate::*;
use service::loops::expire_pass;

fn pinned(spec: JobSpec) -> JobSpec {
    JobSpec {
        node: Some(node_id(1)),
        ..spec
    }
}

fn is_lost(row: &JobRow) -> bool {
    matches!(row.state.outcome(), Some(Outcome::Lost { .. }))
}

/// A job for node 1 alone in each state in which it is lost with its node, and one for anybody that is not.
struct All {
    lost: Vec<JobRow>,
    stopping: JobRow,
    free: JobRow,
}

impl All {
    async fn new(world: &World) -> All {
        let node = node(1);
        world.register(&node, "a").await;
        let mut leased = Vec::new();
        for spec in [
            pinned(retried(3)),
            pinned(spec()),
            pinned(spec()),
            retried(3),
        ] {
            world.create(spec).await;
            leased.push(world.poll(&node, NOW).await.leases.remove(0));
        }
        let [running, unstarted, stopping, free] = leased.try_into().unwrap();
        for row in [&running, &stopping, &free] {
            let report = world.service.job_started(&node, &row.id, started(row));
            report.await.unwrap();
        }
        let canceled = world.service.job_cancel(&user(), &stopping.id).await;
        let queued = world.create(pinned(spec())).await;
        All {
            lost: vec![running, unstarted, queued],
            stopping: canceled.unwrap(),
            free,
        }
    }

    async fn check(&self, world: &World) {
        for row in &self.lost {
            let after = world.get(&row.id).await;
            assert!(is_lost(&after), "{after:?}");
        }
        let stopped = world.get(&self.stopping.id).await;
        assert_eq!(stopped.state, ended(Outcome::Canceled));
        assert_eq!(world.get(&self.free.id).await.state, JobState::Queued);
    }
}

#[tokio::test]
async fn jobs_for_a_node_alone_are_lost_when_it_leaves() {
    let world = World::new();
    let all = Box::pin(All::new(&world)).await;
    world.service.node_gone(&node(1)).await.unwrap();
    all.check(&world).await;
}

#[tokio::test]
async fn jobs_for_a_node_alone_are_lost_when_it_is_silent_for_a_lease() {
    let world = World::new();
    let all = Box::pin(All::new(&world)).await;
    world.silence().await;
    all.check(&world).await;
}

#[tokio::test]
async fn a_job_for_a_node_alone_waits_for_it_while_it_is_there() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let row = world.create(pinned(spec())).await;
    for _ in 0..20 {
        world.clock.advance(30_000);
        world
            .service
            .node_heartbeat(&node, "a", &[], &[])
            .await
            .unwrap();
        service::loops::reap_pass(&world.service).await.unwrap();
    }
    assert_eq!(world.poll(&node, NOW).await.leases[0].id, row.id);
}

#[tokio::test]
async fn a_node_that_is_there_may_try_again_what_it_lost() {
    let world = World::new();
    let (node, row) = world.leased(spec()).await;
    world.service.job_cancel(&user(), &row.id).await.unwrap();
    world.create(pinned(retried(2))).await;
    let row = world.poll(&node, NOW).await.leases.remove(0);
    let report = world.service.job_started(&node, &row.id, started(&row));
    report.await.unwrap();
    let lost = world
        .service
        .job_finished(&node, &row.id, lost(&row, "it died"));
    lost.await.unwrap();
    assert_eq!(world.get(&row.id).await.state, JobState::Queued);
    assert_eq!(world.poll(&node, NOW).await.leases[0].id, row.id);
}

#[tokio::test]
async fn a_job_for_a_node_that_is_not_there_is_refused() {
    let world = World::new();
    let made = world
        .service
        .job_create(&user(), pinned(spec()), None)
        .await;
    let error = made.unwrap_err();
    assert_eq!(error.code(), "invalid_argument");
    assert!(error.to_string().contains("node"), "{error}");
    let page = world.service.job_list(&user(), None, None, 10).await;
    assert!(page.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn a_job_for_a_node_alone_never_waits_without_end() {
    let world = World::new();
    world.register(&node(1), "a").await;
    let asked = JobSpec {
        queue_timeout_ms: Some(5000),
        ..pinned(spec())
    };
    let short = world.create(asked).await;
    assert_eq!(short.spec.queue_timeout_ms, Some(5000));
    let row = world.create(pinned(spec())).await;
    assert_eq!(row.spec.queue_timeout_ms, Some(limits::PINNED_QUEUE_MS));
    world.clock.advance(limits::PINNED_QUEUE_MS + 1);
    assert_eq!(expire_pass(&world.service).await.unwrap().jobs, 2);
    let after = world.get(&row.id).await;
    assert_eq!(after.state.outcome().unwrap().name(), "refused");
}
