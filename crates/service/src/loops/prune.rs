//! What has been kept long enough: finished jobs with all that belongs to them, keys of idempotency,
//! uploads, silent nodes, the record of what happened, and the bytes of blobs that nothing names.
//!
//! Rows go first, in transactions of their own, and bytes are not looked for by way of the rows that named
//! them: every blob that is old and that no row names goes, whoever forgot it and whenever the process
//! ended. So a crash anywhere leaves only what the next pass finds too.

use super::BATCH;
use super::uploads::forget_uploads;
use crate::blob::blocking;
use crate::change::Note;
use crate::error::Fail;
use crate::node::forget_node;
use crate::{Ctx, Error, Service};
use model::id::{NodeId, TenantId};
use model::limits;
use model::node::Scheduling;
use std::sync::atomic::Ordering;
use store::{approval, idempotency, job, node, prune, queue, sandbox, usage};

/// Jobs that go in one transaction: with the most output each, that is 64 MB, and others wait for it.
const JOBS_AT_ONCE: u32 = 32;
/// Such transactions of one pass.
const TIMES: u32 = 32;
/// Tenants that are read at one time.
const TENANTS: u32 = 100;
/// Rows of usage that go in one pass: a thousand sandboxes write a hundred in a minute.
const USAGE_ROWS: u32 = 1000;
/// Of the 256 parts of the blobs, those that one pass looks through.
const PARTS: u32 = 8;

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Jobs that are gone, with all that belonged to them.
    pub jobs: u64,
    /// Sandboxes that were over.
    pub sandboxes: u64,
    /// Rows of what sandboxes used.
    pub usage: u64,
    /// Builds that nobody needs any more.
    pub builds: u64,
    /// Snapshots that were gone.
    pub snapshots: u64,
    /// Keys that are forgotten.
    pub keys: u64,
    /// Approvals that were over.
    pub approvals: u64,
    /// Uploads that are forgotten.
    pub uploads: u32,
    /// Nodes that are forgotten.
    pub nodes: u32,
    /// Seals whose events are gone.
    pub events: u64,
    /// Blobs whose bytes are gone.
    pub blobs: u32,
    /// More is to be done at once.
    pub more: bool,
}

/// Removes what has been kept long enough.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn prune_pass(service: &Service) -> Result<Pruned, Error> {
    let now = service.now_ms();
    let (jobs, more_jobs) = prune_jobs(service, now).await?;
    let (sandboxes, more_sandboxes) = prune_sandboxes(service, now).await?;
    let usage_before = now.saturating_sub(limits::RETAIN_USAGE_MS);
    let usage = service.unit(move |tx| Ok(usage::prune(tx, usage_before, USAGE_ROWS)?));
    let usage = usage.await?;
    let builds = prune_builds(service, now).await?;
    let snapshots = super::snapshots::prune_snapshots(service, now).await?;
    super::volumes::prune_volumes(service, now).await?;
    let (_, more_given) = crate::secret::forget_unused(service, now).await?;
    let keys_before = now.saturating_sub(limits::IDEMPOTENCY_MS);
    let keys = service.unit(move |tx| Ok(idempotency::prune(tx, keys_before)?));
    let keys = keys.await?;
    let ended_before = now.saturating_sub(limits::KEY_ENDED_KEPT_MS);
    let ended = move |tx: &mut store::Tx<'_>| Ok(store::key::prune(tx, ended_before, BATCH)?);
    service.unit(ended).await?;
    let over_before = now.saturating_sub(limits::RETAIN_JOBS_MS);
    let approvals = service.unit(move |tx| Ok(approval::prune(tx, over_before, BATCH)?));
    let approvals = approvals.await?;
    let servers = move |tx: &mut store::Tx<'_>| crate::server::forget_silent(tx, now);
    service.unit(servers).await?;
    let uploads = forget_uploads(service, now).await?;
    let nodes = forget_nodes(service, now).await?;
    let (blobs, more_blobs) = sweep(service, now).await?;
    let (events, more_events) = crate::audit::retire_pass(service, now).await?;
    Ok(Pruned {
        jobs,
        sandboxes,
        usage,
        builds,
        snapshots,
        keys,
        approvals,
        uploads,
        nodes,
        events,
        blobs,
        more: more_jobs
            || more_sandboxes
            || builds == u64::from(BATCH)
            || snapshots == u64::from(BATCH)
            || approvals == u64::from(BATCH)
            || more_blobs
            || more_events
            || more_given
            || usage == u64::from(USAGE_ROWS),
    })
}

/// Forgets builds that nobody needs any more and names of files that nobody asks for. Says how many builds.
async fn prune_builds(service: &Service, now: u64) -> Result<u64, Error> {
    let unused = now.saturating_sub(limits::BUILD_UNUSED_MS);
    let failed = now.saturating_sub(limits::RETAIN_JOBS_MS);
    let files = move |tx: &mut store::Tx<'_>| Ok(store::build::prune_files(tx, unused, BATCH)?);
    service.unit(files).await?;
    let builds = move |tx: &mut store::Tx<'_>| Ok(store::build::prune(tx, unused, failed, BATCH)?);
    service.unit(builds).await
}

