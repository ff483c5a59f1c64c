//! Who uses the fleet meanwhile: jobs whose output is known, and people who are attached to one or to a sandbox.

use crate::world::World;
use e2e::{http, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Who bring jobs at a time, and how long each pauses between two.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(1000);
/// Lines of the outputs that jobs have, in turns: from nothing to more than one report carries.
const LINES: [usize; 5] = [0, 3, 40, 400, 8000];
/// A stream that is broken says so. One that does not within this time (`timeout(1)`) hangs.
const STREAM_S: &str = "90";

/// What one job writes.
pub(crate) fn expected(tag: usize) -> String {
    let lines = LINES[tag % LINES.len()];
    (0..lines).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "chaos {tag} line {line}");
        text
    })
}

/// Whether it may be started again.
pub(crate) fn may_run_again(tag: usize) -> bool {
    tag / LINES.len() % 2 == 1
}

/// It takes up to three seconds, so that something happens to it meanwhile.
fn asked(tag: usize) -> String {
    let lines = LINES[tag % LINES.len()];
    let script = format!(
        "i=0; while [ $i -lt {lines} ]; do echo \"chaos {tag} line $i\"; i=$((i+1)); \
         [ $((i % {})) -ne 0 ] || sleep 0.5; done; sleep 0.5",
        lines.div_ceil(5).max(1)
    );
    let attempts = if may_run_again(tag) { 3 } else { 1 };
    json!({"argv": ["sh", "-c", script], "retry": {"max_attempts": attempts}}).to_string()
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Load {
    next: AtomicUsize,
    over: AtomicBool,
    /// The job that was told for each tag.
    pub(crate) jobs: Mutex<BTreeMap<usize, String>>,
    /// How often each answer came that was no job: the status and the code.
    pub(crate) refused: Mutex<BTreeMap<String, usize>>,
    /// Streams by how they ended.
    pub(crate) streams: Mutex<BTreeMap<&'static str, usize>>,
    /// What must not be.
    pub(crate) wrong: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics under this lock")
}

impl Load {
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn wrong(&self, what: String) {
        locked(&self.wrong).push(what);
    }

    fn count(&self, kind: &'static str) {
        *locked(&self.streams).entry(kind).or_default() += 1;
    }

    /// Starts everybody. They end after [`Load::end`], each when what it began is over.
    pub(crate) fn begin<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        world: &World,
    ) {
        for _ in 0..CLIENTS {
            let sockets = world.sockets();
            scope.spawn(move || self.bring(&sockets));
        }
        for number in 0..2 {
            let name = format!("attached {number}");
            let script = format!("echo {name}; sleep 1; echo end");
            let command = world.command_at(number, &["run", "--", "sh", "-c", &script]);
            let mut run = streaming(&command);
            let expect = format!("{name}\nend\n");
            scope.spawn(move || {
                while !self.is_over() {
                    self.stream(&mut run, &expect);
                }
            });
        }
        let commands = Sandbox::commands(world);
        scope.spawn(move || self.live(commands));
    }

    /// A request that was not answered goes to the next server, with the same key.
    fn bring(&self, sockets: &[PathBuf]) {
        while !self.is_over() {
            let tag = self.next.fetch_add(1, Ordering::Relaxed);
            let body = asked(tag);
            let request = format!(
                "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                 idempotency-key: chaos-job-{tag:04}\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut tries = tag;
            let done = until(|| {
                let socket = &sockets[tries % sockets.len()];
                tries += 1;
                let (status, answer) = http(socket, &request);
                let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
                if let Some(id) = answer["id"]
                    .as_str()
                    .filter(|_| (200..300).contains(&status))
                {
                    locked(&self.jobs).insert(tag, id.to_owned());
                    return true;
                }
                let code = answer["code"].as_str().unwrap_or("none");
                let kind = format!("{status} {code}");
                let is_fine = status == 0 || answer["retryable"] == true;
                if !is_fine {
                    self.wrong(format!(
                        "a request for a job was answered with {kind}: {answer}"
                    ));
                }
                *locked(&self.refused).entry(kind).or_default() += 1;
                std::thread::sleep(Duration::from_millis(100));
                false
            });
            if !done {
                self.wrong(format!("nobody took job {tag} within a minute"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// All of it and success, or an end that says that it is none.
    fn stream(&self, command: &mut Command, expect: &str) -> bool {
        let ended = command.output().expect("it starts");
        let wrote = String::from_utf8_lossy(&ended.stdout).into_owned();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let code = ended.status.code();
        let whole = ended.status.success() && wrote == expect;
        if whole {
            self.count("whole");
        } else if code == Some(124) && said.is_empty() {
            self.wrong(format!("a stream hung: {command:?} {wrote}"));
        } else if ended.status.success() || !expect.starts_with(&wrote) {
            self.wrong(format!(
                "a stream is not what was written: {wrote:?} {said}"
            ));
        } else if said.is_empty() {
            self.wrong(format!(
                "a stream ended and nothing was said: {code:?} {wrote:?}"
            ));
        } else {
            self.count("broken, with an error");
            std::thread::sleep(Duration::from_millis(100));
        }
        whole
    }

    /// Somebody who works in a sandbox, and makes another when it is gone.
    fn live(&self, mut commands: Sandbox) {
        let mut made: Option<String> = None;
        while !self.is_over() {
            let Some(id) = &made else {
                let said = commands.create.output().expect("it starts");
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                let id = said
                    .split_whitespace()
                    .next()
                    .filter(|id| id.starts_with("sbx_"));
                made = id.map(str::to_owned);
                self.count(if made.is_some() {
                    "sandboxes made"
                } else {
                    "sandboxes not made"
                });
                std::thread::sleep(Duration::from_millis(200));
                continue;
            };
            let line = "echo in; sleep 0.5; echo out";
            let mut exec = commands.exec(id, &["sh", "-c", line]);
            if !self.stream(&mut exec, "in\nout\n") {
                let seen = commands.get(id);
                let state = seen["state"].as_str();
                if state.is_some_and(|state| !matches!(state, "ready" | "provisioning")) {
                    self.count("sandboxes lost with their node");
                    made = None;
                }
            }
        }
    }
}

/// The commands of who works in a sandbox.
#[derive(Debug)]
struct Sandbox {
    create: Command,
    template: Command,
    socket: PathBuf,
}

impl Sandbox {
    fn commands(world: &World) -> Sandbox {
        Sandbox {
            create: streaming(&world.command(&["sandbox", "create"])),
            // What is made at one server is used at the other.
            template: streaming(&world.command_at(1, &["sandbox", "exec"])),
            socket: world.socket(),
        }
    }

    fn exec(&self, id: &str, argv: &[&str]) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "what a child inherits is cleared below"
        )]
        let mut command = Command::new(self.template.get_program());
        command.args(self.template.get_args()).env_clear();
        for (name, value) in self.template.get_envs() {
            value.map(|value| command.env(name, value));
        }
        command.args([id, "--"]).args(argv);
        command.stdin(std::process::Stdio::null());
        command
    }

    fn get(&self, id: &str) -> Value {
        get(&self.socket, &format!("/v1/sandboxes/{id}"))
    }
}

/// A command line that is ended when it hangs.
fn streaming(plain: &Command) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "what a child inherits is cleared below"
    )]
    let mut command = Command::new("timeout");
    command
        .arg(STREAM_S)
        .arg(plain.get_program())
        .args(plain.get_args());
    command.env_clear();
    for (name, value) in plain.get_envs() {
        value.map(|value| command.env(name, value));
    }
    command.stdin(std::process::Stdio::null());
    command
}

/// Asks for JSON; null when there is no answer.
pub(crate) fn get(socket: &Path, path: &str) -> Value {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let (_, answer) = http(socket, &request);
    serde_json::from_str(&answer).unwrap_or_default()
}
