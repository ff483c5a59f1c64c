//! What is looked into on its way out: a secret as a header field, which nothing inside ever had, and rules about
//! requests.

use e2e::{Place, Server, good, no_sandbox, text, until};
use outside::{ADDRESS, Outside};
use serde_json::Value;
use std::process::Output;

mod outside;

const CANARY: &str = "canary4e1fvalue";

/// The next request has the secret where it belongs.
fn hears_the_secret(outside: &Outside) {
    let heard = outside.next().to_ascii_lowercase();
    let field = format!("authorization: bearer {CANARY}\r\n");
    assert!(heard.contains(&field), "{heard}");
}

fn hello(_: &str) -> String {
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello".to_owned()
}

#[test]
fn a_secret_is_added_outside_and_also_after_the_server_was_killed() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let outside = Outside::answering(hello);
    let place = Place::new();
    let options = outside.trusted(&place);
    let options = options.each_ref().map(String::as_str);
    let value = format!("{CANARY}\n");
    good(&place.run_with_input(&["secret", "set", "token"], value.as_bytes()));
    let server = place.up(&options, &[]);
    let how = format!(
        "token=header:{ADDRESS}:{}:authorization:Bearer {{}}",
        outside.port
    );
    let made = place.run(&["sandbox", "create", "--internet", "--secret", &how]);
    let made = good(&made);
    let id = made.split_whitespace().next().expect("an id");
    let url = format!("https://{ADDRESS}:{}/v1?q", outside.port);
    let ask = format!(
        "import urllib.request as r; q = r.Request('{url}', headers={{'Authorization': 'mine'}}); \
         print(r.urlopen(q, timeout=20).read().decode())"
    );
    // A job has the same, also in a sandbox that stood ready for whoever comes.
    let job = [
        "run",
        "--net",
        "unrestricted",
        "--secret",
        &how,
        "--",
        "python3",
        "-c",
        &ask,
    ];
    for _ in 0..2 {
        assert_eq!(good(&place.run(&job)), "hello\n");
        hears_the_secret(&outside);
    }
    let ask = |place: &Place| place.run(&["sandbox", "exec", id, "--", "python3", "-c", &ask]);
    assert_eq!(good(&ask(&place)), "hello\n");
    let heard = outside.next().to_ascii_lowercase();
    assert!(heard.starts_with("get /v1?q http/1.1\r\n"), "{heard}");
    assert!(
        heard.contains(&format!("authorization: bearer {CANARY}\r\n")),
        "{heard}"
    );
    assert!(!heard.contains("mine"), "{heard}");
    // Nowhere inside: no variable, no file, no memory that its user may read.
    let look = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; grep -rs canary4e1f /dev/shm /tmp /home /etc /run; true";
    let inside = good(&place.run(&["sandbox", "exec", id, "--", "sh", "-c", look]));
    assert!(
        inside.contains("SSL_CERT_FILE=/dev/shm/egress/trust.pem"),
        "{inside}"
    );
    assert!(!inside.contains(CANARY), "{inside}");
    // The next server has the secret only when it has asked for it again; until then clients wait.
    drop(server.kill());
    let server = place.up(&options, &[]);
    assert!(until(|| ask(&place).status.success()));
    hears_the_secret(&outside);
    let (_, log) = server.end();
    assert!(!log.contains(CANARY), "{log}");
}

/// What a program inside prints of a request to the host outside.
fn asked(place: &Place, outside: &Outside, id: &str) -> Output {
    let script = format!(
        "import urllib.request as r; print(r.urlopen('https://{ADDRESS}:{}/', timeout=20).read().decode())",
        outside.port
    );
    place.run(&["sandbox", "exec", id, "--", "python3", "-c", &script])
}

/// Says anew what a sandbox may reach, with this secret.
fn lets_out(place: &Place, id: &str, secret: &str) {
    let mode = ["sandbox", "net", id, "--net", "unrestricted"];
    good(&place.run(&[&mode[..], &["--secret", secret]].concat()));
}

