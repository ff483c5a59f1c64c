//! The launcher's loop: starts sandboxes when an agent asks, holds their deadlines, takes their dead.
//!
//! It is the supervisor that neither the workload nor the agent can stop: it lives outside the
//! sandboxes, and it goes on when the agent dies. All state is in [`Spawner`]; one message or one
//! wake-up is handled at a time.

use crate::network::Maker;
use crate::sandbox::{self, Given};
use crate::save::{self, Saver, Wanted};
use crate::{mount, sys, writable};
use jail::message::{
    self, CGROUPS_MAX, Failure, FromJail, ID_MAX, LAYERS_MAX, MESSAGE_MAX, NETWORKS_MAX,
    SANDBOXES_MAX, SAVES_MAX, Setup, ToJail, VERSION, VOLUMES_MAX,
};
use jail::plan::{IdMap, Sandbox, Tun};
use jail::socket;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How long a launcher without an agent and without a living sandbox waits for an agent that wants to
/// know how the dead ones ended, in milliseconds of the boot-time clock.
const ORPHAN_MS: u64 = 10 * 60 * 1000;

/// How often the removal of a control group is tried again: the kernel lets go of a dead process's
/// group a moment after its exit is seen.
const RETRY_MS: u64 = 5;
const RETRIES: u32 = 200;

/// A sandbox that lives, or of which something is left.
#[derive(Debug)]
struct Live {
    id: String,
    pidfd: OwnedFd,
    status: OwnedFd,
    /// Keeps the child's end of `go` open, so that it never reads an end of file before its byte. What the
    /// child hands over, the storage of a root that can be written, waits in it until it is wanted. A device that
    /// it gets later goes over it.
    go: OwnedFd,
    storage: Option<OwnedFd>,
    /// The top of a storage that is on a disk.
    disk: Option<OwnedFd>,
    /// What would be saved.
    saved: Option<Wanted>,
    deadline: u64,
    struck: bool,
    groups: Vec<OwnedFd>,
    cgroup: Option<String>,
    /// Set once its first process is dead: what is left is to remove the groups.
    dead: Option<Dead>,
}

#[derive(Debug)]
struct Dead {
    failure: Option<Failure>,
    tries: u32,
    next_try: u64,
}

/// How an ended sandbox is remembered until the agent forgets it.
#[derive(Debug)]
struct Ended {
    id: String,
    failure: Option<Failure>,
    deadline: bool,
}

/// The launcher.
#[derive(Debug)]
pub(crate) struct Spawner {
    /// For agents that come later.
    listener: OwnedFd,
    guest: OwnedFd,
    /// Nothing is ever written into it: what the guests read of it ends when this process does.
    life: (OwnedFd, OwnedFd),
    agent: Option<OwnedFd>,
    linger: bool,
    live: Vec<Live>,
    ended: Vec<Ended>,
    savers: Vec<Saver>,
    makers: Vec<Maker>,
    quitting: bool,
    alone_since: Option<u64>,
}

fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

