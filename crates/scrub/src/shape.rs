//! Credentials that nobody named, by their shape: a beginning that is on purpose like no other text, and a
//! run of characters after it.
//!
//! One pass and no regular expressions: a candidate begins only where no word goes on, so that no byte is
//! looked at more often than a few times, whatever a workload writes.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// Bytes that are swallowed as one credential: longer than any key. What comes after is told.
const SWALLOWED_MAX: usize = 16 * 1024;
/// Bytes of the first part of a JSON web token: an algorithm, a key's name, seldom a certificate.
const HEADER_MAX: usize = 1024;
/// The longest line that may begin a private key.
const BEGIN_MAX: usize = 64;

/// How a shape goes on after its beginning.
#[derive(Debug, Clone, Copy)]
enum Rest {
    /// At least so many of these.
    Run(fn(u8) -> bool, usize),
    /// The same, and the beginning is no part of it and stays.
    After(fn(u8) -> bool, usize),
    /// The parts of a JSON web token (RFC 7519).
    Token,
    /// A block with a private key (RFC 7468), to its last line.
    Block,
}

/// A shape. Beginnings are compared without regard to case where they are `After`.
#[derive(Debug)]
struct Shape {
    name: &'static str,
    begin: &'static [u8],
    rest: Rest,
}

const fn shape(name: &'static str, begin: &'static [u8], rest: Rest) -> Shape {
    Shape { name, begin, rest }
}

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

fn upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

/// `token68` of RFC 9110, section 11.2.
fn token68(b: u8) -> bool {
    alnum(b) || b"-._~+/=".contains(&b)
}

fn token_part(b: u8) -> bool {
    word(b) || b == b'.'
}

/// What stands in a private key, also where it is a string of JSON or has headers.
fn block(b: u8) -> bool {
    alnum(b) || b.is_ascii_whitespace() || b"+/=-:,.\\()".contains(&b)
}

/// The shapes, as their makers document them and as scanners of repositories know them. AWS's secret
/// access keys are not here: forty characters without a beginning are like any other.
static SHAPES: &[Shape] = &[
    shape("aws-key", b"AKIA", Rest::Run(upper, 16)),
    shape("aws-key", b"ASIA", Rest::Run(upper, 16)),
    shape("github-token", b"ghp_", Rest::Run(alnum, 36)),
    shape("github-token", b"gho_", Rest::Run(alnum, 36)),
    shape("github-token", b"ghu_", Rest::Run(alnum, 36)),
    shape("github-token", b"ghs_", Rest::Run(alnum, 36)),
    shape("github-token", b"ghr_", Rest::Run(alnum, 36)),
    shape("github-token", b"github_pat_", Rest::Run(word, 22)),
    shape("gitlab-token", b"glpat-", Rest::Run(word, 20)),
    shape("slack-token", b"xoxb-", Rest::Run(word, 10)),
    shape("slack-token", b"xoxp-", Rest::Run(word, 10)),
    shape("slack-token", b"xoxa-", Rest::Run(word, 10)),
    shape("slack-token", b"xoxr-", Rest::Run(word, 10)),
    shape("slack-token", b"xoxs-", Rest::Run(word, 10)),
    shape("slack-token", b"xapp-", Rest::Run(word, 10)),
    shape("stripe-key", b"sk_live_", Rest::Run(alnum, 16)),
    shape("stripe-key", b"rk_live_", Rest::Run(alnum, 16)),
    shape("stripe-key", b"sk_test_", Rest::Run(alnum, 16)),
    shape("stripe-key", b"rk_test_", Rest::Run(alnum, 16)),
    shape("stripe-key", b"whsec_", Rest::Run(token68, 24)),
    shape("google-key", b"AIza", Rest::Run(word, 35)),
    shape("google-token", b"ya29.", Rest::Run(word, 20)),
    shape("anthropic-key", b"sk-ant-", Rest::Run(word, 20)),
    shape("openai-key", b"sk-proj-", Rest::Run(word, 20)),
    shape("openai-key", b"sk-svcacct-", Rest::Run(word, 20)),
    shape("openai-key", b"sk-admin-", Rest::Run(word, 20)),
    shape("openai-key", b"sk-", Rest::Run(alnum, 32)),
    shape("npm-token", b"npm_", Rest::Run(alnum, 36)),
    shape("pypi-token", b"pypi-", Rest::Run(word, 40)),
    shape("huggingface-token", b"hf_", Rest::Run(alnum, 30)),
    shape("sendgrid-key", b"SG.", Rest::Run(token_part, 60)),
    shape("vault-token", b"hvs.", Rest::Run(word, 24)),
    shape("age-key", b"AGE-SECRET-KEY-1", Rest::Run(upper, 40)),
    shape("jwt", b"eyJ", Rest::Token),
    shape("private-key", b"-----BEGIN ", Rest::Block),
    shape("bearer-token", b"bearer ", Rest::After(token68, 20)),
    shape(
        "basic-credentials",
        b"authorization: basic ",
        Rest::After(token68, 8),
    ),
];

