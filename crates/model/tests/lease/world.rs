//! Servers, nodes, and messages that are lost, late, doubled and out of order, around [`JobState::step`].
//!
//! What a server does to a message is two steps, as with a database that answers several of them: it reads the
//! row, and later writes it if it is still the row that it read. What a node does is what `crates/node` does:
//! a record before anything is started, the command let go only when the server has acknowledged `started`, a
//! report that is on the disk until it is acknowledged. The rules of `service::lose` and `service::report` that
//! choose an event are written here once more, as plainly as they can be; all states are the product's own.

use model::id::NodeId;
use model::job::{Denied, JobEvent, JobState, Outcome, Step};
use std::collections::BTreeSet;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    Succeeded,
    /// It was told to stop.
    Canceled,
    /// The sandbox is gone, and nobody knows.
    Lost,
}

impl End {
    fn outcome(self) -> Outcome {
        match self {
            End::Succeeded => Outcome::Succeeded,
            End::Canceled => Outcome::Canceled,
            End::Lost => Outcome::Lost { why: String::new() },
        }
    }
}

/// Between a node and any server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Message {
    Poll,
    /// With the lease that the node has.
    Heartbeat {
        has: Option<u64>,
    },
    Started {
        epoch: u64,
    },
    Finished {
        epoch: u64,
        attempt: u32,
        end: End,
    },
    Leased {
        epoch: u64,
        attempt: u32,
    },
    MayRun {
        epoch: u64,
    },
    MustEnd {
        epoch: u64,
    },
    Stale {
        epoch: u64,
    },
    Taken {
        epoch: u64,
    },
}

impl Message {
    pub(crate) fn is_for_server(self) -> bool {
        matches!(
            self,
            Message::Poll
                | Message::Heartbeat { .. }
                | Message::Started { .. }
                | Message::Finished { .. }
        )
    }
}

/// What the database has of the job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) state: JobState,
    pub(crate) epoch: u64,
    pub(crate) attempt: u32,
    /// Whose last lease it was.
    pub(crate) node: Option<usize>,
    /// `started` of the last lease was acknowledged.
    pub(crate) has_started: bool,
    /// The report that ended it.
    pub(crate) report: Option<(u64, End)>,
}

/// How far a node is with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The record is written, the sandbox is being made or stands; the command waits.
    Prepared,
    /// The command was let go.
    Runs,
    /// It is over, and the report is on the disk.
    Ended(End),
}

/// What is on the disk of a node, and the sandbox that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) epoch: u64,
    pub(crate) attempt: u32,
    pub(crate) phase: Phase,
    /// The sandbox lives.
    pub(crate) lives: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    pub(crate) held: Option<Held>,
    /// The database has not heard of it for a lease.
    pub(crate) is_silent: bool,
}

/// What a server will write, of the row that it has read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Looked {
    pub(crate) asked: Asked,
    pub(crate) next: Row,
    pub(crate) answer: Option<Message>,
}

/// What a server was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Asked {
    By(usize, Message),
    /// The reaper's pass over a silent node.
    Reap(usize),
    /// Somebody's wish.
    Cancel,
}

/// All of it at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) row: Row,
    pub(crate) servers: Vec<Option<Looked>>,
    pub(crate) nodes: Vec<Node>,
    /// Requests that were ever sent, each of which may be heard now, later, again, or never; and answers, which
    /// are heard once or never.
    pub(crate) messages: BTreeSet<(usize, Message)>,
    /// How often the job was brought from not finished to finished.
    pub(crate) outcomes: u8,
    /// How often a command was let go.
    pub(crate) runs: u8,
    /// Processes of nodes that may still die, sandboxes that may, and silences that may come.
    pub(crate) faults: u8,
    pub(crate) was_canceled: bool,
}

/// What the promises rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The epoch of a message is looked at.
    Epochs,
    /// A server writes only what nobody has written since it looked.
    Comparison,
    /// A sandbox whose job may be started again ends before its lease is judged lost.
    Fences,
    /// The leases of a node that is silent are judged lost.
    Reaper,
    /// A lease that its node does not name, because the answer got lost, goes back to the queue.
    Releases,
}

/// The rules under test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) servers: usize,
    pub(crate) nodes: usize,
    /// Starts that the job allows.
    pub(crate) attempts: u32,
    /// Lost leases before a job is given up.
    pub(crate) attempts_max: u32,
    /// Leases in one story.
    pub(crate) leases: u64,
    /// Deaths and silences in one story.
    pub(crate) faults: u8,
    /// Somebody may cancel it.
    pub(crate) cancels: bool,
    /// The rule that is left out, to see that a promise breaks without it.
    pub(crate) without: Option<Rule>,
}

pub(crate) fn node_id(node: usize) -> NodeId {
    let mut bytes = [0; 10];
    bytes[9] = u8::try_from(node).expect("few nodes");
    NodeId::from_parts(0, bytes)
}

impl Rules {
    pub(crate) fn world(&self) -> World {
        World {
            row: Row {
                state: JobState::Queued,
                epoch: 0,
                attempt: 0,
                node: None,
                has_started: false,
                report: None,
            },
            servers: vec![None; self.servers],
            nodes: vec![Node::default(); self.nodes],
            messages: BTreeSet::new(),
            outcomes: 0,
            runs: 0,
            faults: self.faults,
            was_canceled: false,
        }
    }

    /// `service::lose::lost`.
    fn lost(&self, row: &Row) -> JobEvent {
        let why = String::new();
        if matches!(row.state, JobState::Leased { .. }) && row.attempt >= self.attempts_max {
            return JobEvent::GiveUp { why };
        }
        JobEvent::LeaseLost {
            epoch: row.epoch,
            retry: row.attempt < self.attempts,
            why,
        }
    }

