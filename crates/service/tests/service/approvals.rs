//! Approvals: what waits for a person, who may decide it, and what a yes is good for.

mod again;
mod over;
mod policy;

use crate::sandboxes::ask;
use crate::*;
use model::approval::{ApprovalState, Scope, Subject};
use model::id::ApprovalId;
use model::network::NetworkRules;
use model::policy::{Answer, CommandsClause, Layer, Matter, NetworkClause, Policy};
use model::principal::{PrincipalKind, Role};
use service::loops::approvals_pass;
use service::{ApprovalRow, EgressAsk, Error, NewKey, SandboxAsk, SandboxRow, Verdict};

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Whoever wants this has to ask for a push, and for everything public.
fn rules() -> Policy {
    Policy {
        commands: Some(CommandsClause {
            approve: vec!["git push".to_owned(), "npm publish".to_owned()],
            unchecked_in_sandboxes: true,
            ..CommandsClause::default()
        }),
        approvals: [(Matter::NetworkUnrestricted, Answer::NeedsApproval)].into(),
        ..Policy::new(Layer::Tenant)
    }
}

fn push() -> JobSpec {
    running("git push")
}

fn running(command: &str) -> JobSpec {
    JobSpec {
        argv: ["sh", "-c", command].map(str::to_owned).into(),
        ..spec()
    }
}

fn open_sandbox() -> SandboxAsk {
    let mut open = ask();
    open.spec.network = NetworkRules::all_or_nothing(true);
    open
}

fn yes() -> Verdict {
    Verdict {
        yes: true,
        waived: false,
        scope: Scope::Once,
        for_ms: None,
        comment: "read it".to_owned(),
    }
}

fn no() -> Verdict {
    Verdict {
        yes: false,
        ..yes()
    }
}

fn rule() -> Verdict {
    Verdict {
        scope: Scope::Rule,
        ..yes()
    }
}

fn waived() -> Verdict {
    Verdict {
        waived: true,
        ..yes()
    }
}

fn session(for_ms: u64) -> Verdict {
    Verdict {
        scope: Scope::Session,
        for_ms: Some(for_ms),
        ..yes()
    }
}

impl World {
    async fn with_rules(rules: Policy) -> World {
        let world = World::new();
        let put = world.service.policy_put(&user(), "rules", rules).await;
        put.unwrap();
        world
    }

    /// Lets somebody in, and answers who is behind a new key of theirs.
    async fn let_in(&self, by: &Ctx, kind: PrincipalKind, name: &str, role: Role) -> Ctx {
        let row = self.service.principal_create(by, kind, name, role).await;
        self.key_for(by, row.unwrap().id.as_str()).await
    }

    async fn key_for(&self, by: &Ctx, owner: &str) -> Ctx {
        let new = NewKey {
            owner: owner.to_owned(),
            ..NewKey::default()
        };
        let (_, text) = self.service.key_create(by, new).await.unwrap();
        self.by_key(&text).await
    }

    /// What waits, the newest first.
    async fn waiting(&self) -> Vec<ApprovalRow> {
        let state = Some(ApprovalState::Pending);
        let page = self.service.approval_list(&user(), state, None, 10).await;
        page.unwrap().approvals
    }

    async fn agent(&self) -> Ctx {
        self.let_in(&user(), PrincipalKind::Agent, "bot", Role::Member)
            .await
    }

    async fn waits(&self, who: &Ctx, spec: JobSpec) -> (JobRow, ApprovalId) {
        let row = self.service.job_create(who, spec, None).await.unwrap();
        assert_eq!(row.state, JobState::AwaitingApproval);
        let permit = row.spec.permit.clone().unwrap();
        (row, permit.asked.unwrap().approval)
    }

    async fn decide(
        &self,
        who: &Ctx,
        id: &ApprovalId,
        said: Verdict,
    ) -> Result<ApprovalRow, Error> {
        self.service.approval_decide(who, id, said).await
    }

    async fn declines(&self, who: &Ctx, id: &ApprovalId, said: Verdict) -> String {
        let refused = self.decide(who, id, said).await.unwrap_err();
        refused.code().to_owned()
    }

