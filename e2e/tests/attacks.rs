//! Named attacks on secrets, with the real binary; and the list of all attacks, here and in the driver's tests, which is
//! `docs/attacks.md`.
//!
//! An attack is one function: its comment says what is tried in one sentence, and after `>` what happens.

#![expect(
    clippy::print_stdout,
    reason = "what cannot be tried is said by what the tests share"
)]

use e2e::{Place, Server, is_told_in, needs_sandbox, text};
use outside::{ADDRESS, Outside};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than a line of `base64` and of `xxd -p`.
const CANARY: &str =
    "canary/51d0+value=~/0123456789-abcdefghijklmnopqrstuvwxyz/ABCDEFGHIJKLMNOPQRSTUVWXYZ/the-end";
/// What of it must be nowhere.
const PIECE: &str = "canary/51d0";
const MARK: &str = "[secret token]";

/// Tries these one after the other.
macro_rules! tries {
    ($inside:ident: $($attack:ident),+ $(,)?) => {
        $(
            println!("attack: {}", stringify!($attack));
            $attack(&$inside);
        )+
    };
}

mod outside;
#[path = "attacks/resolver.rs"]
mod resolver;

/// A server with a secret, and a sandbox that may use it.
struct Inside {
    place: Place,
    server: Option<Server>,
    id: String,
    outside: Outside,
    plain: Plain,
}

impl Inside {
    /// `how` says how each secret is used, with the port of the host outside.
    fn new(how: impl Fn(u16) -> Vec<String>) -> Inside {
        let outside = Outside::answering(shows);
        let place = Place::new();
        let set = place.run_with_input(&["secret", "set", "token"], CANARY.as_bytes());
        assert!(set.status.success(), "{set:?}");
        let trusted = outside.trusted(&place);
        let mut up = vec!["--egress-allow", "127.0.0.1", "--spares", "0"];
        up.extend(trusted.iter().map(String::as_str));
        let server = place.up(&up, &[("COFFERDAM_LOG", "debug")]);
        let mut create = vec!["sandbox", "create", "--json", "--internet"];
        let how = how(outside.port);
        create.extend(how.iter().flat_map(|one| ["--secret", one.as_str()]));
        let made = place.json(&create);
        assert_eq!(made["state"], "ready", "{made}");
        let id = made["id"].as_str().expect("an id").to_owned();
        Inside {
            place,
            server: Some(server),
            id,
            outside,
            plain: Plain::new(),
        }
    }

    fn exec(&self, script: &str) -> Output {
        self.place
            .run(&["sandbox", "exec", &self.id, "--", "sh", "-c", script])
    }

    /// What a script writes to both streams, in which the value is not.
    fn says(&self, script: &str) -> String {
        let output = self.exec(script);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains(PIECE), "{script}: {said}");
        said
    }

    /// The same for a request to the host outside that has the secret.
    fn curl(&self, more: &str) -> String {
        let port = self.outside.port;
        self.says(&format!(
            "curl -s -m 20 -i {more} https://{ADDRESS}:{port}/x"
        ))
    }

    /// Nothing of it is on this machine's disk or in the log.
    fn end(mut self) {
        assert!(!is_told_in(&self.place.state(), PIECE));
        if let Some(server) = self.server.take() {
            let (_, log) = server.end();
            assert!(!log.contains(PIECE), "{log}");
        }
        assert!(!is_told_in(&self.place.state(), PIECE));
    }
}

/// A host that shows what it was sent: its head in the body, the value in a field of its own, and in digits.
fn shows(head: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let value = lines
        .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        .map(|(_, value)| value);
    let value = value.collect::<Vec<_>>().join(",");
    let mut digits = String::new();
    for byte in value.bytes() {
        write!(digits, "{byte:02x}").expect("a text");
    }
    let body = format!("{head}{digits}\n");
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nx-shown: {value}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Another host, in clear.
struct Plain {
    port: u16,
    heard: Mutex<Receiver<String>>,
}

impl Plain {
    fn new() -> Plain {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (tell, heard) = channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 4096];
                let length = stream.read(&mut head).unwrap_or(0);
                drop(stream.write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
                ));
                // Nobody may listen.
                drop(tell.send(text(&head[..length])));
            }
        });
        Plain {
            port,
            heard: Mutex::new(heard),
        }
    }

    fn next(&self) -> String {
        let heard = self.heard.lock().expect("one asks");
        heard
            .recv_timeout(Duration::from_secs(20))
            .expect("a request")
    }
}

