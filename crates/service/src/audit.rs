//! The record of everything that happened, in the order in which it was committed, sealed so that nobody can change
//! it unseen.
//!
//! Events are written with what they tell and are not touched for this. Behind them a loop seals what is settled:
//! a seal is a digest over the events since the one before, and over that one, for each tenant. Whoever writes
//! waits for none of it. What was sealed last is signed once a minute, outside the database.
//!
//! A process that dies before a seal is written has sealed nothing, and the next one makes that seal. One that
//! dies before a head is signed leaves the one of a minute before.

mod chain;
mod heads;

pub use chain::Flaw;
pub use heads::Head;

use crate::blob::blocking;
use crate::error::Fail;
use crate::{Ctx, Error, Service, random};
pub(crate) use heads::Heads;
use model::access::Action;
use model::id::TenantId;
use model::limits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use store::audit::{self, Marked, Place, Seal};
use store::event::{self, NewEvent};

/// Events that one pass seals, about.
const BATCH: u32 = 5000;
/// Events that are looked at for one page: reading a filter's few out of millions takes several requests, and none
/// of them holds others up.
const SCAN: u32 = 10_000;
/// How many of them at once.
const PIECE: u32 = 500;
/// Passes that somebody who wants to read waits for at most, and that a loop makes before others have their turn.
pub(crate) const PASSES: u32 = 10;
/// Seals that one page of a check goes through.
const SEALS: u32 = 500;
/// Events after which such a page ends, whatever seals are left.
const CHECKED_EVENTS: u64 = 50_000;
/// Tenants that are read at once.
const TENANTS: u32 = 100;
/// Oldest seals of a tenant that go in one pass.
const RETIRED: u32 = 500;
/// Somebody who holds the seals back for longer than this is seen: a transaction of ours takes seconds at most.
const BEHIND_MS: u64 = 60_000;
/// The clocks of two servers are not further apart than this.
const SKEW_MS: u64 = 300_000;

/// What somebody wants to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Behind this place.
    pub after: Place,
    /// Of this principal.
    pub principal: Option<String>,
    /// About things of this kind, such as `job`.
    pub resource: Option<String>,
    /// About this one.
    pub resource_id: Option<String>,
    /// Of this kind, or with this beginning where it ends with a dot.
    pub kind: Option<String>,
    /// Not before, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Before.
    pub to_ms: Option<u64>,
}

impl AuditQuery {
    fn fits(&self, one: &Marked) -> bool {
        let event = &one.event;
        let is =
            |asked: &Option<String>, has: &str| asked.as_deref().is_none_or(|asked| asked == has);
        let kind = |asked: &str| match asked.ends_with('.') {
            true => event.kind.starts_with(asked),
            false => event.kind == asked,
        };
        is(&self.principal, &event.principal)
            && is(&self.resource, &event.resource)
            && is(&self.resource_id, &event.resource_id)
            && self.kind.as_deref().is_none_or(kind)
            && self.from_ms.is_none_or(|from| event.at_ms >= from)
            && self.to_ms.is_none_or(|to| event.at_ms < to)
    }
}

/// A page of the record, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The events. All of them are sealed.
    pub events: Vec<Marked>,
    /// Behind what was looked at: to read on.
    pub next: Place,
    /// There is more already.
    pub more: bool,
}

/// What came of checking some seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How many seals.
    pub seals: u64,
    /// How many events under them.
    pub events: u64,
    /// The last one that was looked at.
    pub last: Option<Seal>,
    /// The events up to the end of this seal were kept long enough and are gone.
    pub retired: Option<u64>,
    /// The newest head that was signed.
    pub head: Option<Head>,
    /// What is wrong, each at the number of a seal.
    pub flaws: Vec<(u64, Flaw)>,
    /// There are more seals.
    pub more: bool,
}

impl Service {
    /// Says where the heads are signed. The first word counts; without one they are not.
    pub fn audit_heads_in(&self, dir: PathBuf) {
        drop(self.inner.audit_heads.set(Heads::new(dir)));
    }

