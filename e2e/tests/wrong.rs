//! Command lines that are wrong, and surroundings that are: a stable code, a remedy, nothing created.

use e2e::{Place, needs_sandbox, text};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn set_mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
}

fn make_state(place: &Place) {
    std::fs::create_dir(place.state()).expect("it is not there yet");
    set_mode(&place.state(), 0o700);
}

#[test]
fn a_state_that_is_not_there_is_no_empty_one_to_who_only_looks() {
    let place = Place::new();
    for words in [
        &["job", "ls"][..],
        &["egress", "log", "job_1"],
        &["node", "reap"],
    ] {
        let output = place.run(words);
        let said = text(&output.stderr);
        assert_eq!(code(&output), 125, "{words:?}: {said}");
        assert!(said.contains("there is no state at"), "{words:?}: {said}");
        assert!(!place.state().exists(), "{words:?}");
    }
}

#[test]
fn what_is_wrong_comes_with_what_leads_on() {
    let place = Place::new();
    let _server = place.up(&["--driver", "fake"], &[]);
    assert!(
        place
            .run(&["principal", "create", "alice"])
            .status
            .success()
    );
    let profile = "[network]\nallow = [\"https://*\"]\n";
    std::fs::write(place.work().join("wrong.toml"), profile).unwrap();
    for (words, said, hint) in [
        (
            &["policy", "explain", "nope"][..],
            "there is no job or sandbox `nope`",
            "cofferdam job ls",
        ),
        (&["logout"], "error: there is no server named", "--url"),
        (
            &["egress", "log", "job_unknown"],
            "there is no job `job_unknown`",
            "cofferdam job ls",
        ),
        (
            &["egress", "connections", "job_unknown"],
            "there is no job `job_unknown`",
            "cofferdam job ls",
        ),
        (
            &["policy", "set", "test", "x.toml"],
            "cannot be called `test`",
            "another name",
        ),
        (
            &["policy", "set", "x", "nofile.toml"],
            "nofile.toml",
            "check the path",
        ),
        (
            &["tenant", "rm", "local"],
            "that of the server itself",
            "cannot be deleted",
        ),
        (
            &["principal", "create", "alice"],
            "there is a principal",
            "cofferdam key create",
        ),
        (
            &["key", "create", "user:alice", "--expires", "90"],
            "has no unit",
            "",
        ),
        // A field of a file is not called an option.
        (
            &["profile", "put", "w", "wrong.toml"],
            "network.allow[0]: ",
            "",
        ),
    ] {
        let output = place.run(words);
        assert!(!output.status.success(), "{words:?}");
        let all = text(&output.stderr);
        assert!(all.contains(said) && all.contains(hint), "{words:?}: {all}");
    }
    // The node of `up` keeps its calls too.
    let tape = place.run(&["node", "tape"]);
    let tape = text(&tape.stdout);
    assert!(tape.contains("POST /node/v1/register"), "{tape}");
}

#[test]
fn no_command_is_a_server_of_its_own_in_the_state_of_a_fleet() {
    for mark in ["server", "node-authority.json"] {
        let place = Place::new();
        make_state(&place);
        std::fs::write(place.state().join(mark), "").unwrap();
        for words in [
            &["run", "--", "true"][..],
            &["run", "--detach", "--", "true"],
            &["job", "ls"],
            &["secret", "ls"],
            &["node", "ls"],
            &["sandbox", "ls"],
        ] {
            let output = place.run(words);
            let said = text(&output.stderr);
            assert_eq!(code(&output), 125, "{words:?}: {said}");
            let is_said = said.contains("server_unreachable") && said.contains("cofferdam server");
            assert!(is_said, "{words:?}: {said}");
        }
        let left = std::fs::read_dir(place.state()).unwrap().count();
        assert_eq!(left, 1, "only the mark");
    }
}

