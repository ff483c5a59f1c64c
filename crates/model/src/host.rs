//! The one form in which a host is compared, resolved and recorded.
//!
//! Every other way to write it is either brought into that form or refused, once, here. What a resolver or a
//! kernel would read differently than a rule does is how filters were passed: a NUL byte, a trailing dot,
//! `0x7f.1`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name in bytes, RFC 1035 section 3.1, without its final dot.
pub const NAME_MAX: usize = 253;

/// The longest label of a name in bytes, RFC 1035 section 2.3.4.
const LABEL_MAX: usize = 63;

/// A host that somebody wants to reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name: lower case, ASCII (`xn--` for others), without a final dot; its last label is no number.
    Name(String),
    /// An address, IPv4 where it is one in disguise.
    Address(IpAddr),
}

/// Why text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadHost {
    /// A byte that no name has; or an empty or overlong part.
    #[error("read the name of a host")]
    Malformed,
    /// A sign outside of ASCII that has more than one form.
    #[error("read a name that is not in ASCII; its `xn--` form is understood")]
    NotAscii,
    /// A number that some would read as an IPv4 address.
    #[error("read an IPv4 address that is not four decimal numbers")]
    OddAddress,
}

impl Host {
    /// Reads a host as it stands in an authority: a name, an IPv4 address, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`BadHost`] for everything that does not have exactly one meaning.
    pub fn parse(text: &str) -> Result<Host, BadHost> {
        if let Some(rest) = text.strip_prefix('[') {
            let inner = rest.strip_suffix(']').ok_or(BadHost::Malformed)?;
            // A zone names an interface of ours; the parser knows none.
            let address: Ipv6Addr = inner.parse().map_err(|_| BadHost::Malformed)?;
            return Ok(Host::of_address(IpAddr::V6(address)));
        }
        if !text.is_ascii() {
            // What is a number only after it was translated is none to whoever wrote it.
            return match Host::parse(&in_ascii(text)?)? {
                name @ Host::Name(_) => Ok(name),
                Host::Address(_) => Err(BadHost::OddAddress),
            };
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > NAME_MAX {
            return Err(BadHost::Malformed);
        }
        let name = text.to_ascii_lowercase();
        if !name.split('.').all(is_label) {
            return Err(BadHost::Malformed);
        }
        if ends_in_a_number(&name) {
            let address: Ipv4Addr = name.parse().map_err(|_| BadHost::OddAddress)?;
            return Ok(Host::of_address(IpAddr::V4(address)));
        }
        Ok(Host::Name(name))
    }

    /// An address in its one form.
    pub fn of_address(address: IpAddr) -> Host {
        Host::Address(address.to_canonical())
    }
}

/// The `xn--` form of a name. Only letters that are their own lower case or have a lower case of one letter, and
/// that no normalisation would change, are taken: marks that combine, digits of other scripts, full-width forms
/// and other dots have more than one reading, and two readers would disagree about them (UTS #46).
fn in_ascii(text: &str) -> Result<String, BadHost> {
    if text.len() > 4 * NAME_MAX {
        return Err(BadHost::Malformed);
    }
    let labels = text.split('.').map(|label| {
        if label.is_ascii() {
            return Ok(label.to_owned());
        }
        let small: Vec<char> = label.chars().flat_map(char::to_lowercase).collect();
        if small.len() > LABEL_MAX || !small.iter().all(|letter| is_plain(*letter)) {
            return Err(BadHost::NotAscii);
        }
        punycode(&small)
            .map(|code| format!("xn--{code}"))
            .ok_or(BadHost::NotAscii)
    });
    Ok(labels.collect::<Result<Vec<_>, _>>()?.join("."))
}

/// Whether a letter has one form only. Compatibility forms live in these blocks of Unicode.
fn is_plain(letter: char) -> bool {
    let is_compatible = matches!(letter,
        '\u{0130}' | '\u{017f}' | '\u{1e9e}' | '\u{2000}'..='\u{2bff}' | '\u{3200}'..='\u{33ff}'
        | '\u{a700}'..='\u{a7ff}' | '\u{f900}'..='\u{fdff}' | '\u{fe00}'..='\u{ffff}'
        | '\u{10000}'..='\u{10ffff}');
    letter.is_ascii_digit() || letter == '-' || (letter.is_alphabetic() && !is_compatible)
}

/// RFC 3492 section 6.3, without the prefix. `None` where its numbers run over.
fn punycode(label: &[char]) -> Option<String> {
    let basic: String = label.iter().filter(|letter| letter.is_ascii()).collect();
    let mut done = u32::try_from(basic.len()).ok()?;
    let total = u32::try_from(label.len()).ok()?;
    let (mut code, first) = (basic, done);
    if first > 0 {
        code.push('-');
    }
    let (mut least, mut delta, mut bias) = (0x80_u32, 0_u32, 72_u32);
    while done < total {
        let above = label.iter().map(|letter| u32::from(*letter));
        let next = above.filter(|point| *point >= least).min()?;
        delta = delta.checked_add((next - least).checked_mul(done + 1)?)?;
        least = next;
        for point in label.iter().map(|letter| u32::from(*letter)) {
            if point < least {
                delta = delta.checked_add(1)?;
            }
            if point == least {
                variable(delta, bias, &mut code)?;
                bias = adapted(delta, done + 1, done == first);
                delta = 0;
                done += 1;
            }
        }
        delta = delta.checked_add(1)?;
        least = least.checked_add(1)?;
    }
    Some(code)
}

/// A number in digits of a variable base, RFC 3492 section 3.3.
fn variable(mut rest: u32, bias: u32, code: &mut String) -> Option<()> {
    let digit = |value: u32| char::from_digit(value, 36).map(letter_first);
    let mut k = 36_u32;
    loop {
        let t = k.saturating_sub(bias).clamp(1, 26);
        if rest < t {
            code.push(digit(rest)?);
            return Some(());
        }
        code.push(digit(t + (rest - t) % (36 - t))?);
        rest = (rest - t) / (36 - t);
        k += 36;
    }
}

/// RFC 3492 counts from `a`, where others count from `0`.
fn letter_first(digit: char) -> char {
    let value = digit.to_digit(36).unwrap_or(0);
    let (base, offset) = if value < 26 {
        (b'a', value)
    } else {
        (b'0', value - 26)
    };
    char::from(base.saturating_add(u8::try_from(offset).unwrap_or(0)))
}

/// RFC 3492 section 6.1.
fn adapted(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

/// Letters, digits, dashes, and the underscore that many names have in spite of RFC 952.
fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| plain(byte) || byte == b'-' || byte == b'_';
    !label.is_empty() && label.len() <= LABEL_MAX && label.bytes().all(inner)
}

/// Whether `inet_aton(3)` might take it for an address: the last part is decimal, octal or hexadecimal. No
/// top-level domain is a number (RFC 3696 section 2), so this refuses no name.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x");
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        match Host::parse(text) {
            Ok(host @ Host::Name(_)) => format!("name {host}"),
            Ok(host @ Host::Address(_)) => format!("address {host}"),
            Err(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn a_host_has_one_form_or_is_refused() {
        for (text, expect) in [
            ("Example.COM", "name example.com"),
            ("example.com.", "name example.com"),
            ("xn--bcher-kva.example", "name xn--bcher-kva.example"),
            ("a_b.example", "name a_b.example"),
            ("localhost", "name localhost"),
            ("1.2.3.4", "address 1.2.3.4"),
            ("1.2.3.4.", "address 1.2.3.4"),
            ("[::1]", "address [::1]"),
            ("[0:0:0:0:0:0:0:1]", "address [::1]"),
            ("[::ffff:127.0.0.1]", "address 127.0.0.1"),
            ("[::FFFF:7f00:1]", "address 127.0.0.1"),
            ("", "Malformed"),
            (".", "Malformed"),
            ("..", "Malformed"),
            ("example.com..", "Malformed"),
            (".example.com", "Malformed"),
            ("a..b", "Malformed"),
            ("exa mple.com", "Malformed"),
            ("example.com\0.evil.example", "Malformed"),
            ("example.com\r\nx", "Malformed"),
            ("example.com%00", "Malformed"),
            ("user@example.com", "Malformed"),
            ("example.com:80", "Malformed"),
            ("example.com/x", "Malformed"),
            ("::1", "Malformed"),
            ("[::1", "Malformed"),
            ("[::1%lo]", "Malformed"),
            ("[fe80::1%251]", "Malformed"),
            ("[127.0.0.1]", "Malformed"),
            ("bücher.example", "name xn--bcher-kva.example"),
            ("BÜCHER.example.", "name xn--bcher-kva.example"),
            ("münchen.de", "name xn--mnchen-3ya.de"),
            ("中国", "name xn--fiqs8s"),
            ("почта.рф", "name xn--80a1acny.xn--p1ai"),
            ("straße.de", "name xn--strae-oqa.de"),
            // The same letter as a letter and a mark that combines.
            ("bu\u{308}cher.example", "NotAscii"),
            ("ｅxample.com", "NotAscii"),
            ("ex\u{200d}ample.com", "NotAscii"),
            ("bücher\0.example", "NotAscii"),
            // A dot of another script, which IDNA takes for a dot.
            ("127。0。0。1", "NotAscii"),
            ("①27.0.0.1", "NotAscii"),
            ("127.1", "OddAddress"),
            ("0x7f.1", "OddAddress"),
            ("0x7f000001", "OddAddress"),
            ("2130706433", "OddAddress"),
            ("0177.0.0.1", "OddAddress"),
            ("127.0.0.01", "OddAddress"),
            ("127.0.0.0x1", "OddAddress"),
            ("1.2.3.4.5", "OddAddress"),
            ("256.1.1.1", "OddAddress"),
            ("example.0x", "OddAddress"),
            ("0X7F.1", "OddAddress"),
        ] {
            assert_eq!(read(text), expect, "{text:?}");
        }
        assert_eq!(read(&"a".repeat(64)), "Malformed");
        assert_eq!(
            read(&["a"; 127].join(".")),
            format!("name {}", ["a"; 127].join("."))
        );
        assert_eq!(read(&["a"; 128].join(".")), "Malformed");
    }

    proptest! {
        #[test]
        fn reading_is_settled_after_once(text in ".{0,40}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
        }

        #[test]
        fn no_byte_of_control_is_in_a_name(text in "[ -~\\x00-\\x1f\\x7f]{0,20}") {
            if let Ok(Host::Name(name)) = Host::parse(&text) {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn every_number_is_an_address_in_four_parts_or_refused(text in "(0x[0-9a-f]{0,9}|0?[0-9]{1,11})(\\.(0x[0-9a-f]{1,4}|0?[0-9]{1,4})){0,4}\\.?") {
            match Host::parse(&text) {
                Ok(Host::Address(IpAddr::V4(address))) => {
                    prop_assert_eq!(text.trim_end_matches('.'), address.to_string());
                }
                Ok(other) => prop_assert!(false, "{text} was taken for {other}"),
                Err(_) => {}
            }
        }
    }
}
