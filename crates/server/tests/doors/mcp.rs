//! The Model Context Protocol over HTTP.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use model::principal::Role;
use serde_json::{Value, json};

use crate::people::refusals;
use crate::world::{Reply, TOKEN, World, with_body};

const ACCEPT: (&str, &str) = ("accept", "application/json, text/event-stream");
const JSON: (&str, &str) = ("content-type", "application/json");

fn message(method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri("/mcp")
        .header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

fn initialize(version: &str) -> String {
    let params = json!({"protocolVersion": version, "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string()
}

/// The messages in an answer, be it JSON or events.
fn messages(reply: &Reply) -> Vec<Value> {
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    if let Ok(one) = serde_json::from_str(&text) {
        return vec![one];
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data.trim()).ok())
        .collect()
}

async fn begin(world: &World) -> String {
    let body = initialize("2025-11-25");
    let reply = world.ask(message("POST", &[ACCEPT, JSON], body)).await;
    assert_eq!(reply.status, StatusCode::OK);
    reply.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn list(world: &World, session: &str) -> Reply {
    let body = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}).to_string();
    let headers = [
        ACCEPT,
        JSON,
        ("mcp-session-id", session),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    world.ask(message("POST", &headers, body)).await
}

#[tokio::test]
async fn every_version_that_has_sessions_begins_one_and_each_is_answered_in_its_own() {
    let world = World::new().await;
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let body = initialize(version);
        let reply = world.ask(message("POST", &[ACCEPT, JSON], body)).await;
        let result = &messages(&reply)[0]["result"];
        assert_eq!(result["protocolVersion"], version);
        assert_eq!(result["serverInfo"]["name"], "cofferdam");
        assert!(reply.headers.contains_key("mcp-session-id"));
    }
    // A version that nobody knows is answered with the newest that begins so.
    let body = initialize("1999-01-01");
    let reply = world.ask(message("POST", &[ACCEPT, JSON], body)).await;
    let version = &messages(&reply)[0]["result"]["protocolVersion"];
    assert_eq!(version, "2025-11-25");
}

#[tokio::test]
async fn a_session_ends_when_it_is_told_to_and_then_there_is_none() {
    let world = World::new().await;
    let session = begin(&world).await;
    // Which there are, the table of who may call them says.
    let tools = &messages(&list(&world, &session).await)[0]["result"]["tools"];
    assert!(!tools.as_array().unwrap().is_empty());
    let own = [ACCEPT, ("mcp-session-id", session.as_str())];
    let gone = world.ask(message("DELETE", &own, "")).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let listed = list(&world, &session).await;
    let streamed = world.ask(message("GET", &own, "")).await;
    for reply in [listed, streamed] {
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (404, "not_found")
        );
    }
}

#[tokio::test]
async fn the_newest_version_has_no_sessions_and_its_calls_are_the_callers_own() {
    let world = World::new().await;
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": "sandbox_list", "arguments": {}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let headers = [
        ACCEPT,
        JSON,
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "sandbox_list"),
    ];
    let reply = world.ask(message("POST", &headers, body.to_string())).await;
    assert!(!reply.headers.contains_key("mcp-session-id"));
    let answer = messages(&reply).pop().unwrap();
    assert_eq!(
        answer["result"]["structuredContent"]["sandboxes"],
        json!([]),
        "{answer}"
    );
    // A node is no caller of tools.
    let node = world
        .ask_as_node(message("POST", &headers, body.to_string()))
        .await;
    assert_eq!(node.code(), "forbidden");
}

/// A call of a tool, as the newest version sends it.
fn calling((tool, arguments): (&str, Value)) -> Request<Full<Bytes>> {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let headers = [
        ACCEPT,
        JSON,
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", tool),
    ];
    message("POST", &headers, body.to_string())
}

/// What a tool answers to whoever has this key, or to whom the door of memory stands for: the whole message.
pub(crate) async fn call(world: &World, key: Option<&str>, of: (&str, Value)) -> String {
    let mut request = calling(of);
    let reply = match key {
        None => world.ask(request).await,
        Some(key) => {
            let bearer = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
            world.ask_tcp(request).await
        }
    };
    messages(&reply).pop().unwrap().to_string()
}

/// The code that a node gets for the same.
pub(crate) async fn call_as_node(world: &World, of: (&str, Value)) -> String {
    world.ask_as_node(calling(of)).await.code()
}

/// The names of all tools.
pub(crate) async fn tools(world: &World) -> BTreeSet<String> {
    let session = begin(world).await;
    let listed = &messages(&list(world, &session).await)[0]["result"]["tools"];
    let listed = listed.as_array().unwrap();
    let name = |tool: &Value| tool["name"].as_str().unwrap().to_owned();
    let names: BTreeSet<String> = listed.iter().map(name).collect();
    assert_eq!(names.len(), listed.len(), "each has a name of its own");
    names
}

