//! After a start: what the control plane believes and what is really here are made one, both ways.

use crate::dropped::give_up;
use crate::record::{self, Record};
use crate::{Node, job, sandbox, snapshot};
use api::dropped::DroppedWhat;
use api::node::{HeldLease, HeldSandbox, JobFinished, OutcomeReport};
use driver::driver::Found;
use std::collections::HashMap;

/// What was done.
#[derive(Debug, Default)]
struct Done {
    adopted: u32,
    lost: u32,
    destroyed: u32,
    /// Those that were of nobody: mostly spares.
    unused: u32,
}

/// Goes on with the jobs whose sandboxes live, reports those whose sandboxes are gone, and takes away
/// every sandbox that belongs to no job of this node.
pub(crate) async fn recover(node: &Node, held: Vec<HeldLease>, sandboxes: Vec<HeldSandbox>) {
    let mut held: HashMap<String, HeldLease> = held
        .into_iter()
        .map(|lease| (lease.job_id.clone(), lease))
        .collect();
    let mut done = Done::default();
    for dir in record::all(&node.inner.config.dir) {
        let record = Record::read(&dir);
        let ours = record.as_ref().and_then(|record| {
            let lease = held.get(&record.job_id)?;
            (lease.epoch == record.epoch).then(|| lease.job_id.clone())
        });
        match (record, ours) {
            (Some(record), Some(job_id)) => {
                let lease = held.remove(&job_id);
                take_up(
                    node,
                    record,
                    lease.is_some_and(|l| l.cancel_requested),
                    &mut done,
                )
                .await;
            }
            (Some(record), None) => {
                // Reported before the last process died, or given to somebody else since.
                destroy(node, &record.handle, &mut done.destroyed).await;
                record::remove(&dir);
            }
            // We can be here if the last process died while it wrote its first record: nothing was
            // started yet.
            (None, _) => record::remove(&dir),
        }
    }
    // Leases without a record: the last process died before it wrote one, so nothing was started.
    for lease in held.into_values() {
        report_lost(node, &lease.job_id, lease.attempt, lease.epoch).await;
        done.lost += 1;
    }
    snapshot::clear_halves(node).await;
    sandbox::recover(node, sandboxes).await;
    destroy_strays(node, &mut done).await;
    let Done {
        adopted,
        lost,
        destroyed,
        unused,
    } = done;
    let sandboxes = sandbox::held(node).len();
    if adopted + lost + destroyed + unused > 0 || sandboxes > 0 {
        tracing::info!(
            jobs = adopted,
            sandboxes,
            lost,
            destroyed,
            unused,
            "took up what an earlier process left"
        );
    }
}

async fn take_up(node: &Node, record: Record, canceled: bool, done: &mut Done) {
    let found = node.inner.driver.find(&record.handle).await;
    if record.released && matches!(found, Ok(Found::Running)) {
        let job_id = record.job_id.clone();
        job::adopt(node, record);
        if canceled && let Some(running) = node.jobs().get(&job_id) {
            running.cancel.cancel();
        }
        done.adopted += 1;
        return;
    }
    // Not released: the command never ran, and the sandbox is of no use to anybody else. Gone: nobody
    // knows how the command ended. The control plane's retry rule says what follows.
    tracing::warn!(
        job.id = record.job_id,
        ?found,
        "the sandbox of a job did not outlive the agent"
    );
    destroy(node, &record.handle, &mut done.destroyed).await;
    report_lost(node, &record.job_id, record.attempt, record.epoch).await;
    if let Some(dir) = record::dir_of(&node.inner.config.dir, &record.job_id) {
        record::remove(&dir);
    }
    done.lost += 1;
}

async fn report_lost(node: &Node, job_id: &str, attempt: u32, epoch: u64) {
    let why = "the node's agent ended, and its sandbox with it".to_owned();
    let finished = JobFinished {
        epoch,
        attempt,
        outcome: OutcomeReport::Lost { why },
        usage: None,
        enforcement: None,
        stdout: api::job::StreamReport::default(),
        stderr: api::job::StreamReport::default(),
        detail: None,
        segments: Vec::new(),
    };
    let client = &node.inner.client;
    if let Err(error) = job::insist(|| client.node_job_finished(job_id, &finished)).await {
        give_up(node, DroppedWhat::Finished, job_id, &error);
    }
    client.lease_over(job_id, epoch);
}

/// Whether it is gone. One that is not, and that no record names, is a stray: see below.
async fn destroy(node: &Node, handle: &driver::driver::Handle, count: &mut u32) -> bool {
    match node.inner.driver.destroy(handle).await {
        Ok(()) => {
            *count += 1;
            true
        }
        Err(error) => {
            let error = job::chain(&error);
            tracing::error!(sandbox.id = %handle.id, error, "failed to take a sandbox away");
            false
        }
    }
}

/// Sandboxes that no record names: we can be here if the last process died after it removed a record
/// and before the driver was done.
async fn destroy_strays(node: &Node, done: &mut Done) {
    let jobs = record::all(&node.inner.config.dir);
    let jobs = jobs
        .iter()
        .filter_map(|dir| Some(Record::read(dir)?.handle));
    let known: Vec<_> = jobs
        .chain(sandbox::known(node))
        .map(|handle| handle.id)
        .collect();
    let listed = match node.inner.driver.list().await {
        Ok(listed) => listed,
        Err(error) => {
            let error = job::chain(&error);
            tracing::error!(error, "failed to look for sandboxes of nobody");
            return;
        }
    };
    for id in listed.into_iter().filter(|id| !known.contains(id)) {
        let handle = node.inner.driver.handle(&id);
        if !destroy(node, &handle, &mut done.unused).await {
            // Nobody else will: the next look is at the next start.
            let (taking, handle) = (node.clone(), handle.clone());
            let tasks = node.inner.tasks.clone();
            tasks.spawn(async move { sandbox::take_away(&taking, &handle).await });
        }
    }
}
