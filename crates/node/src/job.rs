//! The life of one job on a node, from its lease to the moment when nothing of it is left.

pub(crate) mod fence;
mod network;
mod report;

use self::fence::Fence;
pub(crate) use self::report::insist;
use crate::outcome::{self, Asked, Told};
use crate::pump::{End, Lease as PumpLease, Pump, PumpError};
use crate::record::{self, Prepared, Record};
use crate::secret::{self, Secrets};
use crate::spare::{self, PROVISION, Standing};
use crate::spool::Spool;
use crate::way::WayOut;
use crate::{Node, Running, convert, files, inspect, machine, root};
use ::egress::index;
use ::egress::inspect::Inspector;
use api::attach::LinkOpen;
use api::job::{Enforced, Usage};
use api::node::{JobStarted, Lease, LeaseSpec};
use api::secret::SecretsAsk;
use driver::driver::{Counted, Driver, DriverError, Handle, Mode, Plan, Spec};
use driver::guest::message::{Exited, FromGuest, Start, ToGuest, VERSION, egress_env};
use driver::guest::{GuestError, GuestReader, GuestWriter, Incoming, split};
use model::id::SandboxId;
use model::limits;
use scrub::{Cleaner, Known};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a job that is to be attached to waits for its client.
const ATTACH: Duration = Duration::from_secs(30);
/// A command runs in a spare for this part of the spare's life before that is extended: a sixtieth of what
/// is left at least.
const EXTEND_AFTER: u32 = 600;
/// Clients that wait to be attached to one job.
const ATTACH_QUEUE: usize = 4;

/// A sandbox whose process waits for its command, or why there is none.
type Made = Result<Result<(GuestReader, GuestWriter), Told>, Broken>;

/// What is said of a sandbox whose supervisor has ended it in time.
const LATE: &str = "its deadline was over";

/// A job on this node.
pub(crate) struct Job {
    node: Node,
    lease: PumpLease,
    spec: LeaseSpec,
    dir: PathBuf,
    cancel: CancellationToken,
    /// The attempt before, where this node still takes away what it had.
    before: Option<CancellationToken>,
    /// Tells the attempt after, also if this one panics.
    gone: DropGuard,
    attach: mpsc::Receiver<LinkOpen>,
    /// Its sandbox was made before it.
    on_spare: bool,
    fence: Fence,
    /// What it was given, if it uses any.
    secrets: Option<Secrets>,
    /// What looks into its HTTPS, until the way out has it; and whether there is one.
    inspector: Option<Inspector>,
    looks_into: bool,
    /// Where it has one.
    way: Option<WayOut>,
}

/// What is known when a job is over.
struct Report {
    told: Told,
    usage: Option<Usage>,
    enforcement: Option<Vec<Enforced>>,
    spools: Option<(Spool, Spool)>,
}

impl Report {
    fn of(told: Told) -> Report {
        Report {
            told,
            usage: None,
            enforcement: None,
            spools: None,
        }
    }

    /// There was no sandbox, so nothing of what was said about it was in force.
    fn of_nothing(told: Told) -> Report {
        Report {
            enforcement: Some(Vec::new()),
            ..Report::of(told)
        }
    }
}

