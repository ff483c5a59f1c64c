//! Contexts of a sandbox that lives on: interpreters that remember, over a tunnel to port 49999.

use crate::live_client::{Got, Served};
use crate::world::PATIENCE;
use bytes::{Bytes, BytesMut};
use driver::driver::Driver as _;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What an execution tells, line by line.
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// So much of the buffer has no end of a line in it: to look through ten million bytes once for each piece that
    /// comes takes longer than the guest waits for who reads slowly.
    looked: usize,
}

/// All that an execution told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) results: Vec<Value>,
    pub(crate) errors: Vec<Value>,
    pub(crate) count: u64,
}

impl Told {
    /// The text of the main result.
    pub(crate) fn text(&self) -> Option<&str> {
        let mut main = self
            .results
            .iter()
            .filter(|one| one["is_main_result"] == true);
        main.next()?["text"].as_str()
    }

    pub(crate) fn error(&self) -> &str {
        let first = self.errors.first();
        first
            .and_then(|one| one["name"].as_str())
            .unwrap_or_default()
    }
}

impl Lines {
    /// The next line; none at the end of the answer.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.read()).await;
        line.expect("a line in time")
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            let new = &self.buffer[self.looked..];
            if let Some(at) = new.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.looked + at + 1);
                self.looked = 0;
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            self.looked = self.buffer.len();
            let frame = self.body.frame().await?;
            let bytes = frame.expect("a stream").into_data().unwrap_or_default();
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// The next line of this type; others are passed over.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let line = self.next().await.expect("another line");
            if line["type"] == kind {
                return line;
            }
        }
    }

    /// Everything to the end, which there always is.
    pub(crate) async fn end(mut self) -> Told {
        let mut told = Told::default();
        loop {
            let line = self.next().await.expect("an end of the execution");
            let text = || line["text"].as_str().expect("text");
            match line["type"].as_str().expect("a type") {
                "stdout" => told.stdout.push_str(text()),
                "stderr" => told.stderr.push_str(text()),
                "result" => told.results.push(line),
                "error" => told.errors.push(line),
                "number_of_executions" => {
                    told.count = line["execution_count"].as_u64().expect("a number")
                }
                "keepalive" => {}
                "end_of_execution" => break,
                other => unreachable!("{other}"),
            }
        }
        assert_eq!(self.next().await, None);
        told
    }
}

