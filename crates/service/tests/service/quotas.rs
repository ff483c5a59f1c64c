//! Quotas: who waits, who is refused, and who is not held up by either.

use super::*;
use crate::sandboxes::ask;
use crate::volumes;
use model::job::Outcome;
use model::principal::{PrincipalKind, Role};
use model::quota::Limit;
use proptest::prelude::*;
use service::loops::release_pass;
use service::{Error, QuotaChange, SandboxRow};

/// A tenant with people in it.
struct Acme {
    world: World,
    admin: Ctx,
}

impl Acme {
    async fn new() -> Acme {
        let world = World::new();
        let admin = world.acme().await;
        world.register(&node(1), "a").await;
        Acme { world, admin }
    }

    async fn member(&self, name: &str) -> Ctx {
        let (kind, role) = (PrincipalKind::User, Role::Member);
        let service = &self.world.service;
        let made = service
            .principal_create(&self.admin, kind, name, role)
            .await;
        Ctx {
            principal: made.unwrap().id,
            ..self.admin.clone()
        }
    }

    async fn bound(&self, limits: &[(Limit, u64)]) {
        let admin = user();
        let set = self.world.service.quota_set(&admin, "acme", most(limits));
        set.await.unwrap();
    }

    /// One that is younger than those before it: their ids do not say so within one millisecond.
    async fn job(&self) -> JobRow {
        self.world.clock.advance(1);
        let made = self.world.service.job_create(&self.admin, spec(), None);
        made.await.unwrap()
    }

    /// The same with so much memory.
    async fn job_of(&self, memory_bytes: u64) -> JobRow {
        self.world.clock.advance(1);
        let mut spec = spec();
        spec.limits.memory_bytes = Some(memory_bytes);
        let made = self.world.service.job_create(&self.admin, spec, None);
        made.await.unwrap()
    }

    async fn claim(&self) -> Vec<JobId> {
        let polled = self.world.service.node_poll(&node(1), "a", 4, NOW).await;
        polled
            .unwrap()
            .leases
            .into_iter()
            .map(|row| row.id)
            .collect()
    }

    async fn waits_for(&self, id: &JobId) -> Option<String> {
        let row = self.world.service.job_get(&self.admin, id).await.unwrap();
        self.world.service.job_waits_for(&row).await.unwrap()
    }

    async fn end(&self, id: &JobId) {
        let row = self.world.service.job_get(&self.admin, id).await.unwrap();
        let report = started(&row);
        let begun = self.world.service.job_started(&node(1), id, report).await;
        begun.unwrap();
        let report = finished(&row, Outcome::Succeeded);
        let ended = self.world.service.job_finished(&node(1), id, report).await;
        ended.unwrap();
    }

    /// Claims until something is there: what was held is let go behind the request that made room.
    async fn claim_soon(&self) -> Vec<JobId> {
        let wait = self.world.service.node_poll(&node(1), "a", 4, LONG).await;
        wait.unwrap().leases.into_iter().map(|row| row.id).collect()
    }

    async fn sandbox(&self, ctx: &Ctx) -> Result<SandboxRow, Error> {
        self.world.service.sandbox_create(ctx, ask(), None).await
    }
}

fn most(limits: &[(Limit, u64)]) -> QuotaChange {
    limits
        .iter()
        .map(|(limit, most)| (*limit, Some(*most)))
        .collect()
}

fn message(error: &Error) -> String {
    format!("{}: {error}", error.code())
}

#[tokio::test]
async fn jobs_beyond_their_quota_wait_and_go_in_order_when_there_is_room() {
    let acme = Acme::new().await;
    acme.bound(&[(Limit::Jobs, 2)]).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(acme.job().await.id);
    }
    let mut claimed = acme.claim().await;
    claimed.extend(acme.claim().await);
    assert_eq!(claimed, ids[..2]);
    let why = acme.waits_for(&ids[2]).await;
    assert_eq!(why.as_deref(), Some("its tenant has 2 of 2 jobs running"));
    for next in 2..5 {
        acme.end(&ids[next - 2]).await;
        assert_eq!(acme.claim_soon().await, [ids[next].clone()]);
    }
    acme.end(&ids[3]).await;
    acme.end(&ids[4]).await;
    assert_eq!(acme.claim().await, []);
    let seen = acme.world.service.quota_list(&acme.admin, None, 10).await;
    let seen = seen.unwrap().quotas.remove(0);
    assert_eq!(
        (seen.tenant_name.as_str(), seen.used[&Limit::Jobs]),
        ("acme", 0)
    );
}

