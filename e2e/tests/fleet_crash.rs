//! A fleet over TLS whose server, or whose node, is killed at every point in turn, on both databases; whoever asked
//! asks again. The end is the same, nothing happened twice, and nothing is left.
//!
//! Each kind of point is tried, and some of each kind's occurrences; all of them with `COFFERDAM_CRASH_ALL=1`.
#![expect(
    clippy::print_stdout,
    reason = "what cannot be tried, and what was, is said by what the tests share"
)]
#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

use e2e::postgres::Postgres;
use e2e::{Place, free_port, http, text, visited};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Points of each process and database that are tried where not all are asked for: a minute for both.
const SAMPLE: usize = 8;
/// Fleets in which one point is tried: of some a run has fewer than the one that was traced.
const TRIES: usize = 3;
/// How long a step may take that is asked again and again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `COFFERDAM_DIE_AT` is to say in each of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Server,
    Node,
}

/// A process that is started again when it has ended, then without a point at which it dies.
struct Process {
    child: Option<Child>,
    log: PathBuf,
    args: Vec<String>,
    die_at: Option<String>,
    deaths: u32,
}

impl Process {
    fn new(place: &Place, name: &str, die_at: Option<&str>) -> Process {
        let config = place.work().join(format!("{name}.toml"));
        Process {
            child: None,
            log: place.work().join(format!("{name}.log")),
            args: vec![
                name.to_owned(),
                "--config".to_owned(),
                config.display().to_string(),
            ],
            die_at: die_at.map(str::to_owned),
            deaths: 0,
        }
    }

