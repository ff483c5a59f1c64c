//! Who may ask what. Every route of the OpenAPI document is asked by everybody who must not get in;
//! a route that is missing from the table here fails.

use std::collections::BTreeSet;

use http::Request;
use http_body_util::Full;
use model::access::Action::{
    self, ApprovalRead, ApprovalWrite, AuditRead, JobRead, JobWrite, KeyRead, KeyWrite, NodeRead,
    NodeWrite, PolicyRead, PolicyWrite, PrincipalRead, PrincipalWrite, ProfileRead, ProfileWrite,
    QuotaRead, QuotaWrite, SandboxRead, SandboxWrite, SecretRead, SecretWrite, SnapshotRead,
    SnapshotWrite, TenantRead, TenantWrite, VolumeRead, VolumeWrite,
};
use model::access::{Realm, Scopes};
use model::principal::Role;

use crate::world::{Reply, TOKEN, World, bare, with_body};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Anybody,
    /// Whoever has a credential, but for nodes.
    Credential,
    /// Whoever may do this.
    User(Action),
    Node,
    /// Another server, which comes by no door of these tests.
    Server,
}

const ROUTES: [(&str, &str, For); 124] = [
    ("GET", "/healthz", For::Anybody),
    ("GET", "/mcp", For::Credential),
    ("POST", "/mcp", For::Credential),
    ("DELETE", "/mcp", For::Credential),
    ("GET", "/metrics", For::User(NodeRead)),
    ("GET", "/openapi.json", For::Credential),
    ("GET", "/readyz", For::Credential),
    ("POST", "/v1/blobs", For::User(JobWrite)),
    ("GET", "/v1/enroll-tokens", For::User(NodeRead)),
    ("POST", "/v1/enroll-tokens", For::User(NodeWrite)),
    ("DELETE", "/v1/enroll-tokens/{id}", For::User(NodeWrite)),
    ("GET", "/v1/nodes", For::User(NodeRead)),
    ("GET", "/v1/nodes/{id}", For::User(NodeRead)),
    ("DELETE", "/v1/nodes/{id}", For::User(NodeWrite)),
    ("POST", "/v1/nodes/{id}/state", For::User(NodeWrite)),
    ("POST", "/node/v1/enroll", For::Node),
    ("POST", "/node/v1/renew", For::Node),
    ("GET", "/node/v1/link", For::Node),
    ("GET", "/v1/jobs", For::User(JobRead)),
    ("POST", "/v1/jobs", For::User(JobWrite)),
    ("GET", "/v1/jobs/{id}", For::User(JobRead)),
    ("GET", "/v1/jobs/{id}/artifacts", For::User(JobRead)),
    (
        "GET",
        "/v1/jobs/{id}/artifacts/{artifact_id}",
        For::User(JobRead),
    ),
    ("GET", "/v1/jobs/{id}/attach", For::User(JobWrite)),
    ("POST", "/v1/jobs/{id}/cancel", For::User(JobWrite)),
    ("GET", "/v1/jobs/{id}/events", For::User(JobRead)),
    ("GET", "/v1/jobs/{id}/logs", For::User(JobRead)),
    ("GET", "/v1/sandboxes", For::User(SandboxRead)),
    ("POST", "/v1/sandboxes", For::User(SandboxWrite)),
    ("GET", "/v1/sandboxes/{id}", For::User(SandboxRead)),
    ("DELETE", "/v1/sandboxes/{id}", For::User(SandboxWrite)),
    (
        "POST",
        "/v1/sandboxes/{id}/connect",
        For::User(SandboxWrite),
    ),
    ("GET", "/v1/sandboxes/{id}/events", For::User(SandboxRead)),
    (
        "GET",
        "/v1/sandboxes/{id}/guest/{*path}",
        For::User(SandboxWrite),
    ),
    (
        "POST",
        "/v1/sandboxes/{id}/guest/{*path}",
        For::User(SandboxWrite),
    ),
    ("POST", "/v1/sandboxes/{id}/fork", For::User(SandboxWrite)),
    ("POST", "/v1/sandboxes/{id}/pause", For::User(SandboxWrite)),
    ("GET", "/v1/sandboxes/{id}/jobs", For::User(SandboxRead)),
    (
        "GET",
        "/v1/sandboxes/{id}/ports/{port}",
        For::User(SandboxWrite),
    ),
    (
        "GET",
        "/v1/sandboxes/{id}/ports/{port}/{*path}",
        For::User(SandboxWrite),
    ),
    (
        "POST",
        "/v1/sandboxes/{id}/ports/{port}/{*path}",
        For::User(SandboxWrite),
    ),
    (
        "PUT",
        "/v1/sandboxes/{id}/ports/{port}/{*path}",
        For::User(SandboxWrite),
    ),
    (
        "PATCH",
        "/v1/sandboxes/{id}/ports/{port}/{*path}",
        For::User(SandboxWrite),
    ),
    (
        "DELETE",
        "/v1/sandboxes/{id}/ports/{port}/{*path}",
        For::User(SandboxWrite),
    ),
    (
        "GET",
        "/v1/sandboxes/{id}/reachability",
        For::User(SandboxRead),
    ),
    (
        "POST",
        "/v1/sandboxes/{id}/recreate",
        For::User(SandboxWrite),
    ),
    ("POST", "/v1/sandboxes/{id}/resume", For::User(SandboxWrite)),
    (
        "POST",
        "/v1/sandboxes/{id}/snapshots",
        For::User(SnapshotWrite),
    ),
    (
        "POST",
        "/v1/sandboxes/{id}/timeout",
        For::User(SandboxWrite),
    ),
    ("PUT", "/v1/sandboxes/{id}/network", For::User(SandboxWrite)),
    ("GET", "/v1/sandboxes/{id}/egress", For::User(SandboxRead)),
    ("GET", "/v1/audit", For::User(AuditRead)),
    ("GET", "/v1/audit/check", For::User(AuditRead)),
    (
        "POST",
        "/v1/sandboxes/{id}/egress/test",
        For::User(SandboxRead),
    ),
    ("GET", "/v1/jobs/{id}/egress", For::User(JobRead)),
    (
        "GET",
        "/v1/sandboxes/{id}/egress/connections",
        For::User(SandboxRead),
    ),
    (
        "GET",
        "/v1/jobs/{id}/egress/connections",
        For::User(JobRead),
    ),
    ("GET", "/v1/egress/connections", For::User(SandboxRead)),
    ("GET", "/v1/profiles", For::User(ProfileRead)),
    ("PUT", "/v1/profiles/{name}", For::User(ProfileWrite)),
    ("GET", "/v1/profiles/{name}", For::User(ProfileRead)),
    ("DELETE", "/v1/profiles/{name}", For::User(ProfileWrite)),
    (
        "GET",
        "/v1/profiles/{name}/versions",
        For::User(ProfileRead),
    ),
    ("GET", "/v1/secrets", For::User(SecretRead)),
    ("POST", "/v1/secrets", For::User(SecretWrite)),
    ("GET", "/v1/secrets/{name}", For::User(SecretRead)),
    ("DELETE", "/v1/secrets/{name}", For::User(SecretWrite)),
    ("GET", "/v1/secrets/{name}/events", For::User(SecretWrite)),
    (
        "POST",
        "/v1/secrets/{name}/versions",
        For::User(SecretWrite),
    ),
    ("GET", "/v1/jobs/{id}/permit", For::User(JobRead)),
    ("GET", "/v1/quotas", For::User(QuotaRead)),
    ("PUT", "/v1/quotas/{name}", For::User(QuotaWrite)),
    ("DELETE", "/v1/quotas/{name}", For::User(QuotaWrite)),
    ("GET", "/v1/policies", For::User(PolicyRead)),
    ("POST", "/v1/policies/test", For::User(PolicyRead)),
    ("PUT", "/v1/policies/{name}", For::User(PolicyWrite)),
    ("GET", "/v1/policies/{name}", For::User(PolicyRead)),
    ("DELETE", "/v1/policies/{name}", For::User(PolicyWrite)),
    ("GET", "/v1/policies/{name}/versions", For::User(PolicyRead)),
    ("GET", "/v1/sandboxes/{id}/permit", For::User(SandboxRead)),
    ("GET", "/v1/approvals", For::User(ApprovalRead)),
    ("POST", "/v1/approvals", For::User(SandboxWrite)),
    ("GET", "/v1/approvals/{id}", For::User(ApprovalRead)),
    ("DELETE", "/v1/approvals/{id}", For::User(ApprovalWrite)),
    (
        "POST",
        "/v1/approvals/{id}/decision",
        For::User(ApprovalWrite),
    ),
    ("POST", "/node/v1/jobs/{id}/secrets", For::Node),
    ("POST", "/node/v1/sandboxes/{id}/secrets", For::Node),
    ("GET", "/v1/sandboxes/{id}/usage", For::User(SandboxRead)),
    ("GET", "/v1/snapshots", For::User(SnapshotRead)),
    ("GET", "/v1/snapshots/{id}", For::User(SnapshotRead)),
    ("DELETE", "/v1/snapshots/{id}", For::User(SnapshotWrite)),
    ("GET", "/v1/volumes", For::User(VolumeRead)),
    ("POST", "/v1/volumes", For::User(VolumeWrite)),
    ("GET", "/v1/volumes/{name}", For::User(VolumeRead)),
    ("DELETE", "/v1/volumes/{name}", For::User(VolumeWrite)),
    ("GET", "/node/v1/blobs/{digest}", For::Node),
    ("GET", "/node/v1/peer/link", For::Server),
    ("GET", "/v1/servers", For::User(NodeRead)),
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
    ("GET", "/v1/tenants", For::User(TenantRead)),
    ("POST", "/v1/tenants", For::User(TenantWrite)),
    ("DELETE", "/v1/tenants/{name}", For::User(TenantWrite)),
    ("GET", "/v1/principals", For::User(PrincipalRead)),
    ("POST", "/v1/principals", For::User(PrincipalWrite)),
    ("PUT", "/v1/principals/{name}", For::User(PrincipalWrite)),
    ("DELETE", "/v1/principals/{name}", For::User(PrincipalWrite)),
    ("GET", "/v1/keys", For::User(KeyRead)),
    ("POST", "/v1/keys", For::User(KeyWrite)),
    ("DELETE", "/v1/keys/{id}", For::User(KeyWrite)),
    ("GET", "/v1/me", For::Credential),
    ("GET", "/v1/login", For::Anybody),
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
        .replace("/v1/keys/job_", "/v1/keys/key_")
        .replace("/v1/approvals/job_", "/v1/approvals/apv_")
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

/// Attack: A page of another origin, or a name that was rebound to this machine, asks the server.
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

/// Attack: A node asks as a person would, and a person as a node would.
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

/// What is sent where nothing is looked at without it: what is wrong with a body is said before who may send it.
fn body(method: &str, path: &str) -> &'static str {
    match (method, path) {
        ("POST", "/v1/enroll-tokens") => r#"{"labels":{"":"bad"}}"#,
        ("POST", "/v1/nodes/{id}/state") => r#"{"order":"cordon"}"#,
        ("PUT", "/v1/policies/{name}") => r#"{"version":1,"layer":"tenant"}"#,
        ("POST", "/v1/policies/test") => r#"{"job":{"argv":["true"]}}"#,
        ("PUT", "/v1/profiles/{name}") => r#"{"limits":{"pids":5}}"#,
        ("PUT", "/v1/quotas/{name}") => r#"{"limits":{"jobs":1}}"#,
        ("POST", "/v1/secrets") => r#"{"name":"a","value":"bbbbbbbb"}"#,
        ("POST", "/v1/secrets/{name}/versions") => r#"{"value":"bbbbbbbb"}"#,
        ("POST", "/v1/tenants") => r#"{"name":"new"}"#,
        ("POST", "/v1/principals") => r#"{"kind":"user","name":"new","role":"member"}"#,
        ("PUT", "/v1/principals/{name}") => r#"{"role":"member"}"#,
        ("POST", "/v1/keys") => r#"{"principal":"user:nobody","scopes":["key:read"]}"#,
        ("POST", "/v1/jobs") => r#"{"argv":["true"]}"#,
        ("POST", "/v1/approvals") => {
            r#"{"egress":{"sandbox":"sbx_0197747bb4007000800000000000dead","to":"a.test"}}"#
        }
        ("POST", "/v1/approvals/{id}/decision") => r#"{"verdict":"approve"}"#,
        ("POST", "/v1/volumes") => r#"{"name":"v"}"#,
        ("POST", "/v1/sandboxes/{id}/timeout") => r#"{"timeout_ms":1000}"#,
        ("PUT", "/v1/sandboxes/{id}/network") => "{}",
        ("POST", "/v1/sandboxes/{id}/egress/test") => r#"{"url":"http://a.example"}"#,
        ("POST", _) => "{}",
        _ => "",
    }
}

