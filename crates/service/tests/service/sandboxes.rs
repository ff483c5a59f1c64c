//! Sandboxes that live on, from the request to their end, with these tests as their node.

use crate::*;
use model::enforcement::{Enforced, Held};
use model::sandbox::{SandboxState, Want};
use model::sandbox_spec::{OnExpiry, SandboxSpec};
use service::{
    Error, Free, Idempotency, SandboxAsk, SandboxFilter, SandboxRef, SandboxRow, SandboxSaid,
    SandboxWork,
};
use std::collections::HashSet;

pub(crate) const FREE: Free = Free {
    slots: 1,
    sandboxes: 8,
    reserved: model::place::Reserved {
        memory_bytes: 0,
        disk_bytes: 0,
    },
};
pub(crate) const TTL: u64 = 60_000;

pub(crate) fn ask() -> SandboxAsk {
    SandboxAsk {
        spec: SandboxSpec {
            profile: "default".to_owned(),
            serves_volume: false,
            name: None,
            env: BTreeMap::new(),
            root: None,
            root_identity: None,
            limits: AskedLimits::default(),
            network: model::network::NetworkRules::default(),
            allow_root: false,
            on_expiry: OnExpiry::Kill,
            auto_resume: false,
            queue_timeout_ms: 30_000,
            placement: model::place::Placement::default(),
            node: None,
            secrets: Vec::new(),
            scrub_patterns: false,
            layers: Vec::new(),
            volumes: Vec::new(),
            defaults: model::sandbox_spec::Defaults::default(),
            made_by: None,
            permit: None,
        },
        from: None,
        metadata: BTreeMap::new(),
        ttl_ms: TTL,
        profile: None,
        says: model::profile::Says {
            network: true,
            timeout: true,
        },
    }
}

pub(crate) fn said_ready() -> SandboxSaid {
    SandboxSaid::Ready {
        driver: "linux".to_owned(),
        enforcement: vec![Enforced {
            clause: "memory".to_owned(),
            how: "cgroup".to_owned(),
            value: None,
            asked: false,
            state: Held::Held,
        }],
    }
}

pub(crate) fn names(row: &SandboxRow) -> SandboxRef {
    SandboxRef {
        id: row.id.clone(),
        epoch: row.epoch,
    }
}

impl World {
    pub(crate) async fn make(&self, ask: SandboxAsk) -> SandboxRow {
        let made = self.service.sandbox_create(&user(), ask, None).await;
        made.unwrap()
    }

    pub(crate) async fn sandbox(&self, id: &model::id::SandboxId) -> SandboxRow {
        self.service.sandbox_get(&user(), id).await.unwrap()
    }

    pub(crate) async fn works(&self, node: &Ctx, wait: Duration) -> Vec<SandboxWork> {
        let polled = self.service.node_poll(node, "a", FREE, wait).await;
        polled.unwrap().sandboxes
    }

    /// The node says this about the last order.
    pub(crate) async fn says(&self, row: &SandboxRow, said: SandboxSaid) -> SandboxRow {
        let epoch = self.sandbox(&row.id).await.epoch;
        self.says_by(row, epoch, said).await;
        self.sandbox(&row.id).await
    }

    /// The same about the order of this epoch.
    pub(crate) async fn says_by(&self, row: &SandboxRow, epoch: u64, said: SandboxSaid) {
        let node = node(1);
        let report = self
            .service
            .sandbox_report(&node, &row.id, epoch, said, None);
        assert!(!report.await.unwrap().duplicate);
    }

    pub(crate) async fn provisioning(&self, ask: SandboxAsk) -> SandboxRow {
        let node = node(1);
        self.register(&node, "a").await;
        let row = self.make(ask).await;
        // A node that registers again is told again what it was told before.
        let works = self.works(&node, NOW).await;
        let work = works.iter().find(|work| work.row.id == row.id).unwrap();
        assert_eq!(work.want, Want::Make);
        self.sandbox(&row.id).await
    }

    pub(crate) async fn ready(&self, ask: SandboxAsk) -> SandboxRow {
        let row = Box::pin(self.provisioning(ask)).await;
        self.says(&row, said_ready()).await
    }

    pub(crate) async fn paused(&self) -> SandboxRow {
        let row = self.ready(ask()).await;
        let pausing = self.service.sandbox_pause(&user(), &row.id, true).await;
        self.says(&pausing.unwrap(), SandboxSaid::Paused).await
    }

    pub(crate) async fn sandbox_kinds(&self, id: &model::id::SandboxId) -> Vec<String> {
        let events = self.service.sandbox_events(&user(), id, 0, 100).await;
        let kind = |event: model::event::Event| event.kind.replace("sandbox.", "");
        events.unwrap().into_iter().map(kind).collect()
    }

