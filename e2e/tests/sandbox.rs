//! Sandboxes that live on, and their supervisor killed at any moment: none is lost that stands, none is
//! stuck on its way, and nothing is left of those that were to go.

use e2e::{Place, Server, guests, http, left_behind, no_sandbox, until, visited};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const FAKE: [&str; 4] = ["--driver", "fake", "--spares", "0"];

/// One request; nothing when the server is gone.
fn ask(place: &Place, method: &str, path: &str, body: &str) -> Value {
    ask_at(place, method, &format!("/v1/sandboxes{path}"), body)
}

fn ask_at(place: &Place, method: &str, path: &str, body: &str) -> Value {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (_, answer) = http(&place.state().join("cofferdam.sock"), &request);
    serde_json::from_str(&answer).unwrap_or_default()
}

fn create(place: &Place) -> Option<String> {
    let made = ask(place, "POST", "?wait=30s", "{}");
    made["id"].as_str().map(str::to_owned)
}

/// Where each sandbox is.
fn states(place: &Place) -> BTreeMap<String, String> {
    let list = ask(place, "GET", "", "");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = list["sandboxes"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|one| (text(&one["id"]), text(&one["state"])))
        .collect()
}

fn are_all(place: &Place, wanted: &[&str]) -> bool {
    let states = states(place);
    states
        .values()
        .all(|state| wanted.contains(&state.as_str()))
}

/// One is kept, one is paused and brought back, with its memory and without, one is taken away, one is made
/// anew. Ends early when the server does.
fn scenario(place: &Place, server: &mut Server) -> Vec<String> {
    let known: Vec<String> = (0..4).filter_map(|_| create(place)).collect();
    let settled = ["ready", "paused", "destroyed"];
    let mut tell = |n: usize, method: &str, what: &str, body: &str| {
        if let Some(id) = known.get(n) {
            ask(place, method, &format!("/{id}{what}"), body);
            until(|| server.has_ended() || are_all(place, &settled));
        }
    };
    tell(1, "POST", "/pause", "");
    tell(1, "POST", "/resume", "");
    tell(1, "POST", "/pause", r#"{"memory":false}"#);
    tell(1, "POST", "/resume", "");
    tell(2, "DELETE", "", "");
    tell(3, "POST", "/recreate", "");
    if let Some(id) = known.first() {
        copy_and_begin(place, server, id);
    }
    known
}

/// One is copied, another begins with the copy, and the copy is given up.
fn copy_and_begin(place: &Place, server: &mut Server, id: &str) {
    let copy = ask(place, "POST", &format!("/{id}/snapshots?wait=30s"), "{}");
    let Some(copy) = copy["id"].as_str() else {
        return;
    };
    let begun = ask(
        place,
        "POST",
        "?wait=30s",
        &format!(r#"{{"snapshot":"{copy}"}}"#),
    );
    if let Some(id) = begun["id"].as_str() {
        ask(place, "DELETE", &format!("/{id}?wait=30s"), "");
    }
    ask_at(place, "DELETE", &format!("/v1/snapshots/{copy}"), "");
    until(|| server.has_ended() || layers(place).is_empty());
}

/// Snapshots that are not gone.
fn snapshots(place: &Place) -> Vec<Value> {
    let list = ask_at(place, "GET", "/v1/snapshots", "");
    list["snapshots"].as_array().cloned().unwrap_or_default()
}

/// What is on the disk of snapshots, of any node.
fn layers(place: &Place) -> Vec<std::path::PathBuf> {
    let dirs = |path: std::path::PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path()))
    };
    let nodes = dirs(place.state().join("nodes")).chain(dirs(place.state()));
    nodes.flat_map(|node| dirs(node.join("layers"))).collect()
}