#[test]
fn a_secret_that_is_inside_is_not_told() {
    needs_sandbox!();
    let inside = Inside::new(|_| vec!["token".to_owned(), "token=env:V".to_owned()]);
    tries!(inside:
        the_environment_is_printed, the_environment_in_proc, a_descriptor_of_the_file, memory_of_the_first_process,
        a_core_dump, a_program_by_the_name_of_the_value, a_trace_of_a_program_that_failed, the_value_in_other_writings,
        the_value_in_many_lines, the_value_in_two_pieces, the_record_of_what_was_run, a_copy_of_the_sandbox);
    inside.end();
}

/// All variables are printed, as a failing build does.
/// > `[secret NAME]` stands instead of the value.
fn the_environment_is_printed(inside: &Inside) {
    let said = inside.says("env; export -p; printenv V");
    assert!(said.matches(MARK).count() >= 3, "{said}");
}

/// Variables are read in `/proc`, of the program itself and of the first process.
/// > Its own are scrubbed on their way out; those of the first process nobody inside may read.
fn the_environment_in_proc(inside: &Inside) {
    let said = inside.says("cat /proc/self/environ; for p in /proc/[0-9]*; do cat $p/environ; done; cat /proc/1/environ || echo refused");
    assert!(said.contains(MARK) && said.contains("refused"), "{said}");
}

/// The file of the secret is kept open, handed on and read through `/proc`.
/// > What is read is scrubbed when it is told; the first process's descriptors are not shown.
fn a_descriptor_of_the_file(inside: &Inside) {
    let said = inside.says("exec 5</dev/shm/secrets/token; cat /proc/self/fd/5; ls /proc/1/fd 2>&1 | wc -l; ls /proc/1/fd || echo refused");
    assert!(said.starts_with(MARK) && said.contains("refused"), "{said}");
}

/// The first process has the values, and its memory is read or it is traced.
/// > Refused: it cannot be dumped or traced from inside.
fn memory_of_the_first_process(inside: &Inside) {
    let script = "python3 - <<'E'\nimport ctypes\nlibc = ctypes.CDLL(None)\n\
        print(libc.ptrace(16, 1, 0, 0), libc.ptrace(0x4206, 1, 0, 0))\n\
        try: open('/proc/1/mem', 'rb'); print('open')\nexcept OSError: print('refused')\n\
        buffer = ctypes.create_string_buffer(64); vec = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 64)\n\
        print(libc.syscall(310, 1, vec, 1, vec, 1, 0))\nE";
    assert_eq!(inside.says(script), "-1 -1\nrefused\n-1\n");
}

/// A program with the value in its memory crashes, for the core that it leaves.
/// > No core is written, and the limit cannot be raised.
fn a_core_dump(inside: &Inside) {
    let script = "cd /tmp; ulimit -c unlimited 2>/dev/null; ulimit -H -c; python3 -c 'import os; v = os.environ[\"V\"] * 100; os.abort()'; \
        sleep 0.1; find /tmp /home /var -name 'core*' -size +1k 2>/dev/null | wc -l; grep -rlsa 'canary/51d[0]' /tmp /home /var 2>/dev/null | wc -l";
    let said = inside.says(script);
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.chars().all(|one| one.is_ascii_digit()))
        .collect();
    assert_eq!(lines[lines.len() - 2..], ["0", "0"], "{said}");
}

/// A program is asked for by the name of the value, for an error that says which.
/// > The error has `[secret NAME]`.
fn a_program_by_the_name_of_the_value(inside: &Inside) {
    let said = inside.says("exec \"$V\"");
    assert!(said.contains(MARK), "{said}");
}

/// A program fails with the value in its last words.
/// > They are scrubbed like any other output.
fn a_trace_of_a_program_that_failed(inside: &Inside) {
    let said =
        inside.says("python3 -c 'import os; raise ValueError({\"token\": os.environ[\"V\"]})'");
    assert!(said.contains("ValueError") && said.contains(MARK), "{said}");
}

/// The value is written in base64, in digits, percent-encoded, in JSON, in one line each.
/// > Each of these is found, to its last character.
fn the_value_in_other_writings(inside: &Inside) {
    let script = "f=/dev/shm/secrets/token; base64 -w0 $f; echo; printf 'x%s' \"$V\" | base64 -w0; echo; \
        python3 -c 'import os, json, urllib.parse as u; v = os.environ[\"V\"]; h = v.encode().hex(); \
        print(h, h.upper(), u.quote(v, safe=\"\"), json.dumps(v), repr(v), sep=\"\\n\")'";
    let said = inside.says(script);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 7, "{said}");
    for line in lines {
        let left = line.replace(MARK, "");
        assert!(line.contains(MARK) && left.len() <= 4, "{said}");
    }
}

/// The same over several lines, as `base64`, PEM and `xxd -p` write them.
/// > Ends of lines are passed over: no later line has a piece of it.
fn the_value_in_many_lines(inside: &Inside) {
    let script = "f=/dev/shm/secrets/token; base64 $f; base64 -w64 $f; \
        python3 -c 'import os; h = os.environ[\"V\"].encode().hex(); print(*[h[at:at + 60] for at in range(0, len(h), 60)], sep=\"\\n\")'";
    let said = inside.says(script);
    let left = said.replace(MARK, "").replace(['\n', '='], "");
    assert!(said.matches(MARK).count() == 3 && left.is_empty(), "{said}");
}

