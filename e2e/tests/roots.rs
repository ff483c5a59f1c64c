//! Root file systems that a person gives to `cofferdam up`, and what runs on them.

use e2e::{Place, needs_sandbox};
use std::path::{Path, PathBuf};
use std::process::Output;

/// A few programs of this machine with what they are linked with.
const ROOT: &str = "set -e; mkdir -p \"$1\"; cd \"$1\"; mkdir -p usr/bin usr/lib usr/lib64 etc srv
    for p in sh ls touch cat id; do cp -L /usr/bin/$p usr/bin/; done
    for l in $(ldd usr/bin/* | grep -o '/[^ ]*' | grep -v : | sort -u); do cp -L $l usr/lib/; cp -L $l usr/lib64/; done
    ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64; echo first > srv/which; chmod 755 .";

fn make(place: &Place, dir: &Path) -> PathBuf {
    let made = place.shell(&format!("set -- '{}'; {ROOT}", dir.display()));
    assert!(made.status.success(), "{made:?}");
    dir.to_owned()
}

fn said(output: &Output) -> (i32, String) {
    let text = [&*output.stdout, &*output.stderr].concat();
    let code = output.status.code().unwrap_or(-1);
    (code, String::from_utf8_lossy(&text).into_owned())
}

fn option(name: &str, dir: &Path) -> String {
    format!("{name}={}", dir.display())
}

#[test]
fn a_root_that_was_given_is_there_by_its_name_for_jobs_and_sandboxes_and_after_a_restart() {
    needs_sandbox!();
    let place = Place::new();
    let dir = make(&place, &place.work().join("root"));
    let given = [option("a:1", &dir), option("b", &dir)];
    let args = ["--root", &given[0], "--root", &given[1], "--spares", "0"];
    let server = place.up(&args, &[]);
    let run = |name: &str| said(&place.run(&["run", "--root", name, "--", "cat", "/srv/which"]));
    assert_eq!(run("a:1"), (0, "first\n".to_owned()));
    assert_eq!(run("b"), (0, "first\n".to_owned()));
    let (code, text) = run("c");
    assert_eq!(code, 125);
    assert!(
        text.contains("there are `a:1`, `b` (unknown_root)"),
        "{text}"
    );
    let made = place.json(&[
        "sandbox",
        "create",
        "--allow-root",
        "--root",
        "a:1",
        "--json",
    ]);
    let id = made["id"].as_str().expect("an id").to_owned();
    let clauses = made["enforcement"].as_array().expect("clauses");
    let clause = clauses
        .iter()
        .find(|one| one["clause"] == "root")
        .expect("a clause");
    assert!(
        clause["value"]
            .as_str()
            .is_some_and(|value| value.starts_with("a:1 ")),
        "{clause}"
    );
    drop(server.kill());
    let _server = place.up(&args, &[]);
    let seen = said(&place.run(&[
        "sandbox",
        "exec",
        &id,
        "--",
        "sh",
        "-c",
        "id -un; cat /srv/which",
    ]));
    assert_eq!(seen, (0, "user\nfirst\n".to_owned()));
    place.run(&["sandbox", "rm", &id]);
}

#[test]
fn a_snapshot_begins_on_the_root_of_then_and_is_refused_on_another_by_its_name() {
    needs_sandbox!();
    let place = Place::new();
    let dir = make(&place, &place.work().join("root"));
    let args = ["--root", &option("a", &dir), "--spares", "0"];
    let server = place.up(&args, &[]);
    let made = place.json(&["sandbox", "create", "--allow-root", "--root", "a", "--json"]);
    let id = made["id"].as_str().expect("an id").to_owned();
    let snapshot = place.json(&["sandbox", "snapshot", &id, "--json"]);
    if snapshot["state"] != "ready" {
        println!("skipped: no root can be written here, or no sandbox can be paused: {snapshot}");
        place.run(&["sandbox", "rm", &id]);
        return;
    }
    let snapshot = snapshot["id"].as_str().expect("an id").to_owned();
    let restored = place.json(&["sandbox", "restore", &snapshot, "--json"]);
    let second = restored["id"].as_str().expect("an id").to_owned();
    for id in [&id, &second] {
        assert_eq!(said(&place.run(&["sandbox", "rm", id])).0, 0);
    }
    drop(server.end());
    std::fs::write(dir.join("srv/which"), "another\n").expect("a file");
    let _server = place.up(&args, &[]);
    let seen = said(&place.run(&["run", "--root", "a", "--", "cat", "/srv/which"]));
    assert_eq!(seen, (0, "another\n".to_owned()));
    let (code, text) = said(&place.run(&["sandbox", "restore", &snapshot]));
    assert!(code == 125 && text.contains("root_changed"), "{text}");
}

#[test]
fn roots_in_the_state_have_the_names_of_their_directories_with_a_server_and_without() {
    needs_sandbox!();
    let place = Place::new();
    // Made by the program, for its user alone.
    place.run(&["secret", "ls"]);
    make(&place, &place.state().join("roots/tiny:1"));
    make(&place, &place.state().join("roots/.not-yet"));
    let seen = said(&place.run(&["run", "--root", "tiny:1", "--", "cat", "/srv/which"]));
    assert_eq!(seen, (0, "first\n".to_owned()));
    let (code, text) = said(&place.run(&["run", "--root", "other", "--", "true"]));
    assert!(code == 125 && text.contains("unknown_root"), "{text}");
    let _server = place.up(&["--spares", "0"], &[]);
    let (_, text) = said(&place.run(&["run", "--root", "other", "--", "true"]));
    assert!(text.contains("there are `tiny:1` (unknown_root)"), "{text}");
    let seen = said(&place.run(&["run", "--root", "tiny:1", "--", "cat", "/srv/which"]));
    assert_eq!(seen, (0, "first\n".to_owned()));
}

#[test]
fn what_cannot_be_a_root_is_refused_at_the_start_with_what_to_do() {
    let place = Place::new();
    let dir = make(&place, &place.work().join("root"));
    let empty = place.work().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let hostile = make(&place, &place.work().join("hostile"));
    std::fs::remove_dir_all(hostile.join("etc")).expect("a directory");
    std::os::unix::fs::symlink("/etc", hostile.join("etc")).expect("a link");
    let cases: [(&str, &str, &str); 7] = [
        (
            &option("a", &empty),
            "root_unusable",
            "neither `bin/sh` nor `usr/bin`",
        ),
        (
            &option("a", &hostile),
            "root_unusable",
            "`etc` in it is a link",
        ),
        ("a=/no/such", "root_unusable", "cannot be read"),
        ("a=/", "root_unusable", "the machine's own"),
        ("/srv", "invalid_argument", "NAME=DIR"),
        (
            &option("-a", &dir),
            "invalid_argument",
            "cannot be the name",
        ),
        (
            &option("a b", &dir),
            "invalid_argument",
            "cannot be the name",
        ),
    ];
    for (root, code, why) in cases {
        let output = place.run(&["up", "--no-listen", &format!("--root={root}")]);
        let (exit, text) = said(&output);
        assert!(
            exit == 125 && text.contains(code) && text.contains(why),
            "{root}: {text}"
        );
        assert!(text.contains("hint: "), "{text}");
    }
    let twice = option("a", &dir);
    let output = place.run(&["up", "--no-listen", "--root", &twice, "--root", &twice]);
    assert!(
        said(&output).1.contains("two roots called `a`"),
        "{output:?}"
    );
}

/// Attack: a root that somebody gives has a link to a file of this machine where the system's store of authorities is.
#[test]
fn links_of_a_root_where_programs_look_whom_to_trust_lead_to_nothing_of_this_machine() {
    needs_sandbox!();
    let place = Place::new();
    let dir = make(&place, &place.work().join("root"));
    let mine = place.work().join("mine.pem");
    std::fs::write(&mine, "mine\n").expect("a file");
    let link = |to: &Path, name: &str| {
        std::os::unix::fs::symlink(to, dir.join("etc/ssl").join(name)).expect("a link");
    };
    std::fs::create_dir_all(dir.join("etc/ssl/certs")).expect("a directory");
    std::fs::create_dir_all(dir.join("etc/pki/tls/certs/ca-bundle.crt")).expect("a directory");
    std::fs::write(dir.join("etc/ssl/certs/own.pem"), "own\n").expect("a file");
    link(&mine, "certs/ca-certificates.crt");
    link(Path::new("certs/own.pem"), "cert.pem");
    let args = ["--root", &option("a", &dir), "--spares", "0"];
    let server = place.up(&args, &[]);
    let create = ["sandbox", "create", "--allow-root", "--root", "a", "--json"];
    let made = place.json(&[&create[..], &["--rule", "GET https://a.test/v1/*"]].concat());
    let clauses = made["enforcement"].as_array().expect("clauses");
    let clause = |name: &str| clauses.iter().find(|one| one["clause"] == name);
    let trust = clause("trust").expect("a clause");
    assert_eq!(trust["state"], "not_held", "{trust}");
    let how = trust["how"].as_str().expect("how");
    assert!(
        how.contains("/etc/ssl/certs/ca-certificates.crt: "),
        "{trust}"
    );
    let root = clause("root").and_then(|one| one["value"].as_str());
    let id = made["id"].as_str().expect("an id");
    let seen = said(&place.run(&["sandbox", "exec", id, "--", "cat", "/etc/ssl/cert.pem"]));
    if root.expect("a value").contains("cannot be written") {
        assert_eq!(seen, (0, "own\n".to_owned()));
    } else {
        // A link to what is inside is followed there.
        assert_eq!(trust["value"], "/etc/ssl/cert.pem", "{trust}");
        assert!(seen.1.contains("BEGIN CERTIFICATE"), "{seen:?}");
    }
    let read = |path: &Path| std::fs::read_to_string(path).expect("a text");
    assert_eq!(read(&mine), "mine\n");
    assert_eq!(read(&dir.join("etc/ssl/certs/own.pem")), "own\n");
    place.run(&["sandbox", "rm", id]);
    drop(server.end());
}