    /// A page of the record of a tenant. That it was read is in it from then on.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `audit:read`.
    pub async fn audit_list(
        &self,
        ctx: &Ctx,
        query: AuditQuery,
        limit: u32,
    ) -> Result<AuditPage, Error> {
        ctx.may(Action::AuditRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX) as usize;
        self.audit_read(ctx, "audit.read", &query).await?;
        self.seal_now().await?;
        let tenant = ctx.tenant.clone();
        self.look(move |tx| {
            let to = audit::last(tx, &tenant)?.map_or(0, |last| last.to_mark);
            let mut place = query.after;
            if let Some(from) = query.from_ms {
                let mark = audit::mark_before(tx, from.saturating_sub(SKEW_MS))?;
                let first = Place {
                    mark: mark - 1,
                    position: u64::MAX,
                };
                place = place.max(first);
            }
            page(tx, &tenant, &query, (place, to), limit)
        })
        .await
    }

    /// Checks seals of a tenant with numbers above `after` against their events, each other, and what was signed.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `audit:read`.
    pub async fn audit_check(&self, ctx: &Ctx, after: u64) -> Result<Checked, Error> {
        ctx.may(Action::AuditRead)?;
        // No seal has a higher number, and no database takes one.
        let after = after.min(i64::MAX.unsigned_abs() - 1);
        if after == 0 {
            self.audit_read(ctx, "audit.checked", &AuditQuery::default())
                .await?;
        }
        self.seal_now().await?;
        let heads = match self.inner.audit_heads.get().cloned() {
            Some(heads) => {
                let tenant = ctx.tenant.clone();
                let numbers = after + 1..=after.saturating_add(u64::from(SEALS));
                let of = move || heads.of(tenant.as_str(), &numbers);
                blocking("read the signed heads", of).await?
            }
            None => BTreeMap::new(),
        };
        let (tenant, now) = (ctx.tenant.clone(), self.now_ms());
        self.look(move |tx| check(tx, &tenant, (after, now), &heads))
            .await
    }

    /// Seals what is settled, so that whoever reads sees what has just happened; not without end, because others
    /// go on meanwhile.
    async fn seal_now(&self) -> Result<(), Error> {
        for _ in 0..PASSES {
            if !seal_pass(self).await?.1 {
                break;
            }
        }
        Ok(())
    }

    async fn audit_read(
        &self,
        ctx: &Ctx,
        kind: &'static str,
        query: &AuditQuery,
    ) -> Result<(), Error> {
        let id = format!("aud_{}", crate::hex::hex(&random::<16>()?));
        let data = serde_json::json!({
            "principal": query.principal, "resource": query.resource, "resource_id": query.resource_id,
            "kind": query.kind, "from_ms": query.from_ms, "to_ms": query.to_ms,
        });
        let (data, ctx, at_ms) = (data.to_string(), ctx.clone(), self.now_ms());
        self.unit(move |tx| {
            let new = NewEvent {
                tenant: &ctx.tenant,
                resource: "audit",
                resource_id: &id,
                version: 1,
                kind,
                data: &data,
                principal: &ctx.principal,
                at_ms,
            };
            Ok(event::append(tx, &new)?)
        })
        .await
    }
}

/// The events of a tenant from a place up to a mark that were asked for. They are read in pieces: what one says may be
/// some kilobytes.
fn page(
    tx: &mut store::Tx<'_>,
    tenant: &TenantId,
    query: &AuditQuery,
    (from, to): (Place, u64),
    limit: usize,
) -> Result<AuditPage, Fail> {
    let (mut next, mut events) = (from, Vec::new());
    for _ in 0..SCAN / PIECE {
        let found = audit::list(tx, Some(tenant), next, to, PIECE)?;
        let is_last = found.len() < PIECE as usize;
        for one in found {
            if events.len() == limit {
                let more = true;
                return Ok(AuditPage { events, next, more });
            }
            next = Place {
                mark: one.mark,
                position: one.event.position,
            };
            if query.fits(&one) {
                events.push(one);
            }
        }
        if is_last {
            let more = false;
            return Ok(AuditPage { events, next, more });
        }
    }
    let more = true;
    Ok(AuditPage { events, next, more })
}

