//! Policies: what they refuse, what they narrow, and what becomes of what waits when they change.

use crate::sandboxes::ask;
use crate::*;
use model::id::PolicyId;
use model::network::{NetworkAsked, NetworkRules};
use model::policy::{
    Answer, Bound, CommandsClause, Decision, Layer, Matter, NetworkClause, Policy,
};
use model::sandbox::SandboxState;
use service::{AuditQuery, Error, Idempotency, PolicyAsk, SandboxAsk, SandboxSaid, SandboxWork};
use store::policy::PolicyRow;

/// How often a node asks: the first poll only finds that something is to be decided again.
const POLLS: u32 = 5;

pub(crate) fn rules(allow: &[&str]) -> NetworkRules {
    let allow = allow.iter().map(ToString::to_string).collect();
    NetworkRules::read(&NetworkAsked {
        allow,
        ..NetworkAsked::default()
    })
    .unwrap()
}

pub(crate) fn only(allow: &[&str]) -> Policy {
    let allow = allow.iter().map(|one| one.parse().unwrap()).collect();
    Policy {
        network: Some(NetworkClause {
            allow: Some(allow),
            ..NetworkClause::default()
        }),
        ..Policy::new(Layer::Tenant)
    }
}

fn at_most(bound: Bound, most: u64) -> Policy {
    Policy {
        resources: [(bound, most)].into(),
        ..Policy::new(Layer::Global)
    }
}

fn reaching(allow: &[&str]) -> JobSpec {
    JobSpec {
        network: rules(allow),
        ..spec()
    }
}

fn live(allow: &[&str]) -> SandboxAsk {
    let mut ask = ask();
    ask.spec.network = rules(allow);
    ask
}

impl World {
    pub(crate) async fn policy(&self, name: &str, policy: Policy) -> u64 {
        let put = self.service.policy_put(&user(), name, policy).await;
        put.unwrap().latest
    }

    pub(crate) async fn refused_by_policy(&self, spec: JobSpec) -> String {
        let made = self.service.job_create(&user(), spec, None).await;
        let error = made.unwrap_err();
        format!("{} {error}", error.code())
    }

    async fn refuses_live(&self, ask: SandboxAsk) -> String {
        let made = self.service.sandbox_create(&user(), ask, None).await;
        made.unwrap_err().code().to_owned()
    }
}

#[tokio::test]
async fn a_request_is_refused_narrowed_and_frozen_and_nothing_is_without_a_policy() {
    let world = World::new();
    let free = world
        .service
        .job_create(&user(), spec(), None)
        .await
        .unwrap();
    assert_eq!(free.spec.permit, None);
    world.policy("net", only(&["*.a.test:443"])).await;
    world
        .policy("memory", at_most(Bound::MemoryBytes, 1 << 20))
        .await;
    let refused = world.refused_by_policy(reaching(&["b.test"])).await;
    let expect = "policy_refused the request is invalid: network.allow[0]: the policy does not allow `b.test` \
                  (tenant/0/net@1)";
    assert_eq!(refused, expect);
    let made = world.create(reaching(&["x.a.test:443"])).await;
    assert_eq!(made.spec.limits.memory_bytes, Some(1 << 20));
    let kept = world
        .service
        .job_permit(&user(), &made.id)
        .await
        .unwrap()
        .unwrap();
    let layers: Vec<String> = kept.permit.layers.iter().map(ToString::to_string).collect();
    assert_eq!(layers, ["global/0/memory@1", "tenant/0/net@1"]);
    assert_eq!(
        world.refuses_live(live(&["b.test"])).await,
        "policy_refused"
    );
    // What nobody has asked for is as much as there may be.
    let mut open = ask();
    open.spec.network = NetworkRules::all_or_nothing(true);
    assert_eq!(world.refuses_live(open.clone()).await, "policy_refused");
    open.says.network = false;
    let made = world
        .service
        .sandbox_create(&user(), open, None)
        .await
        .unwrap();
    assert_eq!(made.spec.network, rules(&["*.a.test:443"]));
    world.service.policy_delete(&user(), "net").await.unwrap();
    world
        .service
        .policy_delete(&user(), "memory")
        .await
        .unwrap();
    let free = world.create(reaching(&["b.test"])).await;
    assert_eq!(free.spec.permit, None);
}

