//! The service `process.Process`: what a client asks, and how it is answered.

use super::Live;
use super::ahead;
use super::body::Body;
use super::connect::{self, INPUT_PATIENCE, Requests};
use super::facts::{Asked, End, Written};
use super::failure::{Code, Failure};
use super::path;
use super::processes::{Config, Process, Selector, Streams, launch};
use super::protojson;
use super::pump::{self, Pace};
use super::terminal::{self, Pty};
use super::tree;
use super::user::User;
use bytes::Bytes;
use guest::message::Start;
use hyper::HeaderMap;
use hyper::body::Incoming;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StartRequest {
    process: Config,
    pty: Option<Pty>,
    tag: Option<String>,
    stdin: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct OfProcess {
    process: Selector,
}

/// Bytes for a process, in base64.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Input {
    Stdin(String),
    Pty(String),
}

#[derive(Debug, Deserialize)]
struct SendInput {
    process: Selector,
    input: Input,
}

#[derive(Debug, Deserialize)]
struct SendSignal {
    process: Selector,
    signal: Value,
}

#[derive(Debug, Deserialize)]
struct Update {
    process: Selector,
    pty: Option<Pty>,
}

/// One message of the stream that `StreamInput` takes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum InputEvent {
    Start(OfProcess),
    Data { input: Input },
    Keepalive(serde::de::IgnoredAny),
}

/// A method that is answered with one message.
pub(super) async fn unary(
    live: &Rc<Live>,
    method: &str,
    body: &mut Incoming,
) -> Result<Value, Failure> {
    match method {
        "List" => Ok(list(live)),
        "Update" => {
            let request: Update = connect::part(body).await?;
            let process = live.processes.borrow().find(&request.process)?;
            resize(&process, request.pty)?;
            Ok(json!({}))
        }
        "SendInput" => {
            let request: SendInput = connect::part(body).await?;
            let process = live.processes.borrow().find(&request.process)?;
            give(&process, request.input).await?;
            Ok(json!({}))
        }
        "SendSignal" => {
            let request: SendSignal = connect::part(body).await?;
            let process = live.processes.borrow().find(&request.process)?;
            crate::process::signal(Some(process.pid), signal(&request.signal)?);
            Ok(json!({}))
        }
        "CloseStdin" => {
            let request: OfProcess = connect::part(body).await?;
            let process = live.processes.borrow().find(&request.process)?;
            process.close_stdin().await?;
            Ok(json!({}))
        }
        _ => Err(unknown(method)),
    }
}

/// A method that is a stream in one direction or both.
pub(super) async fn streaming(
    live: &Rc<Live>,
    method: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Body, Failure> {
    let patience = match method {
        "StreamInput" => INPUT_PATIENCE,
        _ => connect::BODY_PATIENCE,
    };
    let requests = Requests::new(body, patience);
    match method {
        "Start" => start(live, headers, requests).await,
        "Connect" => {
            let request: OfProcess = requests.only().await?;
            let process = live.processes.borrow().find_ended_too(&request.process)?;
            let events = process.subscribe();
            Ok(pump::body(started(&process), events, pace(live, headers)?))
        }
        "StreamInput" => stream_input(live, requests).await,
        _ => Err(unknown(method)),
    }
}

/// A method that there is not.
pub(super) fn unknown(method: &str) -> Failure {
    Failure::new(
        Code::Unimplemented,
        format!("there is no method '{method}'"),
    )
}

fn list(live: &Live) -> Value {
    let processes = live.processes.borrow();
    let list = processes.running().filter(|process| !process.ended());
    let info = |process: &Rc<Process>| {
        let mut info = json!({"config": process.config, "pid": process.pid});
        if let (Some(tag), Some(info)) = (&process.tag, info.as_object_mut()) {
            info.insert("tag".to_owned(), tag.clone().into());
        }
        info
    };
    json!({"processes": list.map(info).collect::<Vec<_>>()})
}

async fn start(live: &Rc<Live>, headers: &HeaderMap, requests: Requests) -> Result<Body, Failure> {
    let user = User::of(headers, &live.serve)?;
    // The answer keeps its time from before the process does: who waits is told that the time was over, and not
    // that something killed the process.
    let (pace, time) = (pace(live, headers)?, connect::timeout(headers)?);
    let request: StartRequest = requests.only().await?;
    if request.process.cmd.is_empty() {
        return Err(Failure::invalid("the request names no command"));
    }
    let start = command(live, user, &request)?;
    let terminal = request
        .pty
        .map(|pty| terminal::open(user, pty))
        .transpose()?;
    let asked = Asked::new(
        (headers, live.known.as_ref()),
        &request.process,
        (user.name, &start.cwd),
        (request.tag.as_deref(), terminal.is_some()),
    );
    let streams = terminal.map_or(Streams::Pipes, Streams::Terminal);
    let named = (request.process, request.tag);
    let live = live.clone();
    // A client that leaves now must leave neither half a process behind nor one without a record.
    let launched = tokio::task::spawn_local(async move {
        let launched = launch(live.clone(), user, start, streams, named).await;
        let facts = || live.facts.borrow_mut();
        let launched = launched.inspect_err(|failure| {
            let fact = facts().started(&asked, None);
            facts().ended(
                fact,
                &End::not_started(&failure.message),
                Written::default(),
            );
        })?;
        let fact = facts().started(&asked, Some(launched.process.pid));
        let (process, events) = (launched.process.clone(), launched.process.subscribe());
        tokio::task::spawn_local(async move {
            let carried = pump::carry(live.clone(), launched, time, fact);
            ahead::make_beside(&live, user, carried).await;
        });
        settle(&process).await;
        Ok(pump::body(started(&process), events, pace))
    });
    let launched = launched.await;
    launched.map_err(|error| Failure::new(Code::Internal, error.to_string()))?
}

/// The command with its whole environment.
fn command(live: &Live, user: User, request: &StartRequest) -> Result<Start, Failure> {
    let wanted = &request.process;
    let asked = wanted.cwd.as_deref().filter(|cwd| !cwd.is_empty());
    // Whether it is there is for the process to see, which goes there.
    let cwd = path::resolve(asked.unwrap_or(&live.serve.workdir), user.home)?;
    let argv = std::iter::once(&wanted.cmd).chain(&wanted.args).cloned();
    Ok(Start {
        argv: argv.collect(),
        env: environment(live, user, &wanted.envs),
        cwd,
        stdin: request.pty.is_some() || request.stdin.unwrap_or(true),
        // Time is kept where the process is followed.
        timeout_ms: 0,
        grace_ms: 0,
    })
}

/// The clean path of a directory that is there for the user.
pub(super) fn directory(user: User, cwd: &str) -> Result<String, Failure> {
    let cwd = path::resolve(cwd, user.home)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    user.act(|| tree::open(&cwd, flags, Mode::empty()))
        .map_err(|_| Failure::invalid(format!("cwd '{cwd}' does not exist")))?;
    Ok(cwd)
}

/// The whole environment of a process: what is clean, what the sandbox was given, what is asked.
pub(super) fn environment(
    live: &Live,
    user: User,
    asked: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let own = [
        ("PATH", PATH),
        ("HOME", user.home),
        ("USER", user.name),
        ("LOGNAME", user.name),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let asked = asked
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()));
    // Also where the node has opened the way out only after this sandbox was told of its variables.
    let proxied = live.egress.is_open().then(guest::message::egress_env);
    let env: BTreeMap<String, String> = own
        .into_iter()
        .chain(proxied.into_iter().flatten())
        .chain(live.more_env.borrow().iter().cloned())
        .chain(live.serve.env.iter().cloned())
        .chain(asked)
        .collect();
    env.into_iter().collect()
}

