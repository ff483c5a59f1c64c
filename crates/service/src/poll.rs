//! How a node gets work: from the queue, or, when nothing waits, from the next request for a job.

use crate::blob::HELD_MAX;
use crate::change::Note;
use crate::create::{gets_work, lease};
use crate::error::Fail;
use crate::hand::Undelivered;
use crate::job::until;
use crate::node::{LeaseRef, lease_ref, unregistered};
use crate::wake::{FLOOR, NodeWake};
use crate::{Ctx, Error, Service, locked};
use model::id::NodeId;
use model::limits;
use std::time::Duration;
use store::job::JobRow;
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
}

/// What a look at the database says about a node that asks.
struct Look {
    cancel: Vec<LeaseRef>,
    something_waits: bool,
    gets_work: bool,
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
        free_slots: u32,
        wait: Duration,
    ) -> Result<Polled, Error> {
        let node = ctx.only_node()?;
        let until = until(wait, limits::POLL_WAIT_MAX_MS);
        let wake = self.wake().of_node(node);
        loop {
            // Before the look, so that what happens between the look and the wait is not missed.
            let queued = self.wake().queued();
            tokio::pin!(queued);
            queued.as_mut().enable();
            let look = self.look_for(node, incarnation).await?;
            let cancel = untold(&wake, look.cancel);
            let may_take = free_slots > 0 && look.gets_work;
            let mut claimed = Undelivered::new(self, Vec::new());
            if may_take && look.something_waits {
                claimed = self.claim(ctx, node, free_slots.min(CLAIM_MAX)).await?;
            }
            if !claimed.is_empty() || !cancel.is_empty() || Instant::now() >= until {
                return Ok(Polled {
                    leases: claimed.deliver(),
                    cancel,
                });
            }
            let until = until.min(Instant::now() + FLOOR);
            let place = if may_take {
                self.wake().park(node)
            } else {
                None
            };
            let Some((number, mut handed)) = place else {
                tokio::select! {
                    () = &mut queued, if may_take => {}
                    () = wake.cancel.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
                continue;
            };
            let got = tokio::select! {
                biased;
                got = &mut handed => Some(got),
                () = &mut queued => None,
                () = wake.cancel.notified() => None,
                () = tokio::time::sleep_until(until) => None,
            };
            let got = match got {
                Some(got) => got.ok(),
                None if self.wake().unpark(number) => None,
                // A request for a job has taken this poll, and its commit is under way.
                None => handed.await.ok(),
            };
            if let Some(job) = got {
                return Ok(Polled {
                    leases: job.deliver(),
                    cancel: Vec::new(),
                });
            }
        }
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
                something_waits: !store::queue::is_empty(tx, &node)?,
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
