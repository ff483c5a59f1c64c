//! The agent's end of a launcher: start it, find it again, ask it.

use crate::driver::{DriverError, Ended, Found};
use crate::host::{Host, Ids};
use crate::linux::{Linger, ids, sockets};
use crate::programs;
use jail::message::{self, Failure, FromJail, MESSAGE_MAX, Setup, ToJail, VERSION};
use jail::plan::{Sandbox, Tree, Tun};
use jail::socket;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, Semaphore, oneshot};

/// How long a launcher may take to build its tree, or to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// How long the copy of a sandbox may take: what fits into memory, at the pace of a slow disk.
const SAVE: Duration = Duration::from_secs(600);

/// Whether a launcher that is not there is started.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'t> {
    /// It is, with this tree.
    IfNone(&'t Tree),
    /// It is not.
    Never,
}

/// What is known of the sandboxes of one launcher.
#[derive(Debug, Default)]
struct Known {
    spawning: HashMap<String, oneshot::Sender<Result<(), Failure>>>,
    saving: HashMap<String, oneshot::Sender<Result<u64, Failure>>>,
    networking: HashMap<String, Vec<oneshot::Sender<Result<(), Failure>>>>,
    alive: HashSet<String>,
    ended: HashMap<String, Ended>,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    socket: AsyncFd<OwnedFd>,
    known: Mutex<Known>,
    changed: Notify,
}

/// A connection to a launcher.
#[derive(Debug)]
pub(super) struct Launcher {
    shared: Arc<Shared>,
    /// Places for devices that are being made: fewer than the launcher takes.
    networks: Semaphore,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The socket closes with the task; a launcher that does not linger ends then.
        self.reader.abort();
    }
}

impl Launcher {
    /// Connects to a launcher that runs already. `None` when there is none, or one that does not
    /// answer in this version.
    pub(super) async fn connect(path: &Path) -> Option<Launcher> {
        let name = path.file_name()?.to_str()?;
        let socket = sockets::connect_messages(path.parent()?, name).ok()?;
        let socket = register(socket).ok()?;
        send(&socket, &ToJail::Hello { version: VERSION }, &[])
            .await
            .ok()?;
        match tokio::time::timeout(ANSWER, receive(&socket)).await {
            Ok(Ok(FromJail::Ready {
                version: VERSION,
                alive,
                ..
            })) => Some(Launcher::serve(socket, alive)),
            _ => None,
        }
    }

