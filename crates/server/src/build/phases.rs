//! A build from its beginning to its end.

use super::World;
use super::finish;
use super::log::Bench;
use super::scripts;
use super::shell::{self, Command, Done, Site, Voice, refused};
use api::guest::GuestError;
use model::build::{BuildFailure, Phase};
use model::profile::{Base, Instruction, What};
use model::sandbox::SandboxState;
use service::{BuildHold, Built, Error, Level, SandboxRow, Settled};
use std::time::Duration;

/// How long a build waits for its sandbox: what a node has to make one, and to come to it.
const SANDBOX_WAIT: Duration = Duration::from_secs(300);

/// Why a build does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// It comes to nothing.
    Failed(BuildFailure),
    /// It is not ours any more, or cannot be told of: whoever takes it begins again.
    Lost(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Lost(error)
    }
}

/// It comes to nothing in this part.
pub(super) fn failed(phase: Phase, message: impl Into<String>) -> Stop {
    let message = message.into();
    Stop::Failed(BuildFailure { message, phase })
}

/// What whoever asked for a sandbox or a copy can do something about is the end of the build; anything else is
/// tried again.
pub(super) fn verdict(phase: Phase, error: Error) -> Stop {
    match error {
        Error::Invalid(_)
        | Error::NotFound
        | Error::Conflict { .. }
        | Error::TooMuch { .. }
        | Error::DiskFull
        | Error::Forbidden(_)
        | Error::NotYourLease
        | Error::LeaseToken
        | Error::TokenInvalid(_)
        | Error::IssuerAway => failed(phase, error.to_string()),
        Error::Stale | Error::SecretKey(_) | Error::Unavailable(_) | Error::Internal { .. } => {
            Stop::Lost(error)
        }
    }
}

/// Carries a build out.
///
/// # Errors
/// When it is another's now, or cannot be told of.
pub(super) async fn carry_out(world: World, hold: BuildHold) -> Result<(), Error> {
    let mut bench = Bench::new(world, hold);
    let outcome = all(&mut bench).await;
    let told = match outcome {
        Ok(()) => Ok(()),
        Err(Stop::Lost(error)) => Err(error),
        Err(Stop::Failed(why)) => {
            let (build, phase) = (&bench.hold.row().id, why.phase);
            tracing::info!(build.id = %build, ?phase, why = why.message, "a build has failed");
            bench.say(
                why.phase,
                Level::Error,
                &format!("Build failed: {}", why.message),
            );
            match bench.flush().await {
                Ok(()) => {
                    let service = bench.world.service.clone();
                    service.build_fail(&mut bench.hold, why).await
                }
                Err(error) => Err(error),
            }
        }
    };
    // After it was told: whoever waits for the build does not wait for this.
    bench.world.service.build_sandbox_drop(&bench.hold).await;
    told
}

async fn all(bench: &mut Bench) -> Result<(), Stop> {
    let none = || failed(Phase::Base, "the build has no recipe");
    let recipe = bench.hold.recipe().cloned().ok_or_else(none)?;
    let service = bench.world.service.clone();
    bench.say(
        Phase::Base,
        Level::Info,
        &format!("[base] {}", from(&recipe.base)),
    );
    let built = service.build_origin(&bench.hold, &recipe).await?;
    let built = built.map_err(Stop::Failed)?;
    let total = recipe.instructions.len();
    for (number, one) in (1..).zip(recipe.instructions.iter().take(built.done)) {
        let line = format!("CACHED [builder {number}/{total}] {}", one.what.line());
        bench.say(instruction(number), Level::Info, &line);
    }
    if let Some(same) = built.same.clone() {
        bench.say(
            Phase::Finish,
            Level::Info,
            "[finalize] an earlier build has done all of this",
        );
        bench.flush().await?;
        let done = service
            .build_done(&mut bench.hold, &built.key, Some(same))
            .await;
        return done.map_err(|error| verdict(Phase::Finish, error));
    }
    let site = sandbox(bench, &built).await?;
    let mut settled = built.settled.clone();
    for (number, one) in (1..).zip(&recipe.instructions).skip(built.done) {
        let prefix = format!("builder {number}/{total}");
        let line = format!("[{prefix}] {}", one.what.line());
        bench.say(instruction(number), Level::Info, &line);
        let mut step = Step {
            site: &site,
            number,
            prefix: &prefix,
        };
        step.carry_out(bench, one, &mut settled).await?;
    }
    finish::finish(bench, &site, &built, settled).await
}

