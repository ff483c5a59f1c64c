//! The node's own loops: registering, renewing, polling, and handing clients to jobs.

use crate::job::fence;
use crate::tries::Tries;
use crate::{
    Node, connections, convert, dropped, egress, job, machine, recover, root, sandbox, snapshot,
    spare, volume,
};
use api::attach::{LinkOpen, LinkTarget};
use api::node::{JobRef, NodeHeartbeat, NodePoll, NodeProtocol, NodeRegister};
use model::{lease, limits};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long one poll waits for work.
const POLL_WAIT: Duration = Duration::from_secs(20);

/// Works until `stop`.
pub(crate) async fn run(node: &Node, links: mpsc::Receiver<LinkOpen>, stop: CancellationToken) {
    let work = async {
        register(node).await;
        let filling = node.clone();
        node.inner
            .tasks
            .spawn(async move { spare::fill(&filling).await });
        tokio::join!(
            renew(node),
            poll_for_jobs(node),
            poll_for_sandboxes(node),
            sandbox::watch(node),
            egress::tell(node),
            hand_over(node, links)
        );
    };
    // Dropped where it waits: everything that must not be forgotten is on the disk.
    stop.run_until_cancelled(work).await;
}

/// What the operator opened, for whoever asks what would become of a request.
fn opened(node: &Node) -> impl Iterator<Item = (String, String)> {
    let all = node.inner.config.egress_allow.iter().enumerate();
    let all = all.take(model::exception::FACTS_MAX);
    all.map(|(number, one)| {
        let name = format!("{}{number}", model::exception::FACT);
        (name, one.to_string())
    })
}

/// Registers, and takes up what is left from before.
async fn register(node: &Node) {
    let host = &node.inner.host;
    let mut facts = BTreeMap::from([
        ("memory_bytes".to_owned(), host.memory_bytes.to_string()),
        (
            "disk_bytes".to_owned(),
            volume::disk_bytes(node).to_string(),
        ),
        ("cpus".to_owned(), host.cpus.to_string()),
        ("landlock_abi".to_owned(), host.landlock_abi.to_string()),
        // What the control plane looks for when somebody wants a volume.
        ("volumes".to_owned(), volume::can_be_kept(host).to_owned()),
    ]);
    facts.extend(root::facts(node));
    facts.extend(opened(node));
    let hello = NodeRegister {
        name: node.inner.config.name.clone(),
        incarnation: node.inner.config.incarnation.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kind: Some(convert::kind(node.inner.config.kind)),
        labels: node.inner.config.labels.clone(),
        slots: node.inner.config.slots,
        drivers: vec![node.inner.driver.name().to_owned()],
        facts,
        protocol: protocol(),
    };
    let mut tries = Tries::default();
    loop {
        let sent = fence::boot_ms();
        match node.inner.client.node_register(&hello).await {
            Ok(registered) => {
                renewed(node, sent, registered.lease_ms, registered.heartbeat_ms);
                tries.good();
                heard_of(node, registered.protocol, &registered.lease_tokens);
                recover::recover(node, registered.held, registered.held_sandboxes).await;
                node.inner.registered.cancel();
                return;
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), "failed to register; trying again");
                tries.failed(node, &error).await;
            }
        }
    }
}

/// What the server speaks, and what is to be shown to it. Of what has ended here meanwhile nothing is kept.
fn heard_of(node: &Node, speaks: u32, tokens: &BTreeMap<String, String>) {
    node.inner.server_speaks.store(speaks, Ordering::Release);
    for (of, token) in tokens {
        node.inner.client.lease_token(of, token);
    }
}

/// What this build speaks.
fn protocol() -> NodeProtocol {
    let (min, max) = model::node::PROTOCOL;
    NodeProtocol { min, max }
}

/// A renewal that was sent at this moment was acknowledged.
fn renewed(node: &Node, sent_boot_ms: u64, lease_ms: u64, every_ms: u64) {
    node.inner.renew_ms.store(every_ms, Ordering::Release);
    fence::renewed(node, sent_boot_ms, lease_ms);
}

async fn renew(node: &Node) {
    if !snapshot::held(node).is_empty() || !volume::held(node).is_empty() {
        // What an earlier process has left here and nobody needs is heard of at once.
        renew_once(node).await;
    }
    loop {
        let every_ms = node.inner.renew_ms.load(Ordering::Acquire).max(1);
        tokio::time::sleep(Duration::from_millis(every_ms)).await;
        spare::expire(node).await;
        spare::probe(node).await;
        renew_once(node).await;
    }
}

