//! `cofferdam sandbox exec`: a command in a sandbox, with its streams tied to ours.

use super::Place;
use crate::cli::args::SandboxExec;
use crate::cli::failure::{Failure, OURS};
use crate::cli::run::variables;
use crate::cli::streams::{Ours, Writers};
use crate::cli::{table, units};
use crate::signals::{Signal, Signals};
use api::Code;
use api::client::Client;
use api::guest::{Event, Events, GuestError, ProcessEnd, Selector, Start, StdinKind};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// The most bytes of one stream that `--json` shows.
const TEXT_MAX: usize = 1 << 20;
/// How much of standard input is sent at once.
const INPUT: usize = 64 * 1024;
/// What a shell says of a program whose time was over.
const TIMED_OUT: u8 = 124;
/// How long a command that we kill because nobody wants it may take to be told so.
const KILLING: Duration = Duration::from_secs(2);

/// Runs a command and gives its exit code.
pub(crate) async fn exec(client: &Client, args: SandboxExec) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let place = Place::new(client, &args.id, args.user.clone())?;
    let mut events = tokio::select! {
        events = start(&place, &args) => events?,
        signal = signals.next() => return Err(Failure::Signaled(signal)),
    };
    let Ok(Some(Event::Started { pid })) = events.next().await else {
        return Err(Failure::new(
            Code::GuestUnavailable,
            "the guest does not say what it started",
        ));
    };
    if args.detach {
        table::print(&if args.json {
            table::to_line(&json!({"pid": pid}))?
        } else {
            format!("{pid}\n")
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let process = Process { place, pid };
    let input = tokio::spawn(feed(process.place.clone(), Selector::Pid(pid)));
    let mut kept = Kept::default();
    let mut ours = Ours::start();
    let end = {
        let writers = (!args.json).then(|| ours.writers());
        let carrying = carry(&mut events, writers, &mut kept);
        attend(&process, carrying, input, &mut ours, &mut signals).await
    };
    let unwritten = ours.finish().await;
    let end = end?;
    if let Some(errno) = unwritten {
        return Err(Failure::unwritten(&errno.into()));
    }
    if args.json {
        table::print(&table::to_line(&kept.answer(pid, &end))?)?;
    } else if let (End::TimedOut, Some(time)) = (&end, args.timeout) {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        table::complain(&format!("it was not done within {}", units::show_ms(time)));
    }
    Ok(end.exit_code())
}

async fn start(place: &Place, args: &SandboxExec) -> Result<Events, Failure> {
    if args.timeout == Some(Duration::ZERO) {
        let failure = Failure::new(Code::LimitZero, "--timeout must not be 0");
        return Err(failure.hint("leave it out, or say how long"));
    }
    let mut command = args.command.iter().cloned();
    let start = Start {
        program: command.next().unwrap_or_default(),
        arguments: command.collect(),
        env: variables("--env", &args.env)?,
        cwd: args.cwd.clone(),
        stdin: !args.detach,
        timeout: args.timeout,
        ..Start::default()
    };
    let started = place.guest().await?.start(&start).await;
    started.map_err(|error| not_started(place, error, &start.program))
}

/// Why a command was not started; what a shell has codes for has those here.
pub(super) fn not_started(place: &Place, error: GuestError, program: &str) -> Failure {
    let of_program = |code, what: &str| Failure::new(code, format!("`{program}` {what}"));
    let said = error.to_string();
    if !error.is("invalid_argument") || !said.starts_with("exec: ") {
        place.failure(error)
    } else if said.ends_with("No such file or directory") {
        of_program(Code::ProgramNotFound, "is not there in the sandbox")
            .hint("check the name and PATH inside, or bring it with `cofferdam sandbox cp`")
    } else {
        of_program(Code::ProgramNotRunnable, "cannot be run in the sandbox")
    }
}

/// A command that runs.
#[derive(Debug)]
struct Process {
    place: Place,
    pid: u32,
}

impl Process {
    async fn signal(&self, signal: i32) -> Result<(), Failure> {
        let sent = self.place.guest().await?;
        let sent = sent.signal(&Selector::Pid(self.pid), signal).await;
        match sent {
            // It has ended meanwhile, which is as well.
            Err(error) if error.is("not_found") => Ok(()),
            sent => sent.map_err(|error| self.place.failure(error)),
        }
    }

    /// Ends a command that nobody wants any more.
    async fn kill(&self) {
        // It ends with its sandbox at the latest.
        drop(tokio::time::timeout(KILLING, self.signal(9)).await);
    }
}

/// How a command ended.
#[derive(Debug)]
enum End {
    Ended(ProcessEnd),
    TimedOut,
}

impl End {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            End::Ended(end) => u8::try_from(end.exit_code).unwrap_or(OURS),
            End::TimedOut => TIMED_OUT,
        })
    }
}

