//! The life of a snapshot: a saved file system of a sandbox, from which others begin.
//!
//! ```text
//! saving ─▶ ready ─▶ deleting ─▶ deleted        deleting waits until nothing stands on it any more
//!    └─▶ failed(why) ─▶ deleting
//! ```

use crate::limits;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum SnapshotState {
    /// Its sandbox is being copied.
    Saving,
    /// Sandboxes can begin with it.
    Ready,
    /// Nobody may begin with it any more; its bytes go when nothing stands on them.
    Deleting,
    /// Nothing of it is left but this record.
    Deleted,
    /// It never came to be.
    Failed {
        /// Why.
        why: String,
    },
}

/// What happens to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// Its node has the whole copy.
    Saved,
    /// There is no copy, and there will be none.
    Fail {
        /// Why.
        why: String,
    },
    /// Somebody wants it gone.
    Delete,
    /// Its node has nothing of it any more.
    Deleted,
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotStep {
    /// This state.
    Moved(SnapshotState),
    /// Nothing: it was so already.
    Unchanged,
}

/// The event may not happen in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is {state}")]
pub struct SnapshotDenied {
    /// The name of the state.
    pub state: &'static str,
}

impl SnapshotState {
    /// The name in records.
    pub fn name(&self) -> &'static str {
        match self {
            SnapshotState::Saving => "saving",
            SnapshotState::Ready => "ready",
            SnapshotState::Deleting => "deleting",
            SnapshotState::Deleted => "deleted",
            SnapshotState::Failed { .. } => "failed",
        }
    }

    /// The state that follows `event`. Pure.
    ///
    /// # Errors
    /// [`SnapshotDenied`] where the event may not happen in this state.
    pub fn step(&self, event: &SnapshotEvent) -> Result<SnapshotStep, SnapshotDenied> {
        use SnapshotEvent as E;
        use SnapshotState as S;
        let moved = |state| Ok(SnapshotStep::Moved(state));
        match (self, event) {
            (S::Saving, E::Saved) => moved(S::Ready),
            (S::Saving, E::Fail { why }) => moved(S::Failed { why: why.clone() }),
            (S::Saving | S::Ready | S::Failed { .. }, E::Delete) => moved(S::Deleting),
            (S::Deleting, E::Deleted) => moved(S::Deleted),
            // It was given up while its node was at it, and what that has made goes like any other.
            (S::Deleting, E::Saved | E::Fail { .. } | E::Delete)
            | (S::Ready, E::Saved)
            | (S::Deleted, E::Delete | E::Deleted)
            | (S::Failed { .. }, E::Fail { .. }) => Ok(SnapshotStep::Unchanged),
            _ => Err(SnapshotDenied { state: self.name() }),
        }
    }
}

/// What a snapshot is called, beside its id: a name, and a tag that tells those of one name apart. Of
/// several with the same name and tag the newest is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// Letters, digits and `_-./`, in small letters.
    pub name: String,
    /// The same, without `/`.
    pub tag: String,
}

/// The tag of a name that says none.
pub const TAG_DEFAULT: &str = "default";

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is 1 to {} of `a` to `z`, digits and `_-./`, begins with a letter or a digit, and may \
     have `:` and a tag behind it",
    limits::SNAPSHOT_NAME_BYTES_MAX
)]
pub struct NotAName;

impl FromStr for SnapshotName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<SnapshotName, NotAName> {
        let (name, tag) = text.split_once(':').unwrap_or((text, TAG_DEFAULT));
        let starts = |word: &str| word.bytes().next().is_some_and(is_plain);
        let name_fits = starts(name) && name.bytes().all(|b| is_plain(b) || b"_-./".contains(&b));
        let tag_fits = starts(tag) && tag.bytes().all(|b| is_plain(b) || b"_-.".contains(&b));
        if text.len() > limits::SNAPSHOT_NAME_BYTES_MAX || !name_fits || !tag_fits {
            return Err(NotAName);
        }
        Ok(SnapshotName {
            name: name.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    fn why() -> String {
        "fell".to_owned()
    }

    fn states() -> Vec<SnapshotState> {
        use SnapshotState as S;
        let failed = S::Failed { why: why() };
        vec![S::Saving, S::Ready, S::Deleting, S::Deleted, failed]
    }

    fn events() -> Vec<SnapshotEvent> {
        use SnapshotEvent as E;
        vec![E::Saved, E::Fail { why: why() }, E::Delete, E::Deleted]
    }

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let mut table = String::new();
        for state in states() {
            for event in events() {
                let next = state.step(&event);
                writeln!(table, "{} + {event:?} => {next:?}", state.name()).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_snapshot_can_be_deleted_from_every_state_and_twice() {
        for state in states() {
            let next = match state.step(&SnapshotEvent::Delete).unwrap() {
                SnapshotStep::Moved(next) => next,
                SnapshotStep::Unchanged => state,
            };
            assert_eq!(
                next.step(&SnapshotEvent::Delete),
                Ok(SnapshotStep::Unchanged)
            );
        }
    }

    #[test]
    fn a_name_has_a_tag_and_reads_back() {
        let name: SnapshotName = "team/my-env_1.2:v1".parse().unwrap();
        assert_eq!(
            (name.name.as_str(), name.tag.as_str()),
            ("team/my-env_1.2", "v1")
        );
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(
            "a".parse::<SnapshotName>().unwrap().to_string(),
            "a:default"
        );
        let long = "a".repeat(limits::SNAPSHOT_NAME_BYTES_MAX + 1);
        for text in [
            "", ":", "a:", ":a", "A", "a b", "a:b/c", "a:b:c", "../a", "ä", &long,
        ] {
            assert_eq!(text.parse::<SnapshotName>(), Err(NotAName), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_deleted_stays_deleted(picks in prop::collection::vec(0usize..4, 0..20)) {
            let mut state = SnapshotState::Deleted;
            for pick in picks {
                if let Ok(SnapshotStep::Moved(next)) = state.step(&events()[pick]) {
                    state = next;
                }
            }
            prop_assert_eq!(state, SnapshotState::Deleted);
        }
    }
}
