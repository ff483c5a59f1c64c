//! Approvals of changes of policies.

use super::*;

/// Attack: The policy that wants a second person is taken away by one; a yes to one version is used for the next.
#[tokio::test]
async fn a_change_of_a_policy_waits_for_another_who_may_write_it() {
    let world = World::new();
    let policy = Policy {
        approvals: [(Matter::PolicyChange, Answer::NeedsApproval)].into(),
        ..Policy::new(Layer::Global)
    };
    let ctx = user();
    let put = world.service.policy_put(&ctx, "two", policy.clone());
    put.await.unwrap();
    let alice = world
        .let_in(&user(), PrincipalKind::User, "alice", Role::Admin)
        .await;
    let bob = world
        .let_in(&user(), PrincipalKind::User, "bob", Role::Operator)
        .await;
    // The same is no change.
    world
        .service
        .policy_put(&user(), "two", policy)
        .await
        .unwrap();
    let new = world.service.policy_put(&user(), "rules", rules()).await;
    let id = waits_for(new.map(drop).unwrap_err());
    assert_eq!(world.declines(&user(), &id, yes()).await, "approval_own");
    assert_eq!(world.declines(&bob, &id, yes()).await, "forbidden");
    world.decide(&alice, &id, yes()).await.unwrap();
    let there = world.service.policy_get(&user(), "rules").await.unwrap();
    assert_eq!((there.policy, there.principal), (rules(), user().principal));
    // To take it away waits as well, and what was changed meanwhile is not what somebody said yes to.
    let gone = world.service.policy_delete(&user(), "two").await;
    let first = waits_for(gone.map(drop).unwrap_err());
    let changed = world.service.policy_delete(&user(), "rules").await;
    let second = waits_for(changed.map(drop).unwrap_err());
    let mut more = rules();
    more.priority = 5;
    let third = world.service.policy_put(&user(), "rules", more).await;
    let third = waits_for(third.map(drop).unwrap_err());
    world.decide(&alice, &third, yes()).await.unwrap();
    assert_eq!(
        world.declines(&alice, &second, yes()).await,
        "approval_over"
    );
    world.decide(&alice, &first, yes()).await.unwrap();
    world.service.policy_delete(&user(), "rules").await.unwrap();
}

/// To let somebody in needs nobody's yes.
#[tokio::test]
async fn an_admin_who_is_alone_can_let_in_a_second_one_and_so_is_not_shut_out() {
    let world = World::new();
    let alice = world
        .let_in(&user(), PrincipalKind::User, "alice", Role::Admin)
        .await;
    let two = |answer| Policy {
        approvals: [(Matter::PolicyChange, answer)].into(),
        ..Policy::new(Layer::Tenant)
    };
    let on = two(Answer::NeedsApproval);
    let on = world.service.policy_put(&alice, "two", on).await;
    on.unwrap();
    // To turn it off is a change like any other.
    let off = two(Answer::Skip);
    let off = world.service.policy_put(&alice, "two", off).await;
    let off = waits_for(off.map(drop).unwrap_err());
    assert_eq!(world.declines(&alice, &off, yes()).await, "approval_own");
    let eve = world
        .let_in(&alice, PrincipalKind::User, "eve", Role::Admin)
        .await;
    world.decide(&eve, &off, yes()).await.unwrap();
    world.service.policy_delete(&alice, "two").await.unwrap();
}

/// Attack: Approval by proxy: a yes "as a rule" rewrites a policy that somebody else has to agree to.
#[tokio::test]
async fn a_yes_as_a_rule_proposes_a_policy_and_changes_none() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let alice = world
        .let_in(&user(), PrincipalKind::User, "alice", Role::Admin)
        .await;
    let (row, id) = world.waits(&agent, push()).await;
    world.decide(&user(), &id, rule()).await.unwrap();
    assert_eq!(world.get(&row.id).await.state, JobState::Queued);
    let there = world.service.policy_get(&user(), "rules").await.unwrap();
    assert_eq!(there.policy, rules());
    let waiting = world.waiting().await;
    let [proposal] = waiting.as_slice() else {
        panic!("{waiting:?}")
    };
    assert_eq!(proposal.subject, Subject::Policy);
    assert_eq!(
        world.declines(&user(), &proposal.id, yes()).await,
        "approval_own"
    );
    world.decide(&alice, &proposal.id, yes()).await.unwrap();
    let there = world.service.policy_get(&user(), "rules").await.unwrap();
    let commands = there.policy.commands.unwrap();
    assert_eq!(commands.approve, ["npm publish"]);
    assert_eq!(there.policy.approvals, rules().approvals);
}

#[tokio::test]
async fn a_yes_as_a_rule_proposes_the_policy_of_the_volume_that_was_asked_for_and_of_no_other() {
    let of = |volume: &str| Policy {
        of: Some(volume.to_owned()),
        approvals: [(Matter::NetworkUnrestricted, Answer::NeedsApproval)].into(),
        ..Policy::new(Layer::Volume)
    };
    let world = World::with_rules(of("one")).await;
    world.policy("others", of("two")).await;
    let agent = world.agent().await;
    let mut wanted = open_sandbox();
    wanted.spec.allow_root = true;
    wanted.spec.volumes = crate::volumes::with(&[("one", "/data")]).spec.volumes;
    let id = world.asks(&agent, wanted).await;
    world.decide(&user(), &id, rule()).await.unwrap();
    let waiting = world.waiting().await;
    let [proposal] = waiting.as_slice() else {
        panic!("{waiting:?}")
    };
    assert_eq!(proposal.subject, Subject::Policy);
    assert_eq!(proposal.subject_id, "rules");
}

#[tokio::test]
async fn the_same_yes_again_is_the_same_whatever_policies_say_by_then() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let id = world.asks(&agent, open_sandbox()).await;
    let said = world.decide(&user(), &id, rule()).await.unwrap();
    // There is nothing left that could be proposed.
    let ctx = user();
    world.service.policy_delete(&ctx, "rules").await.unwrap();
    let again = world.decide(&user(), &id, rule()).await;
    assert_eq!(again.unwrap(), said);
    assert_eq!(world.declines(&user(), &id, yes()).await, "approval_over");
    world.service.approval_revoke(&user(), &id).await.unwrap();
    assert_eq!(world.declines(&user(), &id, rule()).await, "approval_over");
}
