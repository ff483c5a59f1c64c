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

/// A shorter label is not looked at by itself: it may well be a random name, and holds little.
const LABEL_MIN: usize = 16;

/// Characters of all labels together, but for the last two, which belong to whoever is asked: data in many short labels
/// is data too. Words have as many bits for a character as digits have, so that nothing but the length tells names from
/// data; the longest that clouds give have some 90, and what is left holds 60 bytes.
const JOINED_MAX: usize = 96;

/// Bits for each character, by how often each occurs: digits of base 16 have 4 at most, of base 32
/// 5; a label that repeats itself has less.
const BITS_MIN: f64 = 2.5;

/// Whether a name is more likely data than a name.
pub(crate) fn carries_data(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let long = labels.iter().filter(|label| label.len() >= LABEL_MIN);
    let dense = long
        .filter(|label| is_dense(label))
        .map(|label| label.len());
    if dense.sum::<usize>() > DENSE_MAX {
        return true;
    }
    let own = labels.len().saturating_sub(2);
    let joined = labels.get(..own).unwrap_or_default().concat();
    joined.len() > JOINED_MAX && bits(&joined) >= BITS_MIN * as_float(JOINED_MAX)
}

fn is_dense(text: &str) -> bool {
    bits(text) >= BITS_MIN * as_float(text.len())
}

/// Bits of all characters together, by how often each occurs.
fn bits(text: &str) -> f64 {
    let mut times: BTreeMap<u8, u32> = BTreeMap::new();
    for byte in text.bytes() {
        *times.entry(byte).or_default() += 1;
    }
    let length = as_float(text.len());
    let bits = times.values().map(|times| {
        let times = f64::from(*times);
        -times * (times / length).log2()
    });
    bits.sum()
}

/// Not more than 253, so nothing is lost.
fn as_float(length: usize) -> f64 {
    f64::from(u32::try_from(length).unwrap_or(u32::MAX))
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

    /// As clouds and those who give certificates make them, with words that are as long as people choose them.
    const LONG: [&str; 14] = [
        "internal-my-application-load-balancer-1234567890.ap-northeast-1.elb.amazonaws.com",
        "my-network-load-balancer-0123456789abcdef.elb.ap-southeast-2.amazonaws.com",
        "vpce-0a1b2c3d4e5f67890-abcdefgh-us-east-1a.execute-api.us-east-1.vpce.amazonaws.com",
        "my-database-cluster.cluster-ro-cabcdefghijk.ap-northeast-1.rds.amazonaws.com",
        "search-my-domain-abcdefghijklmnopqrstuvwxyz.us-east-1.es.amazonaws.com",
        "my-object-lambda-access-point-123456789012.s3-object-lambda.ap-southeast-1.amazonaws.com",
        "0123456789abcdef0123456789abcdef.gr7.us-east-1.eks.amazonaws.com",
        "d111111abcdef8.cloudfront.net",
        "_3639ac514e785e898d2646601fa951d5.kqlycvwlbp.acm-validations.aws",
        "my-web-app-with-a-long-name-dzf8b8cbd7gqazab.scm.westeurope-01.azurewebsites.net",
        "mystorageaccount.privatelink.blob.core.windows.net",
        "my-connection.my-project-with-a-long-name.europe-west1.c.my-project-with-a-long-name-123456.internal",
        "_acme-challenge.my-service.my-team-namespace.svc.my-production-cluster.eu-central-1.internal.example.com",
        "_acme-challenge.www.a-rather-long-name-of-a-project-in-production.example.com",
    ];

    #[test]
    fn data_in_many_short_labels_is_data_and_long_names_of_clouds_are_names() {
        for name in LONG {
            assert!(!carries_data(name), "{name}");
        }
        let data = "nb2hi4dthixs65dfon2c4y3pnuxwwzlzfqqgc3teebqw433unbsxeidpnzswk5dinfxgoidum5sxe";
        for width in [1, 3, 8, 15] {
            let bytes = data.repeat(3).into_bytes();
            // As much as a name of 253 characters has room for.
            let labels = 240 / (width + 1);
            let pieces: Vec<&[u8]> = bytes.chunks(width).take(labels).collect();
            let name = format!(
                "{}.t.example.com",
                String::from_utf8_lossy(&pieces.join(&b'.'))
            );
            assert!(carries_data(&name), "{width}: {name}");
        }
        // Few letters hold less each, and a name has room for many.
        let few = ["abcdeedcbaacebd"; 15].join(".");
        assert!(carries_data(&format!("{few}.example.com")), "five letters");
        // What says nothing is no data, however long it is.
        assert!(!carries_data(&format!(
            "{}.example.com",
            ["ab"; 60].join(".")
        )));
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
