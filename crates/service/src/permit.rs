//! What becomes of requests by the policies that apply: decided by `model` before anything is written, frozen on what
//! comes of it, and looked at again before a node gets that.
//!
//! A decision is by a state of all policies, which has a stamp. The transaction that writes compares it: whoever
//! changes a policy meanwhile is not passed by. What waits while policies change is decided again when a node would get
//! it. Where there is no policy, the stamp is all that is ever read.

mod known;
pub(crate) mod module;
mod renew;
mod rest;

pub(crate) use self::known::Known;
pub(crate) use self::renew::Renewing;
use crate::approval::ask::{self, Ask};
use crate::approval::yes;
use crate::error::Fail;
use crate::refusal::{self, Noted};
use crate::{Ctx, Error, NetworkChange, SandboxAsk, Service, change, locked};
use model::approval::{Subject, Yes};
use model::id::{PrincipalId, TenantId};
use model::limits;
use model::network::NetworkRules;
use model::policy::{Decision, Kind, Layer, LayerRef, Permit, PermitUse, Policy, Refusal};
use model::profile::Says;
use model::sandbox_spec::SandboxSpec;
use model::spec::{Invalid, JobSpec};
use model::volume::VolumeMount;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::job::JobRow;
use store::policy::{PolicyRow, Stamps};
use store::sandbox::SandboxRow;
use store::{Tx, policy};

/// How often a request is decided again because policies changed meanwhile.
const TRIES: u32 = 4;
/// The code of a request that was decided by policies that are not those of now.
const CHANGED: &str = "policy_changed";
/// Refusals of one decision that are told in its event.
const TOLD_MAX: usize = 16;

/// Everything that one principal is decided by, with the volumes that are wanted.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) stamp: u64,
    pub(crate) permit: Permit,
    /// Modules that must allow it too.
    pub(crate) modules: Vec<(LayerRef, Arc<str>)>,
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
        return Err(changed("policies were changed while the request was decided").into());
    }
    Ok(stamps)
}

/// What was decided is to be decided again.
pub(crate) fn changed(message: &str) -> Error {
    Error::conflict_of(CHANGED, message)
}

