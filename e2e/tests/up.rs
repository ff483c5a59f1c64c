//! `cofferdam up`: the doors, and jobs through them.

use e2e::{Place, free_port, http, http_tcp, left_behind, needs_sandbox, until};
use std::os::unix::fs::PermissionsExt as _;

fn post(path: &str, body: &str, headers: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
}

#[test]
fn a_job_through_the_socket_ends_with_its_outcome_in_the_answer() {
    needs_sandbox!();
    let place = Place::new();
    let server = place.up(&[], &[]);
    let socket = place.state().join("cofferdam.sock");
    let (status, body) = http(
        &socket,
        &post("/v1/jobs?wait=30s", r#"{"argv":["true"]}"#, ""),
    );
    assert_eq!(status, 201, "{body}");
    assert!(body.contains(r#""kind":"succeeded""#), "{body}");
    for (path, want) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/openapi.json", 200),
        ("/metrics", 200),
        ("/nope", 404),
    ] {
        assert_eq!(http(&socket, &get(path, "")).0, want, "{path}");
    }
    let (status, log) = server.end();
    assert!(status.success(), "{log}");
    assert!(
        !log.is_empty() && !log.contains('\u{1b}'),
        "colours are for terminals: {log:?}"
    );
    assert!(
        until(|| left_behind(&place).is_empty()),
        "{:?}",
        left_behind(&place)
    );
}

#[test]
fn run_and_job_use_the_server_that_runs() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&[], &[]);
    let output = place.run_with_input(
        &["run", "--", "sh", "-c", "cat; exit 4"],
        b"through the server",
    );
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(4), b"through the server".as_slice())
    );
    let id =
        String::from_utf8(place.run(&["run", "--detach", "--", "sleep", "60"]).stdout).unwrap();
    let id = id.trim();
    assert!(until(
        || place.json(&["job", "get", id, "--json"])["state"] == "running"
    ));
    assert!(place.run(&["job", "cancel", id]).status.success());
    assert!(until(
        || place.json(&["job", "get", id, "--json"])["state"] == "finished"
    ));
    assert_eq!(
        place.json(&["job", "get", id, "--json"])["outcome"]["kind"],
        "canceled"
    );
    let id = String::from_utf8(
        place
            .run(&[
                "run",
                "--detach",
                "--",
                "sh",
                "-c",
                "echo a; sleep 0.3; echo b",
            ])
            .stdout,
    );
    let followed = place.run(&["job", "logs", "-f", id.unwrap().trim()]);
    assert_eq!(String::from_utf8(followed.stdout).unwrap(), "a\nb\n");
}

