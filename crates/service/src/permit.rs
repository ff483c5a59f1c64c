//! What becomes of requests by the policies that apply: decided by `model` before anything is written, frozen on what
//! comes of it, and looked at again before a node gets that.
//!
//! A decision is by a state of all policies, which has a stamp. The transaction that writes compares it: whoever
//! changes a policy meanwhile is not passed by. What waits while policies change is decided again when a node would get
//! it. Where there is no policy, the stamp is all that is ever read.

pub(crate) mod module;

use crate::approval::ask::{self, Ask};
use crate::approval::yes;
use crate::error::Fail;
use crate::hex::hex;
use crate::{Ctx, Error, NetworkChange, SandboxAsk, Service, change, locked, random, sandbox};
use model::approval::{Subject, Yes};
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
use store::policy::PolicyRow;
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
pub(crate) fn check_current(tx: &mut Tx<'_>, decided: Option<&PermitUse>) -> Result<(), Fail> {
    check_stamp(tx, decided.map(|decided| decided.stamp))
}

/// The same by the stamp alone.
pub(crate) fn check_stamp(tx: &mut Tx<'_>, decided: Option<u64>) -> Result<(), Fail> {
    let now = policy::stamp(tx)?;
    // Where there is none any more, what was decided by some stays within them.
    if now.is_some() && now != decided {
        return Err(changed("policies were changed while the request was decided").into());
    }
    Ok(())
}

