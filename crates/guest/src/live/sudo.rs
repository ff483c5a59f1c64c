//! `sudo` for the workload: a socket inside, and a process of its own for each who asks.
//!
//! Whoever asks is hostile. The guest itself never accepts, reads or closes anything of theirs: what is
//! closed last can make whoever closes it wait (`SO_LINGER` in `socket(7)`), and this is one thread. So
//! it only sees that somebody knocks, and forks; the child opens, inside the workload's control groups,
//! and whatever it meets there holds up nobody else.

use super::{Live, Stream, register};
use crate::confine::{self, Who};
use crate::process::{self, Status, Streams, Wanted};
use guest::message::Start;
use guest::sudo::{self, Ask, Ended, MESSAGE_MAX, SOCKET, Then};
use landlock::RulesetCreated;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};
use std::convert::Infallible;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::sync::Semaphore;

/// Commands at a time. More wait at the door, which is as long again.
const ASKERS_MAX: usize = 64;

/// Who has connected says at once what it wants; who does not has lost its turn.
const ASK_PATIENCE: rustix::time::Timespec = rustix::time::Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// The listening socket; none where root is not there to be had, or has no place for the name.
pub(super) fn listen(live: &Live) -> Option<Stream> {
    let allowed = live.serve.allow_root && process::own_uid() == 0;
    let made = || -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(SOCKET)?)?;
        rustix::net::listen(&socket, i32::try_from(ASKERS_MAX).unwrap_or(0))?;
        Ok(socket)
    };
    let socket = allowed.then(made)?.ok()?;
    register(socket, Interest::READABLE).ok()
}

/// Opens to whoever knocks.
pub(super) async fn serve(listener: Option<Stream>, live: &Rc<Live>) -> Infallible {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    let free = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let Ok(mut ready) = listener.readable().await else {
            return std::future::pending().await;
        };
        ready.clear_ready();
        while is_readable(listener.get_ref()) {
            let Ok(held) = free.clone().acquire_owned().await else {
                return std::future::pending().await;
            };
            live.power.on().await;
            // No process can be made now: whoever knocks waits for the next who does.
            let Ok(opened) = open(listener.get_ref(), live) else {
                tokio::time::sleep(super::ACCEPT_PAUSE).await;
                continue;
            };
            let (said, over) = opened;
            // It has accepted, or is dead; the next is the next then.
            drop(said.readable().await);
            tokio::task::spawn_local(async move {
                drop(over.await);
                drop(held);
            });
        }
    }
}

fn is_readable(listener: &OwnedFd) -> bool {
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&now)), Ok(n) if n > 0)
}

/// Forks the process that accepts. Gives what becomes readable when it has, and its death.
fn open(
    listener: &OwnedFd,
    live: &Rc<Live>,
) -> io::Result<(Stream, tokio::sync::oneshot::Receiver<process::Reaped>)> {
    let (said, say) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let said = register(said, Interest::READABLE)?;
    match process::fork()? {
        0 => {
            // Without it nothing may run, and nothing does.
            if let Ok(landlock) = keep_only(listener, live, &say) {
                attend(listener, live, landlock, say);
            }
            process::exit_now()
        }
        pid => Ok((said, live.processes.borrow_mut().wait_for(pid))),
    }
}

/// Keeps of the guest's descriptors what is needed here. Gives its rules for files.
fn keep_only(listener: &OwnedFd, live: &Live, say: &OwnedFd) -> io::Result<Option<RulesetCreated>> {
    // The rules do not tell their descriptor, but a copy gets the first number that is free.
    let free = rustix::io::fcntl_dupfd_cloexec(listener, 3)?.as_raw_fd();
    let rules = live.landlock.as_ref().map(RulesetCreated::try_clone);
    let rules = rules.transpose()?;
    let mut kept: Vec<RawFd> = live.cgroups.iter().map(AsRawFd::as_raw_fd).collect();
    kept.extend([listener.as_raw_fd(), say.as_raw_fd(), free]);
    process::close_all_but(&mut kept);
    Ok(rules)
}

/// All of the child's life: one who asks.
fn attend(listener: &OwnedFd, live: &Live, landlock: Option<RulesetCreated>, say: OwnedFd) {
    // What it does for the workload is counted to it.
    if confine::join_cgroups(&live.cgroups).is_err() {
        return;
    }
    let accepted = rustix::net::accept_with(listener, SocketFlags::CLOEXEC);
    drop(say);
    let Ok(asker) = accepted else { return };
    let ended = judge(&asker, live).and_then(|(ask, streams)| {
        let wanted = Wanted {
            confine: &live.serve.confine,
            who: Who::Root,
            landlock,
            cgroups: &live.cgroups,
            streams: Streams::Given(streams),
        };
        run(&asker, wanted, ask)
    });
    let said = sudo::encode(&ended.unwrap_or_else(|ended| ended)).unwrap_or_default();
    // It may have gone, and then nobody waits for this.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(&asker, &said, flags);
}

