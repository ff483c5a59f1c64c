//! What commands in sandboxes wrote and was not shown, until somebody reads on or others need the room.
//!
//! A server that restarts loses it, as it would lose what a terminal had scrolled by. A name on the shelf is
//! random, and good only for whom it was made.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Texts on one shelf.
const TEXTS_MAX: usize = 128;
/// Bytes on one shelf: some dozens of the longest texts.
const BYTES_MAX: usize = 32 << 20;

/// The newest texts of one caller.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    kept: Arc<Mutex<Row>>,
}

#[derive(Debug, Default)]
struct Row {
    /// The oldest first.
    texts: VecDeque<(String, Arc<[u8]>)>,
    bytes: usize,
}

impl Shelf {
    /// Keeps a text, in the place of the oldest where there is no room. None where no name can be had.
    pub(crate) fn put(&self, text: Vec<u8>) -> Option<String> {
        let name = name()?;
        let mut row = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        row.bytes = row.bytes.saturating_add(text.len());
        row.texts.push_back((name.clone(), text.into()));
        while row.texts.len() > TEXTS_MAX || row.bytes > BYTES_MAX {
            let Some((_, oldest)) = row.texts.pop_front() else {
                break;
            };
            row.bytes = row.bytes.saturating_sub(oldest.len());
        }
        Some(name)
    }

    /// The text of this name, if it is still there.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<[u8]>> {
        let row = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = row.texts.iter().find(|(known, _)| known == name);
        found.map(|(_, text)| text.clone())
    }
}

/// A name that nobody guesses: 128 random bits.
fn name() -> Option<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    Some(format!("out_{:032x}", u128::from_be_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_are_too_many_or_too_much() {
        let shelf = Shelf::default();
        let first = shelf.put(b"first".to_vec()).unwrap();
        assert_eq!(shelf.get(&first).as_deref(), Some(&b"first"[..]));
        for _ in 0..TEXTS_MAX {
            shelf.put(b"more".to_vec());
        }
        assert_eq!(shelf.get(&first), None);
        let large: Vec<String> = (0..40)
            .map(|_| shelf.put(vec![0; 1 << 20]).unwrap())
            .collect();
        assert_eq!(shelf.get(&large[7]), None);
        assert!(shelf.get(&large[8]).is_some() && shelf.get(&large[39]).is_some());
    }

    #[test]
    fn a_name_is_good_on_its_own_shelf_only() {
        let (mine, yours) = (Shelf::default(), Shelf::default());
        let name = mine.put(b"x".to_vec()).unwrap();
        assert_eq!(yours.get(&name), None);
        assert_eq!(mine.get("out_00000000000000000000000000000000"), None);
    }
}
