//! What becomes of requests by the policies that apply: decided by `model` before anything is written, frozen on what
//! comes of it, and looked at again before a node gets that.
//!
//! A decision is by a state of all policies, which has a stamp. The transaction that writes compares it: whoever
//! changes a policy meanwhile is not passed by. What waits while policies change is decided again when a node would get
//! it. Where there is no policy, the stamp is all that is ever read.

pub(crate) mod module;

use crate::error::Fail;
use crate::hex::hex;
use crate::{Ctx, Error, NetworkChange, SandboxAsk, Service, change, locked, random, sandbox};
use model::id::{PrincipalId, TenantId};
use model::job::JobEvent;
use model::limits;
use model::network::NetworkRules;
use model::policy::{Decision, Kind, LayerRef, Permit, PermitUse, Policy, Refusal};
use model::profile::Says;
use model::sandbox::SandboxEvent;
use model::sandbox_spec::SandboxSpec;
use model::spec::{Invalid, JobSpec};
use model::volume::VOLUME_PROFILE;
use std::collections::HashMap;
use std::sync::Arc;
use store::job::JobRow;
use store::policy::{PolicyRow, Stamps};
use store::sandbox::SandboxRow;
use store::{Tx, event, permit, policy};

/// Principals whose permits are remembered. One more, and all are read anew.
const KNOWN_MAX: usize = 1024;
/// How often a request is decided again because policies changed meanwhile.
const TRIES: u32 = 4;
/// The code of a request that was decided by policies that are not those of now.
const CHANGED: &str = "policy_changed";
/// Refusals of one decision that are told in its event.
const TOLD_MAX: usize = 16;

/// Everything that one principal is decided by.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) stamp: u64,
    pub(crate) permit: Permit,
    /// Modules that must allow it too.
    pub(crate) modules: Vec<(LayerRef, String)>,
}

/// What is remembered of policies. Any change of one makes it old, which is found out where something is written.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The stamp, once it was read; `Some(None)` where there is no policy.
    stamp: Option<Option<u64>>,
    by: HashMap<(TenantId, PrincipalId), Arc<Effective>>,
}

impl Known {
    fn get(&self, ctx: &Ctx) -> Option<Option<Arc<Effective>>> {
        self.stamp?.map_or(Some(None), |_| {
            let of = (ctx.tenant.clone(), ctx.principal.clone());
            self.by.get(&of).map(|found| Some(Arc::clone(found)))
        })
    }

    fn put(&mut self, ctx: &Ctx, stamp: Option<u64>, found: Option<&Arc<Effective>>) {
        if self.stamp != Some(stamp) || self.by.len() >= KNOWN_MAX {
            self.by.clear();
        }
        self.stamp = Some(stamp);
        if let Some(found) = found {
            let of = (ctx.tenant.clone(), ctx.principal.clone());
            self.by.insert(of, Arc::clone(found));
        }
    }
}

/// Refuses what was decided by other policies than those of now. If it is refused nothing is written, and the request is
/// decided again.
pub(crate) fn check_current(tx: &mut Tx<'_>, decided: Option<&PermitUse>) -> Result<Stamps, Fail> {
    check_stamp(tx, decided.map(|decided| decided.stamp))
}

/// The same by the stamp alone.
pub(crate) fn check_stamp(tx: &mut Tx<'_>, decided: Option<u64>) -> Result<Stamps, Fail> {
    let stamps = policy::stamps(tx)?;
    let now = stamps.policies;
    // Where there is none any more, what was decided by some stays within them.
    if now.is_some() && now != decided {
        let message = "policies were changed while the request was decided";
        return Err(Error::conflict_of(CHANGED, message).into());
    }
    Ok(stamps)
}

/// Whether a sandbox has to be decided again before a node gets it. One of our own is for no policy.
pub(crate) fn is_stale(spec: &SandboxSpec, now: Option<u64>) -> bool {
    spec.profile != VOLUME_PROFILE && PermitUse::is_stale(spec.permit.as_deref(), now)
}

/// Whether a request is worth another try.
pub(crate) fn is_changed(error: &Error, tries: u32) -> bool {
    tries < TRIES && error.code() == CHANGED
}

impl Service {
    /// Forgets what is known of policies.
    pub(crate) fn policies_forget(&self) {
        *locked(&self.inner.policies) = Known::default();
    }

