//! Processes: started, followed, fed, signalled.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connect::{self, Envelope, Envelopes, STREAM_TYPE};
use super::error::plain;
use super::line::{Rest, empty};
use super::{ANSWER_DEADLINE, Guest, GuestError, full, whole};
use crate::exec::{ExecFact, FACTS_BYTES_MAX};

/// After so many seconds of silence a guest is asked to say that it is alive.
const KEEPALIVE_S: u16 = 20;
/// How long a stream may be silent all the same: three of those signs may be late.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a message may take from its first byte to its last: the longest at 4 KB/s.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a process may leave its input unread. The guest gives up after 600 s.
const INPUT_DEADLINE: Duration = Duration::from_secs(610);
/// Bytes of input in one request at most; in base64 that is well below what a guest takes.
pub const INPUT_MAX_BYTES: usize = 256 * 1024;

/// What is to run.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The program, by a path or to be found in `PATH`.
    pub program: String,
    /// What follows it.
    pub arguments: Vec<String>,
    /// Variables beside those of the sandbox.
    pub env: BTreeMap<String, String>,
    /// Where it starts; the user's home when absent.
    pub cwd: Option<String>,
    /// A name to find it by again.
    pub tag: Option<String>,
    /// It gets a terminal of this size.
    pub terminal: Option<Size>,
    /// It can be given input.
    pub stdin: bool,
    /// It is killed after this, and the stream of its events ends with `deadline_exceeded`.
    pub timeout: Option<Duration>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// How wide.
    pub columns: u16,
    /// How high.
    pub rows: u16,
}

impl Size {
    fn json(self) -> Value {
        json!({"size": {"cols": self.columns, "rows": self.rows}})
    }
}

/// Which process is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// By its number inside the sandbox.
    Pid(u32),
    /// By the name that it was given.
    Tag(String),
}

impl Selector {
    fn json(&self) -> Value {
        match self {
            Self::Pid(pid) => json!({"pid": pid}),
            Self::Tag(tag) => json!({"tag": tag}),
        }
    }
}

/// Where input goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdinKind {
    /// Into its standard input.
    Pipe,
    /// Into its terminal, as if it were typed.
    Terminal,
}

/// A process that was asked for and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its number inside the sandbox.
    pub pid: u32,
    /// The program and what follows it, without control characters.
    pub argv: Vec<String>,
    /// The name that it was given.
    pub tag: Option<String>,
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It runs.
    Started {
        /// Its number inside the sandbox.
        pid: u32,
    },
    /// It wrote this to its standard output.
    Stdout(Bytes),
    /// It wrote this to its standard error.
    Stderr(Bytes),
    /// It wrote this to its terminal.
    Terminal(Bytes),
    /// It has ended.
    Ended(ProcessEnd),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Its code; 128 and the number for one that a signal ended.
    pub exit_code: i32,
    /// It ended by itself.
    pub exited: bool,
    /// The same in words, without control characters.
    pub status: String,
}

impl Guest {
    /// Starts a process and follows it. It goes on when nobody follows any more.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `invalid_argument` for a program or a directory that is not there.
    pub async fn start(self, start: &Start) -> Result<Events, GuestError> {
        let mut message = json!({
            "process": {"cmd": start.program, "args": start.arguments, "envs": start.env},
            "stdin": start.stdin,
        });
        if let (Some(cwd), Some(process)) = (&start.cwd, message.get_mut("process")) {
            process["cwd"] = cwd.as_str().into();
        }
        if let Some(tag) = &start.tag {
            message["tag"] = tag.as_str().into();
        }
        if let Some(size) = start.terminal {
            message["pty"] = size.json();
        }
        let mut guest = self;
        if let Some(timeout) = start.timeout {
            let millis = HeaderValue::from(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            guest = guest.with_header(HeaderName::from_static("connect-timeout-ms"), millis);
        }
        guest.follow("/process.Process/Start", &message).await
    }

    /// Follows a process that runs, from now on; of one that has just ended it tells the end.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `not_found` when there is none.
    pub async fn connect(self, process: &Selector) -> Result<Events, GuestError> {
        let message = json!({"process": process.json()});
        self.follow("/process.Process/Connect", &message).await
    }

    async fn follow(self, method: &str, message: &Value) -> Result<Events, GuestError> {
        let body = full(connect::envelope(message));
        let seconds = HeaderValue::from(KEEPALIVE_S);
        let guest = self.with_header(HeaderName::from_static("keepalive-ping-interval"), seconds);
        let request = guest.request(Method::POST, method, STREAM_TYPE, body)?;
        let sending = tokio::time::timeout(ANSWER_DEADLINE, guest.send(request));
        let answer = sending
            .await
            .map_err(|_| GuestError::Late(ANSWER_DEADLINE))??;
        let mut events = Events {
            body: answer.into_body(),
            envelopes: Envelopes::default(),
            amid: None,
            first: None,
            over: false,
        };
        // A refusal comes as the first message, and is told here.
        let first = tokio::time::timeout(ANSWER_DEADLINE, events.next()).await;
        events.first = first.map_err(|_| GuestError::Late(ANSWER_DEADLINE))??;
        Ok(events)
    }

    /// The processes that were asked for and run.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn list(self) -> Result<Vec<ProcessInfo>, GuestError> {
        let listed: Listed = self
            .call("/process.Process/List", &json!({}), ANSWER_DEADLINE)
            .await?;
        Ok(listed.processes.into_iter().map(Process::info).collect())
    }

