//! A node with a certificate and without the token of a lease does nothing to it.

use crate::report::piece;
use crate::sandboxes::{FREE, ask, said_ready};
use crate::*;
use model::usage::UsagePoint;
use service::{
    EgressOwner, Error, ExecFact, LeaseRef, NetworkSaid, NewEgress, NodeHello, SandboxRow,
    SandboxSaid, SandboxSeen,
};

fn of_now(incarnation: &str) -> NodeHello {
    NodeHello {
        protocol: 2,
        ..hello(incarnation)
    }
}

/// A node of the version that shows tokens, with a job, and the token of that.
async fn leased(world: &World) -> (Ctx, JobRow, String) {
    let node = node(1);
    let registered = world.service.node_register(&node, of_now("a")).await;
    registered.unwrap();
    world.create(spec()).await;
    let (row, token) = poll(world, &node).await;
    (node, row, token)
}

async fn poll(world: &World, node: &Ctx) -> (JobRow, String) {
    let polled = world.poll(node, NOW).await;
    let tokens = world.service.lease_tokens_of_poll(node, &polled).await;
    let row = polled.leases.into_iter().next().unwrap();
    let token = tokens.unwrap().remove(row.id.as_str()).unwrap();
    (row, token)
}

/// All that can be said of a job, by who shows this.
async fn said(world: &World, ctx: &Ctx, row: &JobRow) -> Vec<&'static str> {
    let (service, id) = (&world.service, &row.id);
    let artifact = service::NewArtifact {
        epoch: row.epoch,
        attempt: row.attempt,
        path: "/a".to_owned(),
        digest: "0".repeat(64),
        size_bytes: 0,
        mode: 0o644,
    };
    let code = |error: Error| error.code();
    let all = [
        service
            .job_started(ctx, id, started(row))
            .await
            .map_err(code)
            .err(),
        service
            .job_output(ctx, id, row.epoch, 1, piece(b"a"))
            .await
            .map_err(code)
            .err(),
        service
            .job_release(ctx, id, row.epoch, "full")
            .await
            .map_err(code)
            .err(),
        service
            .job_secrets(ctx, id, row.epoch)
            .await
            .map_err(code)
            .err(),
        service
            .artifact_put(ctx, id, artifact)
            .await
            .map_err(code)
            .err(),
        service
            .job_finished(ctx, id, finished(row, Outcome::Succeeded))
            .await
            .map_err(code)
            .err(),
    ];
    all.into_iter().map(|code| code.unwrap_or("fine")).collect()
}

/// Attack: A stolen certificate of a node, without the tokens of its leases, ends jobs.
#[tokio::test]
async fn a_certificate_without_the_token_changes_nothing() {
    let world = World::new();
    let (thief, row, token) = leased(&world).await;
    let before = world.get(&row.id).await;
    let other = node(2);
    let registered = world.service.node_register(&other, of_now("b")).await;
    registered.unwrap();
    for ctx in [
        thief.clone(),
        thief.clone().showing(Some("1.0".to_owned())),
        thief.clone().showing(Some(token.replace("1.", "2."))),
    ] {
        assert_eq!(said(&world, &ctx, &row).await, ["lease_token_wrong"; 6]);
    }
    // Nor is the token of use without the certificate.
    let with_token = other.showing(Some(token.clone()));
    assert_eq!(said(&world, &with_token, &row).await, ["not_your_lease"; 6]);
    assert_eq!(world.get(&row.id).await, before);
    let node = thief.showing(Some(token));
    let report = world.service.job_started(&node, &row.id, started(&row));
    assert!(!report.await.unwrap().duplicate);
    let end = finished(&row, Outcome::Succeeded);
    let report = world.service.job_finished(&node, &row.id, end);
    assert!(!report.await.unwrap().duplicate);
}

/// Attack: A node speaks for another one's job, or looks by what it is refused with for jobs that it knows nothing of.
#[tokio::test]
async fn who_speaks_for_another_nodes_job_is_told_so_and_who_only_guesses_is_not() {
    let world = World::new();
    let (own, row, token) = leased(&world).await;
    let other = node(2);
    let registered = world.service.node_register(&other, of_now("b")).await;
    registered.unwrap();
    let before = world.get(&row.id).await;
    let known = JobRow {
        epoch: 2,
        ..row.clone()
    };
    let unknown = JobRow {
        id: JobId::from_parts(9, [9; 10]),
        ..row.clone()
    };
    for shown in [None, Some("1.0".to_owned()), Some(token)] {
        let ctx = other.clone().showing(shown);
        for (about, expect) in [
            (&row, "not_your_lease"),
            (&known, "lease_token_wrong"),
            (&unknown, "lease_token_wrong"),
        ] {
            assert_eq!(said(&world, &ctx, about).await, [expect; 6]);
        }
    }
    assert_eq!(said(&world, &own, &row).await, ["lease_token_wrong"; 6]);
    assert_eq!(world.get(&row.id).await, before);
}

