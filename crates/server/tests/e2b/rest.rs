//! Our own door to what is inside a sandbox.

use api::client::Token;
use api::guest::{Event, Start};
use api::{Client, Code, Endpoint};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::guest::OPEN_PORT;
use crate::world::{Known, TOKEN, World};

const BEARER: (&str, &str) = ("authorization", "Bearer a-token-for-tests");

impl World {
    /// Asks our own API with the token and these headers more.
    async fn rest(&self, line: &str, more: &[(&str, &str)]) -> crate::world::Reply {
        let headers = [&[("host", "localhost"), BEARER], more].concat();
        self.ask(line, &headers, "").await
    }

    fn client(&self) -> Client {
        Client::new(Endpoint::Tcp {
            authority: self.tcp.to_string(),
            token: Token::new(TOKEN),
        })
    }

    /// Writes a policy, as a client of the API would.
    async fn policy(&self, name: &str, spec: Value) {
        let spec = serde_json::from_value(spec).unwrap();
        self.client().policy_put(name, &spec).await.unwrap();
    }
}

fn id(sandbox: &Known) -> String {
    format!("sbx_{}", sandbox.id)
}

/// Attack: A guest reads the credential of whoever asks it.
#[tokio::test]
async fn the_guest_hears_who_asks_and_nothing_of_our_credential() {
    let world = World::new().await;
    let sandbox = world.sandbox(json!({})).await;
    let line = format!("GET /v1/sandboxes/{}/guest/envs?a=b", id(&sandbox));
    let forged = [
        ("cofferdam-principal", "somebody-else"),
        ("cofferdam-request", "forged"),
        ("x-request-id", "mine"),
    ];
    let reply = world.rest(&line, &forged).await;
    let heard = reply.json();
    assert_eq!(
        (reply.status.as_u16(), &heard["target"]),
        (200, &json!("/envs?a=b"))
    );
    let headers = &heard["headers"];
    let principal = headers["cofferdam-principal"].as_str().unwrap();
    assert!(principal.starts_with("uid:"), "{principal}");
    assert_eq!(headers["cofferdam-request"], "mine");
    assert!(headers["authorization"].is_null(), "{headers}");
    let root = world
        .rest(&line, &[("cofferdam-user", "root")])
        .await
        .json();
    assert_eq!(root["headers"]["authorization"], "Basic cm9vdDo=");
    // E2B's clients cannot say who they are either, and programs in the sandbox do not learn it.
    let host = format!("49983-{}.localhost", sandbox.id);
    let as_e2b = [
        ("host", host.as_str()),
        ("x-access-token", &sandbox.token),
        forged[0],
    ];
    let heard = world.ask("GET /envs", &as_e2b, "").await.json();
    let visitor = format!("visitor:{}", id(&sandbox));
    assert_eq!(heard["headers"]["cofferdam-principal"], visitor);
    let host = format!("{OPEN_PORT}-{}.localhost", sandbox.id);
    let heard = world
        .ask("GET /", &[("host", host.as_str()), forged[0]], "")
        .await;
    assert!(heard.json()["headers"]["cofferdam-principal"].is_null());
}

#[tokio::test]
async fn the_guest_is_for_those_with_a_token_and_only_by_its_known_routes() {
    let world = World::new().await;
    let sandbox = world.sandbox(json!({})).await;
    let base = format!("/v1/sandboxes/{}/guest", id(&sandbox));
    let health = format!("GET {base}/health");
    let nobody = world.ask(&health, &[("host", "localhost")], "").await;
    assert_eq!(nobody.json()["code"], "unauthenticated");
    // What opens one sandbox does not open the server.
    let own = [("host", "localhost"), ("x-access-token", &*sandbox.token)];
    assert_eq!(world.ask(&health, &own, "").await.status, 401);
    assert_eq!(world.rest(&health, &[]).await.status, 204);
    for hidden in [
        "GET /",
        "POST /init",
        "GET /cofferdam/execs",
        "POST /cofferdam/halt",
        "POST /cofferdam/boot",
        "POST /cofferdam/clock/stop",
        "POST /health",
        "GET /../v1",
    ] {
        let line = hidden.replace(" /", &format!(" {base}/"));
        let reply = world.rest(&line, &[]).await;
        assert_eq!(reply.json()["code"], "not_found", "{line}");
    }
    let absent = format!("GET /v1/sandboxes/sbx_{}/guest/health", "0".repeat(32));
    assert_eq!(world.rest(&absent, &[]).await.json()["code"], "not_found");
}

