//! The real SDKs of E2B against the real binary and real sandboxes.

#![expect(
    clippy::print_stdout,
    reason = "what cannot be tried is said by what the tests share"
)]

use e2e::{Place, free_port, no_sandbox, until};
use outside::{ADDRESS, Outside};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod outside;

/// Exported variables as `cofferdam env` prints them.
fn variables(place: &Place) -> Vec<(String, String)> {
    let printed = String::from_utf8(place.run(&["env", "e2b"]).stdout).expect("text");
    let lines = printed.lines();
    let pairs = lines.filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the environment is cleared at once, and the program is the test's"
)]
fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null());
    command
}

/// The places in a list like `PATH`; none when nobody has set it, or nothing could be installed.
fn places(variable: &str) -> Vec<PathBuf> {
    let list = std::env::var_os(variable).unwrap_or_default();
    let paths = std::env::split_paths(&list);
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

/// How a script ends that cannot be run on this machine, after it has said why.
const CANNOT: i32 = 77;

/// Runs each command against a server of its own with these options more, and with the variables that
/// `cofferdam env e2b` prints.
fn all_is_well(commands: Vec<Command>, more: &[&str]) {
    for mut command in commands {
        let place = Place::new();
        let address = format!("127.0.0.1:{}", free_port());
        let mut up = place.command(&["up", "--listen", &address, "--spares", "0"]);
        let mut up = up
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        assert!(until(|| std::net::TcpStream::connect(&address).is_ok()));
        let output = command.envs(variables(&place)).output();
        drop(up.kill());
        drop(up.wait());
        let output = output.expect("an interpreter");
        if output.status.code() == Some(CANNOT) {
            println!(
                "skipped: {}",
                String::from_utf8_lossy(&output.stdout).trim()
            );
            continue;
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let last = String::from_utf8_lossy(&output.stdout);
        let how = output.status;
        assert!(how.success(), "{command:?}: {how}, after {last}{text}");
    }
}

/// Each Python that has an SDK, with this to do; none where there is no sandbox, or no SDK.
fn python_days(script: &str) -> Vec<Command> {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return Vec::new();
    }
    let pythons = places("COFFERDAM_E2B_PYTHON");
    if pythons.is_empty() {
        println!("skipped: COFFERDAM_E2B_PYTHON names no Python with the SDK of E2B");
    }
    let command = |path: PathBuf| {
        let mut command = program(&path);
        command.args(["-c", script]);
        command
    };
    pythons.into_iter().map(command).collect()
}

#[test]
fn the_python_sdks_do_in_real_sandboxes_what_their_users_do_in_a_day() {
    all_is_well(python_days(include_str!("e2b.py")), &[]);
}

#[test]
fn the_python_sdk_saves_sandboxes_and_begins_others_with_them() {
    // Older releases do not know snapshots.
    let newest = python_days(include_str!("snapshot.py")).into_iter().take(1);
    all_is_well(newest.collect(), &[]);
}

/// A server that answers everything.
fn answering() -> u16 {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            drop(stream.read(&mut head));
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            drop(stream.write_all(answer));
        }
    });
    port
}

#[test]
fn the_python_sdk_says_what_sandboxes_may_reach_and_says_it_anew() {
    if !Path::new("/usr/bin/curl").exists() {
        println!("skipped: there is no curl to ask with");
        return;
    }
    let mut newest: Vec<_> = python_days(include_str!("network.py"))
        .into_iter()
        .take(1)
        .collect();
    for command in &mut newest {
        command.env("PORT", answering().to_string());
    }
    all_is_well(
        newest,
        &["--egress-allow", "127.0.0.0/8", "--egress-allow", "::1"],
    );
}

