//! `cofferdam run`: one job, with its streams tied to ours.

use crate::cli::answer::answer;
use crate::cli::args::Run;
use crate::cli::failure::{Failure, OURS, reason};
use crate::cli::fetch::fetch;
use crate::cli::sandbox::tell_cut;
use crate::cli::secret::uses;
use crate::cli::streams::{self, End, Output, Tell};
use crate::cli::upload::upload;
use crate::cli::{table, units};
use crate::signals::{Signal, Signals};
use api::Code;
use api::client::{AttachIo, Client, JobCreateOptions};
use api::job::{JobCreate, JobView, LimitsAsked, OutcomeKind, StateName, StreamReport, WAIT_MAX};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the preparation may take before a terminal is told about it: most of it is over by then.
const QUIET: Duration = Duration::from_millis(400);
/// How long nobody may have taken a job before it is said: a node that has room takes it at once.
pub(super) const SLOW: Duration = Duration::from_secs(2);
/// What is said then.
pub(super) const NOT_TAKEN: &str = "no node has taken it yet: `cofferdam node ls`";
/// Signals that wait to be told to the job.
const TOLD: usize = 16;
/// How long the last output of a canceled job may take: whoever reads it may have stopped to read.
const DRAIN: Duration = Duration::from_millis(500);

/// How long a server that does not answer is asked again for a job that has not begun.
const COME_BACK: Duration = Duration::from_secs(60);
/// How long it is left alone in between.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs a job and gives its exit code. `node` is the only node that may take it, if there is one in
/// this process. `others_come` says, when the job is made, whether anybody but us can reach its server.
pub(crate) async fn run(
    client: &Client,
    node: Option<String>,
    run: Run,
    others_come: impl FnOnce() -> bool,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let job = unless_signaled(&mut signals, request(client, node, &run)).await?;
    let options = JobCreateOptions::default();
    let creating = async { Ok(client.job_create(&job, &options).await?) };
    let created = unless_signaled(&mut signals, creating).await?;
    tell_cut(created.spec.timeout_ms, Some(run.timeout));
    tell_approval(&created, others_come);
    if run.detach {
        table::print(&if run.json {
            table::to_line(&created)?
        } else {
            format!("{}\n", created.id)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let output = if run.json {
        Output::Dropped
    } else {
        Output::Ours
    };
    let view = attend(client, &created.id, output, &mut signals).await?;
    let telling = async {
        let got = get_files(client, &view, &run).await;
        if run.json {
            let answer = answer(client, &view, got.as_ref().err()).await?;
            table::print(&table::to_line(&answer)?)?;
            return Ok(got.map_or_else(|failure| failure.code(), |()| exit_code(&view)));
        }
        explain(&view);
        tell_denials(&view);
        got.map(|()| exit_code(&view))
    };
    unless_signaled(&mut signals, telling).await
}

/// Says that the job waits for a person, and what they have to do.
fn tell_approval(view: &JobView, others_come: impl FnOnce() -> bool) {
    let waits = view.state == StateName::AwaitingApproval;
    let Some(approval) = view.approval.as_ref().filter(|_| waits) else {
        return;
    };
    table::note(&format!(
        "{} waits for a person: {}",
        view.id,
        approval.reasons.join("; ")
    ));
    table::hint(&who_decides(&approval.id, others_come()));
}

/// What they do, and before that what makes it possible. Pure.
fn who_decides(approval: &str, others_come: bool) -> String {
    let does = format!("`cofferdam approval approve {approval}`, or no with `reject`");
    match others_come {
        true => format!("somebody else says yes with {does}"),
        false => format!(
            "nobody else can reach this server: start `cofferdam up`, which listens for others, and once more after \
             some seconds where it says that another has the state; then somebody else says yes with their key and {does}"
        ),
    }
}

/// Does something that a signal ends at once.
async fn unless_signaled<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        signal = signals.next() => Err(Failure::Signaled(signal)),
    }
}

/// Ties our streams to the job's until it has ended, or somebody does not want it any more. A job may wait for a person
/// for longer than its server lives: while its command has not begun, a connection that breaks loses nothing.
async fn attend(
    client: &Client,
    id: &str,
    output: Output,
    signals: &mut Signals,
) -> Result<JobView, Failure> {
    let attaching = async { Ok(client.job_attach(id).await?) };
    let mut io = match unless_signaled(signals, attaching).await {
        Err(failure) if failure.is(Code::ServerUnreachable) => None,
        attached => Some(attached?),
    };
    let mut is_first = true;
    loop {
        if let Some(io) = io {
            let attended = attend_once(client, (id, io, is_first), output, signals).await;
            if let Some(view) = attended.map_err(|failure| left(failure, id))? {
                return Ok(view);
            }
        }
        if is_first {
            table::note(
                "the server cannot be reached while the job waits; trying again for a minute",
            );
        }
        is_first = false;
        let found = tokio::select! {
            found = attach_again(client, id) => Some(found),
            _ = signals.next() => None,
        };
        let is_unwanted = found.is_none();
        io = found.flatten();
        if io.is_some() {
            continue;
        }
        let ending = async {
            if is_unwanted {
                cancel(client, id).await?;
            }
            outcome(client, id).await
        };
        let view = unless_signaled(signals, ending).await;
        let view = view.map_err(|failure| left(failure, id))?;
        return all_of_it(view, &End::Broken(0), output);
    }
}

/// The streams of a job once more; `None` where it has ended, or where nobody has answered in all that time.
async fn attach_again(client: &Client, id: &str) -> Option<AttachIo> {
    let trying = async {
        loop {
            tokio::time::sleep(PAUSE).await;
            match client.job_attach(id).await {
                Ok(io) => return Some(io),
                Err(error) if error.body().retryable => {}
                Err(_) => return None,
            }
        }
    };
    let tried = tokio::time::timeout(COME_BACK, trying).await;
    tried.ok().flatten()
}

/// What is told of a server that went away, by somebody whose job it may still have.
fn left(failure: Failure, id: &str) -> Failure {
    if !failure.is(Code::ServerUnreachable) && !failure.is(Code::ServerTimeout) {
        return failure;
    }
    failure.hint(format!(
        "start the server; `cofferdam job get {id}` says then what became of the job. One that waits goes on \
         waiting without you, and ends as canceled where nobody is attached when it is let through"
    ))
}

/// The same by one connection. `None` where that broke and the job may wait all the same.
async fn attend_once(
    client: &Client,
    (id, io, is_first): (&str, AttachIo, bool),
    output: Output,
    signals: &mut Signals,
) -> Result<Option<JobView>, Failure> {
    let (tell, told) = mpsc::channel(TOLD);
    let progress = Progress::start();
    let runs = AtomicBool::new(false);
    let mut carry = std::pin::pin!(streams::carry(io, told, output, || {
        runs.store(true, Ordering::Relaxed);
        progress.end();
    }));
    let mut waiting = std::pin::pin!(is_waiting(client, id));
    let (mut interrupted, mut looked) = (false, !is_first); // What it waits for is said once.
    let end = loop {
        tokio::select! {
            end = &mut carry => break Some(end),
            waits = &mut waiting, if !looked => {
                looked = true;
                if waits && !runs.load(Ordering::Relaxed) {
                    progress.end();
                    table::note(NOT_TAKEN);
                }
            }
            // As in a shell: the program, once there is one, hears the first Ctrl-C. Whoever presses it again means it.
            signal = signals.next() => if signal == Signal::Interrupt
                && !interrupted
                && runs.load(Ordering::Relaxed)
            {
                interrupted = true;
                drop(tell.try_send(Tell::Signal(2)));
            } else {
                break None;
            },
        }
    };
    if let Some(End::Unwritten(errno)) = end {
        return Err(unread(client, id, signals, &errno.into()).await);
    }
    if matches!(end, Some(End::Broken(_))) && !runs.load(Ordering::Relaxed) {
        tokio::select! {
            waits = may_wait(client, id) => if waits { return Ok(None) },
            _ = signals.next() => return canceled(client, id, signals).await.map(Some),
        }
    }
    let end = end.map(|end| counted(end, is_first));
    if let Some(end) = &end {
        tokio::select! {
            view = outcome(client, id) => return all_of_it(view?, end, output).map(Some),
            _ = signals.next() => {}
        }
    }
    let ending = async {
        cancel(client, id).await?;
        let mut ended = std::pin::pin!(outcome(client, id));
        if end.is_some() {
            return ended.await;
        }
        tokio::select! {
            _ = &mut carry => ended.await,
            view = &mut ended => {
                drop(tokio::time::timeout(DRAIN, &mut carry).await);
                view
            }
        }
    };
    // One signal more, and nobody waits any longer for a program that does not want to end.
    unless_signaled(signals, ending).await.map(Some)
}

/// Nobody reads its output, and nobody waits for how it ends: a pipe that nobody reads ends its writers at once.
async fn unread(
    client: &Client,
    id: &str,
    signals: &mut Signals,
    error: &std::io::Error,
) -> Failure {
    drop(unless_signaled(signals, cancel(client, id)).await);
    Failure::unwritten(error)
}

/// How a job ends that is not wanted any more.
async fn canceled(client: &Client, id: &str, signals: &mut Signals) -> Result<JobView, Failure> {
    let ending = async {
        cancel(client, id).await?;
        outcome(client, id).await
    };
    unless_signaled(signals, ending).await
}

/// Whether a job whose streams ended before it began may not have begun yet: nobody answers, or it waits. Any other has
/// ended by itself, or is about to.
async fn may_wait(client: &Client, id: &str) -> bool {
    match client.job_get(id).await {
        Ok(view) => match view.state {
            StateName::AwaitingApproval | StateName::Queued => true,
            StateName::Leased | StateName::Running | StateName::Stopping | StateName::Finished => {
                false
            }
        },
        Err(error) => error.body().retryable,
    }
}

/// A later connection to a job may have come after one that nobody was at the end of any more: what it brought is
/// counted, and not believed to be all. Pure.
fn counted(end: End, is_first: bool) -> End {
    match end {
        End::Whole(seen) if !is_first => End::Broken(seen),
        end @ (End::Whole(_) | End::Unwritten(_) | End::Broken(_)) => end,
    }
}

/// A connection that broke has not carried what the job went on to write: then its exit code alone would say that
/// all is well.
fn all_of_it(view: JobView, end: &End, output: Output) -> Result<JobView, Failure> {
    if output == Output::Dropped || !is_cut(end, [view.stdout.as_ref(), view.stderr.as_ref()]) {
        return Ok(view);
    }
    let message =
        "the connection to the job broke before all of its output was here; the job has ended";
    let failure = Failure::new(Code::GuestUnavailable, message);
    Err(failure.hint(format!(
        "`cofferdam job get {}` says how, and `cofferdam job logs {}` what it wrote",
        view.id, view.id
    )))
}

/// Whether the job wrote more than came. Pure.
fn is_cut(end: &End, wrote: [Option<&StreamReport>; 2]) -> bool {
    let wrote = wrote.into_iter().flatten();
    let wrote: u64 = wrote.map(|stream| stream.total_bytes).sum();
    matches!(end, End::Broken(seen) if *seen < wrote)
}

/// Whether a job waits for a node although it had the time to find one.
async fn is_waiting(client: &Client, id: &str) -> bool {
    tokio::time::sleep(SLOW).await;
    let view = client.job_get(id).await;
    view.is_ok_and(|view| view.state == StateName::Queued)
}

async fn cancel(client: &Client, id: &str) -> Result<(), Failure> {
    match client.job_cancel(id).await {
        // It has ended meanwhile, which is as well.
        Err(error) if error.is(Code::Conflict) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

async fn outcome(client: &Client, id: &str) -> Result<JobView, Failure> {
    loop {
        let view = client.job_wait(id, WAIT_MAX).await?;
        if view.outcome.is_some() {
            return Ok(view);
        }
    }
}

/// Says on a terminal that something is being prepared, if that takes long.
struct Progress {
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    fn start() -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { task: None };
        }
        let task = tokio::spawn(async {
            tokio::time::sleep(QUIET).await;
            let bar = indicatif::ProgressBar::new_spinner().with_message("preparing the sandbox");
            let _clear = Clear(bar.clone());
            loop {
                bar.tick();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Progress { task: Some(task) }
    }

    fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

struct Clear(indicatif::ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn request(client: &Client, node: Option<String>, run: &Run) -> Result<JobCreate, Failure> {
    let env = variables("--env", &run.env)?;
    let root = run.root.as_deref().map(root).transpose()?;
    let mut files = Vec::new();
    for file in &run.file {
        files.push(upload(client, file).await?);
    }
    Ok(JobCreate {
        argv: run.command.clone(),
        profile: run.profile.clone(),
        env,
        cwd: run.cwd.clone(),
        root,
        timeout_ms: Some(u64::try_from(run.timeout.as_millis()).unwrap_or(u64::MAX)),
        limits: LimitsAsked {
            cpu_millis: run.cpu,
            memory_bytes: run.memory,
            pids: run.pids,
            disk_bytes: run.disk,
        },
        files,
        outputs: run.out.clone(),
        attach: !run.detach,
        node,
        secrets: uses(&run.secret)?,
        scrub_patterns: run.scrub.is_some(),
        network: run.net.clone().network(),
        placement: run.placement.placement()?,
        ..JobCreate::default()
    })
}

/// What an option that is given as KEY=VALUE was given.
pub(crate) fn variables(
    option: &str,
    pairs: &[String],
) -> Result<BTreeMap<String, String>, Failure> {
    pairs.iter().map(|pair| variable(option, pair)).collect()
}

fn variable(option: &str, pair: &str) -> Result<(String, String), Failure> {
    let split = pair.split_once('=').filter(|(name, _)| !name.is_empty());
    let wrong = || {
        let message = format!("{option} takes KEY=VALUE, not `{pair}`");
        let hint = match option {
            "--env" => {
                "nothing of your environment is passed on by itself; for one of your variables write \
                 --env \"NAME=$NAME\""
            }
            _ => "write a name, `=`, and a value, which may be empty",
        };
        Failure::new(Code::InvalidArgument, message).hint(hint)
    };
    let (name, value) = split.ok_or_else(wrong)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A root file system, by the name that it was given, or by a path that is the same in every directory. No
/// name begins as a path does.
pub(crate) fn root(asked: &str) -> Result<String, Failure> {
    if !asked.starts_with(['/', '.']) {
        return Ok(asked.to_owned());
    }
    let failed = |why: &str| {
        let message = format!("the root file system `{asked}` {why}");
        let hint = "--root takes the name of a root file system, or a directory with one, such as an \
                    unpacked image";
        Failure::new(Code::FileMissing, message).hint(hint)
    };
    let unread = |error: std::io::Error| failed(&format!("cannot be read: {}", reason(&error)));
    let path = std::fs::canonicalize(asked).map_err(unread)?;
    if !path.is_dir() {
        return Err(failed("is not a directory"));
    }
    path.into_os_string()
        .into_string()
        .map_err(|_| failed("has a name that is not UTF-8"))
}

/// Gets the files that were kept, each under the name that was asked for. One that is missing is an
/// error, unless the command had failed anyway.
async fn get_files(client: &Client, view: &JobView, run: &Run) -> Result<(), Failure> {
    if run.out.is_empty() {
        return Ok(());
    }
    let kept = client.artifact_list(&view.id).await?.artifacts;
    let mut missing = Vec::new();
    for path in &run.out {
        match kept.iter().find(|artifact| artifact.path == *path) {
            Some(artifact) => fetch(client, &view.id, artifact, &local_name(path)).await?,
            None => missing.push(path.as_str()),
        }
    }
    let succeeded = view
        .outcome
        .as_ref()
        .is_some_and(|end| end.kind == OutcomeKind::Succeeded);
    if missing.is_empty() || !succeeded {
        return Ok(());
    }
    let message = format!(
        "the command ended well, and did not leave `{}`",
        missing.join("`, `")
    );
    let hint = "--out names a regular file in the sandbox; a relative name begins at /home/user";
    Err(Failure::new(Code::FileMissing, message).hint(hint))
}

/// A relative path stays; of an absolute one, which means a place in the sandbox, only the name.
fn local_name(path: &str) -> PathBuf {
    let path = Path::new(path);
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    if path.is_absolute() {
        name
    } else {
        path.to_owned()
    }
}

/// Says on standard error what the exit code alone does not.
fn explain(view: &JobView) {
    let Some(outcome) = &view.outcome else { return };
    let limit = units::show_ms(view.spec.timeout_ms);
    let why = outcome.why.as_deref().unwrap_or_default();
    match outcome.kind {
        // The exit code says it, and the detail below where there is more.
        OutcomeKind::Succeeded | OutcomeKind::Failed => {}
        OutcomeKind::TimedOut => table::complain(&format!("it was not done within {limit}")),
        OutcomeKind::Canceled => table::complain("it was canceled"),
        OutcomeKind::Lost => table::complain(&format!("it was lost: {why}")),
        OutcomeKind::Refused => {
            table::complain(&format!("it was not run: {why}"));
            table::hint(remedy(why));
        }
    }
    if let Some(detail) = &view.detail {
        table::note(detail);
    }
}

/// What its network has refused is the reason of many failures, and the program seldom says so.
fn tell_denials(view: &JobView) {
    if view.egress_denied > 0 {
        let what = match view.egress_denied {
            1 => "1 request to the outside was denied".to_owned(),
            many => format!("{many} requests to the outside were denied"),
        };
        table::note(&format!("{what}: `cofferdam egress log {}`", view.id));
    }
}

/// What to do about a refusal. The text is the node's and may change; then this says what always holds.
fn remedy(why: &str) -> &'static str {
    if why.starts_with("the working directory") {
        "--cwd names a directory inside the sandbox; it is not made, but a --file below it makes it"
    } else if why.starts_with("the root file system") {
        "--root takes a root file system that the server has by this name, or a directory that you can read"
    } else {
        "ask for less, or leave the limit out; `cofferdam doctor` says what this machine can enforce"
    }
}

fn exit_code(view: &JobView) -> ExitCode {
    let code = view.outcome.as_ref().map(|outcome| outcome.exit_code);
    ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok())
            .unwrap_or(OURS),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_was_written_and_did_not_come_is_no_success() {
        let [three, two] = [3, 2].map(|total_bytes| StreamReport {
            total_bytes,
            ..StreamReport::default()
        });
        assert!(is_cut(&End::Broken(0), [Some(&three), None]));
        assert!(is_cut(&End::Broken(4), [Some(&three), Some(&two)]));
        // One that was refused or ended before it wrote has nothing that could be missing.
        for whole in [[Some(&three), Some(&two)], [None, None]] {
            assert!(!is_cut(&End::Broken(5), whole));
        }
        assert!(!is_cut(&End::Whole(0), [Some(&three), None]));
        // Of a second connection it is not known that it saw the beginning.
        assert!(is_cut(&counted(End::Whole(2), false), [Some(&three), None]));
        assert!(!is_cut(
            &counted(End::Whole(3), false),
            [Some(&three), None]
        ));
        assert_eq!(counted(End::Whole(2), true), End::Whole(2));
    }

    #[test]
    fn where_nobody_else_can_come_it_is_said_what_lets_them() {
        assert_eq!(
            who_decides("apv_1", true),
            "somebody else says yes with `cofferdam approval approve apv_1`, or no with `reject`"
        );
        let alone = who_decides("apv_1", false);
        assert!(alone.contains("start `cofferdam up`"), "{alone}");
        assert!(
            alone.contains("`cofferdam approval approve apv_1`"),
            "{alone}"
        );
    }

    #[test]
    fn a_file_from_an_absolute_place_lands_under_its_name() {
        assert_eq!(local_name("/home/user/out/a.svg"), PathBuf::from("a.svg"));
        assert_eq!(local_name("out/a.svg"), PathBuf::from("out/a.svg"));
    }

    #[test]
    fn a_variable_has_a_name_and_the_rest_is_its_value() {
        assert_eq!(
            variable("--env", "A=b=c").unwrap(),
            ("A".to_owned(), "b=c".to_owned())
        );
        assert_eq!(
            variable("--env", "A=").unwrap(),
            ("A".to_owned(), String::new())
        );
        for wrong in ["A", "", "=b"] {
            assert!(
                variable("--env", wrong)
                    .unwrap_err()
                    .to_string()
                    .contains("KEY=VALUE"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_root_is_a_name_or_a_directory() {
        assert!(
            root("/no/such")
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
        assert!(
            root("/etc/passwd")
                .unwrap_err()
                .to_string()
                .contains("not a directory")
        );
        assert_eq!(root("/usr/../etc").unwrap(), "/etc");
        assert_eq!(root("debian:bookworm").unwrap(), "debian:bookworm");
    }
}
