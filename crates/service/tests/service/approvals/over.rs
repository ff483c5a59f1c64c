//! What is over: approvals of what is not there any more, and a yes where one was said before.

use super::*;
use crate::sandboxes::TTL;
use crate::volumes::with;
use service::SandboxSaid;
use service::loops::due_pass;

impl World {
    /// What waits about a sandbox: other rules for its network, and so many hosts.
    async fn asks_about(&self, row: &SandboxRow, hosts: usize) -> Vec<ApprovalId> {
        let (ctx, open) = (user(), NetworkRules::all_or_nothing(true));
        let rules = self
            .service
            .sandbox_set_network(&ctx, &row.id, open, NOW)
            .await;
        let mut waiting = vec![waits_for(rules.map(drop).unwrap_err())];
        for host in 0..hosts {
            let asked = EgressAsk {
                sandbox: row.id.clone(),
                to: format!("h{host}.test"),
                why: String::new(),
            };
            let asked = self.service.approval_ask(&ctx, asked).await;
            waiting.push(asked.unwrap().id);
        }
        waiting
    }

    async fn are_all(&self, waiting: &[ApprovalId], state: ApprovalState) -> bool {
        let mut all = true;
        for id in waiting {
            all &= self.approval(id).await.state == state;
        }
        all
    }
}

#[tokio::test]
async fn what_waits_about_a_sandbox_ends_with_it_however_that_ends() {
    let world = World::with_rules(rules()).await;
    let lived = world.ready(ask()).await;
    let (gone, late) = (world.make(ask()).await, world.make(ask()).await);
    // More than are read at a time, twice.
    let of_gone = world.asks_about(&gone, 40).await;
    let of_lived = world.asks_about(&lived, 1).await;
    let of_late = world.asks_about(&late, 1).await;
    let destroyed = world.service.sandbox_destroy(&user(), &gone.id).await;
    assert!(destroyed.unwrap().state.is_over());
    assert!(world.are_all(&of_gone, ApprovalState::Canceled).await);
    for others in [&of_lived, &of_late] {
        assert!(world.are_all(others, ApprovalState::Pending).await);
    }
    let first = world.approval(&of_gone[0]).await;
    assert_eq!(first.comment, "the sandbox is over");
    assert_eq!(
        world.approval_kinds(&first.id).await,
        ["approval.asked", "approval.canceled"]
    );
    // Nor does anything wait about it from then on.
    let (ctx, open) = (user(), NetworkRules::all_or_nothing(true));
    let late_rules = world
        .service
        .sandbox_set_network(&ctx, &gone.id, open, NOW)
        .await;
    assert_eq!(late_rules.map(drop).unwrap_err().code(), "sandbox_gone");
    // One that no node took, and one whose time to live ran out.
    world.clock.advance(TTL);
    due_pass(&world.service).await.unwrap();
    assert!(world.sandbox(&late.id).await.state.is_over());
    assert!(world.are_all(&of_late, ApprovalState::Canceled).await);
    assert!(world.are_all(&of_lived, ApprovalState::Pending).await);
    assert_eq!(world.works(&node(1), NOW).await[0].row.id, lived.id);
    let ended = world.says(&lived, SandboxSaid::Destroyed).await;
    assert!(ended.state.is_over());
    assert!(world.are_all(&of_lived, ApprovalState::Canceled).await);
}

/// Who says yes to more than was said before has to hear that it counts for nothing.
#[tokio::test]
async fn a_yes_that_would_change_nothing_is_refused_and_the_same_one_again_is_the_same() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (_, job) = world.waits(&agent, push()).await;
    let sandbox = world.asks(&agent, open_sandbox()).await;
    for id in [&job, &sandbox] {
        let said = world.decide(&user(), id, yes()).await.unwrap();
        world.clock.advance(1000);
        for other in [session(HOUR_MS), rule(), waived()] {
            assert_eq!(world.declines(&user(), id, other).await, "approval_over");
        }
        assert_eq!(world.decide(&user(), id, yes()).await.unwrap(), said);
        assert_eq!(world.approval(id).await, said);
    }
    world
        .service
        .approval_revoke(&user(), &sandbox)
        .await
        .unwrap();
    assert_eq!(
        world.declines(&user(), &sandbox, yes()).await,
        "approval_over"
    );
    assert_ne!(world.asks(&agent, open_sandbox()).await, sandbox);
    let (_, id) = world.waits(&agent, push()).await;
    let said = world.decide(&user(), &id, session(HOUR_MS)).await.unwrap();
    world.clock.advance(1000);
    for other in [yes(), session(2 * HOUR_MS)] {
        assert_eq!(world.declines(&user(), &id, other).await, "approval_over");
    }
    let again = world.decide(&user(), &id, session(HOUR_MS)).await;
    assert_eq!(again.unwrap(), said);
    world.service.approval_revoke(&user(), &id).await.unwrap();
    let back = world.decide(&user(), &id, session(HOUR_MS)).await;
    let back = back.unwrap_err();
    assert!(back.to_string().contains("was taken back"), "{back}");
}