/// Deletes finished jobs that are too old, then those that are too many. Says how many, and whether it
/// stopped before the last one.
async fn prune_jobs(service: &Service, now: u64) -> Result<(u64, bool), Error> {
    let old = now.saturating_sub(limits::RETAIN_JOBS_MS);
    let recent = now.saturating_sub(limits::RETAIN_LEAST_MS);
    let mut left = TIMES;
    let mut gone = 0;
    while left > 0 {
        left -= 1;
        let jobs = service.unit(move |tx| Ok(prune::jobs_older(tx, old, JOBS_AT_ONCE)?));
        let jobs = jobs.await?;
        gone += jobs;
        if jobs < u64::from(JOBS_AT_ONCE) {
            break;
        }
    }
    for tenant in tenants(service).await? {
        while left > 0 {
            left -= 1;
            let tenant = tenant.clone();
            let keep = limits::RETAIN_JOBS_MAX;
            let beyond = move |tx: &mut store::Tx<'_>| {
                let jobs = prune::jobs_beyond(tx, &tenant, keep, recent, JOBS_AT_ONCE)?;
                Ok(jobs)
            };
            let jobs = service.unit(beyond).await?;
            gone += jobs;
            if jobs < u64::from(JOBS_AT_ONCE) {
                break;
            }
        }
    }
    Ok((gone, left == 0))
}

/// The same for sandboxes that are over.
async fn prune_sandboxes(service: &Service, now: u64) -> Result<(u64, bool), Error> {
    let old = now.saturating_sub(limits::RETAIN_JOBS_MS);
    let recent = now.saturating_sub(limits::RETAIN_LEAST_MS);
    let pruned = service.unit(move |tx| Ok(sandbox::prune(tx, old, BATCH)?));
    let mut gone = pruned.await?;
    let mut more = gone == u64::from(BATCH);
    let mut after = None;
    loop {
        let last = after.take();
        let some = service.look(move |tx| Ok(sandbox::tenants(tx, last.as_ref(), TENANTS)?));
        let some = some.await?;
        for tenant in &some {
            let (tenant, keep) = (tenant.clone(), limits::RETAIN_JOBS_MAX);
            let beyond = move |tx: &mut store::Tx<'_>| {
                let gone = sandbox::prune_beyond(tx, &tenant, keep, recent, BATCH)?;
                Ok(gone)
            };
            let beyond = service.unit(beyond).await?;
            more |= beyond == u64::from(BATCH);
            gone += beyond;
        }
        if some.len() < TENANTS as usize {
            return Ok((gone, more));
        }
        after = some.last().cloned();
    }
}

async fn tenants(service: &Service) -> Result<Vec<TenantId>, Error> {
    let mut all: Vec<TenantId> = Vec::new();
    loop {
        let after = all.last().cloned();
        let some = service.look(move |tx| Ok(prune::tenants(tx, after.as_ref(), TENANTS)?));
        let some = some.await?;
        let last = some.len() < TENANTS as usize;
        all.extend(some);
        if last {
            return Ok(all);
        }
    }
}

/// Forgets nodes that were not heard for so long that no job can wait for them. Those that somebody has
/// closed stay: they would be open when they come back.
async fn forget_nodes(service: &Service, now: u64) -> Result<u32, Error> {
    let before = now.saturating_sub(limits::NODE_FORGET_MS);
    let silent = service.look(move |tx| Ok(node::silent(tx, before, BATCH)?));
    let mut forgotten = 0;
    for row in silent.await? {
        forgotten += u32::from(forget_one(service, row.id, before, now).await?);
    }
    Ok(forgotten)
}

async fn forget_one(service: &Service, id: NodeId, before: u64, now: u64) -> Result<bool, Error> {
    let note = Note::new(&Ctx::internal("prune"), now);
    service
        .unit(move |tx| {
            let row = node::get(tx, &id)?.filter(|row| {
                row.lease_expires_at_ms < before && row.state.scheduling == Scheduling::Active
            });
            let Some(row) = row else {
                return Ok::<_, Fail>(false);
            };
            // What it has is judged first, by the reaper, which gives it time after a start of ours.
            let held = job::held_by(tx, &id, 1)?;
            let has_any = !held.is_empty() || sandbox::count_held(tx, &id, 1)? > 0;
            if has_any || !queue::pinned_to(tx, &id, 1)?.is_empty() {
                return Ok(false);
            }
            forget_node(tx, &row, &note)?;
            Ok(true)
        })
        .await
}

/// Looks through some parts of the blobs and removes those that no row names. Says how many, and whether
/// it stopped in the middle of a part.
async fn sweep(service: &Service, now: u64) -> Result<(u32, bool), Error> {
    let before = now.saturating_sub(limits::BLOB_GRACE_MS);
    let mut removed = 0;
    for _ in 0..PARTS {
        let part = service.inner.sweep.load(Ordering::Relaxed);
        removed += sweep_part(service, part, before, BATCH - removed).await?;
        if removed >= BATCH {
            return Ok((removed, true));
        }
        let next = part.wrapping_add(1);
        service.inner.sweep.store(next, Ordering::Relaxed);
    }
    Ok((removed, false))
}

async fn sweep_part(service: &Service, part: u8, before: u64, most: u32) -> Result<u32, Error> {
    let blobs = service.inner.blobs.clone();
    let there = blocking("list blobs", move || blobs.list(part)).await?;
    if there.is_empty() {
        return Ok(0);
    }
    // After the list: what is named by then is not touched, and what is named from then on was written
    // since, which makes it new.
    let named = service.look(move |tx| Ok(prune::named_blobs(tx, part)?));
    let named = named.await?;
    let mut removed = 0;
    for digest in there.into_iter().filter(|digest| !named.contains(digest)) {
        if removed >= most {
            break;
        }
        let blobs = service.inner.blobs.clone();
        let _gate = service.inner.blob_gate.lock().await;
        let remove = move || blobs.remove_older(&digest, before);
        removed += u32::from(blocking("remove a blob", remove).await?);
    }
    Ok(removed)
}
