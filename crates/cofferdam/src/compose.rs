//! Putting the rooms together: a server with doors, a node on one of them.

use crate::cli::args::Place;
use crate::cli::failure::{Failure, chain};
use crate::private::{Locked, failed};
use crate::providers::Providers;
use crate::reach::running;
use crate::state::{self, State};
use crate::{roots, sweep, upkeep};
use api::Code;
use api::client::{Client, Endpoint};
use driver::driver::{Driver, Mode};
use driver::fake::Fake;
use driver::host::{Host, Root};
use driver::linux::{Linger, Linux};
use model::id::{NodeId, PrincipalId};
use model::points::Points;
use node::{Config, Node};
use server::{Door, Links, Peer};
use service::{Clock, Ctx, Service, Who};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::blob::Blobs;
use store::{Store, StoreError};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Connections inside the process that wait to be taken.
const MEMORY_DOOR: usize = 64;
/// Clients that wait to be handed to their jobs.
const LINK_QUEUE: usize = 256;

/// What a node in this process may have at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Jobs.
    pub(crate) slots: u32,
    /// Sandboxes that live on. They end with this process.
    pub(crate) sandboxes: u32,
}

/// For a process that runs one job.
pub(crate) const ONE_JOB: Size = Size {
    slots: 1,
    sandboxes: 0,
};

/// A control plane and a node in this process, for one command.
#[derive(Debug)]
pub(crate) struct Here {
    service: Service,
    node_id: NodeId,
    node: Option<Node>,
    dir: PathBuf,
    stop: CancellationToken,
    linux: Option<Arc<Linux>>,
    state: State,
    /// What killed processes had left is taken away meanwhile.
    sweeping: Option<JoinHandle<()>>,
    /// While it is there, times to live are looked after.
    _looking: Option<watch::Sender<bool>>,
    _locked: Option<Locked>,
}

/// What a command wants of a state directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// One is made.
    Made,
    /// A name that was mistyped: there is nothing to look at.
    Mistyped,
}

/// A client of the server that is named, or found, or made here without a node.
pub(crate) async fn client(
    place: &Place,
    absent: Absent,
) -> Result<(Client, Option<Here>), Failure> {
    if let Some(client) = running(place).await? {
        return Ok((client, None));
    }
    let state = own_state(place)?;
    if absent == Absent::Mistyped && place.state.is_some() && !state.is_there()? {
        let message = format!("there is no state at {}", state.dir().display());
        let failure = Failure::new(Code::StateUnusable, message);
        return Err(failure.hint("correct --state or COFFERDAM_STATE; `cofferdam run` makes one"));
    }
    state.make()?;
    let service = service(&state, Points::none())?;
    let left = sweep::left(&state);
    if !left.is_empty() {
        // First: a job of a process that was killed would be shown as if it ran.
        sweep::sweep(service.clone(), Host::probe_for_jobs(), left).await;
    }
    let stop = CancellationToken::new();
    let (dial, incoming) = mpsc::channel(MEMORY_DOOR);
    let door = Door::Memory {
        incoming,
        peer: Peer::User(Who::owner(own_principal())),
    };
    tokio::spawn(server::serve(
        service.clone(),
        Links::default(),
        vec![door],
        stop.clone(),
    ));
    let node_id = state::new_node_id()?;
    let dir = state.node(&node_id);
    let here = Here {
        service,
        node: None,
        node_id,
        dir,
        stop,
        linux: None,
        state,
        sweeping: None,
        _looking: None,
        _locked: None,
    };
    Ok((Client::new(Endpoint::Memory(dial)), Some(here)))
}

/// A client of a server that runs: what lives on needs one that does.
pub(crate) async fn server(place: &Place) -> Result<Client, Failure> {
    if let Some(client) = running(place).await? {
        return Ok(client);
    }
    own_state(place)?;
    let failure = Failure::new(Code::ServerUnreachable, "no server runs here");
    Err(failure.hint("sandboxes live on with a server: `cofferdam up &` starts one"))
}

/// The state directory, if a command may be a server of its own there. Beside the record of a fleet it would keep
/// another, and run on the machine of the server what was meant for its nodes.
pub(crate) fn own_state(place: &Place) -> Result<State, Failure> {
    let state = State::of(place)?;
    if !state.has_server() {
        return Ok(state);
    }
    let message = format!(
        "the server of a fleet that has its state in {} does not run",
        state.dir().display()
    );
    let failure = Failure::new(Code::ServerUnreachable, message);
    Err(failure.hint("start `cofferdam server --config FILE`"))
}

