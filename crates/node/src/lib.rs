//! The node agent: takes leases, runs each job in a sandbox, carries its streams, reports, recovers.
//!
//! It dials the control plane and is never dialled: it registers, renews, polls and reports over HTTP,
//! also when both are one process. What it must not forget is on its disk before it acts: the handle of
//! a sandbox before the sandbox is started, output before the guest may forget it. So it may be killed
//! in any line; the next one finds the sandboxes that live on and goes on with them.
//!
//! This room must never open the database, decide what is allowed, or know any driver by name. It must
//! never put tear-down between a result and whoever waits for it, and it must never trust the length,
//! number or order of anything that a guest or a client sends.

mod agent;
mod connections;
mod convert;
mod dropped;
mod egress;
mod files;
mod inspect;
mod job;
mod link;
mod machine;
mod outcome;
mod passed;
mod pump;
mod record;
mod recover;
mod root;
mod sandbox;
mod secret;
mod snapshot;
mod spare;
mod spool;
mod tries;
mod volume;
mod way;

pub use crate::link::keep_links;
pub use crate::record::recorded;
pub use ::egress::exception::{BadException, Exception};
pub use ::egress::index::{BadSource, Source, Sources};
pub use ::egress::inspect::roots;
use ::egress::proxy::Proxy;
use ::egress::record::EgressRecord;
use ::egress::resolve::Resolver;
use api::attach::LinkOpen;
use api::client::Client;
use api::fleet::NodeLeftovers;
use driver::driver::Driver;
use driver::host::{Host, Root};
use model::limits;
use model::node::NodeKind;
use model::place::Reserved;
use model::points::Points;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a node that is told to end waits for jobs that are at their end: a stop of a service often
/// has ten seconds.
const SETTLE: Duration = Duration::from_secs(5);

/// How a node is set up.
#[derive(Debug)]
pub struct Config {
    /// For people.
    pub name: String,
    /// A different one at each start of the process.
    pub incarnation: String,
    /// What sort of machine it is.
    pub kind: NodeKind,
    /// What it calls itself for placement; what its enrollment gave it counts before.
    pub labels: BTreeMap<String, String>,
    /// Jobs at one time.
    pub slots: u32,
    /// Sandboxes that live on at one time.
    pub sandboxes: u32,
    /// Sandboxes that are kept ready for the next jobs.
    pub spares: u32,
    /// How long one of them may live unused; its supervisor ends it then, also without us.
    pub spare_life: Duration,
    /// Addresses that are open to sandboxes with a way out, although they are not public.
    pub egress_allow: Vec<Exception>,
    /// Root file systems that have names here, each once.
    pub roots: Vec<Root>,
    /// Files with certificates of authorities that are believed outside, beside those that this machine believes.
    pub egress_trust: Vec<PathBuf>,
    /// Where the indexes of packages get theirs, which sandboxes have that are held to a list.
    pub packages_from: Sources,
    /// Private to this node: the records of its jobs and their output.
    pub dir: PathBuf,
    /// Told whenever the control plane was heard on another way: what waits for it to come back tries at once.
    pub heard: Arc<Notify>,
    /// Where a test may stop the process.
    pub points: Points,
}

/// A node. Clones are the same node.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    client: Client,
    driver: Arc<dyn Driver>,
    host: Host,
    jobs: Mutex<HashMap<String, Running>>,
    sandboxes: Mutex<sandbox::Kept>,
    spares: spare::Spares,
    health: machine::Health,
    /// What whoever started this node has found on the machine.
    leftovers: Mutex<Option<NodeLeftovers>>,
    dropped: dropped::Dropped,
    /// The newest version of the protocol that the server speaks, as far as it has said.
    server_speaks: AtomicU32,
    egress: Proxy,
    trusted: OnceLock<inspect::Trusted>,
    /// Of the above; whoever works takes them.
    egress_records: tokio::sync::Mutex<mpsc::Receiver<EgressRecord>>,
    /// How many of them there were, which names them.
    egress_count: AtomicU64,
    /// How many of them the control plane has, less those that the process before has left.
    egress_told: watch::Sender<i64>,
    removing: snapshot::Removing,
    /// A slot became free, or there is none any more.
    freed: Notify,
    tasks: TaskTracker,
    /// No new work is taken.
    draining: AtomicBool,
    /// Until when it takes no work, on the boot-time clock in milliseconds: it could not write down what it took.
    unwritable_until: AtomicU64,
    /// How often its leases are to be renewed, as far as it has heard, in milliseconds.
    renew_ms: AtomicU64,
    /// Until when its leases last, as far as it has heard.
    lease_until: job::fence::Until,
    /// The control plane knows this process.
    registered: CancellationToken,
    /// It does not want it any more.
    dismissed: CancellationToken,
}