#[tokio::test]
async fn every_refusal_and_every_change_of_a_policy_is_an_event() {
    let world = World::new();
    world.policy("net", only(&["a.test"])).await;
    world.policy("net", only(&["a.test"])).await;
    assert_eq!(world.policy("net", only(&["b.test"])).await, 2);
    world.refused_by_policy(reaching(&["c.test"])).await;
    world.service.policy_delete(&user(), "net").await.unwrap();
    let newest = world
        .store()
        .read(|tx| event::newest(tx, 0, 10))
        .await
        .unwrap();
    let kinds: Vec<&str> = newest
        .iter()
        .rev()
        .map(|event| event.kind.as_str())
        .collect();
    let expect = [
        "policy.created",
        "policy.changed",
        "policy.refused",
        "policy.deleted",
    ];
    assert_eq!(kinds, expect);
    let told: serde_json::Value = serde_json::from_str(&newest[1].data).unwrap();
    assert_eq!(told["operation"], "job.create");
    assert_eq!(told["clauses"][0]["by"][0], "tenant/0/net@2");
}

#[tokio::test]
async fn what_a_policy_refuses_to_somebody_whose_tenant_is_gone_leaves_no_event() {
    let world = World::new();
    let everywhere = Policy {
        layer: Layer::Global,
        ..only(&["a.test"])
    };
    world.policy("net", everywhere).await;
    let admin = world.acme().await;
    let refused = async || {
        let made = world
            .service
            .job_create(&admin, reaching(&["b.test"]), None);
        made.await.unwrap_err().code()
    };
    let told = async || {
        let query = AuditQuery {
            kind: Some("policy.refused".to_owned()),
            ..AuditQuery::default()
        };
        let page = world.service.audit_list(&admin, query, 100).await;
        page.unwrap().events.len()
    };
    assert_eq!((refused().await, told().await), ("policy_refused", 1));
    world.service.tenant_remove(&user(), "acme").await.unwrap();
    // Its key is still believed for a second.
    assert_eq!((refused().await, told().await), ("policy_refused", 1));
}

/// Attack: A stale permit: work that waits is begun by the policies of then.
#[tokio::test]
async fn what_waits_is_decided_again_when_policies_change_before_a_node_takes_it() {
    let world = World::new();
    let who = user();
    let job = async |host| {
        let made = world.service.job_create(&who, reaching(&[host]), None);
        made.await.unwrap()
    };
    let (good, bad) = (job("a.test").await, job("b.test").await);
    let open = world
        .service
        .sandbox_create(&user(), live(&["b.test"]), None)
        .await
        .unwrap();
    let kept = live(&["a.test"]);
    let kept = world.service.sandbox_create(&who, kept, None);
    let kept = kept.await.unwrap();
    let mut policy = only(&["a.test"]);
    policy.resources = [(Bound::TimeoutMs, 60_000)].into();
    world.policy("net", policy).await;
    let node = node(1);
    world.register(&node, "a").await;
    let free = service::Free {
        slots: 4,
        sandboxes: 4,
        ..service::Free::default()
    };
    // The first poll finds that they are to be decided again; a later one gets what may be.
    let mut polled = Polled::default();
    for _ in 0..POLLS {
        if !polled.leases.is_empty() {
            break;
        }
        let poll = world.service.node_poll(&node, "a", free, LONG);
        polled = poll.await.unwrap();
    }
    let ids: Vec<&JobId> = polled.leases.iter().map(|row| &row.id).collect();
    assert_eq!(ids, [&good.id]);
    let permit = polled.leases[0].spec.permit.as_ref();
    assert_eq!(permit.map(|permit| permit.stamp), Some(1));
    let ended = world
        .service
        .job_wait(&user(), &bad.id, LONG)
        .await
        .unwrap();
    let Some(Outcome::Refused { why }) = ended.state.outcome().cloned() else {
        panic!("{:?}", ended.state)
    };
    assert!(why.starts_with("permit_stale: "), "{why}");
    assert!(why.contains("tenant/0/net@1"), "{why}");
    let gone = world
        .service
        .sandbox_wait(&user(), &open.id, LONG)
        .await
        .unwrap();
    assert_eq!(gone.state.name(), "failed");
    assert!(gone.reason.unwrap().starts_with("permit_stale: "));
    let seen = async || world.service.sandbox_get(&user(), &kept.id).await.unwrap();
    for _ in 0..POLLS {
        if seen().await.spec.permit.is_some() {
            break;
        }
        let poll = world.service.node_poll(&node, "a", free, LONG);
        poll.await.unwrap();
    }
    assert!(seen().await.spec.permit.is_some());
    assert_eq!(seen().await.ttl_ms, 60_000);
}

