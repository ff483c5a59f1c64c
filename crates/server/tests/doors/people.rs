//! Tenants, principals and keys, and that nobody sees what is another tenant's.

use http::StatusCode;
use model::principal::Role;
use serde_json::{Value, json};

use crate::world::{TOKEN, World, bare, with_body};

async fn made(world: &World, key: &str, line: &str, body: Value) -> Value {
    let reply = world.ask_with(key, line, &body.to_string()).await;
    assert!(reply.status.is_success(), "{line}: {}", reply.json());
    reply.json()
}

#[tokio::test]
async fn a_tenant_a_principal_and_a_key_are_made_and_the_key_lets_its_owner_in() {
    let world = World::new().await;
    let tenant = made(&world, TOKEN, "POST /v1/tenants", json!({"name": "acme"})).await;
    let first = tenant["key"]["key"].as_str().unwrap();
    assert_eq!(tenant["admin"]["id"], "user:admin");
    let bot = json!({"kind": "automation", "name": "ci", "role": "member"});
    let bot = made(&world, first, "POST /v1/principals", bot).await;
    assert_eq!(bot["made_by"], "user:admin");
    let new = json!({"principal": "automation:ci", "scopes": ["job:write"], "expires_in_s": 60});
    let key = made(&world, first, "POST /v1/keys", new).await;
    let text = key["key"].as_str().unwrap();
    assert!(text.starts_with(key["prefix"].as_str().unwrap()) && text.len() == 68);
    let list = made(&world, first, "GET /v1/keys", Value::Null).await;
    assert!(!list.to_string().contains(text), "a text is told once");
    assert_eq!(list["keys"].as_array().unwrap().len(), 2);
    let reply = world.ask_with(text, "GET /v1/jobs", "").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.json());
    let reply = world.ask_with(text, "GET /v1/sandboxes", "").await;
    assert_eq!(reply.code(), "forbidden");
    // The form for E2B's clients counts at their door alone.
    let form = key["e2b_key"].as_str().unwrap();
    let reply = world.ask_with(form, "GET /v1/jobs", "").await;
    assert_eq!(reply.code(), "unauthenticated");
    let last = if text.ends_with('0') { '1' } else { '0' };
    let almost = format!("{}{last}", &text[..67]);
    for wrong in [
        almost.as_str(),
        &text[..67],
        "cfd_",
        first.get(4..).unwrap(),
    ] {
        let reply = world.ask_with(wrong, "GET /v1/jobs", "").await;
        assert_eq!(reply.code(), "unauthenticated", "{wrong}");
    }
    // Its time is over.
    world.clock.advance(60_000);
    let reply = world.ask_with(text, "GET /v1/jobs", "").await;
    assert_eq!(reply.code(), "unauthenticated");
}

/// Attack: A key is used after it was taken back.
#[tokio::test]
async fn a_key_that_is_taken_back_opens_nothing_any_more() {
    let world = World::new().await;
    let key = world.key("", Role::Member, &[]).await;
    assert_eq!(world.ask_with(&key, "GET /v1/jobs", "").await.status, 200);
    let list = made(&world, TOKEN, "GET /v1/keys", Value::Null).await;
    let id = list["keys"][0]["id"].as_str().unwrap().to_owned();
    made(&world, TOKEN, &format!("DELETE /v1/keys/{id}"), Value::Null).await;
    // At once: the clock of this world stands.
    let reply = world.ask_with(&key, "GET /v1/jobs", "").await;
    assert_eq!(reply.code(), "unauthenticated");
    let again = world
        .ask_with(TOKEN, &format!("DELETE /v1/keys/{id}"), "")
        .await;
    assert_eq!(again.code(), "not_found");
    // Whoever is sent away has no key any more.
    let key = world.key("", Role::Operator, &[]).await;
    assert_eq!(world.ask_with(&key, "GET /v1/nodes", "").await.status, 200);
    let line = "DELETE /v1/principals/user:operator-";
    made(&world, TOKEN, line, Value::Null).await;
    let reply = world.ask_with(&key, "GET /v1/nodes", "").await;
    assert_eq!(reply.code(), "unauthenticated");
}