impl Spawner {
    pub(crate) fn new(
        agent: OwnedFd,
        listener: OwnedFd,
        guest: OwnedFd,
        setup: &Setup,
    ) -> Result<Spawner, Errno> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Spawner {
            listener,
            guest,
            life: rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?,
            agent: Some(agent),
            linger: setup.linger,
            live: Vec::new(),
            ended: Vec::new(),
            savers: Vec::new(),
            makers: Vec::new(),
            quitting: false,
            alone_since: None,
        })
    }

    /// Serves until told to quit, or until nobody can ask any more.
    pub(crate) fn run(mut self) -> Result<(), Errno> {
        self.say(&self.ready());
        loop {
            self.wait()?;
            self.bury();
            self.hear_savers();
            self.hear_makers();
            self.strike();
            self.accept();
            self.hear();
            if self.finished() {
                return Ok(());
            }
        }
    }

    fn finished(&mut self) -> bool {
        if self.agent.is_some() || !self.live.is_empty() {
            self.alone_since = None;
            return self.quitting && self.live.is_empty();
        }
        let since = *self.alone_since.get_or_insert_with(boot_ms);
        let waited = boot_ms().saturating_sub(since);
        self.quitting || self.ended.is_empty() || waited >= ORPHAN_MS
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(agent) = &self.agent {
            fds.push(PollFd::new(agent, PollFlags::IN));
        }
        let living = self.live.iter().filter(|live| live.dead.is_none());
        fds.extend(living.map(|live| PollFd::new(&live.pidfd, PollFlags::IN)));
        let savers = self.savers.iter();
        fds.extend(savers.map(|saver| PollFd::new(&saver.pidfd, PollFlags::IN)));
        let makers = self.makers.iter();
        fds.extend(makers.map(|maker| PollFd::new(&maker.pidfd, PollFlags::IN)));
        match rustix::event::poll(&mut fds, Some(&self.patience())) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Until the next deadline or retry, and a minute at most: `poll` counts time on a clock that
    /// stops while the machine sleeps, so a deadline may be past due on waking.
    fn patience(&self) -> rustix::time::Timespec {
        let next = self.live.iter().map(|live| match &live.dead {
            Some(dead) => dead.next_try,
            None if live.struck => u64::MAX,
            None => live.deadline,
        });
        let left = next
            .min()
            .map_or(u64::MAX, |at| at.saturating_sub(boot_ms()));
        let left = std::time::Duration::from_millis(left.saturating_add(1).min(60_000));
        let minute = rustix::time::Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        rustix::time::Timespec::try_from(left).unwrap_or(minute)
    }

    /// Kills what is past its deadline.
    fn strike(&mut self) {
        let now = boot_ms();
        for live in &mut self.live {
            if live.dead.is_none() && !live.struck && now >= live.deadline {
                live.struck = true;
                kill(live);
            }
        }
    }

    /// Takes the dead, removes their control groups, and tells the agent when nothing is left.
    fn bury(&mut self) {
        let now = boot_ms();
        let mut gone = Vec::new();
        self.live.retain_mut(|live| {
            if live.dead.is_none() && has_exited(&live.pidfd) {
                let failure = told(&live.status);
                live.dead = Some(Dead {
                    failure,
                    tries: 0,
                    next_try: now,
                });
            }
            let Some(dead) = &mut live.dead else {
                return true;
            };
            if now < dead.next_try {
                return true;
            }
            if !remove_groups(&live.groups, live.cgroup.as_deref()) && dead.tries < RETRIES {
                dead.tries += 1;
                dead.next_try = now + RETRY_MS;
                return true;
            }
            // One that ended by itself too: the launcher has no time to see it written.
            if let Some(disk) = &live.disk {
                sys::give_up(disk);
            }
            let id = std::mem::take(&mut live.id);
            gone.push(Ended {
                id,
                failure: dead.failure.take(),
                deadline: live.struck,
            });
            false
        });
        for ended in gone {
            // What is copied of a sandbox that ended is wanted by nobody, and holds its storage.
            let its = self.savers.iter().filter(|saver| saver.id == ended.id);
            its.for_each(|saver| {
                let _ = rustix::process::pidfd_send_signal(&saver.pidfd, Signal::KILL);
            });
            self.say_ended(&ended);
            if self.ended.len() < SANDBOXES_MAX {
                self.ended.push(ended);
            }
        }
    }

    fn say_ended(&mut self, ended: &Ended) {
        let (failure, deadline) = (ended.failure.clone(), ended.deadline);
        self.say(&FromJail::Ended {
            id: ended.id.clone(),
            failure,
            deadline,
        });
    }

    /// Tells of copies that are made, or not.
    fn hear_savers(&mut self) {
        let all = std::mem::take(&mut self.savers);
        let (over, others) = all.into_iter().partition(save::is_over);
        self.savers = others;
        for saver in over {
            let result = saver.result();
            self.say(&FromJail::Saved {
                id: saver.id,
                result,
            });
        }
    }

    fn save(&mut self, id: String, fds: Vec<OwnedFd>) {
        if let Err(failure) = self.try_save(&id, fds) {
            let result = Err(failure);
            self.say(&FromJail::Saved { id, result });
        }
    }

    fn try_save(&mut self, id: &str, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let failed = |step: &str, errno: Errno| crate::mount::failed(step, "")(errno);
        let to = <[OwnedFd; 1]>::try_from(fds).map_err(|_| failed("directory", Errno::BADF))?;
        let [to] = to;
        if self.savers.len() >= SAVES_MAX || self.savers.iter().any(|saver| saver.id == id) {
            return Err(failed("one more copy", Errno::AGAIN));
        }
        let mut living = self.live.iter_mut().filter(|live| live.dead.is_none());
        let live = living.find(|live| live.id == id);
        let live = live.ok_or_else(|| failed("sandbox", Errno::SRCH))?;
        let wanted = live.saved.as_ref();
        let wanted = wanted.ok_or_else(|| failed("storage", Errno::OPNOTSUPP))?;
        if live.storage.is_none() {
            rustix::io::ioctl_fionbio(&live.go, true).map_err(|errno| failed("storage", errno))?;
            let received = socket::receive(&live.go, &mut [0; 8]).map(|(_, fds)| fds);
            let mut fds = received.map_err(|errno| failed("storage", errno))?;
            live.storage = fds.pop();
        }
        let storage = live.storage.as_ref();
        let storage = storage.ok_or_else(|| failed("storage", Errno::BADF))?;
        let saver = Saver::start(id.to_owned(), wanted, storage, &to);
        self.savers
            .push(saver.map_err(|errno| failed("fork", errno))?);
        Ok(())
    }

    /// Tells of devices that are made, or not.
    fn hear_makers(&mut self) {
        let all = std::mem::take(&mut self.makers);
        let (over, others) = all.into_iter().partition(|one| has_exited(&one.pidfd));
        self.makers = others;
        for maker in over {
            let result = maker.result();
            self.say(&FromJail::Networked {
                id: maker.id,
                result,
            });
        }
    }

    fn network(&mut self, id: String, tun: &Tun, fds: Vec<OwnedFd>) {
        if let Err(failure) = self.try_network(&id, tun, fds) {
            let result = Err(failure);
            self.say(&FromJail::Networked { id, result });
        }
    }

    fn try_network(&mut self, id: &str, tun: &Tun, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let failed = |step: &str, errno: Errno| crate::mount::failed(step, "")(errno);
        let device = <[OwnedFd; 1]>::try_from(fds).map_err(|_| failed("device", Errno::BADF))?;
        let [device] = device;
        // One that is being made would look as if its guest had it.
        if self.makers.len() >= NETWORKS_MAX || self.makers.iter().any(|maker| maker.id == id) {
            return Err(failed("one more device", Errno::AGAIN));
        }
        let mut living = self.live.iter().filter(|live| live.dead.is_none());
        let live = living.find(|live| live.id == id);
        let live = live.ok_or_else(|| failed("sandbox", Errno::SRCH))?;
        let maker = Maker::start(id.to_owned(), (&live.pidfd, &live.go), (tun, &device));
        self.makers
            .push(maker.map_err(|errno| failed("fork", errno))?);
        Ok(())
    }

    /// The newest agent is the one that is served: the one before it is dead, or about to be.
    fn accept(&mut self) {
        if let Ok(agent) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            self.agent = Some(agent);
        }
    }

    /// Handles at most one message.
    fn hear(&mut self) {
        let Some(agent) = &self.agent else { return };
        let mut fds = [PollFd::new(agent, PollFlags::IN)];
        let now = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(n) if n > 0) {
            return;
        }
        let mut buffer = vec![0; MESSAGE_MAX];
        match socket::receive(agent, &mut buffer) {
            Ok(([], _)) | Err(_) => self.lose_agent(),
            Ok((bytes, fds)) => match message::decode(bytes) {
                Some(message) => self.obey(message, fds),
                None => self.lose_agent(),
            },
        }
    }

    fn lose_agent(&mut self) {
        self.agent = None;
        if !self.linger {
            self.quit();
        }
    }

    fn quit(&mut self) {
        self.quitting = true;
        self.live.iter().for_each(kill);
    }

    fn say(&mut self, message: &FromJail) {
        let Some(agent) = &self.agent else { return };
        let sent = message::encode(message).map(|bytes| socket::send(agent, &bytes, &[]));
        if !matches!(sent, Some(Ok(()))) {
            self.lose_agent();
        }
    }

    fn ready(&self) -> FromJail {
        let living = self.live.iter().filter(|live| live.dead.is_none());
        FromJail::Ready {
            version: VERSION,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            alive: living.map(|live| live.id.clone()).collect(),
        }
    }

    fn obey(&mut self, message: ToJail, fds: Vec<OwnedFd>) {
        match message {
            ToJail::Setup(_) | ToJail::Probe { .. } => self.lose_agent(),
            ToJail::Hello { version } if version != VERSION => self.lose_agent(),
            ToJail::Hello { .. } => {
                self.say(&self.ready());
                let ended = std::mem::take(&mut self.ended);
                ended.iter().for_each(|one| self.say_ended(one));
                self.ended = ended;
            }
            ToJail::Spawn {
                sandbox,
                cgroup,
                layers,
            } => self.spawn(*sandbox, cgroup, layers, fds),
            ToJail::Network { id, tun } => self.network(id, &tun, fds),
            ToJail::Save { id } => self.save(id, fds),
            ToJail::Kill { id } => self.live.iter().filter(|live| live.id == id).for_each(kill),
            ToJail::Extend {
                id,
                deadline_boot_ms,
            } => {
                let matching = self.live.iter_mut().filter(|live| live.id == id);
                matching.for_each(|live| live.deadline = deadline_boot_ms);
            }
            ToJail::Forget { id } => self.ended.retain(|ended| ended.id != id),
            ToJail::Quit => self.quit(),
        }
    }

    fn spawn(&mut self, sandbox: Sandbox, cgroup: Option<String>, layers: u32, fds: Vec<OwnedFd>) {
        let id = sandbox.id.clone();
        match self.try_spawn(&sandbox, cgroup, layers, fds) {
            Ok(pid) => self.say(&FromJail::Spawned { id, pid }),
            Err(failure) => self.say(&FromJail::Refused { id, failure }),
        }
    }

    fn try_spawn(
        &mut self,
        sandbox: &Sandbox,
        cgroup: Option<String>,
        layers: u32,
        mut fds: Vec<OwnedFd>,
    ) -> Result<i32, Failure> {
        let failed = |step: &str, errno: Errno| crate::mount::failed(step, "")(errno);
        let storage = take_storage(sandbox, &mut fds)?;
        let disk = storage.as_ref().map(top_of).transpose();
        let disk = disk.map_err(|errno| failed("storage", errno))?;
        let mut volumes = take_volumes(sandbox, &mut fds)?;
        let layers = take_layers(sandbox, layers, &mut fds)?;
        volumes.extend(storage);
        let tun = sandbox.tun.as_ref().and_then(|_| fds.pop());
        self.admit(sandbox, cgroup.as_deref(), &fds)?;
        let groups = fds.split_off(1 + (fds.len() - 1) / 2);
        let members = fds.split_off(1);
        let socket = fds.pop().ok_or_else(|| failed("socket", Errno::BADF))?;
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let (go, wait) = pair().map_err(|errno| failed("pair", errno))?;
        let (status, tell) = pipe().map_err(|errno| failed("pipe", errno))?;
        let Some((pid, pidfd)) =
            sys::fork_into(sys::NAMESPACES).map_err(|errno| failed("clone", errno))?
        else {
            drop((go, status));
            let guest = &self.guest;
            let given = Given {
                socket: &socket,
                cgroups: &members,
                tun: tun.as_ref(),
                guest,
                launcher: &self.life.0,
                go: wait,
                status: tell,
            };
            sandbox::run(sandbox, &given);
        };
        let live = Live {
            id: sandbox.id.clone(),
            pidfd,
            status,
            go,
            storage: None,
            disk,
            saved: Wanted::of(sandbox),
            deadline: sandbox.deadline_boot_ms,
            struck: false,
            groups,
            cgroup,
            dead: None,
        };
        let handed = Handed {
            layers: &layers,
            written: &volumes,
        };
        let gone = let_go(pid, sandbox, &live.go, handed);
        if gone.is_err() {
            kill(&live); // It is buried like any other, which removes its groups.
        }
        self.live.push(live);
        gone.map(|()| pid)
    }

    /// The last check before anything is made; the driver's plan should never fail it.
    fn admit(
        &self,
        sandbox: &Sandbox,
        cgroup: Option<&str>,
        fds: &[OwnedFd],
    ) -> Result<(), Failure> {
        let name_ok = |name: &str| {
            !name.is_empty()
                && name.len() <= ID_MAX
                && !name.starts_with('.')
                && !name.contains('/')
        };
        let refused = if !name_ok(&sandbox.id) || !cgroup.is_none_or(name_ok) {
            Some(("name", Errno::INVAL))
        } else if fds.is_empty() || fds.len().is_multiple_of(2) || fds.len() > 1 + 2 * CGROUPS_MAX {
            Some(("descriptors", Errno::BADF))
        } else if self.live.len() + self.ended.len() >= SANDBOXES_MAX || self.quitting {
            Some(("too many sandboxes", Errno::AGAIN))
        } else if self.live.iter().any(|live| live.id == sandbox.id) {
            Some(("name", Errno::EXIST))
        } else {
            None
        };
        refused.map_or(Ok(()), |(step, errno)| {
            Err(crate::mount::failed(step, "")(errno))
        })
    }
}

