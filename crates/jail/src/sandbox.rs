//! The life of a sandbox's first process from its clone to the moment it becomes the guest.

use crate::files::{group, owner};
use crate::mount::{self, Recursive, failed};
use crate::{network, sys, writable};
use jail::message::Failure;
use jail::plan::{EMPTY_DIR, EMPTY_FILE, Place, Sandbox};
use jail::socket;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::{AsFd, OwnedFd};

/// What the first process of a sandbox is given.
#[derive(Debug)]
pub(crate) struct Given<'g> {
    /// The listening socket of the guest.
    pub(crate) socket: &'g OwnedFd,
    /// The membership files of the workload's control groups.
    pub(crate) cgroups: &'g [OwnedFd],
    /// The device file of [`jail::plan::Tun`], only a path yet.
    pub(crate) tun: Option<&'g OwnedFd>,
    /// The guest's program.
    pub(crate) guest: &'g OwnedFd,
    /// Closed at its other end when the launcher is no more.
    pub(crate) launcher: &'g OwnedFd,
    /// One byte comes from here when the id maps are written, and with it what is below a root that can be
    /// written. The storage of such a root goes back. The guest keeps it, for what it is given later.
    pub(crate) go: OwnedFd,
    /// Where a failure is told; closed by `exec`. Its other end is open as long as the launcher lives.
    pub(crate) status: OwnedFd,
}

/// Files in a place that is in memory where the storage is not.
const MEMORY_FILES: u64 = 4096;

/// The sandbox's own boot id in its storage, until it is shown.
const BOOT_ID: &str = ".boot_id";

/// What the guest keeps of root's rights over its own namespace: to start the workload as another
/// user, to drop the rest for it, and to end it.
const GUEST_KEEPS: [(u32, CapabilitySet); 4] = [
    (5, CapabilitySet::KILL),
    (6, CapabilitySet::SETGID),
    (7, CapabilitySet::SETUID),
    (8, CapabilitySet::SETPCAP),
];

/// What it keeps beyond that where processes may be asked for as the sandbox's root, to give it to
/// those and to touch files for them.
const ROOT_KEEPS: [(u32, CapabilitySet); 3] = [
    (0, CapabilitySet::CHOWN),
    (1, CapabilitySet::DAC_OVERRIDE),
    (3, CapabilitySet::FOWNER),
];

/// Runs in the clone. Never returns: it becomes the guest, or says what failed and dies.
pub(crate) fn run(sandbox: &Sandbox, given: &Given<'_>) -> ! {
    // Above everything that is placed by number later, so that no placing overwrites them.
    let (Ok(status), Ok(guest)) = (lift(&given.status, given), lift(given.guest, given)) else {
        sys::exit_now(2)
    };
    let failure = match become_guest(sandbox, given, &status, &guest) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    if let Some(bytes) = jail::message::encode(&failure) {
        let _ = rustix::io::write(&status, &bytes);
    }
    sys::exit_now(1)
}

/// The whole containment, in order. Until the line in the middle this is root of a new user
/// namespace, which may mount and configure what the other six namespaces hold, and nothing else.
fn become_guest(
    sandbox: &Sandbox,
    given: &Given<'_>,
    status: &OwnedFd,
    guest: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    let handed = wait_for_ids(&given.go)?;
    // With the launcher's id, to which the device file may belong alone.
    let tun = network::tun(sandbox, given)?;
    become_root_inside(sandbox)?;
    rustix::system::sethostname(sandbox.hostname.as_bytes()).map_err(failed("hostname", ""))?;
    sys::loopback_up().map_err(failed("loopback", ""))?;
    let (data, at) = match &sandbox.root {
        Some(root) => {
            let data = writable::lay(sandbox, root, &handed)?;
            socket::send(&given.go, b"d", &[data.as_fd()]).map_err(failed("hand over", "data"))?;
            (data, &*root.target)
        }
        None => (mount_data(sandbox)?, ""),
    };
    let boot_id = mount_proc(sandbox, at, &data)?;
    if let Some(target) = &sandbox.terminals {
        let fs = mount::terminals().map_err(failed("terminals", ""))?;
        mount::attach(&fs, CWD, format!("{at}{target}")).map_err(failed("mount", target))?;
    }
    if sandbox.root.is_some() {
        rustix::process::chdir(at).map_err(failed("chdir", at))?;
        mount::enter_root().map_err(failed("pivot_root", at))?;
    }
    // From now on the launcher only gives: the guest has nothing to say to it.
    rustix::net::shutdown(&given.go, rustix::net::Shutdown::Write)
        .map_err(failed("shutdown", "go"))?;
    place_descriptors(given, &boot_id, tun)?;
    // From here on only the guest's identity and its few capabilities are left.
    drop_rights(sandbox.root_inside)?;
    die_with_launcher(status)?;
    let count = std::ffi::CString::new(given.cgroups.len().to_string()).unwrap_or_default();
    let tun = if given.tun.is_some() { c"tun" } else { c"" };
    let errno = sys::exec(guest, [&count, tun]);
    Err(failed("exec", "guest")(errno))
}