    /// For a node: the facts about processes after the one that it has, as soon as there are some, or none
    /// after `wait`, at most a minute. What it says to have, the guest forgets.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn execs(self, after: u64, wait: Duration) -> Result<Vec<ExecFact>, GuestError> {
        let wait_ms = wait.as_millis();
        let path = format!("/cofferdam/execs?after={after}&wait_ms={wait_ms}");
        let request = self.request(Method::GET, &path, "application/json", empty())?;
        let asking = async {
            let answer = self.send(request).await?;
            whole(answer.into_body(), FACTS_BYTES_MAX).await
        };
        let deadline = wait + ANSWER_DEADLINE;
        let body = tokio::time::timeout(deadline, asking).await;
        let body = body.map_err(|_| GuestError::Late(deadline))??;
        let facts: Facts = serde_json::from_slice(&body)
            .map_err(|error| GuestError::Protocol(format!("facts that {error}")))?;
        Ok(facts.facts)
    }

    /// For a node: kills everything in the sandbox and lets nothing new begin until [`Self::boot`]. Whether
    /// all are dead, after at most `wait`, at most ten seconds; what is frozen is not.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn halt(self, wait: Duration) -> Result<bool, GuestError> {
        let path = format!("/cofferdam/halt?wait_ms={}", wait.as_millis());
        let request = self.request(Method::POST, &path, "application/json", empty())?;
        let halt: Halt = self.json(request, wait + ANSWER_DEADLINE).await?;
        Ok(halt.halted)
    }

    /// For a node: lets the time that commands have go on, or stand.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn clock(self, goes: bool) -> Result<(), GuestError> {
        let path = format!("/cofferdam/clock/{}", if goes { "go" } else { "stop" });
        let request = self.request(Method::POST, &path, "application/json", empty())?;
        let asking = async {
            let answer = self.send(request).await?;
            whole(answer.into_body(), 0).await
        };
        let done = tokio::time::timeout(ANSWER_DEADLINE, asking).await;
        done.map_err(|_| GuestError::Late(ANSWER_DEADLINE))??;
        Ok(())
    }

    /// For a node: gives the sandbox another boot id, and lets things begin in it.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `failed_precondition` while something of before still runs.
    pub async fn boot(self) -> Result<(), GuestError> {
        let request = self.request(Method::POST, "/cofferdam/boot", "application/json", empty())?;
        let booted: Booted = self.json(request, ANSWER_DEADLINE).await?;
        let Booted {} = booted;
        Ok(())
    }

    /// Gives a process input, at most [`INPUT_MAX_BYTES`], and returns when it has taken it.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `failed_precondition` when it takes none, and with
    /// `deadline_exceeded` when it does not read for ten minutes. A part may have gone in then.
    pub async fn input(
        self,
        process: &Selector,
        kind: StdinKind,
        bytes: &[u8],
    ) -> Result<(), GuestError> {
        if bytes.len() > INPUT_MAX_BYTES {
            let why = format!("input has at most {INPUT_MAX_BYTES} bytes");
            return Err(GuestError::Unsendable(why));
        }
        let text = BASE64_STANDARD.encode(bytes);
        let input = match kind {
            StdinKind::Pipe => json!({"stdin": text}),
            StdinKind::Terminal => json!({"pty": text}),
        };
        let message = json!({"process": process.json(), "input": input});
        self.tell("/process.Process/SendInput", &message, INPUT_DEADLINE)
            .await
    }

    /// Ends the standard input of a process.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn close_stdin(self, process: &Selector) -> Result<(), GuestError> {
        let message = json!({"process": process.json()});
        self.tell("/process.Process/CloseStdin", &message, INPUT_DEADLINE)
            .await
    }

    /// Sends a signal, by its number, to a process and those that it started in its group.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `invalid_argument` for a number that a guest does not send.
    pub async fn signal(self, process: &Selector, signal: i32) -> Result<(), GuestError> {
        let message = json!({"process": process.json(), "signal": signal});
        self.tell("/process.Process/SendSignal", &message, ANSWER_DEADLINE)
            .await
    }

    /// Tells the terminal of a process how large it is now.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `failed_precondition` when it has none.
    pub async fn resize(self, process: &Selector, size: Size) -> Result<(), GuestError> {
        let message = json!({"process": process.json(), "pty": size.json()});
        self.tell("/process.Process/Update", &message, ANSWER_DEADLINE)
            .await
    }

    async fn tell(
        self,
        method: &str,
        message: &Value,
        deadline: Duration,
    ) -> Result<(), GuestError> {
        let IgnoredAny = self.call(method, message, deadline).await?;
        Ok(())
    }
}

