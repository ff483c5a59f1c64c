//! Jobs that cannot be decided again because a module of theirs rests: they are put off together, for as long as it does.
//!
//! A module that was stopped is not asked by its tenant for [`rego::REST`]. Until then each try would be a write and no
//! answer, and of a tenant with thousands of jobs that is what the database would be busy with.

use super::renew::Mine;
use super::{ALL, owner};
use crate::{Service, locked};
use model::id::{JobId, TenantId};
use model::limits;
use model::policy::Decision;
use std::collections::{BTreeMap, HashMap};
use store::job::JobRow;
use store::queue;

/// How often the log has of one tenant that its jobs wait for a module.
const SAID_MS: u64 = 60_000;

/// Of whom the log has lately that their jobs wait for a module, and since when.
#[derive(Debug, Default)]
pub(super) struct Said(HashMap<TenantId, u64>);

impl Said {
    /// Whether that is to be said once more. Not more than once a minute, and of no more tenants than there may be.
    fn one_more(&mut self, tenant: &TenantId, now_ms: u64) -> bool {
        // A clock that was set back ends the minute, else it might last for years.
        let is_fresh = |at_ms: u64| now_ms.checked_sub(at_ms).is_some_and(|age| age < SAID_MS);
        self.0.retain(|_, at_ms| is_fresh(*at_ms));
        if self.0.contains_key(tenant) || self.0.len() as u64 >= limits::TENANTS_MAX {
            return false;
        }
        self.0.insert(tenant.clone(), now_ms);
        true
    }
}

impl Service {
    /// Whether a module rests that would be asked about a job. One that is refused before any module is asked
    /// waits for none.
    pub(super) async fn job_rests(&self, row: &JobRow) -> bool {
        let Some(evaluator) = self.inner.evaluator.get() else {
            return false;
        };
        // Whatever is wrong with its policies, deciding it says so.
        let owner = owner(&row.tenant, &row.principal);
        let Ok(Some(by)) = self.effective(&owner, &[]).await else {
            return false;
        };
        let rests = |module: &str| evaluator.rests(row.tenant.as_str(), module);
        by.modules.iter().any(|(_, module)| rests(module))
            && !matches!(by.permit.job(row.spec.clone(), ALL), Decision::Refused(_))
    }

    /// Puts those off of which a module rests, all at once, and answers the others.
    pub(super) async fn jobs_rest<'s>(&'s self, mine: Mine<'s, JobRow>) -> Mine<'s, JobRow> {
        let (mut others, mut resting) = (Mine::new(), Vec::new());
        for one in mine {
            match self.job_rests(&one.1).await {
                true => resting.push(one),
                false => others.push_back(one),
            }
        }
        if resting.is_empty() {
            return others;
        }
        let mut by = BTreeMap::<&TenantId, usize>::new();
        for (_, row) in &resting {
            *by.entry(&row.tenant).or_default() += 1;
        }
        for (tenant, jobs) in by {
            self.say_rest(tenant, jobs);
        }
        let ids: Vec<JobId> = resting.iter().map(|(_, row)| row.id.clone()).collect();
        let rest = u64::try_from(rego::REST.as_millis()).unwrap_or(u64::MAX);
        // They are held until that is written: else a claim that comes between begins with them anew.
        if self.jobs_wait(ids, rest, queue::wait_until).await {
            // Whoever waits behind them is looked for at once.
            self.wake().queue();
        }
        drop(resting);
        others
    }

    fn say_rest(&self, tenant: &TenantId, jobs: usize) {
        if locked(&self.inner.renewing)
            .said
            .one_more(tenant, self.now_ms())
        {
            tracing::warn!(
                %tenant,
                jobs,
                "a module of a policy was stopped and rests, and jobs wait until it is asked again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_jobs_wait_for_a_module_is_said_of_a_tenant_once_a_minute() {
        let [a, b] = ["ten_a", "ten_b"].map(|id| id.parse::<TenantId>().unwrap());
        let mut said = Said::default();
        assert!(said.one_more(&a, 5000));
        assert!(!said.one_more(&a, 64_999));
        assert!(said.one_more(&b, 64_999));
        assert!(said.one_more(&a, 65_000));
        assert!(said.one_more(&a, 4999), "the clock was set back");
        assert_eq!(said.0.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn no_more_tenants_are_remembered_than_there_may_be() {
        let mut said = Said::default();
        let of = |number: u64| format!("ten_{number}").parse::<TenantId>().unwrap();
        let first = (0..limits::TENANTS_MAX).all(|number| said.one_more(&of(number), 1));
        assert!(first);
        assert!(!said.one_more(&of(limits::TENANTS_MAX), 1));
    }
}