fn kill(live: &Live) {
    if live.dead.is_none() {
        thaw(&live.groups, live.cgroup.as_deref());
        // The first process of a pid namespace takes all others with it. It may be dead already.
        let _ = rustix::process::pidfd_send_signal(&live.pidfd, Signal::KILL);
    }
    // Nobody wants what it wrote, and its overlays would see to it that all is written before it is gone.
    if let Some(disk) = &live.disk {
        sys::give_up(disk);
    }
}

/// In a frozen group of version 1 even SIGKILL waits, and the first process waits for all others.
fn thaw(dirs: &[OwnedFd], name: Option<&str>) {
    let Some(name) = name else { return };
    for dir in dirs {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = format!("{name}/freezer.state");
        if let Ok(state) = rustix::fs::openat(dir, file, flags, Mode::empty()) {
            // What cannot be written stays frozen, and the next try of the agent thaws it.
            let _ = rustix::io::write(&state, b"THAWED");
        }
    }
}

fn has_exited(pidfd: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    !matches!(
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options),
        Ok(None)
    )
}

/// What the first process said before it died, if its set-up failed.
fn told(status: &OwnedFd) -> Option<Failure> {
    let mut bytes = [0; 1024];
    // It is dead, so its end is closed and this does not block.
    let n = rustix::io::read(status, &mut bytes).ok()?;
    message::decode(bytes.get(..n).unwrap_or_default())
}

