//! Contexts: interpreters that remember, one step after the other; the protocol of E2B's code
//! interpreter, which its clients look for at port 49999.
//!
//! A context is a queue of executions and an interpreter of the sandbox, a *kernel*, which is a process
//! of the workload like any other: as the user `user`, confined, killed with the rest. It speaks with us
//! over a socket of its own, and its standard streams belong to the code that it runs. That code can do
//! to the kernel what it likes, so what a kernel says is untrusted: it is bounded, it is looked at before
//! it is passed on, and a kernel that breaks the rules is killed and its context starts anew.

mod answer;
mod event;
mod health;
mod kernel;
mod language;
mod lines;
mod output;
mod record;
mod stream;
mod work;

use super::Live;
use super::failure::{Code, Failure};
use super::processes::Processes;
use super::user::User;
use super::{path, rpc, tree};
use crate::process;
pub(super) use answer::serve;
use kernel::Kernel;
use language::Language;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use stream::Run;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Where clients look for the contexts. It is no port of the sandbox: a tunnel that leads there and
/// finds nobody listening is answered by the guest.
pub(super) const PORT: u16 = 49_999;

/// Contexts of a sandbox. Each is a process of some tens of megabytes.
const CONTEXTS_MAX: usize = 16;

/// Executions that wait in one context.
const WAITING_MAX: usize = 32;

/// Bytes of code that wait in all contexts: a few of the longest.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Large lines of kernels that are held at a time, each up to three times while it is passed on.
const LARGE_AT_ONCE: usize = 2;

/// All of them.
#[derive(Debug)]
pub(super) struct Contexts {
    all: RefCell<Vec<Rc<Context>>>,
    /// The right to hold a large line.
    large: Arc<Semaphore>,
    /// Bytes of code that wait.
    waiting: Rc<Cell<usize>>,
    /// The guest listens at the port itself.
    is_open: Cell<bool>,
}

impl Default for Contexts {
    fn default() -> Contexts {
        Contexts {
            all: RefCell::default(),
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            waiting: Rc::default(),
            is_open: Cell::default(),
        }
    }
}

/// One of them. Its kernel is killed when this is dropped.
#[derive(Debug)]
struct Context {
    id: String,
    language: Language,
    cwd: String,
    /// Steps that name no context, only a language, go here.
    is_default: bool,
    runs: mpsc::Sender<Run>,
    state: Rc<State>,
    task: JoinHandle<()>,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the requests know of the work in a context.
#[derive(Debug, Default)]
struct State {
    /// Its kernel, if there is one.
    pid: Cell<Option<i32>>,
    /// Code runs in it.
    is_busy: Cell<bool>,
    /// Its kernel was killed so that a new one comes.
    is_restarting: Cell<bool>,
}

impl State {
    /// Sends a signal to the kernel and what it runs. A number that was reaped may be another's by now.
    fn signal(&self, processes: &RefCell<Processes>, signal: i32) {
        let pid = self.pid.get();
        if let Some(pid) = pid.filter(|pid| processes.borrow().is_unreaped(*pid)) {
            process::signal(Some(pid), signal);
        }
    }
}

impl Contexts {
    /// Whether nobody inside can listen at the port, because the guest does.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.get()
    }

    fn find(&self, id: &str) -> Result<Rc<Context>, Failure> {
        let all = self.all.borrow();
        let found = all.iter().find(|context| context.id == id).cloned();
        found.ok_or_else(|| Failure::new(Code::NotFound, format!("Context {id} not found")))
    }

    fn check_room(&self) -> Result<(), Failure> {
        if self.all.borrow().len() < CONTEXTS_MAX {
            return Ok(());
        }
        let why = format!("a sandbox has at most {CONTEXTS_MAX} contexts; remove one");
        Err(Failure::new(Code::ResourceExhausted, why))
    }
}

/// Whom a kernel runs as.
fn user(live: &Live) -> Result<User, Failure> {
    User::named("user", &live.serve)
}

