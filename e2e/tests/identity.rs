//! Tokens of a provider of identities at a real server: people who log in, programs that show one, and a development
//! that lets in who shows nothing.
#![expect(
    clippy::unwrap_used,
    reason = "what the tests build on is part of the tests"
)]

#[path = "identity/provider.rs"]
mod provider;
#[expect(dead_code, reason = "it is that of the tests of the service")]
#[path = "../../crates/service/tests/service/jwt/sign.rs"]
mod sign;

use e2e::{Place, Process, free_port, good, text, until};
use provider::Provider;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

struct Server {
    /// First, so that it has ended when its place goes.
    _process: Process,
    place: Place,
    url: String,
}

fn issuer(provider: &Provider) -> String {
    let url = &provider.url;
    format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"{url}\"\naudience = \"cofferdam-cli\"\n\
         algorithms = [\"RS256\"]\njwks_url = \"{url}/keys\"\ntenant = \"local\"\nrole = \"operator\"\n\
         create = true\n[issuers.login]\nclient_id = \"cofferdam-cli\"\n"
    )
}

impl Server {
    /// A server with these lines in its configuration, before and after its own.
    fn start(before: &str, lines: &str, after: &str) -> Server {
        let (place, port) = (Place::new(), free_port());
        let config = format!(
            "{before}\n[server]\nstate = \"{}\"\nlisten = \"127.0.0.1:{port}\"\n{lines}\n{after}",
            place.state().display()
        );
        std::fs::write(place.work().join("server.toml"), config).unwrap();
        let log = std::fs::File::create(place.work().join("server.log")).unwrap();
        let mut command = place.command(&["server", "--config", "server.toml"]);
        let process = command.stderr(log).spawn().unwrap();
        let server = Server {
            place,
            url: format!("http://127.0.0.1:{port}"),
            _process: Process(process),
        };
        let socket = server.place.state().join("cofferdam.sock");
        let is_up = until(|| {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
                && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(is_up, "{}", server.said());
        server
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.place.work().join("server.log")).unwrap()
    }

    /// What is printed for a command line that goes well.
    fn json(&self, url: &str, args: &[&str]) -> Value {
        serde_json::from_str(&good(&self.run(url, args))).unwrap()
    }

    fn run(&self, url: &str, args: &[&str]) -> Output {
        let mut command = self.place.command(args);
        if !url.is_empty() {
            command.env("COFFERDAM_URL", url);
        }
        command.output().unwrap()
    }

    fn with_token(&self, token: &str, args: &[&str]) -> Output {
        let mut command = self.place.command(args);
        command.env("COFFERDAM_URL", &self.url);
        command.env("COFFERDAM_TOKEN", token);
        command.output().unwrap()
    }

    /// Whether something of this kind about alice is in the record, which is sealed behind it.
    fn has_recorded(&self, kind: &str) -> bool {
        until(|| {
            let output = self.run("", &["audit", "export"]);
            let text = text(&output.stdout);
            let mut lines = text.lines();
            lines.any(|line| line.contains(kind) && line.contains("user:alice"))
        })
    }

    fn logins(&self) -> Vec<std::path::PathBuf> {
        let home = self.place.work().parent().unwrap().to_owned();
        let logins = std::fs::read_dir(home.join(".config/cofferdam/logins"));
        let all = logins.into_iter().flatten().flatten();
        all.map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect()
    }
}

#[test]
fn a_person_logs_in_with_a_code_and_is_somebody_until_the_login_is_forgotten() {
    let provider = Provider::start();
    // So short that the next command renews it.
    provider.told.lock().unwrap().life_s = 50;
    let server = Server::start("", "", &issuer(&provider));
    let output = server.run(&server.url, &["login", "--json"]);
    let (out, err) = (good(&output), text(&output.stderr));
    assert!(err.contains("/activate") && err.contains("WDJB"), "{err}");
    assert!(
        !err.contains('\u{1b}'),
        "a provider does not colour the terminal: {err:?}"
    );
    let me: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(me["principal"], "user:alice");
    assert_eq!(
        (&me["role"], &me["credential_of"]),
        (&json!("operator"), &json!("corp"))
    );
    let kept = server.logins();
    let mode = std::fs::metadata(&kept[0]).unwrap().permissions().mode();
    assert_eq!((kept.len(), mode & 0o777), (1, 0o600));
    assert!(!provider.was_asked("grant_type=refresh_token"));
    provider.told.lock().unwrap().life_s = 600;
    let me = server.json(&server.url, &["whoami", "--json"]);
    assert_eq!(me["principal"], "user:alice");
    assert!(provider.was_asked("refresh_token=r1&"));
    let jobs = server.run(&server.url, &["job", "ls"]);
    assert!(jobs.status.success(), "{}", text(&jobs.stderr));
    // Renewed once: what counts now lives for ten minutes.
    assert!(!provider.was_asked("refresh_token=r2&"));
    // She is in the record, and is sent away; her login does not bring her back.
    assert!(server.has_recorded("principal.created"));
    assert!(
        server
            .run("", &["principal", "rm", "user:alice"])
            .status
            .success()
    );
    let gone = server.run(&server.url, &["whoami"]);
    let said = text(&gone.stderr);
    assert!(
        !gone.status.success() && said.contains("token_invalid"),
        "{said}"
    );
    assert!(server.run(&server.url, &["logout"]).status.success());
    assert!(server.logins().is_empty() && provider.was_asked("/revoke token=r2"));
    let again = server.run(&server.url, &["logout"]);
    assert!(!again.status.success(), "there is none any more");
    let me = server.json(&server.url, &["whoami", "--json"]);
    assert_eq!(
        me["credential"], "server",
        "the token of this machine counts again"
    );
}

#[test]
fn a_login_ends_when_the_token_that_is_shown_ends_whatever_the_provider_says_of_the_other() {
    let provider = Provider::start();
    {
        let mut told = provider.told.lock().unwrap();
        (told.life_s, told.access_life_s) = (50, Some(3600));
    }
    let server = Server::start("", "", &issuer(&provider));
    server.json(&server.url, &["login", "--json"]);
    assert_eq!(provider.asked("grant_type=refresh_token"), 0);
    provider.told.lock().unwrap().life_s = 600;
    for _ in 0..2 {
        let me = server.json(&server.url, &["whoami", "--json"]);
        assert_eq!(me["credential"], "token");
        assert_eq!(provider.asked("grant_type=refresh_token"), 1);
    }
}

#[test]
fn a_login_that_is_refused_or_that_another_answers_leaves_nothing() {
    let provider = Provider::start();
    let server = Server::start("", "", &issuer(&provider));
    let refused = |what: &str| {
        let output = server.run(&server.url, &["login"]);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(
            said.contains(what) && said.contains("login_failed"),
            "{said}"
        );
        assert!(server.logins().is_empty());
    };
    provider.told.lock().unwrap().says_no = true;
    refused("says no");
    provider.told.lock().unwrap().says_no = false;
    provider.told.lock().unwrap().issuer = Some("http://127.0.0.1:1".to_owned());
    refused("another issuer");
    provider.told.lock().unwrap().issuer = None;
    // One that the server does not take is not kept.
    provider.told.lock().unwrap().sub = "no name".to_owned();
    let output = server.run(&server.url, &["login"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("token_invalid") && server.logins().is_empty(),
        "{said}"
    );
    for url in ["http://192.0.2.1:7300", "unix:/x", "http://c.example:1"] {
        let output = server.run("", &["login", "--server", url]);
        let said = text(&output.stderr);
        assert!(said.contains("invalid_argument"), "{url}: {said}");
    }
}

#[test]
fn a_person_logs_in_in_a_browser_and_nobody_else_brings_the_answer() {
    let provider = Provider::start();
    let server = Server::start("", "", &issuer(&provider));
    let mut command = server.place.command(&["login", "--browser", "--json"]);
    command.env("COFFERDAM_URL", &server.url);
    let said = server.place.work().join("login.log");
    let log = std::fs::File::create(&said).unwrap();
    let login = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let url = || {
        let text = std::fs::read_to_string(&said).unwrap();
        let url = text.lines().find_map(|line| line.split_once("open "))?;
        Some(url.1.trim().to_owned())
    };
    assert!(
        until(|| url().is_some()),
        "{:?}",
        std::fs::read_to_string(&said)
    );
    let url = url().unwrap();
    assert!(url.starts_with(&format!(
        "{}/authorize?tenant=x&response_type=code",
        provider.url
    )));
    let one = |name: &str| {
        let value = url.split(&format!("&{name}=")).nth(1).unwrap();
        value.split('&').next().unwrap().to_owned()
    };
    provider.told.lock().unwrap().challenge = one("code_challenge");
    let redirect = one("redirect_uri").replace("%3A", ":").replace("%2F", "/");
    let address = redirect.strip_prefix("http://").unwrap();
    let (address, path) = address.split_once('/').unwrap();
    let come = |query: &str| {
        let request = format!("GET /{path}?{query} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        e2e::http_tcp(address, &request).0
    };
    assert_eq!(
        come("code=c2&state=guessed"),
        404,
        "another user of the machine"
    );
    assert_eq!(come("code=c2"), 404);
    assert_eq!(come(&format!("code=c1&state={}", one("state"))), 200);
    let output = login.wait_with_output().unwrap();
    let log = std::fs::read_to_string(&said).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(text(&output.stdout).contains("user:alice"));
    let me = server.json(&server.url, &["whoami", "--json"]);
    assert_eq!(me["credential"], "token");
}

#[test]
fn a_server_with_a_certificate_is_spoken_to_over_tls_alone() {
    let provider = Provider::start();
    let names = ["*.sbx.localhost", "sbx.localhost", "localhost"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (chain, key) = (
        write("chain.pem", &made.cert.pem()),
        write("key.pem", &made.signing_key.serialize_pem()),
    );
    let lines = format!("tls = \"{chain},{key}\"\ndomain = \"sbx.localhost\"\n");
    let server = Server::start("", &lines, &issuer(&provider));
    let url = server.url.replace("http://127.0.0.1", "https://localhost");
    let me = server.json(&url, &["--ca", &chain, "login", "--json"]);
    assert_eq!(me["principal"], "user:alice");
    let me = server.json(&url, &["--ca", &chain, "whoami", "--json"]);
    assert_eq!(me["credential"], "token");
    // Whom this machine does not trust gets nothing.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = write("other.pem", &other.cert.pem());
    for ca in [&[][..], &["--ca", other.as_str()]] {
        let args = [ca, &["whoami"]].concat();
        let output = server.run(&url, &args);
        assert!(!output.status.success(), "{ca:?}");
    }
}

#[test]
fn a_program_shows_a_token_of_its_issuer_and_one_that_was_changed_is_nobodys() {
    let provider = Provider::start();
    let server = Server::start("", "", &issuer(&provider));
    let token = provider.token("ci-bot", 600);
    let output = server.with_token(&token, &["whoami", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("user:ci-bot"));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let claims = json!({
        "iss": provider.url, "aud": "cofferdam-cli", "sub": "root", "exp": provider::now_s() + 60,
    });
    let claims = sign::base64(claims.to_string().as_bytes());
    let none = sign::base64(br#"{"alg":"none"}"#);
    for forged in [
        format!("{header}.{claims}.{signature}"),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
    ] {
        let output = server.with_token(&forged, &["whoami"]);
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains("token_invalid"),
            "{said}"
        );
    }
    // In the log stands nothing of a token.
    assert!(!server.said().contains(signature), "{}", server.said());
}

#[test]
fn a_development_says_that_it_lets_everybody_in_and_production_does_not_start_so() {
    let dev = "mode = \"development\"\n[dev]\nprincipal = \"user:alice\"\n";
    let server = Server::start(dev, "", "");
    let said = server.said();
    assert!(
        said.contains("requests without a credential are user:alice"),
        "{said}"
    );
    assert!(server.has_recorded("auth.bypassed"));
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let ask = |lines: &str| {
        let request = format!("GET /v1/me HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
        e2e::http_tcp(&address, &request)
    };
    let host = format!("host: {address}\r\n");
    assert_eq!(ask(&host).0, 401, "there is no such principal yet");
    assert!(
        server
            .run("", &["principal", "create", "alice"])
            .status
            .success()
    );
    let (status, body) = ask(&host);
    assert!(status == 200 && body.contains("user:alice"), "{body}");
    for lines in [
        format!("{host}origin: http://evil.example\r\n"),
        format!("{host}sec-fetch-site: none\r\n"),
        "host: evil.example\r\n".to_owned(),
    ] {
        assert_eq!(ask(&lines).0, 403, "{lines}");
    }
    let place = Place::new();
    let config = format!(
        "[dev]\nprincipal = \"user:alice\"\n[server]\nstate = \"{}\"\nlisten = \"127.0.0.1:0\"\n",
        place.state().display()
    );
    std::fs::write(place.work().join("server.toml"), config).unwrap();
    for args in [
        &["server", "--config", "server.toml"][..],
        &["config", "check", "server.toml"],
    ] {
        let mut command = place.command(args);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains("development_only"),
            "{said}"
        );
    }
}
