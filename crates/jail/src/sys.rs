//! System calls that no library wraps, each with the reason why it is safe.

use rustix::io::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The error of the last call of this thread.
pub(crate) fn errno() -> Errno {
    let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Errno::from_raw_os_error(raw)
}

/// `struct clone_args` of `clone3(2)`, its first version.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Every namespace that a sandbox has of its own.
pub(crate) const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Forks, into new namespaces of these kinds. In the parent: the child's id and a descriptor for it.
#[expect(unsafe_code, reason = "clone3 has no safe wrapper")]
pub(crate) fn fork_into(namespaces: i32) -> Result<Option<(i32, OwnedFd)>, Errno> {
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: u64::from((namespaces | libc::CLONE_PIDFD).unsigned_abs()),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child gets a copy of this address space and no new stack, as after
    // fork(2); this process has one thread, so the copy is consistent. `pidfd` outlives the call.
    // JUSTIFICATION: fork and unshare would need a second fork for the pid namespace.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        // SAFETY: the kernel has just stored a new descriptor there that nobody else knows.
        Ok(pid) if pid > 0 => Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
        _ => Err(errno()),
    }
}

/// Puts this process into a new mount namespace, or user namespace.
#[expect(unsafe_code, reason = "unshare has no safe wrapper")]
pub(crate) fn unshare(flag: i32) -> Result<(), Errno> {
    // SAFETY: one thread, and only namespaces are unshared, not memory or descriptors.
    if unsafe { libc::unshare(flag) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// Enters these namespaces of a process.
#[expect(unsafe_code, reason = "setns has no safe wrapper for several at once")]
pub(crate) fn enter(process: &OwnedFd, namespaces: i32) -> Result<(), Errno> {
    // SAFETY: integers only; this process has one thread, which has nothing that belongs to its old namespaces.
    if unsafe { libc::setns(process.as_raw_fd(), namespaces) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// Closes every descriptor from `first` on.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: only in a forked child that never returns, so no owner there is dropped or used again.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// Marks every descriptor from `first` on to be closed by `exec`.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: nothing is closed now, so no owner loses its descriptor.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// Makes descriptor `to` a copy of `from` that survives `exec`.
#[expect(unsafe_code, reason = "placing descriptors by number")]
pub(crate) fn place(from: impl std::os::fd::AsFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: integers only. Whatever was open at `to` has an owner that is never dropped, because the
    // process execs or exits.
    if unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) } == to {
        Ok(())
    } else {
        Err(errno())
    }
}

/// The descriptor that the launcher was started with.
#[expect(
    unsafe_code,
    reason = "taking ownership of a descriptor passed by number"
)]
pub(crate) fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: whoever exec'd us opened it for us; `main` takes it once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Closes every descriptor but the standard ones and `keep`.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(crate) fn close_others(keep: &OwnedFd) -> Result<(), Errno> {
    let keep = keep.as_raw_fd();
    for (first, last) in [(3, keep - 1), (keep + 1, RawFd::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: called first of all; what is open was inherited and has no owner in this process.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(errno());
        }
    }
    Ok(())
}

/// Becomes the root of a user namespace whose maps were just written; keeps the groups, which may not
/// be dropped where the map has one id.
#[expect(unsafe_code, reason = "raw identity calls")]
pub(crate) fn become_root() -> Result<(), Errno> {
    // SAFETY: integers only.
    if unsafe { libc::syscall(libc::SYS_setresgid, 0, 0, 0) } != 0 {
        return Err(errno());
    }
    // SAFETY: integers only.
    if unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) } != 0 {
        return Err(errno());
    }
    Ok(())
}

/// Becomes the program in `file`, with an empty environment.
#[expect(unsafe_code, reason = "execveat has no safe wrapper")]
pub(crate) fn exec(file: &OwnedFd, arguments: [&std::ffi::CStr; 2]) -> Errno {
    let [first, second] = arguments.map(std::ffi::CStr::as_ptr);
    let argv = [c"guest".as_ptr(), first, second, std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: both lists are null-terminated and point at strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    errno()
}

/// Ends this process at once, without the clean-up that belongs to its parent.
#[expect(unsafe_code, reason = "leaving a forked child")]
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` touches no memory.
    unsafe { libc::_exit(code) }
}

/// Drops all capabilities from the bounding set but `keep`.
#[expect(unsafe_code, reason = "prctl on capability numbers")]
pub(crate) fn bound_capabilities(keep: &[u32]) -> Result<(), Errno> {
    for capability in 0..64 {
        if keep.contains(&capability) {
            continue;
        }
        // SAFETY: integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            // Past the last capability that this kernel has.
            return if errno() == Errno::INVAL {
                Ok(())
            } else {
                Err(errno())
            };
        }
    }
    Ok(())
}

/// Lets `capability`, which is in the inheritable set, survive the `exec` of a program by a user that
/// is not the namespace's root.
#[expect(unsafe_code, reason = "prctl on capability numbers")]
pub(crate) fn raise_ambient(capability: u32) -> Result<(), Errno> {
    // SAFETY: integers only.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            capability,
            0,
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

/// Becomes this user and group, and leaves all others.
#[expect(unsafe_code, reason = "raw identity calls")]
pub(crate) fn become_user(id: u32) -> Result<(), Errno> {
    // SAFETY: a null list of length 0 is what setgroups(2) documents for "none".
    // JUSTIFICATION: raw calls change this thread only, and it is the only one.
    if unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) } != 0 {
        return Err(errno());
    }
    // SAFETY: integers only.
    if unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) } != 0 {
        return Err(errno());
    }
    // SAFETY: integers only.
    if unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) } != 0 {
        return Err(errno());
    }
    Ok(())
}

/// Makes the TUN device of this name in this network namespace, with `tun` as its other end.
/// `EXT4_IOC_SHUTDOWN` of the kernel's `include/uapi/linux/ext4.h`, and the flag that writes nothing first.
const SHUTDOWN: libc::Ioctl = 0x8004_587D;
const WITHOUT_LOG: u32 = 2;

/// Gives a file system up: what is not written yet never is, so that whoever lets go of it last does not wait for
/// a disk. One that does not know this is written as usual.
#[expect(unsafe_code, reason = "an ioctl on a file system")]
pub(crate) fn give_up(directory: &OwnedFd) {
    let how = WITHOUT_LOG;
    // SAFETY: the request reads one 32-bit number, which outlives the call.
    // JUSTIFICATION: rustix does not wrap it.
    unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN, &raw const how) };
}

#[expect(unsafe_code, reason = "an ioctl on a device file")]
pub(crate) fn make_tun(tun: &OwnedFd, name: &str) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()).take(room) {
        *to = i8::try_from(*from).unwrap_or(0);
    }
    // Not one that is there: whose it is would not be known.
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    request.ifr_ifru.ifru_flags = u16::try_from(flags).unwrap_or(0).cast_signed();
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which outlives the call.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// Brings up the loopback interface of this network namespace.
#[expect(unsafe_code, reason = "an ioctl on a network interface")]
pub(crate) fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = i8::try_from(*from).unwrap_or(0);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}
