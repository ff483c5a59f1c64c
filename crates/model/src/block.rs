//! Blocks of addresses: `ADDRESS[/BITS]`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    first: IpAddr,
    bits: u32,
}

/// Why text is no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read ADDRESS[/BITS], written by its first address")]
pub struct BadBlock;

impl Block {
    /// Reads `ADDRESS/BITS` that may be written by any of its addresses, as others take it.
    pub fn around(text: &str) -> Option<Block> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, digits(bits)?);
        let is_plain = address.to_canonical() == address && bits <= whole(address);
        is_plain.then(|| Block {
            first: masked(address, bits),
            bits,
        })
    }

    /// Whether it holds one address only.
    pub fn is_one(&self) -> bool {
        self.bits == whole(self.first)
    }

    /// The address that it holds, where it is only one.
    pub fn one(&self) -> Option<IpAddr> {
        self.is_one().then_some(self.first)
    }

    /// Whether an address is in it. An IPv4 address that is mapped into IPv6 is that IPv4 address.
    pub fn has(&self, address: IpAddr) -> bool {
        within(address.to_canonical(), self.first, self.bits)
    }

    /// Whether it holds every address of another.
    pub fn covers(&self, other: &Block) -> bool {
        self.bits <= other.bits && within(other.first, self.first, self.bits)
    }

    /// How much of all addresses of its family it holds, in parts of 2^32.
    pub(crate) fn share(&self) -> u64 {
        (1_u64 << 32) >> self.bits.min(63)
    }

    /// Its family and its bits in digits: all blocks within it begin with the same text.
    pub(crate) fn in_digits(&self) -> String {
        let mut text = match self.first {
            IpAddr::V4(first) => format!("4{:032b}", first.to_bits()),
            IpAddr::V6(first) => format!("6{:0128b}", first.to_bits()),
        };
        text.truncate(1 + self.bits as usize);
        text
    }

    /// Whether its addresses are of IPv6, which stand in brackets before a port.
    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }
}

fn whole(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether an address begins with the first `bits` of another of its own family.
pub fn within(address: IpAddr, block: IpAddr, bits: u32) -> bool {
    match (address, block) {
        (IpAddr::V4(address), IpAddr::V4(block)) => {
            let differs = address.to_bits() ^ block.to_bits();
            differs.leading_zeros() >= bits.min(32)
        }
        (IpAddr::V6(address), IpAddr::V6(block)) => {
            let differs = address.to_bits() ^ block.to_bits();
            differs.leading_zeros() >= bits.min(128)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

impl FromStr for Block {
    type Err = BadBlock;

    fn from_str(text: &str) -> Result<Block, BadBlock> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(digits(bits).ok_or(BadBlock)?)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| BadBlock)?;
        let whole = whole(first);
        let bits = bits.unwrap_or(whole);
        // Somebody who writes a mapped block means IPv4, and has to say so.
        let is_plain = first.to_canonical() == first;
        if is_plain && bits <= whole && masked(first, bits) == first {
            Ok(Block { first, bits })
        } else {
            Err(BadBlock)
        }
    }
}

/// Digits and nothing else; Rust's own parser takes a plus, too.
pub fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
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

impl fmt::Display for Block {
    /// A block of one address is that address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one() {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.bits)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written_by_its_first_address() {
        for (text, expect) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.1/32", Some("10.0.0.1")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("fd00::/8", Some("fd00::/8")),
            ("::1", Some("::1")),
            ("10.0.0.1/8", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("::ffff:10.0.0.0", None),
            ("10.1", None),
            ("", None),
        ] {
            let read = text.parse::<Block>().ok().map(|block| block.to_string());
            assert_eq!(read.as_deref(), expect, "{text}");
        }
    }
}
