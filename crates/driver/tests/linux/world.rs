//! A place of its own for one test: a driver over an empty directory, and sandboxes in it.

use driver::conformance::{Prepared, Ran, command, spec};
use driver::driver::{Driver as _, DriverError, Ended, Handle, Plan, Spec};
use driver::guest::message::{Confine, Exited, FromGuest, Put, Start, Stream, ToGuest, VERSION};
use driver::guest::{Incoming, split};
use driver::host::Host;
use driver::linux::{Linger, Linux};
use model::spec::AskedLimits;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No step of a test takes longer on a machine that works, however busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What nobody asked for.
pub(crate) const DEFAULTS: AskedLimits = AskedLimits {
    cpu_millis: None,
    memory_bytes: None,
    pids: None,
    disk_bytes: None,
};

/// A driver, or the end of the test where no sandbox can be made.
macro_rules! world {
    () => {
        match crate::world::World::new() {
            Ok(world) => world,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        }
    };
}

/// A driver and the machine it makes plans for.
pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) linux: Linux,
    pub(crate) dir: TempDir,
}

impl World {
    /// On this machine. Its sandboxes die with it.
    pub(crate) fn new() -> Result<World, String> {
        World::on(Host::probe(), Linger::No)
    }

    /// On a machine that is described otherwise than it is.
    pub(crate) fn on(host: Host, linger: Linger) -> Result<World, String> {
        if let Some(why) = &host.no_user_namespaces {
            return Err(why.clone());
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = dir.path().join("state");
        let linux = Linux::new(&state, host.clone(), linger).expect("a driver");
        Ok(World { host, linux, dir })
    }

    /// A sandbox whose first process is confined and waits.
    pub(crate) async fn sandbox(&self, limits: AskedLimits) -> Prepared {
        self.start(&spec(limits), |_| {}).await
    }

    /// The same with a confinement that differs from the plan's.
    pub(crate) async fn start(&self, spec: &Spec, change: impl FnOnce(&mut Confine)) -> Prepared {
        let mut plan = self.linux.plan(spec, &self.host).expect("a plan");
        change(&mut plan.confine);
        self.linux.start(&plan).await.expect("a sandbox");
        let mut prepared = connect(&self.linux, plan).await;
        let confine = ToGuest::Confine(prepared.plan.confine.clone());
        say(&mut prepared, &confine).await;
        let message = prepared.message().await.expect("an answer");
        assert_eq!(message, FromGuest::Confined);
        prepared
    }

    /// What a script writes, in a default sandbox of its own. It must succeed.
    pub(crate) async fn sh(&self, script: &str) -> String {
        let ran = self.run(DEFAULTS, &["sh", "-c", script]).await;
        assert_eq!(ran.exited.code, Some(0), "{script}: {ran:?}");
        text(&ran.stdout)
    }

    /// How a command ends in a sandbox of its own.
    pub(crate) async fn run(&self, limits: AskedLimits, argv: &[&str]) -> Ran {
        let mut prepared = self.sandbox(limits).await;
        let ran = prepared.run(command(argv)).await.expect("an end");
        self.destroy(&prepared).await;
        ran
    }

    pub(crate) async fn destroy(&self, prepared: &Prepared) {
        let destroyed = self.linux.destroy(&prepared.plan.handle).await;
        destroyed.expect("nothing left of it");
    }

    /// How a sandbox ended, or why nobody can tell.
    pub(crate) async fn ended(&self, handle: &Handle) -> Result<Ended, DriverError> {
        let ended = tokio::time::timeout(PATIENCE, self.linux.ended(handle)).await;
        ended.expect("the end of a sandbox")
    }

    /// A script that runs on while the test looks at its sandbox, in which `ready` was said.
    pub(crate) async fn live(&self, limits: AskedLimits, script: &str) -> Live {
        Live::start(self.sandbox(limits).await, script).await
    }
}

/// Connects to the guest of a sandbox that was started, and says hello.
pub(crate) async fn connect(linux: &Linux, plan: Plan) -> Prepared {
    let stream = linux.connect(&plan.handle).await.expect("a guest");
    let (reader, writer) = split(stream);
    let mut prepared = Prepared {
        plan,
        reader,
        writer,
    };
    let hello = ToGuest::Hello {
        version: VERSION,
        stdout: 0,
        stderr: 0,
    };
    say(&mut prepared, &hello).await;
    let answer = prepared.message().await.expect("a guest that answers");
    assert!(matches!(answer, FromGuest::Hello { .. }), "{answer:?}");
    prepared
}

pub(crate) async fn say(prepared: &mut Prepared, message: &ToGuest) {
    prepared.writer.say(message).await.expect("a guest");
}

/// Puts a program into the sandbox, before its command starts.
pub(crate) async fn put(prepared: &mut Prepared, path: &str, bytes: &[u8]) {
    let announced = Put {
        path: path.to_owned(),
        mode: 0o755,
        size_bytes: bytes.len() as u64,
    };
    say(prepared, &ToGuest::Put(announced)).await;
    prepared.writer.file(bytes).await.expect("a guest");
    let answer = prepared.message().await.expect("an answer");
    assert_eq!(answer, FromGuest::PutDone);
}

/// A command that runs.
pub(crate) struct Live {
    pub(crate) prepared: Prepared,
    /// Its pid namespace as `/proc` names it, by which its processes are known outside.
    pub(crate) pid_ns: String,
    seen: String,
}

impl Live {
    /// Starts a script and waits until it has said `ready`.
    pub(crate) async fn start(prepared: Prepared, script: &str) -> Live {
        let script = format!("readlink /proc/self/ns/pid; {script}");
        Live::start_with(prepared, command(&["sh", "-c", &script])).await
    }

    /// The same with a command that names its pid namespace by itself, first of all.
    pub(crate) async fn start_with(mut prepared: Prepared, start: Start) -> Live {
        say(&mut prepared, &ToGuest::Start(start)).await;
        let mut live = Live {
            prepared,
            pid_ns: String::new(),
            seen: String::new(),
        };
        live.until("ready\n").await;
        let first = live.seen.lines().next().unwrap_or_default();
        live.pid_ns = first.to_owned();
        live
    }

    /// A command that was started over another connection, whose output comes again.
    pub(crate) fn resume(prepared: Prepared, pid_ns: &str) -> Live {
        Live {
            prepared,
            pid_ns: pid_ns.to_owned(),
            seen: String::new(),
        }
    }

    /// Reads until the command has written this.
    pub(crate) async fn until(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            let ended = self.step().await;
            assert!(ended.is_none(), "{ended:?} after {:?}", self.seen);
        }
    }

    /// Reads to the end of the command.
    pub(crate) async fn end(&mut self) -> (Exited, String) {
        loop {
            if let Some(exited) = self.step().await {
                return (exited, self.seen.clone());
            }
        }
    }

    async fn step(&mut self) -> Option<Exited> {
        let next = tokio::time::timeout(PATIENCE, self.prepared.reader.next()).await;
        match next.expect("a guest that speaks").expect("a guest") {
            Incoming::Output(stream, bytes) => {
                if stream == Stream::Stdout {
                    self.seen.push_str(&text(&bytes));
                    let offset = self.seen.len() as u64;
                    say(&mut self.prepared, &ToGuest::Ack { stream, offset }).await;
                }
                None
            }
            Incoming::Message(FromGuest::Exited(exited)) => Some(exited),
            Incoming::Message(FromGuest::Started { failure }) => {
                assert_eq!(failure, None);
                None
            }
            Incoming::Message(_) | Incoming::File(_) => None,
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks until it is so. False when patience ended before.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if is_so() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_so()
}
