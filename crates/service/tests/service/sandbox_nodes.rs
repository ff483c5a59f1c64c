//! Sandboxes that live on and their nodes and clocks: orders, reports, ends, and what is lost on the way.

use crate::sandboxes::*;
use crate::*;
use model::enforcement::{Enforced, Held};
use model::node::{HostChange, HostMoment};
use model::principal::Role;
use model::sandbox::{SandboxState, Want};
use model::sandbox_spec::OnExpiry;
use service::loops::{due_pass, prune_pass};
use service::{Caller, SandboxRef, SandboxSaid, SandboxSeen, UsagePoint};
use std::collections::HashSet;

#[tokio::test]
async fn a_time_to_live_counts_from_now_and_is_cut_to_a_day() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let (service, ctx) = (&world.service, user());
    world.clock.advance(TTL / 2);
    let now = world.clock.now_ms();
    let short = service.sandbox_set_timeout(&ctx, &row.id, 1000).await;
    assert_eq!(short.unwrap().expires_at_ms, Some(now + 1000));
    let kept = service
        .sandbox_connect(&ctx, &row.id, (Some(500), true), NOW)
        .await;
    assert_eq!(
        kept.unwrap().expires_at_ms,
        Some(now + 1000),
        "connecting never shortens"
    );
    let long = service.sandbox_set_timeout(&ctx, &row.id, u64::MAX).await;
    let day = limits::SANDBOX_TTL_MAX_MS;
    assert_eq!(long.unwrap().expires_at_ms, Some(now + day));
    let mut forever = ask();
    forever.ttl_ms = u64::MAX;
    assert_eq!(world.make(forever).await.ttl_ms, day);
    let mut never = ask();
    never.ttl_ms = 0;
    let made = service.sandbox_create(&ctx, never, None).await;
    assert_eq!(made.unwrap_err().code(), "limit_zero");
}

#[tokio::test]
async fn a_sandbox_whose_time_is_over_is_taken_away_or_paused_as_was_asked() {
    for (on_expiry, next) in [
        (OnExpiry::Kill, SandboxState::Destroying),
        (OnExpiry::Pause, SandboxState::Pausing { memory: true }),
        (
            OnExpiry::PauseWithoutMemory,
            SandboxState::Pausing { memory: false },
        ),
    ] {
        let world = World::new();
        let mut asked = ask();
        asked.spec.on_expiry = on_expiry;
        let row = world.ready(asked).await;
        world.clock.advance(TTL - 1);
        assert_eq!(due_pass(&world.service).await.unwrap().expired, 0);
        world.clock.advance(1);
        assert_eq!(due_pass(&world.service).await.unwrap().expired, 1);
        assert_eq!(due_pass(&world.service).await.unwrap().expired, 0);
        let after = world.sandbox(&row.id).await;
        assert_eq!(after.state, next);
        assert_eq!(world.works(&node(1), NOW).await[0].row.epoch, 2);
    }
}

#[tokio::test]
async fn one_that_is_extended_at_the_last_moment_lives_on() {
    let world = World::new();
    let row = world.ready(ask()).await;
    world.clock.advance(TTL);
    let ctx = user();
    let extended = world.service.sandbox_set_timeout(&ctx, &row.id, TTL);
    extended.await.unwrap();
    assert_eq!(due_pass(&world.service).await.unwrap().expired, 0);
    assert_eq!(world.sandbox(&row.id).await.state, SandboxState::Ready);
    assert_eq!(
        world.sandbox_kinds(&row.id).await.last().unwrap(),
        "extended"
    );
}

#[tokio::test]
async fn what_takes_too_long_is_given_up_with_its_reason() {
    let cases = [
        ("requested", 30_000, "failed", "no node took it in time"),
        (
            "provisioning",
            limits::SANDBOX_ORDER_MS,
            "failed",
            "its node did not make it in time",
        ),
        (
            "pausing",
            limits::SANDBOX_ORDER_MS,
            "failed",
            "its node did not pause it in time",
        ),
        (
            "resuming",
            limits::SANDBOX_ORDER_MS,
            "failed",
            "its node did not resume it in time",
        ),
        (
            "paused",
            limits::SANDBOX_PAUSED_MS,
            "destroying",
            "it was paused for too long",
        ),
    ];
    for (state, after_ms, next, why) in cases {
        let world = World::new();
        let row = Box::pin(in_state(&world, state)).await;
        world.clock.advance(after_ms - 1);
        due_pass(&world.service).await.unwrap();
        assert_eq!(world.sandbox(&row.id).await.version, row.version, "{state}");
        world.clock.advance(1);
        due_pass(&world.service).await.unwrap();
        let after = world.sandbox(&row.id).await;
        assert_eq!(after.state.name(), next);
        assert_eq!(after.reason.as_deref(), Some(why));
    }
}