/// What the rest of the node knows of a job that it has.
#[derive(Debug, Clone)]
struct Running {
    epoch: u64,
    /// What its limits name.
    reserved: Reserved,
    cancel: CancellationToken,
    attach: mpsc::Sender<LinkOpen>,
    /// Its command has ended, or never began.
    over: bool,
    /// Nothing of this attempt is left: the next one may have its places.
    gone: CancellationToken,
}

impl Running {
    fn is_ending(&self) -> bool {
        self.over || self.cancel.is_cancelled()
    }
}

impl Node {
    /// A node that runs jobs with `driver` for the control plane behind `client`.
    pub fn new(config: Config, client: Client, driver: Arc<dyn Driver>, host: Host) -> Node {
        client.process(&config.incarnation);
        let allow = config.egress_allow.clone();
        let (egress, records) =
            Proxy::new(allow, Resolver::system(), way::connections(), job::now_ms);
        let sources = config.packages_from.clone();
        egress.serve_packages(inspect::index(sources, config.egress_trust.clone()));
        let dropped = dropped::Dropped::of(&config.dir);
        let inner = Inner {
            config,
            client,
            driver,
            host,
            jobs: Mutex::default(),
            sandboxes: Mutex::default(),
            spares: spare::Spares::default(),
            health: machine::Health::default(),
            leftovers: Mutex::default(),
            dropped,
            server_speaks: AtomicU32::new(1),
            egress,
            trusted: OnceLock::new(),
            egress_records: tokio::sync::Mutex::new(records),
            egress_count: AtomicU64::new(0),
            egress_told: watch::Sender::new(0),
            removing: snapshot::Removing::default(),
            freed: Notify::new(),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            unwritable_until: AtomicU64::new(0),
            renew_ms: AtomicU64::new(limits::HEARTBEAT_MS),
            lease_until: watch::Sender::new(0),
            registered: CancellationToken::new(),
            dismissed: CancellationToken::new(),
        };
        Node {
            inner: Arc::new(inner),
        }
    }

    /// Works until `stop`. Clients that want a job's streams come through `links`.
    ///
    /// When it returns, no spare sandbox is left, and nothing of jobs that have ended or were told to;
    /// jobs that were running go on in their sandboxes where the driver lets them, for the next node to
    /// find. The control plane must stay for as long, because ends are still reported.
    pub async fn run(&self, links: mpsc::Receiver<LinkOpen>, stop: CancellationToken) {
        agent::run(self, links, stop).await;
        self.inner
            .draining
            .store(true, std::sync::atomic::Ordering::Release);
        spare::clear(self).await;
        self.settle().await;
        egress::last(self).await;
    }

    /// Waits for jobs that are at their end. One that does not come to it stays for the next node, and
    /// so does all of this if we die here.
    async fn settle(&self) {
        let settled = async {
            // A job may have been cancelled since the last poll heard of any.
            if !self.jobs().is_empty() {
                agent::renew_once(self).await;
            }
            while self.jobs().values().any(Running::is_ending) {
                self.inner.freed.notified().await;
            }
        };
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::info!(
                "a job that was told to end has not; it is found again at the next start"
            );
        }
    }

    /// Waits until the control plane has sent this node away for good.
    pub async fn dismissed(&self) {
        self.inner.dismissed.cancelled().await;
    }

    /// Notes what is left behind on this machine, which the next heartbeats say.
    pub fn left_behind(&self, found: NodeLeftovers) {
        *self.leftovers() = Some(found);
    }

    fn leftovers(&self) -> MutexGuard<'_, Option<NodeLeftovers>> {
        // Each write under the lock is whole.
        let leftovers = self.inner.leftovers.lock();
        leftovers.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes away everything that it has, after it was sent away: what runs here is nobody's any more, and nobody
    /// would hear of it. Whatever cannot be taken away ends at its deadline.
    pub async fn abandon(&self) {
        let driver = &self.inner.driver;
        for id in driver.list().await.unwrap_or_default() {
            if let Err(error) = driver.destroy(&driver.handle(&id)).await {
                let error = job::chain(&error);
                tracing::error!(sandbox.id = %id, error, "failed to take a sandbox away");
            }
        }
        record::forget_all(&self.inner.config.dir);
    }

    /// Waits until the control plane knows this node, and what it can hold.
    pub async fn registered(&self) {
        self.inner.registered.cancelled().await;
    }

    /// Waits until the control plane has every record of what was asked of the outside, for some seconds at most.
    /// Returns at once where nothing was asked.
    pub async fn egress_told(&self) {
        egress::told(self).await;
    }

    /// Waits until every job that it has is reported and taken away; takes no new ones.
    pub async fn drain(&self) {
        self.inner
            .draining
            .store(true, std::sync::atomic::Ordering::Release);
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        spare::clear(self).await;
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        // Each statement under the lock leaves the map whole.
        self.inner
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, point: &'static str) {
        self.inner.config.points.at(point);
    }
}
