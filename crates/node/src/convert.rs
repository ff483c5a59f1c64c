//! From what the control plane says to what a driver takes, and back.

use api::fleet;
use api::job::{Enforced, EnforcedState, LimitsAsked, StreamReport, Usage};
use api::network::{Network, NetworkOrder, NetworkRule};
use model::enforcement::{Enforced as ModelEnforced, Held};
use model::network::{NetworkAsked, NetworkCaps, NetworkMode, NetworkRules, Order, RequestAsked};
use model::node::NodeKind;
use model::spec::AskedLimits;

/// What sort of machine this is, as it is said.
pub(crate) fn kind(kind: NodeKind) -> fleet::NodeKind {
    match kind {
        NodeKind::Server => fleet::NodeKind::Server,
        NodeKind::Desktop => fleet::NodeKind::Desktop,
        NodeKind::Mobile => fleet::NodeKind::Mobile,
        NodeKind::Bridge => fleet::NodeKind::Bridge,
    }
}

/// Limits as a driver takes them.
pub(crate) fn limits(asked: LimitsAsked) -> AskedLimits {
    AskedLimits {
        cpu_millis: asked.cpu_millis,
        memory_bytes: asked.memory_bytes,
        pids: asked.pids,
        disk_bytes: asked.disk_bytes,
    }
}

/// What is in force, as it is reported.
pub(crate) fn enforced(all: &[ModelEnforced]) -> Vec<Enforced> {
    let one = |each: &ModelEnforced| Enforced {
        clause: each.clause.clone(),
        how: each.how.clone(),
        value: each.value.clone(),
        asked: each.asked,
        state: match each.state {
            Held::Held => EnforcedState::Held,
            Held::NotHeld => EnforcedState::NotHeld,
        },
    };
    all.iter().map(one).collect()
}

/// What became of a stream.
pub(crate) fn stream(spool: &crate::spool::Spool) -> StreamReport {
    let (total_bytes, kept_bytes) = (spool.total(), spool.kept());
    StreamReport {
        total_bytes,
        kept_bytes,
        truncated: kept_bytes < total_bytes,
        lost_bytes: 0,
        patterns_found: spool.patterns_found,
    }
}

/// What was used, as guest and control groups counted it.
pub(crate) fn usage(
    exited: &driver::guest::message::Exited,
    counted: &driver::driver::Counted,
) -> Usage {
    let seen = (exited.max_rss_bytes > 0).then_some(exited.max_rss_bytes);
    Usage {
        cpu_ms: exited.cpu_ms,
        wall_ms: exited.wall_ms,
        memory_peak_bytes: counted.memory_peak_bytes.or(seen),
        pids_peak: counted.pids_peak,
        disk_bytes: None,
    }
}

fn request(rule: &NetworkRule) -> RequestAsked {
    RequestAsked {
        host: rule.host.clone(),
        port: rule.port,
        methods: rule.methods.clone(),
        paths: rule.paths.clone(),
        require: rule.headers.require.clone(),
        refuse: rule.headers.refuse.clone(),
        set: rule.headers.set.clone(),
    }
}

/// Rules that a node is told.
///
/// # Errors
/// What is wrong with them, as one text: they were read once already, by a server that is newer than this node.
pub(crate) fn network(network: &Network) -> Result<NetworkRules, String> {
    let asked = NetworkAsked {
        mode: network.mode.map(|mode| match mode {
            api::network::NetworkMode::None => NetworkMode::None,
            api::network::NetworkMode::Allowlist => NetworkMode::Allowlist,
            api::network::NetworkMode::ReadOnly => NetworkMode::ReadOnly,
            api::network::NetworkMode::Unrestricted => NetworkMode::Unrestricted,
        }),
        allow: network.allow.clone(),
        deny: network.deny.clone(),
        presets: network.presets.clone(),
        order: match network.order {
            NetworkOrder::DenyFirst => Order::DenyFirst,
            NetworkOrder::AllowFirst => Order::AllowFirst,
        },
        caps: NetworkCaps {
            connections: network.limits.connections,
            per_minute: network.limits.per_minute,
            bytes: network.limits.bytes,
        },
        requests: network.rules.iter().map(request).collect(),
        profile_requests: network.profile_rules.iter().map(request).collect(),
        withhold_secrets: network.withhold_secrets,
        upstream: network.upstream.clone(),
        upstream_ca: network.upstream_ca.clone(),
        dns: network.dns.clone(),
        dependencies: network.dependencies.clone(),
    };
    NetworkRules::read(&asked).map_err(|found| {
        let found = found
            .iter()
            .map(|one| format!("{}: {}", one.field, one.message));
        found.collect::<Vec<_>>().join("; ")
    })
}
