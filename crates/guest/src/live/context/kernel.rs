//! A kernel: the process of a context that runs its code.

use super::super::facts::End;
use super::super::processes::{Config, Launched, Streams, launch, retire};
use super::super::{Live, Stream, pump, rpc};
use super::event::{self, Said, Which};
use super::language::Language;
use super::lines::{Broken, Line, Lines};
use super::output::{self, Output};
use super::record::Step;
use super::stream::Run;
use super::{Code, Failure, State};
use crate::process::Reaped;
use guest::message::Start;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

/// From the fork until a kernel can run code. A Python does it in 20 ms, unless everything stands still.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long code that was interrupted may go on. A library that computes without looking up needs some
/// time; after it the kernel is killed, so that the context can be used again.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is interrupted meanwhile. One that comes before the code has begun is nobody's.
const INTERRUPT_AGAIN: Duration = Duration::from_secs(1);

/// Bytes of results of one execution.
const RESULTS_MAX: usize = 64 << 20;

/// It lives as long as this.
#[derive(Debug)]
pub(super) struct Kernel {
    live: Rc<Live>,
    state: Rc<State>,
    language: Language,
    channel: Stream,
    lines: Lines,
    stdout: Output,
    stderr: Output,
    dead: oneshot::Receiver<Reaped>,
    is_ready: bool,
    /// Executions so far.
    count: u64,
    /// How a shell's last command ended.
    exit: i32,
}

/// Why a kernel runs no more code.
#[derive(Debug)]
pub(super) enum Ended {
    Died(Reaped),
    Broken(&'static str),
}

impl Ended {
    /// For the record.
    pub(super) fn end(&self) -> End {
        match self {
            Ended::Broken(_) => End::Unknown,
            Ended::Died(reaped) => End::of(reaped, false),
        }
    }

    /// For a person.
    pub(super) fn why(&self) -> String {
        match self {
            Ended::Broken(why) => format!("the interpreter was killed: {why}"),
            Ended::Died(reaped) => {
                let how = pump::status(reaped);
                let memory = match reaped.signal {
                    Some(libc::SIGKILL) => "; it may have wanted more memory than there is",
                    _ => "",
                };
                format!("the interpreter has ended ({how}){memory}")
            }
        }
    }
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Ended {
        Ended::Broken(match broken {
            Broken::Closed => "its connection was closed from inside",
            Broken::TooLong => "a result was longer than 10 MiB",
        })
    }
}

const GARBAGE: Ended = Ended::Broken("its connection was written to from inside");

/// What happens while code runs.
#[derive(Debug)]
enum Next {
    Asked(io::Result<()>),
    Output(Which, Vec<u8>),
    Said(Result<Line, Broken>),
    Dead(Option<Reaped>),
    Gone,
    Late,
    Held,
}

/// One execution.
#[derive(Debug)]
struct Turn<'r> {
    run: &'r Run,
    live: &'r Live,
    step: &'r mut Step,
    /// Bytes of its results so far.
    shown: usize,
    /// The client has gone, and this is when the kernel must have stopped.
    patience: Option<Instant>,
    /// This is when it is interrupted again.
    again: Option<Instant>,
    /// This is when what could be a credential is told, because nobody waits for it any longer.
    held: Option<Instant>,
}

