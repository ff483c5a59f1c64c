//! How many connections go to the guests at a time.
//!
//! Each costs two buffers and a stream of its node, and whoever knows a sandbox's name can open them to
//! a port that is open to everybody. So that nobody takes the places of all, each sandbox has its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::id::SandboxId;

/// Connections to one sandbox: the SDKs open up to 200 for their streams.
pub(crate) const OF_ONE_MAX: usize = 256;
/// Connections to all: with 128 KiB of buffers each, 128 MiB.
const OF_ALL_MAX: usize = 1024;

/// Who has how many. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    of_all: usize,
    /// Only sandboxes that have one.
    by_sandbox: HashMap<SandboxId, usize>,
}

/// One connection's right to be. It ends with this.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    id: SandboxId,
}

impl Places {
    /// A place, or `None` when the sandbox or all have too many.
    pub(crate) fn take(&self, id: &SandboxId) -> Option<Place> {
        let mut taken = self.lock();
        let own = taken.by_sandbox.get(id).copied().unwrap_or(0);
        if own >= OF_ONE_MAX || taken.of_all >= OF_ALL_MAX {
            return None;
        }
        taken.of_all += 1;
        taken.by_sandbox.insert(id.clone(), own + 1);
        Some(Place {
            places: self.clone(),
            id: id.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.of_all = taken.of_all.saturating_sub(1);
        match taken.by_sandbox.get_mut(&self.id) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by_sandbox.remove(&self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sandbox_cannot_take_the_places_of_others_and_gives_its_own_back() {
        let id = |last| SandboxId::from_parts(1_750_000_000_000, [last; 10]);
        let places = Places::default();
        let held: Vec<Place> = (0..OF_ONE_MAX)
            .filter_map(|_| places.take(&id(1)))
            .collect();
        assert_eq!(held.len(), OF_ONE_MAX);
        assert!(places.take(&id(1)).is_none());
        let others = (2..10).flat_map(|n| std::iter::repeat_n(n, OF_ONE_MAX));
        let other: Vec<Place> = others.filter_map(|n| places.take(&id(n))).collect();
        assert_eq!(held.len() + other.len(), OF_ALL_MAX);
        drop(held);
        assert!(places.take(&id(1)).is_some());
        drop(other);
        let taken = places.lock();
        assert_eq!((taken.of_all, taken.by_sandbox.len()), (0, 0));
    }
}
