//! `cofferdam sandbox shell`: our terminal becomes one in a sandbox.

use super::Place;
use super::exec::not_started;
use crate::cli::args::SandboxShell;
use crate::cli::failure::{Failure, OURS};
use crate::cli::streams::{Ours, Writers};
use crate::signals::Signals;
use api::Code;
use api::client::Client;
use api::guest::{Event, Events, GuestError, Selector, Size, Start, StdinKind};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal as _, Stdin};
use std::process::ExitCode;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// The shell that is there: a root file system may have only the second.
const SHELL: &str = "if [ -x /bin/bash ]; then exec /bin/bash -l; fi; exec /bin/sh -l";
/// What is typed or pasted at once.
const INPUT: usize = 16 * 1024;

/// Runs a program on a terminal in the sandbox until it ends, and gives its exit code.
pub(crate) async fn shell(client: &Client, args: SandboxShell) -> Result<ExitCode, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stdout().is_terminal() {
        let message = "a shell needs a terminal, for its input and for its output";
        let failure = Failure::new(Code::InvalidArgument, message);
        return Err(failure.hint("use `cofferdam sandbox exec ID -- sh -c COMMANDS` without one"));
    }
    let place = Place::new(client, &args.id, args.user)?;
    let mut signals = Signals::listen()?;
    let failed = |error| Failure::ours("watch the size of the terminal", &error);
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let start = start(args.cwd, args.command, size(&stdin));
    let started = place.guest().await?.start(&start).await;
    let mut events = started.map_err(|error| not_started(&place, error, &start.program))?;
    let Ok(Some(Event::Started { pid })) = events.next().await else {
        let message = "the guest does not say what it started";
        return Err(Failure::new(Code::GuestUnavailable, message));
    };
    let process = Selector::Pid(pid);
    let raw = Raw::enter(stdin)?;
    let typing = tokio::spawn(type_in(place.clone(), process.clone()));
    let mut ours = Ours::start();
    let end = {
        let mut carrying = std::pin::pin!(carry(&mut events, ours.writers()));
        loop {
            tokio::select! {
                end = &mut carrying => break end,
                errno = ours.failed() => break Err(Failure::unwritten(&errno.into())),
                _ = resized.recv() => {
                    // A resize that is lost is made up for by the next one.
                    drop(place.guest().await?.resize(&process, size(&raw.terminal)).await);
                }
                // Ctrl-C is typed, and is no signal here. Who sends one wants us to end.
                signal = signals.next() => break Err(Failure::Signaled(signal)),
            }
        }
    };
    typing.abort();
    // What cannot be shown on a terminal that is gone is shown to nobody.
    let _ = ours.finish().await;
    drop(raw);
    match end {
        Ok(code) => Ok(code),
        Err(failure) => {
            hang_up(&place, &process).await;
            Err(failure)
        }
    }
}

fn start(cwd: Option<String>, command: Vec<String>, terminal: Size) -> Start {
    let mut words = command.into_iter();
    let (program, arguments) = match words.next() {
        Some(program) => (program, words.collect()),
        None => (
            "/bin/sh".to_owned(),
            vec!["-c".to_owned(), SHELL.to_owned()],
        ),
    };
    // Programs draw for the terminal that it is. Nothing else of our environment is theirs.
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    Start {
        program,
        arguments,
        cwd,
        env: [("TERM".to_owned(), term)].into(),
        terminal: Some(terminal),
        ..Start::default()
    }
}

/// Shows what the terminal says until its program has ended.
async fn carry(events: &mut Events, writers: Writers) -> Result<ExitCode, Failure> {
    let broken = |error: GuestError| Failure::Told(Box::new(error.body()));
    loop {
        match events.next().await.map_err(broken)? {
            Some(Event::Terminal(bytes) | Event::Stdout(bytes) | Event::Stderr(bytes)) => {
                writers.write(false, bytes).await;
            }
            Some(Event::Started { .. }) => {}
            Some(Event::Ended(end)) => {
                let code = u8::try_from(end.exit_code).unwrap_or(OURS);
                return Ok(ExitCode::from(code));
            }
            None => return Err(broken(GuestError::Closed)),
        }
    }
}

/// Sends what is typed. An error ends it: the stream of events tells why.
async fn type_in(place: Place, process: Selector) -> Result<(), Failure> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; INPUT];
    loop {
        let read = stdin.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return Ok(());
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        let given = place.guest().await?;
        let given = given.input(&process, StdinKind::Terminal, bytes).await;
        given.map_err(|error| place.failure(error))?;
    }
}

/// What happens to the programs of a terminal that is gone.
async fn hang_up(place: &Place, process: &Selector) {
    const SIGHUP: i32 = 1;
    if let Ok(guest) = place.guest().await {
        // They end with the sandbox at the latest.
        drop(guest.signal(process, SIGHUP).await);
    }
}

fn size(terminal: &Stdin) -> Size {
    let size = tcgetwinsize(terminal).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(
        Size {
            columns: 80,
            rows: 24,
        },
        |size| Size {
            columns: size.ws_col,
            rows: size.ws_row,
        },
    )
}

/// Our terminal, which passes everything on and does nothing by itself, until this is dropped.
struct Raw {
    terminal: Stdin,
    before: Termios,
}

impl Raw {
    fn enter(terminal: Stdin) -> Result<Raw, Failure> {
        let failed = |errno: rustix::io::Errno| {
            let error = std::io::Error::from(errno);
            Failure::ours("take over the terminal", &error)
        };
        let before = tcgetattr(&terminal).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Raw { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no more.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
