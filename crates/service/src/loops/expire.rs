//! What has lived too long: places in the queue, keys of idempotency, uploads that nobody named.

use super::BATCH;
use crate::blob::blocking;
use crate::change::{Note, apply};
use crate::error::Fail;
use crate::{Ctx, Error, Service};
use model::id::{JobId, TenantId};
use model::job::{JobEvent, JobState};
use model::limits;
use std::collections::{HashMap, HashSet};
use store::upload::{self, UploadRow};
use store::{Tx, artifact, idempotency, job, queue};

/// States in which a job may still need its files.
const UNFINISHED: [&str; 5] = [
    "awaiting_approval",
    "queued",
    "leased",
    "running",
    "stopping",
];

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Jobs that waited too long for a node.
    pub jobs: u32,
    /// Keys that are forgotten.
    pub keys: u64,
    /// Uploads that are forgotten.
    pub uploads: u32,
}

/// Ends what has lived too long.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn expire_pass(service: &Service) -> Result<Expired, Error> {
    let now = service.now_ms();
    let mut expired = Expired {
        jobs: queue_timeouts(service, now).await?,
        ..Expired::default()
    };
    let before = now.saturating_sub(limits::IDEMPOTENCY_MS);
    let prune = service.unit(move |tx| Ok(idempotency::prune(tx, before)?));
    expired.keys = prune.await?;
    expired.uploads = uploads(service, now).await?;
    Ok(expired)
}

async fn queue_timeouts(service: &Service, now: u64) -> Result<u32, Error> {
    let late = service.look(move |tx| Ok(queue::expired(tx, now, BATCH)?));
    let mut ended = 0;
    for row in late.await? {
        let note = Note::new(&Ctx::internal("expire"), now).because("no node took it in time");
        let moved = service
            .unit(move |tx| match job::get(tx, None, &row.id)? {
                Some(row) if row.state == JobState::Queued => {
                    apply(tx, &row, &JobEvent::QueueTimeout, note.clone())
                }
                // Leased since.
                _ => Ok::<_, Fail>(None),
            })
            .await?;
        if let Some(row) = moved {
            service.announce(&row);
            ended += 1;
        }
    }
    Ok(ended)
}

async fn uploads(service: &Service, now: u64) -> Result<u32, Error> {
    let before = now.saturating_sub(limits::UPLOAD_MS);
    let old = service.look(move |tx| Ok(upload::older(tx, before, BATCH)?));
    let mut named: HashMap<TenantId, HashSet<String>> = HashMap::new();
    let mut forgotten = 0;
    for row in old.await? {
        if !named.contains_key(&row.tenant) {
            let digests = named_by_jobs(service, row.tenant.clone()).await?;
            named.insert(row.tenant.clone(), digests);
        }
        let is_named = named
            .get(&row.tenant)
            .is_some_and(|digests| digests.contains(&row.digest));
        if is_named {
            // New again, so that it is not looked at in every pass while its job waits.
            let row = UploadRow {
                created_at_ms: now,
                ..row
            };
            service.unit(move |tx| Ok(upload::put(tx, &row)?)).await?;
        } else {
            forget(service, row, before).await?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

/// Digests that unfinished jobs of a tenant name. A job that comes after this look makes what it names
/// new again in its own transaction, and what is new is not forgotten.
async fn named_by_jobs(service: &Service, tenant: TenantId) -> Result<HashSet<String>, Error> {
    let mut digests = HashSet::new();
    for state in UNFINISHED {
        let mut before: Option<(u64, JobId)> = None;
        loop {
            let (tenant, from) = (tenant.clone(), before.clone());
            let page = service.look(move |tx| page(tx, &tenant, state, from.as_ref()));
            let jobs = page.await?;
            let files = jobs.iter().flat_map(|job| &job.spec.files);
            digests.extend(files.map(|file| file.digest.clone()));
            let full = jobs.len() == limits::PAGE_MAX as usize;
            match jobs.last().filter(|_| full) {
                Some(last) => before = Some((last.created_at_ms, last.id.clone())),
                None => break,
            }
        }
    }
    Ok(digests)
}

fn page(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    state: &str,
    before: Option<&(u64, JobId)>,
) -> Result<Vec<job::JobRow>, Fail> {
    let before = before.map(|(ms, id)| (*ms, id));
    Ok(job::list(
        tx,
        tenant,
        Some(state),
        before,
        limits::PAGE_MAX,
    )?)
}

async fn forget(service: &Service, row: UploadRow, before: u64) -> Result<(), Error> {
    // From the last look at the rows until the file is gone, nobody may write a row that names it.
    let _gate = service.inner.blob_gate.lock().await;
    let digest = row.digest.clone();
    let unused = service
        .unit(move |tx| {
            let nobodys = upload::forget(tx, &row.tenant, &row.digest, before)?;
            Ok(nobodys && !artifact::is_kept(tx, &row.digest)?)
        })
        .await?;
    if unused {
        let blobs = service.inner.blobs.clone();
        blocking("remove a blob", move || blobs.remove(&digest)).await?;
    }
    Ok(())
}