#[tokio::test]
async fn an_order_that_grew_old_while_nobody_watched_is_not_given_up_at_once() {
    let world = World::new();
    let row = Box::pin(in_state(&world, "provisioning")).await;
    world.clock.advance(10 * limits::SANDBOX_ORDER_MS);
    let again = world.again();
    due_pass(&again).await.unwrap();
    assert_eq!(
        world.sandbox(&row.id).await.state,
        SandboxState::Provisioning
    );
    world.clock.advance(limits::SANDBOX_ORDER_MS);
    assert_eq!(due_pass(&again).await.unwrap().given_up, 1);
}

#[tokio::test]
async fn a_report_again_is_a_duplicate_and_one_of_another_order_is_stale() {
    let world = World::new();
    let row = world.provisioning(ask()).await;
    let (service, node, id) = (&world.service, node(1), &row.id);
    let report = |epoch, said| service.sandbox_report(&node, id, epoch, said, None);
    assert!(
        !report(1, SandboxSaid::Provisioning)
            .await
            .unwrap()
            .duplicate
    );
    assert!(!report(1, said_ready()).await.unwrap().duplicate);
    assert!(report(1, said_ready()).await.unwrap().duplicate);
    let other = SandboxSaid::Ready {
        driver: "other".to_owned(),
        enforcement: Vec::new(),
    };
    assert_eq!(report(1, other).await.unwrap_err().code(), "conflict");
    assert_eq!(
        report(1, SandboxSaid::Paused).await.unwrap_err().code(),
        "conflict"
    );
    service.sandbox_pause(&user(), id, true).await.unwrap();
    for epoch in [0, 1, 3] {
        assert_eq!(
            report(epoch, said_ready()).await.unwrap_err().code(),
            "stale_epoch"
        );
    }
    assert!(!report(2, SandboxSaid::Paused).await.unwrap().duplicate);
    assert!(report(2, SandboxSaid::Paused).await.unwrap().duplicate);
    service.sandbox_destroy(&user(), id).await.unwrap();
    assert!(!report(3, SandboxSaid::Destroyed).await.unwrap().duplicate);
    assert!(report(3, SandboxSaid::Destroyed).await.unwrap().duplicate);
    assert_eq!(
        report(3, said_ready()).await.unwrap_err().code(),
        "stale_epoch"
    );
    assert_eq!(
        report(3, SandboxSaid::Provisioning)
            .await
            .unwrap_err()
            .code(),
        "stale_epoch"
    );
    let other = crate::node(2);
    let others = service.sandbox_report(&other, id, 3, SandboxSaid::Destroyed, None);
    assert_eq!(others.await.unwrap_err().code(), "not_your_lease");
    assert_eq!(world.sandbox(id).await.version, 7);
}

#[tokio::test]
async fn a_sandbox_of_a_node_that_is_silent_or_gone_has_failed() {
    for goodbye in [true, false] {
        let world = World::new();
        let ready = world.ready(ask()).await;
        let making = world.provisioning(ask()).await;
        let ending = world.ready(ask()).await;
        let (service, ctx) = (&world.service, user());
        service.sandbox_destroy(&ctx, &ending.id).await.unwrap();
        let waits = service.sandbox_wait(&ctx, &ending.id, LONG);
        let lose = async {
            if goodbye {
                service.node_gone(&node(1)).await.unwrap();
            } else {
                world.silence().await;
            }
        };
        let (waited, ()) = tokio::join!(waits, lose);
        assert_eq!(waited.unwrap().state, SandboxState::Destroyed);
        for row in [ready, making] {
            let after = world.sandbox(&row.id).await;
            assert_eq!(after.state.name(), "failed");
            assert_eq!(after.reason.as_deref(), Some("node lost"));
        }
    }
}

