//! The parent: starts the child, asks it with a deadline, and kills it after that.
//!
//! There is one child for all tenants, and each writes its own modules. So of each tenant one question at a time waits
//! for the child, behind at most one of each other tenant, and neither that nor how long is without a bound.

use crate::{
    Checked, LINE_BYTES_MAX, OUTSIDE, PATIENCE, Question, Reply, TENANTS_MAX, Verdict, WAITING_MAX,
};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a module is not asked again that was stopped: each time may be a process, and holds others up.
pub const REST: Duration = Duration::from_secs(10);
/// Modules that rest, of all tenants. Where more would, all are forgotten: then each ends one more child at most.
const RESTING_MAX: usize = 256;

/// Asks modules, one at a time.
pub struct Evaluator {
    program: PathBuf,
    argument: Option<OsString>,
    child: tokio::sync::Mutex<Option<Running>>,
    /// By tenant and module. A module for everybody rests for the tenant whose question stopped it, and for no other:
    /// else one legal long request would be everybody's deny.
    resting: Mutex<HashMap<(String, String), Rest>>,
    turns: Mutex<HashMap<String, Turn>>,
}

/// Why a module rests.
struct Rest {
    since: Instant,
    /// It was stopped while it was read. One that can be read and was stopped by what it was asked may be written again:
    /// it would be false to say that it cannot be read.
    is_unread: bool,
}

impl Rest {
    fn is_over(&self) -> bool {
        self.since.elapsed() >= REST
    }
}

/// The turn of one tenant, and how many wait for it or have it.
struct Turn {
    place: Arc<Semaphore>,
    asked: usize,
}

/// One that waits for the turn of its tenant, or has it.
struct Waiting<'e> {
    of: &'e Evaluator,
    tenant: &'e str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut turns = kept(&self.of.turns);
        if let Some(turn) = turns.get_mut(self.tenant) {
            turn.asked = turn.asked.saturating_sub(1);
            if turn.asked == 0 {
                turns.remove(self.tenant);
            }
        }
    }
}

/// What was kept is good also where somebody panicked: each change of it is one step.
fn kept<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of a question.
enum Asked {
    Answered(Reply),
    /// The child did not answer it in time, or died of it. It is not asked again then.
    Stopped,
    /// It was not asked, because of what came of a question before.
    Rests,
    /// It was not asked: too many wait.
    Busy,
}

struct Running {
    // Killed when it is dropped.
    _child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl std::fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Evaluator")
    }
}

