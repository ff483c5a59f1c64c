//! Policies, in both languages.

use api::Code;
use api::policy as wire;
use model::network::{Entry, NetworkMode};
use model::policy::{
    Answer, Bound, CommandsClause, Decision, DependenciesClause, FilesClause, Layer, LayerRef,
    Matter, NetworkClause, PermitUse, Policy, ProfilesClause, Refusal, Trace,
};
use service::{PolicyAsk, PolicyRow, PolicyTested, PolicyVersionRow};

use super::{approval, from_wire, network, profile, sandbox, to_wire};
use crate::error::Error;

/// The form of documents that this version reads.
const FORM: u32 = 1;

/// What somebody writes.
pub(crate) fn read(asked: wire::PolicySpec) -> Result<Policy, Error> {
    if asked.version != FORM {
        let message = format!("there is version {FORM} of this document");
        return Err(Error::field(Code::PolicyInvalid, "version", message));
    }
    Ok(Policy {
        layer: match asked.layer {
            wire::PolicyLayer::Global => Layer::Global,
            wire::PolicyLayer::Tenant => Layer::Tenant,
            wire::PolicyLayer::Principal => Layer::Principal,
            wire::PolicyLayer::Volume => Layer::Volume,
        },
        of: asked.of,
        priority: asked.priority,
        network: asked.network.map(reach).transpose()?,
        files: asked.files.map(|files| FilesClause {
            put: files.put,
            take: files.take,
            unchecked_in_sandboxes: files.unchecked_in_sandboxes,
        }),
        commands: asked.commands.map(|commands| CommandsClause {
            forbid: commands.forbid,
            approve: commands.approve,
            allow: commands.allow,
            no_operators: commands.no_operators,
            unchecked_in_sandboxes: commands.unchecked_in_sandboxes,
        }),
        dependencies: asked.dependencies.map(|clause| DependenciesClause {
            pip: clause.pip,
            npm: clause.npm,
            only_known_indexes: clause.only_known_indexes,
        }),
        resources: bounds(asked.resources),
        drivers: asked.drivers,
        profiles: ProfilesClause {
            allow: asked.profiles.allow,
            roots: asked.profiles.roots,
            allow_root: asked.profiles.allow_root,
        },
        secrets: asked.secrets.map(profile::rules).transpose()?,
        approval_expires_ms: asked.approvals.expires_ms,
        approvals: approvals(asked.approvals),
        rego: asked.rego,
    })
}

fn reach(asked: wire::PolicyNetwork) -> Result<NetworkClause, Error> {
    let allow = asked.allow.map(|list| entries("network.allow", &list));
    Ok(NetworkClause {
        mode: asked.mode.map(network::mode),
        allow: allow.transpose()?,
        deny: entries("network.deny", &asked.deny)?,
    })
}

fn entries(field: &str, list: &[String]) -> Result<Vec<Entry>, Error> {
    let one = |(index, text): (usize, &String)| {
        text.parse().map_err(|why: model::network::BadEntry| {
            let field = format!("{field}[{index}]");
            Error::field(Code::PolicyInvalid, &field, format!("failed to {why}"))
        })
    };
    list.iter().enumerate().map(one).collect()
}

fn bounds(asked: wire::PolicyResources) -> std::collections::BTreeMap<Bound, u64> {
    let all = Bound::ALL.into_iter();
    all.filter_map(|bound| Some((bound, (*slot(&mut asked.clone(), bound))?)))
        .collect()
}

fn slot(resources: &mut wire::PolicyResources, bound: Bound) -> &mut Option<u64> {
    match bound {
        Bound::CpuMillis => &mut resources.cpu_millis,
        Bound::MemoryBytes => &mut resources.memory_bytes,
        Bound::Pids => &mut resources.pids,
        Bound::DiskBytes => &mut resources.disk_bytes,
        Bound::TimeoutMs => &mut resources.timeout_ms,
        Bound::Connections => &mut resources.connections,
        Bound::PerMinute => &mut resources.per_minute,
        Bound::NetworkBytes => &mut resources.network_bytes,
    }
}

fn matter(
    approvals: &mut wire::PolicyApprovals,
    matter: Matter,
) -> &mut Option<wire::PolicyAnswer> {
    match matter {
        Matter::NetworkUnrestricted => &mut approvals.network_unrestricted,
        Matter::AllowRoot => &mut approvals.allow_root,
        Matter::Secrets => &mut approvals.secrets,
        Matter::PolicyChange => &mut approvals.policy_change,
    }
}

fn approvals(mut asked: wire::PolicyApprovals) -> std::collections::BTreeMap<Matter, Answer> {
    let answer = |answer| match answer {
        wire::PolicyAnswer::Skip => Answer::Skip,
        wire::PolicyAnswer::NeedsApproval => Answer::NeedsApproval,
        wire::PolicyAnswer::Forbidden => Answer::Forbidden,
    };
    let mut said = std::collections::BTreeMap::new();
    for one in Matter::ALL {
        if let Some(there) = matter(&mut asked, one).take() {
            said.insert(one, answer(there));
        }
    }
    said
}