impl Served<'_> {
    async fn ask(&self, request: Request<Full<Bytes>>) -> hyper::Response<Incoming> {
        let stream = self.world.linux.connect(&self.plan.handle).await;
        let stream = TokioIo::new(stream.expect("a guest"));
        let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        let tunnel = Request::builder().method("CONNECT").uri("127.0.0.1:49999");
        let tunnel = tunnel
            .header("host", "x")
            // As the door says it, for the record.
            .header("cofferdam-principal", "uid:7")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let tunnel = sender.send_request(tunnel).await.expect("an answer");
        assert_eq!(tunnel.status().as_u16(), 200);
        let tunnel = hyper::upgrade::on(tunnel).await.expect("a tunnel");
        let (mut sender, connection) = http1::handshake(tunnel).await.expect("HTTP");
        tokio::spawn(connection);
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        answer.expect("an answer in time").expect("an answer")
    }

    pub(crate) async fn code(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Got {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x");
        let request = request.body(Full::new(body.into())).expect("a request");
        let (head, body) = self.ask(request).await.into_parts();
        Got {
            status: head.status.as_u16(),
            head: head.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }

    pub(crate) async fn execute(&self, asked: Value) -> Lines {
        let request = Request::post("/execute").header("host", "x");
        let request = request
            .body(Full::new(asked.to_string().into()))
            .expect("a request");
        let answer = self.ask(request).await;
        assert_eq!(answer.status().as_u16(), 200);
        Lines {
            body: answer.into_body(),
            buffer: BytesMut::new(),
            looked: 0,
        }
    }

    pub(crate) async fn python(&self, code: &str) -> Told {
        self.execute(json!({"code": code})).await.end().await
    }

    async fn in_language(&self, language: &str, code: &str) -> Told {
        let asked = json!({"code": code, "language": language});
        self.execute(asked).await.end().await
    }

    pub(crate) async fn in_context(&self, id: &str, code: &str) -> Told {
        let asked = json!({"code": code, "context_id": id});
        self.execute(asked).await.end().await
    }

    pub(crate) async fn context(&self, asked: Value) -> String {
        let got = self.code("POST", "/contexts", asked.to_string()).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.json()["id"].as_str().expect("an id").to_owned()
    }
}

/// Goes on where the sandboxes of these tests, which have the programs of this machine, have this one.
macro_rules! program {
    ($program:literal) => {
        if !["/usr/local/bin", "/usr/bin", "/bin"]
            .iter()
            .any(|place| std::path::Path::new(place).join($program).exists())
        {
            println!("skipped: this machine has no {}", $program);
            return;
        }
    };
}
pub(crate) use program;

#[tokio::test]
async fn a_context_remembers_and_tells_results_output_and_errors() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let first = served
        .python("x = 40\nprint('out')\nimport sys; print('err', file=sys.stderr)")
        .await;
    assert_eq!(
        (first.stdout.as_str(), first.stderr.as_str(), first.count),
        ("out\n", "err\n", 1)
    );
    assert_eq!(served.python("x += 2\nx").await.text(), Some("42"));
    assert_eq!(
        served
            .python("import os; os.chdir('/tmp'); 'text'")
            .await
            .text(),
        Some("text")
    );
    assert_eq!(served.python("os.getcwd()").await.text(), Some("/tmp"));
    let failed = served.python("def f():\n    return 1 / 0\n\nf()").await;
    assert_eq!(failed.error(), "ZeroDivisionError");
    let trace = failed.errors[0]["traceback"].as_str().unwrap();
    assert!(
        trace.contains("Cell In[5], line 2, in f") && trace.contains("---->"),
        "{trace}"
    );
    let shown = served
        .python("class A:\n  def _repr_html_(self): return '<b>'\n  def _repr_png_(self): return b'PNG'\ndisplay(A()); 7")
        .await;
    assert_eq!(shown.results.len(), 2);
    assert_eq!(
        (&shown.results[0]["html"], &shown.results[0]["png"]),
        (&json!("<b>"), &json!("UE5H"))
    );
    assert_eq!(
        (&shown.results[0]["is_main_result"], shown.text()),
        (&json!(false), Some("7"))
    );
    let of_all = served
        .python("import asyncio; await asyncio.sleep(0); os.environ['OF_ALL']")
        .await;
    assert_eq!(of_all.text(), Some("everybody's"));
    let asked = json!({"code": "os.environ['ONCE']", "env_vars": {"ONCE": "1"}});
    assert_eq!(served.execute(asked).await.end().await.text(), Some("1"));
    assert_eq!(served.python("os.environ.get('ONCE')").await.text(), None);
    assert_eq!(
        served.python("input()").await.error(),
        "StdinNotImplementedError"
    );
    assert_eq!(
        served.python("!echo shell; echo bad >&2").await.stdout,
        "shell\n"
    );
    let who = served.python("import os; (os.getuid(), os.getcwd())").await;
    assert_eq!(who.text(), Some("(1000, '/tmp')"));
    assert_eq!(
        served.python("raise SystemExit(3)").await.error(),
        "SystemExit"
    );
    assert_eq!(served.python("x").await.text(), Some("42"));
    served.destroy().await;
}

