//! The addresses that names were given, of IPv4 and, with the same number, of IPv6. Pure. An address stands for one name for as long as the sandbox lives, and
//! never for another, so a program that keeps one for a day reaches what it meant or nothing.

use super::dns::Found;
use guest::direct::TTL_S;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

/// Names that are known at a time, at most some 400 bytes each. The one that was not used for longest is
/// forgotten for another.
pub(super) const NAMES_MAX: usize = 4096;

/// The first address that is given: those of 198.18.0.0 are ours.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);

/// Addresses with one third part that are given: not 0 and 255, which some programs take for a network's own.
const OF_BLOCK: u32 = 254;

/// All addresses that can be given: 198.18.1.1 to 198.19.255.254 (RFC 2544). When they are used up, names can only
/// be reached through the proxy; at the pace that the node allows, that takes seven hours of nothing else.
pub(super) const ADDRESSES_MAX: u32 = 511 * OF_BLOCK;

/// Where addresses of IPv6 for names begin: in the network of [`guest::message::TUN_ADDRESS6`], and in another part of it.
const FIRST6: u128 = Ipv6Addr::new(0xfdb3, 0x5e1d, 0x9a47, 1, 0, 0, 0, 0).to_bits();

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_name: HashMap<Rc<str>, Given>,
    by_address: HashMap<Ipv4Addr, Rc<str>>,
    given: u32,
    /// One more with every use.
    uses: u64,
}

#[derive(Debug)]
struct Given {
    address: Ipv4Addr,
    used: u64,
    /// It has an address of IPv6 outside as well.
    has_ipv6: bool,
    /// When the node said that there is such a name, in seconds.
    asked_s: u64,
}

impl Given {
    fn found(&self) -> Found {
        let number = u128::from(self.address.to_bits());
        Found {
            address: self.address,
            address6: self.has_ipv6.then(|| Ipv6Addr::from_bits(FIRST6 + number)),
        }
    }
}

