//! The way out of sandboxes, through the whole system: from a program inside to a server of this machine that the
//! operator opened, before and after the server of ours was killed.

#![expect(
    clippy::print_stdout,
    reason = "what cannot be tried is said by what the tests share"
)]

use e2e::{Place, http, no_sandbox, until};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::net::ToSocketAddrs as _;

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

/// What a sandbox or a job has asked of the outside, once it is so many records.
fn log(place: &Place, id: &str, count: usize) -> Vec<Value> {
    let mut records = Vec::new();
    let all = until(|| {
        let out = place.run(&["egress", "log", id, "--json"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        records = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        records.len() >= count
    });
    assert!(all, "{records:?}");
    records
}

/// The same as [`direct`], as a command line, with what is said of it on standard output.
fn direct_line(url: &str) -> String {
    format!(
        "import urllib.request as u, urllib.error as e\n\
         u.install_opener(u.build_opener(u.ProxyHandler({{}})))\n\
         try: print(u.urlopen('{url}', timeout=40).read().decode())\n\
         except e.URLError as why: print(why.reason.__class__.__name__)"
    )
}

/// The clause of a job or a sandbox that says how it has its network.
fn network_clause(view: &Value) -> String {
    let clauses = view["enforcement"].as_array().cloned().unwrap_or_default();
    let network = clauses.iter().find(|one| one["clause"] == "network");
    let how = network.and_then(|one| one["how"].as_str());
    how.unwrap_or_default().to_owned()
}

#[test]
fn a_program_of_a_job_that_knows_no_proxy_reaches_what_the_job_may_also_on_a_spare() {
    if !can_ask() {
        return;
    }
    let Some(own) = own_address() else {
        println!("skipped: there is no device, or no address of this machine");
        return;
    };
    let place = Place::new();
    let port = server();
    let allow = format!("{own}:{port}");
    let devices = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \n'";
    for spares in ["0", "2"] {
        let _up = place.up(&["--egress-allow", &allow, "--spares", spares], &[]);
        let ask = direct_line(&format!("http://{own}:{port}/"));
        let run = |argv: &[&str]| {
            let all = [&["run", "--json", "--allow", &allow, "--"][..], argv].concat();
            let out = place.run(&all);
            serde_json::from_slice::<Value>(&out.stdout).expect("a job")
        };
        let job = run(&["python3", "-c", &ask]);
        assert_eq!(job["stdout"]["text"], "ok\n", "{job}");
        let how = network_clause(&job);
        assert!(
            how.ends_with("TUN device, DNS inside, egress proxy"),
            "{how}"
        );
        // Another port, a private address, and a name that the rules do not know.
        for url in [
            format!("http://{own}:{}/", port ^ 1),
            format!("http://10.0.0.1:{port}/"),
        ] {
            let job = run(&["python3", "-c", &direct_line(&url)]);
            assert_eq!(job["stdout"]["text"], "ConnectionRefusedError\n", "{job}");
            let id = job["id"].as_str().expect("an id");
            let records = log(&place, id, 1);
            assert_eq!(records[0]["method"], "direct");
            assert_eq!(records[0]["code"], "host_not_allowed");
            assert_eq!(records[0]["job_id"], json!(id));
        }
        let job = run(&["python3", "-c", &direct_line("http://a.example/")]);
        assert_eq!(job["stdout"]["text"], "gaierror\n", "{job}");
        let records = log(&place, job["id"].as_str().expect("an id"), 1);
        assert_eq!(
            (&records[0]["method"], &records[0]["code"]),
            (&json!("dns"), &json!("host_not_allowed"))
        );
        // Who asks for no network has no device, and nothing was made for it.
        let out = place.run(&["run", "--", "sh", "-c", devices]);
        assert_eq!(String::from_utf8_lossy(&out.stdout), "lo");
    }
}

/// The attack: names that carry data out of a job, and so many of them that a few bytes in each are a file.
#[test]
fn names_of_a_job_carry_no_data_and_are_so_many_in_a_minute() {
    if !can_ask() {
        return;
    }
    if own_address().is_none() {
        println!("skipped: there is no device, or no address of this machine");
        return;
    }
    // A resolver that drops some of many questions is asked again after five seconds, and the minute is over.
    let start = std::time::Instant::now();
    for n in 0..60 {
        drop((format!("first{n}.invalid"), 80).to_socket_addrs());
    }
    if start.elapsed() > std::time::Duration::from_secs(2) {
        println!("skipped: names that nobody has are not answered at once here");
        return;
    }
    let place = Place::new();
    let _up = place.up(&["--spares", "0"], &[]);
    // Names that nobody has: this machine's resolver says so at once, or there is none.
    let script = "import socket, struct\n\
        from concurrent.futures import ThreadPoolExecutor\n\
        def ask(name):\n    \
        q = b'\\x12\\x34\\x01\\0\\0\\1' + bytes(6)\n    \
        for label in name.split('.'): q += bytes([len(label)]) + label.encode()\n    \
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(30)\n    \
        s.sendto(q + b'\\0\\0\\1\\0\\1', ('198.18.0.1', 53)); return s.recv(999)[3] & 15\n\
        data = 'abcdefghijklmnopqrstuvwxyz234567'\n\
        print(ask(data + '.' + data[::-1] + 'x.t.example'))\n\
        codes = list(ThreadPoolExecutor(30).map(lambda n: ask('n%d.invalid' % n), range(300)))\n\
        print(5 in codes, ask('last.invalid'))";
    let line = [
        "run",
        "--json",
        "--net",
        "unrestricted",
        "--",
        "python3",
        "-c",
        script,
    ];
    let out = place.run(&line);
    let job: Value = serde_json::from_slice(&out.stdout).expect("a job");
    assert_eq!(job["stdout"]["text"], "5\nFalse 2\n", "{job}");
    let id = job["id"].as_str().expect("an id");
    let records = log(&place, id, 302);
    let with = |code: &str| records.iter().filter(|one| one["code"] == code).count();
    assert_eq!((with("name_carries_data"), with("too_many_names")), (1, 1));
}

/// A server of DNS by which every name is at this address.
fn resolver(address: [u8; 4]) -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let mut said = question[..length].to_vec();
            said[2..4].copy_from_slice(&[0x81, 0x80]);
            // For A, a record whose name is a pointer to that of the question.
            if said.ends_with(&[0, 1, 0, 1]) {
                said[7] = 1;
                said.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
                said.extend(address);
            }
            drop(socket.send_to(&said, from));
        }
    });
    port
}

