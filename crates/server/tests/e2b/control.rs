//! Sandboxes as a resource, in E2B's words.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_sandbox_lives_as_the_clients_expect() {
    let world = World::new().await;
    let asked = json!({"metadata": {"user": "ada"}, "envVars": {"A": "b"}, "timeout": 60});
    let made = world.sandbox(asked).await;
    let json = &made.json;
    assert_eq!(json["templateID"], "base");
    assert_eq!(json["envdVersion"], "0.6.13");
    assert_eq!(json["domain"], format!("localhost:{}", world.tcp.port()));
    assert_eq!(json["trafficAccessToken"], Value::Null);
    assert!(
        made.id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    );

    let one = format!("/sandboxes/{}", made.id);
    let detail = world
        .control(&format!("GET {one}"), &Value::Null)
        .await
        .json();
    assert_eq!(detail["state"], "running");
    assert_eq!(detail["metadata"], json!({"user": "ada"}));
    assert_eq!(detail["startedAt"], "2025-06-15T15:06:40Z");
    assert_eq!(detail["endAt"], "2025-06-15T15:07:40Z");
    assert_eq!(detail["allowInternetAccess"], true);
    assert_eq!(detail["lifecycle"]["onTimeout"], "kill");

    let line = format!("POST {one}/timeout");
    assert_eq!(
        world.control(&line, &json!({"timeout": 120})).await.status,
        204
    );
    let detail = world
        .control(&format!("GET {one}"), &Value::Null)
        .await
        .json();
    assert_eq!(detail["endAt"], "2025-06-15T15:08:40Z");
    let line = format!("POST {one}/refreshes");
    assert_eq!(
        world.control(&line, &json!({"duration": 1})).await.status,
        204
    );
    let killed = world.control(&format!("DELETE {one}"), &Value::Null).await;
    assert_eq!(killed.status, 204);
    let again = world.control(&format!("DELETE {one}"), &Value::Null).await;
    let gone = format!("404 sandbox \"{}\" was not found", made.id);
    assert_eq!(again.message(), gone);
    let detail = world.control(&format!("GET {one}"), &Value::Null).await;
    assert_eq!(detail.message(), gone);
}

