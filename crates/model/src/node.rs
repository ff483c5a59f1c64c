//! Nodes: whether one can be reached, and whether it gets new work, are two things.
//!
//! ```text
//! pending ──seen──▶ online ⇄ offline        active ⇄ cordoned
//!                                             ⇅    ↓
//!                                             draining ──▶ decommissioned
//! ```

use crate::place::Reserved;
use serde::{Deserialize, Serialize};

/// Whether a node was heard of lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connectivity {
    /// It was enrolled and has never been heard of.
    Pending,
    /// It renews its leases.
    Online,
    /// Its leases are over.
    Offline,
}

/// Whether a node gets new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduling {
    /// It does.
    Active,
    /// Not until somebody says so.
    Cordoned,
    /// Not until somebody says so; what it has goes on to its end, and somebody waits for that.
    Draining,
    /// It is gone for good.
    Decommissioned,
}

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEvent {
    /// It registered or renewed.
    Seen,
    /// Its leases are over.
    Silent,
    /// No new work, for now.
    Cordon,
    /// New work again.
    Uncordon,
    /// No new work, until what it has is over and somebody says otherwise.
    Drain,
    /// It is gone.
    Decommission,
}

/// A node's two states together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Can it be reached?
    pub connectivity: Connectivity,
    /// Does it get work?
    pub scheduling: Scheduling,
}

impl NodeState {
    /// The state after `event`; `None` where it may not happen.
    pub fn step(self, event: NodeEvent) -> Option<NodeState> {
        use Scheduling::{Active, Cordoned, Decommissioned, Draining};
        let connectivity = |connectivity| {
            Some(NodeState {
                connectivity,
                ..self
            })
        };
        let scheduling = |scheduling| Some(NodeState { scheduling, ..self });
        match (self.scheduling, event) {
            (Decommissioned, NodeEvent::Decommission) => Some(self),
            (Decommissioned, _) => None,
            (_, NodeEvent::Seen) => connectivity(Connectivity::Online),
            (_, NodeEvent::Silent) => connectivity(Connectivity::Offline),
            (Active | Cordoned, NodeEvent::Cordon) => scheduling(Cordoned),
            // A drain by mistake must not cost a node: with `up` it is the only one.
            (Active | Cordoned | Draining, NodeEvent::Uncordon) => scheduling(Active),
            // It would say less than was asked before.
            (Draining, NodeEvent::Cordon) => None,
            (_, NodeEvent::Drain) => scheduling(Draining),
            (_, NodeEvent::Decommission) => scheduling(Decommissioned),
        }
    }
}

/// What sort of machine a node is, by its own word. It decides nothing by itself; it is the label
/// [`KIND`](crate::place::KIND), so that a placement can ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// It stands somewhere and stays on.
    #[default]
    Server,
    /// Somebody sits at it, and may close its lid.
    Desktop,
    /// Somebody carries it about.
    Mobile,
    /// It is there for other devices, which are no nodes.
    Bridge,
}

impl NodeKind {
    /// All of them.
    pub const ALL: [NodeKind; 4] = [
        NodeKind::Server,
        NodeKind::Desktop,
        NodeKind::Mobile,
        NodeKind::Bridge,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeKind::Server => "server",
            NodeKind::Desktop => "desktop",
            NodeKind::Mobile => "mobile",
            NodeKind::Bridge => "bridge",
        }
    }

    /// The one that is written so.
    pub fn parse(text: &str) -> Option<NodeKind> {
        NodeKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The versions of the node protocol that this build speaks, the oldest and the newest. The oldest grows when a
/// server cannot do with what older nodes say; servers are upgraded before nodes.
pub const PROTOCOL: (u32, u32) = (1, 3);
/// From this version on a node shows the token of a lease with everything that it says about it, and servers take
/// nothing without. Nodes of the version before have none, and what they say is judged by their certificate alone.
pub const PROTOCOL_LEASE_TOKENS: u32 = 2;
/// From this version on a node says with a piece of output what is missing before it, and servers take no hole that
/// was not declared. Of nodes of the versions before, a piece may begin anywhere.
pub const PROTOCOL_DECLARED_GAPS: u32 = 3;
/// From this version on a node says what its host was before and after it made a sandbox or took it away. Servers of
/// the versions before refuse the word.
pub const PROTOCOL_HOST_CHANGE: u32 = 3;

/// Whether two sides have a version of the protocol in common.
pub fn is_compatible(ours: (u32, u32), theirs: (u32, u32)) -> bool {
    theirs.0 <= theirs.1 && theirs.0 <= ours.1 && ours.0 <= theirs.1
}

/// Whether a version of the program is older than another: by its three numbers, as Semantic Versioning 2.0.0 has
/// them. What is no such version is not.
pub fn is_older(one: &str, other: &str) -> bool {
    let numbers = |text: &str| -> Option<[u64; 3]> {
        let plain = text.split(['-', '+']).next()?;
        let mut parts = plain.split('.').map(|part| part.parse().ok());
        let three = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(three)
    };
    match (numbers(one), numbers(other)) {
        (Some(one), Some(other)) => one < other,
        _ => false,
    }
}

/// What a node says of its machine with a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostReport {
    /// The kernel, as `uname -r` says it.
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// How many processes want one, as a mean over a minute, in thousandths.
    pub load_milli: u64,
    /// Bytes of memory, and those that could be had now.
    pub memory_bytes: u64,
    /// Of it, what could be had now.
    pub memory_free_bytes: u64,
    /// Bytes of the disk that it keeps its things on.
    pub disk_bytes: u64,
    /// Of it, what is free.
    pub disk_free_bytes: u64,
    /// What the limits of what it has name.
    pub reserved: Reserved,
    /// How busy it is.
    pub busy: Option<Busy>,
    /// What is left behind on it, as it was looked last.
    pub leftovers: Option<Leftovers>,
    /// How it isolates, and whether that works.
    pub drivers: Vec<DriverHealth>,
    /// Why it takes nothing new at the moment.
    pub refuses: Option<String>,
}