    /// A heartbeat of a node that has these.
    pub(crate) async fn beat(&self, has: &[SandboxRef]) -> service::Beat {
        let node = node(1);
        let beat = self.service.node_heartbeat(&node, "a", &[], has);
        beat.await.unwrap()
    }
}

#[tokio::test]
async fn a_sandbox_lives_from_its_request_to_its_end() {
    let world = World::new();
    let row = world.ready(ask()).await;
    assert_eq!(row.expires_at_ms, Some(world.clock.now_ms() + TTL));
    assert_eq!(
        (row.driver.as_deref(), row.enforcement.len()),
        (Some("linux"), 1)
    );
    assert_eq!(row.access_token.text().len(), 64);
    let (ctx, node, id) = (user(), node(1), &row.id);
    world.service.sandbox_pause(&ctx, id, true).await.unwrap();
    let work = world.works(&node, NOW).await.remove(0);
    assert_eq!((work.want, work.row.epoch), (Want::Pause, 2));
    let paused = world.says(&row, SandboxSaid::Paused).await;
    assert_eq!(
        (paused.expires_at_ms, paused.state),
        (None, SandboxState::Paused { memory: true })
    );
    world.clock.advance(10 * TTL);
    world.service.sandbox_resume(&ctx, id, true).await.unwrap();
    assert_eq!(world.works(&node, NOW).await[0].want, Want::Resume);
    let ready = world.says(&row, said_ready()).await;
    assert_eq!(ready.expires_at_ms, Some(world.clock.now_ms() + TTL));
    world.service.sandbox_destroy(&ctx, id).await.unwrap();
    assert_eq!(world.works(&node, NOW).await[0].want, Want::Destroy);
    let gone = world.says(&row, SandboxSaid::Destroyed).await;
    assert_eq!((gone.state, gone.epoch), (SandboxState::Destroyed, 4));
    let kinds = [
        "requested",
        "provisioning",
        "ready",
        "pausing",
        "paused",
        "resuming",
        "ready",
        "destroying",
        "destroyed",
    ];
    assert_eq!(world.sandbox_kinds(id).await, kinds);
}

#[tokio::test]
async fn a_pause_without_memory_is_told_to_the_node_and_a_resume_cannot_bring_it_back() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let (service, ctx, node, id) = (&world.service, user(), node(1), &row.id);
    let pausing = service.sandbox_pause(&ctx, id, true).await.unwrap();
    assert_eq!(pausing.state, SandboxState::Pausing { memory: true });
    // Whoever lets go of more is heard at any time; whoever wants to keep more comes too late.
    let pausing = service.sandbox_pause(&ctx, id, false).await.unwrap();
    let again = service.sandbox_pause(&ctx, id, true).await.unwrap();
    assert_eq!((&again, pausing.epoch), (&pausing, row.epoch + 2));
    let stale = service.sandbox_report(&node, id, row.epoch + 1, SandboxSaid::Paused, None);
    assert_eq!(stale.await.unwrap_err().code(), "stale_epoch");
    let work = world.works(&node, NOW).await.remove(0);
    assert_eq!(work.row.state, SandboxState::Pausing { memory: false });
    let paused = world.says(&row, SandboxSaid::Paused).await;
    assert_eq!(paused.state, SandboxState::Paused { memory: false });
    let resuming = service.sandbox_connect(&ctx, id, (None, true), NOW);
    assert_eq!(
        resuming.await.unwrap().state,
        SandboxState::Resuming { memory: false }
    );
    let events = service.sandbox_events(&ctx, id, 0, 100).await.unwrap();
    let kept = |event: &model::event::Event| event.data.contains(r#""memory":false"#);
    let kinds: Vec<_> = events.iter().filter(|event| kept(event)).collect();
    let kinds: Vec<_> = kinds.iter().map(|event| &*event.kind).collect();
    assert_eq!(
        kinds,
        ["sandbox.pausing", "sandbox.paused", "sandbox.resuming"]
    );
}

#[tokio::test]
async fn a_sandbox_is_handed_to_the_poll_that_waits_in_the_commit_that_makes_it() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    for looks in 0..100 {
        let (service, poller) = (world.service.clone(), node.clone());
        let poll = tokio::spawn(async move { service.node_poll(&poller, "a", FREE, LONG).await });
        // Each is answered by the readers that the poll waits for, too, so that it gets to its place.
        for _ in 0..looks {
            world.service.ready().await.unwrap();
        }
        let row = world.make(ask()).await;
        let polled = poll.await.unwrap().unwrap();
        assert_eq!(polled.sandboxes[0].row.id, row.id);
        assert!(world.works(&node, NOW).await.is_empty(), "told once");
        if row.state == SandboxState::Provisioning {
            assert_eq!(polled.sandboxes[0].row, row);
            assert_eq!(polled.sandboxes[0].want, Want::Make);
            return;
        }
    }
    panic!("no sandbox was placed in the commit that made it");
}

