//! Whole-system tests: the real binary, a real state directory, the real kernel.
//!
//! Each test gets a place of its own: an empty state directory, an environment with nothing but a path,
//! no server of anybody else. What enters is a command line; what leaves is what a person would see: an
//! exit code, the two streams, and what is left on the machine afterwards.
//!
//! This room must never reach into another room: what it cannot see from outside, nobody can. It must
//! never wait a fixed time for something to happen: it looks until it has, or until patience ends.

pub mod postgres;

use rustix::process::{Pid, Signal};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No step of a test takes longer on a machine that works, however busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A place of its own for one test.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

/// The program under test: named by `COFFERDAM_BIN`, or beside the tests.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("COFFERDAM_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a test has a path");
    let beside = own
        .ancestors()
        .nth(2)
        .map(|dir| dir.join("cofferdam"))
        .unwrap_or_default();
    assert!(
        beside.exists(),
        "build it first: cargo build -p cofferdam ({})",
        beside.display()
    );
    beside
}

/// Sandboxes that outlived a server that was killed would live on to their deadlines.
impl Drop for Place {
    fn drop(&mut self) {
        for guest in guests(&self.state()) {
            let _ = rustix::process::kill_process(guest, Signal::KILL);
        }
    }
}

impl Place {
    /// An empty state directory and an empty working directory.
    pub fn new() -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("work")).expect("a working directory");
        Place { dir }
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The working directory of commands.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// A command line of the program, with nothing in its environment but a path.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.clean(&program());
        command.args(args);
        command
    }

    /// Runs a line of the shell in which `$0` is the program.
    pub fn shell(&self, line: &str) -> Output {
        let mut command = self.clean(Path::new("sh"));
        command.args(["-c", line]).arg(program());
        command.output().expect("a shell starts")
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that clears what a child inherits"
    )]
    fn clean(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.dir.path())
            .env("COFFERDAM_STATE", self.state())
            .current_dir(self.work())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command line to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Runs a command line with this as its standard input.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("the program ends");
        writer.join().expect("the writer ends");
        output
    }

    /// Runs a command line and reads what it printed as JSON.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.run(args);
        let printed = serde_json::from_slice(&output.stdout);
        assert!(printed.is_ok(), "{args:?} printed no JSON: {output:?}");
        printed.expect("JSON, which was just checked")
    }

    /// Starts a server here, and waits until it answers.
    pub fn up(&self, args: &[&str], env: &[(&str, &str)]) -> Server {
        let mut command = self.command(&["up", "--no-listen"]);
        command.args(args).envs(env.iter().copied());
        self.serve(command)
    }

    /// The same, listening on this address too.
    pub fn up_at(&self, address: &str, args: &[&str]) -> Server {
        let mut command = self.command(&["up", "--listen", address]);
        command.args(args);
        self.serve(command)
    }

    /// The same, with this in its environment.
    pub fn up_at_with(&self, address: &str, args: &[&str], env: &[(&str, &str)]) -> Server {
        let mut command = self.command(&["up", "--listen", address]);
        command.args(args).envs(env.iter().copied());
        self.serve(command)
    }

    /// The same as root, where names are asked for as this file says in place of `/etc/resolv.conf`.
    pub fn up_resolving(&self, resolv: &Path, args: &[&str]) -> Server {
        let script = "mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"";
        let mut command = self.clean(Path::new("unshare"));
        command
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-ec", script, "sh"])
            .arg(resolv)
            .arg(program())
            .args(["up", "--no-listen"])
            .args(args);
        self.serve(command)
    }

    fn serve(&self, mut command: Command) -> Server {
        command.stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let stderr = child.stderr.take().expect("a pipe");
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let mut stderr = stderr;
            // What is no text is not ours.
            drop(stderr.read_to_string(&mut text));
            text
        });
        let mut server = Server {
            child,
            log: Some(log),
            socket: self.state().join("cofferdam.sock"),
        };
        server.wait_until_ready();
        server
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Option<std::thread::JoinHandle<String>>,
    socket: PathBuf,
}

impl Server {
    fn wait_until_ready(&mut self) {
        let ready = until(|| {
            let answers = std::os::unix::net::UnixStream::connect(&self.socket).is_ok();
            answers || self.child.try_wait().is_ok_and(|status| status.is_some())
        });
        assert!(ready, "the server does not answer");
    }

    /// Kills it as nothing can be prepared for.
    pub fn kill(mut self) -> String {
        drop(self.child.kill());
        drop(self.child.wait());
        self.take_log()
    }

