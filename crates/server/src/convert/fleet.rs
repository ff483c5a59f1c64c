//! Nodes of a fleet, in the words of both sides.

use api::fleet::{
    self, EnrollTokenMade, EnrollTokenView, Hidden, LinkView, NodeBusy, NodeDriver, NodeEnrolled,
    NodeHost, NodeLeftovers, NodePressure, NodeReserved, NodeView, ServerView,
};
use model::node::{
    Busy, Connectivity, DriverHealth, HostChange, HostMoment, HostReport, Leftovers, NodeKind,
    Pressure, Scheduling,
};
use model::place::{self, KIND, Reserved};
use service::{
    EnrollTokenRow, Enrolled, NodeOrder, NodeRow, NodeSeen, ServerSeen, TokenState, token_state,
};

pub(crate) fn token(row: EnrollTokenRow, now_ms: u64) -> EnrollTokenView {
    let state = match token_state(&row, now_ms) {
        TokenState::Open => "open",
        TokenState::Used => "used",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    };
    EnrollTokenView {
        id: row.id.to_string(),
        labels: row.labels,
        state: state.to_owned(),
        node: row.used.map(|(_, node, _)| node.to_string()),
        created_at_ms: row.created_at_ms,
        expires_at_ms: row.expires_at_ms,
    }
}

pub(crate) fn made(row: EnrollTokenRow, text: String, now_ms: u64) -> EnrollTokenMade {
    EnrollTokenMade {
        view: token(row, now_ms),
        token: Hidden(text),
    }
}

pub(crate) fn enrolled(enrolled: Enrolled) -> NodeEnrolled {
    NodeEnrolled {
        node_id: enrolled.node.to_string(),
        certificate: enrolled.signed.certificate,
        authority: enrolled.authority,
        expires_at_ms: enrolled.signed.expires_at_ms,
    }
}

/// What becomes of a node itself; `None` for what becomes only of what it has.
pub(crate) fn order(order: fleet::NodeOrder) -> Option<NodeOrder> {
    match order {
        fleet::NodeOrder::Cordon => Some(NodeOrder::Cordon),
        fleet::NodeOrder::Uncordon => Some(NodeOrder::Uncordon),
        fleet::NodeOrder::Drain => Some(NodeOrder::Drain),
        fleet::NodeOrder::Decommission => Some(NodeOrder::Decommission),
        fleet::NodeOrder::Evict => None,
    }
}

pub(crate) fn kind(kind: fleet::NodeKind) -> NodeKind {
    match kind {
        fleet::NodeKind::Server => NodeKind::Server,
        fleet::NodeKind::Desktop => NodeKind::Desktop,
        fleet::NodeKind::Mobile => NodeKind::Mobile,
        fleet::NodeKind::Bridge => NodeKind::Bridge,
    }
}

pub(crate) fn host(host: NodeHost) -> HostReport {
    let one = |driver: NodeDriver| DriverHealth {
        name: driver.name,
        healthy: driver.healthy,
        why: driver.why,
    };
    HostReport {
        kernel: host.kernel,
        cpus: host.cpus,
        load_milli: host.load_milli,
        memory_bytes: host.memory_bytes,
        memory_free_bytes: host.memory_free_bytes,
        disk_bytes: host.disk_bytes,
        disk_free_bytes: host.disk_free_bytes,
        reserved: reserved(host.reserved),
        busy: host.busy.map(busy),
        leftovers: host.leftovers.map(|of| Leftovers {
            count: of.count,
            bytes: of.bytes,
            at_ms: of.at_ms,
            partial: of.partial,
        }),
        drivers: host.drivers.into_iter().map(one).collect(),
        refuses: host.refuses,
    }
}

/// What a host was around an order.
pub(crate) fn host_change(change: api::node::HostChange) -> HostChange {
    let moment = |at: api::node::HostMoment| HostMoment {
        load_milli: at.load_milli,
        memory_available_bytes: at.memory_available_bytes,
        sandboxes: at.sandboxes,
    };
    HostChange {
        before: moment(change.before),
        after: moment(change.after),
    }
}

pub(crate) fn reserved(of: NodeReserved) -> Reserved {
    Reserved {
        memory_bytes: of.memory_bytes,
        disk_bytes: of.disk_bytes,
    }
}

fn busy(of: NodeBusy) -> Busy {
    let pressure = |of: NodePressure| Pressure {
        cpu_milli: of.cpu_milli,
        memory_milli: of.memory_milli,
        io_milli: of.io_milli,
    };
    Busy {
        load_5_milli: of.load_5_milli,
        load_15_milli: of.load_15_milli,
        threads: of.threads,
        jobs: of.jobs,
        sandboxes: of.sandboxes,
        spares: of.spares,
        pressure: of.pressure.map(pressure),
    }
}

