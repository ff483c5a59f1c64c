//! How a node gets work: from the queue, or, when nothing waits, from the next request for a job.

use crate::blob::HELD_MAX;
use crate::change::Note;
use crate::create::{gets_work, lease};
use crate::error::Fail;
use crate::hand::Undelivered;
use crate::job::until;
use crate::node::{LeaseRef, lease_ref, unregistered};
use crate::sandbox::SandboxWork;
use crate::sandbox::network::{pending_of, untold as untold_networks};
use crate::sandbox::work::{Untold, untold as untold_orders, wanted_of};
use crate::snapshot::work::{removable, untold as untold_removals};
use crate::wake::{FLOOR, Handed, NodeWake, Takes};
use crate::{Ctx, Error, Service, locked};
use model::id::{NodeId, SnapshotId};
use model::limits;
use std::pin::Pin;
use std::time::Duration;
use store::job::JobRow;
use store::sandbox::SandboxRow;
use tokio::sync::futures::Notified;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The most jobs that one poll takes: the node asks again at once, and others get a turn.
const CLAIM_MAX: u32 = 64;

/// What there is to do for a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Polled {
    /// Jobs that are its own from now on.
    pub leases: Vec<JobRow>,
    /// Jobs that are to end, each told once; heartbeats say them again.
    pub cancel: Vec<LeaseRef>,
    /// Orders for sandboxes, each told once; heartbeats say them again.
    pub sandboxes: Vec<SandboxWork>,
    /// Snapshots whose bytes are to go, each told once; heartbeats say them again.
    pub remove_snapshots: Vec<SnapshotId>,
    /// Sandboxes whose rules are to be put in force, each told once; heartbeats say them again.
    pub networks: Vec<SandboxRow>,
}

/// How much a node can take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Free {
    /// So many jobs.
    pub slots: u32,
    /// So many sandboxes that live on.
    pub sandboxes: u32,
}

impl From<u32> for Free {
    /// A node that takes jobs only.
    fn from(slots: u32) -> Free {
        let sandboxes = 0;
        Free { slots, sandboxes }
    }
}

/// What a look at the database says about a node that asks.
struct Look {
    cancel: Vec<LeaseRef>,
    wanted: Vec<SandboxRow>,
    removable: Vec<SnapshotId>,
    networks: Vec<SandboxRow>,
    job_waits: bool,
    sandbox_waits: bool,
    gets_work: bool,
}

/// What a poll has found, on its way to the node.
struct Found {
    leases: Undelivered,
    cancel: Vec<LeaseRef>,
    sandboxes: Untold,
    removals: Vec<SnapshotId>,
    networks: Vec<SandboxRow>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.cancel.is_empty()
            && self.sandboxes.is_empty()
            && self.removals.is_empty()
            && self.networks.is_empty()
    }

    fn deliver(self) -> Polled {
        Polled {
            leases: self.leases.deliver(),
            cancel: self.cancel,
            sandboxes: self.sandboxes.deliver(),
            remove_snapshots: self.removals,
            networks: self.networks,
        }
    }
}

impl Handed {
    fn deliver(self) -> Polled {
        match self {
            Handed::Jobs(jobs) => Polled {
                leases: jobs.deliver(),
                ..Polled::default()
            },
            Handed::Sandboxes(orders) => Polled {
                sandboxes: orders.deliver(),
                ..Polled::default()
            },
        }
    }
}

impl Service {
    /// Waits until there is something for a node to do, or the time is up.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another process has registered for this node.
    pub async fn node_poll(
        &self,
        ctx: &Ctx,
        incarnation: &str,
        free: impl Into<Free>,
        wait: Duration,
    ) -> Result<Polled, Error> {
        let (node, free) = (ctx.only_node()?, free.into());
        let until = until(wait, limits::POLL_WAIT_MAX_MS);
        let wake = self.wake().of_node(node);
        wake.is_asked_by(incarnation);
        loop {
            // Before the look, so that what happens between the look and the wait is not missed.
            let queued = self.wake().queued();
            tokio::pin!(queued);
            queued.as_mut().enable();
            let look = self.look_for(node, incarnation).await?;
            let free = if look.gets_work {
                free
            } else {
                Free::default()
            };
            let found = self.find(ctx, node, &wake, free, look).await?;
            if !found.is_empty() || Instant::now() >= until {
                return Ok(found.deliver());
            }
            let until = until.min(Instant::now() + FLOOR);
            if let Some(handed) = self.stand_by(node, &wake, free, queued, until).await {
                return Ok(handed.deliver());
            }
        }
    }

