//! A client of sandboxes that live on: Connect and plain HTTP, a connection for each request.

use crate::world::{DEFAULTS, PATIENCE, World};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use driver::conformance::spec;
use driver::driver::{Driver as _, Mode, Plan, Spec};
use driver::guest::message::Serve;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// A sandbox that lives on.
pub(crate) struct Served<'w> {
    pub(crate) world: &'w World,
    pub(crate) plan: Plan,
}

/// Headers of one request.
pub(crate) type Headers<'h> = &'h [(&'h str, &'h str)];

/// As root of the sandbox: `root:` in base64.
pub(crate) const AS_ROOT: (&str, &str) = ("authorization", "Basic cm9vdDo=");

/// A small answer, whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl World {
    /// A sandbox with the given mode's rights, and one variable in its environment.
    pub(crate) async fn serve(&self, allow_root: bool) -> Served<'_> {
        let spec = Spec {
            mode: Mode::Live { allow_root },
            layers: Vec::new(),
            volumes: Vec::new(),
            ..spec(DEFAULTS)
        };
        self.serve_with(spec, allow_root).await
    }

    pub(crate) async fn serve_with(&self, spec: Spec, allow_root: bool) -> Served<'_> {
        self.serve_contexts(spec, allow_root, &[]).await
    }

    /// One that takes out what looks like a credential.
    pub(crate) async fn serve_scrubbed(&self) -> Served<'_> {
        let spec = Spec {
            mode: Mode::Live { allow_root: false },
            layers: Vec::new(),
            volumes: Vec::new(),
            ..spec(DEFAULTS)
        };
        self.serve_so(spec, |serve| serve.scrub_patterns = true)
            .await
    }

    /// One in which contexts of these languages begin at once.
    pub(crate) async fn serve_contexts(
        &self,
        spec: Spec,
        allow_root: bool,
        contexts: &[&str],
    ) -> Served<'_> {
        self.serve_so(spec, |serve| {
            serve.allow_root = allow_root;
            serve.contexts = contexts.iter().map(|one| (*one).to_owned()).collect();
        })
        .await
    }

    async fn serve_so(&self, spec: Spec, change: impl FnOnce(&mut Serve)) -> Served<'_> {
        let plan = self.linux.plan(&spec, &self.host).expect("a plan");
        self.linux.start(&plan).await.expect("a sandbox");
        let stream = self.linux.connect(&plan.handle).await.expect("a guest");
        let mut serve = Serve {
            confine: plan.confine.clone(),
            env: vec![("OF_ALL".to_owned(), "everybody's".to_owned())],
            allow_root: false,
            files: Vec::new(),
            secrets: Vec::new(),
            scrub_patterns: false,
            contexts: Vec::new(),
            user: String::new(),
            workdir: String::new(),
        };
        change(&mut serve);
        let served = tokio::time::timeout(PATIENCE, driver::guest::serve(stream, serve)).await;
        served
            .expect("an answer in time")
            .expect("a guest that lives on");
        Served { world: self, plan }
    }
}

