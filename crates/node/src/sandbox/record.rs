//! What is written down of a sandbox that lives on, and what the next process makes of it.

use super::network::Net;
use super::{Order, begin, execs, make, take_away, trust};
use crate::way::{self, WayOut};
use crate::{Node, convert, machine, record as file};
use api::job::Enforced;
use api::network::{Network, NetworkMode, NetworkWork};
use api::node::{HeldSandbox, SandboxSaid, SandboxWork};
use api::sandbox::SandboxStateName;
use api::secret::{SecretHow, SecretUse};
use driver::driver::{Found, Handle};
use model::network::NetworkRules;
use model::place::Reserved;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The version of this file.
const VERSION: u32 = 1;

/// A sandbox that lives on, on this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    sandbox_id: String,
    /// Written down before it is started.
    pub(super) handle: Handle,
    enforcement: Vec<Enforced>,
    /// It has a way out, or had one, which the next process opens again. Records of older builds have none.
    #[serde(default)]
    way_out: bool,
    /// It has secrets for what leaves.
    #[serde(default)]
    looks_into: bool,
    /// What it may reach; in records of older builds everything, where there is a way out.
    #[serde(default)]
    network: Option<Network>,
    /// Of these rules.
    #[serde(default)]
    network_epoch: u64,
    /// The secrets for what leaves by these rules, never their values. Records of older builds have none.
    #[serde(default)]
    leaving: Option<Vec<SecretUse>>,
    /// The snapshots that it stands on.
    #[serde(default)]
    layers: Vec<String>,
    /// The last number that commands of its earlier places have.
    #[serde(default)]
    pub(super) exec_base: u64,
    /// What its limits name.
    #[serde(default)]
    reserved: Reserved,
}

impl Record {
    pub(super) fn new(work: &SandboxWork, handle: Handle, enforcement: Vec<Enforced>) -> Record {
        Record {
            version: VERSION,
            sandbox_id: work.sandbox_id.clone(),
            handle,
            enforcement,
            looks_into: work.spec.secrets.iter().any(leaves),
            leaving: Some(leaving(&work.spec.secrets)),
            way_out: !matches!(work.spec.network.mode, None | Some(NetworkMode::None)),
            network: Some(work.spec.network.clone()),
            network_epoch: work.spec.network_epoch,
            layers: work.spec.layers.clone(),
            exec_base: work.spec.exec_base,
            reserved: machine::reserved(work.spec.limits, work.spec.allow_root),
        }
    }
}

/// Writes down other rules, and what is in force by them; and whom programs trust for them, where that was put inside.
pub(super) fn set_network(
    node: &Node,
    id: &str,
    work: &NetworkWork,
    (rules, trusted): (&NetworkRules, Option<Enforced>),
) -> io::Result<()> {
    let mut record = of(node, id).ok_or(io::ErrorKind::NotFound)?;
    record.way_out |= rules.has_way_out();
    record.network = Some(work.network.clone());
    record.network_epoch = work.epoch;
    if let Some(uses) = &work.network.secrets {
        record.looks_into = !uses.is_empty();
        record.leaving = Some(uses.clone());
    }
    way::describe(&mut record.enforcement, rules, &node.inner.host);
    if let Some(clause) = trusted {
        trust::say(&mut record.enforcement, clause);
    }
    write(node, &record)
}

/// Whether a secret is for what leaves, and never inside.
pub(super) fn leaves(one: &SecretUse) -> bool {
    matches!(one.how, SecretHow::Header { .. } | SecretHow::Upstream)
}

fn leaving(uses: &[SecretUse]) -> Vec<SecretUse> {
    let leaving = uses.iter().filter(|one| leaves(one));
    leaving.cloned().collect()
}

/// The secrets for what leaves that are in force, as far as they were written down.
pub(super) fn leaving_of(node: &Node, id: &str) -> Option<Vec<SecretUse>> {
    of(node, id)?.leaving
}

fn dir(node: &Node) -> PathBuf {
    node.inner.config.dir.join("sandboxes")
}

/// Only what a driver would take as the id of a sandbox gets a path.
pub(crate) fn dir_of(node: &Node, id: &str) -> Option<PathBuf> {
    let id = id.parse::<model::id::SandboxId>().ok()?;
    Some(dir(node).join(id.as_str()))
}

pub(super) fn write(node: &Node, record: &Record) -> io::Result<()> {
    let dir = dir_of(node, &record.sandbox_id).ok_or(io::ErrorKind::InvalidInput)?;
    file::prepare(record, &dir)?.put()
}

/// What is written down of it.
pub(super) fn of(node: &Node, id: &str) -> Option<Record> {
    let record: Record = file::read(&dir_of(node, id)?)?;
    (record.version == VERSION).then_some(record)
}

/// The rules of its network that are in force.
pub(super) fn network(node: &Node, id: &str) -> Option<Network> {
    of(node, id)?.network
}

/// Whether it has secrets for what leaves, whose values the next process asks for again.
pub(super) fn looks_into(node: &Node, id: &str) -> bool {
    of(node, id).is_some_and(|record| record.looks_into)
}

/// What is in force around it.
pub(super) fn enforcement(node: &Node, id: &str) -> Vec<Enforced> {
    of(node, id)
        .map(|record| record.enforcement)
        .unwrap_or_default()
}

pub(super) fn forget(node: &Node, id: &str) {
    if let Some(dir) = dir_of(node, id) {
        file::remove(&dir);
    }
}

