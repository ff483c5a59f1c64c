//! Fuzz targets: hosts, entries of rules and URLs, as users and workloads write them. See `fuzz/engine.rs`.

#![expect(
    clippy::print_stdout,
    reason = "how much was tried is what a long run is for"
)]

#[path = "../../../fuzz/engine.rs"]
mod engine;

use model::host::Host;
use model::network::{Entry, NetworkAsked, NetworkMode, NetworkRules};

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "open.test",
        "*.open.test:443",
        "10.0.0.0/8",
        "[2001:db8::1]:80",
        "::ffff:127.0.0.1",
        "*",
        "*:443",
        "0x7f.1",
        "2130706433",
        "b\u{fc}cher.test",
        "xn--bcher-kva.test",
        "open.test.",
        "https://u@open.test:443/x?y#z",
        "http://[::1]:80/",
        "a\0b",
        "\u{ff44}.test",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const WORDS: &[&[u8]] = &[
    b".",
    b":",
    b"*",
    b"/",
    b"/32",
    b"[",
    b"]",
    b"::",
    b"xn--",
    b"0x",
    b"%",
    b"\xcc\x81",
    b"\xe3\x80\x82",
    b"\xc2\xad",
    b":0",
    b":65536",
    b"-",
];

/// A host that is read has one form: what it is written as is read as the same.
fn host(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(host) = Host::parse(text) {
        let form = host.to_string();
        assert!(
            form.is_ascii()
                && !form
                    .bytes()
                    .any(|byte| byte <= b' ' || byte.is_ascii_uppercase()),
            "{form:?}"
        );
        assert_eq!(Host::parse(&form), Ok(host), "{form:?}");
    }
}

/// An entry that is read is read as the same when it is written; whatever the rules are, a trial says something.
fn rules(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for is_allowed in [true, false] {
        let mut asked = NetworkAsked {
            mode: Some(if is_allowed {
                NetworkMode::Allowlist
            } else {
                NetworkMode::Unrestricted
            }),
            ..NetworkAsked::default()
        };
        if is_allowed {
            &mut asked.allow
        } else {
            &mut asked.deny
        }
        .push(text.to_owned());
        let Ok(read) = NetworkRules::read(&asked) else {
            continue;
        };
        for entry in read.allow.iter().chain(&read.deny) {
            let again = entry.to_string().parse::<Entry>();
            assert!(again.is_ok_and(|again| again == *entry), "{text:?}");
        }
        drop(read.trial((text, &[]), &[], &[]));
        drop(read.trial((&format!("http://{text}/"), &[]), &[], &[]));
    }
}

#[test]
fn hosts_have_one_form() {
    engine::run("model host", &seeds(), WORDS, host);
}

#[test]
fn entries_of_rules_are_written_as_they_are_read() {
    engine::run("model rule", &seeds(), WORDS, rules);
}
