//! From the pipes of a process to those who listen, and from there into the answers.

use super::body::Body;
use super::clock::Clock;
use super::connect;
use super::facts::{End, Written};
use super::failure::{Code, Failure};
use super::processes::{Launched, Process, retire};
use super::{Live, Stream};
use crate::process::{self, Reaped};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::HeaderMap;
use scrub::Cleaner;
use serde_json::json;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot, watch};

/// Bytes of output in one event, as envd has them.
const CHUNK: usize = 32 * 1024;
/// The same of a terminal.
const TERMINAL_CHUNK: usize = 16 * 1024;

/// After a process has ended, what it left running may hold its output open for ever. What that writes
/// in this time is still told, and what comes later is not.
const LINGER: Duration = Duration::from_millis(200);

/// How long what could be the beginning of a secret is held back on a terminal: a person waits for the echo
/// of each key, and a program writes a value at once.
const HELD: Duration = Duration::from_millis(50);

/// The same of what could be the beginning of a credential that nobody named, where there is no terminal: words that
/// begin like one are everywhere, and whoever reads a question or a progress behind a pipe must see it. The beginning
/// of a value that is known waits for as long as it takes.
pub(super) const HELD_SHAPE: Duration = Duration::from_secs(1);

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Stdout,
    Stderr,
    Terminal,
}

impl Output {
    fn event(self, bytes: &[u8]) -> Bytes {
        let text = BASE64_STANDARD.encode(bytes);
        let data = match self {
            Output::Stdout => json!({"stdout": text}),
            Output::Stderr => json!({"stderr": text}),
            Output::Terminal => json!({"pty": text}),
        };
        connect::message(&json!({"event": {"data": data}}))
    }

    fn count(self, process: &Process, bytes: usize) {
        let [stdout, stderr] = &process.written;
        let of = match self {
            Output::Stdout | Output::Terminal => stdout,
            Output::Stderr => stderr,
        };
        of.set(of.get().saturating_add(bytes as u64));
    }

    fn chunk(self) -> usize {
        match self {
            Output::Stdout | Output::Stderr => CHUNK,
            Output::Terminal => TERMINAL_CHUNK,
        }
    }
}

/// Carries the output of a process until both have ended, and ends the process when its time is over.
/// `fact` is that of its start.
pub(super) async fn carry(
    live: Rc<Live>,
    launched: Launched,
    time: Option<Duration>,
    fact: Option<u64>,
) {
    let Launched {
        process,
        outputs,
        dead,
    } = launched;
    let (say_dead, is_dead) = watch::channel(false);
    let pump = |output: Output, stream: Rc<Stream>| {
        let told = Told {
            process: process.clone(),
            output,
            cleaner: live.cleaner(),
        };
        tokio::task::spawn_local(pump(told, stream, is_dead.clone()))
    };
    let mut pumps = Vec::new();
    if let Some((stdout, stderr)) = outputs {
        pumps.push(pump(Output::Stdout, Rc::new(stdout)));
        pumps.push(pump(Output::Stderr, Rc::new(stderr)));
    }
    if let Some(terminal) = &process.terminal {
        pumps.push(pump(Output::Terminal, terminal.clone()));
    }
    let (reaped, timed_out) = await_end(&live.clock, process.pid, dead, time).await;
    say_dead.send_replace(true);
    for pump in pumps {
        // A pump does not panic, and nobody cancels it.
        drop(pump.await);
    }
    // Before anybody is told: whoever has seen the end finds it in the record.
    let [stdout, stderr] = &process.written;
    let written = Written {
        bytes: [stdout.get(), stderr.get()],
        patterns: process.patterns.get(),
    };
    let how = End::of(&reaped, timed_out);
    live.facts.borrow_mut().ended(fact, &how, written);
    process.finish(end(&reaped)).await;
    retire(&live, process);
}

/// How the process died, and whether because its time was over: then it is killed, with its group.
async fn await_end(
    clock: &Clock,
    pid: i32,
    mut dead: oneshot::Receiver<Reaped>,
    time: Option<Duration>,
) -> (Reaped, bool) {
    let unknown = |_| Reaped {
        pid,
        code: None,
        signal: None,
        cpu_us: 0,
        max_rss_bytes: 0,
    };
    if let Some(time) = time {
        tokio::select! {
            biased;
            reaped = &mut dead => return (reaped.unwrap_or_else(unknown), false),
            () = clock.run(time) => process::signal(Some(pid), libc::SIGKILL),
        }
    }
    (dead.await.unwrap_or_else(unknown), time.is_some())
}

