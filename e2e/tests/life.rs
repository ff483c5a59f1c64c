//! Sandboxes that get another place, what was run in them, and their programs by path.

use e2e::{Place, left_behind, needs_sandbox, text, until};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn create(place: &Place) -> String {
    let made = place.json(&["sandbox", "create", "--json"]);
    made["id"].as_str().expect("an id").to_owned()
}

/// What was run, the newest first: the last word of each command, and how it ended.
fn log(place: &Place, id: &str) -> Vec<(u64, String, Value)> {
    let page = place.json(&["sandbox", "log", id, "--json"]);
    let jobs = page["jobs"].as_array().cloned().unwrap_or_default();
    let one = |job: &Value| {
        let words = job["asked"]["argv"].as_array().cloned().unwrap_or_default();
        let last = words.last().and_then(Value::as_str).unwrap_or_default();
        let seq = job["seq"].as_u64().unwrap_or_default();
        (seq, last.to_owned(), job["end"]["how"].clone())
    };
    jobs.iter().map(one).collect()
}

#[test]
fn a_sandbox_made_anew_has_its_id_and_a_fresh_place_and_what_ran_in_it_ends() {
    needs_sandbox!();
    let place = Place::new();
    let server = place.up(&["--spares", "0"], &[]);
    let id = create(&place);
    let exec = |words: &[&str]| place.run(&[&["sandbox", "exec", &id, "--"][..], words].concat());
    exec(&["sh", "-c", "echo one > kept"]);
    let mut runs = place
        .command(&["sandbox", "exec", &id, "--", "sleep", "1000"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    assert!(until(|| log(&place, &id).len() == 2));
    let started = Instant::now();
    let anew = place.json(&["sandbox", "recreate", &id, "--json"]);
    assert_eq!(
        (&anew["id"], &anew["state"]),
        (&id.as_str().into(), &"ready".into()),
        "{anew}"
    );
    assert_eq!(anew["incarnation"], 2);
    let ended = runs.wait().expect("it ends");
    let mut said = String::new();
    let stderr = runs
        .stderr
        .take()
        .map(|mut stderr| stderr.read_to_string(&mut said));
    assert!(stderr.is_some_and(|read| read.is_ok()));
    assert_eq!(ended.code(), Some(125), "{said}");
    assert!(
        started.elapsed() < Duration::from_secs(20) && !said.is_empty(),
        "{said}"
    );
    assert_eq!(
        exec(&["cat", "kept"]).status.code(),
        Some(1),
        "nothing is left of the old place"
    );
    let seen = log(&place, &id);
    let words: Vec<&str> = seen.iter().map(|(_, word, _)| word.as_str()).collect();
    assert_eq!(words, ["kept", "1000", "echo one > kept"]);
    assert!(
        seen.is_sorted_by(|newer, older| newer.0 > older.0),
        "{seen:?}"
    );
    let ends: Vec<&Value> = seen.iter().map(|(.., end)| end).collect();
    assert_eq!(
        (ends[0], ends[2]),
        (&"exited".into(), &"exited".into()),
        "{seen:?}"
    );
    assert!(
        ["lost", "signaled"].contains(&ends[1].as_str().unwrap_or_default()),
        "{seen:?}"
    );
    place.run(&["sandbox", "rm", &id]);
    assert!(
        until(|| left_behind(&place).is_empty()),
        "{:?}",
        left_behind(&place)
    );
    drop(server);
}

#[test]
fn what_has_just_ended_is_on_record_and_listed_among_the_jobs() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let id = create(&place);
    for round in 0..5 {
        let word = format!("round {round}");
        place.run(&["sandbox", "exec", &id, "--", "echo", &word]);
        let seen = log(&place, &id);
        assert_eq!(
            (&seen[0].1, &seen[0].2),
            (&word, &"exited".into()),
            "{seen:?}"
        );
    }
    let all = place.json(&["job", "ls", "--kind", "exec", "--json", "--limit", "3"]);
    let execs = all["execs"].as_array().cloned().unwrap_or_default();
    assert_eq!(
        (execs.len(), &execs[0]["sandbox_id"]),
        (3, &id.as_str().into()),
        "{all}"
    );
    assert!(all["next"].is_string() && all["jobs"].as_array().is_some_and(Vec::is_empty));
    let shown = place.run(&["job", "ls", "--sandbox", &id]);
    assert!(text(&shown.stdout).contains("round 4"), "{shown:?}");
    let steps = place.json(&["job", "ls", "--kind", "step", "--json"]);
    assert_eq!(steps, serde_json::json!({"jobs": []}));
    let jobs = place.json(&["job", "ls", "--kind", "job", "--json"]);
    assert_eq!(jobs, serde_json::json!({"jobs": []}));
    let wrong = place.run(&["job", "ls", "--sandbox", &id, "--kind", "job"]);
    assert_eq!(wrong.status.code(), Some(125), "{wrong:?}");
    place.run(&["sandbox", "rm", &id]);
}

/// Says the head of each request as the body of its answer, and with a WebSocket each message backwards.
const PROGRAM: &str = r#"
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            line = self.rfile.readline()
            if not line: return
            head += line
        if b'upgrade: websocket' in head.lower():
            self.wfile.write(b'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nset-cookie: a=b\r\n\r\n')
            self.wfile.write(self.rfile.read1(64)[::-1])
            return
        self.wfile.write(b'HTTP/1.1 201 Created\r\nset-cookie: a=b\r\nclear-site-data: "*"\r\nx-own: 1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n' % len(head) + head)
socketserver.ThreadingTCPServer(('127.0.0.1', 8080), Handler).serve_forever()
"#;

/// The whole answer to a request, with its head.
fn ask(place: &Place, request: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(place.state().join("cofferdam.sock")) else {
        return String::new();
    };
    let mut answer = Vec::new();
    let asked = stream.write_all(request.as_bytes());
    drop(asked.and_then(|()| stream.read_to_end(&mut answer)));
    text(&answer)
}

/// Says `abc` on a WebSocket; what comes back.
fn backwards(place: &Place, prefix: &str) -> String {
    let mut socket = UnixStream::connect(place.state().join("cofferdam.sock")).expect("a server");
    let upgrade = format!(
        "GET {prefix}/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).expect("it is sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101") && !text(&head).contains("set-cookie"));
    socket.write_all(b"abc").expect("it is sent");
    let mut said = [0; 3];
    socket.read_exact(&mut said).expect("an answer");
    text(&said)
}

#[test]
fn a_program_is_reached_by_path_and_says_nothing_for_our_origin() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let id = create(&place);
    if place
        .run(&["sandbox", "exec", &id, "--", "python3", "-c", ""])
        .status
        .code()
        != Some(0)
    {
        println!("skipped: there is no python3 to listen with");
        return;
    }
    place.run(&[
        "sandbox", "exec", &id, "--detach", "--", "python3", "-c", PROGRAM,
    ]);
    let prefix = format!("/v1/sandboxes/{id}/ports/8080");
    let request = |method: &str, path: &str, headers: &str| {
        format!(
            "{method} {prefix}{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        )
    };
    assert!(until(
        || ask(&place, &request("GET", "/", "")).starts_with("HTTP/1.1 201")
    ));
    let headers =
        "authorization: Bearer ours\r\ncookie: c=1\r\nx-own: 2\r\nx-forwarded-prefix: /x\r\n";
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        let answer = ask(&place, &request(method, "/a%2Fb?c=d", headers)).to_lowercase();
        let (head, inside) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("x-own: 1") && head.contains("content-security-policy: sandbox"));
        assert!(
            !head.contains("set-cookie") && !head.contains("clear-site-data"),
            "{head}"
        );
        let method = method.to_lowercase();
        assert!(
            inside.starts_with(&format!("{method} /a%2fb?c=d http/1.1\r\n")),
            "{inside}"
        );
        assert!(
            inside.contains(&format!("x-forwarded-prefix: {prefix}\r\n")),
            "{inside}"
        );
        assert!(
            inside.contains("x-own: 2") && !inside.contains("ours"),
            "{inside}"
        );
        assert!(!inside.contains("cookie") && !inside.contains("forwarded-prefix: /x"));
    }
    assert_eq!(backwards(&place, &prefix), "cba");
    let closed = ask(&place, &request("GET", "/", "").replace("/8080/", "/8081/"));
    assert!(
        closed.starts_with("HTTP/1.1 502") && closed.contains("port_closed"),
        "{closed}"
    );
    let guest = ask(
        &place,
        &request("GET", "/", "").replace("/8080/", "/49983/"),
    );
    assert!(guest.starts_with("HTTP/1.1 404"), "{guest}");
    let script = ask(
        &place,
        &request("GET", "/sw.js", "service-worker: script\r\n"),
    );
    assert!(script.starts_with("HTTP/1.1 403"), "{script}");
    place.run(&["sandbox", "rm", &id]);
}

#[test]
fn who_waits_for_a_command_learns_that_the_server_is_gone_and_not_the_sandbox() {
    needs_sandbox!();
    let place = Place::new();
    let server = place.up(&["--spares", "0"], &[]);
    let id = create(&place);
    let runs = place
        .command(&["sandbox", "exec", &id, "--", "sleep", "1000"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    assert!(until(|| log(&place, &id).len() == 1));
    server.kill();
    let output = runs.wait_with_output().expect("it ends");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.contains("may go on in the sandbox") && !said.contains("broke it"),
        "{said}"
    );
    let server = place.up(&["--spares", "0"], &[]);
    place.run(&["sandbox", "rm", &id]);
    drop(server);
}
