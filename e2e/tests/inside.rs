//! `cofferdam sandbox exec`, `shell`, `cp` and `port`, as a person uses them.

use e2e::{Place, needs_sandbox, text, until};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// A sandbox that is taken away when this goes: one that outlives its server keeps a launcher.
struct Made<'p> {
    place: &'p Place,
    id: String,
}

fn create(place: &Place) -> Made<'_> {
    let made = place.json(&["sandbox", "create", "--json"]);
    let id = made["id"].as_str().expect("an id").to_owned();
    Made { place, id }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        self.place.run(&["sandbox", "rm", &self.id]);
    }
}

#[test]
fn a_command_has_its_streams_its_exit_code_and_what_it_was_given() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let made = create(&place);
    let id = made.id.clone();
    let exec = |words: &[&str]| place.run(&[&["sandbox", "exec", &id][..], words].concat());
    let output = exec(&["--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    let seen = (code(&output), text(&output.stdout), text(&output.stderr));
    assert_eq!(seen, (3, "out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(code(&exec(&["--", "sh", "-c", "kill -9 $$"])), 137);
    let asked = [
        "--env",
        "A=b c",
        "--cwd",
        "/tmp",
        "--",
        "sh",
        "-c",
        "echo $A $PWD",
    ];
    assert_eq!(text(&exec(&asked).stdout), "b c /tmp\n");
    for (words, expect) in [
        (&["--", "frobnicate"][..], 127),
        (&["--", "/etc/passwd"], 126),
        (&["--cwd", "/no/such", "--", "true"], 125),
        (&["--user", "root", "--", "true"], 125),
        (&["--timeout", "100ms", "--", "sleep", "60"], 124),
    ] {
        let output = exec(words);
        assert_eq!(code(&output), expect, "{words:?}: {}", text(&output.stderr));
    }
    let input: Vec<u8> = (0..3_000_000_u32)
        .map(|n| u8::try_from(n % 251).unwrap_or(0))
        .collect();
    let cat = ["sandbox", "exec", &id, "--", "cat"];
    assert!(place.run_with_input(&cat, &input).stdout == input);
    // One who stops to read the input is no error.
    let head = ["sandbox", "exec", &id, "--", "head", "-c", "1"];
    assert_eq!(code(&place.run_with_input(&head, &input)), 0);
    let script = "yes $0 | head -c 2000000; exit 5";
    let shown = place.json(&[
        "sandbox", "exec", &id, "--json", "--", "sh", "-c", script, "y",
    ]);
    assert_eq!(
        (&shown["exit_code"], &shown["stdout"]["total_bytes"]),
        (&5.into(), &2_000_000.into())
    );
    let kept = shown["stdout"]["text"].as_str().map(str::len);
    assert_eq!(
        (kept, &shown["stdout"]["truncated"]),
        (Some(1 << 20), &true.into())
    );
    let absent = place.run(&["sandbox", "exec", "sbx_1", "--", "true"]);
    assert!(
        text(&absent.stderr).contains("there is no sandbox `sbx_1`"),
        "{absent:?}"
    );
}

#[test]
fn a_command_that_is_detached_goes_on_and_one_that_is_interrupted_hears_it() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let made = create(&place);
    let id = made.id.clone();
    let exec = |script: &str| {
        let words = ["sandbox", "exec", &id, "--", "sh", "-c", script];
        text(&place.run(&words).stdout)
    };
    let script = "while :; do date +%N > beat; sleep 0.01; done";
    let detached = place.run(&["sandbox", "exec", "--detach", &id, "--", "sh", "-c", script]);
    let pid: u32 = text(&detached.stdout).trim().parse().expect("a number");
    assert!(until(
        || !exec(&format!("test -d /proc/{pid} && cat beat")).is_empty()
    ));
    let before = exec("cat beat");
    assert!(until(|| exec("cat beat") != before));

    let script = "trap 'echo heard; exit 7' INT; echo ready; while :; do sleep 0.01; done";
    let mut command = place.command(&["sandbox", "exec", &id, "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut seen = [0; 6];
    stdout.read_exact(&mut seen).expect("it is ready");
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let interrupt = rustix::process::Signal::INT;
    rustix::process::kill_process(pid.expect("a number"), interrupt).expect("it lives");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    let status = child.wait().expect("it ends");
    assert_eq!((status.code(), rest.as_str()), (Some(7), "heard\n"));
}

#[test]
fn files_come_back_as_they_went() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let made = create(&place);
    let id = made.id.clone();
    let here = |name: &str| place.work().join(name);
    let cp = |words: &[&str]| place.run(&[&["sandbox", "cp"][..], words].concat());
    let bytes: Vec<u8> = (0..5_000_000_u32)
        .map(|n| u8::try_from(n % 253).unwrap_or(0))
        .collect();
    std::fs::write(here("data"), &bytes).expect("a file");
    assert_eq!(code(&cp(&["data", &format!("{id}:")])), 0);
    assert_eq!(code(&cp(&["data", &format!("{id}:sub/other")])), 0);
    assert_eq!(code(&cp(&["data", &format!("{id}:sub")])), 0);
    for name in ["data", "sub/other", "/home/user/sub/data"] {
        let back = cp(&[&format!("{id}:{name}"), "back"]);
        assert_eq!(code(&back), 0, "{name}: {}", text(&back.stderr));
        assert!(
            std::fs::read(here("back")).is_ok_and(|back| back == bytes),
            "{name}"
        );
        std::fs::remove_file(here("back")).expect("a file");
    }
    // Directories, whole, with what links there are left out.
    std::fs::create_dir_all(here("tree/a/b")).expect("a directory");
    std::fs::write(here("tree/a/b/c"), "c").expect("a file");
    std::fs::write(here("tree/run"), "r").expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", here("tree/link")).expect("a link");
    let whole = cp(&["-r", "tree", &format!("{id}:copy")]);
    assert_eq!(code(&whole), 0, "{}", text(&whole.stderr));
    assert!(
        text(&whole.stderr).contains("left out: `tree/link`"),
        "{whole:?}"
    );
    let prepare = "chmod 750 copy/run; ln -s /etc/passwd copy/out; ls copy";
    let listed = place.run(&["sandbox", "exec", &id, "--", "sh", "-c", prepare]);
    assert_eq!(text(&listed.stdout), "a\nout\nrun\n");
    let whole = cp(&["-r", &format!("{id}:copy"), "returned"]);
    assert_eq!(code(&whole), 0, "{}", text(&whole.stderr));
    assert_eq!(
        std::fs::read_to_string(here("returned/a/b/c")).unwrap_or_default(),
        "c"
    );
    let mode = std::fs::metadata(here("returned/run"))
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(
        (mode & 0o700, here("returned/out").exists()),
        (0o700, false)
    );

    drop(made);
}

#[test]
fn a_copy_that_cannot_be_says_why_and_leaves_nothing() {
    needs_sandbox!();
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let made = create(&place);
    let id = made.id.clone();
    let cp = |words: &[&str]| place.run(&[&["sandbox", "cp"][..], words].concat());
    std::fs::create_dir_all(place.work().join("tree")).expect("a directory");
    std::fs::write(place.work().join("data"), "d").expect("a file");
    place.run(&["sandbox", "exec", &id, "--", "mkdir", "copy"]);
    for (words, expect) in [
        (&["nothing", "sbx:a"][..], "one side is"),
        (&["nothing", &format!("{id}:a")], "failed to read `nothing`"),
        (&[&format!("{id}:nothing"), "x"], "nothing"),
        (&["tree", &format!("{id}:x")], "`tree` is a directory"),
        (&[&format!("{id}:copy"), "x"], "copy` is a directory"),
        (&["data", "data2"], "one side is"),
    ] {
        let output = cp(words);
        assert_eq!(code(&output), 125, "{words:?}");
        assert!(
            text(&output.stderr).contains(expect),
            "{words:?}: {}",
            text(&output.stderr)
        );
    }
    let left: Vec<_> = std::fs::read_dir(place.work())
        .expect("a directory")
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_port_of_a_sandbox_is_a_port_here_until_it_is_ended() {
    needs_sandbox!();
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: there is no python3 to listen with");
        return;
    }
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let made = create(&place);
    let id = made.id.clone();
    let mut command = place.command(&["sandbox", "port", &id, "8000:0"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut address = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut address).expect("an address");
    let address = address.trim();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let get = || {
        let mut stream = std::net::TcpStream::connect(address).ok()?;
        stream.write_all(b"GET /said HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    // Nobody listens yet: the connection is closed, and the next one is taken all the same.
    assert!(get().unwrap_or_default().is_empty());
    let script = "echo hello > said; exec python3 -m http.server --bind 127.0.0.1 8000";
    place.run(&["sandbox", "exec", "--detach", &id, "--", "sh", "-c", script]);
    assert!(until(
        || get().is_some_and(|answer| answer.ends_with("hello\n"))
    ));
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let interrupt = rustix::process::Signal::INT;
    rustix::process::kill_process(pid.expect("a number"), interrupt).expect("it lives");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// Plays a person at a terminal: starts a shell, types, makes the window larger, presses Ctrl-C, leaves.
const PERSON: &str = include_str!("person.py");

#[test]
fn a_shell_is_a_terminal_and_leaves_ours_as_it_was() {
    needs_sandbox!();
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: there is no python3 to listen with");
        return;
    }
    let place = Place::new();
    let _server = place.up(&["--spares", "0"], &[]);
    let made = create(&place);
    let id = made.id.clone();
    let refused = place.run(&["sandbox", "shell", &id]);
    assert_eq!(code(&refused), 125);
    assert!(
        text(&refused.stderr).contains("needs a terminal"),
        "{refused:?}"
    );
    std::fs::write(place.work().join("person.py"), PERSON).expect("a file");
    let line = format!("TERM=vt100 exec python3 person.py \"$0\" sandbox shell {id}");
    let played = place.shell(&line);
    assert!(played.status.success(), "{}", text(&played.stderr));
}