/// What the bytes since a beginning are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Nothing,
    /// More has to be seen.
    Perhaps,
    /// It is this shape, by its number.
    Is(usize),
}

impl Shape {
    fn ignores_case(&self) -> bool {
        matches!(self.rest, Rest::After(..))
    }

    fn judge(&self, text: &[u8]) -> Verdict {
        let both = text.len().min(self.begin.len());
        let (text_begin, rest) = text.split_at(both);
        let begin = self.begin.get(..both).unwrap_or_default();
        let begins = if self.ignores_case() {
            text_begin.eq_ignore_ascii_case(begin)
        } else {
            text_begin == begin
        };
        match self.rest {
            _ if !begins => Verdict::Nothing,
            _ if both < self.begin.len() => Verdict::Perhaps,
            Rest::Run(is_of, least) | Rest::After(is_of, least) => {
                match (rest.iter().all(|b| is_of(*b)), rest.len() >= least) {
                    (false, _) => Verdict::Nothing,
                    (true, false) => Verdict::Perhaps,
                    (true, true) => Verdict::Is(0),
                }
            }
            Rest::Token => judge_token(rest),
            Rest::Block => judge_block(rest),
        }
    }
}

/// After `eyJ`: the rest of the first part, a dot, and the beginning of another object.
fn judge_token(rest: &[u8]) -> Verdict {
    let Some(dot) = rest.iter().position(|b| !word(*b)) else {
        return match rest.len() < HEADER_MAX {
            true => Verdict::Perhaps,
            false => Verdict::Nothing,
        };
    };
    let next = rest.get(dot..).unwrap_or_default();
    let begin = b".eyJ";
    match (begin.starts_with(next), next.starts_with(begin)) {
        (_, true) => Verdict::Is(0),
        (true, false) => Verdict::Perhaps,
        (false, false) => Verdict::Nothing,
    }
}

/// After `-----BEGIN `: the rest of that line.
fn judge_block(rest: &[u8]) -> Verdict {
    let label = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ';
    let end = rest.iter().position(|b| !label(b)).unwrap_or(rest.len());
    let (name, dashes) = rest.split_at(end);
    let is_key = name.ends_with(b"PRIVATE KEY") || name.ends_with(b"PRIVATE KEY BLOCK");
    let begin = b"-----";
    match dashes {
        [] if rest.len() < BEGIN_MAX => Verdict::Perhaps,
        _ if is_key && dashes.starts_with(begin) => Verdict::Is(0),
        [_, ..] if is_key && begin.starts_with(dashes) => Verdict::Perhaps,
        _ => Verdict::Nothing,
    }
}

fn judge(text: &[u8]) -> Verdict {
    let mut verdict = Verdict::Nothing;
    for (number, shape) in SHAPES.iter().enumerate() {
        match shape.judge(text) {
            Verdict::Is(_) => return Verdict::Is(number),
            Verdict::Perhaps => verdict = Verdict::Perhaps,
            Verdict::Nothing => {}
        }
    }
    verdict
}

/// With which bytes a shape begins. Made once: records are many and short.
static BEGINS: LazyLock<[bool; 256]> = LazyLock::new(|| {
    let mut begins = [false; 256];
    for (b, begins) in (0..=u8::MAX).zip(&mut begins) {
        *begins = can_begin(b);
    }
    begins
});

fn can_begin(b: u8) -> bool {
    let begins = |shape: &Shape| {
        shape
            .begin
            .first()
            .is_some_and(|first| match shape.ignores_case() {
                true => first.eq_ignore_ascii_case(&b),
                false => *first == b,
            })
    };
    SHAPES.iter().any(begins)
}

/// One stream, from which everything with the shape of a credential is taken. In its stead stands
/// `[secret pattern:NAME]`.
#[derive(Debug)]
pub struct Shapes {
    /// A word goes on, in which nothing begins.
    in_word: bool,
    /// The next byte is escaped, as the `n` of a newline in a string of JSON, and part of no word.
    is_escaped: bool,
    /// What could become a credential.
    held: VecDeque<u8>,
    inside: Option<Inside>,
    found: u64,
}

/// A credential that goes on.
#[derive(Debug)]
struct Inside {
    shape: usize,
    /// Bytes of it so far.
    len: usize,
    /// The last of a block, to see its end.
    last: VecDeque<u8>,
    has_end: bool,
}

impl Default for Shapes {
    fn default() -> Shapes {
        Shapes::new()
    }
}

impl Shapes {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Shapes {
        Shapes {
            in_word: false,
            is_escaped: false,
            held: VecDeque::new(),
            inside: None,
            found: 0,
        }
    }