#[tokio::test]
async fn whoever_creates_is_woken_by_the_nodes_word_and_the_poll_by_every_order() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let (service, ctx) = (world.service.clone(), node.clone());
    let obeys = tokio::spawn(async move {
        loop {
            let polled = service.node_poll(&ctx, "a", FREE, LONG).await.unwrap();
            for work in polled.sandboxes {
                let said = match work.want {
                    Want::Snapshot => SandboxSaid::Saved { bytes: 0 },
                    Want::Make | Want::Resume => said_ready(),
                    Want::Pause => SandboxSaid::Paused,
                    Want::Destroy => SandboxSaid::Destroyed,
                };
                let (id, epoch) = (&work.row.id, work.row.epoch);
                let report = service.sandbox_report(&ctx, id, epoch, said, None);
                report.await.unwrap();
            }
        }
    });
    let (service, ctx) = (&world.service, user());
    let id = world.make(ask()).await.id;
    let wait = || async { service.sandbox_wait(&ctx, &id, LONG).await.unwrap().state };
    assert_eq!(wait().await, SandboxState::Ready);
    service.sandbox_pause(&ctx, &id, true).await.unwrap();
    assert_eq!(wait().await, SandboxState::Paused { memory: true });
    let connected = service.sandbox_connect(&ctx, &id, (Some(2 * TTL), true), LONG);
    let connected = connected.await.unwrap();
    assert_eq!(
        (connected.state, connected.ttl_ms),
        (SandboxState::Ready, 2 * TTL)
    );
    service.sandbox_destroy(&ctx, &id).await.unwrap();
    assert_eq!(wait().await, SandboxState::Destroyed);
    obeys.abort();
}

#[tokio::test]
async fn a_node_that_takes_no_sandboxes_gets_none_and_one_that_does_gets_as_many_as_it_can() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    for _ in 0..10 {
        world.make(ask()).await;
    }
    let polled = world.poll(&node, NOW).await;
    assert!(polled.sandboxes.is_empty());
    assert_eq!(world.works(&node, NOW).await.len(), 8);
    let free = Free {
        slots: 0,
        sandboxes: 1,
        ..Free::default()
    };
    let polled = world.service.node_poll(&node, "a", free, NOW).await;
    assert_eq!(polled.unwrap().sandboxes.len(), 1);
    let filter = SandboxFilter {
        states: vec!["requested"],
        ..SandboxFilter::default()
    };
    let left = world.service.sandbox_list(&user(), filter, None, 50).await;
    assert_eq!(left.unwrap().sandboxes.len(), 1);
}

#[tokio::test]
async fn a_pinned_sandbox_goes_to_its_node_only_and_a_closed_node_gets_none() {
    let world = World::new();
    for number in [1, 2] {
        world.register(&node(number), "a").await;
    }
    let mut pinned = ask();
    pinned.spec.node = Some(node_id(2));
    let row = world.make(pinned).await;
    assert!(world.works(&node(1), NOW).await.is_empty());
    assert_eq!(world.works(&node(2), NOW).await[0].row.id, row.id);
    let mut nowhere = ask();
    nowhere.spec.node = Some(node_id(3));
    let made = world.service.sandbox_create(&user(), nowhere, None).await;
    assert_eq!(made.unwrap_err().code(), "invalid_argument");
}

/// A sandbox in each state that somebody can meet.
pub(crate) async fn in_state(world: &World, state: &str) -> SandboxRow {
    let (service, ctx) = (&world.service, user());
    let row = match state {
        "requested" => world.make(ask()).await,
        "provisioning" => world.provisioning(ask()).await,
        "paused" | "resuming" => Box::pin(world.paused()).await,
        _ => world.ready(ask()).await,
    };
    let id = &row.id;
    let row = match state {
        "pausing" => service.sandbox_pause(&ctx, id, true).await.unwrap(),
        "resuming" => service.sandbox_resume(&ctx, id, true).await.unwrap(),
        "destroying" => service.sandbox_destroy(&ctx, id).await.unwrap(),
        "destroyed" => {
            service.sandbox_destroy(&ctx, id).await.unwrap();
            world.says(&row, SandboxSaid::Destroyed).await
        }
        "failed" => {
            let why = "fell".to_owned();
            world.says(&row, SandboxSaid::Failed { why }).await
        }
        _ => row,
    };
    assert_eq!(row.state.name(), state);
    row
}