/// Lets a shell wait for a person, so that a tool which runs one answers at once.
pub(crate) async fn shells_wait(world: &World) {
    let rules = json!({"version": 1, "layer": "tenant",
        "commands": {"approve": ["sh", "true"], "unchecked_in_sandboxes": true}});
    let put = with_body("PUT", "/v1/policies/shells", &rules.to_string());
    let put = world.ask(put).await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.whole());
}

#[tokio::test]
async fn whoever_made_a_key_does_not_decide_what_a_tool_asked_for_with_it() {
    let world = World::new().await;
    shells_wait(&world).await;
    let alice = world.key("", Role::Admin, &[]).await;
    drop(world.key("", Role::Member, &[]).await);
    let new = json!({"principal": "user:member-"}).to_string();
    let made = world.ask_with(&alice, "POST /v1/keys", &new).await;
    let kept = made.json()["key"].as_str().unwrap().to_owned();
    let run = ("run", json!({"command": "true"}));
    let said = call(&world, Some(&kept), run).await;
    assert!(said.contains("approval_needed"), "{said}");
    let at = said.find("apv_").unwrap();
    let path = format!("/v1/approvals/{}/decision", &said[at..at + 36]);
    let yes = r#"{"verdict":"approve"}"#;
    let own = world.ask_with(&alice, &format!("POST {path}"), yes).await;
    assert_eq!(
        (own.status.as_u16(), own.code().as_str()),
        (403, "approval_own")
    );
    // Somebody else may.
    let other = world.ask(with_body("POST", &path, yes)).await;
    assert_eq!(other.status, StatusCode::OK, "{}", other.whole());
}

#[tokio::test]
async fn what_a_tool_may_not_is_in_the_record_as_the_route_that_it_has_asked() {
    let world = World::new().await;
    let key = world.key("", Role::Member, &["job:read"]).await;
    let answer = call(&world, Some(&key), ("sandbox_list", json!({}))).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["result"]["isError"], json!(true), "{answer}");
    let told = refusals(&world, TOKEN).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["principal"], "user:member-job-read");
    assert_eq!(told[0]["data"]["action"], "GET /v1/sandboxes");
}

/// Attack: Sessions are begun until there is no memory left.
#[tokio::test]
async fn a_thousand_sessions_are_not_kept_and_the_newest_works() {
    let world = World::new().await;
    let first = begin(&world).await;
    let mut last = String::new();
    for _ in 0..1000 {
        last = begin(&world).await;
    }
    assert_eq!(list(&world, &first).await.code(), "not_found");
    assert_eq!(list(&world, &last).await.status, StatusCode::OK);
}

/// What it is, its headers, its body.
type Bad<'b> = (&'b str, &'b [(&'b str, &'b str)], Bytes);

#[tokio::test]
async fn whatever_is_sent_is_answered_with_a_code_and_ends_nothing() {
    let world = World::new().await;
    let session = begin(&world).await;
    let of_session = ("mcp-session-id", session.as_str());
    let deep = "[".repeat(100_000);
    let bad: [Bad<'_>; 12] = [
        ("no JSON", &[ACCEPT, JSON], "{".into()),
        (
            "no text",
            &[ACCEPT, JSON],
            Bytes::from_static(b"\xff\xfe{}"),
        ),
        ("nothing", &[ACCEPT, JSON], "".into()),
        ("a number", &[ACCEPT, JSON], "1".into()),
        ("a list", &[ACCEPT, JSON], "[]".into()),
        ("very deep", &[ACCEPT, JSON], deep.into()),
        (
            "no version",
            &[ACCEPT, JSON],
            r#"{"id":1,"method":"tools/list"}"#.into(),
        ),
        (
            "no session",
            &[ACCEPT, JSON],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.into(),
        ),
        (
            "no JSON by its type",
            &[ACCEPT, ("content-type", "text/plain")],
            "{}".into(),
        ),
        ("nothing accepted", &[JSON], "{}".into()),
        (
            "an unknown session",
            &[ACCEPT, JSON, ("mcp-session-id", "x")],
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.into(),
        ),
        (
            "broken in a session",
            &[ACCEPT, JSON, of_session],
            "{\"jsonrpc\":".into(),
        ),
    ];
    for (what, headers, body) in bad {
        let reply = world.ask(message("POST", headers, body)).await;
        assert!(reply.status.is_client_error(), "{what}: {}", reply.status);
        let has_code = reply.code() != "no code";
        let is_of_protocol = reply.json()["error"]["code"].is_i64();
        assert!(has_code || is_of_protocol, "{what}: {}", reply.whole());
    }
    let large = vec![b' '; 5 << 20];
    let reply = world.ask(message("POST", &[ACCEPT, JSON], large)).await;
    assert_eq!(reply.code(), "body_too_large");
    let reply = world.ask(message("GET", &[ACCEPT], "")).await;
    assert!(reply.status.is_client_error());
    let reply = world.ask(message("PUT", &[], "")).await;
    assert_eq!(reply.code(), "method_not_allowed");
    // All of it has done nothing to the session.
    assert_eq!(list(&world, &session).await.status, StatusCode::OK);
}