fn check(place: &Place, known: &[String], point: &str) {
    let settled = ["ready", "paused", "destroyed", "failed"];
    assert!(
        until(|| are_all(place, &settled)),
        "{point}: {:?}",
        states(place)
    );
    let found = states(place);
    for id in known {
        assert!(
            found.contains_key(id),
            "{point}: {id} was answered and is gone"
        );
    }
    // The first stands since it was answered, whatever happened to the others, and the one that is made anew
    // stands in one place or in the other.
    for state in [known.first(), known.get(3)]
        .into_iter()
        .flatten()
        .filter_map(|id| found.get(id))
    {
        assert_eq!(state, "ready", "{point}");
    }
    let is_saving = |one: &Value| one["state"] == "saving";
    assert!(
        until(|| !snapshots(place).iter().any(is_saving)),
        "{point}: {:?}",
        snapshots(place)
    );
    for id in found.keys() {
        ask(place, "DELETE", &format!("/{id}"), "");
    }
    for one in snapshots(place) {
        let id = one["id"].as_str().unwrap_or_default();
        ask_at(place, "DELETE", &format!("/v1/snapshots/{id}"), "");
    }
    assert!(
        until(|| are_all(place, &["destroyed", "failed"])),
        "{point}: {:?}",
        states(place)
    );
    assert!(
        until(|| left_behind(place).is_empty()),
        "{point}: {:?}",
        left_behind(place)
    );
    assert!(
        until(|| snapshots(place).is_empty() && layers(place).is_empty()),
        "{point}: {:?} {:?}",
        snapshots(place),
        layers(place)
    );
}

/// The points that the scenario visits, each as often as it does.
fn points() -> Vec<String> {
    let place = Place::new();
    let mut server = place.up(&FAKE, &[("COFFERDAM_DIE_AT", "trace")]);
    scenario(&place, &mut server);
    visited(&server.end().1)
}

#[test]
fn a_server_killed_at_every_write_point_loses_no_sandbox_and_leaves_none() {
    let points = points();
    let names: BTreeSet<&str> = points
        .iter()
        .filter_map(|point| point.split('#').next())
        .collect();
    let expected = [
        "node.sandbox_destroyed",
        "node.sandbox_halted",
        "node.sandbox_recorded",
        "node.sandbox_reported",
        "node.sandbox_started",
        "node.snapshot_begun",
        "node.snapshot_named",
        "node.snapshot_removed",
        "node.snapshot_saved",
        "node.snapshot_thawed",
        "store.after_commit",
        "store.before_commit",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
    for point in &points {
        let place = Place::new();
        let mut server = place.up(&FAKE, &[("COFFERDAM_DIE_AT", point)]);
        let known = scenario(&place, &mut server);
        drop(server);
        let restarted = place.up(&FAKE, &[]);
        check(&place, &known, point);
        drop(restarted);
    }
    println!("killed at {} points", points.len());
}

/// What was run in a sandbox, as it is on record: the scripts, and how many have an end.
fn record(place: &Place, id: &str) -> (Vec<String>, usize) {
    let page = ask(place, "GET", &format!("/{id}/jobs"), "");
    let jobs = page["jobs"].as_array().cloned().unwrap_or_default();
    let script = |job: &Value| job["asked"]["argv"][2].as_str().map(str::to_owned);
    let ended = jobs.iter().filter(|job| job["end"]["how"] == "exited");
    (jobs.iter().filter_map(script).collect(), ended.count())
}

/// Three commands, one after the other; gives those that were answered.
fn commands(place: &Place, server: &mut Server) -> Option<(String, Vec<String>)> {
    let id = create(place)?;
    let inside = Inside::new(place, &id);
    let scripts = (0..3).map(|n| format!("print={n}"));
    let answered = scripts.filter(|script| inside.try_start(script).contains("exitCode"));
    let answered: Vec<String> = answered.collect();
    until(|| server.has_ended() || record(place, &id).1 == answered.len());
    Some((id, answered))
}

#[test]
fn what_was_run_is_on_record_once_wherever_the_server_is_killed() {
    let place = Place::new();
    let mut server = place.up(&FAKE, &[("COFFERDAM_DIE_AT", "trace")]);
    commands(&place, &mut server);
    let points = visited(&server.end().1);
    for name in ["node.execs_written#1", "node.execs_told#1"] {
        assert!(points.iter().any(|point| point == name), "{points:?}");
    }
    for point in &points {
        let place = Place::new();
        let mut server = place.up(&FAKE, &[("COFFERDAM_DIE_AT", point)]);
        let known = commands(&place, &mut server);
        drop(server);
        let restarted = place.up(&FAKE, &[]);
        if let Some((id, mut answered)) = known {
            let all = until(|| {
                let (scripts, ended) = record(&place, &id);
                let has = |script: &String| scripts.contains(script);
                answered.iter().all(has) && ended >= answered.len()
            });
            let (mut scripts, ended) = record(&place, &id);
            assert!(
                all,
                "{point}: {answered:?} were answered, {scripts:?} are on record"
            );
            answered.extend(scripts.clone());
            answered.sort();
            answered.dedup();
            scripts.sort();
            assert_eq!(
                (&scripts, scripts.len()),
                (&answered, ended),
                "{point}: each once"
            );
        }
        drop(restarted);
    }
    println!("killed at {} points", points.len());
}

/// What E2B's clients send to the guest of a sandbox: which one, and what opens it.
struct Inside<'p> {
    place: &'p Place,
    id: String,
    token: String,
}

