//! Values that are known. What is looked for: each value as it is, in base64 at each of its three
//! alignments and in both alphabets, in hexadecimal digits, percent-encoded, escaped as in JSON and
//! Python, and with lines that end as on a terminal.
//!
//! What could be the beginning of a value is held back until it is known: the first [`ANCHOR`] bytes of a
//! value are found by an automaton, and then the rest is compared byte by byte. So little is held back
//! however long a value is, and a prompt without a newline is seen at once, because it begins no value.

use aho_corasick::{AhoCorasick, MatchKind, PatternID};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use std::fmt::Write as _;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The shortest value that is looked for, in bytes: a shorter one is in half of all lines by accident.
pub const VALUE_BYTES_MIN: usize = 4;

/// Values that are together more than the automaton holds. What uses them must not run then: nothing would
/// be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the values are too much to be looked for")
    }
}

impl std::error::Error for TooMuch {}

/// Bytes of a value that the automaton looks for. Longer ones would make it large: a value may have 64 KiB.
const ANCHOR: usize = 32;
/// The same of what may be written over several lines. Each place where a line may end in it is an anchor of its own,
/// so it is short.
const ANCHOR_FOLDED: usize = 16;
/// What ends a line.
const ENDS: [&[u8]; 2] = [b"\n", b"\r\n"];
/// The most bytes of an anchor.
const ANCHOR_BYTES_MAX: usize = ANCHOR;

/// A way in which a value may be written, and what is written in its stead.
struct Pattern {
    text: Zeroizing<Vec<u8>>,
    /// Characters of which one may follow and belongs to the value in part.
    edge: Zeroizing<Vec<u8>>,
    /// Whether it is written over several lines where it is long.
    folds: bool,
    instead: Arc<str>,
}

impl Pattern {
    /// Whether this byte is the one at this place.
    fn goes_on(&self, at: usize, byte: u8) -> bool {
        match self.text.get(at) {
            Some(own) => *own == byte,
            None => at == self.text.len() && self.edge.contains(&byte),
        }
    }

    /// Bytes that it has at most.
    fn len(&self) -> usize {
        self.text.len() + usize::from(!self.edge.is_empty())
    }

    fn anchor(&self) -> &[u8] {
        let most = if self.folds { ANCHOR_FOLDED } else { ANCHOR };
        self.text.get(..most).unwrap_or(&self.text)
    }

    /// The anchor, and with the end of a line at every place where it may have one.
    fn anchors(&self) -> impl Iterator<Item = Zeroizing<Vec<u8>>> {
        let anchor = self.anchor();
        let last = if self.folds { anchor.len() } else { 0 };
        let folded = (1..last).flat_map(move |at| {
            let (before, after) = anchor.split_at(at);
            ENDS.map(|end| Zeroizing::new([before, end, after].concat()))
        });
        std::iter::once(Zeroizing::new(anchor.to_vec())).chain(folded)
    }
}

/// Where a value may begin.
struct Anchor {
    text: Zeroizing<Vec<u8>>,
    /// Bytes of the value, without the end of a line.
    at: usize,
    /// The patterns that begin so.
    patterns: Vec<usize>,
}

/// What is looked for. Made once for a job or a sandbox; each of its streams has a [`Scrubber`].
pub struct Known {
    patterns: Vec<Pattern>,
    /// Sorted by their texts.
    anchors: Vec<Anchor>,
    automaton: AhoCorasick,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Known({} patterns)", self.patterns.len())
    }
}