/// Gives a sandbox that lives a secret, and its next version.
fn brings_a_secret(place: &Place, outside: &Outside, id: &str) {
    let how = format!(
        "token=header:{ADDRESS}:{}:authorization:Bearer {{}}",
        outside.port
    );
    good(&place.run_with_input(&["secret", "set", "token"], b"other-value-of-it\n"));
    lets_out(place, id, &how);
    assert_eq!(good(&asked(place, outside, id)), "hello\n");
    let heard = outside.next().to_ascii_lowercase();
    assert!(
        heard.contains("authorization: bearer other-value-of-it\r\n"),
        "{heard}"
    );
    // Its newest version counts when it is said again.
    let next = format!("{CANARY}\n");
    good(&place.run_with_input(&["secret", "set", "token"], next.as_bytes()));
    lets_out(place, id, &how);
    assert_eq!(good(&asked(place, outside, id)), "hello\n");
    hears_the_secret(outside);
}

#[test]
fn a_secret_that_comes_while_a_sandbox_lives_is_added_and_also_after_the_server_was_killed() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let outside = Outside::answering(hello);
    let place = Place::new();
    let options = outside.trusted(&place);
    let options = options.each_ref().map(String::as_str);
    let server = place.up(&options, &[]);
    // One with a network that nobody looks into, and one without any.
    let opened = good(&place.run(&["sandbox", "create", "--internet"]));
    let closed = good(&place.run(&["sandbox", "create"]));
    let ids = [&opened, &closed].map(|made| made.split_whitespace().next().expect("an id"));
    for id in ids {
        brings_a_secret(&place, &outside, id);
    }
    let shown = good(&place.run(&["sandbox", "ls", "--json"]));
    assert!(
        shown.contains("authorization") && !shown.contains(CANARY),
        "{shown}"
    );
    drop(server.kill());
    let server = place.up(&options, &[]);
    for id in ids {
        assert!(until(|| asked(&place, &outside, id).status.success()));
        hears_the_secret(&outside);
    }
    // Taken away: nobody looks in any more, and the program does not know the authority of that host.
    lets_out(&place, ids[0], "none");
    let output = asked(&place, &outside, ids[0]);
    let said = text(&output.stderr);
    assert!(said.contains("CERTIFICATE_VERIFY_FAILED"), "{output:?}");
    let used = good(&place.run(&["secret", "events", "token"]));
    assert!(used.contains(ids[0]), "{used}");
    let (_, log) = server.end();
    assert!(!log.contains(CANARY), "{log}");
}

#[test]
fn a_secret_for_what_leaves_needs_a_way_out_and_a_field_that_may_be_set() {
    let place = Place::new();
    good(&place.run_with_input(&["secret", "set", "token"], b"x1234567\n"));
    let server = place.up(&["--driver", "fake"], &[]);
    let made = place.run(&["sandbox", "create", "--secret", "token=header:a.test:x-key"]);
    assert!(text(&made.stderr).contains("no way out"), "{made:?}");
    let made = place.run(&[
        "sandbox",
        "create",
        "--internet",
        "--secret",
        "token=header:a.test:Host",
    ]);
    assert!(
        !made.status.success() && text(&made.stderr).contains("field"),
        "{made:?}"
    );
    drop(server.end());
}

/// What a program inside prints of its request: the answer, or the status and the code of the refusal.
fn asking(url: &str, method: &str) -> String {
    format!(
        "import urllib.request as r, urllib.error as e\n\
         q = r.Request('{url}', method='{method}')\n\
         try:\n    print(r.urlopen(q, timeout=20).read().decode())\n\
         except e.HTTPError as no:\n    print(no.code, no.headers['x-proxy-error'])\n"
    )
}

/// A host outside that answers, and a server that trusts it.
fn begun() -> (Outside, Place, Server) {
    let outside = Outside::answering(hello);
    let place = Place::new();
    let options = outside.trusted(&place);
    let options = options.each_ref().map(String::as_str);
    let server = place.up(&options, &[]);
    (outside, place, server)
}

