//! The launcher, which holds the deadline of this sandbox: without it the sandbox must not live on.
//!
//! The launcher has told the kernel to kill us when it dies. But the kernel forgets that whenever a process takes
//! another identity, even one for files alone (`PR_SET_PDEATHSIG` in `prctl(2)`), and the guest takes the
//! workload's for each file that it touches. So it is asked for again each time. A launcher that died in between
//! has left a pipe that has ended.

use crate::process;
use rustix::event::{PollFd, PollFlags};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

static PIPE: OnceLock<OwnedFd> = OnceLock::new();

/// Takes the pipe, once.
pub(crate) fn keep(pipe: OwnedFd) {
    // There is one agent in this process; a second pipe would be the same one.
    drop(PIPE.set(pipe));
}

/// Asks to be killed with the launcher, and ends at once if it is dead.
pub(crate) fn ask_again() {
    let Some(pipe) = PIPE.get() else { return };
    // A child of ours dies with us.
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        return;
    }
    let kill = Some(rustix::process::Signal::KILL);
    let asked = rustix::process::set_parent_process_death_signal(kill);
    if asked.is_err() || has_ended(pipe) {
        process::exit_now()
    }
}

fn has_ended(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
}
