//! Quotas: who says them, and what is used of them.
//!
//! What is used is counted in the transaction that wants more, from the rows themselves, while those who want something
//! by the same quota wait. So nothing has to be given back, and nothing can be lost. Where there is no quota nothing is
//! asked for: the row that is read for policies anyway says so.
//!
//! Reading order: this file, `admit` (who is let in, and who waits), `release` (who waits no longer).

pub(crate) mod admit;
pub(crate) mod release;

use crate::error::Fail;
use crate::key::tell;
use crate::{Ctx, Error, Service, locked, page};
use model::access::Action;
use model::id::{PrincipalId, TenantId};
use model::limits;
use model::quota::{Account, Amounts, Limit, Whose, amounts_named, beyond_tenant};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use store::policy::stamps;
use store::quota::{self, QuotaRow};
use store::{Tx, principal, tenant};

/// Tenants whose quotas are remembered. One more, and all are read anew.
const KNOWN_MAX: usize = 1024;
/// Quotas that are among the counters of the installation.
const COUNTED_MAX: u32 = 100;

/// All quotas of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    own: Amounts,
    of: BTreeMap<PrincipalId, Amounts>,
}

impl Quotas {
    /// What bounds a principal in some limits: as a part of its tenant, and by itself.
    fn bounds(&self, principal: &PrincipalId, limits: &[Limit]) -> Vec<(Whose, Amounts)> {
        let own = (Whose::Tenant, Some(&self.own));
        let of = (Whose::Principal(principal.clone()), self.of.get(principal));
        let some = |(whose, most): (Whose, Option<&Amounts>)| {
            let most = most?.iter();
            let most: Amounts = most
                .filter(|(limit, _)| limits.contains(limit))
                .map(|(limit, most)| (*limit, *most))
                .collect();
            (!most.is_empty()).then_some((whose, most))
        };
        [own, of].into_iter().filter_map(some).collect()
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.of.is_empty()
    }
}

/// What is remembered of quotas, by the stamp under which it was read.
#[derive(Debug, Default)]
struct Known {
    stamp: u64,
    by: HashMap<TenantId, Arc<Quotas>>,
}

/// The quotas that there are, and what came of them. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    off: AtomicBool,
    known: Mutex<Known>,
    freed: Mutex<Freed>,
    refused: [AtomicU64; Limit::ALL.len()],
}

/// Tenants for whose jobs there may be room again, and whether somebody looks after them.
#[derive(Debug, Default)]
struct Freed {
    tenants: HashSet<TenantId>,
    is_looked_after: bool,
}

impl Book {
    /// The quotas of a tenant by a stamp that this transaction has read; `None` where it has none.
    fn of(
        &self,
        tx: &mut Tx<'_>,
        stamp: Option<u64>,
        tenant: &TenantId,
    ) -> Result<Option<Arc<Quotas>>, Fail> {
        let Some(stamp) = stamp.filter(|_| !self.0.off.load(Ordering::Relaxed)) else {
            return Ok(None);
        };
        if let Some(found) = locked(&self.0.known).get(stamp, tenant) {
            return Ok(Some(found).filter(|found| !found.is_empty()));
        }
        let most = u32::try_from(limits::QUOTAS_MAX).unwrap_or(u32::MAX);
        let mut read = Quotas::default();
        for row in quota::list(tx, Some(tenant), None, most + 1)? {
            match row.whose {
                Whose::Tenant => read.own = row.most,
                Whose::Principal(id) => drop(read.of.insert(id, row.most)),
            }
        }
        let read = Arc::new(read);
        locked(&self.0.known).put(stamp, tenant, &read);
        Ok(Some(read).filter(|read| !read.is_empty()))
    }

    /// Whether a tenant had some when its quotas were read last. A hint, and no more: a loop looks too.
    pub(crate) fn may_bound(&self, tenant: &TenantId) -> bool {
        let known = locked(&self.0.known);
        known.by.get(tenant).is_some_and(|found| !found.is_empty())
    }

