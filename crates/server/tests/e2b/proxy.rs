//! What is inside a sandbox, reached from outside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::guest::OPEN_PORT;
use crate::world::{Known, World};

const ENVD: &str = "49983";

async fn envd(world: &World, id: &str, token: Option<&str>, line: &str) -> crate::world::Reply {
    let mut headers = vec![
        ("host", "localhost"),
        ("e2b-sandbox-id", id),
        ("e2b-sandbox-port", ENVD),
        ("authorization", "Basic dXNlcjo="),
    ];
    headers.extend(token.map(|token| ("x-access-token", token)));
    world.ask(line, &headers, "").await
}

/// Attack: The guest of a sandbox is asked without its token, or with that of another; and it looks for the token in
/// what it is sent.
#[tokio::test]
async fn envd_needs_the_token_of_the_sandbox_and_never_sees_it() {
    let world = World::new().await;
    let one = world.sandbox(json!({})).await;
    let other = world.sandbox(json!({})).await;
    let call = "POST /process.Process/List?a=b";
    let reply = envd(&world, &one.id, Some(&one.token), call).await;
    let heard = reply.json();
    assert_eq!(heard["target"], "/process.Process/List?a=b");
    assert_eq!(heard["headers"]["authorization"], "Basic dXNlcjo=");
    for ours in ["x-access-token", "e2b-sandbox-id", "e2b-sandbox-port"] {
        assert_eq!(heard["headers"][ours], Value::Null, "{ours}");
    }
    assert_eq!(
        world.guest.seen.lock().unwrap().as_slice(),
        [format!("sbx_{}", one.id)]
    );
    for wrong in [
        None,
        Some(""),
        Some(other.token.as_str()),
        Some(&*World::key()),
    ] {
        let reply = envd(&world, &one.id, wrong, call).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["code"]),
            (401, &json!(401))
        );
    }
    for hidden in ["POST /init", "GET /init", "POST /freeze", "GET /"] {
        let reply = envd(&world, &one.id, Some(&one.token), hidden).await;
        assert_eq!(reply.status, 404, "{hidden}");
    }
    assert_eq!(envd(&world, &one.id, None, "GET /health").await.status, 204);
    let headers = [
        ("host", "localhost"),
        ("e2b-sandbox-id", one.id.as_str()),
        ("e2b-sandbox-port", ENVD),
    ];
    assert_eq!(world.ask_trusted(call, &headers).await.status, 200);
}

