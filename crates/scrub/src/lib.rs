//! Takes secrets out of streams and texts: values that are known, and what has the shape of a credential.
//!
//! This is for accidents: a stack trace, `env`, `curl -v`. A program that means to tell what it knows can
//! write it in a way that nobody looks for.
//!
//! A stream comes in pieces that may be cut anywhere, so what could be the beginning of something is held
//! back until it is known. [`Known`] and [`Scrubber`] look for values, as they are and as they are often
//! written; [`Shapes`] looks for keys and tokens that nobody named, by their well-known beginnings.
//!
//! This room must never read a clock or a file, wait for anything, or panic, whatever the bytes are. It must
//! never hold more of a stream than a constant, nor take longer than the stream's length.

mod shape;
mod value;

pub use shape::Shapes;
pub use value::{Known, Scrubber, TooMuch, VALUE_BYTES_MIN};

use std::sync::Arc;

/// One stream, without values that are known and, where that is asked for, without what looks like a
/// credential.
#[derive(Debug)]
pub struct Cleaner {
    values: Option<Scrubber>,
    shapes: Option<Shapes>,
}

impl Cleaner {
    /// At the beginning of a stream. Nothing where nothing is looked for.
    #[must_use]
    pub fn new(known: Option<&Arc<Known>>, patterns: bool) -> Option<Cleaner> {
        let cleaner = Cleaner {
            values: known.map(Scrubber::new),
            shapes: patterns.then(Shapes::new),
        };
        (known.is_some() || patterns).then_some(cleaner)
    }

    /// Takes the next bytes of the stream, and gives what of it can be told now.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        match (&mut self.values, &mut self.shapes) {
            (None, None) => bytes.to_vec(),
            (Some(values), None) => values.feed(bytes),
            (None, Some(shapes)) => shapes.feed(bytes),
            (Some(values), Some(shapes)) => shapes.feed(&values.feed(bytes)),
        }
    }

    /// The stream is over: what was held back begins nothing.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let rest = self.values.as_mut().map(Scrubber::finish);
        let rest = rest.unwrap_or_default();
        match &mut self.shapes {
            None => rest,
            Some(shapes) => {
                let mut out = shapes.feed(&rest);
                out.extend(shapes.finish());
                out
            }
        }
    }

    /// Nobody waits any longer, and the stream goes on: everything that was held back is told. What is left of a
    /// value or a credential that comes later is told as it is, unless its beginning was known for what it is.
    #[must_use]
    pub fn release(&mut self) -> Vec<u8> {
        let rest = self.values.as_mut().map(Scrubber::finish);
        let rest = rest.unwrap_or_default();
        match &mut self.shapes {
            None => rest,
            Some(shapes) => {
                let mut out = shapes.feed(&rest);
                out.extend(shapes.release());
                out
            }
        }
    }

    /// The same of what could be a credential alone: what could be a value that is known waits on.
    #[must_use]
    pub fn release_shapes(&mut self) -> Vec<u8> {
        self.shapes
            .as_mut()
            .map(Shapes::release)
            .unwrap_or_default()
    }

    /// Whether something is held back because it could be a credential, and [`Cleaner::release_shapes`] would tell
    /// it.
    #[must_use]
    pub fn holds_shapes(&self) -> bool {
        self.shapes
            .as_ref()
            .is_some_and(|shapes| shapes.pending() > 0)
    }

    /// Bytes that were taken and are not told yet. Whoever goes on with the stream in another process has
    /// to see them again. What stands in for a value is in no shape, so all that a shape holds back are
    /// bytes as they came, after the last value.
    #[must_use]
    pub fn pending(&self) -> usize {
        let values = self.values.as_ref().map_or(0, Scrubber::pending);
        values + self.shapes.as_ref().map_or(0, Shapes::pending)
    }

    /// How many credentials were found by their shape.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.shapes.as_ref().map_or(0, Shapes::found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// However a stream is cut, and wherever another process goes on with it, the same is told.
        #[test]
        fn another_process_may_go_on_anywhere(
            parts in prop::collection::vec(0..5_usize, 0..8),
            cut in 0..400_usize,
            sizes in prop::collection::vec(1..40_usize, 1..5),
        ) {
            let token = format!("ghp_{}", "a1B2".repeat(10));
            let value = "hunter2/value:that is known";
            let known = Known::new([("S", value.as_bytes())]).unwrap();
            let texts = ["x", value, &token, "-----BEGIN PRIVATE KEY-----\nAAAA", "ghp_"];
            let mut text = String::from("<");
            for part in &parts {
                text.push_str(texts[*part]);
                text.push_str(" |");
            }
            let cleaner = || Cleaner::new(known.as_ref(), true).unwrap();
            let mut whole = cleaner();
            let mut expected = whole.feed(text.as_bytes());
            expected.extend(whole.finish());
            let (first, rest) = text.as_bytes().split_at(cut.min(text.len()));
            let mut one = cleaner();
            let mut told = one.feed(first);
            let again = first.len() - one.pending();
            let mut two = cleaner();
            let mut rest = [&first[again..], rest].concat();
            for size in sizes.iter().cycle() {
                let now: Vec<u8> = rest.drain(..rest.len().min(*size)).collect();
                told.extend(two.feed(&now));
                if rest.is_empty() {
                    break;
                }
            }
            told.extend(two.finish());
            prop_assert_eq!(String::from_utf8(told).unwrap(), String::from_utf8(expected).unwrap());
        }
    }
}