    fn count_refusal(&self, limit: Limit) {
        if let Some(count) = self.0.refused.get(limit as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Known {
    fn get(&self, stamp: u64, tenant: &TenantId) -> Option<Arc<Quotas>> {
        let found = self.by.get(tenant).filter(|_| self.stamp == stamp);
        found.map(Arc::clone)
    }

    fn put(&mut self, stamp: u64, tenant: &TenantId, read: &Arc<Quotas>) {
        if self.stamp != stamp || self.by.len() >= KNOWN_MAX {
            self.by.clear();
        }
        self.stamp = stamp;
        self.by.insert(tenant.clone(), Arc::clone(read));
    }
}

/// A quota, and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaSeen {
    /// As it was said.
    pub row: QuotaRow,
    /// What people call its tenant.
    pub tenant_name: String,
    /// What there is of what it bounds.
    pub used: Amounts,
}

/// A page of quotas, by tenant and principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaPage {
    /// The quotas.
    pub quotas: Vec<QuotaSeen>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<String>,
}

/// What is to become of some limits: another number, or no bound.
pub type QuotaChange = BTreeMap<Limit, Option<u64>>;

impl Service {
    /// No quota counts in this process: for development alone.
    pub fn quotas_off(&self) {
        self.inner.quotas.0.off.store(true, Ordering::Relaxed);
    }

    /// Writes down that this process holds neither rates nor quotas.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn limits_off_note(&self) -> Result<(), Error> {
        let (ctx, now) = (Ctx::internal("server"), self.now_ms());
        let written = self.unit(move |tx| {
            let data = serde_json::json!({"why": "`off` of [rates], in development"});
            tell(tx, &ctx, ("limits", "limits"), "limits.off", &data, now)?;
            Ok(())
        });
        written.await
    }

    /// How often something was refused for each limit, since this process began.
    pub fn quota_refusals(&self) -> Vec<(Limit, u64)> {
        let refused = self.inner.quotas.0.refused.iter();
        let all = Limit::ALL.into_iter().zip(refused);
        all.map(|(limit, count)| (limit, count.load(Ordering::Relaxed)))
            .collect()
    }

    /// Says what somebody may have at a time: a tenant, by its name or its id, or a principal of the caller's tenant,
    /// such as `user:alice`. What the change does not name stays.
    ///
    /// # Errors
    /// [`Error::Forbidden`]: that of a tenant is for the first tenant; [`Error::NotFound`]; [`Error::Invalid`], also
    /// for a principal's that is more than its tenant's; [`Error::TooMuch`].
    pub async fn quota_set(
        &self,
        ctx: &Ctx,
        of: &str,
        change: QuotaChange,
    ) -> Result<QuotaSeen, Error> {
        ctx.may(Action::QuotaWrite)?;
        let owner = Owner::parse(ctx, of)?;
        check_change(&change)?;
        let (ctx, now) = (ctx.clone(), self.now_ms());
        let set = self.unit(move |tx| {
            let (tenant, whose, tenant_name) = owner.find(tx, &ctx)?;
            let before = quota::get(tx, &tenant, &whose)?;
            let mut most = before.as_ref().map(|row| row.most.clone());
            changed(most.get_or_insert_default(), &change);
            let row = QuotaRow {
                most: most.unwrap_or_default(),
                made_by: ctx.principal.clone(),
                updated_at_ms: now,
                tenant,
                whose,
            };
            check_within(tx, &row)?;
            if before.is_none() && quota::count(tx, &row.tenant)? > limits::QUOTAS_MAX {
                let message = format!("a tenant has at most {} quotas", limits::QUOTAS_MAX);
                let code = "too_much";
                return Err(Error::TooMuch { code, message }.into());
            }
            if row.most.is_empty() {
                quota::delete(tx, &row.tenant, &row.whose)?;
            } else {
                quota::put(tx, &row)?;
            }
            note(tx, &ctx, &row, "quota.set")?;
            seen(tx, row, tenant_name)
        });
        let seen = set.await?;
        self.quota_changed(&seen.row.tenant);
        Ok(seen)
    }

