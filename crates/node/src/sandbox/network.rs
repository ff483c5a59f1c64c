//! Rules of a network that change while a sandbox lives.
//!
//! They are on the disk before they are in force, so that a process that takes over after a crash has them or newer
//! ones; and they are reported after that. If we die in between, they are told again, and only reported. A sandbox
//! that had no way out gets its network device before all that: if we die then, nobody serves it, and the one
//! that takes over finds it there.

use super::record;
use crate::job::{chain, insist};
use crate::way::{self, WayOut};
use crate::{Node, convert};
use api::job::Enforced;
use api::network::{NetworkReport, NetworkWork};
use driver::driver::Handle;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

/// The network of a sandbox, shared by its keeper and whoever brings other rules: these wait for no order that is
/// being carried out.
pub(super) type Shared = Arc<Mutex<Net>>;

/// The network of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Net {
    /// Where there is one, or was.
    pub(super) way: Option<WayOut>,
    /// Of the rules in force.
    pub(super) epoch: u64,
    /// The sandbox stands, and is written down.
    pub(super) stands: bool,
}

impl Net {
    /// Nothing is let out any more.
    pub(super) fn close(&mut self) {
        self.way = None;
        self.stands = false;
    }
}

/// Takes rules over, each sandbox by itself.
pub(crate) fn networks(node: &Node, works: Vec<NetworkWork>) {
    for work in works {
        let kept = node.kept();
        let Some(keeper) = kept.get(&work.sandbox_id) else {
            continue; // It has ended; its keeper says so.
        };
        let (node, net, handle) = (node.clone(), keeper.net.clone(), keeper.handle.clone());
        let tasks = node.inner.tasks.clone();
        tasks.spawn(async move { take_over(&node, &net, &handle, work).await });
    }
}

async fn take_over(node: &Node, net: &Shared, handle: &Handle, work: NetworkWork) {
    let id = work.sandbox_id.as_str();
    let enforcement = match put_in_force(node, net.lock().await, handle, &work).await {
        Ok(Some(enforcement)) => enforcement,
        Ok(None) => return,
        Err(why) => {
            // A heartbeat says it again.
            tracing::warn!(
                sandbox.id = id,
                why,
                "rules of a network cannot be put in force"
            );
            return;
        }
    };
    node.at("node.network_in_force");
    let report = NetworkReport {
        epoch: work.epoch,
        enforcement,
    };
    let client = &node.inner.client;
    if let Err(error) = insist(|| client.node_sandbox_network(id, &report)).await {
        let error = chain(&error);
        tracing::warn!(sandbox.id = id, error, "rules in force were not accepted");
    }
}

/// What is in force then; `None` where that is for somebody else to say.
async fn put_in_force(
    node: &Node,
    mut net: MutexGuard<'_, Net>,
    handle: &Handle,
    work: &NetworkWork,
) -> Result<Option<Vec<Enforced>>, String> {
    let id = work.sandbox_id.as_str();
    if !net.stands || work.epoch < net.epoch {
        return Ok(None);
    }
    if work.epoch > net.epoch {
        let rules = convert::network(&work.network)?;
        if net.way.is_none() && rules.has_way_out() {
            let prepared = way::prepare(node, handle).await;
            prepared.map_err(|error| chain(&error))?;
            node.at("node.network_prepared");
        }
        let written = record::set_network(node, id, work, &rules);
        written.map_err(|error| format!("the node cannot write its records: {error}"))?;
        node.at("node.network_written");
        match &net.way {
            // It stays open also where nothing is let out any more: then it says so.
            Some(way) => way.set_rules(rules),
            None if rules.has_way_out() => {
                let record = record::of(node, handle.id.as_str());
                let looks = record.and_then(|record| record::looks_again(node, &record));
                net.way = Some(way::reopen(node, handle, None, (rules, looks)));
            }
            None => {}
        }
        net.epoch = work.epoch;
    }
    Ok(Some(record::enforcement(node, id)))
}
