//! `cofferdam up`: control plane and node in one process, until told to end.

use crate::cli::args::{Place, Up};
use crate::cli::failure::{Failure, reason};
use crate::cli::table;
use crate::compose;
use crate::keys;
use crate::private::failed;
use crate::providers;
use crate::reap;
use crate::roots;
use crate::signals::Signals;
use crate::state::State;
use crate::sweep;
use crate::tape;
use crate::tcp;
use api::Code;
use api::client::{Client, Endpoint};
use api::job::{JobListQuery, StateName};
use api::sandbox::{SandboxListQuery, SandboxStateName};
use driver::driver::Mode;
use driver::host::{Host, Root};
use driver::linux::Linux;
use model::node::NodeKind;
use model::points::Points;
use node::{Config, Exception, Node, Sources};
use server::{Door, Links};
use service::Service;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How often an idle server looks whether it still is.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// What roots are made ready for; on one that was given, jobs share what this makes, where it can be below an
/// overlay.
const WARM: Mode = Mode::Live { allow_root: true };

/// Carries builds of profiles out, those first that a server before this one has left.
pub(crate) async fn carry_builds(
    service: Service,
    links: Links,
    stop: CancellationToken,
    is_alone: bool,
) {
    // The lock on the state is the right to its database, so nobody else carries builds out; where the
    // database is elsewhere, another server may.
    if is_alone && let Err(error) = service.builds_left().await {
        tracing::warn!(
            error = error.cause(),
            "builds of the server before wait for their leases"
        );
    }
    server::carry_builds(service, links, stop).await;
}

/// The doors of those who ask, beside that of the node.
async fn open_doors(state: &State, up: &Up, node: Door) -> Result<Vec<Door>, Failure> {
    let mut doors = vec![node, Door::Unix(unix_listener(state)?)];
    table::note(&format!("listening on unix:{}", state.socket().display()));
    doors.extend(tcp::door(state, up, None).await?);
    Ok(doors)
}

/// It is ended with a terminal, and the machine is somebody's own.
const KIND: NodeKind = NodeKind::Desktop;

