//! The addresses that names were given. Pure. An address stands for one name for as long as the sandbox lives, and
//! never for another, so a program that keeps one for a day reaches what it meant or nothing.

use super::dns::TTL_S;
use std::collections::HashMap;
use std::net::Ipv4Addr;
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
    /// When the node said that there is such a name, in seconds.
    asked_s: u64,
}

impl Names {
    /// The name that an address stands for.
    pub(super) fn name_of(&mut self, address: Ipv4Addr) -> Option<Rc<str>> {
        let name = self.by_address.get(&address)?.clone();
        self.uses += 1;
        if let Some(given) = self.by_name.get_mut(&name) {
            given.used = self.uses;
        }
        Some(name)
    }

    /// The address of a name of which the node said lately that it is one.
    pub(super) fn known(&mut self, name: &str, now_s: u64) -> Option<Ipv4Addr> {
        let given = self.by_name.get_mut(name)?;
        if now_s.saturating_sub(given.asked_s) >= u64::from(TTL_S) {
            return None;
        }
        self.uses += 1;
        given.used = self.uses;
        Some(given.address)
    }

    /// The address of a name of which the node has just said that it is one; `None` when all are used up.
    pub(super) fn give(&mut self, name: &str, now_s: u64) -> Option<Ipv4Addr> {
        self.uses += 1;
        if let Some(given) = self.by_name.get_mut(name) {
            (given.used, given.asked_s) = (self.uses, now_s);
            return Some(given.address);
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
            asked_s: now_s,
        };
        self.by_name.insert(name, given);
        Some(address)
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
        let first = names.give("a.example", 0).unwrap();
        assert_eq!(first, Ipv4Addr::new(198, 18, 1, 1));
        let second = names.give("b.example", 0).unwrap();
        assert_eq!(names.give("a.example", 500), Some(first));
        assert_eq!(names.name_of(first).as_deref(), Some("a.example"));
        assert_eq!(names.name_of(second).as_deref(), Some("b.example"));
        assert_eq!(names.name_of(Ipv4Addr::new(198, 18, 0, 1)), None);
    }

    #[test]
    fn what_the_node_said_of_a_name_holds_for_a_minute() {
        let mut names = Names::default();
        let address = names.give("a.example", 100);
        assert_eq!(names.known("a.example", 159), address);
        assert_eq!(names.known("a.example", 160), None);
        assert_eq!(names.known("b.example", 100), None);
    }

    #[test]
    fn a_full_table_forgets_what_was_not_used_and_gives_no_address_twice() {
        let mut names = Names::default();
        let mut seen = HashSet::new();
        let kept = names.give("kept.example", 0).unwrap();
        seen.insert(kept);
        for n in 1..ADDRESSES_MAX {
            let address = names.give(&format!("{n}.example"), 0).unwrap();
            let [a, b, c, d] = address.octets();
            assert!(
                a == 198 && (18..20).contains(&b) && (b, c) != (18, 0),
                "{address}"
            );
            assert!((1..255).contains(&d) && seen.insert(address), "{address}");
            if n % 1000 == 0 {
                assert_eq!(names.name_of(kept).as_deref(), Some("kept.example"));
            }
            // Looking for the oldest is slow here; a part is enough to see that none comes twice.
            if n == 2 * u32::try_from(NAMES_MAX).unwrap() {
                break;
            }
        }
        assert!(names.by_name.len() == NAMES_MAX && names.by_address.len() == NAMES_MAX);
        assert_eq!(names.known("1.example", 0), None);
        names.given = ADDRESSES_MAX - 1;
        let last = names.give("last.example", 0);
        assert_eq!(last, Some(Ipv4Addr::new(198, 19, 255, 254)));
        assert_eq!(names.give("none.example", 0), None);
        assert_eq!(names.give("kept.example", 0), Some(kept));
    }

    proptest! {
        #[test]
        fn both_ways_agree_whatever_is_asked(asked in proptest::collection::vec((0_u16..300, 0_u64..200), 0..400)) {
            let mut names = Names::default();
            for (name, now_s) in asked {
                let name = format!("{name}.example");
                let address = names.known(&name, now_s).or_else(|| names.give(&name, now_s)).unwrap();
                let back = names.name_of(address);
                prop_assert_eq!(back.as_deref(), Some(&*name));
                prop_assert_eq!(names.by_name.len(), names.by_address.len());
            }
        }
    }
}