    fn start(&mut self, place: &Place) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut command = place.command(&args);
        if let Some(point) = &self.die_at {
            command.env("COFFERDAM_DIE_AT", point);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log);
        self.child = Some(command.stderr(Stdio::from(log.unwrap())).spawn().unwrap());
    }

    /// Starts it again where it has died.
    fn supervise(&mut self, place: &Place) {
        let ended = self.child.as_mut().map(|child| child.try_wait().unwrap());
        if let Some(Some(status)) = ended {
            // One that was decommissioned ends by itself.
            let is_killed = status.signal() == Some(Signal::KILL.as_raw());
            self.deaths += u32::from(is_killed);
            if self.die_at.as_deref() != Some("trace") {
                self.die_at = None;
            }
            self.start(place);
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Which of the jobs may run once.
const ONCE: usize = 0;

struct Fleet {
    place: Place,
    /// Who is killed.
    who: Who,
    port: u16,
    server: Process,
    node: Process,
}

impl Fleet {
    fn new(database: Option<&str>, (who, point): (Who, &str)) -> Fleet {
        let (place, port) = (Place::new(), free_port());
        let database = database.map(|address| format!("database = \"{address}\"\n"));
        let config = format!(
            "[server]\nstate = \"{}\"\nlease_seconds = 2\n{}[server.nodes]\n\
             listen = \"127.0.0.1:{port}\"\nnames = [\"127.0.0.1\"]\n",
            place.state().display(),
            database.unwrap_or_default()
        );
        std::fs::write(place.work().join("server.toml"), config).unwrap();
        let state = place.work().join("node");
        let config = format!(
            "[node]\nstate = \"{}\"\nspares = 1\nslots = 4\nsandboxes = 2\ndriver = \"fake\"\n",
            state.display()
        );
        std::fs::write(place.work().join("node.toml"), config).unwrap();
        let at = |one| Some(point).filter(|_| one == who || point == "trace");
        let (server, node) = (
            Process::new(&place, "server", at(Who::Server)),
            Process::new(&place, "node", at(Who::Node)),
        );
        Fleet {
            place,
            who,
            port,
            server,
            node,
        }
    }

    fn node_state(&self) -> PathBuf {
        self.place.work().join("node")
    }

    fn logs(&self) -> String {
        format!("{}\n{}", self.server.said(), self.node.said())
    }

    fn supervise(&mut self) {
        self.server.supervise(&self.place);
        self.node.supervise(&self.place);
    }

    /// Asks until it is done, and starts again what has died meanwhile.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Fleet) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {}", self.logs());
            self.supervise();
            // A poll, as `e2e::until` is, and not a wait for something to have happened. It is longer than there,
            // because most of what is asked starts a process, and both processors are needed by what is asked for.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        self.place.command(args)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A command of an operator that is given again until it was carried out.
    fn ask(&mut self, args: &[&str]) -> String {
        let mut said = String::new();
        self.until(&args.join(" "), |fleet| {
            let output = fleet.run(args);
            said = text(&output.stdout).trim().to_owned();
            output.status.success()
        });
        said
    }

    fn get(&self, path: &str) -> Value {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let (_, answer) = http(&self.place.state().join("cofferdam.sock"), &request);
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// The same request, with the same key, until it is answered.
    fn job(&mut self, key: &str, attempts: u32) -> String {
        let body = format!(
            r#"{{"argv":["fake","sleep=30","print=hello"],"retry":{{"max_attempts":{attempts}}}}}"#
        );
        let request = format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             idempotency-key: {key}-of-this-test\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut id = String::new();
        self.until(key, |fleet| {
            let (status, answer) = http(&fleet.place.state().join("cofferdam.sock"), &request);
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            id = answer["id"].as_str().unwrap_or_default().to_owned();
            (200..300).contains(&status)
        });
        id
    }

    /// Makes a node of the machine; says which.
    fn enroll(&mut self) -> String {
        let url = format!("https://127.0.0.1:{}", self.port);
        let state = self.node_state();
        let token = self.ask(&["node", "enroll-token"]);
        // A server that died before it said that the token was spent has made the node: the same key asks again.
        self.until("enroll", |fleet| {
            let mut command = fleet.command(&["node", "enroll", "--server", &url]);
            command.arg("--state").arg(&state).args(["--token", &token]);
            command.output().unwrap().status.success()
        });
        let identity = std::fs::read(state.join("identity.json")).unwrap();
        let identity: Value = serde_json::from_slice(&identity).unwrap();
        identity["node"].as_str().unwrap().to_owned()
    }

    /// A node from its token to its end, with two jobs and a sandbox that lives on.
    fn story(&mut self) -> Vec<String> {
        self.server.start(&self.place);
        let node = self.enroll();
        self.node.start(&self.place);
        // The first is `ONCE`.
        let jobs = vec![self.job("once", 1), self.job("again", 3)];
        for id in &jobs {
            let path = format!("/v1/jobs/{id}");
            self.until("a job ends", |fleet| {
                fleet.get(&path)["state"] == "finished"
            });
        }
        self.sandbox();
        self.ask(&["node", "cordon", &node]);
        self.ask(&["node", "uncordon", &node]);
        self.ask(&["node", "drain", &node]);
        self.check(&jobs);
        self.ask(&["node", "decommission", &node]);
        // Forgotten, and nobody was told.
        self.until("rm", |fleet| {
            let output = fleet.run(&["node", "rm", &node]);
            output.status.success() || text(&output.stderr).contains("there is no node")
        });
        jobs
    }

    fn sandbox(&mut self) {
        let stands = |fleet: &Fleet| {
            let all = fleet.get("/v1/sandboxes?limit=100");
            let all = all["sandboxes"].as_array().cloned().unwrap_or_default();
            let over = ["destroyed", "failed", "expired"];
            let stands = |row: &Value| !over.contains(&row["state"].as_str().unwrap_or_default());
            let ids = all.iter().filter(|row| stands(row));
            ids.map(|row| row["id"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        // An answer that was lost may have made one: each is taken away.
        self.until("sandbox create", |fleet| {
            fleet.run(&["sandbox", "create"]).status.success()
        });
        self.until("sandbox rm", |fleet| {
            for id in stands(fleet) {
                fleet.run(&["sandbox", "rm", &id]);
            }
            !fleet.get("/v1/sandboxes")["sandboxes"].is_null() && stands(fleet).is_empty()
        });
    }

    fn check(&mut self, jobs: &[String]) {
        for (number, id) in jobs.iter().enumerate() {
            let job = self.get(&format!("/v1/jobs/{id}"));
            let outcome = job["outcome"]["kind"].as_str().unwrap_or_default();
            // Only a job that may run once is lost, and only with its node.
            let may_be_lost = self.who == Who::Node && number == ONCE;
            assert!(
                outcome == "succeeded" || (may_be_lost && outcome == "lost"),
                "{job} {}",
                self.logs()
            );
            let events = self.get(&format!("/v1/jobs/{id}/events"));
            let events = events["events"].as_array().cloned().unwrap_or_default();
            let ends = events.iter().filter(|one| one["kind"] == "job.finished");
            assert_eq!(ends.count(), 1, "{events:?}");
            if outcome == "succeeded" {
                let log = text(&self.run(&["job", "logs", id]).stdout);
                assert_eq!(log, "hello", "{job}");
            }
        }
        let state = self.node_state();
        self.until("nothing is left", |_| left(&state).is_empty());
    }
}

/// Of jobs and sandboxes in a node's state; one spare stands ready.
fn left(state: &Path) -> Vec<PathBuf> {
    let read = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let nodes = read(&state.join("nodes"));
    let kinds = nodes.iter().flat_map(|node| {
        let sandboxes = read(&node.join("fake")).into_iter().skip(1);
        let records = ["jobs", "sandboxes"].map(|kind| read(&node.join(kind)));
        records.concat().into_iter().chain(sandboxes)
    });
    kinds.collect()
}

/// What a fleet in which nobody dies visits.
fn points(database: Option<&str>, who: Who) -> Vec<String> {
    let mut fleet = Fleet::new(database, (who, "trace"));
    fleet.story();
    visited(&match who {
        Who::Server => fleet.server.said(),
        Who::Node => fleet.node.said(),
    })
}

fn name(point: &str) -> &str {
    point.split('#').next().unwrap_or_default()
}

/// One of each kind, and others from the first to the last.
fn sample(points: &[String]) -> Vec<&String> {
    if std::env::var_os("COFFERDAM_CRASH_ALL").is_some() {
        return points.iter().collect();
    }
    let mut kinds = BTreeSet::new();
    let firsts = points.iter().filter(|point| kinds.insert(name(point)));
    let mut sample: Vec<&String> = firsts.collect();
    let step = points.len().div_ceil(SAMPLE).max(1);
    // An odd step, because points before and after a commit take turns.
    let some = points.iter().step_by(step | 1);
    sample.extend(some.take(SAMPLE.saturating_sub(sample.len())));
    sample
}

fn sweep(database: &dyn Fn() -> Option<String>, who: Who, expected: &[&str]) {
    let tried = |point: &&String| expected.contains(&name(point));
    let points = points(database().as_deref(), who);
    let kinds: BTreeSet<&str> = points.iter().map(|point| name(point)).collect();
    assert!(
        expected.iter().all(|kind| kinds.contains(kind)),
        "a point that no run visits proves nothing: {kinds:?}"
    );
    let points: Vec<String> = points.iter().filter(tried).cloned().collect();
    let sample = sample(&points);
    let runs = sample.len();
    let missed = |point: &&String| !(0..TRIES).any(|_| dies_at(database, who, point));
    let missed: Vec<&String> = sample.into_iter().filter(missed).collect();
    let died = runs - missed.len();
    println!(
        "{who:?} killed at {died} of {runs} points that were tried, of {}",
        points.len()
    );
    let mut wrong = Vec::new();
    for point in missed {
        match may_be_missed(point, &points) {
            Some(why) => println!("not killed at {point}: {why}"),
            None => wrong.push(point),
        }
    }
    assert!(wrong.is_empty(), "{TRIES} runs have not come to {wrong:?}");
    assert!(died * 4 >= runs * 3, "{died} of {runs}");
}

/// Whether a fleet of its own came to this point and ended well.
fn dies_at(database: &dyn Fn() -> Option<String>, who: Who, point: &str) -> bool {
    let mut fleet = Fleet::new(database().as_deref(), (who, point));
    fleet.story();
    // It may have died at the last that it was asked for.
    fleet.supervise();
    let process = match who {
        Who::Server => &fleet.server,
        Who::Node => &fleet.node,
    };
    process.deaths > 0
}

/// Why a run may have fewer points of this kind than the one that was traced, if it may. The first of each kind is in
/// every run.
fn may_be_missed(point: &str, points: &[String]) -> Option<&'static str> {
    let (kind, number) = point.split_once('#')?;
    let number: usize = number.parse().ok().filter(|number| *number > 1)?;
    let all = points.iter().filter(|other| name(other) == kind).count();
    match kind {
        "store.before_commit" | "store.after_commit" if number * 4 > all * 3 => {
            Some("a run that was faster has fewer heartbeats, and ends before")
        }
        "node.recorded" | "node.sandboxed" | "node.spared" => {
            Some("where the second job finds the spare of the first one's end, fewer are made")
        }
        _ => None,
    }
}

#[test]
fn only_late_commits_and_spares_may_be_missed_and_never_the_first() {
    let commits = (1..=8).map(|number| format!("store.after_commit#{number}"));
    let points: Vec<String> = commits.collect();
    for (point, expect) in [
        ("store.after_commit#1", false),
        ("store.after_commit#6", false),
        ("store.after_commit#7", true),
        ("store.before_commit#1", false),
        ("node.spared#1", false),
        ("node.spared#2", true),
        ("node.reported#2", false),
        ("node.sandbox_reported#3", false),
    ] {
        assert_eq!(may_be_missed(point, &points).is_some(), expect, "{point}");
    }
}

const SERVER: [&str; 2] = ["store.before_commit", "store.after_commit"];
const JOBS: [&str; 9] = [
    "node.acknowledged",
    "node.destroyed",
    "node.ended",
    "node.recorded",
    "node.released",
    "node.removed",
    "node.reported",
    "node.sandboxed",
    "node.spared",
];
const SANDBOXES: [&str; 4] = [
    "node.sandbox_destroyed",
    "node.sandbox_recorded",
    "node.sandbox_reported",
    "node.sandbox_started",
];

#[test]
fn a_fleet_on_sqlite_whose_server_is_killed_at_any_point_comes_to_the_same_end() {
    sweep(&|| None, Who::Server, &SERVER);
}

#[test]
fn a_fleet_whose_node_is_killed_at_any_point_comes_to_the_same_end() {
    sweep(&|| None, Who::Node, &JOBS);
}

#[test]
fn a_fleet_whose_node_is_killed_at_any_point_of_a_sandbox_comes_to_the_same_end() {
    sweep(&|| None, Who::Node, &SANDBOXES);
}

fn sweep_on_postgresql(who: Who, expected: &[&str]) {
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let fresh = || Some(postgres.fresh());
    sweep(&fresh, who, expected);
}

#[test]
fn a_fleet_on_postgresql_whose_server_is_killed_at_any_point_comes_to_the_same_end() {
    sweep_on_postgresql(Who::Server, &SERVER);
}

#[test]
fn a_fleet_on_postgresql_whose_node_is_killed_at_any_point_comes_to_the_same_end() {
    sweep_on_postgresql(Who::Node, &JOBS);
}

#[test]
fn a_fleet_on_postgresql_whose_node_is_killed_at_any_point_of_a_sandbox_comes_to_the_same_end() {
    sweep_on_postgresql(Who::Node, &SANDBOXES);
}

/// What a process that died has left to be told, and what no server takes: its name is too long.
fn leave_what_is_refused(state: &Path, node: &str) -> PathBuf {
    let dir = state.join("nodes").join(node);
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(&dir).unwrap();
    let record = serde_json::json!({
        "name": "x".repeat(65), "at_ms": 1, "sandbox_id": "sbx_0193a5c0b4a07000800000000000000a",
        "method": "connect", "host": "a.example", "port": 443, "decision": "denied",
        "bytes_out": 0, "bytes_in": 0, "duration_ms": 0,
    });
    std::fs::write(dir.join("egress"), format!("{record}\n")).unwrap();
    dir
}

#[test]
fn a_report_that_is_given_up_is_told_also_where_its_node_is_killed_before_it_has_forgotten_it() {
    let mut fleet = Fleet::new(None, (Who::Node, "node.dropped#1"));
    fleet.server.start(&fleet.place);
    let node = fleet.enroll();
    let dir = leave_what_is_refused(&fleet.node_state(), &node);
    fleet.node.start(&fleet.place);
    let mut events = Vec::new();
    fleet.until("it is told that a report was given up", |fleet| {
        let list = fleet.get("/v1/audit?kind=node.report_dropped&limit=100");
        events = list["events"].as_array().cloned().unwrap_or_default();
        !events.is_empty()
    });
    assert_eq!(fleet.node.deaths, 1, "{}", fleet.logs());
    for event in &events {
        assert_eq!(event["data"]["what"], "egress", "{event}");
        assert_eq!(event["data"]["node"], node.as_str(), "{event}");
    }
    // Neither the report nor that it was given up waits any more.
    fleet.until("nothing waits", |_| {
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        read("egress").is_empty() && read("dropped.json") == "[]"
    });
}