    /// Starts a launcher and waits until its tree stands.
    pub(super) async fn start(
        path: &Path,
        tree: &Tree,
        host: &Host,
        linger: Linger,
    ) -> Result<Launcher, DriverError> {
        let failed = |step: &'static str| {
            move |source: io::Error| DriverError::SetUp {
                step: step.to_owned(),
                source,
            }
        };
        let (dir, name) = (
            path.parent(),
            path.file_name().and_then(|name| name.to_str()),
        );
        let (Some(dir), Some(name)) = (dir, name) else {
            return Err(DriverError::Gone);
        };
        let listener = sockets::listen_messages(dir, name).map_err(failed("launcher socket"))?;
        let (socket, child) = run(dir).map_err(failed("launcher"))?;
        reap(child);
        let unblocked = rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from);
        let socket = unblocked.and_then(|()| register(socket));
        let socket = socket.map_err(failed("launcher"))?;
        // The launcher starts while its guest is copied.
        let guest = programs::sealed("cofferdam-guest", programs::GUEST)
            .map_err(|errno| failed("guest")(errno.into()))?;
        let sudo = programs::sealed("cofferdam-sudo", programs::SUDO)
            .map_err(|errno| failed("sudo")(errno.into()))?;
        let setup = ToJail::Setup(Setup {
            version: VERSION,
            linger: linger == Linger::Yes,
            own_user_namespace: host.ids != Ids::Root,
            tree: tree.clone(),
        });
        send(
            &socket,
            &setup,
            &[listener.as_fd(), guest.as_fd(), sudo.as_fd()],
        )
        .await?;
        let answer = tokio::time::timeout(ANSWER, set_up(&socket, host)).await;
        answer.map_err(|_| DriverError::TimedOut {
            what: "the launcher's tree".to_owned(),
        })??;
        Ok(Launcher::serve(socket, Vec::new()))
    }

    fn serve(socket: AsyncFd<OwnedFd>, alive: Vec<String>) -> Launcher {
        let known = Known {
            alive: alive.into_iter().collect(),
            ..Known::default()
        };
        let shared = Arc::new(Shared {
            socket,
            known: Mutex::new(known),
            changed: Notify::new(),
        });
        let reader = tokio::spawn(read(shared.clone()));
        let networks = Semaphore::new(message::NETWORKS_MAX / 2);
        Launcher {
            shared,
            networks,
            reader,
        }
    }

    /// The connection stands.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.known().closed
    }

    /// Nothing runs or is remembered in it.
    pub(super) fn is_idle(&self) -> bool {
        let known = self.shared.known();
        known.spawning.is_empty() && known.alive.is_empty() && known.ended.is_empty()
    }

    /// Starts a sandbox. Its set-up goes on when this returns.
    pub(super) async fn spawn(
        &self,
        sandbox: Sandbox,
        cgroup: Option<String>,
        layers: usize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), DriverError> {
        let id = sandbox.id.clone();
        let (tell, told) = oneshot::channel();
        self.shared.known().spawning.insert(id.clone(), tell);
        let message = ToJail::Spawn {
            sandbox: Box::new(sandbox),
            cgroup,
            layers: u32::try_from(layers).unwrap_or(u32::MAX),
        };
        if let Err(error) = send(&self.shared.socket, &message, fds).await {
            self.shared.known().spawning.remove(&id);
            return Err(error);
        }
        match tokio::time::timeout(ANSWER, told).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(failure))) => Err(set_up_error(&failure)),
            Ok(Err(_)) => Err(DriverError::Launcher {
                what: "it ended".to_owned(),
            }),
            Err(_) => Err(DriverError::TimedOut {
                what: "the launcher".to_owned(),
            }),
        }
    }

    /// What is known of a sandbox.
    pub(super) fn find(&self, id: &str) -> Found {
        let known = self.shared.known();
        match known.ended.get(id) {
            Some(ended) => Found::Ended(ended.clone()),
            None if known.alive.contains(id) => Found::Running,
            None => Found::Gone,
        }
    }

    /// Waits until a sandbox has ended.
    pub(super) async fn ended(&self, id: &str) -> Result<Ended, DriverError> {
        loop {
            let changed = self.shared.changed.notified();
            match self.find(id) {
                Found::Ended(ended) => return Ok(ended),
                Found::Gone => return Err(DriverError::Gone),
                Found::Running if !self.is_open() => return Err(DriverError::Gone),
                Found::Running => changed.await,
            }
        }
    }

    /// Moves a deadline.
    pub(super) async fn extend(&self, id: &str, deadline_boot_ms: u64) -> Result<(), DriverError> {
        let message = ToJail::Extend {
            id: id.to_owned(),
            deadline_boot_ms,
        };
        send(&self.shared.socket, &message, &[]).await
    }

    /// Makes the network device of a sandbox that stands, of this device file.
    pub(super) async fn network(
        &self,
        id: &str,
        tun: Tun,
        device: BorrowedFd<'_>,
    ) -> Result<(), DriverError> {
        // It is never closed.
        let _place = self.networks.acquire().await;
        let (tell, told) = oneshot::channel();
        let is_first = {
            let mut known = self.shared.known();
            let waiting = known.networking.entry(id.to_owned()).or_default();
            waiting.push(tell);
            waiting.len() == 1
        };
        if is_first {
            let message = ToJail::Network {
                id: id.to_owned(),
                tun,
            };
            if let Err(error) = send(&self.shared.socket, &message, &[device]).await {
                self.shared.known().networking.remove(id);
                return Err(error);
            }
        }
        match tokio::time::timeout(ANSWER, told).await {
            Ok(Ok(result)) => result.map_err(|failure| set_up_error(&failure)),
            Ok(Err(_)) => Err(DriverError::Launcher {
                what: "it ended".to_owned(),
            }),
            Err(_) => Err(DriverError::TimedOut {
                what: "the network device of a sandbox".to_owned(),
            }),
        }
    }

    /// Copies what was written in a sandbox into this empty directory. The bytes that were copied.
    pub(super) async fn save(&self, id: &str, to: BorrowedFd<'_>) -> Result<u64, DriverError> {
        let (tell, told) = oneshot::channel();
        let busy = || DriverError::CannotSave {
            why: "it is being saved already".to_owned(),
        };
        match self.shared.known().saving.entry(id.to_owned()) {
            Entry::Occupied(_) => return Err(busy()),
            Entry::Vacant(free) => free.insert(tell),
        };
        let message = ToJail::Save { id: id.to_owned() };
        let sent = send(&self.shared.socket, &message, &[to]).await;
        // Who gives up waiting is not told, and the next one may ask once the launcher has answered.
        let waited = match sent {
            Ok(()) => tokio::time::timeout(SAVE, told).await,
            Err(error) => {
                self.shared.known().saving.remove(id);
                return Err(error);
            }
        };
        match waited {
            Ok(Ok(Ok(bytes))) => Ok(bytes),
            Ok(Ok(Err(failure))) => Err(save_error(&failure)),
            Ok(Err(_)) => Err(DriverError::Launcher {
                what: "it ended".to_owned(),
            }),
            Err(_) => Err(DriverError::TimedOut {
                what: "the copy of a sandbox".to_owned(),
            }),
        }
    }

    /// Kills a sandbox, waits until nothing of it is left, and forgets it.
    pub(super) async fn destroy(&self, id: &str, patience: Duration) -> Result<(), DriverError> {
        if self.find(id) == Found::Running {
            send(
                &self.shared.socket,
                &ToJail::Kill { id: id.to_owned() },
                &[],
            )
            .await?;
            match tokio::time::timeout(patience, self.ended(id)).await {
                Ok(Ok(_) | Err(DriverError::Gone)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let what = "the end of a killed sandbox".to_owned();
                    return Err(DriverError::TimedOut { what });
                }
            }
        }
        if self.shared.known().ended.remove(id).is_some() {
            // A launcher that is gone has forgotten it too.
            drop(
                send(
                    &self.shared.socket,
                    &ToJail::Forget { id: id.to_owned() },
                    &[],
                )
                .await,
            );
        }
        Ok(())
    }

    /// Asks it to kill everything and end; it cleans up by itself.
    pub(super) async fn quit(&self) {
        drop(send(&self.shared.socket, &ToJail::Quit, &[]).await);
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        // What is behind the lock is consistent after every statement, so a panic elsewhere is no
        // reason to stop.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, message: FromJail) {
        let mut known = self.known();
        match message {
            FromJail::Spawned { id, .. } => {
                if let Some(tell) = known.spawning.remove(&id) {
                    drop(tell.send(Ok(())));
                }
                known.alive.insert(id);
            }
            FromJail::Refused { id, failure } => {
                if let Some(tell) = known.spawning.remove(&id) {
                    drop(tell.send(Err(failure)));
                }
            }
            FromJail::Ended {
                id,
                failure,
                deadline,
            } => {
                known.alive.remove(&id);
                let failure = failure.map(|failure| set_up_error_text(&failure));
                known.ended.insert(id, Ended { failure, deadline });
            }
            FromJail::Networked { id, result } => {
                for tell in known.networking.remove(&id).unwrap_or_default() {
                    drop(tell.send(result.clone()));
                }
            }
            FromJail::Saved { id, result } => {
                if let Some(tell) = known.saving.remove(&id) {
                    drop(tell.send(result));
                }
            }
            FromJail::NeedsIds { .. } | FromJail::Ready { .. } | FromJail::Failed(_) => {}
        }
        drop(known);
        self.changed.notify_waiters();
    }
}

