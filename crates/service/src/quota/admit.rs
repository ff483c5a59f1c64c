//! Who is let in by quotas: decided in the transaction that writes, behind a lock on the quotas that count.

use super::{Book, Quotas, accounts};
use crate::error::Fail;
use crate::{Error, Service};
use model::id::{PrincipalId, TenantId};
use model::job::JobState;
use model::quota::{Amounts, Gate, Limit, Over, Whose, over, taken};
use model::spec::AskedLimits;
use std::collections::{BTreeMap, BTreeSet};
use store::job::{JobRow, NewJob};
use store::policy::stamps;
use store::{Tx, queue, quota};

/// Places that one claim holds of one quota. What is left is held by the next one, which follows at once.
const HOLD_MAX: u32 = 1000;

/// The quotas that this transaction goes by: those that are remembered, and the stamp that it has read.
#[derive(Debug, Clone)]
pub(crate) struct By<'b> {
    pub(crate) book: &'b Book,
    pub(crate) stamp: Option<u64>,
}

/// How a job comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A node may have it at once.
    Open,
    /// It waits for room in a quota.
    Held,
}

/// Whether a job may be taken in, and how. One that would never fit, or beyond those that may wait, is refused.
pub(crate) fn job(tx: &mut Tx<'_>, by: &By<'_>, new: &NewJob) -> Result<Entry, Fail> {
    let who = (&new.tenant, &new.principal);
    let Some(quotas) = by.book.of(tx, by.stamp, &new.tenant)? else {
        return Ok(Entry::Open);
    };
    let takes = taken(&new.spec.limits).with_one(Limit::Jobs);
    let bounds = quotas.bounds(&new.principal, &Limit::OF_JOBS);
    let never = |(whose, most): &(Whose, Amounts)| over(whose, most, &Amounts::new(), &takes);
    if let Some(over) = bounds.iter().find_map(never) {
        return Err(refused(by.book, &over));
    }
    let one = Amounts::from([(Limit::JobsWaiting, 1)]);
    // One lock on all quotas at once: whoever locks its own, and that of its tenant after it, waits in a circle with
    // those who lock them in their order.
    let mut gate = gate(tx, &quotas, who, &Limit::OF_ENTRY)?;
    let waits = gate.admit(&new.tenant, &new.principal, &one);
    waits.map_err(|over| refused(by.book, &over))?;
    if bounds.is_empty() {
        return Ok(Entry::Open);
    }
    // Whoever is held already goes first, and is looked after when this is done.
    let is_first = queue::next_principal(tx, &new.tenant, None)?.is_none();
    let fits = gate.admit(&new.tenant, &new.principal, &takes).is_ok();
    Ok(if is_first && fits {
        Entry::Open
    } else {
        Entry::Held
    })
}

/// Whether a sandbox may be made.
pub(crate) fn sandbox(
    tx: &mut Tx<'_>,
    by: &By<'_>,
    (tenant, principal): (&TenantId, &PrincipalId),
    asked: &AskedLimits,
) -> Result<(), Fail> {
    let Some(quotas) = by.book.of(tx, by.stamp, tenant)? else {
        return Ok(());
    };
    let takes = taken(asked).with_one(Limit::Sandboxes);
    let mut gate = gate(tx, &quotas, (tenant, principal), &Limit::OF_SANDBOXES)?;
    let fits = gate.admit(tenant, principal, &takes);
    fits.map_err(|over| refused(by.book, &over))
}

/// Whether so many bytes of a file may be kept of a job.
pub(crate) fn artifact(tx: &mut Tx<'_>, book: &Book, row: &JobRow, bytes: u64) -> Result<(), Fail> {
    let stamp = stamps(tx)?.quotas;
    let Some(quotas) = book.of(tx, stamp, &row.tenant)? else {
        return Ok(());
    };
    let who = (&row.tenant, &row.principal);
    let mut gate = gate(tx, &quotas, who, &[Limit::ArtifactBytes])?;
    let takes = Amounts::from([(Limit::ArtifactBytes, bytes)]);
    let fits = gate.admit(&row.tenant, &row.principal, &takes);
    fits.map_err(|over| refused(book, &over))
}