    async fn approval(&self, id: &ApprovalId) -> ApprovalRow {
        self.service.approval_get(&user(), id).await.unwrap()
    }

    async fn approval_kinds(&self, id: &ApprovalId) -> Vec<String> {
        let id = id.clone();
        let list = move |tx: &mut store::Tx<'_>| event::list(tx, "approval", id.as_str(), 0, 100);
        let events = self.store().read(list).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    /// What a sandbox that needs a yes waits for.
    async fn asks(&self, who: &Ctx, wanted: SandboxAsk) -> ApprovalId {
        let refused = self.service.sandbox_create(who, wanted, None).await;
        waits_for(refused.map(drop).unwrap_err())
    }

    async fn makes(&self, who: &Ctx, wanted: SandboxAsk) -> SandboxRow {
        let made = self.service.sandbox_create(who, wanted, None).await;
        made.unwrap()
    }
}

/// What the refusal of a request says that it waits for.
fn waits_for(refused: Error) -> ApprovalId {
    let Error::Invalid(found) = refused else {
        unreachable!("{refused}")
    };
    assert!(
        found.iter().all(|one| one.code == "approval_needed"),
        "{found:?}"
    );
    assert_eq!(found[0].field, "approval");
    found[0].message.parse().unwrap()
}

#[tokio::test]
async fn a_job_waits_for_a_yes_of_somebody_else_and_then_runs_with_the_yes_on_its_permit() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (row, id) = world.waits(&agent, push()).await;
    assert_eq!(world.kinds(&row.id).await, ["job.awaiting_approval"]);
    let asked = world.approval(&id).await;
    let reason = "commands: a person has to say yes to `git push`".to_owned();
    assert_eq!(asked.reasons, [reason.clone()].into());
    assert_eq!(
        (asked.subject, &*asked.subject_id),
        (Subject::Job, row.id.as_str())
    );
    assert_eq!(asked.summary, "sh -c \"git push\"");
    // Nobody gets it meanwhile.
    let node = node(1);
    world.register(&node, "a").await;
    assert!(world.poll(&node, NOW).await.leases.is_empty());
    let said = world.decide(&user(), &id, yes()).await.unwrap();
    assert_eq!(said.state, ApprovalState::Approved);
    // The same again is the same, and the opposite is none.
    assert_eq!(world.decide(&user(), &id, yes()).await.unwrap(), said);
    assert_eq!(world.declines(&user(), &id, no()).await, "approval_over");
    let polled = world.poll(&node, NOW).await;
    assert_eq!(polled.leases[0].id, row.id);
    let permit = polled.leases[0].spec.permit.clone().unwrap();
    let given = permit.yes.unwrap();
    assert_eq!(
        (given.by.as_str(), &*given.comment),
        ("uid:1000", "read it")
    );
    assert_eq!(given.at_ms, world.clock.now_ms());
    assert_eq!(given.reasons, [reason].into());
    assert_eq!(
        world.kinds(&row.id).await,
        [
            "job.awaiting_approval",
            "job.permitted",
            "job.queued",
            "job.leased"
        ]
    );
    assert_eq!(
        world.approval_kinds(&id).await,
        ["approval.asked", "approval.approved"]
    );
}

#[tokio::test]
async fn a_rejected_job_never_runs_and_says_who_said_no_and_why() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (row, id) = world.waits(&agent, push()).await;
    world.decide(&user(), &id, no()).await.unwrap();
    world.decide(&user(), &id, no()).await.unwrap();
    assert_eq!(world.declines(&user(), &id, yes()).await, "approval_over");
    let ended = world.get(&row.id).await;
    assert_eq!(ended.state, crate::ended(Outcome::Canceled));
    assert_eq!(
        ended.detail.unwrap(),
        "approval_rejected: uid:1000 said no: read it"
    );
    let node = node(1);
    world.register(&node, "a").await;
    assert!(world.poll(&node, NOW).await.leases.is_empty());
    assert_eq!(
        world.approval_kinds(&id).await,
        ["approval.asked", "approval.rejected"]
    );
}