#[tokio::test]
async fn who_speaks_for_another_nodes_sandbox_is_told_so() {
    let world = World::new();
    let node = node(1);
    let registered = world.service.node_register(&node, of_now("a")).await;
    registered.unwrap();
    let row = world.make(ask()).await;
    let polled = world.service.node_poll(&node, "a", FREE, NOW).await;
    assert_eq!(polled.unwrap().sandboxes.len(), 1);
    let before = world.sandbox(&row.id).await;
    let other = super::node(2);
    let registered = world.service.node_register(&other, of_now("b")).await;
    registered.unwrap();
    let said = said_of_sandbox(&world, &other, &before).await;
    assert_eq!(said[..4], ["not_your_lease"; 4]);
    assert_eq!(said[4..], ["lease_token_wrong"; 2]);
    assert_eq!(world.sandbox(&row.id).await, before);
}

/// Attack: The token of an old lease is shown for the new one.
#[tokio::test]
async fn the_token_of_an_old_lease_does_not_open_the_new_one() {
    let world = World::new();
    let (node, old, token) = leased(&world).await;
    let node = node.showing(Some(token));
    let report = world.service.job_release(&node, &old.id, 1, "full").await;
    report.unwrap();
    let (new, token) = poll(&world, &node).await;
    assert_eq!(new.epoch, 2);
    let report = world.service.job_started(&node, &new.id, started(&new));
    assert_eq!(report.await.unwrap_err().code(), "lease_token_wrong");
    let node = node.showing(Some(token));
    let report = world.service.job_started(&node, &new.id, started(&old));
    assert_eq!(report.await.unwrap_err().code(), "stale_epoch");
    let report = world.service.job_started(&node, &new.id, started(&new));
    report.await.unwrap();
}

#[tokio::test]
async fn what_was_spooled_through_an_outage_is_told_with_the_token_of_then_however_long_it_was() {
    const WEEK_MS: u64 = 7 * 24 * 3_600_000;
    let world = World::new();
    let (node, row, token) = leased(&world).await;
    let node = node.showing(Some(token));
    let report = world.service.job_started(&node, &row.id, started(&row));
    report.await.unwrap();
    world.silence().await;
    world.clock.advance(WEEK_MS);
    let end = finished(&row, Outcome::Succeeded);
    let told = world.service.job_finished(&node, &row.id, end).await;
    assert!(!told.unwrap().duplicate);
    let last = world.kinds(&row.id).await.pop().unwrap();
    assert_eq!(last, "job.reported_late");
}

#[tokio::test]
async fn a_renewal_and_another_process_of_the_node_bring_the_token_again_on_every_server() {
    let world = World::new();
    let (node, row, token) = leased(&world).await;
    let again = world.again();
    let held = [LeaseRef {
        job_id: row.id.clone(),
        epoch: 1,
    }];
    let beat = again.node_heartbeat(&node, "a", &held, &[]).await.unwrap();
    let tokens = again.lease_tokens_of_beat(&node, &beat).await.unwrap();
    assert_eq!(tokens[row.id.as_str()], token);
    let registered = again.node_register(&node, of_now("b")).await.unwrap();
    let tokens = again.lease_tokens_of_registered(&node, &registered).await;
    assert_eq!(tokens.unwrap()[row.id.as_str()], token);
}

#[tokio::test]
async fn of_a_node_of_the_version_before_no_token_is_asked_until_it_speaks_the_next() {
    let world = World::new();
    let (node, row) = world.leased(spec()).await;
    let report = world.service.job_started(&node, &row.id, started(&row));
    report.await.unwrap();
    let registered = world.service.node_register(&node, of_now("b")).await;
    registered.unwrap();
    let report = world.service.job_output(&node, &row.id, 1, 1, piece(b"a"));
    assert_eq!(report.await.unwrap_err().code(), "lease_token_wrong");
}

