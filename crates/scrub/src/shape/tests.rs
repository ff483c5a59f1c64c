//! Shapes, wherever they stand and however they come.

use super::*;
use proptest::prelude::*;

fn told(text: &[u8], sizes: &[usize]) -> (Vec<u8>, u64) {
    let mut shapes = Shapes::new();
    let mut out = Vec::new();
    let mut rest = text;
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        out.extend(shapes.feed(now));
        rest = later;
    }
    out.extend(shapes.finish());
    assert_eq!(shapes.pending(), 0);
    (out, shapes.found())
}

/// Made up here, so that no scanner of repositories finds them: each has the shape and nothing else.
fn examples() -> Vec<(&'static str, String)> {
    let run = |n: usize| "a1B2c3D4e5".chars().cycle().take(n).collect::<String>();
    let caps = |n: usize| run(n).to_uppercase();
    vec![
        ("aws-key", format!("AKIA{}", caps(16))),
        ("aws-key", format!("ASIA{}", caps(16))),
        ("github-token", format!("ghp_{}", run(36))),
        ("github-token", format!("ghs_{}", run(36))),
        (
            "github-token",
            format!("github_pat_{}_{}", run(22), run(59)),
        ),
        ("gitlab-token", format!("glpat-{}", run(20))),
        ("slack-token", format!("xoxb-{}-{}", run(12), run(24))),
        ("stripe-key", format!("sk_live_{}", run(24))),
        ("stripe-key", format!("rk_test_{}", run(24))),
        ("google-key", format!("AIza{}", run(35))),
        ("google-token", format!("ya29.{}", run(60))),
        ("anthropic-key", format!("sk-ant-api03-{}-AA", run(90))),
        ("openai-key", format!("sk-proj-{}", run(60))),
        ("openai-key", format!("sk-{}", run(48))),
        ("npm-token", format!("npm_{}", run(36))),
        ("pypi-token", format!("pypi-{}", run(80))),
        ("huggingface-token", format!("hf_{}", run(34))),
        ("sendgrid-key", format!("SG.{}.{}", run(22), run(43))),
        ("vault-token", format!("hvs.{}", run(90))),
        ("age-key", format!("AGE-SECRET-KEY-1{}", caps(58))),
        ("jwt", format!("eyJ{}.eyJ{}.{}", run(30), run(80), run(43))),
        ("private-key", pem("RSA PRIVATE KEY", "\n")),
        ("private-key", pem("PRIVATE KEY", "\\n")),
        ("private-key", pem("OPENSSH PRIVATE KEY", "\r\n")),
    ]
}

fn pem(label: &str, newline: &str) -> String {
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC+/==";
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    [&begin, line, line, &end].join(newline)
}

#[test]
fn each_shape_is_replaced_by_its_name_wherever_it_stands() {
    for (name, text) in examples() {
        for (before, after) in [
            ("", ""),
            ("key=", "\n"),
            ("\"", "\","),
            ("a ", " b"),
            ("(", ")"),
            ("\\n", "\\n"),
        ] {
            let whole = format!("{before}{text}{after}");
            let expected = format!("{before}[secret pattern:{name}]{after}");
            assert_eq!(Shapes::text(&whole), expected, "{whole}");
        }
    }
}

#[test]
fn what_only_begins_like_one_or_is_part_of_a_word_is_told() {
    for text in [
        "AKIA AKIA123 ASIAN sk- sk-short ghp_short xoxb-1 eyJ eyJhbGciOiJIUzI1NiJ9",
        "eyJhbGciOiJIUzI1NiJ9.notatoken a.eyJ.b",
        "task-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa disk-0123456789012345678901234567890123",
        "xAKIAIOSFODNN7EXAMPLE",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "the bearer of this letter; Bearer authentication; bearer x",
        "---------- ----- -----BEGIN",
        "ünïcode AKIÄ",
        "",
    ] {
        assert_eq!(Shapes::text(text), text);
    }
}

#[test]
fn a_header_keeps_its_name_and_loses_its_token() {
    let token = "0123456789abcdefghij._~+/==";
    for (text, expected) in [
        (
            format!("> Authorization: Bearer {token}\r\n"),
            "> Authorization: Bearer [secret pattern:bearer-token]\r\n",
        ),
        (
            format!("{{\"authorization\": \"BEARER {token}\"}}"),
            "{\"authorization\": \"BEARER [secret pattern:bearer-token]\"}",
        ),
        (
            format!("authorization: basic {token}\n"),
            "authorization: basic [secret pattern:basic-credentials]\n",
        ),
    ] {
        assert_eq!(Shapes::text(&text), expected);
    }
}

#[test]
fn what_comes_after_a_private_key_is_told() {
    let key = pem("EC PRIVATE KEY", "\n");
    let text = format!("before\n{key}\nafter it {key}{key}");
    let expected = "before\n[secret pattern:private-key]\nafter it \
                    [secret pattern:private-key][secret pattern:private-key]";
    assert_eq!(Shapes::text(&text), expected);
    // One without an end takes no more than a key has.
    let open = format!(
        "-----BEGIN PRIVATE KEY-----{}",
        "a".repeat(3 * SWALLOWED_MAX)
    );
    let left = Shapes::text(&open);
    assert!(left.len() > SWALLOWED_MAX && left.len() < 3 * SWALLOWED_MAX);
}

