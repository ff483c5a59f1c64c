//! What the first bytes of a tunnel say about whom they are for: the server name of a TLS greeting
//! (RFC 8446 section 4.1.2, RFC 6066 section 3), or the Host field of a request in clear. Nothing is decrypted
//! or changed.
//!
//! With Encrypted Client Hello (RFC 9849) the name that is seen is the client's choice and the one that counts is
//! sealed, so that the name alone says nothing. That a greeting has it is seen, and [`NetworkRules::hiding`] says
//! whether it may pass. What is made up to look like it (GREASE, section 6.2) is meant to be told apart by nobody.
//!
//! [`NetworkRules::hiding`]: model::network::NetworkRules::hiding

use model::host::Host;

/// Bytes of a greeting that are waited for: with keys that withstand quantum computers it has 2 KiB; a record
/// has at most 16 KiB (RFC 8446 section 5.1).
pub(crate) const BYTES_MAX: usize = 32 * 1024;

/// Fields of a request in clear are looked at in so many bytes.
const HEAD_MAX: usize = 16 * 1024;

/// What the first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// More are needed to say it.
    Unfinished,
    /// TLS.
    Tls(Hello),
    /// A request in clear, for this host.
    Clear(Host),
    /// Begins like TLS or a request and is none, or names two hosts.
    Bad,
    /// Something else.
    Other,
}

/// What is seen of a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The host that it is for, where it says one.
    pub(crate) name: Option<Host>,
    /// It has Encrypted Client Hello, so that it may be for another one.
    pub(crate) hides: bool,
}

/// Looks at the first bytes of a client.
pub(crate) fn read(bytes: &[u8]) -> Greeting {
    match bytes.first() {
        None => Greeting::Unfinished,
        Some(&HANDSHAKE) => tls(bytes).unwrap_or(if bytes.len() < BYTES_MAX {
            Greeting::Unfinished
        } else {
            Greeting::Bad
        }),
        Some(&ALERT) => alert(bytes),
        Some(first) if is_token(*first) || is_end(*first) => clear(bytes),
        Some(_) => Greeting::Other,
    }
}

/// Many servers pass over a warning that stands before a greeting, some whatever its version is below 16.0; no client
/// begins with one, and nobody would look for a name behind it.
fn alert(bytes: &[u8]) -> Greeting {
    match bytes {
        [_, 16..=255, ..] | [_, _, _, 1..=255, ..] => Greeting::Other,
        [_, _, _, 0, ..] => Greeting::Bad,
        _ => Greeting::Unfinished,
    }
}

/// Whether these bytes, of which nobody can say yet what they are, can be passed on: no line has ended, so that no
/// server can have read a request.
pub(crate) fn says_nothing_yet(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| is_token(*first)) && !bytes.iter().any(|byte| is_end(*byte))
}

/// The type of a TLS record that carries a handshake.
const HANDSHAKE: u8 = 22;

/// The type of a TLS record that carries an alert.
const ALERT: u8 = 21;

/// `None`: it goes on.
fn tls(bytes: &[u8]) -> Option<Greeting> {
    // A greeting may be divided over records, and is by those who want to hide it.
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some(hello) = whole(&message) {
            return Some(hello.map_or(Greeting::Bad, |hello| {
                seen(hello).map_or(Greeting::Bad, Greeting::Tls)
            }));
        }
        let (head, after) = rest.split_first_chunk::<5>()?;
        let [kind, major, _, high, low] = *head;
        let len = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || len == 0 || len > 1 << 14 {
            return Some(Greeting::Bad);
        }
        let (piece, after) = after.split_at_checked(len)?;
        message.extend_from_slice(piece);
        rest = after;
    }
}

/// The ClientHello, if it is whole; the inner `None` is a message of another kind.
fn whole(message: &[u8]) -> Option<Option<&[u8]>> {
    let (head, body) = message.split_first_chunk::<4>()?;
    let [kind, high, middle, low] = *head;
    if kind != 1 {
        return Some(None);
    }
    let len = usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?;
    if len > BYTES_MAX {
        return Some(None);
    }
    Some(Some(body.get(..len)?))
}

/// Bytes that are taken off the front.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// What has its length before it, in so many bytes.
    fn list(&mut self, width: usize) -> Option<Cursor<'b>> {
        let len = self.take(width)?;
        let len = len
            .iter()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        self.take(len).map(Cursor)
    }

    fn number(&mut self) -> Option<u16> {
        let (two, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*two))
    }
}

