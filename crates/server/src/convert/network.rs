//! Rules of networks, in both languages.

use api::Code;
use api::network::{
    Network, NetworkLimits, NetworkMode, NetworkOrder, NetworkReport, NetworkRule, NetworkWork,
    RuleHeaders,
};
use model::dependency::Dependencies;
use model::network::{
    self, NetworkAsked, NetworkCaps, NetworkRules, Order, RequestAsked, RequestRule,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use service::{NetworkChange, NetworkRefused, NetworkSaid, SandboxRow};
use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;

/// What somebody asks for with what is new.
pub(crate) fn read(asked: Network) -> Result<NetworkRules, Error> {
    if asked.secrets.is_some() {
        let message = "secrets of what is new stand in `secrets` beside `network`";
        return Err(Error::field(
            Code::InvalidArgument,
            "network.secrets",
            message,
        ));
    }
    checked(rules(asked)?)
}

fn checked(rules: NetworkRules) -> Result<NetworkRules, Error> {
    let found = rules.check_packages();
    found.map_err(service::Error::Invalid)?;
    Ok(rules)
}

/// What somebody puts in the place of the rules of a sandbox that lives.
pub(crate) fn change(mut asked: Network) -> Result<NetworkChange, Error> {
    let secrets = asked.secrets.take().map(super::secret::uses).transpose()?;
    let rules = checked(rules(asked)?)?;
    Ok(NetworkChange { rules, secrets })
}

fn rules(asked: Network) -> Result<NetworkRules, Error> {
    let asked = NetworkAsked {
        mode: asked.mode.map(mode),
        allow: asked.allow,
        deny: asked.deny,
        presets: asked.presets,
        order: match asked.order {
            NetworkOrder::DenyFirst => Order::DenyFirst,
            NetworkOrder::AllowFirst => Order::AllowFirst,
        },
        caps: NetworkCaps {
            connections: asked.limits.connections,
            per_minute: asked.limits.per_minute,
            bytes: asked.limits.bytes,
        },
        requests: asked.rules.into_iter().map(request).collect(),
        profile_requests: asked.profile_rules.into_iter().map(request).collect(),
        withhold_secrets: asked.withhold_secrets,
        upstream: asked.upstream,
        upstream_ca: asked.upstream_ca,
        dns: asked.dns,
        dependencies: asked.dependencies,
    };
    let rules = NetworkRules::read(&asked).map_err(service::Error::Invalid)?;
    match rules.upstream_ca.as_deref().map(certificates) {
        Some(Err(message)) => {
            let field = "network.upstream_ca";
            Err(Error::field(Code::InvalidArgument, field, message))
        }
        Some(Ok(())) | None => Ok(rules),
    }
}

/// Whether these are certificates that somebody can be believed by. Found now, because on the node it would only be
/// that nothing leaves.
pub(crate) fn certificates(pem: &str) -> Result<(), &'static str> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let is_added = certificate.is_ok_and(|one| roots.add(one).is_ok());
        if !is_added {
            return Err("one of the certificates cannot be read");
        }
    }
    match roots.is_empty() {
        true => Err("there is no certificate in it"),
        false => Ok(()),
    }
}

/// What a node says of rules.
pub(crate) fn said(report: NetworkReport) -> Result<NetworkSaid, Error> {
    let refused = report.refused.map(|mut refused| {
        let secrets = refused.in_force.secrets.take();
        Ok::<_, Error>(NetworkRefused {
            secrets: secrets.map(super::secret::uses_said),
            in_force: rules(refused.in_force)?,
            why: refused.why,
        })
    });
    Ok(NetworkSaid {
        epoch: report.epoch,
        enforcement: super::from_wire::enforcement(report.enforcement),
        refused: refused.transpose()?,
    })
}

/// What is asked for with a new sandbox, in one of two ways.
pub(super) fn of_new(open: bool, asked: Option<Network>) -> Result<NetworkRules, Error> {
    match asked {
        None => Ok(NetworkRules::all_or_nothing(open)),
        Some(asked) if !open => read(asked),
        Some(_) => {
            let message = "`allow_internet` and `network` say two things; give one of them";
            Err(Error::field(Code::InvalidArgument, "network", message))
        }
    }
}

