//! What is under way to the outside, with the tests as the node.

use crate::life::register;
use crate::sandbox::{asked, obey};
use crate::world::{World, bare};
use api::attach::{LinkOpen, LinkTarget};
use api::client::JobCreateOptions;
use api::node::SandboxWant;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

fn connection(sandbox: &str, age_ms: u64) -> Value {
    json!({"at_ms": 7, "age_ms": age_ms, "sandbox_id": sandbox, "method": "connect", "host": "a.example",
           "port": 443, "decision": "allowed", "rule": "allow a.example", "bytes_out": 1, "bytes_in": 2})
}

/// Answers the next one who asks, and says what was asked.
async fn say(links: &mut mpsc::Receiver<LinkOpen>, said: String) -> LinkTarget {
    let mut open = links.recv().await.unwrap();
    open.io.write_all(said.as_bytes()).await.unwrap();
    open.target
}

async fn ask(world: &World, path: &str) -> (u16, Value) {
    let reply = world.ask(bare("GET", path)).await;
    (reply.status.as_u16(), reply.json())
}

#[tokio::test]
async fn a_node_says_what_is_under_way_and_is_not_believed_about_what_it_has_not() {
    let world = World::new().await;
    register(&world).await;
    let options = JobCreateOptions::default();
    let sandbox = world.user.sandbox_create(&asked(), &options).await.unwrap();
    let of_one = format!("/v1/sandboxes/{}/egress/connections", sandbox.id);
    // No node has it yet.
    let nothing = json!({"connections": [], "more": false, "silent_nodes": []});
    assert_eq!(ask(&world, &of_one).await, (200, nothing.clone()));
    obey(&world, SandboxWant::Make).await;
    let (status, body) = ask(&world, &of_one).await;
    assert_eq!(
        (status, &body["code"]),
        (503, &json!("unavailable")),
        "it has no link"
    );

    let (to, mut links) = mpsc::channel(4);
    world.links.insert(world.node_id.clone(), to);
    let strange = "sbx_0197747bb4007000800000000000dead";
    let mine = sandbox.id.as_str();
    let said = json!({"connections": [connection(mine, 5), connection(strange, 9), connection(mine, 6)],
                      "more": false});
    let shown = json!({"connections": [connection(mine, 6), connection(mine, 5)],
                       "more": false, "silent_nodes": []});
    for (path, of) in [
        (of_one.as_str(), Some(mine.to_owned())),
        ("/v1/egress/connections", None),
    ] {
        let (answer, target) = tokio::join!(ask(&world, path), say(&mut links, said.to_string()));
        assert_eq!(answer, (200, shown.clone()));
        assert_eq!(target, LinkTarget::Connections { of });
    }
    let path = "/v1/egress/connections?limit=1";
    let (answer, _) = tokio::join!(ask(&world, path), say(&mut links, said.to_string()));
    let shown = json!({"connections": [connection(mine, 6)], "more": true, "silent_nodes": []});
    assert_eq!(answer, (200, shown));

    // What cannot be read is no answer: of one an error, of all a node that is named.
    let mut long = connection(mine, 1);
    long["host"] = json!("a".repeat(2000));
    let long = json!({"connections": [long], "more": false}).to_string();
    for said in [String::new(), "{".to_owned(), "[]".to_owned(), long] {
        let (answer, _) = tokio::join!(ask(&world, &of_one), say(&mut links, said.clone()));
        assert_eq!(answer.0, 503, "{said}");
        let (answer, _) = tokio::join!(
            ask(&world, "/v1/egress/connections"),
            say(&mut links, said.clone())
        );
        let silent = json!([world.node_id.as_str()]);
        assert_eq!(
            (answer.0, &answer.1["silent_nodes"]),
            (200, &silent),
            "{said}"
        );
    }
    for (path, status) in [
        (format!("{of_one}?limit=0"), 400),
        (format!("/v1/sandboxes/{strange}/egress/connections"), 404),
        ("/v1/egress/connections?of=all".to_owned(), 400),
    ] {
        assert_eq!(ask(&world, &path).await.0, status, "{path}");
    }
}
