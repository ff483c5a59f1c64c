//! How a node gets work: from the queue, or, when nothing waits, from the next request for a job.

use crate::change::Note;
use crate::create::lease;
use crate::error::Fail;
use crate::hand::Undelivered;
use crate::job::until;
use crate::node::HELD_MAX;
use crate::node::{LeaseRef, lease_ref, unregistered};
use crate::oldest::Seen;
use crate::place::{Grants, Room, asking, grants, row_gets_work};
use crate::quota::Book;
use crate::quota::admit::{self, Full};
use crate::sandbox::SandboxWork;
use crate::sandbox::network::{pending_of, untold as untold_networks};
use crate::sandbox::work::{Untold, untold as untold_orders, wanted_of};
use crate::snapshot::work::{removable, untold as untold_removals};
use crate::wake::{FLOOR, For, Handed, NodeWake, Takes};
use crate::{Ctx, Error, Service, locked};
use model::id::{NodeId, SnapshotId, TenantId};
use model::limits;
use model::node::Scheduling;
use model::place::{Candidate, Reserved, share};
use model::policy::PermitUse;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;
use store::Tx;
use store::job::JobRow;
use store::queue::Granted;
use store::sandbox::SandboxRow;
use tokio::sync::futures::Notified;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How often a claim that found only what quotas keep looks once more. Each time a thousand jobs of a quota are held, so
/// that a hundred thousand that wait when a quota is set are out of the way after some polls.
const CLAIM_TRIES: u32 = 16;
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
    /// What the limits of what it has name.
    pub reserved: Reserved,
}