#[test]
fn a_prompt_is_seen_at_once_and_what_is_pending_may_be_seen_again() {
    let mut shapes = Shapes::new();
    assert_eq!(shapes.feed(b"Password: "), b"Password: ");
    assert_eq!((shapes.feed(b"ghp"), shapes.pending()), (Vec::new(), 3));
    assert_eq!(shapes.feed(b"ost"), b"ghpost");
    for (_, text) in examples() {
        let whole = format!("<{text}>");
        let expected = Shapes::text(&whole);
        for cut in 0..whole.len() {
            let mut first = Shapes::new();
            let mut out = first.feed(&whole.as_bytes()[..cut]);
            assert!(first.pending() <= SWALLOWED_MAX);
            let seen_again = cut - first.pending();
            // Another process goes on, and begins where nothing is in the middle of a word.
            out.extend(told(&whole.as_bytes()[seen_again..], &[7]).0);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{cut}");
        }
    }
}

#[test]
fn a_key_in_colour_is_seen_as_one_without() {
    let token = format!("ghp_{}", "a1B2".repeat(9));
    for (before, after) in [
        ("\u{1b}[31m", "\u{1b}[0m"),
        ("\u{1b}[1;38;5;9m", "\u{1b}[K"),
        ("\u{1b}(B", "\r\n"),
        ("\u{1b}]0;title\u{7}\u{1b}[?2004h", ""),
        ("\u{1b}[A", "\u{1b}[s"),
    ] {
        let text = format!("{before}{token}{after}");
        let expected = format!("{before}[secret pattern:github-token]{after}");
        assert_eq!(Shapes::text(&text), expected);
    }
    // What only looks like the end of a sequence is a word.
    assert_eq!(
        Shapes::text(&format!("[31m{token}")),
        format!("[31m{token}")
    );
}

#[test]
fn a_key_behind_a_sign_in_digits_is_seen() {
    let token = format!("glpat-{}", "a1B2".repeat(6));
    for (before, after) in [
        ("?q=%20", "&x"),
        ("token%3D", ""),
        ("\\u0022", "\\u0022"),
        ("'\\x1b[0;1m\\x20", "'"),
        ("100%%20", ""),
    ] {
        let text = format!("{before}{token}{after}");
        let expected = format!("{before}[secret pattern:gitlab-token]{after}");
        assert_eq!(Shapes::text(&text), expected);
    }
    for before in ["%2", "\\u002", "\\\\x20", "20"] {
        let text = format!("{before}{token}");
        assert_eq!(Shapes::text(&text), text);
    }
}

#[test]
fn whoever_does_not_wait_is_told_what_there_is_and_the_rest_of_a_key_is_swallowed() {
    let token = format!("ghp_{}", "a1B2".repeat(9));
    for cut in 0..=token.len() {
        let (first, rest) = token.split_at(cut);
        let mut shapes = Shapes::new();
        let mut out = shapes.feed(format!("< {first}").as_bytes());
        out.extend(shapes.release());
        assert_eq!((shapes.pending(), shapes.release()), (0, Vec::new()));
        out.extend(shapes.feed(format!("{rest} >").as_bytes()));
        out.extend(shapes.finish());
        let told = String::from_utf8(out).unwrap();
        // A person who types it has it echoed; a program that wrote all of it is not given away.
        match cut {
            0 | 40 => assert_eq!(told, "< [secret pattern:github-token] >", "{cut}"),
            _ => assert_eq!(told, format!("< {token} >"), "{cut}"),
        }
    }
    let long = format!("glpat-{}", "x".repeat(60));
    let mut shapes = Shapes::new();
    let mut out = shapes.feed(&long.as_bytes()[..30]);
    out.extend(shapes.release());
    out.extend(shapes.feed(&long.as_bytes()[30..]));
    out.extend(shapes.feed(b" ok"));
    assert_eq!(out, b"[secret pattern:gitlab-token] ok");
    assert_eq!(shapes.found(), 1);
}

#[test]
fn time_is_linear_in_what_a_workload_writes_to_make_it_slow() {
    for piece in [
        "eyJ",
        "eyJ.",
        "sk-",
        "bearer ",
        "-----BEGIN ",
        "AKIA",
        ".eyJ",
        "-",
    ] {
        let text = piece.repeat(2_000_000 / piece.len());
        let (out, _) = told(text.as_bytes(), &[4096]);
        assert!(out.len() <= text.len() + 64, "{piece}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However a stream is cut, the same is told and counted.
    #[test]
    fn no_way_to_cut_a_stream_changes_what_is_told(
        parts in prop::collection::vec((0..30_usize, "[ -~\n]{0,8}"), 0..10),
        sizes in prop::collection::vec(1..60_usize, 1..8),
    ) {
        let examples = examples();
        let mut text = String::new();
        for (which, filler) in &parts {
            text.push_str(filler);
            match examples.get(*which) {
                Some((_, example)) => text.extend([" ", example.as_str(), " "]),
                None => text.push_str("AKIA-----BEGIN eyJ.eyJ"),
            }
        }
        let whole = told(text.as_bytes(), &[usize::MAX]);
        prop_assert_eq!(told(text.as_bytes(), &sizes), whole);
    }

    /// What has no credential in it comes out as it went in.
    #[test]
    fn bytes_without_credentials_are_untouched(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let (out, found) = told(&text, &[13]);
        if found == 0 {
            prop_assert_eq!(out, text);
        }
    }
}
