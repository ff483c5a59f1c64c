//! Sets of things of which some hold others: names with a `*` at the end, paths, entries of a network. Two sets meet in
//! what both hold. Each is kept without what others of it hold, in order, so that equal sets are equal values.
//!
//! The lists are a stranger's, and two of them are 65,536 pairs. So what comes of them is bounded before anything more
//! is done with it, and what is held by others is found by one walk in order, and not by comparing all with all.

use crate::limits;
use crate::network::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

/// Something that can hold another of its kind. Of two at one port, one is within the other, or they have nothing in
/// common.
pub(super) trait Holds: Clone + Eq + Hash {
    /// Whether all that the other names is named here.
    fn holds(&self, other: &Self) -> bool;
    /// What both name.
    fn both(&self, other: &Self) -> Option<Self>;
    /// By what they are put in order.
    fn text(&self) -> String;
    /// Where it stands among others: all that it holds stands right behind it, with nothing else between.
    fn place(&self) -> String;
    /// The port that it is about, if it is about one alone. At another port nothing is held.
    fn port(&self) -> Option<u16> {
        None
    }
}

/// A name, or all that begin with what is before the `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pattern(pub(super) String);

impl Holds for Pattern {
    fn holds(&self, other: &Pattern) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => other.0.trim_end_matches('*').starts_with(start),
            None => self.0 == other.0,
        }
    }

    fn both(&self, other: &Pattern) -> Option<Pattern> {
        within(self, other)
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn place(&self) -> String {
        match self.0.strip_suffix('*') {
            Some(start) => start.to_owned(),
            None => format!("{}\0", self.0),
        }
    }
}

/// A path and all below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Prefix(pub(super) String);

impl Holds for Prefix {
    fn holds(&self, other: &Prefix) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        self.0 == "/" || other.0.strip_prefix(self.0.as_str()).is_some_and(below)
    }

    fn both(&self, other: &Prefix) -> Option<Prefix> {
        within(self, other)
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn place(&self) -> String {
        match self.0.as_str() {
            "/" => String::new(),
            // Before any other sign, so that `/a/b` stands before `/a-b`.
            path => path.replace('/', "\0"),
        }
    }
}

impl Holds for Entry {
    fn holds(&self, other: &Entry) -> bool {
        self.covers(other)
    }

