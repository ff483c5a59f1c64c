//! Volumes from the command line, and wherever the server is killed.

#![expect(
    clippy::print_stdout,
    reason = "what cannot be tried is said by what the tests share"
)]

use e2e::{Place, Server, no_sandbox, until};
use serde_json::Value;
use std::path::PathBuf;

/// Files of volumes, and loop devices that have them.
fn kept(place: &Place) -> (Vec<PathBuf>, usize) {
    let entries = |path: PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path()))
    };
    let nodes = entries(place.state().join("nodes"));
    let files = nodes
        .flat_map(|node| entries(node.join("volumes")))
        .collect();
    let here = place.state().display().to_string();
    let devices = entries("/sys/block".into()).filter(|path| {
        let file = std::fs::read_to_string(path.join("loop/backing_file"));
        file.is_ok_and(|file| file.starts_with(&here))
    });
    (files, devices.count())
}

/// Whether this machine keeps volumes; says why not.
fn keeps(place: &Place) -> bool {
    let make = || place.run(&["volume", "create", "v", "--size", "64M", "--json"]);
    let mut made = make();
    // The node comes a moment after the server.
    until(|| {
        let waits = String::from_utf8_lossy(&made.stdout).contains("no_capacity");
        if waits {
            made = make();
        }
        !waits
    });
    let said = String::from_utf8_lossy(&made.stdout);
    if said.contains("volume_unsupported") {
        println!("skipped: volumes cannot be kept here");
        return false;
    }
    assert!(made.status.success(), "{made:?}");
    true
}

fn sandbox(place: &Place) -> Option<String> {
    let args = [
        "sandbox",
        "create",
        "--allow-root",
        "--volume",
        "v:/data",
        "--json",
    ];
    let output = place.run(&args);
    let view: Value = serde_json::from_slice(&output.stdout).ok()?;
    let id = view["id"].as_str()?.to_owned();
    (view["state"] == "ready").then_some(id)
}

fn sh(place: &Place, id: &str, script: &str) -> String {
    let output = place.run(&["sandbox", "exec", id, "--", "sh", "-c", script]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_volume_below_a_link_is_refused_with_the_place_that_is_one() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let server = place.up(&["--spares", "0"], &[]);
    let is_link = std::fs::symlink_metadata("/bin").is_ok_and(|there| there.is_symlink());
    if keeps(&place) && is_link {
        let args = [
            "sandbox",
            "create",
            "--allow-root",
            "--volume",
            "v:/bin/data",
            "--json",
        ];
        let output = place.run(&args);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("/bin") && !said.contains("speak with the guest"),
            "{said}"
        );
        assert!(said.contains("failed"), "{said}");
    }
    drop(server);
}

#[test]
fn a_volume_is_made_used_shown_and_deleted_from_the_command_line() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    if !keeps(&place) {
        return;
    }
    let id = sandbox(&place).expect("a sandbox");
    assert_eq!(
        sh(&place, &id, "echo kept > /data/x; cat /data/x"),
        "kept\n"
    );
    let args = [
        "sandbox",
        "create",
        "--allow-root",
        "--volume",
        "v:/in:ro",
        "--json",
    ];
    let reader = place.json(&args)["id"].as_str().expect("an id").to_owned();
    assert_eq!(sh(&place, &reader, "cat /in/x; echo no > /in/y"), "kept\n");
    let used = place.run(&["volume", "rm", "v", "--json"]);
    let said = String::from_utf8_lossy(&used.stdout);
    assert!(
        !used.status.success() && said.contains("volume_in_use"),
        "{said}"
    );
    let shown = String::from_utf8_lossy(&place.run(&["volume", "ls"]).stdout).into_owned();
    assert!(
        shown.contains("created") && shown.contains("64M"),
        "{shown}"
    );
    assert!(place.json(&["volume", "get", "v", "--json"])["token"].is_string());
    for wrong in ["v", "v:data", "v:/proc/x", "other:/data"] {
        let refused = place.run(&["sandbox", "create", "--allow-root", "--volume", wrong]);
        assert!(!refused.status.success(), "{wrong}");
    }
    for id in [&id, &reader] {
        place.run(&["sandbox", "rm", id]);
    }
    assert!(until(|| place.run(&["volume", "rm", "v"]).status.success()));
    assert!(until(|| kept(&place).1 == 0), "{:?}", kept(&place));
    let gone = place.run(&["volume", "get", "v", "--json"]);
    assert!(String::from_utf8_lossy(&gone.stdout).contains("not_found"));
}

/// Makes a sandbox that has the volume, of which the server dies.
fn dies_of_a_sandbox(place: &Place, mut server: Server, point: &str) {
    if let Some(id) = sandbox(place) {
        sh(place, &id, "echo kept > /data/x");
    }
    assert!(until(|| server.has_ended()), "{point} is not visited");
}

/// Killed when the file is removed and no server was told: by the process that has the order already, or by the next
/// one, which hears of it at its start.
fn dies_of_a_removal(place: &Place, mut server: Server) {
    if server.has_ended() {
        return;
    }
    drop(server);
    let mut next = place.up(&["--spares", "0"], &[("COFFERDAM_DIE_AT", REMOVED)]);
    assert!(until(|| next.has_ended()), "{REMOVED} is not visited");
}

const REMOVED: &str = "node.volumes_removed#1";

#[test]
fn a_volume_outlives_a_server_that_is_killed_between_any_two_lines_and_is_one_afterwards() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    for point in [
        "node.sandbox_recorded#1",
        "node.sandbox_started#1",
        "node.sandbox_reported#1",
    ] {
        let place = Place::new();
        let server = place.up(&["--spares", "0"], &[("COFFERDAM_DIE_AT", point)]);
        if !keeps(&place) {
            return;
        }
        dies_of_a_sandbox(&place, server, point);
        let restarted = place.up(&["--spares", "0"], &[]);
        let known = place.run(&["volume", "get", "v"]);
        assert!(known.status.success(), "{point}: {known:?}");
        let first = sandbox(&place).expect("a sandbox");
        sh(&place, &first, "echo kept > /data/x");
        // SIGKILL. The sandbox lives on with the file system, which the next process must not mount anew.
        restarted.kill();
        let again = place.up(&["--spares", "0"], &[("COFFERDAM_DIE_AT", REMOVED)]);
        let second = sandbox(&place).expect("a sandbox");
        assert_eq!(sh(&place, &second, "cat /data/x"), "kept\n", "{point}");
        sh(&place, &second, "echo more >> /data/x");
        assert_eq!(sh(&place, &first, "cat /data/x"), "kept\nmore\n", "{point}");
        assert_eq!(kept(&place).1, 1, "{point}: one file system has one device");
        let all = place.json(&["sandbox", "ls", "--json"]);
        for each in all["sandboxes"].as_array().expect("a list") {
            place.run(&["sandbox", "rm", each["id"].as_str().expect("an id")]);
        }
        assert!(until(|| place.run(&["volume", "rm", "v"]).status.success()));
        assert!(until(|| kept(&place).1 == 0), "{point}: {:?}", kept(&place));
        dies_of_a_removal(&place, again);
        let _last = place.up(&["--spares", "0"], &[]);
        assert!(
            until(|| kept(&place).0.is_empty()),
            "{point}: {:?}",
            kept(&place)
        );
    }
}
