//! The contract that every way to isolate fulfils.

use crate::guest::GuestStream;
use crate::host::Host;
use model::enforcement::Enforced;
use model::id::SandboxId;
use model::spec::AskedLimits;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

/// A future of a driver's method; boxed, so that drivers can be chosen by name.
pub type Doing<'d, T> = Pin<Box<dyn Future<Output = Result<T, DriverError>> + Send + 'd>>;

/// What is asked of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name, chosen by the caller, so that it can be found after a crash in any line.
    pub id: SandboxId,
    /// The root file system; `None` shows the programs of the host.
    pub root: Option<crate::host::Root>,
    /// Limits. What is asked for is enforced or refused.
    pub limits: AskedLimits,
    /// How long it may live if nobody extends it, from its start.
    pub life: Duration,
    /// What it is for.
    pub mode: Mode,
    /// Somebody will bring it lines to the outside. Where the machine can, programs that know no proxy use them
    /// too.
    pub way_out: bool,
    /// Directories that [`Driver::save`] made, the oldest first: what was written in them is there from the
    /// start. At most [`LAYERS_MAX`].
    pub layers: Vec<PathBuf>,
    /// Volumes in its files. At most [`VOLUMES_MAX`].
    pub volumes: Vec<Volume>,
}

/// A file system of its own in one file, which sandboxes have at the same time and which outlives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The file, in a directory of the caller's.
    pub image: PathBuf,
    /// It is made if it is not there. Any other that is not there is lost, and then no sandbox has it.
    pub is_new: bool,
    /// What it holds at most, if it is made.
    pub size_bytes: u64,
    /// Where in the sandbox: absolute, without `.` and `..`. Directories on the way are made.
    pub target: String,
    /// It is only read there.
    pub read_only: bool,
}

/// Volumes of one sandbox; each is a descriptor on its way to the launcher.
pub const VOLUMES_MAX: usize = 8;

/// Layers of one sandbox. The kernel's overlay takes 500 (`OVL_MAX_STACK` in its `fs/overlayfs`), but each
/// is looked at for each name that is not there, and one option of a mount is at most a page long.
pub const LAYERS_MAX: usize = 16;

/// What a sandbox is for, which decides what is mounted in it and what its guest keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One command.
    #[default]
    Job,
    /// Many processes over time, served by the guest's live mode; it has terminals.
    Live {
        /// Processes and files may be asked for as the sandbox's own root.
        allow_root: bool,
    },
}

/// One clause that a driver cannot hold on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Such as `memory`.
    pub clause: String,
    /// Why not, and what would help; for a person.
    pub why: String,
}

/// A sandbox that could be started: everything is decided, nothing is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How to find it again. Written down before [`Driver::start`].
    pub handle: Handle,
    /// How long it may live if nobody extends it.
    pub life: Duration,
    /// What will hold, and how.
    pub enforced: Vec<Enforced>,
    /// How each process of the workload is confined.
    pub confine: guest::message::Confine,
    /// What the driver does.
    pub body: Body,
}

/// The part of a plan that only its driver reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Namespaces of this kernel.
    Linux(Box<crate::linux::LinuxPlan>),
    /// Nothing but a pretence, for tests.
    Fake,
}

/// What lets a sandbox be found again, by this process or by the one that follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Of this format.
    pub version: u32,
    /// Which driver reads `body`.
    pub driver: String,
    /// The sandbox.
    pub id: SandboxId,
    /// The driver's own, opaque to all others.
    pub body: String,
}

/// The version of [`Handle`] that this build writes.
pub const HANDLE_VERSION: u32 = 1;

/// How a sandbox was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its guest can be connected to.
    Running,
    /// It was there and has ended, and this is what its supervisor knows.
    Ended(Ended),
    /// There is no trace of it.
    Gone,
}

/// The end of a sandbox, as its supervisor saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Setting it up failed, at this step.
    pub failure: Option<String>,
    /// Its deadline was over.
    pub deadline: bool,
}

/// What a sandbox has used, as far as the driver can see from outside.
pub type Counted = crate::cgroup::Counted;