    fn both(&self, other: &Entry) -> Option<Entry> {
        self.meet(other)
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn place(&self) -> String {
        self.place_in_order()
    }

    fn port(&self) -> Option<u16> {
        Entry::port(self)
    }
}

/// The one of the two that is within the other.
fn within<T: Holds>(one: &T, other: &T) -> Option<T> {
    if one.holds(other) {
        return Some(other.clone());
    }
    other.holds(one).then(|| one.clone())
}

/// The same set without what others of it hold.
pub(super) fn plain<T: Holds>(all: HashSet<T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.sort_by_cached_key(|one| (one.place(), one.port()));
    // What was kept last at each port, and at all of them: nothing else can hold what comes next.
    let mut last: HashMap<Option<u16>, T> = HashMap::new();
    let mut kept = Vec::new();
    for one in all {
        let holds = |port: Option<u16>| last.get(&port).is_some_and(|last| last.holds(&one));
        if !holds(None) && !holds(one.port()) {
            last.insert(one.port(), one.clone());
            kept.push(one);
        }
    }
    kept.sort_by_cached_key(Holds::text);
    kept
}

/// The same for texts.
pub(super) fn plain_texts<T: Holds>(
    read: fn(String) -> T,
    set: &BTreeSet<String>,
) -> BTreeSet<String> {
    let all = plain(set.iter().cloned().map(read).collect());
    all.iter().map(Holds::text).collect()
}

/// What both sets hold. Where that would be too much it is nothing.
pub(super) fn meet<T: Holds>(one: &[T], other: &[T]) -> Vec<T> {
    let mut found = HashSet::new();
    for a in one {
        found.extend(other.iter().filter_map(|b| a.both(b)));
        if found.len() > limits::PERMIT_MEETS_MAX {
            return Vec::new();
        }
    }
    plain(found)
}

/// The same for texts.
pub(super) fn meet_texts<T: Holds>(
    read: fn(String) -> T,
    one: &BTreeSet<String>,
    other: &BTreeSet<String>,
) -> BTreeSet<String> {
    let all = |set: &BTreeSet<String>| set.iter().cloned().map(read).collect::<Vec<T>>();
    let both = meet(&all(one), &all(other));
    both.iter().map(Holds::text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sets_meet_in_what_both_hold() {
        let names = |a: &[&str], b: &[&str]| meet_texts(Pattern, &texts(a), &texts(b));
        assert_eq!(
            names(&["py*", "node"], &["python", "no*"]),
            texts(&["python", "node"])
        );
        assert_eq!(names(&["*"], &["a*", "ab"]), texts(&["a*"]));
        assert_eq!(names(&["a"], &["b"]), texts(&[]));
        let paths = |a: &[&str], b: &[&str]| meet_texts(Prefix, &texts(a), &texts(b));
        assert_eq!(paths(&["/tmp"], &["/"]), texts(&["/tmp"]));
        assert_eq!(paths(&["/tmp/a"], &["/tmp", "/home"]), texts(&["/tmp/a"]));
        assert_eq!(paths(&["/tmpx"], &["/tmp"]), texts(&[]));
        let hosts = |a: &[&str], b: &[&str]| {
            let read = |all: &[&str]| -> Vec<Entry> {
                all.iter().map(|one| one.parse().unwrap()).collect()
            };
            let both = meet(&read(a), &read(b));
            both.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(hosts(&["*.a.test:443"], &["x.a.test"]), ["x.a.test:443"]);
        assert_eq!(hosts(&["*.a.test:443"], &["x.a.test:80"]), [""; 0]);
        assert_eq!(hosts(&["*.a.test"], &["a.test"]), [""; 0]);
        assert_eq!(
            hosts(&["*"], &["a.test", "*.a.test"]),
            ["*.a.test", "a.test"]
        );
    }

    fn entries(texts: impl IntoIterator<Item = String>) -> Vec<Entry> {
        texts.into_iter().map(|one| one.parse().unwrap()).collect()
    }

    /// Attack: two legal lists whose entries all meet, so that a server compares for minutes what comes of them.
    #[test]
    fn the_longest_lists_meet_within_a_moment() {
        let begun = std::time::Instant::now();
        let nested = entries((1..=120).map(|depth| format!("*.{}test", "a.".repeat(depth))));
        let ports = entries((1..=256).map(|port| format!("*:{port}")));
        assert!(meet(&nested, &ports).is_empty(), "more than may be");
        let few = entries((1..=16).map(|port| format!("*:{port}")));
        let met = meet(&nested, &few);
        assert_eq!(met.len(), 16, "the widest at each port");
        let names = entries((0..256).map(|number| format!("host-{number}.test")));
        assert_eq!(meet(&names, &names).len(), 256);
        let starts: BTreeSet<String> = (0..256).map(|n| format!("{}*", "a".repeat(n))).collect();
        assert_eq!(meet_texts(Pattern, &starts, &starts), texts(&["*"]));
        assert!(begun.elapsed() < std::time::Duration::from_secs(2));
    }

    /// What it was before it was made fast: each compared with each.
    fn slowly<T: Holds>(all: &[T]) -> Vec<T> {
        let held = |one: &T| all.iter().any(|other| other != one && other.holds(one));
        let mut kept: Vec<T> = all.iter().filter(|one| !held(one)).cloned().collect();
        kept.sort_by_key(Holds::text);
        kept
    }

    const ENTRIES: [&str; 18] = [
        "*",
        "*:443",
        "*.a.test",
        "*.a.test:443",
        "a.test",
        "x.a.test",
        "x.a.test:443",
        "y.x.a.test:80",
        "*.x.a.test:80",
        "*.test:80",
        "xa.test",
        "9.0.0.0/8",
        "9.9.0.0/16:443",
        "9.9.9.9",
        "0.0.0.0/0:80",
        "2001:db8::/32",
        "[2001:db8::1]:443",
        "*:80",
    ];

    proptest! {
        #[test]
        fn one_walk_finds_what_comparing_all_with_all_does(
            places in proptest::collection::hash_set(0..ENTRIES.len(), 0..10),
            names in proptest::collection::hash_set("[ab]{0,3}[*]?", 0..8),
            paths in proptest::collection::hash_set("(/[ab-]{1,2}){1,3}", 0..8),
        ) {
            let some: HashSet<Entry> = places.iter().map(|at| ENTRIES[*at].parse().unwrap()).collect();
            let all: Vec<Entry> = some.iter().cloned().collect();
            prop_assert_eq!(plain(some), slowly(&all));
            let some: HashSet<Pattern> = names.into_iter().map(Pattern).collect();
            let all: Vec<Pattern> = some.iter().cloned().collect();
            prop_assert_eq!(plain(some), slowly(&all));
            let some: HashSet<Prefix> = paths.into_iter().map(Prefix).collect();
            let all: Vec<Prefix> = some.iter().cloned().collect();
            prop_assert_eq!(plain(some), slowly(&all));
        }
    }
}