/// The extension `server_name`, RFC 6066 section 3.
const SERVER_NAME: u16 = 0;

/// The extension `encrypted_client_hello`, RFC 9849 section 5.
const ENCRYPTED_HELLO: u16 = 0xfe0d;

/// What a ClientHello shows; `None` is one that cannot be read.
fn seen(hello: &[u8]) -> Option<Hello> {
    let mut hello = Cursor(hello);
    // The version, and what is random.
    hello.take(34)?;
    hello.list(1)?;
    hello.list(2)?;
    hello.list(1)?;
    let (mut found, mut hides) = (None, false);
    let mut extensions = if hello.0.is_empty() {
        Cursor(&[])
    } else {
        hello.list(2)?
    };
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let mut body = extensions.list(2)?;
        // Whatever is in it: servers may read it more patiently than anybody here, and no honest client sends in
        // clear the form that is meant for the inside.
        hides |= kind == ENCRYPTED_HELLO;
        if kind != SERVER_NAME {
            continue;
        }
        let mut names = body.list(2)?;
        let is_host = names.take(1)? == [0];
        let text = std::str::from_utf8(names.list(2)?.0).ok()?;
        // A second name, or a second list, is for another reader.
        if !is_host || !names.0.is_empty() || !body.0.is_empty() || found.is_some() {
            return None;
        }
        found = Some(Host::parse(text).ok()?);
    }
    Some(Hello { name: found, hides })
}

/// Bytes of a method: the longest that anybody registered has 17.
const METHOD_MAX: usize = 32;

/// A request in clear, read as the most patient server reads it: any token is a method, empty lines before it are passed
/// over (RFC 9112 section 2.2), lines may end in a line feed alone. What is no request is something else, whatever
/// letter it begins with.
fn clear(bytes: &[u8]) -> Greeting {
    let unfinished = if bytes.len() < HEAD_MAX {
        Greeting::Unfinished
    } else {
        Greeting::Bad
    };
    let begin = bytes.iter().position(|byte| !is_end(*byte));
    let Some(bytes) = begin.and_then(|begin| bytes.get(begin..)) else {
        return unfinished;
    };
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let method = bytes.iter().position(|byte| !is_token(*byte));
    let is_request = method.is_some_and(|end| {
        (1..METHOD_MAX).contains(&end) && matches!(bytes.get(end), Some(b' ' | b'\t'))
    });
    if method.is_none() && bytes.len() < METHOD_MAX {
        return unfinished;
    }
    let is_whole = line.len() < bytes.len();
    // No line of a request has such a byte, and other protocols have one soon.
    let is_binary = line.contains(&0);
    if !is_request || is_binary || (is_whole && !contains(line, b"HTTP/1.")) {
        return Greeting::Other;
    }
    head(bytes).map_or(unfinished, named)
}

/// A head to its empty line, which is not part of it.
fn head(bytes: &[u8]) -> Option<&[u8]> {
    let ends = |at: &usize| {
        let rest = bytes.get(*at..).unwrap_or_default();
        rest.starts_with(b"\n\n") || rest.starts_with(b"\n\r\n")
    };
    let end = (0..bytes.len()).find(ends)?;
    bytes.get(..end)
}

/// The one host of a head. What two servers would read differently names two.
fn named(head: &[u8]) -> Greeting {
    let is_folded = contains(head, b"\n ") || contains(head, b"\n\t");
    let bare = |two: &[u8]| matches!(two, [b'\r', after] if *after != b'\n');
    if is_folded || head.windows(2).any(bare) {
        return Greeting::Bad;
    }
    let mut hosts = head
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(host_field);
    match (hosts.next(), hosts.next()) {
        (Some(Some(host)), None) => Greeting::Clear(host),
        _ => Greeting::Bad,
    }
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|some| some == words)
}