/// As far as [`become_guest`] makes a root that can be written, and then a look whether it is one.
pub(crate) fn probe(sandbox: &Sandbox, go: &OwnedFd) -> Result<(), Failure> {
    let handed = wait_for_ids(go)?;
    become_root_inside(sandbox)?;
    let root = sandbox.root.as_ref().ok_or(Errno::INVAL);
    let root = root.map_err(failed("root", ""))?;
    writable::lay(sandbox, root, &handed)?;
    writable::try_out(root)
}

/// Nothing here has an id until the launcher has written the maps.
fn wait_for_ids(go: &OwnedFd) -> Result<Vec<OwnedFd>, Failure> {
    match socket::receive(go, &mut [0; 8]) {
        Ok(([_], fds)) => Ok(fds),
        // The launcher died before it wrote the maps.
        Ok(_) => Err(failed("ids", "")(Errno::PIPE)),
        Err(errno) => Err(failed("ids", "")(errno)),
    }
}

/// Files made from here on belong to an id that the namespace has; its capabilities stay. Where the map
/// has a single id, this process has it already.
fn become_root_inside(sandbox: &Sandbox) -> Result<(), Failure> {
    if rustix::process::geteuid().as_raw() == sandbox.guest_uid {
        return Ok(());
    }
    sys::become_user(sandbox.guest_uid).map_err(failed("setuid", "guest"))
}

/// One tmpfs with a limit on bytes and files holds everything that the sandbox can write.
fn mount_data(sandbox: &Sandbox) -> Result<OwnedFd, Failure> {
    let fs = make_data(sandbox, None)?;
    for place in &sandbox.data.places {
        if let Some(target) = &place.target {
            let source = format!("{}/{}", sandbox.data.target, place.name);
            mount::bind(&source, target).map_err(failed("bind", target))?;
        }
    }
    Ok(fs)
}

/// The storage with its directories, mounted where only this process sees it yet: what was handed over, or one
/// in memory.
pub(crate) fn make_data(sandbox: &Sandbox, handed: Option<&OwnedFd>) -> Result<OwnedFd, Failure> {
    let data = &sandbox.data;
    let fs = match handed {
        Some(storage) => storage.try_clone().map_err(|_| Errno::MFILE),
        None => mount::tmpfs(data.bytes, data.inodes),
    };
    let fs = fs.map_err(failed("storage", &data.target))?;
    mount::attach(&fs, CWD, &data.target).map_err(failed("mount", &data.target))?;
    for place in &data.places {
        make_place(&fs, place, sandbox).map_err(failed("mkdir", &place.name))?;
        if let Some(bytes) = place.memory_bytes.filter(|_| data.is_handed) {
            let path = format!("{}/{}", data.target, place.name);
            in_memory(place, bytes, &path).map_err(failed("tmpfs", &place.name))?;
        }
    }
    Ok(fs)
}

/// Puts a file system in memory over a place of a storage that is not.
fn in_memory(place: &Place, bytes: u64, path: &str) -> Result<(), Errno> {
    let fs = mount::tmpfs(bytes, MEMORY_FILES)?;
    mount::attach(&fs, CWD, path)?;
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(place.mode), AtFlags::empty())
}

fn make_place(fs: &OwnedFd, place: &Place, sandbox: &Sandbox) -> Result<(), Errno> {
    rustix::fs::mkdirat(fs, &*place.name, Mode::from_raw_mode(0o700))?;
    if place.of_user {
        let (uid, gid) = (owner(sandbox.user_uid), group(sandbox.user_uid));
        rustix::fs::chownat(fs, &*place.name, uid, gid, AtFlags::empty())?;
    }
    rustix::fs::chmodat(
        fs,
        &*place.name,
        Mode::from_raw_mode(place.mode),
        AtFlags::empty(),
    )
}

/// A fresh proc over the host's, or in the root at `at`, with the parts that tell about the machine covered.
/// Gives the file that has the boot id.
fn mount_proc(sandbox: &Sandbox, at: &str, data: &OwnedFd) -> Result<OwnedFd, Failure> {
    let proc = mount::proc().map_err(failed("proc", ""))?;
    let place = format!("{at}{}", sandbox.proc);
    mount::attach(&proc, CWD, &*place).map_err(failed("mount", &sandbox.proc))?;
    for path in sandbox.masked.iter().map(|path| format!("{at}{path}")) {
        let path = &path;
        match rustix::fs::statat(CWD, &**path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {} // This kernel has nothing there to hide.
            Err(errno) => return Err(failed("mask", path)(errno)),
            Ok(stat) => {
                let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
                let directory = kind == rustix::fs::FileType::Directory;
                let cover = if directory { EMPTY_DIR } else { EMPTY_FILE };
                mount::bind(cover, path).map_err(failed("mask", path))?;
            }
        }
    }
    let boot_id = cover_boot_id(sandbox, &place, data)?;
    // With what was mounted in it just now.
    for path in sandbox.read_only.iter().map(|path| format!("{at}{path}")) {
        let path = &path;
        let copy = mount::copy(path, Recursive::Yes).map_err(failed("read-only", path))?;
        mount::restrict(&copy, MountAttrFlags::MOUNT_ATTR_RDONLY, Recursive::Yes)
            .map_err(failed("read-only", path))?;
        mount::attach(&copy, CWD, path).map_err(failed("read-only", path))?;
    }
    Ok(boot_id)
}

