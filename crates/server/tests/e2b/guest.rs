//! A guest that speaks just enough of envd: it keeps files in memory, answers every command with what it
//! was asked, and has one open port, at which a program tells what it hears.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use api::attach::{LinkOpen, LinkTarget};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

pub(crate) const OPEN_PORT: u16 = 8080;

#[derive(Default)]
pub(crate) struct Guest {
    /// Sandboxes that were spoken to, in order.
    pub(crate) seen: Mutex<Vec<String>>,
    files: Mutex<HashMap<String, Bytes>>,
    is_gone: AtomicBool,
}

impl Guest {
    /// From now on it hangs up on everybody.
    pub(crate) fn silence(&self) {
        self.is_gone.store(true, Ordering::Release);
    }
}

pub(crate) async fn serve(guest: Arc<Guest>, mut links: mpsc::Receiver<LinkOpen>) {
    while let Some(open) = links.recv().await {
        if guest.is_gone.load(Ordering::Acquire) {
            continue;
        }
        let LinkTarget::Sandbox { id } = open.target else {
            continue;
        };
        guest.seen.lock().unwrap().push(id);
        let guest = guest.clone();
        drop(tokio::spawn(speak(open.io, move |request| {
            answer(guest.clone(), request)
        })));
    }
}

async fn speak<S, A, F>(io: S, answer: A)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    drop(connection.with_upgrades().await);
}

fn reply(status: u16, kind: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(status)
        .header("content-type", kind);
    response.body(Full::from(body.into())).unwrap()
}

fn json_reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    reply(status, "application/json", body.to_string())
}

/// Boxed, because a port of the guest is answered by another of these.
async fn answer(guest: Arc<Guest>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() == Method::CONNECT {
        let port = request.uri().port_u16();
        if port != Some(OPEN_PORT) {
            return reply(502, "text/plain", "");
        }
        drop(tokio::spawn(async move {
            let io = hyper::upgrade::on(&mut request).await.unwrap();
            speak(TokioIo::new(io), program).await;
        }));
        return reply(200, "text/plain", "");
    }
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let echo = heard(&request);
    let method = request.method().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    match (method.as_str(), path.as_str()) {
        ("GET", "/health") => reply(204, "text/plain", ""),
        // More than any sandbox has: a guest may say what it likes.
        ("GET", "/metrics") => json_reply(
            200,
            &json!({"cpu_used_pct": 1e300, "mem_used": u64::MAX, "disk_used": 7, "disk_total": 9}),
        ),
        ("GET", "/ports") => json_reply(200, &json!({"ports": [3000, 8080]})),
        ("POST", "/files") => {
            let name = parameter(&query, "path");
            guest.files.lock().unwrap().insert(name.clone(), part(body));
            json_reply(200, &json!([{"path": name, "name": name, "type": "file"}]))
        }
        ("GET", "/files") => match guest.files.lock().unwrap().get(&parameter(&query, "path")) {
            Some(bytes) => reply(200, "text/html", bytes.clone()),
            None => json_reply(404, &json!({"code": 404, "message": "no such file"})),
        },
        ("POST", "/process.Process/Start") => start(&body),
        ("POST", "/filesystem.Filesystem/Stat") => json_reply(
            404,
            &json!({"code": "not_found", "message": "no such file"}),
        ),
        _ => json_reply(200, &echo),
    }
}

/// The one file of a form, or the body itself.
fn part(body: Bytes) -> Bytes {
    let text = String::from_utf8_lossy(&body);
    let inner = text
        .split_once("\r\n\r\n")
        .and_then(|(_, rest)| rest.rsplit_once("\r\n--"));
    match inner {
        Some((file, _)) if text.starts_with("--") => Bytes::copy_from_slice(file.as_bytes()),
        _ => body,
    }
}

fn parameter(query: &str, name: &str) -> String {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
    value.unwrap_or_default().replace("%2F", "/")
}

/// The stream of a command that says what it was asked to run and ends.
fn start(body: &[u8]) -> Response<Full<Bytes>> {
    let asked: Value = serde_json::from_slice(&body[5..]).unwrap();
    let command = asked["process"]["args"][2].as_str().unwrap_or_default();
    let mut stream = Vec::new();
    let mut frame = |flags: u8, message: Value| {
        let text = message.to_string();
        stream.push(flags);
        stream.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        stream.extend(text.as_bytes());
    };
    frame(0, json!({"event": {"start": {"pid": 42}}}));
    let said = STANDARD.encode(format!("ran {command}\n"));
    frame(0, json!({"event": {"data": {"stdout": said}}}));
    frame(
        0,
        json!({"event": {"end": {"exited": true, "status": "exit status 0"}}}),
    );
    frame(2, json!({}));
    reply(200, "application/connect+json", stream)
}

/// What was heard of a request.
fn heard(request: &Request<Incoming>) -> Value {
    let headers = request.headers().iter();
    let headers: serde_json::Map<String, Value> = headers
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "headers": headers,
    })
}

/// What listens at the open port. After an upgrade it says everything once more.
async fn program(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if !request.headers().contains_key("upgrade") {
        return json_reply(200, &heard(&request));
    }
    drop(tokio::spawn(async move {
        let io = hyper::upgrade::on(&mut request).await.unwrap();
        let mut io = TokioIo::new(io);
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = io.read(&mut bytes).await {
            io.write_all(&bytes[..read]).await.unwrap();
        }
    }));
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "echo");
    response.body(Full::default()).unwrap()
}
