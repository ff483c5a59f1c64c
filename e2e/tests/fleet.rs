//! A fleet with real processes: one server, two nodes that dial it, and what happens when they die.
#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

use e2e::postgres::Postgres;
use e2e::{Place, Process, free_port, guests, no_sandbox, until};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

struct Fleet {
    place: Place,
    port: u16,
    server: Option<Process>,
    nodes: Vec<(PathBuf, Option<Process>)>,
}

impl Drop for Fleet {
    /// Sandboxes of a node that was killed would live on to their deadlines.
    fn drop(&mut self) {
        for (state, process) in &mut self.nodes {
            drop(process.take());
            for guest in guests(state) {
                let _ = rustix::process::kill_process(guest, Signal::KILL);
            }
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Fleet {
    /// A server on this database, or on SQLite.
    fn start(database: Option<&str>) -> Fleet {
        let (place, port) = (Place::new(), free_port());
        let database = database.map(|address| format!("database = \"{address}\"\n"));
        let config = format!(
            "[server]\nstate = \"{}\"\n{}[server.nodes]\nlisten = \"127.0.0.1:{port}\"\n\
             names = [\"127.0.0.1\"]\n",
            place.state().display(),
            database.unwrap_or_default()
        );
        std::fs::write(place.work().join("server.toml"), config).unwrap();
        let mut fleet = Fleet {
            place,
            port,
            server: None,
            nodes: Vec::new(),
        };
        fleet.start_server();
        fleet
    }

    fn log(&self, name: &str) -> Stdio {
        let path = self.place.work().join(name);
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        file.unwrap().into()
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.work().join(name)).unwrap_or_default()
    }

    fn start_server(&mut self) {
        let mut command = self.place.command(&["server", "--config", "server.toml"]);
        command.stderr(self.log("server.log"));
        self.server = Some(Process(command.spawn().unwrap()));
        let socket = self.place.state().join("cofferdam.sock");
        let is_up = until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
        assert!(is_up, "{}", self.said("server.log"));
    }

    fn kill_server(&mut self) {
        drop(self.server.take());
    }

    fn token(&self) -> String {
        let made = self
            .place
            .run(&["node", "enroll-token", "--label", "zone=test"]);
        assert!(made.status.success(), "{made:?}");
        text(&made)
    }

    fn enroll(&self, state: &Path, token: &str) -> Output {
        let url = format!("https://127.0.0.1:{}", self.port);
        let mut command = self.place.command(&["node", "enroll", "--server", &url]);
        command.arg("--state").arg(state).args(["--token", token]);
        command.output().unwrap()
    }

    /// Enrolls a machine and starts its node.
    fn add_node(&mut self, more: &str) -> String {
        let number = self.nodes.len();
        let state = self.place.work().join(format!("node{number}"));
        let enrolled = self.enroll(&state, &self.token());
        assert!(enrolled.status.success(), "{enrolled:?}");
        let config = format!(
            "[node]\nstate = \"{}\"\nspares = 0\n{more}",
            state.display()
        );
        std::fs::write(self.place.work().join(format!("node{number}.toml")), config).unwrap();
        self.nodes.push((state, None));
        self.start_node(number);
        text(&enrolled)
    }

    fn start_node(&mut self, number: usize) {
        let file = format!("node{number}.toml");
        let mut command = self.place.command(&["node", "--config", &file]);
        command.stderr(self.log(&format!("node{number}.log")));
        self.nodes[number].1 = Some(Process(command.spawn().unwrap()));
    }

    fn kill_node(&mut self, number: usize) {
        drop(self.nodes[number].1.take());
    }

    fn are_online(&self, count: usize) -> bool {
        let list = self.place.run(&["node", "ls", "--json"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap_or_default();
        let nodes = list["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .iter()
            .filter(|node| node["connectivity"] == "online")
            .count()
            == count
    }

    fn wait_for_nodes(&self) {
        let are = until(|| self.are_online(self.nodes.len()));
        assert!(are, "{}{}", self.said("server.log"), self.said("node0.log"));
    }

    fn job(&self, id: &str) -> Value {
        let job = self.place.run(&["job", "get", id, "--json"]);
        serde_json::from_slice(&job.stdout).unwrap_or_default()
    }

    fn logs(&self) -> String {
        let all = ["server.log", "node0.log", "node1.log"];
        all.iter()
            .map(|name| format!("{name}:\n{}", self.said(name)))
            .collect()
    }

    /// What is left on the nodes.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (state, _) in &self.nodes {
            left.extend(guests(state).iter().map(|pid: &Pid| format!("{pid:?}")));
            for node in std::fs::read_dir(state.join("nodes"))
                .into_iter()
                .flatten()
                .flatten()
            {
                for kind in ["jobs", "sandboxes", "linux/sandboxes"] {
                    let dir = std::fs::read_dir(node.path().join(kind))
                        .into_iter()
                        .flatten();
                    left.extend(
                        dir.flatten()
                            .map(|entry| entry.path().display().to_string()),
                    );
                }
            }
        }
        left
    }
}

/// Twelve jobs, of which eight have begun.
fn under_load(fleet: &Fleet) -> Vec<String> {
    let begin = |number| {
        let line = format!("echo begun; sleep 4; echo job {number}");
        text(
            &fleet
                .place
                .run(&["run", "--detach", "--", "sh", "-c", &line]),
        )
    };
    let jobs: Vec<String> = (0..12).map(begin).collect();
    // Eight have slots. One that was not let go yet when its node dies would rightly end `lost`.
    let has_begun = |id: &&String| text(&fleet.place.run(&["job", "logs", id])).contains("begun");
    let are_under_way = || jobs.iter().filter(has_begun).count() >= 8;
    assert!(until(are_under_way), "{}", fleet.logs());
    jobs
}

/// Each job has ended once, as it should, and all that it wrote is there.
fn books_are_balanced(fleet: &Fleet, jobs: &[String]) {
    let are_over = || jobs.iter().all(|id| fleet.job(id)["state"] == "finished");
    assert!(until(are_over), "{}", fleet.logs());
    for (number, id) in jobs.iter().enumerate() {
        let job = fleet.job(id);
        assert_eq!(
            job["outcome"]["kind"],
            "succeeded",
            "{job} {}",
            fleet.logs()
        );
        let wrote = fleet.place.run(&["job", "logs", id]);
        assert_eq!(text(&wrote), format!("begun\njob {number}"));
    }
}

#[test]
fn jobs_and_sandboxes_survive_the_death_of_their_server_and_of_their_nodes() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let mut fleet = Fleet::start(Some(&postgres.address()));
    fleet.add_node("slots = 4\nsandboxes = 4\n");
    fleet.add_node("slots = 4\nsandboxes = 4\n");
    fleet.wait_for_nodes();
    // Attached to a job that runs in another process, by the bulk link.
    let cat = ["run", "--", "sh", "-c", "cat; echo done"];
    let hello = fleet.place.run_with_input(&cat, b"in\n");
    assert_eq!(text(&hello), "in\ndone", "{hello:?} {}", fleet.logs());
    // And to a sandbox that lives on, by the interactive one.
    let told = text(&fleet.place.run(&["sandbox", "create"]));
    let sandbox = told.split_whitespace().next().unwrap_or_default();
    assert!(sandbox.starts_with("sbx_"), "{told} {}", fleet.logs());
    let exec = |fleet: &Fleet, line: &str| {
        let args = ["sandbox", "exec", sandbox, "--", "sh", "-c", line];
        text(&fleet.place.run(&args))
    };
    assert_eq!(
        exec(&fleet, "echo kept > kept; cat kept"),
        "kept",
        "{}",
        fleet.logs()
    );
    let jobs = under_load(&fleet);
    fleet.kill_node(0);
    fleet.kill_server();
    fleet.start_server();
    fleet.start_node(0);
    books_are_balanced(&fleet, &jobs);
    let is_kept = || exec(&fleet, "cat kept") == "kept";
    assert!(until(is_kept), "{}", fleet.logs());
    let gone = fleet.place.run(&["sandbox", "rm", sandbox]);
    assert!(gone.status.success(), "{gone:?}");
    assert!(until(|| fleet.left().is_empty()), "{:?}", fleet.left());
}

/// What its service gives a node to end in, by `TimeoutStopSec`.
const TO_END: Duration = Duration::from_secs(15);

/// SIGTERM to the first node; how its process ends, and after how long.
fn told_to_end(fleet: &mut Fleet) -> (ExitStatus, Duration) {
    let mut process = fleet.nodes[0].1.take().unwrap();
    let pid = Pid::from_raw(process.0.id().try_into().unwrap()).unwrap();
    let begin = Instant::now();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let mut ended = None;
    let has_ended = || {
        ended = process.0.try_wait().unwrap();
        ended.is_some()
    };
    assert!(until(has_ended), "{}", fleet.logs());
    (ended.unwrap(), begin.elapsed())
}

#[test]
fn a_node_that_is_told_to_end_tells_what_was_to_end_and_leaves_what_runs_to_the_next_process() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let mut fleet = Fleet::start(None);
    fleet.add_node("slots = 4\nsandboxes = 4\n");
    fleet.wait_for_nodes();
    let begin = |line: &str| {
        let args = ["run", "--detach", "--", "sh", "-c", line];
        text(&fleet.place.run(&args))
    };
    // Longer than a process may take to end, so that it runs on when that has.
    let runs = "n=0; while [ $n -lt 80 ]; do n=$((n+1)); echo line $n; sleep 0.2; done";
    let ends = "trap 'sleep 1; echo ended; exit 0' TERM; echo line 0; while :; do sleep 0.2; done";
    let (runs, ends) = (begin(runs), begin(ends));
    let wrote = |fleet: &Fleet, id: &str| text(&fleet.place.run(&["job", "logs", id]));
    let have_begun = || {
        [&runs, &ends]
            .iter()
            .all(|id| wrote(&fleet, id).contains("line"))
    };
    assert!(until(have_begun), "{}", fleet.logs());
    assert!(fleet.place.run(&["job", "cancel", &ends]).status.success());
    let (ended, after) = told_to_end(&mut fleet);
    assert_eq!(ended.code(), Some(0), "{}", fleet.logs());
    assert!(after < TO_END, "{after:?} {}", fleet.logs());
    // No process of the node is there now: what was told to end was waited for, and told.
    let job = fleet.job(&ends);
    assert_eq!(job["outcome"]["kind"], "canceled", "{job} {}", fleet.logs());
    assert_eq!(wrote(&fleet, &ends), "line 0\nended");
    assert_eq!(fleet.job(&runs)["state"], "running", "{}", fleet.logs());
    assert!(!guests(&fleet.nodes[0].0).is_empty(), "it runs on");
    fleet.start_node(0);
    let is_over = || fleet.job(&runs)["state"] == "finished";
    assert!(until(is_over), "{}", fleet.logs());
    let job = fleet.job(&runs);
    assert_eq!(
        job["outcome"]["kind"],
        "succeeded",
        "{job} {}",
        fleet.logs()
    );
    assert_eq!(job["attempt"], 1, "{job}");
    let lines: Vec<String> = (1..=80).map(|number| format!("line {number}")).collect();
    assert_eq!(wrote(&fleet, &runs), lines.join("\n"));
    assert!(until(|| fleet.left().is_empty()), "{:?}", fleet.left());
}

/// The first node, which has nothing.
fn it_hears_that_it_was_sent_away(fleet: &mut Fleet) {
    let hears = || {
        fleet
            .said("node0.log")
            .contains("certificate does not count")
    };
    assert!(until(hears), "{}", fleet.logs());
    // It ends, with a code by which its supervisor knows not to start it again.
    let ended = fleet.nodes[0].1.as_mut().unwrap().0.wait().unwrap();
    assert_eq!(ended.code(), Some(78), "{}", fleet.logs());
    assert!(fleet.said("node0.log").contains("was decommissioned"));
    assert_eq!(fleet.left(), Vec::<String>::new());
}

/// What the command says of the first node to whoever has its state directory.
fn tape_of(fleet: &Fleet, more: &[&str]) -> Output {
    let mut command = fleet.place.command(&["node", "tape"]);
    command.args(more).arg("--state").arg(&fleet.nodes[0].0);
    command.output().unwrap()
}

fn the_last_calls_are_shown(fleet: &Fleet) {
    let tape = |more: &[&str]| text(&tape_of(fleet, more));
    let lines: Value = serde_json::from_str(&tape(&["--json"])).unwrap();
    let first = &lines[0];
    assert_eq!(first["path"], "/node/v1/register", "{lines}");
    assert_eq!(first["code"], "ok", "{lines}");
    // Calls are on it when they have ended, and the first heartbeat may still be under way.
    let beats = || tape(&[]).contains("POST /node/v1/");
    assert!(until(beats), "{lines}");
}

/// By a signal to the first node, which goes on; shown when no node runs, and replaced by the next one.
fn the_last_calls_are_written_down_at_a_signal(fleet: &mut Fleet) {
    let path = fleet.nodes[0].0.join("tape.json");
    let pid = fleet.nodes[0].1.as_ref().unwrap().0.id();
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let written = || {
        let text = std::fs::read(&path).unwrap_or_default();
        serde_json::from_slice::<Vec<Value>>(&text).unwrap_or_default()
    };
    let mut before = 0;
    // The second one has what happened since.
    for _ in 0..2 {
        let id = text(&fleet.place.run(&["run", "--detach", "--", "true"]));
        let is_over = || fleet.job(&id)["state"] == "finished";
        assert!(until(is_over), "{id} {}", fleet.logs());
        let has_more = || {
            rustix::process::kill_process(pid, Signal::USR1).unwrap();
            written().len() > before
        };
        assert!(until(has_more), "{}", fleet.logs());
        before = written().len();
    }
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!((1..200 << 10).contains(&file.len()), "{file:?}");
    assert_eq!(written()[0]["path"], "/node/v1/register");
    fleet.kill_node(0);
    let shown = tape_of(fleet, &[]);
    assert!(text(&shown).contains("POST /node/v1/register"), "{shown:?}");
    assert!(said(&shown).contains("no node runs here"), "{shown:?}");
    fleet.start_node(0);
    let is_up = || !said(&tape_of(fleet, &[])).contains("no node runs here");
    assert!(until(is_up), "{}", fleet.logs());
}

#[test]
fn a_machine_is_let_in_once_by_a_token_and_sent_away_by_a_row() {
    let mut fleet = Fleet::start(None);
    let work = fleet.place.work();
    let code = |output: &Output| {
        assert!(!output.status.success(), "{output:?}");
        said(output)
    };
    let token = fleet.token();
    assert!(fleet.enroll(&work.join("a"), &token).status.success());
    assert!(code(&fleet.enroll(&work.join("b"), &token)).contains("another machine"));
    assert!(code(&fleet.enroll(&work.join("b"), "cfn_x_y")).contains("no enrollment token"));
    // A token that names another authority is not sent to this server.
    let other = format!(
        "{}{}",
        &token[..token.len() - 1],
        if token.ends_with('0') { '1' } else { '0' }
    );
    let refused = code(&fleet.enroll(&work.join("b"), &other));
    assert!(refused.contains("another authority"), "{refused}");
    let listed = fleet
        .place
        .json(&["node", "enroll-token", "--ls", "--json"]);
    assert_eq!(listed["tokens"][0]["state"], "used", "{listed}");
    assert_eq!(listed["tokens"][0]["labels"]["zone"], "test", "{listed}");
    fleet.token();
    let listed = fleet
        .place
        .json(&["node", "enroll-token", "--ls", "--json"]);
    let newest = listed["tokens"][0]["id"].as_str().unwrap().to_owned();
    let revoked = fleet
        .place
        .run(&["node", "enroll-token", "--revoke", &newest]);
    assert!(text(&revoked).ends_with("revoked"), "{revoked:?}");
    let node = fleet.add_node("slots = 1\ndriver = \"fake\"\n");
    assert!(until(|| fleet.are_online(1)), "{}", fleet.logs());
    the_last_calls_are_shown(&fleet);
    the_last_calls_are_written_down_at_a_signal(&mut fleet);
    let is = |what: &str| {
        let seen = fleet.place.json(&["node", "get", &node, "--json"]);
        seen["scheduling"] == what
    };
    assert!(fleet.place.run(&["node", "cordon", &node]).status.success());
    assert!(is("cordoned"));
    assert!(
        fleet
            .place
            .run(&["node", "uncordon", &node])
            .status
            .success()
    );
    let early = fleet.place.run(&["node", "rm", &node]);
    assert!(code(&early).contains("decommission"));
    assert!(fleet.place.run(&["node", "drain", &node]).status.success());
    assert!(is("draining"));
    assert!(
        fleet
            .place
            .run(&["node", "decommission", &node])
            .status
            .success()
    );
    it_hears_that_it_was_sent_away(&mut fleet);
    assert!(fleet.place.run(&["node", "rm", &node]).status.success());
}

#[test]
fn the_units_are_what_systemd_takes() {
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../dist");
    for unit in ["cofferdam-node.service", "cofferdam-server.service"] {
        let path = format!("{dist}/{unit}");
        // Where it looks for the program is not where the tests have it.
        let text = std::fs::read_to_string(&path).unwrap();
        let program = e2e::program().display().to_string();
        let copy = tempfile::tempdir().unwrap();
        let copied = copy.path().join(unit);
        std::fs::write(&copied, text.replace("/usr/local/bin/cofferdam", &program)).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "what looks at the units is not what is tested"
        )]
        let mut verify = std::process::Command::new("systemd-analyze");
        let said = verify.args(["verify", "--man=no"]).arg(&copied).output();
        let Ok(said) = said else {
            println!("skipped: there is no systemd-analyze");
            return;
        };
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        // What it says of units of this machine is not about ours.
        let ours = said.lines().filter(|line| line.contains(unit));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
    }
}

