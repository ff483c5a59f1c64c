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
/// What the first part of a JSON web token begins with: an object of JSON in base64.
const TOKEN: &[u8] = b"eyJ";
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
    shape("jwt", TOKEN, Rest::Token),
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

    fn can_begin(&self, b: u8) -> bool {
        let first = self.begin.first();
        first.is_some_and(|first| match self.ignores_case() {
            true => first.eq_ignore_ascii_case(&b),
            false => *first == b,
        })
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
    let Some(first) = text.first() else {
        return Verdict::Nothing;
    };
    let mut verdict = Verdict::Nothing;
    for (number, shape) in &BEGINS[usize::from(*first)] {
        match shape.judge(text) {
            Verdict::Is(_) => return Verdict::Is(*number),
            Verdict::Perhaps => verdict = Verdict::Perhaps,
            Verdict::Nothing => {}
        }
    }
    verdict
}

/// Which shapes begin with a byte, by their numbers. Made once: records are many and short, and most words of a
/// text begin none.
static BEGINS: LazyLock<[Vec<(usize, &'static Shape)>; 256]> = LazyLock::new(|| {
    let mut begins = [const { Vec::new() }; 256];
    for (b, begins) in (0..=u8::MAX).zip(&mut begins) {
        let all = SHAPES.iter().enumerate();
        *begins = all.filter(|(_, shape)| shape.can_begin(b)).collect();
    }
    begins
});

fn can_begin(b: u8) -> bool {
    !BEGINS[usize::from(b)].is_empty()
}

/// One stream, from which everything with the shape of a credential is taken. In its stead stands
/// `[secret pattern:NAME]`.
#[derive(Debug)]
pub struct Shapes {
    /// A word goes on, in which nothing begins.
    in_word: bool,
    /// The next byte is escaped, as the `n` of a newline in a string of JSON, and part of no word.
    is_escaped: bool,
    /// A sign is being written, such as a colour of a terminal or `%20`. Its last letter is part of no word, or a key
    /// behind it would not be seen.
    control: Control,
    /// What could become a credential.
    held: VecDeque<u8>,
    /// What is held is the first part of a JSON web token, as far as it has come.
    in_first_part: bool,
    inside: Option<Inside>,
    found: u64,
}

/// How far a sign is that is written as several: a sequence for a terminal (ECMA-48 sections 5.3 and 5.4), or a character
/// in digits, as in URLs, JSON and Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Not,
    /// After ESC.
    Escape,
    /// After `ESC [`.
    Sequence,
    /// After a backslash.
    Backslash,
    /// So many digits are left.
    Digits(u8),
}

impl Control {
    /// How far it is after this byte, and whether the byte was its last one.
    fn after(self, byte: u8) -> (Control, bool) {
        match (self, byte) {
            (_, 0x1b) => (Control::Escape, false),
            (Control::Backslash, b'u') => (Control::Digits(4), false),
            (Control::Backslash, b'x') => (Control::Digits(2), false),
            (Control::Digits(left), _) if byte.is_ascii_hexdigit() => match left {
                0 | 1 => (Control::Not, true),
                _ => (Control::Digits(left - 1), false),
            },
            (Control::Not | Control::Digits(_), b'%') => (Control::Digits(2), false),
            (Control::Not | Control::Digits(_), b'\\') => (Control::Backslash, false),
            (Control::Escape, b'[') => (Control::Sequence, false),
            (Control::Escape, 0x20..=0x2f) | (Control::Sequence, 0x20..=0x3f) => (self, false),
            (Control::Escape, 0x30..=0x7e) | (Control::Sequence, 0x40..=0x7e) => {
                (Control::Not, true)
            }
            _ => (Control::Not, false),
        }
    }
}

