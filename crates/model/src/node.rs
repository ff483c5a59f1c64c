//! Nodes: whether one can be reached, and whether it gets new work, are two things.
//!
//! ```text
//! pending ──seen──▶ online ⇄ offline        active ⇄ cordoned
//!                                             ⇅    ↓
//!                                             draining ──▶ decommissioned
//! ```

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
}
