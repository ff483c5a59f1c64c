//! Secrets, as a person uses them: what is inside, and what is nowhere else.

use e2e::{Place, good, needs_sandbox, text};
use std::path::Path;

const CANARY: &str = "canary/4e1f+value=~";

/// Every way in which a file below the directory could tell the value.
fn told_in(dir: &Path) -> Vec<String> {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Base64 of the value, without the characters at its edges.
    let base64 = [
        "Y2FuYXJ5LzRlMWYrdmFsdWU9f",
        "NhbmFyeS80ZTFmK3ZhbHVlPX",
        "jYW5hcnkvNGUxZit2YWx1ZT1+",
    ]
    .map(str::to_owned);
    let ways = [&[CANARY.to_owned(), hex][..], &base64].concat();
    let mut found = Vec::new();
    // What goes away meanwhile tells nothing.
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(told_in(&path));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let told = |way: &String| bytes.windows(way.len()).any(|part| part == way.as_bytes());
            if ways.iter().any(told) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn set(place: &Place) {
    let output = place.run_with_input(
        &["secret", "set", "token"],
        format!("{CANARY}\n").as_bytes(),
    );
    assert_eq!(good(&output), "token\t1\n");
}

#[test]
fn a_job_has_the_value_and_nobody_else_is_told() {
    needs_sandbox!();
    let place = Place::new();
    set(&place);
    let script = format!(
        "f=/dev/shm/secrets/token; stat -c '%a %u' $f; wc -c <$f; test \"$(cat $f)\" = '{CANARY}' && echo right; \
         cat $f; echo; echo to-err $(cat $f) >&2; base64 -w0 $f; echo; base64 -w0 <<E\nx$(cat $f)\nE\necho; \
         od -An -tx1 $f | tr -d ' \\n'; echo; echo \"<$VAR>\""
    );
    // The value is in this command line only because the test compares it; another test looks there.
    let asked = [
        "run",
        "--secret",
        "token",
        "--secret",
        "token=env:VAR",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let output = place.run(&asked);
    let out = good(&output);
    let size = CANARY.len().to_string();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(
        lines[..5],
        ["400 1000", &size, "right", "[secret token]", lines[4]],
        "{out}"
    );
    assert!(
        lines[4].starts_with("[secret token]") && lines[4].len() < 20,
        "{out}"
    );
    assert!(lines[5].contains("[secret token]"), "{out}");
    assert_eq!(lines[6..], ["[secret token]", "<[secret token]>"], "{out}");
    assert_eq!(text(&output.stderr), "to-err [secret token]\n");
}

#[test]
fn the_value_is_in_no_file_of_the_state_and_in_no_answer() {
    needs_sandbox!();
    let place = Place::new();
    set(&place);
    let server = place.up(&[], &[("COFFERDAM_LOG", "debug")]);
    let script = "cat $F; env; cat /dev/shm/secrets/token >&2; cat $F $F | base64; exit 3";
    let asked = [
        "run",
        "--secret",
        "token",
        "--secret",
        "token=env:V",
        "--env",
        "F=/dev/shm/secrets/token",
        "--json",
        "--",
        "sh",
        "-c",
        script,
    ];
    let job = place.json(&asked);
    assert!(!job.to_string().contains(CANARY), "{job}");
    assert!(job.to_string().contains("[secret token]"), "{job}");
    let id = job["job"]["id"]
        .as_str()
        .or_else(|| job["id"].as_str())
        .expect("an id")
        .to_owned();
    // A program that is not there, whose name is the value.
    let odd = place.run(&[
        "run",
        "--secret",
        "token",
        "--",
        "sh",
        "-c",
        "exec /x$(cat /dev/shm/secrets/token)",
    ]);
    assert!(!text(&odd.stderr).contains(CANARY), "{odd:?}");
    let get = place.json(&["job", "get", &id, "--json"]);
    assert_eq!(get["spec"]["secrets"][1]["how"]["as"], "env", "{get}");
    let events = good(&place.run(&["secret", "events", "token"]));
    assert!(
        events.contains("secret.used") && events.contains(&id),
        "{events}"
    );
    let list = good(&place.run(&["secret", "ls"]));
    assert!(!(list + &events + &get.to_string()).contains(CANARY));
    // Also what is only there while it runs.
    assert_eq!(told_in(&place.state()), Vec::<String>::new());
    let (_, log) = server.end();
    assert!(!log.contains(CANARY), "{log}");
    assert_eq!(told_in(&place.state()), Vec::<String>::new());
    good(&place.run(&["secret", "rm", "token"]));
    let gone = place.run(&["run", "--secret", "token", "--", "true"]);
    assert!(text(&gone.stderr).contains("secret_missing"), "{gone:?}");
}

#[test]
fn a_server_that_is_killed_goes_on_to_take_values_out_when_it_is_back() {
    needs_sandbox!();
    let place = Place::new();
    set(&place);
    let server = place.up(&[], &[]);
    // It goes on by itself after a while: nobody outside can touch its files.
    let script = "cat /dev/shm/secrets/token; echo begun; sleep 3; \
                  cat /dev/shm/secrets/token; echo end";
    let id = good(&place.run(&[
        "run", "--detach", "--secret", "token", "--", "sh", "-c", script,
    ]));
    let id = id.trim();
    // A job that is running has not been started yet, and then it ends as lost.
    assert!(e2e::until(
        || text(&place.run(&["job", "logs", id]).stdout).contains("begun")
    ));
    drop(server.kill());
    let server = place.up(&[], &[]);
    assert!(e2e::until(
        || place.json(&["job", "get", id, "--json"])["state"] == "finished"
    ));
    let out = good(&place.run(&["job", "logs", id]));
    assert_eq!(out, "[secret token]begun\n[secret token]end\n");
    assert_eq!(told_in(&place.state()), Vec::<String>::new());
    drop(server.end());
}

#[test]
fn a_sandbox_that_lives_on_has_its_secrets_and_its_record_has_not() {
    needs_sandbox!();
    let place = Place::new();
    set(&place);
    let server = place.up(&[], &[]);
    let view = place.json(&[
        "sandbox",
        "create",
        "--secret",
        "token",
        "--secret",
        "token=env:V",
        "--json",
    ]);
    assert_eq!(view["state"], "ready", "{view}");
    assert_eq!(view["spec"]["secrets"][0]["version"], 1, "{view}");
    assert_eq!(told_in(&place.state()), Vec::<String>::new());
    let events = good(&place.run(&["secret", "events", "token"]));
    assert!(
        events.contains(view["id"].as_str().expect("an id")),
        "{events}"
    );
    good(&place.run(&["sandbox", "rm", view["id"].as_str().expect("an id")]));
    drop(server.end());
}

#[test]
fn another_master_key_is_refused_at_the_start_and_a_new_one_needs_the_old() {
    let place = Place::new();
    set(&place);
    let up = |key: &str, more: &[&str]| {
        let mut args = vec![
            "up",
            "--no-listen",
            "--driver",
            "fake",
            "--idle-exit",
            "100ms",
            "--secret-key",
            key,
        ];
        args.extend_from_slice(more);
        place
            .command(&args)
            .env("NEW_KEY", "ab".repeat(32))
            .output()
            .expect("a server")
    };
    let refused = up("env:NEW_KEY", &[]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        text(&refused.stderr).contains("secret_key_wrong"),
        "{refused:?}"
    );
    let unset = up("env:NO_SUCH_VARIABLE", &[]);
    assert!(
        text(&unset.stderr).contains("secret_key_unusable"),
        "{unset:?}"
    );
    let old = format!("file:{}", place.state().join("secret.key").display());
    let changed = up("env:NEW_KEY", &["--secret-key-before", &old]);
    assert_eq!(changed.status.code(), Some(0), "{changed:?}");
    let refused = up(&old, &[]);
    assert!(
        text(&refused.stderr).contains("secret_key_wrong"),
        "{refused:?}"
    );
    let good = up("env:NEW_KEY", &[]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
}

/// Attack: A secret stands in the arguments of a process, where all read it.
#[test]
fn a_value_is_never_taken_from_the_command_line() {
    let place = Place::new();
    for args in [
        &["secret", "set", "a", CANARY][..],
        &["run", "--secret", "a=canary/4e1f+value=~", "--", "true"],
    ] {
        let refused = place.run(args);
        assert!(!refused.status.success());
    }
    let file = place.work().join("value");
    std::fs::write(&file, "\u{1}\u{2}with newline\n").expect("a file");
    let set = place.run(&[
        "secret",
        "set",
        "a.b",
        "--file",
        &file.display().to_string(),
    ]);
    assert_eq!(good(&set), "a.b\t1\n");
    let again = place.run_with_input(&["secret", "rotate", "a.b"], b"x");
    assert_eq!(good(&again), "a.b\t2\n");
    let none = place.run_with_input(&["secret", "rotate", "none"], b"x");
    assert!(text(&none.stderr).contains("not_found"), "{none:?}");
    let empty = place.run_with_input(&["secret", "set", "empty"], b"\n");
    assert!(
        text(&empty.stderr).contains("invalid_argument"),
        "{empty:?}"
    );
}
