//! What an address is for: whether it is one of the outside, and if not, which kind of inside it is.
//!
//! The tables are IANA's special-purpose registries, as of 2025:
//! <https://www.iana.org/assignments/iana-ipv4-special-registry> and
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>. Of IPv6 only the global unicast space
//! 2000::/3 can be the outside; what IANA has not given out is reserved.

use crate::block::within;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Somewhere on the internet.
    Global,
    /// The machine itself.
    Loopback,
    /// A network that belongs to somebody: RFC 1918, unique local, and the old site-local.
    Private,
    /// The wire that the machine is on.
    LinkLocal,
    /// Where clouds answer with credentials of the machine.
    Metadata,
    /// Shared behind a carrier's translation, RFC 6598.
    Shared,
    /// Many at once.
    Multicast,
    /// Everybody on the wire.
    Broadcast,
    /// No address at all, which kernels take for the machine itself.
    Unspecified,
    /// For examples in documents and for measurements.
    Documentation,
    /// Another address inside an address, which some gateway would unpack: NAT64, 6to4, Teredo,
    /// IPv4-compatible.
    Translated,
    /// For nothing that one connects to.
    Reserved,
}

impl Class {
    /// Why it is closed, as programs read it; never changes its meaning.
    pub fn code(self) -> &'static str {
        match self {
            Class::Global => "address",
            Class::Loopback => "address_loopback",
            Class::Private => "address_private",
            Class::LinkLocal => "address_link_local",
            Class::Metadata => "address_metadata",
            Class::Shared => "address_shared",
            Class::Multicast => "address_multicast",
            Class::Broadcast => "address_broadcast",
            Class::Unspecified => "address_unspecified",
            Class::Documentation => "address_documentation",
            Class::Translated => "address_translated",
            Class::Reserved => "address_reserved",
        }
    }
}

/// Addresses at which clouds tell a machine its secrets. Most lie in blocks that are closed anyway; Azure's
/// 168.63.129.16 looks like any other.
const METADATA: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    // Amazon's tasks and its EKS.
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Blocks of IPv4, the first that fits counts.
const V4: &[([u8; 4], u32, Class)] = &[
    ([0, 0, 0, 0], 32, Class::Unspecified),
    ([0, 0, 0, 0], 8, Class::Reserved),
    ([10, 0, 0, 0], 8, Class::Private),
    ([100, 64, 0, 0], 10, Class::Shared),
    ([127, 0, 0, 0], 8, Class::Loopback),
    ([169, 254, 0, 0], 16, Class::LinkLocal),
    ([172, 16, 0, 0], 12, Class::Private),
    ([192, 0, 0, 0], 24, Class::Reserved),
    ([192, 0, 2, 0], 24, Class::Documentation),
    // The relays of 6to4, given up by RFC 7526.
    ([192, 88, 99, 0], 24, Class::Translated),
    ([192, 168, 0, 0], 16, Class::Private),
    ([198, 18, 0, 0], 15, Class::Documentation),
    ([198, 51, 100, 0], 24, Class::Documentation),
    ([203, 0, 113, 0], 24, Class::Documentation),
    ([224, 0, 0, 0], 4, Class::Multicast),
    ([255, 255, 255, 255], 32, Class::Broadcast),
    ([240, 0, 0, 0], 4, Class::Reserved),
];

/// Blocks of IPv6, the first that fits counts.
const V6: &[([u16; 8], u32, Class)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, Class::Unspecified),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Class::Loopback),
    // IPv4-compatible, RFC 4291; and IPv4-translated, RFC 2765.
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, Class::Translated),
    ([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, Class::Translated),
    // NAT64: RFC 6052, and for one's own network RFC 8215.
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, Class::Translated),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Class::Translated),
    // Teredo, RFC 4380, and 6to4, RFC 3056.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Class::Translated),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Class::Translated),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Class::Documentation),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Class::Reserved),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Class::Documentation),
    ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Class::Global),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Class::Private),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Class::LinkLocal),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Class::Private),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Class::Multicast),
    ([0, 0, 0, 0, 0, 0, 0, 0], 0, Class::Reserved),
];

