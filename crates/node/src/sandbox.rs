//! Sandboxes that live on: each has a keeper, which carries out what the control plane orders, one order
//! after the other, and says when the sandbox ends by itself.
//!
//! The newest order counts; the same one again is carried out once. What was ordered is told again until it
//! is reported, so a keeper may die in any line.

mod execs;
mod make;
mod network;
mod reboot;
mod record;
mod start;
mod trust;
mod usage;

use crate::dropped::give_up;
use crate::job::{chain, insist};
use crate::{Node, machine, snapshot};
use api::attach::LinkOpen;
use api::dropped::DroppedWhat;
use api::node::{
    HostChange, HostMoment, SandboxLife, SandboxRef, SandboxReport, SandboxSaid, SandboxWant,
    SandboxWork,
};
use bytes::BytesMut;
use driver::driver::Handle;
use driver::guest::GuestStream;
use execs::Spool;
use make::Made;
use model::id::SandboxId;
use model::node::PROTOCOL_HOST_CHANGE;
use model::place::Reserved;
use network::{Net, Shared};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Mutex, watch};

pub(crate) use network::networks;
pub(crate) use record::{dir_of, known, recover, stands_on};
pub(crate) use usage::watch;

/// Sandboxes that live on and that this node has, by id.
pub(crate) type Kept = HashMap<String, Keeper>;

/// What the rest of the node knows of one of them.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The newest order.
    orders: watch::Sender<Order>,
    /// How its guest is reached.
    handle: Handle,
    /// What its limits name.
    reserved: Reserved,
    /// What it may reach, and the way there.
    net: Shared,
    /// Its guest serves, and nothing in it is stopped. A guest that does not serve yet must not be asked:
    /// it takes whoever connects for its node.
    is_ready: bool,
}

/// How long a guest may go on to answer after its client has said all, or has gone: as long as it may be
/// silent towards the door.
const AFTER_CLIENT: Duration = Duration::from_secs(20 * 60);

/// Bytes that are copied at once: one of the guest's frames, and few enough for a thousand connections.
const COPY_BYTES: usize = 64 * 1024;

/// What a keeper is told.
#[derive(Debug, Clone)]
enum Order {
    /// By the control plane; to be reported.
    Work(Box<SandboxWork>),
    /// It is as it was ordered, up to this epoch.
    Nothing(u64),
    /// It is somebody else's now: away with it, and not a word.
    Drop(u64),
}

impl Order {
    fn epoch(&self) -> u64 {
        match self {
            Order::Work(work) => work.epoch,
            Order::Nothing(epoch) | Order::Drop(epoch) => *epoch,
        }
    }
}

/// What became of an order.
enum Next {
    /// The sandbox is there; this is to be said.
    Stays(SandboxSaid),
    /// It is gone; this is to be said, if anything.
    Gone(Option<SandboxSaid>),
}

