//! Profiles, in both languages.

use api::Code;
use api::profile::{
    self as wire, ProfileKind, ProfileList, ProfileVersion, ProfileVersionList, ProfileView,
};
use model::limits;
use model::profile::{ProfileBase, ProfileSpec, ProfileUse, Says, SecretRule, SecretWay};
use model::sandbox_spec::StartCommand;
use model::spec::{CODE_INTERPRETER, PROFILES};
use model::volume::VOLUME_PROFILE;
use service::{ProfileAsk, ProfilePage, ProfileRow, VersionPage, VersionRow};

use super::{from_wire, network, to_wire};
use crate::error::Error;

/// The profile of a request: one that is there from the start, as in a spec, or one of somebody's.
pub(crate) fn chosen(asked: Option<String>, says: Says) -> (String, Option<ProfileAsk>) {
    let default = || from_wire::PROFILE_DEFAULT.to_owned();
    let Some(name) = asked else {
        return (default(), None);
    };
    let is_ours =
        PROFILES.contains(&name.as_str()) || name == CODE_INTERPRETER || name == VOLUME_PROFILE;
    match name.parse() {
        Ok(named) if !is_ours => (default(), Some(ProfileAsk { named, says })),
        // What can be no name is refused as one that nothing has.
        _ => (name, None),
    }
}

/// What somebody writes.
pub(crate) fn read(asked: wire::ProfileSpec) -> Result<ProfileSpec, Error> {
    let start = match (asked.start, asked.ready) {
        (None, None) => None,
        (command, ready) => Some(StartCommand { command, ready }),
    };
    Ok(ProfileSpec {
        base: asked.base.map(base).transpose()?,
        limits: from_wire::asked_limits(asked.limits),
        timeout_ms: asked.timeout_ms,
        timeout_max_ms: asked.timeout_max_ms,
        env: asked.env,
        workdir: asked.workdir,
        user: asked.user,
        allow_root: asked.allow_root,
        start,
        network: asked.network.map(network::read).transpose()?,
        placement: super::place::of(asked.placement),
        secrets: asked.secrets.map(rules).transpose()?,
    })
}

fn base(asked: wire::ProfileBase) -> Result<ProfileBase, Error> {
    match (asked.root, asked.snapshot, asked.template) {
        (Some(root), None, None) => Ok(ProfileBase::Root(root)),
        (None, Some(snapshot), None) => Ok(ProfileBase::Snapshot(snapshot)),
        (None, None, Some(template)) => Ok(ProfileBase::Template(template)),
        _ => {
            let message = "a base is one of `root`, `snapshot` and `template`";
            Err(Error::field(Code::InvalidArgument, "base", message))
        }
    }
}

pub(super) fn rules(asked: Vec<wire::SecretRule>) -> Result<Vec<SecretRule>, Error> {
    if asked.len() > limits::PROFILE_SECRETS_MAX {
        let message = format!("at most {} rules", limits::PROFILE_SECRETS_MAX);
        return Err(Error::field(Code::InvalidArgument, "secrets", message));
    }
    let one = |(index, rule): (usize, wire::SecretRule)| {
        let host = |host: &String| {
            host.parse().map_err(|why: model::network::BadEntry| {
                let field = format!("secrets[{index}].hosts");
                Error::field(Code::NetworkRules, &field, format!("failed to {why}"))
            })
        };
        let hosts = rule.hosts.iter().take(limits::PROFILE_SECRET_HOSTS_MAX + 1);
        Ok(SecretRule {
            name: rule.name,
            ways: rule.ways.into_iter().map(way).collect(),
            hosts: hosts.map(host).collect::<Result<_, _>>()?,
        })
    };
    asked.into_iter().enumerate().map(one).collect()
}

fn way(way: wire::SecretWay) -> SecretWay {
    match way {
        wire::SecretWay::File => SecretWay::File,
        wire::SecretWay::Env => SecretWay::Env,
        wire::SecretWay::Header => SecretWay::Header,
    }
}

