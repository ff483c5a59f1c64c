//! One line of a list: `HOST[:PORT]`, `*.DOMAIN[:PORT]`, `ADDRESS[/BITS][:PORT]`, or `*[:PORT]`.

use crate::block::{Block, digits};
use crate::host::{BadHost, Host};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A destination or many, at one port or at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Entry {
    place: Place,
    port: Option<u16>,
}

/// What an entry names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    /// `*`: whatever it is.
    Everything,
    /// A name in its one form.
    Name(String),
    /// Every name below this one, at any depth, and not the name itself.
    Below(String),
    /// Addresses.
    Block(Block),
}

impl Place {
    /// Whether whatever the other names is named here.
    fn holds(&self, other: &Place) -> bool {
        let below = |name: &str, domain: &str| {
            let rest = name.strip_suffix(domain);
            rest.is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
        };
        match (self, other) {
            (Place::Everything, _) => true,
            (Place::Name(own), Place::Name(name)) => own == name,
            (Place::Below(own), Place::Name(name)) => below(name, own),
            (Place::Below(own), Place::Below(name)) => own == name || below(name, own),
            (Place::Block(own), Place::Block(block)) => own.covers(block),
            (Place::Name(_) | Place::Block(_), _) | (Place::Below(_), _) => false,
        }
    }
}

/// Why text is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// Not a host.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// Not a block of addresses.
    #[error("read ADDRESS[/BITS], written by its first address")]
    Block,
    /// Not a port.
    #[error("read a port, 1 to 65535 without leading zeros")]
    Port,
    /// A star that does not stand alone at the beginning.
    #[error("read a star anywhere but alone, or first before a dot")]
    Star,
}

impl Entry {
    /// What E2B calls all traffic, and we `*`.
    pub fn everything() -> Entry {
        Entry {
            place: Place::Everything,
            port: None,
        }
    }

    /// Whether it names every destination at every port.
    pub fn is_everything(&self) -> bool {
        self.place == Place::Everything && self.port.is_none()
    }

    /// Whether it names every host, perhaps at one port.
    pub fn is_any_host(&self) -> bool {
        self.place == Place::Everything
    }

    /// How much of all addresses of its family it names itself, in parts of 2^32: none where it names hosts by name.
    pub(crate) fn share(&self) -> u64 {
        match &self.place {
            Place::Everything => 1 << 32,
            Place::Block(block) => block.share(),
            Place::Name(_) | Place::Below(_) => 0,
        }
    }

    /// Where it stands among others, whatever its port: all places that are within this one begin with the same text,
    /// and no others do.
    pub(crate) fn place_in_order(&self) -> String {
        let labels = |name: &str| {
            let labels: Vec<&str> = name.rsplit('.').collect();
            format!("n\0{}", labels.join("\0"))
        };
        match &self.place {
            Place::Everything => String::new(),
            Place::Name(name) => labels(name),
            Place::Below(domain) => labels(domain) + "\0",
            Place::Block(block) => block.in_digits(),
        }
    }

    /// Whether it names hosts by name.
    pub fn is_name(&self) -> bool {
        matches!(self.place, Place::Name(_) | Place::Below(_))
    }

    /// Whether it names a host, or all hosts below one, and no port.
    pub(super) fn is_host(&self) -> bool {
        let is_host = match &self.place {
            Place::Name(_) | Place::Below(_) => true,
            Place::Block(block) => block.is_one(),
            Place::Everything => false,
        };
        is_host && self.port.is_none()
    }

    /// The same at one port.
    pub(super) fn at(self, port: u16) -> Entry {
        Entry {
            port: Some(port),
            ..self
        }
    }

    /// The one host that it names.
    pub(super) fn one_host(&self) -> Option<Host> {
        match &self.place {
            Place::Name(name) => Some(Host::Name(name.clone())),
            Place::Block(block) => block.one().map(Host::Address),
            Place::Below(_) | Place::Everything => None,
        }
    }