fn busy_view(of: Busy) -> NodeBusy {
    let pressure = |of: Pressure| NodePressure {
        cpu_milli: of.cpu_milli,
        memory_milli: of.memory_milli,
        io_milli: of.io_milli,
    };
    NodeBusy {
        load_5_milli: of.load_5_milli,
        load_15_milli: of.load_15_milli,
        threads: of.threads,
        jobs: of.jobs,
        sandboxes: of.sandboxes,
        spares: of.spares,
        pressure: of.pressure.map(pressure),
    }
}

fn host_view(host: HostReport) -> NodeHost {
    let one = |driver: DriverHealth| NodeDriver {
        name: driver.name,
        healthy: driver.healthy,
        why: driver.why,
    };
    NodeHost {
        kernel: host.kernel,
        cpus: host.cpus,
        load_milli: host.load_milli,
        memory_bytes: host.memory_bytes,
        memory_free_bytes: host.memory_free_bytes,
        disk_bytes: host.disk_bytes,
        disk_free_bytes: host.disk_free_bytes,
        reserved: NodeReserved {
            memory_bytes: host.reserved.memory_bytes,
            disk_bytes: host.reserved.disk_bytes,
        },
        busy: host.busy.map(busy_view),
        leftovers: host.leftovers.map(|of| NodeLeftovers {
            count: of.count,
            bytes: of.bytes,
            at_ms: of.at_ms,
            partial: of.partial,
        }),
        drivers: host.drivers.into_iter().map(one).collect(),
        refuses: host.refuses,
    }
}

fn is_old(row: &NodeRow) -> bool {
    service::upgrade_for(&row.version).is_some()
}

pub(crate) fn node(seen: NodeSeen, now_ms: u64) -> NodeView {
    let state = seen.state();
    let connectivity = match state.connectivity {
        Connectivity::Pending => "pending",
        Connectivity::Online => "online",
        Connectivity::Offline => "offline",
    };
    let scheduling = match state.scheduling {
        Scheduling::Active => "active",
        Scheduling::Cordoned => "cordoned",
        Scheduling::Draining => "draining",
        Scheduling::Decommissioned => "decommissioned",
    };
    let (row, enrollment) = (seen.row, seen.enrollment);
    let said = |row: &NodeRow| row.name.clone();
    let given = || enrollment.as_ref().map(|row| row.name.clone());
    let labels = match (&row, &enrollment) {
        (Some(row), _) => place::with_kind(row.labels.clone()),
        (None, enrollment) => enrollment
            .as_ref()
            .map(|row| row.labels.clone())
            .unwrap_or_default(),
    };
    NodeView {
        id: seen.id.to_string(),
        name: row.as_ref().map(said).or_else(given).unwrap_or_default(),
        connectivity: connectivity.to_owned(),
        scheduling: scheduling.to_owned(),
        version: row.as_ref().map(|row| row.version.clone()),
        upgrade_available: row.as_ref().is_some_and(is_old),
        slots: row.as_ref().map_or(0, |row| row.slots),
        jobs: u32::try_from(seen.load.0).unwrap_or(u32::MAX),
        sandboxes: u32::try_from(seen.load.1).unwrap_or(u32::MAX),
        lease_expires_at_ms: row.as_ref().map(|row| row.lease_expires_at_ms),
        enrolled_at_ms: enrollment.as_ref().map(|row| row.enrolled_at_ms),
        kind: row.as_ref().and_then(|_| labels.get(KIND).cloned()),
        tags: place::tags(&labels).map(str::to_owned).collect(),
        labels,
        failures: row.as_ref().map_or(0, |row| row.trouble.count(now_ms)),
        host: row
            .as_ref()
            .and_then(|row| row.report.clone())
            .map(host_view),
        drivers: row
            .as_ref()
            .map(|row| row.drivers.clone())
            .unwrap_or_default(),
        facts: row.map(|row| row.facts).unwrap_or_default(),
    }
}

pub(crate) fn server(seen: ServerSeen) -> ServerView {
    let link = |link: service::LinkRow| LinkView {
        node: link.node.to_string(),
        class: link.class,
        epoch: link.epoch,
        since_ms: link.since_ms,
    };
    ServerView {
        id: seen.row.id.to_string(),
        name: seen.row.name,
        version: seen.row.version,
        heard: seen.is_heard,
        address: seen.row.address,
        started_at_ms: seen.row.started_at_ms,
        heard_at_ms: seen.row.heard_at_ms,
        links: seen.links.into_iter().map(link).collect(),
    }
}