#[test]
fn development_is_for_one_machine_and_production_refuses_it() {
    let place = Place::new();
    let port = free_port();
    let config = |mode: &str| {
        format!(
            "mode = \"{mode}\"\n[server]\nstate = \"{}\"\n[server.nodes]\nlisten = \
             \"127.0.0.1:{port}\"\nnames = [\"a\"]\ntoken = \"${{NODES}}\"\n[node]\nstate = \"{}\"\n\
             server = \"http://127.0.0.1:{port}\"\ntoken = \"${{NODES}}\"\ndriver = \"fake\"\n",
            place.state().display(),
            place.work().join("node").display(),
        )
    };
    let file = place.work().join("both.toml");
    let start = |args: &[&str]| {
        let mut command = place.command(args);
        command
            .env("NODES", "a token of sixteen and more")
            .stderr(Stdio::piped());
        command
    };
    std::fs::write(&file, config("production")).unwrap();
    for part in ["server", "node"] {
        let refused = start(&[part, "--config", "both.toml"]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("production"),
            "{said}"
        );
    }
    std::fs::write(&file, config("development")).unwrap();
    let checked = start(&["config", "check", "both.toml"]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert!(!text(&checked).contains("sixteen"), "{checked:?}");
    let _server = Process(
        start(&["server", "--dev", "--config", "both.toml"])
            .spawn()
            .unwrap(),
    );
    let _node = Process(
        start(&["node", "--dev", "--config", "both.toml"])
            .spawn()
            .unwrap(),
    );
    let done = || {
        place
            .run(&["node", "ls"])
            .stdout
            .windows(6)
            .any(|window| window == b"online")
    };
    assert!(until(done));
    let id = text(&place.run(&["run", "--detach", "--", "true"]));
    let is_over = || place.json(&["job", "get", &id, "--json"])["state"] == "finished";
    assert!(until(is_over), "{id}");
}