/// One output on its way to those who listen.
struct Told {
    process: Rc<Process>,
    output: Output,
    /// In a sandbox with secrets, or in one whose patterns are looked for.
    cleaner: Option<Cleaner>,
}

impl Told {
    async fn tell(&mut self, bytes: &[u8]) {
        self.output.count(&self.process, bytes.len());
        if self.cleaner.is_none() {
            return self.publish(bytes).await;
        }
        let clean = self.clean(|cleaner| cleaner.feed(bytes));
        self.publish(&clean).await;
    }

    /// What is held back is told: no more comes.
    async fn end(&mut self) {
        let rest = self.clean(Cleaner::finish);
        self.publish(&rest).await;
    }

    /// What is held back is told as far as nobody waits for it any longer.
    async fn let_go(&mut self) {
        let rest = match self.output {
            Output::Terminal => self.clean(Cleaner::release),
            Output::Stdout | Output::Stderr => self.clean(Cleaner::release_shapes),
        };
        self.publish(&rest).await;
    }

    /// What can be told now, where anything is looked for; what was found is counted.
    fn clean(&mut self, how: impl FnOnce(&mut Cleaner) -> Vec<u8>) -> Vec<u8> {
        let Some(cleaner) = &mut self.cleaner else {
            return Vec::new();
        };
        let before = cleaner.found();
        let told = how(cleaner);
        let patterns = &self.process.patterns;
        patterns.set(patterns.get().saturating_add(cleaner.found() - before));
        told
    }

    async fn publish(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.process.publish(self.output.event(bytes)).await;
        }
    }

    /// Ends when what is held back is to be told.
    async fn held_long(&self) {
        let cleaner = self.cleaner.as_ref();
        match self.output {
            Output::Terminal if cleaner.is_some_and(|one| one.pending() > 0) => {
                tokio::time::sleep(HELD).await;
            }
            Output::Stdout | Output::Stderr if cleaner.is_some_and(Cleaner::holds_shapes) => {
                tokio::time::sleep(HELD_SHAPE).await;
            }
            Output::Terminal | Output::Stdout | Output::Stderr => std::future::pending().await,
        }
    }
}

async fn pump(mut told: Told, stream: Rc<Stream>, mut is_dead: watch::Receiver<bool>) {
    let late = async {
        // The sender lives as long as this is awaited.
        drop(is_dead.wait_for(|dead| *dead).await);
        tokio::time::sleep(LINGER).await;
    };
    tokio::pin!(late);
    loop {
        let bytes = tokio::select! {
            () = &mut late => break,
            bytes = read(&stream, told.output.chunk()) => bytes,
            () = told.held_long() => {
                told.let_go().await;
                continue;
            }
        };
        match bytes {
            Some(bytes) => told.tell(&bytes).await,
            None => return told.end().await,
        }
    }
    // What was written before is in the pipe, and a pipe is bounded.
    let mut left = rustix::io::ioctl_fionread(stream.get_ref()).unwrap_or(0);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK);
        let Some(bytes) = read(&stream, most.min(told.output.chunk())).await else {
            break;
        };
        left = left.saturating_sub(bytes.len() as u64);
        told.tell(&bytes).await;
    }
    told.end().await;
    let slot = told.process.slot.borrow().clone();
    tokio::task::spawn_local(swallow(stream, slot));
}

/// Reads on and forgets, because a process that writes to a closed pipe dies. As long as this goes on,
/// the ended process counts as one that runs.
async fn swallow(stream: Rc<Stream>, _slot: Option<Rc<()>>) {
    while read(&stream, CHUNK).await.is_some() {}
}