    /// What there is for a node by a look, and what it takes of what waits.
    async fn find(
        &self,
        ctx: &Ctx,
        node: &NodeId,
        wake: &NodeWake,
        free: Free,
        look: Look,
    ) -> Result<Found, Error> {
        let mut leases = Undelivered::new(self, Vec::new());
        if free.slots > 0 && look.job_waits {
            leases = self.claim(ctx, node, free.slots.min(CLAIM_MAX)).await?;
        }
        let mut wanted = look.wanted;
        if free.sandboxes > 0 && look.sandbox_waits {
            let most = free.sandboxes.min(CLAIM_MAX);
            wanted.extend(self.place_sandboxes(ctx, node, most).await?);
        }
        let orders = untold_orders(wake, wanted);
        Ok(Found {
            leases,
            cancel: untold(wake, look.cancel),
            sandboxes: Untold::new(self, node, orders.iter().collect()),
            removals: untold_removals(wake, look.removable),
            networks: untold_networks(wake, look.networks),
        })
    }

    /// Waits for a hand-over, or until it is worth another look.
    async fn stand_by(
        &self,
        node: &NodeId,
        wake: &NodeWake,
        free: Free,
        queued: Pin<&mut Notified<'_>>,
        until: Instant,
    ) -> Option<Handed> {
        let takes = Takes {
            jobs: free.slots > 0,
            sandboxes: free.sandboxes > 0,
        };
        let takes_any = takes.jobs || takes.sandboxes;
        let place = takes_any.then(|| self.wake().park(node, takes)).flatten();
        let Some((number, mut handed)) = place else {
            tokio::select! {
                () = queued, if takes_any => {}
                () = wake.news.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            return None;
        };
        let unparked = tokio::select! {
            biased;
            got = &mut handed => return got.ok(),
            () = queued => self.wake().unpark(number),
            () = wake.news.notified() => self.wake().unpark(number),
            () = tokio::time::sleep_until(until) => self.wake().unpark(number),
        };
        if unparked {
            return None;
        }
        // A request has taken this poll, and its commit is under way.
        handed.await.ok()
    }

    async fn look_for(&self, node: &NodeId, incarnation: &str) -> Result<Look, Error> {
        let (node, incarnation) = (node.clone(), incarnation.to_owned());
        let now = self.now_ms();
        self.look(move |tx| {
            let row = store::node::get(tx, &node)?;
            if row.is_none_or(|row| row.incarnation != incarnation) {
                return Err(unregistered().into());
            }
            let stopping = store::job::stopping_on(tx, &node, HELD_MAX)?;
            Ok(Look {
                cancel: stopping.iter().map(lease_ref).collect(),
                wanted: wanted_of(tx, &node)?,
                removable: removable(tx, &node)?,
                networks: pending_of(tx, &node)?,
                job_waits: !store::queue::is_empty(tx, &node)?,
                sandbox_waits: store::sandbox::is_requested(tx, &node)?,
                gets_work: gets_work(tx, &node, now)?,
            })
        })
        .await
    }

    /// Takes jobs out of the queue for a node.
    async fn claim(&self, ctx: &Ctx, node: &NodeId, most: u32) -> Result<Undelivered, Error> {
        let (tell, told) = oneshot::channel();
        let (service, node, note) = (self.clone(), node.clone(), Note::new(ctx, self.now_ms()));
        // In a task of its own: the poll may go away while the commit is under way, and then the
        // leases have to go back.
        drop(tokio::spawn(async move {
            let claimed = service.unit(move |tx| {
                let mut leased = Vec::new();
                if !gets_work(tx, &node, note.at_ms)? {
                    return Ok::<_, Fail>(leased);
                }
                for row in store::queue::claim(tx, &node, most, note.at_ms)? {
                    leased.extend(lease(tx, &row, &node, note.clone())?);
                }
                Ok(leased)
            });
            let claimed = claimed.await;
            let claimed = claimed.map(|rows| {
                rows.iter().for_each(|row| service.announce(row));
                Undelivered::new(&service, rows)
            });
            drop(tell.send(claimed));
        }));
        told.await.map_err(|_| Error::Unavailable(None))?
    }
}

/// The jobs to end that no poll has told this node yet. A poll that answered with the same ones again
/// and again until they have ended would spin.
fn untold(wake: &NodeWake, stopping: Vec<LeaseRef>) -> Vec<LeaseRef> {
    let mut told = locked(&wake.told);
    let all: std::collections::HashSet<(model::id::JobId, u64)> = stopping
        .iter()
        .map(|lease| (lease.job_id.clone(), lease.epoch))
        .collect();
    let news = stopping
        .into_iter()
        .filter(|lease| !told.contains(&(lease.job_id.clone(), lease.epoch)))
        .collect();
    *told = all;
    news
}
