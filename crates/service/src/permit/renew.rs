//! What waits and was decided by policies that are not those of now is decided again, before a node gets it.

use super::rest::Said;
use super::{ALL, as_it_is, kept, outdated, owner, settled, yes_of};
use crate::error::Fail;
use crate::{Ctx, Error, Service, change, locked, sandbox};
use model::id::{JobId, TenantId};
use model::job::JobEvent;
use model::policy::{Decision, Refusal};
use model::sandbox::SandboxEvent;
use std::collections::{HashMap, HashSet, VecDeque};
use store::job::JobRow;
use store::sandbox::SandboxRow;
use store::{StoreError, Tx, permit, queue};

/// Rows that are decided again at a time. What is not is found by a later claim.
const RENEWING_MAX: usize = 1024;
/// The same of one tenant, so that one with slow modules leaves room for others.
const RENEWING_OF_ONE_MAX: usize = 256;
/// How long jobs are passed over that are about to be decided again. One that is decided is back at once; if we die,
/// all are after this time.
const ASIDE_MS: u64 = 30_000;
/// The same for those for which there is no room yet.
const FULL_MS: u64 = 2000;
/// How long a job waits that could not be decided again, so that it holds up nobody behind it. Where a module rests,
/// `rest` says how long.
const LATER_MS: u64 = 1000;

/// What is decided again at this moment.
#[derive(Debug, Default)]
pub(crate) struct Renewing {
    /// By tenant and id: each claim finds the same rows until that is done.
    ids: HashMap<TenantId, HashSet<String>>,
    /// Of whom the log has that their jobs wait for a module.
    pub(super) said: Said,
}

impl Renewing {
    fn has(&self, tenant: &TenantId, id: &str) -> bool {
        self.ids.get(tenant).is_some_and(|ids| ids.contains(id))
    }

    /// Whether there was room for it.
    fn takes(&mut self, tenant: &TenantId, id: &str) -> bool {
        let all: usize = self.ids.values().map(HashSet::len).sum();
        let of_one = self.ids.get(tenant).map_or(0, HashSet::len);
        if all >= RENEWING_MAX || of_one >= RENEWING_OF_ONE_MAX {
            return false;
        }
        let of_one = self.ids.entry(tenant.clone()).or_default();
        of_one.insert(id.to_owned())
    }

    fn done(&mut self, tenant: &TenantId, id: &str) {
        if let Some(ids) = self.ids.get_mut(tenant) {
            ids.remove(id);
            if ids.is_empty() {
                self.ids.remove(tenant);
            }
        }
    }
}

/// A row that nobody else decides again while this is held.
pub(super) struct Renewed<'s> {
    service: &'s Service,
    tenant: TenantId,
    id: String,
}

impl Drop for Renewed<'_> {
    fn drop(&mut self) {
        locked(&self.service.inner.renewing).done(&self.tenant, &self.id);
    }
}

