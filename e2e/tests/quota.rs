//! Quotas and rates with the real binary, as people and programs meet them.
#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

use e2e::{Place, Process, all, free_port, good, http_tcp, needs_sandbox, until};
use std::process::Stdio;

fn state(place: &Place, id: &str) -> String {
    let job = place.json(&["job", "get", id, "--json"]);
    job["state"].as_str().unwrap_or_default().to_owned()
}

fn sleeping(place: &Place) -> String {
    let made = good(&place.run(&["run", "--detach", "--", "sleep", "300"]));
    made.trim().to_owned()
}

#[test]
fn a_job_beyond_a_quota_waits_says_why_and_runs_when_there_is_room_also_after_a_crash() {
    needs_sandbox!();
    let place = Place::new();
    let server = place.up(&[], &[]);
    let set = place.run(&["quota", "set", "local", "jobs=1", "memory_bytes=4GiB"]);
    good(&set);
    let (first, second, third) = (sleeping(&place), sleeping(&place), sleeping(&place));
    assert!(until(|| state(&place, &first) == "running"));
    let waits = || place.json(&["job", "get", &second, "--json"])["waiting"].clone();
    assert!(until(|| waits() == "its tenant has 1 of 1 jobs running"));
    let listed = good(&place.run(&["quota", "ls"]));
    assert!(listed.contains("local\tjobs\t1\t1"), "{listed}");
    assert!(
        listed.contains("local\tmemory_bytes\t512 MiB\t4 GiB"),
        "{listed}"
    );
    good(&place.run(&["job", "cancel", &first]));
    assert!(until(|| state(&place, &second) == "running"));
    assert_eq!(state(&place, &third), "queued");
    // What waits for room is in the database alone.
    server.kill();
    let server = place.up(&[], &[]);
    good(&place.run(&["job", "cancel", &second]));
    assert!(until(|| state(&place, &third) == "running"));
    good(&place.run(&["job", "cancel", &third]));
    let wrong = place.run(&["quota", "set", "local", "gold=1"]);
    assert!(
        all(&wrong).contains("there is no limit `gold`"),
        "{}",
        all(&wrong)
    );
    assert_eq!(good(&place.run(&["quota", "rm", "local"])).trim(), "local");
    drop(server.end());
}

#[test]
fn a_sandbox_beyond_a_quota_is_refused_with_what_there_is_and_who_can_raise_it() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&[], &[]);
    good(&place.run(&["quota", "set", "local", "sandboxes=1"]));
    let first = good(&place.run(&["sandbox", "create"]));
    let first = first.split_whitespace().next().unwrap().to_owned();
    let refused = place.run(&["sandbox", "create"]);
    assert_eq!(refused.status.code(), Some(125), "{}", all(&refused));
    let said = all(&refused);
    assert!(said.contains("its tenant has 1 of 1 sandboxes"), "{said}");
    assert!(said.contains("cofferdam quota set"), "{said}");
    good(&place.run(&["sandbox", "rm", &first]));
    let created = || place.run(&["sandbox", "create"]).status.success();
    assert!(until(created));
}

#[test]
fn a_file_beyond_a_quota_is_not_kept_and_the_job_says_so() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&[], &[]);
    good(&place.run(&["quota", "set", "local", "artifact_bytes=1000"]));
    let write = |bytes: &str| {
        let line = format!("head -c {bytes} /dev/zero > out");
        place.run(&["run", "--out", "out", "--", "sh", "-c", &line])
    };
    good(&write("600"));
    let refused = all(&write("601"));
    assert!(refused.contains("artifact_bytes"), "{refused}");
    good(&write("400"));
    let listed = good(&place.run(&["quota", "ls", "--json"]));
    assert!(
        listed.replace(' ', "").contains("\"used\":1000"),
        "{listed}"
    );
}

/// A server with these rates, and nothing that runs anything.
struct Server {
    /// First, so that it has ended when its place goes.
    _process: Process,
    place: Place,
    address: String,
}

