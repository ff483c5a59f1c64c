//! Fuzz targets: hosts, entries of rules, rules about requests and URLs, as users and workloads write them. See
//! `fuzz/engine.rs`.

#![expect(
    clippy::print_stdout,
    reason = "how much was tried is what a long run is for"
)]

#[path = "../../../fuzz/engine.rs"]
mod engine;

use model::host::Host;
use model::network::{
    DnsServer, Entry, Field, NetworkAsked, NetworkMode, NetworkRules, Request, RequestAsked,
    RequestRule, Upstream,
};

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

/// Rules about requests and what is asked below them, a line for each part, and places to leave through.
fn request_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "api.test\n443\nGET,HEAD\n/repos/*\nx-team: red\nGET\n/repos/a",
        "*.api.test\n\n\n/exact,/a/b/\n\nPOST\n/a/b/",
        "10.0.0.1\n8443\nM-SEARCH\n/*\n\nM-SEARCH\n/a/../b",
        "api.test\n80\n\n/v1/%c3%bc/*\n\nGET\n/v1/%c3%bc/%2e%2e/%%32e%%32e/x",
        "api.test\n443\n\n/v1/*\n\nGET\n/v1/%e0%80%ae%e0%80%ae/..;/x\\y//z/",
        "api.test\n443\nPOST\n/*\n\nPOST\n/a\nx-team: red\nauthorization,x-api-key\nx_team: red\nX-Team: red",
        "api.test\n\n\n\nx-set: 1\nGET\n/\nx-team: *\nx.api.key\nX-API-KEY: 1\nx-team: ",
        "socks5+tls://me@proxy.test:1080/?name=other.test",
        "socks5://[2001:db8::1]:1080",
        "10.0.0.2:5353",
        "[2606:4700::1111]",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const REQUEST_WORDS: &[&[u8]] = &[
    b"\n",
    b"/",
    b"/*",
    b"..",
    b";",
    b"\\",
    b"%2e",
    b"%2f",
    b"%25",
    b"%%32e",
    b"%u002e",
    b"%c0%ae",
    b"%e0%80%af",
    b"%f0%80%80%ae",
    b"GET",
    b"443",
    b",",
    b"socks5+tls://",
    b"?name=",
    b"@",
    b"[",
    b":53",
];

/// Escapes are read; what is none stays as it is.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let escape = match (first, after) {
            (b'%', [high, low, behind @ ..]) => digit(*high).zip(digit(*low)).zip(Some(behind)),
            _ => None,
        };
        let (byte, behind) = match escape {
            Some(((high, low), behind)) => (u8::try_from(high * 16 + low).unwrap_or(0), behind),
            None => (*first, after),
        };
        all.push(byte);
        rest = behind;
    }
    all
}

/// Characters of one byte that are written in more (RFC 3629, section 10) are read all the same.
fn shortened(bytes: &[u8]) -> Vec<u8> {
    let more = |byte: &u8| byte & 0xc0 == 0x80;
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let count = match first {
            0xc0 | 0xc1 => 1,
            0xe0 => 2,
            0xf0 => 3,
            0xf8 => 4,
            0xfc => 5,
            _ => 0,
        };
        let behind = after.get(..count).unwrap_or_default();
        let begin = if count == 1 { u32::from(*first) & 1 } else { 0 };
        let code = behind
            .iter()
            .fold(begin, |code, byte| (code << 6) | (u32::from(*byte) & 0x3f));
        let is_short = count > 0 && behind.len() == count && behind.iter().all(more) && code < 128;
        all.push(match u8::try_from(code) {
            Ok(code) if is_short => code,
            _ => *first,
        });
        let skipped = if is_short { count } else { 0 };
        rest = after.get(skipped..).unwrap_or_default();
    }
    all
}