fn check(
    tx: &mut store::Tx<'_>,
    tenant: &TenantId,
    (after, now): (u64, u64),
    heads: &BTreeMap<u64, Head>,
) -> Result<Checked, Fail> {
    let end = audit::last(tx, tenant)?;
    let (there, total) = end.map_or((0, 0), |last| (last.number, last.total));
    let mut before = match after {
        0 => None,
        after => audit::seals(tx, tenant, after - 1, 1)?
            .pop()
            .filter(|seal| seal.number == after),
    };
    let seals = audit::seals(tx, tenant, after, SEALS + 1)?;
    let mut checked = Checked {
        seals: 0,
        events: 0,
        last: before.clone(),
        retired: None,
        head: heads.values().next_back().cloned(),
        flaws: Vec::new(),
        more: seals.len() > SEALS as usize,
    };
    for seal in seals.into_iter().take(SEALS as usize) {
        if checked.events > CHECKED_EVENTS {
            checked.more = true;
            break;
        }
        let marks = (seal.from_mark, seal.to_mark);
        // One more than there should be is enough to see that there are more.
        let most = u32::try_from(seal.events)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let events = match seal.retired {
            true => Vec::new(),
            false => audit::between(tx, Some(tenant), marks, most)?,
        };
        let flaws = chain::flaws(before.as_ref(), &seal, &events);
        checked
            .flaws
            .extend(flaws.into_iter().map(|flaw| (seal.number, flaw)));
        checked
            .flaws
            .extend(head_flaw(heads.get(&seal.number), &seal));
        checked.seals += 1;
        checked.events += events.len() as u64;
        if seal.retired {
            checked.retired = Some(seal.number);
        }
        if chain::is_early(&seal, total, now) {
            checked.flaws.push((seal.number, Flaw::Early));
        }
        before = Some(seal);
    }
    checked.last = before;
    if let Some(head) = checked
        .head
        .as_ref()
        .filter(|head| !checked.more && head.number > there)
    {
        checked.flaws.push((head.number, Flaw::Cut));
    }
    let is_behind = |since: u64| now.saturating_sub(since) > BEHIND_MS;
    if !checked.more && audit::unsealed_since(tx)?.is_some_and(is_behind) {
        checked.flaws.push((there + 1, Flaw::Behind));
    }
    Ok(checked)
}

fn head_flaw(head: Option<&Head>, seal: &Seal) -> Option<(u64, Flaw)> {
    let head = head?;
    let flaw = match (head.is_ours, head.digest == seal.digest) {
        (false, _) => Flaw::Signature,
        (true, false) => Flaw::Head,
        (true, true) => return None,
    };
    Some((seal.number, flaw))
}

/// Seals what is settled and not sealed. Says how many events, and whether there are more.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn seal_pass(service: &Service) -> Result<(u64, bool), Error> {
    let found = service.look(|tx| Ok(audit::unsealed(tx, BATCH)?)).await?;
    if found.events.is_empty() {
        return Ok((0, false));
    }
    let (count, more, at_ms) = (found.events.len() as u64, found.more, service.now_ms());
    let sealed = service.unit(move |tx| {
        // Another server may have sealed them since they were read, or is doing so.
        if !audit::alone(tx)? || audit::sealed_to(tx)? != found.from {
            return Ok(false);
        }
        let mut of_tenant: BTreeMap<&str, Vec<&Marked>> = BTreeMap::new();
        for one in &found.events {
            of_tenant.entry(one.tenant.as_str()).or_default().push(one);
        }
        for events in of_tenant.values() {
            let Some(first) = events.first() else {
                continue;
            };
            let before = audit::last(tx, &first.tenant)?;
            if let Some(seal) = chain::seal(before.as_ref(), found.up_to, events, at_ms) {
                audit::insert(tx, &seal)?;
            }
        }
        Ok::<_, Fail>(true)
    });
    let sealed = sealed.await?;
    Ok((if sealed { count } else { 0 }, sealed && more))
}

