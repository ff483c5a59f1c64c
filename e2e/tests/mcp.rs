//! The Model Context Protocol with the real binary: on stdio, with the official clients, and with what no
//! client would send.

use e2e::{Place, free_port, left_behind, no_sandbox, until};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A client that says what it likes.
struct Wire {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    count: u64,
}

impl Wire {
    fn new(place: &Place) -> Wire {
        let mut command = place.command(&["mcp"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Wire {
            child,
            to,
            from: BufReader::new(from.expect("its output")),
            count: 0,
        }
    }

    fn begun(place: &Place) -> Wire {
        let mut wire = Wire::new(place);
        wire.initialize();
        wire
    }

    fn initialize(&mut self) {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        let said = self.ask("initialize", &params);
        assert_eq!(said["result"]["protocolVersion"], "2025-11-25", "{said}");
        self.tell(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    }

    fn tell(&mut self, bytes: &[u8]) {
        let to = self.to.as_mut().expect("its input");
        to.write_all(bytes).expect("it reads");
        to.flush().expect("it reads");
    }

    /// Sends a request, and does not wait.
    fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.count += 1;
        let id = self.count;
        let asked = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.tell(format!("{asked}\n").as_bytes());
        id
    }

    /// The answer to a request; what else comes is passed over.
    fn answer(&mut self, id: u64) -> Value {
        loop {
            let mut line = String::new();
            let read = self.from.read_line(&mut line).expect("text");
            assert!(read > 0, "it has ended");
            let said: Value = serde_json::from_str(&line).expect("a message");
            if said["id"] == id {
                return said;
            }
        }
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send(method, params);
        self.answer(id)
    }

    fn call(&mut self, name: &str, arguments: &Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        self.ask("tools/call", &params)["result"].clone()
    }

    /// Closes its input and waits for its end.
    fn end(mut self) {
        self.to = None;
        let ended = self.child.wait().expect("its end");
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Of one that has ended there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn whatever_comes_before_and_after_the_beginning_does_not_end_it() {
    let place = Place::new();
    let mut wire = Wire::new(&place);
    let notice = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n";
    wire.tell(notice);
    wire.tell(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}\n");
    let early = wire.ask("tools/list", &json!({}));
    assert!(early["error"]["code"].is_i64(), "{early}");
    wire.initialize();
    wire.tell(b"\n\n{\n[]\n[1]\nnull\n{}\n\"x\"\n{\"jsonrpc\":\"1.0\"}\n");
    wire.tell(b"\xff\xfe\xfd\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}\n");
    wire.tell(format!("{}\n", "[".repeat(200_000)).as_bytes());
    // Longer than any message may be, in one line, and its end only later.
    let mut giant = vec![b'a'; 6 << 20];
    wire.tell(&giant);
    giant.push(b'\n');
    wire.tell(&giant);
    wire.tell(notice);
    for params in [
        json!(null),
        json!(1),
        json!({"name": 1}),
        json!({"name": "run"}),
        json!([]),
    ] {
        wire.send("tools/call", &params);
    }
    let tools = wire.ask("tools/list", &json!({}));
    assert_eq!(tools["result"]["tools"].as_array().map(Vec::len), Some(14));
    let lost = wire.call("output_read", &json!({"cursor": "out_0:0"}));
    assert_eq!(lost["isError"], true);
    wire.end();
}

#[test]
fn many_calls_at_once_are_answered_one_and_all() {
    let place = Place::new();
    let mut wire = Wire::begun(&place);
    let params = json!({"name": "sandbox_list", "arguments": {}});
    let ids: Vec<u64> = (0..2000)
        .map(|_| wire.send("tools/call", &params))
        .collect();
    let mut waiting: std::collections::HashSet<u64> = ids.into_iter().collect();
    while !waiting.is_empty() {
        let mut line = String::new();
        assert!(wire.from.read_line(&mut line).expect("text") > 0);
        let said: Value = serde_json::from_str(&line).expect("a message");
        let is_told = said["result"]["isError"] == false
            || said["result"]["content"][0]["text"]
                .as_str()
                .is_some_and(|text| text.starts_with("error too_much"));
        assert!(is_told, "{said}");
        waiting.remove(&said["id"].as_u64().expect("an id"));
    }
    wire.end();
}

#[test]
fn what_a_client_cancels_or_leaves_behind_ends() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let mut wire = Wire::begun(&place);
    let params = json!({"name": "run", "arguments": {"command": "sleep 1000"}});
    let id = wire.send("tools/call", &params);
    let running = || {
        let jobs = place.json(&["job", "ls", "--json"]);
        let states = jobs["jobs"].as_array().cloned().unwrap_or_default();
        states.iter().any(|job| job["state"] == "running")
    };
    assert!(until(running));
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    wire.tell(format!("{cancel}\n").as_bytes());
    assert!(until(|| !running()));
    let made = wire.call("sandbox_create", &json!({}));
    assert_eq!(made["structuredContent"]["state"], "ready", "{made}");
    wire.send("tools/call", &params);
    assert!(until(running));
    wire.end();
    assert!(!running());
    assert_eq!(left_behind(&place), [] as [String; 0]);
    let jobs = place.json(&["job", "ls", "--json"]);
    assert!(jobs.to_string().contains("canceled"), "{jobs}");
}

#[test]
fn two_clients_without_a_server_have_sandboxes_of_their_own() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let (mut one, mut other) = (Wire::begun(&place), Wire::begun(&place));
    for n in 0..8 {
        for wire in [&mut one, &mut other] {
            let made = wire.call("sandbox_create", &json!({}));
            let id = &made["structuredContent"]["sandbox_id"];
            let asked = json!({"sandbox_id": id, "command": format!("echo {n}")});
            let done = wire.call("sandbox_exec", &asked);
            assert_eq!(
                done["structuredContent"]["stdout"]["text"],
                format!("{n}\n"),
                "{done}"
            );
        }
    }
    one.end();
    other.end();
    assert_eq!(left_behind(&place), [] as [String; 0]);
}

#[test]
fn a_sandbox_dies_by_its_time_to_live() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let mut wire = Wire::begun(&place);
    let made = wire.call("sandbox_create", &json!({"ttl_s": 1}));
    let id = made["structuredContent"]["sandbox_id"].clone();
    let asked = json!({"sandbox_id": id, "command": "true"});
    let mut gone = String::new();
    assert!(until(|| {
        let done = wire.call("sandbox_exec", &asked);
        gone = done["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        done["isError"] == true
    }));
    assert!(gone.starts_with("error sandbox_gone"), "{gone}");
    wire.end();
}

/// The place that a variable names; none when nobody has set it, or nothing could be installed.
fn named(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the environment is cleared at once, and the program is the test's"
)]
fn program(path: &std::path::Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null());
    command
}