/// Takes what the command writes, until it has ended.
async fn carry(
    events: &mut Events,
    writers: Option<Writers>,
    kept: &mut Kept,
) -> Result<End, GuestError> {
    loop {
        let (is_error, bytes) = match events.next().await {
            Ok(Some(Event::Ended(end))) => return Ok(End::Ended(end)),
            Ok(Some(Event::Stdout(bytes) | Event::Terminal(bytes))) => (false, bytes),
            Ok(Some(Event::Stderr(bytes))) => (true, bytes),
            Ok(Some(Event::Started { .. })) => continue,
            Ok(None) => return Err(GuestError::Closed),
            Err(error) if error.is("deadline_exceeded") => return Ok(End::TimedOut),
            Err(error) => return Err(error),
        };
        match &writers {
            Some(writers) => writers.write(is_error, bytes).await,
            None => kept.take(is_error, &bytes),
        }
    }
}

/// Waits until the command has ended, or somebody does not want it any more.
async fn attend(
    process: &Process,
    carrying: impl Future<Output = Result<End, GuestError>>,
    mut input: tokio::task::JoinHandle<Result<(), Failure>>,
    ours: &mut Ours,
    signals: &mut Signals,
) -> Result<End, Failure> {
    let mut carrying = std::pin::pin!(carrying);
    let (mut interrupted, mut fed) = (false, false);
    let failure = loop {
        tokio::select! {
            end = &mut carrying => {
                input.abort();
                return match end {
                    Ok(end) => Ok(end),
                    Err(error) => Err(process.place.lost(error).await),
                };
            }
            errno = ours.failed() => break Failure::unwritten(&errno.into()),
            done = &mut input, if !fed => {
                fed = true;
                // A command that got half of its input must not look as if it had got all.
                if let Ok(Err(failure)) = done {
                    break failure;
                }
            }
            // As in a shell: the command hears the first Ctrl-C. Whoever presses it again means it.
            signal = signals.next() => if signal == Signal::Interrupt && !interrupted {
                interrupted = true;
                process.signal(2).await?;
            } else {
                break Failure::Signaled(signal);
            },
        }
    };
    input.abort();
    process.kill().await;
    Err(failure)
}

/// Sends our standard input to the command, as fast as it reads.
async fn feed(place: Place, process: Selector) -> Result<(), Failure> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; INPUT];
    loop {
        let read = stdin.read(&mut buffer).await.unwrap_or(0);
        let bytes = buffer.get(..read).unwrap_or_default();
        let guest = place.guest().await?;
        let given = if bytes.is_empty() {
            guest.close_stdin(&process).await
        } else {
            guest.input(&process, StdinKind::Pipe, bytes).await
        };
        match given {
            Ok(()) if read > 0 => {}
            Ok(()) => return Ok(()),
            // It has closed its input, or has ended: what is left is for nobody, as with a pipe.
            Err(error) if error.is("failed_precondition") || error.is("not_found") => return Ok(()),
            Err(error) => return Err(place.failure(error)),
        }
    }
}

/// The beginning of what a command wrote.
#[derive(Debug, Default)]
struct Kept {
    streams: [(Vec<u8>, u64); 2],
}

impl Kept {
    fn take(&mut self, is_error: bool, bytes: &[u8]) {
        let [stdout, stderr] = &mut self.streams;
        let (kept, total) = if is_error { stderr } else { stdout };
        *total += bytes.len() as u64;
        let room = TEXT_MAX.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    fn answer(&self, pid: u32, end: &End) -> Value {
        let stream = |(kept, total): &(Vec<u8>, u64)| {
            json!({
                "text": String::from_utf8_lossy(kept),
                "total_bytes": total,
                "truncated": *total > kept.len() as u64,
            })
        };
        let [stdout, stderr] = &self.streams;
        let (code, status) = match end {
            End::Ended(end) => (end.exit_code, end.status.as_str()),
            End::TimedOut => (i32::from(TIMED_OUT), "timed out"),
        };
        json!({
            "pid": pid,
            "exit_code": code,
            "status": status,
            "timed_out": matches!(end, End::TimedOut),
            "stdout": stream(stdout),
            "stderr": stream(stderr),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_stream_is_bounded_and_says_so() {
        let mut kept = Kept::default();
        kept.take(true, b"err\xff");
        kept.take(false, &vec![b'a'; TEXT_MAX - 1]);
        kept.take(false, b"bc");
        let answer = kept.answer(7, &End::TimedOut);
        assert_eq!(
            answer["stderr"],
            json!({"text": "err\u{fffd}", "total_bytes": 4, "truncated": false})
        );
        assert_eq!(answer["stdout"]["truncated"], true);
        assert_eq!(answer["stdout"]["total_bytes"], TEXT_MAX + 1);
        assert!(answer["stdout"]["text"].as_str().unwrap().ends_with("ab"));
        assert_eq!(
            (&answer["exit_code"], &answer["timed_out"]),
            (&json!(124), &json!(true))
        );
    }
}