/// Shows a boot id of this sandbox's own: the machine's would tell two sandboxes that they are neighbours, and
/// a program that has been away that it has not. The file has no name afterwards, so that the only ways to it
/// are the read-only one and the descriptor that is returned.
fn cover_boot_id(sandbox: &Sandbox, proc: &str, data: &OwnedFd) -> Result<OwnedFd, Failure> {
    let random = format!("{proc}/sys/kernel/random");
    // One of the kernel's making, a line in the same form.
    let source = rustix::fs::open(format!("{random}/uuid"), OFlags::RDONLY, Mode::empty());
    let mut id = [0; 64];
    let n = source.and_then(|source| rustix::io::read(source, &mut id));
    let n = n.map_err(failed("make", "boot id"))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o444);
    let file = rustix::fs::openat(data, BOOT_ID, flags, mode);
    let file = file.map_err(failed("make", "boot id"))?;
    rustix::fs::fchmod(&file, mode).map_err(failed("make", "boot id"))?;
    let written = rustix::io::write(&file, id.get(..n).unwrap_or_default());
    written.map_err(failed("write", "boot id"))?;
    let named = format!("{}/{BOOT_ID}", sandbox.data.target);
    mount::bind(&named, &format!("{random}/boot_id")).map_err(failed("bind", "boot id"))?;
    rustix::fs::unlinkat(data, BOOT_ID, AtFlags::empty()).map_err(failed("unlink", "boot id"))?;
    Ok(file)
}

/// The first number after those that the guest expects something at.
fn first_free(given: &Given<'_>) -> i32 {
    let more = given.cgroups.len() + usize::from(given.tun.is_some());
    7 + i32::try_from(more).unwrap_or(i32::MAX - 7)
}

/// A copy above those numbers.
pub(crate) fn lift(fd: &OwnedFd, given: &Given<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, first_free(given))
}

/// 0 to 2 are `/dev/null`, 3 the socket, 4 and up the control groups, then the boot id, then where the launcher
/// hands over what comes later, the TUN device of a sandbox that has one, and what tells of the launcher's end;
/// the rest goes at `exec`.
fn place_descriptors(
    given: &Given<'_>,
    boot_id: &OwnedFd,
    tun: Option<OwnedFd>,
) -> Result<(), Failure> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())
        .map_err(failed("open", "/dev/null"))?;
    let socket = lift(given.socket, given).map_err(failed("dup", "socket"))?;
    let groups = given.cgroups.iter().chain([boot_id, &given.go]);
    let groups: Result<Vec<OwnedFd>, Errno> = groups.map(|fd| lift(fd, given)).collect();
    let groups = groups.map_err(failed("dup", "cgroup"))?;
    let launcher = lift(given.launcher, given).map_err(failed("dup", "launcher"))?;
    for to in 0..3 {
        sys::place(&null, to).map_err(failed("dup", "null"))?;
    }
    sys::place(&socket, 3).map_err(failed("dup", "socket"))?;
    for (to, fd) in (4..).zip(groups.iter().chain(&tun).chain([&launcher])) {
        sys::place(fd, to).map_err(failed("dup", "cgroup"))?;
    }
    sys::close_on_exec_from(first_free(given)).map_err(failed("close", ""))
}

fn drop_rights(root_inside: bool) -> Result<(), Failure> {
    let more: &[(u32, CapabilitySet)] = if root_inside { &ROOT_KEEPS } else { &[] };
    let all = [&GUEST_KEEPS, more].concat();
    let keep: Vec<u32> = all.iter().map(|(number, _)| *number).collect();
    sys::bound_capabilities(&keep).map_err(failed("capabilities", "bounding"))?;
    let kept = all
        .iter()
        .fold(CapabilitySet::empty(), |all, (_, one)| all | *one);
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capabilities", "set"))?;
    for number in keep {
        sys::raise_ambient(number).map_err(failed("capabilities", "ambient"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs", ""))
}

/// The launcher is the supervisor: if it dies, nobody would hold the deadline, so everything dies with
/// it. It may have died before the kernel was asked, and then the pipe that it reads is closed.
fn die_with_launcher(status: &OwnedFd) -> Result<(), Failure> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill).map_err(failed("death signal", ""))?;
    let mut fds = [PollFd::new(status, PollFlags::empty())];
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(0) => Ok(()),
        Ok(_) => Err(failed("launcher", "")(Errno::PIPE)),
        Err(errno) => Err(failed("launcher", "")(errno)),
    }
}