/// Ids of the kind that each route wants, so that nothing is refused because of them.
fn fitting(path: &str) -> String {
    let kind = match path {
        path if path.starts_with("/v1/sandboxes") => "sbx_",
        path if path.starts_with("/v1/snapshots") => "snp_",
        path if path.starts_with("/v1/nodes") => "node_",
        path if path.starts_with("/v1/enroll-tokens") => "ent_",
        _ => "job_",
    };
    let filled = filled(path).replace("job_", kind).replace("{name}", "name");
    // That of a tenant is for fewer.
    filled.replace("/v1/quotas/name", "/v1/quotas/user:name")
}

async fn code_with(world: &World, key: &str, method: &str, path: &str) -> String {
    let mut request = with_body(method, &fitting(path), body(method, path));
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    world.ask_tcp(request).await.code()
}

/// Attack: Every route is asked by somebody with a smaller role than it wants.
#[tokio::test]
async fn each_route_is_for_those_with_its_role_and_for_nobody_with_a_smaller_one() {
    let world = World::new().await;
    for tenant in ["", "other"] {
        for role in Role::ALL {
            let key = world.key(tenant, role, &[]).await;
            for (method, path, who) in ROUTES {
                let allowed = match who {
                    For::User(action) => {
                        let is_here = tenant.is_empty() || action.realm() == Realm::Tenant;
                        role >= action.least_role() && is_here
                    }
                    For::Anybody | For::Credential => true,
                    For::Node | For::Server => false,
                };
                let code = code_with(&world, &key, method, path).await;
                assert_eq!(
                    code != "forbidden",
                    allowed,
                    "{method} {path} as {role:?} of `{tenant}`: {code}"
                );
            }
        }
    }
}

