//! Servers that the names of a sandbox are resolved by, in the place of the node's own.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The port of DNS, RFC 1035.
const PORT: u16 = 53;

/// A server of DNS: `ADDRESS`, or `ADDRESS:PORT` with an IPv6 address in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DnsServer(SocketAddr);

/// Why text is no such server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read ADDRESS[:PORT]")]
pub struct BadDnsServer;

impl DnsServer {
    /// Where it is.
    pub fn at(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for DnsServer {
    type Err = BadDnsServer;

    fn from_str(text: &str) -> Result<DnsServer, BadDnsServer> {
        let alone = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let alone: Option<IpAddr> = alone.unwrap_or(text).parse().ok();
        let at = match alone {
            Some(address) => SocketAddr::new(address, PORT),
            None => text.parse().map_err(|_| BadDnsServer)?,
        };
        // An address with a zone (RFC 4007) is one of the node's own wire.
        let has_zone = matches!(at, SocketAddr::V6(at) if at.scope_id() != 0);
        if at.port() == 0 || has_zone {
            return Err(BadDnsServer);
        }
        Ok(DnsServer(SocketAddr::new(at.ip(), at.port())))
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            PORT => write!(f, "{}", self.0.ip()),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl From<DnsServer> for String {
    fn from(server: DnsServer) -> String {
        server.to_string()
    }
}

impl TryFrom<String> for DnsServer {
    type Error = BadDnsServer;

    fn try_from(text: String) -> Result<DnsServer, BadDnsServer> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_and_perhaps_a_port() {
        for (text, expect) in [
            ("1.1.1.1", Some("1.1.1.1")),
            ("10.0.0.2:53", Some("10.0.0.2")),
            ("10.0.0.2:5353", Some("10.0.0.2:5353")),
            ("2606:4700::1111", Some("2606:4700::1111")),
            ("[2606:4700::1111]", Some("2606:4700::1111")),
            ("[2606:4700::1111]:5353", Some("[2606:4700::1111]:5353")),
            ("dns.example", None),
            ("1.1.1.1:0", None),
            ("1.1.1.0/24", None),
            ("0x1.1.1.1", None),
            ("fe80::1%eth0", None),
            ("[fe80::1%3]:53", None),
            ("", None),
        ] {
            let read = text.parse::<DnsServer>().ok();
            assert_eq!(read.map(|one| one.to_string()).as_deref(), expect, "{text}");
        }
    }
}