/// The host of a Host field; the outer `None` is another field. Space before the colon is for some servers none.
fn host_field(line: &[u8]) -> Option<Option<Host>> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    if !name.trim_ascii().eq_ignore_ascii_case(b"host") {
        return None;
    }
    let value = value.strip_prefix(b":").unwrap_or_default();
    let value = std::str::from_utf8(value).unwrap_or_default().trim();
    let host = match value.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => value,
    };
    Some(Host::parse(host).ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(width: usize, bytes: &[u8]) -> Vec<u8> {
        let len = bytes.len().to_be_bytes();
        [&len[len.len() - width..], bytes].concat()
    }

    /// A ClientHello with these extensions, in records of so many bytes.
    fn hello(extensions: &[(u16, Vec<u8>)], record: usize) -> Vec<u8> {
        let all: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &list(2, body)].concat())
            .collect();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &list(1, &[1; 32]),
            &list(2, &[0x13, 1]),
            &list(1, &[0]),
            &list(2, &all),
        ]
        .concat();
        let message = [&[1][..], &list(3, &body)].concat();
        let records = message.chunks(record);
        records
            .flat_map(|piece| [&[22, 3, 1][..], &list(2, piece)].concat())
            .collect()
    }

    fn names(names: &[&str]) -> Vec<u8> {
        let all: Vec<u8> = names
            .iter()
            .flat_map(|name| [&[0][..], &list(2, name.as_bytes())].concat())
            .collect();
        list(2, &all)
    }

    fn said(name: &str) -> Greeting {
        Greeting::Tls(Hello {
            name: Some(Host::parse(name).unwrap()),
            hides: false,
        })
    }

    #[test]
    fn the_name_of_a_greeting_is_found_however_it_is_divided() {
        let other = (51, vec![9; 1200]);
        for record in [1, 7, 100, 16_000] {
            let bytes = hello(&[other.clone(), (0, names(&["A.example"]))], record);
            assert_eq!(read(&bytes), said("a.example"), "{record}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Greeting::Unfinished, "{cut}");
            }
            let with_more = [&bytes[..], b"more"].concat();
            assert_eq!(read(&with_more), said("a.example"));
        }
        let nameless = |hides| Greeting::Tls(Hello { name: None, hides });
        let sealed = [other.clone(), (ENCRYPTED_HELLO, vec![0])];
        assert_eq!(read(&hello(&sealed, 1000)), nameless(true));
        assert_eq!(read(&hello(&[other], 1000)), nameless(false));
    }

    /// Attack: a warning of TLS before the greeting, which servers pass over, so that nobody looks at the name behind it.
    #[test]
    fn an_alert_before_a_greeting_is_refused() {
        let warning = [21, 3, 1, 0, 2, 1, 90];
        let behind = hello(&[(0, names(&["a.example"]))], 16_000);
        let all = [&warning[..], &behind].concat();
        for len in 1..4 {
            assert_eq!(read(&all[..len]), Greeting::Unfinished, "{len}");
        }
        for len in 4..=all.len() {
            assert_eq!(read(&all[..len]), Greeting::Bad, "{len}");
        }
        // Go takes any version below 16.0.
        assert_eq!(read(&[21, 0, 0, 0, 2, 1, 90]), Greeting::Bad);
        assert_eq!(read(&[21, 80, 0, 0, 2]), Greeting::Other);
    }

    /// The outer form, section 5: a suite, the number of a key, and what is sealed.
    fn sealed() -> (u16, Vec<u8>) {
        let body = [
            &[0, 0, 1, 0, 1, 7][..],
            &list(2, &[5; 32]),
            &list(2, &[9; 150]),
        ]
        .concat();
        (ENCRYPTED_HELLO, body)
    }

    #[test]
    fn a_greeting_that_may_hide_a_name_is_known_wherever_it_has_that_and_however_it_is_divided() {
        let name = || (0, names(&["a.example"]));
        let other = || (51, vec![9; 1200]);
        for extensions in [
            vec![name(), sealed()],
            vec![sealed(), name()],
            vec![other(), name(), other(), sealed()],
            vec![sealed(), name(), sealed()],
            // The form for the inside, one of no form, and none.
            vec![name(), (ENCRYPTED_HELLO, vec![1])],
            vec![name(), (ENCRYPTED_HELLO, vec![9, 9])],
            vec![name(), (ENCRYPTED_HELLO, Vec::new())],
        ] {
            for record in [1, 7, 100, 16_000] {
                let bytes = hello(&extensions, record);
                let expect = Greeting::Tls(Hello {
                    name: Host::parse("a.example").ok(),
                    hides: true,
                });
                assert_eq!(read(&bytes), expect, "{extensions:?}");
                // Until all of it is there nothing is said, and nothing of it is passed on.
                for cut in 0..bytes.len() {
                    assert_eq!(read(&bytes[..cut]), Greeting::Unfinished, "{cut}");
                }
            }
        }
        // Its number inside of another extension is none.
        let within = hello(&[name(), (51, vec![0xfe, 0x0d, 0, 0])], 1000);
        assert_eq!(read(&within), said("a.example"));
        // Cut off within it, and said to be whole.
        let whole = hello(&[name(), sealed()], 16_000);
        let len = u16::try_from(whole.len() - 20).unwrap();
        let mut cut = whole[..usize::from(len)].to_vec();
        cut[3..5].copy_from_slice(&(len - 5).to_be_bytes());
        cut[7..9].copy_from_slice(&(len - 9).to_be_bytes());
        assert_eq!(read(&cut), Greeting::Bad);
    }

    #[test]
    fn a_greeting_with_two_names_or_none_that_can_be_read_is_refused() {
        for extensions in [
            vec![(0, names(&["a.example", "b.example"]))],
            vec![(0, names(&["a.example"])), (0, names(&["b.example"]))],
            vec![(0, names(&["a.example\0.b.example"]))],
            vec![(0, names(&[""]))],
            vec![(0, vec![0, 200, 0])],
            vec![(0, [&names(&["a.example"])[..], &[0]].concat())],
        ] {
            assert_eq!(
                read(&hello(&extensions, 1000)),
                Greeting::Bad,
                "{extensions:?}"
            );
        }
        assert_eq!(read(&[22, 2, 0, 0, 1, 1]), Greeting::Bad);
        assert_eq!(read(&[22, 3, 1, 0, 0]), Greeting::Bad);
        assert_eq!(read(&[22, 3, 1, 255, 255]), Greeting::Bad);
        assert_eq!(read(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Greeting::Bad);
        // One that never comes to its end.
        let endless = [
            &[22, 3, 1, 0, 5, 1, 0, 127, 0, 0][..],
            &[22, 3, 1, 0, 1, 0].repeat(6000),
        ]
        .concat();
        assert_eq!(read(&endless), Greeting::Bad);
    }

    #[test]
    fn a_request_in_clear_names_its_host() {
        let clear = |host: &str| Greeting::Clear(Host::parse(host).unwrap());
        for (text, expect) in [
            (
                "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n",
                clear("a.example"),
            ),
            (
                "GET / HTTP/1.1\r\nx: y\r\nHOST:A.example:80\r\n\r\nbody",
                clear("a.example"),
            ),
            ("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", clear("[::1]")),
            ("GET / HTTP/1.1\r\n\r\n", Greeting::Bad),
            (
                "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
                Greeting::Bad,
            ),
            ("GET / HTTP/1.1\r\nhost: a.ex", Greeting::Unfinished),
            ("GE", Greeting::Unfinished),
            ("\r\n\nGET / HTTP/1.1\nhost: a.ex\n\n", clear("a.ex")),
            ("\r\n", Greeting::Unfinished),
            ("get\t/\tHTTP/1.1\r\nHost : a.ex\n\r\n", clear("a.ex")),
            (
                "GET / HTTP/1.1\r\nx: y\rhost: b\r\nhost: a\r\n\r\n",
                Greeting::Bad,
            ),
            (
                "GET / HTTP/1.1\r\n host: b\r\nhost: a\r\n\r\n",
                Greeting::Bad,
            ),
            (
                "003egit-upload-pack /a.git\0host=a.example\0",
                Greeting::Other,
            ),
            ("*1\r\n$4\r\nPING\r\n", Greeting::Other),
            ("SSH-2.0-OpenSSH_9.2\r\n", Greeting::Other),
            ("EHLO a.example\r\n", Greeting::Other),
            ("\u{5}binary", Greeting::Other),
            ("", Greeting::Unfinished),
        ] {
            assert_eq!(read(text.as_bytes()), expect, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_wait_for_ever(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), first in proptest::option::of(Just(22_u8))) {
            if let Some(first) = first {
                bytes.insert(0, first);
                bytes.splice(1..1, [3, 1]);
            }
            drop(read(&bytes));
            bytes.resize(BYTES_MAX, 0);
            prop_assert_ne!(read(&bytes), Greeting::Unfinished);
        }
    }
}