/// The one form of an address: an IPv4 address that is written as a mapped IPv6 address is that IPv4 address
/// to every kernel (RFC 4291, section 2.5.5.2), so it is to us.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What an address is for, in whatever form it comes.
pub fn classify(address: IpAddr) -> Class {
    let address = canonical(address);
    if METADATA.contains(&address) {
        return Class::Metadata;
    }
    let fits = |block: IpAddr, bits: u32| within(address, block, bits);
    match address {
        IpAddr::V4(_) => {
            let mut blocks = V4.iter();
            let found = blocks.find(|(block, bits, _)| fits(IpAddr::from(*block), *bits));
            found.map_or(Class::Global, |(_, _, class)| *class)
        }
        IpAddr::V6(_) => {
            let mut blocks = V6.iter();
            let found = blocks.find(|(block, bits, _)| fits(IpAddr::from(*block), *bits));
            found.map_or(Class::Reserved, |(_, _, class)| *class)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[(&str, Class)] = &[
        ("1.1.1.1", Class::Global),
        ("9.255.255.255", Class::Global),
        ("10.0.0.0", Class::Private),
        ("10.255.255.255", Class::Private),
        ("11.0.0.0", Class::Global),
        ("0.0.0.0", Class::Unspecified),
        ("0.1.2.3", Class::Reserved),
        ("100.63.255.255", Class::Global),
        ("100.64.0.0", Class::Shared),
        ("100.127.255.255", Class::Shared),
        ("100.128.0.0", Class::Global),
        ("100.100.100.200", Class::Metadata),
        ("127.0.0.1", Class::Loopback),
        ("127.255.255.255", Class::Loopback),
        ("168.63.129.16", Class::Metadata),
        ("169.254.0.1", Class::LinkLocal),
        ("169.254.169.254", Class::Metadata),
        ("172.15.255.255", Class::Global),
        ("172.16.0.0", Class::Private),
        ("172.31.255.255", Class::Private),
        ("172.32.0.0", Class::Global),
        ("192.0.0.8", Class::Reserved),
        ("192.0.2.1", Class::Documentation),
        ("192.88.99.1", Class::Translated),
        ("192.168.0.1", Class::Private),
        ("192.169.0.0", Class::Global),
        ("198.17.255.255", Class::Global),
        ("198.18.0.0", Class::Documentation),
        ("198.19.255.255", Class::Documentation),
        ("198.51.100.7", Class::Documentation),
        ("203.0.113.7", Class::Documentation),
        ("223.255.255.255", Class::Global),
        ("224.0.0.1", Class::Multicast),
        ("239.255.255.255", Class::Multicast),
        ("240.0.0.1", Class::Reserved),
        ("255.255.255.255", Class::Broadcast),
        ("::", Class::Unspecified),
        ("::1", Class::Loopback),
        ("::127.0.0.1", Class::Translated),
        ("::8.8.8.8", Class::Translated),
        ("::ffff:127.0.0.1", Class::Loopback),
        ("::ffff:a9fe:a9fe", Class::Metadata),
        ("::ffff:8.8.8.8", Class::Global),
        ("::ffff:0:127.0.0.1", Class::Translated),
        ("64:ff9b::7f00:1", Class::Translated),
        ("64:ff9b:1::1", Class::Translated),
        ("64:ff9b:2::1", Class::Reserved),
        ("100::1", Class::Reserved),
        ("2001::1", Class::Translated),
        ("2001:2::1", Class::Reserved),
        ("2001:1ff:ffff::1", Class::Reserved),
        ("2001:200::1", Class::Global),
        ("2001:db8::1", Class::Documentation),
        ("2002:7f00:1::1", Class::Translated),
        ("2606:4700::1111", Class::Global),
        ("3fff::1", Class::Documentation),
        ("3fff:1000::1", Class::Global),
        ("4000::1", Class::Reserved),
        ("5f00::1", Class::Reserved),
        ("fc00::1", Class::Private),
        ("fd00:ec2::254", Class::Metadata),
        ("fd20:ce::254", Class::Metadata),
        ("fdff::1", Class::Private),
        ("fe00::1", Class::Reserved),
        ("fe80::1", Class::LinkLocal),
        ("febf::1", Class::LinkLocal),
        ("fec0::1", Class::Private),
        ("ff02::1", Class::Multicast),
    ];

    #[test]
    fn every_special_block_is_known_at_both_its_ends_and_its_neighbours_are_not() {
        for (text, expect) in KNOWN {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(classify(address), *expect, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_the_same_when_it_is_mapped(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let mapped = IpAddr::V6(address.to_ipv6_mapped());
            prop_assert_eq!(classify(mapped), classify(IpAddr::V4(address)));
        }

        #[test]
        fn what_the_standard_library_calls_special_is_not_global(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            if address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                || address.is_unspecified()
            {
                prop_assert_ne!(classify(IpAddr::V4(address)), Class::Global);
            }
        }

        #[test]
        fn no_ipv6_address_that_carries_an_ipv4_address_is_global(bits: u32, prefix in 0_usize..5) {
            let [a, b, c, d] = bits.to_be_bytes();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let address = match prefix {
                0 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                1 => Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                2 => Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0, 0, !high, !low),
                3 => Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                _ => Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            };
            prop_assert_ne!(classify(IpAddr::V6(address)), Class::Global);
        }

        #[test]
        fn of_ipv6_only_global_unicast_is_global(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let global = classify(IpAddr::V6(address)) == Class::Global;
            prop_assert!(!global || address.segments()[0] & 0xe000 == 0x2000 || address.to_ipv4_mapped().is_some());
        }
    }
}