/// What a host was before and after an order was carried out. It is for people: nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostChange {
    /// Before its node began.
    pub before: HostMoment,
    /// When it was done.
    pub after: HostMoment,
}

/// A host at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMoment {
    /// How many processes want a processor, as a mean over a minute, in thousandths.
    pub load_milli: u64,
    /// Bytes of memory that could be had.
    pub memory_available_bytes: u64,
    /// Sandboxes that live on, by its node's count.
    pub sandboxes: u32,
}

/// How busy a machine is. It is for people: nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Busy {
    /// How many processes want a processor, as a mean over five minutes, in thousandths.
    pub load_5_milli: u64,
    /// The same over fifteen.
    pub load_15_milli: u64,
    /// Threads on the machine, ours and all others.
    pub threads: u64,
    /// Jobs that the node has, by its own count.
    pub jobs: u32,
    /// Sandboxes that live on.
    pub sandboxes: u32,
    /// Sandboxes that stand ready for the next jobs.
    pub spares: u32,
    /// How much is waited there, where the kernel counts it.
    pub pressure: Option<Pressure>,
}

/// In how much of the last ten seconds something had to wait, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// For a processor.
    pub cpu_milli: u32,
    /// For memory.
    pub memory_milli: u32,
    /// For a disk.
    pub io_milli: u32,
}

/// What earlier nodes have left behind on a machine and nobody has a record of. It is for people: it takes itself
/// away by nobody's order but theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Leftovers {
    /// Directories of nodes, and control groups of sandboxes.
    pub count: u32,
    /// Bytes of disk that they take, as far as they were looked at.
    pub bytes: u64,
    /// When it was looked, in milliseconds since 1970.
    pub at_ms: u64,
    /// Not all could be looked at.
    pub partial: bool,
}

/// Whether a driver works.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DriverHealth {
    /// Which.
    pub name: String,
    /// It has made a sandbox, or has not failed several times in a row.
    pub healthy: bool,
    /// What it failed with last.
    pub why: Option<String>,
}

/// Texts of a report in bytes, and drivers in it: it is kept, and read with each look at a node.
const REPORT_TEXT_MAX: usize = 256;
const REPORT_DRIVERS_MAX: usize = 16;

impl HostReport {
    /// The same with nothing that is too long. A machine may say what it likes of itself.
    #[must_use]
    pub fn bounded(mut self) -> HostReport {
        let cut = |text: &mut String| {
            let end = text.floor_char_boundary(REPORT_TEXT_MAX);
            text.truncate(end);
        };
        cut(&mut self.kernel);
        self.refuses.iter_mut().for_each(cut);
        self.drivers.truncate(REPORT_DRIVERS_MAX);
        for driver in &mut self.drivers {
            cut(&mut driver.name);
            driver.why.iter_mut().for_each(cut);
        }
        self
    }

    /// Whether it can make sandboxes. Who says nothing of drivers is believed to.
    pub fn is_healthy(&self) -> bool {
        self.drivers.is_empty() || self.drivers.iter().any(|driver| driver.healthy)
    }

