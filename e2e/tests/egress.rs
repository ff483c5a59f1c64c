//! The way out of sandboxes, through the whole system: from a program inside to a server of this machine that the
//! operator opened, before and after the server of ours was killed.

use e2e::{Place, http, no_sandbox, until};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

fn ask(place: &Place, line: &str, host: &str, kind: &str, body: &[u8]) -> (u16, String) {
    // Bodies of these tests are ASCII, the zeros of an envelope's head included.
    let body = String::from_utf8_lossy(body);
    let request = format!(
        "{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    http(&place.state().join("cofferdam.sock"), &request)
}

fn create(place: &Place, spec: &Value) -> Value {
    let line = "POST /v1/sandboxes?wait=30s";
    let (_, body) = ask(
        place,
        line,
        "localhost",
        "application/json",
        spec.to_string().as_bytes(),
    );
    serde_json::from_str(&body).expect("a sandbox")
}

/// The exit code of a Python script in a sandbox.
fn python(place: &Place, sandbox: &Value, script: &str) -> Option<i64> {
    let id = sandbox["id"].as_str()?.strip_prefix("sbx_")?;
    let process = json!({"process": {"cmd": "python3", "args": ["-c", script]}});
    let mut process = process.to_string();
    // The request is text here, so the length in its head must be, too.
    while process.len() % 256 > 127 {
        process.push(' ');
    }
    let length = u32::try_from(process.len()).ok()?.to_be_bytes();
    let envelope = [&[0][..], &length, process.as_bytes()].concat();
    let host = format!("49983-{id}.localhost");
    let line = "POST /process.Process/Start";
    let (_, said) = ask(place, line, &host, "application/connect+json", &envelope);
    let end = said.split("\"end\":").nth(1)?;
    let code = end.split("\"exitCode\":").nth(1).unwrap_or("0");
    let digits: String = code.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Reads a URL by the environment's proxy: 0 for 200, 3 for a denial, 4 for what could not be reached.
fn fetch(url: &str) -> String {
    format!(
        "import sys, urllib.request, urllib.error\n\
         try: sys.exit(urllib.request.urlopen('{url}', timeout=40).status - 200)\n\
         except urllib.error.HTTPError as e: sys.exit(3 if e.headers.get('x-proxy-error') else 5)\n\
         except urllib.error.URLError: sys.exit(4)\n"
    )
}

/// The same without any proxy: 0 for 200, 4 for what was refused.
fn direct(url: &str) -> String {
    let none = "urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))\ntry:";
    fetch(url).replacen("try:", none, 1)
}

/// The address by which this machine would reach the world, and whether sandboxes may have a network device.
fn own_address() -> Option<String> {
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    tun.ok()?;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// A program that knows no proxy reaches what is open from the one sandbox, and nothing from the other. By
/// address: names are the node's own resolver's, which has none for a test.
fn check_direct(place: &Place, sandboxes: [&Value; 2], own: Option<&str>, open: u16) {
    let Some(own) = own else {
        println!(
            "skipped: there is no device, or no address of this machine, to connect to without a proxy"
        );
        return;
    };
    let [out, none] = sandboxes;
    let here = direct(&format!("http://{own}:{open}/"));
    assert_eq!(python(place, out, &here), Some(0));
    assert_eq!(python(place, none, &here), Some(4));
    let private = direct(&format!("http://10.0.0.1:{open}/"));
    assert_eq!(python(place, out, &private), Some(4));
}

/// A server that answers everything with `ok`.
fn server() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            drop(stream.read(&mut head));
            drop(
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
                ),
            );
        }
    });
    port
}

#[test]
fn a_sandbox_reaches_what_the_operator_opened_also_after_the_server_was_killed() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: there is no python3 to listen with");
        return;
    }
    let place = Place::new();
    let (open, shut) = (server(), server());
    let allow = format!("127.0.0.1:{open}");
    let own = own_address();
    let own_too = format!("{}:{open}", own.as_deref().unwrap_or("127.0.0.1"));
    let up = [
        "--egress-allow",
        &allow,
        "--egress-allow",
        &own_too,
        "--spares",
        "0",
    ];
    let first = place.up(&up, &[]);
    let out = create(&place, &json!({"allow_internet": true}));
    assert_eq!(out["state"], "ready", "{out}");
    let clauses = out["enforcement"].as_array().cloned().unwrap_or_default();
    let network = clauses.iter().find(|one| one["clause"] == "network");
    assert_eq!(
        network.map(|one| one["value"].clone()),
        Some(json!("unrestricted"))
    );
    let none = create(&place, &json!({}));
    let at = |host: &str, port: u16| fetch(&format!("http://{host}:{port}/"));
    let plain = |url: &str| {
        // What `no_proxy` holds is taken away from it, for a look at the loopback outside.
        let direct = "import os\nfor name in ('no_proxy', 'NO_PROXY'): os.environ.pop(name, None)\n\
                      proxy = urllib.request.ProxyHandler({'http': 'http://127.0.0.1:3128'})\n\
                      urllib.request.install_opener(urllib.request.build_opener(proxy))\ntry:";
        fetch(url).replacen("try:", direct, 1)
    };
    let (here, there) = (
        format!("http://127.0.0.1:{open}/"),
        format!("http://127.0.0.1:{shut}/"),
    );
    assert_eq!(python(&place, &out, &plain(&here)), Some(0));
    assert_eq!(python(&place, &out, &plain(&there)), Some(3));
    assert_eq!(python(&place, &out, &at("169.254.169.254", 80)), Some(3));
    check_direct(&place, [&out, &none], own.as_deref(), open);
    // Without a way out the environment names no proxy, and nobody listens.
    assert_eq!(python(&place, &none, &at("169.254.169.254", 80)), Some(4));
    assert_eq!(python(&place, &none, &plain(&here)), Some(4));

    first.kill();
    let _second = place.up(&up, &[]);
    let ready = || python(&place, &out, &plain(&here)) == Some(0);
    assert!(until(ready), "the way out is there again");
    assert_eq!(python(&place, &out, &plain(&there)), Some(3));
    check_direct(&place, [&out, &none], own.as_deref(), open);
}

#[test]
fn an_exception_that_cannot_be_read_is_refused_at_the_start() {
    let place = Place::new();
    for text in ["localhost", "10.1.2.3/8", "127.0.0.1:0", "2130706433"] {
        let refused = place.run(&["up", "--no-listen", "--egress-allow", text]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{said}");
        assert!(
            said.contains("--egress-allow") && said.contains(text),
            "{said}"
        );
    }
}