/// True when no group of this name is left.
fn remove_groups(dirs: &[OwnedFd], name: Option<&str>) -> bool {
    let Some(name) = name else { return true };
    dirs.iter().all(|dir| {
        matches!(
            rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR),
            Ok(()) | Err(Errno::NOENT)
        )
    })
}

/// The two ends over which the launcher lets a sandbox's first process go: the launcher's, the child's.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::net::{AddressFamily, SocketType};
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)
}

/// The storage is the last descriptor of a request to spawn, where it is not made inside.
fn take_storage(sandbox: &Sandbox, fds: &mut Vec<OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    if !sandbox.data.is_handed {
        return Ok(None);
    }
    let storage = sandbox.root.as_ref().and_then(|_| fds.pop());
    let none = || crate::mount::failed("storage", "")(Errno::BADF);
    storage.map(Some).ok_or_else(none)
}

fn top_of(mount: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(mount, ".", flags, Mode::empty())
}

/// Volumes are the last descriptors of a request to spawn, but for the storage.
fn take_volumes(sandbox: &Sandbox, fds: &mut Vec<OwnedFd>) -> Result<Vec<OwnedFd>, Failure> {
    let volumes = sandbox.volumes.len();
    let most = if sandbox.root.is_some() {
        VOLUMES_MAX.min(fds.len())
    } else {
        0
    };
    if volumes > most {
        return Err(crate::mount::failed("volumes", "")(Errno::BADF));
    }
    Ok(fds.split_off(fds.len() - volumes))
}