fn pace(live: &Live, headers: &HeaderMap) -> Result<Pace, Failure> {
    Pace::of(
        &live.clock,
        headers,
        connect::message(&json!({"event": {"keepalive": {}}})),
    )
}

/// The first message about a process.
fn started(process: &Process) -> Bytes {
    connect::message(&json!({"event": {"start": {"pid": process.pid}}}))
}

/// Turns of everybody else here that a new process has to end before its start is told. On one processor a
/// short command is over before this process runs again, and is told in one piece; this waits for nothing.
const TURNS: usize = 3;

async fn settle(process: &Process) {
    for _ in 0..TURNS {
        if process.ended() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn resize(process: &Process, pty: Option<Pty>) -> Result<(), Failure> {
    let Some(pty) = pty else {
        return Ok(()); // Nothing is to be changed.
    };
    let none = || Failure::new(Code::FailedPrecondition, "the process has no terminal");
    let terminal = process.terminal.as_ref().ok_or_else(none)?;
    terminal::resize(terminal.get_ref(), pty).map_err(|errno| Failure::errno("resize", errno))
}

async fn give(process: &Process, input: Input) -> Result<(), Failure> {
    match input {
        Input::Stdin(text) => process.write_stdin(&protojson::bytes(&text)?).await,
        Input::Pty(text) => process.write_terminal(&protojson::bytes(&text)?).await,
    }
}

/// The signals that can be sent. Those of envd have names; by their numbers there are also those that a
/// terminal or a supervisor sends, and that cannot stop what nobody could wake.
fn signal(named: &Value) -> Result<i32, Failure> {
    const BY_NUMBER: [i32; 8] = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGKILL,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGTERM,
        libc::SIGCONT,
    ];
    let number = named.as_i64().and_then(|number| i32::try_from(number).ok());
    match (named.as_str(), number) {
        (Some("SIGNAL_SIGTERM"), _) => Ok(libc::SIGTERM),
        (Some("SIGNAL_SIGKILL"), _) => Ok(libc::SIGKILL),
        (_, Some(number)) if BY_NUMBER.contains(&number) => Ok(number),
        _ => Err(Failure::invalid(format!("invalid signal: {named}"))),
    }
}

async fn stream_input(live: &Rc<Live>, mut requests: Requests) -> Result<Body, Failure> {
    let mut process = None;
    while let Some(event) = requests.next::<InputEvent>().await? {
        match (event, &process) {
            (InputEvent::Start(request), _) => {
                process = Some(live.processes.borrow().find(&request.process)?);
            }
            (InputEvent::Data { input }, Some(process)) => give(process, input).await?,
            (InputEvent::Data { .. }, None) => {
                return Err(Failure::invalid("the stream names no process"));
            }
            (InputEvent::Keepalive(_), _) => {}
        }
    }
    let answer = [connect::message(&json!({})), connect::end()].concat();
    Ok(Body::Whole(Some(Bytes::from(answer))))
}