/// Attack: A policy is written at another server in the moment between a decision and its write.
#[tokio::test]
async fn another_process_s_change_of_a_policy_is_not_passed_by() {
    let world = World::new();
    let other = world.again();
    world
        .service
        .job_create(&user(), spec(), None)
        .await
        .unwrap();
    let put = other.policy_put(&user(), "net", only(&["a.test"])).await;
    put.unwrap();
    assert!(
        world
            .refused_by_policy(reaching(&["b.test"]))
            .await
            .starts_with("policy_refused")
    );
    let made = world
        .service
        .job_create(&user(), spec(), None)
        .await
        .unwrap();
    assert_eq!(made.spec.permit.map(|permit| permit.stamp), Some(1));
}

/// Attack: A tenant writes a policy for everybody, or reads that of another tenant.
#[tokio::test]
async fn a_policy_is_for_whom_it_says_and_only_the_operator_s_is_for_all() {
    let world = World::new();
    let mut mine = only(&["a.test"]);
    mine.layer = Layer::Principal;
    mine.of = Some("user:nobody".to_owned());
    world.policy("mine", mine).await;
    world
        .service
        .job_create(&user(), reaching(&["b.test"]), None)
        .await
        .unwrap();
    world.service.policy_delete(&user(), "mine").await.unwrap();
    world.policy("net", only(&["a.test"])).await;
    let other = stranger();
    let theirs = world
        .service
        .job_create(&other, reaching(&["b.test"]), None);
    theirs.await.unwrap();
    let global = world
        .service
        .policy_put(&stranger(), "all", at_most(Bound::Pids, 5))
        .await;
    assert!(matches!(global, Err(Error::Forbidden(_))));
    let seen = world.service.policy_get(&stranger(), "net").await;
    assert!(matches!(seen, Err(Error::NotFound)));
    world.policy("all", at_most(Bound::Pids, 5)).await;
    let theirs = world
        .service
        .job_create(&stranger(), spec(), None)
        .await
        .unwrap();
    assert_eq!(theirs.spec.limits.pids, Some(5));
}

/// Attack: A later edit: a sandbox that lives asks for more network and more time than it was made with.
#[tokio::test]
async fn a_living_sandbox_gets_no_more_network_than_policies_allow_and_no_more_time() {
    let world = World::new();
    let mut policy = only(&["*.a.test"]);
    policy.resources = [(Bound::TimeoutMs, 60_000)].into();
    world.policy("net", policy).await;
    let made = world
        .service
        .sandbox_create(&user(), live(&["x.a.test"]), None)
        .await
        .unwrap();
    assert_eq!(made.ttl_ms, 60_000);
    let set = async |allow: &[&str]| {
        let set = world
            .service
            .sandbox_set_network(&user(), &made.id, rules(allow), NOW)
            .await;
        set.map(|row| row.rules().clone())
            .map_err(|error| error.code())
    };
    assert_eq!(set(&["y.a.test"]).await, Ok(rules(&["y.a.test"])));
    assert_eq!(set(&["b.test"]).await, Err("policy_refused"));
    // A policy that allows more later changes nothing for it.
    world.policy("net", Policy::new(Layer::Tenant)).await;
    assert_eq!(set(&["b.test"]).await, Err("policy_refused"));
    world.policy("less", only(&["z.a.test"])).await;
    assert_eq!(set(&["y.a.test"]).await.map(drop), Err("policy_refused"));
    let longer = world
        .service
        .sandbox_set_timeout(&user(), &made.id, 600_000)
        .await
        .unwrap();
    assert_eq!(longer.ttl_ms, 60_000);
}