    /// Whether some destination is named by both.
    pub(super) fn overlaps(&self, other: &Entry) -> bool {
        let (a, b) = (&self.place, &other.place);
        let ports = self.port.is_none() || other.port.is_none() || self.port == other.port;
        ports && (a.holds(b) || b.holds(a))
    }

    /// Whether it is about this host at some port.
    pub fn is_about(&self, host: &Host) -> bool {
        self.names(host, self.port.unwrap_or(1))
    }

    /// Whether it is about this host and port, as far as can be said without knowing a name's addresses.
    pub fn names(&self, host: &Host, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        match (&self.place, host) {
            (Place::Everything, _) => true,
            (Place::Name(name), Host::Name(asked)) => name == asked,
            (Place::Below(domain), Host::Name(asked)) => asked
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            (Place::Block(block), Host::Address(address)) => block.has(*address),
            (Place::Name(_) | Place::Below(_), Host::Address(_))
            | (Place::Block(_), Host::Name(_)) => false,
        }
    }

    /// Whether it names whatever another names, at every port that the other is about.
    pub fn covers(&self, other: &Entry) -> bool {
        let ports = self.port.is_none() || self.port == other.port;
        ports && self.place.holds(&other.place)
    }

    /// What both name, where one of the two places is within the other: places are one within the other, or have
    /// nothing in common.
    pub fn meet(&self, other: &Entry) -> Option<Entry> {
        let place = match () {
            () if self.place.holds(&other.place) => &other.place,
            () if other.place.holds(&self.place) => &self.place,
            () => return None,
        };
        let port = match (self.port, other.port) {
            (Some(one), Some(two)) if one != two => return None,
            (one, two) => one.or(two),
        };
        let place = place.clone();
        Some(Entry { place, port })
    }

    /// Its port, if it is about one alone.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it is about an address that a name has.
    pub fn holds(&self, address: IpAddr, port: u16) -> bool {
        self.names(&Host::of_address(address), port)
    }
}

impl FromStr for Entry {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Entry, BadEntry> {
        let (place, port) = split(text)?;
        let port = match port {
            Some(port) => Some(read_port(port)?),
            None => None,
        };
        Ok(Entry {
            place: read_place(place)?,
            port,
        })
    }
}

/// Divides off the port. An IPv6 address has colons of its own, and stands in brackets before one.
fn split(text: &str) -> Result<(&str, Option<&str>), BadEntry> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or(BadEntry::Block)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((inner, Some(port))),
            None if rest.is_empty() => Ok((inner, None)),
            None => Err(BadEntry::Block),
        };
    }
    match text.split_once(':') {
        Some((place, port)) if !port.contains(':') => Ok((place, Some(port))),
        _ => Ok((text, None)),
    }
}

fn read_port(text: &str) -> Result<u16, BadEntry> {
    let port = digits(text).filter(|_| !text.starts_with('0'));
    port.and_then(|port| u16::try_from(port).ok())
        .ok_or(BadEntry::Port)
}