#[tokio::test]
async fn a_sandbox_that_does_not_run_is_said_in_the_words_that_clients_look_for() {
    let world = World::new().await;
    let made = world.sandbox(json!({})).await;
    let dead = json!({"code": 502, "message": "The sandbox was not found", "sandboxId": made.id});
    let health = async || envd(&world, &made.id, None, "GET /health").await;
    let pause = format!("POST /sandboxes/{}/pause", made.id);
    assert_eq!(world.control(&pause, &json!({})).await.status, 204);
    assert_eq!(
        (health().await.status.as_u16(), health().await.json()),
        (502, dead.clone())
    );
    world
        .control(&format!("DELETE /sandboxes/{}", made.id), &Value::Null)
        .await;
    assert_eq!(
        (health().await.status.as_u16(), health().await.json()),
        (502, dead)
    );
    let reply = envd(&world, "nosuch", None, "GET /health").await;
    assert_eq!(reply.message(), "502 The sandbox was not found");
    assert!(world.guest.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_paused_sandbox_that_wants_to_comes_back_for_a_request() {
    let world = World::new().await;
    let made = world
        .sandbox(json!({"autoResume": {"enabled": true}}))
        .await;
    let pause = format!("POST /sandboxes/{}/pause", made.id);
    assert_eq!(world.control(&pause, &json!({})).await.status, 204);
    assert_eq!(
        envd(&world, &made.id, None, "GET /health").await.status,
        204
    );
}

fn host(port: u16, made: &Known) -> String {
    format!("{port}-{}.localhost:7300", made.id)
}

#[tokio::test]
async fn a_port_is_reached_by_name_and_a_closed_one_says_so() {
    let world = World::new().await;
    let made = world.sandbox(json!({})).await;
    let open = host(OPEN_PORT, &made);
    let headers = [
        ("host", open.as_str()),
        ("x-api-key", "of the program"),
        ("connection", "close"),
    ];
    let reply = world.ask("PUT /a/b?c=d", &headers, "").await;
    let heard = reply.json();
    assert_eq!(
        (&heard["method"], &heard["target"]),
        (&json!("PUT"), &json!("/a/b?c=d"))
    );
    assert_eq!(heard["headers"]["host"], open);
    assert_eq!(heard["headers"]["x-api-key"], "of the program");
    let closed = host(3000, &made);
    let reply = world.ask("GET /", &[("host", &closed)], "").await;
    let expect = json!({
        "code": 502,
        "message": "The sandbox is running but port is not open",
        "port": 3000,
        "sandboxId": made.id,
    });
    assert_eq!((reply.status.as_u16(), reply.json()), (502, expect));
}

/// Attack: A port of a closed sandbox is asked without its token.
#[tokio::test]
async fn a_sandbox_that_is_not_open_wants_the_traffic_token() {
    let world = World::new().await;
    let made = world
        .sandbox(json!({"network": {"allowPublicTraffic": false}}))
        .await;
    let token = made.json["trafficAccessToken"].as_str().unwrap();
    let open = host(OPEN_PORT, &made);
    let ask = async |token: &str| {
        let headers = [("host", open.as_str()), ("e2b-traffic-access-token", token)];
        let sent = if token.is_empty() {
            &headers[..1]
        } else {
            &headers
        };
        world.ask("GET /", sent, "").await
    };
    assert_eq!(ask("").await.status, 403);
    assert_eq!(ask("wrong").await.status, 403);
    assert_eq!(ask(&made.token).await.status, 403);
    let reply = ask(token).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json()["headers"]["e2b-traffic-access-token"],
        Value::Null
    );
    assert!(world.guest.seen.lock().unwrap().len() == 1);
}

#[tokio::test]
async fn an_upgrade_goes_through_to_a_port() {
    let world = World::new().await;
    let made = world.sandbox(json!({})).await;
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n",
        host(OPEN_PORT, &made)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for _ in 0..3 {
        stream.write_all(b"once more").await.unwrap();
        let mut back = [0; 9];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"once more");
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

fn signature(text: &str) -> String {
    let signature = STANDARD_NO_PAD.encode(Sha256::digest(text));
    signature.replace('+', "%2B").replace('/', "%2F")
}

#[tokio::test]
async fn a_signed_address_leads_to_its_file_also_where_it_names_no_sandbox() {
    let world = World::new().await;
    let made = world.sandbox(json!({})).await;
    drop(world.sandbox(json!({})).await);
    let token = &made.token;
    let upload = signature(&format!("a.html:write::{token}"));
    let line = format!("POST /files?path=a.html&signature=v1_{upload}");
    let reply = world.ask(&line, &[("host", "localhost")], "<script>").await;
    assert_eq!(reply.status, 200, "{}", reply.message());
    let read = signature(&format!("a.html:read::{token}"));
    let line = format!("GET /files?path=a.html&signature=v1_{read}");
    let envd = format!("{ENVD}-{}.localhost", made.id);
    for host in ["localhost", "127.0.0.1:7300", &envd] {
        let reply = world.ask(&line, &[("host", host)], "").await;
        assert_eq!(
            (reply.status.as_u16(), &reply.body[..]),
            (200, &b"<script>"[..]),
            "{host}"
        );
        assert_eq!(
            reply.headers["content-security-policy"],
            "sandbox; default-src 'none'"
        );
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    }
    let other = format!("GET /files?path=b.html&signature=v1_{read}");
    let reply = world.ask(&other, &[("host", "localhost")], "").await;
    assert_eq!(reply.message(), "401 invalid signature");
    let bare = world
        .ask("GET /files?path=a.html", &[("host", "localhost")], "")
        .await;
    assert_eq!(bare.message(), "401 missing signature query parameter");
    let past = signature(&format!("a.html:read::{token}:1"));
    let line = format!("GET /files?path=a.html&signature_expiration=1&signature=v1_{past}");
    let reply = world.ask(&line, &[("host", "localhost")], "").await;
    assert_eq!(reply.message(), "401 signature is already expired");
}

#[tokio::test]
async fn half_a_name_is_a_mistake() {
    let world = World::new().await;
    let headers = [("host", "localhost"), ("e2b-sandbox-id", "abc")];
    let reply = world.ask("GET /health", &headers, "").await;
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("missing header"));
}

const PAGE: (&str, &str) = ("origin", "https://page.example");

fn allowed(reply: &crate::world::Reply) -> Option<&str> {
    let name = "access-control-allow-origin";
    reply.headers.get(name).map(|value| value.to_str().unwrap())
}

/// Attack: A page of another origin reads what a sandbox answers.
#[tokio::test]
async fn a_page_may_use_envd_with_the_token_and_read_nothing_without() {
    let world = World::new().await;
    let made = world.sandbox(json!({})).await;
    let own = format!("49983-{}.localhost:7300", made.id);
    let absent = "49983-0000.localhost:7300";
    for host in [own.as_str(), absent, "localhost:7300"] {
        let headers = [
            ("host", host),
            PAGE,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "e2b-sandbox-id"),
        ];
        let reply = world
            .ask("OPTIONS /process.Process/List", &headers, "")
            .await;
        assert_eq!((reply.status.as_u16(), allowed(&reply)), (204, Some("*")));
        assert!(
            reply
                .headers
                .get("access-control-allow-credentials")
                .is_none()
        );
        // The control plane is not for pages, and neither is a name of somebody else.
        let reply = world.ask("OPTIONS /sandboxes", &headers, "").await;
        assert_eq!(allowed(&reply), None, "{host}");
        let headers = [("host", "evil.example"), headers[1], headers[2], headers[3]];
        let reply = world
            .ask("OPTIONS /process.Process/List", &headers, "")
            .await;
        assert_eq!((reply.status.as_u16(), allowed(&reply)), (403, None));
    }
    for (line, token, expect) in [
        ("POST /process.Process/List", Some(&made.token), Some("*")),
        ("POST /process.Process/List", None, None),
        ("GET /health", Some(&made.token), Some("*")),
        ("GET /health", None, None),
    ] {
        let mut headers = vec![("host", own.as_str()), PAGE];
        headers.extend(token.map(|token| ("x-access-token", token.as_str())));
        let reply = world.ask(line, &headers, "").await;
        assert_eq!(allowed(&reply), expect, "{line}");
    }
}