/// A path as the most lenient server reads it: nothing behind a `;` is part of it, escapes are read twice, backslashes
/// are slashes, empty parts are none, and dots lead up.
fn lenient(path: &str) -> Vec<u8> {
    let parts = path.split('/');
    let plain = parts.map(|part| part.split(';').next().unwrap_or_default());
    let mut bytes = plain.collect::<Vec<_>>().join("/").into_bytes();
    for _ in 0..2 {
        bytes = shortened(&unescaped(&bytes));
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let parts = bytes.split(|byte| matches!(byte, b'/' | b'\\'));
    let mut parts = parts.skip(1).peekable();
    while let Some(part) = parts.next() {
        match part {
            b"." => {}
            b".." => drop(kept.pop()),
            b"" if parts.peek().is_some() => {}
            _ => kept.push(part),
        }
    }
    [&b"/"[..], &kept.join(&b'/')].concat()
}

/// Whether a server could take a path for none that a rule lets out.
fn leads_elsewhere(rule: &RequestAsked, path: &str) -> bool {
    let path = lenient(path);
    let mut own = rule.paths.iter();
    !rule.paths.is_empty()
        && !own.any(|own| match own.strip_suffix('*') {
            Some(below) => path.starts_with(&lenient(below)),
            None => path == lenient(own),
        })
}

/// A rule that is read is read as the same when it is written, and is shown in a bounded line; what it lets out is what
/// it says, however a server reads the path.
fn requests(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    places(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let line = |at: usize| lines.get(at).copied().unwrap_or_default();
    let list = |at: usize| {
        let some = line(at).split(',').filter(|one| !one.is_empty());
        some.map(str::to_owned).collect()
    };
    let pairs = |line: &str| {
        let pair = line.split_once(": ");
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.into_iter().collect()
    };
    let asked = RequestAsked {
        host: line(0).to_owned(),
        port: line(1).parse().ok(),
        methods: list(2),
        paths: list(3),
        require: pairs(line(7)),
        refuse: list(8),
        set: pairs(line(4)),
    };
    let asked = NetworkAsked {
        requests: vec![asked],
        ..NetworkAsked::default()
    };
    let Ok(rules) = NetworkRules::read(&asked) else {
        return;
    };
    let kept = serde_json::to_string(&rules).expect("rules");
    let again = serde_json::from_str::<NetworkRules>(&kept);
    assert_eq!(again.expect("rules"), rules, "{kept}");
    for rule in &rules.requests {
        let again = RequestRule::read(&[rule.asked()]);
        assert_eq!(again, Ok(vec![rule.clone()]), "{text:?}");
        let shown = rule.to_string();
        assert!(shown.len() <= 243 && !shown.contains(char::is_control));
        let sent: Vec<Field<'_>> = lines.iter().skip(9).filter_map(sent).take(64).collect();
        judged(&rules, &rule.asked(), (line(5), line(6), &sent));
    }
}

fn sent<'f>(line: &&'f str) -> Option<Field<'f>> {
    let (name, value) = line.split_once(": ")?;
    Some((name, value.as_bytes()))
}

/// What a server that makes variables of fields finds under a name.
fn found<'f>(sent: &[Field<'f>], name: &str) -> Vec<&'f [u8]> {
    let variable = |name: &str| {
        let name = name.to_ascii_uppercase();
        name.replace(|byte: char| !byte.is_ascii_alphanumeric(), "_")
    };
    let own = sent
        .iter()
        .filter(|(own, _)| variable(own) == variable(name));
    own.map(|(_, value)| *value).collect()
}

/// Whether a server could read fields that a rule does not let out.
fn says_otherwise(rule: &RequestAsked, sent: &[Field<'_>]) -> bool {
    let is_met = |(name, value): (&String, &String)| {
        let all = found(sent, name);
        let is_so = |own: &&[u8]| match value.as_str() {
            "*" => !own.is_empty(),
            value => *own == value.as_bytes(),
        };
        !all.is_empty() && all.iter().all(is_so)
    };
    !rule.require.iter().all(is_met) || rule.refuse.iter().any(|name| !found(sent, name).is_empty())
}

fn judged(
    rules: &NetworkRules,
    rule: &RequestAsked,
    (method, path, fields): (&str, &str, &[Field<'_>]),
) {
    let host = rule.host.replace('*', "a");
    let Ok(host) = Host::parse(&host) else {
        return;
    };
    for port in [80, 443, rule.port.unwrap_or(1)] {
        let asked = Request {
            host: &host,
            port,
            method,
            path,
            fields,
        };
        let is_let = rules.judge(asked).is_ok();
        if is_let && rules.looks_into(&host, port) {
            assert!(rule.methods.is_empty() || rule.methods.iter().any(|own| own == method));
            assert!(!leads_elsewhere(rule, path), "{path:?} by {rule:?}");
            assert!(!says_otherwise(rule, fields), "{fields:?} by {rule:?}");
        }
    }
}

/// A proxy to leave through, and a server of DNS, are read as the same when they are written.
fn places(text: &str) {
    if let Ok(upstream) = text.parse::<Upstream>() {
        assert!(upstream.place().is_some(), "{text:?}");
        assert_eq!(
            upstream.to_string().parse::<Upstream>(),
            Ok(upstream),
            "{text:?}"
        );
    }
    if let Ok(server) = text.parse::<DnsServer>() {
        assert_ne!(server.at().port(), 0);
        assert_eq!(
            server.to_string().parse::<DnsServer>(),
            Ok(server),
            "{text:?}"
        );
    }
}

#[test]
fn what_rules_about_requests_let_out_is_what_they_say_however_a_path_is_read() {
    engine::run("model request", &request_seeds(), REQUEST_WORDS, requests);
}

#[test]
fn hosts_have_one_form() {
    engine::run("model host", &seeds(), WORDS, host);
}

#[test]
fn entries_of_rules_are_written_as_they_are_read() {
    engine::run("model rule", &seeds(), WORDS, rules);
}