/// Why a driver could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A step of the set-up failed.
    #[error("set up the sandbox at `{step}`")]
    SetUp {
        /// Which.
        step: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The launcher is gone or does not answer.
    #[error("reach the launcher: {what}")]
    Launcher {
        /// What was seen.
        what: String,
    },
    /// There is no such sandbox, or it has ended.
    #[error("find the sandbox")]
    Gone,
    /// Nothing here stops processes so that they do not notice.
    #[error("pause the sandbox: no control group can freeze it here")]
    CannotPause,
    /// What is written here cannot be copied, and why.
    #[error("save the sandbox: {why}")]
    CannotSave {
        /// For a person.
        why: String,
    },
    /// The handle is of another driver or version.
    #[error("read the handle of driver {driver}, version {version}")]
    Handle {
        /// Its driver.
        driver: String,
        /// Its version.
        version: u32,
    },
    /// A file or socket outside the sandbox could not be used.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line was held up longer than it may take.
    #[error("wait for {what}")]
    TimedOut {
        /// What did not come.
        what: String,
    },
}

/// A way to isolate.
///
/// Exec, streams and files go through the guest that [`Driver::connect`] leads to, and are the same
/// for all drivers.
pub trait Driver: Send + Sync + Debug {
    /// Its name in profiles, handles and records.
    fn name(&self) -> &'static str;

    /// Decides everything about a sandbox. Pure: looks at nothing but its arguments.
    ///
    /// # Errors
    /// All clauses that cannot be held, not only the first.
    fn plan(&self, spec: &Spec, host: &Host) -> Result<Plan, Vec<Unsupported>>;

    /// Starts a sandbox. The caller has written `plan.handle` down before, so that whatever this has
    /// done when the caller dies can be found and destroyed. Returns when the sandbox is being set up;
    /// that it stands is known when its guest answers.
    fn start<'d>(&'d self, plan: &'d Plan) -> Doing<'d, ()>;

    /// Looks for a sandbox, also after a restart of this process. Never starts anything.
    fn find<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Found>;

    /// Connects to the guest. May be repeated; the newest connection is served, and all of them where the
    /// guest lives on.
    fn connect<'d>(&'d self, handle: &'d Handle) -> Doing<'d, GuestStream>;

    /// Waits until it has ended. For a sandbox whose guest hung up, to learn why.
    fn ended<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Ended>;

    /// Lets it live this long from now, whatever was said before.
    fn extend<'d>(&'d self, handle: &'d Handle, life: Duration) -> Doing<'d, ()>;

    /// Gives a sandbox that stands the network device that [`Spec::way_out`] gives it from the start, before
    /// somebody brings it its first line. May be repeated, also for one that has it. For machines whose
    /// [`Host::no_tun`] is nothing.
    fn network<'d>(&'d self, handle: &'d Handle) -> Doing<'d, ()>;

    /// Stops the workload in its tracks, all of it, or lets it go on. The guest still answers. Returns when
    /// it is so; may be repeated.
    ///
    /// # Errors
    /// [`DriverError::CannotPause`] where this machine cannot, which changes nothing.
    fn pause<'d>(&'d self, handle: &'d Handle, paused: bool) -> Doing<'d, ()>;

    /// Copies what was written in a paused sandbox into `to`, a directory that is not there yet: a layer for
    /// [`Spec::layers`], together with those of this sandbox. Gives the bytes of the copy. What an attempt
    /// that failed has left of `to` is the caller's to remove.
    ///
    /// # Errors
    /// [`DriverError::CannotSave`] where this machine cannot, which changes nothing.
    fn save<'d>(&'d self, handle: &'d Handle, to: &'d Path) -> Doing<'d, u64>;

    /// What it has used so far. Only while it is not destroyed.
    fn counted<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Counted>;

    /// What it uses at this moment, as far as that can be seen from outside. Only while it runs.
    fn counting<'d>(&'d self, handle: &'d Handle) -> Doing<'d, Counted>;

    /// Ends it and takes everything away. May be repeated, also for a sandbox that never started. When
    /// it returns `Ok`, nothing is left on the machine: no process, mount, group or file.
    fn destroy<'d>(&'d self, handle: &'d Handle) -> Doing<'d, ()>;

    /// All sandboxes of which this driver sees a trace, those whose handle nobody wrote down included.
    fn list(&self) -> Doing<'_, Vec<SandboxId>>;

    /// A handle for [`Driver::destroy`] of a sandbox that was listed and whose own handle is lost.
    fn handle(&self, id: &SandboxId) -> Handle;
}