impl Inside<'_> {
    fn new<'p>(place: &'p Place, id: &str) -> Inside<'p> {
        let shown = ask(place, "GET", &format!("/{id}"), "");
        Inside {
            place,
            id: id.trim_start_matches("sbx_").to_owned(),
            token: shown["access_token"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        }
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             e2b-sandbox-id: {}\r\ne2b-sandbox-port: 49983\r\nx-access-token: {}\r\n\
             content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            self.id,
            self.token,
            body.len()
        );
        http(&self.place.state().join("cofferdam.sock"), &request)
    }

    /// The events of a command, as they came.
    fn start(&self, script: &str) -> String {
        let answer = self.try_start(script);
        assert!(answer.contains("event"), "{answer}");
        answer
    }

    /// The same; nothing when the server is gone.
    fn try_start(&self, script: &str) -> String {
        let message = serde_json::json!({
            "process": { "cmd": "/bin/sh", "args": ["-c", script] },
            "stdin": false,
        });
        let message = message.to_string();
        // The head of a frame is no flags and a length; this one's bytes are text.
        let frame = format!("\0\0\0\u{1}\0{message:<256}");
        let kind = "application/connect+json";
        self.ask("POST", "/process.Process/Start", kind, &frame).1
    }
}

#[test]
fn a_real_sandbox_keeps_its_files_and_processes_while_it_is_paused_and_its_server_dies() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let server = place.up(&["--spares", "0"], &[]);
    let id = create(&place).expect("a sandbox");
    let inside = Inside::new(&place, &id);
    let answer =
        inside.start("echo one > kept; (while :; do date +%N > beat; sleep 0.01; done) & exit 3");
    assert!(answer.contains(r#""exitCode":3"#), "{answer}");
    let beat = |inside: &Inside<'_>| inside.ask("GET", "/files?path=beat", "text/plain", "").1;
    let beats = |inside: &Inside<'_>| {
        let before = beat(inside);
        until(|| beat(inside) != before)
    };
    assert!(beats(&inside));

    let paused = ask(&place, "POST", &format!("/{id}/pause?wait=30s"), "");
    match paused["state"].as_str() {
        Some("paused") => {
            let before = beat(&inside);
            assert!(create(&place).is_some());
            assert_eq!(beat(&inside), before, "nothing runs in a paused sandbox");
            ask(&place, "POST", &format!("/{id}/resume?wait=30s"), "");
        }
        // Without a control group that can freeze, it is refused and runs on.
        _ => assert_eq!(paused["code"], "pause_unsupported", "{paused}"),
    }
    assert!(beats(&inside));

    server.kill();
    let server = place.up(&["--spares", "0"], &[]);
    assert!(
        until(|| beats(&inside)),
        "its processes went on without a server"
    );
    let (status, kept) = inside.ask("GET", "/files?path=kept", "text/plain", "");
    assert_eq!((status, kept.contains("one")), (200, true), "{kept}");
    for id in states(&place).keys() {
        ask(&place, "DELETE", &format!("/{id}?wait=30s"), "");
    }
    assert!(
        until(|| left_behind(&place).is_empty()),
        "{:?}",
        left_behind(&place)
    );
    let (_, answer) = inside.ask("GET", "/health", "text/plain", "");
    assert!(answer.contains("was not found"), "{answer}");
    drop(server);
}

#[test]
fn a_sandbox_that_falls_while_somebody_takes_it_away_is_gone_at_once() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    for round in 0..20 {
        let id = create(&place).expect("a sandbox");
        for guest in guests(&place.state()) {
            rustix::process::kill_process(guest, rustix::process::Signal::KILL).expect("it lives");
        }
        // Far less than the time between two heartbeats, with which the order comes again.
        let gone = ask(&place, "DELETE", &format!("/{id}?wait=10s"), "");
        assert_eq!(gone["state"], "destroyed", "round {round}: {gone}");
    }
}
