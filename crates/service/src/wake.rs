//! Who waits for what, in this process. All of it may be lost: whoever waits also looks every second.

use crate::hand::Undelivered;
use crate::locked;
use crate::oldest::Oldest;
use crate::sandbox::SandboxRef;
use crate::sandbox::network::NetworkRef;
use crate::sandbox::work::Untold;
use model::id::{JobId, NodeId, SandboxId, SnapshotId};
use model::place::{self, Candidate, Strategy, Wish};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::job::JobRow;
use store::sandbox::SandboxRow;
use tokio::sync::{Notify, broadcast, futures::Notified, oneshot};
use tokio::time::Instant;

/// How long anybody sleeps without a look at the database: another process may have changed it.
pub(crate) const FLOOR: Duration = Duration::from_secs(1);
/// News that a slow waiter may miss before it has to look by itself.
const NEWS_MAX: usize = 1024;
/// Polls that wait for a hand-over at one time; the others wait for the queue.
const PARKED_MAX: usize = 1024;
/// Nodes for which is remembered what they were told; past this, the ones that nobody polls for are forgotten.
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
    /// `None` when it may be any.
    id: Option<JobId>,
    news: News,
    row: Option<Arc<JobRow>>,
}

impl Told {
    fn is_of(&self, id: &JobId) -> bool {
        self.id.as_ref().is_none_or(|of| of == id)
    }
}

/// News of one sandbox, likewise.
#[derive(Debug, Clone)]
pub(crate) struct SandboxTold {
    id: SandboxId,
    row: Option<Arc<SandboxRow>>,
}

/// What one node is to be told: jobs that are to end, and orders for sandboxes.
#[derive(Debug, Default)]
pub(crate) struct NodeWake {
    /// There may be something that it was not told.
    pub(crate) news: Notify,
    /// Jobs to end that it was told by a poll, so that the next poll can wait.
    pub(crate) told: Mutex<HashSet<(JobId, u64)>>,
    /// The same for orders.
    pub(crate) told_sandboxes: Mutex<HashSet<SandboxRef>>,
    /// The same for rules of networks.
    pub(crate) told_networks: Mutex<HashSet<NetworkRef>>,
    /// The same for snapshots that are to go.
    pub(crate) told_snapshots: Mutex<HashSet<SnapshotId>>,
    /// Where the next look goes on through the wishes of jobs, and of sandboxes.
    pub(crate) wishes: Mutex<[String; 2]>,
    /// When its heartbeat is to look at all jobs that it has.
    pub(crate) held: Mutex<Oldest>,
    /// To which process of the node.
    told_to: Mutex<String>,
}

impl NodeWake {
    /// Another process of the node asks, which knows nothing of what the one before was told. It may have registered
    /// at another server.
    pub(crate) fn is_asked_by(&self, incarnation: &str) {
        if *locked(&self.told_to) != incarnation {
            self.forget_told(incarnation);
        }
    }

    /// A process of the node has come, and was told nothing yet.
    pub(crate) fn forget_told(&self, incarnation: &str) {
        incarnation.clone_into(&mut locked(&self.told_to));
        locked(&self.told).clear();
        locked(&self.told_sandboxes).clear();
        locked(&self.told_networks).clear();
        locked(&self.told_snapshots).clear();
    }
}

/// What a poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Jobs of a queue.
    Jobs,
    /// Sandboxes that live on.
    Sandboxes,
}

/// What a poll takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Takes {
    pub(crate) jobs: bool,
    pub(crate) sandboxes: bool,
}

impl Takes {
    fn has(self, what: For) -> bool {
        match what {
            For::Jobs => self.jobs,
            For::Sandboxes => self.sandboxes,
        }
    }
}

/// What a poll is handed.
#[derive(Debug)]
pub(crate) enum Handed {
    Jobs(Undelivered),
    Sandboxes(Untold),
}

