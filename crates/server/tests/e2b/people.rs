//! Keys of several tenants at E2B's door.

use serde_json::{Value, json};

use crate::guest::OPEN_PORT;
use crate::world::{Reply, World};

const BEARER: (&str, &str) = ("authorization", "Bearer a-token-for-tests");

/// The key of a new tenant, as E2B's clients take it, and as it is.
async fn tenant(world: &World, name: &str) -> (String, String) {
    let body = json!({"name": name}).to_string();
    let headers = [("host", "localhost"), BEARER];
    let made = world.ask("POST /v1/tenants", &headers, body).await.json();
    let text = |name: &str| made["key"][name].as_str().unwrap().to_owned();
    (text("e2b_key"), text("key"))
}

async fn ask(world: &World, key: &str, line: &str, body: &Value) -> Reply {
    let host = world.tcp.to_string();
    let headers = [("host", host.as_str()), ("x-api-key", key)];
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    world.ask(line, &headers, body).await
}

/// Attack: E2B's door is asked for sandboxes of another tenant.
#[tokio::test]
async fn the_clients_of_each_tenant_see_its_own_sandboxes_and_no_others() {
    let world = World::new().await;
    let first = world.sandbox(json!({})).await;
    let (other, own_form) = tenant(&world, "other").await;
    assert!(other.starts_with("e2b_") && other.len() == 44);
    let asked = json!({"templateID": "base"});
    let made = ask(&world, &other, "POST /v2/sandboxes", &asked).await;
    assert_eq!(made.status, 201, "{}", made.message());
    let theirs = made.json()["sandboxID"].as_str().unwrap().to_owned();
    for key in [&other, &own_form] {
        let list = ask(&world, key, "GET /v2/sandboxes", &Value::Null).await;
        let list = String::from_utf8_lossy(&list.body).into_owned();
        assert!(
            list.contains(&theirs) && !list.contains(&first.id),
            "{list}"
        );
    }
    let list = world.control("GET /v2/sandboxes", &Value::Null).await;
    assert!(!String::from_utf8_lossy(&list.body).contains(&theirs));
    for (line, body) in [
        ("GET /sandboxes/ID", Value::Null),
        ("DELETE /sandboxes/ID", Value::Null),
        ("POST /sandboxes/ID/pause", Value::Null),
        ("POST /sandboxes/ID/connect", json!({"timeout": 60})),
        ("POST /sandboxes/ID/timeout", json!({"timeout": 60})),
        ("POST /sandboxes/ID/snapshots", json!({})),
        ("GET /sandboxes/ID/metrics", Value::Null),
        ("GET /sandboxes/ID/logs", Value::Null),
    ] {
        let line = line.replace("ID", &first.id);
        let reply = ask(&world, &other, &line, &body).await;
        assert_eq!(reply.status, 404, "{line}: {}", reply.message());
    }
    let teams = ask(&world, &other, "GET /teams", &Value::Null).await;
    assert_eq!(teams.json()[0]["apiKey"], json!(other));
    for wrong in [&other[..43], "e2b_0000000000000000000000000000000000000000"] {
        let reply = ask(&world, wrong, "GET /v2/sandboxes", &Value::Null).await;
        assert_eq!(reply.status, 401);
    }
}

#[tokio::test]
async fn a_sandbox_of_any_tenant_is_reached_by_its_name_with_its_own_token() {
    let world = World::new().await;
    let (other, key) = tenant(&world, "other").await;
    let asked = json!({"templateID": "base"});
    let made = ask(&world, &other, "POST /v2/sandboxes", &asked)
        .await
        .json();
    let id = made["sandboxID"].as_str().unwrap();
    let token = made["envdAccessToken"].as_str().unwrap();
    let host = format!("49983-{id}.localhost");
    let with = [("host", host.as_str()), ("x-access-token", token)];
    let heard = world.ask("GET /envs", &with, "").await;
    assert_eq!(heard.status, 200, "{}", heard.message());
    let principal = &heard.json()["headers"]["cofferdam-principal"];
    let visitor = format!("visitor:sbx_{id}");
    assert_eq!(
        principal,
        &json!(visitor),
        "the token does not say who it is"
    );
    let without = [("host", host.as_str()), ("x-access-token", "wrong")];
    assert_eq!(world.ask("GET /envs", &without, "").await.status, 401);
    // No key of ours reaches a program inside, whoever's it is.
    let host = format!("{OPEN_PORT}-{id}.localhost");
    let bearer = format!("Bearer {key}");
    let sent = [
        ("host", host.as_str()),
        ("x-api-key", other.as_str()),
        ("authorization", bearer.as_str()),
    ];
    let heard = world.ask("GET /", &sent, "").await.json();
    assert!(heard["headers"]["x-api-key"].is_null(), "{heard}");
    assert!(heard["headers"]["authorization"].is_null(), "{heard}");
}

