//! Policies: what may be asked for, as somebody writes it, version by version. What becomes of requests by them is in
//! `permit`.

use crate::error::Fail;
use crate::permit::module::modules_busy;
use crate::permit::{check_stamp, is_changed, put_together, volumes_of};
use crate::profile::ProfileAsk;
use crate::{Ctx, Error, SandboxAsk, Service, random};
use model::access::Action;
use model::id::{JobId, PolicyId, PrincipalId, SandboxId, TenantId};
use model::limits;
use model::policy::{Decision, Layer, LayerRef, PermitUse, Policy, Trace, is_policy_name};
use model::spec::JobSpec;
use rego::Checked;
use std::collections::{BTreeMap, BTreeSet};
use store::Tx;
use store::policy::{self, PolicyRow, PolicyVersionRow};

/// A name that is a part of the path of something else.
const RESERVED: &str = "test";

/// A request that is decided and not carried out.
#[derive(Debug, Clone)]
pub enum PolicyAsk {
    /// A job, perhaps by a profile.
    Job(Box<JobSpec>, Option<ProfileAsk>),
    /// A sandbox that lives on.
    Sandbox(Box<SandboxAsk>),
}

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTested {
    /// What would be made where it is allowed: the job, or the sandbox.
    pub decision: Decision<Tested>,
    /// The policies that apply.
    pub layers: Vec<LayerRef>,
    /// Who decided what.
    pub trace: Vec<Trace>,
}

/// What a request would be narrowed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// What it could reach.
    pub network: model::network::NetworkRules,
    /// The limits that would be named.
    pub limits: model::spec::AskedLimits,
    /// How long it could run or live, in milliseconds.
    pub timeout_ms: u64,
}

impl Service {
    /// Writes what a policy says: a new one, or the next version of one that is there. The same as the newest version
    /// says is no change. What was decided by an earlier version stays, but for what still waits for a node.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that is wrong; [`Error::Forbidden`]; [`Error::TooMuch`].
    pub async fn policy_put(
        &self,
        ctx: &Ctx,
        name: &str,
        policy: Policy,
    ) -> Result<PolicyRow, Error> {
        ctx.may(Action::PolicyWrite)?;
        check_layer(ctx, policy.layer)?;
        if !is_policy_name(name) || name == RESERVED {
            let message = "a name is 1 to 64 of lower-case letters, digits and `-_.`, begins with a letter, a digit \
                           or `_`, and is not `test`";
            return Err(Error::invalid("name", "policy_invalid", message));
        }
        policy.validate().map_err(Error::Invalid)?;
        self.check_module(ctx, &policy).await?;
        let mut tries = 1;
        loop {
            let there = self.policy_there(ctx, name).await?;
            if let Some(row) = there.clone().filter(|row| row.policy == policy) {
                return Ok(row);
            }
            let (at_ms, id) = (self.now_ms(), self.policy_id()?);
            let row = row_of((&ctx.tenant, &id, name), &policy, (&ctx.principal, at_ms));
            self.check_together(row).await?;
            let asked = (name, Some(&policy));
            let stamp = self.policy_may_change(ctx, asked, there.as_ref()).await?;
            let (ctx, name, policy) = (ctx.clone(), name.to_owned(), policy.clone());
            let put = self.unit(move |tx| {
                check_stamp(tx, stamp)?;
                put(tx, &ctx, (&id, &name), &policy, at_ms)
            });
            let put = put.await;
            self.policies_forget();
            match put {
                Err(error) if is_changed(&error, tries) => tries += 1,
                put => return put,
            }
        }
    }

    pub(crate) fn policy_id(&self) -> Result<PolicyId, Error> {
        Ok(PolicyId::from_parts(self.now_ms(), random()?))
    }

    async fn policy_there(&self, ctx: &Ctx, name: &str) -> Result<Option<PolicyRow>, Error> {
        let (tenant, name) = (ctx.tenant.clone(), name.to_owned());
        self.look(move |tx| Ok(policy::named(tx, &tenant, &name)?))
            .await
    }

