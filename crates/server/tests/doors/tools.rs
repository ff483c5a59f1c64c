//! Every tool, and who may call it: nobody who has shown nothing, no node, nobody with a credential for something else,
//! and of another tenant's things nothing.

use model::principal::Role;
use serde_json::{Value, json};
use std::collections::BTreeSet;

use crate::mcp::{call, call_as_node, shells_wait, tools};
use crate::world::{World, with_body};

/// What a tool is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// A thing that somebody has.
    Thing,
    /// Whatever the caller has, or will have.
    Own,
    /// What the caller itself was told, which needs no right any more.
    Told,
}

/// Things of the first tenant.
struct Things {
    job: String,
    sandbox: String,
    approval: String,
}

async fn things(world: &World) -> Things {
    shells_wait(world).await;
    let made = async |path: &str, body: &str| {
        let reply = world.ask(with_body("POST", path, body)).await;
        assert!(reply.status.is_success(), "{}", reply.whole());
        reply.json()["id"].as_str().unwrap().to_owned()
    };
    let sandbox = made("/v1/sandboxes", "{}").await;
    let job = made("/v1/jobs", r#"{"argv":["sh"]}"#).await;
    let waiting = world.ask(crate::world::bare("GET", "/v1/approvals")).await;
    let approval = waiting.json()["approvals"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    Things {
        job,
        sandbox,
        approval,
    }
}

/// The table: a tool, what it is about, and arguments that fit.
fn table(things: &Things) -> Vec<(&'static str, About, Value)> {
    let (job, id, approval) = (&things.job, &things.sandbox, &things.approval);
    vec![
        ("run", About::Own, json!({"command": "true"})),
        (
            "sandbox_exec",
            About::Thing,
            json!({"sandbox_id": id, "command": "true"}),
        ),
        (
            "sandbox_step",
            About::Thing,
            json!({"sandbox_id": id, "code": "1", "language": "python"}),
        ),
        ("sandbox_create", About::Own, json!({})),
        ("sandbox_list", About::Own, json!({})),
        (
            "sandbox_extend",
            About::Thing,
            json!({"sandbox_id": id, "ttl_s": 60}),
        ),
        ("sandbox_destroy", About::Thing, json!({"sandbox_id": id})),
        (
            "port",
            About::Thing,
            json!({"sandbox_id": id, "port": 8080}),
        ),
        (
            "file_read",
            About::Thing,
            json!({"sandbox_id": id, "path": "a"}),
        ),
        (
            "file_write",
            About::Thing,
            json!({"sandbox_id": id, "path": "a", "content": "b"}),
        ),
        ("file_list", About::Thing, json!({"sandbox_id": id})),
        ("approval", About::Thing, json!({"approval_id": approval})),
        (
            "artifact_read",
            About::Thing,
            json!({"job_id": job, "path": "a"}),
        ),
        ("output_read", About::Told, json!({"cursor": "out_1:0"})),
    ]
}

/// The text of an error of a tool.
fn error(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap();
    assert_eq!(message["result"]["isError"], json!(true), "{message}");
    message["result"]["content"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn every_tool_is_in_the_table_of_who_may_call_it() {
    let world = World::new().await;
    let things = things(&world).await;
    let known: BTreeSet<String> = table(&things).iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(known, tools(&world).await);
}

/// Attack: Every tool is called by nobody, by a node, and by somebody whose key is for something else.
#[tokio::test]
async fn each_tool_is_for_callers_with_its_right_and_for_no_node_and_nobody() {
    let world = World::new().await;
    let things = things(&world).await;
    let narrow = world.key("", Role::Admin, &["profile:read"]).await;
    for (tool, about, arguments) in table(&things) {
        let nobody = call(&world, Some("cfd_none"), (tool, arguments.clone())).await;
        assert!(nobody.contains("unauthenticated"), "{tool}: {nobody}");
        let node = call_as_node(&world, (tool, arguments.clone())).await;
        assert_eq!(node, "forbidden", "{tool}");
        let said = error(&call(&world, Some(&narrow), (tool, arguments)).await);
        let expect = match about {
            About::Thing | About::Own => "error forbidden",
            About::Told => "error not_found",
        };
        assert!(said.starts_with(expect), "{tool}: {said}");
    }
}

/// Attack: Tools are called with the ids of another tenant's things.
#[tokio::test]
async fn to_tools_what_another_tenant_has_is_not_there() {
    let world = World::new().await;
    let things = things(&world).await;
    let other = world.key("other", Role::Admin, &[]).await;
    for (tool, about, arguments) in table(&things) {
        if about != About::Own {
            let said = error(&call(&world, Some(&other), (tool, arguments)).await);
            assert!(said.starts_with("error not_found"), "{tool}: {said}");
        }
    }
    let list = ("sandbox_list", json!({"all": true}));
    let list = call(&world, Some(&other), list).await;
    assert!(!list.contains(&things.sandbox), "{list}");
}