    /// `service::change::decide`.
    fn apply(row: &Row, event: &JobEvent) -> Result<Row, Denied> {
        let mut next = row.clone();
        let Step::Moved(state) = row.state.step(event)? else {
            return Ok(next);
        };
        if let JobEvent::Lease { epoch, .. } = event {
            next.epoch = *epoch;
            next.attempt += 1;
            next.has_started = false;
        }
        next.has_started |= matches!(event, JobEvent::Started { .. });
        if matches!(event, JobEvent::Release { .. }) && matches!(row.state, JobState::Leased { .. })
        {
            next.attempt -= 1;
        }
        next.state = state;
        Ok(next)
    }

    /// What a server makes of the row that it has read: what it writes, and what it answers.
    pub(crate) fn judge(&self, asked: Asked, world: &World) -> (Row, Option<Message>) {
        let row = &world.row;
        let same = row.clone();
        match asked {
            Asked::Cancel => (Self::apply(row, &JobEvent::Cancel).unwrap_or(same), None),
            Asked::Reap(node) => {
                let has = row.state.lease().map(|(id, _)| id.clone());
                let is_its = has == Some(node_id(node)) && world.nodes[node].is_silent;
                let is_its = is_its && self.without != Some(Rule::Reaper);
                let lost = is_its.then(|| Self::apply(row, &self.lost(row)).ok());
                (lost.flatten().unwrap_or(same), None)
            }
            // `service::create::gets_work`.
            Asked::By(node, Message::Poll) if world.nodes[node].is_silent => (same, None),
            Asked::By(node, message) => self.hear(row, node, message),
        }
    }

    fn hear(&self, row: &Row, node: usize, message: Message) -> (Row, Option<Message>) {
        match message {
            Message::Poll => Self::lease(row, node),
            Message::Heartbeat { has } => self.beat(row, node, has),
            Message::Started { epoch } => self.started(row, node, epoch),
            Message::Finished {
                epoch,
                attempt,
                end,
            } => self.finished(row, node, (epoch, attempt), end),
            Message::Leased { .. }
            | Message::MayRun { .. }
            | Message::MustEnd { .. }
            | Message::Stale { .. }
            | Message::Taken { .. } => (row.clone(), None),
        }
    }

    fn lease(row: &Row, node: usize) -> (Row, Option<Message>) {
        let event = JobEvent::Lease {
            node: node_id(node),
            epoch: row.epoch + 1,
        };
        if row.state != JobState::Queued {
            return (row.clone(), None);
        }
        let mut next = Self::apply(row, &event).expect("a job that waits");
        next.node = Some(node);
        let answer = Message::Leased {
            epoch: next.epoch,
            attempt: next.attempt,
        };
        (next, Some(answer))
    }

    /// A lease that the node does not name never reached it; one that is not its own any more is to end.
    fn beat(&self, row: &Row, node: usize, has: Option<u64>) -> (Row, Option<Message>) {
        let ours = row.state.lease().filter(|(id, _)| **id == node_id(node));
        let ours = ours.map(|(_, epoch)| epoch);
        // `service::node::requeue_unknown`: also of a job that somebody has canceled meanwhile.
        if let Some(epoch) = ours
            && !row.has_started
            && has != Some(epoch)
            && self.without != Some(Rule::Releases)
        {
            let released = Self::apply(row, &JobEvent::Release { epoch });
            return (released.unwrap_or_else(|_| row.clone()), None);
        }
        let answer = has.and_then(|epoch| match ours {
            Some(own) if own == epoch => {
                matches!(row.state, JobState::Stopping { .. }).then_some(Message::MustEnd { epoch })
            }
            _ => Some(Message::Stale { epoch }),
        });
        (row.clone(), answer)
    }

    /// `service::report::spoken_for`.
    fn speaks(&self, row: &Row, node: usize, epoch: u64) -> bool {
        self.without == Some(Rule::Epochs) || (row.epoch == epoch && row.node == Some(node))
    }

    fn started(&self, row: &Row, node: usize, epoch: u64) -> (Row, Option<Message>) {
        if !self.speaks(row, node, epoch) || row.state.lease().is_none() {
            return (row.clone(), Some(Message::Stale { epoch }));
        }
        let event = JobEvent::Started { epoch: row.epoch };
        match Self::apply(row, &event) {
            Ok(next) if matches!(next.state, JobState::Stopping { .. }) => {
                (next, Some(Message::MustEnd { epoch }))
            }
            Ok(next) => (next, Some(Message::MayRun { epoch })),
            Err(_) => (row.clone(), Some(Message::Stale { epoch })),
        }
    }

    /// `service::report::job_finished`. Whatever is made of it, the node is told that it may forget.
    fn finished(
        &self,
        row: &Row,
        node: usize,
        (epoch, attempt): (u64, u32),
        end: End,
    ) -> (Row, Option<Message>) {
        let taken = Some(Message::Taken { epoch });
        let of_this = self.without == Some(Rule::Epochs) || row.attempt == attempt;
        if !self.speaks(row, node, epoch) || !of_this || row.state.lease().is_none() {
            return (row.clone(), taken);
        }
        let event = match end {
            End::Lost => self.lost(row),
            End::Succeeded | End::Canceled => JobEvent::Finish {
                epoch: row.epoch,
                outcome: end.outcome(),
            },
        };
        let Ok(mut next) = Self::apply(row, &event) else {
            return (row.clone(), taken);
        };
        next.report = next.state.outcome().map(|_| (epoch, end));
        (next, taken)
    }
}
