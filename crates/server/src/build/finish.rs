//! The end of a build: what was written is saved, and what is to be started with each sandbox is tried.
//!
//! It is saved before anything is started, so that what is started finds in each sandbox what it found here, and
//! not what it has left.

use super::log::Bench;
use super::phases::{Stop, failed, verdict};
use super::scripts;
use super::shell::{self, Done, Site, Speech, Voice, refused};
use api::guest::{Event, Events, GuestError};
use model::build::Phase;
use model::limits;
use model::sandbox_spec::{StartCommand, only_waits};
use model::snapshot::SnapshotState;
use service::{Built, Level, Saved, Settled};
use std::time::Duration;

/// How long a copy may take: as long as a node has for it.
const SAVE_WAIT: Duration = Duration::from_millis(limits::SANDBOX_ORDER_MS);
/// Pauses between two looks whether what was started is ready.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// See [`PAUSE_FIRST`].
const PAUSE_MOST: Duration = Duration::from_secs(1);

pub(super) async fn finish(
    bench: &mut Bench,
    site: &Site,
    built: &Built,
    settled: Settled,
) -> Result<(), Stop> {
    let phase = Phase::Finish;
    bench.say(phase, Level::Info, "[finalize] Saving what was built");
    bench.flush().await?;
    save(bench, &settled, built.start.clone()).await?;
    if let Some(start) = &built.start {
        try_start(bench, site, start, &settled).await?;
    }
    bench.say(phase, Level::Info, "[finalize] Build finished");
    bench.flush().await?;
    let service = bench.world.service.clone();
    let done = service.build_done(&mut bench.hold, &built.key, None).await;
    done.map_err(|error| verdict(phase, error))
}

async fn save(
    bench: &mut Bench,
    settled: &Settled,
    start: Option<StartCommand>,
) -> Result<(), Stop> {
    let phase = Phase::Finish;
    let service = bench.world.service.clone();
    let saved = Saved {
        settled: settled.clone(),
        start,
    };
    let begun = service.build_save(&mut bench.hold, saved).await;
    begun.map_err(|error| verdict(phase, error))?;
    let hold = bench.hold.clone();
    let row = bench
        .tend(service.build_save_wait(&hold, SAVE_WAIT))
        .await?;
    let row = row.map_err(|error| verdict(phase, error))?;
    match row.state {
        SnapshotState::Ready => Ok(()),
        SnapshotState::Failed { why } => Err(failed(phase, format!("failed to save: {why}"))),
        SnapshotState::Saving | SnapshotState::Deleting | SnapshotState::Deleted => {
            Err(failed(phase, "failed to save: it was not done in time"))
        }
    }
}

/// Starts what is to be started with each sandbox, and waits until it is ready.
async fn try_start(
    bench: &mut Bench,
    site: &Site,
    start: &StartCommand,
    settled: &Settled,
) -> Result<(), Stop> {
    let phase = Phase::Finish;
    let mut running = match &start.command {
        Some(command) => {
            let line = format!("[finalize] Running start command: {command}");
            bench.say(phase, Level::Info, &line);
            let what = scripts::run(command, None, settled);
            let started = shell::start(bench, site, &what).await;
            let broken =
                |error| failed(phase, format!("start command failed: {}", refused(&error)));
            Some(Running {
                events: started.map_err(broken)?,
                speech: Speech::default(),
                is_over: false,
            })
        }
        None => None,
    };
    let Some(ready) = &start.ready else {
        return Ok(());
    };
    let line = format!("[finalize] Waiting for template to be ready: {ready}");
    bench.say(phase, Level::Info, &line);
    let bound = Duration::from_millis(limits::READY_MS);
    let waiting = is_ready(bench, site, (ready, settled), &mut running);
    match tokio::time::timeout(bound, waiting).await {
        Ok(done) => done?,
        // That it is over is all that such a command says, and what was started has not fallen.
        Err(_) if only_waits(ready).is_some() => {}
        Err(_) => {
            let seconds = bound.as_secs();
            return Err(failed(
                phase,
                format!(
                    "ready command failed: it did not succeed within {seconds} s, which is all that a start \
                     of a sandbox may take"
                ),
            ));
        }
    }
    bench.say(phase, Level::Info, "[finalize] Template is ready");
    Ok(())
}

/// What was started.
struct Running {
    events: Events,
    speech: Speech,
    is_over: bool,
}

impl Running {
    /// The next lines that it writes; never any more once it has ended well.
    async fn next(&mut self) -> Result<Vec<(&'static str, String)>, String> {
        if self.is_over {
            return std::future::pending().await;
        }
        let lost = |error: GuestError| format!("start command failed: {}", refused(&error));
        let event = self.events.next().await.map_err(lost)?;
        let event = event.ok_or_else(|| lost(GuestError::Closed))?;
        self.is_over = matches!(event, Event::Ended(_));
        let lines = self.speech.hear(event);
        match self.speech.done.failure() {
            Some(why) if self.is_over => Err(format!("start command failed: {why}")),
            _ => Ok(lines),
        }
    }
}

/// Asks again and again whether what was started is ready, and tells meanwhile what it writes.
async fn is_ready(
    bench: &mut Bench,
    site: &Site,
    (ready, settled): (&str, &Settled),
    running: &mut Option<Running>,
) -> Result<(), Stop> {
    let mut pause = PAUSE_FIRST;
    loop {
        let what = scripts::run(ready, None, settled);
        let asked = shell::start(bench, site, &what).await;
        let events = asked.map_err(|error| {
            failed(
                Phase::Finish,
                format!("ready command failed: {}", refused(&error)),
            )
        })?;
        let done = beside(bench, running, answer(events)).await?;
        if done.is_ok_and(|done| done.exit_code == 0) {
            // What has fallen by now would fall in every sandbox.
            beside(bench, running, tokio::task::yield_now()).await?;
            return Ok(());
        }
        beside(bench, running, tokio::time::sleep(pause)).await?;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

async fn answer(mut events: Events) -> Result<Done, GuestError> {
    let mut speech = Speech::default();
    while let Some(event) = events.next().await? {
        let is_end = matches!(event, Event::Ended(_));
        speech.hear(event);
        if is_end {
            return Ok(speech.done);
        }
    }
    Err(GuestError::Closed)
}

/// Waits for something, and tells meanwhile what was started has to say.
async fn beside<T>(
    bench: &mut Bench,
    running: &mut Option<Running>,
    work: impl Future<Output = T>,
) -> Result<T, Stop> {
    let voice = Voice {
        phase: Phase::Finish,
        level: Level::Info,
        prefix: "start",
    };
    let mut work = std::pin::pin!(work);
    loop {
        let told = async {
            match running {
                Some(running) => running.next().await,
                None => std::future::pending().await,
            }
        };
        let lines = tokio::select! {
            biased;
            lines = told => lines.map_err(|why| failed(Phase::Finish, why))?,
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(Duration::from_millis(150)) => Vec::new(),
        };
        for (stream, line) in lines {
            let message = format!("[{}] [{stream}]: {line}", voice.prefix);
            bench.say(voice.phase, voice.level, &message);
        }
        bench.tick().await?;
    }
}