    /// A module that nobody here can evaluate would be a rule that nobody holds.
    async fn check_module(&self, ctx: &Ctx, policy: &Policy) -> Result<(), Error> {
        let Some(module) = &policy.rego else {
            return Ok(());
        };
        let Some(evaluator) = self.inner.evaluator.get() else {
            let message = "this server evaluates no modules in Rego";
            return Err(Error::invalid("rego", "policy_unenforceable", message));
        };
        match evaluator.check(ctx.tenant.as_str(), module).await {
            Checked::Good => Ok(()),
            Checked::Bad(why) => Err(Error::invalid("rego", "policy_invalid", why)),
            Checked::Busy => Err(modules_busy()),
        }
    }

    /// What would be too large together with what there is would let nothing through, for everybody whom it is for.
    pub(crate) async fn check_together(&self, new: PolicyRow) -> Result<(), Error> {
        let mut rows = self
            .look({
                let tenant = new.tenant.clone();
                move |tx| {
                    let mut rows = policy::global(tx)?;
                    let own = policy::list(tx, &tenant)?.into_iter();
                    rows.extend(own.filter(|row| row.policy.layer != Layer::Global));
                    Ok(rows)
                }
            })
            .await?;
        rows.retain(|row| row.tenant != new.tenant || row.name != new.name);
        let whom = whom(&new, &rows);
        rows.push(new);
        for (of, volumes) in whom {
            let theirs = rows.iter();
            let theirs = theirs.filter(|row| row.policy.is_for(&of, &volumes));
            let together = put_together(0, theirs.cloned().collect()).await;
            let found = match together {
                Err(Error::Invalid(found)) => found,
                other => {
                    other?;
                    continue;
                }
            };
            let why: String = found.into_iter().map(|one| one.message).collect();
            let why = for_whom(&of, &volumes) + &why;
            return Err(Error::invalid("policy", "policy_invalid", why));
        }
        Ok(())
    }