    /// What this caller is decided by; `None` where there is no policy at all.
    pub(crate) async fn effective(&self, ctx: &Ctx) -> Result<Option<Arc<Effective>>, Error> {
        if let Some(known) = locked(&self.inner.policies).get(ctx) {
            return Ok(known);
        }
        let tenant = ctx.tenant.clone();
        let (stamp, mut rows) = self
            .look(move |tx| {
                let Some(stamp) = policy::stamp(tx)? else {
                    return Ok((None, Vec::new()));
                };
                let mut rows = policy::global(tx)?;
                rows.extend(policy::list(tx, &tenant)?.into_iter().filter(is_of_tenant));
                Ok((Some(stamp), rows))
            })
            .await?;
        rows.retain(|row| row.policy.is_for(ctx.principal.as_str()));
        let found = match stamp {
            Some(stamp) => Some(Arc::new(put_together(stamp, rows)?)),
            None => None,
        };
        locked(&self.inner.policies).put(ctx, stamp, found.as_ref());
        Ok(found)
    }

    /// A job as it may be, with what was decided.
    ///
    /// # Errors
    /// [`Error::Invalid`] `policy_refused`, `policy_unenforceable`, `approval_needed`.
    pub(crate) async fn permitted_job(&self, ctx: &Ctx, spec: JobSpec) -> Result<JobSpec, Error> {
        let Some(by) = self.effective(ctx).await? else {
            return Ok(JobSpec {
                permit: None,
                ..spec
            });
        };
        let decision = by.permit.job(spec, ALL);
        let input = |spec: &JobSpec| module::of_job(ctx, "job.create", spec);
        let decision = self.modules_say(&by, decision, input).await;
        let spec = self.told(ctx, "job.create", decision).await?;
        Ok(JobSpec {
            permit: Some(frozen(&by)),
            ..spec
        })
    }

    /// A sandbox as it may be, with what was decided. One of our own, which serves a volume, is as it is.
    ///
    /// # Errors
    /// As for [`Service::permitted_job`].
    pub(crate) async fn permitted_sandbox(
        &self,
        ctx: &Ctx,
        ask: SandboxAsk,
    ) -> Result<SandboxAsk, Error> {
        let by = match ask.spec.profile.as_str() {
            VOLUME_PROFILE => None,
            _ => self.effective(ctx).await?,
        };
        let Some(by) = by else {
            let mut ask = ask;
            ask.spec.permit = None;
            return Ok(ask);
        };
        let decision = by.permit.sandbox((ask.spec, ask.ttl_ms), ask.says);
        let input = |made: &(SandboxSpec, u64)| module::of_sandbox(ctx, "sandbox.create", made);
        let decision = self.modules_say(&by, decision, input).await;
        let (spec, ttl_ms) = self.told(ctx, "sandbox.create", decision).await?;
        let permit = Some(frozen(&by));
        let spec = SandboxSpec { permit, ..spec };
        Ok(SandboxAsk {
            spec,
            ttl_ms,
            ..ask
        })
    }

    /// Whether a sandbox that was made may be made once more, before its old place is given up for that.
    pub(crate) async fn permitted_again(&self, ctx: &Ctx, row: &SandboxRow) -> Result<(), Error> {
        let Some(by) = self.effective(ctx).await? else {
            return Ok(());
        };
        let mut spec = row.spec.clone();
        spec.network = row.rules().clone();
        let decision = by.permit.sandbox((spec, row.ttl_ms), ALL);
        let input = |made: &(SandboxSpec, u64)| module::of_sandbox(ctx, "sandbox.recreate", made);
        let decision = self.modules_say(&by, decision, input).await;
        self.told(ctx, "sandbox.recreate", decision).await.map(drop)
    }

    /// Other rules for a sandbox, and secrets for what leaves by them, as they may be by the policies of now and by those that it was made by.
    pub(crate) async fn permitted_network(
        &self,
        ctx: &Ctx,
        row: &SandboxRow,
        asked: NetworkChange,
    ) -> Result<(NetworkChange, Option<u64>), Error> {
        let NetworkChange { mut rules, secrets } = asked;
        let new = secrets.as_deref().unwrap_or_default();
        if let Some(frozen) = &row.spec.permit {
            let decision = frozen.permit.network((&rules, new));
            rules = self.told(ctx, "sandbox.network", decision).await?;
        }
        let Some(by) = self.effective(ctx).await? else {
            return Ok((NetworkChange { rules, secrets }, None));
        };
        let decision = by.permit.network((&rules, new));
        let input = |rules: &NetworkRules| module::of_network(ctx, rules, new);
        let decision = self.modules_say(&by, decision, input).await;
        let rules = self.told(ctx, "sandbox.network", decision).await?;
        Ok((NetworkChange { rules, secrets }, Some(by.stamp)))
    }