#[tokio::test]
async fn a_bash_remembers_and_tells_how_it_ended() {
    let world = world!();
    program!("bash");
    let served = world.serve(false).await;
    let run = |code: &'static str| served.in_language("bash", code);
    let first = run("x='a b'; f() { echo \"got $1\"; }; cd /tmp; echo \"it's\"; cat").await;
    assert_eq!(
        (first.stdout.as_str(), first.stderr.as_str()),
        ("it's\n", "")
    );
    assert!(first.errors.is_empty(), "{first:?}");
    assert_eq!(
        run("echo \"$x\"; pwd; f you").await.stdout,
        "a b\n/tmp\ngot you\n"
    );
    let failed = run("echo bad >&2; (exit 3)").await;
    assert_eq!(
        (failed.error(), &failed.errors[0]["value"]),
        ("ExitCode", &json!("3"))
    );
    assert_eq!(failed.stderr, "bad\n");
    assert_eq!(run("echo $?").await.stdout, "3\n");
    assert!(run("if true; then").await.stderr.contains("syntax error"));
    let asked = json!({"code": "echo $ONCE $x", "language": "bash", "env_vars": {"ONCE": "o'n\ne", "x": "y"}});
    assert_eq!(served.execute(asked).await.end().await.stdout, "o'n e y\n");
    assert_eq!(
        run("echo \"${ONCE-none}\" \"$x\"").await.stdout,
        "none a b\n"
    );
    let gone = run("exit 4").await;
    assert_eq!(gone.error(), "UnexpectedEndOfExecution");
    assert!(
        gone.errors[0]["value"]
            .as_str()
            .unwrap()
            .contains("exit status 4")
    );
    assert_eq!(run("echo \"[$x]\"").await.stdout, "[]\n");
    served.destroy().await;
}

#[tokio::test]
async fn a_javascript_context_remembers_awaits_and_imports() {
    let world = world!();
    program!("node");
    let served = world.serve(false).await;
    let run = |code: &'static str| served.in_language("js", code);
    assert_eq!(
        run("const x = 20; let y = 1; console.log('hi')")
            .await
            .stdout,
        "hi\n"
    );
    assert_eq!(run("const x = 41; x + y").await.text(), Some("42"));
    assert_eq!(
        run("const v = await Promise.resolve(7); v").await.text(),
        Some("7")
    );
    assert_eq!(
        run("import { join } from 'path'\njoin('a', 'b') + v")
            .await
            .text(),
        Some("a/b7")
    );
    assert_eq!(
        run("Promise.reject(new TypeError('no'))").await.error(),
        "TypeError"
    );
    assert_eq!(run("let a = ;").await.error(), "SyntaxError");
    assert_eq!(
        run("require('fs').existsSync('/tmp')").await.text(),
        Some("true")
    );
    let endless = served.execute(json!({"code": "while (true) {}", "language": "javascript"}));
    let mut endless = endless.await;
    endless.until("number_of_executions").await;
    drop(endless);
    assert_eq!(run("x").await.text(), Some("41"));
    served.destroy().await;
}

#[tokio::test]
async fn contexts_are_made_listed_restarted_and_removed_and_run_beside_each_other() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    assert_eq!(served.code("GET", "/health", "").await.status, 200);
    let id = served
        .context(json!({"cwd": "/tmp", "language": "python"}))
        .await;
    let other = served.context(json!({})).await;
    let list = served.code("GET", "/contexts", "").await.json();
    let found = list
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == *id)
        .unwrap();
    assert_eq!(
        found,
        &json!({"id": id, "language": "python", "cwd": "/tmp"})
    );
    assert_eq!(
        served
            .in_context(&id, "import os; x = 1; os.getcwd()")
            .await
            .text(),
        Some("/tmp")
    );
    assert_eq!(served.in_context(&other, "x").await.error(), "NameError");
    // Each waits for a file that the other makes.
    let code = |mine: &str, theirs: &str| {
        format!(
            "open('/tmp/{mine}', 'w').close()\nwhile not os.path.exists('/tmp/{theirs}'): pass\n'met'"
        )
    };
    let (code, other_code) = (
        code("one", "two"),
        format!("import os\n{}", code("two", "one")),
    );
    let both = tokio::join!(
        served.in_context(&id, &code),
        served.in_context(&other, &other_code)
    );
    assert_eq!((both.0.text(), both.1.text()), (Some("met"), Some("met")));
    // In one they wait for each other.
    let slow = json!({"code": "import time; time.sleep(0.1); y = 5", "context_id": id});
    let mut first = served.execute(slow).await;
    first.until("number_of_executions").await;
    assert_eq!(served.in_context(&id, "y").await.text(), Some("5"));
    first.end().await;
    served.destroy().await;
}