#[test]
fn a_host_with_rules_is_let_out_only_as_they_say() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let outside = Outside::answering(hello);
    let place = Place::new();
    let options = outside.trusted(&place);
    let options = options.each_ref().map(String::as_str);
    let server = place.up(&options, &[]);
    let base = format!("https://{ADDRESS}:{}", outside.port);
    let rule = format!("GET,HEAD {base}/v1/*");
    let tries = [
        ("GET", "/v1/x?y", "hello\n"),
        ("POST", "/v1/x", "403 http_rule\n"),
        ("GET", "/admin", "403 http_rule\n"),
        ("GET", "/v1/%2e%2e/admin", "400 odd_path\n"),
    ];
    // A rule says by itself that its host is let out, and no other.
    for (method, path, expect) in tries {
        let ask = asking(&format!("{base}{path}"), method);
        let job = ["run", "--rule", &rule, "--", "python3", "-c", &ask];
        assert_eq!(good(&place.run(&job)), expect, "{method} {path}");
    }
    outside.next();
    // A sandbox that lives without rules gets some: programs that start then know whom to trust.
    let made = good(&place.run(&["sandbox", "create", "--internet"]));
    let id = made.split_whitespace().next().expect("an id").to_owned();
    let exec = |place: &Place, method: &str, path: &str| {
        let ask = asking(&format!("{base}{path}"), method);
        place.run(&["sandbox", "exec", &id, "--", "python3", "-c", &ask])
    };
    let before = exec(&place, "GET", "/v1/x");
    assert!(
        text(&before.stderr).contains("CERTIFICATE_VERIFY_FAILED"),
        "{before:?}"
    );
    let set = [
        "sandbox",
        "net",
        &id,
        "--net",
        "unrestricted",
        "--rule",
        &rule,
    ];
    let shown = good(&place.run(&set));
    assert!(shown.contains(&rule), "{shown}");
    for (method, path, expect) in tries {
        assert_eq!(good(&exec(&place, method, path)), expect, "{method} {path}");
    }
    // Records are told in batches.
    let log = || text(&place.run(&["egress", "log", &id, "--denied"]).stdout);
    assert!(until(|| log().contains("http_rule")), "{}", log());
    let url = format!("{base}/admin");
    let tested = place.run(&["egress", "test", &url, "--as", &id]);
    assert!(text(&tested.stdout).contains("http_rule"), "{tested:?}");
    // The next server has the same authority, which is on its disk, and the same rules.
    drop(server.kill());
    let server = place.up(&options, &[]);
    assert!(until(
        || text(&exec(&place, "GET", "/v1/x").stdout) == "hello\n"
    ));
    assert_eq!(good(&exec(&place, "POST", "/v1/x")), "403 http_rule\n");
    drop(server.end());
}

#[test]
fn rules_that_mean_nothing_are_refused_with_their_place() {
    let place = Place::new();
    good(&place.run_with_input(&["secret", "set", "token"], b"x1234567\n"));
    let server = place.up(&["--driver", "fake"], &[]);
    for (options, expect) in [
        (
            &["--rule", "get https://a.test/"][..],
            "a method is written in capitals",
        ),
        (&["--rule", "https://*/"], "--rule number 1: "),
        (
            &["--rule", "https://a.test/", "--rule", "https://a.test/a*"],
            "--rule number 2: ",
        ),
        (&["--rule", "ftp://a.test/"], "https://"),
        (
            &["--allow", "a.test", "--secret", "token=header:b.test:x-key"],
            "never let a request out",
        ),
    ] {
        let mut all = vec!["sandbox", "create"];
        all.extend(options);
        let made = place.run(&all);
        let told = text(&made.stderr);
        assert!(!made.status.success() && told.contains(expect), "{told}");
    }
    drop(server.end());
}

/// Where programs of Debian's kind look whom to trust.
const STORE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The clause of this name, if a sandbox has it.
fn clause(sandbox: &Value, name: &str) -> Value {
    let clauses = sandbox["enforcement"].as_array().expect("clauses");
    let found = clauses.iter().find(|one| one["clause"] == name);
    found.cloned().unwrap_or_default()
}

