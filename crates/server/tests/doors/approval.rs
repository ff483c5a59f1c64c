//! Approvals over HTTP: asked for, read, decided, and what is wrong with a decision.

use model::principal::Role;
use serde_json::Value;

use crate::world::{Reply, World, with_body};

const RULES: &str = r#"{"version":1,"layer":"tenant",
    "commands":{"approve":["git push"],"unchecked_in_sandboxes":true},
    "approvals":{"network_unrestricted":"needs_approval","expires_ms":60000}}"#;
const PUSH: &str = r#"{"argv":["git","push","--force\u001b[2K"]}"#;
const OPEN: &str = r#"{"network":{"mode":"unrestricted"}}"#;

/// A world with the rule, and the key of an agent.
async fn world() -> (World, String) {
    let world = World::new().await;
    let put = with_body("PUT", "/v1/policies/rules", RULES);
    let put = world.ask(put).await;
    assert_eq!(put.status, 200, "{}", put.whole());
    let key = world.agent_key(Role::Admin).await;
    (world, key)
}

async fn decide(world: &World, id: &str, body: &str) -> Reply {
    let path = format!("/v1/approvals/{id}/decision");
    world.ask(with_body("POST", &path, body)).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_that_waits_says_for_what_and_after_a_yes_by_which() {
    let (world, key) = world().await;
    let made = world.ask_with(&key, "POST /v1/jobs", PUSH).await.json();
    assert_eq!(made["state"], "awaiting_approval");
    let reasons = &made["approval"]["reasons"];
    assert_eq!(
        reasons[0],
        "commands: a person has to say yes to `git push`"
    );
    let id = text(&made["approval"]["id"]);
    let path = format!("/v1/approvals/{id}");
    let seen = world
        .ask_with(&key, &format!("GET {path}"), "")
        .await
        .json();
    assert_eq!(seen["state"], "pending");
    assert_eq!(seen["request"]["argv"][1], "push");
    assert_eq!(seen["subject_id"], made["id"]);
    let life = seen["expires_at_ms"].as_u64().unwrap() - seen["created_at_ms"].as_u64().unwrap();
    assert_eq!(life, 60_000);
    let listed = world
        .ask_with(&key, "GET /v1/approvals?state=pending&limit=5", "")
        .await
        .json();
    assert_eq!(listed["approvals"][0]["id"], id.as_str());
    assert_eq!(listed["approvals"][0]["request"], Value::Null);
    let job = format!("GET /v1/jobs/{}", text(&made["id"]));
    let waiting = world.ask_with(&key, &job, "").await.json()["waiting"].clone();
    assert!(text(&waiting).contains(&id), "{waiting}");
    let yes = format!("POST {path}/decision");
    let refused = world.ask_with(&key, &yes, r#"{"verdict":"approve"}"#).await;
    assert_eq!(refused.code(), "forbidden");
    let said = decide(&world, &id, r#"{"verdict":"approve","comment":"fine"}"#).await;
    assert_eq!(
        (said.status, &said.json()["comment"]),
        (200.try_into().unwrap(), &"fine".into())
    );
    let queued = world.ask_with(&key, &job, "").await.json();
    assert_eq!(queued["state"], "queued");
    assert_eq!(queued["approval"]["approved_by"], "uid:1000");
    let permit = world
        .ask_with(&key, &format!("{job}/permit"), "")
        .await
        .json();
    assert_eq!(permit["approval"], queued["approval"], "{permit}");
    assert_eq!(permit["approval"]["id"], id.as_str());
}

#[tokio::test]
async fn a_sandbox_that_needs_a_yes_names_what_it_waits_for_first() {
    let (world, key) = world().await;
    let create = async || world.ask_with(&key, "POST /v1/sandboxes", OPEN).await;
    let refused = create().await;
    assert_eq!(refused.code(), "approval_needed");
    let body = refused.json();
    assert_eq!(body["details"][0]["field"], "approval");
    let id = text(&body["details"][0]["message"]);
    let said = text(&body["message"]);
    assert_eq!(
        said,
        format!("a person has to say yes: {id} (approvals.network_unrestricted)")
    );
    let wrong = [
        (r#"{"verdict":"waive"}"#, "invalid_argument"),
        (r#"{"verdict":"maybe"}"#, "invalid_argument"),
        (r#"{"verdict":"approve","for":"ever"}"#, "unknown_field"),
        (r#"{"verdict":"approve","for_ms":5}"#, "invalid_argument"),
        (
            r#"{"verdict":"approve","scope":"session","for_ms":86400001}"#,
            "invalid_argument",
        ),
        ("{", "malformed_json"),
    ];
    for (body, code) in wrong {
        let reply = decide(&world, &id, body).await;
        assert_eq!(reply.code(), code, "{body}: {}", reply.whole());
    }
    let yes = r#"{"verdict":"waive","comment":"on call"}"#;
    assert_eq!(decide(&world, &id, yes).await.json()["waived"], true);
    let made = create().await;
    assert_eq!(made.status, 201);
    let permit = format!("GET /v1/sandboxes/{}/permit", text(&made.json()["id"]));
    let permit = world.ask_with(&key, &permit, "").await.json();
    assert_eq!(permit["approval"]["id"], id.as_str(), "{permit}");
    assert_eq!(permit["approval"]["approved_by"], "uid:1000");
    assert_eq!(permit["approval"]["comment"], "on call");
    assert_eq!(create().await.code(), "approval_needed");
    let path = format!("/v1/approvals/{id}");
    let over = world.ask(with_body("DELETE", &path, "")).await;
    assert_eq!(over.code(), "approval_over");
}

#[tokio::test]
async fn whoever_asks_reads_why_they_may_not_decide_it() {
    let (world, _) = world().await;
    let made = world.ask(with_body("POST", "/v1/jobs", PUSH)).await.json();
    let id = text(&made["approval"]["id"]);
    let own = decide(&world, &id, r#"{"verdict":"approve"}"#).await;
    assert_eq!(
        (own.status.as_u16(), own.code().as_str()),
        (403, "approval_own")
    );
    assert!(text(&own.json()["hint"]).contains("principal create"));
    for absent in ["apv_0197747bb4007000800000000000dead", "job_1", "x"] {
        let reply = decide(&world, absent, r#"{"verdict":"approve"}"#).await;
        assert_eq!(reply.code(), "not_found", "{absent}");
    }
    let bad = world
        .ask(with_body("GET", "/v1/approvals?state=maybe", ""))
        .await;
    assert_eq!(bad.code(), "invalid_argument");
    let bad = world
        .ask(with_body("GET", "/v1/approvals?before=x", ""))
        .await;
    assert_eq!(bad.code(), "invalid_argument");
}