/// Attack: Self-approval: with another key, with one that was given to somebody else, by an agent or a cron of one's
/// own.
#[tokio::test]
async fn nobody_says_yes_to_themselves_by_any_way() {
    let world = World::with_rules(rules()).await;
    let owner = user();
    // Whoever runs the server is let to judge what others ask for, and not what he asks for himself.
    let (_, own) = world.waits(&owner, push()).await;
    assert_eq!(world.declines(&owner, &own, yes()).await, "approval_own");
    let alice = world
        .let_in(&owner, PrincipalKind::User, "alice", Role::Admin)
        .await;
    let bob = world
        .let_in(&owner, PrincipalKind::User, "bob", Role::Operator)
        .await;
    world.decide(&alice, &own, yes()).await.unwrap();
    // Another key of the same principal is the same principal, in whatever form it comes.
    let (_, hers) = world.waits(&alice, push()).await;
    assert_eq!(world.declines(&alice, &hers, yes()).await, "approval_own");
    let other_key = world.key_for(&owner, "user:alice").await;
    assert_eq!(
        world.declines(&other_key, &hers, yes()).await,
        "approval_own"
    );
    assert_eq!(
        world.declines(&other_key, &hers, no()).await,
        "approval_own"
    );
    // Whoever made a key may have kept it: what comes with that is theirs too.
    let given = world.key_for(&alice, "user:bob").await;
    let (_, through) = world.waits(&given, push()).await;
    assert_eq!(
        world.declines(&alice, &through, yes()).await,
        "approval_own"
    );
    assert_eq!(world.declines(&bob, &through, yes()).await, "approval_own");
    // What acts for somebody asks for them.
    let hers_too = world
        .let_in(&alice, PrincipalKind::Agent, "hers", Role::Admin)
        .await;
    let cron = world
        .let_in(&alice, PrincipalKind::Automation, "cron", Role::Admin)
        .await;
    for acts in [&hers_too, &cron] {
        let (_, asked) = world.waits(acts, push()).await;
        assert_eq!(world.declines(&alice, &asked, yes()).await, "approval_own");
        // No program decides, whatever role somebody gave it.
        for program in [&hers_too, &cron] {
            assert_eq!(world.declines(program, &asked, yes()).await, "forbidden");
            assert_eq!(world.declines(program, &asked, no()).await, "forbidden");
        }
        assert_eq!(world.approval(&asked).await.state, ApprovalState::Pending);
        world.decide(&bob, &asked, yes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_program_is_told_that_only_people_decide_and_not_that_it_lacks_a_role() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (_, id) = world.waits(&agent, push()).await;
    let carol = world
        .let_in(&user(), PrincipalKind::User, "carol", Role::Member)
        .await;
    for (who, expect) in [
        (&agent, "only people decide what waits for a person"),
        (&carol, "this needs the role `operator`"),
    ] {
        let refused = world.decide(who, &id, yes()).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Forbidden(why) if why == expect),
            "{refused}"
        );
    }
    // Nor that it would let somebody in with another role.
    let refused = world
        .service
        .principal_create(&agent, PrincipalKind::User, "dave", Role::Member)
        .await;
    let expect = "agents may not say who may do what";
    assert!(
        matches!(&refused, Err(Error::Forbidden(why)) if why == expect),
        "{refused:?}"
    );
}

/// Attack: A yes of a member, of a node, of another tenant; one without the comment that it needs, or longer than a
/// day.
#[tokio::test]
async fn who_is_let_to_decide_nothing_decides_nothing() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (_, id) = world.waits(&agent, push()).await;
    let member = world
        .let_in(&user(), PrincipalKind::User, "carol", Role::Member)
        .await;
    assert_eq!(world.declines(&member, &id, yes()).await, "forbidden");
    assert_eq!(world.declines(&node(1), &id, yes()).await, "forbidden");
    assert_eq!(world.declines(&stranger(), &id, yes()).await, "not_found");
    let seen = world.service.approval_get(&stranger(), &id).await;
    assert!(matches!(seen, Err(Error::NotFound)));
    let unsaid = Verdict {
        comment: " ".to_owned(),
        ..waived()
    };
    assert_eq!(
        world.declines(&user(), &id, unsaid).await,
        "invalid_argument"
    );
    for ms in [0, DAY_MS + 1] {
        let wrong = world.declines(&user(), &id, session(ms)).await;
        assert_eq!(wrong, "invalid_argument");
    }
    let long = Verdict {
        comment: "x".repeat(limits::APPROVAL_TEXT_BYTES_MAX + 1),
        ..yes()
    };
    assert_eq!(world.declines(&user(), &id, long).await, "invalid_argument");
    assert_eq!(world.approval(&id).await.state, ApprovalState::Pending);
}

