//! Templates and their builds, in E2B's words. Nobody carries builds out here.

use crate::world::World;
use serde_json::{Value, json};

/// A build that was asked for: its template, its id, where it is.
async fn asked(world: &World, name: &str) -> (String, String, String) {
    let body = json!({"name": name});
    let made = world.control("POST /v3/templates", &body).await;
    assert_eq!(made.status, 202, "{}", made.message());
    let text = |field: &str| made.json()[field].as_str().unwrap().to_owned();
    let (template, build) = (text("templateID"), text("buildID"));
    let path = format!("/templates/{template}/builds/{build}");
    (template, build, path)
}

#[tokio::test]
async fn a_build_is_asked_for_begun_and_watched() {
    let world = World::new().await;
    let body = json!({"name": "Env:v1", "tags": ["Stable"], "cpuCount": 2, "memoryMB": 512});
    let made = world.control("POST /v3/templates", &body).await;
    assert_eq!(made.status, 202, "{}", made.message());
    let said = made.json();
    assert_eq!(
        (
            &said["names"],
            &said["aliases"],
            &said["tags"],
            &said["public"]
        ),
        (
            &json!(["env"]),
            &json!(["env"]),
            &json!(["stable", "v1"]),
            &json!(false)
        )
    );
    let (template, build) = (said["templateID"].clone(), said["buildID"].clone());
    let (template, build) = (template.as_str().unwrap(), build.as_str().unwrap());
    assert_eq!(build.len(), 36, "a UUID");
    let path = format!("/templates/{template}/builds/{build}");
    let status = async || {
        world
            .control(&format!("GET {path}/status"), &Value::Null)
            .await
            .json()
    };
    assert_eq!(status().await["status"], "waiting");
    let begin = format!("POST /v2{path}");
    let recipe = json!({"fromImage": "base", "steps": [{"type": "RUN", "args": ["ls"], "x": 1}]});
    assert_eq!(world.control(&begin, &recipe).await.status, 202);
    let twice = world.control(&begin, &recipe).await;
    assert_eq!(twice.message(), "409 the build was begun already");
    let now = status().await;
    let expect = json!({"templateID": template, "buildID": build, "status": "building",
        "logs": [], "logEntries": []});
    assert_eq!(now, expect);
    let listed = world
        .control("GET /v2/templates?limit=5", &Value::Null)
        .await
        .json();
    assert_eq!(
        (
            &listed[0]["buildStatus"],
            &listed[0]["cpuCount"],
            &listed[0]["memoryMB"]
        ),
        (&json!("building"), &json!(2), &json!(512))
    );
    let one = format!("GET /templates/{template}");
    let one = world.control(&one, &Value::Null).await.json();
    assert_eq!(
        (&one["builds"][0]["buildID"], &one["buildCount"]),
        (&json!(build), &json!(1))
    );
    // What is not ready is nothing to begin with.
    let sandbox = json!({"templateID": "env:v1"});
    assert_eq!(
        world.control("POST /v2/sandboxes", &sandbox).await.status,
        404
    );
}

#[tokio::test]
async fn what_cannot_be_built_is_refused_by_name() {
    let world = World::new().await;
    let (_, _, path) = asked(&world, "env").await;
    let begin = format!("POST /v2{path}");
    for (line, body, expect) in [
        ("POST /v3/templates", json!({"name": "base"}), 409),
        ("POST /v3/templates", json!({"name": "a b"}), 400),
        (
            "POST /v3/templates",
            json!({"name": "a", "cpuCount": 0}),
            400,
        ),
        (
            "POST /v3/templates",
            json!({"name": "a", "memoryMB": 1}),
            400,
        ),
        (
            "POST /v3/templates",
            json!({"name": "a", "tags": ["x:y"]}),
            400,
        ),
        ("POST /templates", json!({"dockerfile": "FROM x"}), 501),
        (&*begin, json!({}), 400),
        (
            &begin,
            json!({"fromImage": "base", "steps": [{"type": "FLY"}]}),
            400,
        ),
        (
            &begin,
            json!({"fromImage": "base", "steps": [{"type": "RUN", "args": [""]}]}),
            400,
        ),
        (
            &begin,
            json!({"fromImage": "base", "steps": [{"type": "COPY", "args": ["a", "b"]}]}),
            400,
        ),
    ] {
        let reply = world.control(line, &body).await;
        assert_eq!(reply.status, expect, "{line} {body}: {}", reply.message());
    }
}

