//! `cofferdam node tape`: the last calls of the node of this machine to its server.
//!
//! The node shows them on a socket in its state directory, which is for this user alone. It writes them down there
//! when it panics, because then nobody can ask it any more, and when it is told to by `SIGUSR1`, for whoever has to
//! look at them elsewhere, or later.

use crate::cli::args::Place;
use crate::cli::failure::Failure;
use crate::cli::job::when;
use crate::cli::table;
use crate::private::write_private;
use crate::state::State;
use api::Code;
use api::client::{Tape, TapeLine};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{self, SignalKind};

/// How long whoever asks may take to read: it is a command on this machine.
const ASKED: Duration = Duration::from_secs(5);
/// The most that is read of a tape: the node keeps less.
const TEXT_BYTES_MAX: u64 = 1 << 20;

fn socket(state: &State) -> PathBuf {
    state.dir().join("tape.sock")
}

fn file(state: &State) -> PathBuf {
    state.dir().join("tape.json")
}

/// Keeps the tape of this process where it can be asked for. Without a socket it is only written down.
pub(crate) fn keep(state: &State) -> Arc<Tape> {
    let tape = Arc::new(Tape::new(|| service::Clock::system().now_ms()));
    let (kept, path) = (tape.clone(), file(state));
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // It is no use to say that this failed: the panic is what is to be read.
        drop(write(&kept, &path));
        before(panic);
    }));
    // Until here the signal ends the process, as one that nobody listens to does.
    match unix::signal(SignalKind::user_defined1()) {
        Ok(told) => drop(tokio::spawn(write_when_told(
            told,
            tape.clone(),
            file(state),
        ))),
        Err(error) => {
            tracing::warn!(%error, "the calls of this node are not written down at a signal")
        }
    }
    drop(std::fs::remove_file(socket(state)));
    match UnixListener::bind(socket(state)) {
        Ok(listener) => drop(tokio::spawn(show(listener, tape.clone()))),
        Err(error) => tracing::warn!(%error, "the calls of this node cannot be asked for"),
    }
    tape
}

/// The file of before is replaced, so there is never more than one tape.
fn write(tape: &Tape, path: &Path) -> Result<(), Failure> {
    let text = serde_json::to_string(&tape.lines()).unwrap_or_default();
    write_private(path, &text)
}

/// Signals that come faster than it is written are one.
async fn write_when_told(mut told: unix::Signal, tape: Arc<Tape>, path: PathBuf) {
    while told.recv().await.is_some() {
        match write(&tape, &path) {
            Ok(()) => {
                tracing::info!(path = %path.display(), "the calls of this node are written down")
            }
            Err(failure) => {
                tracing::warn!(%failure, "the calls of this node could not be written down")
            }
        }
    }
}

/// One who asks after the other. Never returns.
async fn show(listener: UnixListener, tape: Arc<Tape>) {
    loop {
        // Of this user alone; where none can be taken, the next may do.
        let Ok((mut asks, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let text = serde_json::to_string(&tape.lines()).unwrap_or_default();
        drop(tokio::time::timeout(ASKED, asks.write_all(text.as_bytes())).await);
    }
}

/// Prints it: that of the node that runs, or what one has written down.
pub(crate) async fn tape(place: &Place, json: bool) -> Result<ExitCode, Failure> {
    let state = State::of(place)?;
    state.is_there()?;
    let text = match UnixStream::connect(socket(&state)).await {
        Ok(node) => {
            let (mut text, mut node) = (String::new(), node.take(TEXT_BYTES_MAX));
            let read = node.read_to_string(&mut text);
            // What was cut is no JSON.
            drop(tokio::time::timeout(ASKED, read).await);
            text
        }
        Err(_) => {
            let text = std::fs::read_to_string(file(&state)).map_err(|_| none(&state))?;
            table::note(
                "no node runs here; this is what one has written down, at a panic or a SIGUSR1",
            );
            text
        }
    };
    let lines: Vec<TapeLine> = serde_json::from_str(&text)
        .map_err(|error| Failure::state("read the calls of the node", &error))?;
    table::print(&if json {
        table::to_json(&lines)?
    } else {
        let head = ["AT (UTC)", "TOOK MS", "CODE", "SENT", "RECEIVED", "CALL"];
        table::layout(&head, lines.iter().map(line).collect())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn none(state: &State) -> Failure {
    let message = format!("no node runs with its state in {}", state.dir().display());
    let failure = Failure::new(Code::ServerUnreachable, message);
    failure.hint(
        "name the state directory of the node with --state, and ask as the user that it runs as",
    )
}

fn line(one: &TapeLine) -> Vec<String> {
    let bytes = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    vec![
        when(one.at_ms),
        one.took_ms.to_string(),
        one.code.clone(),
        bytes(one.sent_bytes),
        bytes(one.received_bytes),
        format!("{} {}", one.method, one.path),
    ]
}