/// Attack: A yes comes after its time, before the loop that ends what is over.
#[tokio::test]
async fn what_nobody_decides_in_time_ends_and_a_policy_may_say_less_time() {
    let mut policy = rules();
    policy.approval_expires_ms = Some(HOUR_MS);
    let world = World::with_rules(policy).await;
    let agent = world.agent().await;
    let (row, id) = world.waits(&agent, push()).await;
    world.clock.advance(HOUR_MS - 1);
    assert_eq!(approvals_pass(&world.service).await.unwrap(), 0);
    world.clock.advance(1);
    // Before the loop has come to it, nobody can say yes to it any more.
    assert_eq!(world.declines(&user(), &id, yes()).await, "approval_over");
    assert_eq!(approvals_pass(&world.service).await.unwrap(), 1);
    assert_eq!(approvals_pass(&world.again()).await.unwrap(), 0);
    assert_eq!(world.approval(&id).await.state, ApprovalState::Expired);
    let ended = world.get(&row.id).await;
    assert_eq!(ended.state, crate::ended(Outcome::Canceled));
    assert!(ended.detail.unwrap().starts_with("approval_expired: "));
    world.clock.advance(limits::RETAIN_JOBS_MS + 1);
    service::loops::prune_pass(&world.service).await.unwrap();
    let gone = world.service.approval_get(&user(), &id).await;
    assert!(matches!(gone, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_canceled_job_takes_its_approval_with_it() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (row, id) = world.waits(&agent, push()).await;
    world.service.job_cancel(&agent, &row.id).await.unwrap();
    assert_eq!(world.approval(&id).await.state, ApprovalState::Canceled);
    assert_eq!(world.declines(&user(), &id, yes()).await, "approval_over");
    assert_eq!(
        world.approval_kinds(&id).await,
        ["approval.asked", "approval.canceled"]
    );
}

/// Attack: A stale yes: policies want one for more by now than was shown.
#[tokio::test]
async fn a_yes_is_asked_of_the_policies_of_then_and_to_what_was_shown() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (row, id) = world.waits(&agent, running("git push; npm pack")).await;
    let (later, kept) = world.waits(&agent, push()).await;
    // By now a person has to say yes to more than was shown.
    let mut more = rules();
    more.commands
        .as_mut()
        .unwrap()
        .approve
        .push("npm pack".to_owned());
    world
        .service
        .policy_put(&user(), "rules", more)
        .await
        .unwrap();
    assert_eq!(world.declines(&user(), &id, yes()).await, "approval_over");
    assert_eq!(world.approval(&id).await.state, ApprovalState::Canceled);
    let ended = world.get(&row.id).await;
    let Some(Outcome::Refused { why }) = ended.state.outcome().cloned() else {
        panic!("{:?}", ended.state)
    };
    assert!(why.starts_with("permit_stale: "), "{why}");
    // A yes counts at the lease too, although policies were changed in between.
    world.decide(&user(), &kept, yes()).await.unwrap();
    let mut other = rules();
    other.resources = [(model::policy::Bound::Pids, 50)].into();
    world
        .service
        .policy_put(&user(), "rules", other)
        .await
        .unwrap();
    let node = node(1);
    world.register(&node, "a").await;
    let mut polled = Polled::default();
    while polled.leases.is_empty() {
        polled = world.poll(&node, LONG).await;
    }
    assert_eq!(polled.leases[0].id, later.id);
    let permit = polled.leases[0].spec.permit.clone().unwrap();
    assert_eq!(polled.leases[0].spec.limits.pids, Some(50));
    assert_eq!(permit.yes.unwrap().approval, kept);
}

/// Attack: A stale yes: what was approved is forbidden before a node takes it.
#[tokio::test]
async fn what_was_approved_and_is_forbidden_since_does_not_run() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (row, id) = world.waits(&agent, push()).await;
    world.decide(&user(), &id, yes()).await.unwrap();
    let mut never = rules();
    never
        .commands
        .as_mut()
        .unwrap()
        .forbid
        .push("git push".to_owned());
    world
        .service
        .policy_put(&user(), "rules", never)
        .await
        .unwrap();
    let node = node(1);
    world.register(&node, "a").await;
    assert!(world.poll(&node, NOW).await.leases.is_empty());
    let ended = world.service.job_wait(&agent, &row.id, LONG).await.unwrap();
    assert_eq!(ended.state.outcome().map(Outcome::name), Some("refused"));
}

