//! Who waits for what, in this process. All of it may be lost: whoever waits also looks every second.

use crate::hand::Undelivered;
use crate::locked;
use model::id::{JobId, NodeId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::job::JobRow;
use tokio::sync::{Notify, broadcast, futures::Notified, oneshot};
use tokio::time::Instant;

/// How long anybody sleeps without a look at the database: another process may have changed it.
pub(crate) const FLOOR: Duration = Duration::from_secs(1);
/// News that a slow waiter may miss before it has to look by itself.
const NEWS_MAX: usize = 1024;
/// Polls that wait for a hand-over at one time; the others wait for the queue.
const PARKED_MAX: usize = 1024;
/// Nodes whose cancels are remembered; past this, the ones that nobody polls for are forgotten.
const NODES_MAX: usize = 4096;

/// What has become of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// A node has it.
    Leased,
    /// It wrote something.
    Output,
    /// It is over.
    Finished,
}

/// News of one job; with the job as it has become, when that was at hand, so that nobody reads it again.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    id: JobId,
    news: News,
    row: Option<Arc<JobRow>>,
}

/// Jobs of one node that are to end.
#[derive(Debug, Default)]
pub(crate) struct NodeWake {
    /// There may be one that it was not told.
    pub(crate) cancel: Notify,
    /// Those that it was told by a poll, so that the next poll can wait.
    pub(crate) told: Mutex<HashSet<(JobId, u64)>>,
}

/// A poll that waits for a hand-over.
#[derive(Debug)]
pub(crate) struct Parked {
    number: u64,
    pub(crate) node: NodeId,
    hand: oneshot::Sender<Undelivered>,
}

impl Parked {
    /// Gives it a job. If it is gone, the job goes back by itself.
    pub(crate) fn hand(self, job: Undelivered) {
        drop(self.hand.send(job));
    }
}

#[derive(Debug, Default)]
struct Parking {
    next: u64,
    polls: VecDeque<Parked>,
}

/// Everybody who waits.
#[derive(Debug)]
pub(crate) struct Wake {
    queue: Notify,
    jobs: broadcast::Sender<Told>,
    nodes: Mutex<HashMap<NodeId, Arc<NodeWake>>>,
    parking: Mutex<Parking>,
}

impl Wake {
    pub(crate) fn new() -> Wake {
        Wake {
            queue: Notify::new(),
            jobs: broadcast::Sender::new(NEWS_MAX),
            nodes: Mutex::default(),
            parking: Mutex::default(),
        }
    }

    /// Something waits in the queue.
    pub(crate) fn queue(&self) {
        self.queue.notify_waiters();
    }

    pub(crate) fn queued(&self) -> Notified<'_> {
        self.queue.notified()
    }

    /// Something has become of a job.
    pub(crate) fn job(&self, id: &JobId, news: News) {
        self.tell(id, news, None);
    }

    /// A job has become this.
    pub(crate) fn job_is(&self, row: &JobRow, news: News) {
        self.tell(&row.id, news, Some(row));
    }

    fn tell(&self, id: &JobId, news: News, row: Option<&JobRow>) {
        if self.jobs.receiver_count() == 0 {
            return;
        }
        let (id, row) = (id.clone(), row.map(|row| Arc::new(row.clone())));
        // The last listener may go away at this moment.
        drop(self.jobs.send(Told { id, news, row }));
    }

    pub(crate) fn jobs(&self) -> broadcast::Receiver<Told> {
        self.jobs.subscribe()
    }

    /// A job of this node is to end.
    pub(crate) fn node(&self, node: &NodeId) {
        self.of_node(node).cancel.notify_one();
    }

    pub(crate) fn of_node(&self, node: &NodeId) -> Arc<NodeWake> {
        let mut nodes = locked(&self.nodes);
        if nodes.len() >= NODES_MAX {
            nodes.retain(|_, wake| Arc::strong_count(wake) > 1);
        }
        nodes.entry(node.clone()).or_default().clone()
    }

    /// Waits for a hand-over; `None` when too many do already.
    pub(crate) fn park(&self, node: &NodeId) -> Option<(u64, oneshot::Receiver<Undelivered>)> {
        let mut parking = locked(&self.parking);
        // Polls whose connection broke leave their place behind.
        parking.polls.retain(|poll| !poll.hand.is_closed());
        if parking.polls.len() >= PARKED_MAX {
            return None;
        }
        let (hand, handed) = oneshot::channel();
        let number = parking.next;
        parking.next += 1;
        parking.polls.push_back(Parked {
            number,
            node: node.clone(),
            hand,
        });
        Some((number, handed))
    }

    /// Does not wait any more. False when somebody has taken the poll and is about to answer it.
    pub(crate) fn unpark(&self, number: u64) -> bool {
        let mut parking = locked(&self.parking);
        let before = parking.polls.len();
        parking.polls.retain(|poll| poll.number != number);
        parking.polls.len() < before
    }

    /// The poll that has waited longest and may take a job for `pin`.
    pub(crate) fn take_parked(&self, pin: Option<&NodeId>) -> Option<Parked> {
        let mut parking = locked(&self.parking);
        let fits =
            |poll: &Parked| !poll.hand.is_closed() && pin.is_none_or(|pin| *pin == poll.node);
        let place = parking.polls.iter().position(fits)?;
        parking.polls.remove(place)
    }
}

/// Waits until there is news of a job that matter, but no longer than a moment or `until`. Gives the job
/// when the news brought it; otherwise it is to be looked at.
pub(crate) async fn news(
    jobs: &mut broadcast::Receiver<Told>,
    id: &JobId,
    matter: &[News],
    until: Instant,
) -> Option<Arc<JobRow>> {
    let floor = tokio::time::sleep_until(until.min(Instant::now() + FLOOR));
    tokio::pin!(floor);
    loop {
        tokio::select! {
            () = &mut floor => return None,
            told = jobs.recv() => match told {
                Ok(told) if told.id == *id && matter.contains(&told.news) => return told.row,
                Ok(_) => {}
                // Missed some: look.
                Err(broadcast::error::RecvError::Lagged(_)) => return None,
                Err(broadcast::error::RecvError::Closed) => {
                    floor.await;
                    return None;
                }
            },
        }
    }
}