    /// What was allowed. What was not is written down, with who asked and which clauses, and refused.
    async fn told<T>(
        &self,
        ctx: &Ctx,
        operation: &'static str,
        decision: Decision<T>,
    ) -> Result<T, Error> {
        match decision {
            Decision::Allowed(made) => Ok(made),
            Decision::Refused(all) | Decision::NeedsApproval(all) => {
                self.policy_refused(ctx, operation, &all).await;
                let found: Vec<Invalid> = all.iter().map(Refusal::invalid).collect();
                Err(Error::Invalid(found))
            }
        }
    }

    /// An event of its own: there is no change that it could be beside. The refusal stands also where it cannot be
    /// written.
    async fn policy_refused(&self, ctx: &Ctx, operation: &'static str, all: &[Refusal]) {
        let Ok(number) = random::<16>() else { return };
        let id = format!("ref_{}", hex(&number));
        let one = |one: &Refusal| {
            let by: Vec<String> = one.by.iter().map(ToString::to_string).collect();
            serde_json::json!({"clause": change::cut(&one.clause), "by": by,
                "why": change::cut(&one.why), "code": one.kind.code()})
        };
        let told: Vec<_> = all.iter().take(TOLD_MAX).map(one).collect();
        let data = serde_json::json!({"operation": operation, "clauses": told}).to_string();
        let (ctx, at_ms) = (ctx.clone(), self.now_ms());
        let written = self.unit(move |tx| {
            let new = event::NewEvent {
                tenant: &ctx.tenant,
                resource: "refusal",
                resource_id: &id,
                version: 1,
                kind: "policy.refused",
                data: &data,
                principal: &ctx.principal,
                at_ms,
            };
            Ok(event::append(tx, &new)?)
        });
        if let Err(error) = written.await {
            tracing::warn!(error = error.cause(), "a refusal is not among the events");
        }
    }

    /// Decides jobs again that wait and were decided by other policies. Each is a transaction of its own: what is not
    /// come to is found by the next claim.
    pub(crate) async fn jobs_renew(&self, rows: Vec<JobRow>) {
        self.policies_forget();
        for row in rows {
            let id = row.id.clone();
            match self.job_renew(row).await {
                Ok(row) => self.announce(&row),
                Err(error) => {
                    tracing::debug!(job.id = %id, error = error.cause(), "a job is decided again later");
                }
            }
        }
    }

    async fn job_renew(&self, row: JobRow) -> Result<JobRow, Error> {
        let owner = owner(&row.tenant, &row.principal);
        let by = self.effective(&owner).await?;
        let decision = match &by {
            None => None,
            Some(by) => {
                let decision = by.permit.job(row.spec.clone(), ALL);
                let input = |spec: &JobSpec| module::of_job(&owner, "job.lease", spec);
                Some((self.modules_say(by, decision, input).await, frozen(by)))
            }
        };
        let note = change::Note::new(&Ctx::internal("policy"), self.now_ms());
        self.unit(move |tx| {
            let at = (&note.principal, note.at_ms);
            match &decision {
                None => Ok(row.clone()),
                Some((Decision::Allowed(spec), permit)) => {
                    let permit = Some(permit.clone());
                    let spec = JobSpec {
                        permit,
                        ..spec.clone()
                    };
                    Ok(permit::job_put(tx, &row, &spec, at)?)
                }
                Some((Decision::Refused(all) | Decision::NeedsApproval(all), _)) => {
                    let why = outdated(all);
                    let refuse = JobEvent::Refuse { why: why.clone() };
                    let note = note.clone().because(&why);
                    let ended = change::apply(tx, &row, &refuse, note)?;
                    Ok::<_, Fail>(ended.unwrap_or_else(|| row.clone()))
                }
            }
        })
        .await
    }

    /// The same for sandboxes.
    pub(crate) async fn sandboxes_renew(&self, rows: Vec<SandboxRow>) {
        self.policies_forget();
        for row in rows {
            let id = row.id.clone();
            match self.sandbox_renew(row).await {
                Ok(row) => self.announce_sandbox(&row),
                Err(error) => {
                    tracing::debug!(sandbox.id = %id, error = error.cause(), "a sandbox is decided again later");
                }
            }
        }
    }

