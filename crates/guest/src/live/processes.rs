//! The processes that were asked for: those that run, and for a while those that have ended.

use super::ahead::{self, Begun};
use super::failure::{Code, Failure};
use super::protojson;
use super::user::User;
use super::{Live, Stream, register};
use crate::process::{self, Reaped, Status, Wanted};
use bytes::Bytes;
use guest::message::{Start, StartFailure};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Processes that were asked for and run, or whose output somebody still holds open. Each costs the
/// guest three descriptors and some kilobytes; what one starts itself is bounded by its limits.
const PROCESSES_MAX: u64 = 1024;

/// Descriptors that are not for processes: connections, tunnels with two ends, watches, files.
const DESCRIPTORS_KEPT: u64 = 1088;
/// Where the machine allows fewer, what is not there is seen when it is asked for.
const PROCESSES_MIN: u64 = 64;
/// Descriptors of one process, one more than it has once it runs.
const DESCRIPTORS_EACH: u64 = 4;

/// Processes whose end is still told to who comes late. They are small.
const ENDED_MAX: usize = 256;
/// How long it is told: longer than a client needs to connect again.
const ENDED_FOR: Duration = Duration::from_secs(30);

/// Pieces of output that wait for one subscriber; then the workload waits. Pieces are shared among
/// the subscribers of a process.
const QUEUE: usize = 4;

/// From the fork to the command nothing waits but for the processor, unless the workload stops the new
/// process on its way.
pub(super) const LAUNCH_PATIENCE: Duration = Duration::from_secs(10);

/// What runs, as clients write it and read it again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) cmd: String,
    pub(super) args: Vec<String>,
    pub(super) envs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<String>,
}

/// Which process is meant.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Selector {
    #[serde(deserialize_with = "protojson::number")]
    Pid(u32),
    Tag(String),
}

/// A process that was started.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) config: Config,
    pub(super) tag: Option<String>,
    /// Its standard input; the lock keeps the inputs of two requests apart.
    input: Mutex<Option<Stream>>,
    /// Our end of its terminal.
    pub(super) terminal: Option<Rc<Stream>>,
    subscribers: RefCell<Vec<mpsc::Sender<Bytes>>>,
    end: OnceCell<Bytes>,
    /// Bytes that it wrote to its output, or its terminal, and to its error output.
    pub(super) written: [Cell<u64>; 2],
    /// How many credentials were taken out of it by their shape.
    pub(super) patterns: Cell<u64>,
    /// One of [`PROCESSES_MAX`], as long as it runs.
    pub(super) slot: RefCell<Option<Rc<()>>>,
}

impl Process {
    /// What it says from now on, or its end if that was already.
    pub(super) fn subscribe(&self) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        match self.end.get() {
            // A new channel has room.
            Some(end) => drop(sender.try_send(end.clone())),
            None => self.subscribers.borrow_mut().push(sender),
        }
        receiver
    }

    /// Gives an event to all who listen, at the pace of the slowest. Without anybody it is dropped.
    pub(super) async fn publish(&self, event: Bytes) {
        let subscribers = self.subscribers.borrow().clone();
        for subscriber in &subscribers {
            // Who has left is taken off the list below.
            drop(subscriber.send(event.clone()).await);
        }
        self.subscribers
            .borrow_mut()
            .retain(|subscriber| !subscriber.is_closed());
    }

    /// Tells the end to all, those who come later included.
    pub(super) async fn finish(&self, end: Bytes) {
        drop(self.end.set(end.clone()));
        self.publish(end).await;
        self.subscribers.borrow_mut().clear();
    }

    /// Writes to its standard input, as fast as it reads.
    pub(super) async fn write_stdin(&self, bytes: &[u8]) -> Result<(), Failure> {
        let input = self.input.lock().await;
        let closed = || Failure::new(Code::FailedPrecondition, "stdin not enabled or closed");
        write_all(input.as_ref().ok_or_else(closed)?, bytes).await
    }

    /// Writes as if typed at its terminal.
    pub(super) async fn write_terminal(&self, bytes: &[u8]) -> Result<(), Failure> {
        let _alone = self.input.lock().await;
        let none = || Failure::new(Code::FailedPrecondition, "the process has no terminal");
        write_all(self.terminal.as_ref().ok_or_else(none)?, bytes).await
    }

    /// Ends its standard input, after what was written before.
    pub(super) async fn close_stdin(&self) -> Result<(), Failure> {
        if self.terminal.is_some() {
            let why = "a terminal is not closed; send it the byte 4";
            return Err(Failure::new(Code::FailedPrecondition, why));
        }
        *self.input.lock().await = None;
        Ok(())
    }

    pub(super) fn ended(&self) -> bool {
        self.end.get().is_some()
    }
}

