//! What is taken out of what is told: of live sandboxes, of their record, and by shape.

use e2e::{Place, good, is_told_in, needs_sandbox, text};

const CANARY: &str = "canary/51d0+value=~";

fn sandbox(place: &Place, words: &[&str]) -> String {
    let whole = [&["sandbox", "create", "--json"], words].concat();
    let view = place.json(&whole);
    assert_eq!(view["state"], "ready", "{view}");
    view["id"].as_str().expect("an id").to_owned()
}

#[test]
fn what_a_live_sandbox_writes_and_what_is_recorded_of_it_has_no_value_of_a_secret() {
    needs_sandbox!();
    let place = Place::new();
    good(&place.run_with_input(&["secret", "set", "token"], CANARY.as_bytes()));
    let server = place.up(&["--spares", "0"], &[("COFFERDAM_LOG", "debug")]);
    let id = sandbox(&place, &["--secret", "token", "--secret", "token=env:V"]);
    let exec = |script: &str, more: &str| {
        place.run(&["sandbox", "exec", &id, "--", "sh", "-c", script, "x", more])
    };
    let script = "f=/dev/shm/secrets/token; cat $f; echo; echo to-err $V >&2; base64 -w0 $f; echo; \
                  printf %s ${V%%+*}; sleep 0.2; printf %s \"+${V#*+}\"; test \"$V\" = \"$1\" && echo right";
    let output = exec(script, CANARY);
    let out = good(&output);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "[secret token]", "{out}");
    assert!(lines[1].starts_with("[secret token]"), "{out}");
    assert_eq!(lines[2], "[secret token]right", "{out}");
    assert_eq!(text(&output.stderr), "to-err [secret token]\n");
    // A value in a command line, in a name, and of a command that does not start.
    let odd = place.run(&[
        "sandbox",
        "exec",
        &id,
        "--cwd",
        &format!("/{CANARY}"),
        "--",
        "true",
    ]);
    assert!(!odd.status.success(), "{odd:?}");
    // What only looks like a credential stays in the stream, and goes from the record.
    let token = format!("ghp_{}", "a1B2".repeat(9));
    assert_eq!(good(&exec("echo $1", &token)), format!("{token}\n"));
    assert!(e2e::until(|| {
        let log = text(&place.run(&["sandbox", "log", &id, "--json"]).stdout);
        log.contains("[secret pattern:github-token]")
    }));
    let log = good(&place.run(&["sandbox", "log", &id, "--json"]));
    assert!(log.contains("[secret token]"), "{log}");
    assert!(!log.contains("canary") && !log.contains(&token), "{log}");
    // Nobody but the workload's own processes shows its variables.
    let hidden = exec("cat /proc/1/environ /proc/1/mem 2>/dev/null | wc -c", "");
    assert_eq!(good(&hidden), "0\n");
    assert!(!is_told_in(&place.state(), CANARY));
    good(&place.run(&["sandbox", "rm", &id]));
    let (_, log) = server.end();
    assert!(!log.contains(CANARY), "{log}");
    assert!(!is_told_in(&place.state(), CANARY));
}

#[test]
fn a_server_that_is_killed_leaves_a_sandbox_that_goes_on_to_take_values_out() {
    needs_sandbox!();
    let place = Place::new();
    good(&place.run_with_input(&["secret", "set", "token"], CANARY.as_bytes()));
    let server = place.up(&["--spares", "0"], &[]);
    let id = sandbox(&place, &["--secret", "token"]);
    drop(server.kill());
    let server = place.up(&["--spares", "0"], &[]);
    // The value is gone at the server, and not in the sandbox.
    good(&place.run(&["secret", "rm", "token"]));
    let cat = [
        "sandbox",
        "exec",
        &id,
        "--",
        "cat",
        "/dev/shm/secrets/token",
    ];
    assert!(e2e::until(|| place.run(&cat).status.success()));
    assert_eq!(good(&place.run(&cat)), "[secret token]");
    good(&place.run(&["sandbox", "rm", &id]));
    drop(server.end());
}

#[test]
fn a_snapshot_does_not_have_the_secrets_of_its_sandbox() {
    needs_sandbox!();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: snapshots are made by root only");
        return;
    }
    let place = Place::new();
    good(&place.run_with_input(&["secret", "set", "token"], CANARY.as_bytes()));
    let server = place.up(&["--spares", "0"], &[]);
    let secrets = ["--secret", "token", "--secret", "token=env:V"];
    let id = sandbox(&place, &[&["--allow-root"][..], &secrets].concat());
    let touch = ["sandbox", "exec", &id, "--", "sh", "-c", "echo kept >~/f"];
    good(&place.run(&touch));
    let saved = place.json(&["sandbox", "snapshot", &id, "--name", "s", "--json"]);
    assert_eq!(saved["state"], "ready", "{saved}");
    assert!(!is_told_in(&place.state(), CANARY));
    let again = place.json(&["sandbox", "restore", "s", "--json"]);
    let again = again["id"].as_str().expect("an id");
    let script =
        "cat ~/f; ls /dev/shm/secrets 2>&1 | wc -l; echo \"<$V>\"; cat /dev/shm/secrets/token";
    let seen = place.run(&["sandbox", "exec", again, "--", "sh", "-c", script]);
    let out = text(&seen.stdout);
    assert!(
        out.starts_with("kept\n") && out.ends_with("<>\n"),
        "{seen:?}"
    );
    assert!(!seen.status.success(), "{seen:?}");
    drop(server.end());
}

#[test]
fn what_looks_like_a_credential_is_taken_out_of_a_job_only_where_that_is_asked_for() {
    needs_sandbox!();
    let place = Place::new();
    let token = format!("ghp_{}", "a1B2".repeat(9));
    let script = "echo \"a $1 b\"; printf 'ghp_'; printf '%s' \"${1#ghp_}\" >&2; printf '%s\\n' \"${1#ghp_}\"";
    let run = |more: &[&str]| {
        let words = ["--", "sh", "-c", script, "x", &token];
        place.run(&[&["run"], more, &words].concat())
    };
    assert_eq!(good(&run(&[])), format!("a {token} b\n{token}\n"));
    let cleaned = run(&["--scrub", "patterns"]);
    let marker = "[secret pattern:github-token]";
    assert_eq!(good(&cleaned), format!("a {marker} b\n{marker}\n"));
    assert_eq!(text(&cleaned.stderr), &token[4..]);
    let jobs = place.json(&["job", "ls", "--json"]);
    let newest = &jobs["jobs"][0];
    assert_eq!(newest["stdout"]["patterns_found"], 2, "{newest}");
    assert_eq!(newest["stderr"]["patterns_found"], 0, "{newest}");
    let id = newest["id"].as_str().expect("an id");
    let shown = good(&place.run(&["job", "get", id]));
    assert!(shown.contains("credentials taken out"), "{shown}");
    assert_eq!(
        place
            .run(&["run", "--scrub", "x", "--", "true"])
            .status
            .code(),
        Some(125)
    );
}