/// Signs what was sealed last, where it is new. Says how many heads.
///
/// What stands on something else than what was signed before is not signed: who can write to the database would
/// have another record signed in the place of the one before, and had only to wait until that is forgotten.
///
/// # Errors
/// [`Error::Unavailable`] and its like; [`Error::Internal`] where the directory cannot be written, and where the
/// record is another than what was signed.
pub async fn head_pass(service: &Service) -> Result<u32, Error> {
    let Some(heads) = service.inner.audit_heads.get().cloned() else {
        return Ok(0);
    };
    let (mut count, mut other, mut after) = (0, None, None);
    loop {
        let before = after.take();
        let tenants = service.look(move |tx| Ok(audit::tenants(tx, before.as_ref(), TENANTS)?));
        let tenants = tenants.await?;
        for tenant in &tenants {
            match head_of(service, &heads, tenant).await? {
                Signed::New => count += 1,
                Signed::Before => {}
                Signed::Not(number) => other = Some((tenant.clone(), number)),
            }
        }
        after = tenants.last().cloned();
        if tenants.len() < TENANTS as usize {
            break;
        }
    }
    match other {
        None => Ok(count),
        Some((tenant, number)) => {
            let why = format!("seal {number} of {tenant} is not the one that was signed before");
            Err(Error::internal("sign what was sealed", why))
        }
    }
}

/// What became of the last seal of a tenant.
enum Signed {
    New,
    Before,
    /// The seal with this number is another than the one that was signed, or is gone.
    Not(u64),
}

async fn head_of(service: &Service, heads: &Heads, tenant: &TenantId) -> Result<Signed, Error> {
    let known = crate::locked(&service.inner.audit_signed)
        .get(tenant)
        .cloned();
    let known = match known {
        Some(known) => Some(known),
        None => {
            let (heads, tenant) = (heads.clone(), tenant.clone());
            blocking("read the signed heads", move || {
                heads.newest(tenant.as_str())
            })
            .await?
        }
    };
    let (of, at) = (
        tenant.clone(),
        known.as_ref().map_or(0, |(number, _)| *number),
    );
    let there = service.look(move |tx| {
        let signed = audit::seals(tx, &of, at.saturating_sub(1), 1)?.pop();
        Ok((audit::last(tx, &of)?, signed))
    });
    let (Some(last), signed) = there.await? else {
        return Ok(Signed::Before);
    };
    if let Some((number, digest)) = known {
        // What is left begins behind it, where it has gone by its age.
        let stands = signed.is_some_and(|seal| match seal.number == number {
            true => seal.digest == digest,
            false => seal.retired,
        });
        if !stands {
            return Ok(Signed::Not(number));
        }
        if last.number == number {
            return Ok(Signed::Before);
        }
    }
    let (heads, at_ms) = (heads.clone(), service.now_ms());
    let signed = (last.number, last.digest.clone());
    blocking("sign what was sealed", move || heads.add(&[last], at_ms)).await?;
    crate::locked(&service.inner.audit_signed).insert(tenant.clone(), signed);
    Ok(Signed::New)
}

/// Takes away what was kept long enough, of each tenant a part. Says how many seals, and whether there are more.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub(crate) async fn retire_pass(service: &Service, now: u64) -> Result<(u64, bool), Error> {
    let keep = (
        now.saturating_sub(limits::RETAIN_AUDIT_MS),
        limits::RETAIN_AUDIT_EVENTS,
    );
    let (mut gone, mut more, mut after) = (0, false, None);
    loop {
        let before = after.take();
        let tenants = service.look(move |tx| Ok(audit::tenants(tx, before.as_ref(), TENANTS)?));
        let tenants = tenants.await?;
        after = tenants.last().cloned();
        let is_last = tenants.len() < TENANTS as usize;
        for tenant in tenants {
            let retire =
                move |tx: &mut store::Tx<'_>| Ok(audit::retire(tx, &tenant, keep, RETIRED)?);
            let (seals, left) = service.unit(retire).await?;
            gone += seals;
            more |= left;
        }
        if is_last {
            return Ok((gone, more));
        }
    }
}