#[test]
fn a_name_is_on_record_with_its_address_outside_and_the_program_is_told_another() {
    if !can_ask() {
        return;
    }
    if own_address().is_none() {
        println!("skipped: there is no device, or no address of this machine");
        return;
    }
    let place = Place::new();
    let _up = place.up(&["--egress-allow", "127.0.0.1", "--spares", "0"], &[]);
    let dns = format!("127.0.0.1:{}", resolver([127, 0, 0, 1]));
    let look = "import socket; print(socket.gethostbyname('far.example'))";
    let line = [
        "run",
        "--json",
        "--net",
        "unrestricted",
        "--dns",
        &dns,
        "--",
        "python3",
        "-c",
        look,
    ];
    let out = place.run(&line);
    let job: Value = serde_json::from_slice(&out.stdout).expect("a job");
    let told = job["stdout"]["text"].as_str().unwrap_or_default();
    assert!(told.starts_with("198.18."), "{job}");
    let records = log(&place, job["id"].as_str().expect("an id"), 1);
    let one = &records[0];
    assert_eq!(
        (&one["method"], &one["answers"], &one["ttl_s"]),
        (&json!("dns"), &json!(["127.0.0.1"]), &json!(60)),
        "{one}"
    );
}

#[test]
fn a_job_reaches_what_it_was_allowed_and_its_denials_are_on_record() {
    if !can_ask() {
        return;
    }
    let place = Place::new();
    let port = server();
    let allow = format!("127.0.0.1:{port}");
    for spares in ["0", "2"] {
        let _up = place.up(&["--egress-allow", &allow, "--spares", spares], &[]);
        let url = format!("http://127.0.0.1:{port}/");
        let ask = format!(
            "unset no_proxy NO_PROXY; curl -s {url}; curl -s -o /dev/null -w ' %{{http_code}}' http://a.example/"
        );
        let out = place.run(&["run", "--json", "--allow", &allow, "--", "sh", "-c", &ask]);
        let job: Value = serde_json::from_slice(&out.stdout).expect("a job");
        assert_eq!(job["stdout"]["text"], "ok 403", "{job}");
        let id = job["id"].as_str().expect("an id").to_owned();
        let records = log(&place, &id, 2);
        assert_eq!(records[0]["decision"], "allowed");
        assert_eq!(
            records[0]["rule"],
            format!("allow {allow}, operator {allow}")
        );
        assert_eq!(records[0]["job_id"], json!(id));
        assert_eq!(records[1]["host"], "a.example");
        assert_eq!(
            (&records[1]["decision"], &records[1]["code"]),
            (&json!("denied"), &json!("host_not_allowed"))
        );
        let shown = place.json(&["job", "get", &id, "--json"]);
        assert_eq!(shown["egress_denied"], 1, "{shown}");
        // Whoever follows a job that has ended gets all of it, and comes back.
        let of_one = [
            "egress",
            "log",
            &id,
            "--json",
            "--follow",
            "--host",
            "a.example",
        ];
        let followed = place.json(&of_one);
        assert_eq!(followed, records[1]);
        assert_eq!(shown["spec"]["network"]["mode"], "allowlist");
        // Without being asked for there is none: nobody listens, and no variable says so.
        let none = format!("echo \"<$http_proxy>\"; curl -s -m 5 -x http://127.0.0.1:3128 {url}");
        let out = place.run(&["run", "--", "sh", "-c", &none]);
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "<>");
        assert_eq!(out.status.code(), Some(7));
    }
}