/// A context that was asked for, whose kernel runs.
async fn make(live: &Rc<Live>, language: Language, cwd: &str) -> Result<Rc<Context>, Failure> {
    live.contexts.check_room()?;
    let cwd = place(user(live)?, cwd)?;
    let state = Rc::new(State::default());
    let kernel = Kernel::start(live, &state, language, &cwd).await?;
    // Others may have come while it started.
    live.contexts.check_room()?;
    let place = work::Place {
        live: live.clone(),
        state,
        language,
        cwd,
        starts_at_once: false,
    };
    Ok(add(place, false, Some(kernel)))
}

/// Where a new context begins. A directory that is not there is made: what is said to be the directory of a
/// context is it.
fn place(user: User, cwd: &str) -> Result<String, Failure> {
    let path = path::resolve(cwd, user.home)?;
    // If it cannot be made, it is missed.
    drop(user.act(|| tree::make_directories(&path)));
    rpc::directory(user, &path)
}

/// Forgets all of them. Their kernels are killed.
pub(super) fn forget(live: &Live) {
    live.contexts.all.borrow_mut().clear();
}

/// Starts the contexts that the first steps will want.
pub(super) fn warm(live: &Rc<Live>) {
    if !live.serve.contexts.is_empty() {
        health::listen(live);
    }
    let languages = live.serve.contexts.iter();
    for language in languages.filter_map(|name| Language::named(name).ok()) {
        // It is missed when it is used.
        drop(default_with(live, language, true));
    }
}

/// The default context of a language. Its kernel starts with the first execution.
fn default_of(live: &Rc<Live>, language: Language) -> Result<Rc<Context>, Failure> {
    default_with(live, language, false)
}

fn default_with(
    live: &Rc<Live>,
    language: Language,
    starts_at_once: bool,
) -> Result<Rc<Context>, Failure> {
    let all = live.contexts.all.borrow();
    let mut defaults = all.iter().filter(|context| context.is_default);
    if let Some(found) = defaults.find(|context| context.language == language) {
        return Ok(found.clone());
    }
    drop(all);
    live.contexts.check_room()?;
    let place = work::Place {
        live: live.clone(),
        state: Rc::default(),
        language,
        cwd: user(live)?.home.to_owned(),
        starts_at_once,
    };
    Ok(add(place, true, None))
}

fn add(place: work::Place, is_default: bool, kernel: Option<Kernel>) -> Rc<Context> {
    let (runs, queue) = mpsc::channel(WAITING_MAX);
    let live = place.live.clone();
    let context = Rc::new(Context {
        id: new_id(),
        language: place.language,
        cwd: place.cwd.clone(),
        is_default,
        runs,
        state: place.state.clone(),
        task: tokio::task::spawn_local(work::work(place, queue, kernel)),
    });
    live.contexts.all.borrow_mut().push(context.clone());
    context
}

/// Takes a context away; what runs in it ends.
fn remove(live: &Live, id: &str) -> Result<(), Failure> {
    live.contexts.find(id)?;
    let mut all = live.contexts.all.borrow_mut();
    all.retain(|context| context.id != id);
    Ok(())
}

/// Kills the kernel of a context; a new one starts.
fn restart(live: &Live, id: &str) -> Result<(), Failure> {
    let context = live.contexts.find(id)?;
    // Without a kernel the next one is new anyway.
    if context.state.pid.get().is_some() {
        context.state.is_restarting.set(true);
        context.state.signal(&live.processes, libc::SIGKILL);
    }
    Ok(())
}

/// Interrupts what runs in a context, as Ctrl-C does at a terminal.
fn interrupt(live: &Live, id: &str) -> Result<(), Failure> {
    let context = live.contexts.find(id)?;
    if context.state.is_busy.get() {
        context.state.signal(&live.processes, libc::SIGINT);
    }
    Ok(())
}

/// A name that nobody has had: random, in the form of a UUID, as clients know it.
fn new_id() -> String {
    let mut bytes = [0_u8; 16];
    // The kernel has gathered its randomness long before there are sandboxes, and gives so few at once.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let number = u128::from_be_bytes(bytes);
    let number = (number & !(0xf << 76)) | (0x4 << 76);
    let number = (number & !(0x3 << 62)) | (0x2 << 62);
    let text = format!("{number:032x}");
    let cuts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let parts = cuts.map(|(from, to)| text.get(from..to).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_is_a_uuid_of_the_random_kind_and_never_the_same() {
        let (one, other) = (super::new_id(), super::new_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }
}
