//! How work gets to nodes: a poll takes what waits, or waits itself for what comes.

use crate::job::{LOOK_AGAIN, change};
use crate::node::JobRef;
use crate::{Ctx, Error, Service};
use model::id::NodeId;
use model::job::{JobEvent, JobState, Step};
use model::limits;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::job::JobRow;
use store::{StoreError, Tx};
use tokio::sync::oneshot;

/// Jobs that one poll takes at most: a batch that one answer holds.
const CLAIM_MAX: u32 = 64;
/// Polls that wait at once; one more does not get work handed to it and looks for itself.
const PARKED_MAX: usize = 4096;

/// What a poll brings.
#[derive(Debug, Default)]
pub struct Polled {
    /// Jobs that are the node's now.
    pub leases: Vec<JobRow>,
    /// Jobs that are to end.
    pub cancel: Vec<JobRef>,
}

/// A poll that waits for a job.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    pub(crate) node: NodeId,
    give: oneshot::Sender<JobRow>,
}

impl Place {
    /// Hands a job to the poll. False when it has gone.
    pub(crate) fn give(self, row: JobRow) -> bool {
        self.give.send(row).is_ok()
    }
}

#[derive(Debug, Default)]
struct Lot {
    next: u64,
    places: VecDeque<Place>,
}

/// The polls that wait. Lost with the process, which costs nothing: their nodes poll again.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    lot: Mutex<Lot>,
}

impl Parking {
    fn lot(&self) -> MutexGuard<'_, Lot> {
        self.lot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a poll of this node, or of any.
    pub(crate) fn take(&self, node: Option<&NodeId>) -> Option<Place> {
        let places = &mut self.lot().places;
        let index = places
            .iter()
            .position(|place| node.is_none_or(|node| place.node == *node))?;
        places.remove(index)
    }

    /// Puts a poll back that got nothing.
    pub(crate) fn put_back(&self, place: Place) {
        self.lot().places.push_front(place);
    }

    fn park(&self, node: &NodeId) -> Option<(u64, oneshot::Receiver<JobRow>)> {
        let mut lot = self.lot();
        if lot.places.len() >= PARKED_MAX {
            return None;
        }
        lot.next += 1;
        let number = lot.next;
        let (give, given) = oneshot::channel();
        lot.places.push_back(Place {
            number,
            node: node.clone(),
            give,
        });
        Some((number, given))
    }

    fn leave(&self, number: u64) {
        self.lot().places.retain(|place| place.number != number);
    }
}

/// Takes a poll out of the lot when it ends, however it ends.
struct Parked<'p> {
    parking: &'p Parking,
    number: u64,
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.parking.leave(self.number);
    }
}

impl Service {
    /// Work for a node: what waits now, or what comes within `wait`. With no free slots only word of
    /// jobs that are to end.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is no node, or what the database says.
    pub async fn node_poll(
        &self,
        ctx: &Ctx,
        free_slots: u32,
        wait: Duration,
    ) -> Result<Polled, Error> {
        let node = ctx.this_node()?.clone();
        let wait = wait.min(Duration::from_millis(limits::POLL_WAIT_MAX_MS));
        let until = tokio::time::Instant::now() + wait;
        let ending = self.inner.wake.node(&node);
        let mut told = std::collections::HashSet::new();
        // What was to end before this poll is told by heartbeats; this poll tells what comes new.
        told.extend(self.to_end(&node).await?);
        loop {
            let mut queued = pin!(self.inner.wake.queue.notified());
            queued.as_mut().enable();
            let mut ended = pin!(ending.notified());
            ended.as_mut().enable();
            let leases = self.claim(&node, free_slots).await?;
            let cancel: Vec<JobRef> = self.to_end(&node).await?;
            let cancel: Vec<JobRef> = cancel
                .into_iter()
                .filter(|job| told.insert(job.clone()))
                .collect();
            let now = tokio::time::Instant::now();
            if !leases.is_empty() || !cancel.is_empty() || now >= until {
                return Ok(Polled { leases, cancel });
            }
            let parked = if free_slots > 0 {
                self.inner.parking.park(&node)
            } else {
                None
            };
            let Some((number, mut given)) = parked else {
                drop(tokio::time::timeout_at(until.min(now + LOOK_AGAIN), ended).await);
                continue;
            };
            let _parked = Parked {
                parking: &self.inner.parking,
                number,
            };
            tokio::select! {
                Ok(row) = &mut given => return Ok(Polled { leases: vec![row], cancel: Vec::new() }),
                () = queued => {}
                () = ended => {}
                () = tokio::time::sleep_until(until.min(now + LOOK_AGAIN)) => {}
            }
            // Closed first: a job is either in it already, or its giver will see that nobody is there.
            given.close();
            if let Ok(row) = given.try_recv() {
                return Ok(Polled {
                    leases: vec![row],
                    cancel: Vec::new(),
                });
            }
        }
    }

    async fn claim(&self, node: &NodeId, free_slots: u32) -> Result<Vec<JobRow>, Error> {
        if free_slots == 0 {
            return Ok(Vec::new());
        }
        let asking = node.clone();
        // A look beside the writer first: most polls find nothing.
        if self
            .inner
            .store
            .read(move |tx| store::queue::is_empty(tx, &asking))
            .await?
        {
            return Ok(Vec::new());
        }
        let (node, now, limit) = (node.clone(), self.now_ms(), free_slots.min(CLAIM_MAX));
        let unit = move |tx: &mut Tx<'_>| {
            let jobs = store::queue::claim(tx, &node, limit, now)?;
            jobs.iter().map(|row| lease(tx, row, &node, now)).collect()
        };
        match self.inner.store.write(unit).await {
            // Somebody canceled one of them meanwhile; the next look finds the others.
            Err(StoreError::Stale { .. }) => Ok(Vec::new()),
            other => Ok(other?),
        }
    }

    async fn to_end(&self, node: &NodeId) -> Result<Vec<JobRef>, Error> {
        let node = node.clone();
        let held = self
            .inner
            .store
            .read(move |tx| store::job::held_by(tx, &node, limits::PAGE_MAX));
        let held = held.await?;
        let stopping = held
            .iter()
            .filter(|row| matches!(row.state, JobState::Stopping { .. }));
        Ok(stopping.map(JobRef::of).collect())
    }

    /// Gives back a job that its node never heard of.
    pub(crate) async fn give_back(&self, row: &JobRow) -> Result<(), Error> {
        let ctx = Ctx::internal("poll");
        let event = JobEvent::Release { epoch: row.epoch };
        let data = r#"{"why":"the node hung up"}"#;
        self.step(&ctx, None, &row.id, event, data).await.map(drop)
    }
}

/// Leases a job to a node, in the caller's transaction.
pub(crate) fn lease(
    tx: &mut Tx<'_>,
    row: &JobRow,
    node: &NodeId,
    now_ms: u64,
) -> Result<JobRow, StoreError> {
    let event = JobEvent::Lease {
        node: node.clone(),
        epoch: row.epoch + 1,
    };
    let Ok(Step::Moved(next)) = row.state.step(&event) else {
        return Err(StoreError::Stale {
            what: row.id.to_string(),
        });
    };
    let data = format!(r#"{{"node":"{node}","epoch":{}}}"#, row.epoch + 1);
    let ctx = Ctx::node(node.clone(), String::new());
    let mut change = change(row, next, &event, data, &ctx.principal, now_ms);
    change.attempt = row.attempt + 1;
    store::job::move_to(tx, row, &change)
}