pub(super) fn rule_view(rule: SecretRule) -> wire::SecretRule {
    let way = |way| match way {
        SecretWay::File => wire::SecretWay::File,
        SecretWay::Env => wire::SecretWay::Env,
        SecretWay::Header => wire::SecretWay::Header,
    };
    wire::SecretRule {
        name: rule.name,
        ways: rule.ways.into_iter().map(way).collect(),
        hosts: rule.hosts.iter().map(ToString::to_string).collect(),
    }
}

fn spec_view(spec: ProfileSpec) -> wire::ProfileSpec {
    let (start, ready) = match spec.start {
        Some(start) => (start.command, start.ready),
        None => (None, None),
    };
    wire::ProfileSpec {
        base: spec.base.map(|base| {
            let mut shown = wire::ProfileBase::default();
            match base {
                ProfileBase::Root(root) => shown.root = Some(root),
                ProfileBase::Snapshot(snapshot) => shown.snapshot = Some(snapshot),
                ProfileBase::Template(template) => shown.template = Some(template),
            }
            shown
        }),
        limits: to_wire::limits_asked(spec.limits),
        timeout_ms: spec.timeout_ms,
        timeout_max_ms: spec.timeout_max_ms,
        env: spec.env,
        workdir: spec.workdir,
        user: spec.user,
        allow_root: spec.allow_root,
        start,
        ready,
        network: spec.network.as_ref().map(network::view),
        placement: super::place::view(spec.placement),
        secrets: spec
            .secrets
            .map(|rules| rules.into_iter().map(rule_view).collect()),
    }
}

/// A profile with what it says in one version.
pub(crate) fn written(row: ProfileRow, version: VersionRow) -> ProfileView {
    view(service::ProfileView {
        row,
        builds: Vec::new(),
        build_count: 0,
        tags: Vec::new(),
        written: Some(version),
    })
}

pub(crate) fn view(profile: service::ProfileView) -> ProfileView {
    let row = profile.row;
    ProfileView {
        id: row.id.to_string(),
        name: row.name,
        kind: match row.latest {
            0 => ProfileKind::Built,
            _ => ProfileKind::Written,
        },
        version: profile
            .written
            .as_ref()
            .map_or(row.latest, |one| one.number),
        spec: profile.written.map(|one| spec_view(one.spec)),
        tags: profile.tags.into_iter().map(|tag| tag.tag).collect(),
        builds: profile.build_count,
        principal: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
        updated_at_ms: row.updated_at_ms,
    }
}

/// What they say is not in a list: hundreds of them would be too much for one answer.
pub(crate) fn list(page: ProfilePage) -> ProfileList {
    let one = |profile| ProfileView {
        spec: None,
        ..view(profile)
    };
    ProfileList {
        profiles: page.profiles.into_iter().map(one).collect(),
        next: page.next,
        built_in: vec![
            from_wire::PROFILE_DEFAULT.to_owned(),
            CODE_INTERPRETER.to_owned(),
        ],
    }
}

pub(crate) fn versions(page: VersionPage) -> ProfileVersionList {
    let one = |row: VersionRow| ProfileVersion {
        version: row.number,
        principal: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
    };
    ProfileVersionList {
        versions: page.versions.into_iter().map(one).collect(),
        next: page.next,
    }
}

/// What a sandbox or a job keeps.
pub(super) fn used(made_by: Option<Box<ProfileUse>>) -> Option<wire::ProfileUse> {
    let made_by = *made_by?;
    Some(wire::ProfileUse {
        id: made_by.id.to_string(),
        name: made_by.name,
        version: made_by.version,
        build: made_by.build.map(|build| build.to_string()),
        timeout_max_ms: made_by.timeout_max_ms,
        timeout_asked_ms: made_by.timeout_asked_ms,
        network: made_by.network.as_ref().map(network::view),
    })
}
