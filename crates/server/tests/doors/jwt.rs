//! Tokens of issuers at every door where a key is taken, who somebody is told to be, and a development that lets in who
//! shows nothing.

use aws_lc_rs::hmac;
use http::Request;
use http_body_util::Full;
use model::principal::{PrincipalKind, Role};
use model::rate::{Rate, Rates};
use serde_json::{Value, json};
use service::{Algorithm, Issuer, JwtKeys, Login, RoleFrom, TenantFrom};

use crate::world::{Reply, TOKEN, World, bare};

const SECRET: &[u8] = b"a secret of thirty-two bytes and more";
const NOW_S: u64 = 1_750_000_000;

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn token(claims: Value, secret: &[u8]) -> String {
    let mut all = json!({"iss": "https://id.example", "aud": "cofferdam", "sub": "alice", "exp": NOW_S + 600});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let header = base64(br#"{"alg":"HS256","typ":"JWT"}"#);
    let text = format!("{header}.{}", base64(all.to_string().as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", base64(signature.as_ref()))
}

async fn world() -> World {
    with_issuer(World::new().await)
}

fn with_issuer(world: World) -> World {
    let issuer = Issuer {
        name: "corp".to_owned(),
        issuer: "https://id.example".to_owned(),
        audience: "cofferdam".to_owned(),
        algorithms: vec![Algorithm::Hs256],
        tenant: TenantFrom::Fixed("local".to_owned()),
        principal_claim: "sub".to_owned(),
        kind: PrincipalKind::User,
        role: RoleFrom::Fixed(Role::Member),
        role_max: Role::Operator,
        scopes_claim: "scope".to_owned(),
        needs_scope: false,
        leeway_s: 30,
        life_max_s: 3600,
        creates: true,
        login: Some(Login {
            client_id: "cli".to_owned(),
            scopes: vec!["openid".to_owned()],
            shows_access_token: false,
        }),
    };
    let keys = JwtKeys::secret(SECRET).unwrap();
    world.service.issuers_are(vec![(issuer, Some(keys))]);
    world
}

#[tokio::test]
async fn a_token_is_a_bearer_at_each_door_and_is_told_who_it_stands_for() {
    let world = world().await;
    let whole = token(json!({"scope": "job:read sandbox:read"}), SECRET);
    let jobs = world.ask_with(&whole, "GET /v1/jobs", "").await;
    assert_eq!(jobs.status, 200, "{}", jobs.json());
    let made = world.ask_with(&whole, "POST /v1/jobs", r#"{"argv":["true"]}"#);
    assert_eq!(made.await.code(), "forbidden", "it is narrowed");
    let listed = world.ask_with(&whole, "GET /v1/principals", "").await;
    assert_eq!(listed.code(), "forbidden", "its role is a small one");
    let me = world.ask_with(&whole, "GET /v1/me", "").await.json();
    assert_eq!(
        me,
        json!({
            "tenant": "ten_local", "principal": "user:alice", "kind": "user", "role": "member",
            "scopes": ["job:read", "sandbox:read"], "credential": "token", "credential_of": "corp",
            "expires_at_ms": (NOW_S + 630) * 1000,
        })
    );
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let spoken = world.ask_with(&whole, "POST /mcp", ping).await;
    assert_ne!(spoken.status, 401, "{}", spoken.json());
    for name in ["x-api-key", "authorization"] {
        let value = match name {
            "authorization" => format!("Bearer {whole}"),
            _ => whole.clone(),
        };
        let request = Request::get("/v2/sandboxes").header("host", world.tcp.to_string());
        let request = request.header(name, value).body(Full::default()).unwrap();
        let reply = world.ask_tcp(request).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.json());
    }
}

#[tokio::test]
async fn who_guesses_keys_shuts_no_token_of_an_issuer_out_and_one_that_nobody_signed_is_a_guess() {
    let rates = Rates {
        failures: Rate::new(1, 30),
        ..Rates::default()
    };
    let world = with_issuer(World::with_rates(rates).await);
    let guess = async |number: u32| {
        let guess = format!("cfd_{number:064x}");
        world.ask_with(&guess, "GET /v1/jobs", "").await.code()
    };
    let mut codes = Vec::new();
    for number in 0..50 {
        codes.push(guess(number).await);
    }
    assert!(codes.contains(&"rate_limited".to_owned()), "{codes:?}");
    // Each was never seen before, as a renewed one is not.
    let fresh = |life_s: u64| token(json!({ "exp": NOW_S + life_s }), SECRET);
    let me = world.ask_with(&fresh(500), "GET /v1/me", "").await;
    assert_eq!(me.status, 200, "{}", me.json());
    let request = Request::get("/v2/sandboxes").header("host", world.tcp.to_string());
    let request = request.header("x-api-key", fresh(400));
    let listed = world.ask_tcp(request.body(Full::default()).unwrap()).await;
    assert_eq!(listed.status, 200, "{}", listed.json());
    // A machine that is busy lets seconds pass meanwhile.
    let forged = token(json!({}), b"another secret of thirty-two bytes and more");
    let mut status = listed.status;
    for _ in 0..50 {
        status = world.ask_with(&forged, "GET /v1/me", "").await.status;
        if status == 429 {
            break;
        }
    }
    assert_eq!(status, 429);
}

#[tokio::test]
async fn a_token_that_does_not_count_is_refused_at_each_door_and_nobody_learns_why_who_cannot_sign()
{
    let world = world().await;
    let forged = token(json!({}), b"another secret of thirty-two bytes and more");
    let expired = token(json!({"exp": NOW_S - 60}), SECRET);
    let message = |reply: &Reply| reply.json()["message"].as_str().unwrap().to_owned();
    let mut said = Vec::new();
    for text in [
        &forged,
        &forged.replace("ey", "eyey"),
        &token(json!({"iss": "x"}), SECRET),
    ] {
        let reply = world.ask_with(text, "GET /v1/jobs", "").await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (401, "token_invalid")
        );
        let challenge = &reply.headers["www-authenticate"];
        assert_eq!(challenge, r#"Bearer error="invalid_token""#);
        said.push(message(&reply));
    }
    assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    let reply = world.ask_with(&expired, "GET /v1/jobs", "").await;
    assert!(message(&reply).contains("expired"), "{}", reply.json());
    for text in [&forged, &expired] {
        let request = Request::get("/v2/sandboxes").header("host", world.tcp.to_string());
        let request = request.header("x-api-key", text).body(Full::default());
        assert_eq!(world.ask_tcp(request.unwrap()).await.status, 401);
        let reply = world.ask_with(text, "POST /mcp", "{}").await;
        assert_eq!(reply.code(), "token_invalid");
    }
}

#[tokio::test]
async fn who_one_is_and_how_to_log_in_is_told() {
    let world = world().await;
    let me = async |reply: Reply| {
        let me = reply.json();
        let text = |name: &str| me[name].as_str().unwrap_or_default().to_owned();
        format!(
            "{} {} {}",
            text("principal"),
            text("role"),
            text("credential")
        )
    };
    let owner = world.ask_with(TOKEN, "GET /v1/me", "").await;
    assert!(me(owner).await.ends_with(" admin server"));
    let socket = world.ask(bare("GET", "/v1/me")).await;
    assert_eq!(me(socket).await, "uid:1000 admin server");
    let key = world.key("", Role::Operator, &["job:read"]).await;
    let reply = world.ask_with(&key, "GET /v1/me", "").await;
    assert_eq!(me(reply).await, "user:operator-job-read operator key");
    let login = world.ask_tcp(bare("GET", "/v1/login")).await;
    assert_eq!(
        login.json(),
        json!({"providers": [
            {"issuer": "https://id.example", "client_id": "cli", "scopes": ["openid"], "token": "id_token"},
        ]})
    );
    assert!(login.headers.get("access-control-allow-origin").is_none());
    let nobody = World::new().await.ask_tcp(bare("GET", "/v1/login")).await;
    assert_eq!(nobody.json(), json!({"providers": []}));
}

async fn ask(world: &World, headers: &[(&str, &str)], line: &str) -> Reply {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.ask_tcp(request.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn a_development_lets_in_a_program_that_shows_nothing_as_one_principal() {
    let world = World::bypassed("user:alice").await;
    let host = ("host", "localhost:7300");
    let missing = ask(&world, &[host], "GET /v1/jobs").await;
    assert_eq!(missing.code(), "unauthenticated", "she is not there yet");
    let owner = world.admin("").await;
    let made = world
        .service
        .principal_create(&owner, PrincipalKind::User, "alice", Role::Member);
    made.await.unwrap();
    assert_eq!(ask(&world, &[host], "GET /v1/jobs").await.status, 200);
    let me = ask(&world, &[host], "GET /v1/me").await.json();
    assert_eq!(
        (&me["principal"], &me["credential"]),
        (&json!("user:alice"), &json!("development"))
    );
    let people = ask(&world, &[host], "GET /v1/principals").await;
    assert_eq!(people.code(), "forbidden", "she may what she may");
    // A wrong credential is not as good as none.
    let wrong = [host, ("authorization", "Bearer wrong")];
    assert_eq!(
        ask(&world, &wrong, "GET /v1/jobs").await.code(),
        "unauthenticated"
    );
    // Other doors want theirs.
    let e2b = ask(&world, &[("host", "localhost")], "GET /v2/sandboxes").await;
    assert_eq!(e2b.status, 401, "{}", e2b.json());
    let node = ask(&world, &[host], "POST /node/v1/poll").await;
    assert_eq!(node.code(), "forbidden");
    world
        .service
        .principal_remove(&owner, "user:alice")
        .await
        .unwrap();
    assert_eq!(
        ask(&world, &[host], "GET /v1/jobs").await.code(),
        "unauthenticated"
    );
}

#[tokio::test]
async fn a_development_lets_in_no_browser_whatever_page_made_it_ask() {
    let world = World::bypassed("user:alice").await;
    let owner = world.admin("").await;
    let made = world
        .service
        .principal_create(&owner, PrincipalKind::User, "alice", Role::Admin);
    made.await.unwrap();
    let own = world.tcp.to_string();
    for (headers, code) in [
        // A name that was rebound to this machine.
        (vec![("host", "evil.example")], "forbidden_host"),
        (vec![("host", "localhost.evil.example")], "forbidden_host"),
        (vec![], "forbidden_host"),
        (
            vec![("host", "localhost"), ("host", "evil.example")],
            "forbidden_host",
        ),
        // A page, of another origin, of a file, of our own.
        (
            vec![("host", own.as_str()), ("origin", "http://evil.example")],
            "forbidden_origin",
        ),
        (
            vec![("host", own.as_str()), ("origin", "null")],
            "forbidden_origin",
        ),
        (
            vec![("host", "localhost"), ("origin", "http://localhost")],
            "forbidden_origin",
        ),
        // A picture or a link has no origin; the browser says what it is for.
        (
            vec![("host", own.as_str()), ("sec-fetch-site", "cross-site")],
            "forbidden_origin",
        ),
        (
            vec![("host", own.as_str()), ("sec-fetch-mode", "no-cors")],
            "forbidden_origin",
        ),
        (
            vec![("host", own.as_str()), ("referer", "http://evil.example/")],
            "forbidden_origin",
        ),
    ] {
        for line in ["GET /v1/jobs", "POST /v1/jobs", "POST /mcp", "GET /v1/me"] {
            let reply = ask(&world, &headers, line).await;
            assert_eq!(reply.code(), code, "{line} with {headers:?}");
        }
    }
    assert_eq!(
        ask(&world, &[("host", own.as_str())], "GET /v1/jobs")
            .await
            .status,
        200
    );
}