/// Who asks, and for what. Root inside may ask too; it has no need to.
fn judge(asker: &OwnedFd, live: &Live) -> Result<(Ask, [OwnedFd; 3]), Ended> {
    let refused = |_| Ended::Refused;
    let peer = rustix::net::sockopt::socket_peercred(asker).map_err(refused)?;
    if ![0, live.serve.confine.uid].contains(&peer.uid.as_raw()) {
        return Err(Ended::Refused);
    }
    let mut fds = [PollFd::new(asker, PollFlags::IN)];
    if !matches!(poll(&mut fds, Some(&ASK_PATIENCE)), Ok(n) if n > 0) {
        return Err(Ended::Refused);
    }
    let mut bytes = vec![0; MESSAGE_MAX];
    // One more than is taken, so that it is seen when there are more.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let slices = &mut [IoSliceMut::new(&mut bytes)];
    let got = rustix::net::recvmsg(asker, slices, &mut control, flags).map_err(refused)?;
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    let mut streams = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            streams.extend(received);
        }
    }
    let ask = sudo::decode(bytes.get(..got.bytes).unwrap_or_default());
    match (ask, <[OwnedFd; 3]>::try_from(streams)) {
        (Some(ask), Ok(streams)) if !got.flags.intersects(cut) => Ok((ask, streams)),
        _ => Err(Ended::Refused),
    }
}

/// Starts the command and stays until it has ended, or until nobody wants it any more.
fn run(asker: &OwnedFd, wanted: Wanted<'_>, ask: Ask) -> Result<Ended, Ended> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno: Errno| Ended::NotStarted {
            step,
            errno: errno.raw_os_error(),
        }
    };
    let mut child = process::prepare(wanted).map_err(failed("fork"))?;
    let start = Start {
        argv: ask.argv,
        env: ask.env,
        cwd: ask.cwd,
        stdin: true,
        timeout_ms: 0,
        grace_ms: 0,
    };
    let pid = rustix::process::Pid::from_raw(child.pid).ok_or(Ended::Refused)?;
    let flags = rustix::process::PidfdFlags::empty();
    let death = rustix::process::pidfd_open(pid, flags).map_err(failed("pidfd"))?;
    child.start(&start).map_err(failed("start"))?;
    let mut not_started = None;
    loop {
        let mut fds = vec![
            PollFd::new(&death, PollFlags::IN),
            PollFd::new(asker, PollFlags::IN),
        ];
        if let Some(status) = &child.status {
            fds.push(PollFd::new(status, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("wait")(errno)),
        }
        let [died, spoke] = [0, 1].map(|at| fds.get(at).is_some_and(|fd| !fd.revents().is_empty()));
        drop(fds);
        if let Status::Failed(failure) = child.status() {
            not_started = Some(Ended::NotStarted {
                step: failure.step,
                errno: failure.errno,
            });
        }
        if died {
            return Ok(not_started.unwrap_or_else(|| end_of(child.pid)));
        }
        if spoke {
            hear(asker, child.pid)?;
        }
    }
}

/// Passes a signal on. Who has hung up, wants it dead.
fn hear(asker: &OwnedFd, pid: i32) -> Result<(), Ended> {
    let mut bytes = [0; 16];
    let (n, _) = match rustix::net::recv(asker.as_fd(), &mut bytes, RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
        Ok((n, _)) if n > 0 => (n, ()),
        _ => {
            process::signal(Some(pid), libc::SIGKILL);
            return Err(Ended::Refused);
        }
    };
    if let Some(Then::Signal(signal)) = sudo::decode(bytes.get(..n).unwrap_or_default()) {
        process::signal(Some(pid), signal);
    }
    Ok(())
}

fn end_of(pid: i32) -> Ended {
    match process::reap() {
        process::Reap::Dead(dead) if dead.pid == pid => match (dead.code, dead.signal) {
            (Some(code), _) => Ended::Code(code),
            (None, signal) => Ended::Signal(signal.unwrap_or(libc::SIGKILL)),
        },
        process::Reap::Dead(_) | process::Reap::Alive | process::Reap::None => {
            Ended::Signal(libc::SIGKILL)
        }
    }
}