/// The layers are the last descriptors of a request to spawn, but for volumes and the storage.
fn take_layers(
    sandbox: &Sandbox,
    layers: u32,
    fds: &mut Vec<OwnedFd>,
) -> Result<Vec<OwnedFd>, Failure> {
    let layers = usize::try_from(layers).unwrap_or(usize::MAX);
    let most = if sandbox.root.is_some() {
        LAYERS_MAX
    } else {
        0
    };
    if layers > most || layers > fds.len() {
        return Err(crate::mount::failed("layers", "")(Errno::BADF));
    }
    Ok(fds.split_off(fds.len() - layers))
}

/// Mounts that came along with a request to spawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handed<'m> {
    /// What is below the root, the newest first.
    pub(crate) layers: &'m [OwnedFd],
    /// Volumes, then the storage.
    pub(crate) written: &'m [OwnedFd],
}

/// Gives the child its ids, and what is below its root and in it, and lets it go.
pub(crate) fn let_go(
    pid: i32,
    sandbox: &Sandbox,
    go: &OwnedFd,
    handed: Handed<'_>,
) -> Result<(), Failure> {
    use crate::mount::failed;
    write_maps(pid, sandbox).map_err(failed("ids", ""))?;
    let mut below = None;
    if let Some(root) = &sandbox.root {
        let path = format!("/proc/{pid}/ns/user");
        let userns = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let userns = userns.map_err(failed("user namespace", ""))?;
        below = Some(writable::of_launcher(root, &userns, handed.layers)?);
        for written in handed.written {
            mount::map_ids(written, &userns, mount::Written::Yes)
                .map_err(failed("map ids of", "a volume or storage"))?;
        }
    }
    let all = below.iter().chain(handed.layers).chain(handed.written);
    let fds: Vec<BorrowedFd<'_>> = all.map(AsFd::as_fd).collect();
    socket::send(go, b"g", &fds).map_err(failed("go", ""))
}

/// Writes the id maps of the child. Only its parent may map more than one id.
fn write_maps(pid: i32, sandbox: &Sandbox) -> Result<(), Errno> {
    let write = |file: &str, text: &str| -> Result<(), Errno> {
        let path = format!("/proc/{pid}/{file}");
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.as_bytes()).map(drop)
    };
    if sandbox.guest_uid == sandbox.user_uid {
        // A map with one id may be written without privilege only once groups cannot be dropped.
        write("setgroups", "deny")?;
    }
    write("uid_map", &lines(&sandbox.uids))?;
    write("gid_map", &lines(&sandbox.gids))
}

fn lines(maps: &[IdMap]) -> String {
    let line = |m: &IdMap| format!("{} {} {}\n", m.inside, m.outside, m.count);
    maps.iter().map(line).collect()
}

/// Sends a message to the agent that set this launcher up, before there is a loop.
pub(crate) fn tell(agent: BorrowedFd<'_>, message: &FromJail) -> Result<(), Errno> {
    let bytes = message::encode(message).ok_or(Errno::MSGSIZE)?;
    socket::send(agent, &bytes, &[])
}