/// Reads until the launcher is gone.
async fn read(shared: Arc<Shared>) {
    while let Ok(message) = receive(&shared.socket).await {
        shared.hear(message);
    }
    let mut known = shared.known();
    known.closed = true;
    known.spawning.clear();
    known.saving.clear();
    known.networking.clear();
    drop(known);
    shared.changed.notify_waiters();
}

/// From the start of the process to a tree that stands.
async fn set_up(socket: &AsyncFd<OwnedFd>, host: &Host) -> Result<(), DriverError> {
    loop {
        match receive(socket).await? {
            FromJail::NeedsIds { pid } => {
                let host = host.clone();
                let mapped = tokio::task::spawn_blocking(move || ids::map_launcher(pid, &host));
                let failed = |source| DriverError::SetUp {
                    step: "id map".to_owned(),
                    source,
                };
                mapped
                    .await
                    .map_err(io::Error::other)
                    .and_then(|r| r)
                    .map_err(failed)?;
                send(socket, &ToJail::Hello { version: VERSION }, &[]).await?;
            }
            FromJail::Ready { .. } => return Ok(()),
            FromJail::Failed(failure) => return Err(set_up_error(&failure)),
            FromJail::Spawned { .. }
            | FromJail::Refused { .. }
            | FromJail::Networked { .. }
            | FromJail::Saved { .. }
            | FromJail::Ended { .. } => {
                return Err(DriverError::Launcher {
                    what: "it speaks out of turn".to_owned(),
                });
            }
        }
    }
}

