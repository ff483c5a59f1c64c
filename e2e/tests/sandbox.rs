//! Sandboxes that live on, and their supervisor killed at any moment: none is lost that stands, none is
//! stuck on its way, and nothing is left of those that were to go.

use e2e::{Place, Server, http, left_behind, until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const FAKE: [&str; 4] = ["--driver", "fake", "--spares", "0"];

/// One request; nothing when the server is gone.
fn ask(place: &Place, method: &str, path: &str, body: &str) -> Value {
    let request = format!(
        "{method} /v1/sandboxes{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
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

/// One is kept, one is paused and brought back, one is taken away. Ends early when the server does.
fn scenario(place: &Place, server: &mut Server) -> Vec<String> {
    let known: Vec<String> = (0..3).filter_map(|_| create(place)).collect();
    let settled = ["ready", "paused", "destroyed"];
    let mut tell = |n: usize, method: &str, what: &str| {
        if let Some(id) = known.get(n) {
            ask(place, method, &format!("/{id}{what}"), "");
            until(|| server.has_ended() || are_all(place, &settled));
        }
    };
    tell(1, "POST", "/pause");
    tell(1, "POST", "/resume");
    tell(2, "DELETE", "");
    known
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
    // The first stands since it was answered, whatever happened to the others.
    if let Some(state) = known.first().and_then(|id| found.get(id)) {
        assert_eq!(state, "ready", "{point}");
    }
    for id in found.keys() {
        ask(place, "DELETE", &format!("/{id}"), "");
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
}

/// The points that the scenario visits, each as often as it does.
fn visited() -> Vec<String> {
    let place = Place::new();
    let mut server = place.up(&FAKE, &[("COFFERDAM_DIE_AT", "trace")]);
    scenario(&place, &mut server);
    let (_, log) = server.end();
    let mut seen = BTreeMap::<String, u32>::new();
    let names = log.lines().filter_map(|line| line.split("point ").nth(1));
    names
        .map(|name| {
            let count = seen.entry(name.to_owned()).or_default();
            *count += 1;
            format!("{name}#{count}")
        })
        .collect()
}

#[test]
fn a_server_killed_at_every_write_point_loses_no_sandbox_and_leaves_none() {
    let points = visited();
    let names: BTreeSet<&str> = points
        .iter()
        .filter_map(|point| point.split('#').next())
        .collect();
    let expected = [
        "node.sandbox_destroyed",
        "node.sandbox_recorded",
        "node.sandbox_reported",
        "node.sandbox_started",
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