    /// What is other than it was before and worth an event, in words: what changes with every heartbeat is not.
    pub fn news(&self, before: &HostReport) -> Vec<String> {
        let mut news = Vec::new();
        let mut told = |what: &str, was: String, is: String| {
            if was != is {
                news.push(format!("{what}: {was} -> {is}"));
            }
        };
        told("kernel", before.kernel.clone(), self.kernel.clone());
        told("cpus", before.cpus.to_string(), self.cpus.to_string());
        let number = |one: u64| one.to_string();
        told(
            "memory_bytes",
            number(before.memory_bytes),
            number(self.memory_bytes),
        );
        told(
            "disk_bytes",
            number(before.disk_bytes),
            number(self.disk_bytes),
        );
        // Without the numbers behind it, which are others with every heartbeat.
        let word = |why: &Option<String>| {
            let why = why.as_deref().unwrap_or("nothing");
            why.split_once(':').map_or(why, |(word, _)| word).to_owned()
        };
        told("refuses", word(&before.refuses), word(&self.refuses));
        let drivers = |report: &HostReport| {
            let one = |driver: &DriverHealth| {
                let health = if driver.healthy { "" } else { " (unhealthy)" };
                format!("{}{health}", driver.name)
            };
            report
                .drivers
                .iter()
                .map(one)
                .collect::<Vec<_>>()
                .join(", ")
        };
        told("drivers", drivers(before), drivers(self));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decommissioned_node_never_comes_back() {
        let gone = NodeState {
            connectivity: Connectivity::Offline,
            scheduling: Scheduling::Decommissioned,
        };
        assert_eq!(gone.step(NodeEvent::Seen), None);
        assert_eq!(gone.step(NodeEvent::Decommission), Some(gone));
    }

    #[test]
    fn a_draining_node_is_heard_and_gets_no_work_until_somebody_says_so() {
        let draining = NodeState {
            connectivity: Connectivity::Offline,
            scheduling: Scheduling::Draining,
        };
        let seen = draining.step(NodeEvent::Seen).unwrap();
        assert_eq!(seen.connectivity, Connectivity::Online);
        assert_eq!(seen.scheduling, Scheduling::Draining);
        assert_eq!(seen.step(NodeEvent::Cordon), None);
        let back = seen.step(NodeEvent::Uncordon).unwrap();
        assert_eq!(back.scheduling, Scheduling::Active);
    }

    #[test]
    fn two_sides_understand_each_other_where_their_ranges_meet() {
        for (ours, theirs, expect) in [
            ((1, 1), (1, 1), true),
            ((2, 3), (1, 2), true),
            ((2, 3), (1, 1), false),
            ((2, 3), (4, 9), false),
            ((2, 3), (3, 2), false),
        ] {
            assert_eq!(is_compatible(ours, theirs), expect, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn that_a_disk_is_still_full_is_no_news() {
        let full = |why: &str| HostReport {
            refuses: Some(why.to_owned()),
            ..HostReport::default()
        };
        let [before, after] = [
            "disk_full: 10 bytes are free",
            "disk_full: 9 bytes are free",
        ]
        .map(full);
        assert_eq!(after.news(&before), Vec::<String>::new());
        let free = HostReport::default().news(&before);
        assert_eq!(free.len(), 1, "{free:?}");
    }

    #[test]
    fn a_kind_is_read_as_it_is_written() {
        for kind in NodeKind::ALL {
            let text = kind.as_str();
            assert_eq!(NodeKind::parse(text), Some(kind));
            let written = serde_json::to_string(&kind).unwrap();
            assert_eq!(written, format!("\"{text}\""));
        }
        assert_eq!(NodeKind::parse("Server"), None);
        assert_eq!(NodeKind::default().as_str(), "server");
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (one, other, expect) in [
            ("0.1.0", "0.2.0", true),
            ("0.9.0", "0.10.0", true),
            ("1.0.0", "1.0.0", false),
            ("1.0.0-rc.1", "1.0.0", false),
            ("x", "1.0.0", false),
            ("1.0", "2.0.0", false),
            ("1.0.0.0", "2.0.0", false),
        ] {
            assert_eq!(is_older(one, other), expect, "{one} {other}");
        }
    }

    #[test]
    fn what_a_machine_says_is_cut_and_only_what_matters_is_news() {
        let long = HostReport {
            kernel: "ö".repeat(1000),
            drivers: vec![DriverHealth::default(); 100],
            ..HostReport::default()
        };
        let cut = long.bounded();
        assert_eq!((cut.kernel.len(), cut.drivers.len()), (256, 16));
        let was = HostReport::default();
        let is = HostReport {
            load_milli: 9,
            memory_free_bytes: 9,
            busy: Some(Busy::default()),
            leftovers: Some(Leftovers::default()),
            ..was.clone()
        };
        assert!(is.news(&was).is_empty());
        let refuses = Some("disk_full".to_owned());
        let is = HostReport { refuses, ..is };
        assert_eq!(is.news(&was), ["refuses: nothing -> disk_full"]);
    }
}
