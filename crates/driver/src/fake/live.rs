//! The fake's sandbox that lives on: `/health`, processes that do what their arguments say and are answered
//! for once they have ended, and the facts about them.

use super::act;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::DuplexStream;

/// No test starts a command that is longer.
const BODY_MAX: usize = 1 << 20;

/// Serves one connection to its end.
pub(super) async fn serve(io: DuplexStream, file: PathBuf) {
    let file: Arc<Path> = file.into();
    let service = service_fn(move |request| {
        let file = file.clone();
        async move { Ok::<_, Infallible>(answer(request, &file).await) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    // A connection that breaks is the other end's business.
    drop(
        http.serve_connection(TokioIo::new(io), service)
            .with_upgrades()
            .await,
    );
}

async fn answer(request: Request<Incoming>, file: &Path) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, guest::message::EGRESS_PATH) => hold(request),
        (&Method::GET, "/cofferdam/execs") => {
            let facts = facts(request.uri().query().unwrap_or_default(), file).await;
            with(StatusCode::OK, "application/json", facts.into())
        }
        (&Method::POST, "/cofferdam/halt") => {
            let halted = json!({"halted": true}).to_string();
            with(StatusCode::OK, "application/json", halted.into())
        }
        (&Method::POST, "/cofferdam/boot") => with(StatusCode::OK, "application/json", "{}".into()),
        (
            &Method::POST,
            guest::message::ENV_PATH | "/cofferdam/clock/stop" | "/cofferdam/clock/go",
        ) => with(StatusCode::NO_CONTENT, "text/plain", Bytes::new()),
        (&Method::GET, "/health") => with(StatusCode::NO_CONTENT, "text/plain", Bytes::new()),
        (&Method::POST, "/process.Process/List") => {
            let none = json!({"processes": []}).to_string();
            with(StatusCode::OK, "application/json", none.into())
        }
        (&Method::POST, "/process.Process/Start") => {
            let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let message = body.get(5..).unwrap_or_default();
            let events = start(message).await;
            note(message, file);
            with(StatusCode::OK, "application/connect+json", events)
        }
        _ => {
            let missing = json!({"code": 404, "message": "the fake has nothing there"});
            with(
                StatusCode::NOT_FOUND,
                "application/json",
                missing.to_string().into(),
            )
        }
    }
}

/// A way out that no client inside ever uses.
fn hold(request: Request<Incoming>) -> Response<Full<Bytes>> {
    tokio::spawn(async move {
        if let Ok(line) = hyper::upgrade::on(request).await {
            // Held until the node hangs up.
            let mut line = TokioIo::new(line);
            drop(tokio::io::copy(&mut line, &mut tokio::io::sink()).await);
        }
    });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let protocol = hyper::header::HeaderValue::from_static(guest::message::EGRESS_PROTOCOL);
    let headers = answer.headers_mut();
    headers.insert(hyper::header::UPGRADE, protocol);
    let upgrade = hyper::header::HeaderValue::from_static("upgrade");
    headers.insert(hyper::header::CONNECTION, upgrade);
    answer
}

fn with(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    answer
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    answer
}

/// All events of a command, which has ended when this returns.
async fn start(request: &[u8]) -> Bytes {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let args = request["process"]["args"].as_array().into_iter().flatten();
    // A shell's script is one argument.
    let words = args
        .filter_map(Value::as_str)
        .flat_map(str::split_whitespace);
    let act = act(&words.map(str::to_owned).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_millis(act.sleep_ms)).await;
    let printed = [act.print.as_bytes(), &vec![b'x'; act.flood]].concat();
    let mut events = vec![(0, json!({"event": {"start": {"pid": 2}}}))];
    if !printed.is_empty() {
        let data = json!({"stdout": BASE64_STANDARD.encode(printed)});
        events.push((0, json!({"event": {"data": data}})));
    }
    let status = format!("exit status {}", act.exit);
    let end = json!({"exitCode": act.exit, "exited": true, "status": status});
    events.push((0, json!({"event": {"end": end}})));
    events.push((2, json!({})));
    let envelopes = events.iter().map(|(flags, event)| envelope(*flags, event));
    envelopes.collect::<Vec<_>>().concat().into()
}

/// The numbers of facts must not depend on who is faster.
static NOTES: Mutex<()> = Mutex::new(());

/// Writes down that a command was run and has ended.
fn note(request: &[u8], file: &Path) {
    let _one = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The first line is no fact.
    let of = text.lines().count();
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let args = request["process"]["args"].as_array().into_iter().flatten();
    let argv: Vec<&Value> = std::iter::once(&request["process"]["cmd"])
        .chain(args)
        .collect();
    let asked = json!({"argv": argv, "cwd": "/", "user": "user"});
    let started = json!({"kind": "started", "seq": of, "at_ms": 1, "pid": 2, "asked": asked});
    let end = json!({"how": "exited", "code": 0});
    let ended = json!({"kind": "ended", "seq": of + 1, "at_ms": 2, "of": of, "end": end,
        "stdout_bytes": 0, "stderr_bytes": 0});
    let lines = format!("{started}\n{ended}\n");
    let opened = std::fs::OpenOptions::new().append(true).open(file);
    // A sandbox that is gone meanwhile has no facts.
    drop(opened.and_then(|mut file| std::io::Write::write_all(&mut file, lines.as_bytes())));
}

/// The facts after the one that is had already, as soon as there are some or the time is over.
async fn facts(query: &str, file: &Path) -> String {
    let number = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name)?.1.parse::<usize>().ok()
    };
    let (after, wait) = (number("after").unwrap_or(0), number("wait_ms").unwrap_or(0));
    let end = tokio::time::Instant::now() + Duration::from_millis(wait as u64);
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().skip(1 + after).collect();
        if !lines.is_empty() || tokio::time::Instant::now() >= end {
            return format!("{{\"facts\":[{}]}}", lines.join(","));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn envelope(flags: u8, message: &Value) -> Vec<u8> {
    let text = message.to_string();
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[flags][..], &len, text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_prints_and_exits_as_its_arguments_say() {
        let request = json!({"process": {"cmd": "sh", "args": ["-c", "fake exit=3 print=hi"]}});
        let events = start(request.to_string().as_bytes()).await;
        let text = String::from_utf8_lossy(&events);
        assert!(
            text.contains("\"exitCode\":3") && text.contains("aGk="),
            "{text}"
        );
    }
}
