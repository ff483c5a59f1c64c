//! A process that is forked and confined before anybody asks for one, and starts the commands of the user.
//!
//! To confine a process takes longer than to run a short command. So once a sandbox has been used, a
//! [`starter`] stands ready for the next commands of its user, until none has come for a minute. What runs
//! beside it cannot look into it, because it is not dumpable, and cannot signal it where Landlock knows of
//! signals; where it does not, that it was killed is seen, and that it was stopped is undone. Commands that
//! come while it is busy, and those of root or with a terminal, have processes forked for them.

use super::Live;
use super::failure::{Code, Failure};
use super::processes::{LAUNCH_PATIENCE, not_started, wanted};
use super::user::User;
use super::{Stream, register};
use crate::confine::Who;
use crate::process::{self, Child, Reaped, Streams};
use crate::starter::{self, Answer};
use guest::message::Start;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How long one stands there unused: as long as somebody who thinks between two commands. An idle sandbox
/// has none, because of its memory.
const KEPT: Duration = Duration::from_secs(60);

/// A command that is over sooner is told to be over before the first starter is made: the fork, and the
/// process that confines itself, would take the processor from it.
const AFTER: Duration = Duration::from_millis(5);

/// One that says nothing for so long may have been stopped. A signal to each would be one more wake-up of it.
const STOPPED_AFTER: Duration = Duration::from_millis(50);

/// A starter that stands ready.
#[derive(Debug)]
pub(super) struct Ahead {
    pid: i32,
    socket: Stream,
    dead: oneshot::Receiver<Reaped>,
    used: Instant,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Its number is its own until it is buried.
        if matches!(
            self.dead.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        ) {
            process::signal(Some(self.pid), libc::SIGKILL);
        }
    }
}

/// A process of the workload, and how its death is told.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) child: Child,
    pub(super) dead: oneshot::Receiver<Reaped>,
}

/// Has the command started by the process that stands ready. `None` where there is none, or it does not take
/// the command; then nothing was started.
pub(super) async fn begin(
    live: &Live,
    user: User,
    start: &Start,
) -> Result<Option<Begun>, Failure> {
    let ready = live.ahead.borrow_mut().take_if(|_| user.who == Who::User);
    let Some(mut ahead) = ready else {
        return Ok(None);
    };
    live.power.check()?;
    if ahead.dead.try_recv().is_ok() {
        return Ok(None);
    }
    let pipes = process::pipes(start.stdin);
    let (theirs, [stdin, stdout, stderr]) =
        pipes.map_err(|errno| Failure::errno("make a pipe", errno))?;
    if !starter::send(ahead.socket.get_ref(), start, &starter::borrowed(&theirs)) {
        *live.ahead.borrow_mut() = Some(ahead);
        return Ok(None);
    }
    drop(theirs);
    // Deaths are told only when it is known whose they may be.
    let starting = Starting::new(live);
    let answer = answer_of(&ahead).await;
    let begun = match answer? {
        // The workload has as many processes as it may. One that is forked outside its groups and joins them
        // still runs, and may be the one that ends the others.
        Answer::Failed(failure) if failure.step == starter::FORK => Ok(None),
        Answer::Failed(failure) => Err(not_started(&failure, &start.cwd)),
        Answer::Runs(pid) => Ok(Some(Begun {
            dead: live.processes.borrow_mut().wait_for(pid),
            child: Child {
                pid,
                start: None,
                status: None,
                stdin,
                stdout,
                stderr,
            },
        })),
    };
    drop(starting);
    ahead.used = Instant::now();
    // Another may have been made meanwhile, and one is enough.
    live.ahead.borrow_mut().get_or_insert(ahead);
    begun
}

/// While it lives, nobody is buried.
struct Starting<'l>(&'l Live);

impl<'l> Starting<'l> {
    fn new(live: &'l Live) -> Starting<'l> {
        live.starting.set(live.starting.get() + 1);
        Starting(live)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.starting.set(self.0.starting.get().saturating_sub(1));
        super::bury_all(self.0);
    }
}

/// What the starter says. Whoever gives up on it lets it go, which kills it.
async fn answer_of(ahead: &Ahead) -> Result<Answer, Failure> {
    let gone = || Failure::new(Code::Unavailable, "the process did not start");
    let read = || {
        let read = |fd: &OwnedFd| Ok(starter::read(fd)?);
        ahead.socket.async_io(Interest::READABLE, read)
    };
    let mut answer = timeout(STOPPED_AFTER, read()).await;
    if answer.is_err() {
        process::signal(Some(ahead.pid), libc::SIGCONT);
        answer = timeout(LAUNCH_PATIENCE, read()).await;
    }
    match answer {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None) | Err(_)) => Err(gone()),
        Err(_) => Err(Failure::new(
            Code::Unavailable,
            "the process did not start in time",
        )),
    }
}

/// Carries a command of this user to its end, and has a starter ready after it, or beside it.
pub(super) async fn make_beside(live: &Rc<Live>, user: User, carried: impl Future<Output = ()>) {
    if live.ahead.borrow().is_some() {
        return carried.await;
    }
    tokio::pin!(carried);
    let is_over = timeout(AFTER, &mut carried).await.is_ok();
    if is_over {
        // What was said of its end is on its way before this forks.
        tokio::task::yield_now().await;
    }
    make(live, user);
    if !is_over {
        carried.await;
    }
}

/// Has a starter ready, after a command of this user. Without room for one there is none.
fn make(live: &Rc<Live>, user: User) {
    if user.who != Who::User || live.ahead.borrow().is_some() {
        return;
    }
    let made = wanted(live, user, Streams::Pipes).and_then(|wanted| {
        let made = starter::make(wanted);
        made.map_err(|errno| Failure::errno("make a process", errno))
    });
    let Ok((pid, socket)) = made else { return };
    let dead = live.processes.borrow_mut().wait_for(pid);
    let Ok(socket) = register(socket, Interest::READABLE) else {
        return process::signal(Some(pid), libc::SIGKILL);
    };
    let used = Instant::now();
    *live.ahead.borrow_mut() = Some(Ahead {
        pid,
        socket,
        dead,
        used,
    });
    tokio::task::spawn_local(let_go(live.clone(), pid));
}

/// Lets the starter of this number go when it is not used any more.
async fn let_go(live: Rc<Live>, pid: i32) {
    loop {
        let used = match &*live.ahead.borrow() {
            Some(ahead) if ahead.pid == pid => ahead.used,
            // It is gone, or busy; then it is looked at again.
            Some(_) => return,
            None => Instant::now(),
        };
        if used.elapsed() >= KEPT {
            live.ahead.borrow_mut().take();
            return;
        }
        if !live.processes.borrow().is_unreaped(pid) {
            return;
        }
        tokio::time::sleep_until(used + KEPT).await;
    }
}