/// Whether a sandbox has to be decided again before a node gets it. One of our own is for no policy.
pub(crate) fn is_stale(spec: &SandboxSpec, now: Option<u64>) -> bool {
    !spec.serves_volume && PermitUse::is_stale(spec.permit.as_deref(), now)
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

    /// What this caller is decided by, where they want a sandbox with these volumes, or do something to one that has
    /// them; `None` where there is no policy at all. Which volumes is for each caller of this to say: there are at most
    /// [`limits::VOLUME_MOUNTS_MAX`].
    pub(crate) async fn effective(
        &self,
        ctx: &Ctx,
        mounts: &[VolumeMount],
    ) -> Result<Option<Arc<Effective>>, Error> {
        let wanted: BTreeSet<String> = mounts.iter().map(|mount| mount.name.clone()).collect();
        if let Some(known) = locked(&self.inner.policies).get(ctx, &wanted) {
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
        let volumes = volumes_of(&rows);
        rows.retain(|row| row.policy.is_for(ctx.principal.as_str(), &wanted));
        let found = match stamp {
            Some(stamp) => Some(put_together(stamp, rows).await?),
            None => None,
        };
        let mut known = locked(&self.inner.policies);
        Ok(known.put(ctx, (&wanted, volumes), stamp, found))
    }

    /// Whether a refusal is by policies that are not those of now: another server may have changed them, and nobody
    /// would compare them again, because nothing is written.
    async fn is_by_old<T>(&self, by: &Effective, decision: &Decision<T>) -> Result<bool, Error> {
        if matches!(decision, Decision::Allowed(_)) {
            return Ok(false);
        }
        let now = self.look(|tx| Ok(policy::stamp(tx)?)).await?;
        Ok(now != Some(by.stamp))
    }

    /// What becomes of a job, with what it is decided by on it; without that where there is no policy.
    ///
    /// # Errors
    /// [`Error::Invalid`] where more applies than there may be; [`Error::TooMuch`] where modules are asked too much.
    pub(crate) async fn decide_job(
        &self,
        ctx: &Ctx,
        operation: &str,
        spec: JobSpec,
    ) -> Result<Decision<JobSpec>, Error> {
        let mut tries = 1;
        loop {
            // A job has no volumes.
            let Some(by) = self.effective(ctx, &[]).await? else {
                let permit = None;
                return Ok(Decision::Allowed(JobSpec { permit, ..spec }));
            };
            let decision = self.job_by(ctx, &by, operation, spec.clone()).await?;
            if tries >= TRIES || !self.is_by_old(&by, &decision).await? {
                let permit = Some(frozen(&by));
                return Ok(decision.map(|spec| JobSpec { permit, ..spec }));
            }
            tries += 1;
            self.policies_forget();
        }
    }

    async fn job_by(
        &self,
        ctx: &Ctx,
        by: &Effective,
        operation: &str,
        spec: JobSpec,
    ) -> Result<Decision<JobSpec>, Error> {
        let decision = by.permit.job(spec, ALL);
        let input = |spec: &JobSpec| module::of_job(ctx, operation, spec);
        self.modules_say(ctx, by, decision, input).await
    }

    /// The same for a sandbox, and how long it lives. One of our own, which serves a volume, is as it is.
    ///
    /// # Errors
    /// As for [`Service::decide_job`].
    pub(crate) async fn decide_sandbox(
        &self,
        ctx: &Ctx,
        operation: &str,
        (spec, ttl_ms, says): (SandboxSpec, u64, Says),
    ) -> Result<Decision<(SandboxSpec, u64)>, Error> {
        let mut tries = 1;
        loop {
            let by = match spec.serves_volume {
                true => None,
                false => self.effective(ctx, &spec.volumes).await?,
            };
            let Some(by) = by else {
                let permit = None;
                return Ok(Decision::Allowed((SandboxSpec { permit, ..spec }, ttl_ms)));
            };
            let decision = by.permit.sandbox((spec.clone(), ttl_ms), says);
            let input = |made: &(SandboxSpec, u64)| module::of_sandbox(ctx, operation, made);
            let decision = self.modules_say(ctx, &by, decision, input).await?;
            if tries >= TRIES || !self.is_by_old(&by, &decision).await? {
                let permit = Some(frozen(&by));
                return Ok(decision.map(|(spec, ms)| (SandboxSpec { permit, ..spec }, ms)));
            }
            tries += 1;
            self.policies_forget();
        }
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
        let operation = "job.create";
        let decision = self.decide_job(ctx, operation, spec).await?;
        let (mut spec, mut all) = self.let_through(ctx, operation, decision).await?;
        if let Some(permit) = &mut spec.permit
            && !all.is_empty()
        {
            permit.yes = self.yes_before(ctx, "", &all).await?;
            all.retain(|_| permit.yes.is_none());
        }
        Ok((spec, all))
    }

    /// A sandbox as it may be, with what was decided.
    ///
    /// # Errors
    /// [`Error::Invalid`] `policy_refused`, `policy_unenforceable`, `approval_needed`.
    pub(crate) async fn permitted_sandbox(
        &self,
        ctx: &Ctx,
        ask: SandboxAsk,
    ) -> Result<SandboxAsk, Error> {
        let operation = "sandbox.create";
        let asked = (ask.spec, ask.ttl_ms, ask.says);
        let decision = self.decide_sandbox(ctx, operation, asked).await?;
        let (mut made, all) = self.let_through(ctx, operation, decision).await?;
        // Without the stamp: the same request is the same when another policy was changed.
        let mut permit = made.0.permit.take();
        if let Some(permit) = &mut permit
            && !all.is_empty()
        {
            let ask = ask_of_sandbox(ctx, &permit.permit, &made, &all)?;
            permit.yes = Some(self.yes_or_ask(ctx, ask, &all).await?);
        }
        let (spec, ttl_ms) = made;
        let spec = SandboxSpec { permit, ..spec };
        Ok(SandboxAsk {
            spec,
            ttl_ms,
            ..ask
        })
    }

    /// Whether a sandbox that was made may be made once more, before its old place is given up for that.
    pub(crate) async fn permitted_again(&self, ctx: &Ctx, row: &SandboxRow) -> Result<(), Error> {
        let operation = "sandbox.recreate";
        let asked = (as_it_is(row), row.ttl_ms, ALL);
        let decision = self.decide_sandbox(ctx, operation, asked).await?;
        let decision = settled(decision, yes_of(row.spec.permit.as_deref()));
        self.told(ctx, operation, decision).await.map(drop)
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
        let by = self.effective(ctx, &row.spec.volumes).await?;
        let uses = change.secrets.as_deref().unwrap_or_default();
        let said = self.uses_as_said(ctx, uses).await?;
        let ask = Ask {
            subject: Subject::Network,
            subject_id: row.id.to_string(),
            digest: yes::digest("sandbox.network", &(&row.id, &change.rules, &said))?,
            summary: format!("other rules for the network of {}", row.id),
            request: module::of_network(ctx, row, &change.rules, uses)["request"].take(),
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
        let operation = "sandbox.network";
        let NetworkChange { mut rules, secrets } = asked;
        let new = secrets.as_deref().unwrap_or_default();
        let (mut all, mut stamp, mut tries) = (Vec::new(), None, 1);
        if let Some(frozen) = &row.spec.permit {
            let decision = frozen.permit.network((&rules, new));
            (rules, all) = self.let_through(ctx, operation, decision).await?;
        }
        while let Some(by) = self.effective(ctx, &row.spec.volumes).await? {
            let decision = by.permit.network((&rules, new));
            let input = |rules: &NetworkRules| module::of_network(ctx, row, rules, new);
            let decision = self.modules_say(ctx, &by, decision, input).await?;
            if tries >= TRIES || !self.is_by_old(&by, &decision).await? {
                let (new_rules, mut more) = self.let_through(ctx, operation, decision).await?;
                // The policies of then and of now are mostly the same.
                more.retain(|one| !all.contains(one));
                all.extend(more);
                rules = new_rules;
                stamp = Some(by.stamp);
                break;
            }
            tries += 1;
            self.policies_forget();
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

    /// Written before the answer. The refusal stands also where it cannot be written. Beyond some of one principal
    /// within a minute they are counted.
    async fn policy_refused(&self, ctx: &Ctx, operation: &'static str, all: &[Refusal]) {
        if !self.may_note_refusal(ctx) {
            return;
        }
        let Ok(id) = refusal::id() else { return };
        let one = |one: &Refusal| {
            let by: Vec<String> = one.by.iter().map(ToString::to_string).collect();
            serde_json::json!({"clause": change::cut(&one.clause), "by": by,
                "why": change::cut(&one.why), "code": one.kind.code()})
        };
        let told: Vec<_> = all.iter().take(TOLD_MAX).map(one).collect();
        let data = serde_json::json!({"operation": operation, "clauses": told});
        let noted = Noted::of(ctx, &data, self.now_ms());
        let written = self.unit(move |tx| Ok(refusal::write(tx, &id, "policy.refused", &noted)?));
        if let Err(error) = written.await {
            tracing::warn!(error = error.cause(), "a refusal is not among the events");
        }
    }

    /// What the policies of now say of a job that is there; `None` where there is none.
    pub(crate) async fn job_again(
        &self,
        row: &JobRow,
        operation: &str,
    ) -> Result<Option<(Decision<JobSpec>, Box<PermitUse>)>, Error> {
        let owner = owner(&row.tenant, &row.principal);
        let Some(by) = self.effective(&owner, &[]).await? else {
            return Ok(None);
        };
        let decision = self.job_by(&owner, &by, operation, row.spec.clone());
        let decision = decision.await?;
        let kept = kept(frozen(&by), row.spec.permit.as_deref());
        Ok(Some((decision, kept)))
    }
}

/// A sandbox as it is by now: with the rules and the secrets that came while it lived.
fn as_it_is(row: &SandboxRow) -> SandboxSpec {
    SandboxSpec {
        network: row.rules().clone(),
        secrets: row.secrets(),
        ..row.spec.clone()
    }
}

/// All is said: what a request asks for is what it gets, or nothing.
pub(crate) const ALL: Says = Says {
    network: true,
    timeout: true,
};

/// Those for everybody are read with those of other tenants.
fn is_of_tenant(row: &PolicyRow) -> bool {
    row.policy.layer != Layer::Global
}

/// The volumes that policies are for, by their names.
pub(crate) fn volumes_of(rows: &[PolicyRow]) -> BTreeSet<String> {
    let rows = rows.iter();
    rows.filter(|row| row.policy.layer == Layer::Volume)
        .filter_map(|row| row.policy.of.clone())
        .collect()
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

/// What was decided where a yes counts: one to all that the decision wants one for.
fn settled<T>(decision: Decision<T>, yes: Option<&Yes>) -> Decision<T> {
    match decision {
        Decision::NeedsApproval(made, all) if yes.is_some_and(|yes| yes.covers(&all)) => {
            Decision::Allowed(made)
        }
        same @ (Decision::Allowed(_) | Decision::Refused(_) | Decision::NeedsApproval(..)) => same,
    }
}

/// A sandbox that a person has to say yes to. What it is called and labelled is for nobody to judge.
fn ask_of_sandbox<'a>(
    ctx: &Ctx,
    permit: &'a Permit,
    made: &(SandboxSpec, u64),
    all: &[Refusal],
) -> Result<Ask<'a>, Error> {
    let mut request = module::of_sandbox(ctx, "sandbox.create", made)["request"].take();
    request["start"] = serde_json::json!(made.0.defaults.start);
    let profile = request["profile"].as_str().unwrap_or_default();
    // What is to be judged, in the one line that a list has.
    let clause = |one: &Refusal| one.clause.trim_start_matches("approvals.").to_owned();
    let clauses: BTreeSet<String> = all.iter().map(clause).collect();
    let clauses: Vec<String> = clauses.into_iter().collect();
    Ok(Ask {
        subject: Subject::Sandbox,
        subject_id: String::new(),
        digest: yes::digest("sandbox.create", made)?,
        summary: format!(
            "a sandbox with the profile {profile}: {}",
            clauses.join(", ")
        ),
        reasons: ask::reasons(all),
        request,
        why: String::new(),
        permit: Some(permit),
    })
}

/// Why what waited is not begun.
pub(crate) fn outdated(all: impl IntoIterator<Item = Invalid>) -> String {
    let one = all.into_iter();
    let one = one.map(|found| format!("{}: {}", found.field, found.message));
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

/// All layers that count for one principal and some volumes, as one permit. More than there may be let nothing through.
/// On a thread of its own: the longest lists take as long as many requests.
pub(crate) async fn put_together(stamp: u64, rows: Vec<PolicyRow>) -> Result<Effective, Error> {
    let work = tokio::task::spawn_blocking(move || together(stamp, rows));
    let made = work.await;
    made.map_err(|error| Error::internal("put policies together", error))?
}

fn together(stamp: u64, rows: Vec<PolicyRow>) -> Result<Effective, Error> {
    let all: Vec<(LayerRef, Policy)> = rows
        .into_iter()
        .map(|row| (layer_of(&row), row.policy))
        .collect();
    if all.len() > limits::POLICY_LAYERS_MAX {
        let most = limits::POLICY_LAYERS_MAX;
        let why = format!("{} policies apply; {most} are the most", all.len());
        return Err(too_large(why));
    }
    let permit = Permit::merge(&all);
    let bytes = serde_json::to_string(&permit)
        .map_err(|error| Error::internal("write a permit", error))?
        .len();
    if bytes > limits::PERMIT_BYTES_MAX {
        let most = limits::PERMIT_BYTES_MAX;
        let why = format!(
            "the {} policies that apply say {bytes} bytes together; {most} are the most",
            all.len()
        );
        return Err(too_large(why));
    }
    let modules = all.into_iter().filter_map(|(layer, policy)| {
        let module = policy.rego?;
        Some((layer, Arc::from(module)))
    });
    let mut modules: Vec<(LayerRef, Arc<str>)> = modules.collect();
    modules.sort();
    Ok(Effective {
        stamp,
        permit,
        modules,
    })
}

fn too_large(why: String) -> Error {
    let refusal = Refusal {
        kind: Kind::Unenforceable,
        clause: "policy".to_owned(),
        by: Vec::new(),
        why,
    };
    Error::Invalid(vec![refusal.invalid()])
}
