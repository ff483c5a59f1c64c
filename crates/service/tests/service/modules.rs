//! What waits while a module of its policies rests, and what a process leaves that dies while it decides that again.

use crate::deaths::{Mortal, check_events};
use crate::policies::{FRAGILE, module, xyzzy};
use crate::*;
use model::policy::{Bound, CommandsClause, Layer, Policy};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Answers too whether a module can be read.
const READS: &str = "while read -r line; do case $line in *xyzzy*) exit 1;; \
                     *'\"input\":null'*) echo '\"good\"';; *) echo '{\"says\":\"allow\"}';; esac; done\n";

/// How many jobs a claim would find at this time.
async fn claims(store: &Store, at_ms: u64) -> usize {
    let claim = move |tx: &mut store::Tx<'_>| store::queue::claim(tx, &node_id(1), 100, at_ms, &[]);
    store.read(claim).await.unwrap().len()
}

impl World {
    /// Waits until so many jobs are found in ten seconds, and none of them earlier.
    async fn are_put_off(&self, jobs: usize) {
        let (store, at) = (self.store(), self.clock.now_ms() + 10_000);
        let put_off = async {
            while (claims(&store, at - 1).await, claims(&store, at).await) != (0, jobs) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, put_off).await.unwrap();
    }

    /// A module rests because of what somebody has asked for.
    async fn rests(&self) {
        let refused = self.refused_by_policy(xyzzy()).await;
        assert!(refused.contains("did not come to an end"), "{refused}");
    }
}

/// The same, with how often it commits from now on.
fn counted(world: World) -> (World, Arc<AtomicU32>) {
    let commits = Arc::new(AtomicU32::new(0));
    let counting = commits.clone();
    let points = Points::with(move |name| {
        if name == "store.after_commit" {
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    let store = Store::open_sqlite(&world.dir.path().join("db"), points).unwrap();
    let blobs = Blobs::open(&world.dir.path().join("blobs")).unwrap();
    let service = Service::new(store, blobs, world.clock.clone(), || Some(u64::MAX));
    (World { service, ..world }, commits)
}

#[tokio::test]
async fn while_a_module_rests_the_jobs_of_a_claim_are_put_off_at_once_and_hold_up_no_other_tenant()
{
    let (world, commits) = counted(World::new());
    world.modules_by(FRAGILE);
    for _ in 0..64 {
        world.create(spec()).await;
    }
    world.clock.advance(1);
    let theirs = stranger();
    let other = world.service.job_create(&theirs, spec(), None);
    let other = other.await.unwrap();
    world.insert_policy(0, module()).await;
    world.rests().await;
    let node = node(1);
    world.register(&node, "a").await;
    let before = commits.load(Ordering::SeqCst);
    let polled = world.poll(&node, LONG).await;
    let ids: Vec<&JobId> = polled.leases.iter().map(|row| &row.id).collect();
    assert_eq!(ids, [&other.id]);
    // They are of two claims, because the other one's is among the first 64.
    world.are_put_off(64).await;
    let commits = commits.load(Ordering::SeqCst) - before;
    assert!(commits <= 10, "{commits} commits for 65 jobs");
}

#[tokio::test]
async fn the_job_that_stops_a_module_ends_and_all_behind_it_wait_until_that_is_asked_again() {
    let world = World::new();
    world.modules_by(FRAGILE);
    let first = world.create(xyzzy()).await;
    world.clock.advance(1);
    for _ in 0..10 {
        world.create(spec()).await;
    }
    world.insert_policy(0, module()).await;
    let node = node(1);
    world.register(&node, "a").await;
    assert!(world.poll(&node, NOW).await.leases.is_empty());
    world.are_put_off(10).await;
    let ended = world.get(&first.id).await;
    assert_eq!(ended.state.outcome().map(Outcome::name), Some("refused"));
}

/// No module has to say what a clause has said.
#[tokio::test]
async fn a_job_that_a_clause_refuses_ends_while_a_module_rests() {
    let world = World::new();
    world.modules_by(FRAGILE);
    let row = world.create(spec()).await;
    world.insert_policy(0, module()).await;
    world.rests().await;
    let forbids = Policy {
        commands: Some(CommandsClause {
            forbid: vec!["true".to_owned()],
            ..CommandsClause::default()
        }),
        ..Policy::new(Layer::Tenant)
    };
    world.insert_policy(1, forbids).await;
    let node = node(1);
    world.register(&node, "a").await;
    assert!(world.poll(&node, NOW).await.leases.is_empty());
    let who = user();
    let ended = world.service.job_wait(&who, &row.id, LONG).await.unwrap();
    assert_eq!(ended.state.outcome().map(Outcome::name), Some("refused"));
}

#[tokio::test]
async fn a_policy_is_written_while_its_module_rests() {
    let world = World::new();
    world.modules_by(READS);
    assert_eq!(world.policy("m", module()).await, 1);
    world.rests().await;
    let refused = world.refused_by_policy(spec()).await;
    assert!(refused.contains("is not asked"), "{refused}");
    assert_eq!(world.policy("m", module()).await, 1, "it is the same");
    let other = Policy {
        resources: [(Bound::Pids, 5)].into(),
        ..module()
    };
    assert_eq!(world.policy("m", other).await, 2);
}

/// Dies at every point of the database until it has done so behind the commit that puts the job aside, and before the
/// one that decides it.
#[tokio::test]
async fn a_job_that_a_dead_process_put_aside_is_decided_when_its_time_aside_is_over() {
    let mut left_aside = 0;
    for point in 1.. {
        let world = World::new();
        world.modules_by(FRAGILE);
        let row = world.create(spec()).await;
        world.insert_policy(0, module()).await;
        let node = node(1);
        world.register(&node, "a").await;
        let mortal = Mortal::new(&world);
        let program = world.dir.path().join("modules");
        let evaluator = rego::Evaluator::new("/bin/sh".into(), Some(program.into()));
        mortal.service.modules_are_asked_by(evaluator);
        mortal.dies_at(point);
        drop(mortal.service.node_poll(&node, "a", 1, NOW).await);
        let dies = async {
            while mortal.lives() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, dies).await.unwrap();
        let (now, store) = (world.clock.now_ms(), world.store());
        let is_undecided = world.get(&row.id).await.spec.permit.is_none();
        if is_undecided && claims(&store, now).await == 0 {
            left_aside += 1;
            assert_eq!(claims(&store, now + 29_999).await, 0);
            assert_eq!(claims(&store, now + 30_000).await, 1);
        }
        world.clock.advance(30_000);
        let mut leases = Vec::new();
        for _ in 0..5 {
            if leases.is_empty() {
                leases = world.poll(&node, LONG).await.leases;
            }
        }
        assert_eq!(leases.len(), 1, "{point}");
        check_events(&world, &leases).await;
        if left_aside == 2 {
            return;
        }
    }
}