/// A poll that waits for a hand-over.
#[derive(Debug)]
pub(crate) struct Parked {
    number: u64,
    pub(crate) node: NodeId,
    takes: Takes,
    /// What it is for jobs, and for sandboxes.
    offers: [Candidate; 2],
    hand: oneshot::Sender<Handed>,
}

impl Parked {
    /// Gives it jobs. If it is gone, they go back by themselves.
    pub(crate) fn hand_jobs(self, jobs: Undelivered) {
        drop(self.hand.send(Handed::Jobs(jobs)));
    }

    /// Gives it orders. If it is gone, the next poll of the node gets them.
    pub(crate) fn hand_sandboxes(self, orders: Untold) {
        drop(self.hand.send(Handed::Sandboxes(orders)));
    }
}

#[derive(Debug, Default)]
struct Parking {
    next: u64,
    polls: VecDeque<Parked>,
}

/// Everybody who waits.
pub(crate) struct Wake {
    /// Tells other processes that something was written.
    others: Box<dyn Fn() + Send + Sync>,
    queue: Notify,
    jobs: broadcast::Sender<Told>,
    sandboxes: broadcast::Sender<SandboxTold>,
    nodes: Mutex<HashMap<NodeId, Arc<NodeWake>>>,
    parking: Mutex<Parking>,
}

impl Wake {
    pub(crate) fn new(others: impl Fn() + Send + Sync + 'static) -> Wake {
        Wake {
            others: Box::new(others),
            queue: Notify::new(),
            jobs: broadcast::Sender::new(NEWS_MAX),
            sandboxes: broadcast::Sender::new(NEWS_MAX),
            nodes: Mutex::default(),
            parking: Mutex::default(),
        }
    }

    /// Something waits in the queue.
    pub(crate) fn queue(&self) {
        (self.others)();
        self.queue_here();
    }

    /// The same, and other processes know.
    pub(crate) fn queue_here(&self) {
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
        (self.others)();
        self.tell_here(Some(id), news, row);
    }

    /// Something has become of a job, or may have of any, and other processes know.
    pub(crate) fn job_here(&self, id: Option<&JobId>, news: News) {
        self.tell_here(id, news, None);
    }

    fn tell_here(&self, id: Option<&JobId>, news: News, row: Option<&JobRow>) {
        if self.jobs.receiver_count() == 0 {
            return;
        }
        let (id, row) = (id.cloned(), row.map(|row| Arc::new(row.clone())));
        // The last listener may go away at this moment.
        drop(self.jobs.send(Told { id, news, row }));
    }

    pub(crate) fn jobs(&self) -> broadcast::Receiver<Told> {
        self.jobs.subscribe()
    }

    /// A sandbox has become this.
    pub(crate) fn sandbox_is(&self, row: &SandboxRow) {
        (self.others)();
        if self.sandboxes.receiver_count() > 0 {
            let (id, row) = (row.id.clone(), Some(Arc::new(row.clone())));
            // The last listener may go away at this moment.
            drop(self.sandboxes.send(SandboxTold { id, row }));
        }
    }

    /// Something has become of a sandbox, and other processes know.
    pub(crate) fn sandbox_here(&self, id: SandboxId) {
        if self.sandboxes.receiver_count() > 0 {
            drop(self.sandboxes.send(SandboxTold { id, row: None }));
        }
    }

    pub(crate) fn sandboxes(&self) -> broadcast::Receiver<SandboxTold> {
        self.sandboxes.subscribe()
    }

    /// A job of this node is to end, or there is an order for it.
    pub(crate) fn node(&self, node: &NodeId) {
        (self.others)();
        self.of_node(node).news.notify_one();
    }

    /// The same, if it asks here, and other processes know.
    pub(crate) fn node_here(&self, node: &NodeId) {
        if let Some(wake) = locked(&self.nodes).get(node) {
            wake.news.notify_one();
        }
    }