impl Served<'_> {
    /// Sends a request over a connection of its own.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = self.world.linux.connect(&self.plan.handle).await;
        let stream = TokioIo::new(stream.expect("a guest"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        answer.expect("an answer in time").expect("an answer")
    }

    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: impl Into<Bytes>,
    ) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let answer = self.send(request).await;
        let (head, body) = answer.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await;
        Got {
            status: head.status.as_u16(),
            head: head.headers,
            body: body.expect("a body in time").expect("a body").to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.http("GET", path, &[], Bytes::new()).await
    }

    /// A call with one message each way: the answer, or the code of the error.
    pub(crate) async fn call(&self, method: &str, message: Value) -> Result<Value, String> {
        self.call_as(method, message, &[]).await
    }

    pub(crate) async fn call_as(
        &self,
        method: &str,
        message: Value,
        headers: Headers<'_>,
    ) -> Result<Value, String> {
        let own = [
            ("content-type", "application/json"),
            ("connect-protocol-version", "1"),
        ];
        let headers = [&own, headers].concat();
        let got = self
            .http("POST", &format!("/{method}"), &headers, message.to_string())
            .await;
        match got.status {
            200 => Ok(got.json()),
            _ => Err(got.json()["code"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// A call that is answered with a stream.
    pub(crate) async fn stream(
        &self,
        method: &str,
        messages: &[Value],
        headers: Headers<'_>,
    ) -> Events {
        let mut body = BytesMut::new();
        for message in messages {
            let text = message.to_string();
            let len = u32::try_from(text.len())
                .expect("a short message")
                .to_be_bytes();
            body.extend_from_slice(&[&[0][..], &len, text.as_bytes()].concat());
        }
        let mut request =
            Request::post(format!("/{method}")).header("content-type", "application/connect+json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.freeze())).expect("a request");
        let answer = self.send(request).await;
        assert_eq!(answer.status().as_u16(), 200);
        Events {
            body: answer.into_body(),
            buffer: BytesMut::new(),
        }
    }

    /// Starts a shell script and follows it.
    pub(crate) async fn start(&self, script: &str) -> Events {
        self.start_with(json!({"process": shell(script), "stdin": false}), &[])
            .await
    }

    pub(crate) async fn start_with(&self, request: Value, headers: Headers<'_>) -> Events {
        self.stream("process.Process/Start", &[request], headers)
            .await
    }

    /// What a script writes, and its exit code.
    pub(crate) async fn sh(&self, script: &str) -> (String, i64) {
        self.start(script).await.run().await
    }

    pub(crate) async fn destroy(&self) {
        let destroyed = self.world.linux.destroy(&self.plan.handle).await;
        destroyed.expect("nothing left of it");
    }
}

/// The configuration of a shell script.
pub(crate) fn shell(script: &str) -> Value {
    json!({"cmd": "/bin/sh", "args": ["-c", script]})
}

/// Bytes in base64.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The messages of an answer.
pub(crate) struct Events {
    body: Incoming,
    buffer: BytesMut,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Message(Value),
    /// The end, with the code of an error if there was one.
    End(Option<String>),
}

impl Events {
    pub(crate) async fn next(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.read())
            .await
            .expect("an event in time")
    }

    async fn read(&mut self) -> Event {
        loop {
            if let Some([flags, a, b, c, d]) = self.buffer.first_chunk::<5>().copied() {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.buffer.len() >= 5 + len {
                    self.buffer.advance(5);
                    let json = self.buffer.split_to(len);
                    let json: Value = serde_json::from_slice(&json).expect("JSON");
                    return match flags {
                        0 => Event::Message(json),
                        _ => Event::End(json["error"]["code"].as_str().map(str::to_owned)),
                    };
                }
            }
            let frame = self.body.frame().await.expect("an end of the stream");
            let bytes = frame.expect("a stream").into_data().unwrap_or_default();
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// The first message, which tells the number of the process.
    pub(crate) async fn pid(&mut self) -> u32 {
        let message = self.next().await.message().expect("a message");
        let pid = message["event"]["start"]["pid"].as_u64().expect("a number");
        u32::try_from(pid).expect("a number of a process")
    }

    /// Output until it holds this; keepalives are passed over.
    pub(crate) async fn until(&mut self, wanted: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            let message = self.next().await.message().expect("more output");
            seen.push_str(&text(&message));
        }
        seen
    }

    /// All output to the end of the process, and its end.
    pub(crate) async fn end(&mut self) -> (String, Value) {
        let mut seen = String::new();
        loop {
            let message = self.next().await.message().expect("the end of a process");
            if message["event"]["end"].is_object() {
                assert_eq!(self.next().await, Event::End(None));
                return (seen, message["event"]["end"].clone());
            }
            seen.push_str(&text(&message));
        }
    }

    pub(crate) async fn run(mut self) -> (String, i64) {
        let (seen, end) = self.end().await;
        (seen, end["exitCode"].as_i64().expect("an exit code"))
    }
}

impl Event {
    /// The message, or what came instead.
    pub(crate) fn message(self) -> Result<Value, Event> {
        match self {
            Event::Message(message) => Ok(message),
            end @ Event::End(_) => Err(end),
        }
    }
}

fn text(message: &Value) -> String {
    let data = &message["event"]["data"];
    let output = ["stdout", "stderr", "pty"]
        .iter()
        .find_map(|key| data[key].as_str());
    let bytes = BASE64_STANDARD
        .decode(output.unwrap_or_default())
        .expect("base64");
    String::from_utf8_lossy(&bytes).into_owned()
}
