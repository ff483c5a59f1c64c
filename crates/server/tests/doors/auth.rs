//! Who may ask what. Every route of the OpenAPI document is asked by everybody who must not get in;
//! a route that is missing from the table here fails.

use std::collections::BTreeSet;

use http::Request;
use http_body_util::Full;

use crate::world::{Reply, TOKEN, World, bare};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Anybody,
    User,
    Node,
    /// Another server, which comes by no door of these tests.
    Server,
}

const ROUTES: [(&str, &str, For); 104] = [
    ("GET", "/healthz", For::Anybody),
    ("GET", "/mcp", For::User),
    ("POST", "/mcp", For::User),
    ("DELETE", "/mcp", For::User),
    ("GET", "/metrics", For::User),
    ("GET", "/openapi.json", For::User),
    ("GET", "/readyz", For::User),
    ("POST", "/v1/blobs", For::User),
    ("GET", "/v1/enroll-tokens", For::User),
    ("POST", "/v1/enroll-tokens", For::User),
    ("DELETE", "/v1/enroll-tokens/{id}", For::User),
    ("GET", "/v1/nodes", For::User),
    ("GET", "/v1/nodes/{id}", For::User),
    ("DELETE", "/v1/nodes/{id}", For::User),
    ("POST", "/v1/nodes/{id}/state", For::User),
    ("POST", "/node/v1/enroll", For::Node),
    ("POST", "/node/v1/renew", For::Node),
    ("GET", "/node/v1/link", For::Node),
    ("GET", "/v1/jobs", For::User),
    ("POST", "/v1/jobs", For::User),
    ("GET", "/v1/jobs/{id}", For::User),
    ("GET", "/v1/jobs/{id}/artifacts", For::User),
    ("GET", "/v1/jobs/{id}/artifacts/{artifact_id}", For::User),
    ("GET", "/v1/jobs/{id}/attach", For::User),
    ("POST", "/v1/jobs/{id}/cancel", For::User),
    ("GET", "/v1/jobs/{id}/events", For::User),
    ("GET", "/v1/jobs/{id}/logs", For::User),
    ("GET", "/v1/sandboxes", For::User),
    ("POST", "/v1/sandboxes", For::User),
    ("GET", "/v1/sandboxes/{id}", For::User),
    ("DELETE", "/v1/sandboxes/{id}", For::User),
    ("POST", "/v1/sandboxes/{id}/connect", For::User),
    ("GET", "/v1/sandboxes/{id}/events", For::User),
    ("GET", "/v1/sandboxes/{id}/guest/{*path}", For::User),
    ("POST", "/v1/sandboxes/{id}/guest/{*path}", For::User),
    ("POST", "/v1/sandboxes/{id}/fork", For::User),
    ("POST", "/v1/sandboxes/{id}/pause", For::User),
    ("GET", "/v1/sandboxes/{id}/jobs", For::User),
    ("GET", "/v1/sandboxes/{id}/ports/{port}", For::User),
    ("GET", "/v1/sandboxes/{id}/ports/{port}/{*path}", For::User),
    ("POST", "/v1/sandboxes/{id}/ports/{port}/{*path}", For::User),
    ("PUT", "/v1/sandboxes/{id}/ports/{port}/{*path}", For::User),
    (
        "PATCH",
        "/v1/sandboxes/{id}/ports/{port}/{*path}",
        For::User,
    ),
    (
        "DELETE",
        "/v1/sandboxes/{id}/ports/{port}/{*path}",
        For::User,
    ),
    ("GET", "/v1/sandboxes/{id}/reachability", For::User),
    ("POST", "/v1/sandboxes/{id}/recreate", For::User),
    ("POST", "/v1/sandboxes/{id}/resume", For::User),
    ("POST", "/v1/sandboxes/{id}/snapshots", For::User),
    ("POST", "/v1/sandboxes/{id}/timeout", For::User),
    ("PUT", "/v1/sandboxes/{id}/network", For::User),
    ("GET", "/v1/sandboxes/{id}/egress", For::User),
    ("GET", "/v1/audit", For::User),
    ("GET", "/v1/audit/check", For::User),
    ("POST", "/v1/sandboxes/{id}/egress/test", For::User),
    ("GET", "/v1/jobs/{id}/egress", For::User),
    ("GET", "/v1/sandboxes/{id}/egress/connections", For::User),
    ("GET", "/v1/jobs/{id}/egress/connections", For::User),
    ("GET", "/v1/egress/connections", For::User),
    ("GET", "/v1/jobs/{id}/permit", For::User),
    ("GET", "/v1/policies", For::User),
    ("POST", "/v1/policies/test", For::User),
    ("PUT", "/v1/policies/{name}", For::User),
    ("GET", "/v1/policies/{name}", For::User),
    ("DELETE", "/v1/policies/{name}", For::User),
    ("GET", "/v1/policies/{name}/versions", For::User),
    ("GET", "/v1/sandboxes/{id}/permit", For::User),
    ("GET", "/v1/profiles", For::User),
    ("PUT", "/v1/profiles/{name}", For::User),
    ("GET", "/v1/profiles/{name}", For::User),
    ("DELETE", "/v1/profiles/{name}", For::User),
    ("GET", "/v1/profiles/{name}/versions", For::User),
    ("GET", "/v1/secrets", For::User),
    ("POST", "/v1/secrets", For::User),
    ("GET", "/v1/secrets/{name}", For::User),
    ("DELETE", "/v1/secrets/{name}", For::User),
    ("GET", "/v1/secrets/{name}/events", For::User),
    ("POST", "/v1/secrets/{name}/versions", For::User),
    ("POST", "/node/v1/jobs/{id}/secrets", For::Node),
    ("POST", "/node/v1/sandboxes/{id}/secrets", For::Node),
    ("GET", "/v1/sandboxes/{id}/usage", For::User),
    ("GET", "/v1/snapshots", For::User),
    ("GET", "/v1/snapshots/{id}", For::User),
    ("DELETE", "/v1/snapshots/{id}", For::User),
    ("GET", "/v1/volumes", For::User),
    ("POST", "/v1/volumes", For::User),
    ("GET", "/v1/volumes/{name}", For::User),
    ("DELETE", "/v1/volumes/{name}", For::User),
    ("GET", "/node/v1/blobs/{digest}", For::Node),
    ("GET", "/node/v1/peer/link", For::Server),
    ("GET", "/v1/servers", For::User),
    ("POST", "/node/v1/heartbeat", For::Node),
    ("PUT", "/node/v1/jobs/{id}/artifacts", For::Node),
    ("POST", "/node/v1/jobs/{id}/finished", For::Node),
    ("POST", "/node/v1/jobs/{id}/output", For::Node),
    ("POST", "/node/v1/jobs/{id}/release", For::Node),
    ("POST", "/node/v1/jobs/{id}/started", For::Node),
    ("POST", "/node/v1/poll", For::Node),
    ("POST", "/node/v1/register", For::Node),
    ("POST", "/node/v1/sandboxes/{id}/execs", For::Node),
    ("POST", "/node/v1/sandboxes/{id}/report", For::Node),
    ("POST", "/node/v1/snapshots/{id}/removed", For::Node),
    ("POST", "/node/v1/usage", For::Node),
    ("POST", "/node/v1/egress", For::Node),
    ("POST", "/node/v1/sandboxes/{id}/network", For::Node),
];

