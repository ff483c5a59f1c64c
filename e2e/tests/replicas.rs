//! Two servers on one PostgreSQL, and a node whose links one of them holds.
#![expect(
    clippy::print_stdout,
    reason = "what cannot be tried is said by what the tests share"
)]
#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

use e2e::postgres::Postgres;
use e2e::{Place, Process, free_port, guests, no_sandbox, until};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Two servers, by number, and one node that knows both.
struct Two {
    place: Place,
    postgres: Postgres,
    ports: [u16; 2],
    servers: [Option<Process>; 2],
    /// Where each listens for clients, if they do.
    listen: Option<[u16; 2]>,
    node: Option<Process>,
}

impl Drop for Two {
    /// Sandboxes of a node that was killed would live on to their deadlines.
    fn drop(&mut self) {
        drop(self.node.take());
        for guest in guests(&self.node_state()) {
            let _ = rustix::process::kill_process(guest, Signal::KILL);
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the second server needs a copy of.
const SHARED: [&str; 2] = ["node-authority.json", "secret.key"];
/// And of two that listen for clients.
const TOKEN: &str = "token";

impl Two {
    /// The first server, with nobody beside it; `None` where none can run.
    fn start() -> Option<Two> {
        let postgres = match Postgres::start() {
            Ok(postgres) => postgres,
            Err(why) => {
                println!("skipped: {why}");
                return None;
            }
        };
        let two = Two {
            place: Place::new(),
            postgres,
            ports: [free_port(), free_port()],
            servers: [None, None],
            listen: None,
            node: None,
        };
        for number in [0, 1] {
            two.configure(number, "blobs");
        }
        Some(two)
    }

    fn state(&self, number: usize) -> PathBuf {
        self.place.work().join(format!("server{number}"))
    }

    fn node_state(&self) -> PathBuf {
        self.place.work().join("node")
    }

    fn configure(&self, number: usize, blobs: &str) {
        let listen = self.listen.map(|ports| ports[number]);
        let listen = listen.map(|port| format!("listen = \"127.0.0.1:{port}\"\n"));
        let listen = listen.unwrap_or_default();
        let config = format!(
            "[server]\nstate = \"{}\"\ndatabase = \"{}\"\nblobs = \"{}\"\nname = \"s{number}\"\n\
             {listen}[server.nodes]\nlisten = \"127.0.0.1:{}\"\nnames = [\"127.0.0.1\"]\n",
            self.state(number).display(),
            self.postgres.address(),
            self.place.work().join(blobs).display(),
            self.ports[number],
        );
        let file = self.place.work().join(format!("server{number}.toml"));
        std::fs::write(file, config).unwrap();
    }

    fn command(&self, number: usize, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command.env("COFFERDAM_STATE", self.state(number));
        command
    }

    /// Runs a command line at one of the servers.
    fn at(&self, number: usize, args: &[&str]) -> Output {
        self.command(number, args).output().unwrap()
    }

    fn json_at(&self, number: usize, args: &[&str]) -> Value {
        serde_json::from_slice(&self.at(number, args).stdout).unwrap_or_default()
    }

    fn log(&self, name: &str) -> Stdio {
        let path = self.place.work().join(name);
        let mut options = std::fs::File::options();
        options.create(true).append(true).open(path).unwrap().into()
    }

    fn logs(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.place.work().join(name));
        let all = ["server0.log", "server1.log", "node.log"];
        let all = all.map(|name| format!("{name}:\n{}", read(name).unwrap_or_default()));
        all.concat()
    }

    fn spawn_server(&mut self, number: usize) {
        let file = format!("server{number}.toml");
        let mut command = self.command(number, &["server", "--config", &file]);
        command.stderr(self.log(&format!("server{number}.log")));
        self.servers[number] = Some(Process(command.spawn().unwrap()));
    }

    fn start_server(&mut self, number: usize) {
        self.spawn_server(number);
        self.comes_up(number);
    }

    fn comes_up(&self, number: usize) {
        let socket = self.state(number).join("cofferdam.sock");
        let is_up = until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
        assert!(is_up, "{}", self.logs());
    }

    fn kill_database(&self) {
        for process in self.postgres.processes() {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
    }

    /// Whether a server has said so often by now that its database does not answer.
    fn has_waited(&self, number: usize, times: usize) -> bool {
        let log = self.place.work().join(format!("server{number}.log"));
        let said = std::fs::read_to_string(log).unwrap_or_default();
        said.matches("the database does not answer").count() == times
    }

    /// Kills it as a power cut would.
    fn kill_server(&mut self, number: usize) {
        drop(self.servers[number].take());
    }

    fn share(&self) {
        for name in SHARED {
            std::fs::copy(self.state(0).join(name), self.state(1).join(name)).unwrap();
        }
        if self.listen.is_some() {
            std::fs::copy(self.state(0).join(TOKEN), self.state(1).join(TOKEN)).unwrap();
        }
    }

    fn start_node(&mut self) {
        let token = text(&self.at(0, &["node", "enroll-token"]));
        let url = format!("https://127.0.0.1:{}", self.ports[0]);
        let mut enroll = self.place.command(&["node", "enroll", "--server", &url]);
        enroll.arg("--state").arg(self.node_state());
        let enrolled = enroll.args(["--token", &token]).output().unwrap();
        assert!(enrolled.status.success(), "{enrolled:?}");
        let config = format!(
            "[node]\nstate = \"{}\"\nspares = 0\nslots = 4\nsandboxes = 4\n\
             server = [\"https://127.0.0.1:{}\", \"https://127.0.0.1:{}\"]\n",
            self.node_state().display(),
            self.ports[0],
            self.ports[1],
        );
        std::fs::write(self.place.work().join("node.toml"), config).unwrap();
        let mut command = self.place.command(&["node", "--config", "node.toml"]);
        command.stderr(self.log("node.log"));
        self.node = Some(Process(command.spawn().unwrap()));
        assert!(
            until(|| self.holder().as_deref() == Some("s0")),
            "{}",
            self.logs()
        );
    }

    /// Which server holds both links of the node, as the second server is told.
    fn holder(&self) -> Option<String> {
        let list = self.json_at(1, &["server", "ls", "--json"]);
        let holds = |server: &&Value| server["links"].as_array().is_some_and(|all| all.len() == 2);
        let holder = list["servers"].as_array()?.iter().find(holds)?;
        Some(holder["name"].as_str()?.to_owned())
    }

    fn exec_at(&self, number: usize, sandbox: &str, line: &str) -> String {
        let args = ["sandbox", "exec", sandbox, "--", "sh", "-c", line];
        text(&self.at(number, &args))
    }

    fn sandbox_at(&self, number: usize) -> String {
        let told = text(&self.at(number, &["sandbox", "create"]));
        let id = told
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        assert!(id.starts_with("sbx_"), "{told} {}", self.logs());
        id
    }
}

/// Two servers and a node; `None` where they cannot run.
fn fleet() -> Option<Two> {
    fleet_with(None)
}

/// The same, listening for clients on these ports.
fn fleet_with(listen: Option<[u16; 2]>) -> Option<Two> {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return None;
    }
    let mut two = Two::start()?;
    two.listen = listen;
    for number in [0, 1] {
        two.configure(number, "blobs");
    }
    two.start_server(0);
    std::fs::create_dir_all(two.state(1)).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(two.state(1), private).unwrap();
    two.share();
    two.start_server(1);
    two.start_node();
    Some(two)
}

#[test]
fn a_server_that_has_something_else_than_the_others_does_not_start() {
    let Some(mut two) = Two::start() else { return };
    two.start_server(0);
    let start = |two: &Two, more: &[&str]| {
        let args = [&["server", "--config", "server1.toml"], more].concat();
        two.command(1, &args).output().unwrap()
    };
    // Nothing was copied, so it has made an authority and a key of its own.
    let refused = said(&start(&two, &[]));
    assert!(
        refused.contains("master key of secrets is not that of the other"),
        "{refused}"
    );
    std::fs::copy(
        two.state(0).join("secret.key"),
        two.state(1).join("secret.key"),
    )
    .unwrap();
    let refused = said(&start(&two, &[]));
    assert!(
        refused.contains("node-authority.json is not that"),
        "{refused}"
    );
    two.share();
    two.configure(1, "other blobs");
    let refused = said(&start(&two, &[]));
    assert!(
        refused.contains("directory of blobs is not that"),
        "{refused}"
    );
    let early = said(&start(&two, &["--adopt", "blobs"]));
    assert!(early.contains("stop it first"), "{early}");
    two.configure(1, "blobs");
    two.start_server(1);
    let list = two.json_at(1, &["server", "ls", "--json"]);
    let heard = list["servers"].as_array().unwrap();
    assert!(
        heard.len() == 2 && heard.iter().all(|server| server["heard"] == true),
        "{list}"
    );
}

/// Several windows of a stream.
fn files_go_both_ways(two: &Two, sandbox: &str) {
    let (here, back) = (two.place.work().join("here"), two.place.work().join("back"));
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    std::fs::write(&here, &bytes).unwrap();
    let inside = format!("{sandbox}:/tmp/file");
    let up = two.at(1, &["sandbox", "cp", here.to_str().unwrap(), &inside]);
    assert!(up.status.success(), "{up:?} {}", two.logs());
    let summed = text(&two.place.shell("sha256sum < here"));
    assert_eq!(two.exec_at(0, sandbox, "sha256sum < /tmp/file"), summed);
    let down = two.at(1, &["sandbox", "cp", &inside, back.to_str().unwrap()]);
    assert!(
        down.status.success() && std::fs::read(&back).unwrap() == bytes,
        "{down:?}"
    );
}

/// What listens inside is found here.
fn a_port_is_reached(two: &Two, sandbox: &str) {
    let script = "echo hello > said; exec python3 -m http.server --bind 127.0.0.1 8000";
    let serves = two.at(
        1,
        &[
            "sandbox", "exec", "--detach", sandbox, "--", "sh", "-c", script,
        ],
    );
    assert!(serves.status.success(), "{serves:?}");
    let mut port = two.command(1, &["sandbox", "port", sandbox, "8000:0"]);
    let mut port = Process(port.stdout(Stdio::piped()).spawn().unwrap());
    let mut address = String::new();
    BufReader::new(port.0.stdout.take().unwrap())
        .read_line(&mut address)
        .unwrap();
    let get = || {
        let mut stream = std::net::TcpStream::connect(address.trim()).ok()?;
        stream.write_all(b"GET /said HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    assert!(
        until(|| get().is_some_and(|answer| answer.ends_with("hello\n"))),
        "{}",
        two.logs()
    );
}

#[test]
fn everything_reaches_the_node_from_the_server_that_does_not_hold_its_links() {
    let Some(mut two) = fleet() else { return };
    let sandbox = two.sandbox_at(1);
    assert_eq!(
        two.exec_at(1, &sandbox, "echo out; echo err >&2"),
        "out",
        "{}",
        two.logs()
    );
    // A job with its streams, by the bulk link.
    let mut job = two.command(1, &["run", "--", "sh", "-c", "cat; echo done"]);
    let mut job = job
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    job.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let ran = job.wait_with_output().unwrap();
    assert_eq!(text(&ran), "in\ndone", "{ran:?} {}", two.logs());
    files_go_both_ways(&two, &sandbox);
    a_port_is_reached(&two, &sandbox);
    // A terminal.
    let line = format!(
        "printf 'echo a-$((6*7)); exit\\n' | COFFERDAM_STATE={} script -qec \"$0 sandbox shell {sandbox}\" /dev/null",
        two.state(1).display()
    );
    let shell = two.place.shell(&line);
    assert!(text(&shell).contains("a-42"), "{shell:?} {}", two.logs());
    // What was made at one is seen at the other.
    let gone = two.at(0, &["sandbox", "rm", &sandbox]);
    assert!(gone.status.success(), "{gone:?}");
    let seen = two.json_at(1, &["sandbox", "get", &sandbox, "--json"]);
    assert_ne!(seen["state"], "ready", "{seen}");
    two.kill_server(0);
}

/// What the official SDK of E2B does with a sandbox; its file is written by one process and read by another.
const E2B: &str = "
from e2b import Sandbox
sandbox = Sandbox.create(timeout=60)
assert sandbox.commands.run('echo by $((6*7))').stdout == 'by 42\\n'
sandbox.files.write('/tmp/a', 'b')
assert sandbox.commands.run('cat /tmp/a').stdout == 'b'
sandbox.kill()
";

/// Each Python that has the SDK, at the second server.
fn by_e2b(two: &Two) {
    let printed = text(&two.at(1, &["env", "e2b"]));
    let lines = printed.lines();
    let pairs = lines.filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    let pairs: Vec<(&str, &str)> = pairs.collect();
    let list = std::env::var_os("COFFERDAM_E2B_PYTHON").unwrap_or_default();
    let pythons: Vec<_> = std::env::split_paths(&list)
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if pythons.is_empty() {
        println!("skipped: COFFERDAM_E2B_PYTHON names no Python with the SDK of E2B");
    }
    for python in pythons {
        #[expect(
            clippy::disallowed_methods,
            reason = "the environment is cleared at once, and the program is the test's"
        )]
        let mut command = Command::new(&python);
        command.env_clear().envs(pairs.iter().copied());
        let ran = command.args(["-c", E2B]).output().unwrap();
        assert!(ran.status.success(), "{ran:?} {}", two.logs());
    }
}

/// A tool for models, on stdio.
fn by_mcp(two: &Two) {
    let mut command = two.command(1, &["mcp"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut wire = Process(command.spawn().unwrap());
    let mut to = wire.0.stdin.take().unwrap();
    let mut from = BufReader::new(wire.0.stdout.take().unwrap());
    let mut ask = |message: &str, id: Option<u64>| -> Value {
        to.write_all(format!("{message}\n").as_bytes()).unwrap();
        loop {
            let Some(id) = id else { return Value::Null };
            let mut line = String::new();
            assert!(from.read_line(&mut line).unwrap() > 0, "it has ended");
            let said: Value = serde_json::from_str(&line).unwrap();
            if said["id"] == id {
                return said;
            }
        }
    };
    let begin = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",
        "capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
    ask(&begin.replace('\n', ""), Some(1));
    ask(
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        None,
    );
    let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"run",
        "arguments":{"command":"echo model-$((6*7))"}}}"#;
    let said = ask(&call.replace('\n', ""), Some(2)).to_string();
    assert!(said.contains("model-42"), "{said} {}", two.logs());
}

#[test]
fn models_sdks_and_who_follows_a_log_are_served_by_the_server_that_does_not_hold_the_links() {
    let Some(two) = fleet_with(Some([free_port(), free_port()])) else {
        return;
    };
    let script = "echo one; sleep 1; echo two";
    let job = text(&two.at(1, &["run", "--detach", "--", "sh", "-c", script]));
    let followed = text(&two.at(1, &["job", "logs", "--follow", &job]));
    assert_eq!(followed, "one\ntwo", "{}", two.logs());
    // Its node had told it to the other.
    assert_eq!(text(&two.at(0, &["job", "logs", &job])), "one\ntwo");
    by_mcp(&two);
    by_e2b(&two);
}

#[test]
fn when_the_server_that_holds_the_links_dies_the_node_dials_the_other() {
    let Some(mut two) = fleet() else { return };
    let sandbox = two.sandbox_at(1);
    let script = "echo begun; sleep 3; echo more > late; sleep 600";
    let args = [
        "sandbox", "exec", &sandbox, "--json", "--", "sh", "-c", script,
    ];
    let mut streaming = two.command(1, &args);
    streaming.stdout(Stdio::piped()).stderr(Stdio::piped());
    let streaming = streaming.spawn().unwrap();
    let begun = until(|| {
        two.exec_at(1, &sandbox, "pgrep -f 'sleep [36]'")
            .lines()
            .count()
            > 0
    });
    assert!(begun, "{}", two.logs());
    two.kill_server(0);
    let ended = streaming.wait_with_output().unwrap();
    let told = format!("{}{}", text(&ended), said(&ended));
    assert_eq!(ended.status.code(), Some(125), "{ended:?} {}", two.logs());
    assert!(
        told.contains("guest_unavailable") && told.contains("\"retryable\":true"),
        "{told}"
    );
    assert!(
        until(|| two.holder().as_deref() == Some("s1")),
        "{}",
        two.logs()
    );
    // What ran has gone on without anybody who listened.
    let is_late = || two.exec_at(1, &sandbox, "cat late") == "more";
    assert!(until(is_late), "{}", two.logs());
    assert!(!two.exec_at(1, &sandbox, "pgrep -f 'sleep 600'").is_empty());
    let job = text(&two.at(1, &["run", "--", "echo", "on"]));
    assert_eq!(job, "on", "{}", two.logs());
    // And back: the first one comes again, and asks the second.
    two.start_server(0);
    assert_eq!(
        two.exec_at(0, &sandbox, "cat late"),
        "more",
        "{}",
        two.logs()
    );
    let gone = two.at(0, &["sandbox", "rm", &sandbox]);
    assert!(gone.status.success(), "{gone:?}");
}

/// After a power cut both come back at once, and the database later.
#[test]
fn a_server_waits_for_its_database_and_ends_when_it_is_told_to() {
    let Some(mut two) = Two::start() else { return };
    two.kill_database();
    two.spawn_server(0);
    assert!(until(|| two.has_waited(0, 1)), "{}", two.logs());
    assert!(until(|| two.postgres.start_again()));
    two.comes_up(0);
    assert_eq!(said(&two.at(0, &["job", "ls"])).matches("error").count(), 0);
    two.kill_server(0);
    two.kill_database();
    two.spawn_server(0);
    assert!(until(|| two.has_waited(0, 2)), "{}", two.logs());
    let mut server = two.servers[0].take().unwrap();
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let mut ended = None;
    assert!(until(|| {
        ended = server.0.try_wait().unwrap();
        ended.is_some()
    }));
    assert_eq!(ended.unwrap().code(), Some(143), "{}", two.logs());
}