/// Rows to be decided again, each held.
pub(super) type Mine<'s, R> = VecDeque<(Renewed<'s>, R)>;
/// The same, and those for which there is no room yet.
type Taken<'s, R> = (Mine<'s, R>, Vec<R>);
/// How a place in the queue waits: until then at least, or until then and no longer.
type Wait = fn(&mut Tx<'_>, &JobId, u64) -> Result<(), StoreError>;

impl Service {
    /// Decides jobs again that wait and were decided by other policies. Each is a transaction of its own: what is not
    /// come to is found by a later claim. Before that all are put aside: modules may take long, and a claim looks only
    /// at the first that wait.
    pub(crate) async fn jobs_renew(&self, rows: Vec<JobRow>) {
        let (mine, full) = self.renewing(rows, |row| (&row.tenant, row.id.as_str()));
        let full = full.into_iter().map(|row| row.id).collect();
        self.jobs_aside(full, FULL_MS).await;
        // Before they are put aside: those whose module rests are written once.
        let mut mine = self.jobs_rest(mine).await;
        let mut until = 0;
        loop {
            let now = self.now_ms();
            if until < now.saturating_add(ASIDE_MS / 2) {
                until = now.saturating_add(ASIDE_MS);
                let ids = mine.iter().map(|(_, row)| row.id.clone()).collect();
                self.jobs_aside(ids, ASIDE_MS).await;
            }
            let Some((held, row)) = mine.pop_front() else {
                return;
            };
            let error = match self.job_renew(&row).await {
                Ok(row) => {
                    self.announce(&row);
                    continue;
                }
                Err(error) => error,
            };
            if self.job_rests(&row).await {
                mine.push_front((held, row));
                mine = self.jobs_rest(mine).await;
                continue;
            }
            tracing::debug!(job.id = %row.id, error = error.cause(), "a job is decided again later");
            self.jobs_wait(vec![row.id], LATER_MS, queue::wait_until)
                .await;
        }
    }

    /// Lets jobs be passed over for so long, and has looked at once for whoever waits behind them.
    async fn jobs_aside(&self, ids: Vec<JobId>, for_ms: u64) {
        // Where it cannot be written, looking again would find the same.
        if !ids.is_empty() && self.jobs_wait(ids, for_ms, queue::postpone).await {
            self.wake().queue();
        }
    }

    /// Writes that jobs wait for so long, all at once. Whether that could be written; if not, they are back when their
    /// time aside is over.
    pub(super) async fn jobs_wait(&self, mut ids: Vec<JobId>, for_ms: u64, wait: Wait) -> bool {
        // Two servers may write the same: in one order none waits for the other in a circle.
        ids.sort();
        let until = self.now_ms().saturating_add(for_ms);
        let written = self.unit(move |tx| {
            for id in &ids {
                wait(tx, id, until)?;
            }
            Ok(())
        });
        written.await.is_ok()
    }

    /// Of these rows, those that nobody decides again at this moment. They are held until each is done, or until
    /// whoever does it goes away.
    fn renewing<R>(&self, rows: Vec<R>, of: fn(&R) -> (&TenantId, &str)) -> Taken<'_, R> {
        self.policies_forget();
        let mut all = locked(&self.inner.renewing);
        let (mut mine, mut full) = (VecDeque::new(), Vec::new());
        for row in rows {
            let (tenant, id) = of(&row);
            if all.has(tenant, id) {
                continue;
            }
            if !all.takes(tenant, id) {
                full.push(row);
                continue;
            }
            let (tenant, id) = (tenant.clone(), id.to_owned());
            let held = Renewed {
                service: self,
                tenant,
                id,
            };
            mine.push_back((held, row));
        }
        (mine, full)
    }

    async fn job_renew(&self, row: &JobRow) -> Result<JobRow, Error> {
        let owner = owner(&row.tenant, &row.principal);
        let before = row.spec.permit.as_deref();
        let decided = self.decide_job(&owner, "job.lease", row.spec.clone()).await;
        let decided = decided.map(|decision| settled(decision, yes_of(before)));
        let mut decided = ended_by(decided)?;
        if let Ok(spec) = &mut decided {
            spec.permit = spec.permit.take().map(|permit| kept(permit, before));
        }
        let note = change::Note::new(&Ctx::internal("policy"), self.now_ms());
        let row = row.clone();
        self.unit(move |tx| match &decided {
            // There is no policy any more: what was decided by some stays within them. It is not aside any longer.
            Ok(spec) if spec.permit.is_none() => {
                queue::wait_until(tx, &row.id, note.at_ms)?;
                Ok(row.clone())
            }
            Ok(spec) => {
                let at = (&note.principal, note.at_ms);
                Ok(permit::job_put(tx, &row, spec, at)?)
            }
            Err(why) => {
                let refuse = JobEvent::Refuse { why: why.clone() };
                let note = note.clone().because(why);
                let ended = change::apply(tx, &row, &refuse, note)?;
                Ok::<_, Fail>(ended.unwrap_or_else(|| row.clone()))
            }
        })
        .await
    }

    /// The same for sandboxes. None is put aside: of these a node looks at so many that wait, in turn by tenants, that
    /// one tenant's do not hide those of others; and none takes all places of what is decided.
    pub(crate) async fn sandboxes_renew(&self, rows: Vec<SandboxRow>) {
        let mut is_news = false;
        let (mine, _) = self.renewing(rows, |row| (&row.tenant, row.id.as_str()));
        for (held, row) in mine {
            match self.sandbox_renew(&row).await {
                Ok(row) => {
                    self.announce_sandbox(&row);
                    is_news = true;
                }
                Err(error) => {
                    tracing::debug!(sandbox.id = %row.id, error = error.cause(), "a sandbox is decided again later");
                }
            }
            drop(held);
        }
        if is_news {
            self.wake().queue();
        }
    }

    async fn sandbox_renew(&self, row: &SandboxRow) -> Result<SandboxRow, Error> {
        let owner = owner(&row.tenant, &row.principal);
        let asked = (as_it_is(row), row.ttl_ms, ALL);
        let before = row.spec.permit.as_deref();
        let decided = self.decide_sandbox(&owner, "sandbox.lease", asked).await;
        let decided = decided.map(|decision| settled(decision, yes_of(before)));
        let mut decided = ended_by(decided)?;
        if let Ok((spec, _)) = &mut decided {
            spec.permit = spec.permit.take().map(|permit| kept(permit, before));
        }
        let note = sandbox::change::Note::new(&Ctx::internal("policy"), self.now_ms());
        let row = row.clone();
        self.unit(move |tx| match &decided {
            Ok((spec, _)) if spec.permit.is_none() => Ok(row.clone()),
            Ok((spec, ttl_ms)) => {
                let at = (&note.principal, note.at_ms);
                let mut spec = spec.clone();
                // Those that came while it lived stand beside these on the row.
                spec.secrets.clone_from(&row.spec.secrets);
                Ok(permit::sandbox_put(tx, &row, (&spec, *ttl_ms), at)?)
            }
            Err(why) => {
                let fail = SandboxEvent::Fail { why: why.clone() };
                let ended = sandbox::change::apply(tx, &row, &fail, note.clone())?;
                Ok::<_, Fail>(ended.unwrap_or_else(|| row.clone()))
            }
        })
        .await
    }
}

/// What waits as it may be from now on, or why it ends. More policies than there may be end it too: nobody would be
/// there who is told, and what waits behind it would wait with it.
fn ended_by<T>(decided: Result<Decision<T>, Error>) -> Result<Result<T, String>, Error> {
    match decided {
        Ok(Decision::Allowed(made)) => Ok(Ok(made)),
        Ok(Decision::Refused(all) | Decision::NeedsApproval(_, all)) => {
            Ok(Err(outdated(all.iter().map(Refusal::invalid))))
        }
        Err(Error::Invalid(found)) => Ok(Err(outdated(found))),
        Err(error) => Err(error),
    }
}
