use super::*;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use proptest::prelude::*;

const LONG: &[u8] = b"a long value: 0123456789/abcdefghij+KLMNOPQRSTUVWXYZ==~!";

fn known(values: &[&[u8]]) -> Arc<Known> {
    Known::new(values.iter().map(|value| ("S", *value)))
        .unwrap()
        .unwrap()
}

/// What is told of a stream that comes in pieces of these sizes, and whether what is pending is ever
/// more than it may be.
fn told(known: &Arc<Known>, text: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut scrubber = Scrubber::new(known);
    let mut out = Vec::new();
    let mut rest = text;
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        out.extend(scrubber.feed(now));
        rest = later;
    }
    out.extend(scrubber.finish());
    assert_eq!(scrubber.pending(), 0);
    out
}

fn whole(values: &[&[u8]], text: &str) -> String {
    String::from_utf8(told(&known(values), text.as_bytes(), &[usize::MAX])).unwrap()
}

#[test]
fn a_value_is_replaced_by_its_name_and_nothing_else_is_touched() {
    assert_eq!(
        whole(&[b"hunter2"], "a hunter2 b hunter2hunter2."),
        "a [secret S] b [secret S][secret S]."
    );
    assert_eq!(
        whole(&[b"hunter2"], "hunter hunter1 Hunter2"),
        "hunter hunter1 Hunter2"
    );
    assert_eq!(whole(&[b"  hunter2\n"], "<hunter2>"), "<[secret S]>");
    let both: [&[u8]; 2] = [b"abcd", b"abcdefgh"];
    assert_eq!(
        whole(&both, "abcdefgh abcde abcdefg"),
        "[secret S] [secret S]e [secret S]efg"
    );
    let long = String::from_utf8(LONG.to_vec()).unwrap();
    assert_eq!(
        whole(&[LONG], &format!("x{long}{long}y")),
        "x[secret S][secret S]y"
    );
}

#[test]
fn two_values_with_one_beginning_are_both_found() {
    let one = [LONG, b"one"].concat();
    let two = [LONG, b"two and more"].concat();
    let text = [b"<".as_slice(), &two, b"|", &one, b">"].concat();
    let out = told(&known(&[&one, &two]), &text, &[usize::MAX]);
    assert_eq!(out, b"<[secret S]|[secret S]>");
}

#[test]
fn what_begins_no_value_is_told_at_once() {
    let known = known(&[LONG]);
    let mut scrubber = Scrubber::new(&known);
    assert_eq!(scrubber.feed(b"password: "), b"password: ");
    assert_eq!(scrubber.feed(b"a long v"), b"");
    assert_eq!(scrubber.pending(), 8);
    assert_eq!(scrubber.feed(b"oyage"), b"a long voyage");
}

#[test]
fn no_pattern_is_left_of_values_that_are_too_short() {
    let known = Known::new([("S", b"abc".as_slice()), ("T", b""), ("U", b" x \n")]);
    assert!(known.unwrap().is_none());
}

#[test]
fn each_common_way_to_write_a_value_is_found() {
    for value in [&b"hunter2"[..], b"p@ss w/rd\xff?", LONG] {
        let hex = |upper: bool| each(value, |_| true, "", upper).to_vec();
        let percent = |upper: bool| each(value, |b| !is_unreserved(b), "%", upper).to_vec();
        let all = [hex(true), hex(false), percent(true), percent(false)];
        for text in all {
            assert_eq!(told(&known(&[value]), &text, &[3]), b"[secret S]");
        }
    }
}

#[test]
fn a_value_is_found_in_a_line_of_json() {
    let value = "p\"a\\ss\n\u{e4}\u{1f600}\u{1}";
    let known = known(&[value.as_bytes()]);
    for line in [
        "{\"v\":\"p\\\"a\\\\ss\\n\u{e4}\u{1f600}\\u0001\"}",
        "{\"v\":\"p\\\"a\\\\ss\\n\\u00e4\\ud83d\\ude00\\u0001\"}",
    ] {
        assert_eq!(known.text(line), "{\"v\":\"[secret S]\"}", "{line}");
    }
}

#[test]
fn a_value_is_found_as_programmers_and_terminals_show_it() {
    let value = "a\"b'c\nd\\\u{1}\u{e4}";
    let known = known(&[value.as_bytes()]);
    for text in [
        "'a\"b\\'c\\nd\\\\\\x01\u{e4}'",
        "'a\"b'c\\nd\\\\\\x01\u{e4}'",
        "'a\"b'c\r\nd\\\u{1}\u{e4}'",
    ] {
        assert_eq!(known.text(text), "'[secret S]'", "{text}");
    }
}

/// In base64 with anything around it, a value leaves no four characters in a row but those at the
/// edges, which its neighbours determine too.
#[test]
fn base64_is_found_at_every_alignment_with_and_without_padding() {
    for (before, after) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (5, 7)] {
        let text = [&vec![b'x'; before], LONG, &vec![b'y'; after]].concat();
        for written in [BASE64.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            let out = told(&known(&[LONG]), written.as_bytes(), &[5]);
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains("[secret S]"), "{out}");
            let kept = out.replace("[secret S]", "");
            let most = before.div_ceil(3) * 4 + after.div_ceil(3) * 4 + 6;
            assert!(kept.len() <= most, "{before} {after}: {out}");
        }
    }
}