#[tokio::test]
async fn a_sandbox_that_does_not_run_says_why() {
    let world = World::new().await;
    let sandbox = world.sandbox(json!({})).await;
    let base = format!("/v1/sandboxes/{}", id(&sandbox));
    let health = format!("GET {base}/guest/health");
    assert_eq!(
        world
            .rest(&format!("POST {base}/pause?wait=10s"), &[])
            .await
            .status,
        200
    );
    assert_eq!(
        world.rest(&health, &[]).await.json()["code"],
        "sandbox_paused"
    );
    assert_eq!(
        world
            .rest(&format!("DELETE {base}?wait=10s"), &[])
            .await
            .status,
        200
    );
    assert_eq!(
        world.rest(&health, &[]).await.json()["code"],
        "sandbox_gone"
    );
    let error = world
        .client()
        .sandbox_port(&id(&sandbox), OPEN_PORT)
        .await
        .unwrap_err();
    assert!(error.is(Code::SandboxGone), "{error:?}");
    // One that resumes on traffic is woken.
    let asleep = world
        .sandbox(json!({"autoPause": true, "autoResume": {"enabled": true}}))
        .await;
    let base = format!("/v1/sandboxes/{}", id(&asleep));
    assert_eq!(
        world
            .rest(&format!("POST {base}/pause?wait=10s"), &[])
            .await
            .status,
        200
    );
    assert_eq!(
        world
            .rest(&format!("GET {base}/guest/health"), &[])
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn a_port_is_a_connection_to_whoever_listens_there() {
    let world = World::new().await;
    let sandbox = world.sandbox(json!({})).await;
    let client = world.client();
    let mut io = client.sandbox_port(&id(&sandbox), OPEN_PORT).await.unwrap();
    let ask = b"GET /raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    io.write_all(ask).await.unwrap();
    io.flush().await.unwrap();
    let mut said = String::new();
    io.read_to_string(&mut said).await.unwrap();
    assert!(
        said.starts_with("HTTP/1.1 200 OK") && said.contains("/raw"),
        "{said}"
    );
    let error = client.sandbox_port(&id(&sandbox), 9).await.unwrap_err();
    assert!(error.is(Code::PortClosed), "{error:?}");
    let base = format!("GET /v1/sandboxes/{}/ports", id(&sandbox));
    for (port, code) in [
        (OPEN_PORT.to_string(), "upgrade_required"),
        ("0".to_owned(), "not_found"),
        ("65536".to_owned(), "not_found"),
        ("x".to_owned(), "not_found"),
    ] {
        let reply = world.rest(&format!("{base}/{port}"), &[]).await;
        assert_eq!(reply.json()["code"], code, "{port}");
    }
}

#[tokio::test]
async fn the_typed_client_runs_a_command_through_the_door() {
    let world = World::new().await;
    let sandbox = world.sandbox(json!({})).await;
    let client = world.client();
    let guest = client.sandbox_guest(&id(&sandbox)).await.unwrap();
    let start = Start {
        program: "/bin/sh".to_owned(),
        arguments: ["-l", "-c", "this"].map(str::to_owned).to_vec(),
        ..Start::default()
    };
    let mut events = guest.start(&start).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        seen.push(event);
    }
    assert_eq!(seen[0], Event::Started { pid: 42 });
    assert_eq!(seen[1], Event::Stdout("ran this\n".into()));
    assert!(matches!(&seen[2], Event::Ended(end) if end.exit_code == 0 && end.exited));
    let guest = client.sandbox_guest("sbx_nobody").await.unwrap();
    let error = guest.start(&start).await.unwrap_err();
    assert_eq!(error.body().code, "not_found");
}

/// Attack: what `/v1` refuses by a policy is asked for at E2B's door.
#[tokio::test]
async fn a_policy_holds_at_e2b_s_door_too() {
    let world = World::new().await;
    let policy = json!({"version": 1, "layer": "global", "network": {"allow": ["*.a.test"]}});
    world.policy("net", policy).await;
    // Where a client says nothing, it gets what there may be.
    let made = world.sandbox(json!({})).await;
    let view = world.client().sandbox_get(&id(&made)).await.unwrap();
    assert_eq!(view.network.allow, ["*.a.test"]);
    let asked = json!({"templateID": "base", "network": {"allowOut": ["b.test"], "denyOut": ["0.0.0.0/0"]}});
    let refused = world.control("POST /sandboxes", &asked).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.message().contains("global/0/net@1"),
        "{}",
        refused.message()
    );
    let line = format!("PUT /sandboxes/{}/network", made.id);
    let wider = json!({"allowOut": ["b.test"], "denyOut": ["0.0.0.0/0"]});
    let refused = world.control(&line, &wider).await;
    assert_eq!(refused.status, 403, "{}", refused.message());
}