/// What happens to a process, as it happens. Dropped, it stops to follow; the process goes on.
#[derive(Debug)]
pub struct Events {
    body: Rest<()>,
    envelopes: Envelopes,
    /// Since when a message is under way.
    amid: Option<Instant>,
    /// Was read before anybody asked for it.
    first: Option<Event>,
    over: bool,
}

impl Events {
    /// The next event; `None` at the end of the stream. It can be waited for beside other things: what
    /// has come of a message is kept.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `deadline_exceeded` when the time of the process was over, `Closed`
    /// when the sandbox fell. The stream is over after it.
    pub async fn next(&mut self) -> Result<Option<Event>, GuestError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while !self.over {
            match self.step().await {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(error) => {
                    self.over = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Reads a message that is there, or more bytes.
    async fn step(&mut self) -> Result<Option<Event>, GuestError> {
        match self.envelopes.next()? {
            Some(Envelope::End) => self.over = true,
            Some(Envelope::Message(json)) => {
                self.amid = None;
                return event(&json);
            }
            None => self.more().await?,
        }
        Ok(None)
    }

    /// Waits for more bytes. The body ends in the middle of a stream only when the guest fell.
    async fn more(&mut self) -> Result<(), GuestError> {
        let most = if self.envelopes.is_amid() {
            let since = self.amid.get_or_insert_with(Instant::now);
            MESSAGE_DEADLINE.saturating_sub(since.elapsed())
        } else {
            SILENCE
        };
        let frame = tokio::time::timeout(most, self.body.frame()).await;
        let Some(Ok(frame)) = frame.map_err(|_| GuestError::Late(SILENCE))? else {
            return Err(GuestError::Closed);
        };
        if let Ok(bytes) = frame.into_data() {
            self.envelopes.push(&bytes);
        }
        Ok(())
    }
}

/// Reads an event; none for one that says nothing, or nothing that we know.
fn event(json: &[u8]) -> Result<Option<Event>, GuestError> {
    let message: Message = serde_json::from_slice(json)
        .map_err(|error| GuestError::Protocol(format!("an event that {error}")))?;
    let said = message.event;
    if let Some(started) = said.start {
        return Ok(Some(Event::Started { pid: started.pid }));
    }
    if let Some(end) = said.end {
        return Ok(Some(Event::Ended(ProcessEnd {
            exit_code: end.exit_code,
            exited: end.exited,
            status: plain(&end.status),
        })));
    }
    let data = said.data.unwrap_or_default();
    Ok(match (data.stdout, data.stderr, data.pty) {
        (Some(text), _, _) => Some(Event::Stdout(bytes(&text)?)),
        (_, Some(text), _) => Some(Event::Stderr(bytes(&text)?)),
        (_, _, Some(text)) => Some(Event::Terminal(bytes(&text)?)),
        (None, None, None) => None,
    })
}

fn bytes(text: &str) -> Result<Bytes, GuestError> {
    let bytes = BASE64_STANDARD.decode(text);
    bytes
        .map(Bytes::from)
        .map_err(|_| GuestError::Protocol("output that is not base64".to_owned()))
}

// Fields that have their default value are left out by some who write JSON from Protocol Buffers.

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    event: Said,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    start: Option<Started>,
    data: Option<Data>,
    end: Option<End>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Started {
    pid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    stdout: Option<String>,
    stderr: Option<String>,
    pty: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct End {
    exit_code: i32,
    exited: bool,
    status: String,
}

#[derive(Debug, Deserialize)]
struct Halt {
    halted: bool,
}

#[derive(Debug, Deserialize)]
struct Booted {}

#[derive(Debug, Deserialize)]
struct Facts {
    facts: Vec<ExecFact>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    processes: Vec<Process>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    pid: u32,
    config: Config,
    tag: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    cmd: String,
    args: Vec<String>,
}

impl Process {
    fn info(self) -> ProcessInfo {
        let argv = std::iter::once(&self.config.cmd).chain(&self.config.args);
        ProcessInfo {
            pid: self.pid,
            argv: argv.map(|argument| plain(argument)).collect(),
            tag: self.tag.as_deref().map(plain),
        }
    }
}