    /// A text that is whole.
    #[must_use]
    pub fn text(text: &str) -> String {
        Shapes::count(text).0
    }

    /// The same, and how many were found.
    #[must_use]
    pub fn count(text: &str) -> (String, u64) {
        let mut shapes = Shapes::new();
        let mut clean = shapes.feed(text.as_bytes());
        clean.extend(shapes.finish());
        // Only ASCII is taken, so what is left is text.
        (String::from_utf8_lossy(&clean).into_owned(), shapes.found)
    }

    /// How many were found so far.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    /// Takes the next bytes of the stream, and gives what of it can be told now.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.held.len());
        for byte in bytes {
            self.take(*byte, &mut out);
        }
        out
    }

    /// The stream is over: what was held back becomes nothing.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.leave(&mut out);
        while !self.held.is_empty() {
            self.let_one_go(&mut out);
        }
        self.leave(&mut out);
        self.in_word = false;
        out
    }

    /// Bytes that were taken and are not told yet. Whoever goes on with the stream in another process has
    /// to see them again.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.held.len() + self.inside.as_ref().map_or(0, |inside| inside.len)
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let Some(inside) = &mut self.inside {
            if inside.goes_on(byte) {
                return;
            }
            self.leave(out);
        }
        if self.held.is_empty() && (self.in_word || !BEGINS[usize::from(byte)]) {
            return self.tell(byte, out);
        }
        self.held.push_back(byte);
        self.settle(out);
    }

    /// Looks at what is held until nothing more can be said of it.
    fn settle(&mut self, out: &mut Vec<u8>) {
        while !self.held.is_empty() {
            match judge(self.held.make_contiguous()) {
                Verdict::Perhaps => return,
                Verdict::Nothing => self.let_one_go(out),
                Verdict::Is(shape) => return self.enter(shape, out),
            }
        }
    }

    /// What is held begins nothing: its first byte is told, and those after it until another may begin.
    fn let_one_go(&mut self, out: &mut Vec<u8>) {
        let mut is_first = true;
        while let Some(byte) = self.held.front().copied() {
            if !is_first && !self.in_word && BEGINS[usize::from(byte)] {
                return;
            }
            is_first = false;
            self.held.pop_front();
            self.tell(byte, out);
        }
    }

    fn tell(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.in_word = word(byte) && !self.is_escaped;
        self.is_escaped = byte == b'\\' && !self.is_escaped;
        out.push(byte);
    }

    /// What is held is a credential, which may go on.
    fn enter(&mut self, number: usize, out: &mut Vec<u8>) {
        let Some(shape) = SHAPES.get(number) else {
            return;
        };
        if shape.ignores_case() {
            out.extend(self.held.drain(..shape.begin.len().min(self.held.len())));
        }
        self.found += 1;
        self.inside = Some(Inside {
            shape: number,
            len: self.held.len(),
            last: VecDeque::new(),
            has_end: false,
        });
        self.held.clear();
    }

    /// A credential is over. Only here it is told, because until then all of it may be seen again.
    fn leave(&mut self, out: &mut Vec<u8>) {
        let shape = self
            .inside
            .take()
            .and_then(|inside| SHAPES.get(inside.shape));
        if let Some(shape) = shape {
            out.extend_from_slice(b"[secret pattern:");
            out.extend_from_slice(shape.name.as_bytes());
            out.push(b']');
            // A key that was too long goes on, and nothing begins in it; after a block something may.
            self.in_word = !matches!(shape.rest, Rest::Block);
            self.is_escaped = false;
        }
    }
}

impl Inside {
    /// Whether the credential goes on with this byte.
    fn goes_on(&mut self, byte: u8) -> bool {
        let rest = SHAPES.get(self.shape).map(|shape| shape.rest);
        let is_of = match rest {
            Some(Rest::Run(is_of, _) | Rest::After(is_of, _)) => is_of(byte),
            Some(Rest::Token) => token_part(byte),
            Some(Rest::Block) => !self.is_ended() && block(byte),
            None => false,
        };
        let goes_on = is_of && self.len < SWALLOWED_MAX;
        if goes_on {
            self.len += 1;
            if matches!(rest, Some(Rest::Block)) {
                self.remember(byte);
            }
        }
        goes_on
    }

    fn remember(&mut self, byte: u8) {
        const END: &[u8] = b"-----END ";
        self.last.push_back(byte);
        if self.last.len() > END.len() {
            self.last.pop_front();
        }
        self.has_end |= self.last.iter().eq(END);
    }

    /// The line that ends a block is whole.
    fn is_ended(&self) -> bool {
        let dashes = self.last.iter().rev().take_while(|b| **b == b'-').count();
        self.has_end && dashes >= 5 && self.last.len() > dashes
    }
}

#[cfg(test)]
mod tests {
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
}
