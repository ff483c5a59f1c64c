//! The life of a sandbox.
//!
//! ```text
//! requested ─▶ provisioning ─▶ ready ⇄ pausing, paused, resuming        snapshotting ⇄ ready, paused
//!                   │            │
//!                   ▼            ▼
//!                failed(why)   destroying ─▶ destroyed        expiry destroys or pauses, as asked
//!
//! failed, and all that is not over ─▶ recreating ─▶ requested
//! ```

use crate::id::SnapshotId;
use crate::sandbox_spec::OnExpiry;
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
    Pausing {
        /// What runs in it is kept; else it ends, and only files stay. Rows of older builds kept it.
        #[serde(default = "kept")]
        memory: bool,
    },
    /// It is kept, and nothing in it runs.
    Paused {
        /// What ran in it goes on when it comes back.
        #[serde(default = "kept")]
        memory: bool,
    },
    /// It is being brought back.
    Resuming {
        /// What ran in it goes on; else it begins with its files alone.
        #[serde(default = "kept")]
        memory: bool,
    },
    /// It is being copied; afterwards it is what it was.
    Snapshotting {
        /// It was paused before.
        paused: bool,
        /// If it was, what ran in it is kept.
        #[serde(default = "kept")]
        memory: bool,
        /// What the copy is.
        snapshot: SnapshotId,
    },
    /// Its place is being taken away, and it gets another one.
    Recreating,
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

fn kept() -> bool {
    true
}

