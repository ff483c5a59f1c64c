//! A process that is forked and confined before anybody asks for one.
//!
//! To confine a process takes longer than to run a short command: joining its control groups alone waits
//! for the whole kernel. So once a sandbox has been used, one process stands ready for the next command
//! of its user. What runs beside it may kill it, which is seen, or stop it, which is undone; it cannot look
//! into it, because it is not dumpable.

use super::Live;
use super::processes::fork;
use super::user::User;
use crate::confine::Who;
use crate::process::{self, Child, Reaped, Streams};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long one stands there unused: as long as somebody who thinks between two commands. An idle sandbox
/// has none, because of its memory.
const KEPT: Duration = Duration::from_secs(60);

/// A confined process, and how its death is told.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) child: Child,
    pub(super) dead: oneshot::Receiver<Reaped>,
}

impl Ahead {
    /// Forks one now.
    pub(super) fn fork(
        live: &Live,
        user: User,
        streams: Streams,
    ) -> Result<Ahead, super::failure::Failure> {
        let child = fork(live, user, streams)?;
        let dead = live.processes.borrow_mut().wait_for(child.pid);
        Ok(Ahead { child, dead })
    }

    /// The one that stands ready for this user, if it still lives.
    pub(super) fn take(live: &Live, user: User) -> Option<Ahead> {
        if user.who != Who::User {
            return None;
        }
        let mut ahead = live.ahead.borrow_mut().take()?;
        if ahead.dead.try_recv().is_ok() {
            return None;
        }
        process::signal(Some(ahead.child.pid), libc::SIGCONT);
        Some(ahead)
    }
}

/// A command that is over sooner is told to be over first: the fork, and the process that confines itself,
/// would take the processor from it. What runs longer has one made beside it, because the next command may
/// come meanwhile.
const AFTER: Duration = Duration::from_millis(5);

/// Carries a command of this user to its end, and has the next process ready after it, or beside it.
pub(super) async fn make_beside(live: &Rc<Live>, user: User, carried: impl Future<Output = ()>) {
    tokio::pin!(carried);
    let is_over = tokio::time::timeout(AFTER, &mut carried).await.is_ok();
    if is_over {
        // What was said of its end is on its way before this forks.
        tokio::task::yield_now().await;
    }
    make(live, user);
    if !is_over {
        carried.await;
    }
}

/// Has the next one ready, after a command of this user. Without room for one there is none.
fn make(live: &Rc<Live>, user: User) {
    if user.who != Who::User || live.ahead.borrow().is_some() {
        return;
    }
    let Ok(ahead) = Ahead::fork(live, user, Streams::Pipes) else {
        return;
    };
    let pid = ahead.child.pid;
    *live.ahead.borrow_mut() = Some(ahead);
    let live = live.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(KEPT).await;
        let mut ahead = live.ahead.borrow_mut();
        // Its number can be another's only after it was taken.
        if ahead.as_ref().is_some_and(|ahead| ahead.child.pid == pid) {
            process::signal(Some(pid), libc::SIGKILL);
            *ahead = None;
        }
    });
}
