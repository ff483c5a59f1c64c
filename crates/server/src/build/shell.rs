//! One command of a build, inside its sandbox.

use super::log::{Bench, Lines};
use crate::e2b::proxy;
use api::guest::{Event, Events, Guest, GuestError, Start};
use model::build::Phase;
use model::id::{NodeId, SandboxId};
use service::{Error, Level};
use std::collections::BTreeMap;

/// What a command says at most where it is asked for what it says: some variables, a path.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What is quoted of what a command has complained of.
const COMPLAINT_BYTES_MAX: usize = 512;

/// Where a build is.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) node: NodeId,
    pub(super) sandbox: SandboxId,
}

/// A command for a shell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Command {
    /// What the shell reads.
    pub(super) script: String,
    /// What it finds as `$1`, `$2`, ...
    pub(super) arguments: Vec<String>,
    /// As whom; `user` when empty.
    pub(super) user: String,
    /// Where; the user's home when absent.
    pub(super) workdir: Option<String>,
    pub(super) env: BTreeMap<String, String>,
}

/// What became of a command.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) exit_code: i32,
    /// What it wrote to its standard output, from the beginning.
    pub(super) answer: Vec<u8>,
    /// What it wrote to its standard error, from the beginning.
    pub(super) complaint: String,
}

impl Done {
    /// Why it failed, for a person; `None` when it has not.
    pub(super) fn failure(&self) -> Option<String> {
        (self.exit_code != 0).then(|| format!("exit status {}", self.exit_code))
    }
}

/// How what a command writes is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Voice<'a> {
    pub(super) phase: Phase,
    pub(super) level: Level,
    /// In front of each line, such as `builder 1/2`.
    pub(super) prefix: &'a str,
}

/// A connection to the guest.
///
/// # Errors
/// [`GuestError::Closed`] where it cannot be reached.
pub(super) async fn guest(bench: &Bench, site: &Site) -> Result<Guest, GuestError> {
    let stream = proxy::dial_by(&bench.world.links, &site.node, &site.sandbox).await;
    Guest::over(stream.map_err(|_| GuestError::Closed)?).await
}

/// Starts a command.
///
/// # Errors
/// [`GuestError`], as for a user or a directory that is not there.
pub(super) async fn start(
    bench: &Bench,
    site: &Site,
    command: &Command,
) -> Result<Events, GuestError> {
    let user = (!command.user.is_empty()).then_some(command.user.as_str());
    let script = ["-l", "-c", &command.script, "build"].map(str::to_owned);
    let start = Start {
        program: "/bin/bash".to_owned(),
        arguments: script
            .into_iter()
            .chain(command.arguments.clone())
            .collect(),
        env: command.env.clone(),
        cwd: command.workdir.clone(),
        ..Start::default()
    };
    guest(bench, site).await?.as_user(user).start(&start).await
}

/// Runs a command to its end, and tells what it writes.
///
/// # Errors
/// Outside: the build is another's. Inside: there is no end of the command that could be told.
pub(super) async fn run(
    bench: &mut Bench,
    site: &Site,
    command: &Command,
    voice: Voice<'_>,
) -> Result<Result<Done, GuestError>, Error> {
    let started = start(bench, site, command).await;
    match started {
        Ok(events) => follow(bench, events, voice).await,
        Err(error) => Ok(Err(error)),
    }
}

/// Follows a command to its end.
///
/// # Errors
/// As [`run`].
pub(super) async fn follow(
    bench: &mut Bench,
    mut events: Events,
    voice: Voice<'_>,
) -> Result<Result<Done, GuestError>, Error> {
    let mut speech = Speech::default();
    loop {
        let event = match bench.tend(events.next()).await? {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Err(GuestError::Closed)),
            Err(error) => return Ok(Err(error)),
        };
        let is_end = matches!(event, Event::Ended(_));
        for (stream, line) in speech.hear(event) {
            let message = format!("[{}] [{stream}]: {line}", voice.prefix);
            bench.say(voice.phase, voice.level, &message);
        }
        bench.tick().await?;
        if is_end {
            return Ok(Ok(speech.done));
        }
    }
}

/// What a command has said so far.
#[derive(Debug, Default)]
pub(super) struct Speech {
    pub(super) done: Done,
    out: Lines,
    err: Lines,
}

impl Speech {
    /// The lines that an event makes whole, with the names of their streams.
    pub(super) fn hear(&mut self, event: Event) -> Vec<(&'static str, String)> {
        let (stream, lines) = match event {
            Event::Started { .. } => return Vec::new(),
            Event::Stdout(bytes) | Event::Terminal(bytes) => {
                let room = ANSWER_BYTES_MAX.saturating_sub(self.done.answer.len());
                let kept = bytes.get(..bytes.len().min(room));
                self.done.answer.extend_from_slice(kept.unwrap_or_default());
                ("stdout", self.out.push(&bytes))
            }
            Event::Stderr(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let room = COMPLAINT_BYTES_MAX.saturating_sub(self.done.complaint.len());
                self.done.complaint.extend(text.chars().take(room));
                ("stderr", self.err.push(&bytes))
            }
            Event::Ended(end) => {
                self.done.exit_code = end.exit_code;
                let out = self.out.end().map(|line| ("stdout", line));
                let err = self.err.end().map(|line| ("stderr", line));
                return out.into_iter().chain(err).collect();
            }
        };
        lines.into_iter().map(|line| (stream, line)).collect()
    }
}

/// Why the guest did not do it, in the words that E2B's clients look for.
pub(super) fn refused(error: &GuestError) -> String {
    match error {
        GuestError::Refused { code, message } => format!("command failed: {code}: {message}"),
        GuestError::Closed
        | GuestError::Late(_)
        | GuestError::Protocol(_)
        | GuestError::Unsendable(_)
        | GuestError::Source(_)
        | GuestError::Door(_) => format!("command failed: failed to {error}"),
    }
}