#[tokio::test]
async fn a_heartbeat_says_all_orders_again_and_what_is_no_longer_the_nodes() {
    let world = World::new();
    let ready = world.ready(ask()).await;
    let ending = world.ready(ask()).await;
    let service = &world.service;
    service.sandbox_destroy(&user(), &ending.id).await.unwrap();
    world.works(&node(1), NOW).await;
    let stranger = SandboxRef {
        id: model::id::SandboxId::from_parts(1, [9; 10]),
        epoch: 1,
    };
    let beat = world
        .beat(&[names(&ready), names(&ending), stranger.clone()])
        .await;
    assert_eq!(beat.stale_sandboxes, [stranger]);
    assert_eq!(
        (beat.sandboxes.len(), beat.sandboxes[0].want),
        (1, Want::Destroy)
    );
    assert_eq!(beat.sandbox_lives.len(), 1);
    let life = TTL + limits::LIFE_MARGIN_MS;
    assert_eq!(
        (&beat.sandbox_lives[0].id, beat.sandbox_lives[0].life_ms),
        (&ready.id, life)
    );
    let ctx = user();
    let extended = service.sandbox_set_timeout(&ctx, &ready.id, 5 * TTL);
    extended.await.unwrap();
    let beat = world.beat(&[names(&ready)]).await;
    assert_eq!(
        beat.sandbox_lives[0].life_ms,
        5 * TTL + limits::LIFE_MARGIN_MS
    );
}

#[tokio::test]
async fn a_sandbox_that_its_node_does_not_name_for_a_minute_has_failed() {
    let world = World::new();
    let ready = world.ready(ask()).await;
    let named = world.ready(ask()).await;
    let making = world.provisioning(ask()).await;
    world.clock.advance(2 * limits::HEARTBEAT_MS);
    world.beat(&[names(&named)]).await;
    assert_eq!(world.sandbox(&ready.id).await.state, SandboxState::Ready);
    world.clock.advance(1);
    let beat = world.beat(&[names(&named)]).await;
    assert_eq!(world.sandbox(&ready.id).await.state.name(), "failed");
    assert_eq!(world.sandbox(&named.id).await.state, SandboxState::Ready);
    assert_eq!(
        world.sandbox(&making.id).await.state,
        SandboxState::Provisioning
    );
    assert_eq!((beat.sandbox_lives.len(), beat.sandboxes.len()), (1, 1));
    let many = vec![names(&named); 2 * limits::NODE_SANDBOXES_MAX as usize + 1];
    let beat = world
        .service
        .node_heartbeat(&node(1), "a", &[], &many)
        .await;
    assert_eq!(beat.unwrap_err().code(), "too_many");
}

#[tokio::test]
async fn a_new_process_of_a_node_hears_what_it_has_and_every_order_anew() {
    let world = World::new();
    let ready = world.ready(ask()).await;
    let making = world.provisioning(ask()).await;
    assert!(world.works(&node(1), NOW).await.is_empty(), "told once");
    let registered = world
        .service
        .node_register(&node(1), hello("a"))
        .await
        .unwrap();
    let held: HashSet<_> = registered.sandboxes.iter().map(|row| &row.id).collect();
    assert_eq!(held, HashSet::from([&ready.id, &making.id]));
    let works = world.works(&node(1), NOW).await;
    assert_eq!((works.len(), &works[0].row.id), (1, &making.id));
}

#[tokio::test]
async fn sandboxes_that_are_over_are_forgotten_when_jobs_are_and_others_are_not() {
    let world = World::new();
    let over = world.make(ask()).await;
    world
        .service
        .sandbox_destroy(&user(), &over.id)
        .await
        .unwrap();
    let waits = world.make(ask()).await;
    world.clock.advance(limits::RETAIN_JOBS_MS);
    assert_eq!(prune_pass(&world.service).await.unwrap().sandboxes, 0);
    world.clock.advance(1);
    assert_eq!(prune_pass(&world.service).await.unwrap().sandboxes, 1);
    let gone = world.service.sandbox_get(&user(), &over.id).await;
    assert_eq!(gone.unwrap_err().code(), "not_found");
    world.sandbox(&waits.id).await;
}

#[tokio::test]
async fn a_node_that_has_a_sandbox_is_not_forgotten() {
    let world = World::new();
    let row = world.ready(ask()).await;
    world
        .clock
        .advance(limits::NODE_FORGET_MS + limits::LEASE_MS + 1);
    assert_eq!(prune_pass(&world.service).await.unwrap().nodes, 0);
    world.silence().await;
    assert_eq!(world.sandbox(&row.id).await.state.name(), "failed");
    assert_eq!(prune_pass(&world.service).await.unwrap().nodes, 1);
}