    async fn sandbox_renew(&self, row: SandboxRow) -> Result<SandboxRow, Error> {
        let owner = owner(&row.tenant, &row.principal);
        let by = self.effective(&owner).await?;
        let mut spec = row.spec.clone();
        spec.network = row.rules().clone();
        let decision = match &by {
            None => None,
            Some(by) => {
                let decision = by.permit.sandbox((spec, row.ttl_ms), ALL);
                let input =
                    |made: &(SandboxSpec, u64)| module::of_sandbox(&owner, "sandbox.lease", made);
                Some((self.modules_say(by, decision, input).await, frozen(by)))
            }
        };
        let note = sandbox::change::Note::new(&Ctx::internal("policy"), self.now_ms());
        self.unit(move |tx| {
            let at = (&note.principal, note.at_ms);
            match &decision {
                None => Ok(row.clone()),
                Some((Decision::Allowed((spec, ttl_ms)), permit)) => {
                    let permit = Some(permit.clone());
                    let spec = SandboxSpec {
                        permit,
                        ..spec.clone()
                    };
                    Ok(permit::sandbox_put(tx, &row, (&spec, *ttl_ms), at)?)
                }
                Some((Decision::Refused(all) | Decision::NeedsApproval(all), _)) => {
                    let fail = SandboxEvent::Fail { why: outdated(all) };
                    let ended = sandbox::change::apply(tx, &row, &fail, note.clone())?;
                    Ok::<_, Fail>(ended.unwrap_or_else(|| row.clone()))
                }
            }
        })
        .await
    }
}

/// All is said: what a request asks for is what it gets, or nothing.
pub(crate) const ALL: Says = Says {
    network: true,
    timeout: true,
};

/// Those for everybody are read with those of other tenants.
fn is_of_tenant(row: &PolicyRow) -> bool {
    row.policy.layer != model::policy::Layer::Global
}

fn owner(tenant: &TenantId, principal: &PrincipalId) -> Ctx {
    Ctx {
        tenant: tenant.clone(),
        principal: principal.clone(),
        ..Ctx::internal("policy")
    }
}

fn frozen(by: &Effective) -> Box<PermitUse> {
    Box::new(PermitUse {
        stamp: by.stamp,
        permit: by.permit.clone(),
    })
}

/// Why what waited is not begun.
fn outdated(all: &[Refusal]) -> String {
    let one = all.iter().map(|one| {
        let found = one.invalid();
        format!("{}: {}", found.field, found.message)
    });
    let why = one.collect::<Vec<_>>().join("; ");
    change::cut(&format!(
        "permit_stale: policies were changed since it was asked for: {why}"
    ))
}

/// How a version of a policy is named in permits.
fn layer_of(row: &PolicyRow) -> LayerRef {
    LayerRef {
        layer: row.policy.layer,
        priority: row.policy.priority,
        name: row.name.clone(),
        version: row.latest,
    }
}

/// All layers of one principal, as one permit. More than there may be let nothing through.
fn put_together(stamp: u64, rows: Vec<PolicyRow>) -> Result<Effective, Error> {
    let all: Vec<(LayerRef, Policy)> = rows
        .into_iter()
        .map(|row| (layer_of(&row), row.policy))
        .collect();
    let permit = Permit::merge(&all);
    let modules = all.iter().filter_map(|(layer, policy)| {
        let module = policy.rego.clone()?;
        Some((layer.clone(), module))
    });
    let mut modules: Vec<(LayerRef, String)> = modules.collect();
    modules.sort();
    let bytes = serde_json::to_string(&permit)
        .map_err(|error| Error::internal("write a permit", error))?
        .len();
    if all.len() > limits::POLICY_LAYERS_MAX || bytes > limits::PERMIT_BYTES_MAX {
        let refusal = Refusal {
            kind: Kind::Unenforceable,
            clause: "policy".to_owned(),
            by: Vec::new(),
            why: format!(
                "{} policies apply, which say {bytes} bytes together; {} and {} are the most",
                all.len(),
                limits::POLICY_LAYERS_MAX,
                limits::PERMIT_BYTES_MAX
            ),
        };
        return Err(Error::Invalid(vec![refusal.invalid()]));
    }
    Ok(Effective {
        stamp,
        permit,
        modules,
    })
}
