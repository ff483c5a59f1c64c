//! Sandboxes that live on, in both languages.

use api::Code;
use api::node::{
    CopyWork, HeldSandbox, SandboxRef, SandboxSaid, SandboxWant, SandboxWork, SandboxWorkSpec,
    StartWork,
};
use api::sandbox::{
    OnExpiry, SandboxCreate, SandboxList, SandboxListQuery, SandboxSpecView, SandboxStateName,
    SandboxView,
};
use model::access::Action;
use model::host::NAME_MAX;
use model::id::SnapshotId;
use model::limits;
use model::profile::Says;
use model::sandbox::{SandboxState, Want};
use model::sandbox_spec::{self, Defaults, SandboxSpec};
use service::{Ctx, SandboxAsk, SandboxFilter, SandboxPage, SandboxRow, sandbox_life_ms};

use super::{from_wire, to_wire};
use crate::error::Error;

/// What somebody asks for, with every default filled in.
pub(crate) fn ask(asked: SandboxCreate) -> Result<SandboxAsk, Error> {
    let node = asked.node.map(|node| from_wire::node_id(&node));
    let says = Says {
        network: asked.allow_internet || asked.network.is_some(),
        timeout: asked.timeout_ms.is_some(),
    };
    let (profile, by) = super::profile::chosen(asked.profile, says);
    let spec = SandboxSpec {
        profile,
        serves_volume: false,
        name: asked.name,
        env: asked.env,
        root: asked.root,
        root_identity: None,
        limits: from_wire::asked_limits(asked.limits),
        network: super::network::of_new(asked.allow_internet, asked.network)?,
        allow_root: asked.allow_root,
        on_expiry: match asked.on_expiry {
            OnExpiry::Kill => sandbox_spec::OnExpiry::Kill,
            OnExpiry::Pause => sandbox_spec::OnExpiry::Pause,
            OnExpiry::PauseWithoutMemory => sandbox_spec::OnExpiry::PauseWithoutMemory,
        },
        auto_resume: asked.auto_resume,
        queue_timeout_ms: asked
            .queue_timeout_ms
            .unwrap_or(limits::SANDBOX_QUEUE_DEFAULT_MS),
        node: node.transpose()?,
        placement: super::place::of(asked.placement),
        secrets: super::secret::uses(asked.secrets)?,
        scrub_patterns: asked.scrub_patterns,
        layers: Vec::new(),
        volumes: super::volume::mounts(asked.volumes),
        defaults: Defaults::default(),
        made_by: None,
        permit: None,
    };
    let from = asked.snapshot.as_deref().map(super::snapshot::named);
    Ok(SandboxAsk {
        spec,
        from: from.transpose()?,
        metadata: asked.metadata,
        ttl_ms: asked.timeout_ms.unwrap_or(limits::SANDBOX_TTL_DEFAULT_MS),
        profile: by,
        says,
    })
}

/// The query of a list. Its names are not all known: `metadata.KEY` has the key of whoever asks.
pub(crate) fn list_query(pairs: Vec<(String, String)>) -> Result<SandboxListQuery, Error> {
    let mut query = SandboxListQuery::default();
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in pairs {
        let wrong = |message: &str| Error::field(Code::InvalidArgument, &name, message);
        if !seen.insert(name.clone()) {
            return Err(wrong("it is there twice"));
        }
        match name.as_str() {
            "state" => query.states = states(&value)?,
            "limit" => query.limit = Some(value.parse().map_err(|_| wrong("not a number"))?),
            "before" => query.before = Some(value),
            _ => match name.strip_prefix("metadata.") {
                Some(key) if sandbox_spec::is_metadata_key(key) => {
                    query.metadata.insert(key.to_owned(), value);
                }
                Some(_) => return Err(wrong("metadata has no such key")),
                None => {
                    let message = "there are `state`, `metadata.KEY`, `limit` and `before`";
                    return Err(Error::field(Code::UnknownField, &name, message));
                }
            },
        }
    }
    Ok(query)
}

fn states(text: &str) -> Result<Vec<SandboxStateName>, Error> {
    let wrong = || {
        let message = "states are names such as `ready`, with commas between them";
        Error::field(Code::InvalidArgument, "state", message)
    };
    // No more than there are, so that nobody makes a long text of few.
    let names = text.split(',').take(SandboxStateName::ALL.len() + 1);
    let states: Option<Vec<_>> = names.map(SandboxStateName::parse).collect();
    states
        .filter(|states| states.len() <= SandboxStateName::ALL.len())
        .ok_or_else(wrong)
}

pub(crate) fn filter(query: &SandboxListQuery) -> SandboxFilter {
    SandboxFilter {
        states: query.states.iter().map(|state| state.as_str()).collect(),
        metadata: query.metadata.clone(),
    }
}