async fn write_all(stream: &Stream, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
        let written = stream.async_io(Interest::WRITABLE, write).await;
        let gone = |_| Failure::new(Code::FailedPrecondition, "the process reads no more");
        bytes = bytes.get(written.map_err(gone)?..).unwrap_or_default();
    }
    Ok(())
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Processes {
    running: BTreeMap<i32, Rc<Process>>,
    ended: VecDeque<Rc<Process>>,
    /// Who wants to know of which death.
    waited: HashMap<i32, oneshot::Sender<Reaped>>,
    slots: Rc<()>,
    /// Processor time of all that were buried.
    cpu_us: u64,
}

impl Processes {
    /// Tells of the death of a child that was just made.
    pub(super) fn wait_for(&mut self, pid: i32) -> oneshot::Receiver<Reaped> {
        let (waiting, dead) = oneshot::channel();
        self.waited.insert(pid, waiting);
        dead
    }

    /// Tells of a death whoever waits for it. The others are children that somebody left behind.
    pub(super) fn bury(&mut self, dead: Reaped) {
        self.cpu_us += dead.cpu_us;
        if let Some(waiting) = self.waited.remove(&dead.pid) {
            // Who waited may have given up.
            drop(waiting.send(dead));
        }
    }

    /// Those that run, in the order of their numbers.
    pub(super) fn running(&self) -> impl Iterator<Item = &Rc<Process>> {
        self.running.values()
    }

    /// The one that is meant, if it runs.
    pub(super) fn find(&self, selector: &Selector) -> Result<Rc<Process>, Failure> {
        let found = self.running().find(|process| selector.means(process));
        found.cloned().ok_or_else(|| selector.missing())
    }

    /// The same with those that have ended a moment ago, the newest first.
    pub(super) fn find_ended_too(&self, selector: &Selector) -> Result<Rc<Process>, Failure> {
        self.find(selector).or_else(|missing| {
            let ended = self.ended.iter().rev();
            let mut ended = ended.filter(|process| selector.means(process));
            ended.next().cloned().ok_or(missing)
        })
    }

    /// Whether nobody has reaped it yet, so that its number is still its own.
    pub(super) fn is_unreaped(&self, pid: i32) -> bool {
        self.waited.contains_key(&pid)
    }

    /// Processor time of those that are dead, in microseconds.
    pub(super) fn cpu_us_of_dead(&self) -> u64 {
        self.cpu_us
    }

    fn slot(&self) -> Result<Rc<()>, Failure> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = limit.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_KEPT);
        let most = (descriptors / DESCRIPTORS_EACH).clamp(PROCESSES_MIN, PROCESSES_MAX);
        if Rc::strong_count(&self.slots) as u64 > most {
            let why = format!("{most} processes run already");
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        Ok(self.slots.clone())
    }
}

impl Selector {
    fn means(&self, process: &Process) -> bool {
        match self {
            Selector::Pid(pid) => i64::from(process.pid) == i64::from(*pid),
            Selector::Tag(tag) => process.tag.as_deref() == Some(tag),
        }
    }

    fn missing(&self) -> Failure {
        let why = match self {
            Selector::Pid(pid) => format!("process with pid {pid} not found"),
            Selector::Tag(tag) => format!("process with tag '{tag}' not found"),
        };
        Failure::new(Code::NotFound, why)
    }
}

/// A process that runs its command.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Rc<Process>,
    /// Its output, unless it has a terminal.
    pub(super) outputs: Option<(Stream, Stream)>,
    /// Its death.
    pub(super) dead: oneshot::Receiver<Reaped>,
}

/// What a process has for its standard streams.
#[derive(Debug)]
pub(super) enum Streams {
    /// A pipe for each.
    Pipes,
    /// A terminal for all three.
    Terminal(Terminal),
    /// A socket whose other end somebody has instead of a pipe for its input.
    Socket(OwnedFd),
}

/// The two ends of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) ours: OwnedFd,
    pub(super) theirs: OwnedFd,
}

/// Starts a command. When this returns it runs, and is in the list.
pub(super) async fn launch(
    live: Rc<Live>,
    user: User,
    start: Start,
    streams: Streams,
    named: (Config, Option<String>),
) -> Result<Launched, Failure> {
    let slot = live.processes.borrow().slot()?;
    let (ours, streams) = match streams {
        Streams::Pipes => (None, process::Streams::Pipes),
        Streams::Terminal(both) => (Some(both.ours), process::Streams::Terminal(both.theirs)),
        Streams::Socket(theirs) => (None, process::Streams::Socket(theirs)),
    };
    let Begun { mut child, dead } = begin(&live, user, &start, streams).await?;
    let stdin = child.stdin.take().map(writable).transpose();
    let outputs = match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => {
            readable(stdout).and_then(|stdout| Ok(Some((stdout, readable(stderr)?))))
        }
        _ => Ok(None),
    };
    let terminal = ours
        .map(|fd| register(fd, Interest::READABLE | Interest::WRITABLE))
        .transpose();
    let broken = |error: io::Error| Failure::new(Code::Internal, error.to_string());
    let (config, tag) = named;
    let process = Rc::new(Process {
        pid: child.pid,
        config,
        tag,
        input: Mutex::new(stdin.map_err(broken)?),
        terminal: terminal.map_err(broken)?.map(Rc::new),
        subscribers: RefCell::default(),
        end: OnceCell::new(),
        written: Default::default(),
        patterns: Cell::default(),
        slot: RefCell::new(Some(slot)),
    });
    let mut processes = live.processes.borrow_mut();
    // A number that is used again is nobody's old process.
    processes.ended.retain(|ended| ended.pid != process.pid);
    processes.running.insert(process.pid, process.clone());
    Ok(Launched {
        process,
        outputs: outputs.map_err(broken)?,
        dead,
    })
}

