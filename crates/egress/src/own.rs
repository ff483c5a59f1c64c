//! The addresses of this machine, which may be public ones and are closed all the same: who reaches the node
//! at its own address is past whatever firewall stands before it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a list counts. Addresses change by the hand of a person or of DHCP.
const FRESH: Duration = Duration::from_secs(2);

/// Addresses of this machine that were read a moment ago.
#[derive(Debug, Default)]
pub struct Own {
    read: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

impl Own {
    /// The addresses as they are now, or were two seconds ago.
    ///
    /// # Errors
    /// Those of reading `/proc/net`; then nothing is known, and nothing may be dialled.
    pub fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, addresses)) = read.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(addresses.clone());
        }
        let addresses = list(Path::new("/proc/net"))?;
        *read = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

/// What the kernel delivers to this machine itself, by its routing table of IPv4 and its interfaces of IPv6,
/// see `proc_net(5)`.
fn list(net: &Path) -> io::Result<Vec<IpAddr>> {
    let mut found = fib_trie(&std::fs::read_to_string(net.join("fib_trie"))?);
    match std::fs::read_to_string(net.join("if_inet6")) {
        Ok(text) => found.extend(if_inet6(&text)),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// `|-- ADDRESS`, and on a line below it `/32 host LOCAL`.
fn fib_trie(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.map(IpAddr::V4)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The first word of each line is the address in 32 digits.
fn if_inet6(text: &str) -> Vec<IpAddr> {
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let bits = words.filter_map(|word| u128::from_str_radix(word, 16).ok());
    bits.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_lists_are_understood() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 9.9.9.0\n        /24 link UNICAST\nLocal:\n     |-- 9.9.9.1\n        \
                    /32 host LOCAL\n     |-- 9.9.9.255\n        /32 link BROADCAST\n";
        assert_eq!(fib_trie(text), [IpAddr::V4(Ipv4Addr::new(9, 9, 9, 1))]);
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(if_inet6(text), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let own = Own::default();
        assert!(
            own.addresses()
                .unwrap()
                .contains(&IpAddr::V4(Ipv4Addr::LOCALHOST))
        );
    }
}