async fn call(world: &World, call: &str, id: &model::id::SandboxId) -> String {
    let (service, ctx) = (&world.service, user());
    let answer = match call {
        "timeout" => service.sandbox_set_timeout(&ctx, id, 2 * TTL).await,
        "pause" => service.sandbox_pause(&ctx, id, true).await,
        "resume" => service.sandbox_resume(&ctx, id, true).await,
        "connect" => {
            service
                .sandbox_connect(&ctx, id, (Some(2 * TTL), true), NOW)
                .await
        }
        _ => service.sandbox_destroy(&ctx, id).await,
    };
    match answer {
        Ok(row) => row.state.name().to_owned(),
        Err(error) => error.code().to_owned(),
    }
}

/// What each call does with a sandbox in each state: the state that follows, or the code of an error.
const TABLE: &str = "
in              timeout         pause           resume          connect         destroy
requested       requested       conflict        conflict        requested       destroyed
provisioning    provisioning    conflict        conflict        provisioning    destroying
ready           ready           pausing         ready           ready           destroying
pausing         sandbox_paused  pausing         conflict        sandbox_paused  destroying
paused          sandbox_paused  paused          resuming        resuming        destroying
resuming        resuming        conflict        resuming        resuming        destroying
destroying      sandbox_gone    sandbox_gone    sandbox_gone    sandbox_gone    destroying
destroyed       sandbox_gone    sandbox_gone    sandbox_gone    sandbox_gone    destroyed
failed          sandbox_gone    sandbox_gone    sandbox_gone    sandbox_gone    destroyed";

#[tokio::test]
async fn every_call_in_every_state_does_what_it_should_and_twice_is_once() {
    let mut lines = TABLE.trim().lines().map(str::split_whitespace);
    let calls: Vec<&str> = lines.next().unwrap().skip(1).collect();
    let mut cells = 0;
    for mut line in lines {
        let state = line.next().unwrap();
        for (name, answer) in calls.iter().zip(line) {
            Box::pin(check_call(state, name, answer)).await;
            cells += 1;
        }
    }
    assert_eq!(cells, 45);
}

async fn check_call(state: &str, name: &str, answer: &str) {
    let world = World::new();
    let row = Box::pin(in_state(&world, state)).await;
    let got = call(&world, name, &row.id).await;
    assert_eq!(got, answer, "{name} of one that is {state}");
    let after = world.sandbox(&row.id).await;
    let again = call(&world, name, &row.id).await;
    assert_eq!(again, answer, "{name} twice of one that is {state}");
    let last = world.sandbox(&row.id).await;
    // A time to live counts from each time anew.
    let changes = u64::from(name == "timeout" && !answer.starts_with("sandbox_"));
    assert_eq!(last.version, after.version + changes, "{name} {state}");
    let events = world.sandbox_kinds(&row.id).await.len();
    assert_eq!(events as u64, last.version);
}

#[tokio::test]
async fn a_request_with_the_same_key_makes_one_sandbox() {
    let world = World::new();
    let key = |hash: &str| {
        Some(Idempotency {
            key: "k".to_owned(),
            request_hash: hash.to_owned(),
        })
    };
    let create = |hash: &str| {
        let (service, key) = (world.service.clone(), key(hash));
        tokio::spawn(async move { service.sandbox_create(&user(), ask(), key).await })
    };
    let both = [create("h"), create("h")];
    let mut ids = HashSet::new();
    for made in both {
        ids.insert(made.await.unwrap().unwrap().id);
    }
    assert_eq!(ids.len(), 1);
    let other = create("other").await.unwrap().unwrap_err();
    assert_eq!(other.code(), "idempotency_mismatch");
    let id = ids.into_iter().next().unwrap();
    world.service.sandbox_destroy(&user(), &id).await.unwrap();
    let again = create("h").await.unwrap().unwrap();
    assert_eq!(again.state, SandboxState::Destroyed);
    // A job may have the same key: it is for something else.
    let job = world.service.job_create(&user(), spec(), key("h")).await;
    job.unwrap();
}