#[tokio::test]
async fn what_is_not_there_or_cannot_be_changed_is_said() {
    let world = World::new().await;
    let (template, _, path) = asked(&world, "env").await;
    let elsewhere = path.replace("/builds/", "/builds/0");
    for (line, body, expect) in [
        (
            &*format!("POST /v2{elsewhere}"),
            json!({"fromImage": "base"}),
            404,
        ),
        (&format!("GET {elsewhere}/status"), Value::Null, 404),
        (&format!("GET {path}/status?level=loud"), Value::Null, 400),
        ("GET /templates/nothing", Value::Null, 404),
        ("GET /templates/nothing/tags", Value::Null, 404),
        ("DELETE /templates/nothing", Value::Null, 404),
        ("PATCH /templates/base", json!({"public": true}), 403),
        (
            "POST /templates/tags",
            json!({"target": "env", "tags": ["v1"]}),
            404,
        ),
        (
            "POST /templates/tags",
            json!({"target": "env", "tags": []}),
            400,
        ),
        (
            "DELETE /templates/tags",
            json!({"name": "env", "tags": ["default"]}),
            400,
        ),
    ] {
        let reply = world.control(line, &body).await;
        assert_eq!(reply.status, expect, "{line} {body}: {}", reply.message());
    }
    let publish = format!("PATCH /v2/templates/{template}");
    let published = world.control(&publish, &json!({"public": true})).await;
    assert_eq!(published.json(), json!({"names": ["env"], "public": true}));
    let alias = world
        .control("GET /templates/aliases/Env", &Value::Null)
        .await;
    assert_eq!(
        alias.json(),
        json!({"templateID": template, "public": true})
    );
    let gone = world.control("DELETE /templates/env", &Value::Null).await;
    assert_eq!(gone.status, 204);
    let alias = world
        .control("GET /templates/aliases/env", &Value::Null)
        .await;
    assert_eq!(alias.status, 404);
}

/// Attack: A signed address for an upload is changed in each of its parts.
#[tokio::test]
async fn files_are_sent_by_whoever_has_their_address_and_by_nobody_else() {
    let world = World::new().await;
    let (template, ..) = asked(&world, "env").await;
    let (hash, other) = ("a".repeat(64), "b".repeat(64));
    let line = format!("GET /templates/{template}/files/{hash}");
    let place = world.control(&line, &Value::Null).await;
    assert_eq!(
        (place.status.as_u16(), &place.json()["present"]),
        (201, &json!(false))
    );
    let url = place.json()["url"].as_str().unwrap().to_owned();
    let host = world.tcp.to_string();
    let path = url.strip_prefix(&format!("http://{host}")).unwrap();
    let (bare, query) = path.split_once('?').unwrap();
    let put = async |path: &str| {
        let headers = [("host", host.as_str())];
        world
            .ask(&format!("PUT {path}"), &headers, "archive")
            .await
            .status
            .as_u16()
    };
    let elsewhere = bare.replace(&hash, &other);
    let later = query.replace("expires=1", "expires=2");
    for wrong in [
        bare.to_owned(),
        format!("{bare}?{}", query.replace("signature=", "signature=0")),
        format!("{bare}?{later}"),
        format!("{elsewhere}?{query}"),
        format!("{}?{query}", bare.replace(&template, "env")),
    ] {
        assert_eq!(put(&wrong).await, 401, "{wrong}");
    }
    // It opens nothing else.
    let headers = [("host", host.as_str())];
    let other = world
        .ask(&format!("DELETE /templates/env?{query}"), &headers, "")
        .await;
    assert_eq!(other.status, 401);
    assert_eq!(put(path).await, 200);
    let place = world.control(&line, &Value::Null).await;
    assert_eq!(place.json()["present"], json!(true));
    let wrong = format!("GET /templates/{template}/files/..%2Fx");
    assert_eq!(world.control(&wrong, &Value::Null).await.status, 400);
}
