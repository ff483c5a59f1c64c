//! What was asked of the outside, with the tests as the node: found by what it is, and followed to the end.

use crate::life::register;
use crate::sandbox::{LONG, asked, obey};
use crate::world::{World, bare};
use api::Code;
use api::client::JobCreateOptions;
use api::egress::{EgressDecision, EgressEvent, EgressQuery, EgressRecord, NodeEgress};
use api::node::SandboxWant;

fn record(sandbox: &str, number: u64, host: &str) -> EgressRecord {
    EgressRecord {
        name: format!("a.{number}"),
        at_ms: number * 10,
        sandbox_id: sandbox.to_owned(),
        job_id: None,
        method: "dns".to_owned(),
        host: Some(host.to_owned()),
        port: 0,
        address: None,
        answers: vec!["9.9.9.9".to_owned()],
        answers_unlisted: 1,
        ttl_s: Some(60),
        decision: EgressDecision::Denied,
        code: Some("host_denied".to_owned()),
        rule: None,
        bytes_out: 0,
        bytes_in: 0,
        duration_ms: 1,
    }
}

/// A sandbox that its node has made.
async fn ready(world: &World) -> String {
    register(world).await;
    let options = JobCreateOptions::default();
    let sandbox = world.user.sandbox_create(&asked(), &options).await.unwrap();
    obey(world, SandboxWant::Make).await;
    sandbox.id
}

async fn tell(world: &World, records: Vec<EgressRecord>) {
    let report = NodeEgress { records };
    world.node.node_egress(&report).await.unwrap();
}

#[tokio::test]
async fn records_are_found_by_host_reason_and_time_and_say_what_a_name_has_outside() {
    let world = World::new().await;
    let id = ready(&world).await;
    let hosts = ["example.com", "a.example.com", "[2606:4700::1]"];
    let records = (1..).zip(hosts).map(|(n, host)| record(&id, n, host));
    tell(&world, records.collect()).await;
    for (query, expect) in [
        ("", vec![1, 2, 3]),
        ("host=Example.COM.", vec![1]),
        ("host=*.example.com", vec![2]),
        ("host=[2606:4700::1]", vec![3]),
        ("host=2606:4700::1", vec![3]),
        ("host=9.9.9.9", vec![]),
        ("code=host_denied&from=20", vec![2, 3]),
        ("code=host_denied&from=20&to=30", vec![2]),
        ("code=no_egress", vec![]),
        ("decision=allowed", vec![]),
    ] {
        let reply = world
            .ask(bare("GET", &format!("/v1/sandboxes/{id}/egress?{query}")))
            .await;
        let body = reply.json();
        let records = body["records"].as_array().unwrap();
        let found: Vec<u64> = records
            .iter()
            .map(|one| one["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(found, expect, "{query}");
        assert_eq!(
            body["next"], 3,
            "{query}: what was passed over is looked at once"
        );
        assert!(records.iter().all(|one| one["answers"][0] == "9.9.9.9"));
        assert!(records.iter().all(|one| one["answers_unlisted"] == 1));
    }
    for query in [
        "host=",
        "host=*",
        "host=*.9.9.9.9",
        "host=a.example:443",
        "host=a%00b",
        "code=",
        "code=Host%20Denied",
        "from=yesterday",
        "since=1",
    ] {
        for what in ["sandboxes", "jobs"] {
            let id = id.replace("sbx_", if what == "jobs" { "job_" } else { "sbx_" });
            let path = format!("/v1/{what}/{id}/egress?{query}");
            let reply = world.ask(bare("GET", &path)).await;
            assert_eq!(reply.status.as_u16(), 400, "{path}: {}", reply.code());
        }
    }
}

#[tokio::test]
async fn answers_of_a_name_are_addresses_and_few() {
    let world = World::new().await;
    let id = ready(&world).await;
    let many = vec!["9.9.9.9".to_owned(); api::egress::ANSWERS_MAX + 1];
    for answers in [many, vec!["a.example".to_owned()], vec![String::new()]] {
        let one = EgressRecord {
            answers,
            ..record(&id, 1, "a.example")
        };
        let report = NodeEgress { records: vec![one] };
        let refused = world.node.node_egress(&report).await.unwrap_err();
        assert!(refused.is(Code::InvalidArgument), "{refused:?}");
    }
}

#[tokio::test]
async fn records_are_followed_from_where_one_was_to_the_end_of_the_sandbox() {
    let world = World::new().await;
    let id = ready(&world).await;
    let first = (1..=3).map(|n| record(&id, n, "a.example")).collect();
    tell(&world, first).await;
    let query = EgressQuery {
        after: Some(1),
        host: Some("a.example".to_owned()),
        ..EgressQuery::default()
    };
    let mut follow = world.user.egress_follow(&id, &query).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = follow.next().await.unwrap().unwrap();
        assert!(matches!(event, EgressEvent::Record(_)), "{event:?}");
        seen.extend(follow.last_seq());
    }
    // One that is not looked for, and one that comes when the sandbox is about to end.
    let more = vec![record(&id, 4, "b.example"), record(&id, 5, "a.example")];
    tell(&world, more).await;
    let destroying = world.user.sandbox_destroy(&id, LONG);
    let (gone, _) = tokio::join!(destroying, obey(&world, SandboxWant::Destroy));
    gone.unwrap();
    let end = loop {
        match follow.next().await.unwrap().unwrap() {
            EgressEvent::Record(one) => seen.push(one.seq),
            EgressEvent::End(end) => break end,
        }
    };
    assert_eq!(end.next, 5);
    assert_eq!(seen, [2, 3, 5]);
    assert_eq!(follow.last_seq(), Some(5));

    let strange = "sbx_0197747bb4007000800000000000dead";
    let refused = world.user.egress_follow(strange, &query).await;
    assert!(refused.unwrap_err().is(Code::NotFound));
}
