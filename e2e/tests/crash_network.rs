//! Killed while rules of a network change, or while what was asked of the outside is written down: the next server
//! has the rules in force, and no record is lost or there twice.

use e2e::{Place, Server, no_sandbox, until, visited};
use serde_json::Value;

fn sandbox(place: &Place, id: &str) -> Value {
    place.json(&["sandbox", "get", id, "--json"])
}

/// Makes a sandbox without a network, and gives it one. The server may die of that.
fn open_later(place: &Place) -> String {
    let made = place.json(&["sandbox", "create", "--json"]);
    let id = made["id"].as_str().expect("an id").to_owned();
    // Whoever asks a server that dies gets no answer; what was asked is on record.
    place.run(&["sandbox", "net", &id, "--allow", "a.example"]);
    id
}

fn are_in_force(place: &Place, id: &str) -> bool {
    let view = sandbox(place, id);
    view["network_pending"] == false && view["network"]["allow"][0] == "a.example"
}

/// Each point of a change, with the driver that has it.
fn killed_in_a_change(driver: &[&str]) {
    for point in [
        "node.network_prepared",
        "node.network_written",
        "node.network_in_force",
    ] {
        let place = Place::new();
        let mut dying = place.up(driver, &[("COFFERDAM_DIE_AT", &format!("{point}#1"))]);
        let id = open_later(&place);
        assert!(until(|| dying.has_ended()), "{point} is not visited");
        let restarted = place.up(driver, &[]);
        assert!(
            until(|| are_in_force(&place, &id)),
            "{point}: {}",
            sandbox(&place, &id)
        );
        assert_eq!(sandbox(&place, &id)["state"], "ready", "{point}");
        if driver.is_empty() {
            finds_the_way(&place, &id, point);
        }
        drop(restarted);
    }
}

/// A program that knows no proxy hears of the rules, and not that there is no network.
fn finds_the_way(place: &Place, id: &str, point: &str) {
    let script = "import socket\nprint(socket.socket().connect_ex(('9.9.9.9', 443)))";
    let asks = || {
        let out = place.run(&["sandbox", "exec", id, "--", "python3", "-c", script]);
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    assert!(until(|| asks() == "111"), "{point}: {}", asks());
}

#[test]
fn a_server_killed_while_rules_change_has_them_in_force_when_it_comes_again() {
    killed_in_a_change(&["--driver", "fake"]);
}

#[test]
fn the_same_with_real_sandboxes_and_their_devices() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(why) = tun {
        println!("skipped: /dev/net/tun: {why}");
        return;
    }
    killed_in_a_change(&[]);
}

/// A job that asks for two hosts that it may not reach.
fn ask_twice(place: &Place) -> String {
    let line =
        "for host in a b; do curl -s -m 20 -o /dev/null http://$host.example/; done; sleep 1";
    let args = [
        "run",
        "--detach",
        "--json",
        "--allow",
        "c.example",
        "--",
        "sh",
        "-c",
        line,
    ];
    let made = place.json(&args);
    made["id"].as_str().expect("an id").to_owned()
}

fn hosts(place: &Place, id: &str) -> Vec<String> {
    let out = place.run(&["egress", "log", id, "--json"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let records = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut hosts: Vec<String> = records
        .filter_map(|one| Some(one["host"].as_str()?.to_owned()))
        .collect();
    hosts.sort();
    hosts
}

#[test]
fn a_server_killed_when_records_of_the_outside_are_written_tells_each_once() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    if !std::path::Path::new("/usr/bin/curl").exists() {
        println!("skipped: there is no curl to ask with");
        return;
    }
    let up = ["--spares", "0"];
    let traced = |place: &Place, server: Server| {
        let id = ask_twice(place);
        until(|| hosts(place, &id).len() == 2);
        visited(&server.end().1)
    };
    let place = Place::new();
    let server = place.up(&up, &[("COFFERDAM_DIE_AT", "trace")]);
    let points = traced(&place, server);
    assert!(
        points.iter().any(|one| one == "node.egress_written#1"),
        "{points:?}"
    );
    let place = Place::new();
    let mut dying = place.up(&up, &[("COFFERDAM_DIE_AT", "node.egress_written#1")]);
    let id = ask_twice(&place);
    assert!(until(|| dying.has_ended()), "the point is not visited");
    let _restarted = place.up(&up, &[]);
    // What was written down before is told by the next one. The other request may have been under way when its
    // node died, and has no record then.
    assert!(until(|| hosts(&place, &id)
        .iter()
        .any(|host| host == "a.example")));
    let ended = || place.json(&["job", "get", &id, "--json"])["state"] == "finished";
    assert!(until(ended));
    let all = hosts(&place, &id);
    let mut once = all.clone();
    once.dedup();
    assert_eq!(all, once, "none is there twice");
}

/// A server that answers everything with this many bytes.
fn server(bytes: usize) -> u16 {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 4096]));
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n");
            drop(stream.write_all(head.as_bytes()));
            drop(stream.write_all(&vec![b'x'; bytes]));
        }
    });
    port
}

