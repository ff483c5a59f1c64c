//! The parent: starts the child, asks it with a deadline, and kills it after that.

use crate::{LINE_BYTES_MAX, OUTSIDE, Question, Reply, Verdict};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a module is not asked again that ended its child: each time is a process, and holds others up.
const REST: Duration = Duration::from_secs(10);
/// Modules that rest. With one more all are forgotten: then each ends one more child at most.
const RESTING_MAX: usize = 256;

/// Asks modules, one at a time.
pub struct Evaluator {
    program: PathBuf,
    argument: Option<OsString>,
    child: tokio::sync::Mutex<Option<Running>>,
    resting: Mutex<HashMap<String, Instant>>,
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
        }
    }

    /// Whether a module can be read, and has an `allow`.
    ///
    /// # Errors
    /// What is wrong with it, with its place, for a person.
    pub async fn check(&self, module: &str) -> Result<(), String> {
        match self.ask(module, None).await {
            Some(Reply::Good) => Ok(()),
            Some(Reply::Bad(why)) => Err(why),
            Some(Reply::Says(_)) | None => {
                Err("it cannot be read within its time and memory".to_owned())
            }
        }
    }

    /// What a module says to an input. A module that was stopped is not asked again for ten seconds, and counts as
    /// stopped.
    pub async fn evaluate(&self, module: &str, input: serde_json::Value) -> Verdict {
        if self.rests(module) {
            return Verdict::Stopped;
        }
        let verdict = match self.ask(module, Some(input)).await {
            Some(Reply::Says(verdict)) => verdict,
            Some(Reply::Good | Reply::Bad(_)) | None => Verdict::Stopped,
        };
        if verdict == Verdict::Stopped {
            self.rest(module);
        }
        verdict
    }

    fn rests(&self, module: &str) -> bool {
        let resting = self.resting.lock();
        let resting = resting.unwrap_or_else(PoisonError::into_inner);
        let since = resting.get(module);
        since.is_some_and(|since| since.elapsed() < REST)
    }

    fn rest(&self, module: &str) {
        let resting = self.resting.lock();
        let mut resting = resting.unwrap_or_else(PoisonError::into_inner);
        if resting.len() >= RESTING_MAX {
            resting.clear();
        }
        resting.insert(module.to_owned(), Instant::now());
    }

    /// One question; `None` where the child did not answer it in time, or died of it. It is not asked again then.
    async fn ask(&self, module: &str, input: Option<serde_json::Value>) -> Option<Reply> {
        let question = Question {
            module: module.to_owned(),
            input,
        };
        let mut line = serde_json::to_vec(&question).ok()?;
        line.push(b'\n');
        if line.len() >= LINE_BYTES_MAX {
            return None;
        }
        let mut place = self.child.lock().await;
        // Taken out, so that whoever goes away in the middle of an answer leaves no child with half of one.
        let mut running = match place.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let answer = tokio::time::timeout(OUTSIDE, running.exchange(&line)).await;
        let reply = answer.ok().flatten()?;
        *place = Some(running);
        Some(reply)
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

impl Running {
    async fn exchange(&mut self, line: &[u8]) -> Option<Reply> {
        self.to.write_all(line).await.ok()?;
        let mut answer = Vec::new();
        let mut bounded = (&mut self.from).take(LINE_BYTES_MAX as u64);
        bounded.read_until(b'\n', &mut answer).await.ok()?;
        serde_json::from_slice(&answer).ok()
    }
}