/// Serves until SIGTERM, Ctrl-C, or, if asked, until there is nothing to do.
pub(crate) async fn up(place: &Place, up: &Up) -> Result<ExitCode, Failure> {
    let (mut signals, egress_allow) = (Signals::listen()?, exceptions(&up.egress_allow)?);
    check_trust(&up.egress_trust)?;
    let packages_from = sources(Some(&up.pip_index), Some(&up.npm_registry))?;
    let state = State::of(place)?;
    state.make()?;
    let _locked = state.lock_server()?;
    let points = points_from(std::env::var("COFFERDAM_DIE_AT").ok());
    let service = compose::service(&state, points.clone())?;
    keys::ready(&service).await?;
    let node_id = state.own_node()?;
    let _node_locked = state.lock_node(&node_id)?;
    let host = Host::probe();
    let roots = roots::all(&state, &up.root, &host)?;
    let sweeping = sweep::sweep(service.clone(), host.clone(), sweep::left(&state));
    drop(tokio::spawn(sweeping));
    let dir = state.node(&node_id);
    let (driver, linux) = compose::driver(&up.driver, &dir, &host)?;
    let (node_client, node_door) = compose::node_door(&node_id);
    let node_client = node_client.with_tape(tape::keep(&state));
    let doors = open_doors(&state, up, node_door).await?;
    let (links, stop) = (Links::default(), CancellationToken::new());
    let (link, linked) = mpsc::channel(256);
    links.insert(node_id.clone(), link);
    let building = carry_builds(service.clone(), links.clone(), stop.clone(), true);
    tokio::spawn(building);
    let serving = tokio::spawn(server::serve(service.clone(), links, doors, stop.clone()));
    let (_running, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(service::loops::run(service, stopped));
    warm_up(linux, up.sandboxes > 0, &roots);
    let config = Config {
        name: hostname(),
        incarnation: crate::state::new_node_id()?.to_string(),
        kind: KIND,
        labels: std::collections::BTreeMap::new(),
        slots: up.slots,
        sandboxes: up.sandboxes,
        spares: up.spares,
        spare_life: up.spare_life,
        egress_allow,
        roots,
        egress_trust: up.egress_trust.clone(),
        packages_from,
        dir,
        heard: std::sync::Arc::default(),
        points,
    };
    let node = Node::new(config, node_client, driver, host.clone());
    reap::tell(&node, &state, host);
    let stop_node = CancellationToken::new();
    let stopping = stop_node.clone();
    let mut working = tokio::spawn(async move { node.run(linked, stopping).await });
    tokio::select! {
        _ = signals.next() => {}
        () = idle(&state, up.idle_exit) => {}
    }
    tracing::info!("ending; sandboxes that run are found again at the next start");
    // First the node, which still has ends to report; who cannot wait says it twice.
    stop_node.cancel();
    tokio::select! {
        _ = &mut working => {}
        _ = signals.another() => {}
    }
    stop.cancel();
    drop(serving.await);
    close_doors(&state);
    Ok(ExitCode::SUCCESS)
}

/// Nobody is to look for a server where there is none any more.
fn close_doors(state: &State) {
    drop(std::fs::remove_file(state.socket()));
    drop(std::fs::remove_file(state.address()));
}

/// Starts the launchers, where there are any, beside whoever calls.
pub(crate) fn warm_up(linux: Option<Arc<Linux>>, has_sandboxes: bool, roots: &[Root]) {
    if let Some(linux) = linux {
        drop(tokio::spawn(warm(linux, has_sandboxes, roots.to_vec())));
    }
}

/// Starts the launchers, so that the first job and the first sandbox need not wait for them.
async fn warm(linux: Arc<Linux>, has_sandboxes: bool, roots: Vec<Root>) {
    let modes = [Mode::Job, WARM];
    for mode in modes.into_iter().take(1 + usize::from(has_sandboxes)) {
        if let Err(error) = linux.warm(mode).await {
            tracing::error!(%error, "no sandbox can be made here; `cofferdam doctor` says why");
        }
    }
    for root in &roots {
        let name = root.given.as_ref().map(|given| given.name.as_str());
        if let Err(error) = linux.warm_root(root, WARM).await {
            tracing::error!(%error, name, "no sandbox can have this root file system");
        }
    }
}

/// What the operator opens to sandboxes.
pub(crate) fn exceptions(asked: &[String]) -> Result<Vec<Exception>, Failure> {
    let read = |text: &String| {
        text.parse().map_err(|error: node::BadException| {
            let failure = Failure::new(Code::InvalidArgument, format!("--egress-allow: {error}"));
            failure.hint("such as 10.1.2.3, 10.1.0.0/16:443 or [fd00::1]:443")
        })
    };
    asked.iter().map(read).collect()
}

/// Where packages come from; where nothing is said, from where everybody gets them.
pub(crate) fn sources(pip: Option<&String>, npm: Option<&String>) -> Result<Sources, Failure> {
    let mut sources = Sources::default();
    let read = |option: &str, text: &String| {
        text.parse().map_err(|error: node::BadSource| {
            let message = format!("{option}: failed to {error}");
            let failure = Failure::new(Code::InvalidArgument, message);
            failure
                .hint("such as https://pypi.org/simple, or http://127.0.0.1:3141/root/pypi/+simple")
        })
    };
    if let Some(text) = pip {
        sources.pip = read("--pip-index", text)?;
    }
    if let Some(text) = npm {
        sources.npm = read("--npm-registry", text)?;
    }
    Ok(sources)
}

/// A file without a certificate would be missed only when somebody inside is refused.
pub(crate) fn check_trust(files: &[PathBuf]) -> Result<(), Failure> {
    for path in files {
        let text = node::roots::file(path);
        let text = text.map_err(|error| {
            let message = format!(
                "--egress-trust: failed to read {}: {}",
                path.display(),
                reason(&error)
            );
            Failure::new(Code::FileMissing, message)
        })?;
        if node::roots::Roots::of_pem(&text).count() == 0 {
            let message = format!("--egress-trust: {} has no certificate", path.display());
            let failure = Failure::new(Code::InvalidArgument, message);
            return Err(failure.hint("certificates of authorities, in PEM"));
        }
    }
    Ok(())
}

/// The socket in the state directory, which only this user can enter. A stale one is replaced: the lock
/// says that no server lives.
pub(crate) fn unix_listener(state: &State) -> Result<UnixListener, Failure> {
    let path = state.socket();
    drop(std::fs::remove_file(&path));
    UnixListener::bind(&path).map_err(|error| {
        let text = format!("failed to listen on {}: {}", path.display(), reason(&error));
        let hint = "an address of a Unix socket has room for 107 bytes; a shorter --state may help";
        Failure::new(Code::StateUnusable, text).hint(hint)
    })
}

pub(crate) fn hostname() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        "this machine".to_owned()
    } else {
        name
    }
}

