//! Uploads that nobody has named for a day.

use super::BATCH;
use crate::error::Fail;
use crate::{Error, Service};
use model::id::{JobId, TenantId};
use model::limits;
use std::collections::{HashMap, HashSet};
use store::upload::{self, UploadRow};
use store::{Tx, job};

/// States in which a job may still need its files.
const UNFINISHED: [&str; 5] = [
    "awaiting_approval",
    "queued",
    "leased",
    "running",
    "stopping",
];

/// Forgets uploads that no unfinished job names. Their bytes stay until the blobs are looked through.
pub(super) async fn forget_uploads(service: &Service, now: u64) -> Result<u32, Error> {
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
            let forget = move |tx: &mut Tx<'_>| {
                upload::forget(tx, &row.tenant, &row.digest, before)?;
                Ok(())
            };
            service.unit(forget).await?;
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
