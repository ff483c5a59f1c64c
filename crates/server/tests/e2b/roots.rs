//! Root file systems that the operator has given, as templates.

use crate::world::World;
use serde_json::{Value, json};

/// As the server's own API shows it.
async fn own(world: &World, id: &str) -> Value {
    let line = format!("GET /v1/sandboxes/sbx_{id}");
    world
        .ask_trusted(&line, &[("host", "localhost")])
        .await
        .json()
}

#[tokio::test]
async fn a_root_that_a_node_has_is_a_template_by_its_name() {
    let world = World::new().await;
    for name in ["ubuntu:22.04", "Mirror:5000/python"] {
        let made = world
            .control("POST /sandboxes", &json!({"templateID": name}))
            .await;
        assert_eq!(
            (made.status.as_u16(), &made.json()["templateID"]),
            (201, &json!(name))
        );
        let id = made.json()["sandboxID"].as_str().unwrap().to_owned();
        let got = world
            .control(&format!("GET /sandboxes/{id}"), &Value::Null)
            .await;
        assert_eq!(got.json()["templateID"], name);
        let own = own(&world, &id).await;
        assert_eq!(own["spec"]["root"], name);
    }
    let none = world
        .control("POST /sandboxes", &json!({"templateID": "ubuntu:24.04"}))
        .await;
    assert_eq!(none.status, 404);
    let base = world
        .control("POST /sandboxes", &json!({"templateID": "base"}))
        .await;
    let id = base.json()["sandboxID"].as_str().unwrap().to_owned();
    let own = own(&world, &id).await;
    assert_eq!(own["spec"].get("root"), None);
}

#[tokio::test]
async fn roots_are_listed_as_templates_for_everybody_that_nobody_deletes() {
    let world = World::new().await;
    let list = world
        .control("GET /default-templates", &Value::Null)
        .await
        .json();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["templateID"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "base",
            "code-interpreter-v1",
            "Mirror:5000/python",
            "ubuntu:22.04"
        ]
    );
    let alias = world
        .control("GET /templates/aliases/ubuntu%3A22.04", &Value::Null)
        .await;
    assert_eq!(
        alias.json(),
        json!({"templateID": "ubuntu:22.04", "public": true})
    );
    let deleted = world
        .control("DELETE /templates/ubuntu%3A22.04", &Value::Null)
        .await;
    assert_eq!(deleted.status, 403);
}