impl Names {
    /// The name that an address stands for.
    pub(super) fn name_of(&mut self, address: IpAddr) -> Option<Rc<str>> {
        let address = match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => {
                let number = address.to_bits().checked_sub(FIRST6)?;
                Ipv4Addr::from_bits(u32::try_from(number).ok()?)
            }
        };
        let name = self.by_address.get(&address)?.clone();
        self.uses += 1;
        if let Some(given) = self.by_name.get_mut(&name) {
            given.used = self.uses;
        }
        Some(name)
    }

    /// The addresses of a name of which the node said lately that it is one.
    pub(super) fn known(&mut self, name: &str, now_s: u64) -> Option<Found> {
        let given = self.by_name.get_mut(name)?;
        if now_s.saturating_sub(given.asked_s) >= u64::from(TTL_S) {
            return None;
        }
        self.uses += 1;
        given.used = self.uses;
        Some(given.found())
    }

    /// The addresses of a name of which the node has just said that it is one; `None` when all are used up.
    pub(super) fn give(&mut self, name: &str, has_ipv6: bool, now_s: u64) -> Option<Found> {
        self.uses += 1;
        if let Some(given) = self.by_name.get_mut(name) {
            (given.used, given.asked_s, given.has_ipv6) = (self.uses, now_s, has_ipv6);
            return Some(given.found());
        }
        if self.given >= ADDRESSES_MAX {
            return None;
        }
        if self.by_name.len() >= NAMES_MAX {
            self.forget_one();
        }
        let (block, in_block) = (self.given / OF_BLOCK, self.given % OF_BLOCK);
        let address = Ipv4Addr::from_bits(FIRST.to_bits() + (block << 8) + in_block + 1);
        self.given += 1;
        let name: Rc<str> = name.into();
        self.by_address.insert(address, name.clone());
        let given = Given {
            address,
            used: self.uses,
            has_ipv6,
            asked_s: now_s,
        };
        let found = given.found();
        self.by_name.insert(name, given);
        Some(found)
    }

    /// Looks at all, which is a few microseconds; the node does not let it come to this often.
    fn forget_one(&mut self) {
        let oldest = self.by_name.iter().min_by_key(|(_, given)| given.used);
        let oldest = oldest.map(|(name, given)| (name.clone(), given.address));
        if let Some((name, address)) = oldest {
            self.by_name.remove(&name);
            self.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_name_keeps_its_address_and_no_address_has_two_names() {
        let mut names = Names::default();
        let first = names.give("a.example", false, 0).unwrap();
        assert_eq!(first.address, Ipv4Addr::new(198, 18, 1, 1));
        assert_eq!(first.address6, None);
        let second = names.give("b.example", true, 0).unwrap();
        assert_eq!(names.give("a.example", false, 500), Some(first));
        let mut name_of = |address: IpAddr| names.name_of(address).map(|name| name.to_string());
        assert_eq!(name_of(first.address.into()).as_deref(), Some("a.example"));
        assert_eq!(name_of(second.address.into()).as_deref(), Some("b.example"));
        let six = second.address6.unwrap();
        assert_eq!(six.to_string(), "fdb3:5e1d:9a47:1::c612:102");
        assert_eq!(name_of(six.into()).as_deref(), Some("b.example"));
        // Nobody's, ours, and those before and behind the part that is for names.
        for nobodys in [
            "198.18.0.1",
            "fdb3:5e1d:9a47::2",
            "fdb3:5e1d:9a47:1::1:c612:102",
            "fdb3:5e1d:9a47:2::c612:102",
            "::",
            "ffff::c612:102",
        ] {
            assert_eq!(name_of(nobodys.parse().unwrap()), None, "{nobodys}");
        }
    }

    #[test]
    fn what_the_node_said_of_a_name_holds_for_a_minute() {
        let mut names = Names::default();
        let address = names.give("a.example", false, 100);
        assert_eq!(names.known("a.example", 159), address);
        assert_eq!(names.known("a.example", 160), None);
        assert_eq!(names.known("b.example", 100), None);
    }

    #[test]
    fn a_full_table_forgets_what_was_not_used_and_gives_no_address_twice() {
        let mut names = Names::default();
        let mut seen = HashSet::new();
        let kept = names.give("kept.example", false, 0).unwrap();
        seen.insert(kept.address);
        for n in 1..ADDRESSES_MAX {
            let found = names.give(&format!("{n}.example"), false, 0).unwrap();
            let address = found.address;
            let [a, b, c, d] = address.octets();
            assert!(
                a == 198 && (18..20).contains(&b) && (b, c) != (18, 0),
                "{address}"
            );
            assert!((1..255).contains(&d) && seen.insert(address), "{address}");
            if n % 1000 == 0 {
                assert_eq!(
                    names.name_of(kept.address.into()).as_deref(),
                    Some("kept.example")
                );
            }
            // Looking for the oldest is slow here; a part is enough to see that none comes twice.
            if n == 2 * u32::try_from(NAMES_MAX).unwrap() {
                break;
            }
        }
        assert!(names.by_name.len() == NAMES_MAX && names.by_address.len() == NAMES_MAX);
        assert_eq!(names.known("1.example", 0), None);
        names.given = ADDRESSES_MAX - 1;
        let last = names
            .give("last.example", false, 0)
            .map(|found| found.address);
        assert_eq!(last, Some(Ipv4Addr::new(198, 19, 255, 254)));
        assert_eq!(names.give("none.example", false, 0), None);
        assert_eq!(names.give("kept.example", false, 0), Some(kept));
    }

    proptest! {
        #[test]
        fn both_ways_agree_whatever_is_asked(asked in proptest::collection::vec((0_u16..300, 0_u64..200), 0..400)) {
            let mut names = Names::default();
            for (name, now_s) in asked {
                let name = format!("{name}.example");
                let address = names.known(&name, now_s).or_else(|| names.give(&name, true, now_s)).unwrap();
                let six = address.address6.unwrap();
                for address in [IpAddr::V4(address.address), IpAddr::V6(six)] {
                    let back = names.name_of(address);
                    prop_assert_eq!(back.as_deref(), Some(&*name));
                }
                prop_assert_eq!(names.by_name.len(), names.by_address.len());
            }
        }
    }
}