#[tokio::test]
async fn a_poll_that_is_gone_at_any_moment_loses_no_order() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let mut made = HashSet::new();
    for round in 0..40_u32 {
        let (service, poller) = (world.service.clone(), node.clone());
        let poll = tokio::spawn(async move { service.node_poll(&poller, "a", FREE, LONG).await });
        for _ in 0..round / 4 {
            world.service.ready().await.unwrap();
        }
        let (service, gone) = (world.service.clone(), poll.abort_handle());
        let create = async move { service.sandbox_create(&user(), ask(), None).await };
        let create = tokio::spawn(create);
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        made.insert(create.await.unwrap().unwrap().id);
        if let Ok(Ok(polled)) = poll.await {
            for work in polled.sandboxes {
                made.remove(&work.row.id);
            }
        }
    }
    let mut got = HashSet::new();
    while got.len() < made.len() {
        let works = world.works(&node, LONG).await;
        assert!(!works.is_empty(), "{} of {}", got.len(), made.len());
        got.extend(works.into_iter().map(|work| work.row.id));
    }
    assert_eq!(got, made);
}

#[tokio::test]
async fn a_sandbox_whose_node_cannot_pause_is_not_asked_to_and_ends_instead_when_its_time_is_over()
{
    let world = World::new();
    let mut asked = ask();
    asked.spec.on_expiry = OnExpiry::Pause;
    let row = world.provisioning(asked).await;
    let cannot = Enforced {
        clause: "pause".to_owned(),
        how: "no control group".to_owned(),
        value: None,
        asked: false,
        state: Held::NotHeld,
    };
    let said = SandboxSaid::Ready {
        driver: "linux".to_owned(),
        enforcement: vec![cannot],
    };
    let row = world.says(&row, said).await;
    let refused = world.service.sandbox_pause(&user(), &row.id, true).await;
    assert_eq!(refused.unwrap_err().code(), "pause_unsupported");
    assert_eq!(world.sandbox(&row.id).await.version, row.version);
    // Without what runs there is nothing to stop.
    let other = world.ready(ask()).await;
    let halted = world.service.sandbox_pause(&user(), &other.id, false).await;
    assert_eq!(halted.unwrap().state.name(), "pausing");
    world.clock.advance(TTL + 1);
    assert_eq!(due_pass(&world.service).await.unwrap().expired, 1);
    let row = world.sandbox(&row.id).await;
    assert_eq!(row.state, SandboxState::Destroying);
}

#[tokio::test]
async fn what_a_sandbox_used_is_known_for_a_day_and_to_its_owner() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let (service, ctx) = (&world.service, user());
    let aged = |age_ms: u64, cpu_us: u64| UsagePoint {
        at_ms: age_ms,
        cpu_us,
        ..UsagePoint::default()
    };
    let seen = |points| SandboxSeen {
        id: row.id.clone(),
        points,
    };
    let now = world.clock.now_ms();
    let points = vec![
        aged(limits::USAGE_AGE_MAX_MS + 1, 1),
        aged(20_000, 0),
        aged(10_000, 5_000_000),
    ];
    for who in [node(1), node(2)] {
        let told = service.sandbox_usage_report(&who, vec![seen(points.clone())]);
        told.await.unwrap();
    }
    let times = async || {
        let fresh = Some(aged(now, 6_000_000));
        let spans = service.sandbox_usage(&ctx, &row.id, (now - 30_000, u64::MAX), fresh);
        let spans = spans.await.unwrap();
        let short = spans.iter().map(|span| (span.end.at_ms, span.cpu_millis));
        short.collect::<Vec<_>>()
    };
    let all = [
        (now - 20_000, None),
        (now - 10_000, Some(500)),
        (now, Some(100)),
    ];
    assert_eq!(times().await, all);
    let too_much = vec![seen(vec![aged(0, 0); limits::USAGE_POINTS_MAX + 1])];
    let refused = service.sandbox_usage_report(&node(1), too_much).await;
    assert_eq!(refused.unwrap_err().code(), "too_many");
    let nobody = service.sandbox_usage_report(&ctx, Vec::new()).await;
    assert_eq!(nobody.unwrap_err().code(), "forbidden");
    let nosy = service.sandbox_usage(&node(1), &row.id, (0, 1), None).await;
    assert_eq!(nosy.unwrap_err().code(), "forbidden");
    world.clock.advance(limits::RETAIN_USAGE_MS + 600_000);
    assert_eq!(prune_pass(&world.service).await.unwrap().usage, 1);
    assert_eq!(times().await, [(now, None)]);
}

/// Numbers that are all different.
fn host(first: u32) -> HostChange {
    let moment = |number: u32| HostMoment {
        load_milli: u64::from(number),
        memory_available_bytes: u64::from(number) + 1,
        sandboxes: number + 2,
    };
    HostChange {
        before: moment(first),
        after: moment(first + 10),
    }
}