#[tokio::test]
async fn a_job_that_waited_for_a_person_has_its_whole_time_in_the_queue_after_that() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let waiting = JobSpec {
        queue_timeout_ms: Some(60_000),
        ..push()
    };
    let (row, id) = world.waits(&agent, waiting).await;
    world.clock.advance(HOUR_MS);
    service::loops::expire_pass(&world.service).await.unwrap();
    world.decide(&user(), &id, yes()).await.unwrap();
    world.clock.advance(59_000);
    service::loops::expire_pass(&world.service).await.unwrap();
    assert_eq!(world.get(&row.id).await.state, JobState::Queued);
    world.clock.advance(2_000);
    service::loops::expire_pass(&world.service).await.unwrap();
    assert!(world.get(&row.id).await.state.outcome().is_some());
}

/// Attack: Widening after a yes: a session's is used for another command, by another agent, and when it is over or
/// taken back.
#[tokio::test]
async fn a_yes_for_a_session_is_for_one_principal_one_reason_and_some_time_and_can_be_taken_back() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (_, id) = world.waits(&agent, push()).await;
    world.decide(&user(), &id, session(HOUR_MS)).await.unwrap();
    let create = async |who: &Ctx, spec: JobSpec| {
        let made = world.service.job_create(who, spec, None).await;
        made.unwrap().state
    };
    assert_eq!(
        create(&agent, running("git push -f")).await,
        JobState::Queued
    );
    let waits = JobState::AwaitingApproval;
    assert_eq!(create(&agent, running("npm publish")).await, waits);
    assert_eq!(
        create(&agent, running("git push; npm publish")).await,
        waits
    );
    let other = world
        .let_in(&user(), PrincipalKind::Agent, "other", Role::Member)
        .await;
    assert_eq!(create(&other, push()).await, waits);
    world.service.approval_revoke(&user(), &id).await.unwrap();
    assert_eq!(create(&agent, push()).await, waits);
    let again = world.service.approval_revoke(&user(), &id).await;
    assert!(again.unwrap().revoked_at_ms.is_some());
    let (_, id) = world.waits(&agent, push()).await;
    world.decide(&user(), &id, session(HOUR_MS)).await.unwrap();
    world.clock.advance(HOUR_MS - 1);
    assert_eq!(create(&agent, push()).await, JobState::Queued);
    world.clock.advance(1);
    assert_eq!(create(&agent, push()).await, waits);
}

/// Attack: Somebody is let in by the name of one who was sent away, and goes on with the yes to that one.
#[tokio::test]
async fn a_session_is_not_that_of_another_who_is_let_in_by_the_same_name_later() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let (_, id) = world.waits(&agent, push()).await;
    world.decide(&user(), &id, session(DAY_MS)).await.unwrap();
    world
        .service
        .principal_remove(&user(), "agent:bot")
        .await
        .unwrap();
    world.clock.advance(1000);
    let agent = world.agent().await;
    let made = world
        .service
        .job_create(&agent, push(), None)
        .await
        .unwrap();
    assert_eq!(made.state, JobState::AwaitingApproval);
}