impl Known {
    /// Everything by which these secrets could be told; each has a name and a value. `None` when all are
    /// too short to be looked for.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn new<'s>(
        secrets: impl IntoIterator<Item = (&'s str, &'s [u8])>,
    ) -> Result<Option<Arc<Known>>, TooMuch> {
        let mut patterns = Vec::new();
        for (name, value) in secrets {
            // A newline at the end of a file is seldom written with the rest.
            let value = value.trim_ascii();
            if value.len() < VALUE_BYTES_MIN {
                continue;
            }
            let instead: Arc<str> = format!("[secret {name}]").into();
            patterns.extend(writings(value).into_iter().map(|one| Pattern {
                text: one.text,
                edge: one.edge,
                folds: one.folds,
                instead: instead.clone(),
            }));
        }
        patterns.sort_by(|one, other| one.text.cmp(&other.text));
        patterns.dedup_by(|one, other| one.text == other.text);
        let anchors = anchors(&patterns);
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(anchors.iter().map(|anchor| &**anchor.text))
            .map_err(|_| TooMuch)?;
        let known = Known {
            patterns,
            anchors,
            automaton,
        };
        Ok((!known.patterns.is_empty()).then(|| Arc::new(known)))
    }

    /// Bytes that are whole.
    #[must_use]
    pub fn bytes(self: &Arc<Known>, bytes: &[u8]) -> Vec<u8> {
        let mut scrubber = Scrubber::new(self);
        let mut clean = scrubber.feed(bytes);
        clean.extend(scrubber.finish());
        clean
    }

    /// A text that is whole.
    #[must_use]
    pub fn text(self: &Arc<Known>, text: &str) -> String {
        let clean = self.bytes(text.as_bytes());
        // What stands in for a value is text, and what is left of a text may have lost half a character.
        String::from_utf8_lossy(&clean).into_owned()
    }

    /// Where the longest end of `text` begins that is the beginning of an anchor and not a whole one.
    fn hold(&self, text: &[u8]) -> usize {
        let first = text.len().saturating_sub(ANCHOR_BYTES_MAX - 1);
        let begins = |at: &usize| {
            let end = text.get(*at..).unwrap_or_default();
            let next = self
                .anchors
                .partition_point(|one| one.text.as_slice() <= end);
            let longer = self.anchors.get(next);
            longer.is_some_and(|anchor| anchor.text.starts_with(end))
        };
        (first..text.len()).find(begins).unwrap_or(text.len())
    }
    /// What stands in for a value that begins with this anchor.
    fn instead_of(&self, anchor: PatternID) -> Option<&Arc<str>> {
        let anchor = self.anchors.get(anchor.as_usize())?;
        let pattern = self.patterns.get(*anchor.patterns.first()?)?;
        Some(&pattern.instead)
    }
}

/// All anchors of all patterns, each once.
fn anchors(patterns: &[Pattern]) -> Vec<Anchor> {
    let mut all: Vec<Anchor> = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let at = pattern.anchor().len();
        let anchor = |text| Anchor {
            text,
            at,
            patterns: vec![index],
        };
        all.extend(pattern.anchors().map(anchor));
    }
    all.sort_by(|one, other| one.text.cmp(&other.text));
    all.dedup_by(|next, kept| {
        let same = next.text == kept.text;
        if same {
            kept.patterns.append(&mut next.patterns);
        }
        same
    });
    all
}

/// One way to write a value.
struct Writing {
    text: Zeroizing<Vec<u8>>,
    edge: Zeroizing<Vec<u8>>,
    folds: bool,
}

impl From<Zeroizing<Vec<u8>>> for Writing {
    fn from(text: Zeroizing<Vec<u8>>) -> Writing {
        let edge = Zeroizing::default();
        let folds = false;
        Writing { text, edge, folds }
    }
}

/// All ways in which a value is looked for.
fn writings(value: &[u8]) -> Vec<Writing> {
    let mut all: Vec<Writing> = vec![Zeroizing::new(value.to_vec()).into()];
    for alphabet in [&STANDARD, &URL_SAFE] {
        all.extend((0..3).map(|shift| base64_at(value, shift, alphabet)));
    }
    for upper in [false, true] {
        let text = each(value, |_| true, "", upper);
        // `xxd -p` has 60 digits in a line.
        let folds = true;
        all.push(Writing {
            folds,
            ..text.into()
        });
        // What is not encoded differs: RFC 3986 names the second, forms write a space as `+`.
        all.push(each(value, |b| !is_unreserved(b), "%", upper).into());
        all.push(each(value, |b| !is_unreserved(b) && b != b'/', "%", upper).into());
        let mut form = each(value, |b| !is_unreserved(b) && b != b' ', "%", upper);
        form.iter_mut()
            .filter(|b| **b == b' ')
            .for_each(|b| *b = b'+');
        all.push(form.into());
    }
    if let Ok(text) = std::str::from_utf8(value) {
        all.extend([false, true].map(|ascii| in_json(text, ascii).into()));
        all.extend([None, Some('\'')].map(|quote| in_python(text, quote).into()));
        all.extend(JSON_OTHERS.map(|others| replaced(&in_json(text, false), others).into()));
        all.extend(HTML.map(|others| replaced(text.as_bytes(), others).into()));
        // A terminal ends lines so.
        all.push(Zeroizing::new(text.replace('\n', "\r\n").into_bytes()).into());
    }
    // A cut form of a short value could be so short that it is everywhere.
    all.retain(|one| one.text.len() >= VALUE_BYTES_MIN);
    all
}

/// What PHP escapes in JSON beside what must be, and what Go and Ruby do.
const JSON_OTHERS: [&[(u8, &str)]; 2] = [
    &[(b'/', "\\/")],
    &[(b'<', "\\u003c"), (b'>', "\\u003e"), (b'&', "\\u0026")],
];

