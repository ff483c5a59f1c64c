//! What an operator opens although it is closed in every mode: `ADDRESS[/BITS][:PORT]`.

use crate::address::{Class, canonical, classify, within};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses, at one port or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    block: IpAddr,
    bits: u32,
    port: Option<u16>,
}

/// Why text is no exception.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read `{0}` as ADDRESS[/BITS][:PORT], with an IPv6 address before a port in brackets")]
pub struct BadException(String);

impl Exception {
    /// Whether this opens `port` at `address`. Where clouds keep credentials is opened only by its own
    /// address: a wide block was hardly meant to hold it.
    pub fn opens(&self, address: IpAddr, port: u16) -> bool {
        let address = canonical(address);
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let exact = self.bits == whole || classify(address) != Class::Metadata;
        exact && self.port.is_none_or(|only| only == port) && within(address, self.block, self.bits)
    }
}

impl FromStr for Exception {
    type Err = BadException;

    fn from_str(text: &str) -> Result<Exception, BadException> {
        parse(text).ok_or_else(|| BadException(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Exception> {
    let (net, port) = split_port(text)?;
    let port = match port {
        Some(digits) => Some(
            number(digits)
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n > 0)?,
        ),
        None => None,
    };
    let (address, bits) = match net.split_once('/') {
        Some((address, bits)) => (address, Some(number(bits)?)),
        None => (net, None),
    };
    let address: IpAddr = address.parse().ok()?;
    // Somebody who writes a mapped block means IPv4, and has to say so.
    if canonical(address) != address {
        return None;
    }
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(whole);
    let block = masked(address, bits);
    (bits <= whole && block == address).then_some(Exception { block, bits, port })
}

/// Divides `[v6]:port`, `v4:port`, or one without a port.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (net, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((net, Some(port))),
            None => rest.is_empty().then_some((net, None)),
        };
    }
    match text.split_once(':') {
        Some((net, port)) if !port.contains(':') => Some((net, Some(port))),
        _ => Some((text, None)),
    }
}

/// Digits and nothing else; Rust's own parser takes a plus, too.
fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The first address of the block. A block that is not written by it is a mistake of somebody's.
fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.block, self.port) {
            (block @ IpAddr::V6(_), Some(port)) => write!(f, "[{block}/{}]:{port}", self.bits),
            (block, Some(port)) => write!(f, "{block}/{}:{port}", self.bits),
            (block, None) => write!(f, "{block}/{}", self.bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_an_address_or_a_block_and_perhaps_a_port() {
        for (text, expect) in [
            ("127.0.0.1", Some("127.0.0.1/32")),
            ("127.0.0.1:8080", Some("127.0.0.1/32:8080")),
            ("10.1.0.0/16", Some("10.1.0.0/16")),
            ("10.1.0.0/16:443", Some("10.1.0.0/16:443")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::1", Some("::1/128")),
            ("[::1]:80", Some("[::1/128]:80")),
            ("[fd00::/8]:443", Some("[fd00::/8]:443")),
            ("[fd00::/8]", Some("fd00::/8")),
            ("fd00::/8", Some("fd00::/8")),
            ("10.1.2.3/16", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/+8", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:65536", None),
            ("127.0.0.1:", None),
            ("127.1", None),
            ("localhost", None),
            ("::ffff:127.0.0.1", None),
            ("[::1]80", None),
            ("[::1", None),
            ("", None),
        ] {
            let read = text.parse::<Exception>().ok();
            assert_eq!(read.map(|one| one.to_string()).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn it_opens_what_it_names_and_nothing_else() {
        let opens = |exception: &str, address: &str, port| {
            let exception: Exception = exception.parse().unwrap();
            exception.opens(address.parse().unwrap(), port)
        };
        assert!(opens("127.0.0.1:80", "127.0.0.1", 80));
        assert!(opens("127.0.0.1:80", "::ffff:127.0.0.1", 80));
        assert!(!opens("127.0.0.1:80", "127.0.0.1", 81));
        assert!(!opens("127.0.0.1:80", "127.0.0.2", 80));
        assert!(!opens("127.0.0.1:80", "::1", 80));
        assert!(opens("10.0.0.0/8", "10.255.0.1", 1));
        assert!(!opens("10.0.0.0/8", "11.0.0.1", 1));
        assert!(opens("169.254.0.0/16", "169.254.1.1", 80));
        assert!(!opens("169.254.0.0/16", "169.254.169.254", 80));
        assert!(opens("169.254.169.254", "169.254.169.254", 80));
        assert!(!opens("0.0.0.0/0", "::1", 80));
    }
}
