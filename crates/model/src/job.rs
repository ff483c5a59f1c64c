//! The life of a job, decided by one function.
//!
//! ```text
//! awaiting_approval ─approve─▶ queued ─lease─▶ leased ─started─▶ running ─cancel─▶ stopping
//!         │ reject               │ cancel,        │ finish,          │ finish,         │ finish,
//!         ▼                      ▼ timeout        ▼ cancel           ▼ lease lost      ▼ lease lost
//!         └──────────────────────┴────────▶ finished(outcome) ◀─────┴─────────────────┘
//!
//! leased ──release, lease lost──▶ queued          running ──lease lost, safe to retry──▶ queued
//! ```
//!
//! A lease that is lost counts as an attempt, also where the command was not let go, so that a job that
//! ends its nodes does not go round for ever; one that is given back does not count. `give up` leads from
//! every state in which somebody waits for a node, or a node has the job, to `finished(lost)`.

use crate::id::NodeId;
use serde::{Deserialize, Serialize};

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum JobState {
    /// A person has to say yes.
    AwaitingApproval,
    /// It waits for a node.
    Queued,
    /// A node has it and prepares; the command has not been let go.
    Leased {
        /// Whose it is.
        node: NodeId,
        /// Of the lease.
        epoch: u64,
    },
    /// The command runs, or may run: the node was told that it may let go.
    Running {
        /// Whose it is.
        node: NodeId,
        /// Of the lease.
        epoch: u64,
    },
    /// Somebody asked it to end.
    Stopping {
        /// Whose it is.
        node: NodeId,
        /// Of the lease.
        epoch: u64,
    },
    /// It is over.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, 1 to 255: 126 and 127 where it could not be run, 128+N for signal N.
    Failed {
        /// The code.
        exit_code: i32,
    },
    /// Its time was over.
    TimedOut,
    /// Somebody did not want it any more.
    Canceled,
    /// Nobody knows how it ended.
    Lost {
        /// What is known.
        why: String,
    },
    /// It was not run.
    Refused {
        /// Which clause could not be held, or what else.
        why: String,
    },
}

impl Outcome {
    /// The exit code of a client that waited for this.
    pub fn exit_code(&self) -> i32 {
        match self {
            Outcome::Succeeded => 0,
            Outcome::Failed { exit_code } => *exit_code,
            Outcome::TimedOut => 124,
            Outcome::Canceled => 137,
            Outcome::Lost { .. } | Outcome::Refused { .. } => 125,
        }
    }

    /// Its name in records.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed { .. } => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Canceled => "canceled",
            Outcome::Lost { .. } => "lost",
            Outcome::Refused { .. } => "refused",
        }
    }
}

/// What happens to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// A person said yes.
    Approve,
    /// A person said no.
    Reject,
    /// Policies do not allow it any more.
    Refuse {
        /// Which clause, and whose.
        why: String,
    },
    /// A node takes it.
    Lease {
        /// Who.
        node: NodeId,
        /// Of the new lease, one more than the last.
        epoch: u64,
    },
    /// The node's sandbox is ready, and it asks to let the command go.
    Started {
        /// Of its lease.
        epoch: u64,
    },
    /// The node gives it back unstarted.
    Release {
        /// Of its lease.
        epoch: u64,
    },
    /// Somebody does not want it any more.
    Cancel,
    /// The node tells how it ended.
    Finish {
        /// Of its lease.
        epoch: u64,
        /// How.
        outcome: Outcome,
    },
    /// The node is silent, or has no sandbox for it.
    LeaseLost {
        /// Of the lost lease.
        epoch: u64,
        /// The job may be started once more although it may have run.
        retry: bool,
        /// What is known.
        why: String,
    },
    /// Nobody took it in time.
    QueueTimeout,
    /// Nobody will take it: the only node that may is not there any more, or its lease was lost too
    /// often before it began.
    GiveUp {
        /// What is known.
        why: String,
    },
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This state.
    Moved(JobState),
    /// Nothing: it was so already.
    Unchanged,
}

/// Why an event may not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The lease that it speaks for is not the job's.
    #[error("the lease is of epoch {theirs}, the job of epoch {ours}")]
    StaleEpoch {
        /// Of the event.
        theirs: u64,
        /// Of the job.
        ours: u64,
    },
    /// The job is over.
    #[error("the job is finished")]
    Finished,
    /// Not from this state.
    #[error("the job is {state}")]
    State {
        /// Its name.
        state: &'static str,
    },
}

