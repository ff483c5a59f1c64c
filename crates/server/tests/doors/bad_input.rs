//! Bad input, and the code that each gets. None is ever 500, and none creates anything.

use std::collections::BTreeMap;

use api::Code;
use http::Request;
use http_body_util::Full;

use crate::world::{World, bare, with_body};

const NO_JOB: &str = "job_0197747bb4007000800000000000dead";

/// A body of a create, the code that it gets, and the field that is named.
const BODIES: &[(&str, Code, &str)] = &[
    ("", Code::MalformedJson, ""),
    ("{", Code::MalformedJson, ""),
    ("not json", Code::MalformedJson, ""),
    (r#"{"argv":["true"]} x"#, Code::MalformedJson, ""),
    (r#"{"argv":["true"],}"#, Code::MalformedJson, ""),
    ("null", Code::InvalidArgument, ""),
    ("[]", Code::InvalidArgument, ""),
    ("{}", Code::InvalidArgument, "argv"),
    (r#"{"argv":"true"}"#, Code::InvalidArgument, "argv"),
    (r#"{"argv":[1]}"#, Code::InvalidArgument, "argv[0]"),
    (r#"{"argv":[]}"#, Code::InvalidArgument, "argv"),
    (r#"{"argv":[""]}"#, Code::InvalidArgument, "argv"),
    (r#"{"argv":["a\u0000b"]}"#, Code::InvalidArgument, "argv"),
    (
        r#"{"argv":["true"],"timeout":1}"#,
        Code::UnknownField,
        "timeout",
    ),
    (
        r#"{"argv":["true"],"limits":{"memory":1}}"#,
        Code::UnknownField,
        "limits.memory",
    ),
    (
        r#"{"argv":["true"],"argv":["false"]}"#,
        Code::InvalidArgument,
        "argv",
    ),
    (
        r#"{"argv":["true"],"timeout_ms":"1"}"#,
        Code::InvalidArgument,
        "timeout_ms",
    ),
    (
        r#"{"argv":["true"],"timeout_ms":-1}"#,
        Code::InvalidArgument,
        "timeout_ms",
    ),
    (
        r#"{"argv":["true"],"timeout_ms":1e99}"#,
        Code::InvalidArgument,
        "timeout_ms",
    ),
    (
        r#"{"argv":["true"],"timeout_ms":0}"#,
        Code::LimitZero,
        "timeout_ms",
    ),
    (
        r#"{"argv":["true"],"limits":{"memory_bytes":0}}"#,
        Code::LimitZero,
        "limits.memory_bytes",
    ),
    (
        r#"{"argv":["true"],"limits":{"pids":0}}"#,
        Code::LimitZero,
        "limits.pids",
    ),
    (
        r#"{"argv":["true"],"limits":{"cpu_millis":4294967296}}"#,
        Code::InvalidArgument,
        "limits.cpu_millis",
    ),
    (
        r#"{"argv":["true"],"profile":"nope"}"#,
        Code::UnknownProfile,
        "profile",
    ),
    (
        r#"{"argv":["true"],"cwd":"/tmp/../etc"}"#,
        Code::PathEscapes,
        "cwd",
    ),
    (
        r#"{"argv":["true"],"env":{"A=B":"1"}}"#,
        Code::InvalidArgument,
        "env.A=B",
    ),
    (
        r#"{"argv":["true"],"env":{"A":1}}"#,
        Code::InvalidArgument,
        "env.A",
    ),
    (
        r#"{"argv":["true"],"node":"node_x"}"#,
        Code::InvalidArgument,
        "node",
    ),
    (
        r#"{"argv":["true"],"retry":{"max_attempts":0}}"#,
        Code::LimitZero,
        "retry.max_attempts",
    ),
    (
        r#"{"argv":["true"],"retry":{}}"#,
        Code::InvalidArgument,
        "retry.max_attempts",
    ),
    (
        r#"{"argv":["true"],"outputs":["../x"]}"#,
        Code::PathEscapes,
        "outputs[0]",
    ),
    (
        r#"{"argv":["true"],"files":[{"path":"a","digest":"zz","size_bytes":1}]}"#,
        Code::InvalidArgument,
        "files[0].digest",
    ),
];

#[tokio::test]
async fn every_bad_body_of_a_create_gets_its_code_and_names_the_field() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let long = format!(r#"{{"argv":["{}"]}}"#, "x".repeat(200_000));
    let made = [
        (&*deep, Code::InvalidArgument, ""),
        (&*long, Code::InvalidArgument, "argv"),
    ];
    for (body, code, field) in BODIES.iter().copied().chain(made) {
        let reply = world.ask(with_body("POST", "/v1/jobs", body)).await;
        let shown = &body[..body.len().min(80)];
        let json = reply.json();
        assert_eq!(reply.code(), code.as_str(), "{shown}: {json}");
        assert_eq!(reply.status.as_u16(), code.row().http_status, "{shown}");
        let named = json["details"][0]["field"].as_str().unwrap_or_default();
        assert_eq!(named, field, "{shown}: {json}");
        assert!(!json["message"].as_str().unwrap().is_empty(), "{shown}");
        assert_eq!(
            json["request_id"],
            reply.headers["x-request-id"].to_str().unwrap()
        );
    }
    nothing_was_created(&world).await;
}

#[tokio::test]
async fn several_wrong_fields_are_all_named() {
    let world = World::new().await;
    let body = r#"{"argv":[],"profile":"nope","limits":{"pids":0}}"#;
    let reply = world.ask(with_body("POST", "/v1/jobs", body)).await;
    assert_eq!(reply.code(), "invalid_argument");
    let codes: Vec<String> = reply.json()["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| detail["code"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(codes, ["unknown_profile", "argv_empty", "limit_zero"]);
}

#[tokio::test]
async fn a_file_whose_bytes_were_not_sent_is_refused() {
    let world = World::new().await;
    let digest = "ab".repeat(32);
    let body = format!(
        r#"{{"argv":["true"],"files":[{{"path":"a","digest":"{digest}","size_bytes":1}}]}}"#
    );
    let reply = world.ask(with_body("POST", "/v1/jobs", &body)).await;
    assert_eq!(reply.code(), "blob_missing");
    nothing_was_created(&world).await;
}

/// A request without a body, and the code that it gets.
const PATHS: &[(&str, &str, Code)] = &[
    ("GET", "/", Code::NotFound),
    ("GET", "/v2/jobs", Code::NotFound),
    ("GET", "/v1/jobs/", Code::NotFound),
    ("GET", "/v1/jobs/x", Code::NotFound),
    ("GET", "/v1/jobs/job_1", Code::NotFound),
    ("GET", "/v1/jobs/..%2F..%2Fetc%2Fpasswd", Code::NotFound),
    ("GET", "/v1/jobs/%FF%FE", Code::NotFound),
    ("GET", "/v1/jobs/%00", Code::NotFound),
    ("GET", "/v1/jobs/NO_JOB", Code::NotFound),
    ("POST", "/v1/jobs/NO_JOB/cancel", Code::NotFound),
    ("GET", "/v1/jobs/NO_JOB/logs", Code::NotFound),
    (
        "GET",
        "/v1/jobs/NO_JOB/logs?format=raw&stream=stdout",
        Code::NotFound,
    ),
    ("GET", "/v1/jobs/NO_JOB/events", Code::NotFound),
    ("GET", "/v1/jobs/NO_JOB/artifacts", Code::NotFound),
    ("GET", "/v1/jobs/NO_JOB/artifacts/x", Code::NotFound),
    ("GET", "/v1/jobs/NO_JOB/attach", Code::NotFound),
    ("DELETE", "/v1/jobs", Code::MethodNotAllowed),
    ("POST", "/healthz", Code::MethodNotAllowed),
    ("PATCH", "/v1/jobs/NO_JOB", Code::MethodNotAllowed),
    ("GET", "/v1/jobs?limit=0", Code::InvalidArgument),
    ("GET", "/v1/jobs?limit=501", Code::InvalidArgument),
    ("GET", "/v1/jobs?limit=x", Code::InvalidArgument),
    ("GET", "/v1/jobs?limit=1&limit=2", Code::InvalidArgument),
    ("GET", "/v1/jobs?before=x", Code::InvalidArgument),
    ("GET", "/v1/jobs?state=nope", Code::InvalidArgument),
    ("GET", "/v1/jobs?states=queued", Code::UnknownField),
    ("GET", "/v1/jobs/NO_JOB?wait=soon", Code::InvalidArgument),
    ("GET", "/v1/jobs/NO_JOB?wait=", Code::InvalidArgument),
    (
        "GET",
        "/v1/jobs/NO_JOB/logs?after=-1",
        Code::InvalidArgument,
    ),
    (
        "GET",
        "/v1/jobs/NO_JOB/logs?format=xml",
        Code::InvalidArgument,
    ),
    (
        "GET",
        "/v1/jobs/NO_JOB/logs?format=raw",
        Code::InvalidArgument,
    ),
    (
        "GET",
        "/v1/jobs/NO_JOB/logs?stream=stdin",
        Code::InvalidArgument,
    ),
    (
        "GET",
        "/v1/jobs/NO_JOB/events?after=9223372036854775808",
        Code::NotFound,
    ),
];

#[tokio::test]
async fn every_bad_path_and_query_gets_its_code() {
    let world = World::new().await;
    for (method, path, code) in PATHS.iter().copied() {
        let path = path.replace("NO_JOB", NO_JOB);
        let reply = world.ask(bare(method, &path)).await;
        assert_eq!(reply.code(), code.as_str(), "{method} {path}");
        assert_eq!(
            reply.status.as_u16(),
            code.row().http_status,
            "{method} {path}"
        );
    }
    let refused = world.ask(bare("DELETE", "/v1/jobs")).await;
    let allowed = refused.headers["allow"].to_str().unwrap();
    let mut allowed: Vec<_> = allowed.split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

/// Attack: A body without end, with a length that lies or none.
#[tokio::test]
async fn a_body_over_the_bound_is_refused_announced_or_not() {
    let world = World::new().await;
    let huge = "x".repeat(model::limits::BODY_BYTES_MAX + 1);
    let reply = world.ask(with_body("POST", "/v1/jobs", &huge)).await;
    assert_eq!(reply.code(), "body_too_large");
    let announced = Request::post("/v1/blobs")
        .header("host", "localhost")
        .header(
            "content-length",
            (model::limits::FILE_BYTES_MAX + 1).to_string(),
        )
        .body(Full::default())
        .unwrap();
    assert_eq!(world.ask(announced).await.code(), "body_too_large");
    nothing_was_created(&world).await;
}

#[tokio::test]
async fn an_idempotency_key_must_look_like_one() {
    let world = World::new().await;
    for key in ["", "short", "with space", "p\u{e4}", &"x".repeat(256)] {
        let mut request = with_body("POST", "/v1/jobs", r#"{"argv":["true"]}"#);
        let value = http::HeaderValue::from_bytes(key.as_bytes()).unwrap();
        request.headers_mut().insert("idempotency-key", value);
        let reply = world.ask(request).await;
        assert_eq!(reply.code(), "invalid_argument", "{key}");
        assert_eq!(reply.json()["details"][0]["field"], "Idempotency-Key");
    }
    nothing_was_created(&world).await;
}

#[tokio::test]
async fn a_node_that_talks_nonsense_gets_a_code_too() {
    let world = World::new().await;
    let cases = [
        ("/node/v1/register", "{}", Code::InvalidArgument),
        (
            "/node/v1/poll",
            r#"{"incarnation":"i","free_slots":1,"wait_ms":1,"x":1}"#,
            Code::UnknownField,
        ),
        (
            "/node/v1/poll",
            r#"{"incarnation":"i","free_slots":1,"wait_ms":1}"#,
            Code::Conflict,
        ),
        (
            "/node/v1/heartbeat",
            r#"{"incarnation":"i","running":[{"job_id":"x","epoch":1}]}"#,
            Code::InvalidArgument,
        ),
        (
            "/node/v1/jobs/NO_JOB/started",
            r#"{"epoch":1,"attempt":1,"driver":"d","enforcement":[]}"#,
            Code::NotFound,
        ),
        (
            "/node/v1/jobs/NO_JOB/finished",
            r#"{"epoch":1,"attempt":1,"outcome":{"kind":"failed","exit_code":0}}"#,
            Code::InvalidArgument,
        ),
        (
            "/node/v1/jobs/NO_JOB/finished",
            r#"{"epoch":1,"attempt":1,"outcome":{"kind":"exploded"}}"#,
            Code::InvalidArgument,
        ),
        (
            "/node/v1/jobs/NO_JOB/output",
            r#"{"epoch":1,"attempt":1,"segments":[{"stream":"stdout","offset_bytes":0,
            "encoding":"base64","data":"*"}]}"#,
            Code::InvalidArgument,
        ),
        (
            "/node/v1/jobs/NO_JOB/release",
            r#"{"epoch":1,"why":""}"#,
            Code::NotFound,
        ),
    ];
    for (path, body, code) in cases {
        let path = path.replace("NO_JOB", NO_JOB);
        let reply = world.ask_as_node(with_body("POST", &path, body)).await;
        assert_eq!(
            reply.code(),
            code.as_str(),
            "{path} {body}: {}",
            reply.json()
        );
    }
    for path in [
        "/node/v1/blobs/x".to_owned(),
        format!("/node/v1/blobs/{}", "ab".repeat(32)),
    ] {
        assert_eq!(
            world.ask_as_node(bare("GET", &path)).await.code(),
            "not_found"
        );
    }
}

/// Attack: Requests with one byte changed, each byte in turn.
///
/// Whatever a byte of a good request is turned into, the answer is no 500.
#[tokio::test]
async fn no_change_of_one_byte_makes_a_500() {
    let world = World::new().await;
    let good = r#"{"argv":["true"],"env":{"A":"b"},"limits":{"pids":7},"files":[],"attach":false}"#;
    let mut seen: BTreeMap<u16, u32> = BTreeMap::new();
    for at in 0..good.len() {
        for byte in [b'"', b'0', b'{', b',', 0, 0xff] {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] = byte;
            let mut request = with_body("POST", "/v1/jobs", "");
            *request.body_mut() = Full::from(bytes);
            let status = world.ask(request).await.status.as_u16();
            *seen.entry(status).or_default() += 1;
        }
    }
    assert!(
        seen.keys().all(|status| [201, 400].contains(status)),
        "{seen:?}"
    );
}

async fn nothing_was_created(world: &World) {
    assert!(
        world
            .user
            .job_list(&api::job::JobListQuery::default())
            .await
            .unwrap()
            .jobs
            .is_empty()
    );
}
