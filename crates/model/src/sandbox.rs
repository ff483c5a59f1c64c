//! The life of a sandbox.
//!
//! ```text
//! requested ─▶ provisioning ─▶ ready ⇄ pausing, paused, resuming        snapshotting ⇄ ready, paused
//!                   │            │
//!                   ▼            ▼
//!                failed(why)   destroying ─▶ destroyed        expiry destroys or pauses, as asked
//! ```

use crate::id::SnapshotId;
use serde::{Deserialize, Serialize};

/// Where a sandbox is. What is being done to it is a state too, so that whoever finds it after a crash
/// knows what to do again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum SandboxState {
    /// It is wanted.
    Requested,
    /// A node is making it.
    Provisioning,
    /// It can be used.
    Ready,
    /// It is being stopped in its tracks.
    Pausing,
    /// It is kept, and nothing in it runs.
    Paused,
    /// It is being brought back.
    Resuming,
    /// It is being copied; afterwards it is what it was.
    Snapshotting {
        /// It was paused before.
        paused: bool,
        /// What the copy is.
        snapshot: SnapshotId,
    },
    /// It is being taken away.
    Destroying,
    /// Nothing of it is left but this record.
    Destroyed,
    /// It never stood, or fell.
    Failed {
        /// Why.
        why: String,
    },
}

/// What happens to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxEvent {
    /// A node begins to make it.
    Provision,
    /// It stands, or stands again.
    Ready,
    /// Somebody wants it paused.
    Pause,
    /// It is paused.
    Paused,
    /// Somebody wants it back.
    Resume,
    /// Somebody wants a copy.
    Snapshot {
        /// What the copy is to be.
        snapshot: SnapshotId,
    },
    /// The copy is made, or cannot be made.
    SnapshotDone,
    /// Its time is over.
    Expire {
        /// It is to be paused rather than destroyed.
        pause: bool,
    },
    /// Somebody wants it gone.
    Destroy,
    /// It is gone.
    Destroyed,
    /// It could not be made, or broke.
    Fail {
        /// Why.
        why: String,
    },
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This state.
    Moved(SandboxState),
    /// Nothing: it was so already.
    Unchanged,
}

/// The event may not happen in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sandbox is {state}")]
pub struct Denied {
    /// The name of the state.
    pub state: &'static str,
}

/// What its node is to do with a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Make it.
    Make,
    /// Stop it in its tracks and keep it.
    Pause,
    /// Bring it back.
    Resume,
    /// Copy what was written in it.
    Snapshot,
    /// Take it away.
    Destroy,
}

impl SandboxState {
    /// What its node is to do; `None` where nothing is to be done. Each order has an epoch of its own, so
    /// that what a node says about an earlier one is known as that.
    pub fn want(&self) -> Option<Want> {
        match self {
            SandboxState::Provisioning => Some(Want::Make),
            SandboxState::Pausing => Some(Want::Pause),
            SandboxState::Resuming => Some(Want::Resume),
            SandboxState::Snapshotting { .. } => Some(Want::Snapshot),
            SandboxState::Destroying => Some(Want::Destroy),
            SandboxState::Requested
            | SandboxState::Ready
            | SandboxState::Paused
            | SandboxState::Destroyed
            | SandboxState::Failed { .. } => None,
        }
    }

    /// Nothing will become of it any more but its removal.
    pub fn is_over(&self) -> bool {
        matches!(self, SandboxState::Destroyed | SandboxState::Failed { .. })
    }

    /// Nobody has to do anything for it to be as it was wanted last.
    pub fn is_settled(&self) -> bool {
        *self != SandboxState::Requested && self.want().is_none()
    }