    /// Takes a quota away: nothing bounds it then.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`], also where there is none.
    pub async fn quota_remove(&self, ctx: &Ctx, of: &str) -> Result<QuotaSeen, Error> {
        ctx.may(Action::QuotaWrite)?;
        let owner = Owner::parse(ctx, of)?;
        let (ctx, now) = (ctx.clone(), self.now_ms());
        let removed = self.unit(move |tx| {
            let (tenant, whose, tenant_name) = owner.find(tx, &ctx)?;
            let row = quota::get(tx, &tenant, &whose)?;
            let row = row.ok_or(Fail::Ours(Error::NotFound))?;
            quota::delete(tx, &tenant, &whose)?;
            let gone = QuotaRow {
                updated_at_ms: now,
                ..row.clone()
            };
            note(tx, &ctx, &gone, "quota.removed")?;
            seen(tx, row, tenant_name)
        });
        let seen = removed.await?;
        self.quota_changed(&seen.row.tenant);
        Ok(seen)
    }

    /// Quotas with what is used of them, by tenant and principal, those after the page that ended with `after`: all
    /// for whoever may see tenants, those of the caller's tenant for others.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Invalid`] for an `after` that no page ended with.
    pub async fn quota_list(
        &self,
        ctx: &Ctx,
        after: Option<&str>,
        limit: u32,
    ) -> Result<QuotaPage, Error> {
        ctx.may(Action::QuotaRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let after = after.map(cursor).transpose()?;
        let of = match ctx.may(Action::TenantRead) {
            Ok(()) => None,
            Err(_) => Some(ctx.tenant.clone()),
        };
        let listed = self.look(move |tx| {
            let from = after.as_ref().map(|(tenant, whose)| (tenant, whose));
            let mut rows = quota::list(tx, of.as_ref(), from, limit + 1)?;
            let next = page::cut(&mut rows, limit, resource_id);
            let mut quotas = Vec::new();
            for row in rows {
                let name = tenant::get(tx, row.tenant.as_str())?;
                let name = name.map_or_else(|| row.tenant.to_string(), |found| found.name);
                quotas.push(seen(tx, row, name)?);
            }
            Ok(QuotaPage { quotas, next })
        });
        listed.await
    }

    /// What is used of the quotas of tenants, of the first ones by id, for the counters of the installation.
    ///
    /// # Errors
    /// [`Error::Forbidden`] but for those who may see nodes.
    pub async fn quota_counters(&self, ctx: &Ctx) -> Result<Vec<QuotaSeen>, Error> {
        ctx.may(Action::NodeRead)?;
        let counted = self.look(|tx| {
            let mut all = Vec::new();
            if stamps(tx)?.quotas.is_none() {
                return Ok(all);
            }
            for row in quota::list(tx, None, None, COUNTED_MAX)? {
                if row.whose == Whose::Tenant {
                    let name = row.tenant.to_string();
                    all.push(seen(tx, row, name)?);
                }
            }
            Ok(all)
        });
        counted.await
    }

    /// What was held may have room now.
    fn quota_changed(&self, tenant: &TenantId) {
        self.wake().queue();
        self.release_soon(tenant);
    }
}

/// Of whom a quota is to be.
#[derive(Debug, Clone)]
enum Owner {
    Tenant(String),
    Principal(PrincipalId),
}

impl Owner {
    /// Names of tenants have no colon, and principals have one.
    fn parse(ctx: &Ctx, text: &str) -> Result<Owner, Error> {
        if !text.contains(':') {
            ctx.may(Action::TenantWrite)?;
            return Ok(Owner::Tenant(text.to_owned()));
        }
        let id = text.parse().map_err(|_| Error::NotFound)?;
        Ok(Owner::Principal(id))
    }