/// A copy that this machine cannot make is told apart from one that was not made.
fn save_error(failure: &Failure) -> DriverError {
    let errno = Errno::from_raw_os_error(failure.errno);
    match (errno, &*failure.step) {
        (Errno::SRCH, "sandbox") => DriverError::Gone,
        (Errno::OPNOTSUPP, "storage") => DriverError::CannotSave {
            why: "its root cannot be written; one that was made with `allow_root` can, on a node of root"
                .to_owned(),
        },
        (Errno::AGAIN, _) => DriverError::CannotSave {
            why: "too many sandboxes are being saved at once, or it runs".to_owned(),
        },
        (Errno::MLINK, step) => DriverError::CannotSave {
            why: format!("cannot {step}"),
        },
        _ => DriverError::Io {
            what: format!("save the sandbox at `{}`", failure.step),
            source: errno.into(),
        },
    }
}

fn set_up_error(failure: &Failure) -> DriverError {
    let source = io::Error::from_raw_os_error(failure.errno);
    DriverError::SetUp {
        step: failure.step.clone(),
        source,
    }
}

fn set_up_error_text(failure: &Failure) -> String {
    format!(
        "{}: {}",
        failure.step,
        io::Error::from_raw_os_error(failure.errno)
    )
}

/// Runs the launcher: from memory, with one end of a socket and nothing else. Its arguments are for people
/// who look at the machine's processes: whose it is.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that clears what a child inherits"
)]
pub(super) fn run(dir: &Path) -> io::Result<(OwnedFd, Child)> {
    let program = programs::sealed("cofferdam-jail", programs::JAIL)?;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let child = std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0("cofferdam-jail")
        .arg(dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((ours, child))
}

/// Takes the launcher's exit status when it ends, so that it does not stay a zombie.
pub(super) fn reap(mut child: Child) {
    let waiting = move || child.wait();
    let thread = std::thread::Builder::new()
        .name("launcher-wait".to_owned())
        .stack_size(64 * 1024);
    // Without a thread there will be a zombie until this process ends, and nothing worse.
    drop(thread.spawn(waiting));
}

/// Watches a socket with the runtime.
#[expect(
    unsafe_code,
    reason = "the runtime asks for a promise about the descriptor"
)]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `OwnedFd` moves into the `AsyncFd`, which never gives it away: it stays open and the
    // same until both are dropped.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

async fn send(
    socket: &AsyncFd<OwnedFd>,
    message: &ToJail,
    fds: &[BorrowedFd<'_>],
) -> Result<(), DriverError> {
    let bytes = message::encode(message).ok_or_else(|| DriverError::Launcher {
        what: "the plan is too long".to_owned(),
    })?;
    loop {
        match socket::send(socket.get_ref(), &bytes, fds) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut ready = socket.writable().await.map_err(broken)?;
                ready.clear_ready();
            }
            Err(errno) => return Err(broken(errno.into())),
        }
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> Result<FromJail, DriverError> {
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        match socket::receive(socket.get_ref(), &mut buffer) {
            Ok(([], _)) => {
                return Err(DriverError::Launcher {
                    what: "it ended".to_owned(),
                });
            }
            Ok((bytes, _)) => {
                return message::decode(bytes).ok_or_else(|| DriverError::Launcher {
                    what: "it speaks nonsense".to_owned(),
                });
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut ready = socket.readable().await.map_err(broken)?;
                ready.clear_ready();
            }
            Err(errno) => return Err(broken(errno.into())),
        }
    }
}

fn broken(error: io::Error) -> DriverError {
    DriverError::Launcher {
        what: error.to_string(),
    }
}
