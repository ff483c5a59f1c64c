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
mod tests;