    /// A policy of this tenant, by its name; of an earlier version with the number behind it, as `NAME:VERSION`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn policy_get(&self, ctx: &Ctx, named: &str) -> Result<PolicyRow, Error> {
        ctx.may(Action::PolicyRead)?;
        let (ctx, named) = (ctx.clone(), named.to_owned());
        self.look(move |tx| {
            let (name, version) = match named.split_once(':') {
                Some((name, version)) => (name, Some(version)),
                None => (&*named, None),
            };
            let row = owned(tx, &ctx.tenant, name)?;
            let Some(version) = version else {
                return Ok(row);
            };
            let gone = || Fail::Ours(Error::NotFound);
            let number = version.parse().map_err(|_| gone())?;
            let there = policy::version(tx, &row.id, number)?.ok_or_else(gone)?;
            Ok(PolicyRow {
                latest: there.number,
                policy: there.policy,
                principal: there.principal,
                updated_at_ms: there.created_at_ms,
                ..row
            })
        })
        .await
    }

    /// The policies of this tenant, by their names: all of them, as there are few.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `policy:read`.
    pub async fn policy_list(&self, ctx: &Ctx) -> Result<Vec<PolicyRow>, Error> {
        ctx.may(Action::PolicyRead)?;
        let tenant = ctx.tenant.clone();
        self.look(move |tx| Ok(policy::list(tx, &tenant)?)).await
    }

    /// The versions of a policy that are kept, newest first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn policy_versions(
        &self,
        ctx: &Ctx,
        name: &str,
    ) -> Result<Vec<PolicyVersionRow>, Error> {
        ctx.may(Action::PolicyRead)?;
        let (tenant, name) = (ctx.tenant.clone(), name.to_owned());
        self.look(move |tx| {
            let row = owned(tx, &tenant, &name)?;
            Ok(policy::versions(tx, &row.id)?)
        })
        .await
    }

    /// Deletes a policy with its versions, and answers what it was. What was decided by it stays.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn policy_delete(&self, ctx: &Ctx, name: &str) -> Result<PolicyRow, Error> {
        ctx.may(Action::PolicyWrite)?;
        let mut tries = 1;
        loop {
            let there = self.policy_there(ctx, name).await?;
            let there = there.ok_or(Error::NotFound)?;
            check_layer(ctx, there.policy.layer)?;
            let asked = (name, None);
            let stamp = self.policy_may_change(ctx, asked, Some(&there)).await?;
            let (ctx, name, at_ms) = (ctx.clone(), name.to_owned(), self.now_ms());
            let deleted = self.unit(move |tx| {
                check_stamp(tx, stamp)?;
                let row = owned(tx, &ctx.tenant, &name)?;
                check_layer(&ctx, row.policy.layer)?;
                policy::delete(tx, &row, (&ctx.principal, at_ms))?;
                Ok::<_, Fail>(row)
            });
            let deleted = deleted.await;
            self.policies_forget();
            match deleted {
                Err(error) if is_changed(&error, tries) => tries += 1,
                deleted => return deleted,
            }
        }
    }

    /// What would become of a request of a principal of this tenant, without carrying it out. It leaves no event.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request that is wrong also without policies.
    pub async fn policy_test(
        &self,
        ctx: &Ctx,
        of: Option<PrincipalId>,
        ask: PolicyAsk,
    ) -> Result<PolicyTested, Error> {
        ctx.may(Action::PolicyRead)?;
        let mut of_whom = ctx.clone();
        of_whom.principal = of.unwrap_or_else(|| ctx.principal.clone());
        let mut mounts = Vec::new();
        let decision = match ask {
            PolicyAsk::Job(spec, profile) => {
                let mut spec = *spec;
                if let Some(asked) = profile {
                    spec = self.job_by_profile(ctx, &asked, spec).await?;
                }
                spec.validate().map_err(Error::Invalid)?;
                let decision = self.decide_job(&of_whom, "job.create", spec).await?;
                decision.map(|spec| Tested {
                    network: spec.network,
                    limits: spec.limits,
                    timeout_ms: spec.timeout_ms,
                })
            }
            PolicyAsk::Sandbox(ask) => {
                let ask = self.by_profile(ctx, *ask).await?;
                ask.spec.validate(&ask.metadata).map_err(Error::Invalid)?;
                mounts.clone_from(&ask.spec.volumes);
                let asked = (ask.spec, ask.ttl_ms, ask.says);
                let decided = self.decide_sandbox(&of_whom, "sandbox.create", asked);
                decided.await?.map(|(spec, timeout_ms)| Tested {
                    network: spec.network,
                    limits: spec.limits,
                    timeout_ms,
                })
            }
        };
        let by = self.effective(&of_whom, &mounts).await?;
        let permit = by.as_ref().map(|by| &by.permit);
        Ok(PolicyTested {
            decision,
            layers: permit.map_or_else(Vec::new, |permit| permit.layers.iter().cloned().collect()),
            trace: permit.map_or_else(Vec::new, |permit| permit.trace()),
        })
    }

    /// What a job keeps of the policies that it was decided by; `None` where there was none.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_permit(&self, ctx: &Ctx, id: &JobId) -> Result<Option<PermitUse>, Error> {
        ctx.may(Action::JobRead)?;
        let row = self.job_get(ctx, id).await?;
        Ok(row.spec.permit.map(|permit| *permit))
    }

    /// The same of a sandbox.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_permit(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
    ) -> Result<Option<PermitUse>, Error> {
        ctx.may(Action::SandboxRead)?;
        let row = self.sandbox_get(ctx, id).await?;
        Ok(row.spec.permit.map(|permit| *permit))
    }
}

/// A principal (everybody else, where it is empty), and volumes that they want.
type Whom = (String, BTreeSet<String>);

/// For whom a policy is put together with the others before it is written: whom or what it names, beside all of the
/// other kind; or else everybody, each principal that has policies of its own, each volume that has, and the two that
/// have most. So not many more than there may be policies: what each principal comes to with each volume, or several
/// volumes together, is found out where somebody asks for it, who is refused then.
fn whom(new: &PolicyRow, others: &[PolicyRow]) -> BTreeSet<Whom> {
    let volumes = volumes_of(others);
    let volumes = volumes.into_iter().map(|of| BTreeSet::from([of]));
    let volumes: BTreeSet<BTreeSet<String>> = volumes.chain([BTreeSet::new()]).collect();
    let of_principals = others
        .iter()
        .filter(|row| row.policy.layer == Layer::Principal);
    let principals = of_principals.filter_map(|row| row.policy.of.clone());
    let principals: BTreeSet<String> = principals.chain([String::new()]).collect();
    match (new.policy.layer, &new.policy.of) {
        (Layer::Volume, Some(of)) => {
            let wanted = BTreeSet::from([of.clone()]);
            let all = principals.into_iter();
            all.map(|principal| (principal, wanted.clone())).collect()
        }
        (Layer::Principal, Some(of)) => {
            let all = volumes.into_iter();
            all.map(|wanted| (of.clone(), wanted)).collect()
        }
        (Layer::Global | Layer::Tenant | Layer::Principal | Layer::Volume, _) => {
            let most = (most(others, Layer::Principal), most(others, Layer::Volume));
            let both = (most.0.unwrap_or_default(), most.1.into_iter().collect());
            let principals = principals.into_iter().map(|one| (one, BTreeSet::new()));
            let volumes = volumes.into_iter().map(|one| (String::new(), one));
            principals.chain(volumes).chain([both]).collect()
        }
    }
}

