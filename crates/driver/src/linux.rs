//! The default driver: namespaces of this kernel, by our own launcher.

mod disk;
mod given;
mod ids;
mod launcher;
mod plan;
pub mod seccomp;
mod sockets;
mod tree;
mod trial;
mod volume;
mod writable;

use crate::cgroup;
use crate::driver::{
    Counted, Doing, Driver, DriverError, Ended, Found, HANDLE_VERSION, Handle, Mode, Plan, Spec,
    Unsupported, Volume,
};
use crate::guest::GuestStream;
use crate::host::{Host, Root};
use launcher::{Launcher, Start};
use model::id::SandboxId;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

pub use plan::LinuxPlan;
pub(crate) use trial::{no_overlay_over, no_writable_root};
pub(crate) use volume::no_volumes;

/// The driver's name.
pub const NAME: &str = "linux";

/// How long a sandbox may take to disappear once it was killed. The kernel takes milliseconds; a
/// machine that swaps takes longer.
const DESTROY: Duration = Duration::from_secs(20);
/// How long it may take until every process of a sandbox has stopped; one in a system call that cannot be
/// interrupted takes as long as that.
const FREEZE: Duration = Duration::from_secs(5);

/// The most launchers, which is one or two for each root in use: those that were given names, and eight of
/// others. Of more, one that has nothing to do goes.
const LAUNCHERS_MAX: usize = 8 + 2 * model::limits::ROOTS_MAX;

/// What a [`Handle`] of this driver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    /// The launcher's socket, a name in the driver's directory; empty when it is not known which.
    launcher: String,
    /// Directories that hold the control groups of this sandbox.
    cgroups: Vec<PathBuf>,
}

/// The driver, on one directory of its own.
#[derive(Debug)]
pub struct Linux {
    /// Private to this user: sockets, and one directory for each sandbox.
    dir: PathBuf,
    host: Host,
    linger: Linger,
    launchers: Mutex<HashMap<String, Arc<Launcher>>>,
    /// Who starts, or looks for, the launcher of a name does it alone.
    turns: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

/// Whether sandboxes outlive the process that asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linger {
    /// They wait, until their deadlines, for a process that finds them.
    Yes,
    /// They die with it.
    No,
}

