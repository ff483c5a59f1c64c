//! Questions and answers of DNS on the wire (RFC 1035). Pure. One question of class IN with a name of its own is
//! read; a name that is written as a pointer to another is no question, so there is nothing to follow.

use guest::direct::TTL_S;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The head of every message in bytes.
const HEAD: usize = 12;

/// Kinds of records, by IANA's list.
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

/// The class of the internet.
const IN: u16 = 1;

/// How an answer ends, RFC 1035 section 4.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Fine = 0,
    Malformed = 1,
    Failed = 2,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Its address of IPv4.
    Address,
    /// Its address of IPv6, if it has one.
    Address6,
    /// Whether it is there, with nothing to say beyond that about how to reach it.
    Nothing,
}

/// The addresses of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Each name has one, because what is dialled for it is another matter.
    pub(super) address: Ipv4Addr,
    /// Where the name has one outside: programs that look for what a host speaks should see it.
    pub(super) address6: Option<Ipv6Addr>,
}

/// A question whose answer depends on its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'q> {
    head: Head<'q>,
    /// In lower case, without a final dot.
    pub(super) name: String,
    pub(super) wanted: Wanted,
}

/// What an answer repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head<'q> {
    id: [u8; 2],
    recursion: bool,
    /// As it was written, or nothing if it could not be read.
    question: &'q [u8],
}

/// Reads a question. What has its answer without anybody being asked has it here; `None` is answered with nothing.
pub(super) fn read(bytes: &[u8]) -> Result<Question<'_>, Option<Vec<u8>>> {
    let [id @ .., _, _] = *bytes.first_chunk::<4>().ok_or(None)?;
    let [flags, _] = *bytes.get(2..).and_then(<[u8]>::first_chunk).ok_or(None)?;
    // An answer is not answered: two who answer each other never end.
    if bytes.len() < HEAD || flags & 0x80 != 0 {
        return Err(None);
    }
    let mut head = Head {
        id,
        recursion: flags & 0x01 != 0,
        question: &[],
    };
    if flags & 0x78 != 0 {
        return Err(Some(head.answer(Code::NotImplemented, None)));
    }
    let malformed = || Some(head.answer(Code::Malformed, None));
    // One question, no answers, no authorities. What is added, such as EDNS, is not looked at.
    if bytes.get(4..10) != Some(&[0, 1, 0, 0, 0, 0]) {
        return Err(malformed());
    }
    let rest = bytes.get(HEAD..).unwrap_or_default();
    let (name, length) = name(rest).ok_or_else(malformed)?;
    let tail = rest.get(length..).and_then(<[u8]>::first_chunk::<4>);
    let [kind_high, kind_low, class_high, class_low] = *tail.ok_or_else(malformed)?;
    let kind = u16::from_be_bytes([kind_high, kind_low]);
    head.question = rest.get(..length + 4).unwrap_or_default();
    let wanted = match (kind, name) {
        _ if u16::from_be_bytes([class_high, class_low]) != IN => Err(Code::Refused),
        (A, Some(name)) => Ok((Wanted::Address, name)),
        (AAAA, Some(name)) => Ok((Wanted::Address6, name)),
        (SVCB | HTTPS, Some(name)) => Ok((Wanted::Nothing, name)),
        // No address has a name here, and a name that no host has is nobody's.
        (PTR, _) | (A | AAAA | SVCB | HTTPS, None) => Err(Code::NoSuchName),
        _ => Err(Code::NotImplemented),
    };
    match wanted {
        Ok((wanted, name)) => Ok(Question { head, name, wanted }),
        Err(code) => Err(Some(head.answer(code, None))),
    }
}

/// A name and its length on the wire. It is `None` inside where no host can have it: the root, or a byte that is
/// neither letter, digit, `-` nor `_`.
fn name(bytes: &[u8]) -> Option<(Option<String>, usize)> {
    const NAME_MAX: usize = 255;
    let (mut text, mut at, mut fits) = (String::new(), 0, true);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            let name = (fits && !text.is_empty()).then_some(text);
            return Some((name, at));
        }
        // From 64 on it is a pointer, or something that nobody uses any more.
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if at >= NAME_MAX {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            fits &= byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
}

impl Question<'_> {
    /// The answer, with an address if it is asked for.
    pub(super) fn answer(&self, found: Result<Found, Code>) -> Vec<u8> {
        let found = match found {
            Ok(found) => found,
            Err(code) => return self.head.answer(code, None),
        };
        let address = found.address.octets();
        let address6 = found.address6.map(|address| address.octets());
        let record = match self.wanted {
            Wanted::Address => Some((A, &address[..])),
            Wanted::Address6 => address6.as_ref().map(|address| (AAAA, &address[..])),
            Wanted::Nothing => None,
        };
        self.head.answer(Code::Fine, record)
    }
}

impl Head<'_> {
    fn answer(&self, code: Code, record: Option<(u16, &[u8])>) -> Vec<u8> {
        // An answer; recursion as it was desired, and available.
        let flags = [0x80 | u8::from(self.recursion), 0x80 | code as u8];
        let counts = [
            0,
            u8::from(!self.question.is_empty()),
            0,
            u8::from(record.is_some()),
            0,
            0,
            0,
            0,
        ];
        let mut bytes = [&self.id[..], &flags, &counts, self.question].concat();
        if let Some((kind, address)) = record {
            // The name of the question, by a pointer to it.
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend(IN.to_be_bytes());
            bytes.extend(TTL_S.to_be_bytes());
            // Not more than 16.
            bytes.extend(u16::try_from(address.len()).unwrap_or(0).to_be_bytes());
            bytes.extend(address);
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
