//! Snapshots and forks, in E2B's words.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_snapshot_is_a_template_by_its_id_and_its_name_until_it_is_deleted() {
    let world = World::new().await;
    let id = world.sandbox(json!({})).await.id;
    let copies = format!("POST /sandboxes/{id}/snapshots");
    let plain = world.control(&copies, &json!({})).await;
    assert_eq!(
        (plain.status.as_u16(), &plain.json()["names"]),
        (201, &json!([]))
    );
    let asked = json!({"name": "My-Env:v1", "memory": false});
    let made = world.control(&copies, &asked).await;
    assert_eq!(made.status, 201, "{}", made.message());
    let snapshot = made.json()["snapshotID"].as_str().unwrap().to_owned();
    assert_eq!(made.json()["names"], json!(["my-env:v1"]));
    for template in [&*snapshot, "my-env:v1"] {
        let asked = json!({"templateID": template});
        let begun = world.control("POST /v2/sandboxes", &asked).await;
        assert_eq!(begun.status, 201, "{}", begun.message());
        assert_eq!(begun.json()["templateID"], template);
    }
    for (query, expect) in [
        ("", 2),
        ("?name=my-env", 1),
        ("?name=my-env:v1", 1),
        ("?name=my-env:v2", 0),
        (&*format!("?name={snapshot}"), 1),
        (&*format!("?sandboxID={id}"), 2),
        ("?sandboxID=x", 0),
        ("?name=A%20b", 0),
    ] {
        let listed = world
            .control(&format!("GET /snapshots{query}"), &Value::Null)
            .await;
        assert_eq!(listed.json().as_array().unwrap().len(), expect, "{query}");
    }
    let first = world.control("GET /snapshots?limit=1", &Value::Null).await;
    let next = first.headers["x-next-token"].to_str().unwrap();
    let line = format!("GET /snapshots?limit=1&nextToken={next}");
    let last = world.control(&line, &Value::Null).await;
    // Both were made at the same moment.
    let shown = [
        &first.json()[0]["snapshotID"],
        &last.json()[0]["snapshotID"],
    ]
    .map(|id| id.as_str().unwrap().to_owned());
    let made = [&*snapshot, plain.json()["snapshotID"].as_str().unwrap()].map(str::to_owned);
    assert_eq!(BTreeSet::from(shown), BTreeSet::from(made));
    assert!(!last.headers.contains_key("x-next-token"));

    let alias = "GET /templates/aliases/my-env%3Av1";
    assert_eq!(
        world.control(alias, &Value::Null).await.json()["templateID"],
        *snapshot
    );
    let line = "DELETE /templates/my-env%3Av1";
    assert_eq!(world.control(line, &Value::Null).await.status, 204);
    assert_eq!(world.control(line, &Value::Null).await.status, 404);
    let asked = json!({"templateID": snapshot});
    let late = world.control("POST /v2/sandboxes", &asked).await;
    assert_eq!(
        late.message(),
        format!("404 template \"{snapshot}\" was not found")
    );
}

#[tokio::test]
async fn a_fork_answers_a_sandbox_for_each() {
    let world = World::new().await;
    let id = world.sandbox(json!({"metadata": {"k": "v"}})).await.id;
    let line = format!("POST /sandboxes/{id}/fork");
    let reply = world
        .control(&line, &json!({"count": 3, "timeout": 60}))
        .await;
    assert_eq!(reply.status, 201, "{}", reply.message());
    let forks = reply.json();
    let forks = forks.as_array().unwrap();
    assert_eq!(forks.len(), 3);
    for fork in forks {
        let line = format!(
            "GET /sandboxes/{}",
            fork["sandbox"]["sandboxID"].as_str().unwrap()
        );
        let detail = world.control(&line, &Value::Null).await.json();
        assert_eq!(
            (&detail["state"], &detail["metadata"]["k"]),
            (&json!("running"), &json!("v"))
        );
    }
    // The copy that they stand on is nobody's to see.
    let listed = world.control("GET /snapshots", &Value::Null).await;
    assert_eq!(listed.json(), json!([]));
}

#[tokio::test]
async fn what_a_snapshot_cannot_be_is_refused_by_name() {
    let world = World::new().await;
    let id = world.sandbox(json!({})).await.id;
    let copies = format!("POST /sandboxes/{id}/snapshots");
    for (body, expect) in [
        (
            json!({"memory": true}),
            "400 memory: a snapshot keeps files here",
        ),
        (json!({"name": "base"}), "400 name: it means something else"),
        (
            json!({"name": "0197747bb4007000800000000000dead"}),
            "400 name: it means something else",
        ),
        (json!({"name": "a b"}), "400 name: a name is"),
    ] {
        let message = world.control(&copies, &body).await.message();
        assert!(message.starts_with(expect), "{body}: {message}");
    }
    let line = format!("POST /sandboxes/{id}/fork");
    assert_eq!(
        world.control(&line, &json!({"count": 101})).await.status,
        400
    );
    let nobody = "POST /sandboxes/0197747bb4007000800000000000dead/fork";
    assert_eq!(world.control(nobody, &json!({})).await.status, 404);
}