#[test]
fn the_official_python_client_does_a_days_work_in_every_protocol_on_stdio_and_http() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let Some(python) = named("COFFERDAM_MCP_PYTHON") else {
        println!("skipped: COFFERDAM_MCP_PYTHON names no Python with the SDK of MCP");
        return;
    };
    let (place, alone) = (Place::new(), Place::new());
    let address = format!("127.0.0.1:{}", free_port());
    let mut up = place.command(&["up", "--listen", &address, "--spares", "0"]);
    let mut up = up.stderr(Stdio::null()).spawn().expect("a server");
    assert!(until(|| std::net::TcpStream::connect(&address).is_ok()));
    let token = std::fs::read_to_string(place.state().join("token")).expect("a token");
    let mut command = program(&python);
    command
        .args(["-c", include_str!("models.py")])
        .env("COFFERDAM", e2e::program())
        .env("MCP_STATE", alone.state())
        .env("MCP_STATE_OF_UP", place.state())
        .env("MCP_URL", format!("http://{address}/mcp"))
        .env("MCP_TOKEN", token.trim());
    let output = command.output();
    drop(up.kill());
    drop(up.wait());
    let output = output.expect("a Python");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn the_inspector_lists_the_tools_and_calls_one() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let Some(dir) = named("COFFERDAM_MCP_INSPECTOR") else {
        println!("skipped: COFFERDAM_MCP_INSPECTOR names no directory with the Inspector of MCP");
        return;
    };
    let place = Place::new();
    let inspect = |more: &[&str]| {
        let mut command = program(&dir.join("node_modules/.bin/mcp-inspector"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let output = command
            .env("PATH", path)
            .env("HOME", place.work())
            .arg("--cli")
            .arg(e2e::program())
            .args(["mcp", "--state"])
            .arg(place.state())
            .args(more)
            .output()
            .expect("the Inspector");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let listed = inspect(&["--method", "tools/list"]);
    assert_eq!(listed["tools"].as_array().map(Vec::len), Some(14));
    let call = ["--method", "tools/call", "--tool-name", "run", "--tool-arg"];
    let done = inspect(&[&call[..], &["command=echo hello"]].concat());
    assert_eq!(
        done["structuredContent"]["stdout"]["text"], "hello\n",
        "{done}"
    );
}