impl Kernel {
    /// Starts an interpreter as a process of the workload.
    pub(super) async fn start(
        live: &Rc<Live>,
        state: &Rc<State>,
        language: Language,
        cwd: &str,
    ) -> Result<Kernel, Failure> {
        let broken = |error: io::Error| Failure::new(Code::Internal, error.to_string());
        let flags = SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) = pair.map_err(|errno| Failure::errno("make a socket", errno))?;
        let channel = output::socket(ours).map_err(broken)?;
        let begun = spawn(live, language, cwd, theirs).await?;
        state.pid.set(Some(begun.pid));
        let kernel = Kernel {
            live: live.clone(),
            state: state.clone(),
            language,
            channel,
            lines: Lines::new(live.contexts.large.clone()),
            stdout: Output::new(begun.stdout, live.cleaner()),
            stderr: Output::new(begun.stderr, live.cleaner()),
            dead: begun.dead,
            is_ready: false,
            count: 0,
            exit: 0,
        };
        // It reads this first of all, and all of it fits into the socket.
        let sent = timeout(START_PATIENCE, write_all(&kernel.channel, language.begin())).await;
        let late = |_| Failure::new(Code::Unavailable, "the interpreter does not start");
        sent.map_err(late)?.map_err(broken)?;
        Ok(kernel)
    }

    /// Runs code, and tells what comes of it, but not the end.
    pub(super) async fn run(&mut self, run: &Run, step: &mut Step) -> Result<(), Ended> {
        let request = self.begin(run).await?;
        // What was found in the output of nobody's code is in nobody's record.
        let _ = (self.stdout.found(), self.stderr.found());
        let live = self.live.clone();
        let mut turn = Turn::new(run, step, &live);
        let ended = self.follow(&mut turn, request).await;
        if ended.is_err() {
            // It may have written its last words and died between two looks at its output.
            turn.drain(&mut self.stdout, &mut self.stderr).await;
        }
        turn.rest(&mut self.stdout, &mut self.stderr).await;
        self.exit = ended?;
        Ok(())
    }

    /// Passes on what happens until the code has ended, and returns the code with which it did.
    async fn follow(&mut self, turn: &mut Turn<'_>, request: Vec<u8>) -> Result<i32, Ended> {
        let Kernel {
            channel,
            lines,
            stdout,
            stderr,
            dead,
            ..
        } = self;
        let asking = write_all(channel, request);
        tokio::pin!(asking);
        let mut is_asked = false;
        loop {
            let next = tokio::select! {
                asked = &mut asking, if !is_asked => Next::Asked(asked),
                bytes = stdout.read() => Next::Output(Which::Stdout, bytes),
                bytes = stderr.read() => Next::Output(Which::Stderr, bytes),
                line = lines.next(channel) => Next::Said(line),
                reaped = &mut *dead => Next::Dead(reaped.ok()),
                () = turn.run.events.closed(), if turn.patience.is_none() => Next::Gone,
                () = late(turn.again) => Next::Gone,
                () = late(turn.patience) => Next::Late,
                () = late(turn.held) => Next::Held,
            };
            match next {
                Next::Asked(asked) => {
                    if asked.is_err() {
                        return Err(died(dead).await);
                    }
                    is_asked = true;
                }
                Next::Output(Which::Stdout, bytes) => {
                    turn.output(Which::Stdout, stdout, &bytes).await
                }
                Next::Output(Which::Stderr, bytes) => {
                    turn.output(Which::Stderr, stderr, &bytes).await
                }
                Next::Gone => {
                    let now = Instant::now();
                    turn.patience.get_or_insert(now + INTERRUPT_PATIENCE);
                    turn.again = Some(now + INTERRUPT_AGAIN);
                    self.state.signal(&self.live.processes, libc::SIGINT);
                }
                Next::Held => turn.release(stdout, stderr).await,
                Next::Late => return Err(Ended::Broken("it did not stop when it was interrupted")),
                Next::Dead(reaped) => return Err(reaped.map_or(GARBAGE, Ended::Died)),
                Next::Said(line) => {
                    let line = match line {
                        Ok(line) => line,
                        // A kernel that dies closes its end too, and how it died says more.
                        Err(Broken::Closed) => return Err(died(dead).await),
                        Err(broken) => return Err(broken.into()),
                    };
                    turn.drain(stdout, stderr).await;
                    if let Some(exit) = turn.obey(&line).await? {
                        return Ok(exit);
                    }
                }
            }
        }
    }

    /// What it is to be told to run the code, once it can.
    async fn begin(&mut self, run: &Run) -> Result<Vec<u8>, Ended> {
        self.ready().await?;
        self.count += 1;
        run.tell(event::number(self.count)).await;
        Ok(self.language.request(&run.code, &run.env, self.exit))
    }

    /// Waits until it can run code. What it wrote before is nobody's.
    async fn ready(&mut self) -> Result<(), Ended> {
        if self.is_ready {
            return Ok(());
        }
        let first = timeout(START_PATIENCE, self.lines.next(&self.channel)).await;
        let line = match first {
            Ok(Ok(line)) => line,
            Ok(Err(Broken::Closed)) => return Err(self.last_words().await),
            Ok(Err(broken)) => return Err(broken.into()),
            Err(_) => return Err(Ended::Broken("it did not start")),
        };
        if !matches!(event::read(&line.bytes), Some(Said::Ready)) {
            return Err(GARBAGE);
        }
        self.stdout.drain();
        self.stderr.drain();
        self.is_ready = true;
        Ok(())
    }

    async fn last_words(&mut self) -> Ended {
        died(&mut self.dead).await
    }

    /// Lets what runs on in the background write, until the kernel is gone. What it shows comes too late.
    pub(super) async fn idle(&mut self) -> Ended {
        let Kernel {
            channel,
            lines,
            stdout,
            stderr,
            dead,
            ..
        } = self;
        loop {
            tokio::select! {
                bytes = stdout.read() => drop(stdout.text(&bytes)),
                bytes = stderr.read() => drop(stderr.text(&bytes)),
                reaped = &mut *dead => return reaped.map_or(GARBAGE, Ended::Died),
                line = lines.next(channel), if self.is_ready => match line {
                    Ok(line) if matches!(event::read(&line.bytes), Some(Said::Result(_))) => {}
                    Err(Broken::Closed) => return died(dead).await,
                    Err(broken) => return broken.into(),
                    Ok(_) => return GARBAGE,
                },
            }
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.state.signal(&self.live.processes, libc::SIGKILL);
        self.state.pid.set(None);
    }
}