fn documented() -> BTreeSet<(String, String)> {
    let document = serde_json::to_value(server::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &serde_json::Value)| {
        let methods = item.as_object().unwrap().keys();
        methods
            .map(|method| (method.to_uppercase(), path.clone()))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// A path with ids that could be, so that nothing is refused because of them.
fn filled(path: &str) -> String {
    path.replace("{id}", "job_0197747bb4007000800000000000dead")
        .replace("{artifact_id}", "art_0197747bb4007000800000000000dead")
        .replace("{digest}", &"ab".repeat(32))
        .replace("{*path}", "metrics")
        .replace("{port}", "8080")
}

#[test]
fn every_route_is_in_the_table() {
    let table: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|(method, path, _)| ((*method).into(), (*path).into()))
        .collect();
    assert_eq!(documented(), table);
}

#[tokio::test]
async fn nobody_gets_in_over_tcp_without_the_token_from_here_and_by_our_name() {
    let world = World::new().await;
    let good = format!("Bearer {TOKEN}");
    let strangers = [
        ("no token", vec![("host", "localhost")], "unauthenticated"),
        (
            "wrong token",
            vec![("host", "localhost"), ("authorization", "Bearer x")],
            "unauthenticated",
        ),
        (
            "bad Host",
            vec![("host", "evil.example"), ("authorization", &good)],
            "forbidden_host",
        ),
        (
            "foreign Origin",
            vec![
                ("host", "localhost"),
                ("authorization", &good),
                ("origin", "http://evil.example"),
            ],
            "forbidden_origin",
        ),
    ];
    for (method, path, who) in ROUTES {
        for (name, headers, code) in &strangers {
            let open = who == For::Anybody && *code == "unauthenticated";
            let reply = ask(&world, method, path, headers).await;
            let expect = if open { "no code" } else { code };
            assert_eq!(reply.code(), expect, "{method} {path} with {name}");
            assert_eq!(
                reply.status.is_client_error(),
                !open,
                "{method} {path} with {name}"
            );
        }
    }
}

#[tokio::test]
async fn who_has_the_token_gets_in_over_tcp() {
    let world = World::new().await;
    let good = format!("Bearer {TOKEN}");
    let headers = [("host", "localhost:7300"), ("authorization", good.as_str())];
    for (method, path, who) in ROUTES {
        let code = ask(&world, method, path, &headers).await.code();
        let refused = ["unauthenticated", "forbidden_host", "forbidden_origin"];
        assert!(!refused.contains(&code.as_str()), "{method} {path}: {code}");
        assert_eq!(
            code == "forbidden",
            [For::Node, For::Server].contains(&who),
            "{method} {path}: {code}"
        );
    }
}

#[tokio::test]
async fn nodes_and_people_are_kept_to_their_routes() {
    let world = World::new().await;
    for (method, path, who) in ROUTES {
        let as_user = world.ask(bare(method, &filled(path))).await.code();
        assert_eq!(
            as_user == "forbidden",
            [For::Node, For::Server].contains(&who),
            "{method} {path}: {as_user}"
        );
        let as_node = world.ask_as_node(bare(method, &filled(path))).await.code();
        let own = [For::Node, For::Anybody].contains(&who) || path == "/openapi.json";
        assert_eq!(as_node == "forbidden", !own, "{method} {path}: {as_node}");
    }
}

async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(filled(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.ask_tcp(request.body(Full::default()).unwrap()).await
}
