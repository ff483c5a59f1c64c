//! Sets of things of which some hold others: names with a `*` at the end, paths, entries of a network. Two sets meet in
//! what both hold. Each is kept without what others of it hold, in order, so that equal sets are equal values.

use crate::network::Entry;
use std::collections::BTreeSet;

/// Something that can hold another of its kind.
pub(super) trait Holds: Clone {
    /// Whether all that the other names is named here.
    fn holds(&self, other: &Self) -> bool;
    /// What both name.
    fn both(&self, other: &Self) -> Option<Self>;
    /// By what they are put in order.
    fn text(&self) -> String;
}

/// A name, or all that begin with what is before the `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// A path and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// The one of the two that is within the other.
fn within<T: Holds>(one: &T, other: &T) -> Option<T> {
    if one.holds(other) {
        return Some(other.clone());
    }
    other.holds(one).then(|| one.clone())
}

/// The same set without what others of it hold.
pub(super) fn plain<T: Holds>(mut all: Vec<T>) -> Vec<T> {
    all.sort_by_cached_key(Holds::text);
    all.dedup_by_key(|one| one.text());
    let is_held = |one: &T| {
        let text = one.text();
        let mut others = all.iter().filter(|other| other.text() != text);
        others.any(|other| other.holds(one) && !(one.holds(other) && other.text() > text))
    };
    let held: Vec<bool> = all.iter().map(is_held).collect();
    let mut held = held.into_iter();
    all.retain(|_| !held.next().unwrap_or(false));
    all
}

/// What both sets hold.
pub(super) fn meet<T: Holds>(one: &[T], other: &[T]) -> Vec<T> {
    let pairs = one
        .iter()
        .flat_map(|a| other.iter().filter_map(move |b| a.both(b)));
    plain(pairs.collect())
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
}