#[tokio::test]
async fn another_role_opens_and_closes_routes_for_a_key_that_is_in_use() {
    let world = World::new().await;
    let key = world.key("", Role::Member, &[]).await;
    let line = "PUT /v1/principals/user:member-";
    let nodes = async || world.ask_with(&key, "GET /v1/nodes", "").await.code();
    let as_itself = world.ask_with(&key, line, r#"{"role":"admin"}"#).await;
    assert_eq!(as_itself.code(), "forbidden");
    for (role, code) in [("operator", "no code"), ("member", "forbidden")] {
        let view = made(&world, TOKEN, line, json!({"role": role})).await;
        assert_eq!(
            (&view["id"], &view["role"]),
            (&json!("user:member-"), &json!(role))
        );
        // At once: the clock of this world stands.
        assert_eq!(nodes().await, code, "{role}");
    }
    for (line, body, code) in [
        (line, json!({"role": "root"}), "invalid_argument"),
        (line, json!({}), "invalid_argument"),
        (
            line,
            json!({"role": "admin", "kind": "agent"}),
            "unknown_field",
        ),
        (
            "PUT /v1/principals/user:none",
            json!({"role": "admin"}),
            "not_found",
        ),
        (
            "PUT /v1/principals/uid:1000",
            json!({"role": "member"}),
            "not_found",
        ),
    ] {
        let reply = world.ask_with(TOKEN, line, &body.to_string()).await;
        assert_eq!(reply.code(), code, "{line} {body}: {}", reply.json());
    }
    let other = world.key("other", Role::Admin, &[]).await;
    let reply = world.ask_with(&other, line, r#"{"role":"admin"}"#).await;
    assert_eq!(reply.code(), "not_found");
    let own = world
        .ask_with(
            &other,
            "PUT /v1/principals/user:admin",
            r#"{"role":"member"}"#,
        )
        .await;
    assert_eq!(
        own.status,
        StatusCode::OK,
        "there is another admin: {}",
        own.json()
    );
    let last = world
        .ask_with(
            &other,
            "PUT /v1/principals/user:admin-",
            r#"{"role":"member"}"#,
        )
        .await;
    assert_eq!(last.code(), "conflict");
}

/// What was refused to people of a tenant, by its record.
pub(crate) async fn refusals(world: &World, key: &str) -> Vec<Value> {
    service::loops::refusals_pass(&world.service).await.unwrap();
    let line = "GET /v1/audit?kind=request.refused&limit=500";
    let list = made(world, key, line, Value::Null).await;
    list["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn what_is_refused_to_somebody_is_in_the_record_of_their_tenant_and_strangers_are_not() {
    let world = World::new().await;
    let key = world.key("", Role::Member, &[]).await;
    let other = world.key("other", Role::Admin, &[]).await;
    let line = "PUT /v1/principals/user:eve?a=of-a-query";
    let reply = world.ask_with(&key, line, r#"{"role":"admin"}"#).await;
    assert_eq!(reply.code(), "forbidden");
    // Nobody is known, it is not there, or it is not about who asks.
    let unknown = format!("cfd_{}", "0a".repeat(32));
    for (key, line, code) in [
        (unknown.as_str(), "GET /v1/keys", "unauthenticated"),
        ("wrong", "GET /v1/keys", "unauthenticated"),
        (&*key, "GET /v1/jobs/x", "not_found"),
        (&*key, "GET /v1/jobs?limit=0", "invalid_argument"),
    ] {
        let reply = world.ask_with(key, line, "").await;
        assert_eq!(reply.code(), code, "{line}");
    }
    // A node is refused in a record of its own.
    let node = world.ask_as_node(bare("GET", "/v1/keys")).await;
    assert_eq!(node.code(), "forbidden");
    let told = refusals(&world, TOKEN).await;
    assert_eq!(told.len(), 1, "{told:?}");
    let keys = made(&world, TOKEN, "GET /v1/keys", Value::Null).await;
    assert_eq!(told[0]["principal"], "user:member-");
    assert_eq!(
        told[0]["data"],
        json!({"action": "PUT /v1/principals/{name}", "about": "user:eve", "code": "forbidden",
            "key": keys["keys"][0]["id"], "why": "this needs the role `admin`"})
    );
    assert_eq!(refusals(&world, &other).await, [] as [Value; 0]);
    let reply = world.ask_with(&other, "GET /v1/nodes", "").await;
    assert_eq!(reply.code(), "forbidden");
    assert_eq!(refusals(&world, &other).await.len(), 1);
    assert_eq!(refusals(&world, TOKEN).await.len(), 1);
}

#[tokio::test]
async fn a_thousand_refusals_are_twenty_events_and_one_that_counts_the_others() {
    let world = World::new().await;
    let key = world.key("", Role::Member, &[]).await;
    for _ in 0..1000 {
        let reply = world.ask_with(&key, "GET /v1/keys", "").await;
        assert_eq!(reply.code(), "forbidden");
    }
    assert_eq!(refusals(&world, TOKEN).await.len(), 20);
    world.clock.advance(60_000);
    let told = refusals(&world, TOKEN).await;
    assert_eq!(told.len(), 21);
    assert_eq!(told[20]["data"], json!({"left_out": 980}));
}

/// Attack: Somebody gives another one, or themselves, more than they have.
#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let world = World::new().await;
    let narrow = world
        .key(
            "",
            Role::Admin,
            &["key:write", "principal:write", "job:write"],
        )
        .await;
    let new = json!({"kind": "user", "name": "x", "role": "admin"});
    made(&world, &narrow, "POST /v1/principals", new).await;
    let ask = async |scopes: Value| {
        let new = json!({"principal": "user:x", "scopes": scopes}).to_string();
        world.ask_with(&narrow, "POST /v1/keys", &new).await.code()
    };
    assert_eq!(ask(json!([])).await, "forbidden");
    assert_eq!(ask(json!(["job:write", "secret:write"])).await, "forbidden");
    assert_eq!(ask(json!(["job:read"])).await, "no code");
    assert_eq!(ask(json!(["job:fly"])).await, "invalid_argument");
}

#[tokio::test]
async fn bad_people_are_refused_and_never_with_500() {
    let world = World::new().await;
    made(&world, TOKEN, "POST /v1/tenants", json!({"name": "acme"})).await;
    for (line, body, code) in [
        ("POST /v1/tenants", json!({"name": "acme"}), "conflict"),
        ("POST /v1/tenants", json!({"name": ""}), "invalid_argument"),
        (
            "POST /v1/tenants",
            json!({"name": "ten_x"}),
            "invalid_argument",
        ),
        (
            "POST /v1/tenants",
            json!({"name": "b", "admin": "a:b"}),
            "invalid_argument",
        ),
        (
            "POST /v1/principals",
            json!({"kind": "node", "name": "a", "role": "admin"}),
            "invalid_argument",
        ),
        (
            "POST /v1/principals",
            json!({"kind": "user", "name": "a", "role": "root"}),
            "invalid_argument",
        ),
        (
            "POST /v1/principals",
            json!({"kind": "user", "name": "a", "role": "admin", "tenant": "ten_x"}),
            "unknown_field",
        ),
        (
            "POST /v1/keys",
            json!({"principal": "user:none"}),
            "not_found",
        ),
        (
            "POST /v1/keys",
            json!({"principal": "uid:1000"}),
            "not_found",
        ),
        ("POST /v1/keys", json!({"principal": "a b\n"}), "not_found"),
        ("DELETE /v1/tenants/local", Value::Null, "tenant_in_use"),
        ("DELETE /v1/tenants/ten_local", Value::Null, "tenant_in_use"),
        ("DELETE /v1/tenants/none", Value::Null, "not_found"),
        ("DELETE /v1/principals/uid:1000", Value::Null, "not_found"),
        ("DELETE /v1/keys/x", Value::Null, "not_found"),
        ("GET /v1/keys?limit=0", Value::Null, "invalid_argument"),
    ] {
        let reply = world.ask_with(TOKEN, line, &body.to_string()).await;
        assert_eq!(reply.code(), code, "{line} {body}: {}", reply.json());
    }
}

/// What the first tenant has, each by the path at which it is found.
async fn things(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let hello = json!({"name": "n", "incarnation": "a", "version": "0", "slots": 1,
        "drivers": ["fake"], "facts": {"volumes": "1"}});
    let hello = with_body("POST", "/node/v1/register", &hello.to_string());
    assert!(world.ask_as_node(hello).await.status.is_success());
    for (noun, body) in [
        ("jobs", json!({"argv": ["true"], "attach": true})),
        ("sandboxes", json!({})),
        ("secrets", json!({"name": "thing", "value": "a-long-value"})),
        (
            "principals",
            json!({"kind": "user", "name": "thing", "role": "member"}),
        ),
        ("keys", json!({"principal": "user:thing"})),
    ] {
        let view = made(world, TOKEN, &format!("POST /v1/{noun}"), body).await;
        found.push(format!("/v1/{noun}/{}", view["id"].as_str().unwrap()));
    }
    let profile = json!({"limits": {"pids": 5}});
    made(world, TOKEN, "PUT /v1/profiles/thing", profile).await;
    found.extend(["/v1/secrets/thing", "/v1/profiles/thing"].map(str::to_owned));
    found
}

/// Attack: Ids of another tenant are asked for, changed and deleted on every route.
#[tokio::test]
async fn what_is_another_tenants_is_not_there() {
    let world = World::new().await;
    let things = things(&world).await;
    let other = world.key("other", Role::Admin, &[]).await;
    let (job, sandbox) = (&things[0], &things[1]);
    let mut lines = Vec::new();
    for thing in &things {
        lines.push(format!("DELETE {thing}"));
        lines.push(format!("GET {thing}"));
    }
    for of_job in [
        "artifacts",
        "events",
        "logs",
        "egress",
        "egress/connections",
    ] {
        lines.push(format!("GET {job}/{of_job}"));
    }
    lines.push(format!("POST {job}/cancel"));
    for of_sandbox in [
        "events",
        "egress",
        "egress/connections",
        "jobs",
        "usage",
        "reachability",
        "guest/envs",
        "ports/8080/x",
    ] {
        lines.push(format!("GET {sandbox}/{of_sandbox}"));
    }
    for of_sandbox in [
        "pause",
        "resume",
        "connect",
        "recreate",
        "snapshots",
        "fork",
    ] {
        lines.push(format!("POST {sandbox}/{of_sandbox}"));
    }
    lines.push("GET /v1/profiles/thing/versions".to_owned());
    lines.push("GET /v1/secrets/thing/events".to_owned());
    for line in &lines {
        let body = if line.starts_with("POST") { "{}" } else { "" };
        let reply = world.ask_with(&other, line, body).await;
        // Some are only deleted, or only read.
        let is_none = ["not_found", "method_not_allowed"].contains(&reply.code().as_str());
        assert!(is_none, "{line}: {} {}", reply.status, reply.json());
    }
    // The first tenant still has all of it.
    for thing in things
        .iter()
        .filter(|thing| !thing.contains("keys") && !thing.contains("princ"))
    {
        let reply = world.ask(bare("GET", thing)).await;
        assert_eq!(reply.status, 200, "{thing}");
    }
}

/// Attack: Lists are read for what is of another tenant.
#[tokio::test]
async fn lists_show_the_callers_own_and_nothing_else() {
    let world = World::new().await;
    let things = things(&world).await;
    let other = world.key("other", Role::Admin, &[]).await;
    for (list, member) in [
        ("jobs", "jobs"),
        ("jobs?kind=exec", "execs"),
        ("sandboxes", "sandboxes"),
        ("snapshots", "snapshots"),
        ("volumes", "volumes"),
        ("secrets", "secrets"),
        ("profiles", "profiles"),
        ("egress/connections", "connections"),
    ] {
        let page = made(&world, &other, &format!("GET /v1/{list}"), Value::Null).await;
        let rows = page.get(member).or_else(|| page.get("jobs")).unwrap();
        assert_eq!(rows.as_array().map(Vec::len), Some(0), "{list}: {page}");
    }
    let record = made(&world, &other, "GET /v1/audit?limit=500", Value::Null).await;
    let record = record.to_string();
    for thing in &things {
        let id = thing.rsplit('/').next().unwrap();
        assert!(!record.contains(id), "{id} is in the record of another");
    }
    assert!(record.contains("principal.created"), "its own is there");
    let people = made(&world, &other, "GET /v1/principals", Value::Null).await;
    assert!(!people.to_string().contains("thing"), "{people}");
    // Another tenant names what it has as it likes.
    let secret = json!({"name": "thing", "value": "another-value"});
    made(&world, &other, "POST /v1/secrets", secret).await;
    let profile = json!({"limits": {"pids": 7}});
    made(&world, &other, "PUT /v1/profiles/thing", profile).await;
    let thing = json!({"kind": "user", "name": "thing", "role": "member"});
    made(&world, &other, "POST /v1/principals", thing).await;
    // And cannot use what it has not.
    let job = json!({"argv": ["true"], "secrets": [{"name": "none", "how": {"kind": "file"}}]});
    let reply = world
        .ask_with(&other, "POST /v1/jobs", &job.to_string())
        .await;
    assert!(reply.status.is_client_error());
}

/// Attack: A key of idempotency, a cursor and the digest of bytes of another tenant are used.
#[tokio::test]
async fn keys_of_idempotency_and_cursors_do_not_cross_tenants() {
    let world = World::new().await;
    let others = [TOKEN.to_owned(), world.key("other", Role::Admin, &[]).await];
    let mut ids = Vec::new();
    for key in &others {
        let mut request = with_body("POST", "/v1/jobs", r#"{"argv":["true"]}"#);
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        headers.insert("idempotency-key", "the-same-key".parse().unwrap());
        let reply = world.ask_tcp(request).await;
        assert!(reply.status.is_success(), "{}", reply.json());
        ids.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
    // A cursor says where a page begins, and not whose it is.
    let mine = format!("GET /v1/jobs?before={}.{}", u64::MAX / 2, ids[0]);
    let page = made(&world, &others[1], &mine, Value::Null).await;
    assert!(!page.to_string().contains(&ids[0]) && page.to_string().contains(&ids[1]));
    // Bytes that one has sent are not there for another.
    let sent = world
        .ask(with_body("POST", "/v1/blobs", "some bytes"))
        .await;
    let digest = sent.json()["digest"].as_str().unwrap().to_owned();
    let job = json!({"argv": ["true"], "files": [{"path": "a", "digest": digest, "size_bytes": 10,
        "mode": 420}]});
    let reply = world
        .ask_with(&others[1], "POST /v1/jobs", &job.to_string())
        .await;
    assert!(
        reply.json().to_string().contains("blob_missing"),
        "{}",
        reply.json()
    );
}

#[tokio::test]
async fn a_tenant_goes_when_it_has_nothing_and_then_nobody_gets_in() {
    let world = World::new().await;
    let other = world.key("other", Role::Admin, &[]).await;
    let secret = json!({"name": "a", "value": "a-long-value"});
    made(&world, &other, "POST /v1/secrets", secret).await;
    let reply = world.ask_with(TOKEN, "DELETE /v1/tenants/other", "").await;
    assert_eq!(reply.code(), "tenant_in_use");
    made(&world, &other, "DELETE /v1/secrets/a", Value::Null).await;
    let policy = json!({"version": 1, "layer": "tenant"});
    for (line, body) in [
        ("PUT /v1/profiles/thing", json!({"limits": {"pids": 5}})),
        ("PUT /v1/policies/thing", policy),
    ] {
        made(&world, &other, line, body).await;
        let reply = world.ask_with(TOKEN, "DELETE /v1/tenants/other", "").await;
        assert_eq!(reply.code(), "tenant_in_use", "{line}");
        let line = line.replace("PUT", "DELETE");
        made(&world, &other, &line, Value::Null).await;
    }
    made(&world, TOKEN, "DELETE /v1/tenants/other", Value::Null).await;
    let reply = world.ask_with(&other, "GET /v1/jobs", "").await;
    assert_eq!(reply.code(), "unauthenticated");
}