/// The next bytes, or none at the end.
async fn read(stream: &Stream, most: usize) -> Option<Vec<u8>> {
    let read = |fd: &OwnedFd| {
        let mut bytes = vec![0; most];
        let n = rustix::io::read(fd, &mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    };
    // A terminal ends with an error, when the last process has closed it.
    let bytes = stream.async_io(Interest::READABLE, read).await.ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

/// How a process ended, as Go says it.
pub(super) fn status(reaped: &Reaped) -> String {
    match (reaped.code, reaped.signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signal_name(signal)),
        (None, None) => "unknown".to_owned(),
    }
}

/// The event that tells how a process ended, in the words of envd.
pub(super) fn end(reaped: &Reaped) -> Bytes {
    let status = status(reaped);
    let code = reaped
        .code
        .or_else(|| reaped.signal.map(|signal| 128 + signal))
        .unwrap_or(-1);
    let mut end = json!({
        "exitCode": code,
        "exited": reaped.code.is_some(),
        "status": status,
    });
    if code != 0
        && let Some(end) = end.as_object_mut()
    {
        end.insert("error".to_owned(), status.into());
    }
    connect::message(&json!({"event": {"end": end}}))
}

/// What Go, in which envd is written, calls the signals that end processes here.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

/// What paces the stream of an answer.
pub(super) struct Pace {
    /// After so much silence this is said.
    pub(super) keepalive: (Duration, Bytes),
    /// The stream ends with this.
    over: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Pace {
    /// That of an answer to a request with this head, which comes now.
    pub(super) fn of(
        clock: &Clock,
        headers: &HeaderMap,
        keepalive: Bytes,
    ) -> Result<Pace, Failure> {
        let time = connect::timeout(headers)?;
        Ok(Pace {
            keepalive: (connect::keepalive(headers), keepalive),
            over: time.map(|time| Box::pin(clock.run(time)) as _),
        })
    }
}

/// The body of an answer: this first, then what comes. What is there already goes along with the first, because
/// each piece wakes everybody on the way: a command that is over needs no second one.
pub(super) fn body(first: Bytes, mut events: mpsc::Receiver<Bytes>, pace: Pace) -> Body {
    let (to, pieces) = mpsc::channel(1);
    let mut piece = first.to_vec();
    let mut is_over = false;
    // Nobody else has the processor meanwhile, so these are no more than wait.
    while let Ok(event) = events.try_recv() {
        piece.extend_from_slice(&event);
        is_over = connect::is_end(&event);
    }
    if events.is_closed() && events.is_empty() && !is_over {
        piece.extend_from_slice(&connect::end());
        is_over = true;
    }
    if is_over {
        // The channel has room for one.
        drop(to.try_send(piece.into()));
    } else {
        tokio::task::spawn_local(forward(piece.into(), events, to, pace));
    }
    Body::Pieces(pieces)
}

async fn forward(
    first: Bytes,
    mut events: mpsc::Receiver<Bytes>,
    to: mpsc::Sender<Bytes>,
    pace: Pace,
) {
    let over = async {
        match pace.over {
            Some(time) => time.await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let (silence, keepalive) = pace.keepalive;
    let mut next = first;
    loop {
        if to.send(next).await.is_err() {
            return; // The client is gone.
        }
        next = tokio::select! {
            biased;
            () = &mut over => {
                let why = Failure::new(Code::DeadlineExceeded, "the time of the request is over");
                // Nobody is told where the client is gone.
                return drop(to.send(connect::end_with(&why)).await);
            }
            () = to.closed() => return,
            event = events.recv() => match event {
                Some(last) if connect::is_end(&last) => return drop(to.send(last).await),
                // The end of a process closes the channel: one piece less, which is one wake-up less of
                // everybody on the way.
                Some(last) if events.is_closed() && events.is_empty() => {
                    let both = [last, connect::end()].concat();
                    return drop(to.send(both.into()).await);
                }
                Some(event) => event,
                None => return drop(to.send(connect::end()).await),
            },
            () = tokio::time::sleep(silence) => keepalive.clone(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>, signal: Option<i32>) -> serde_json::Value {
        let reaped = Reaped {
            pid: 2,
            code,
            signal,
            cpu_us: 0,
            max_rss_bytes: 0,
        };
        let json: serde_json::Value = serde_json::from_slice(&end(&reaped)[5..]).unwrap();
        json["event"]["end"].clone()
    }

    #[test]
    fn an_end_is_told_in_the_words_of_envd() {
        let done = json!({"exitCode": 0, "exited": true, "status": "exit status 0"});
        assert_eq!(ended(Some(0), None), done);
        let failed = ended(Some(3), None);
        assert_eq!(
            (&failed["exitCode"], &failed["error"]),
            (&json!(3), &json!("exit status 3"))
        );
        let killed = ended(None, Some(9));
        assert_eq!(killed["exitCode"], 137);
        assert_eq!(
            (&killed["exited"], &killed["status"]),
            (&json!(false), &json!("signal: killed"))
        );
    }
}