#[tokio::test]
async fn a_test_of_a_request_says_what_would_be_and_who_says_so_and_leaves_nothing() {
    let world = World::new();
    let policy = Policy {
        commands: Some(CommandsClause {
            approve: vec!["git push".to_owned()],
            ..CommandsClause::default()
        }),
        approvals: [(Matter::Secrets, Answer::Forbidden)].into(),
        ..at_most(Bound::TimeoutMs, 5)
    };
    world.policy("rules", policy).await;
    let test = async |argv: &[&str]| {
        let spec = JobSpec {
            argv: argv.iter().map(ToString::to_string).collect(),
            ..spec()
        };
        let ask = PolicyAsk::Job(Box::new(spec), None);
        world.service.policy_test(&user(), None, ask).await.unwrap()
    };
    let tested = test(&["ls"]).await;
    let Decision::Allowed(made) = tested.decision else {
        panic!()
    };
    assert_eq!(made.timeout_ms, 5);
    let clauses: Vec<&str> = tested.trace.iter().map(|one| one.clause.as_str()).collect();
    assert_eq!(
        clauses,
        ["resources.timeout_ms", "approvals.secrets", "commands"]
    );
    assert!(matches!(
        test(&["git", "push"]).await.decision,
        Decision::NeedsApproval(..)
    ));
    let sandbox = PolicyAsk::Sandbox(Box::new(ask()));
    let tested = world
        .service
        .policy_test(&user(), None, sandbox)
        .await
        .unwrap();
    let Decision::Refused(all) = tested.decision else {
        panic!()
    };
    assert_eq!(
        (all[0].kind.code(), &*all[0].clause),
        ("policy_unenforceable", "commands")
    );
    let newest = world
        .store()
        .read(|tx| event::newest(tx, 0, 10))
        .await
        .unwrap();
    assert_eq!(newest.len(), 1);
}

#[tokio::test]
async fn a_sandbox_made_anew_is_narrowed_by_policies_that_came_since() {
    let world = World::new();
    let row = world.ready(ask()).await;
    world.policy("pids", at_most(Bound::Pids, 7)).await;
    let who = user();
    let again = world.service.sandbox_recreate(&who, &row.id, None);
    again.await.unwrap();
    world.works(&node(1), NOW).await;
    let waits = world.says(&row, SandboxSaid::Destroyed).await;
    assert_eq!(waits.state, SandboxState::Requested);
    let work = world.next_work().await;
    assert_eq!(work.row.spec.limits.pids, Some(7));
    let stamp = work.row.spec.permit.map(|permit| permit.stamp);
    assert_eq!((stamp, work.row.id), (Some(1), row.id));
}

impl World {
    /// What a node of ours is ordered next: what waits may have to be decided again before.
    async fn next_work(&self) -> SandboxWork {
        loop {
            let works = self.works(&node(1), LONG).await;
            if let Some(work) = works.into_iter().next() {
                return work;
            }
        }
    }

    /// Modules are asked by a shell that does this: a question is a line, and so is its answer.
    pub(crate) fn modules_by(&self, script: &str) {
        let program = self.dir.path().join("modules");
        std::fs::write(&program, script).unwrap();
        let evaluator = rego::Evaluator::new("/bin/sh".into(), Some(program.into()));
        self.service.modules_are_asked_by(evaluator);
    }

    /// A policy that the service itself would not write.
    pub(crate) async fn insert_policy(&self, number: usize, policy: Policy) {
        let mut bytes = [0; 10];
        bytes[9] = u8::try_from(number).unwrap();
        let row = PolicyRow {
            id: PolicyId::from_parts(1, bytes),
            tenant: TenantId::local(),
            principal: user().principal,
            name: format!("p{number}"),
            version: 1,
            latest: 1,
            policy,
            created_at_ms: 1,
            updated_at_ms: 1,
        };
        let store = self.store();
        let written = store.write(move |tx| store::policy::insert(tx, &row));
        written.await.unwrap();
    }

    /// More policies than may apply to one principal.
    async fn too_many(&self) {
        for number in 0..=limits::POLICY_LAYERS_MAX {
            self.insert_policy(number, Policy::new(Layer::Tenant)).await;
        }
    }
}