fn read_place(text: &str) -> Result<Place, BadEntry> {
    if text == "*" {
        return Ok(Place::Everything);
    }
    if let Some(domain) = text.strip_prefix("*.") {
        return match Host::parse(domain)? {
            Host::Name(domain) => Ok(Place::Below(domain)),
            Host::Address(_) => Err(BadEntry::Star),
        };
    }
    if text.contains('*') {
        return Err(BadEntry::Star);
    }
    if let Ok(block) = text.parse() {
        return Ok(Place::Block(block));
    }
    if text.contains('/') || text.contains(':') {
        return Err(BadEntry::Block);
    }
    match Host::parse(text)? {
        Host::Name(name) => Ok(Place::Name(name)),
        // Such as an address with a final dot: one form only.
        Host::Address(_) => Err(BadEntry::Block),
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Everything => f.write_str("*")?,
            Place::Name(name) => f.write_str(name)?,
            Place::Below(domain) => write!(f, "*.{domain}")?,
            Place::Block(block) if block.is_ipv6() && self.port.is_some() => {
                write!(f, "[{block}]")?;
            }
            Place::Block(block) => write!(f, "{block}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl From<Entry> for String {
    fn from(entry: Entry) -> String {
        entry.to_string()
    }
}

impl TryFrom<String> for Entry {
    type Error = BadEntry;

    fn try_from(text: String) -> Result<Entry, BadEntry> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        match text.parse::<Entry>() {
            Ok(entry) => entry.to_string(),
            Err(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn an_entry_has_one_form_or_is_refused() {
        for (text, expect) in [
            ("PyPI.org.", "pypi.org"),
            ("pypi.org:443", "pypi.org:443"),
            ("*.PyPI.org", "*.pypi.org"),
            ("*.bücher.example:80", "*.xn--bcher-kva.example:80"),
            ("*", "*"),
            ("*:443", "*:443"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:443", "10.0.0.0/8:443"),
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4/32", "1.2.3.4"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:80", "[::1]:80"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4.", "Block"),
            ("10.0.0.1/8", "Block"),
            ("::ffff:1.2.3.4", "Block"),
            ("2001:db8::/32:443", "Block"),
            ("[::1", "Block"),
            ("pypi.org/simple", "Block"),
            ("https://pypi.org", "Port"),
            ("pypi.org:0", "Port"),
            ("pypi.org:080", "Port"),
            ("pypi.org:65536", "Port"),
            ("pypi.org:", "Port"),
            ("a.*.org", "Star"),
            ("*pypi.org", "Star"),
            ("*.*.org", "Host(Malformed)"),
            ("**", "Star"),
            ("*.1.2.3.4", "Star"),
            ("0x7f.1", "Host(OddAddress)"),
            ("2130706433", "Host(OddAddress)"),
            ("pypi.org\0.evil.example", "Host(Malformed)"),
            ("pypi.org\n", "Host(Malformed)"),
            ("user@pypi.org", "Host(Malformed)"),
            ("", "Host(Malformed)"),
            ("*.", "Host(Malformed)"),
        ] {
            assert_eq!(read(text), expect, "{text:?}");
        }
    }

    #[test]
    fn an_entry_is_about_what_it_names_and_nothing_else() {
        let names = |entry: &str, host: &str, port| {
            let host = Host::parse(host).unwrap();
            entry.parse::<Entry>().unwrap().names(&host, port)
        };
        for (entry, host, port, expect) in [
            ("a.example", "A.Example.", 1, true),
            ("a.example", "b.a.example", 1, false),
            ("a.example:443", "a.example", 443, true),
            ("a.example:443", "a.example", 80, false),
            ("*.a.example", "b.a.example", 1, true),
            ("*.a.example", "c.b.a.example", 1, true),
            ("*.a.example", "a.example", 1, false),
            ("*.a.example", "xa.example", 1, false),
            ("*", "a.example", 1, true),
            ("*", "[::1]", 1, true),
            ("*:80", "a.example", 81, false),
            ("10.0.0.0/8", "10.1.2.3", 1, true),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]", 1, true),
            ("10.0.0.0/8", "11.0.0.0", 1, false),
            ("10.0.0.0/8", "a.example", 1, false),
            ("0.0.0.0/0", "[2606:4700::1]", 1, false),
            ("a.example", "10.0.0.1", 1, false),
        ] {
            assert_eq!(names(entry, host, port), expect, "{entry} {host}:{port}");
        }
    }

    proptest! {
        #[test]
        fn reading_is_settled_after_once(text in "(\\*\\.)?[a-zA-Z0-9.:/\\[\\]*ü-]{0,24}") {
            if let Ok(entry) = text.parse::<Entry>() {
                prop_assert_eq!(entry.to_string().parse::<Entry>(), Ok(entry));
            }
        }
    }
}
