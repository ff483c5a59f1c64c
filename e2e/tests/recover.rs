//! At a node's start, what the server believes and what is there are made one, both ways.

use e2e::{Place, http, text, until};
use std::path::{Path, PathBuf};

const UP: [&str; 4] = ["--driver", "fake", "--spares", "0"];
/// Of no job and no record.
const STRAYS: [&str; 2] = [
    "sbx_00000000000000000000000000000001",
    "sbx_00000000000000000000000000000002",
];

fn create(place: &Place) -> String {
    let body = r#"{"argv":["fake","sleep=60000"]}"#;
    let request = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (_, answer) = http(&place.state().join("cofferdam.sock"), &request);
    let id = answer.split('"').find(|part| part.starts_with("job_"));
    id.unwrap_or_default().to_owned()
}

fn job(place: &Place, id: &str) -> serde_json::Value {
    place.json(&["job", "get", id, "--json"])
}

/// Where the fake driver has a file for each sandbox.
fn driver(place: &Place) -> PathBuf {
    let nodes = std::fs::read_dir(place.state().join("nodes")).expect("there is a node");
    let node = nodes.flatten().next().expect("there is a node").path();
    node.join("fake")
}

fn is_there(dir: &Path, id: &str) -> bool {
    dir.join(id).exists()
}

#[test]
fn rows_without_a_sandbox_are_told_and_sandboxes_without_a_row_are_taken_away() {
    let place = Place::new();
    let server = place.up(&UP, &[]);
    let lost = create(&place);
    assert!(
        until(|| job(&place, &lost)["state"] == "running"),
        "{}",
        job(&place, &lost)
    );
    let made = text(&place.run(&["sandbox", "create"]).stdout);
    let lives = made
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned();
    server.kill();
    let dir = driver(&place);
    // The sandboxes of both are gone, and there are two of nobody, one of which cannot be taken away at first.
    for entry in std::fs::read_dir(&dir).expect("it is there").flatten() {
        std::fs::remove_file(entry.path()).expect("it is ours");
    }
    std::fs::write(dir.join(STRAYS[0]), "").expect("it is ours");
    std::fs::create_dir(dir.join(STRAYS[1])).expect("it is ours");
    let server = place.up(&UP, &[]);
    assert!(until(|| job(&place, &lost)["state"] == "finished"));
    assert_eq!(job(&place, &lost)["outcome"]["kind"], "lost");
    let sandbox = || place.json(&["sandbox", "get", &lives, "--json"]);
    assert!(until(|| sandbox()["state"] == "failed"), "{}", sandbox());
    assert!(until(|| !is_there(&dir, STRAYS[0])));
    assert!(is_there(&dir, STRAYS[1]));
    // It is tried again, and not only at the next start.
    std::fs::remove_dir(dir.join(STRAYS[1])).expect("it is ours");
    std::fs::write(dir.join(STRAYS[1]), "").expect("it is ours");
    assert!(until(|| !is_there(&dir, STRAYS[1])));
    drop(server);
}