fn spec_view(policy: Policy) -> wire::PolicySpec {
    let mut resources = wire::PolicyResources::default();
    for (bound, most) in policy.resources {
        *slot(&mut resources, bound) = Some(most);
    }
    let mut approvals = wire::PolicyApprovals {
        expires_ms: policy.approval_expires_ms,
        ..wire::PolicyApprovals::default()
    };
    for (one, answer) in policy.approvals {
        *matter(&mut approvals, one) = Some(match answer {
            Answer::Skip => wire::PolicyAnswer::Skip,
            Answer::NeedsApproval => wire::PolicyAnswer::NeedsApproval,
            Answer::Forbidden => wire::PolicyAnswer::Forbidden,
        });
    }
    let texts = |list: Vec<Entry>| list.iter().map(ToString::to_string).collect();
    wire::PolicySpec {
        version: FORM,
        layer: match policy.layer {
            Layer::Global => wire::PolicyLayer::Global,
            Layer::Tenant => wire::PolicyLayer::Tenant,
            Layer::Principal => wire::PolicyLayer::Principal,
            Layer::Volume => wire::PolicyLayer::Volume,
        },
        of: policy.of,
        priority: policy.priority,
        network: policy.network.map(|clause| wire::PolicyNetwork {
            mode: clause.mode.map(mode_view),
            allow: clause.allow.map(texts),
            deny: texts(clause.deny),
        }),
        files: policy.files.map(|clause| wire::PolicyFiles {
            put: clause.put,
            take: clause.take,
            unchecked_in_sandboxes: clause.unchecked_in_sandboxes,
        }),
        commands: policy.commands.map(|clause| wire::PolicyCommands {
            forbid: clause.forbid,
            approve: clause.approve,
            allow: clause.allow,
            no_operators: clause.no_operators,
            unchecked_in_sandboxes: clause.unchecked_in_sandboxes,
        }),
        dependencies: policy.dependencies.map(|clause| wire::PolicyDependencies {
            pip: clause.pip,
            npm: clause.npm,
            only_known_indexes: clause.only_known_indexes,
        }),
        resources,
        drivers: policy.drivers,
        profiles: wire::PolicyProfiles {
            allow: policy.profiles.allow,
            roots: policy.profiles.roots,
            allow_root: policy.profiles.allow_root,
        },
        secrets: policy
            .secrets
            .map(|rules| rules.into_iter().map(profile::rule_view).collect()),
        approvals,
        rego: policy.rego,
    }
}

fn mode_view(mode: NetworkMode) -> api::network::NetworkMode {
    match mode {
        NetworkMode::None => api::network::NetworkMode::None,
        NetworkMode::Allowlist => api::network::NetworkMode::Allowlist,
        NetworkMode::ReadOnly => api::network::NetworkMode::ReadOnly,
        NetworkMode::Unrestricted => api::network::NetworkMode::Unrestricted,
    }
}

pub(crate) fn view(row: PolicyRow) -> wire::PolicyView {
    wire::PolicyView {
        id: row.id.to_string(),
        name: row.name,
        version: row.latest,
        spec: spec_view(row.policy),
        principal: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
        updated_at_ms: row.updated_at_ms,
    }
}

pub(crate) fn versions(rows: Vec<PolicyVersionRow>) -> wire::PolicyVersionList {
    let one = |row: PolicyVersionRow| wire::PolicyVersion {
        version: row.number,
        principal: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
    };
    wire::PolicyVersionList {
        versions: rows.into_iter().map(one).collect(),
    }
}

/// The request of a test.
pub(crate) fn ask(asked: wire::PolicyTest) -> Result<PolicyAsk, Error> {
    match (asked.job, asked.sandbox) {
        (Some(job), None) => {
            let (spec, profile) = from_wire::job_ask(job)?;
            Ok(PolicyAsk::Job(Box::new(spec), profile))
        }
        (None, Some(new)) => Ok(PolicyAsk::Sandbox(Box::new(sandbox::ask(new)?))),
        _ => {
            let message = "a test is of one `job` or one `sandbox`";
            Err(Error::field(Code::InvalidArgument, "job", message))
        }
    }
}

fn names(layers: &[LayerRef]) -> Vec<String> {
    layers.iter().map(ToString::to_string).collect()
}

fn traces(all: Vec<Trace>) -> Vec<wire::PolicyTrace> {
    let one = |one: Trace| wire::PolicyTrace {
        clause: one.clause,
        value: one.value,
        by: names(&one.by),
    };
    all.into_iter().map(one).collect()
}

fn refusal(one: Refusal) -> wire::PolicyRefusal {
    wire::PolicyRefusal {
        code: one.kind.code().to_owned(),
        clause: one.clause,
        message: one.why,
        by: names(&one.by),
    }
}

pub(crate) fn tested(tested: PolicyTested) -> wire::PolicyTested {
    let (verdict, refusals, made) = match tested.decision {
        Decision::Allowed(made) => (wire::PolicyVerdict::Allowed, Vec::new(), Some(made)),
        Decision::Refused(all) => (wire::PolicyVerdict::Refused, all, None),
        Decision::NeedsApproval(made, all) => (wire::PolicyVerdict::NeedsApproval, all, Some(made)),
    };
    wire::PolicyTested {
        verdict,
        refusals: refusals.into_iter().map(refusal).collect(),
        network: made.as_ref().map(|made| network::view(&made.network)),
        limits: made.as_ref().map(|made| to_wire::limits_asked(made.limits)),
        timeout_ms: made.map(|made| made.timeout_ms),
        layers: names(&tested.layers),
        trace: traces(tested.trace),
    }
}

pub(crate) fn permit(kept: Option<PermitUse>) -> wire::PermitView {
    let Some(kept) = kept else {
        return wire::PermitView {
            layers: Vec::new(),
            trace: Vec::new(),
            approval: None,
        };
    };
    let layers: Vec<LayerRef> = kept.permit.layers.iter().cloned().collect();
    wire::PermitView {
        layers: names(&layers),
        trace: traces(kept.permit.trace()),
        approval: kept.yes.as_ref().map(approval::of_yes),
    }
}
