//! Builds of profiles, and the server killed at any moment: each is done or begun again, and nothing is left of
//! what was cut off.

use e2e::{Place, Server, http, left_behind, until, visited};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;

const FAKE: [&str; 4] = ["--driver", "fake", "--spares", "0"];
/// Servers at a time; each waits most of its time.
const AT_ONCE: usize = 6;

/// One request; nothing when the server is gone.
fn ask(place: &Place, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, answer) = http(&place.state().join("cofferdam.sock"), &request);
    (status, serde_json::from_str(&answer).unwrap_or_default())
}

fn status(place: &Place, path: &str) -> String {
    let (_, info) = ask(place, "GET", &format!("{path}/status"), &json!(null));
    info["status"].as_str().unwrap_or_default().to_owned()
}

/// A build that was begun: where it is asked for. Waits for its end, or for the server's.
fn scenario(place: &Place, server: &mut Server) -> Option<String> {
    let (_, made) = ask(place, "POST", "/v3/templates", &json!({"name": "env"}));
    let (template, build) = (made["templateID"].as_str()?, made["buildID"].as_str()?);
    let run = |command: &str| json!({"type": "RUN", "args": [command]});
    let recipe = json!({
        "fromImage": "base",
        "steps": [{"type": "ENV", "args": ["A", "b"]}, run("print=two")],
    });
    let begin = format!("/v2/templates/{template}/builds/{build}");
    let (begun, _) = ask(place, "POST", &begin, &recipe);
    let path = format!("/templates/{template}/builds/{build}");
    until(|| server.has_ended() || status(place, &path) == "ready");
    (begun == 202).then_some(path)
}

/// What is on the disk of snapshots, of any node.
fn layers(place: &Place) -> usize {
    let dirs = |path: std::path::PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path()))
    };
    let nodes = dirs(place.state().join("nodes"));
    nodes.flat_map(|node| dirs(node.join("layers"))).count()
}

fn live(place: &Place) -> usize {
    let (_, list) = ask(place, "GET", "/v1/sandboxes?limit=100", &json!(null));
    let all = list["sandboxes"].as_array().cloned().unwrap_or_default();
    let over =
        |one: &&Value| ["destroyed", "failed"].contains(&one["state"].as_str().unwrap_or(""));
    all.len() - all.iter().filter(over).count()
}

fn check(place: &Place, path: Option<&str>, point: &str) {
    if let Some(path) = path {
        assert!(
            until(|| status(place, path) == "ready"),
            "{point}: {}",
            status(place, path)
        );
        let (_, info) = ask(place, "GET", &format!("{path}/status"), &json!(null));
        let said = info["logEntries"].to_string();
        assert!(said.contains("[stdout]: two"), "{point}: {said}");
        // What the name means can be begun with.
        let (made, sandbox) = ask(
            place,
            "POST",
            "/v2/sandboxes",
            &json!({"templateID": "env"}),
        );
        assert_eq!(made, 201, "{point}: {sandbox}");
        let id = sandbox["sandboxID"].as_str().unwrap_or_default();
        ask(place, "DELETE", &format!("/sandboxes/{id}"), &json!(null));
    }
    ask(place, "DELETE", "/templates/env", &json!(null));
    assert!(until(|| live(place) == 0), "{point}: a sandbox is left");
    assert!(until(|| layers(place) == 0), "{point}: a copy is left");
    assert!(
        until(|| left_behind(place).is_empty()),
        "{point}: {:?}",
        left_behind(place)
    );
}

#[test]
fn a_server_killed_at_every_write_point_of_a_build_finishes_it_and_leaves_nothing() {
    let place = Place::new();
    let mut server = place.up(&FAKE, &[("COFFERDAM_DIE_AT", "trace")]);
    assert!(scenario(&place, &mut server).is_some());
    let points = visited(&server.end().1);
    let names: BTreeSet<&str> = points
        .iter()
        .filter_map(|point| point.split('#').next())
        .collect();
    for name in [
        "node.sandbox_started",
        "node.snapshot_named",
        "store.after_commit",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
    println!("killed at {} points", points.len());
    let left = Mutex::new(points.into_iter());
    let next = || left.lock().ok()?.next();
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(point) = next() {
                    let place = Place::new();
                    let mut server = place.up(&FAKE, &[("COFFERDAM_DIE_AT", &point)]);
                    let begun = scenario(&place, &mut server);
                    drop(server);
                    let restarted = place.up(&FAKE, &[]);
                    check(&place, begun.as_deref(), &point);
                    drop(restarted);
                }
            });
        }
    });
}