#[test]
fn what_is_wrong_is_said_with_a_code_and_nothing_is_created() {
    let place = Place::new();
    std::fs::write(place.work().join("a"), "x").unwrap();
    let pipe = place.work().join("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
    let cases: [(&[&str], &str); 28] = [
        (&["--file", "missing.csv"], "file_missing"),
        (&["--file", "a:../../etc/passwd"], "path_escapes"),
        (&["--file", "a:/etc/passwd"], "path_not_writable"),
        (&["--memory", "0"], "limit_zero"),
        (&["--timeout", "0s"], "limit_zero"),
        (&["--profile", "nosuch"], "unknown_profile"),
        (&["--env", "NOVALUE"], "invalid_argument"),
        (&["--root", "/no/such/dir"], "file_missing"),
        (&["--out", "../x"], "path_escapes"),
        (&["--file", ""], "invalid_argument"),
        (&["--file", ":x"], "invalid_argument"),
        (&["--file", "."], "file_missing"),
        (&["--file", "pipe"], "file_missing"),
        (&["--file", "/dev/zero"], "file_missing"),
        (&["--file", "a", "--file", "a"], "invalid_argument"),
        (&["--out", ""], "invalid_argument"),
        (&["--env", ""], "invalid_argument"),
        (&["--env", "=x"], "invalid_argument"),
        (&["--cwd", ""], "invalid_argument"),
        (&["--profile", ""], "unknown_profile"),
        (&["--root", "/etc/passwd"], "file_missing"),
        (&["--pids", "0"], "limit_zero"),
        (&["--pids", "-1"], "invalid_argument"),
        (&["--pids", "99999999999"], "invalid_argument"),
        (&["--cpu", "-0.5"], "invalid_argument"),
        (&["--timeout", "99999h"], "invalid_argument"),
        (&["--memory", "\u{661}M"], "invalid_argument"),
        (&["--nonsense"], "invalid_argument"),
    ];
    for (args, want) in cases {
        let line: Vec<&str> = [&["run", "--json"], args, &["--", "true"]].concat();
        let output = place.run(&line);
        assert_eq!(code(&output), 125, "{args:?}: {output:?}");
        assert!(text(&output.stdout).contains(want), "{args:?}: {output:?}");
        let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(
            !error["error"]["hint"].as_str().unwrap().is_empty(),
            "{args:?}"
        );
    }
    let jobs = place.json(&["job", "ls", "--json"]);
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(0), "{jobs}");
}

