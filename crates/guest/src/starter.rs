//! A confined process that starts commands.
//!
//! To fork the guest and to confine what comes out of it takes several times as long as to run a short
//! command: the fork makes every page that the guest touches next a page fault, and the filter of system
//! calls is translated anew each time. So one process is forked and confined before anybody asks, and it
//! makes the processes that become commands as `posix_spawn(3)` does: they borrow its memory until they
//! `exec`, and inherit its confinement. Landlock alone each of them applies itself, so that each command has
//! a domain of its own and cannot signal the others, or this process.
//!
//! They are children of the guest (`CLONE_PARENT`), which reaps them, and not of this process.

use crate::confine::{self, Failed};
use crate::process::{self, Image, Wanted};
use guest::message::{Start, StartFailure};
use landlock::RulesetCreated;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

/// The longest command with its environment that is sent here. A socket's buffer holds it many times, so
/// that nobody waits to send; who has more to say has a process forked for it.
const MESSAGE_MAX: usize = 32 * 1024;

/// Where this process has its socket, and the rules of Landlock.
const SOCKET: RawFd = 3;
const RULES: RawFd = 4;

/// What the process that becomes a command needs until then: a few calls deep, and no buffers.
const STACK_BYTES: usize = 64 * 1024;

/// The step at which there was no room for another process.
pub(crate) const FORK: &str = "fork";

/// What became of a command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The command runs, with this process id.
    Runs(i32),
    /// It does not.
    Failed(StartFailure),
}

/// Makes one. Gives its process id and our end of its socket, which does not block.
pub(crate) fn make(wanted: Wanted<'_>) -> Result<(i32, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    match process::fork()? {
        0 => {
            // It ends when the guest has closed the other end, or when it could not be confined.
            let _ = become_starter(wanted, &theirs);
            process::exit_now()
        }
        pid => {
            rustix::io::ioctl_fionbio(&ours, true)?;
            Ok((pid, ours))
        }
    }
}

/// Sends a command with its standard streams; without an input, two. False where it is too long, or cannot
/// be sent.
pub(crate) fn send(socket: &OwnedFd, start: &Start, streams: &[BorrowedFd<'_>]) -> bool {
    let Ok(bytes) = postcard::to_stdvec(start) else {
        return false;
    };
    if bytes.len() > MESSAGE_MAX {
        return false;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(streams)) {
        return false;
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags);
    sent == Ok(bytes.len())
}

/// Reads an answer without blocking; none where the process is gone.
pub(crate) fn read(socket: &OwnedFd) -> Result<Option<Answer>, Errno> {
    let mut bytes = [0; 256];
    let (n, _) = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    Ok(postcard::from_bytes(bytes.get(..n).unwrap_or_default()).ok())
}

fn become_starter(wanted: Wanted<'_>, socket: &OwnedFd) -> Result<Infallible, Failed> {
    confine::join_cgroups(wanted.cgroups)?;
    // The rules first: their number is above those of the guest's own descriptors, as the socket's is.
    let rules = wanted.landlock.and_then(rules_of);
    let socket = move_up(socket.as_raw_fd())?;
    let rules = rules.map(|rules| move_up(rules.as_raw_fd())).transpose()?;
    confine::put_at(socket, SOCKET)?;
    confine::set_cloexec(SOCKET)?;
    if let Some(rules) = rules {
        confine::put_at(rules, RULES)?;
        confine::set_cloexec(RULES)?;
    }
    let kept = if rules.is_some() { RULES } else { SOCKET };
    process::close_from(kept.unsigned_abs() + 1);
    process::own_session()?;
    confine::apply(wanted.confine, wanted.who, None)?;
    process::null_input()?;
    serve(rules.map(|_| RULES))
}

fn rules_of(rules: RulesetCreated) -> Option<OwnedFd> {
    rules.into()
}

/// A copy of a descriptor above all that are placed by number.
#[expect(unsafe_code, reason = "placing descriptors by number")]
fn move_up(fd: RawFd) -> Result<RawFd, Failed> {
    // SAFETY: integers only.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, RULES + 1) } {
        -1 => Err(("dup", confine::errno())),
        fd => Ok(fd),
    }
}

/// Starts what it is sent, one after the other, until the guest has closed its end.
fn serve(rules: Option<RawFd>) -> Result<Infallible, Failed> {
    let mut stack = vec![0_u8; STACK_BYTES];
    let mut bytes = vec![0; MESSAGE_MAX];
    loop {
        let (start, streams) = receive(&mut bytes)?;
        let answer = match start_one(&start, &streams, rules, &mut stack) {
            Ok(pid) => Answer::Runs(pid),
            Err((step, errno)) => Answer::Failed(StartFailure {
                step: step.to_owned(),
                errno,
            }),
        };
        // The guest must not hear of the end of its output before all who hold it have closed it.
        drop(streams);
        let said = postcard::to_stdvec(&answer).map_err(|_| ("answer", libc::EINVAL))?;
        rustix::net::send(socket(), &said, SendFlags::NOSIGNAL)
            .map_err(|errno| ("answer", errno.raw_os_error()))?;
    }
}