/// The value is written in two pieces, with time between them.
/// > What could be its beginning is held back until it is known.
fn the_value_in_two_pieces(inside: &Inside) {
    let said = inside.says("printf %s \"${V%%+*}\"; sleep 0.3; printf %s \"+${V#*+}\"; echo .");
    assert_eq!(said, format!("{MARK}.\n"));
}

/// The value is an argument, which the record of what was run would keep.
/// > The record has `[secret NAME]`.
fn the_record_of_what_was_run(inside: &Inside) {
    let ran = inside
        .place
        .run(&["sandbox", "exec", &inside.id, "--", "true", CANARY]);
    assert!(ran.status.success(), "{ran:?}");
    let is_told = || {
        let log = text(
            &inside
                .place
                .run(&["sandbox", "log", &inside.id, "--json"])
                .stdout,
        );
        assert!(!log.contains(PIECE), "{log}");
        log.contains(MARK)
    };
    assert!(e2e::until(is_told));
}

/// A copy is made of the sandbox, and looked through from another one.
/// > Secrets are on a tmpfs, which no copy takes along, and variables are not saved.
fn a_copy_of_the_sandbox(inside: &Inside) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: snapshots are made by root only");
        return;
    }
    let secrets = ["--secret", "token", "--secret", "token=env:V"];
    let made = inside.place.json(
        &[
            &["sandbox", "create", "--json", "--allow-root"][..],
            &secrets,
        ]
        .concat(),
    );
    let id = made["id"].as_str().expect("an id");
    let saved = inside
        .place
        .json(&["sandbox", "snapshot", id, "--name", "copy", "--json"]);
    assert_eq!(saved["state"], "ready", "{saved}");
    assert!(!is_told_in(&inside.place.state(), PIECE));
    let again = inside.place.json(&["sandbox", "restore", "copy", "--json"]);
    let again = again["id"].as_str().expect("an id");
    let look = "echo \"<$V>\"; ls /dev/shm/secrets 2>/dev/null | wc -l; grep -rlsa 'canary/51d[0]' /home /tmp /var /etc /root | wc -l";
    let seen = inside
        .place
        .run(&["sandbox", "exec", again, "--", "sh", "-c", look]);
    assert_eq!(text(&seen.stdout), "<>\n0\n0\n");
}

#[test]
fn a_secret_for_what_leaves_is_never_inside() {
    needs_sandbox!();
    let inside = Inside::new(|port| {
        vec![format!(
            "token=header:{ADDRESS}:{port}:authorization:Bearer {{}}"
        )]
    });
    tries!(inside:
        a_host_that_shows_what_it_was_sent, a_field_of_ones_own_beside_the_secret, a_look_for_it_everywhere,
        the_secret_without_tls, the_secret_at_another_port, another_host_in_the_tunnel, another_name_in_tls, a_compressed_echo);
    inside.end();
}

/// A host shows its client the request as it came: in the body, in a field, and in digits.
/// > The value is taken out of the answer: the host had it, and the program gets `[secret NAME]`.
fn a_host_that_shows_what_it_was_sent(inside: &Inside) {
    let said = inside.curl("");
    let heard = inside.outside.next();
    assert!(heard.contains(CANARY), "{heard}");
    assert_eq!(said.matches(MARK).count(), 3, "{said}");
}

/// The program sends that field itself, once and twice, to have it beside the secret or instead.
/// > Its own are taken away: there is one field, with the value.
fn a_field_of_ones_own_beside_the_secret(inside: &Inside) {
    inside.curl("-H 'Authorization: mine' -H 'authorization: mine too'");
    let heard = inside.outside.next().to_ascii_lowercase();
    assert!(
        heard.matches("authorization:").count() == 1 && !heard.contains("mine"),
        "{heard}"
    );
}