#[tokio::test]
async fn a_page_reaches_a_closed_port_with_its_token_and_an_open_one_as_its_program_likes() {
    let world = World::new().await;
    let open = world.sandbox(json!({})).await;
    let closed = json!({"network": {"allowPublicTraffic": false}});
    let closed = world.sandbox(closed).await;
    let asks = ("access-control-request-method", "PUT");
    let host_of = |made: &Known| host(OPEN_PORT, made);
    let (open_host, closed_host) = (host_of(&open), host_of(&closed));
    // The program inside hears the one and not the other.
    let asked = [("host", &*open_host), PAGE, asks];
    let reply = world.ask("OPTIONS /a", &asked, "").await;
    assert_eq!(reply.json()["method"], "OPTIONS");
    let asked = [("host", &*closed_host), PAGE, asks];
    let reply = world.ask("OPTIONS /a", &asked, "").await;
    assert_eq!((reply.status.as_u16(), allowed(&reply)), (204, Some("*")));

    let token = closed.json["trafficAccessToken"].as_str().unwrap();
    let shown = [
        ("host", &*closed_host),
        PAGE,
        ("e2b-traffic-access-token", token),
    ];
    let reply = world.ask("PUT /a", &shown, "").await;
    assert_eq!((reply.status.as_u16(), allowed(&reply)), (200, Some("*")));
    let reply = world.ask("PUT /a", &shown[..2], "").await;
    assert_eq!((reply.status.as_u16(), allowed(&reply)), (403, None));
    let reply = world.ask("PUT /a", &[("host", &open_host), PAGE], "").await;
    assert_eq!((reply.status.as_u16(), allowed(&reply)), (200, None));
    // By header, to a program that was not asked whether pages may.
    let port = OPEN_PORT.to_string();
    let named = [
        ("host", "localhost"),
        ("e2b-sandbox-id", &open.id),
        ("e2b-sandbox-port", &port),
        PAGE,
    ];
    assert_eq!(world.ask("PUT /a", &named, "").await.status, 403);
    assert_eq!(world.ask("PUT /a", &named[..3], "").await.status, 200);
}

#[tokio::test]
async fn who_asks_is_told_whether_a_sandbox_answers_and_how_its_ports_are_reached() {
    let world = World::new().await;
    let closed = json!({"network": {"allowPublicTraffic": false}});
    let made = world.sandbox(closed).await;
    let get = async || {
        let line = format!("GET /v1/sandboxes/sbx_{}/reachability", made.id);
        let reply = world.ask_trusted(&line, &[("host", "localhost")]).await;
        assert_eq!(reply.status, 200, "{}", reply.message());
        reply.json()
    };
    let (id, port) = (&made.id, world.tcp.port());
    let reach = get().await;
    assert_eq!(
        (&reach["state"], &reach["guest"]["answers"]),
        (&json!("ready"), &json!(true))
    );
    assert!(reach["guest"]["after_us"].as_u64().unwrap() < 5_000_000);
    let url = |inside: u16| format!("http://{inside}-{id}.localhost:{port}");
    let ports = json!([{"port": 3000, "url": url(3000)}, {"port": 8080, "url": url(8080)}]);
    assert_eq!(
        (&reach["ports"], &reach["envd_url"]),
        (&ports, &json!(url(49983)))
    );
    assert_eq!(reach["needs_traffic_token"], true);
    // The way by headers leads there.
    let by = &reach["by_header"];
    assert_eq!(by["url"], format!("http://127.0.0.1:{port}"));
    let headers = [
        ("host", "127.0.0.1"),
        (
            by["sandbox_header"].as_str().unwrap(),
            by["sandbox_value"].as_str().unwrap(),
        ),
        (by["port_header"].as_str().unwrap(), "49983"),
    ];
    assert_eq!(world.ask("GET /health", &headers, "").await.status, 204);
    let pause = format!("POST /sandboxes/{id}/pause");
    assert_eq!(world.control(&pause, &json!({})).await.status, 204);
    let reach = get().await;
    assert_eq!(
        (&reach["state"], &reach["guest"]),
        (&json!("paused"), &json!({"answers": false}))
    );
    assert_eq!(reach["ports"], json!([]));
}