#[tokio::test]
async fn a_sandbox_of_another_tenant_is_not_there_and_nodes_ask_for_none() {
    let world = World::new();
    let id = world.make(ask()).await.id;
    let service = &world.service;
    // Its row was read a moment ago, and is known.
    assert!(service.sandbox_get_recent(&user(), &id).await.is_ok());
    for (ctx, code) in [(stranger(), "not_found"), (node(1), "forbidden")] {
        let answers = [
            service.sandbox_get(&ctx, &id).await.map(drop),
            service.sandbox_get_recent(&ctx, &id).await.map(drop),
            service.sandbox_wait(&ctx, &id, LONG).await.map(drop),
            service.sandbox_set_timeout(&ctx, &id, 1).await.map(drop),
            service.sandbox_pause(&ctx, &id, true).await.map(drop),
            service.sandbox_resume(&ctx, &id, true).await.map(drop),
            service
                .sandbox_connect(&ctx, &id, (None, true), NOW)
                .await
                .map(drop),
            service.sandbox_destroy(&ctx, &id).await.map(drop),
            service.sandbox_events(&ctx, &id, 0, 1).await.map(drop),
        ];
        let codes = answers.map(|answer| answer.unwrap_err().code());
        assert_eq!(codes, [code; 9]);
    }
    let (ctx, all) = (stranger(), SandboxFilter::default());
    let none = service.sandbox_list(&ctx, all, None, 9);
    assert!(none.await.unwrap().sandboxes.is_empty());
    let made = service.sandbox_create(&node(1), ask(), None).await;
    assert_eq!(made.unwrap_err().code(), "forbidden");
    let said = service
        .sandbox_report(&user(), &id, 1, said_ready(), None)
        .await;
    assert_eq!(said.unwrap_err().code(), "forbidden");
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_written() {
    let world = World::new();
    world.register(&node(1), "a").await;
    let (service, ctx) = (&world.service, user());
    let mut large = ask();
    large.spec.limits.memory_bytes = Some(5 << 30);
    let mut wrong = ask();
    wrong.metadata.insert(",".to_owned(), String::new());
    let full = world.with_free(|| Some(0));
    let codes = [
        service
            .sandbox_create(&ctx, large, None)
            .await
            .unwrap_err()
            .code(),
        service
            .sandbox_create(&ctx, wrong, None)
            .await
            .unwrap_err()
            .code(),
        full.sandbox_create(&ctx, ask(), None)
            .await
            .unwrap_err()
            .code(),
    ];
    assert_eq!(codes, ["limit_beyond_machine", "metadata_key", "disk_full"]);
    let page = service
        .sandbox_list(&ctx, SandboxFilter::default(), None, 9)
        .await;
    assert!(page.unwrap().sandboxes.is_empty());
    let label = |n: u32| (n.to_string(), String::new());
    let filter = SandboxFilter {
        metadata: (0..5).map(label).collect(),
        ..SandboxFilter::default()
    };
    let much = service.sandbox_list(&ctx, filter, None, 9).await;
    assert!(matches!(much, Err(Error::Invalid(_))), "{much:?}");
}

#[tokio::test]
async fn a_tenant_has_no_more_sandboxes_than_the_bound_until_one_is_over() {
    let world = World::new();
    let row = world.make(ask()).await;
    let copy = |tx: &mut store::Tx<'_>| {
        tx.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1) \
             INSERT INTO sandbox (id, tenant, principal, state, state_json, version, epoch, spec, \
             metadata, access_token, ttl_ms, created_at_ms) SELECT printf('sbx_%032x', n), tenant, \
             principal, state, state_json, 1, 0, spec, metadata, '', 1, 1 FROM n, sandbox",
            &[(limits::SANDBOXES_MAX - 1).into()],
        )
    };
    world.store().write(copy).await.unwrap();
    // Another process counts; this one has room by its last count.
    let again = world.again();
    let made = again.sandbox_create(&user(), ask(), None).await;
    assert_eq!(made.unwrap_err().code(), "too_much");
    again
        .sandbox_create(&stranger(), ask(), None)
        .await
        .unwrap();
    again.sandbox_destroy(&user(), &row.id).await.unwrap();
    again.sandbox_create(&user(), ask(), None).await.unwrap();
}

#[tokio::test]
async fn sandboxes_are_listed_page_by_page() {
    let world = World::new();
    let mut made = HashSet::new();
    for _ in 0..5 {
        made.insert(world.make(ask()).await.id);
    }
    let (ctx, mut seen, mut before) = (user(), HashSet::new(), None);
    loop {
        let all = SandboxFilter::default();
        let page = world
            .service
            .sandbox_list(&ctx, all, before.as_deref(), 2)
            .await;
        let page = page.unwrap();
        seen.extend(page.sandboxes.into_iter().map(|row| row.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);
    let junk = world
        .service
        .sandbox_list(&ctx, SandboxFilter::default(), Some("x"), 2);
    assert_eq!(junk.await.unwrap_err().code(), "invalid_argument");
}