impl Node {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each statement under the lock leaves the map whole.
        let sandboxes = self.inner.sandboxes.lock();
        sandboxes.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes orders on. One that is older than what a keeper knows is an echo.
pub(crate) fn order(node: &Node, work: Vec<SandboxWork>) {
    for work in work {
        let id = work.sandbox_id.clone();
        let mut kept = node.kept();
        if let Some(keeper) = kept.get(&id) {
            keeper.orders.send_if_modified(|order| {
                let newer = work.epoch > order.epoch();
                if newer {
                    *order = Order::Work(Box::new(work));
                }
                newer
            });
            continue;
        }
        let Ok(sandbox_id) = id.parse::<SandboxId>() else {
            tracing::warn!(sandbox.id = id, "an order names no sandbox");
            continue;
        };
        let handle = node.inner.driver.handle(&sandbox_id);
        let reserved = machine::reserved(work.spec.limits, work.spec.allow_root);
        let (first, net) = (Order::Work(Box::new(work)), Net::default());
        begin(node, &mut kept, id, (first, handle, net, reserved));
    }
}

/// What is not this node's any more is taken away.
pub(crate) fn drop_stale(node: &Node, stale: &[SandboxRef]) {
    let kept = node.kept();
    for each in stale {
        let keeper = kept.get(&each.sandbox_id);
        if let Some(keeper) = keeper.filter(|keeper| keeper.orders.borrow().epoch() == each.epoch) {
            keeper.orders.send_replace(Order::Drop(each.epoch));
        }
    }
}

/// The sandboxes that are here, each at the epoch of its newest order.
pub(crate) fn held(node: &Node) -> Vec<SandboxRef> {
    let one = |(id, keeper): (&String, &Keeper)| SandboxRef {
        sandbox_id: id.clone(),
        epoch: keeper.orders.borrow().epoch(),
    };
    node.kept().iter().map(one).collect()
}

/// What the limits of each that is here name.
pub(crate) fn reserved(node: &Node) -> Vec<Reserved> {
    node.kept().values().map(|keeper| keeper.reserved).collect()
}

/// Whether one is here.
pub(crate) fn is_here(node: &Node, id: &str) -> bool {
    node.kept().contains_key(id)
}

/// How many more this node would take.
pub(crate) fn free(node: &Node) -> u32 {
    if node.inner.draining.load(Ordering::Acquire) {
        return 0;
    }
    let used = u32::try_from(node.kept().len()).unwrap_or(u32::MAX);
    node.inner.config.sandboxes.saturating_sub(used)
}

/// Lets sandboxes live on. One whose supervisor cannot be told ends at the deadline that it has.
pub(crate) async fn extend(node: &Node, lives: Vec<SandboxLife>) {
    for life in lives {
        let handle = node
            .kept()
            .get(&life.sandbox_id)
            .map(|keeper| keeper.handle.clone());
        let Some(handle) = handle else { continue };
        let span = Duration::from_millis(life.life_ms);
        if let Err(error) = node.inner.driver.extend(&handle, span).await {
            let error = chain(&error);
            tracing::warn!(
                sandbox.id = life.sandbox_id,
                error,
                "failed to extend a sandbox's life"
            );
        }
    }
}

/// Connects a client with the guest of a sandbox. What cannot be reached is closed.
pub(crate) fn link(node: &Node, id: &str, open: LinkOpen) {
    let Some(handle) = node.kept().get(id).map(|keeper| keeper.handle.clone()) else {
        return;
    };
    let connecting = node.clone();
    node.inner.tasks.spawn(async move {
        match connecting.inner.driver.connect(&handle).await {
            Ok(guest) => carry(open.io, guest).await,
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(sandbox.id = %handle.id, error, "a guest cannot be reached");
            }
        }
    });
}

/// Carries bytes both ways until the guest has hung up. A guest that has answered need not read what is
/// still sent to it, so an error on the way to it is none on the way back.
async fn carry(client: DuplexStream, guest: GuestStream) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_guest, mut to_guest) = tokio::io::split(guest);
    let up = async {
        drop(copy(&mut from_client, &mut to_guest).await);
        drop(to_guest.shutdown().await);
        // A client that is gone looks like one that has nothing more to say.
        tokio::time::sleep(AFTER_CLIENT).await;
    };
    let down = async {
        drop(copy(&mut from_guest, &mut to_client).await);
        drop(to_client.shutdown().await);
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Copies to the end. Unlike tokio's, this writes what it has read before it reads on, so that an error of
/// the reader does not swallow what came before it.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(COPY_BYTES);
    while from.read_buf(&mut buffer).await? > 0 {
        to.write_all_buf(&mut buffer).await?;
        buffer.reserve(COPY_BYTES);
    }
    Ok(())
}

/// Starts a keeper with its first order, and with the network of a sandbox that stands.
fn begin(
    node: &Node,
    kept: &mut Kept,
    id: String,
    (first, handle, net, reserved): (Order, Handle, Net, Reserved),
) {
    let net = Arc::new(Mutex::new(net));
    let (orders, told) = watch::channel(first);
    let keeper = Keeper {
        orders,
        handle: handle.clone(),
        reserved,
        net: net.clone(),
        is_ready: false,
    };
    kept.insert(id.clone(), keeper);
    let tasks = node.inner.tasks.clone();
    tasks.spawn(keep(node.clone(), id, (handle, net), told));
}