/// Which of the jobs that a claim would take do not fit, and by whose quota. `None` where no quota says anything.
pub(crate) fn claimed(tx: &mut Tx<'_>, by: &By<'_>, rows: &[JobRow]) -> Result<Option<Gate>, Fail> {
    if by.stamp.is_none() {
        return Ok(None);
    }
    let mut bounds = BTreeMap::new();
    for row in rows {
        if let Some(quotas) = by.book.of(tx, by.stamp, &row.tenant)? {
            bounds.extend(of_jobs(&quotas, &row.tenant, &row.principal));
        }
    }
    if bounds.is_empty() {
        return Ok(None);
    }
    quota::lock(tx, bounds.keys().map(|(tenant, whose)| (tenant, whose)))?;
    accounts(tx, bounds).map(Some)
}

/// Lets a job go that a claim has found, or says by whose quota it is not to.
pub(crate) fn claim(gate: &mut Option<Gate>, row: &JobRow) -> Result<(), Over> {
    let Some(gate) = gate else {
        return Ok(());
    };
    let takes = taken(&row.spec.limits).with_one(Limit::Jobs);
    gate.admit(&row.tenant, &row.principal, &takes)
}

/// A quota in which there is no room: at all, or only for what takes more of a limit than it ever has.
pub(crate) type Full = (Whose, Option<(Limit, u64)>);

/// What is to be held because something was not let in.
pub(crate) fn full(over: Over) -> Full {
    let larger = (!over.shuts()).then_some((over.limit, over.most));
    (over.whose, larger)
}

/// Holds everything that waits by quotas in which there is no room, so that no claim looks at it again before there is.
pub(crate) fn hold(tx: &mut Tx<'_>, all: &BTreeSet<(TenantId, Full)>) -> Result<u64, Fail> {
    let mut held = 0;
    for (tenant, (whose, larger)) in all {
        held += match larger {
            None => queue::hold(tx, tenant, whose, HOLD_MAX)?,
            Some(most) => {
                let most = Amounts::from([*most]);
                queue::hold_larger(tx, (tenant, whose), &most, HOLD_MAX)?
            }
        };
    }
    Ok(held)
}

/// What bounds the jobs of a principal.
pub(super) fn of_jobs(
    quotas: &Quotas,
    tenant: &TenantId,
    principal: &PrincipalId,
) -> Vec<((TenantId, Whose), Amounts)> {
    let bounds = quotas.bounds(principal, &Limit::OF_JOBS).into_iter();
    bounds
        .map(|(whose, most)| ((tenant.clone(), whose), most))
        .collect()
}

/// What somebody has of some limits, behind the lock.
fn gate(
    tx: &mut Tx<'_>,
    quotas: &Quotas,
    (tenant, principal): (&TenantId, &PrincipalId),
    limits: &[Limit],
) -> Result<Gate, Fail> {
    let bounds = quotas.bounds(principal, limits).into_iter();
    let bounds: BTreeMap<(TenantId, Whose), Amounts> = bounds
        .map(|(whose, most)| ((tenant.clone(), whose), most))
        .collect();
    quota::lock(tx, bounds.keys().map(|(tenant, whose)| (tenant, whose)))?;
    accounts(tx, bounds)
}

fn refused(book: &Book, over: &Over) -> Fail {
    book.count_refusal(over.limit);
    let (limit, raises) = (over.limit.as_str(), over.who_raises());
    let message = format!("the quota `{limit}` is reached: {over}; {raises}");
    let code = "quota_exceeded";
    Fail::Ours(Error::TooMuch { code, message })
}

impl Service {
    /// Why a quota does not let a job go that waits; `None` where none keeps it.
    pub(crate) async fn quota_keeps(&self, row: &JobRow) -> Result<Option<Over>, Error> {
        if row.state != JobState::Queued {
            return Ok(None);
        }
        let (book, row) = (self.inner.quotas.clone(), row.clone());
        let kept = self.look(move |tx| {
            let stamp = stamps(tx)?.quotas;
            let Some(quotas) = book.of(tx, stamp, &row.tenant)? else {
                return Ok(None);
            };
            let bounds = of_jobs(&quotas, &row.tenant, &row.principal);
            let gate = accounts(tx, bounds.into_iter().collect())?;
            Ok(claim(&mut Some(gate), &row).err())
        });
        kept.await
    }
}