#[tokio::test]
async fn logs_are_what_happened_and_metrics_are_what_is_used_now_within_the_limits() {
    let world = World::new().await;
    let id = world.sandbox(json!({})).await.id;
    let get = async |path: String| {
        world
            .control(&format!("GET {path}"), &Value::Null)
            .await
            .json()
    };
    let logs = get(format!("/sandboxes/{id}/logs")).await;
    assert_eq!(logs["logEntries"][0]["message"], "sandbox.requested");
    assert_eq!(logs["logs"][0]["line"], "sandbox.requested");
    let logs = get(format!("/v2/sandboxes/{id}/logs")).await;
    assert_eq!(logs["logs"][0]["level"], "info");
    let metrics = get(format!("/sandboxes/{id}/metrics")).await;
    let [now] = metrics.as_array().unwrap().as_slice() else {
        panic!("one sample: {metrics}")
    };
    assert_eq!(
        (&now["cpuUsedPct"], &now["cpuCount"]),
        (&json!(100.0), &json!(1))
    );
    let memory = json!(model::limits::MEMORY_DEFAULT_BYTES);
    assert_eq!((&now["memUsed"], &now["memTotal"]), (&memory, &memory));
    assert_eq!(
        (&now["diskUsed"], &now["diskTotal"]),
        (&json!(7), &json!(9))
    );
    // Of the past nothing is known here, and of now only if now was asked for.
    let past = get(format!("/sandboxes/{id}/metrics?start=1&end=2")).await;
    assert_eq!(past, json!([]));
    let some = get(format!("/sandboxes/metrics?sandbox_ids={id},0000")).await;
    assert_eq!(some["sandboxes"][&id]["memTotal"], memory);
    assert_eq!(some["sandboxes"].as_object().unwrap().len(), 1);
    let refused = world.control("GET /sandboxes/metrics", &Value::Null).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn a_pause_is_done_when_it_is_answered_and_a_connect_ends_it() {
    let world = World::new().await;
    let made = world.sandbox(json!({})).await;
    let one = format!("/sandboxes/{}", made.id);
    let connect = format!("POST /v2{one}/connect");
    assert_eq!(world.control(&connect, &json!({})).await.status, 200);
    assert_eq!(
        world
            .control(&format!("POST {one}/pause"), &json!({}))
            .await
            .status,
        204
    );
    assert_eq!(
        world
            .control(&format!("POST {one}/pause"), &json!({}))
            .await
            .status,
        409
    );
    let detail = world
        .control(&format!("GET {one}"), &Value::Null)
        .await
        .json();
    assert_eq!(detail["state"], "paused");
    let back = world.control(&connect, &json!({"timeout": 9})).await;
    assert_eq!(
        (back.status.as_u16(), back.json()["sandboxID"].as_str()),
        (201, Some(&*made.id))
    );
    let resume = world
        .control(&format!("POST {one}/resume"), &Value::Null)
        .await;
    assert_eq!(resume.status, 409);
    assert_eq!(
        world
            .control(&format!("POST {one}/pause"), &Value::Null)
            .await
            .status,
        204
    );
    let resume = world
        .control(&format!("POST {one}/resume"), &Value::Null)
        .await;
    assert_eq!(resume.status, 201);
}

#[tokio::test]
async fn a_pause_without_memory_says_so_and_traffic_does_not_end_it() {
    let world = World::new().await;
    let wakes = json!({"autoPause": true, "autoResume": {"enabled": true}});
    let made = world.sandbox(wakes).await;
    let one = format!("/sandboxes/{}", made.id);
    let ask = async |line: &str, body: Value| world.control(line, &body).await;
    let pause = format!("POST {one}/pause");
    let asked = json!({"memory": false, "requireHealthyGuest": true});
    assert_eq!(ask(&pause, asked).await.status, 204);
    assert_eq!(ask(&pause, json!({"memory": false})).await.status, 409);
    let detail = ask(&format!("GET {one}"), Value::Null).await.json();
    assert_eq!(
        (&detail["state"], &detail["pauseMode"]),
        (&json!("paused"), &json!("filesystem"))
    );
    let host = format!("49983-{}.localhost:1", made.id);
    let asleep = world.ask("GET /health", &[("host", &host)], "").await;
    assert_eq!(asleep.status, 502);
    let connect = format!("POST /v2{one}/connect");
    let back = ask(&connect, json!({"memory": false})).await;
    assert_eq!(back.status, 201);
    assert_eq!(ask(&pause, json!({"memory": true})).await.status, 204);
    let detail = ask(&format!("GET {one}"), Value::Null).await.json();
    assert_eq!(detail["pauseMode"], "full");
}

#[tokio::test]
async fn a_pause_that_needs_the_guest_is_refused_while_that_does_not_answer() {
    let world = World::new().await;
    let made = world.sandbox(json!({})).await;
    let one = format!("/sandboxes/{}", made.id);
    let pause = format!("POST {one}/pause");
    world.guest.silence();
    for body in [
        json!({"memory": false}),
        json!({"requireHealthyGuest": true}),
    ] {
        let refused = world.control(&pause, &body).await;
        // Not 409, which the clients take for "it was paused already".
        assert_eq!(refused.status, 503, "{body}");
        assert_eq!(refused.headers["should-retry"], "true");
        let detail = world.control(&format!("GET {one}"), &Value::Null).await;
        assert_eq!(detail.json()["state"], "running");
    }
    assert_eq!(world.control(&pause, &json!({})).await.status, 204);
}

#[tokio::test]
async fn lists_are_paged_and_narrowed() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for user in ["ada", "bob", "ada"] {
        ids.push(world.sandbox(json!({"metadata": {"user": user}})).await.id);
    }
    ids.reverse();
    let list = async |query: &str| {
        let reply = world.control(&format!("GET {query}"), &Value::Null).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.message());
        let next = reply
            .headers
            .get("x-next-token")
            .map(|next| next.to_str().unwrap().to_owned());
        let json = reply.json();
        let found = json.as_array().unwrap().iter();
        let found: Vec<String> = found
            .map(|one| one["sandboxID"].as_str().unwrap().to_owned())
            .collect();
        (found, next)
    };
    assert_eq!(
        list("/v2/sandboxes?state=running,paused").await,
        (sorted(&ids), None)
    );
    let (page, next) = list("/v2/sandboxes?limit=2").await;
    assert_eq!(page.len(), 2);
    let (rest, end) = list(&format!(
        "/v2/sandboxes?limit=2&nextToken={}",
        next.unwrap()
    ))
    .await;
    assert_eq!((sorted(&[page, rest].concat()), end), (sorted(&ids), None));
    let (adas, _) = list("/sandboxes?metadata=user%3Dada").await;
    assert_eq!(adas.len(), 2);
    assert_eq!(
        list("/v2/sandboxes?template=code-interpreter-v1")
            .await
            .0
            .len(),
        0
    );
    assert_eq!(list("/v2/sandboxes?state=paused").await.0.len(), 0);
    assert_eq!(
        list("/v2/sandboxes?startedAfter=2030-01-01T00:00:00Z")
            .await
            .0
            .len(),
        0
    );
    let broken = world
        .control("GET /v2/sandboxes?nextToken=x", &Value::Null)
        .await;
    assert_eq!(broken.status, 400);
}