/// What a program inside gets that asks no variable whom to trust.
fn asked_without_a_variable(place: &Place, url: &str, sandbox: &Value) -> Output {
    let script = format!(
        "for name in SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO \
         CARGO_HTTP_CAINFO AWS_CA_BUNDLE NODE_EXTRA_CA_CERTS DENO_CERT; \
         do [ -n \"$(printenv $name)\" ] || exit 99; unset $name; done; curl -sS -m 20 {url}"
    );
    let id = sandbox["id"].as_str().expect("an id");
    place.run(&["sandbox", "exec", id, "--", "sh", "-c", &script])
}

#[test]
fn a_program_that_asks_no_variable_finds_the_authority_in_the_store_of_the_system() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    if !std::path::Path::new("/usr/bin/curl").exists() || !std::path::Path::new(STORE).exists() {
        println!("skipped: there is no curl that looks there");
        return;
    }
    let (outside, place, server) = begun();
    let url = format!("https://{ADDRESS}:{}/v1/x", outside.port);
    let rule = format!("GET {url}");
    let create = ["sandbox", "create", "--allow-root", "--json"];
    let made = place.json(&[&create[..], &["--rule", &rule]].concat());
    let root = clause(&made, "root");
    let value = root["value"].as_str().expect("a value");
    if value.contains("cannot be written") {
        println!("skipped: {value}");
        drop(server.end());
        return;
    }
    let holds = |sandbox: &Value| {
        let trust = clause(sandbox, "trust");
        assert_eq!(trust["state"], "held", "{trust}");
        let stores = trust["value"].as_str().expect("a value");
        assert!(stores.split(", ").any(|one| one == STORE), "{trust}");
    };
    holds(&made);
    let said = asked_without_a_variable(&place, &url, &made);
    assert_eq!(good(&said), "hello");
    // And of one that lives already, with its first rules.
    let opened = place.json(&[&create[..], &["--internet"]].concat());
    assert_eq!(clause(&opened, "trust"), Value::Null, "nobody looks in yet");
    let id = opened["id"].as_str().expect("an id");
    let net = ["sandbox", "net", id, "--net", "unrestricted", "--json"];
    let opened = place.json(&[&net[..], &["--rule", &rule]].concat());
    holds(&opened);
    let said = asked_without_a_variable(&place, &url, &opened);
    assert_eq!(good(&said), "hello");
    drop(server.end());
}

#[test]
fn where_the_store_of_the_system_cannot_be_written_the_sandbox_says_so() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let (outside, place, server) = begun();
    let url = format!("https://{ADDRESS}:{}/v1/x", outside.port);
    let rule = format!("GET {url}");
    // Nobody inside is root.
    let made = place.json(&["sandbox", "create", "--json", "--rule", &rule]);
    let trust = clause(&made, "trust");
    assert_eq!(trust["state"], "not_held", "{trust}");
    assert_eq!(trust["asked"], false, "{trust}");
    assert_eq!(trust["value"], Value::Null, "{trust}");
    let how = trust["how"].as_str().expect("how");
    let expect = format!("variables; not in {STORE}: nobody inside may write it");
    assert!(how.starts_with(&expect), "{how}");
    // Whoever asks a variable is served.
    let id = made["id"].as_str().expect("an id");
    let ask = asking(&url, "GET");
    let exec = ["sandbox", "exec", id, "--", "python3", "-c", &ask];
    assert_eq!(good(&place.run(&exec)), "hello\n");
    // Whoever asks none is told that it cannot be trusted, and nothing leaves.
    let open = ["sandbox", "exec", id, "--", "test", "-e", STORE];
    if place.run(&open).status.success() && std::path::Path::new("/usr/bin/curl").exists() {
        let said = asked_without_a_variable(&place, &url, &made);
        assert_eq!(said.status.code(), Some(60), "{said:?}");
    }
    drop(server.end());
}
