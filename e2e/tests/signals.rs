//! Commands that are told to end, that lose their reader, or that are killed.

use e2e::{Place, left_behind, needs_sandbox, until};
use rustix::process::{Pid, Signal};
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Far less than any of the jobs here would take, or than a node waits for work.
const SOON: Duration = Duration::from_secs(5);

fn start(place: &Place, words: &[&str]) -> Child {
    let mut command = place.command(words);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a child has an id");
    rustix::process::kill_process(pid, signal).expect("it is not reaped yet");
}

/// The first line that a command prints.
fn first_line(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().expect("a pipe");
    let (mut line, mut byte) = (String::new(), [0]);
    // By bytes, so that nothing of the next line is taken.
    while stdout.read(&mut byte).is_ok_and(|n| n == 1) && byte != *b"\n" {
        line.push(byte[0].into());
    }
    line
}

fn code_soon(mut child: Child) -> i32 {
    let start = Instant::now();
    let code = child.wait().expect("it ends").code().unwrap_or(-1);
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    code
}

/// The newest job: its state, or how it ended.
fn newest(place: &Place) -> String {
    let job = &place.json(&["job", "ls", "--json"])["jobs"][0];
    let outcome = job["outcome"]["kind"].as_str();
    outcome
        .or_else(|| job["state"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn nodes(place: &Place) -> usize {
    std::fs::read_dir(place.state().join("nodes")).map_or(0, Iterator::count)
}

#[test]
fn a_reader_that_goes_away_ends_the_job_at_once() {
    needs_sandbox!();
    for with_server in [false, true] {
        let place = Place::new();
        let _server = with_server.then(|| place.up(&[], &[]));
        let mut child = start(&place, &["run", "--", "yes"]);
        assert_eq!(first_line(&mut child), "y");
        drop(child.stdout.take());
        // As a shell says of a program that SIGPIPE ended.
        assert_eq!(code_soon(child), 141);
        assert!(until(|| newest(&place) == "canceled"), "{}", newest(&place));
    }
}

#[test]
fn a_command_that_is_told_to_end_ends_its_job() {
    needs_sandbox!();
    for with_server in [false, true] {
        let place = Place::new();
        let _server = with_server.then(|| place.up(&["--slots", "1"], &[]));
        let mut child = start(&place, &["run", "--", "sh", "-c", "echo ready; sleep 100"]);
        assert_eq!(first_line(&mut child), "ready");
        send(&child, Signal::TERM);
        assert_eq!(code_soon(child), 137);
        assert_eq!(newest(&place), "canceled");
    }
}

#[test]
fn the_program_hears_the_first_interrupt_and_the_second_ends_it() {
    needs_sandbox!();
    let place = Place::new();
    let script = "trap 'exit 7' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = start(&place, &["run", "--", "sh", "-c", script]);
    assert_eq!(first_line(&mut child), "ready");
    send(&child, Signal::INT);
    assert_eq!(code_soon(child), 7);

    let script = "trap 'echo heard' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = start(&place, &["run", "--", "sh", "-c", script]);
    assert_eq!(first_line(&mut child), "ready");
    send(&child, Signal::INT);
    assert_eq!(first_line(&mut child), "heard");
    send(&child, Signal::INT);
    assert_eq!(code_soon(child), 137);
}

#[test]
fn nobody_waits_for_a_program_that_does_not_want_to_end_when_told_twice() {
    needs_sandbox!();
    let place = Place::new();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = start(&place, &["run", "--", "sh", "-c", script]);
    assert_eq!(first_line(&mut child), "ready");
    send(&child, Signal::TERM);
    assert!(until(|| newest(&place) == "stopping"));
    send(&child, Signal::TERM);
    assert_eq!(code_soon(child), 143);
    assert!(
        until(|| left_behind(&place).is_empty()),
        "{:?}",
        left_behind(&place)
    );
    assert_eq!(newest(&place), "canceled");
}

#[test]
fn a_reader_that_sleeps_does_not_keep_a_canceled_command() {
    needs_sandbox!();
    let place = Place::new();
    let child = start(&place, &["run", "--", "yes"]);
    // Nobody reads, so it stands still with a full pipe.
    assert!(until(|| newest(&place) == "running"));
    send(&child, Signal::TERM);
    assert_eq!(code_soon(child), 137);
}

#[test]
fn what_a_killed_command_leaves_is_taken_away_by_the_next() {
    needs_sandbox!();
    let place = Place::new();
    let mut child = start(&place, &["run", "--", "sh", "-c", "echo ready; sleep 100"]);
    assert_eq!(first_line(&mut child), "ready");
    assert!(!left_behind(&place).is_empty());
    // One that lives is not swept.
    assert!(place.run(&["run", "--", "true"]).status.success());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.run(&["run", "--", "true"]).status.success());
    assert_eq!((left_behind(&place), nodes(&place)), (Vec::new(), 0));
    let jobs = place.json(&["job", "ls", "--json"]);
    let kinds: Vec<_> = jobs["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["outcome"]["kind"])
        .collect();
    assert_eq!(kinds, ["succeeded", "succeeded", "lost"]);
}

#[test]
fn many_that_sweep_at_once_take_everything_away_and_disturb_nobody() {
    needs_sandbox!();
    let place = Place::new();
    let killed: Vec<Child> = (0..3)
        .map(|_| {
            let mut child = start(&place, &["run", "--", "sh", "-c", "echo ready; sleep 100"]);
            assert_eq!(first_line(&mut child), "ready");
            child
        })
        .collect();
    for mut child in killed {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let sweeping: Vec<Child> = (0..6)
        .map(|_| start(&place, &["run", "--", "echo", "fine"]))
        .collect();
    for mut child in sweeping {
        let mut said = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(
            (said.as_str(), child.wait().unwrap().code()),
            ("fine\n", Some(0))
        );
    }
    assert_eq!((left_behind(&place), nodes(&place)), (Vec::new(), 0));
    let unfinished = place.json(&["job", "ls", "--json", "--only", "running"]);
    assert_eq!(unfinished["jobs"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_server_takes_away_what_a_killed_command_left() {
    needs_sandbox!();
    let place = Place::new();
    let mut child = start(&place, &["run", "--", "sh", "-c", "echo ready; sleep 100"]);
    assert_eq!(first_line(&mut child), "ready");
    child.kill().unwrap();
    child.wait().unwrap();
    let _server = place.up(&["--spares", "0"], &[]);
    assert!(
        until(|| left_behind(&place).is_empty()),
        "{:?}",
        left_behind(&place)
    );
    assert!(until(|| newest(&place) == "lost"), "{}", newest(&place));
    // What is left is the server's own.
    assert!(until(|| nodes(&place) == 1));
}

/// Whether a command says this on its standard error, which it does while it waits.
fn says(child: &mut Child, wanted: &str) -> bool {
    let stderr = child.stderr.as_mut().expect("a pipe");
    let (mut said, mut byte) = (String::new(), [0]);
    while !said.contains(wanted) && stderr.read(&mut byte).is_ok_and(|n| n == 1) {
        said.push(byte[0].into());
    }
    said.contains(wanted)
}

#[test]
fn who_waits_for_a_node_is_told_so_and_the_first_signal_ends_it() {
    let place = Place::new();
    let _server = place.up(&["--driver", "fake", "--spares", "0"], &[]);
    let is_there = || place.json(&["node", "ls", "--json"])["nodes"][0]["name"].is_string();
    assert!(until(is_there), "its own node registers");
    let name = place.json(&["node", "ls", "--json"])["nodes"][0]["name"].clone();
    let name = name.as_str().expect("it was just seen").to_owned();
    // By its name; there is nothing to wait for.
    let drained = place.run(&["node", "drain", &name]);
    let said = String::from_utf8_lossy(&drained.stdout);
    assert!(said.ends_with(" drained\n"), "{drained:?}");
    let waiting = |words: &[&str]| {
        let mut command = place.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        assert!(says(&mut child, "no node has taken it yet"), "{words:?}");
        child
    };
    let run = waiting(&["run", "--", "true"]);
    send(&run, Signal::INT);
    assert_ne!(code_soon(run), 0);
    assert_eq!(newest(&place), "canceled");
    let mut create = waiting(&["sandbox", "create"]);
    send(&create, Signal::INT);
    assert!(says(&mut create, "is taken away"));
    assert_eq!(code_soon(create), 130);
    let left = || place.json(&["sandbox", "ls", "--json"])["sandboxes"][0].is_object();
    assert!(until(|| !left()), "nobody was told its id");
    let back = place.run(&["node", "uncordon", &name]);
    assert!(back.status.success(), "{back:?}");
    let node = place.json(&["node", "get", &name, "--json"]);
    assert_eq!(node["scheduling"], "active", "{node}");
}