#[test]
fn a_value_in_digits_over_several_lines_leaves_no_digit_of_it() {
    for (length, wrap, end) in [
        (40, 60, "\n"),
        (57, 60, "\n"),
        (90, 64, "\r\n"),
        (300, 60, "\n"),
    ] {
        let value: Vec<u8> = (0..length)
            .map(|n: u16| b'!' + (n * 7 % 90).to_le_bytes()[0])
            .collect();
        let known = known(&[&value]);
        let digits = each(&value, |_| true, "", false).to_vec();
        for written in [digits, BASE64.encode(&value).into_bytes()] {
            let lines: Vec<&[u8]> = written.chunks(wrap).collect();
            let text = [lines.join(end.as_bytes()), b"\nnext\n".to_vec()].concat();
            for size in [1, 7, usize::MAX] {
                let out = String::from_utf8(told(&known, &text, &[size])).unwrap();
                assert_eq!(out.replace('=', ""), "[secret S]\nnext\n", "{length}");
            }
        }
    }
}

#[test]
fn a_value_is_found_as_pages_and_other_languages_write_it() {
    let known = known(&[b"a/b&c<d>\"e'f"]);
    for text in [
        r#""a\/b&c<d>\"e'f""#,
        r#""a/b\u0026c\u003cd\u003e\"e'f""#,
        "a/b&amp;c&lt;d&gt;&quot;e&#x27;f",
        "a/b&amp;c&lt;d&gt;&#34;e&#39;f",
        "a/b&amp;c&lt;d&gt;&quot;e&#39;f",
        "a/b&amp;c&lt;d&gt;\"e'f",
    ] {
        let quoted = text.trim_matches('"').len() < text.len() && text.starts_with('"');
        let expected = if quoted {
            "\"[secret S]\""
        } else {
            "[secret S]"
        };
        assert_eq!(known.text(text), expected, "{text}");
    }
}

/// What stands before a value says where in it a line ends.
#[test]
fn a_value_that_is_folded_near_its_beginning_leaves_no_piece_of_it() {
    let value: Vec<u8> = (0..46_u16)
        .map(|n| b'!' + (n * 7 % 90).to_le_bytes()[0])
        .collect();
    let known = known(&[&value]);
    for (wrap, end) in [(76, "\n"), (64, "\r\n")] {
        for before in 0..80 {
            let whole = [vec![b'.'; before], value.clone()].concat();
            let encoded = BASE64.encode(&whole);
            let own = encoded.get((before * 8).div_ceil(6)..whole.len() * 8 / 6);
            let own = own.unwrap().as_bytes();
            let lines: Vec<&[u8]> = encoded.as_bytes().chunks(wrap).collect();
            let text = [lines.join(end.as_bytes()), end.into()].concat();
            for size in [1, 5, usize::MAX] {
                let out = told(&known, &text, &[size]);
                let out: Vec<u8> = out.into_iter().filter(|b| !b"\r\n".contains(b)).collect();
                let is_told = |piece: &[u8]| out.windows(8).any(|window| window == piece);
                assert!(!own.windows(8).any(is_told), "{before} {wrap}");
            }
        }
    }
}

#[test]
fn an_end_of_a_line_that_is_not_in_a_value_stays() {
    let value: Vec<u8> = (b'!'..b'!' + 50).collect();
    let digits = String::from_utf8(each(&value, |_| true, "", false).to_vec()).unwrap();
    let text = format!("{}\r\nxyz", &digits[..60]);
    assert_eq!(known(&[&value]).text(&text), "[secret S]\r\nxyz");
}

#[test]
fn little_is_pending_and_what_is_pending_may_be_seen_again() {
    let value: Vec<u8> = (0..60_000_u32)
        .map(|n| b'!' + (n * n / 7 % 90).to_le_bytes()[0])
        .collect();
    let known = known(&[&value]);
    let text = [b"before ".as_slice(), &value, b" after"].concat();
    for cut in [3, 10, 38, 39, 40, 5000, 60_006, 60_007, 60_008] {
        let mut first = Scrubber::new(&known);
        let mut out = first.feed(&text[..cut]);
        let seen_again = cut - first.pending();
        // Another process goes on with nothing but what was told.
        out.extend(told(&known, &text[seen_again..], &[1000]));
        assert_eq!(out, b"before [secret S] after", "{cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However a stream is cut, the same is told, and no value is in it.
    #[test]
    fn no_way_to_cut_a_stream_lets_a_value_through(
        // Two letters, so that values overlap and repeat as often as can be.
        one in "[ab]{4,9}",
        two in "[ab]{30,70}",
        parts in prop::collection::vec((0..5_usize, "[ab]{0,6}"), 0..12),
        sizes in prop::collection::vec(1..40_usize, 1..8),
    ) {
        let (one, two) = (one.as_bytes(), two.as_bytes());
        let known = known(&[one, two]);
        let mut text = Vec::new();
        for (which, filler) in &parts {
            match which {
                0 => text.extend_from_slice(one),
                1 => text.extend_from_slice(two),
                2 => text.extend_from_slice(BASE64.encode(two).as_bytes()),
                3 => text.extend_from_slice(&two[..two.len() / 2]),
                _ => text.extend_from_slice(b" "),
            }
            text.extend_from_slice(filler.as_bytes());
        }
        let cut = told(&known, &text, &sizes);
        let whole = told(&known, &text, &[usize::MAX]);
        prop_assert_eq!(&cut, &whole);
        for value in [one, two] {
            prop_assert!(!cut.windows(value.len()).any(|part| part == value));
        }
    }
}