impl From<u32> for Free {
    /// A node that takes jobs only.
    fn from(slots: u32) -> Free {
        Free {
            slots,
            ..Free::default()
        }
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
    /// How much it has failed lately.
    trouble: u32,
    jobs: Grants,
    placed: Grants,
    /// As who it is parked.
    offers: [Candidate; 2],
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
        // Before there is a lease, which would be lost where this cannot be read.
        self.lease_key().await?;
        let until = until(wait, limits::POLL_WAIT_MAX_MS);
        let wake = self.wake().of_node(node);
        wake.is_asked_by(incarnation);
        loop {
            // Before the look, so that what happens between the look and the wait is not missed.
            let queued = self.wake().queued();
            tokio::pin!(queued);
            queued.as_mut().enable();
            let look = self.look_for(node, incarnation, free, &wake).await?;
            let free = match look.gets_work {
                true => Free {
                    slots: share(free.slots, look.trouble),
                    ..free
                },
                false => Free::default(),
            };
            let offers = look.offers.clone();
            let found = self.find(ctx, node, &wake, free, look).await?;
            if !found.is_empty() || Instant::now() >= until {
                return Ok(found.deliver());
            }
            let until = until.min(Instant::now() + FLOOR);
            if let Some(handed) = self
                .stand_by(node, &wake, (free, offers), queued, until)
                .await
            {
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
        let (jobs, placed) = (look.jobs.granted, look.placed.granted);
        if free.slots > 0 && (look.job_waits || !jobs.is_empty()) {
            leases = self.claim(ctx, node, free, jobs).await?;
        }
        let mut wanted = look.wanted;
        if free.sandboxes > 0 && (look.sandbox_waits || !placed.is_empty()) {
            let free = Free {
                sandboxes: free.sandboxes.min(CLAIM_MAX),
                ..free
            };
            wanted.extend(self.place_sandboxes(ctx, node, free, placed).await?);
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
        (free, offers): (Free, [Candidate; 2]),
        queued: Pin<&mut Notified<'_>>,
        until: Instant,
    ) -> Option<Handed> {
        let takes = Takes {
            jobs: free.slots > 0,
            sandboxes: free.sandboxes > 0,
        };
        let takes_any = takes.jobs || takes.sandboxes;
        let place = takes_any
            .then(|| self.wake().park(node, takes, offers))
            .flatten();
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

    async fn look_for(
        &self,
        node: &NodeId,
        incarnation: &str,
        free: Free,
        wake: &NodeWake,
    ) -> Result<Look, Error> {
        let (node, incarnation) = (node.clone(), incarnation.to_owned());
        let now = self.now_ms();
        let after = locked(&wake.wishes).clone();
        let from = locked(&self.inner.oldest).from(now);
        let look = self.look(move |tx| {
            let row = store::node::get(tx, &node)?;
            let row = row.filter(|row| row.incarnation == incarnation);
            let row = row.ok_or_else(unregistered)?;
            // It waits for nothing any more.
            if row.state.scheduling == Scheduling::Decommissioned {
                return Err(Error::Forbidden("the node is decommissioned".to_owned()).into());
            }
            let wishes = |tx: &mut Tx<'_>, what, free_of, after: &str| match free_of {
                0 => Ok(Grants::default()),
                _ => grants(tx, &row, (what, free), after, now),
            };
            let jobs = wishes(tx, For::Jobs, free.slots, &after[0])?;
            let placed = wishes(tx, For::Sandboxes, free.sandboxes, &after[1])?;
            let stopping = store::job::stopping_on(tx, &node, HELD_MAX)?;
            Ok(Look {
                cancel: stopping.iter().map(lease_ref).collect(),
                wanted: wanted_of(tx, &node)?,
                removable: removable(tx, &node)?,
                networks: pending_of(tx, &node)?,
                job_waits: free.slots > 0 && !store::queue::is_empty_from(tx, &node, from)?,
                sandbox_waits: free.sandboxes > 0 && store::sandbox::is_requested(tx, &node)?,
                gets_work: row_gets_work(&row, now),
                trouble: row.trouble.count(now),
                jobs,
                placed,
                offers: [For::Jobs, For::Sandboxes].map(|what| asking(&row, free, what, now)),
            })
        });
        let look = look.await?;
        // A node asks for jobs and for sandboxes apart: who did not ask has looked nowhere.
        let mut next = locked(&wake.wishes);
        if free.slots > 0 {
            next[0].clone_from(&look.jobs.next);
        }
        if free.sandboxes > 0 {
            next[1].clone_from(&look.placed.next);
        }
        drop(next);
        Ok(look)
    }

    /// Takes jobs out of the queue for a node.
    async fn claim(
        &self,
        ctx: &Ctx,
        node: &NodeId,
        free: Free,
        granted: Vec<Granted>,
    ) -> Result<Undelivered, Error> {
        let (tell, told) = oneshot::channel();
        let (service, node, note) = (self.clone(), node.clone(), Note::new(ctx, self.now_ms()));
        // In a task of its own: the poll may go away while the commit is under way, and then the
        // leases have to go back.
        drop(tokio::spawn(async move {
            let mut outdated = Vec::new();
            let claimed = service.claim_some((node, free), note, granted).await;
            let claimed = claimed.map(|claimed| {
                outdated = claimed.stale;
                claimed.leased.iter().for_each(|row| service.announce(row));
                Undelivered::new(&service, claimed.leased)
            });
            drop(tell.send(claimed));
            // If we die before this line, the next claim finds them as they are.
            if !outdated.is_empty() {
                service.jobs_renew(outdated).await;
            }
        }));
        told.await.map_err(|_| Error::Unavailable(None))?
    }

    /// Claims until there is something, or nothing more to be found: what is by quotas in which there is no room is
    /// held on the way, each thing once, so that it stands in nobody's way.
    async fn claim_some(
        &self,
        (node, free): (NodeId, Free),
        note: Note,
        granted: Vec<Granted>,
    ) -> Result<Claimed, Error> {
        let mut tries = 1;
        loop {
            let (book, node) = (self.inner.quotas.clone(), node.clone());
            let (note, granted) = (note.clone(), granted.clone());
            let (now, from) = (note.at_ms, locked(&self.inner.oldest).from(note.at_ms));
            let claimed =
                self.unit(move |tx| claim_once(tx, (&node, free, from), &note, (&granted, &book)));
            let claimed = claimed.await?;
            if let Some(seen) = claimed.seen {
                locked(&self.inner.oldest).see(seen, from, now);
            }
            let is_done = !claimed.leased.is_empty() || claimed.held == 0;
            if is_done || tries >= CLAIM_TRIES {
                return Ok(claimed);
            }
            tries += 1;
        }
    }
}

/// What came of one claim.
#[derive(Default)]
struct Claimed {
    leased: Vec<JobRow>,
    /// Decided by policies that are not those of now.
    stale: Vec<JobRow>,
    /// Places that were held for quotas.
    held: u64,
    /// What was seen of all that wait.
    seen: Option<Seen>,
}

/// Places from the oldest on, or from where it was seen last; where nothing is, everywhere.
fn oldest_first(
    tx: &mut Tx<'_>,
    (node, most, from): (&NodeId, u32, u64),
    now: u64,
    granted: &[Granted],
) -> Result<(Vec<JobRow>, Option<Seen>), Fail> {
    let seen = |oldest: Option<u64>, whole| {
        let oldest_ms = oldest.unwrap_or(now);
        Some(Seen { oldest_ms, whole })
    };
    if from > 0 {
        let (found, oldest) = store::queue::claim_from(tx, node, (most, from), now, granted)?;
        if !found.is_empty() {
            return Ok((found, seen(oldest, None)));
        }
    }
    let began = Instant::now();
    let (found, oldest) = store::queue::claim_from(tx, node, (most, 0), now, granted)?;
    Ok((found, seen(oldest, Some(began.elapsed()))))
}

fn claim_once(
    tx: &mut Tx<'_>,
    (node, free, from): (&NodeId, Free, u64),
    note: &Note,
    (granted, book): (&[Granted], &Book),
) -> Result<Claimed, Fail> {
    let (mut claimed, now) = (Claimed::default(), note.at_ms);
    let row = store::node::get(tx, node)?;
    let Some(row) = row.filter(|row| row_gets_work(row, now)) else {
        return Ok(claimed);
    };
    let stamps = store::policy::stamps(tx)?;
    let mut room = Room::of(asking(&row, free, For::Jobs, now));
    let most = free.slots.min(CLAIM_MAX);
    let is_stale = |row: &JobRow| PermitUse::is_stale(row.spec.permit.as_deref(), stamps.policies);
    let (mut found, seen) = oldest_first(tx, (node, most, from), now, granted)?;
    claimed.seen = seen;
    if found.iter().any(is_stale) {
        // Those of one tenant, which wait to be decided again, hold up nobody who waits behind them.
        found = store::queue::claim(tx, node, CLAIM_MAX, now, granted)?;
    }
    let by = admit::By {
        book,
        stamp: stamps.quotas,
    };
    let mut gate = admit::claimed(tx, &by, &found)?;
    let mut full = BTreeSet::<(TenantId, Full)>::new();
    for row in found {
        if is_stale(&row) {
            claimed.stale.push(row);
            continue;
        }
        if claimed.leased.len() >= most as usize {
            continue;
        }
        if let Err(over) = admit::claim(&mut gate, &row) {
            full.insert((row.tenant, admit::full(over)));
        } else if room.take(row.spec.wish()) {
            claimed.leased.extend(lease(tx, &row, node, note.clone())?);
        }
    }
    claimed.held = admit::hold(tx, &full)?;
    Ok(claimed)
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
