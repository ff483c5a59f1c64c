//! Values of secrets that are kept elsewhere, as an operator and a person use them.

use e2e::{Place, good, is_told_in, no_sandbox, text};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const CANARY: &str = "canary/77c2+value=~";

/// Answers as Vault's documentation says it does, to whoever shows the token. Not a real Vault.
fn vault() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let head = text(&head);
            let is_known = head.contains("x-vault-token: hvs.token\r\n");
            let (status, body) = match head.split(' ').nth(1) {
                _ if !is_known => (
                    "403 Forbidden",
                    r#"{"errors":["permission denied"]}"#.into(),
                ),
                Some("/v1/kv/data/app/db") => (
                    "200 OK",
                    format!(
                        r#"{{"data":{{"data":{{"pass":"{CANARY}"}},"metadata":{{"version":3}}}}}}"#
                    ),
                ),
                _ => ("404 Not Found", r#"{"errors":[]}"#.into()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    address
}

/// A file that only this user reads.
fn private(path: &Path, bytes: &str) {
    std::fs::write(path, bytes).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
}

const SOURCES: [(&str, &str); 4] = [
    ("a", "files:value"),
    ("b", "prints:/dev/null"),
    ("c", "vault:app/db#pass"),
    ("d", "own:TOKEN"),
];

fn refuses_what_no_provider_gives(place: &Place) {
    for (from, code) in [
        ("none:x", "secret_provider_unknown"),
        ("files:../token", "secret_provider_failed"),
        ("vault:app/db#none", "secret_provider_failed"),
        ("vault:app/other#pass", "secret_provider_failed"),
        ("own:HOME", "secret_provider_failed"),
    ] {
        let refused = place.run(&["secret", "set", "bad", "--from", from]);
        let said = text(&refused.stderr);
        assert!(
            said.contains(code) && !said.contains("hvs."),
            "{from}: {said}"
        );
    }
}

#[test]
fn a_job_gets_what_its_provider_has_and_nothing_here_keeps_it() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    let token = place.work().join("token");
    private(&token, "hvs.token\n");
    private(&place.work().join("value"), CANARY);
    let file = format!("files=file:{}", place.work().display());
    let exec = format!(
        "prints=exec:/bin/cat {}",
        token.with_file_name("value").display()
    );
    let vault = format!(
        "vault=vault:http://{}/kv?token=file:{}",
        vault(),
        token.display()
    );
    let providers = [&*file, &exec, &vault, "own=env:CI_"];
    let options: Vec<&str> = providers
        .iter()
        .flat_map(|one| ["--secret-provider", one])
        .collect();
    let server = place.up(
        &options,
        &[("CI_TOKEN", CANARY), ("COFFERDAM_LOG", "debug")],
    );
    for (name, from) in SOURCES {
        let set = place.run(&["secret", "set", name, "--from", from]);
        assert_eq!(good(&set), format!("{name}\t1\n"));
        let script = format!(
            "test \"$(cat /dev/shm/secrets/{name})\" = \"$1\" && cat /dev/shm/secrets/{name}"
        );
        let run = place.run(&[
            "run", "--secret", name, "--", "sh", "-c", &script, "x", CANARY,
        ]);
        assert_eq!(good(&run), format!("[secret {name}]"), "{run:?}");
        let events = good(&place.run(&["secret", "events", name]));
        assert!(
            events.contains("secret.used") && events.contains(from),
            "{events}"
        );
    }
    let list = good(&place.run(&["secret", "ls"]));
    assert!(
        SOURCES.iter().all(|(_, from)| list.contains(from)),
        "{list}"
    );
    refuses_what_no_provider_gives(&place);
    let (_, log) = server.end();
    assert!(!log.contains(CANARY) && !log.contains("hvs.token"), "{log}");
}

#[test]
fn a_value_from_elsewhere_is_in_no_file_of_the_state() {
    if let Some(why) = no_sandbox() {
        println!("skipped: {why}");
        return;
    }
    let place = Place::new();
    private(&place.work().join("value"), CANARY);
    let provider = format!("files=file:{}", place.work().display());
    let with = |words: &[&str]| {
        let whole = [&["--secret-provider", &*provider], words].concat();
        place.run(&whole)
    };
    // Without a server, too: the command has one in itself.
    assert_eq!(
        good(&with(&["secret", "set", "a", "--from", "files:value"])),
        "a\t1\n"
    );
    let run = with(&[
        "run",
        "--secret",
        "a=env:V",
        "--",
        "sh",
        "-c",
        "env; echo $V",
    ]);
    assert!(good(&run).contains("[secret a]"), "{run:?}");
    assert!(!is_told_in(&place.state(), CANARY));
    // The operator takes the provider away, and the provider its value.
    let refused = place.run(&["run", "--secret", "a", "--", "true"]);
    assert!(
        text(&refused.stderr).contains("secret_provider_unknown"),
        "{refused:?}"
    );
    std::fs::remove_file(place.work().join("value")).expect("it was there");
    let refused = with(&["run", "--secret", "a", "--", "true"]);
    let said = text(&refused.stderr);
    assert!(
        said.contains("secret_provider_failed") && said.contains("`files`"),
        "{said}"
    );
}