pub(crate) fn state(state: &SandboxState) -> SandboxStateName {
    match state {
        SandboxState::Requested => SandboxStateName::Requested,
        SandboxState::Provisioning => SandboxStateName::Provisioning,
        SandboxState::Ready => SandboxStateName::Ready,
        SandboxState::Pausing { .. } => SandboxStateName::Pausing,
        SandboxState::Paused { .. } => SandboxStateName::Paused,
        SandboxState::Resuming { .. } => SandboxStateName::Resuming,
        SandboxState::Snapshotting { .. } => SandboxStateName::Snapshotting,
        SandboxState::Recreating => SandboxStateName::Recreating,
        SandboxState::Destroying => SandboxStateName::Destroying,
        SandboxState::Destroyed => SandboxStateName::Destroyed,
        SandboxState::Failed { .. } => SandboxStateName::Failed,
    }
}

/// A sandbox for whoever may see it; for whoever may run commands in it with the token of its door, which is as good.
pub(crate) fn view(ctx: &Ctx, row: SandboxRow) -> SandboxView {
    let access_token = token(ctx, &row);
    SandboxView {
        access_token,
        ..without_token(row)
    }
}

/// What opens the door of its guest. A key that is narrowed to looking must not get what runs commands.
pub(crate) fn token(ctx: &Ctx, row: &SandboxRow) -> Option<String> {
    let may = ctx.may(Action::SandboxWrite).is_ok();
    may.then(|| row.access_token.text().to_owned())
}

fn without_token(row: SandboxRow) -> SandboxView {
    let secrets = super::secret::uses_view(row.secrets());
    SandboxView {
        network: super::network::view(row.rules()),
        network_pending: row.is_network_pending(),
        network_refused: row.network_refused,
        egress_denied: row.egress_denied,
        id: row.id.to_string(),
        state: state(&row.state),
        name: row.spec.name.clone(),
        metadata: row.metadata,
        spec: SandboxSpecView {
            secrets,
            ..spec_view(row.spec)
        },
        timeout_ms: row.ttl_ms,
        version: row.version,
        incarnation: row.incarnation,
        principal: row.principal.to_string(),
        node: row.node.map(|node| node.to_string()),
        driver: row.driver,
        created_at_ms: row.created_at_ms,
        placed_at_ms: row.placed_at_ms,
        ready_at_ms: row.ready_at_ms,
        paused_at_ms: row.paused_at_ms,
        memory_kept: memory_kept(&row.state),
        ended_at_ms: row.ended_at_ms,
        expires_at_ms: row.expires_at_ms,
        enforcement: to_wire::enforcement(row.enforcement),
        reason: row.reason,
        access_token: None,
    }
}

fn spec_view(spec: SandboxSpec) -> SandboxSpecView {
    SandboxSpecView {
        snapshot: spec.snapshot().map(ToString::to_string),
        profile: match &spec.made_by {
            Some(made_by) => made_by.name.clone(),
            None => spec.profile,
        },
        made_by: super::profile::used(spec.made_by),
        env_names: spec.env.into_keys().collect(),
        root: spec.root,
        limits: to_wire::limits_asked(spec.limits),
        allow_internet: spec.network.has_way_out(),
        allow_root: spec.allow_root,
        on_expiry: match spec.on_expiry {
            sandbox_spec::OnExpiry::Kill => OnExpiry::Kill,
            sandbox_spec::OnExpiry::Pause => OnExpiry::Pause,
            sandbox_spec::OnExpiry::PauseWithoutMemory => OnExpiry::PauseWithoutMemory,
        },
        auto_resume: spec.auto_resume,
        queue_timeout_ms: spec.queue_timeout_ms,
        node: spec.node.map(|node| node.to_string()),
        placement: super::place::view(spec.placement),
        secrets: super::secret::uses_view(spec.secrets),
        scrub_patterns: spec.scrub_patterns,
        volumes: super::volume::mounts_view(spec.volumes),
    }
}

pub(crate) fn list(page: SandboxPage) -> SandboxList {
    SandboxList {
        sandboxes: page.sandboxes.into_iter().map(without_token).collect(),
        next: page.next,
    }
}

/// How many of these sandboxes fit on a page; at least one.
pub(crate) fn fitting(rows: &[SandboxRow]) -> usize {
    let weight = |row: &SandboxRow| {
        let labels = row.metadata.iter().flat_map(|(key, value)| [key, value]);
        let texts = labels.chain(row.spec.env.keys());
        let texts: usize = texts.map(|text| text.len() + 4).sum();
        let rules = row.rules();
        // An entry is a name with a port at most.
        let entries = rules.allow.len() + rules.deny.len();
        4096 + texts + entries * (NAME_MAX + 10)
    };
    to_wire::fitting_of(rows.iter().map(weight))
}

pub(super) fn held(rows: Vec<SandboxRow>, now_ms: u64) -> Vec<HeldSandbox> {
    let one = |row: SandboxRow| HeldSandbox {
        life_ms: sandbox_life_ms(&row, now_ms),
        sandbox_id: row.id.to_string(),
        epoch: row.epoch,
        state: state(&row.state),
    };
    rows.into_iter().map(one).collect()
}

