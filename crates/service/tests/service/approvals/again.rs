//! What is asked for again, what a person is shown of it, what a webhook is told of it, and programs that make whoever
//! says yes.

use super::*;
use model::volume::VolumeMount;
use service::{SandboxSaid, SnapshotRef};

/// Attack: A program asks again and again while reasons change, until its hundred that wait bury everything.
#[tokio::test]
async fn what_is_asked_for_with_other_reasons_ends_what_waited_before() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let mut wanted = open_sandbox();
    wanted.spec.allow_root = true;
    let first = world.asks(&agent, wanted.clone()).await;
    let mut more = rules();
    more.approvals
        .insert(Matter::AllowRoot, Answer::NeedsApproval);
    let put = world.service.policy_put(&user(), "rules", more).await;
    put.unwrap();
    let second = world.asks(&agent, wanted.clone()).await;
    for _ in 0..2 {
        assert_eq!(world.asks(&agent, wanted.clone()).await, second);
    }
    let all = world.waiting().await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((&all[0].id, all[0].reasons.len()), (&second, 2));
    assert_eq!(
        world.approval_kinds(&first).await,
        ["approval.asked", "approval.canceled"]
    );
    let over = world.approval(&first).await;
    assert_eq!(over.state, ApprovalState::Canceled);
    assert!(over.comment.contains("other reasons"), "{over:?}");
    // Nor is one left that nobody can decide any more.
    world.clock.advance(DAY_MS + 1);
    let third = world.asks(&agent, wanted).await;
    assert_ne!(third, second);
    assert_eq!(world.approval(&second).await.state, ApprovalState::Expired);
    let all = world.waiting().await;
    assert_eq!(all.len(), 1, "{all:?}");
}

#[tokio::test]
async fn a_webhook_is_told_that_nobody_has_decided_in_time() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let id = world.asks(&agent, open_sandbox()).await;
    world.clock.advance(DAY_MS + 1);
    assert_eq!(approvals_pass(&world.service).await.unwrap(), 1);
    let told = world.service.notices().await.unwrap();
    let told: Vec<serde_json::Value> = told
        .iter()
        .map(|one| serde_json::from_str(&one.body).unwrap())
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["id"], id.as_str());
    assert_eq!(told[0]["state"], "expired");
}

/// Attack: A sandbox is asked for from a snapshot with planted files, with a volume that can be written and on a node of
/// choice, and the person who says yes sees none of it.
#[tokio::test]
async fn a_person_sees_with_which_snapshot_and_volume_and_where_a_sandbox_is_to_be() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let row = world.ready(ask()).await;
    let owner = user();
    let made = world.service.snapshot_create(&owner, &row.id, None, None);
    let copy = made.await.unwrap();
    world.says(&row, SandboxSaid::Saved { bytes: 7 }).await;
    let mut wanted = open_sandbox();
    wanted.from = Some(SnapshotRef::Id(copy.id.clone()));
    wanted.spec.allow_root = true;
    wanted.spec.volumes = vec![VolumeMount {
        name: "one".to_owned(),
        id: None,
        path: "/data".to_owned(),
        read_only: false,
        size_bytes: 0,
        is_new: false,
    }];
    let id = world.asks(&agent, wanted).await;
    let request: serde_json::Value =
        serde_json::from_str(&world.approval(&id).await.request).unwrap();
    assert_eq!(request["snapshot"], copy.id.as_str());
    assert_eq!(request["node"], node_id(1).as_str());
    let mount = serde_json::json!([{"name": "one", "path": "/data", "read_only": false}]);
    assert_eq!(request["mounts"], mount);
    assert_eq!(request["network"]["upstream_ca"], false);
}

/// Attack: An automation with the role of an admin lets a user in, or makes a key for one, and says yes with that to
/// what it asks for.
#[tokio::test]
async fn nobody_decides_what_a_program_asks_that_has_made_them_or_their_key() {
    let world = World::with_rules(rules()).await;
    let owner = user();
    let (person, operator) = (PrincipalKind::User, Role::Operator);
    let bob = world.let_in(&owner, person, "bob", operator).await;
    let cron = world
        .let_in(&owner, PrincipalKind::Automation, "cron", Role::Admin)
        .await;
    let eve = world.let_in(&cron, person, "eve", Role::Admin).await;
    let mallory = world.let_in(&eve, person, "mallory", operator).await;
    let (_, id) = world.waits(&cron, push()).await;
    let own_key = world.key_for(&owner, "user:eve").await;
    let own_too = world.key_for(&owner, "user:mallory").await;
    let given = world.key_for(&cron, "user:bob").await;
    let by_eve = world.key_for(&eve, "user:bob").await;
    for who in [&eve, &own_key, &mallory, &own_too, &given, &by_eve] {
        assert_eq!(world.declines(who, &id, yes()).await, "approval_own");
        assert_eq!(world.declines(who, &id, no()).await, "approval_own");
    }
    assert_eq!(world.approval(&id).await.state, ApprovalState::Pending);
    // What people ask for they decide, whoever has let them in.
    let (_, of_bob) = world.waits(&bob, push()).await;
    world.decide(&own_key, &of_bob, yes()).await.unwrap();
    world.decide(&bob, &id, yes()).await.unwrap();
}