/// The life of a sandbox on this node.
async fn keep(
    node: Node,
    id: String,
    (mut handle, net): (Handle, Shared),
    mut orders: watch::Receiver<Order>,
) {
    let Some(mut spool) = execs::Spool::open(&node, &id) else {
        return; // An order for what has no such id is not taken.
    };
    loop {
        let order = orders.borrow_and_update().clone();
        if let Order::Work(work) = &order
            && work.want == SandboxWant::Make
        {
            spool.begin(work.spec.exec_base);
        }
        let mut before = moment_before(&node, &order);
        let mut next = match &order {
            Order::Nothing(_) => None,
            Order::Drop(_) => Some(Next::Gone(None)),
            Order::Work(work) => Some(carry_out(&node, work, &mut handle, &net).await),
        };
        if let Some(keeper) = node.kept().get_mut(&id) {
            keeper.handle = handle.clone();
            keeper.is_ready = match (&order, &next) {
                // One that was found again and is as it was ordered; of a paused one nothing moves.
                (Order::Nothing(_), _) => true,
                (_, Some(Next::Stays(said))) => matches!(said, SandboxSaid::Ready { .. }),
                _ => false,
            };
        }
        if let Some(Next::Stays(said)) = next {
            let host = change_since(before.take(), standing(&node));
            say(&node, &id, order.epoch(), (said, host)).await;
            next = None;
        }
        let said = match next {
            Some(Next::Gone(said)) => said,
            Some(Next::Stays(_)) | None => {
                match wait(&node, &handle, &mut orders, &mut spool).await {
                    Some(why) => Some(SandboxSaid::Failed { why }),
                    None => continue,
                }
            }
        };
        // Nothing is let out any more, however long taking it away takes.
        net.lock().await.close();
        execs::last(&node, &handle, &mut spool).await;
        take_away(&node, &handle).await;
        if matches!(&order, Order::Work(work) if work.again) {
            // Another node may have it as soon as we have said so, and then nobody listens to us about it.
            execs::finish(&node, &id, &mut spool).await;
        }
        if let Some(said) = said {
            let host = change_since(before, others(&node));
            say(&node, &id, order.epoch(), (said, host)).await;
        }
        // Nobody who waits for its end waits for the record too. If we die here, the next process finds
        // both, and does this.
        execs::finish(&node, &id, &mut spool).await;
        record::forget(&node, &id);
        if leave(&node, &id, &orders) {
            return;
        }
    }
}

/// All sandboxes that are here.
fn standing(node: &Node) -> usize {
    node.kept().len()
}

/// Those beside one that does not stand yet, or no more: its keeper is there all the same.
fn others(node: &Node) -> usize {
    standing(node).saturating_sub(1)
}

/// The host before an order by which a sandbox is made or taken away is carried out.
fn moment_before(node: &Node, order: &Order) -> Option<HostMoment> {
    let Order::Work(work) = order else {
        return None;
    };
    match work.want {
        SandboxWant::Make => machine::moment(others(node)),
        SandboxWant::Destroy => {
            // Of one that was never made here, or has failed, nothing is left that could be taken away.
            record::of(node, &work.sandbox_id)?;
            machine::moment(standing(node))
        }
        SandboxWant::Pause | SandboxWant::Resume | SandboxWant::Snapshot => None,
    }
}

/// What the host was before, and what it is now with so many sandboxes; nothing where either cannot be read.
fn change_since(before: Option<HostMoment>, sandboxes: usize) -> Option<HostChange> {
    let before = before?;
    let after = machine::moment(sandboxes)?;
    Some(HostChange { before, after })
}

/// Ends a keeper, unless an order has come since the last one that it took: who wants a sandbox gone at the
/// moment at which it ends by itself would else wait for a heartbeat.
fn leave(node: &Node, id: &str, orders: &watch::Receiver<Order>) -> bool {
    let mut kept = node.kept();
    // Looked at under the lock under which orders come.
    if orders.has_changed().unwrap_or(false) {
        return false;
    }
    kept.remove(id);
    // The token of an order that is on its way here stays.
    node.inner.client.lease_over(id, orders.borrow().epoch());
    node.inner.freed.notify_one();
    true
}