#[expect(unsafe_code, reason = "a descriptor known by number")]
fn socket() -> BorrowedFd<'static> {
    // SAFETY: this process put its socket there and never closes it.
    unsafe { BorrowedFd::borrow_raw(SOCKET) }
}

fn receive(bytes: &mut [u8]) -> Result<(Start, Vec<OwnedFd>), Failed> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let slices = &mut [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(socket(), slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            got => break got.map_err(|errno| ("start", errno.raw_os_error()))?,
        }
    };
    let broken = ("start", libc::EINVAL);
    if got.bytes == 0
        || got
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(broken);
    }
    let mut streams = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            streams.extend(received);
        }
    }
    let start = postcard::from_bytes(bytes.get(..got.bytes).unwrap_or_default());
    Ok((start.map_err(|_| broken)?, streams))
}

/// What the new process needs, and where it says what failed. It runs in this process's memory, which waits
/// meanwhile; so it allocates nothing and changes nothing but the last two.
struct Attempt<'a> {
    image: &'a Image,
    /// Its standard streams, the last of them last; without an input there are two.
    streams: &'a [OwnedFd],
    rules: Option<RawFd>,
    /// An index into [`STEPS`], and its error; 0 where nothing has failed.
    step: AtomicU8,
    errno: AtomicI32,
}

/// What can fail, as it is told.
const STEPS: [&str; 5] = ["setsid", "dup", "landlock", "chdir", "exec"];

fn start_one(
    start: &Start,
    streams: &[OwnedFd],
    rules: Option<RawFd>,
    stack: &mut [u8],
) -> Result<i32, Failed> {
    let image = Image::new(start)?;
    let attempt = Attempt {
        image: &image,
        streams,
        rules,
        step: AtomicU8::new(0),
        errno: AtomicI32::new(0),
    };
    let pid = spawn(&attempt, stack)?;
    match attempt.errno.load(Ordering::Relaxed) {
        0 => Ok(pid),
        errno => {
            let step = usize::from(attempt.step.load(Ordering::Relaxed));
            Err((STEPS.get(step).copied().unwrap_or("exec"), errno))
        }
    }
}

/// Makes the process and waits until it is the command, or dead.
#[expect(unsafe_code, reason = "clone has no safe wrapper")]
fn spawn(attempt: &Attempt<'_>, stack: &mut [u8]) -> Result<i32, Failed> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT | libc::SIGCHLD;
    // Stacks grow down, and start at a multiple of 16 (System V ABI).
    let top = stack.as_mut_ptr_range().end;
    let top = top.wrapping_sub(top.addr() % 16);
    // SAFETY: `stack` and `attempt` outlive the borrowing, because CLONE_VFORK lets this thread go on only
    // when the new process has left this memory; `run` matches the signature and only reads, but for atomics.
    // JUSTIFICATION: a fork would copy the page tables, and the standard library's spawn makes no child of the guest.
    let pid = unsafe {
        let data = std::ptr::from_ref(attempt).cast_mut().cast();
        libc::clone(run, top.cast(), flags, data)
    };
    match pid {
        -1 => Err((FORK, confine::errno())),
        pid => Ok(pid),
    }
}

/// The life of the new process until it is the command. What it returns is its exit code.
#[expect(unsafe_code, reason = "the argument of clone is a pointer")]
extern "C" fn run(attempt: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes an `Attempt` that lives until this process has left its memory.
    let attempt: &Attempt<'_> = unsafe { &*attempt.cast() };
    let (step, errno) = become_command(attempt);
    attempt.step.store(step, Ordering::Relaxed);
    attempt.errno.store(errno, Ordering::Relaxed);
    127
}

/// Gives the step that failed, as an index into [`STEPS`].
fn become_command(attempt: &Attempt<'_>) -> (u8, i32) {
    if let Err(errno) = rustix::process::setsid() {
        return (0, errno.raw_os_error());
    }
    for (stream, at) in attempt.streams.iter().rev().zip([2, 1, 0]) {
        if let Err((_, errno)) = confine::put_at(stream.as_raw_fd(), at) {
            return (1, errno);
        }
    }
    if let Some(rules) = attempt.rules
        && let Err((_, errno)) = confine::restrict(rules)
    {
        return (2, errno);
    }
    match attempt.image.become_it() {
        ("chdir", errno) => (3, errno),
        (_, errno) => (4, errno),
    }
}

/// The ends that a command gets, in their order.
pub(crate) fn borrowed(ends: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    ends.iter().map(|end| end.as_fd()).collect()
}