/// A sandbox, and where somebody answers outside.
struct Living {
    place: Place,
    id: String,
    port: u16,
}

impl Living {
    /// One without a network.
    fn new(place: Place) -> Living {
        let made = place.json(&["sandbox", "create", "--json"]);
        assert_eq!(made["network"]["mode"], "none");
        let id = made["id"].as_str().expect("an id").to_owned();
        let port = server();
        Living { place, id, port }
    }

    fn shell(&self, line: &str) -> std::process::Command {
        let args = ["sandbox", "exec", &self.id, "--", "sh", "-c", line];
        self.place.command(&args)
    }

    /// The status of a request outside, by what the environment says.
    fn ask(&self) -> String {
        let port = self.port;
        let line = format!(
            "unset no_proxy NO_PROXY; curl -s -m 10 -w '%{{http_code}}' -o /dev/null http://127.0.0.1:{port}/"
        );
        let out = self.shell(&line).output().expect("a command");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// What a program says that knows no proxy.
    fn ask_directly(&self, url: &str) -> String {
        let args = [
            "sandbox",
            "exec",
            &self.id,
            "--",
            "python3",
            "-c",
            &direct_line(url),
        ];
        let out = self.place.run(&args);
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Says the rules anew, and gives what the clause says then.
    fn net(&self, args: &[&str]) -> Value {
        let all = [&["sandbox", "net", &self.id, "--json"][..], args].concat();
        let view = self.place.json(&all);
        assert_eq!(view["network_pending"], false, "{view}");
        let clauses = view["enforcement"].as_array().cloned().unwrap_or_default();
        let network = clauses.into_iter().find(|one| one["clause"] == "network");
        network.map(|one| one["value"].clone()).unwrap_or_default()
    }
}

/// Whether what these tests need is here.
fn can_ask() -> bool {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return false;
    }
    let has = std::path::Path::new("/usr/bin/curl").exists();
    if !has {
        println!("skipped: there is no curl to ask with");
    }
    has
}

#[test]
fn rules_of_a_sandbox_change_while_it_lives_and_outlive_the_server() {
    if !can_ask() {
        return;
    }
    let place = Place::new();
    let up = ["--egress-allow", "127.0.0.1", "--spares", "0"];
    let first = place.up(&up, &[]);
    let living = Living::new(place);
    // Outside is not what is inside: the port is closed there.
    assert_eq!(living.ask(), "000");
    assert_eq!(living.net(&["--net", "unrestricted"]), "unrestricted");
    let finds = || living.ask() == "200";
    assert!(until(finds), "a program that begins now finds the way");
    assert_eq!(
        living.net(&["--deny", "127.0.0.0/8"]),
        "unrestricted: 1 denied"
    );
    assert_eq!(living.ask(), "403");
    let args = ["egress", "test", "https://127.0.0.1/", "--as", &living.id];
    // Past the rule that denies it, the operator's exception is known too.
    assert_eq!(living.net(&["--net", "unrestricted"]), "unrestricted");
    let tested = living.place.run(&args);
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(
        tested.status.success() && said.contains("operator 127.0.0.1"),
        "{said}"
    );
    living.net(&["--deny", "127.0.0.0/8"]);
    let tested = living.place.run(&args);
    assert_eq!(tested.status.code(), Some(1));
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(said.contains("deny 127.0.0.0/8"), "{said}");
    first.kill();
    let _second = living.place.up(&up, &[]);
    assert!(
        until(|| living.ask() == "403"),
        "the rules outlive the server"
    );
    let some = ["--allow", "127.0.0.1", "--allow", "b.example"];
    assert_eq!(living.net(&some), "allowlist: 2 allowed");
    assert_eq!(living.ask(), "200");
}

#[test]
fn a_sandbox_that_gets_its_network_later_gets_all_of_it() {
    if !can_ask() {
        return;
    }
    let Some(own) = own_address() else {
        println!("skipped: there is no device, or no address of this machine");
        return;
    };
    let place = Place::new();
    let up = ["--egress-allow", &own, "--spares", "0"];
    let first = place.up(&up, &[]);
    let living = Living::new(place);
    let url = format!("http://{own}:{}/", living.port);
    let clause = || network_clause(&living.place.json(&["sandbox", "get", &living.id, "--json"]));
    assert_eq!(living.ask_directly(&url), "OSError");
    assert_eq!(clause(), "network namespace");
    assert_eq!(living.net(&["--allow", &own]), "allowlist: 1 allowed");
    assert!(until(|| living.ask_directly(&url) == "ok"));
    assert_eq!(
        clause(),
        "network namespace, TUN device, DNS inside, egress proxy"
    );
    assert_eq!(
        living.ask_directly("http://10.0.0.1/"),
        "ConnectionRefusedError"
    );
    first.kill();
    let _second = living.place.up(&up, &[]);
    assert!(
        until(|| living.ask_directly(&url) == "ok"),
        "also after the server was killed"
    );
    assert_eq!(living.net(&["--net", "none"]), "none");
    assert_eq!(living.ask_directly(&url), "ConnectionRefusedError");
}

#[test]
fn a_stream_that_is_not_allowed_any_more_is_cut_and_recorded() {
    if !can_ask() {
        return;
    }
    let place = Place::new();
    let _up = place.up(&["--egress-allow", "127.0.0.1", "--spares", "0"], &[]);
    let living = Living::new(place);
    assert_eq!(living.net(&["--net", "unrestricted"]), "unrestricted");
    assert!(until(|| living.ask() == "200"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = listener.local_addr().expect("an address").port();
    let line = format!(
        "unset no_proxy NO_PROXY; curl -s -N http://127.0.0.1:{silent}/ >/dev/null; echo ended"
    );
    let mut hanging = living.shell(&line);
    hanging.stdout(std::process::Stdio::piped());
    let hanging = hanging.spawn().expect("a command");
    let (mut stream, _) = listener.accept().expect("a connection");
    // What answers before it was asked is no server of HTTP, and the request fails.
    let asked = stream.read(&mut [0; 4096]).expect("a request");
    assert!(asked > 0);
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome";
    stream.write_all(answer).expect("a connection");
    let open = || {
        living
            .place
            .json(&["egress", "connections", &living.id, "--json"])
    };
    assert!(until(|| open()["bytes_in"].as_u64() > Some(40)));
    let of_all = living.place.json(&["egress", "connections", "--json"]);
    for one in [open(), of_all] {
        assert_eq!(
            (&one["port"], &one["decision"]),
            (&json!(silent), &json!("allowed")),
            "{one}"
        );
        assert_eq!(one["sandbox_id"], json!(living.id));
    }
    assert_eq!(living.net(&["--net", "none"]), "none");
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest));
    let out = hanging.wait_with_output().expect("an end");
    assert!(String::from_utf8_lossy(&out.stdout).contains("ended"));
    assert_eq!(living.ask(), "403", "it says that there is none now");
    let is_cut = |one: &Value| one["code"] == "no_egress" && one["port"] == silent;
    let is_recorded = || {
        let records = log(&living.place, &living.id, 1);
        let cut = records.into_iter().find(is_cut);
        cut.is_some_and(|one| one["bytes_in"].as_u64() > Some(40))
    };
    assert!(until(is_recorded));
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