/// Waits for the next order, and learns meanwhile what is run; or says why the sandbox has ended without one.
async fn wait(
    node: &Node,
    handle: &Handle,
    orders: &mut watch::Receiver<Order>,
    spool: &mut Spool,
) -> Option<String> {
    let id = handle.id.to_string();
    tokio::select! {
        biased;
        // The sender is in the map for as long as this runs.
        _ = orders.changed() => None,
        ended = node.inner.driver.ended(handle) => Some(match ended {
            Ok(ended) if ended.deadline => "its deadline was over".to_owned(),
            Ok(ended) => ended.failure.unwrap_or_else(|| "its first process ended".to_owned()),
            Err(error) => chain(&error),
        }),
        never = execs::follow(node, &id, handle, spool) => match never {},
    }
}

async fn carry_out(node: &Node, work: &SandboxWork, handle: &mut Handle, net: &Shared) -> Next {
    let failed = |why| Next::Gone(Some(SandboxSaid::Failed { why }));
    let ready = |enforcement| SandboxSaid::Ready {
        driver: node.inner.driver.name().to_owned(),
        enforcement,
    };
    match work.want {
        SandboxWant::Make => match make::make(node, work).await {
            Ok(Made {
                handle: made,
                enforcement,
                way: opened,
            }) => {
                *handle = made;
                let mut net = net.lock().await;
                *net = Net {
                    way: opened,
                    epoch: work.spec.network_epoch,
                    stands: true,
                    given_up: None,
                };
                Next::Stays(ready(enforcement))
            }
            Err(why) => failed(why),
        },
        SandboxWant::Pause => match reboot::pause(node, handle, work.reboot).await {
            Ok(()) => Next::Stays(SandboxSaid::Paused),
            Err(error) => failed(chain(&error)),
        },
        SandboxWant::Resume => match reboot::resume(node, handle, work.reboot).await {
            Ok(()) => Next::Stays(ready(record::enforcement(node, &work.sandbox_id))),
            Err(error) => failed(chain(&error)),
        },
        SandboxWant::Snapshot => match snapshot::copy(node, work, handle).await {
            Ok(said) => Next::Stays(said),
            Err(why) => failed(why),
        },
        SandboxWant::Destroy => Next::Gone(Some(SandboxSaid::Destroyed)),
    }
}

/// Takes a sandbox away, however often it takes: nothing may be said to be gone that is not.
pub(crate) async fn take_away(node: &Node, handle: &Handle) {
    let mut pause = Duration::from_millis(50);
    while let Err(error) = node.inner.driver.destroy(handle).await {
        let error = chain(&error);
        tracing::error!(sandbox.id = %handle.id, error, "failed to take a sandbox away; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(15));
    }
    node.at("node.sandbox_destroyed");
}

/// Reports what became of an order. A report that is refused has been overtaken by another order.
async fn say(node: &Node, id: &str, epoch: u64, (what, host): (SandboxSaid, Option<HostChange>)) {
    let speaks = node.inner.server_speaks.load(Ordering::Acquire);
    let report = SandboxReport {
        epoch,
        what,
        host: host_for(speaks, host),
    };
    let client = &node.inner.client;
    if let Err(error) = insist(|| client.node_sandbox_report(id, &report)).await {
        give_up(node, DroppedWhat::Sandbox, id, &error);
    }
    node.at("node.sandbox_reported");
}

/// What a server of this version takes of it: an older one refuses the whole report for a word that it does not know.
fn host_for(speaks: u32, host: Option<HostChange>) -> Option<HostChange> {
    host.filter(|_| speaks >= PROTOCOL_HOST_CHANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_was_is_said_to_a_server_that_knows_the_word_and_with_both_moments_or_not_at_all()
    {
        let before = HostMoment {
            load_milli: 10,
            memory_available_bytes: 1024,
            sandboxes: 1,
        };
        assert_eq!(change_since(None, 2), None);
        let host = change_since(Some(before), 2).unwrap();
        assert_eq!((host.before, host.after.sandboxes), (before, 2));
        assert!(host.after.memory_available_bytes > 0);
        assert_eq!(host_for(PROTOCOL_HOST_CHANGE - 1, Some(host)), None);
        assert_eq!(host_for(PROTOCOL_HOST_CHANGE, Some(host)), Some(host));
        let report = SandboxReport {
            epoch: 1,
            what: SandboxSaid::Destroyed,
            host: None,
        };
        // To the letter what versions before have said.
        let said = serde_json::to_value(&report).unwrap();
        assert_eq!(
            said,
            serde_json::json!({"epoch": 1, "what": {"kind": "destroyed"}})
        );
    }
}