/// Whom, or which volume, most policies of a layer are for.
fn most(rows: &[PolicyRow], layer: Layer) -> Option<String> {
    let mut counts = BTreeMap::<&String, usize>::new();
    let rows = rows.iter().filter(|row| row.policy.layer == layer);
    for of in rows.filter_map(|row| row.policy.of.as_ref()) {
        *counts.entry(of).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(of, _)| of.clone())
}

/// For whom there would be too much, in front of what is wrong; nothing where it is everybody.
fn for_whom(principal: &str, volumes: &BTreeSet<String>) -> String {
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    match (principal.is_empty(), volumes.as_slice()) {
        (true, []) => String::new(),
        (false, []) => format!("for `{principal}`: "),
        (true, volumes) => format!("with the volume `{}`: ", volumes.join("`, `")),
        (false, volumes) => format!(
            "for `{principal}` with the volume `{}`: ",
            volumes.join("`, `")
        ),
    }
}

/// What is for everybody is for the operator to say, whose tenant is the one of this machine.
pub(crate) fn check_layer(ctx: &Ctx, layer: Layer) -> Result<(), Error> {
    if layer == Layer::Global && ctx.tenant != TenantId::local() {
        let message = "only the operator's tenant writes policies for everybody";
        return Err(Error::Forbidden(message.to_owned()));
    }
    Ok(())
}

fn owned(tx: &mut Tx<'_>, tenant: &TenantId, name: &str) -> Result<PolicyRow, Fail> {
    policy::named(tx, tenant, name)?.ok_or(Fail::Ours(Error::NotFound))
}

fn put(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    (id, name): (&PolicyId, &str),
    policy: &Policy,
    at_ms: u64,
) -> Result<PolicyRow, Fail> {
    if let Some(row) = policy::named(tx, &ctx.tenant, name)? {
        check_layer(ctx, row.policy.layer)?;
        if row.policy == *policy {
            return Ok(row);
        }
        return write(
            tx,
            (&ctx.tenant, id, name),
            Some(&row),
            policy,
            (&ctx.principal, at_ms),
        );
    }
    write(
        tx,
        (&ctx.tenant, id, name),
        None,
        policy,
        (&ctx.principal, at_ms),
    )
}

/// Writes a version: of the one that is there, or the first one.
pub(crate) fn write(
    tx: &mut Tx<'_>,
    (tenant, id, name): (&TenantId, &PolicyId, &str),
    there: Option<&PolicyRow>,
    policy: &Policy,
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<PolicyRow, Fail> {
    if let Some(row) = there {
        return Ok(policy::put(tx, row, policy, (principal, at_ms))?);
    }
    let there = policy::list(tx, tenant)?.len() as u64;
    if there >= limits::POLICIES_MAX {
        return Err(Fail::Ours(Error::TooMuch {
            code: "too_much",
            message: format!("there are {there} policies already"),
        }));
    }
    let row = row_of((tenant, id, name), policy, (principal, at_ms));
    policy::insert(tx, &row)?;
    Ok(row)
}

/// A policy that is new.
pub(crate) fn row_of(
    (tenant, id, name): (&TenantId, &PolicyId, &str),
    policy: &Policy,
    (principal, at_ms): (&PrincipalId, u64),
) -> PolicyRow {
    PolicyRow {
        id: id.clone(),
        tenant: tenant.clone(),
        principal: principal.clone(),
        name: name.to_owned(),
        version: 1,
        latest: 1,
        policy: policy.clone(),
        created_at_ms: at_ms,
        updated_at_ms: at_ms,
    }
}