fn from(base: &Base) -> String {
    match base {
        Base::Image(text) => format!("FROM {text}"),
        Base::Profile(text) => format!("FROM TEMPLATE {text}"),
    }
}

fn instruction(number: usize) -> Phase {
    Phase::Instruction(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The sandbox of the build, when it can be used.
async fn sandbox(bench: &mut Bench, built: &Built) -> Result<Site, Stop> {
    let phase = Phase::Base;
    let service = bench.world.service.clone();
    let made = service.build_sandbox(&mut bench.hold, built).await;
    made.map_err(|error| verdict(phase, error))?;
    let hold = bench.hold.clone();
    let waiting = service.build_sandbox_wait(&hold, SANDBOX_WAIT);
    let row = bench.tend(waiting).await?;
    let row = row.map_err(|error| verdict(phase, error))?;
    match (&row.state, &row.node) {
        (SandboxState::Ready, Some(node)) => Ok(Site {
            node: node.clone(),
            sandbox: row.id,
        }),
        _ => Err(failed(phase, fallen(&row))),
    }
}

fn fallen(row: &SandboxRow) -> String {
    if let SandboxState::Failed { why } = &row.state {
        return format!("the sandbox of the build ended: {why}");
    }
    format!("the sandbox of the build is {}", row.state.name())
}

/// One instruction at its place.
struct Step<'a> {
    site: &'a Site,
    number: usize,
    prefix: &'a str,
}

impl Step<'_> {
    fn failed(&self, message: impl Into<String>) -> Stop {
        failed(instruction(self.number), message)
    }

    async fn carry_out(
        &mut self,
        bench: &mut Bench,
        one: &Instruction,
        settled: &mut Settled,
    ) -> Result<(), Stop> {
        match &one.what {
            What::Run { command, user } => {
                let what = scripts::run(command, user.as_deref(), settled);
                let shown = format!("failed to run command '{command}'");
                self.done(bench, &what, Level::Info, &shown).await.map(drop)
            }
            What::Env(pairs) => self.env(bench, pairs, settled).await,
            What::Workdir(path) => {
                let path = self.value(bench, path, settled).await?;
                let what = scripts::workdir(&path, settled);
                let shown = "failed to create workdir";
                let done = self.done(bench, &what, Level::Debug, shown).await?;
                settled.workdir = Some(text(&done));
                Ok(())
            }
            What::User(name) => {
                let name = self.value(bench, name, settled).await?;
                let user = scripts::user(&name).map_err(|why| self.failed(why))?;
                let shown = format!("failed to become user '{user}'");
                self.done(bench, &scripts::be(user), Level::Debug, &shown)
                    .await?;
                settled.user = Some(user.to_owned());
                Ok(())
            }
            What::Copy { .. } => self.copy(bench, &one.what, settled).await,
        }
    }

    /// Runs a command that has to succeed.
    async fn done(
        &self,
        bench: &mut Bench,
        command: &Command,
        level: Level,
        shown: &str,
    ) -> Result<Done, Stop> {
        let voice = Voice {
            phase: instruction(self.number),
            level,
            prefix: self.prefix,
        };
        let done = match shell::run(bench, self.site, command, voice).await? {
            Ok(done) => done,
            Err(error) => return Err(self.broken(bench, shown, &error).await),
        };
        match done.failure() {
            None => Ok(done),
            Some(why) if level == Level::Debug && !done.complaint.trim().is_empty() => {
                let said = done.complaint.trim().replace('\n', "; ");
                Err(self.failed(format!("{shown}: {why}: {said}")))
            }
            Some(why) => Err(self.failed(format!("{shown}: {why}"))),
        }
    }

    /// The guest did not do it: it says no, or the sandbox is gone.
    async fn broken(&self, bench: &mut Bench, shown: &str, error: &GuestError) -> Stop {
        let hold = bench.hold.clone();
        let service = &bench.world.service;
        let row = service.build_sandbox_wait(&hold, Duration::ZERO).await;
        match row {
            Ok(row) if row.state != SandboxState::Ready => {
                self.failed(format!("{shown}: {}", fallen(&row)))
            }
            _ => self.failed(format!("{shown}: {}", refused(error))),
        }
    }

    /// What a shell makes of a value.
    async fn value(
        &self,
        bench: &mut Bench,
        value: &str,
        settled: &Settled,
    ) -> Result<String, Stop> {
        if !scripts::has_to_be_read(value) {
            return Ok(value.to_owned());
        }
        let what = scripts::read_value(value, settled);
        let voice = Voice {
            phase: instruction(self.number),
            level: Level::Debug,
            prefix: self.prefix,
        };
        match shell::run(bench, self.site, &what, voice).await? {
            Ok(done) if done.exit_code == 0 => Ok(text(&done)),
            Ok(_) => Err(self.failed("a shell cannot read the value")),
            Err(error) => Err(self.broken(bench, "failed to read the value", &error).await),
        }
    }

    async fn env(
        &self,
        bench: &mut Bench,
        pairs: &[(String, String)],
        settled: &mut Settled,
    ) -> Result<(), Stop> {
        for (name, value) in pairs {
            let value = self.value(bench, value, settled).await?;
            if name == "PATH" {
                let what = scripts::keep_path(&value);
                let shown = "failed to keep the path";
                self.done(bench, &what, Level::Debug, shown).await?;
            }
            settled.env.insert(name.clone(), value);
        }
        let bytes: usize = settled.env.iter().map(|(k, v)| k.len() + v.len()).sum();
        let most = model::limits::ARGV_BYTES_MAX;
        if settled.env.len() > model::limits::ENV_MAX || bytes > most {
            return Err(self.failed("these are too many variables, or too long ones"));
        }
        Ok(())
    }

    /// The archive is unpacked inside, by the sandbox's own root: nothing of it is looked at here.
    async fn copy(&self, bench: &mut Bench, what: &What, settled: &Settled) -> Result<(), Stop> {
        let What::Copy {
            source,
            target,
            owner,
            mode,
            files,
        } = what
        else {
            return Ok(());
        };
        let shown = format!("failed to copy '{source}' to '{target}'");
        let opened = bench.world.service.build_files(&bench.hold, files).await;
        let (file, bytes) = match opened {
            Ok(opened) => opened,
            Err(Error::NotFound) => {
                let why = format!("{shown}: its files were not sent, or were kept for too long");
                return Err(self.failed(why));
            }
            Err(error) => return Err(Stop::Lost(error)),
        };
        let path = format!("{}/files", scripts::desk(self.number));
        let guest = shell::guest(bench, self.site).await;
        let sent = match guest {
            Ok(guest) => {
                let file = tokio::fs::File::from_std(file);
                let sending = guest.as_user(Some("root")).write(&path, file, Some(bytes));
                bench.tend(sending).await?
            }
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            return Err(self.broken(bench, &shown, &error).await);
        }
        let copy = scripts::Copy {
            source,
            target,
            owner: owner.as_deref(),
            mode: mode.as_deref(),
        };
        let command = scripts::copy(copy, self.number, settled);
        self.done(bench, &command, Level::Debug, &shown)
            .await
            .map(drop)
    }
}

/// What a command has answered, without the end of its line.
fn text(done: &Done) -> String {
    let text = String::from_utf8_lossy(&done.answer);
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}