/// All that can be said of a sandbox, and of many at once, by who shows this.
async fn said_of_sandbox(world: &World, ctx: &Ctx, row: &SandboxRow) -> Vec<&'static str> {
    let (service, id) = (&world.service, &row.id);
    let rules = NetworkSaid {
        epoch: 0,
        enforcement: Vec::new(),
        refused: None,
    };
    let asked = NewEgress {
        name: "a.1".to_owned(),
        at_ms: 1,
        decision: "denied",
        host: None,
        code: None,
        record: "{}".to_owned(),
    };
    let used = SandboxSeen {
        id: id.clone(),
        points: vec![UsagePoint::default()],
    };
    let code = |error: Error| error.code();
    let ready = service.sandbox_report(ctx, id, row.epoch, said_ready(), None);
    let ready = ready.await.map(drop).map_err(code).err();
    let rules = service.sandbox_network_report(ctx, id, rules);
    let rules = rules.await.map(drop).map_err(code).err();
    let secrets = service.sandbox_secrets(ctx, id, row.epoch);
    let secrets = secrets.await.map(drop).map_err(code).err();
    let ran = service.exec_report(ctx, id, vec![command(1)]);
    let ran = ran.await.map(drop).map_err(code).err();
    let records = vec![(EgressOwner::Sandbox(id.clone()), asked)];
    let asked = service.egress_report(ctx, records);
    let asked = asked.await.map(drop).map_err(code).err();
    let used = service.sandbox_usage_report(ctx, vec![used]);
    let used = used.await.map_err(code).err();
    let all = [ready, rules, secrets, ran, asked, used];
    all.into_iter().map(|code| code.unwrap_or("fine")).collect()
}

fn command(seq: u64) -> ExecFact {
    ExecFact::Started {
        seq,
        at_ms: 5,
        is_step: false,
        asked: "{}".to_owned(),
    }
}

#[tokio::test]
async fn a_certificate_alone_says_nothing_of_a_sandbox_or_of_many() {
    let world = World::new();
    let node = node(1);
    let registered = world.service.node_register(&node, of_now("a")).await;
    registered.unwrap();
    let row = world.make(ask()).await;
    let polled = world
        .service
        .node_poll(&node, "a", FREE, NOW)
        .await
        .unwrap();
    let tokens = world.service.lease_tokens_of_poll(&node, &polled).await;
    let token = tokens.unwrap().remove(row.id.as_str()).unwrap();
    let row = world.sandbox(&row.id).await;
    for ctx in [node.clone(), node.clone().showing(Some("b".to_owned()))] {
        let said = said_of_sandbox(&world, &ctx, &row).await;
        assert_eq!(said, ["lease_token_wrong"; 6]);
    }
    assert_eq!(world.sandbox(&row.id).await, row);
    // The token is of this sandbox, and says nothing of others.
    let own = node.clone().showing(Some(token));
    let said = said_of_sandbox(&world, &own, &row).await;
    assert_eq!(
        said[3..],
        ["fine", "lease_token_wrong", "lease_token_wrong"]
    );
    assert_eq!(said[0], "fine");
    // The name of the process does, and not of what lives.
    let process = node.clone().showing(Some("a".to_owned()));
    let row = world.sandbox(&row.id).await;
    let said = said_of_sandbox(&world, &process, &row).await;
    assert_eq!(said[4..], ["fine", "fine"]);
    assert_eq!(said[..4], ["lease_token_wrong"; 4]);
    // Of what is over there is no token, and a certificate is not enough for it.
    let destroying = world.service.sandbox_destroy(&user(), &row.id).await;
    let over = SandboxSaid::Destroyed;
    let epoch = destroying.unwrap().epoch;
    let polled = world
        .service
        .node_poll(&node, "a", FREE, NOW)
        .await
        .unwrap();
    let tokens = world.service.lease_tokens_of_poll(&node, &polled).await;
    let own = node
        .clone()
        .showing(tokens.unwrap().remove(row.id.as_str()));
    let report = world
        .service
        .sandbox_report(&own, &row.id, epoch, over, None);
    report.await.unwrap();
    let tell = async |ctx: &Ctx| {
        let told = world.service.exec_report(ctx, &row.id, vec![command(2)]);
        told.await.map_err(|error| error.code())
    };
    assert_eq!(tell(&node).await, Err("lease_token_wrong"));
    assert_eq!(tell(&process).await, Ok(1));
}