#[test]
fn what_is_wrong_is_said_once_and_by_the_name_of_its_option() {
    let place = Place::new();
    let output = place.run(&["run", "--timeout", "99h", "--", "true"]);
    let said = text(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let first = "error: --timeout must be between 1 ms and 24 h (invalid_argument)";
    assert_eq!((lines.len(), lines[0]), (2, first), "{said}");
    assert!(lines[1].starts_with("hint: "), "{said}");
    let output = place.run(&["run", "--timeout", "99h", "--pids", "99999", "--", "true"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("2 things are wrong") && said.contains("note: --pids must"),
        "{said}"
    );
}

#[test]
fn a_line_that_cannot_be_read_is_125_for_run_and_2_for_the_others() {
    let place = Place::new();
    for line in [
        "run",
        "run --",
        "run ls",
        "run --bad -- true",
        "--state x run --pids x -- true",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(code(&place.run(&words)), 125, "{line}");
    }
    for line in [
        "",
        "nonsense",
        "job",
        "job ls --limit 0",
        "up --slots 0",
        "job ls --only x",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(code(&place.run(&words)), 2, "{line}");
    }
    assert!(text(&place.run(&["run", "ls", "-l"]).stderr).contains("after `--`"));
    assert_eq!(code(&place.run(&["run", "--help"])), 0);
    assert!(
        !place.state().exists(),
        "a line that cannot be read makes nothing"
    );
}

#[test]
fn a_job_that_is_not_there_is_named() {
    let place = Place::new();
    make_state(&place);
    for id in [
        "",
        "x",
        "../..",
        "job_00000000000000000000000000000000",
        "\u{1b}[2J",
    ] {
        for words in [
            &["job", "get", id][..],
            &["job", "logs", id],
            &["job", "logs", "-f", id],
        ] {
            let output = place.run(words);
            let said = text(&output.stderr);
            assert_eq!(code(&output), 125, "{words:?}");
            assert!(
                said.contains("there is no job `") && said.contains("not_found"),
                "{said}"
            );
            assert!(!said.contains('\u{1b}'), "{said:?}");
        }
    }
}

/// Attack: A state is kept where others may write, so that they change it.
#[test]
fn a_state_directory_that_others_may_enter_is_not_used() {
    let place = Place::new();
    std::fs::create_dir(place.state()).unwrap();
    set_mode(&place.state(), 0o755);
    for words in [
        &["job", "ls"][..],
        &["run", "--", "true"],
        &["up", "--no-listen"],
    ] {
        let output = place.run(words);
        let said = text(&output.stderr);
        assert_eq!(code(&output), 125, "{words:?}: {said}");
        assert!(
            said.contains("state_unusable") && said.contains("chmod 700"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read_dir(place.state()).unwrap().count(), 0);
    set_mode(&place.state(), 0o700);
    assert_eq!(code(&place.run(&["job", "ls"])), 0);
    let link = place.work().join("link");
    std::os::unix::fs::symlink(place.state(), &link).unwrap();
    let output = place.run(&["job", "ls", "--state", "link/"]);
    assert!(text(&output.stderr).contains("symbolic link"), "{output:?}");
}

#[test]
fn without_a_home_or_with_an_empty_variable_there_is_a_word_for_it() {
    let place = Place::new();
    let mut command = place.command(&["job", "ls"]);
    let output = command
        .env_remove("HOME")
        .env("COFFERDAM_STATE", "")
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("--state"), "{output:?}");
    assert_eq!(code(&output), 125);
    make_state(&place);
    let mut command = place.command(&["job", "ls"]);
    let output = command
        .env("COFFERDAM_URL", "")
        .env("COFFERDAM_TOKEN", "")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
}

#[test]
fn a_key_without_the_address_of_a_server_is_refused_and_nobody_acts_as_the_owner() {
    let place = Place::new();
    let principals = || text(&place.run(&["principal", "ls"]).stdout);
    let socket = format!("unix:{}", place.state().join("cofferdam.sock").display());
    let refused = |url: &str| {
        let mut command = place.command(&["principal", "create", "bob"]);
        let command = command
            .env("COFFERDAM_URL", url)
            .env("COFFERDAM_TOKEN", "x");
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(code(&output), 125, "{said}");
        assert!(said.contains("failed to use the token"), "{said}");
        assert!(said.contains("COFFERDAM_URL=http://"), "{said}");
    };
    refused("");
    assert!(!place.state().exists());
    let _server = place.up(&["--driver", "fake", "--spares", "0"], &[]);
    for url in ["", &socket] {
        refused(url);
        assert!(!principals().contains("bob"), "{url}");
    }
    assert!(place.run(&["principal", "create", "bob"]).status.success());
    assert!(principals().contains("bob"));
}

/// Attack: A server elsewhere is asked for with the token of this machine.
#[test]
fn a_server_elsewhere_is_not_told_the_token_of_this_machine() {
    let place = Place::new();
    drop(place.up(&[], &[]).end());
    std::fs::write(place.state().join("token"), "0".repeat(64)).unwrap();
    let output = place.run(&["job", "ls", "--url", "http://192.0.2.1:7300"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("without a token") && said.contains("COFFERDAM_TOKEN"),
        "{said}"
    );
    let output = place.run(&["job", "ls", "--url", "ftp://x"]);
    assert!(
        text(&output.stderr).starts_with("error: failed to use `ftp://x`"),
        "{output:?}"
    );
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    needs_sandbox!();
    let place = Place::new();
    for words in [
        &["run", "--", "echo", "x"][..],
        &["run", "--json", "--", "true"],
        &["job", "ls"],
    ] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = place.command(words).stdout(full).output().unwrap();
        assert_eq!(code(&output), 125, "{words:?}: {output:?}");
        assert!(text(&output.stderr).contains("No space left"), "{output:?}");
    }
}

#[test]
fn closed_streams_are_no_streams() {
    needs_sandbox!();
    let place = Place::new();
    for (redirect, want) in [
        ("<&-", "ok\n"),
        (">&-", ""),
        ("2>&-", "ok\n"),
        ("<&- >&- 2>&-", ""),
    ] {
        let script = format!("exec \"$0\" run -- sh -c 'cat; echo ok; echo no >&2' {redirect}");
        let shell = place.shell(&script);
        assert_eq!(
            (code(&shell), text(&shell.stdout).as_str()),
            (0, want),
            "{redirect}"
        );
    }
}

#[test]
fn doctor_says_what_is_wrong_and_leaves_nothing() {
    let place = Place::new();
    std::fs::create_dir(place.state()).unwrap();
    set_mode(&place.state(), 0o777);
    let output = place.run(&["doctor"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(code(&output), 1, "{said}");
    assert!(
        said.contains("fail\tstate") && said.contains("chmod 700"),
        "{said}"
    );
    set_mode(&place.state(), 0o700);
    place.run(&["doctor"]);
    let nodes = std::fs::read_dir(place.state().join("nodes")).unwrap();
    assert_eq!(nodes.count(), 0, "something is left");
    assert!(!place.state().join("cofferdam.db").exists());
}

#[test]
fn completions_are_made_for_every_shell() {
    let place = Place::new();
    for (shell, want) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef"),
        ("fish", "complete -c"),
    ] {
        let output = place
            .command(&["completions", shell])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success() && text(&output.stdout).contains(want),
            "{shell}"
        );
    }
}