/// Has a process run the command: by the one that stands ready, or in a new one.
async fn begin(
    live: &Live,
    user: User,
    start: &Start,
    streams: process::Streams,
) -> Result<Begun, Failure> {
    if matches!(streams, process::Streams::Pipes)
        && let Some(begun) = ahead::begin(live, user, start).await?
    {
        return Ok(begun);
    }
    let wanted = wanted(live, user, streams)?;
    let child = process::prepare(wanted);
    let mut child = child.map_err(|errno| Failure::errno("make a process", errno))?;
    let dead = live.processes.borrow_mut().wait_for(child.pid);
    child.start(start).map_err(|errno| match errno {
        Errno::TOOBIG => Failure::invalid("the command and its environment are too long"),
        _ => Failure::errno("start the process", errno),
    })?;
    if let Err(failure) = told(child.status.take(), &start.cwd).await {
        // It may have been stopped before it became the command.
        process::signal(Some(child.pid), libc::SIGKILL);
        return Err(failure);
    }
    Ok(Begun { child, dead })
}

/// What a process of the workload is made from.
pub(super) fn wanted(
    live: &Live,
    user: User,
    streams: process::Streams,
) -> Result<Wanted<'_>, Failure> {
    live.power.check()?;
    let landlock = live
        .landlock
        .as_ref()
        .map(landlock::RulesetCreated::try_clone);
    let landlock = landlock.transpose();
    Ok(Wanted {
        confine: &live.serve.confine,
        who: user.who,
        landlock: landlock.map_err(|error| Failure::new(Code::Internal, error.to_string()))?,
        cgroups: &live.cgroups,
        streams,
    })
}

fn readable(fd: OwnedFd) -> io::Result<Stream> {
    register(fd, Interest::READABLE)
}

fn writable(fd: OwnedFd) -> io::Result<Stream> {
    register(fd, Interest::WRITABLE)
}

/// Waits until the new process runs its command, or has told why it does not.
async fn told(status: Option<OwnedFd>, cwd: &str) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure::new(Code::Internal, error.to_string());
    let none = || Failure::new(Code::Internal, "the process has no status");
    let status = readable(status.ok_or_else(none)?).map_err(broken)?;
    let wait = async {
        loop {
            let mut ready = status.readable().await.map_err(broken)?;
            match process::read_status(status.get_ref()) {
                Status::Nothing => ready.clear_ready(),
                Status::Confined => {}
                Status::Running => return Ok(()),
                Status::Failed(failure) => return Err(not_started(&failure, cwd)),
            }
        }
    };
    let late = |_| Failure::new(Code::Unavailable, "the process did not start in time");
    tokio::time::timeout(LAUNCH_PATIENCE, wait)
        .await
        .map_err(late)?
}

/// Why there is no process that was to begin in the directory `cwd`.
pub(super) fn not_started(failure: &StartFailure, cwd: &str) -> Failure {
    let errno = Errno::from_raw_os_error(failure.errno);
    let said = Failure::errno(&failure.step, errno);
    // What the request named cannot be run; all else is ours.
    match failure.step.as_str() {
        "chdir" if matches!(errno, Errno::NOENT | Errno::NOTDIR) => {
            Failure::invalid(format!("cwd '{cwd}' does not exist"))
        }
        "exec" | "chdir" => Failure::invalid(said.message),
        _ => Failure::new(Code::Internal, said.message),
    }
}

/// Takes a process off the list of those that run, and remembers its end for a while.
pub(super) fn retire(live: &Rc<Live>, process: Rc<Process>) {
    let mut processes = live.processes.borrow_mut();
    processes.running.remove(&process.pid);
    process.slot.take();
    if processes.ended.len() >= ENDED_MAX {
        processes.ended.pop_front();
    }
    let remembered = Rc::downgrade(&process);
    processes.ended.push_back(process);
    let live = live.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(ENDED_FOR).await;
        let mut processes = live.processes.borrow_mut();
        let is_it = |ended: &Rc<Process>| std::ptr::eq(Rc::as_ptr(ended), remembered.as_ptr());
        processes.ended.retain(|ended| !is_it(ended));
    });
}