/// Attack: a volume with a policy is asked for by the field that E2B has for volumes.
#[tokio::test]
async fn a_policy_of_a_volume_holds_at_e2b_s_door_too() {
    let world = World::new().await;
    let policy =
        json!({"version": 1, "layer": "volume", "of": "data", "network": {"mode": "none"}});
    world.policy("data", policy).await;
    let network = json!({"allowOut": ["b.test"], "denyOut": ["0.0.0.0/0"]});
    let mut asked = json!({"templateID": "base", "network": network});
    let made = world.control("POST /sandboxes", &asked).await;
    assert_eq!(made.status, 201, "{}", made.message());
    asked["volumeMounts"] = json!([{"name": "data", "path": "/data"}]);
    let refused = world.control("POST /sandboxes", &asked).await;
    assert_eq!(refused.status, 403, "{}", refused.message());
    assert!(
        refused.message().contains("volume/0/data@1"),
        "{}",
        refused.message()
    );
}

/// Attack: A yes to a request with the password of a proxy in clear is used for another password.
#[tokio::test]
async fn a_request_with_a_password_in_clear_passes_once_after_a_yes_and_with_that_password_alone() {
    let world = World::new().await;
    let policy = json!({"version": 1, "layer": "tenant",
        "approvals": {"network_unrestricted": "needs_approval"}});
    world.policy("net", policy).await;
    let person = service::Ctx::user("uid:77".parse().unwrap(), "req_7");
    let asked = |password: &str| {
        let proxy =
            json!({"address": "proxy.example:1080", "username": "me", "password": password});
        json!({"templateID": "base", "network": {"egressProxy": proxy}})
    };
    let waiting = async || {
        let state = Some(model::approval::ApprovalState::Pending);
        let page = world.service.approval_list(&person, state, None, 10).await;
        page.unwrap().approvals
    };
    for _ in 0..2 {
        let refused = world.control("POST /sandboxes", &asked("pw-one")).await;
        assert_eq!(refused.status, 403, "{}", refused.message());
        let all = waiting().await;
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(!all[0].request.contains("pw-one"), "{all:?}");
    }
    let id = waiting().await.remove(0).id;
    let refused = world.control("POST /sandboxes", &asked("pw-two")).await;
    assert_eq!(refused.status, 403, "{}", refused.message());
    assert_eq!(waiting().await.len(), 2);
    let yes = service::Verdict {
        yes: true,
        waived: false,
        scope: model::approval::Scope::Once,
        for_ms: None,
        comment: String::new(),
    };
    let said = world.service.approval_decide(&person, &id, yes).await;
    said.unwrap();
    let refused = world.control("POST /sandboxes", &asked("pw-two")).await;
    assert_eq!(refused.status, 403, "{}", refused.message());
    let made = world.control("POST /sandboxes", &asked("pw-one")).await;
    assert_eq!(made.status, 201, "{}", made.message());
    let refused = world.control("POST /sandboxes", &asked("pw-one")).await;
    assert_eq!(refused.status, 403, "{}", refused.message());
}