impl Evaluator {
    /// Asks this program, with this argument, which calls [`crate::serve`]. It is started with the first question.
    pub fn new(program: PathBuf, argument: Option<OsString>) -> Evaluator {
        Evaluator {
            program,
            argument,
            child: tokio::sync::Mutex::default(),
            resting: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// Whether a module can be read, and has an `allow`. One that was stopped by that is neither looked at nor asked
    /// again for [`REST`]; one that was stopped by a question is looked at.
    pub async fn check(&self, tenant: &str, module: &str) -> Checked {
        let unread = || Checked::Bad("it cannot be read within its time and memory".to_owned());
        match self.ask(tenant, module, None).await {
            Asked::Answered(Reply::Good) => Checked::Good,
            Asked::Answered(Reply::Bad(why)) => Checked::Bad(why),
            Asked::Busy => Checked::Busy,
            Asked::Rests => unread(),
            Asked::Answered(Reply::Says(_)) | Asked::Stopped => {
                self.rest(tenant, module, true);
                unread()
            }
        }
    }

    /// What a module of a tenant says to an input. A module that was stopped is not asked again by this tenant for
    /// [`REST`].
    pub async fn evaluate(&self, tenant: &str, module: &str, input: serde_json::Value) -> Verdict {
        let verdict = match self.ask(tenant, module, Some(input)).await {
            Asked::Answered(Reply::Says(verdict)) => verdict,
            Asked::Rests => return Verdict::Rests,
            Asked::Busy => return Verdict::Busy,
            Asked::Answered(Reply::Good | Reply::Bad(_)) | Asked::Stopped => Verdict::Stopped,
        };
        if verdict == Verdict::Stopped {
            self.rest(tenant, module, false);
        }
        verdict
    }

    /// Whether a module is not asked by a tenant now, because it was stopped less than [`REST`] ago.
    pub fn rests(&self, tenant: &str, module: &str) -> bool {
        self.is_held_back(tenant, module, false)
    }

    /// Whether a module rests, for whoever asks it or `is_read` alone.
    fn is_held_back(&self, tenant: &str, module: &str, is_read: bool) -> bool {
        let of = (tenant.to_owned(), module.to_owned());
        let resting = kept(&self.resting);
        let rest = resting.get(&of);
        rest.is_some_and(|rest| !rest.is_over() && (rest.is_unread || !is_read))
    }

    fn rest(&self, tenant: &str, module: &str, is_unread: bool) {
        let mut resting = kept(&self.resting);
        if resting.len() >= RESTING_MAX {
            resting.retain(|_, rest| !rest.is_over());
        }
        if resting.len() >= RESTING_MAX {
            resting.clear();
        }
        let of = (tenant.to_owned(), module.to_owned());
        let since = Instant::now();
        resting.insert(of, Rest { since, is_unread });
    }

    /// Waits for the turn of a tenant; `None` where too many do.
    async fn turn<'e>(&'e self, tenant: &'e str) -> Option<(Waiting<'e>, OwnedSemaphorePermit)> {
        let place = {
            let mut turns = kept(&self.turns);
            if turns.len() >= TENANTS_MAX && !turns.contains_key(tenant) {
                return None;
            }
            let new = || Turn {
                place: Arc::new(Semaphore::new(1)),
                asked: 0,
            };
            let turn = turns.entry(tenant.to_owned()).or_insert_with(new);
            if turn.asked >= WAITING_MAX {
                return None;
            }
            turn.asked += 1;
            Arc::clone(&turn.place)
        };
        let waiting = Waiting { of: self, tenant };
        let place = place.acquire_owned().await.ok()?;
        Some((waiting, place))
    }

    /// One question, when its turn comes.
    async fn ask(&self, tenant: &str, module: &str, input: Option<serde_json::Value>) -> Asked {
        let is_read = input.is_none();
        if self.is_held_back(tenant, module, is_read) {
            return Asked::Rests;
        }
        let its_turn = async {
            let turn = self.turn(tenant).await?;
            Some((turn, self.child.lock().await))
        };
        let Ok(Some((_turn, mut place))) = tokio::time::timeout(PATIENCE, its_turn).await else {
            return Asked::Busy;
        };
        // Others of this tenant may have waited for what came of the same module before.
        if self.is_held_back(tenant, module, is_read) {
            return Asked::Rests;
        }
        // Only now, so that those who wait hold no second copy of it.
        let Some(line) = line_of(module, input) else {
            return Asked::Stopped;
        };
        // Taken out, so that whoever goes away in the middle of an answer leaves no child with half of one.
        let Some(mut running) = place.take().or_else(|| self.start()) else {
            return Asked::Stopped;
        };
        let answer = tokio::time::timeout(OUTSIDE, running.exchange(&line)).await;
        let Some(reply) = answer.ok().flatten() else {
            return Asked::Stopped;
        };
        *place = Some(running);
        Asked::Answered(reply)
    }

    fn start(&self) -> Option<Running> {
        let mut child = Command::new(&self.program)
            .args(&self.argument)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        Some(Running {
            to: child.stdin.take()?,
            from: BufReader::new(child.stdout.take()?),
            _child: child,
        })
    }
}

/// A question as the child reads it; `None` for one that is too long.
fn line_of(module: &str, input: Option<serde_json::Value>) -> Option<Vec<u8>> {
    let question = Question {
        module: module.to_owned(),
        input,
    };
    let mut line = serde_json::to_vec(&question).ok()?;
    line.push(b'\n');
    (line.len() < LINE_BYTES_MAX).then_some(line)
}

impl Running {
    async fn exchange(&mut self, line: &[u8]) -> Option<Reply> {
        self.to.write_all(line).await.ok()?;
        let mut answer = Vec::new();
        let mut bounded = (&mut self.from).take(LINE_BYTES_MAX as u64);
        bounded.read_until(b'\n', &mut answer).await.ok()?;
        serde_json::from_slice(&answer).ok()
    }
}