#[tokio::test]
async fn a_context_is_restarted_interrupted_and_removed_while_code_runs_in_it() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let id = served.context(json!({})).await;
    served.in_context(&id, "x = 1").await;
    // What runs when it is restarted ends at once, and nothing is remembered.
    let asked = json!({"code": "while True: pass", "context_id": id});
    let mut running = served.execute(asked).await;
    running.until("number_of_executions").await;
    let restart = format!("/contexts/{id}/restart");
    assert_eq!(served.code("POST", &restart, "").await.status, 204);
    let ended = running.end().await;
    assert_eq!(ended.errors[0]["value"], "the context was restarted");
    let fresh = served.in_context(&id, "x").await;
    assert_eq!(
        (fresh.error(), fresh.count, fresh.stderr.as_str()),
        ("NameError", 1, "")
    );
    // Interrupted, it goes on.
    served.in_context(&id, "x = 6").await;
    // The number is told before the code has begun, and then there is nothing to interrupt.
    let code = "print('on', flush=True)\nwhile True: pass";
    let mut running = served
        .execute(json!({"code": code, "context_id": id}))
        .await;
    running.until("stdout").await;
    let interrupt = format!("/contexts/{id}/interrupt");
    assert_eq!(served.code("POST", &interrupt, "").await.status, 204);
    assert_eq!(running.end().await.error(), "KeyboardInterrupt");
    assert_eq!(served.in_context(&id, "x").await.text(), Some("6"));
    // Removed, what runs in it ends.
    let asked = json!({"code": "while True: pass", "context_id": id});
    let mut running = served.execute(asked).await;
    running.until("number_of_executions").await;
    let path = format!("/contexts/{id}");
    assert_eq!(served.code("DELETE", &path, "").await.status, 204);
    assert_eq!(
        running.end().await.errors[0]["value"],
        "the context was removed"
    );
    assert_eq!(served.code("DELETE", &path, "").await.status, 404);
    let asked = json!({"code": "1", "context_id": id}).to_string();
    assert_eq!(served.code("POST", "/execute", asked).await.status, 404);
    served.destroy().await;
}