    fn find(&self, tx: &mut Tx<'_>, ctx: &Ctx) -> Result<(TenantId, Whose, String), Fail> {
        let named = match self {
            Owner::Tenant(named) => named.as_str(),
            Owner::Principal(_) => ctx.tenant.as_str(),
        };
        let row = tenant::get(tx, named)?;
        let row = row.ok_or(Fail::Ours(Error::NotFound))?;
        let Owner::Principal(id) = self else {
            return Ok((row.id, Whose::Tenant, row.name));
        };
        let there = principal::get(tx, &ctx.tenant, id.as_str())?;
        there.ok_or(Fail::Ours(Error::NotFound))?;
        Ok((row.id, Whose::Principal(id.clone()), row.name))
    }
}

fn check_change(change: &QuotaChange) -> Result<(), Error> {
    let wrong = |why: String| Err(Error::invalid("limits", "invalid_argument", why));
    if change.is_empty() {
        return wrong("name at least one limit".to_owned());
    }
    for (limit, most) in change {
        if most.is_some_and(|most| most > limits::QUOTA_MOST_MAX) {
            let (name, most) = (limit.as_str(), limits::QUOTA_MOST_MAX);
            return wrong(format!("`{name}` is at most {most}"));
        }
    }
    Ok(())
}

fn changed(most: &mut Amounts, change: &QuotaChange) {
    for (limit, amount) in change {
        match amount {
            Some(amount) => most.insert(*limit, *amount),
            None => most.remove(limit),
        };
    }
}

/// A principal has no more than its tenant.
fn check_within(tx: &mut Tx<'_>, row: &QuotaRow) -> Result<(), Fail> {
    if row.whose == Whose::Tenant {
        return Ok(());
    }
    let own = quota::get(tx, &row.tenant, &Whose::Tenant)?;
    let own = own.map(|own| own.most).unwrap_or_default();
    let Some(limit) = beyond_tenant(&row.most, &own) else {
        return Ok(());
    };
    let most = own.get(&limit).copied().unwrap_or_default();
    let message = format!("the tenant itself has at most {most}");
    let field = format!("limits.{}", limit.as_str());
    Err(Error::invalid(field, "invalid_argument", message).into())
}

fn seen(tx: &mut Tx<'_>, row: QuotaRow, tenant_name: String) -> Result<QuotaSeen, Fail> {
    let bounded: Vec<Limit> = row.most.keys().copied().collect();
    let used = quota::used(tx, (&row.tenant, &row.whose), &bounded)?;
    Ok(QuotaSeen {
        row,
        tenant_name,
        used,
    })
}

/// Its name among events, and where a page ends.
fn resource_id(row: &QuotaRow) -> String {
    match &row.whose {
        Whose::Tenant => row.tenant.to_string(),
        Whose::Principal(id) => format!("{}/{id}", row.tenant),
    }
}

fn cursor(text: &str) -> Result<(TenantId, Whose), Error> {
    let wrong = || Error::invalid("after", "invalid_argument", "no page ended with this");
    let (tenant, principal) = match text.split_once('/') {
        Some((tenant, principal)) => (tenant, Some(principal)),
        None => (text, None),
    };
    let whose = match principal {
        None => Whose::Tenant,
        Some(id) => Whose::Principal(id.parse().map_err(|_| wrong())?),
    };
    Ok((tenant.parse().map_err(|_| wrong())?, whose))
}

/// Writes what was said into the record of the tenant that it is about.
fn note(tx: &mut Tx<'_>, ctx: &Ctx, row: &QuotaRow, kind: &str) -> Result<(), Fail> {
    let data = serde_json::json!({"limits": amounts_named(&row.most)});
    let about = Ctx {
        tenant: row.tenant.clone(),
        ..ctx.clone()
    };
    let id = resource_id(row);
    tell(tx, &about, ("quota", &id), kind, &data, row.updated_at_ms)?;
    Ok(())
}

/// What some may have and have.
fn accounts(
    tx: &mut Tx<'_>,
    bounds: BTreeMap<(TenantId, Whose), Amounts>,
) -> Result<model::quota::Gate, Fail> {
    let mut gate = model::quota::Gate::default();
    for ((tenant, whose), most) in bounds {
        let limits: Vec<Limit> = most.keys().copied().collect();
        let used = quota::used(tx, (&tenant, &whose), &limits)?;
        gate.add(tenant, whose, Account { most, used });
    }
    Ok(gate)
}