impl Linux {
    /// A driver that keeps what it must remember in `dir`, which is made, private.
    ///
    /// # Errors
    /// Those of making the directory.
    pub fn new(dir: &Path, host: Host, linger: Linger) -> Result<Linux, DriverError> {
        sockets::private_dir(&dir.join("sandboxes")).map_err(io("make the driver's directory"))?;
        sockets::private_dir(&dir.join("staging")).map_err(io("make the driver's directory"))?;
        sockets::remove_stale(dir).map_err(io("look for sockets of launchers that are gone"))?;
        Ok(Linux {
            dir: dir.to_owned(),
            host,
            linger,
            launchers: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// The machine that plans are made for.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts the launcher of the host's own root for such sandboxes, so that the first of them need not
    /// wait for it.
    ///
    /// # Errors
    /// [`DriverError`] where no sandbox could be started either.
    pub async fn warm(&self, mode: Mode) -> Result<(), DriverError> {
        self.warm_root(&self.host.root, mode).await
    }

    /// The same of another root.
    ///
    /// # Errors
    /// [`DriverError`] where no sandbox with this root could be started either.
    pub async fn warm_root(&self, root: &Root, mode: Mode) -> Result<(), DriverError> {
        let kind = plan::Kind::of(mode, root, &self.host);
        let tree = kind.tree(root, &self.host.devices, &self.dir.join("staging"));
        self.launcher(&plan::launcher_name(root, kind), Start::IfNone(&tree))
            .await
            .map(drop)
    }

    /// Ends all launchers, and with them all sandboxes, without waiting for either.
    pub async fn quit(&self) {
        for (_, launcher) in self.launchers.lock().await.drain() {
            launcher.quit().await;
        }
    }

    fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.dir.join("sandboxes").join(id.as_str())
    }

    fn body(&self, handle: &Handle) -> Result<Body, DriverError> {
        let other = || DriverError::Handle {
            driver: handle.driver.clone(),
            version: handle.version,
        };
        if handle.driver != NAME || handle.version != HANDLE_VERSION {
            return Err(other());
        }
        serde_json::from_str(&handle.body).map_err(|_| other())
    }

    /// The launcher of this name: connected already, still running from before, or newly started. One whose
    /// tree takes a second to build holds up nobody who wants another.
    async fn launcher(&self, name: &str, start: Start<'_>) -> Result<Arc<Launcher>, DriverError> {
        if let Some(launcher) = self.open_launcher(name).await {
            return Ok(launcher);
        }
        let mut turns = self.turns.lock().await;
        // Nobody waits for those any more.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        let turn = turns.entry(name.to_owned()).or_default().clone();
        drop(turns);
        let _alone = turn.lock().await;
        if let Some(launcher) = self.open_launcher(name).await {
            return Ok(launcher);
        }
        let socket = self.dir.join(name);
        let launcher = match (Launcher::connect(&socket).await, start) {
            (Some(launcher), _) => launcher,
            (None, Start::Never) => return Err(DriverError::Gone),
            (None, Start::IfNone(tree)) => {
                Launcher::start(&socket, tree, &self.host, self.linger).await?
            }
        };
        let launcher = Arc::new(launcher);
        self.keep(name, launcher.clone()).await;
        Ok(launcher)
    }

    async fn open_launcher(&self, name: &str) -> Option<Arc<Launcher>> {
        let launchers = self.launchers.lock().await;
        launchers
            .get(name)
            .filter(|launcher| launcher.is_open())
            .cloned()
    }

    async fn keep(&self, name: &str, launcher: Arc<Launcher>) {
        let mut launchers = self.launchers.lock().await;
        launchers.remove(name);
        if launchers.len() >= LAUNCHERS_MAX
            && let Some(idle) = launchers.iter().find(|(_, one)| one.is_idle())
        {
            let name = idle.0.clone();
            if let Some(launcher) = launchers.remove(&name) {
                launcher.quit().await;
            }
        }
        launchers.insert(name.to_owned(), launcher);
    }

    async fn start_plan(&self, plan: &Plan) -> Result<(), DriverError> {
        let crate::driver::Body::Linux(body) = &plan.body else {
            return Err(DriverError::Gone);
        };
        let id = &plan.handle.id;
        let dir = self.sandbox_dir(id);
        // The directory is the trace by which everything else is found; so it is first and goes last.
        sockets::private_dir(&dir).map_err(io("make the sandbox's directory"))?;
        let socket = sockets::listen(&dir, "guest.sock").map_err(io("listen for the guest"))?;
        let groups = cgroup::create(&body.groups, id.as_str()).map_err(|error| {
            let step = format!("control group {}", error.path.display());
            DriverError::SetUp {
                step,
                source: std::io::Error::from(error.source),
            }
        })?;
        let launcher = self
            .launcher(&body.launcher, Start::IfNone(&body.tree))
            .await?;
        let mut sandbox = body.sandbox.clone();
        sandbox.deadline_boot_ms = boot_ms_in(plan.life);
        let cgroup = (!groups.is_empty()).then(|| id.as_str().to_owned());
        let layers = open_layers(&body.layers)?;
        let volumes = open_volumes(&body.volumes).await?;
        let storage = self.open_storage(&sandbox.data).await?;
        let mut fds = vec![socket.as_fd()];
        let tun = sandbox.tun.as_ref().map(|_| open_tun()).transpose()?;
        let handed = groups.iter().chain(&tun).chain(&layers).chain(&volumes);
        let handed = handed.chain(&storage);
        fds.extend(handed.map(AsFd::as_fd));
        launcher.spawn(sandbox, cgroup, layers.len(), &fds).await
    }

    /// A storage that is not made inside, because it is on the disk.
    async fn open_storage(&self, data: &jail::plan::Data) -> Result<Option<OwnedFd>, DriverError> {
        if !data.is_handed {
            return Ok(None);
        }
        let (dir, bytes) = (self.dir.clone(), data.bytes);
        let made = tokio::task::spawn_blocking(move || disk::make(&dir, bytes)).await;
        let made = made.map_err(|error| io("make storage")(std::io::Error::other(error)))?;
        made.map(Some).map_err(|source| DriverError::SetUp {
            step: "make storage on the disk".to_owned(),
            source,
        })
    }

    async fn save_into(&self, handle: &Handle, to: &Path) -> Result<u64, DriverError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let body = self.body(handle)?;
        // Files that change while they are copied would be something that never was.
        match cgroup::is_frozen(&body.cgroups, handle.id.as_str()) {
            Some(true) => {}
            Some(false) | None => {
                let why = "it is not paused".to_owned();
                return Err(DriverError::CannotSave { why });
            }
        }
        let launcher = self.launcher(&body.launcher, Start::Never).await?;
        let made = std::fs::DirBuilder::new().mode(0o700).create(to);
        made.map_err(io("make the directory for the copy"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::open(to, flags, rustix::fs::Mode::empty());
        let to = to.map_err(|errno| io("open the directory for the copy")(errno.into()))?;
        launcher.save(handle.id.as_str(), to.as_fd()).await
    }

    async fn freeze(&self, handle: &Handle, paused: bool) -> Result<(), DriverError> {
        let body = self.body(handle)?;
        let frozen = async {
            loop {
                match cgroup::freeze(&body.cgroups, handle.id.as_str(), paused) {
                    Ok(true) => return Ok(()),
                    Ok(false) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(rustix::io::Errno::NOENT) => return Err(DriverError::CannotPause),
                    Err(errno) => return Err(io("freeze the control group")(errno.into())),
                }
            }
        };
        let what = || "the processes to be frozen".to_owned();
        let timed_out = |_| DriverError::TimedOut { what: what() };
        tokio::time::timeout(FREEZE, frozen)
            .await
            .map_err(timed_out)?
    }

    async fn destroy_all(&self, handle: &Handle) -> Result<(), DriverError> {
        let body = self.body(handle)?;
        let id = handle.id.as_str();
        // If its launcher has died, nobody else lets paused processes go on, and frozen they do not die.
        let _ = cgroup::freeze(&body.cgroups, id, false);
        let names = match body.launcher.is_empty() {
            true => self.launcher_names().map_err(io("list the launchers"))?,
            false => vec![body.launcher],
        };
        for name in names {
            match self.launcher(&name, Start::Never).await {
                Ok(launcher) => launcher.destroy(id, DESTROY).await?,
                Err(DriverError::Gone) => {} // Its sandboxes died with it.
                Err(error) => return Err(error),
            }
        }
        self.remove_groups(&body.cgroups, id).await?;
        remove_dir(&self.sandbox_dir(&handle.id)).map_err(io("remove the sandbox's directory"))
    }

    /// The sockets of all launchers that there are, or were.
    fn launcher_names(&self) -> std::io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.dir)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.ends_with(".sock")).collect())
    }

    /// The launcher removes the groups when it buries a sandbox; this is for one that died with it.
    async fn remove_groups(&self, parents: &[PathBuf], id: &str) -> Result<(), DriverError> {
        let until = tokio::time::Instant::now() + DESTROY;
        loop {
            match cgroup::remove(parents, id) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::BUSY) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(errno) => return Err(io("remove the control group")(errno.into())),
            }
        }
    }
}