impl<'r> Turn<'r> {
    fn new(run: &'r Run, step: &'r mut Step, live: &'r Live) -> Turn<'r> {
        Turn {
            run,
            live,
            step,
            shown: 0,
            patience: None,
            again: None,
            held: None,
        }
    }

    async fn output(&mut self, which: Which, output: &mut Output, bytes: &[u8]) {
        self.step.wrote(which, bytes.len());
        let text = output.text(bytes);
        self.step.found(output.found());
        if output.holds() {
            self.held
                .get_or_insert_with(|| Instant::now() + pump::HELD_SHAPE);
        }
        self.say(which, &text).await;
    }

    /// Tells what was held back and could still be a credential.
    async fn release(&mut self, stdout: &mut Output, stderr: &mut Output) {
        self.held = None;
        for (which, output) in [(Which::Stdout, stdout), (Which::Stderr, stderr)] {
            let text = output.release();
            self.say(which, &text).await;
        }
    }

    /// A line without what must not be told.
    fn clean(&mut self, line: Vec<u8>) -> Vec<u8> {
        let known = self.live.known.as_ref();
        let (line, found) = event::clean(known, self.live.serve.scrub_patterns, line);
        self.step.found(found);
        line
    }

    async fn say(&self, which: Which, text: &str) {
        if !text.is_empty() {
            self.run.tell(event::output(which, text, now_ns())).await;
        }
    }

    /// Tells what was written before something else was said.
    async fn drain(&mut self, stdout: &mut Output, stderr: &mut Output) {
        for (which, output) in [(Which::Stdout, stdout), (Which::Stderr, stderr)] {
            for bytes in output.drain() {
                self.output(which, output, &bytes).await;
            }
        }
    }

    async fn rest(&mut self, stdout: &mut Output, stderr: &mut Output) {
        for (which, output) in [(Which::Stdout, stdout), (Which::Stderr, stderr)] {
            let text = output.rest();
            self.step.found(output.found());
            self.say(which, &text).await;
        }
    }

    /// Passes on what the kernel said. At the end it is the code with which it ended, 0 where there is
    /// none.
    async fn obey(&mut self, line: &Line) -> Result<Option<i32>, Ended> {
        match event::read(&line.bytes).ok_or(GARBAGE)? {
            Said::Ready => Err(GARBAGE),
            Said::Result(shown) => {
                let before = self.shown;
                self.shown = before.saturating_add(line.bytes.len());
                if self.shown <= RESULTS_MAX {
                    let line = self.clean(shown.line());
                    self.run.tell(line).await;
                } else if before <= RESULTS_MAX {
                    let why =
                        "the results of one execution have at most 64 MiB; the rest is not shown";
                    self.run.tell(event::failed("ResultsTooLarge", why)).await;
                }
                Ok(None)
            }
            Said::Error(raised) => {
                self.step.end = End::raised(&raised.name());
                let line = self.clean(raised.line());
                self.run.tell(line).await;
                Ok(None)
            }
            Said::End(end) => {
                if let Some(exit) = end.exit.filter(|exit| *exit != 0) {
                    self.step.end = End::Exited { code: exit };
                    self.run
                        .tell(event::failed("ExitCode", &exit.to_string()))
                        .await;
                }
                Ok(Some(end.exit.unwrap_or(0)))
            }
        }
    }
}

/// How a kernel died that has closed its end. One that lives on without it is of no use.
async fn died(dead: &mut oneshot::Receiver<Reaped>) -> Ended {
    match timeout(Duration::from_millis(500), dead).await {
        Ok(Ok(reaped)) => Ended::Died(reaped),
        _ => Broken::Closed.into(),
    }
}

async fn late(patience: Option<Instant>) {
    match patience {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A process that was started for a kernel.
#[derive(Debug)]
struct Begun {
    pid: i32,
    stdout: Stream,
    stderr: Stream,
    dead: oneshot::Receiver<Reaped>,
}

async fn spawn(
    live: &Rc<Live>,
    language: Language,
    cwd: &str,
    theirs: OwnedFd,
) -> Result<Begun, Failure> {
    let user = super::user(live)?;
    let start = Start {
        argv: language.argv(),
        env: rpc::environment(live, user, &BTreeMap::new()),
        cwd: cwd.to_owned(),
        stdin: true,
        timeout_ms: 0,
        grace_ms: 0,
    };
    let config = Config {
        cmd: language.program().to_owned(),
        cwd: Some(cwd.to_owned()),
        ..Config::default()
    };
    let tag = format!("context:{}", language.name());
    let live = live.clone();
    // A client that leaves now must not leave half a process behind. Without us it reads the end of its
    // input, and goes too.
    let launching = tokio::task::spawn_local(async move {
        let streams = Streams::Socket(theirs);
        let launched = launch(live.clone(), user, start, streams, (config, Some(tag))).await;
        launched.and_then(|launched| mourn(live, launched))
    });
    let launched = launching.await;
    let broken = |error: tokio::task::JoinError| Failure::new(Code::Internal, error.to_string());
    launched.map_err(broken)?.map_err(|failure| {
        let why = format!("{} does not start: {}", language.program(), failure.message);
        Failure::new(failure.code, why)
    })
}

/// Follows the process to its end, as is done for every other, and passes its death on.
fn mourn(live: Rc<Live>, launched: Launched) -> Result<Begun, Failure> {
    let Launched {
        process,
        outputs,
        dead,
    } = launched;
    let pid = process.pid;
    let (to, passed_on) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let Ok(reaped) = dead.await else { return };
        let end = pump::end(&reaped);
        // Whoever had the kernel may have dropped it. A client who follows the process waits for nobody.
        drop(to.send(reaped));
        process.finish(end).await;
        retire(&live, process);
    });
    let none = || Failure::new(Code::Internal, "the process has no output");
    let (stdout, stderr) = outputs.ok_or_else(none)?;
    Ok(Begun {
        pid,
        stdout,
        stderr,
        dead: passed_on,
    })
}

async fn write_all(stream: &Stream, bytes: Vec<u8>) -> io::Result<()> {
    let mut left = bytes.as_slice();
    while !left.is_empty() {
        let write = |fd: &OwnedFd| {
            // A kernel that is gone is an error here, and no signal.
            let flags = rustix::net::SendFlags::NOSIGNAL;
            Ok(rustix::net::send(fd, left, flags)?)
        };
        let written = stream.async_io(Interest::WRITABLE, write).await?;
        left = left.get(written..).unwrap_or_default();
    }
    Ok(())
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
