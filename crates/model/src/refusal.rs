//! How much is noted of requests that were refused to somebody who is known: nobody makes the record grow by asking in
//! vain.

use crate::id::PrincipalId;
use std::collections::BTreeMap;

/// Refusals of one principal that are events of their own within a minute: a person who tries things out does not come
/// to it.
pub const SINGLES_MAX: u32 = 20;
/// Refusals of all principals of a tenant that are events of their own within a minute.
pub const TENANT_SINGLES_MAX: u32 = 200;
/// Principals of a tenant that are told apart within a minute. What is refused to others is counted together.
pub const PRINCIPALS_MAX: usize = 100;
const MINUTE_MS: u64 = 60_000;

/// What was refused to the principals of one tenant within a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minute {
    begun_at_ms: u64,
    singles: u32,
    by: BTreeMap<PrincipalId, Tally>,
    others: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    singles: u32,
    left_out: u64,
}

impl Minute {
    /// A minute that begins now, in milliseconds since 1970.
    pub fn begin(now_ms: u64) -> Minute {
        Minute {
            begun_at_ms: now_ms,
            singles: 0,
            by: BTreeMap::new(),
            others: 0,
        }
    }

    /// Whether it is over. A clock that was set back ends it, else it might last for years.
    pub fn is_over(&self, now_ms: u64) -> bool {
        let age = now_ms.checked_sub(self.begun_at_ms);
        age.is_none_or(|age| age >= MINUTE_MS)
    }

    /// Something was refused to somebody. Whether that is an event of its own; else it is counted.
    pub fn one_more(&mut self, who: &PrincipalId) -> bool {
        if self.by.len() >= PRINCIPALS_MAX && !self.by.contains_key(who) {
            self.others = self.others.saturating_add(1);
            return false;
        }
        let tally = self.by.entry(who.clone()).or_default();
        if tally.singles < SINGLES_MAX && self.singles < TENANT_SINGLES_MAX {
            tally.singles += 1;
            self.singles += 1;
            return true;
        }
        tally.left_out = tally.left_out.saturating_add(1);
        false
    }

    /// How many were no events of their own, by principal; without one, those of others than are told apart. None is 0.
    pub fn left_out(self) -> impl Iterator<Item = (Option<PrincipalId>, u64)> {
        let told = self.by.into_iter();
        let told = told.map(|(who, tally)| (Some(who), tally.left_out));
        told.chain([(None, self.others)])
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn who(number: u16) -> PrincipalId {
        format!("user:p{number}").parse().unwrap()
    }

    #[test]
    fn a_minute_lasts_one_and_ends_where_the_clock_is_set_back() {
        let minute = Minute::begin(1000);
        for (now_ms, is_over) in [(1000, false), (60_999, false), (61_000, true), (999, true)] {
            assert_eq!(minute.is_over(now_ms), is_over, "{now_ms}");
        }
    }

    #[test]
    fn of_a_thousand_in_a_minute_twenty_are_told_and_the_rest_is_counted() {
        let mut minute = Minute::begin(0);
        let told = (0..1000).filter(|_| minute.one_more(&who(1))).count();
        assert_eq!(told, 20);
        assert!(minute.one_more(&who(2)), "another one has their own");
        let left: Vec<_> = minute.left_out().collect();
        assert_eq!(left, [(Some(who(1)), 980)]);
    }

    proptest! {
        #[test]
        fn each_is_told_or_counted_and_no_bound_is_passed(asked in prop::collection::vec(0u16..150, 0..2000)) {
            let mut minute = Minute::begin(0);
            let mut told: BTreeMap<u16, u32> = BTreeMap::new();
            for one in &asked {
                if minute.one_more(&who(*one)) {
                    *told.entry(*one).or_default() += 1;
                }
            }
            let all: u32 = told.values().sum();
            prop_assert!(told.values().all(|count| *count <= SINGLES_MAX));
            prop_assert!(all <= TENANT_SINGLES_MAX);
            let left: Vec<_> = minute.left_out().collect();
            prop_assert!(left.len() <= PRINCIPALS_MAX + 1);
            let counted: u64 = left.iter().map(|(_, count)| *count).sum();
            prop_assert_eq!(u64::from(all) + counted, asked.len() as u64);
        }
    }
}