/// A credential that goes on.
#[derive(Debug)]
struct Inside {
    shape: usize,
    /// Whoever reads was told of it already, because he would not wait for its end.
    is_told: bool,
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
            control: Control::Not,
            held: VecDeque::new(),
            in_first_part: false,
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
        let (clean, found) = Shapes::bytes(text.as_bytes());
        // Only ASCII is taken, so what is left is text.
        (String::from_utf8_lossy(&clean).into_owned(), found)
    }

    /// The same of bytes that are whole.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> (Vec<u8>, u64) {
        let mut shapes = Shapes::new();
        let mut clean = shapes.feed(bytes);
        clean.extend(shapes.finish());
        (clean, shapes.found)
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
        let mut rest = bytes;
        while !rest.is_empty() {
            // Most of a stream begins nothing, and is passed on as it is.
            if self.inside.is_none() && self.held.is_empty() {
                let (plain, after) = rest.split_at(self.plain(rest));
                out.extend_from_slice(plain);
                rest = after;
            }
            if let Some((byte, after)) = rest.split_first() {
                self.take(*byte, &mut out);
                rest = after;
            }
        }
        out
    }

    /// How many of these bytes come before the first that may begin something, which are told.
    fn plain(&mut self, bytes: &[u8]) -> usize {
        let begins = &*BEGINS;
        for (at, byte) in bytes.iter().enumerate() {
            if !self.in_word && !begins[usize::from(*byte)].is_empty() {
                return at;
            }
            self.told(*byte);
        }
        bytes.len()
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
        (self.in_word, self.in_first_part) = (false, false);
        out
    }

    /// Nobody waits any longer, and the stream goes on: what was held back is told, and what comes is not taken
    /// for the rest of it. Of a credential that goes on it is told that it is there; what is left of it is still
    /// swallowed.
    #[must_use]
    pub fn release(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(inside) = self.inside.as_mut().filter(|inside| !inside.is_told) {
            inside.is_told = true;
            tell_instead(inside.shape, &mut out);
        }
        while !self.held.is_empty() {
            self.let_one_go(&mut out);
        }
        self.in_first_part = false;
        out
    }

    /// Bytes that were taken and are not told yet. Whoever goes on with the stream in another process has
    /// to see them again.
    #[must_use]
    pub fn pending(&self) -> usize {
        let inside = self.inside.as_ref().filter(|inside| !inside.is_told);
        self.held.len() + inside.map_or(0, |inside| inside.len)
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let Some(inside) = &mut self.inside {
            if inside.goes_on(byte) {
                return;
            }
            self.leave(out);
        }
        if self.held.is_empty() && (self.in_word || !can_begin(byte)) {
            return self.tell(byte, out);
        }
        self.held.push_back(byte);
        self.in_first_part &= word(byte) && self.held.len() < TOKEN.len() + HEADER_MAX;
        // The rest of it is as it was, and to look at all of it again for each byte would be slow.
        if !self.in_first_part {
            self.settle(out);
            self.in_first_part = self.held.iter().eq(TOKEN);
        }
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
            if !is_first && !self.in_word && can_begin(byte) {
                return;
            }
            is_first = false;
            self.held.pop_front();
            self.tell(byte, out);
        }
    }

    fn tell(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.told(byte);
        out.push(byte);
    }

    fn told(&mut self, byte: u8) {
        let (control, was_last) = self.control.after(byte);
        self.control = control;
        self.in_word = word(byte) && !self.is_escaped && !was_last;
        self.is_escaped = byte == b'\\' && !self.is_escaped;
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
            is_told: false,
            len: self.held.len(),
            last: VecDeque::new(),
            has_end: false,
        });
        self.held.clear();
    }

    /// A credential is over. Only here it is told, because until then all of it may be seen again.
    fn leave(&mut self, out: &mut Vec<u8>) {
        let Some(inside) = self.inside.take() else {
            return;
        };
        if !inside.is_told {
            tell_instead(inside.shape, out);
        }
        if let Some(shape) = SHAPES.get(inside.shape) {
            // A key that was too long goes on, and nothing begins in it; after a block something may.
            self.in_word = !matches!(shape.rest, Rest::Block);
            self.is_escaped = false;
        }
    }
}

/// What stands in for a credential of this shape.
fn tell_instead(shape: usize, out: &mut Vec<u8>) {
    if let Some(shape) = SHAPES.get(shape) {
        out.extend_from_slice(b"[secret pattern:");
        out.extend_from_slice(shape.name.as_bytes());
        out.push(b']');
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
mod tests;
