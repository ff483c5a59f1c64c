//! What an operator opens although it is closed in every mode: `ADDRESS[/BITS][:PORT]`.

use crate::address::{Class, classify};
use crate::block::{Block, digits};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses, at one port or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    block: Block,
    port: Option<u16>,
}

/// Why text is no exception.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read `{0}` as ADDRESS[/BITS][:PORT], with an IPv6 address before a port in brackets")]
pub struct BadException(String);

/// Before a number in the facts that a node says about itself; the fact is one of its exceptions.
pub const FACT: &str = "egress_allow:";

/// How many of them a node says. With more than that, what it opens is not all known to whoever asks.
pub const FACTS_MAX: usize = 64;

impl Exception {
    /// Whether this opens `port` at `address`. Where clouds keep credentials is opened only by its own
    /// address: a wide block was hardly meant to hold it.
    pub fn opens(&self, address: IpAddr, port: u16) -> bool {
        self.port.is_none_or(|only| only == port) && self.opens_at_some_port(address)
    }

    /// The same at any port.
    pub fn opens_at_some_port(&self, address: IpAddr) -> bool {
        let exact = self.block.is_one() || classify(address) != Class::Metadata;
        exact && self.block.has(address)
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
        Some(port) => Some(
            digits(port)
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n > 0)?,
        ),
        None => None,
    };
    let block = net.parse().ok()?;
    Some(Exception { block, port })
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

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.block.is_ipv6() => write!(f, "[{}]:{port}", self.block),
            Some(port) => write!(f, "{}:{port}", self.block),
            None => write!(f, "{}", self.block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_an_address_or_a_block_and_perhaps_a_port() {
        for (text, expect) in [
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("10.1.0.0/16", Some("10.1.0.0/16")),
            ("10.1.0.0/16:443", Some("10.1.0.0/16:443")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::1", Some("::1")),
            ("[::1]:80", Some("[::1]:80")),
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