/// Why a job could not be carried through; the sandbox is destroyed in any case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("make the sandbox")]
    Driver(#[from] DriverError),
    #[error("speak with the guest")]
    Guest(#[from] GuestError),
    #[error("carry the streams")]
    Pump(#[from] PumpError),
    #[error("wait for the sandbox")]
    Silent,
}

/// Takes a lease on: registers the job and starts its task.
pub(crate) fn begin(node: &Node, lease: Lease) {
    let Some(job) = Job::register(node, &lease) else {
        return;
    };
    let tasks = node.inner.tasks.clone();
    tasks.spawn(job.run(lease));
}

/// Goes on with a job that an earlier process of this node had released.
pub(crate) fn adopt(node: &Node, record: Record) {
    let lease = Lease {
        job_id: record.job_id.clone(),
        tenant: String::new(),
        attempt: record.attempt,
        epoch: record.epoch,
        spec: record.spec.clone(),
    };
    let Some(job) = Job::register(node, &lease) else {
        return;
    };
    let tasks = node.inner.tasks.clone();
    tasks.spawn(job.resume(record));
}

impl Job {
    fn register(node: &Node, lease: &Lease) -> Option<Job> {
        let dir = record::dir_of(&node.inner.config.dir, &lease.job_id)?;
        let cancel = CancellationToken::new();
        let gone = CancellationToken::new();
        let (attach, attached) = mpsc::channel(ATTACH_QUEUE);
        let running = Running {
            epoch: lease.epoch,
            reserved: machine::reserved(lease.spec.limits, false),
            cancel: cancel.clone(),
            attach,
            over: false,
            gone: gone.clone(),
        };
        let before = node.jobs().insert(lease.job_id.clone(), running);
        let (job_id, attempt, epoch) = (lease.job_id.clone(), lease.attempt, lease.epoch);
        Some(Job {
            node: node.clone(),
            lease: PumpLease {
                job_id,
                attempt,
                epoch,
            },
            spec: lease.spec.clone(),
            dir,
            cancel,
            before: before.map(|before| before.gone),
            gone: gone.drop_guard(),
            attach: attached,
            on_spare: false,
            fence: Fence::new(node, &lease.spec),
            secrets: None,
            inspector: None,
            looks_into: false,
            way: None,
        })
    }

    /// From the lease to the end. The report goes out before anything is taken away.
    async fn run(mut self, lease: Lease) {
        // The outcome of the attempt before is told before its sandbox is taken away, so that this one can come
        // while that one's directory, which is this one's too, is yet to be removed.
        if let Some(before) = self.before.take() {
            before.cancelled().await;
        }
        let spare = spare::take(&self.node, &self.spec).await;
        self.on_spare = spare.is_some();
        match spare
            .as_ref()
            .map_or_else(|| self.plan(), |one| Ok(one.plan.clone()))
        {
            Err(told) => self.finish(Report::of(told)).await,
            Ok(plan) => {
                let carried = self.carry_out(&plan, &lease, spare).await;
                self.way = None;
                match carried {
                    Ok(report) => {
                        self.node.at("node.ended");
                        self.finish(report).await;
                    }
                    Err(error) => self.give_back(&error).await,
                }
                self.destroy(&plan.handle).await;
            }
        }
        let node = self.node.clone();
        self.leave();
        spare::fill(&node).await;
    }

    /// From a sandbox that lived on to the end.
    async fn resume(mut self, record: Record) {
        tracing::info!(
            job.id = record.job_id,
            "going on with a job that outlived its agent"
        );
        // The record does not have them, and without them nothing could be taken out of the output.
        let secrets = self.ask_for_secrets().await;
        let ready = secrets.and_then(|secrets| {
            self.secrets = secrets;
            self.look_into()
        });
        let report = match ready {
            Err(why) => Report::of(Told::lost(why)),
            Ok(()) => match self.resume_streams(&record).await {
                Ok(report) => report,
                Err(error) => self.broken(&record.handle, &error).await,
            },
        };
        self.way = None;
        self.finish(report).await;
        self.destroy(&record.handle).await;
        self.leave();
    }

    /// The last of this attempt. The next one may be here by now and wait for it.
    fn leave(self) {
        record::remove(&self.dir);
        self.node.at("node.removed");
        let (id, epoch) = (&self.lease.job_id, self.lease.epoch);
        let mut jobs = self.node.jobs();
        if jobs.get(id).is_some_and(|job| job.epoch == epoch) {
            jobs.remove(id);
        }
        drop(jobs);
        self.node.inner.client.lease_over(id, epoch);
        self.node.inner.freed.notify_one();
        drop(self.gone);
    }

    fn plan(&self) -> Result<Plan, Told> {
        let root = root::find(&self.node, self.spec.root.as_deref(), None);
        let root = root.map_err(Told::refused)?;
        let life = self.fence.life();
        if life.is_zero() {
            return Err(Told::lost("no server was heard for a lease".to_owned()));
        }
        let spec = Spec {
            id: new_sandbox_id(),
            root,
            limits: convert::limits(self.spec.limits),
            life,
            mode: Mode::Job,
            way_out: self.rules().has_way_out(),
            layers: Vec::new(),
            volumes: Vec::new(),
        };
        self.node
            .inner
            .driver
            .plan(&spec, &self.node.inner.host)
            .map_err(|refused| {
                let clauses = refused
                    .iter()
                    .map(|one| format!("{}: {}", one.clause, one.why));
                Told::refused(clauses.collect::<Vec<_>>().join("; "))
            })
    }

    /// To the end of its command. An error is one of writing down what must be found again: then nothing was
    /// said to be started.
    async fn carry_out(
        &mut self,
        plan: &Plan,
        lease: &Lease,
        spare: Option<Standing>,
    ) -> std::io::Result<Report> {
        let mut record = Record::new(lease, plan.handle.clone());
        // A spare is there already, and found by the driver's own list; it is written down when the
        // command is let go. Anything else is written down before it is made.
        if spare.is_none() {
            record.write(&self.dir)?;
            self.node.at("node.recorded");
        }
        record.released = true;
        // The sandbox is made while `started` travels, and what is to be on the disk is written; the
        // command is let go when all are there, and then only a name has to change before.
        let (made, started, secrets) = tokio::join!(
            self.provision(plan, spare),
            async {
                let prepared = record.prepare(&self.dir)?;
                Ok::<_, std::io::Error>((prepared, self.say_started(plan).await))
            },
            self.ask_for_secrets(),
        );
        let (prepared, acknowledged) = started?;
        let Some(cancel) = acknowledged else {
            let why = "the lease was not this node's any more";
            return Ok(Report::of(Told::lost(why)));
        };
        self.node.at("node.acknowledged");
        Ok(self.let_go(plan, (made, secrets), prepared, cancel).await)
    }

    /// Lets the command go in a sandbox that was said to be there.
    async fn let_go(
        &mut self,
        plan: &Plan,
        (made, secrets): (Made, Result<Option<Secrets>, String>),
        prepared: Prepared,
        cancel: bool,
    ) -> Report {
        let mut guest = match made {
            Ok(guest) => guest,
            Err(error) => return self.not_made(plan, &error).await,
        };
        self.secrets = match secrets {
            Ok(secrets) => secrets,
            Err(why) => return Report::of(Told::refused(why)),
        };
        if let Err(why) = self.look_into() {
            return Report::of(Told::refused(why));
        }
        if let (Some(secrets), Ok((reader, writer))) = (&self.secrets, &mut guest) {
            let put = tokio::time::timeout(PROVISION, secret::put((reader, writer), secrets)).await;
            match put {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(told))) => return Report::of(told),
                Ok(Err(_)) | Err(_) => return self.not_made(plan, &Broken::Silent).await,
            }
        }
        if cancel || self.cancel.is_cancelled() {
            return Report::of(Told::canceled());
        }
        if let Err(error) = prepared.put() {
            return Report::of(unwritten(&error));
        }
        self.node.at("node.released");
        match self.run_command(plan, guest).await {
            Ok(report) => report,
            Err(error) => self.broken(&plan.handle, &error).await,
        }
    }

    /// A sandbox with its files in place and a confined process that waits.
    async fn provision(&self, plan: &Plan, spare: Option<Standing>) -> Made {
        let standing = match spare {
            Some(standing) => Ok(standing),
            None => {
                let made = spare::stand(&self.node, plan.clone()).await;
                self.node.inner.health.note(&made, self.spec.root.is_none());
                made?
            }
        };
        let mut standing = match standing {
            Ok(standing) => standing,
            Err(told) => return Ok(Err(told)),
        };
        self.prepare_way(&plan.handle).await?;
        for file in &self.spec.files {
            let halves = (&mut standing.reader, &mut standing.writer);
            let put = files::put(&self.node.inner.client, halves, file);
            let put = tokio::time::timeout(PROVISION, put).await;
            if let Err(error) = put.map_err(|_| Broken::Silent)? {
                return Ok(Err(files::put_failed(file, &error)));
            }
        }
        Ok(Ok((standing.reader, standing.writer)))
    }

    /// The values that the job uses. Nothing is asked for a job without any.
    async fn ask_for_secrets(&self) -> Result<Option<Secrets>, String> {
        if self.spec.secrets.is_empty() {
            return Ok(None);
        }
        let ask = SecretsAsk {
            epoch: self.lease.epoch,
        };
        let client = &self.node.inner.client;
        let asking = insist(|| client.node_job_secrets(&self.lease.job_id, ask));
        let answer = tokio::time::timeout(PROVISION, asking).await;
        let answer = answer.map_err(|_| "its secrets cannot be had: nobody answers".to_owned())?;
        secret::read(answer).map(Some)
    }

    /// Tells the control plane that the command is about to be let go. `None`: it may not be. Otherwise
    /// whether somebody wants it to end already.
    async fn say_started(&self, plan: &Plan) -> Option<bool> {
        let started = JobStarted {
            epoch: self.lease.epoch,
            attempt: self.lease.attempt,
            driver: plan.handle.driver.clone(),
            sandbox_id: Some(plan.handle.id.to_string()),
            enforcement: self.enforced(plan),
        };
        let client = &self.node.inner.client;
        let job = self.lease.job_id.as_str();
        insist(|| client.node_job_started(job, &started))
            .await
            .ok()
            .map(|answer| answer.cancel)
    }

    async fn run_command(
        &mut self,
        plan: &Plan,
        guest: Result<(GuestReader, GuestWriter), Told>,
    ) -> Result<Report, Broken> {
        let (reader, mut writer) = match guest {
            Ok(halves) => halves,
            Err(told) => return Ok(Report::of_nothing(told)),
        };
        let first = if self.spec.attach {
            self.first_client().await
        } else {
            None
        };
        if self.spec.attach && first.is_none() {
            let within = ATTACH.as_secs();
            let why = format!("nobody came to its streams within {within} s");
            return Ok(Report::of(self.unattended(&why)));
        }
        self.open_way(&plan.handle).await?;
        if self.fence.is_up() {
            // A spare's deadline is not this job's. If no lease is left, nothing is let go.
            let life = self.fence.life();
            self.node.inner.driver.extend(&plan.handle, life).await?;
        }
        writer.say(&ToGuest::Start(self.start())).await?;
        let spools = self.spools().map_err(PumpError::Spool)?;
        let mut pump = Pump::new(
            (reader, writer),
            spools,
            self.lease.clone(),
            self.node.inner.client.clone(),
            self.cancel.clone(),
        );
        self.scrub(&mut pump);
        if let Some(open) = first {
            pump.attach(open.io);
        }
        let driver = self.node.inner.driver.clone();
        let after = self.node.inner.config.spare_life / EXTEND_AFTER;
        let extending = extend_later(&*driver, &plan.handle, after, self.fence.life());
        let on_spare = self.on_spare && !self.fence.is_up();
        let fence = self.fence.clone().hold(plan.handle.clone());
        tokio::select! {
            report = self.stream(&plan.handle, pump) => report,
            never = extending, if on_spare => match never {},
            never = fence => match never {},
        }
    }

    async fn resume_streams(&mut self, record: &Record) -> Result<Report, Broken> {
        let stream = self.node.inner.driver.connect(&record.handle).await?;
        let (mut reader, mut writer) = split(stream);
        let spools = self.spools().map_err(PumpError::Spool)?;
        let (stdout, stderr) = (spools.0.taken(), spools.1.taken());
        writer
            .say(&ToGuest::Hello {
                version: VERSION,
                stdout,
                stderr,
            })
            .await?;
        if !has_started(&mut reader).await? {
            // We can be here if the last process died after it had the answer to `started` and before
            // it let the command go: the confined process still waits for it.
            if self.spec.attach {
                // The client is gone with that process.
                let why = "nobody was at its streams any more when its node was started anew";
                return Ok(Report::of(self.unattended(why)));
            }
            writer.say(&ToGuest::Start(self.start())).await?;
        }
        self.reopen_way(&record.handle);
        let life = self.fence.life();
        self.node.inner.driver.extend(&record.handle, life).await?;
        // Whoever fed it is gone.
        writer.say(&ToGuest::StdinEnd).await?;
        let client = self.node.inner.client.clone();
        let (lease, cancel) = (self.lease.clone(), self.cancel.clone());
        let mut pump = Pump::new((reader, writer), spools, lease, client, cancel);
        self.scrub(&mut pump);
        let fence = self.fence.clone().hold(record.handle.clone());
        tokio::select! {
            report = self.stream(&record.handle, pump) => report,
            never = fence => match never {},
        }
    }

    fn scrub(&self, pump: &mut Pump) {
        let cleaner = || Cleaner::new(self.known(), self.spec.scrub_patterns);
        pump.scrub(cleaner(), cleaner());
    }

    /// The values of its secrets, where there are some to look for.
    fn known(&self) -> Option<&Arc<Known>> {
        self.secrets.as_ref()?.known.as_ref()
    }

    /// Carries the streams to their end, then what is to be kept.
    async fn stream(&mut self, handle: &Handle, mut pump: Pump) -> Result<Report, Broken> {
        let end = pump.run(&mut self.attach).await?;
        pump.end().await?;
        match end {
            End::NotStarted(failure) => {
                let program = self.spec.argv.first().map_or("", String::as_str);
                Ok(Report::of(outcome::not_started(program, &failure)))
            }
            End::Exited(exited) => {
                let missing = self.keep_files(&mut pump).await;
                let counted = self
                    .node
                    .inner
                    .driver
                    .counted(handle)
                    .await
                    .unwrap_or_default();
                let spools = Some((pump.stdout, pump.stderr));
                Ok(Report {
                    spools,
                    ..self.ended(&exited, &counted, missing)
                })
            }
        }
    }

    fn ended(&self, exited: &Exited, counted: &Counted, missing: Vec<String>) -> Report {
        let asked = if self.cancel.is_cancelled() {
            Asked::ToStop
        } else {
            Asked::Nobody
        };
        let mut told = outcome::ended(exited, counted, asked);
        if !missing.is_empty() {
            let notes = told.detail.into_iter().chain(missing);
            told.detail = Some(notes.collect::<Vec<_>>().join("; "));
        }
        let usage = Some(convert::usage(exited, counted));
        Report {
            told,
            usage,
            enforcement: None,
            spools: None,
        }
    }

    /// Keeps the files that were asked for; returns a sentence about each that could not be. Together
    /// they are at most as large as the disk was, so that holes in files cannot make them larger.
    async fn keep_files(&self, pump: &mut Pump) -> Vec<String> {
        let mut missing = Vec::new();
        let disk = self.spec.limits.disk_bytes;
        let mut left = disk.unwrap_or(limits::DISK_DEFAULT_BYTES);
        for path in &self.spec.outputs {
            let halves = (&mut pump.reader, &mut pump.writer);
            let client = &self.node.inner.client;
            match files::get(client, halves, &self.lease, path, left).await {
                Ok(size_bytes) => left = left.saturating_sub(size_bytes),
                Err(error) => missing.push(format!("`{path}` could not be kept: {}", error.told())),
            }
        }
        missing
    }

    /// How a job ends that had no client to run for: somebody did not want it any more, or `why`.
    fn unattended(&self, why: &str) -> Told {
        match self.cancel.is_cancelled() {
            true => Told::canceled(),
            false => Told::unattended(why),
        }
    }

    async fn first_client(&mut self) -> Option<LinkOpen> {
        tokio::select! {
            open = self.attach.recv() => open,
            () = self.cancel.cancelled() => None,
            () = tokio::time::sleep(ATTACH) => None,
        }
    }

    fn start(&self) -> Start {
        let mut env = vec![
            ("HOME".to_owned(), model::spec::HOME.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            (
                "PATH".to_owned(),
                "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin".to_owned(),
            ),
            ("SHELL".to_owned(), "/bin/sh".to_owned()),
            ("USER".to_owned(), "user".to_owned()),
        ];
        if self.spec.network.is_some() {
            env.extend(egress_env());
            env.extend(index::environment(&self.rules().dependencies));
        }
        if self.looks_into {
            env.extend(inspect::environment());
        }
        env.retain(|(key, _)| !self.spec.env.contains_key(key));
        env.extend(
            self.spec
                .env
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        for (var, value) in self.secrets.iter().flat_map(|secrets| &secrets.env) {
            // Also over what the clean environment says.
            env.retain(|(name, _)| name != var);
            env.push((var.clone(), String::clone(value)));
        }
        let cwd = self.spec.cwd.as_deref().unwrap_or(model::spec::HOME);
        Start {
            argv: self.spec.argv.clone(),
            env,
            cwd: model::spec::absolute(cwd),
            stdin: self.spec.attach,
            timeout_ms: self.spec.timeout_ms,
            grace_ms: limits::GRACE_MS,
        }
    }

    fn spools(&self) -> std::io::Result<(Spool, Spool)> {
        let cleaned = self.spec.scrub_patterns || !self.spec.secrets.is_empty();
        let open = |name: &str| Spool::open(&self.dir.join(name), cleaned);
        Ok((open("stdout.spool")?, open("stderr.spool")?))
    }

    async fn not_made(&self, plan: &Plan, error: &Broken) -> Report {
        let why = self.why_ended(&plan.handle).await;
        let was_late = why.as_deref() == Some(LATE);
        let detail = why.unwrap_or_else(|| chain(error));
        tracing::warn!(
            job.id = self.lease.job_id,
            error = detail,
            "failed to make a sandbox"
        );
        if was_late {
            // This node stood still for longer than its lease lasts. Nothing is wrong with what was asked.
            let why = "the node did not begin it before its lease was over";
            return Report::of_nothing(Told::lost(why));
        }
        Report::of_nothing(Told::refused(format!(
            "the sandbox could not be made: {detail}"
        )))
    }

    /// The sandbox went away under a running command.
    async fn broken(&self, handle: &Handle, error: &Broken) -> Report {
        let counted = self
            .node
            .inner
            .driver
            .counted(handle)
            .await
            .unwrap_or_default();
        let why = self.why_ended(handle).await.unwrap_or_else(|| chain(error));
        tracing::warn!(
            job.id = self.lease.job_id,
            error = why,
            "a sandbox ended under its command"
        );
        let mut report = Report::of(Told::lost(format!("the sandbox ended: {why}")));
        if counted.out_of_memory {
            report.told.detail = Some("the memory limit was reached".to_owned());
        }
        report.spools = self.spools().ok();
        report
    }

    /// What the supervisor of a sandbox that is gone knows about its end.
    async fn why_ended(&self, handle: &Handle) -> Option<String> {
        let ended = self.node.inner.driver.ended(handle);
        let ended = tokio::time::timeout(Duration::from_secs(1), ended)
            .await
            .ok()?
            .ok()?;
        let deadline = ended.deadline.then(|| LATE.to_owned());
        ended.failure.or(deadline)
    }

    async fn destroy(&self, handle: &Handle) {
        if let Err(error) = self.node.inner.driver.destroy(handle).await {
            let error = chain(&error);
            tracing::error!(
                job.id = self.lease.job_id,
                error,
                "failed to take a sandbox away"
            );
        }
        self.node.at("node.destroyed");
    }
}

fn unwritten(error: &std::io::Error) -> Told {
    Told::refused(format!("the node cannot write its records: {error}"))
}

/// Gives a sandbox that was a spare the life of its job. Not at once: most commands end within the life
/// that a spare has left, and whoever waits for them would wait for this. If we die before it, whoever
/// goes on with the job does it.
async fn extend_later(
    driver: &dyn Driver,
    handle: &Handle,
    after: Duration,
    life: Duration,
) -> Infallible {
    tokio::time::sleep(after).await;
    if let Err(error) = driver.extend(handle, life).await {
        let error = chain(&error);
        tracing::error!(sandbox.id = %handle.id, error, "failed to extend a sandbox's life");
    }
    std::future::pending().await
}

/// Reads the guest's answer to `Hello`, which comes before anything else: whether it has let the command
/// go.
async fn has_started(reader: &mut GuestReader) -> Result<bool, Broken> {
    let answer = tokio::time::timeout(PROVISION, reader.next()).await;
    match answer.map_err(|_| Broken::Silent)?? {
        Incoming::Message(FromGuest::Hello { started, .. }) => Ok(started),
        Incoming::Message(_) | Incoming::Output(..) | Incoming::File(_) => Err(Broken::Silent),
    }
}

/// An error with all that it says it came from.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

pub(crate) fn new_sandbox_id() -> SandboxId {
    let mut random = [0; 10];
    // Without random bytes two sandboxes of one millisecond would share a name, and starting the
    // second would be refused; nothing weaker than that happens.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    SandboxId::from_parts(now_ms(), random)
}

/// Milliseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "ids and records carry the moment of their making, and decide nothing"
)]
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0))
}