/// What happens to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxEvent {
    /// A node begins to make it.
    Provision,
    /// It stands, or stands again.
    Ready,
    /// Somebody wants it paused.
    Pause {
        /// What runs in it is to be kept.
        memory: bool,
    },
    /// It is paused.
    Paused,
    /// Somebody wants it back.
    Resume {
        /// What ran in it is to go on, if it was kept.
        memory: bool,
    },
    /// Somebody wants a copy.
    Snapshot {
        /// What the copy is to be.
        snapshot: SnapshotId,
    },
    /// The copy is made, or cannot be made.
    SnapshotDone,
    /// Somebody wants it as it was at first, in another place.
    Recreate,
    /// Its time is over.
    Expire {
        /// What is to become of it.
        then: OnExpiry,
    },
    /// Somebody wants it gone.
    Destroy,
    /// It is gone, or its place is.
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
            SandboxState::Pausing { .. } => Some(Want::Pause),
            SandboxState::Resuming { .. } => Some(Want::Resume),
            SandboxState::Snapshotting { .. } => Some(Want::Snapshot),
            SandboxState::Recreating | SandboxState::Destroying => Some(Want::Destroy),
            SandboxState::Requested
            | SandboxState::Ready
            | SandboxState::Paused { .. }
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
            SandboxState::Pausing { .. } => "pausing",
            SandboxState::Paused { .. } => "paused",
            SandboxState::Resuming { .. } => "resuming",
            SandboxState::Snapshotting { .. } => "snapshotting",
            SandboxState::Recreating => "recreating",
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
        if *self == S::Recreating || *event == E::Recreate {
            return self.step_anew(event);
        }
        match (self, event) {
            (S::Destroyed | S::Failed { .. } | S::Destroying, _) => self.step_over(event),
            (_, E::Destroy) => moved(S::Destroying),
            (_, E::Fail { why }) => moved(S::Failed { why: why.clone() }),

            (S::Requested, E::Provision) => moved(S::Provisioning),
            (S::Provisioning, E::Provision) | (S::Ready, E::Ready) => Ok(Step::Unchanged),
            (S::Provisioning | S::Resuming { .. }, E::Ready) => moved(S::Ready),

            (S::Ready, E::Pause { memory }) => moved(S::Pausing { memory: *memory }),
            // What is kept can be let go later; what was let go does not come back.
            (
                S::Pausing { memory: true } | S::Paused { memory: true },
                E::Pause { memory: false },
            ) => moved(S::Pausing { memory: false }),
            (S::Pausing { .. } | S::Paused { .. }, E::Pause { .. }) => Ok(Step::Unchanged),
            (S::Pausing { memory }, E::Paused) => moved(S::Paused { memory: *memory }),
            (S::Paused { .. }, E::Paused | E::SnapshotDone) => Ok(Step::Unchanged),
            (S::Paused { memory: kept }, E::Resume { memory }) => moved(S::Resuming {
                memory: *kept && *memory,
            }),
            (S::Ready | S::Resuming { .. }, E::Resume { .. }) | (S::Ready, E::SnapshotDone) => {
                Ok(Step::Unchanged)
            }

            (S::Ready, E::Snapshot { snapshot }) => moved(S::Snapshotting {
                paused: false,
                memory: true,
                snapshot: snapshot.clone(),
            }),
            (S::Paused { memory }, E::Snapshot { snapshot }) => moved(S::Snapshotting {
                paused: true,
                memory: *memory,
                snapshot: snapshot.clone(),
            }),
            (S::Snapshotting { snapshot, .. }, E::Snapshot { snapshot: again })
                if snapshot == again =>
            {
                Ok(Step::Unchanged)
            }
            (
                S::Snapshotting {
                    paused: true,
                    memory,
                    ..
                },
                E::SnapshotDone,
            ) => moved(S::Paused { memory: *memory }),
            (S::Snapshotting { paused: false, .. }, E::SnapshotDone) => moved(S::Ready),

            (_, E::Expire { then }) => match then.pause() {
                None => moved(S::Destroying),
                Some(memory) => self.step(&E::Pause { memory }),
            },
            _ => Err(Denied { state: self.name() }),
        }
    }

    /// The same of what is over, or on its way there. To want it gone, or to say so again, is no mistake.
    fn step_over(&self, event: &SandboxEvent) -> Result<Step, Denied> {
        use SandboxEvent as E;
        use SandboxState as S;
        match (self, event) {
            (S::Destroyed, E::Destroy | E::Destroyed | E::Expire { .. })
            | (S::Failed { .. }, E::Fail { .. } | E::Expire { .. })
            | (S::Destroying, E::Destroy | E::Expire { .. }) => Ok(Step::Unchanged),
            // Whatever is left of a failed one is taken away like any other.
            (S::Failed { .. }, E::Destroy) => Ok(Step::Moved(S::Destroying)),
            (S::Destroying, E::Destroyed) => Ok(Step::Moved(S::Destroyed)),
            _ => Err(Denied { state: self.name() }),
        }
    }

    /// The same of what becomes another place, or is to.
    fn step_anew(&self, event: &SandboxEvent) -> Result<Step, Denied> {
        use SandboxEvent as E;
        use SandboxState as S;
        let moved = |state| Ok(Step::Moved(state));
        match (self, event) {
            // What is wanted gone goes.
            (S::Destroying | S::Destroyed, _) => Err(Denied { state: self.name() }),
            // One that waits for its first place has nothing to be taken away, and no time of one whose
            // place goes runs.
            (S::Requested | S::Recreating, E::Recreate) | (S::Recreating, E::Expire { .. }) => {
                Ok(Step::Unchanged)
            }
            // Whatever is left of a failed one is taken away like any other.
            (_, E::Recreate) => moved(S::Recreating),
            (_, E::Destroyed) => moved(S::Requested),
            (_, E::Destroy) => moved(S::Destroying),
            (_, E::Fail { why }) => moved(S::Failed { why: why.clone() }),
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

    fn snapshotting(memory_of_paused: Option<bool>) -> SandboxState {
        SandboxState::Snapshotting {
            paused: memory_of_paused.is_some(),
            memory: memory_of_paused.unwrap_or(true),
            snapshot: snapshot(),
        }
    }

    fn states() -> Vec<SandboxState> {
        use SandboxState as S;
        vec![
            S::Requested,
            S::Provisioning,
            S::Ready,
            S::Pausing { memory: true },
            S::Pausing { memory: false },
            S::Paused { memory: true },
            S::Paused { memory: false },
            S::Resuming { memory: true },
            S::Resuming { memory: false },
            snapshotting(None),
            snapshotting(Some(true)),
            snapshotting(Some(false)),
            S::Recreating,
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
            E::Pause { memory: true },
            E::Pause { memory: false },
            E::Paused,
            E::Resume { memory: true },
            E::Resume { memory: false },
            E::Snapshot {
                snapshot: snapshot(),
            },
            E::SnapshotDone,
            E::Recreate,
            E::Expire {
                then: OnExpiry::Kill,
            },
            E::Expire {
                then: OnExpiry::Pause,
            },
            E::Expire {
                then: OnExpiry::PauseWithoutMemory,
            },
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
                writeln!(table, "{state:?} + {event:?} => {:?}", state.step(&event)).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_sandbox_without_memory_never_gets_it_back_by_itself() {
        let mut state = SandboxState::Paused { memory: false };
        for event in [
            SandboxEvent::Pause { memory: true },
            SandboxEvent::Snapshot {
                snapshot: snapshot(),
            },
            SandboxEvent::SnapshotDone,
            SandboxEvent::Resume { memory: true },
        ] {
            if let Ok(Step::Moved(next)) = state.step(&event) {
                state = next;
            }
        }
        assert_eq!(state, SandboxState::Resuming { memory: false });
    }

    #[test]
    fn a_state_that_an_older_build_wrote_kept_its_memory() {
        let read = |text: &str| serde_json::from_str::<SandboxState>(text).unwrap();
        assert_eq!(
            read(r#"{"name":"paused"}"#),
            SandboxState::Paused { memory: true }
        );
        let state = SandboxState::Paused { memory: false };
        assert_eq!(read(&serde_json::to_string(&state).unwrap()), state);
    }

    #[test]
    fn an_order_ends_in_a_state_without_one() {
        use SandboxEvent as E;
        let ends = [E::Ready, E::Paused, E::SnapshotDone, E::Destroyed];
        for state in states() {
            let done = ends.iter().any(
                |end| matches!(state.step(end), Ok(Step::Moved(next)) if next.want().is_none()),
            );
            assert_eq!(state.want().is_some(), done, "{state:?}");
        }
    }

    #[test]
    fn a_sandbox_that_is_not_wanted_gone_can_be_made_again() {
        for state in states() {
            let is_gone = matches!(state, SandboxState::Destroying | SandboxState::Destroyed);
            assert_eq!(
                state.step(&SandboxEvent::Recreate).is_err(),
                is_gone,
                "{state:?}"
            );
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
        fn what_is_destroyed_stays_destroyed(picks in prop::collection::vec(0usize..events().len(), 0..40)) {
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