/// Returns when there has been nothing to do for the time, or never without one.
async fn idle(state: &State, after: Option<Duration>) {
    let Some(after) = after else {
        return std::future::pending().await;
    };
    let client = Client::new(Endpoint::Unix(state.socket()));
    let mut since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(IDLE_LOOK).await;
        if is_busy(&client).await {
            since = tokio::time::Instant::now();
        }
        if since.elapsed() >= after {
            return;
        }
    }
}

/// Whether there is a job or a sandbox that is not over.
async fn is_busy(client: &Client) -> bool {
    let jobs = [
        StateName::Queued,
        StateName::Leased,
        StateName::Running,
        StateName::Stopping,
    ];
    for state in jobs {
        let query = JobListQuery {
            state: Some(state),
            limit: Some(1),
            ..JobListQuery::default()
        };
        let page = client.job_list(&query).await;
        if page.is_ok_and(|page| !page.jobs.is_empty()) {
            return true;
        }
    }
    let over = [SandboxStateName::Destroyed, SandboxStateName::Failed];
    let mut states = SandboxStateName::ALL.to_vec();
    states.retain(|state| !over.contains(state));
    let query = SandboxListQuery {
        states,
        limit: Some(1),
        ..SandboxListQuery::default()
    };
    let page = client.sandbox_list(&query).await;
    page.is_ok_and(|page| !page.sandboxes.is_empty())
}

/// Starts a server that outlives this process and ends when it has nothing to do.
#[expect(
    clippy::disallowed_methods,
    reason = "the server is this program again, with this user's environment"
)]
pub(crate) async fn start_in_background(state: &State) -> Result<(), Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::ours("find this program", &error))?;
    let log = state.dir().join("up.log");
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .map_err(|error| failed("open", &log, &error))?;
    let mut command = std::process::Command::new(program);
    command
        .arg("--state")
        .arg(state.dir())
        .args(["up", "--no-listen", "--idle-exit", "5s"])
        .args(state.keys().arguments())
        .args(providers::arguments(state.providers()))
        .env_remove("COFFERDAM_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .process_group(0);
    let child = command.spawn();
    let child = child.map_err(|error| Failure::ours("start a server", &error))?;
    drop(child); // It is not ours to wait for: it goes on when this process has ended.
    let until = tokio::time::Instant::now() + compose::READY;
    while tokio::time::Instant::now() < until {
        if tokio::net::UnixStream::connect(state.socket())
            .await
            .is_ok()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let failure = Failure::new(Code::ServerUnreachable, "the server did not start");
    Err(failure.hint(format!("{} says why", log.display())))
}

/// For tests of what survives: `NAME#N` kills this process, as SIGKILL does, when it comes to the point
/// NAME for the Nth time; `trace` writes the name of each point to standard error.
pub(crate) fn points_from(asked: Option<String>) -> Points {
    let Some(asked) = asked else {
        return Points::none();
    };
    if asked == "trace" {
        return Points::with(|name| table::note(&format!("point {name}")));
    }
    let (name, count) = asked.split_once('#').unwrap_or((&asked, "1"));
    let (name, count) = (name.to_owned(), count.parse::<u32>().unwrap_or(1));
    let seen = std::sync::atomic::AtomicU32::new(0);
    Points::with(move |at| {
        if at == name && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == count {
            let own = rustix::process::getpid();
            // There is nobody left to tell if it fails, and then the test fails.
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        }
    })
}