/// A client for `run`: of a server that runs, or of a control plane and a node in this process.
pub(crate) async fn client_for_run(
    place: &Place,
    detach: bool,
    root: Option<&str>,
) -> Result<(Client, Option<Here>), Failure> {
    if let Some(client) = running(place).await? {
        return Ok((client, None));
    }
    let state = own_state(place)?;
    state.make()?;
    if detach {
        crate::up::start_in_background(&state).await?;
        return match running(place).await? {
            Some(client) => Ok((client, None)),
            None => Err(Failure::new(
                Code::ServerUnreachable,
                "the server did not start",
            )),
        };
    }
    let (client, here) = start_here(&state, ONE_JOB, root).await?;
    Ok((client, Some(here)))
}

/// A control plane and a node, which has the root that is named if it is in the state.
pub(crate) async fn start_here(
    state: &State,
    size: Size,
    root: Option<&str>,
) -> Result<(Client, Here), Failure> {
    let left = sweep::left(state);
    let (node_id, locked) = state.new_node()?;
    let has_sandboxes = size.sandboxes > 0;
    let (host, roots) = probe(state, has_sandboxes, root)?;
    let dir = state.node(&node_id);
    let linux = Linux::new(&dir.join("linux"), host.clone(), Linger::No);
    let linux = Arc::new(linux.map_err(|error| Failure::state("prepare the driver", &error))?);
    // The launcher is started while the database is opened and the node registers.
    tokio::spawn(warm(linux.clone(), has_sandboxes));
    let service = service(state, Points::none())?;
    let looking = has_sandboxes.then(|| {
        let (looking, stopped) = watch::channel(false);
        drop(tokio::spawn(service::loops::run(service.clone(), stopped)));
        looking
    });
    let sweeping = sweep::sweep(service.clone(), host.clone(), left);
    let sweeping = Some(tokio::spawn(sweeping));
    let stop = CancellationToken::new();
    let links = Links::default();
    let (dial, users) = mpsc::channel(MEMORY_DOOR);
    let user_door = Door::Memory {
        incoming: users,
        peer: Peer::User(Who::owner(own_principal())),
    };
    let (node_client, node_door) = node_door(&node_id);
    let (link, linked) = mpsc::channel(LINK_QUEUE);
    links.insert(node_id.clone(), link);
    let doors = vec![user_door, node_door];
    tokio::spawn(server::serve(service.clone(), links, doors, stop.clone()));
    let config = config_here(&node_id, &dir, size, roots);
    let node = Node::new(config, node_client, linux.clone(), host);
    let (stop_node, working) = (stop.clone(), node.clone());
    tokio::spawn(async move { working.run(linked, stop_node).await });
    // Only then is it known what this machine cannot hold, and is the job handed over at once.
    node.registered().await;
    let client = Client::new(Endpoint::Memory(dial));
    let linux = Some(linux);
    Ok((
        client,
        Here {
            service,
            node_id,
            node: Some(node),
            dir,
            stop,
            linux,
            state: state.clone(),
            sweeping,
            _looking: looking,
            _locked: Some(locked),
        },
    ))
}

/// What this machine can do, and the root that is named.
fn probe(
    state: &State,
    has_sandboxes: bool,
    root: Option<&str>,
) -> Result<(Host, Vec<Root>), Failure> {
    let mut host = if has_sandboxes {
        Host::probe()
    } else {
        Host::probe_for_jobs()
    };
    let roots = roots::one(state, root, &host)?;
    if !roots.is_empty() {
        // Whether it can be below an overlay was tried with itself.
        host.no_writable_root = None;
    }
    Ok((host, roots))
}

/// A node for this process alone: it keeps no spares, and the operator who could open more is not here.
fn config_here(node_id: &NodeId, dir: &Path, size: Size, roots: Vec<Root>) -> Config {
    Config {
        name: format!("run-{}", std::process::id()),
        incarnation: node_id.to_string(),
        kind: model::node::NodeKind::Desktop,
        labels: std::collections::BTreeMap::new(),
        slots: size.slots,
        sandboxes: size.sandboxes,
        spares: 0,
        spare_life: Duration::ZERO,
        egress_allow: Vec::new(),
        roots,
        egress_trust: Vec::new(),
        packages_from: node::Sources::default(),
        dir: dir.to_owned(),
        heard: Arc::default(),
        points: Points::none(),
    }
}

/// Starts the launchers that will be wanted. What fails is told to who wants a sandbox.
async fn warm(linux: Arc<Linux>, has_sandboxes: bool) {
    drop(linux.warm(Mode::Job).await);
    if has_sandboxes {
        drop(linux.warm(Mode::Live { allow_root: false }).await);
    }
}

impl Here {
    /// The id of the node in this process.
    pub(crate) fn node(&self) -> String {
        self.node_id.to_string()
    }

