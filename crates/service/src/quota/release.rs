//! Jobs that were held for a quota are let go when there is room in it: at once by the process that has seen a job or a
//! sandbox end, and by a loop of every process for what nobody has seen, because whoever did may have died.

use super::admit::of_jobs;
use super::{Quotas, accounts};
use crate::{Error, Service, locked};
use model::id::{JobId, PrincipalId, TenantId};
use model::quota::{Gate, Limit, least};
use std::collections::BTreeMap;
use store::policy::stamps;
use store::queue::Held;
use store::{Tx, queue};

/// Jobs that are let go at a time: as many as one poll takes, and some.
const AT_ONCE: usize = 256;
/// Jobs of one principal that are looked at to find them.
const OF_ONE: u32 = 64;
/// Principals of one tenant whose jobs are looked at to find them.
const PRINCIPALS: usize = 1000;

impl Service {
    /// Something of a tenant is over, and there may be room in its quota.
    pub(crate) fn quota_freed(&self, tenant: &TenantId) {
        if self.inner.quotas.may_bound(tenant) {
            self.release_soon(tenant);
        }
    }

    /// Looks after what is held of a tenant, behind whoever asks. Many at a time are one look.
    pub(crate) fn release_soon(&self, tenant: &TenantId) {
        let mut freed = locked(&self.inner.quotas.0.freed);
        freed.tenants.insert(tenant.clone());
        if std::mem::replace(&mut freed.is_looked_after, true) {
            return;
        }
        drop(freed);
        let service = self.clone();
        drop(tokio::spawn(async move {
            while let Some(tenant) = service.next_freed() {
                if let Err(error) = service.release_held(&tenant).await {
                    // The loop comes by again.
                    tracing::debug!(error = error.cause(), "jobs that are held stay so for now");
                }
            }
        }));
    }

    fn next_freed(&self) -> Option<TenantId> {
        let mut freed = locked(&self.inner.quotas.0.freed);
        let next = freed.tenants.iter().next().cloned();
        match &next {
            Some(tenant) => drop(freed.tenants.remove(tenant)),
            None => freed.is_looked_after = false,
        }
        next
    }

    /// Lets those of a tenant's held jobs go for which there is room, the oldest first. A claim looks again, so that
    /// what is let go here in error is held again there.
    async fn release_held(&self, tenant: &TenantId) -> Result<u64, Error> {
        let (book, of) = (self.inner.quotas.clone(), tenant.clone());
        let found = self.look(move |tx| {
            if queue::next_principal(tx, &of, None)?.is_none() {
                return Ok(Vec::new());
            }
            let stamp = stamps(tx)?.quotas;
            let quotas = book.of(tx, stamp, &of)?;
            let held = oldest(tx, &of, quotas.as_deref())?;
            let mut bounds = BTreeMap::new();
            for one in &held {
                if let Some(quotas) = &quotas {
                    bounds.extend(of_jobs(quotas, &of, &one.principal));
                }
            }
            let gate = accounts(tx, bounds)?;
            Ok(fitting(&of, gate, held))
        });
        let found = found.await?;
        if found.is_empty() {
            return Ok(0);
        }
        let count = found.len() as u64;
        self.unit(move |tx| {
            for id in &found {
                queue::release(tx, id)?;
            }
            Ok(())
        })
        .await?;
        self.wake().queue();
        Ok(count)
    }
}

/// The oldest that are held of each principal of a tenant, the oldest of all first. Those that would never fit are not
/// among them: as many as are looked at would hide all others.
fn oldest(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    quotas: Option<&Quotas>,
) -> Result<Vec<Held>, store::StoreError> {
    let (mut found, mut after) = (Vec::new(), None::<PrincipalId>);
    for _ in 0..PRINCIPALS {
        let Some(next) = queue::next_principal(tx, tenant, after.as_ref())? else {
            break;
        };
        let bounds = quotas.map(|quotas| quotas.bounds(&next, &Limit::OF_JOBS));
        let most = least(bounds.iter().flatten().map(|(_, most)| most));
        found.extend(queue::held(tx, (tenant, &next), &most, OF_ONE)?);
        after = Some(next);
    }
    found.sort_by(|one, other| (one.queued_at_ms, &one.id).cmp(&(other.queued_at_ms, &other.id)));
    Ok(found)
}

/// Those of them for which there is room.
fn fitting(tenant: &TenantId, mut gate: Gate, held: Vec<Held>) -> Vec<JobId> {
    let mut ids = Vec::new();
    for one in held {
        if ids.len() >= AT_ONCE || gate.is_closed(tenant) {
            break;
        }
        let takes = one.takes.with_one(Limit::Jobs);
        if gate.admit(tenant, &one.principal, &takes).is_ok() {
            ids.push(one.id);
        }
    }
    ids
}

/// Looks after everything that is held. Returns how many jobs were let go.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn release_pass(service: &Service) -> Result<u64, Error> {
    let (mut count, mut after) = (0, None::<TenantId>);
    loop {
        let from = after.clone();
        let next = service.look(move |tx| Ok(queue::next_tenant(tx, from.as_ref())?));
        let Some(tenant) = next.await? else {
            return Ok(count);
        };
        count += service.release_held(&tenant).await?;
        after = Some(tenant);
    }
}