impl JobState {
    /// The name in records.
    pub fn name(&self) -> &'static str {
        match self {
            JobState::AwaitingApproval => "awaiting_approval",
            JobState::Queued => "queued",
            JobState::Leased { .. } => "leased",
            JobState::Running { .. } => "running",
            JobState::Stopping { .. } => "stopping",
            JobState::Finished { .. } => "finished",
        }
    }

    /// The node that has it, and the epoch of its lease.
    pub fn lease(&self) -> Option<(&NodeId, u64)> {
        match self {
            JobState::Leased { node, epoch }
            | JobState::Running { node, epoch }
            | JobState::Stopping { node, epoch } => Some((node, *epoch)),
            JobState::AwaitingApproval | JobState::Queued | JobState::Finished { .. } => None,
        }
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            JobState::Finished { outcome } => Some(outcome),
            JobState::AwaitingApproval
            | JobState::Queued
            | JobState::Leased { .. }
            | JobState::Running { .. }
            | JobState::Stopping { .. } => None,
        }
    }

    /// The state that follows `event`. Pure: the store writes it, the loops act on it.
    ///
    /// # Errors
    /// [`Denied`] where the event may not happen in this state.
    pub fn step(&self, event: &JobEvent) -> Result<Step, Denied> {
        use JobState::{AwaitingApproval, Finished, Leased, Queued, Running, Stopping};
        self.check_epoch(event)?;
        let finished = |outcome: Outcome| Ok(Step::Moved(Finished { outcome }));
        match (self, event) {
            (
                Finished {
                    outcome: Outcome::Canceled,
                },
                JobEvent::Cancel | JobEvent::Reject,
            ) => Ok(Step::Unchanged),
            (Finished { outcome }, JobEvent::Finish { outcome: again, .. }) if outcome == again => {
                Ok(Step::Unchanged)
            }
            (Finished { .. }, _) => Err(Denied::Finished),

            (AwaitingApproval, JobEvent::Approve) => Ok(Step::Moved(Queued)),
            (AwaitingApproval, JobEvent::Reject | JobEvent::Cancel) => finished(Outcome::Canceled),
            (Queued, JobEvent::Cancel) => finished(Outcome::Canceled),
            (AwaitingApproval | Queued, JobEvent::QueueTimeout) => finished(Outcome::Refused {
                why: "no node took it in time".to_owned(),
            }),
            (AwaitingApproval | Queued, JobEvent::Refuse { why }) => {
                finished(Outcome::Refused { why: why.clone() })
            }
            (Queued | Leased { .. } | Running { .. }, JobEvent::GiveUp { why }) => {
                finished(Outcome::Lost { why: why.clone() })
            }
            (Queued, JobEvent::Approve | JobEvent::Release { .. }) => Ok(Step::Unchanged),
            (Queued, JobEvent::Lease { node, epoch }) => Ok(Step::Moved(Leased {
                node: node.clone(),
                epoch: *epoch,
            })),

            (Leased { node, epoch }, JobEvent::Started { .. }) => Ok(Step::Moved(Running {
                node: node.clone(),
                epoch: *epoch,
            })),
            // Released or lost before the command was let go: it has not run, whatever the node says.
            (Leased { .. }, JobEvent::Release { .. } | JobEvent::LeaseLost { .. }) => {
                Ok(Step::Moved(Queued))
            }
            (Running { .. }, JobEvent::Started { .. }) => Ok(Step::Unchanged),
            (Running { .. }, JobEvent::LeaseLost { retry: true, .. }) => Ok(Step::Moved(Queued)),
            (Running { .. }, JobEvent::LeaseLost { why, .. }) => {
                finished(Outcome::Lost { why: why.clone() })
            }
            (Leased { node, epoch } | Running { node, epoch }, JobEvent::Cancel) => {
                Ok(Step::Moved(Stopping {
                    node: node.clone(),
                    epoch: *epoch,
                }))
            }

            (Stopping { .. }, JobEvent::Cancel | JobEvent::Started { .. }) => Ok(Step::Unchanged),
            // Nobody wants it any more, so it does not matter whether it has run.
            (
                Stopping { .. },
                JobEvent::LeaseLost { .. } | JobEvent::Release { .. } | JobEvent::GiveUp { .. },
            ) => finished(Outcome::Canceled),
            (
                Leased { .. } | Running { .. } | Stopping { .. },
                JobEvent::Finish { outcome, .. },
            ) => finished(outcome.clone()),
            (state, _) => Err(Denied::State {
                state: state.name(),
            }),
        }
    }

    /// Who speaks for a lease must hold it. A job that waits has none, and a node that gives back what
    /// it gave back already is told so by the state.
    fn check_epoch(&self, event: &JobEvent) -> Result<(), Denied> {
        let (JobEvent::Started { epoch }
        | JobEvent::Release { epoch }
        | JobEvent::Finish { epoch, .. }
        | JobEvent::LeaseLost { epoch, .. }) = event
        else {
            return Ok(());
        };
        match self.lease() {
            Some((_, ours)) if ours != *epoch => Err(Denied::StaleEpoch {
                theirs: *epoch,
                ours,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    fn node() -> NodeId {
        NodeId::from_parts(0, [0; 10])
    }

    fn lost(epoch: u64, retry: bool) -> JobEvent {
        JobEvent::LeaseLost {
            epoch,
            retry,
            why: "silent".to_owned(),
        }
    }

    fn states() -> Vec<JobState> {
        let outcome = Outcome::Failed { exit_code: 3 };
        vec![
            JobState::AwaitingApproval,
            JobState::Queued,
            JobState::Leased {
                node: node(),
                epoch: 2,
            },
            JobState::Running {
                node: node(),
                epoch: 2,
            },
            JobState::Stopping {
                node: node(),
                epoch: 2,
            },
            JobState::Finished { outcome },
            JobState::Finished {
                outcome: Outcome::Canceled,
            },
        ]
    }

    fn events() -> Vec<JobEvent> {
        let outcome = Outcome::Failed { exit_code: 3 };
        let mut events = vec![
            JobEvent::Approve,
            JobEvent::Reject,
            JobEvent::Cancel,
            JobEvent::QueueTimeout,
            JobEvent::Refuse {
                why: "policy".to_owned(),
            },
            JobEvent::GiveUp {
                why: "gone".to_owned(),
            },
            JobEvent::Lease {
                node: node(),
                epoch: 3,
            },
        ];
        for epoch in [1, 2] {
            events.push(JobEvent::Started { epoch });
            events.push(JobEvent::Release { epoch });
            events.push(JobEvent::Finish {
                epoch,
                outcome: outcome.clone(),
            });
            events.push(JobEvent::Finish {
                epoch,
                outcome: Outcome::Succeeded,
            });
            events.push(lost(epoch, true));
            events.push(lost(epoch, false));
        }
        events
    }

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let mut table = String::new();
        for state in states() {
            for event in events() {
                writeln!(
                    table,
                    "{state:?} + {event:?}\n    => {:?}",
                    state.step(&event)
                )
                .unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    fn any_event() -> impl Strategy<Value = JobEvent> {
        (0..events().len()).prop_map(|i| events()[i].clone())
    }

    fn run(events: &[JobEvent]) -> Vec<JobState> {
        let mut seen = vec![JobState::AwaitingApproval];
        for event in events {
            if let Ok(Step::Moved(next)) = seen.last().unwrap().step(event) {
                seen.push(next);
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn what_is_finished_stays_finished(events in prop::collection::vec(any_event(), 0..40)) {
            let seen = run(&events);
            let first = seen.iter().position(|s| s.outcome().is_some()).unwrap_or(seen.len());
            prop_assert!(seen.len() <= first + 1);
        }

        #[test]
        fn an_event_twice_is_an_event_once_or_denied(
            events in prop::collection::vec(any_event(), 0..20),
            event in any_event(),
        ) {
            let state = run(&events).pop().unwrap();
            if let Ok(Step::Moved(next)) = state.step(&event) {
                match next.step(&event) {
                    Ok(Step::Moved(again)) => prop_assert_eq!(again, next),
                    Ok(Step::Unchanged) | Err(_) => {}
                }
            }
        }

        #[test]
        fn a_stale_epoch_moves_nothing(state in 2usize..5, retry: bool) {
            let state = &states()[state];
            for event in [
                JobEvent::Started { epoch: 1 },
                JobEvent::Release { epoch: 1 },
                JobEvent::Finish { epoch: 1, outcome: Outcome::Succeeded },
                lost(1, retry),
            ] {
                let stale = Err(Denied::StaleEpoch { theirs: 1, ours: 2 });
                prop_assert_eq!(state.step(&event), stale);
            }
        }
    }

    #[test]
    fn a_lost_lease_follows_the_retry_rule() {
        let [_, _, leased, running, stopping, ..] = &states()[..] else {
            panic!("states")
        };
        assert_eq!(
            leased.step(&lost(2, false)),
            Ok(Step::Moved(JobState::Queued))
        );
        assert_eq!(
            running.step(&lost(2, true)),
            Ok(Step::Moved(JobState::Queued))
        );
        let Ok(Step::Moved(ended)) = running.step(&lost(2, false)) else {
            panic!("moved")
        };
        assert_eq!(ended.outcome().map(Outcome::name), Some("lost"));
        let Ok(Step::Moved(ended)) = stopping.step(&lost(2, true)) else {
            panic!("moved")
        };
        assert_eq!(ended.outcome(), Some(&Outcome::Canceled));
    }
}
