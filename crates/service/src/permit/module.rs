//! What modules in Rego are asked, and what they say. They must all allow what the layers allow; any that does not, or
//! does not come to an end, is a deny.

use super::Effective;
use crate::ctx::Caller;
use crate::{Ctx, Error, Service};
use model::network::NetworkRules;
use model::place::Placement;
use model::policy::{Decision, Kind, Refusal};
use model::sandbox_spec::SandboxSpec;
use model::secret::SecretUse;
use model::spec::{AskedLimits, JobSpec};
use model::volume::VolumeMount;
use rego::{Evaluator, Verdict};
use serde_json::{Value, json};
use store::sandbox::SandboxRow;

impl Service {
    /// Modules are evaluated by this from now on. Without one, a policy that has a module refuses.
    pub fn modules_are_asked_by(&self, evaluator: Evaluator) {
        // A second one is a mistake of whoever puts the rooms together, and changes nothing.
        drop(self.inner.evaluator.set(evaluator));
    }

    /// What was decided, if all modules allow that too. The first that does not ends it: any deny is one. One that
    /// rests after another question was not asked this one, so it denies whoever is there to ask again, and ends
    /// nothing that waits.
    ///
    /// # Errors
    /// [`Error::TooMuch`] where so much is asked, by this tenant or by all, that it would take too long.
    pub(crate) async fn modules_say<T>(
        &self,
        ctx: &Ctx,
        by: &Effective,
        decision: Decision<T>,
        input: impl FnOnce(&T) -> Value,
    ) -> Result<Decision<T>, Error> {
        // Nobody is asked to say yes to what a module refuses.
        let made = match &decision {
            Decision::Allowed(made) | Decision::NeedsApproval(made, _) => made,
            Decision::Refused(_) => return Ok(decision),
        };
        if by.modules.is_empty() {
            return Ok(decision);
        }
        let input = input(made);
        for (layer, module) in &by.modules {
            let (kind, why) = match self.inner.evaluator.get() {
                None => {
                    let why = "this server evaluates no modules in Rego".to_owned();
                    (Kind::Unenforceable, why)
                }
                Some(evaluator) => match evaluator
                    .evaluate(ctx.tenant.as_str(), module, input.clone())
                    .await
                {
                    Verdict::Allow => continue,
                    Verdict::Busy => return Err(modules_busy()),
                    Verdict::Rests if matches!(ctx.caller, Caller::Internal) => {
                        return Err(modules_busy());
                    }
                    Verdict::Rests => {
                        let why =
                            "the module was stopped within the last ten seconds, and is not asked";
                        (Kind::Refused, why.to_owned())
                    }
                    Verdict::Deny(why) => (Kind::Refused, format!("the module says: {why}")),
                    Verdict::Stopped => {
                        let why = "the module did not come to an end within its time and memory";
                        (Kind::Refused, why.to_owned())
                    }
                },
            };
            let refusal = Refusal {
                kind,
                clause: "rego".to_owned(),
                by: vec![layer.clone()],
                why,
            };
            return Ok(Decision::Refused(vec![refusal]));
        }
        Ok(decision)
    }
}

/// Nothing was decided: whoever asks again may be answered.
pub(crate) fn modules_busy() -> Error {
    Error::TooMuch {
        code: "too_much",
        message: "modules of policies are asked more than they can answer; try again".to_owned(),
    }
}

fn whole(ctx: &Ctx, operation: &str, request: &Value) -> Value {
    json!({
        "operation": operation,
        "tenant": ctx.tenant.as_str(),
        "principal": ctx.principal.as_str(),
        "request": request,
    })
}

/// A job, without the values of its variables.
pub(crate) fn of_job(ctx: &Ctx, operation: &str, spec: &JobSpec) -> Value {
    let made_by = spec.made_by.as_ref();
    let files: Vec<&str> = spec.files.iter().map(|file| file.path.as_str()).collect();
    let digests: Vec<&str> = spec.files.iter().map(|file| file.digest.as_str()).collect();
    let request = json!({
        "kind": "job",
        "profile": made_by.map_or(&*spec.profile, |made_by| &made_by.name),
        "argv": spec.argv,
        "env_names": spec.env.keys().collect::<Vec<_>>(),
        "cwd": spec.cwd,
        "root": spec.root,
        "timeout_ms": spec.timeout_ms,
        "limits": limits(&spec.limits),
        "files": files,
        "file_digests": digests,
        "outputs": spec.outputs,
        "network": network(&spec.network),
        "placement": placement(&spec.placement),
        "node": spec.node,
        "secrets": secrets(&spec.secrets),
    });
    whole(ctx, operation, &request)
}

/// A sandbox, without the values of its variables.
pub(crate) fn of_sandbox(ctx: &Ctx, operation: &str, made: &(SandboxSpec, u64)) -> Value {
    let (spec, ttl_ms) = made;
    let made_by = spec.made_by.as_ref();
    let request = json!({
        "kind": "sandbox",
        "profile": made_by.map_or(&*spec.profile, |made_by| &made_by.name),
        "env_names": spec.env.keys().collect::<Vec<_>>(),
        "root": spec.root,
        "allow_root": spec.allow_root,
        "timeout_ms": ttl_ms,
        "limits": limits(&spec.limits),
        "network": network(&spec.network),
        "placement": placement(&spec.placement),
        "node": spec.node,
        "secrets": secrets(&spec.secrets),
        "volumes": volumes(&spec.volumes),
        "mounts": mounts(&spec.volumes),
        "from_snapshot": !spec.layers.is_empty(),
        "snapshot": spec.layers.last(),
    });
    whole(ctx, operation, &request)
}

/// Other rules for a sandbox that is there.
pub(super) fn of_network(
    ctx: &Ctx,
    row: &SandboxRow,
    rules: &NetworkRules,
    uses: &[SecretUse],
) -> Value {
    let has = &row.spec.volumes;
    let request = json!({
        "kind": "network", "network": network(rules), "secrets": secrets(uses),
        "volumes": volumes(has), "mounts": mounts(has),
    });
    whole(ctx, "sandbox.network", &request)
}

fn limits(asked: &AskedLimits) -> Value {
    json!({"cpu_millis": asked.cpu_millis, "memory_bytes": asked.memory_bytes,
        "pids": asked.pids, "disk_bytes": asked.disk_bytes})
}

fn network(rules: &NetworkRules) -> Value {
    let texts = |list: &[model::network::Entry]| -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    };
    let presets: Vec<String> = rules.presets.iter().map(ToString::to_string).collect();
    json!({"mode": rules.mode.as_str(), "allow": texts(&rules.allow), "deny": texts(&rules.deny),
        "presets": presets, "upstream": rules.upstream.as_ref().map(ToString::to_string),
        "upstream_ca": rules.upstream_ca.is_some(),
        "dns": rules.dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "dependencies": rules.dependencies})
}

/// The names of volumes, by which policies are for them.
pub(crate) fn volumes(mounts: &[VolumeMount]) -> Vec<&str> {
    mounts.iter().map(|one| one.name.as_str()).collect()
}

fn mounts(all: &[VolumeMount]) -> Value {
    let one =
        |one: &VolumeMount| json!({"name": one.name, "path": one.path, "read_only": one.read_only});
    all.iter().map(one).collect()
}

fn placement(asked: &Placement) -> Value {
    json!({"on": asked.on, "prefer": asked.prefer, "location": asked.location})
}

fn secrets(uses: &[SecretUse]) -> Value {
    let one = |one: &SecretUse| json!({"name": one.name, "as": one.how.name()});
    uses.iter().map(one).collect()
}