/// Attack: A narrowed key is used for something else.
#[tokio::test]
async fn a_key_that_is_narrowed_opens_what_it_is_narrowed_to() {
    let world = World::new().await;
    for scope in Action::ALL {
        let scopes = Scopes::of([*scope]);
        let key = world.key("", Role::Admin, &[scope.as_str()]).await;
        for (method, path, who) in ROUTES {
            let For::User(action) = who else { continue };
            let code = code_with(&world, &key, method, path).await;
            // These are about two things at a time.
            let needs_more = match path {
                "/v1/sandboxes/{id}/fork" => Some(SnapshotWrite),
                "/v1/sandboxes/{id}/snapshots" => Some(SandboxRead),
                "/v1/egress/connections" => Some(JobRead),
                _ => None,
            };
            let allowed = scopes.allow(action) && needs_more.is_none_or(|more| scopes.allow(more));
            if path == "/v1/egress/connections" && !allowed {
                // Without nodes nobody is asked whether they may see what none says.
                continue;
            }
            assert_eq!(
                code != "forbidden",
                allowed,
                "{method} {path} with {}: {code}",
                scope.as_str()
            );
        }
    }
}

#[tokio::test]
async fn a_key_that_may_only_look_is_not_told_the_token_that_runs_commands() {
    let world = World::new().await;
    let made = with_body("POST", "/v1/sandboxes", "{}");
    let made = world.ask(made).await.json();
    let token = made["access_token"].as_str().unwrap().to_owned();
    let line = format!("GET /v1/sandboxes/{}", made["id"].as_str().unwrap());
    for (scope, is_told) in [("sandbox:read", false), ("sandbox:write", true)] {
        let key = world.key("", Role::Admin, &[scope]).await;
        let shown = world.ask_with(&key, &line, "").await;
        assert_eq!(shown.status, 200, "{}", shown.json());
        let told = shown.json().to_string().contains(&token);
        assert_eq!(told, is_told, "{scope}: {}", shown.json());
    }
}

/// Attack: An agent with a large role makes keys and principals.
#[tokio::test]
async fn an_agent_never_says_who_may_do_what() {
    let world = World::new().await;
    let key = world.agent_key(Role::Admin).await;
    for (method, path, who) in ROUTES {
        let is_about_people = matches!(
            who,
            For::User(
                PrincipalWrite | KeyWrite | PolicyWrite | QuotaWrite | TenantWrite | ApprovalWrite
            )
        );
        let is_ours = matches!(who, For::User(_));
        let code = code_with(&world, &key, method, path).await;
        let expect = is_ours && !is_about_people;
        assert!(
            !is_ours || (code != "forbidden") == expect,
            "{method} {path}: {code}"
        );
    }
}