#[tokio::test]
async fn the_first_event_of_a_sandbox_names_the_yes_that_it_goes_by_also_one_for_a_session() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let first = async |wanted: SandboxAsk| {
        let made = world.makes(&agent, wanted).await;
        let events = world.service.sandbox_events(&agent, &made.id, 0, 1).await;
        let first = events.unwrap().remove(0);
        assert_eq!(first.kind, "sandbox.requested");
        serde_json::from_str::<serde_json::Value>(&first.data).unwrap()
    };
    assert_eq!(first(ask()).await, serde_json::json!({}));
    for said in [yes(), session(HOUR_MS)] {
        let id = world.asks(&agent, open_sandbox()).await;
        world.decide(&user(), &id, said).await.unwrap();
        let told = serde_json::json!({"approval": id.as_str()});
        assert_eq!(first(open_sandbox()).await, told);
    }
}

const ONE: &[(&str, &str)] = &[("one", "/a")];
const TWO: &[(&str, &str)] = &[("two", "/b")];
const BOTH: &[(&str, &str)] = &[("one", "/a"), ("two", "/b")];

fn open_with(mounts: &[(&str, &str)]) -> SandboxAsk {
    let mut wanted = with(mounts);
    wanted.spec.network = NetworkRules::all_or_nothing(true);
    wanted
}

/// Whoever has this volume and wants everything public needs a yes.
fn of_volume(name: &str) -> Policy {
    Policy {
        layer: Layer::Volume,
        of: Some(name.to_owned()),
        ..rules()
    }
}

impl World {
    /// The tenant's policy and those of two volumes want a yes to the same.
    async fn with_rules_of_volumes() -> World {
        let world = World::with_volumes().await;
        world.policy("rules", rules()).await;
        for name in ["one", "two"] {
            world.volume(name).await;
            world.policy(name, of_volume(name)).await;
        }
        world
    }

    /// What these volumes and everything public wait for; from then on there is a yes for some time.
    async fn yes_with(&self, agent: &Ctx, mounts: &[(&str, &str)]) -> ApprovalId {
        let id = self.asks(agent, open_with(mounts)).await;
        let said = self.decide(&user(), &id, session(HOUR_MS)).await;
        said.unwrap();
        let made = self.makes(agent, open_with(mounts)).await;
        let permit = made.spec.permit.unwrap();
        assert_eq!(permit.yes.unwrap().approval, id);
        id
    }
}

/// Attack: A yes for a session that was said without a volume, or with another, is used for one whose policy wants the
/// same.
#[tokio::test]
async fn a_yes_for_a_session_is_none_to_a_volume_that_nobody_was_shown() {
    let world = World::with_rules_of_volumes().await;
    let first = world.agent().await;
    let kind = PrincipalKind::Agent;
    let second = world.let_in(&user(), kind, "other", Role::Member).await;
    let order: [&[(&str, &str)]; 4] = [&[], ONE, TWO, BOTH];
    let mut shown = Vec::new();
    for mounts in order {
        shown.push(world.yes_with(&first, mounts).await);
    }
    for mounts in order.into_iter().rev() {
        world.yes_with(&second, mounts).await;
    }
    let open = "approvals.network_unrestricted: a person has to say yes to this";
    let expect = [
        open.to_owned(),
        format!("{open}, with the volume one"),
        format!("{open}, with the volume two"),
        format!("{open}, with the volume one and the volume two"),
    ];
    for (id, reason) in shown.iter().zip(expect) {
        assert_eq!(world.approval(id).await.reasons, [reason].into());
    }
}

/// Attack: A policy by which somebody has said yes with one volume is written anew for another one.
#[tokio::test]
async fn a_yes_with_a_volume_stays_with_the_volume_when_its_policy_is_for_another_one() {
    let world = World::with_rules_of_volumes().await;
    let agent = world.agent().await;
    let id = world.yes_with(&agent, ONE).await;
    world.service.policy_delete(&user(), "two").await.unwrap();
    assert_eq!(world.policy("one", of_volume("two")).await, 2);
    world.yes_with(&agent, TWO).await;
    // Another policy of the same volume that wants the same wants nothing new.
    world.policy("more", of_volume("one")).await;
    let made = world.makes(&agent, open_with(ONE)).await;
    let permit = made.spec.permit.unwrap();
    assert_eq!(permit.yes.unwrap().approval, id);
}

#[tokio::test]
async fn other_rules_for_a_sandbox_with_a_volume_need_a_yes_with_that() {
    let world = World::with_rules_of_volumes().await;
    let agent = world.agent().await;
    world.yes_with(&agent, &[]).await;
    let made = world.makes(&agent, with(ONE)).await;
    let open = NetworkRules::all_or_nothing(true);
    let set = world
        .service
        .sandbox_set_network(&agent, &made.id, open.clone(), NOW);
    waits_for(set.await.map(drop).unwrap_err());
    world.yes_with(&agent, ONE).await;
    let set = world
        .service
        .sandbox_set_network(&agent, &made.id, open.clone(), NOW);
    assert_eq!(*set.await.unwrap().rules(), open);
}