pub(super) fn works(works: Vec<service::SandboxWork>) -> Vec<SandboxWork> {
    works.into_iter().map(work).collect()
}

/// An order; beside the answer to who may run commands, the only place where the token leaves the server.
fn work(work: service::SandboxWork) -> SandboxWork {
    let row = work.row;
    SandboxWork {
        sandbox_id: row.id.to_string(),
        tenant: row.tenant.to_string(),
        epoch: row.epoch,
        want: match work.want {
            Want::Make => SandboxWant::Make,
            Want::Pause => SandboxWant::Pause,
            Want::Resume => SandboxWant::Resume,
            Want::Snapshot => SandboxWant::Snapshot,
            Want::Destroy => SandboxWant::Destroy,
        },
        life_ms: work.life_ms,
        access_token: row.access_token.text().to_owned(),
        copy: copy(&row.state),
        reboot: memory_kept(&row.state) == Some(false),
        again: row.state == SandboxState::Recreating,
        spec: work_spec(row),
    }
}

/// Whether what ran in it is kept by its pause, where it is in one.
fn memory_kept(state: &SandboxState) -> Option<bool> {
    match state {
        SandboxState::Pausing { memory }
        | SandboxState::Paused { memory }
        | SandboxState::Resuming { memory } => Some(*memory),
        SandboxState::Requested
        | SandboxState::Provisioning
        | SandboxState::Ready
        | SandboxState::Snapshotting { .. }
        | SandboxState::Recreating
        | SandboxState::Destroying
        | SandboxState::Destroyed
        | SandboxState::Failed { .. } => None,
    }
}

fn copy(state: &SandboxState) -> Option<CopyWork> {
    let SandboxState::Snapshotting {
        paused, snapshot, ..
    } = state
    else {
        return None;
    };
    Some(CopyWork {
        snapshot_id: snapshot.to_string(),
        paused: *paused,
    })
}

fn work_spec(row: SandboxRow) -> SandboxWorkSpec {
    let network = super::network::of_node(&row);
    let secrets = super::secret::uses_view(row.secrets());
    let spec = row.spec;
    SandboxWorkSpec {
        profile: spec.profile,
        env: spec.env,
        root: spec.root,
        root_identity: spec.root_identity,
        limits: to_wire::limits_asked(spec.limits),
        network,
        network_epoch: row.network_epoch,
        exec_base: row.exec_base,
        allow_root: spec.allow_root,
        secrets,
        scrub_patterns: spec.scrub_patterns,
        layers: spec.layers.iter().map(ToString::to_string).collect(),
        volumes: super::volume::works(spec.volumes),
        user: spec.defaults.user,
        workdir: spec.defaults.workdir,
        start: spec.defaults.start.map(|start| StartWork {
            command: start.command,
            ready: start.ready,
        }),
    }
}

pub(super) fn lives(lives: Vec<service::SandboxLife>) -> Vec<api::node::SandboxLife> {
    let one = |life: service::SandboxLife| api::node::SandboxLife {
        sandbox_id: life.id.to_string(),
        epoch: life.epoch,
        life_ms: life.life_ms,
    };
    lives.into_iter().map(one).collect()
}

pub(super) fn refs(refs: Vec<service::SandboxRef>) -> Vec<SandboxRef> {
    let one = |one: service::SandboxRef| SandboxRef {
        sandbox_id: one.id.to_string(),
        epoch: one.epoch,
    };
    refs.into_iter().map(one).collect()
}

pub(crate) fn refs_from(refs: Vec<SandboxRef>) -> Result<Vec<service::SandboxRef>, Error> {
    let one = |one: SandboxRef| {
        let id = one.sandbox_id.parse();
        Ok(service::SandboxRef {
            id: id.map_err(|error| from_wire::bad_id("sandboxes", &error))?,
            epoch: one.epoch,
        })
    };
    refs.into_iter().map(one).collect()
}

pub(crate) fn snapshots_from(ids: &[String]) -> Result<Vec<SnapshotId>, Error> {
    let one = |id: &String| id.parse().map_err(|e| from_wire::bad_id("snapshots", &e));
    ids.iter().map(one).collect()
}

pub(crate) fn said(said: SandboxSaid) -> service::SandboxSaid {
    match said {
        SandboxSaid::Provisioning => service::SandboxSaid::Provisioning,
        SandboxSaid::Ready {
            driver,
            enforcement,
        } => service::SandboxSaid::Ready {
            driver,
            enforcement: from_wire::enforcement(enforcement),
        },
        SandboxSaid::Paused => service::SandboxSaid::Paused,
        SandboxSaid::Saved { size_bytes } => service::SandboxSaid::Saved { bytes: size_bytes },
        SandboxSaid::NotSaved { why } => service::SandboxSaid::NotSaved { why },
        SandboxSaid::Destroyed => service::SandboxSaid::Destroyed,
        SandboxSaid::Failed { why } => service::SandboxSaid::Failed { why },
    }
}