    /// The name in records.
    pub fn name(&self) -> &'static str {
        match self {
            SandboxState::Requested => "requested",
            SandboxState::Provisioning => "provisioning",
            SandboxState::Ready => "ready",
            SandboxState::Pausing => "pausing",
            SandboxState::Paused => "paused",
            SandboxState::Resuming => "resuming",
            SandboxState::Snapshotting { .. } => "snapshotting",
            SandboxState::Destroying => "destroying",
            SandboxState::Destroyed => "destroyed",
            SandboxState::Failed { .. } => "failed",
        }
    }

    /// The state that follows `event`. Pure.
    ///
    /// # Errors
    /// [`Denied`] where the event may not happen in this state.
    pub fn step(&self, event: &SandboxEvent) -> Result<Step, Denied> {
        use SandboxEvent as E;
        use SandboxState as S;
        let moved = |state| Ok(Step::Moved(state));
        match (self, event) {
            // Over is over; to want it gone, or to say so again, is no mistake.
            (S::Destroyed, E::Destroy | E::Destroyed | E::Expire { .. }) => Ok(Step::Unchanged),
            (S::Failed { .. }, E::Fail { .. } | E::Expire { .. }) => Ok(Step::Unchanged),
            // Whatever is left of a failed one is taken away like any other.
            (S::Failed { .. }, E::Destroy) => moved(S::Destroying),
            (S::Destroying, E::Destroyed) => moved(S::Destroyed),
            (S::Destroying, E::Destroy | E::Expire { .. }) => Ok(Step::Unchanged),
            (S::Destroyed | S::Failed { .. } | S::Destroying, _) => {
                Err(Denied { state: self.name() })
            }
            (_, E::Destroy) => moved(S::Destroying),
            (_, E::Fail { why }) => moved(S::Failed { why: why.clone() }),

            (S::Requested, E::Provision) => moved(S::Provisioning),
            (S::Provisioning, E::Provision) | (S::Ready, E::Ready) => Ok(Step::Unchanged),
            (S::Provisioning | S::Resuming, E::Ready) => moved(S::Ready),

            (S::Ready, E::Pause | E::Expire { pause: true }) => moved(S::Pausing),
            (S::Pausing | S::Paused, E::Pause | E::Expire { pause: true }) => Ok(Step::Unchanged),
            (S::Pausing, E::Paused) => moved(S::Paused),
            (S::Paused, E::Paused | E::SnapshotDone) => Ok(Step::Unchanged),
            (S::Paused, E::Resume) => moved(S::Resuming),
            (S::Ready | S::Resuming, E::Resume) | (S::Ready, E::SnapshotDone) => {
                Ok(Step::Unchanged)
            }

            (S::Ready | S::Paused, E::Snapshot { snapshot }) => moved(S::Snapshotting {
                paused: *self == S::Paused,
                snapshot: snapshot.clone(),
            }),
            (S::Snapshotting { snapshot, .. }, E::Snapshot { snapshot: again })
                if snapshot == again =>
            {
                Ok(Step::Unchanged)
            }
            (S::Snapshotting { paused: true, .. }, E::SnapshotDone) => moved(S::Paused),
            (S::Snapshotting { paused: false, .. }, E::SnapshotDone) => moved(S::Ready),

            (_, E::Expire { pause: false }) => moved(S::Destroying),
            _ => Err(Denied { state: self.name() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    fn snapshot() -> SnapshotId {
        SnapshotId::from_parts(0, [1; 10])
    }

    fn snapshotting(paused: bool) -> SandboxState {
        SandboxState::Snapshotting {
            paused,
            snapshot: snapshot(),
        }
    }

    fn states() -> Vec<SandboxState> {
        use SandboxState as S;
        vec![
            S::Requested,
            S::Provisioning,
            S::Ready,
            S::Pausing,
            S::Paused,
            S::Resuming,
            snapshotting(false),
            snapshotting(true),
            S::Destroying,
            S::Destroyed,
            S::Failed {
                why: "fell".to_owned(),
            },
        ]
    }

    fn events() -> Vec<SandboxEvent> {
        use SandboxEvent as E;
        vec![
            E::Provision,
            E::Ready,
            E::Pause,
            E::Paused,
            E::Resume,
            E::Snapshot {
                snapshot: snapshot(),
            },
            E::SnapshotDone,
            E::Expire { pause: false },
            E::Expire { pause: true },
            E::Destroy,
            E::Destroyed,
            E::Fail {
                why: "fell".to_owned(),
            },
        ]
    }

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let mut table = String::new();
        for state in states() {
            for event in events() {
                writeln!(
                    table,
                    "{} + {event:?} => {:?}",
                    state.name(),
                    state.step(&event)
                )
                .unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn an_order_ends_in_a_state_without_one() {
        use SandboxEvent as E;
        let ends = [E::Ready, E::Paused, E::SnapshotDone, E::Destroyed];
        for state in states() {
            let done = ends
                .iter()
                .any(|end| matches!(state.step(end), Ok(Step::Moved(next)) if next.is_settled()));
            assert_eq!(state.want().is_some(), done, "{state:?}");
        }
    }

    #[test]
    fn a_sandbox_can_be_destroyed_from_every_state() {
        for state in states() {
            assert!(state.step(&SandboxEvent::Destroy).is_ok(), "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_destroyed_stays_destroyed(picks in prop::collection::vec(0usize..12, 0..40)) {
            let mut state = SandboxState::Destroyed;
            for pick in picks {
                if let Ok(Step::Moved(next)) = state.step(&events()[pick]) {
                    state = next;
                }
            }
            prop_assert_eq!(state, SandboxState::Destroyed);
        }
    }
}