/// How pages write what would be markup: Python, Go, and most others, and in a text where quotes are none.
const HTML: [&[(u8, &str)]; 4] = [
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&quot;"),
        (b'\'', "&#x27;"),
    ],
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&#34;"),
        (b'\'', "&#39;"),
    ],
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&quot;"),
        (b'\'', "&#39;"),
    ],
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;")],
];

fn replaced(text: &[u8], others: &[(u8, &str)]) -> Zeroizing<Vec<u8>> {
    let mut all = Zeroizing::new(Vec::with_capacity(text.len() * 8));
    for byte in text {
        match others.iter().find(|(own, _)| own == byte) {
            Some((_, other)) => all.extend_from_slice(other.as_bytes()),
            None => all.push(*byte),
        }
    }
    all
}

/// The characters of base64 that a value determines where it begins `shift` bytes after a group: with
/// whatever stands before and after it, they are these. One more may begin with its last bits.
fn base64_at(value: &[u8], shift: usize, alphabet: &base64::alphabet::Alphabet) -> Writing {
    let mut padded = Zeroizing::new(vec![0; shift]);
    padded.extend_from_slice(value);
    let engine = GeneralPurpose::new(alphabet, NO_PAD);
    let mut text = Zeroizing::new(engine.encode(&*padded).into_bytes());
    // Six bits each: those that begin in the value and end in it.
    let from = (shift * 8).div_ceil(6);
    let to = padded.len() * 8 / 6;
    let more = padded.len() * 8 % 6;
    let signs = alphabet.as_str().as_bytes();
    // With zeros for what is not the value's, it is the first of those that begin so.
    let first = text
        .get(to)
        .and_then(|last| signs.iter().position(|one| one == last));
    let edge = first.and_then(|first| signs.get(first..first + (1 << (6 - more))));
    let edge = Zeroizing::new(edge.unwrap_or_default().to_vec());
    text.truncate(to);
    text.drain(..from.min(to));
    // `base64` has 76 characters in a line, PEM 64.
    let folds = true;
    Writing { text, edge, folds }
}