/// Whether a sandbox that is written down stands on a snapshot.
pub(crate) fn stands_on(node: &Node, layer: &str) -> bool {
    let dirs = file::dirs(&dir(node));
    let mut records = dirs.iter().filter_map(|dir| file::read::<Record>(dir));
    records.any(|record| record.layers.iter().any(|one| one == layer))
}

/// The handles of all that are written down.
pub(crate) fn known(node: &Node) -> Vec<Handle> {
    let dirs = file::dirs(&dir(node));
    let records = dirs.iter().filter_map(|dir| file::read::<Record>(dir));
    records.map(|record| record.handle).collect()
}

/// After a start: keeps what the control plane believes in and what still runs, reports what has ended
/// meanwhile, and takes away what nobody believes in.
pub(crate) async fn recover(node: &Node, held: Vec<HeldSandbox>) {
    let mut held: HashMap<String, HeldSandbox> = held
        .into_iter()
        .map(|one| (one.sandbox_id.clone(), one))
        .collect();
    for dir in file::dirs(&dir(node)) {
        let record = file::read::<Record>(&dir).filter(|record| record.version == VERSION);
        let Some(record) = record else {
            // We can be here if the last process died while it wrote its first record: nothing was started.
            file::remove(&dir);
            continue;
        };
        match held.remove(&record.sandbox_id) {
            Some(held) => take_up(node, record, &held).await,
            None => {
                take_away(node, &record.handle).await;
                wind_up(node, record.sandbox_id);
            }
        }
    }
    for lost in held.into_values() {
        // One that was never made is ordered again; of one that stood, nothing is left.
        if stood(&lost) {
            say_lost(node, &lost).await;
        }
    }
}

/// Rules that cannot be read let nothing out.
fn reopen(node: &Node, record: &Record) -> WayOut {
    let rules = match &record.network {
        Some(network) => convert::network(network),
        None => Ok(NetworkRules::all_or_nothing(true)),
    };
    let rules = rules.unwrap_or_else(|why| {
        tracing::error!(
            sandbox.id = record.sandbox_id,
            why,
            "rules of a network cannot be read"
        );
        NetworkRules::default()
    });
    let looks = looks_again(node, record, &rules);
    way::reopen(node, &record.handle, None, (rules, looks))
}

/// What looks into the HTTPS of a sandbox that stands, where there are rules about requests or secrets for what
/// leaves. Where it cannot be set up, rules let nothing out to their hosts.
pub(super) fn looks_again(
    node: &Node,
    record: &Record,
    rules: &NetworkRules,
) -> Option<way::Coming> {
    if record.looks_into {
        let looking = make::look_again(node.clone(), record.sandbox_id.clone());
        return Some(Box::pin(looking));
    }
    if !rules.needs_trust() {
        return None;
    }
    let id = record.sandbox_id.as_str();
    let looks = make::look(node, id, (Vec::new(), None, None));
    let failed = |why: &String| tracing::error!(sandbox.id = id, why, "rules about requests deny");
    let inspector = looks.inspect_err(failed).ok()?.inspector;
    Some(Box::pin(async { inspector }))
}

fn stood(held: &HeldSandbox) -> bool {
    !matches!(
        held.state,
        SandboxStateName::Requested | SandboxStateName::Provisioning | SandboxStateName::Recreating
    )
}

async fn take_up(node: &Node, record: Record, held: &HeldSandbox) {
    let found = node.inner.driver.find(&record.handle).await;
    let id = record.sandbox_id.clone();
    let goes = held.state == SandboxStateName::Recreating;
    if !stood(held) && !goes {
        // It is ordered again, and what is left of this try is taken away then.
        return;
    }
    // A place that is to go has ended before its time, and what was run there is told all the same.
    if !goes && !matches!(found, Ok(Found::Running)) {
        tracing::warn!(
            sandbox.id = id,
            ?found,
            "a sandbox did not outlive the agent"
        );
        take_away(node, &record.handle).await;
        wind_up(node, id);
        return say_lost(node, held).await;
    }
    let life = Duration::from_millis(held.life_ms);
    if let Err(error) = node.inner.driver.extend(&record.handle, life).await {
        tracing::warn!(sandbox.id = id, %error, "failed to extend a sandbox's life");
    }
    let settled = [SandboxStateName::Ready, SandboxStateName::Paused].contains(&held.state);
    // The order that is under way comes again, and must not be taken for an echo.
    let done = held.epoch.saturating_sub(u64::from(!settled));
    let net = Net {
        way: record.way_out.then(|| reopen(node, &record)),
        epoch: record.network_epoch,
        stands: true,
        given_up: None,
    };
    let first = Order::Nothing(done);
    let of = (first, record.handle, net, record.reserved);
    begin(node, &mut node.kept(), id, of);
}

/// Tells what is left to tell of a sandbox that is gone, and forgets it.
fn wind_up(node: &Node, id: String) {
    let spool = execs::Spool::open(node, &id);
    let telling = node.clone();
    node.inner.tasks.spawn(async move {
        if let Some(mut spool) = spool {
            execs::finish(&telling, &id, &mut spool).await;
        }
        forget(&telling, &id);
    });
}

async fn say_lost(node: &Node, held: &HeldSandbox) {
    let why = "it did not outlive the node's agent".to_owned();
    // What the host was before it went, nobody has seen.
    let said = (SandboxSaid::Failed { why }, None);
    super::say(node, &held.sandbox_id, held.epoch, said).await;
    node.inner.client.lease_over(&held.sandbox_id, held.epoch);
}