    pub(crate) fn of_node(&self, node: &NodeId) -> Arc<NodeWake> {
        let mut nodes = locked(&self.nodes);
        if nodes.len() >= NODES_MAX {
            nodes.retain(|_, wake| Arc::strong_count(wake) > 1);
        }
        nodes.entry(node.clone()).or_default().clone()
    }

    /// Waits for a hand-over; `None` when too many do already.
    pub(crate) fn park(
        &self,
        node: &NodeId,
        takes: Takes,
        offers: [Candidate; 2],
    ) -> Option<(u64, oneshot::Receiver<Handed>)> {
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
            takes,
            offers,
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

    /// The poll of the best node that may take what is for `pin` and has this wish; among equals the one that
    /// has waited longest.
    pub(crate) fn take_parked(
        &self,
        (what, strategy): (For, Strategy),
        pin: Option<&NodeId>,
        wish: Option<&Wish>,
    ) -> Option<Parked> {
        let mut parking = locked(&self.parking);
        let fits = |poll: &Parked| {
            let ours = pin.is_none_or(|pin| *pin == poll.node);
            ours && poll.takes.has(what) && !poll.hand.is_closed()
        };
        // One that fits nobody here has no offer that fits, whatever is wished for.
        let nobody = Candidate::default();
        let offers = parking.polls.iter().map(|poll| match (fits(poll), what) {
            (false, _) => &nobody,
            (true, For::Jobs) => &poll.offers[0],
            (true, For::Sandboxes) => &poll.offers[1],
        });
        let none = Wish::default();
        let place = place::best(wish.unwrap_or(&none), strategy, offers)?;
        parking.polls.remove(place)
    }
}

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wake")
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
                Ok(told) if told.is_of(id) && matter.contains(&told.news) => return told.row,
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

/// Waits until there is news of a sandbox, but no longer than a moment or `until`. Gives the sandbox when
/// the news brought it; otherwise it is to be looked at.
pub(crate) async fn sandbox_news(
    news: &mut broadcast::Receiver<SandboxTold>,
    id: &SandboxId,
    until: Instant,
) -> Option<Arc<SandboxRow>> {
    let next = async {
        loop {
            match news.recv().await {
                Ok(told) if told.id == *id => return told.row,
                Ok(_) => {}
                // Missed some: look. It cannot be closed, because whoever waits has the sender.
                Err(_) => return None,
            }
        }
    };
    let floor = until.min(Instant::now() + FLOOR);
    tokio::time::timeout_at(floor, next).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_strategy_the_emptiest_or_the_fullest_poll_gets_a_job_and_only_one_that_can_have_it() {
        let offer = |used, memory| Candidate {
            slots: (used, 4),
            gets_work: true,
            healthy: true,
            capacity: place::Capacity {
                memory_bytes: Some(memory),
                ..place::Capacity::default()
            },
            ..Candidate::default()
        };
        let wish = Wish {
            memory_bytes: Some(20),
            ..Wish::default()
        };
        for (strategy, wish, expect) in [
            (Strategy::Spread, None, Some(1)),
            (Strategy::Pack, None, Some(2)),
            (Strategy::Spread, Some(&wish), Some(3)),
            (Strategy::Pack, Some(&wish), Some(3)),
        ] {
            let wake = Wake::new(|| {});
            let takes = Takes {
                jobs: true,
                sandboxes: false,
            };
            let node = |number| NodeId::from_parts(1, [number; 10]);
            let parked = [(1, offer(0, 10)), (2, offer(3, 10)), (3, offer(1, 20))];
            let parked = parked
                .map(|(number, offer)| wake.park(&node(number), takes, [offer.clone(), offer]));
            let taken = wake.take_parked((For::Jobs, strategy), None, wish);
            assert_eq!(
                taken.map(|poll| poll.node),
                expect.map(node),
                "{strategy:?}"
            );
            assert!(
                wake.take_parked((For::Sandboxes, strategy), None, None)
                    .is_none()
            );
            drop(parked);
        }
    }
}