/// What a host outside shows of the field `authorization` of a request.
fn shows(head: &str) -> String {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let field = lines.find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let body = field.map_or("none", |(_, value)| value);
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Runs these beside a host that shows what it was sent, which the server trusts.
fn all_is_well_beside(mut commands: Vec<Command>) {
    if !Path::new("/usr/bin/curl").exists() {
        println!("skipped: there is no curl to ask with");
        return;
    }
    let is_tried = !commands.is_empty();
    let outside = Outside::answering(shows);
    let place = Place::new();
    for command in &mut commands {
        command.env("OUTSIDE", format!("{ADDRESS}:{}", outside.port));
    }
    let trusted = outside.trusted(&place);
    all_is_well(commands, &trusted.each_ref().map(String::as_str));
    if is_tried {
        // Nobody else could have shown it.
        assert!(outside.next().starts_with("GET / HTTP/1.1\r\n"));
    }
}

#[test]
fn the_python_sdk_brings_secrets_to_a_sandbox_that_lives() {
    let newest = python_days(include_str!("leaving.py")).into_iter().take(1);
    all_is_well_beside(newest.collect());
}

#[test]
fn the_javascript_sdk_brings_secrets_to_a_sandbox_that_lives() {
    all_is_well_beside(javascript_days(include_str!("leaving.mjs"), 1));
}

#[test]
fn the_python_sdk_pauses_without_memory_and_finds_files_and_another_boot() {
    // The parameter is as new as the newest.
    let newest = python_days(include_str!("pause.py")).into_iter().take(1);
    all_is_well(newest.collect(), &[]);
}

#[test]
fn the_python_sdks_keep_files_in_volumes() {
    all_is_well(python_days(include_str!("volume.py")), &[]);
}

#[test]
fn the_python_sdks_do_the_same_through_tls_with_nothing_but_a_domain() {
    all_is_well(python_days(include_str!("e2b.py")), &["--tls", "self"]);
}

#[test]
fn the_code_interpreter_sdk_runs_code_that_remembers_in_real_sandboxes() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let has = |python: &PathBuf| {
        let mut command = program(python);
        command.args(["-c", "import e2b_code_interpreter"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let Some(python) = places("COFFERDAM_E2B_PYTHON").into_iter().find(has) else {
        println!("skipped: COFFERDAM_E2B_PYTHON names no Python with E2B's code interpreter");
        return;
    };
    let mut command = program(&python);
    command.args(["-c", include_str!("code.py")]);
    // An archive of matplotlib and pandas for the sandbox's Python. Nobody downloads it for a test.
    let libraries = "COFFERDAM_E2B_LIBRARIES";
    command.envs(std::env::var_os(libraries).map(|path| (libraries, path)));
    all_is_well(vec![command], &[]);
}

/// The directories that have the JavaScript SDK, so many of the newest ones, with this to do.
fn javascript_days(script: &str, newest: usize) -> Vec<Command> {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return Vec::new();
    }
    let dirs = places("COFFERDAM_E2B_JS");
    if dirs.is_empty() {
        println!("skipped: COFFERDAM_E2B_JS names no directory with the SDK of E2B");
    }
    let command = |dir: PathBuf| {
        let mut command = program(Path::new("node"));
        command
            .args(["--input-type=module", "-e", script])
            .current_dir(dir);
        command
    };
    dirs.into_iter().take(newest).map(command).collect()
}

#[test]
fn the_python_sdk_builds_templates_and_begins_sandboxes_with_them() {
    // Older releases lack some of it.
    let newest = python_days(include_str!("template.py")).into_iter().take(1);
    all_is_well(newest.collect(), &[]);
}

#[test]
fn the_javascript_sdk_builds_templates_and_begins_sandboxes_with_them() {
    all_is_well(javascript_days(include_str!("template.mjs"), 1), &[]);
}

#[test]
fn the_javascript_sdks_do_in_real_sandboxes_what_their_users_do_in_a_day() {
    all_is_well(javascript_days(include_str!("e2b.mjs"), usize::MAX), &[]);
}

#[test]
fn the_javascript_sdk_says_what_sandboxes_may_reach_and_says_it_anew() {
    if !Path::new("/usr/bin/curl").exists() {
        println!("skipped: there is no curl to ask with");
        return;
    }
    let mut newest = javascript_days(include_str!("network.mjs"), 1);
    for command in &mut newest {
        command.env("PORT", answering().to_string());
    }
    all_is_well(
        newest,
        &["--egress-allow", "127.0.0.0/8", "--egress-allow", "::1"],
    );
}

#[test]
fn the_javascript_sdk_keeps_files_in_volumes() {
    // Older releases do not know them all.
    all_is_well(javascript_days(include_str!("volume.mjs"), 1), &[]);
}

/// Three commands: one that ended, one that failed, one that still runs.
const THREE: &str = r#"
from e2b import Sandbox, CommandExitException
s = Sandbox.create(timeout=300)
s.commands.run("echo one", envs={"KEY": "a secret"})
try:
    s.commands.run("echo two >&2; exit 3")
except CommandExitException:
    pass
s.commands.run("sleep 1000", background=True)
print(s.sandbox_id)
"#;

/// What is on record of the three.
fn check_record(log: &serde_json::Value) {
    let first = log[2].clone();
    let asked = &first["asked"];
    assert!(
        asked["argv"][3]
            .as_str()
            .is_some_and(|script| script.contains("echo one")),
        "{first}"
    );
    assert_eq!(
        (&asked["env_names"][0], &asked["user"]),
        (&"KEY".into(), &"user".into())
    );
    assert!(
        asked["principal"]
            .as_str()
            .is_some_and(|who| who.starts_with("visitor:sbx_")),
        "{first}"
    );
    assert!(
        asked["request_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("req_")),
        "{first}"
    );
    assert!(!log.to_string().contains("a secret"));
    assert_eq!(
        (&first["stdout_bytes"], &log[1]["stderr_bytes"]),
        (&4.into(), &4.into())
    );
}

#[test]
fn what_the_sdk_ran_is_on_record_though_the_server_is_killed_at_once() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let Some(path) = places("COFFERDAM_E2B_PYTHON").into_iter().next() else {
        println!("skipped: COFFERDAM_E2B_PYTHON names no Python with the SDK of E2B");
        return;
    };
    let place = Place::new();
    let address = format!("127.0.0.1:{}", free_port());
    let up = || {
        let server = place.up_at(&address, &["--spares", "0"]);
        assert!(until(|| std::net::TcpStream::connect(&address).is_ok()));
        server
    };
    let server = up();
    let output = program(&path)
        .args(["-c", THREE])
        .envs(variables(&place))
        .output();
    // SIGKILL, before the node has had time to tell anybody.
    server.kill();
    let output = output.expect("a Python");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let id = format!("sbx_{}", String::from_utf8_lossy(&output.stdout).trim());
    let _server = up();
    let log = || place.json(&["sandbox", "log", &id, "--json"])["jobs"].clone();
    let ends = |log: &serde_json::Value| {
        let jobs = log.as_array().cloned().unwrap_or_default();
        jobs.iter()
            .map(|job| job["end"].to_string())
            .collect::<Vec<_>>()
    };
    let exited = |code: i32| format!(r#"{{"code":{code},"how":"exited"}}"#);
    let expected = ["null".to_owned(), exited(3), exited(0)];
    assert!(until(|| ends(&log()) == expected), "{}", log());
    check_record(&log());
    place.run(&["sandbox", "rm", &id]);
    let expected = [r#"{"how":"lost"}"#.to_owned(), exited(3), exited(0)];
    assert!(until(|| ends(&log()) == expected), "{}", log());
}