fn each(
    value: &[u8],
    encoded: impl Fn(u8) -> bool,
    before: &str,
    upper: bool,
) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(String::with_capacity(value.len() * 3));
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len() * 3));
    for byte in value {
        if !encoded(*byte) {
            bytes.push(*byte);
            continue;
        }
        text.clear();
        // Writing into a text cannot fail.
        let _ = match upper {
            true => write!(text, "{before}{byte:02X}"),
            false => write!(text, "{before}{byte:02x}"),
        };
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// As it stands in a JSON string (RFC 8259, section 7), with everything beyond ASCII escaped or as it is.
fn in_json(value: &str, ascii: bool) -> Zeroizing<Vec<u8>> {
    escaped(value, Some('"'), |char, text| {
        let is_plain = !char.is_ascii_control() && (char.is_ascii() || !ascii);
        for unit in char.encode_utf16(&mut [0; 2]).iter().filter(|_| !is_plain) {
            // Writing into a text cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
        is_plain
    })
}

/// As Python and others show a text to programmers, in quotes of either kind.
fn in_python(value: &str, quote: Option<char>) -> Zeroizing<Vec<u8>> {
    escaped(value, quote, |char, text| {
        if char.is_ascii_control() {
            // Writing into a text cannot fail.
            let _ = write!(text, "\\x{:02x}", u32::from(char));
        }
        !char.is_ascii_control()
    })
}

/// Escapes what every language escapes, and leaves the rest to `other`, which says whether a character is
/// to stand as it is.
fn escaped(
    value: &str,
    quote: Option<char>,
    other: impl Fn(char, &mut String) -> bool,
) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(String::with_capacity(value.len() * 2));
    for char in value.chars() {
        match char {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            _ if Some(char) == quote => text.extend(['\\', char]),
            _ => {
                if other(char, &mut text) {
                    text.push(char);
                }
            }
        }
    }
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

/// Whether a byte ends a line, after so much of an end.
fn is_end(before: &[u8], byte: u8) -> bool {
    matches!((before, byte), ([], b'\r' | b'\n') | ([b'\r'], b'\n'))
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// One stream.
#[derive(Debug)]
pub struct Scrubber {
    known: Arc<Known>,
    /// What could be the beginning of an anchor.
    held: Vec<u8>,
    /// An anchor was found, and these patterns, which have it, have gone on as they should, so far.
    inside: Option<Inside>,
}

#[derive(Debug)]
struct Inside {
    patterns: Vec<usize>,
    at: usize,
    /// Bytes of the stream that these are, with the ends of lines between them.
    taken: usize,
    /// An end of a line after them, which may be inside of the value.
    end: Vec<u8>,
    instead: Arc<str>,
}

impl Inside {
    /// It is over: what stands in for it, and what was not part of it.
    fn tell(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.instead.as_bytes());
        out.extend_from_slice(&self.end);
    }
}

impl Scrubber {
    /// At its beginning.
    #[must_use]
    pub fn new(known: &Arc<Known>) -> Scrubber {
        Scrubber {
            known: known.clone(),
            held: Vec::new(),
            inside: None,
        }
    }

    /// Takes the next bytes of the stream, and gives what of it can be told now.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.held.len());
        let rest = self.go_on(bytes, &mut out);
        let mut text = std::mem::take(&mut self.held);
        // Most pieces begin where nothing is held, and are looked at where they are.
        if text.is_empty() {
            self.held = self.scan(rest, &mut out).to_vec();
        } else {
            text.extend_from_slice(rest);
            self.held = self.scan(&text, &mut out).to_vec();
        }
        out
    }

    /// The stream is over, or nobody waits any longer: what was held back begins nothing.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(inside) = self.inside.take() {
            inside.tell(&mut out);
        }
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        // Shorter values may be in what could have been the beginning of a longer one.
        while let Some(found) = self.known.automaton.find(rest) {
            out.extend_from_slice(rest.get(..found.start()).unwrap_or_default());
            let instead = self.known.instead_of(found.pattern());
            out.extend_from_slice(instead.map_or(&b""[..], |instead| instead.as_bytes()));
            rest = rest.get(found.end()..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
        out
    }

    /// Bytes that were taken and are not told yet. Whoever goes on with the stream in another process has
    /// to see them again.
    #[must_use]
    pub fn pending(&self) -> usize {
        let inside = self.inside.as_ref();
        self.held.len() + inside.map_or(0, |inside| inside.taken + inside.end.len())
    }

    /// Goes on in a value whose beginning was found, and gives what comes after it.
    fn go_on<'b>(&mut self, mut bytes: &'b [u8], out: &mut Vec<u8>) -> &'b [u8] {
        let Some(inside) = &mut self.inside else {
            return bytes;
        };
        let known = &self.known.patterns;
        while let Some((byte, rest)) = bytes.split_first() {
            let goes_on = |index: &usize| {
                let pattern = known.get(*index);
                pattern.is_some_and(|one| one.goes_on(inside.at, *byte))
            };
            let left: Vec<usize> = inside.patterns.iter().copied().filter(goes_on).collect();
            let folds = |index: &usize| {
                let pattern = known.get(*index);
                pattern.is_some_and(|one| one.folds && one.text.len() > inside.at)
            };
            if !left.is_empty() {
                inside.patterns = left;
                inside.at += 1;
                inside.taken += 1 + inside.end.len();
                inside.end.clear();
            } else if is_end(&inside.end, *byte) && inside.patterns.iter().any(folds) {
                inside.patterns.retain(folds);
                inside.end.push(*byte);
            } else {
                break;
            }
            bytes = rest;
        }
        let is_longer = |index: &usize| {
            let pattern = known.get(*index);
            pattern.is_some_and(|one| one.len() > inside.at)
        };
        // Only here, when it is over, because until then all of it may be seen again.
        if !bytes.is_empty() || !inside.patterns.iter().any(is_longer) {
            inside.tell(out);
            self.inside = None;
        }
        bytes
    }

    /// Takes values out of a text, and gives the end of it that could be the beginning of one.
    fn scan<'t>(&mut self, mut text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
        let known = self.known.clone();
        // From the end, so that it holds as long as nothing of it was found to be a value.
        let mut held = text.len() - known.hold(text);
        loop {
            let hold = text.len() - held;
            let found = known
                .automaton
                .find(text)
                .filter(|found| found.start() < hold);
            let Some(found) = found else {
                let (told, held) = text.split_at(hold);
                out.extend_from_slice(told);
                return held;
            };
            let anchor = known.anchors.get(found.pattern().as_usize());
            let instead = known.instead_of(found.pattern());
            out.extend_from_slice(text.get(..found.start()).unwrap_or_default());
            self.inside = anchor.zip(instead).map(|(anchor, instead)| Inside {
                patterns: anchor.patterns.clone(),
                at: anchor.at,
                taken: found.end() - found.start(),
                end: Vec::new(),
                instead: instead.clone(),
            });
            let rest = text.get(found.end()..).unwrap_or_default();
            text = self.go_on(rest, out);
            if text.len() < held {
                held = text.len() - known.hold(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