/// What was decided is to be decided again.
pub(crate) fn changed(message: &str) -> Error {
    Error::conflict_of(CHANGED, message)
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

    /// A job as it may be, with what was decided, and what a person has to say yes to before it begins.
    ///
    /// # Errors
    /// [`Error::Invalid`] `policy_refused`, `policy_unenforceable`.
    pub(crate) async fn permitted_job(
        &self,
        ctx: &Ctx,
        spec: JobSpec,
    ) -> Result<(JobSpec, Vec<Refusal>), Error> {
        let Some(by) = self.effective(ctx).await? else {
            let permit = None;
            return Ok((JobSpec { permit, ..spec }, Vec::new()));
        };
        let decision = by.permit.job(spec, ALL);
        let input = |spec: &JobSpec| module::of_job(ctx, "job.create", spec);
        let decision = self.modules_say(&by, decision, input).await;
        let mut permit = frozen(&by);
        let (spec, mut all) = self.let_through(ctx, "job.create", decision).await?;
        if !all.is_empty() {
            permit.yes = self.yes_before(ctx, "", &all).await?;
            all.retain(|_| permit.yes.is_none());
        }
        let permit = Some(permit);
        Ok((JobSpec { permit, ..spec }, all))
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
        let (made, all) = self.let_through(ctx, "sandbox.create", decision).await?;
        let mut permit = frozen(&by);
        if !all.is_empty() {
            let ask = ask_of_sandbox(ctx, &by, &made, &all)?;
            permit.yes = Some(self.yes_or_ask(ctx, ask, &all).await?);
        }
        let (spec, ttl_ms) = made;
        let permit = Some(permit);
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
        if is_covered(&decision, yes_of(row.spec.permit.as_deref())) {
            return Ok(());
        }
        self.told(ctx, "sandbox.recreate", decision).await.map(drop)
    }

    /// Other rules for a sandbox, and secrets for what leaves by them, as they may be by the policies of now and by
    /// those that it was made by; and the yes that they go by.
    pub(crate) async fn permitted_network(
        &self,
        ctx: &Ctx,
        row: &SandboxRow,
        asked: NetworkChange,
    ) -> Result<(NetworkChange, Option<u64>, Option<Yes>), Error> {
        let (change, stamp, all) = self.network_by_policies(ctx, row, asked).await?;
        if all.is_empty() {
            return Ok((change, stamp, None));
        }
        let by = self.effective(ctx).await?;
        let uses = change.secrets.as_deref().unwrap_or_default();
        let ask = Ask {
            subject: Subject::Network,
            subject_id: row.id.to_string(),
            digest: yes::digest("sandbox.network", &(&row.id, &change.rules, uses))?,
            summary: format!("other rules for the network of {}", row.id),
            request: module::of_network(ctx, &change.rules, uses)["request"].take(),
            reasons: ask::reasons(&all),
            why: String::new(),
            permit: by.as_ref().map(|by| &by.permit),
        };
        let yes = self.yes_or_ask(ctx, ask, &all).await?;
        Ok((change, stamp, Some(yes)))
    }

    /// The same, with what a person has to say yes to that has not said so when the sandbox was made.
    pub(crate) async fn network_by_policies(
        &self,
        ctx: &Ctx,
        row: &SandboxRow,
        asked: NetworkChange,
    ) -> Result<(NetworkChange, Option<u64>, Vec<Refusal>), Error> {
        let NetworkChange { mut rules, secrets } = asked;
        let new = secrets.as_deref().unwrap_or_default();
        let mut all = Vec::new();
        let mut stamp = None;
        if let Some(frozen) = &row.spec.permit {
            let decision = frozen.permit.network((&rules, new));
            (rules, all) = self.let_through(ctx, "sandbox.network", decision).await?;
        }
        if let Some(by) = self.effective(ctx).await? {
            let decision = by.permit.network((&rules, new));
            let input = |rules: &NetworkRules| module::of_network(ctx, rules, new);
            let decision = self.modules_say(&by, decision, input).await;
            let more;
            (rules, more) = self.let_through(ctx, "sandbox.network", decision).await?;
            all.extend(more);
            stamp = Some(by.stamp);
        }
        if let Some(yes) = yes_of(row.spec.permit.as_deref()) {
            all.retain(|one| !yes.covers(std::slice::from_ref(one)));
        }
        Ok((NetworkChange { rules, secrets }, stamp, all))
    }

    /// What was allowed. What was not is written down, with who asked and which clauses, and refused.
    async fn told<T>(
        &self,
        ctx: &Ctx,
        operation: &'static str,
        decision: Decision<T>,
    ) -> Result<T, Error> {
        let (made, all) = self.let_through(ctx, operation, decision).await?;
        if all.is_empty() {
            return Ok(made);
        }
        self.policy_refused(ctx, operation, &all).await;
        Err(Error::Invalid(all.iter().map(Refusal::invalid).collect()))
    }

    /// The same, with what a person has to say yes to for it.
    async fn let_through<T>(
        &self,
        ctx: &Ctx,
        operation: &'static str,
        decision: Decision<T>,
    ) -> Result<(T, Vec<Refusal>), Error> {
        match decision {
            Decision::Allowed(made) => Ok((made, Vec::new())),
            Decision::NeedsApproval(made, all) => Ok((made, all)),
            Decision::Refused(all) => {
                self.policy_refused(ctx, operation, &all).await;
                Err(Error::Invalid(all.iter().map(Refusal::invalid).collect()))
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

    /// What the policies of now say of a job that is there; `None` where there is none.
    pub(crate) async fn job_again(
        &self,
        row: &JobRow,
        operation: &'static str,
    ) -> Result<Option<(Decision<JobSpec>, Box<PermitUse>)>, Error> {
        let owner = owner(&row.tenant, &row.principal);
        let Some(by) = self.effective(&owner).await? else {
            return Ok(None);
        };
        let decision = by.permit.job(row.spec.clone(), ALL);
        let input = |spec: &JobSpec| module::of_job(&owner, operation, spec);
        let decision = self.modules_say(&by, decision, input).await;
        let kept = kept(frozen(&by), row.spec.permit.as_deref());
        Ok(Some((decision, kept)))
    }

    async fn job_renew(&self, row: JobRow) -> Result<JobRow, Error> {
        let again = self.job_again(&row, "job.lease").await?;
        let yes = yes_of(row.spec.permit.as_deref()).cloned();
        let decision = again.map(|(decision, permit)| (settled(decision, yes.as_ref()), permit));
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
                Some((Decision::Refused(all) | Decision::NeedsApproval(_, all), _)) => {
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
                let decision = self.modules_say(by, decision, input).await;
                let permit = row.spec.permit.as_deref();
                let decision = settled(decision, yes_of(permit));
                Some((decision, kept(frozen(by), permit)))
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
                Some((Decision::Refused(all) | Decision::NeedsApproval(_, all), _)) => {
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

pub(crate) fn owner(tenant: &TenantId, principal: &PrincipalId) -> Ctx {
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
        asked: None,
        yes: None,
    })
}

/// What a person was asked and has said stays with what it was said to, whatever policies say later.
fn kept(permit: Box<PermitUse>, before: Option<&PermitUse>) -> Box<PermitUse> {
    Box::new(PermitUse {
        asked: before.and_then(|before| before.asked.clone()),
        yes: yes_of(before).cloned(),
        ..*permit
    })
}

fn yes_of(permit: Option<&PermitUse>) -> Option<&Yes> {
    permit.and_then(|permit| permit.yes.as_ref())
}

/// Whether a person has said yes to all that a decision wants one for.
fn is_covered<T>(decision: &Decision<T>, yes: Option<&Yes>) -> bool {
    let Decision::NeedsApproval(_, all) = decision else {
        return false;
    };
    yes.is_some_and(|yes| yes.covers(all))
}

/// What was decided where a yes counts.
fn settled<T>(decision: Decision<T>, yes: Option<&Yes>) -> Decision<T> {
    let covered = is_covered(&decision, yes);
    match decision {
        Decision::NeedsApproval(made, _) if covered => Decision::Allowed(made),
        same @ (Decision::Allowed(_) | Decision::Refused(_) | Decision::NeedsApproval(..)) => same,
    }
}

/// A sandbox that a person has to say yes to. What it is called and labelled is for nobody to judge.
fn ask_of_sandbox<'a>(
    ctx: &Ctx,
    by: &'a Effective,
    made: &(SandboxSpec, u64),
    all: &[Refusal],
) -> Result<Ask<'a>, Error> {
    let mut request = module::of_sandbox(ctx, "sandbox.create", made)["request"].take();
    request["start"] = serde_json::json!(made.0.defaults.start);
    let profile = request["profile"].as_str().unwrap_or_default();
    Ok(Ask {
        subject: Subject::Sandbox,
        subject_id: String::new(),
        digest: yes::digest("sandbox.create", made)?,
        summary: format!("a sandbox with the profile {profile}"),
        reasons: ask::reasons(all),
        request,
        why: String::new(),
        permit: Some(&by.permit),
    })
}

/// Why what waited is not begun.
pub(crate) fn outdated(all: &[Refusal]) -> String {
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
