//! What every driver must do, as one function over any of them.
//!
//! The tests of this crate run it over each driver that the machine can run; a driver that is added
//! passes it before it is offered to anybody.

use crate::driver::{Driver, Found, Mode, Plan, Spec};
use crate::guest::{GuestReader, GuestWriter, Incoming, split};
use crate::host::Host;
use ::guest::message::{Exited, FromGuest, Start, ToGuest, VERSION};
use model::id::SandboxId;
use model::spec::AskedLimits;
use std::time::Duration;

/// Why a driver does not conform.
#[derive(Debug, thiserror::Error)]
#[error("{promise}: {seen}")]
pub struct Broken {
    /// The promise that was broken.
    pub promise: &'static str,
    /// What was seen instead.
    pub seen: String,
}

/// No step of the suite takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(30);

fn broken(promise: &'static str) -> impl Fn(String) -> Broken {
    move |seen| Broken { promise, seen }
}

/// A sandbox of the suite with its guest, confined and ready to start.
#[derive(Debug)]
pub struct Prepared {
    /// What it was made from.
    pub plan: Plan,
    /// From the guest.
    pub reader: GuestReader,
    /// To the guest.
    pub writer: GuestWriter,
}

/// A spec with default limits and a name of its own.
pub fn spec(limits: AskedLimits) -> Spec {
    let mut random = [0; 10];
    // A name that two runs share would be found as a sandbox left over; a failing source of random
    // numbers shows as just that.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let id = SandboxId::from_parts(now.tv_sec.unsigned_abs() * 1000, random);
    Spec {
        id,
        root: None,
        limits,
        life: Duration::from_secs(60),
        mode: Mode::Job,
        way_out: false,
        layers: Vec::new(),
        volumes: Vec::new(),
    }
}

/// Starts a sandbox and confines its first process.
///
/// # Errors
/// [`Broken`] with the step that failed.
pub async fn prepare(driver: &dyn Driver, host: &Host, spec: &Spec) -> Result<Prepared, Broken> {
    let fail = broken("a sandbox that is planned can be started");
    let plan = driver
        .plan(spec, host)
        .map_err(|refused| fail(format!("{refused:?}")))?;
    driver
        .start(&plan)
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    let (reader, writer) = connect(driver, &plan).await?;
    let mut prepared = Prepared {
        plan,
        reader,
        writer,
    };
    let confine = ToGuest::Confine(prepared.plan.confine.clone());
    prepared
        .writer
        .say(&confine)
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    let message = prepared.message().await?;
    if message == FromGuest::Confined {
        Ok(prepared)
    } else {
        Err(fail(format!("{message:?}")))
    }
}

/// Connects and says hello.
async fn connect(driver: &dyn Driver, plan: &Plan) -> Result<(GuestReader, GuestWriter), Broken> {
    let fail = broken("a guest answers on every new connection");
    let stream = driver
        .connect(&plan.handle)
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    let (mut reader, mut writer) = split(stream);
    let hello = ToGuest::Hello {
        version: VERSION,
        stdout: 0,
        stderr: 0,
    };
    writer
        .say(&hello)
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    match tokio::time::timeout(PATIENCE, reader.next()).await {
        Ok(Ok(Incoming::Message(FromGuest::Hello {
            version: VERSION, ..
        }))) => Ok((reader, writer)),
        other => {
            let end = tokio::time::timeout(PATIENCE, driver.ended(&plan.handle)).await;
            Err(fail(format!("{other:?}, and the sandbox: {end:?}")))
        }
    }
}

/// How a command ended, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How.
    pub exited: Exited,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Prepared {
    /// The next message; output is not expected.
    ///
    /// # Errors
    /// [`Broken`] when the guest hangs up or is silent.
    pub async fn message(&mut self) -> Result<FromGuest, Broken> {
        let fail = broken("a guest answers");
        match tokio::time::timeout(PATIENCE, self.reader.next()).await {
            Ok(Ok(Incoming::Message(message))) => Ok(message),
            other => Err(fail(format!("{other:?}"))),
        }
    }

    /// Starts a command and gathers what it writes until it ends.
    ///
    /// # Errors
    /// [`Broken`] when it does not start or end.
    pub async fn run(&mut self, start: Start) -> Result<Ran, Broken> {
        let fail = broken("a command runs to its end");
        let said = self.writer.say(&ToGuest::Start(start)).await;
        said.map_err(|error| fail(format!("{error:?}")))?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match tokio::time::timeout(PATIENCE, self.reader.next()).await {
                Ok(Ok(Incoming::Output(stream, bytes))) => {
                    let kept = match stream {
                        ::guest::message::Stream::Stdout => &mut stdout,
                        ::guest::message::Stream::Stderr => &mut stderr,
                    };
                    kept.extend_from_slice(&bytes);
                    let offset = kept.len() as u64;
                    let ack = self.writer.say(&ToGuest::Ack { stream, offset }).await;
                    ack.map_err(|error| fail(format!("{error:?}")))?;
                }
                Ok(Ok(Incoming::Message(FromGuest::Exited(exited)))) => {
                    return Ok(Ran {
                        exited,
                        stdout,
                        stderr,
                    });
                }
                Ok(Ok(Incoming::Message(
                    FromGuest::Started { failure: None } | FromGuest::StdinAck { .. },
                ))) => {}
                other => return Err(fail(format!("{other:?}"))),
            }
        }
    }
}

