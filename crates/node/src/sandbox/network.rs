//! Rules of a network that change while a sandbox lives.
//!
//! They are on the disk before they are in force, so that a process that takes over after a crash has them or newer
//! ones; and they are reported after that. If we die in between, they are told again, and only reported. A sandbox
//! that had no way out gets its network device before all that: if we die then, nobody serves it, and the one
//! that takes over finds it there.

use super::{make, record, trust};
use crate::dropped::give_up;
use crate::job::{Broken, chain, insist};
use crate::secret::Secrets;
use crate::way::{self, WayOut};
use crate::{Node, convert, inspect};
use ::egress::inspect::Inspector;
use api::dropped::DroppedWhat;
use api::job::Enforced;
use api::network::{NetworkRefused, NetworkReport, NetworkWork};
use driver::driver::Handle;
use model::network::NetworkRules;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A guest takes files and variables at once, also while its programs are frozen; one that does not is told again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries to put rules in force before they are given up, and the pause between two: what passes by itself, as a
/// machine that is full for a moment, has passed then, and whoever waits for the answer still does.
const TRIES: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(1);

/// Bytes of a reason.
const WHY_BYTES_MAX: usize = 1024;

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
    /// Rules that were given up, and why. They are never tried again: their refusal may be known already.
    pub(super) given_up: Option<(u64, String)>,
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
    let Some(report) = settle(node, net, handle, &work).await else {
        return;
    };
    node.at("node.network_in_force");
    let client = &node.inner.client;
    if let Err(error) = insist(|| client.node_sandbox_network(id, &report)).await {
        give_up(node, DroppedWhat::Network, id, &error);
    }
}

/// Puts rules in force, or gives them up; `None` where there is nothing to say of them.
async fn settle(
    node: &Node,
    net: &Shared,
    handle: &Handle,
    work: &NetworkWork,
) -> Option<NetworkReport> {
    let id = work.sandbox_id.as_str();
    for tried in 1.. {
        // Before the lock, which whoever ends the sandbox waits for: a provider may take seconds.
        let secrets = secrets_first(node, work).await;
        let mut held = net.lock().await;
        let given_up = held
            .given_up
            .clone()
            .filter(|(epoch, _)| *epoch == work.epoch);
        if let Some((_, why)) = given_up {
            return refused(node, work, why);
        }
        match put_in_force(node, &mut held, handle, (work, secrets)).await {
            Ok(enforcement) => {
                return Some(NetworkReport {
                    epoch: work.epoch,
                    enforcement: enforcement?,
                    refused: None,
                });
            }
            Err(why) => {
                tracing::warn!(
                    sandbox.id = id,
                    why,
                    "rules of a network cannot be put in force"
                );
                if tried >= TRIES {
                    // Under the lock, so that nobody puts in force what is refused now.
                    held.given_up = Some((work.epoch, why));
                }
            }
        }
        drop(held);
        if tried < TRIES {
            tokio::time::sleep(BETWEEN).await;
        }
    }
    None
}

/// Says which rules hold instead. Where that is not known, nothing is said, and a heartbeat says it all again.
fn refused(node: &Node, work: &NetworkWork, mut why: String) -> Option<NetworkReport> {
    why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
    let in_force = record::network(node, &work.sandbox_id)?;
    Some(NetworkReport {
        epoch: work.epoch,
        enforcement: Vec::new(),
        refused: Some(NetworkRefused { why, in_force }),
    })
}

/// What is in force then; `None` where that is for somebody else to say.
async fn put_in_force(
    node: &Node,
    net: &mut Net,
    handle: &Handle,
    (work, secrets): (&NetworkWork, Result<Option<Secrets>, String>),
) -> Result<Option<Vec<Enforced>>, String> {
    let id = work.sandbox_id.as_str();
    if !net.stands || work.epoch < net.epoch {
        return Ok(None);
    }
    if work.epoch > net.epoch {
        let rules = convert::network(&work.network)?;
        if net.way.is_none() && rules.has_way_out() {
            let prepared = way::prepare(node, handle).await;
            prepared.map_err(|error| {
                let why = chain(&error);
                format!("the network device of the sandbox cannot be made: {why}")
            })?;
            node.at("node.network_prepared");
        }
        // Before the rules are in force: nothing that they let out meets a certificate that it does not know.
        let looks = looks_first(node, net, handle, (&rules, secrets?)).await?;
        let (looks, trusted) = looks.unzip();
        let written = record::set_network(node, id, work, (&rules, trusted.flatten()));
        written.map_err(|error| format!("the node cannot write its records: {error}"))?;
        node.at("node.network_written");
        match &net.way {
            // It stays open also where nothing is let out any more: then it says so.
            Some(way) => way.set(rules, looks),
            None if rules.has_way_out() => {
                let record = record::of(node, handle.id.as_str());
                let again = || record.and_then(|record| record::looks_again(node, &record, &rules));
                let ready = looks.map(|looks| Box::pin(async { looks }) as way::Coming);
                let looks = ready.or_else(again);
                net.way = Some(way::reopen(node, handle, None, (rules, looks)));
            }
            None => {}
        }
        net.epoch = work.epoch;
    }
    Ok(Some(record::enforcement(node, id)))
}

/// The values of the secrets for what leaves by these rules, where they are others than those in force.
async fn secrets_first(node: &Node, work: &NetworkWork) -> Result<Option<Secrets>, String> {
    let id = work.sandbox_id.as_str();
    match &work.network.secrets {
        Some(wanted) if record::leaving_of(node, id).as_ref() != Some(wanted) => {
            if wanted.is_empty() {
                return Ok(Some(Secrets::default()));
            }
            make::leaving(node, id, wanted).await.map(Some)
        }
        Some(_) | None => Ok(None),
    }
}

/// What looks into requests, where these are the first rules about them, or there are other secrets for what leaves.
/// Its programs are told whom to trust, if they were not, and the clause says where; those that run already, and ask a
/// variable, are not.
async fn looks_first(
    node: &Node,
    net: &Net,
    handle: &Handle,
    (rules, secrets): (&NetworkRules, Option<Secrets>),
) -> Result<Option<(Inspector, Option<Enforced>)>, String> {
    let can_look = net.way.as_ref().is_some_and(WayOut::can_look);
    // One that has secrets for what leaves looks in by itself as soon as their values are had again.
    let waits = can_look || record::looks_into(node, handle.id.as_str());
    if secrets.is_none() && (!rules.needs_trust() || waits) {
        return Ok(None);
    }
    let secrets = secrets.unwrap_or_default();
    let of = (secrets.fields, secrets.password, secrets.sent);
    let looks = make::look(node, handle.id.as_str(), of)?;
    if can_look {
        return Ok(Some((looks.inspector, None)));
    }
    let telling = async {
        let trusted = trust::put(node, handle, &looks).await?;
        let stream = node.inner.driver.connect(handle).await?;
        driver::guest::add_env(stream, inspect::environment().collect()).await?;
        Ok::<_, Broken>(trusted)
    };
    let told = tokio::time::timeout(PATIENCE, telling).await;
    let told = told.map_err(|_| Broken::Silent).flatten();
    let trusted = told.map_err(|error| {
        format!(
            "its programs cannot be told whom to trust: {}",
            chain(&error)
        )
    })?;
    Ok(Some((looks.inspector, trusted)))
}