/// The layers as mounts that are mounted nowhere, the newest first. The launcher sees only its tree, so they
/// are opened here.
fn open_layers(layers: &[PathBuf]) -> Result<Vec<OwnedFd>, DriverError> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let newest_first = layers.iter().rev();
    let open = newest_first.map(|layer| {
        open_tree(rustix::fs::CWD, layer, flags).map_err(|errno| DriverError::SetUp {
            step: "open a layer".to_owned(),
            source: errno.into(),
        })
    });
    open.collect()
}

/// The device file that a sandbox's TUN device is made of, only as a path: the launcher does not see it.
fn open_tun() -> Result<OwnedFd, DriverError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(crate::host::TUN, flags, rustix::fs::Mode::empty());
    opened.map_err(|errno| io("open the device of TUN devices")(errno.into()))
}

/// Mounts of volumes, which may have to be made, or read from the disk.
async fn open_volumes(volumes: &[Volume]) -> Result<Vec<OwnedFd>, DriverError> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let volumes = volumes.to_vec();
    let opened = tokio::task::spawn_blocking(move || volume::open_all(&volumes)).await;
    opened.map_err(|error| io("open volumes")(std::io::Error::other(error)))?
}

/// An error of something outside the sandbox.
fn io(what: &str) -> impl FnOnce(std::io::Error) -> DriverError {
    let what = what.to_owned();
    move |source| DriverError::Io { what, source }
}

