//! The launcher: the only privileged code of the product, small enough to be read in an hour.
//!
//! A node execs it with one socket, as root or as an ordinary user. It closes and clears what it
//! inherited, reads one plan of bounded size, enters a tree that holds only what the plan names, and
//! from then on starts sandboxes in it: [`sandbox::become_guest`] is the whole containment as a list.
//!
//! It must never read a configuration or the environment, never log, never exec anything but the
//! guest that it was handed, and never act on a message that is larger, later or stranger than the
//! protocol says.

mod files;
mod mount;
mod network;
mod probe;
mod readable;
mod sandbox;
mod save;
mod spawner;
mod sys;
mod tree;
mod writable;

use jail::message::{self, Failure, FromJail, MESSAGE_MAX, Setup, ToJail, VERSION};
use jail::socket;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// The socket to the agent that started this launcher.
const AGENT: i32 = 0;

fn main() -> ExitCode {
    match launch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => ExitCode::from(u8::try_from(errno.raw_os_error()).unwrap_or(255)),
    }
}

fn launch() -> Result<(), Errno> {
    let agent = leave_inheritance()?;
    let mut buffer = vec![0; MESSAGE_MAX];
    let (bytes, fds) = socket::receive(&agent, &mut buffer)?;
    let said = message::decode(bytes);
    let fds = <[OwnedFd; 3]>::try_from(fds).map_err(|_| Errno::PROTO)?;
    let [listener, guest, program] = fds;
    let setup = match said {
        Some(ToJail::Setup(setup)) if setup.version == VERSION => setup,
        Some(ToJail::Probe { tree, sandbox }) => {
            let tried = probe::try_once(&tree, &sandbox, &program);
            return answer(&agent, tried);
        }
        _ => return Err(Errno::PROTO),
    };
    if setup.own_user_namespace {
        enter_user_namespace(&agent)?;
    }
    build(&agent, &setup, &program)?;
    spawner::Spawner::new(agent, listener, guest, &setup)?.run()
}

/// Keeps nothing of whoever started us but the socket: no descriptor, no session, no umask. The
/// environment is never read, and what it starts gets an empty one.
fn leave_inheritance() -> Result<OwnedFd, Errno> {
    let agent = rustix::io::fcntl_dupfd_cloexec(sys::inherited(AGENT), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    for fd in 0..3 {
        sys::place(&null, fd)?;
    }
    // It may itself be one of the three; if not, it is closed with all others.
    std::mem::forget(null);
    sys::close_others(&agent)?;
    rustix::process::umask(Mode::empty());
    rustix::process::chdir("/")?;
    // A launcher started by hand may lead its group already.
    let _ = rustix::process::setsid();
    Ok(agent)
}

/// An ordinary user may make namespaces only inside a user namespace of his own. The agent, outside,
/// writes its maps, with `newuidmap` where the user has subordinate ids.
fn enter_user_namespace(agent: &OwnedFd) -> Result<(), Errno> {
    sys::unshare(libc::CLONE_NEWUSER)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    spawner::tell(agent.as_fd(), &FromJail::NeedsIds { pid })?;
    let mut buffer = vec![0; MESSAGE_MAX];
    let (bytes, _) = socket::receive(agent, &mut buffer)?;
    match message::decode(bytes) {
        Some(ToJail::Hello { version: VERSION }) => {}
        _ => return Err(Errno::PROTO),
    }
    if rustix::process::geteuid().as_raw() == 0 {
        Ok(())
    } else {
        sys::become_root()
    }
}

fn answer(agent: &OwnedFd, tried: Result<(), Failure>) -> Result<(), Errno> {
    let said = match tried {
        Ok(()) => FromJail::Ready {
            version: VERSION,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            alive: Vec::new(),
        },
        Err(failure) => FromJail::Failed(failure),
    };
    spawner::tell(agent.as_fd(), &said)
}

fn build(agent: &OwnedFd, setup: &Setup, program: &OwnedFd) -> Result<(), Errno> {
    tree::enter(&setup.tree, program).map_err(|failure| {
        let errno = Errno::from_raw_os_error(failure.errno);
        // The agent may be gone, and then nobody needs to know.
        let _ = spawner::tell(agent.as_fd(), &FromJail::Failed(failure));
        errno
    })
}