    /// Asks it to end, and waits until it has.
    pub fn end(mut self) -> (ExitStatus, String) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::TERM));
        let status = self.child.wait().expect("the server ends");
        (status, self.take_log())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn take_log(&mut self) -> String {
        self.log
            .take()
            .and_then(|log| log.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The points that a server with `COFFERDAM_DIE_AT=trace` has visited, by its log: `NAME#N` for the Nth time.
pub fn visited(log: &str) -> Vec<String> {
    let mut seen = std::collections::HashMap::<&str, u32>::new();
    let names = log.lines().filter_map(|line| line.split("point ").nth(1));
    let numbered = names.map(|name| {
        let count = seen.entry(name).or_default();
        *count += 1;
        format!("{name}#{count}")
    });
    numbered.collect()
}

/// Looks until it is so, or patience ends.
pub fn until(mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Sends a request over the Unix socket as curl would, and returns the status and the body; 0 when there
/// is no server any more.
pub fn http(socket: &Path, request: &str) -> (u16, String) {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(mut stream) => exchange(&mut stream, request),
        Err(_) => (0, String::new()),
    }
}

/// Sends a request over a TCP port.
pub fn http_tcp(address: &str, request: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(address).expect("a server");
    exchange(&mut stream, request)
}

fn exchange(stream: &mut (impl std::io::Read + std::io::Write), request: &str) -> (u16, String) {
    // A server that refuses a body before it was sent whole has closed its end; it has answered.
    drop(stream.write_all(request.as_bytes()));
    let mut answer = Vec::new();
    // A server that closes early has answered before.
    drop(stream.read_to_end(&mut answer));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let body = text
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default();
    (status, body)
}

/// What sandboxes of this place have left on the machine: processes, control groups, directories.
pub fn left_behind(place: &Place) -> Vec<String> {
    let mut left = Vec::new();
    for node in entries(&place.state().join("nodes")) {
        for kind in ["jobs", "sandboxes", "linux/sandboxes", "fake"] {
            left.extend(
                entries(&node.join(kind))
                    .iter()
                    .map(|path| path.display().to_string()),
            );
        }
    }
    left.extend(
        guests(&place.state())
            .iter()
            .map(|pid| format!("process {}", pid.as_raw_nonzero())),
    );
    left
}

/// The first processes of the sandboxes of a state directory: the children of its launchers.
pub fn guests(state: &Path) -> Vec<Pid> {
    let state = state.to_string_lossy();
    let numbers = entries(Path::new("/proc"));
    let pids = numbers
        .iter()
        .filter_map(|dir| dir.file_name()?.to_str()?.parse::<i32>().ok());
    let launchers = pids.filter(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // A child has the launcher's arguments until it is the guest.
        line.starts_with("cofferdam-jail\0") && line.contains(&*state)
    });
    let children = launchers.flat_map(|pid| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .split(' ')
            .filter_map(|pid| pid.parse().ok())
            .collect::<Vec<i32>>()
    });
    children.filter_map(Pid::from_raw).collect()
}

/// Control groups that belong to a sandbox.
pub fn groups_of(sandbox: &str) -> Vec<PathBuf> {
    let roots = entries(Path::new("/sys/fs/cgroup"));
    let all = roots.into_iter().chain([PathBuf::from("/sys/fs/cgroup")]);
    all.map(|root| root.join("cofferdam").join(sandbox))
        .filter(|path| path.exists())
        .collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Ends the test where no sandbox can be made.
#[macro_export]
macro_rules! needs_sandbox {
    () => {
        if let Some(why) = $crate::no_sandbox() {
            println!("skipped: {why}");
            return;
        }
    };
}

/// A port that nobody listens on. Somebody may take it before we do; nobody here is that fast.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("a port of the loopback").port()
}

/// A process that dies with this.
#[derive(Debug)]
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a command line that succeeded has printed.
pub fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", all(output));
    text(&output.stdout)
}

/// Both streams of a command line that has ended.
pub fn all(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Whether a file below the directory has these bytes.
pub fn is_told_in(dir: &Path, told: &str) -> bool {
    // What goes away meanwhile tells nothing.
    entries(dir).iter().any(|path| {
        if path.is_dir() {
            return is_told_in(path, told);
        }
        let bytes = match path.is_file() {
            true => std::fs::read(path).unwrap_or_default(),
            false => Vec::new(),
        };
        bytes
            .windows(told.len())
            .any(|part| part == told.as_bytes())
    })
}

/// What a program has written, for a person.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Why no real sandbox can be made here, if none can; a test that needs one prints it and ends.
pub fn no_sandbox() -> Option<String> {
    let place = Place::new();
    let output = place.run(&["doctor", "--json"]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let failed = findings
        .as_array()?
        .iter()
        .find(|finding| finding["verdict"] == "fail")?;
    Some(format!(
        "no sandbox can be made here: {}",
        failed["found"].as_str()?
    ))
}