#[test]
fn the_tcp_door_opens_only_to_the_token_and_never_to_a_web_page() {
    let place = Place::new();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let mut command = place.command(&["up", "--listen", &address]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    assert!(until(|| std::net::TcpStream::connect(&address).is_ok()));
    let path = place.state().join("token");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let token = std::fs::read_to_string(path).unwrap();
    let good = format!("authorization: Bearer {}\r\n", token.trim());
    let ask = |host: &str, headers: &str| {
        let request =
            format!("GET /v1/jobs HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
        http_tcp(&address, &request).0
    };
    assert_eq!(ask(&address, &good), 200);
    assert_eq!(ask(&address, ""), 401);
    assert_eq!(ask(&address, "authorization: Bearer wrong\r\n"), 401);
    assert_eq!(ask("evil.example", &good), 403);
    assert_eq!(
        ask(&address, &format!("{good}origin: https://evil.example\r\n")),
        403
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn bad_input_is_never_a_500() {
    let place = Place::new();
    let _server = place.up(&[], &[]);
    let socket = place.state().join("cofferdam.sock");
    let long = format!(r#"{{"argv":["{}"]}}"#, "x".repeat(3 << 20));
    let cases = [
        ("{", 400, "malformed_json"),
        (r#"{"argv":["true"],"surprise":1}"#, 400, "unknown_field"),
        (r#"{"argv":[]}"#, 400, "argv_empty"),
        (
            r#"{"argv":["true"],"limits":{"memory_bytes":0}}"#,
            400,
            "limit_zero",
        ),
        (r#"{"argv":["true"],"profile":"x"}"#, 400, "unknown_profile"),
        (long.as_str(), 413, "body_too_large"),
    ];
    for (body, want, code) in cases {
        let (status, answer) = http(&socket, &post("/v1/jobs", body, ""));
        assert!(answer.contains(code), "{want} {code}: {status} {answer}");
        assert_eq!(status, want, "{answer}");
    }
    for path in [
        "/v1/jobs/job_x",
        "/v1/jobs/../../etc",
        "/v1/jobs/job_00000000000000000000000000000000",
    ] {
        assert_eq!(http(&socket, &get(path, "")).0, 404, "{path}");
    }
    let (_, list) = http(&socket, &get("/v1/jobs", ""));
    assert!(list.contains(r#""jobs":[]"#), "{list}");
}

#[test]
fn the_same_key_makes_one_job() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&[], &[]);
    let socket = place.state().join("cofferdam.sock");
    let ask = |body: &str| {
        http(
            &socket,
            &post("/v1/jobs", body, "idempotency-key: key-12345\r\n"),
        )
    };
    let id = |body: &str| {
        body.split('"')
            .find(|part| part.starts_with("job_"))
            .unwrap_or_default()
            .to_owned()
    };
    let (first, one) = ask(r#"{"argv":["true"]}"#);
    let (_, again) = ask(r#"{"argv":["true"]}"#);
    assert_eq!((first, id(&one)), (201, id(&again)));
    let (status, other) = ask(r#"{"argv":["false"]}"#);
    assert_eq!(status, 409, "{other}");
}

#[test]
fn an_address_that_others_can_reach_is_refused_with_what_to_do_instead() {
    let place = Place::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let output = place.run(&["up", "--listen", address]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(
            said.contains("error: failed to listen on") && said.contains("127.0.0.1:PORT"),
            "{said}"
        );
    }
}

#[test]
fn a_second_server_on_the_same_state_is_refused() {
    let place = Place::new();
    let _server = place.up(&[], &[]);
    let second = place.run(&["up", "--no-listen"]);
    assert_eq!(second.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("state_locked"),
        "{second:?}"
    );
}

#[test]
fn a_detached_job_without_a_server_gets_one_that_ends_by_itself() {
    needs_sandbox!();
    let place = Place::new();
    let output = place.run(&["run", "--detach", "--", "sh", "-c", "sleep 0.2; echo done"]);
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(until(
        || place.json(&["job", "get", &id, "--json"])["state"] == "finished"
    ));
    assert_eq!(place.run(&["job", "logs", &id]).stdout, b"done\n");
    let socket = place.state().join("cofferdam.sock");
    assert!(until(
        || std::os::unix::net::UnixStream::connect(&socket).is_err()
    ));
}

#[test]
fn a_job_in_a_spare_sandbox_lives_longer_than_the_spare_would_have() {
    needs_sandbox!();
    let place = Place::new();
    let server = place.up(&["--spares", "1", "--spare-life", "2s"], &[]);
    let socket = place.state().join("cofferdam.sock");
    let create = |argv: &str| {
        let body = format!(r#"{{"argv":[{argv}]}}"#);
        http(&socket, &post("/v1/jobs?wait=30s", &body, "")).1
    };
    // Enough of them that one takes a spare, each longer than a spare's life.
    for _ in 0..2 {
        let body = create(r#""sleep","3""#);
        assert!(body.contains(r#""kind":"succeeded""#), "{body}");
    }
    drop(server);
}

#[test]
fn a_server_that_is_told_to_end_leaves_nothing_of_jobs_that_are_at_their_end() {
    needs_sandbox!();
    let place = Place::new();
    for _ in 0..5 {
        let server = place.up(&["--spares", "2"], &[]);
        let socket = place.state().join("cofferdam.sock");
        let create = |path: &str, argv: &str| {
            let body = format!(r#"{{"argv":[{argv}]}}"#);
            let answer = http(&socket, &post(path, &body, "")).1;
            serde_json::from_str::<serde_json::Value>(&answer).expect("JSON")
        };
        let jobs: Vec<_> = (0..8)
            .map(|_| create("/v1/jobs", r#""sleep","600""#))
            .collect();
        for job in &jobs {
            let path = format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap());
            assert_eq!(http(&socket, &post(&path, "", "")).0, 200);
        }
        let (status, log) = server.end();
        assert!(status.success(), "{log}");
        assert_eq!(left_behind(&place), Vec::<String>::new(), "{log}");
    }
}