    /// Ends what was started here. The launcher takes the sandbox away by itself when it sees that
    /// this process is gone, so nobody waits for that.
    pub(crate) async fn leave(self) {
        // After the node has said goodbye, nobody takes them.
        if let Some(node) = &self.node {
            node.egress_told().await;
        }
        let ctx = Ctx::node(self.node_id.clone(), "leave".to_owned());
        // Side by side: one waits for the disk, the other for a process. If we die between them, the
        // next command sweeps.
        let quit = async {
            if let Some(linux) = &self.linux {
                linux.quit().await;
            }
        };
        let (gone, ()) = tokio::join!(self.service.node_gone(&ctx), quit);
        if let Err(error) = gone {
            tracing::warn!(%error, "failed to say goodbye");
        }
        self.stop.cancel();
        if let Some(sweeping) = self.sweeping {
            drop(sweeping.await);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, "failed to take the node's directory away; the next command does");
        }
        upkeep::upkeep(&self.service, &self.state).await;
    }
}

/// The door for the node of this process, and the node's client.
pub(crate) fn node_door(id: &NodeId) -> (Client, Door) {
    let (dial, incoming): (_, mpsc::Receiver<DuplexStream>) = mpsc::channel(MEMORY_DOOR);
    let door = Door::Memory {
        incoming,
        peer: Peer::Node(id.clone()),
    };
    (Client::new(Endpoint::Memory(dial)), door)
}

/// The logic over the state directory.
pub(crate) fn service(state: &State, points: Points) -> Result<Service, Failure> {
    service_on(state, points, None, &state.blobs())
}

/// The same with the database at this address, a PostgreSQL, if there is one.
pub(crate) fn service_on(
    state: &State,
    points: Points,
    database: Option<&str>,
    blobs: &std::path::Path,
) -> Result<Service, Failure> {
    let store = match database {
        None => Store::open_sqlite(&state.database(), points)
            .map_err(|error| store_failure(state, &error))?,
        // Its address may have a password.
        Some(url) => Store::open_postgres(url, points)
            .map_err(|error| {
                let failure = if let StoreError::Unavailable(why) = &error {
                    let message = format!("the database does not answer: {}", chain(&**why));
                    Failure::new(Code::Unavailable, message)
                } else {
                    Failure::state("use the database of the configuration", &error)
                };
                failure.hint(
                    "check `database` of [server], that PostgreSQL runs there, and that it lets this user in",
                )
            })?,
    };
    let dirs = [state.dir().to_owned(), blobs.to_owned()];
    let blobs = Blobs::open(blobs).map_err(|error| failed("make", blobs, &error))?;
    let free = move || {
        let of = |dir: &std::path::PathBuf| {
            let free = rustix::fs::statvfs(dir).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
            free.ok()
        };
        dirs.iter().filter_map(of).min()
    };
    let service = Service::new(store, blobs, Clock::system(), free);
    let (keys, dir) = (state.keys().clone(), state.dir().to_owned());
    service.secret_keys_from(move || keys.load(&dir));
    service.audit_heads_in(state.dir().join("audit"));
    // This program, also if another one has taken its place on the disk since.
    let program = std::path::PathBuf::from("/proc/self/exe");
    service.modules_are_asked_by(rego::Evaluator::new(program, Some(crate::REGO.into())));
    let providers = Providers::new(state.providers());
    service.secret_sources_from(move |source| providers.fetch(source));
    Ok(service)
}

fn store_failure(state: &State, error: &StoreError) -> Failure {
    let path = state.database();
    let path = path.display();
    if matches!(error, StoreError::Full) {
        return Failure::new(Code::DiskFull, format!("{path} cannot be written"));
    }
    if matches!(error, StoreError::NewerSchema { .. }) {
        return Failure::new(Code::StateTooNew, format!("{path}: {error}"));
    }
    Failure::state(&format!("use `{path}`"), error)
}

/// The driver, and the same again if it is the real one.
pub(crate) type Drivers = (Arc<dyn Driver>, Option<Arc<Linux>>);

/// The driver that was named.
pub(crate) fn driver(name: &str, dir: &std::path::Path, host: &Host) -> Result<Drivers, Failure> {
    match name {
        "linux" => {
            let linux = Linux::new(&dir.join("linux"), host.clone(), Linger::Yes);
            let linux =
                Arc::new(linux.map_err(|error| Failure::state("prepare the driver", &error))?);
            Ok((linux.clone(), Some(linux)))
        }
        "fake" => {
            let fake = Fake::new(&dir.join("fake"), driver::fake::Knobs::default());
            Ok((
                Arc::new(fake.map_err(|error| Failure::state("prepare the driver", &error))?),
                None,
            ))
        }
        _ => Err(Failure::new(
            Code::InvalidArgument,
            "the drivers are `linux` and `fake`",
        )),
    }
}

/// Who this process runs as.
pub(crate) fn own_principal() -> PrincipalId {
    let uid = rustix::process::geteuid().as_raw();
    format!("uid:{uid}")
        .parse()
        .expect("a number makes a principal")
}

/// How long a server may take to answer that it is there.
pub(crate) const READY: Duration = Duration::from_secs(15);