pub(super) fn mode(mode: NetworkMode) -> network::NetworkMode {
    match mode {
        NetworkMode::None => network::NetworkMode::None,
        NetworkMode::Allowlist => network::NetworkMode::Allowlist,
        NetworkMode::ReadOnly => network::NetworkMode::ReadOnly,
        NetworkMode::Unrestricted => network::NetworkMode::Unrestricted,
    }
}

pub(crate) fn view(rules: &NetworkRules) -> Network {
    Network {
        mode: Some(match rules.mode {
            network::NetworkMode::None => NetworkMode::None,
            network::NetworkMode::Allowlist => NetworkMode::Allowlist,
            network::NetworkMode::ReadOnly => NetworkMode::ReadOnly,
            network::NetworkMode::Unrestricted => NetworkMode::Unrestricted,
        }),
        allow: rules.allow.iter().map(ToString::to_string).collect(),
        deny: rules.deny.iter().map(ToString::to_string).collect(),
        presets: rules.presets.iter().map(ToString::to_string).collect(),
        order: match rules.order {
            Order::DenyFirst => NetworkOrder::DenyFirst,
            Order::AllowFirst => NetworkOrder::AllowFirst,
        },
        limits: NetworkLimits {
            connections: rules.caps.connections,
            per_minute: rules.caps.per_minute,
            bytes: rules.caps.bytes,
        },
        rules: rules.requests.iter().map(rule).collect(),
        profile_rules: rules.profile_requests.iter().map(rule).collect(),
        withhold_secrets: rules.withhold_secrets,
        upstream: rules.upstream.as_ref().map(ToString::to_string),
        upstream_ca: rules.upstream_ca.clone(),
        dns: rules.dns.iter().map(ToString::to_string).collect(),
        dependencies: dependencies(&rules.dependencies),
        secrets: None,
    }
}

fn dependencies(all: &Dependencies) -> BTreeMap<String, BTreeSet<String>> {
    let lists = all.lists();
    lists
        .map(|(ecosystem, list)| (ecosystem.to_string(), list.clone()))
        .collect()
}

fn request(rule: NetworkRule) -> RequestAsked {
    RequestAsked {
        host: rule.host,
        port: rule.port,
        methods: rule.methods,
        paths: rule.paths,
        require: rule.headers.require,
        refuse: rule.headers.refuse,
        set: rule.headers.set,
    }
}

fn rule(rule: &RequestRule) -> NetworkRule {
    let asked = rule.asked();
    NetworkRule {
        host: asked.host,
        port: asked.port,
        methods: asked.methods,
        paths: asked.paths,
        headers: RuleHeaders {
            require: asked.require,
            refuse: asked.refuse,
            set: asked.set,
        },
    }
}

/// Those of a job, which needs none said where there is none.
pub(super) fn of_job(rules: &NetworkRules) -> Option<Network> {
    rules.has_way_out().then(|| view(rules))
}

/// For the node of a sandbox.
pub(super) fn of_node(row: &SandboxRow) -> Network {
    let leaving = row.leaving.as_ref();
    Network {
        secrets: leaving.map(|leaving| super::secret::uses_view(leaving.uses.clone())),
        ..view(row.rules())
    }
}

pub(super) fn works(rows: &[SandboxRow]) -> Vec<NetworkWork> {
    let one = |row: &SandboxRow| NetworkWork {
        sandbox_id: row.id.to_string(),
        epoch: row.network_epoch,
        network: of_node(row),
    };
    rows.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_about_fields_are_shown_as_they_were_said_and_read_again() {
        let text = r#"{"rules": [{"host": "api.test", "methods": ["POST"], "headers": {
            "require": {"content-type": "application/json"}, "refuse": ["authorization"],
            "set": {"x-team": "red"}}}]}"#;
        let asked: Network = serde_json::from_str(text).unwrap();
        let shown = view(&read(asked.clone()).unwrap());
        assert_eq!(shown.rules, asked.rules);
        assert_eq!(view(&read(shown.clone()).unwrap()), shown);
        // Whoever does not know one of them refuses the rules, and does not pass over it.
        let other = text.replace("refuse", "forbid");
        assert!(serde_json::from_str::<Network>(&other).is_err());
    }
}