fn sorted(ids: &[String]) -> Vec<String> {
    // All were made at one moment, so that their order is that of their random digits.
    let mut ids = ids.to_vec();
    ids.sort();
    ids.reverse();
    ids
}

#[tokio::test]
async fn what_is_not_here_is_said_and_never_retried() {
    let world = World::new().await;
    let base = |more: Value| {
        let mut asked = json!({"templateID": "base"});
        asked
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        asked
    };
    for (line, body, expect) in [
        ("POST /sandboxes", json!({"templateID": "x"}), 404),
        (
            "POST /v2/sandboxes",
            base(json!({"network": {"maskRequestHost": "a b"}})),
            400,
        ),
        (
            "POST /v2/sandboxes",
            base(json!({"volumeMounts": [{"name": "v", "path": "/v"}]})),
            400,
        ),
        ("POST /v2/sandboxes", base(json!({"timeout": 0})), 400),
        (
            "POST /v2/sandboxes",
            base(json!({"metadata": {"": "x"}})),
            400,
        ),
        ("POST /v2/sandboxes", json!([1]), 400),
        ("POST /v2/sandboxes", json!("text"), 400),
        ("POST /templates", json!({"dockerfile": "x"}), 501),
        ("GET /volumes", Value::Null, 200),
        ("POST /volumes", json!({}), 400),
        ("POST /volumes", json!({"name": "a b"}), 400),
        // The node of these tests keeps none.
        ("POST /volumes", json!({"name": "v"}), 422),
        ("GET /volumes/x", Value::Null, 404),
        ("DELETE /volumes/x", Value::Null, 404),
        ("PUT /volumes/x", Value::Null, 501),
        ("GET /access-tokens", Value::Null, 501),
        ("PATCH /sandboxes", Value::Null, 501),
        ("GET /templates/aliases/x", Value::Null, 404),
        ("GET /templates/aliases/base", Value::Null, 200),
        ("DELETE /templates/snap%3A1", Value::Null, 404),
        ("DELETE /templates/base", Value::Null, 403),
        ("GET /sandboxes/x", Value::Null, 404),
        ("GET /sandboxes/%2e%2e", Value::Null, 404),
        (
            "POST /sandboxes/0197747bb4007000800000000000dead/snapshots",
            json!({}),
            404,
        ),
    ] {
        let reply = world.control(line, &body).await;
        assert_eq!(reply.status, expect, "{line} {body}: {}", reply.message());
        if expect >= 400 {
            assert_eq!(reply.json()["code"], expect, "{line}");
            assert_eq!(reply.headers["should-retry"], "false", "{line}");
        }
    }
}

#[tokio::test]
async fn a_create_that_is_repeated_with_its_key_makes_one_sandbox() {
    let world = World::new().await;
    let (key, host) = (World::key(), world.tcp.to_string());
    let headers = [
        ("host", host.as_str()),
        ("x-api-key", &key),
        ("idempotency-key", "same-key"),
    ];
    let body = r#"{"templateID":"base"}"#;
    let one = world.ask("POST /v2/sandboxes", &headers, body).await.json();
    let two = world.ask("POST /v2/sandboxes", &headers, body).await.json();
    assert_eq!(one["sandboxID"], two["sandboxID"]);
    let other = r#"{"templateID":"base","timeout":7}"#;
    assert_eq!(
        world
            .ask("POST /v2/sandboxes", &headers, other)
            .await
            .status,
        409
    );
}