#[tokio::test]
async fn a_tenant_with_thousands_beyond_its_quota_keeps_nobody_waiting() {
    let acme = Acme::new().await;
    let first = acme.job().await;
    assert_eq!(acme.claim().await, std::slice::from_ref(&first.id));
    for _ in 0..2500 {
        acme.job().await;
    }
    acme.bound(&[(Limit::Jobs, 1)]).await;
    let ours = acme.world.create(spec()).await;
    assert_eq!(acme.claim().await, std::slice::from_ref(&ours.id));
    // What comes later is found without a look at what is held, and given at once to a poll that waits.
    let waiting = tokio::spawn({
        let service = acme.world.service.clone();
        async move { service.node_poll(&node(1), "a", 1, LONG).await }
    });
    acme.job().await;
    let next = acme.world.create(spec()).await;
    let polled = waiting.await.unwrap().unwrap();
    assert_eq!(polled.leases[0].id, next.id);
    let removed = acme.world.service.quota_remove(&user(), "acme").await;
    removed.unwrap();
    assert_eq!(acme.claim_soon().await.len(), 4);
}

#[tokio::test]
async fn what_a_process_that_died_has_not_let_go_is_let_go_by_the_loop() {
    let acme = Acme::new().await;
    acme.bound(&[(Limit::Jobs, 1)]).await;
    let (first, second) = (acme.job().await, acme.job().await);
    assert_eq!(acme.claim().await, std::slice::from_ref(&first.id));
    assert_eq!(acme.claim().await, []);
    // Another process has it end, which knows of no quota and tells nobody.
    let other = acme.world.again();
    let row = acme.world.service.job_get(&acme.admin, &first.id).await;
    let row = row.unwrap();
    let begun = other.job_started(&node(1), &first.id, started(&row)).await;
    begun.unwrap();
    let ended = finished(&row, Outcome::Succeeded);
    other
        .job_finished(&node(1), &first.id, ended)
        .await
        .unwrap();
    assert_eq!(acme.claim().await, []);
    assert_eq!(release_pass(&acme.world.service).await.unwrap(), 1);
    assert_eq!(release_pass(&acme.world.service).await.unwrap(), 0);
    assert_eq!(acme.claim().await, [second.id]);
}

#[tokio::test]
async fn sandboxes_and_jobs_share_what_a_tenant_may_take() {
    let acme = Acme::new().await;
    // A job or a sandbox that says nothing counts for 512 MiB.
    acme.bound(&[(Limit::MemoryBytes, 1 << 30)]).await;
    let one = acme.sandbox(&acme.admin).await.unwrap();
    let (first, second) = (acme.job().await, acme.job().await);
    assert_eq!(acme.claim().await, std::slice::from_ref(&first.id));
    assert_eq!(acme.claim().await, []);
    let refused = acme.sandbox(&acme.admin).await.unwrap_err();
    assert_eq!(
        message(&refused),
        "quota_exceeded: the quota `memory_bytes` is reached: its tenant has 1073741824 of 1073741824 bytes of \
         memory in use, and this takes 536870912; an admin of the first tenant can raise it with \
         `cofferdam quota set`"
    );
    // What would never fit is not taken in to wait for ever.
    let mut large = spec();
    large.limits.memory_bytes = Some(2 << 30);
    let never = acme
        .world
        .service
        .job_create(&acme.admin, large, None)
        .await;
    assert_eq!(never.unwrap_err().code(), "quota_exceeded");
    let gone = acme
        .world
        .service
        .sandbox_destroy(&acme.admin, &one.id)
        .await;
    assert!(gone.unwrap().state.is_over());
    assert_eq!(acme.claim_soon().await, [second.id]);
}

