//! Limits on the names that a sandbox asks for. Each name goes to a resolver and from there to whoever owns its
//! domain, so a name is a message; a few are said with every name, but not files.

use crate::reason::Reason;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

/// Names of one sandbox in a minute that were not asked for a minute or two before. A page with all that it loads
/// has some tens, a package manager fewer.
pub(crate) const NEW_PER_MINUTE: usize = 300;

/// Characters of one name that look like data and not like words. Names that machines make have one such label:
/// a digest in base 32 has 59 characters at most. What carries data by DNS uses all that a name has, 253.
const DENSE_MAX: usize = 64;

/// A shorter label is not looked at: it may well be a random name, and holds little.
const LABEL_MIN: usize = 16;

/// Bits for each character, by how often each occurs in its label: digits of base 16 have 4 at most, of base 32
/// 5; a label that repeats itself has less.
const BITS_MIN: f64 = 2.5;

/// Whether a name is more likely data than a name.
pub(crate) fn carries_data(name: &str) -> bool {
    let dense = name.split('.').filter(|label| is_dense(label));
    dense.map(str::len).sum::<usize>() > DENSE_MAX
}

fn is_dense(label: &str) -> bool {
    if label.len() < LABEL_MIN {
        return false;
    }
    let mut times: BTreeMap<u8, u32> = BTreeMap::new();
    for byte in label.bytes() {
        *times.entry(byte).or_default() += 1;
    }
    // Not more than 63, so nothing is lost.
    let length = f64::from(u32::try_from(label.len()).unwrap_or(u32::MAX));
    let bits = times.values().map(|times| {
        let share = f64::from(*times) / length;
        -share * share.log2()
    });
    bits.sum::<f64>() >= BITS_MIN
}

/// The names that one sandbox asked for lately.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    keys: RandomState,
    recent: Mutex<Recent>,
}

/// Names that are known because they are asked for all the time.
const KNOWN_MAX: usize = 10 * NEW_PER_MINUTE;

/// In this minute, and in the one before. Digests of names, so that long ones take no more room.
#[derive(Debug, Default)]
struct Recent {
    minute: u64,
    /// Of those in this minute, how many are new.
    new: usize,
    now: HashSet<u64>,
    before: HashSet<u64>,
}

impl Asked {
    /// Counts a name that is asked for in this minute of any clock.
    ///
    /// # Errors
    /// Why it must not be asked for.
    pub(crate) fn ask(&self, name: &str, minute: u64) -> Result<(), Reason> {
        if carries_data(name) {
            return Err(Reason::NameCarriesData);
        }
        let digest = self.keys.hash_one(name);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.ask(digest, minute) {
            Ok(())
        } else {
            Err(Reason::TooManyNames)
        }
    }
}

impl Recent {
    fn ask(&mut self, digest: u64, minute: u64) -> bool {
        if minute != self.minute {
            let last = std::mem::take(&mut self.now);
            let is_next = minute == self.minute.wrapping_add(1);
            self.before = if is_next { last } else { HashSet::new() };
            (self.minute, self.new) = (minute, 0);
        }
        if self.now.contains(&digest) {
            return true;
        }
        if self.before.contains(&digest) && self.now.len() < KNOWN_MAX {
            return self.now.insert(digest);
        }
        let may = self.new < NEW_PER_MINUTE && self.now.len() < KNOWN_MAX;
        if may {
            self.new += 1;
            self.now.insert(digest);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_people_and_machines_give_are_names_and_data_is_not() {
        for name in [
            "example.com",
            "registry.npmjs.org",
            "rr3---sn-4g5e6nsz.googlevideo.com",
            "my-app-7d9f8b6c5d-x2x4z.my-namespace.svc.cluster.internal.example.com",
            "0f8fad5b-d9cb-469f-a165-70867728950e.s3.us-east-1.amazonaws.com",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi.ipfs.dweb.link",
            "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion.example",
            "a-rather-long-name-of-a-project-in-production.us-central1.run.app",
            "11111111111111111111111111111111111111.22222222222222222222222222222222222.example.com",
        ] {
            assert!(!carries_data(name), "{name}");
        }
        let hex = "6d79207365637265742069732074686973206f6e652c20616e64206d6f7265";
        let base32 = "nb2hi4dthixs65dfon2c4y3pnuxwwzlzfqqgc3teebqw433unbsxeidpnzsq";
        for name in [
            format!("{hex}.{hex}.t.example.com"),
            format!("{base32}.{}.t.example.com", &base32[20..]),
            format!(
                "{}.{}.{}.example.com",
                &hex[..24],
                &hex[24..48],
                &hex[30..54]
            ),
        ] {
            assert!(carries_data(&name), "{name}");
        }
    }

    #[test]
    fn names_of_a_minute_are_bounded_and_known_ones_are_not_counted_again() {
        let asked = Asked::default();
        for n in 0..NEW_PER_MINUTE {
            assert_eq!(asked.ask(&format!("{n}.example"), 1), Ok(()));
        }
        assert_eq!(asked.ask("more.example", 1), Err(Reason::TooManyNames));
        assert_eq!(asked.ask("0.example", 1), Ok(()));
        // Those of the minute before are known, and there is room for new ones beside those that are used.
        assert_eq!(asked.ask("0.example", 2), Ok(()));
        assert_eq!(asked.ask("more.example", 2), Ok(()));
        for n in 0..NEW_PER_MINUTE - 1 {
            assert_eq!(asked.ask(&format!("second-{n}.example"), 2), Ok(()));
        }
        assert_eq!(asked.ask("even-more.example", 2), Err(Reason::TooManyNames));
        // After a pause all are new.
        assert_eq!(asked.ask("even-more.example", 9), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_bounded(names in proptest::collection::vec((any::<u64>(), 0_u64..4), 0..3000)) {
            let mut recent = Recent::default();
            for (name, minute) in names {
                recent.ask(name, minute);
                prop_assert!(recent.now.len() <= KNOWN_MAX && recent.before.len() <= KNOWN_MAX);
            }
        }
    }
}
