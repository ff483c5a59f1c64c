//! Nodes: coming, renewing, going.

use crate::{Ctx, Error, Service};
use model::id::{JobId, NodeId};
use model::job::{JobEvent, JobState};
use model::limits;
use model::node::{Connectivity, NodeEvent, NodeState, Scheduling};
use std::collections::BTreeMap;
use store::Tx;
use store::job::JobRow;
use store::node::NodeRow;

/// What a node says when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its name for people.
    pub name: String,
    /// Of its process.
    pub incarnation: String,
    /// Of its program.
    pub version: String,
    /// Jobs at one time.
    pub slots: u32,
    /// Drivers that it has.
    pub drivers: Vec<String>,
    /// What it can.
    pub facts: BTreeMap<String, String>,
}

/// What a node is told when it came.
#[derive(Debug)]
pub struct Registered {
    /// How long its leases last without renewal, in milliseconds.
    pub lease_ms: u64,
    /// How often it should renew, in milliseconds.
    pub heartbeat_ms: u64,
    /// Jobs that it has, as far as is known here.
    pub held: Vec<JobRow>,
}

/// A job at one epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobRef {
    /// The job.
    pub job_id: JobId,
    /// Of the lease.
    pub epoch: u64,
}

impl JobRef {
    pub(crate) fn of(row: &JobRow) -> JobRef {
        JobRef {
            job_id: row.id.clone(),
            epoch: row.epoch,
        }
    }
}

/// What a node is told when it renewed.
#[derive(Debug, Default)]
pub struct Renewed {
    /// How long its leases last from when the renewal was sent, in milliseconds.
    pub lease_ms: u64,
    /// Jobs that are to end.
    pub cancel: Vec<JobRef>,
    /// Jobs that are not this node's any more.
    pub stale: Vec<JobRef>,
}

impl Service {
    /// A node comes, or comes again.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is no node, or one that was decommissioned.
    pub async fn node_register(&self, ctx: &Ctx, hello: Hello) -> Result<Registered, Error> {
        let id = ctx.this_node()?.clone();
        let now = self.now_ms();
        let unit = move |tx: &mut Tx<'_>| {
            let before = store::node::get(tx, &id)?.map(|node| node.state);
            let Some(state) = before.unwrap_or(NEW).step(NodeEvent::Seen) else {
                return Ok(None);
            };
            store::node::upsert(tx, &row_of(&id, &hello, state, now))?;
            store::job::held_by(tx, &id, limits::PAGE_MAX).map(Some)
        };
        let held = self
            .inner
            .store
            .write(unit)
            .await?
            .ok_or(Error::Forbidden)?;
        let (lease_ms, heartbeat_ms) = (limits::LEASE_MS, limits::HEARTBEAT_MS);
        Ok(Registered {
            lease_ms,
            heartbeat_ms,
            held,
        })
    }

    /// A node renews its leases, and says what it has.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`] when another process of this node has come since.
    pub async fn node_heartbeat(
        &self,
        ctx: &Ctx,
        incarnation: String,
        running: Vec<JobRef>,
    ) -> Result<Renewed, Error> {
        let id = ctx.this_node()?.clone();
        let until = self.now_ms().saturating_add(limits::LEASE_MS);
        let unit = move |tx: &mut Tx<'_>| {
            if !store::node::renew(tx, &id, &incarnation, until)? {
                return Ok(None);
            }
            store::job::held_by(tx, &id, limits::PAGE_MAX).map(Some)
        };
        let held = self
            .inner
            .store
            .write(unit)
            .await?
            .ok_or(Error::StaleEpoch)?;
        let ours: Vec<JobRef> = held.iter().map(JobRef::of).collect();
        let stopping = held
            .iter()
            .filter(|row| matches!(row.state, JobState::Stopping { .. }));
        Ok(Renewed {
            lease_ms: limits::LEASE_MS,
            cancel: stopping.map(JobRef::of).collect(),
            stale: running
                .into_iter()
                .filter(|job| !ours.contains(job))
                .collect(),
        })
    }

    /// A node goes for good: an embedded one whose process ends. What it still has is lost.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is no node, or what the database says.
    pub async fn node_gone(&self, ctx: &Ctx) -> Result<(), Error> {
        let id = ctx.this_node()?.clone();
        let held = {
            let id = id.clone();
            let unit = move |tx: &mut Tx<'_>| store::job::held_by(tx, &id, limits::PAGE_MAX);
            self.inner.store.read(unit).await?
        };
        for row in held {
            self.lease_lost(ctx, &row, "the node's process ended")
                .await?;
        }
        self.inner.wake.forget_node(&id);
        Ok(self
            .inner
            .store
            .write(move |tx| store::node::delete(tx, &id))
            .await?)
    }

    /// The lease of a job is over without a report. Its retry rule says what follows.
    pub(crate) async fn lease_lost(
        &self,
        ctx: &Ctx,
        row: &JobRow,
        why: &'static str,
    ) -> Result<JobRow, Error> {
        let retry = row.attempt < row.spec.retry.max_attempts;
        let event = JobEvent::LeaseLost {
            epoch: row.epoch,
            retry,
            why: why.to_owned(),
        };
        self.step(ctx, None, &row.id, event, r#"{"why":"the lease was lost"}"#)
            .await
            .map(|(row, _)| row)
    }
}

/// A node that was never heard of.
const NEW: NodeState = NodeState {
    connectivity: Connectivity::Pending,
    scheduling: Scheduling::Active,
};

fn row_of(id: &NodeId, hello: &Hello, state: NodeState, now_ms: u64) -> NodeRow {
    NodeRow {
        id: id.clone(),
        name: hello.name.clone(),
        incarnation: hello.incarnation.clone(),
        version: hello.version.clone(),
        slots: hello.slots,
        drivers: hello.drivers.clone(),
        facts: hello.facts.clone(),
        state,
        lease_expires_at_ms: now_ms.saturating_add(limits::LEASE_MS),
        registered_at_ms: now_ms,
    }
}