/// The bytes that its node has written down of a sandbox.
fn passed(place: &Place, id: &str) -> u64 {
    let nodes = std::fs::read_dir(place.state().join("nodes"));
    let nodes = nodes.into_iter().flatten().flatten();
    let mut texts = nodes.filter_map(|node| {
        let of_one = node.path().join("sandboxes").join(id).join("passed");
        std::fs::read_to_string(of_one).ok()
    });
    let text = texts.next().unwrap_or_default();
    text.trim_end().parse().unwrap_or(0)
}

/// What the server outside answers with, in bytes.
const BODY: usize = 100_000;

#[test]
fn bytes_that_passed_before_the_server_was_killed_are_not_had_again() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    if !std::path::Path::new("/usr/bin/curl").exists() {
        println!("skipped: there is no curl to ask with");
        return;
    }
    let port = server(BODY);
    let place = Place::new();
    let up = ["--spares", "0", "--egress-allow", "127.0.0.1"];
    let first = place.up(&up, &[]);
    let limit = format!("bytes={}", BODY + BODY / 2);
    let create = [
        "sandbox",
        "create",
        "--json",
        "--net",
        "unrestricted",
        "--net-limit",
        &limit,
    ];
    let made = place.json(&create);
    assert_eq!(
        made["network"]["limits"]["bytes"],
        BODY + BODY / 2,
        "{made}"
    );
    let id = made["id"].as_str().expect("an id").to_owned();
    // What came of the body.
    let fetch = || {
        let line =
            format!("unset no_proxy NO_PROXY; curl -s -m 20 http://127.0.0.1:{port}/ | wc -c");
        let out = place.run(&["sandbox", "exec", &id, "--", "sh", "-c", &line]);
        let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        text.parse::<usize>().ok()
    };
    assert_eq!(fetch(), Some(BODY));
    assert!(until(|| passed(&place, &id) >= BODY as u64));
    first.kill();
    let _second = place.up(&up, &[]);
    // Until there is a line again, nobody answers.
    let mut came = Some(0);
    let asked = || {
        came = fetch();
        came.is_some_and(|bytes| bytes > 0)
    };
    assert!(until(asked));
    assert!(came < Some(BODY), "{came:?}: the second one is cut");
    let is_cut = || {
        let out = place.run(&["egress", "log", &id, "--json", "--code", "byte_limit"]);
        !out.stdout.is_empty()
    };
    assert!(until(is_cut));
}

/// While the driver can make no device, rules are given up, and what was there before holds. Killed before that is
/// told, the next server tries, and gives them up too.
#[test]
fn rules_whose_device_cannot_be_made_are_refused_also_when_the_server_was_killed_meanwhile() {
    if !std::path::Path::new("/dev/net/tun").exists() {
        println!("skipped: where there is no device, none is to be made");
        return;
    }
    let place = Place::new();
    let fake = ["--driver", "fake"];
    let mut dying = place.up(&fake, &[("COFFERDAM_DIE_AT", "node.network_in_force#1")]);
    let nodes = place.state();
    let no_device = find(&nodes, "fake")
        .expect("the directory of the driver")
        .join("no-device");
    std::fs::write(&no_device, "").expect("a file");
    let id = open_later(&place);
    assert!(until(|| dying.has_ended()));
    let _restarted = place.up(&fake, &[]);
    let is_refused = || sandbox(&place, &id)["network_refused"].is_string();
    assert!(until(is_refused), "{}", sandbox(&place, &id));
    let view = sandbox(&place, &id);
    assert_eq!(
        (&view["network_pending"], &view["network"]["mode"]),
        (&false.into(), &"none".into())
    );
    // Whoever waits is told why, with a code.
    let again = place.run(&["sandbox", "net", &id, "--allow", "a.example", "--json"]);
    let said: Value = serde_json::from_slice(&again.stdout).unwrap_or_default();
    let text = format!("{said} {}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(again.status.code(), Some(125), "{text}");
    assert!(
        text.contains("network_refused") && text.contains("there is no device today"),
        "{text}"
    );
    std::fs::remove_file(&no_device).expect("a file");
    place.run(&["sandbox", "net", &id, "--allow", "a.example"]);
    assert!(until(|| are_in_force(&place, &id)));
    assert!(sandbox(&place, &id)["network_refused"].is_null());
}

fn find(dir: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    let all = std::fs::read_dir(dir).ok()?.flatten();
    let dirs: Vec<_> = all
        .map(|one| one.path())
        .filter(|one| one.is_dir())
        .collect();
    let found = dirs.iter().find(|one| one.ends_with(name)).cloned();
    found.or_else(|| dirs.iter().find_map(|one| find(one, name)))
}
