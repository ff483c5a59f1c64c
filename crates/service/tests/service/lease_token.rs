//! A node with a certificate and without the token of a lease does nothing to it.

use crate::report::piece;
use crate::*;
use service::{Error, LeaseRef, NodeHello};

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
        // Nor is the token of use without the certificate.
        other.showing(Some(token.clone())),
    ] {
        assert_eq!(said(&world, &ctx, &row).await, ["lease_token_wrong"; 6]);
    }
    assert_eq!(world.get(&row.id).await, before);
    let node = thief.showing(Some(token));
    let report = world.service.job_started(&node, &row.id, started(&row));
    assert!(!report.await.unwrap().duplicate);
    let end = finished(&row, Outcome::Succeeded);
    let report = world.service.job_finished(&node, &row.id, end);
    assert!(!report.await.unwrap().duplicate);
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