/// Variables, files, `/proc` and the authority's directory are looked through.
/// > The value is on the node alone.
fn a_look_for_it_everywhere(inside: &Inside) {
    let look = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; cat /dev/shm/egress/*; grep -rlsa 'canary/5[1]d0' /dev/shm /tmp /home /etc /run /var; true";
    let said = inside.says(look);
    assert!(
        !said.contains(MARK) && !said.contains("PRIVATE KEY"),
        "{said}"
    );
}

/// The host is asked in clear, at the port at which it has the secret.
/// > 403 `secret_needs_tls`.
fn the_secret_without_tls(inside: &Inside) {
    let port = inside.outside.port;
    let said = inside.says(&format!("curl -s -m 20 -i http://{ADDRESS}:{port}/"));
    assert!(said.contains("x-proxy-error: secret_needs_tls"), "{said}");
}

/// Another host, in whose requests the first one's name is written.
/// > It gets no value; where the names differ the request is refused.
fn the_secret_at_another_port(inside: &Inside) {
    let port = inside.plain.port;
    let ask = format!(
        "unset no_proxy NO_PROXY; curl -s -m 20 -o /dev/null -w '%{{http_code}}\\n' -H 'authorization: mine' http://127.0.0.1:{port}/"
    );
    assert_eq!(inside.says(&ask), "200\n");
    let heard = inside.plain.next();
    assert!(heard.contains("mine") && !heard.contains(PIECE), "{heard}");
    let ask = format!("{ask} -H 'host: {ADDRESS}:{}'", inside.outside.port);
    assert_eq!(inside.says(&ask), "400\n");
}

/// A request in the tunnel names another host, behind the same address.
/// > 400 `host_mismatch`; nothing is sent.
fn another_host_in_the_tunnel(inside: &Inside) {
    let said = inside.curl("-H 'Host: other.test'");
    assert!(said.contains("x-proxy-error: host_mismatch"), "{said}");
}

/// The greeting in the tunnel names another host.
/// > `sni_mismatch`: no certificate is shown and nothing is sent.
fn another_name_in_tls(inside: &Inside) {
    let port = inside.outside.port;
    let script = format!(
        "python3 - <<'E'\nimport socket, ssl\ns = socket.create_connection(('127.0.0.1', 3128), 20)\n\
         s.sendall(b'CONNECT {ADDRESS}:{port} HTTP/1.1\\r\\nhost: {ADDRESS}:{port}\\r\\n\\r\\n'); s.recv(999)\n\
         c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n\
         try: c.wrap_socket(s, server_hostname='other.test'); print('greeted')\nexcept OSError: print('refused')\nE"
    );
    assert_eq!(inside.says(&script), "refused\n");
}

/// The program asks for a compressed answer, in which the value cannot be seen.
/// > The host is asked for one that is not.
fn a_compressed_echo(inside: &Inside) {
    inside.curl("-H 'Accept-Encoding: gzip, br'");
    let heard = inside.outside.next().to_ascii_lowercase();
    assert!(
        heard.contains("accept-encoding: identity") && !heard.contains("gzip"),
        "{heard}"
    );
}

/// One row of the list.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    test: String,
    attack: String,
    end: String,
}

/// The attacks of one file: functions that take an `Inside`, with their two lines of comment.
fn attacks(path: &Path) -> Vec<Row> {
    let source = std::fs::read_to_string(path).expect("a source");
    let file = path
        .file_stem()
        .and_then(|name| name.to_str())
        .expect("a name");
    let file = if file == "attacks" { "secrets" } else { file };
    let lines: Vec<&str> = source.lines().collect();
    let mut rows = Vec::new();
    for three in lines.windows(3) {
        let [attack, end, function] = three else {
            continue;
        };
        let name = function.trim_start_matches("async ").strip_prefix("fn ");
        let is_attack = function.contains("(inside: &");
        let (Some(attack), Some(end), Some(name), true) = (
            attack.strip_prefix("/// "),
            end.strip_prefix("/// > "),
            name,
            is_attack,
        ) else {
            continue;
        };
        let name = name.split('(').next().unwrap_or_default();
        rows.push(Row {
            test: format!("{file}::{name}"),
            attack: attack.to_owned(),
            end: end.to_owned(),
        });
    }
    rows
}

#[test]
fn the_list_of_attacks_is_the_attacks_that_are_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository");
    let driver = root.join("crates/driver/tests/linux/attacks");
    let mut files: Vec<_> = std::fs::read_dir(driver)
        .expect("attacks")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    files.sort();
    files.push(root.join("e2e/tests/attacks.rs"));
    files.push(root.join("e2e/tests/attacks/resolver.rs"));
    let rows: Vec<Row> = files.iter().flat_map(|path| attacks(path)).collect();
    let mut expected = String::new();
    for (number, row) in rows.iter().enumerate() {
        let Row { test, attack, end } = row;
        writeln!(expected, "| {} | {attack} | `{test}` | {end} |", number + 1).expect("a text");
    }
    let list = std::fs::read_to_string(root.join("docs/attacks.md")).expect("the list");
    let listed: String = list
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("::"))
        .fold(String::new(), |all, line| all + line + "\n");
    assert!(rows.len() >= 60, "{} attacks", rows.len());
    assert!(
        list.contains(&format!("{} attacks", rows.len())),
        "there are {}",
        rows.len()
    );
    assert_eq!(
        listed, expected,
        "docs/attacks.md is not the list of the attacks that are tried"
    );
}