/// Attack: jobs of one tenant that can never be decided wait for ever, and all others behind them.
#[tokio::test]
async fn jobs_that_cannot_be_decided_again_end_and_hold_up_no_other_tenant() {
    let world = World::new();
    let first = world.create(spec()).await.id;
    // It is the oldest, which a claim finds: ids of one millisecond are in no order.
    world.clock.advance(1);
    for _ in 1..300 {
        world.create(spec()).await;
    }
    let (who, theirs) = (user(), stranger());
    let other = world.service.job_create(&theirs, spec(), None);
    let other = other.await.unwrap();
    world.too_many().await;
    let node = node(1);
    world.register(&node, "a").await;
    let begun = std::time::Instant::now();
    let mut polls = 0;
    let leased = loop {
        polls += 1;
        let polled = world.poll(&node, LONG).await;
        if let Some(row) = polled.leases.into_iter().next() {
            break row;
        }
    };
    assert_eq!(leased.id, other.id);
    assert!(polls <= 30, "{polls} polls");
    let ended = world.service.job_wait(&who, &first, LONG);
    let ended = ended.await.unwrap();
    let Some(Outcome::Refused { why }) = ended.state.outcome().cloned() else {
        panic!("{:?}", ended.state)
    };
    assert!(why.contains("policies apply"), "{why}");
    assert!(!why.contains("()"), "{why}");
    assert!(begun.elapsed() < LONG);
}

pub(crate) fn module() -> Policy {
    Policy {
        rego: Some("package policy\nallow := true\n".to_owned()),
        ..Policy::new(Layer::Tenant)
    }
}

/// What a module ends of, and any other.
pub(crate) const FRAGILE: &str = "while read -r line; do case $line in *xyzzy*) exit 1;; esac; \
                       echo '{\"says\":\"allow\"}'; done\n";

pub(crate) fn xyzzy() -> JobSpec {
    JobSpec {
        argv: vec!["xyzzy".to_owned()],
        ..spec()
    }
}

/// Attack: a request that stops a module, so that what waits for quite another answer of it ends.
#[tokio::test]
async fn a_job_waits_on_while_a_module_rests_after_another_question() {
    let world = World::new();
    world.modules_by(FRAGILE);
    let waits = world.create(spec()).await;
    world.insert_policy(0, module()).await;
    let refused = world.refused_by_policy(xyzzy()).await;
    assert!(refused.contains("did not come to an end"), "{refused}");
    let node = node(1);
    world.register(&node, "a").await;
    assert!(world.poll(&node, NOW).await.leases.is_empty());
    // It waits for as long as the module rests, and is asked about then.
    let store = world.store();
    let claims = async |at_ms: u64| {
        let claim =
            move |tx: &mut store::Tx<'_>| store::queue::claim(tx, &node_id(1), 1, at_ms, &[]);
        store.read(claim).await.unwrap().len()
    };
    let now = world.clock.now_ms();
    let postponed = async {
        while (claims(now + 9_999).await, claims(now + 10_000).await) != (0, 1) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, postponed).await.unwrap();
    assert_eq!(world.get(&waits.id).await.state, JobState::Queued);
}

#[tokio::test]
async fn a_job_whose_own_question_stops_a_module_ends() {
    let world = World::new();
    world.modules_by(FRAGILE);
    let row = world.create(xyzzy()).await;
    world.insert_policy(0, module()).await;
    let node = node(1);
    world.register(&node, "a").await;
    assert!(world.poll(&node, NOW).await.leases.is_empty());
    let ended = world
        .service
        .job_wait(&user(), &row.id, LONG)
        .await
        .unwrap();
    assert_eq!(ended.state.outcome().map(Outcome::name), Some("refused"));
}