/// A command with the environment of the suite.
pub fn command(argv: &[&str]) -> Start {
    Start {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
        cwd: "/home/user".to_owned(),
        stdin: false,
        timeout_ms: 20_000,
        grace_ms: 500,
    }
}

/// Runs all of the suite. `argv` is a command that the driver runs to exit code 0.
///
/// # Errors
/// The first promise that was [`Broken`].
pub async fn check(driver: &dyn Driver, host: &Host, argv: &[&str]) -> Result<(), Broken> {
    a_sandbox_is_found_as_long_as_it_lives(driver, host).await?;
    a_command_runs_and_ends(driver, host, argv).await?;
    a_second_connection_takes_over(driver, host).await?;
    destroying_is_final_and_may_be_repeated(driver, host).await
}

async fn a_sandbox_is_found_as_long_as_it_lives(
    driver: &dyn Driver,
    host: &Host,
) -> Result<(), Broken> {
    let fail = broken("a sandbox is found as long as it lives, and not before or after");
    let spec = spec(AskedLimits::default());
    let plan = driver
        .plan(&spec, host)
        .map_err(|refused| fail(format!("{refused:?}")))?;
    let find = async || match driver.find(&plan.handle).await {
        Ok(found) => format!("{found:?}"),
        Err(error) => format!("{error:?}"),
    };
    let before = find().await;
    driver
        .start(&plan)
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    let running = find().await;
    let listed = driver
        .list()
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    driver
        .destroy(&plan.handle)
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    let after = find().await;
    let (gone, there) = (
        format!("{:?}", Found::Gone),
        format!("{:?}", Found::Running),
    );
    if before == gone && running == there && after == gone && listed.contains(&spec.id) {
        Ok(())
    } else {
        Err(fail(format!(
            "{before}, {running} (listed: {listed:?}), {after}"
        )))
    }
}

async fn a_command_runs_and_ends(
    driver: &dyn Driver,
    host: &Host,
    argv: &[&str],
) -> Result<(), Broken> {
    let mut prepared = prepare(driver, host, &spec(AskedLimits::default())).await?;
    let ran = prepared.run(command(argv)).await?;
    let destroyed = driver.destroy(&prepared.plan.handle).await;
    if ran.exited.code == Some(0) && destroyed.is_ok() {
        return Ok(());
    }
    Err(broken("a command runs and ends")(format!(
        "{ran:?}, {destroyed:?}"
    )))
}

async fn a_second_connection_takes_over(driver: &dyn Driver, host: &Host) -> Result<(), Broken> {
    let prepared = prepare(driver, host, &spec(AskedLimits::default())).await?;
    let again = connect(driver, &prepared.plan).await;
    let destroyed = driver.destroy(&prepared.plan.handle).await;
    again?;
    destroyed.map_err(|error| broken("destroying works")(format!("{error:?}")))
}

async fn destroying_is_final_and_may_be_repeated(
    driver: &dyn Driver,
    host: &Host,
) -> Result<(), Broken> {
    let fail = broken("destroying is final, and may be repeated");
    let prepared = prepare(driver, host, &spec(AskedLimits::default())).await?;
    for _ in 0..2 {
        let destroyed = driver.destroy(&prepared.plan.handle).await;
        destroyed.map_err(|error| fail(format!("{error:?}")))?;
    }
    let listed = driver
        .list()
        .await
        .map_err(|error| fail(format!("{error:?}")))?;
    let never = driver.handle(&spec(AskedLimits::default()).id);
    let started = driver.destroy(&never).await;
    if listed.contains(&prepared.plan.handle.id) || started.is_err() {
        return Err(fail(format!("{listed:?}, {started:?}")));
    }
    Ok(())
}
