//! A sandbox that lives on: many processes, files and watches, served as E2B's envd does, over HTTP/1.1
//! on the inherited socket.
//!
//! Whoever reaches the socket is trusted to have asked who is there: only the node can. What is not
//! trusted is the workload, whose files, names and timing this works with; so every wait, list and
//! buffer has a bound, and every path is walked as the user who asks. All of it is one thread: it
//! forks, and a fork copies only the thread that calls it.

mod ahead;
mod body;
mod clock;
mod connect;
mod context;
mod download;
pub(crate) mod egress;
mod entry;
mod facts;
mod failure;
mod filesystem;
mod http;
mod metrics;
mod multipart;
mod passwd;
mod path;
mod ports;
mod power;
mod processes;
mod protojson;
mod pump;
mod query;
mod rpc;
mod sudo;
mod terminal;
mod tree;
mod tun;
mod tunnel;
mod upload;
mod user;
mod volume;
mod watch;

use crate::Inherited;
use crate::confine;
use crate::process::{self, Reap};
use guest::message::Serve;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use landlock::RulesetCreated;
use processes::Processes;
use rustix::io::Errno;
use scrub::{Cleaner, Known};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use watch::Watchers;

/// Connections at a time. Each stream of output has one, and an agent follows tens; with the buffers of
/// a connection this is some megabytes. More are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// A request's head is complete after this, and a connection that asks nothing is closed after it.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(60);

/// The longest head of a request in bytes, what the doors of the control plane take as well.
pub(crate) const HEAD_MAX: usize = 32 * 1024;

/// After a connection could not be taken, because descriptors ran out: they come back when others end.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a sandbox is to be, and the values of its secrets where there are some to look for.
pub(crate) type Orders = (Serve, Option<Arc<Known>>);

/// Everything that the requests share.
#[derive(Debug)]
pub(crate) struct Live {
    serve: Serve,
    /// What is taken out of what is told of processes.
    known: Option<Arc<Known>>,
    cgroups: Vec<OwnedFd>,
    power: power::Power,
    /// The time of commands.
    clock: Rc<clock::Clock>,
    landlock: Option<RulesetCreated>,
    processes: RefCell<Processes>,
    /// What the node has to learn of processes.
    facts: RefCell<facts::Facts>,
    watchers: RefCell<Watchers>,
    ahead: RefCell<Option<ahead::Ahead>>,
    /// Commands of which it is not known yet which process they are.
    starting: Cell<usize>,
    contexts: context::Contexts,
    /// One more for each tunnel.
    tunnels: Rc<()>,
    /// The way out, where the node has opened one.
    egress: egress::Egress,
    /// Variables that the node has added since.
    more_env: RefCell<Vec<(String, String)>>,
    /// When somebody last asked what is used.
    look: Cell<Option<metrics::Look>>,
}

impl Live {
    /// For a stream that begins; nothing where nothing is looked for.
    fn cleaner(&self) -> Option<Cleaner> {
        Cleaner::new(self.known.as_ref(), self.serve.scrub_patterns)
    }
}

/// Serves until the sandbox is killed. An error means that waiting itself does not work.
pub(crate) fn run(
    inherited: Inherited,
    signals: OwnedFd,
    (serve, known): Orders,
) -> Result<(), Errno> {
    let landlock = serve.confine.landlock.as_ref();
    let landlock = landlock.map(confine::landlock_rules).transpose();
    let live = Rc::new(Live {
        landlock: landlock.map_err(|_| Errno::INVAL)?,
        serve,
        facts: RefCell::new(facts::Facts::new(known.clone())),
        known,
        cgroups: inherited.cgroups,
        power: power::Power::new(inherited.boot_id),
        clock: Rc::default(),
        processes: RefCell::default(),
        watchers: RefCell::default(),
        ahead: RefCell::default(),
        starting: Cell::default(),
        contexts: context::Contexts::default(),
        tunnels: Rc::default(),
        more_env: RefCell::default(),
        egress: egress::Egress::new(inherited.device),
        look: Cell::default(),
    });
    serve_all(inherited.listener, signals, live).map_err(|error| {
        let raw = error.raw_os_error().unwrap_or(libc::EIO);
        Errno::from_raw_os_error(raw)
    })
}

fn serve_all(listener: OwnedFd, signals: OwnedFd, live: Rc<Live>) -> io::Result<()> {
    allow_descriptors()?;
    // What was made for one connection of a node at a time now takes many at once.
    rustix::net::listen(&listener, i32::try_from(CONNECTIONS_MAX).unwrap_or(0))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = UnixListener::from_std(listener.into())?;
        let signals = register(signals, Interest::READABLE)?;
        // Before anything else runs that could take the name.
        let askers = sudo::listen(&live);
        context::warm(&live);
        tokio::select! {
            ended = reap(&signals, &live) => ended,
            never = accept(&listener, &live) => match never {},
            never = sudo::serve(askers, &live) => match never {},
        }
    })
}

/// The guest keeps descriptors for each process of the workload, which must not run out at what was
/// enough for one.
pub(crate) fn allow_descriptors() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

async fn accept(listener: &UnixListener, live: &Rc<Live>) -> Infallible {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(held) = free.clone().try_acquire_owned() else {
                    continue;
                };
                let live = live.clone();
                tokio::task::spawn_local(async move {
                    serve_one(stream, live).await;
                    drop(held);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_one(stream: UnixStream, live: Rc<Live>) {
    let service = service_fn(move |request| {
        let live = live.clone();
        async move { Ok::<_, Infallible>(http::answer(live, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // However a connection ended, it is over; there is nobody to tell.
    drop(connection.await);
}

/// A stream of ours that is read or written without blocking.
pub(crate) type Stream = AsyncFd<OwnedFd>;

/// Puts a descriptor under the runtime's eyes.
#[expect(unsafe_code, reason = "tokio cannot know that the number stays ours")]
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<Stream> {
    // SAFETY: an `OwnedFd` has one number, which is open until it is dropped; nothing here closes
    // descriptors by number.
    // JUSTIFICATION: there is no safe constructor that is not deprecated.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Takes the dead: processes that were asked for, and what they left to the first process.
async fn reap(signals: &Stream, live: &Live) -> io::Result<()> {
    loop {
        let mut ready = signals.readable().await?;
        process::drain(signals.get_ref());
        ready.clear_ready();
        bury_all(live);
    }
}

/// Those of whom nobody knows yet who they are stay dead a moment longer, so that their deaths are told.
pub(crate) fn bury_all(live: &Live) {
    while live.starting.get() == 0
        && let Reap::Dead(dead) = process::reap()
    {
        live.processes.borrow_mut().bury(dead);
    }
}