#[tokio::test]
async fn javascript_keeps_what_it_knows_whenever_and_however_often_it_is_interrupted() {
    let world = world!();
    program!("node");
    program!("bash");
    let served = world.serve(false).await;
    let id = served.context(json!({"language": "javascript"})).await;
    served.in_context(&id, "var kept = 0").await;
    // Between any two lines it may have to wait for these.
    let busy = "for n in 1 2 3; do (while :; do :; done) & done";
    let busy = json!({"code": busy, "language": "bash"});
    served.execute(busy).await.end().await;
    let interrupt = format!("/contexts/{id}/interrupt");
    let endless = [
        "while (true) {}",
        "await new Promise(() => {})",
        "await null; while (true) {}",
        "await new Promise(() => setTimeout(() => { while (true) {} }))",
    ];
    let listening = "process.on('SIGINT', () => {}); while (true) {}";
    for code in endless.into_iter().cycle().take(20).chain([listening]) {
        let asked = json!({"code": code, "context_id": id});
        let running = served.execute(asked).await;
        // Some come before the code has begun, and some while it stops.
        let storm = async {
            loop {
                served.code("POST", &interrupt, "").await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            ended = running.end() => assert_eq!(ended.error(), "KeyboardInterrupt", "{code}"),
            () = storm => {}
        }
    }
    assert_eq!(served.in_context(&id, "kept").await.text(), Some("0"));
    served.destroy().await;
}

#[tokio::test]
async fn javascript_that_is_interrupted_just_before_it_begins_stops_and_keeps_what_it_knows() {
    let world = world!();
    program!("node");
    let served = world.serve(false).await;
    let id = served.context(json!({"language": "javascript"})).await;
    // The next execution looks through its code with this, and by then no script runs that could be stopped.
    let hook = "var kept = 7, values = Object.values; await null; Object.values = (of) => { Object.values = values; \
        process.kill(process.pid, 'SIGINT'); const until = Date.now() + 50; while (Date.now() < until); return values(of); }; 0";
    assert!(served.in_context(&id, hook).await.errors.is_empty());
    let start = Instant::now();
    let told = served.in_context(&id, "while (true) {}").await;
    assert_eq!(told.error(), "KeyboardInterrupt", "{told:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(served.in_context(&id, "kept").await.text(), Some("7"));
    served.destroy().await;
}

#[tokio::test]
async fn a_client_that_leaves_interrupts_its_code_and_not_the_context() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    served.python("kept = 1").await;
    let mut running = served
        .execute(json!({"code": "print('on')\nwhile True: pass"}))
        .await;
    running.until("stdout").await;
    drop(running);
    let start = Instant::now();
    assert_eq!(served.python("kept").await.text(), Some("1"));
    assert!(start.elapsed() < Duration::from_secs(5));
    // One that leaves while it waits takes nothing with it.
    let first = served
        .execute(json!({"code": "import time; time.sleep(0.2); kept += 1"}))
        .await;
    drop(served.execute(json!({"code": "kept = 'lost'"})).await);
    first.end().await;
    assert_eq!(served.python("kept").await.text(), Some("2"));
    served.destroy().await;
}

#[tokio::test]
async fn a_silent_execution_says_that_it_is_there() {
    let world = world!();
    program!("bash");
    let served = world.serve(false).await;
    let mut lines = served
        .execute(json!({"code": "sleep 6", "language": "bash"}))
        .await;
    lines.until("keepalive").await;
    assert!(lines.end().await.errors.is_empty());
    served.destroy().await;
}

#[tokio::test]
async fn what_no_context_can_run_is_refused() {
    let world = world!();
    let served = world.serve(false).await;
    let long = "x".repeat((4 << 20) + 1);
    for (body, status, word) in [
        (
            json!({"code": "1", "language": "r"}).to_string(),
            400,
            "no language 'r'",
        ),
        (
            json!({"code": "1", "language": "bash", "context_id": "x"}).to_string(),
            400,
            "not both",
        ),
        (
            json!({"code": "a\0b", "language": "bash"}).to_string(),
            400,
            "zero bytes",
        ),
        (
            json!({"code": "1", "env_vars": {"A=B": "c"}}).to_string(),
            400,
            "variable",
        ),
        (json!({"code": 1}).to_string(), 400, "cannot be read"),
        ("{".to_owned(), 400, "cannot be read"),
        (json!({"code": long}).to_string(), 400, "4 MiB"),
        ("x".repeat(10 << 20), 429, "at most"),
        (
            json!({"code": "1", "context_id": "nobody"}).to_string(),
            404,
            "nobody",
        ),
    ] {
        let got = served.code("POST", "/execute", body).await;
        let text = String::from_utf8_lossy(&got.body).into_owned();
        assert_eq!(got.status, status, "{text}");
        assert!(text.contains(word), "{text}");
    }
    let nowhere = served
        .code("POST", "/contexts", r#"{"cwd":"/nowhere"}"#)
        .await;
    assert_eq!(nowhere.status, 400);
    assert_eq!(served.code("GET", "/execute", "").await.status, 404);
    assert_eq!(
        served.code("POST", "/contexts/x/restart", "").await.status,
        404
    );
    // The routes of envd are not here.
    assert_eq!(served.code("GET", "/envs", "").await.status, 404);
    served.destroy().await;
}

#[tokio::test]
async fn a_program_that_listens_at_the_port_is_what_answers_there() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let server = "import http.server as h\nclass A(h.BaseHTTPRequestHandler):\n\
        \x20 def do_GET(self): self.send_response(418); self.end_headers()\n\
        print('listens', flush=True)\nh.HTTPServer(('127.0.0.1', 49999), A).serve_forever()";
    let mut events = served
        .start_with(
            json!({"process": {"cmd": "python3", "args": ["-c", server]}}),
            &[],
        )
        .await;
    events.until("listens").await;
    let start = Instant::now();
    while served.code("GET", "/health", "").await.status != 418 {
        assert!(start.elapsed() < PATIENCE, "nobody listens");
    }
    served.destroy().await;
}