/// A sandbox's directory holds its socket and nothing else.
fn remove_dir(dir: &Path) -> std::io::Result<()> {
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(std::fs::remove_file(dir.join("guest.sock")))?;
    gone(std::fs::remove_dir(dir))
}

/// The boot-time clock `life` from now, in milliseconds.
fn boot_ms_in(life: Duration) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000;
    now.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX))
}

impl Driver for Linux {
    fn name(&self) -> &'static str {
        NAME
    }

    fn plan(&self, spec: &Spec, host: &Host) -> Result<Plan, Vec<Unsupported>> {
        plan::plan(spec, host, &self.dir)
    }

    fn start<'d>(&'d self, plan: &'d Plan) -> Doing<'d, ()> {
        Box::pin(self.start_plan(plan))
    }

    fn find<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Found> {
        Box::pin(async move {
            let body = self.body(handle)?;
            match self.launcher(&body.launcher, Start::Never).await {
                Ok(launcher) => Ok(launcher.find(handle.id.as_str())),
                Err(DriverError::Gone) => Ok(Found::Gone),
                Err(error) => Err(error),
            }
        })
    }

    fn connect<'d>(&'d self, handle: &'d Handle) -> Doing<'d, GuestStream> {
        Box::pin(async move {
            let dir = self.sandbox_dir(&handle.id);
            let stream = sockets::connect(&dir, "guest.sock").await;
            Ok(Box::new(stream.map_err(io("connect to the guest"))?) as GuestStream)
        })
    }

    fn ended<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Ended> {
        Box::pin(async move {
            let body = self.body(handle)?;
            let launcher = self.launcher(&body.launcher, Start::Never).await?;
            launcher.ended(handle.id.as_str()).await
        })
    }

    fn extend<'d>(&'d self, handle: &'d Handle, life: Duration) -> Doing<'d, ()> {
        Box::pin(async move {
            let body = self.body(handle)?;
            let launcher = self.launcher(&body.launcher, Start::Never).await?;
            launcher.extend(handle.id.as_str(), boot_ms_in(life)).await
        })
    }

    fn network<'d>(&'d self, handle: &'d Handle) -> Doing<'d, ()> {
        Box::pin(async move {
            let body = self.body(handle)?;
            let launcher = self.launcher(&body.launcher, Start::Never).await?;
            let device = open_tun()?;
            let id = handle.id.as_str();
            launcher.network(id, plan::tun(), device.as_fd()).await
        })
    }

    fn pause<'d>(&'d self, handle: &'d Handle, paused: bool) -> Doing<'d, ()> {
        Box::pin(self.freeze(handle, paused))
    }

    fn save<'d>(&'d self, handle: &'d Handle, to: &'d Path) -> Doing<'d, u64> {
        Box::pin(self.save_into(handle, to))
    }

    fn counted<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Counted> {
        Box::pin(async move {
            let body = self.body(handle)?;
            Ok(cgroup::counted(&body.cgroups, handle.id.as_str()))
        })
    }

    fn counting<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Counted> {
        Box::pin(async move {
            let body = self.body(handle)?;
            Ok(cgroup::counting(&body.cgroups, handle.id.as_str()))
        })
    }

    fn destroy<'d>(&'d self, handle: &'d Handle) -> Doing<'d, ()> {
        Box::pin(self.destroy_all(handle))
    }

    fn list(&self) -> Doing<'_, Vec<SandboxId>> {
        Box::pin(async move {
            let dir = self.dir.join("sandboxes");
            let entries = std::fs::read_dir(dir).map_err(io("list the sandboxes"))?;
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            Ok(names.filter_map(|name| name.parse().ok()).collect())
        })
    }

    fn handle(&self, id: &SandboxId) -> Handle {
        plan::handle_of_unknown(id, &self.host)
    }
}