/// Says which jobs are here, and hears which of them are to end.
pub(crate) async fn renew_once(node: &Node) {
    let beat = NodeHeartbeat {
        incarnation: node.inner.config.incarnation.clone(),
        running: held(node),
        sandboxes: sandbox::held(node),
        snapshots: snapshot::held(node),
        volumes: volume::held(node),
        host: Some(machine::host(node)),
        protocol: protocol(),
        dropped: dropped::for_beat(node),
    };
    let sent = fence::boot_ms();
    let within = lease::try_ms(node.inner.renew_ms.load(Ordering::Acquire));
    let client = node.inner.client.clone();
    let client = client.with_deadline(Duration::from_millis(within));
    match client.node_heartbeat(&beat).await {
        Ok(answer) => {
            renewed(node, sent, answer.lease_ms, answer.heartbeat_ms);
            let mut tokens = answer.lease_tokens;
            let is_told = |of: &str| answer.sandboxes.iter().any(|work| work.sandbox_id == of);
            tokens.retain(|of, _| {
                node.jobs().contains_key(of) || sandbox::is_here(node, of) || is_told(of)
            });
            heard_of(node, answer.protocol, &tokens);
            node.inner.dropped.told(&answer.dropped);
            node.inner.config.heard.notify_waiters();
            if answer.upgrade_available {
                let latest = answer.latest_version.as_deref().unwrap_or_default();
                tracing::info!(latest, "the server is newer than this node");
            }
            // A stale lease is somebody else's now: whatever it does here is to end, and its report
            // will be refused.
            cancel(node, &answer.cancel);
            cancel(node, &answer.stale);
            sandbox::drop_stale(node, &answer.stale_sandboxes);
            sandbox::order(node, answer.sandboxes);
            sandbox::networks(node, answer.networks);
            sandbox::extend(node, answer.sandbox_lives).await;
            snapshot::remove(node, answer.remove_snapshots);
            volume::remove(node, answer.remove_volumes);
        }
        Err(error) => tracing::warn!(
            error = error.chain(),
            "failed to renew; the leases go on until they end"
        ),
    }
}

/// The jobs that this node has.
fn held(node: &Node) -> Vec<JobRef> {
    let jobs = node.jobs();
    let one = |(job_id, job): (&String, &crate::Running)| JobRef {
        job_id: job_id.clone(),
        epoch: job.epoch,
    };
    jobs.iter().map(one).collect()
}

fn cancel(node: &Node, refs: &[JobRef]) {
    let jobs = node.jobs();
    for each in refs {
        if let Some(job) = jobs.get(&each.job_id).filter(|job| job.epoch == each.epoch) {
            job.cancel.cancel();
        }
    }
}

async fn poll_for_jobs(node: &Node) {
    let mut tries = Tries::default();
    loop {
        let freed = node.inner.freed.notified();
        let free_slots = free_slots(node);
        let polled = poll(node, free_slots, 0, &mut tries);
        // A node that is full still asks, to hear at once what is to end. Only such a poll may be given
        // up when a slot becomes free: it brings no lease that could get lost.
        tokio::select! {
            () = polled => {}
            () = freed, if free_slots == 0 => {}
        }
    }
}

/// Asks beside the poll for jobs, so that neither waits for room for the other. Never given up, so that no
/// order gets lost.
async fn poll_for_sandboxes(node: &Node) {
    let mut tries = Tries::default();
    if node.inner.config.sandboxes == 0 {
        return;
    }
    loop {
        poll(node, 0, sandbox::free(node), &mut tries).await;
    }
}

/// Asks once, and begins what there is to do.
async fn poll(node: &Node, free_slots: u32, free_sandboxes: u32, tries: &mut Tries) {
    let (free_slots, free_sandboxes) = match machine::refuses(node) {
        None => (free_slots, free_sandboxes),
        Some(_) => (0, 0),
    };
    let request = NodePoll {
        incarnation: node.inner.config.incarnation.clone(),
        free_slots,
        free_sandboxes,
        reserved: machine::reserved_by_all(node),
        wait_ms: u64::try_from(POLL_WAIT.as_millis()).unwrap_or(limits::POLL_WAIT_MAX_MS),
    };
    match node.inner.client.node_poll(&request).await {
        Ok(answer) => {
            tries.good();
            for (of, token) in &answer.lease_tokens {
                node.inner.client.lease_token(of, token);
            }
            cancel(node, &answer.cancel);
            for lease in answer.leases {
                job::begin(node, lease);
            }
            sandbox::order(node, answer.sandboxes);
            sandbox::networks(node, answer.networks);
            snapshot::remove(node, answer.remove_snapshots);
        }
        Err(error) => {
            tracing::warn!(error = error.chain(), "failed to poll; trying again");
            tries.failed(node, &error).await;
        }
    }
}

/// How many jobs more this node would take.
fn free_slots(node: &Node) -> u32 {
    let unwritable = node.inner.unwritable_until.load(Ordering::Acquire);
    if node.inner.draining.load(Ordering::Acquire) || fence::boot_ms() < unwritable {
        return 0;
    }
    let used = u32::try_from(node.jobs().len()).unwrap_or(u32::MAX);
    node.inner.config.slots.saturating_sub(used)
}

/// Gives clients to the jobs and sandboxes that they want to reach. For one that is not here, or that has
/// enough of them, the stream is dropped, which closes it.
async fn hand_over(node: &Node, mut links: mpsc::Receiver<LinkOpen>) {
    while let Some(open) = links.recv().await {
        match &open.target {
            LinkTarget::Sandbox { id } => sandbox::link(node, &id.clone(), open),
            LinkTarget::Connections { of } => connections::tell(node, of.clone(), open.io),
            LinkTarget::Job { id, .. } => {
                let job = node.jobs().get(id).cloned();
                if let Some(job) = job {
                    drop(job.attach.try_send(open));
                }
            }
        }
    }
    std::future::pending::<()>().await;
}