/// Attack: Widening after a yes: one to a sandbox is used for a longer one, by somebody else, and twice.
#[tokio::test]
async fn a_sandbox_is_made_once_by_the_same_request_after_a_yes() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let id = world.asks(&agent, open_sandbox()).await;
    // The same request waits for the same.
    assert_eq!(world.asks(&agent, open_sandbox()).await, id);
    assert_eq!(world.approval(&id).await.subject, Subject::Sandbox);
    let mut longer = open_sandbox();
    longer.ttl_ms += 1;
    assert_ne!(world.asks(&agent, longer.clone()).await, id);
    world.decide(&user(), &id, yes()).await.unwrap();
    // Nor is it for another, nor for another's.
    assert_ne!(world.asks(&agent, longer).await, id);
    assert_ne!(world.asks(&user(), open_sandbox()).await, id);
    let made = world.makes(&agent, open_sandbox()).await;
    let permit = made.spec.permit.unwrap();
    assert_eq!(permit.yes.unwrap().approval, id);
    assert_ne!(world.asks(&agent, open_sandbox()).await, id);
    assert_eq!(
        world.approval_kinds(&id).await,
        ["approval.asked", "approval.approved", "approval.used"]
    );
    let over = world.service.approval_revoke(&user(), &id).await;
    assert_eq!(over.unwrap_err().code(), "approval_over");
}

/// Attack: One yes is used at two servers in the same moment.
#[tokio::test]
async fn of_two_that_use_one_yes_at_a_time_one_is_asked_anew() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let id = world.asks(&agent, open_sandbox()).await;
    world.decide(&user(), &id, yes()).await.unwrap();
    let other = world.again();
    let both = tokio::join!(
        world.service.sandbox_create(&agent, open_sandbox(), None),
        other.sandbox_create(&agent, open_sandbox(), None),
    );
    let made = [both.0.is_ok(), both.1.is_ok()];
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{both:?}");
}

/// Attack: A yes that nobody has used is kept for later.
#[tokio::test]
async fn a_yes_that_was_not_used_within_a_day_is_none() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let id = world.asks(&agent, open_sandbox()).await;
    world.decide(&user(), &id, yes()).await.unwrap();
    world.clock.advance(DAY_MS);
    assert_ne!(world.asks(&agent, open_sandbox()).await, id);
}

#[tokio::test]
async fn rules_of_a_living_sandbox_that_need_a_yes_are_set_once_after_it() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let made = world.makes(&agent, ask()).await;
    let open = || NetworkRules::all_or_nothing(true);
    let set = async || {
        let set = world
            .service
            .sandbox_set_network(&agent, &made.id, open(), NOW);
        set.await
    };
    let id = waits_for(set().await.map(drop).unwrap_err());
    let asked = world.approval(&id).await;
    assert_eq!(
        (asked.subject, &*asked.subject_id),
        (Subject::Network, made.id.as_str())
    );
    world.decide(&user(), &id, yes()).await.unwrap();
    assert_eq!(*set().await.unwrap().rules(), open());
    assert!(world.approval(&id).await.used_at_ms.is_some());
}

#[tokio::test]
async fn rules_that_need_a_yes_by_the_policies_of_then_and_of_now_say_each_clause_once() {
    let world = World::with_rules(rules()).await;
    let row = world.ready(ask()).await;
    let (ctx, open) = (user(), NetworkRules::all_or_nothing(true));
    let changed = world
        .service
        .sandbox_set_network(&ctx, &row.id, open, NOW)
        .await;
    let Error::Invalid(found) = changed.map(drop).unwrap_err() else {
        unreachable!("nobody has said yes")
    };
    let told = found.iter().map(|one| (&one.field, &one.message));
    let told: std::collections::BTreeSet<_> = told.collect();
    assert_eq!(told.len(), found.len(), "{found:?}");
    assert!(found.len() > 1, "{found:?}");
}