impl Server {
    fn start(before: &str, rates: &str) -> Server {
        let (place, address) = (Place::new(), format!("127.0.0.1:{}", free_port()));
        let config = format!(
            "{before}\n[rates]\n{rates}\n[server]\nstate = \"{}\"\nlisten = \"{address}\"\n",
            place.state().display()
        );
        std::fs::write(place.work().join("server.toml"), config).unwrap();
        let mut command = place.command(&["server", "--config", "server.toml"]);
        let log = std::fs::File::create(place.work().join("server.log")).unwrap();
        let process = command.stderr(Stdio::from(log)).spawn().unwrap();
        let server = Server {
            place,
            address,
            _process: Process(process),
        };
        let is_up = || std::net::TcpStream::connect(&server.address).is_ok();
        assert!(until(is_up), "{}", server.said());
        server
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.place.work().join("server.log")).unwrap_or_default()
    }

    fn ask(&self, line: &str, headers: &str, body: &str) -> (u16, String) {
        let (address, length) = (&self.address, body.len());
        let request = format!(
            "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        http_tcp(address, &request)
    }

    fn token(&self) -> String {
        let path = self.place.state().join("token");
        let token = std::fs::read_to_string(path).unwrap();
        format!("authorization: Bearer {}\r\n", token.trim())
    }
}

#[test]
fn a_server_holds_the_rates_of_its_file_at_all_its_doors_and_the_socket_is_not_counted() {
    let server = Server::start(
        "",
        "creates = { per_second = 1, burst = 2 }\nfailures = { per_second = 1, burst = 20 }",
    );
    let token = server.token();
    let job = r#"{"argv":["true"]}"#;
    let mut codes = Vec::new();
    for _ in 0..6 {
        codes.push(server.ask("POST /v1/jobs", &token, job).0);
    }
    assert_eq!(codes[..2], [201, 201]);
    assert!(codes.contains(&429), "{codes:?}");
    // The clients of E2B read another form.
    let env = good(&server.place.run(&["env", "e2b"]));
    let key = env
        .split_once("E2B_API_KEY=")
        .and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .find(|part| part.starts_with("e2b_"))
        })
        .unwrap();
    let header = format!("x-api-key: {key}\r\n");
    let answers =
        (0..4).map(|_| server.ask("POST /sandboxes", &header, r#"{"templateID":"base"}"#));
    let answers: Vec<_> = answers.collect();
    let limited = answers.iter().rfind(|(status, _)| *status == 429);
    let limited = &limited.unwrap().1;
    let body: serde_json::Value = serde_json::from_str(limited).unwrap();
    assert_eq!(body["code"], 429, "{limited}");
    assert!(
        body["message"].as_str().unwrap().contains("`creates`"),
        "{limited}"
    );
    // Keys that do not count, and after them the one that does.
    let guess = |number: u32| {
        let wrong = format!("authorization: Bearer cfd_{number:064x}\r\n");
        server.ask("GET /v1/jobs", &wrong, "").0
    };
    let codes: Vec<u16> = (0..40).map(guess).collect();
    assert!(codes.contains(&401) && codes.contains(&429), "{codes:?}");
    assert_eq!(server.ask("GET /v1/jobs", &token, "").0, 200);
    for _ in 0..5 {
        good(&server.place.run(&["secret", "ls"]));
    }
}

#[test]
fn production_has_rates_and_development_without_them_is_in_the_record() {
    let place = Place::new();
    let config = format!(
        "[rates]\noff = true\n[server]\nstate = \"{}\"\n",
        place.state().display()
    );
    std::fs::write(place.work().join("server.toml"), &config).unwrap();
    for args in [
        ["config", "check", "server.toml"],
        ["server", "--config", "server.toml"],
    ] {
        let refused = place.run(&args);
        assert!(!refused.status.success(), "{}", all(&refused));
        assert!(
            all(&refused).contains("this is production"),
            "{}",
            all(&refused)
        );
    }
    let server = Server::start("mode = \"development\"", "off = true");
    let kinds = || all(&server.place.run(&["audit", "ls", "--kind", "limits.off"]));
    assert!(until(|| kinds().contains("limits.off")), "{}", kinds());
    assert!(server.said().contains("no rates"), "{}", server.said());
    let token = server.token();
    for _ in 0..20 {
        assert_eq!(server.ask("GET /v1/jobs", &token, "").0, 200);
    }
}