/// The events of a sandbox that have what its host was, without `sandbox.`.
async fn hosts(world: &World, id: &model::id::SandboxId) -> Vec<(String, serde_json::Value)> {
    let events = world.service.sandbox_events(&user(), id, 0, 100).await;
    let one = |event: model::event::Event| {
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        let host = data.get("host").cloned()?;
        Some((event.kind.replace("sandbox.", ""), host))
    };
    events.unwrap().into_iter().filter_map(one).collect()
}

fn shown(first: u64) -> serde_json::Value {
    let moment = |number: u64| {
        serde_json::json!({
            "load_milli": number,
            "memory_available_bytes": number + 1,
            "sandboxes": number + 2,
        })
    };
    serde_json::json!({"before": moment(first), "after": moment(first + 10)})
}

#[tokio::test]
async fn what_the_host_was_around_an_order_is_in_the_event_of_its_end_and_in_no_other() {
    let world = World::new();
    let row = world.provisioning(ask()).await;
    let (service, node, ctx, id) = (&world.service, node(1), user(), &row.id);
    let says = async |said, of| {
        let epoch = world.sandbox(id).await.epoch;
        let report = service.sandbox_report(&node, id, epoch, said, Some(host(of)));
        report.await.unwrap().duplicate
    };
    assert!(!says(said_ready(), 100).await);
    // What is told again is not written again.
    assert!(says(said_ready(), 200).await);
    // It goes where it was, and its node has the next order in the same moment.
    service.sandbox_recreate(&ctx, id, None).await.unwrap();
    assert!(!says(SandboxSaid::Destroyed, 300).await);
    assert_eq!(world.sandbox(id).await.state, SandboxState::Provisioning);
    // A node of the version before says nothing of it.
    world.says(&row, said_ready()).await;
    service.sandbox_destroy(&ctx, id).await.unwrap();
    assert!(!says(SandboxSaid::Destroyed, 400).await);
    let expect = [
        ("ready".to_owned(), shown(100)),
        ("requested".to_owned(), shown(300)),
        ("destroyed".to_owned(), shown(400)),
    ];
    assert_eq!(hosts(&world, id).await, expect);
}

#[tokio::test]
async fn what_the_host_was_is_told_of_a_making_that_failed() {
    let world = World::new();
    let row = world.provisioning(ask()).await;
    let (node, why) = (node(1), "no room".to_owned());
    let said = SandboxSaid::Failed { why };
    let report = world
        .service
        .sandbox_report(&node, &row.id, row.epoch, said, Some(host(1)));
    assert!(!report.await.unwrap().duplicate);
    let expect = [("failed".to_owned(), shown(1))];
    assert_eq!(hosts(&world, &row.id).await, expect);
}

#[tokio::test]
async fn what_a_host_was_is_not_for_those_who_may_not_see_nodes() {
    let world = World::new();
    let (service, node) = (&world.service, node(1));
    world.register(&node, "a").await;
    let mut ids = Vec::new();
    for ctx in [user(), stranger()] {
        let made = service.sandbox_create(&ctx, ask(), None).await;
        ids.push(made.unwrap().id);
        for work in world.works(&node, NOW).await {
            let (id, epoch) = (&work.row.id, work.row.epoch);
            let report = service.sandbox_report(&node, id, epoch, said_ready(), Some(host(1)));
            assert!(!report.await.unwrap().duplicate);
        }
    }
    let has = |event: &model::event::Event| event.data.contains("memory_available_bytes");
    let stored = async |id: &model::id::SandboxId| {
        let id = id.clone();
        let list = move |tx: &mut store::Tx<'_>| event::list(tx, "sandbox", id.as_str(), 0, 100);
        let events = world.store().read(list).await.unwrap();
        assert_eq!(events.last().unwrap().kind, "sandbox.ready");
        events.iter().any(has)
    };
    // By the record of another tenant nobody learns what its neighbours do.
    assert!(stored(&ids[0]).await);
    assert!(!stored(&ids[1]).await);
    let mut member = user();
    if let Caller::User(grant) = &mut member.caller {
        grant.role = Role::Member;
    }
    let seen = service.sandbox_events(&member, &ids[0], 0, 100).await;
    let seen = seen.unwrap();
    assert!(seen.iter().all(|event| !event.data.contains("host")));
    assert!(seen.last().unwrap().data.contains("expires_at_ms"));
    assert_eq!(hosts(&world, &ids[0]).await.len(), 1);
}