/// Attack: A person is asked for a host that policies do not allow, for a pattern, for an address.
#[tokio::test]
async fn a_host_that_somebody_asks_for_is_opened_by_the_yes_within_what_policies_allow() {
    let mut policy = rules();
    policy.network = Some(NetworkClause {
        allow: Some(vec!["*.a.test:443".parse().unwrap()]),
        ..NetworkClause::default()
    });
    let world = World::with_rules(policy).await;
    let agent = world.agent().await;
    let made = world.makes(&agent, ask()).await;
    let asks = async |to: &str| {
        let asked = EgressAsk {
            sandbox: made.id.clone(),
            to: to.to_owned(),
            why: "it has the packages".to_owned(),
        };
        world.service.approval_ask(&agent, asked).await
    };
    let row = asks("x.a.test").await.unwrap();
    assert_eq!(asks("x.a.test:443").await.unwrap().id, row.id);
    assert_eq!(asks("b.test").await.unwrap_err().code(), "policy_refused");
    for bad in ["*.a.test", "*", "1.2.3.4", ""] {
        assert_eq!(asks(bad).await.unwrap_err().code(), "invalid_argument");
    }
    assert_eq!(world.declines(&agent, &row.id, yes()).await, "forbidden");
    let session = session(HOUR_MS);
    assert_eq!(
        world.declines(&user(), &row.id, session).await,
        "invalid_argument"
    );
    world.decide(&user(), &row.id, yes()).await.unwrap();
    world.decide(&user(), &row.id, yes()).await.unwrap();
    assert_eq!(
        world.declines(&user(), &row.id, waived()).await,
        "approval_over"
    );
    let there = world.service.sandbox_get(&agent, &made.id).await.unwrap();
    let allowed: Vec<String> = there
        .rules()
        .allow
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(allowed, ["x.a.test:443"]);
    assert_eq!(asks("x.a.test").await.unwrap_err().code(), "conflict");
    // What was allowed when it was asked for may be forbidden by now.
    let late = asks("y.a.test").await.unwrap();
    let mut less = rules();
    less.network = Some(NetworkClause {
        allow: Some(vec!["x.a.test:443".parse().unwrap()]),
        ..NetworkClause::default()
    });
    world
        .service
        .policy_put(&user(), "rules", less)
        .await
        .unwrap();
    assert_eq!(
        world.declines(&user(), &late.id, yes()).await,
        "policy_refused"
    );
    let there = world.service.sandbox_get(&agent, &made.id).await.unwrap();
    assert_eq!(there.rules().allow.len(), 1);
}

/// Attack: An agent asks so often that nobody finds what others wait for.
#[tokio::test]
async fn one_agent_cannot_bury_what_others_wait_for() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    for _ in 0..limits::APPROVALS_OF_ONE_MAX {
        world.waits(&agent, push()).await;
    }
    let more = world.service.job_create(&agent, push(), None).await;
    assert_eq!(more.unwrap_err().code(), "too_much");
    let sandbox = world.service.sandbox_create(&agent, open_sandbox(), None);
    assert_eq!(sandbox.await.unwrap_err().code(), "too_much");
    // Nothing was left of what was refused, and others wait all the same.
    let jobs = world
        .service
        .job_list(&agent, Some("awaiting_approval"), None, 500);
    let most = usize::try_from(limits::APPROVALS_OF_ONE_MAX).unwrap();
    assert_eq!(jobs.await.unwrap().jobs.len(), most);
    world.waits(&user(), push()).await;
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let ctx = user();
        let page = world
            .service
            .approval_list(&ctx, None, before.as_deref(), 40);
        let page = page.await.unwrap();
        seen.extend(page.approvals.into_iter().map(|row| row.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), most + 1);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), most + 1);
}

/// Attack: What a person is asked for is so long that nobody reads its end.
#[tokio::test]
async fn what_no_person_could_read_whole_is_not_asked_for() {
    let world = World::with_rules(rules()).await;
    let agent = world.agent().await;
    let long = format!("git push #{}", "x".repeat(80_000));
    let made = world.service.job_create(&agent, running(&long), None).await;
    assert!(made.is_ok());
    let words: Vec<String> = std::iter::repeat_n("x".repeat(1000), 90)
        .chain(["git".to_owned()])
        .collect();
    let mut argv = vec!["git".to_owned(), "push".to_owned()];
    argv.extend(words);
    let many = JobSpec {
        outputs: (0..60)
            .map(|n| format!("/tmp/{n}/{}", "y".repeat(900)))
            .collect(),
        argv,
        ..spec()
    };
    let made = world.service.job_create(&agent, many, None).await;
    assert_eq!(made.unwrap_err().code(), "too_long");
}
