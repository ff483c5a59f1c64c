//! `sandbox_exec`: a command in a sandbox that lives on.

use api::Code;
use api::guest::{Event, Events, GuestError, ProcessEnd, Selector, Start, StdinKind};
use std::time::Duration;
use tokio::time::Instant;

use crate::answer::{Answer, Ended, Output, Status};
use crate::args::{self, timeout};
use crate::bound::Kept;
use crate::call::{Hand, user};
use crate::cursor::{Cursor, Of};
use crate::refusal::Refusal;
use crate::run::shell;
use crate::shelf::Shelf;

/// The longest standard input: one message to the guest.
const STDIN_MAX_BYTES: usize = api::guest::INPUT_MAX_BYTES;
/// How long a command that is left running is looked at: one that cannot be started has failed by then.
const LEFT_AFTER: Duration = Duration::from_millis(300);
/// How long it may take to end a command that nobody wants any more.
const KILLING: Duration = Duration::from_secs(2);
/// What a shell says of a program whose time was over.
const TIMED_OUT: i32 = 124;

pub(crate) async fn exec(hand: &Hand<'_>, args: args::SandboxExec) -> Result<Answer, Refusal> {
    let start = start(&args)?;
    let user = user(args.user.as_deref())?;
    let began = Instant::now();
    let guest = hand.guest(&args.sandbox_id, user).await?;
    let starting = async { Ok(guest.start(&start).await?) };
    let mut events = hand.unless_canceled(starting).await?;
    let pid = pid(&mut events).await?;
    let running = Running {
        hand,
        args: &args,
        pid,
        began,
    };
    if args.background {
        return running.leave(events).await;
    }
    tokio::select! {
        ended = running.follow(events) => ended,
        () = hand.call.canceled() => {
            running.kill().await;
            Err(Refusal::canceled())
        }
    }
}

fn start(args: &args::SandboxExec) -> Result<Start, Refusal> {
    if args
        .stdin
        .as_ref()
        .is_some_and(|text| text.len() > STDIN_MAX_BYTES)
    {
        return Err(Refusal::argument("stdin", "is longer than 256 KiB")
            .hint("write a file with file_write, and let the command read that"));
    }
    let limit = match (args.background, args.timeout_s) {
        (true, None) => None,
        (_, asked) => Some(timeout(asked)?),
    };
    let mut words = shell(args.command.clone()).into_iter();
    Ok(Start {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
        env: args.env.clone(),
        cwd: args.cwd.clone(),
        stdin: args.stdin.is_some(),
        timeout: limit,
        ..Start::default()
    })
}

async fn pid(events: &mut Events) -> Result<u32, Refusal> {
    match events.next().await? {
        Some(Event::Started { pid }) => Ok(pid),
        _ => Err(Refusal::new(
            Code::GuestUnavailable,
            "the guest does not say what it started",
        )),
    }
}

/// A command that runs.
struct Running<'r> {
    hand: &'r Hand<'r>,
    args: &'r args::SandboxExec,
    pid: u32,
    began: Instant,
}

impl Running<'_> {
    /// Takes what it writes until it has ended.
    async fn follow(&self, mut events: Events) -> Result<Answer, Refusal> {
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        let feeding = self.feed();
        let following = async { collect(&mut events, &mut stdout, &mut stderr).await };
        // What it does not read of its input is for nobody, as with a pipe.
        let (end, ()) = tokio::join!(following, feeding);
        let end = end?;
        let shelf = self.hand.call.tools.shelf();
        let mut ended = self.ended(end, kept(stdout, shelf), kept(stderr, shelf));
        if ended.status == Status::TimedOut {
            ended.note = Some(
                "it was killed; give it more with timeout_s, or start it with `background`"
                    .to_owned(),
            );
        }
        Ok(ended.answer())
    }

    fn ended(&self, end: End, stdout: Output, stderr: Output) -> Ended {
        let (status, exit_code) = match end {
            End::Ended(end) if end.exit_code == 0 => (Status::Succeeded, end.exit_code),
            End::Ended(end) => (Status::Failed, end.exit_code),
            End::TimedOut => (Status::TimedOut, TIMED_OUT),
        };
        Ended {
            status,
            exit_code: Some(exit_code),
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            stdout,
            stderr,
            job_id: None,
            artifacts: Vec::new(),
            pid: None,
            note: None,
        }
    }

    /// Looks whether it stays, and leaves it.
    async fn leave(&self, mut events: Events) -> Result<Answer, Refusal> {
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        self.feed().await;
        let looking = collect(&mut events, &mut stdout, &mut stderr);
        let ended = tokio::time::timeout(LEFT_AFTER, looking).await;
        let shelf = self.hand.call.tools.shelf();
        let (stdout, stderr) = (kept(stdout, shelf), kept(stderr, shelf));
        let mut answer = match ended {
            Ok(end) => self.ended(end?, stdout, stderr),
            Err(_) => Ended {
                status: Status::Running,
                exit_code: None,
                ..self.ended(End::TimedOut, stdout, stderr)
            },
        };
        answer.pid = Some(self.pid);
        if answer.status == Status::Running {
            let note = format!(
                "what it writes from now on is dropped; `kill {}` with sandbox_exec ends it",
                self.pid
            );
            answer.note = Some(note);
        }
        Ok(answer.answer())
    }

    async fn feed(&self) {
        let Some(text) = &self.args.stdin else { return };
        let process = Selector::Pid(self.pid);
        let feeding = async {
            let guest = self.guest().await?;
            guest
                .input(&process, StdinKind::Pipe, text.as_bytes())
                .await?;
            self.guest().await?.close_stdin(&process).await?;
            Ok::<_, Refusal>(())
        };
        // It has ended, or closed its input: how it ended says the rest.
        drop(feeding.await);
    }

    /// Ends it, because nobody wants it any more.
    async fn kill(&self) {
        let killing = async {
            let guest = self.guest().await?;
            Ok::<_, Refusal>(guest.signal(&Selector::Pid(self.pid), 9).await?)
        };
        // Its limit of time ends it if this cannot be said.
        drop(tokio::time::timeout(KILLING, killing).await);
    }

    async fn guest(&self) -> Result<api::guest::Guest, Refusal> {
        let user = self.args.user.as_deref();
        self.hand.guest(&self.args.sandbox_id, user).await
    }
}

/// How a command ended.
enum End {
    Ended(ProcessEnd),
    TimedOut,
}

async fn collect(
    events: &mut Events,
    stdout: &mut Kept,
    stderr: &mut Kept,
) -> Result<End, GuestError> {
    loop {
        match events.next().await {
            Ok(Some(Event::Ended(end))) => return Ok(End::Ended(end)),
            Ok(Some(Event::Stdout(bytes) | Event::Terminal(bytes))) => stdout.push(&bytes),
            Ok(Some(Event::Stderr(bytes))) => stderr.push(&bytes),
            Ok(Some(Event::Started { .. })) => {}
            Ok(None) => return Err(GuestError::Closed),
            Err(error) if error.is("deadline_exceeded") => return Ok(End::TimedOut),
            Err(error) => return Err(error),
        }
    }
}

/// What is shown of a stream; the rest goes on the shelf.
pub(crate) fn kept(kept: Kept, shelf: &Shelf) -> Output {
    Output::of(kept, |kept, at| {
        let name = shelf.put(kept.into_head())?;
        let of = Of::Kept { name };
        Some(Cursor { of, at }.to_string())
    })
}