#[tokio::test]
async fn only_who_has_the_key_gets_in_and_only_by_our_name() {
    let world = World::new().await;
    let key = World::key();
    let bearer = format!("Bearer {key}");
    let right = ("x-api-key", key.as_str());
    for (headers, expect) in [
        (vec![("host", "localhost"), right], 200),
        (vec![("host", "api.localhost"), right], 200),
        (
            vec![("host", "localhost"), ("authorization", bearer.as_str())],
            200,
        ),
        (
            vec![("host", "localhost"), ("x-api-key", "a-token-for-tests")],
            200,
        ),
        (vec![("host", "localhost")], 401),
        (vec![("host", "localhost"), ("x-api-key", "e2b_0")], 401),
        (vec![("host", "evil.example"), right], 403),
        (
            vec![
                ("host", "localhost"),
                right,
                ("origin", "http://evil.example"),
            ],
            403,
        ),
    ] {
        let reply = world.ask("GET /sandboxes", &headers, "").await;
        assert_eq!(reply.status, expect, "{headers:?}: {}", reply.message());
    }
    assert_eq!(
        world
            .ask("GET /health", &[("host", "localhost")], "")
            .await
            .status,
        204
    );
    let trusted = world
        .ask_trusted("GET /sandboxes", &[("host", "localhost")])
        .await;
    assert_eq!(trusted.status, 200);
    // The key of this door does not open the others.
    let v1 = [("host", "localhost"), ("authorization", bearer.as_str())];
    assert_eq!(world.ask("GET /v1/jobs", &v1, "").await.status, 401);
}

#[tokio::test]
async fn there_is_one_team_with_one_key_that_cannot_be_changed() {
    let world = World::new().await;
    let get = async |path: &str| world.control(&format!("GET {path}"), &Value::Null).await;
    let teams = get("/teams").await.json();
    assert_eq!(teams[0]["apiKey"], World::key());
    let keys = get("/api-keys").await;
    let shown = &World::key()[..8];
    assert!(!String::from_utf8_lossy(&keys.body).contains(&World::key()[8..]));
    let mask = &keys.json()[0]["mask"];
    let prefix = format!(
        "{}{}",
        mask["prefix"].as_str().unwrap(),
        mask["maskedValuePrefix"].as_str().unwrap()
    );
    assert_eq!((prefix.as_str(), &mask["valueLength"]), (shown, &json!(40)));
    for line in ["POST /api-keys", "DELETE /api-keys/1", "PATCH /api-keys/1"] {
        let refused = world.control(line, &json!({"name": "x"})).await;
        assert_eq!(refused.status, 501, "{line}");
        assert!(refused.message().contains("cofferdam key create"), "{line}");
    }
    let templates = get("/default-templates").await.json();
    assert_eq!(templates[0]["templateID"], "base");
}

#[tokio::test]
async fn logs_are_of_a_sandbox_that_is_there_or_was_and_in_either_direction() {
    let world = World::new().await;
    let id = world.sandbox(json!({})).await.id;
    world
        .control(&format!("DELETE /sandboxes/{id}"), &Value::Null)
        .await;
    let get = async |query: &str| {
        let line = format!("GET /v2/sandboxes/{id}/logs?{query}");
        world.control(&line, &Value::Null).await
    };
    let all = get("").await.json();
    let all = all["logs"].as_array().unwrap();
    // The end of its life is still being written; its beginning stands at the end of the other direction.
    let back = get("direction=backward").await.json();
    assert_eq!(back["logs"].as_array().unwrap().last(), all.first());
    assert_eq!(get("limit=1").await.json()["logs"], json!([all[0]]));
    assert_eq!(
        get("search=requested").await.json()["logs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(get("limit=1001").await.status, 400);
    let none = "GET /v2/sandboxes/01977420dc007bc9adaaee37933d922c/logs";
    assert_eq!(world.control(none, &Value::Null).await.status, 404);
}
