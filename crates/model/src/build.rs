//! Builds: one try to make a profile what its recipe says.
//!
//! ```text
//! waiting ─▶ building ─▶ ready
//!    └───────────┴─────▶ failed(why)
//! ```
//!
//! Whoever carries a build out has it under a lease, by the number of the attempt. One that is silent for too
//! long has lost it: another begins from the start, with a sandbox of its own.

use crate::limits;
use serde::{Deserialize, Serialize};

/// Where a build is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum BuildState {
    /// It has a name, and no recipe yet.
    Waiting,
    /// It is being carried out, or will be as soon as somebody is free.
    Building,
    /// Sandboxes can begin with it.
    Ready,
    /// It came to nothing.
    Failed {
        /// Why.
        why: BuildFailure,
    },
}

/// Why a build came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailure {
    /// For a person.
    pub message: String,
    /// What was being done.
    pub phase: Phase,
}

/// A part of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// What it begins with is found and made.
    Base,
    /// This instruction, counted from 1.
    Instruction(u32),
    /// What was written is saved, and what is to be started with each sandbox is tried.
    Finish,
}

/// What happens to a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// Its recipe is known.
    Begin,
    /// All of it is done.
    Done,
    /// It comes to nothing.
    Fail(BuildFailure),
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildStep {
    /// This state.
    Moved(BuildState),
    /// Nothing: it was so already.
    Unchanged,
}

/// The event may not happen in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the build is {state}")]
pub struct BuildDenied {
    /// The name of the state.
    pub state: &'static str,
}

impl BuildState {
    /// The name in records.
    pub fn name(&self) -> &'static str {
        match self {
            BuildState::Waiting => "waiting",
            BuildState::Building => "building",
            BuildState::Ready => "ready",
            BuildState::Failed { .. } => "failed",
        }
    }

    /// Nothing more happens to it.
    pub fn is_over(&self) -> bool {
        matches!(self, BuildState::Ready | BuildState::Failed { .. })
    }

    /// The state that follows `event`. Pure.
    ///
    /// # Errors
    /// [`BuildDenied`] where the event may not happen in this state.
    pub fn step(&self, event: &BuildEvent) -> Result<BuildStep, BuildDenied> {
        use BuildEvent as E;
        use BuildState as S;
        let moved = |state| Ok(BuildStep::Moved(state));
        match (self, event) {
            (S::Waiting, E::Begin) => moved(S::Building),
            (S::Building, E::Done) => moved(S::Ready),
            (S::Waiting | S::Building, E::Fail(why)) => moved(S::Failed { why: why.clone() }),
            (S::Ready, E::Done) | (S::Failed { .. }, E::Fail(_)) => Ok(BuildStep::Unchanged),
            _ => Err(BuildDenied { state: self.name() }),
        }
    }
}

/// What becomes of a build that nobody carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Whoever is free begins it, as this attempt.
    Take(u32),
    /// Nobody begins it again.
    GiveUp(BuildFailure),
}

/// What becomes of a build without anybody's lease, after so many attempts; `begun_at_ms` is when its recipe was
/// known. Pure.
pub fn verdict(attempts: u32, begun_at_ms: u64, now_ms: u64) -> Verdict {
    let give_up = |message: String| {
        let phase = Phase::Base;
        Verdict::GiveUp(BuildFailure { message, phase })
    };
    if now_ms.saturating_sub(begun_at_ms) >= limits::BUILD_MS {
        let minutes = limits::BUILD_MS / 60_000;
        return give_up(format!("the build was not done within {minutes} minutes"));
    }
    if attempts >= limits::BUILD_ATTEMPTS_MAX {
        return give_up(format!(
            "the build was interrupted {attempts} times, because a server or a node ended under it"
        ));
    }
    Verdict::Take(attempts + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn failure() -> BuildFailure {
        BuildFailure {
            message: "fell".to_owned(),
            phase: Phase::Instruction(2),
        }
    }

    fn states() -> Vec<BuildState> {
        use BuildState as S;
        let failed = S::Failed { why: failure() };
        vec![S::Waiting, S::Building, S::Ready, failed]
    }

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let mut table = String::new();
        for state in states() {
            for event in [
                BuildEvent::Begin,
                BuildEvent::Done,
                BuildEvent::Fail(failure()),
            ] {
                let next = state.step(&event);
                writeln!(table, "{} + {event:?} => {next:?}", state.name()).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn what_is_over_stays_as_it_is() {
        for state in states().into_iter().filter(BuildState::is_over) {
            for event in [
                BuildEvent::Begin,
                BuildEvent::Done,
                BuildEvent::Fail(failure()),
            ] {
                assert!(!matches!(state.step(&event), Ok(BuildStep::Moved(_))));
            }
        }
    }

    #[test]
    fn a_build_is_begun_again_a_few_times_and_not_after_its_hour() {
        let now = limits::BUILD_MS + 7;
        assert_eq!(verdict(0, now, now), Verdict::Take(1));
        let last = limits::BUILD_ATTEMPTS_MAX - 1;
        assert_eq!(verdict(last, 8, now), Verdict::Take(last + 1));
        assert!(matches!(verdict(last + 1, 8, now), Verdict::GiveUp(_)));
        assert!(matches!(verdict(0, 7, now), Verdict::GiveUp(_)));
        // A clock that was set back is no reason to end anything.
        assert_eq!(verdict(0, now + 1, now), Verdict::Take(1));
    }
}