/// Attack: modules of one tenant that take long for each question hold up the queue of all others.
#[tokio::test]
async fn jobs_that_are_slowly_decided_again_hold_up_no_other_tenant() {
    let world = World::new();
    world.modules_by("while read -r line; do sleep 0.2; echo '{\"says\":\"allow\"}'; done\n");
    for _ in 0..300 {
        world.create(spec()).await;
    }
    let theirs = stranger();
    let other = world.service.job_create(&theirs, spec(), None);
    let other = other.await.unwrap();
    world.insert_policy(0, module()).await;
    let node = node(1);
    world.register(&node, "a").await;
    let begun = std::time::Instant::now();
    for polls in 1.. {
        assert!(polls <= 30, "{polls} polls");
        let polled = world.poll(&node, LONG).await;
        if polled.leases.iter().any(|row| row.id == other.id) {
            break;
        }
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_policy_that_would_be_one_too_many_is_not_written() {
    let world = World::new();
    for number in 0..limits::POLICY_LAYERS_MAX {
        world
            .policy(&format!("p{number}"), Policy::new(Layer::Tenant))
            .await;
    }
    let put = |name: &str, policy: Policy| {
        let (service, name) = (world.service.clone(), name.to_owned());
        async move { service.policy_put(&user(), &name, policy).await }
    };
    let more = put("more", Policy::new(Layer::Tenant)).await.unwrap_err();
    assert_eq!(more.code(), "policy_invalid");
    assert!(more.to_string().contains("64 are the most"), "{more}");
    let mut of_one = Policy::new(Layer::Principal);
    of_one.of = Some("user:alice".to_owned());
    assert_eq!(
        put("one", of_one).await.unwrap_err().code(),
        "policy_invalid"
    );
    // One that is there may change.
    put("p0", at_most(Bound::Pids, 5)).await.unwrap();
    world.create(spec()).await;
}

/// Attack: one principal is given as many policies as there may be, and the next one for all shuts it out.
#[tokio::test]
async fn a_policy_for_all_that_would_be_one_too_many_for_one_is_not_written() {
    let world = World::new();
    for number in 0..limits::POLICY_LAYERS_MAX {
        let mut of_one = Policy::new(Layer::Principal);
        of_one.of = Some("user:alice".to_owned());
        world.policy(&format!("p{number}"), of_one).await;
    }
    let put = async |name: &str, policy: Policy| {
        let put = world.service.policy_put(&user(), name, policy).await;
        put.unwrap_err()
    };
    let more = put("more", Policy::new(Layer::Tenant)).await;
    assert_eq!(more.code(), "policy_invalid");
    assert!(more.to_string().contains("for `user:alice`: "), "{more}");
    let all = put("all", at_most(Bound::Pids, 5)).await;
    assert_eq!(all.code(), "policy_invalid");
    let mut of_bob = Policy::new(Layer::Principal);
    of_bob.of = Some("user:bob".to_owned());
    world.policy("bob", of_bob).await;
}

/// A refusal is written nowhere that would compare the policies again.
#[tokio::test]
async fn a_policy_that_another_process_has_deleted_refuses_nothing() {
    let world = World::new();
    let other = world.again();
    world.policy("net", only(&["a.test"])).await;
    assert_eq!(
        world.refuses_live(live(&["b.test"])).await,
        "policy_refused"
    );
    other.policy_delete(&user(), "net").await.unwrap();
    world.create(reaching(&["b.test"])).await;
    world.policy("net", only(&["a.test"])).await;
    world.refused_by_policy(reaching(&["b.test"])).await;
    let put = other.policy_put(&user(), "net", only(&["b.test"])).await;
    put.unwrap();
    world.make(live(&["b.test"])).await;
}

#[tokio::test]
async fn the_same_request_with_its_key_answers_what_it_has_made_whatever_policies_say_now() {
    let world = World::new();
    let key = || {
        Some(Idempotency {
            key: "k1234567".to_owned(),
            request_hash: "h".to_owned(),
        })
    };
    let (service, who) = (&world.service, user());
    let job = service.job_create(&who, reaching(&["b.test"]), key());
    let job = job.await.unwrap();
    let row = world.ready(live(&["b.test"])).await;
    let made = service.sandbox_create(&who, live(&["b.test"]), key());
    let made = made.await.unwrap();
    service
        .sandbox_recreate(&who, &row.id, key())
        .await
        .unwrap();
    world.policy("net", only(&["a.test"])).await;
    let again = service.job_create(&who, reaching(&["b.test"]), key());
    assert_eq!(again.await.unwrap().id, job.id);
    let again = service.sandbox_create(&who, live(&["b.test"]), key());
    assert_eq!(again.await.unwrap().id, made.id);
    let again = service.sandbox_recreate(&who, &row.id, key());
    assert_eq!(again.await.unwrap().id, row.id);
    world.refused_by_policy(reaching(&["b.test"])).await;
}

#[tokio::test]
async fn a_clause_about_drivers_is_met_by_nodes_that_say_what_they_are() {
    let world = World::new();
    let mut hello = hello("a");
    // Whatever its own configuration calls it.
    hello.labels = [("driver".to_owned(), "microvm".to_owned())].into();
    world.service.node_register(&node(1), hello).await.unwrap();
    let policy = Policy {
        drivers: Some(["linux".to_owned()].into()),
        ..Policy::new(Layer::Tenant)
    };
    world.policy("driver", policy).await;
    let made = world.create(spec()).await;
    assert_eq!(
        made.spec.placement.on.get("driver").map(String::as_str),
        Some("linux")
    );
    let polled = world.poll(&node(1), LONG).await;
    assert_eq!(polled.leases[0].id, made.id);
}