#[tokio::test]
async fn a_quota_that_is_lowered_below_what_waits_keeps_out_nothing_smaller() {
    let acme = Acme::new().await;
    acme.bound(&[(Limit::MemoryBytes, 1 << 30)]).await;
    let big = acme.job_of(900 << 20).await;
    // More than are looked at to find what fits.
    for _ in 0..80 {
        acme.job_of(900 << 20).await;
    }
    let small = acme.job_of(64 << 20).await;
    acme.bound(&[(Limit::MemoryBytes, 600 << 20)]).await;
    assert_eq!(acme.claim().await, std::slice::from_ref(&small.id));
    let why = acme.waits_for(&big.id).await;
    assert_eq!(
        why.as_deref(),
        Some(
            "its tenant has 67108864 of 629145600 bytes of memory in use, and this takes 943718400"
        )
    );
    let next = acme.job_of(64 << 20).await;
    assert_eq!(acme.claim_soon().await, [next.id]);
    // What would fit and has no room goes before what is smaller and younger, as ever.
    let fits = acme.job_of(500 << 20).await;
    let later = acme.job_of(32 << 20).await;
    assert_eq!(acme.claim().await, []);
    acme.end(&small.id).await;
    let mut got = acme.claim_soon().await;
    if got.len() < 2 {
        got.extend(acme.claim_soon().await);
    }
    assert_eq!(got, [fits.id, later.id]);
    acme.bound(&[(Limit::MemoryBytes, 2 << 30)]).await;
    assert_eq!(acme.claim_soon().await, [big.id]);
}

#[tokio::test]
async fn a_sandbox_that_failed_and_is_made_anew_counts_as_it_was_asked_for() {
    let acme = Acme::new().await;
    acme.bound(&[(Limit::MemoryBytes, 1 << 30)]).await;
    let service = &acme.world.service;
    let large = || {
        let mut large = ask();
        large.spec.limits.memory_bytes = Some(700 << 20);
        service.sandbox_create(&acme.admin, large, None)
    };
    let used = || async {
        let listed = service.quota_list(&acme.admin, None, 10).await.unwrap();
        listed.quotas[0].used[&Limit::MemoryBytes]
    };
    let first = large().await.unwrap();
    acme.world.clock.advance(first.spec.queue_timeout_ms + 1);
    service::loops::due_pass(service).await.unwrap();
    assert_eq!(used().await, 0);
    let again = service.sandbox_recreate(&acme.admin, &first.id, None);
    again.await.unwrap();
    assert_eq!(used().await, 700 << 20);
    assert_eq!(large().await.unwrap_err().code(), "quota_exceeded");
    acme.world.clock.advance(first.spec.queue_timeout_ms + 1);
    service::loops::due_pass(service).await.unwrap();
    acme.world.register(&node(1), "a").await;
    large().await.unwrap();
    let again = service.sandbox_recreate(&acme.admin, &first.id, None);
    assert_eq!(again.await.unwrap_err().code(), "quota_exceeded");
}

#[tokio::test]
async fn a_principal_has_its_own_and_does_not_shut_its_tenant() {
    let acme = Acme::new().await;
    let (alice, bob) = (acme.member("alice").await, acme.member("bob").await);
    let service = &acme.world.service;
    let set = service.quota_set(
        &acme.admin,
        "user:alice",
        most(&[(Limit::Jobs, 1), (Limit::Sandboxes, 0)]),
    );
    set.await.unwrap();
    let mut of_alice = Vec::new();
    for _ in 0..3 {
        acme.world.clock.advance(1);
        of_alice.push(service.job_create(&alice, spec(), None).await.unwrap().id);
    }
    acme.world.clock.advance(1);
    let of_bob = service.job_create(&bob, spec(), None).await.unwrap().id;
    let mut claimed = acme.claim().await;
    claimed.extend(acme.claim().await);
    assert_eq!(claimed, [of_alice[0].clone(), of_bob]);
    let why = acme.waits_for(&of_alice[1]).await;
    assert_eq!(why.as_deref(), Some("user:alice has 1 of 1 jobs running"));
    assert_eq!(
        acme.sandbox(&alice).await.unwrap_err().code(),
        "quota_exceeded"
    );
    assert!(acme.sandbox(&bob).await.is_ok());
    acme.end(&of_alice[0]).await;
    assert_eq!(acme.claim_soon().await, [of_alice[1].clone()]);
    // Whoever is sent away has no quota any more that somebody of the same name would find.
    service
        .principal_remove(&acme.admin, "user:alice")
        .await
        .unwrap();
    let listed = service.quota_list(&acme.admin, None, 10).await.unwrap();
    assert_eq!(listed.quotas, []);
}

#[tokio::test]
async fn no_more_jobs_wait_than_a_quota_says() {
    let acme = Acme::new().await;
    acme.bound(&[(Limit::JobsWaiting, 2)]).await;
    acme.job().await;
    acme.job().await;
    let third = acme
        .world
        .service
        .job_create(&acme.admin, spec(), None)
        .await;
    assert_eq!(
        message(&third.unwrap_err()),
        "quota_exceeded: the quota `jobs_waiting` is reached: its tenant has 2 of 2 jobs waiting; an admin of the \
         first tenant can raise it with `cofferdam quota set`"
    );
    assert_eq!(acme.claim().await.len(), 2);
    acme.job().await;
    let refused = acme.world.service.quota_refusals();
    assert!(refused.contains(&(Limit::JobsWaiting, 1)), "{refused:?}");
}