/// Attack: A signature for an upload is used by another tenant.
#[tokio::test]
async fn an_address_for_files_of_a_build_is_for_the_tenant_that_asked_for_it() {
    let world = World::new().await;
    let (other, _) = tenant(&world, "other").await;
    let asked = json!({"name": "env"});
    let made = ask(&world, &other, "POST /v3/templates", &asked)
        .await
        .json();
    let template = made["templateID"].as_str().unwrap();
    let line = format!("GET /templates/{template}/files/{}", "a".repeat(64));
    let place = ask(&world, &other, &line, &Value::Null).await.json();
    let url = place["url"].as_str().unwrap().to_owned();
    let host = world.tcp.to_string();
    let path = url.strip_prefix(&format!("http://{host}")).unwrap();
    let put = async |path: &str| {
        let headers = [("host", host.as_str())];
        let line = format!("PUT {path}");
        world.ask(&line, &headers, "archive").await.status.as_u16()
    };
    let (bare, query) = path.split_once('?').unwrap();
    let local: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some(("tenant", _)) => "tenant=ten_local".to_owned(),
            _ => pair.to_owned(),
        })
        .collect();
    assert_eq!(put(&format!("{bare}?{}", local.join("&"))).await, 401);
    assert_eq!(put(path).await, 200);
    let place = ask(&world, &other, &line, &Value::Null).await.json();
    assert_eq!(place["present"], true);
    // What one tenant has sent is not there for another that names it alike.
    let made = world.control("POST /v3/templates", &asked).await.json();
    let template = made["templateID"].as_str().unwrap();
    let line = format!("GET /templates/{template}/files/{}", "a".repeat(64));
    let place = world.control(&line, &Value::Null).await.json();
    assert_eq!(place["present"], false);
}

#[tokio::test]
async fn a_key_that_may_only_look_is_not_told_the_token_that_runs_commands() {
    let world = World::new().await;
    let sandbox = world.sandbox(json!({})).await;
    let post = async |line: &str, body: Value| {
        let headers = [("host", "localhost"), BEARER];
        let made = world.ask(line, &headers, body.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.message());
        made.json()
    };
    let person = json!({"kind": "user", "name": "looker", "role": "member"});
    post("POST /v1/principals", person).await;
    let line = format!("GET /sandboxes/{}", sandbox.id);
    for (scope, is_told) in [("sandbox:read", false), ("sandbox:write", true)] {
        let new = json!({"principal": "user:looker", "scopes": [scope]});
        let key = post("POST /v1/keys", new).await;
        let key = key["e2b_key"].as_str().unwrap();
        let shown = ask(&world, key, &line, &Value::Null).await;
        assert_eq!(shown.status, 200, "{}", shown.message());
        assert_eq!(shown.json()["sandboxID"], sandbox.id);
        let told = &shown.json()["envdAccessToken"];
        assert_eq!(told == &json!(sandbox.token), is_told, "{scope}: {told}");
        assert_eq!(told.is_null(), !is_told);
    }
}

#[tokio::test]
async fn what_a_key_may_not_is_in_the_record_of_its_tenant_and_a_wrong_key_is_not() {
    let world = World::new().await;
    let post = async |line: &str, body: Value| {
        let headers = [("host", "localhost"), BEARER];
        world.ask(line, &headers, body.to_string()).await.json()
    };
    let person = json!({"kind": "user", "name": "looker", "role": "member"});
    post("POST /v1/principals", person).await;
    let new = json!({"principal": "user:looker", "scopes": ["sandbox:read"]});
    let key = post("POST /v1/keys", new).await;
    let form = key["e2b_key"].as_str().unwrap();
    let asked = json!({"templateID": "base", "metadata": {"a": "a-value-of-theirs"}});
    let made = ask(&world, form, "POST /v2/sandboxes", &asked).await;
    assert_eq!(made.status, 403, "{}", made.message());
    let wrong = format!("e2b_{}", "0".repeat(40));
    let made = ask(&world, &wrong, "POST /v2/sandboxes", &asked).await;
    assert_eq!(made.status, 401, "{}", made.message());
    let written = service::loops::refusals_pass(&world.service).await;
    assert_eq!(written.unwrap().written, 1);
    let headers = [("host", "localhost"), BEARER];
    let list = world.ask("GET /v1/audit?kind=request.refused", &headers, "");
    let list = list.await.json();
    let told = &list["events"][0];
    assert_eq!(told["principal"], "user:looker");
    assert_eq!(told["data"]["action"], "POST /v2/sandboxes");
    assert_eq!(told["data"]["code"], "forbidden");
    assert_eq!(told["data"]["key"], key["id"]);
    assert!(!list.to_string().contains("theirs"), "{list}");
}