#[tokio::test]
async fn who_says_what_is_in_the_record_of_the_tenant_that_it_is_about() {
    let acme = Acme::new().await;
    acme.bound(&[(Limit::Jobs, 2)]).await;
    let service = &acme.world.service;
    let change = QuotaChange::from([(Limit::Jobs, None), (Limit::Sandboxes, Some(1))]);
    let seen = service.quota_set(&user(), "acme", change).await.unwrap();
    assert_eq!(seen.row.most.len(), 1);
    service.quota_remove(&user(), "acme").await.unwrap();
    let query = service::AuditQuery::default();
    let page = service.audit_list(&acme.admin, query, 100).await.unwrap();
    let told: Vec<(String, String)> = page
        .events
        .into_iter()
        .filter(|one| one.event.kind.starts_with("quota."))
        .map(|one| (one.event.kind, one.event.data))
        .collect();
    let expect = [
        ("quota.set", r#"{"limits":{"jobs":2}}"#),
        ("quota.set", r#"{"limits":{"sandboxes":1}}"#),
        ("quota.removed", r#"{"limits":{"sandboxes":1}}"#),
    ];
    assert_eq!(
        told,
        expect.map(|(kind, data)| (kind.to_owned(), data.to_owned()))
    );
    let own = service
        .quota_set(&acme.admin, "acme", most(&[(Limit::Jobs, 9)]))
        .await;
    assert!(matches!(own, Err(Error::Forbidden(_))), "{own:?}");
    let nothing = service.quota_set(&user(), "acme", QuotaChange::new()).await;
    assert!(matches!(nothing, Err(Error::Invalid(_))), "{nothing:?}");
    let nobody = service.quota_remove(&user(), "nobody").await;
    assert!(matches!(nobody, Err(Error::NotFound)), "{nobody:?}");
}

/// Does things to jobs by numbers that were drawn, and looks after each whether too many run.
async fn live_through(acts: Vec<(u8, usize)>) {
    let acme = Acme::new().await;
    acme.bound(&[(Limit::Jobs, 2)]).await;
    let service = &acme.world.service;
    let mut ids = Vec::new();
    for (what, which) in acts {
        let chosen = ids.get(which % ids.len().max(1)).cloned();
        match (what, chosen) {
            (0 | 1, _) | (_, None) => {
                let made = service.job_create(&acme.admin, retried(2), None);
                ids.push(made.await.unwrap().id);
            }
            (2 | 3, _) => drop(acme.claim().await),
            (4, Some(id)) => drop(service.job_cancel(&acme.admin, &id).await),
            (5, _) => {
                acme.world.silence().await;
                acme.world.register(&node(1), "a").await;
            }
            (6, Some(id)) => {
                let row = service.job_get(&acme.admin, &id).await.unwrap();
                drop(service.job_started(&node(1), &id, started(&row)).await);
            }
            (_, Some(id)) => {
                let row = service.job_get(&acme.admin, &id).await.unwrap();
                drop(service.job_started(&node(1), &id, started(&row)).await);
                let report = finished(&row, Outcome::Succeeded);
                drop(service.job_finished(&node(1), &id, report).await);
            }
        }
        let mut run = 0;
        for id in &ids {
            let row = service.job_get(&acme.admin, id).await.unwrap();
            run += usize::from(row.state.lease().is_some());
        }
        assert!(run <= 2, "{run} run");
    }
    // Nothing is stranded: what is left ends, two at a time.
    for _ in 0..ids.len() * 2 {
        release_pass(service).await.unwrap();
        acme.claim().await;
        for id in &ids {
            let row = service.job_get(&acme.admin, id).await.unwrap();
            if row.state.lease().is_some() {
                drop(service.job_started(&node(1), id, started(&row)).await);
                let report = finished(&row, Outcome::Succeeded);
                drop(service.job_finished(&node(1), id, report).await);
            }
        }
    }
    for id in &ids {
        let row = service.job_get(&acme.admin, id).await.unwrap();
        assert!(row.state.outcome().is_some(), "{:?}", row.state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_lets_more_run_than_the_quota_says_or_strands_a_job(
        acts in proptest::collection::vec((0..9_u8, 0..12_usize), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live_through(acts));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_sandboxes_that_come_at_once_do_not_wait_for_each_other_in_a_circle() {
    let Some((postgres, _dir, servers)) = two_servers() else {
        return;
    };
    let service = &servers[0];
    service.node_register(&node(1), hello("a")).await.unwrap();
    let (kind, role) = (PrincipalKind::User, Role::Member);
    let made = service.principal_create(&user(), kind, "alice", role).await;
    let alice = Ctx {
        principal: made.unwrap().id,
        ..user()
    };
    let (count, bytes) = (1000, 1 << 40);
    let of_tenant = most(&[(Limit::Sandboxes, count), (Limit::MemoryBytes, bytes)]);
    service
        .quota_set(&user(), "local", of_tenant)
        .await
        .unwrap();
    // Of those that wait the principal alone has a bound: its quota is not to be locked before that of its tenant.
    let of_alice = most(&[(Limit::JobsWaiting, count), (Limit::MemoryBytes, bytes)]);
    let set = service.quota_set(&user(), "user:alice", of_alice).await;
    set.unwrap();
    let mut all = Vec::new();
    for number in 0..6 {
        let (service, alice) = (servers[number % 2].clone(), alice.clone());
        all.push(tokio::spawn(async move {
            for _ in 0..20 {
                if number < 3 {
                    service.job_create(&alice, spec(), None).await.unwrap();
                } else {
                    let made = service.sandbox_create(&alice, ask(), None).await;
                    made.unwrap();
                }
            }
        }));
    }
    for one in all {
        one.await.unwrap();
    }
    no_deadlock(&postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_that_are_made_and_made_anew_on_one_volume_do_not_wait_in_a_circle() {
    let Some((postgres, _dir, servers)) = two_servers() else {
        return;
    };
    for one in &servers {
        one.secret_keys_from(|| Ok(volumes::keys("a", &[])));
    }
    let service = &servers[0];
    let mut hello = hello("a");
    hello.facts.insert("volumes".to_owned(), "yes".to_owned());
    service.node_register(&node(1), hello).await.unwrap();
    let who = user();
    let volume = service.volume_create(&who, volumes::new("one"), None);
    volume.await.unwrap();
    let of_tenant = most(&[(Limit::MemoryBytes, 1 << 40)]);
    service
        .quota_set(&user(), "local", of_tenant)
        .await
        .unwrap();
    let on_it = |queue_timeout_ms| {
        let mut ask = volumes::with(&[("one", "/data")]);
        ask.spec.queue_timeout_ms = queue_timeout_ms;
        ask
    };
    let mut failed = Vec::new();
    for _ in 0..40 {
        let made = service.sandbox_create(&user(), on_it(1), None).await;
        failed.push(made.unwrap().id);
    }
    for id in &failed {
        let is_over = async || {
            let row = service.sandbox_get(&user(), id).await.unwrap();
            row.state.is_over()
        };
        while !is_over().await {
            service::loops::due_pass(service).await.unwrap();
        }
    }
    let (making, ask) = (servers[0].clone(), on_it(30_000));
    let made = tokio::spawn(async move {
        for _ in 0..40 {
            let made = making.sandbox_create(&user(), ask.clone(), None).await;
            made.unwrap();
        }
    });
    let making = servers[1].clone();
    let made_anew = tokio::spawn(async move {
        for id in failed {
            let again = making.sandbox_recreate(&user(), &id, None).await;
            again.unwrap();
        }
    });
    made.await.unwrap();
    made_anew.await.unwrap();
    no_deadlock(&postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_that_claim_at_once_neither_goes_beyond_a_quota() {
    let Some((_postgres, _dir, servers)) = two_servers() else {
        return;
    };
    let service = &servers[0];
    let limits = most(&[(Limit::Jobs, 3)]);
    for number in 1..=4 {
        let hello = hello("a");
        service.node_register(&node(number), hello).await.unwrap();
    }
    for _ in 0..40 {
        service.job_create(&user(), spec(), None).await.unwrap();
    }
    service.quota_set(&user(), "local", limits).await.unwrap();
    let mut claims = Vec::new();
    for number in 1..=4_u8 {
        let service = servers[usize::from(number % 2)].clone();
        claims.push(tokio::spawn(async move {
            let mut got = 0;
            for _ in 0..4 {
                let polled = service.node_poll(&node(number), "a", 2, NOW).await;
                got += polled.unwrap().leases.len();
            }
            got
        }));
    }
    let mut got = 0;
    for claim in claims {
        got += claim.await.unwrap();
    }
    assert_eq!(got, 3);
}
