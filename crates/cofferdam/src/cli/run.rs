//! `cofferdam run`: one job, with its streams tied to ours.

use crate::cli::args::Run;
use crate::cli::failure::Failure;
use crate::cli::streams::{self, End, Tell};
use crate::cli::{table, units};
use crate::signals::{Signal, Signals};
use api::Code;
use api::client::{Client, JobCreateOptions};
use api::job::{FileInput, JobCreate, JobView, LimitsAsked, OutcomeKind, WAIT_MAX};
use std::io::IsTerminal as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

/// How long the preparation may take before a terminal is told about it: most of it is over by then.
const QUIET: Duration = Duration::from_millis(400);
/// Signals that wait to be told to the job.
const TOLD: usize = 16;

/// Runs a job and gives its exit code. `node` is the only node that may take it, if there is one in
/// this process.
pub(crate) async fn run(
    client: &Client,
    node: Option<String>,
    run: Run,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::ours(&error))?;
    let job = request(client, node, &run).await?;
    let created = client
        .job_create(&job, &JobCreateOptions::default())
        .await?;
    if run.detach {
        table::print(&format!("{}\n", created.id));
        return Ok(ExitCode::SUCCESS);
    }
    let view = attend(client, &created.id, &mut signals).await?;
    let got = get_files(client, &view, &run).await;
    if run.json {
        let text = serde_json::to_string(&view).map_err(|error| Failure::ours(&error))?;
        table::print(&format!("{text}\n"));
    } else {
        explain(&view);
    }
    got?;
    Ok(exit_code(&view))
}

/// Ties our streams to the job's until it has ended.
async fn attend(client: &Client, id: &str, signals: &mut Signals) -> Result<JobView, Failure> {
    let io = client.job_attach(id).await?;
    let (tell, told) = mpsc::channel(TOLD);
    let progress = Progress::start();
    let mut carry = std::pin::pin!(streams::carry(io, told, || progress.end()));
    let mut asked = 0;
    let end = loop {
        tokio::select! {
            end = &mut carry => break end,
            signal = signals.next() => match signal {
                // As in a shell: the program hears the first Ctrl-C. Whoever presses it again means it.
                Signal::Interrupt if asked == 0 => {
                    asked += 1;
                    drop(tell.try_send(Tell::Signal(2)));
                }
                Signal::Interrupt | Signal::Terminate => {
                    drop(client.job_cancel(id).await);
                }
            },
        }
    };
    if end == End::NobodyReads {
        drop(client.job_cancel(id).await);
    }
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
    let mut files = Vec::new();
    for file in &run.file {
        files.push(upload(client, file).await?);
    }
    let env = run.env.iter().map(|pair| {
        let pair = pair
            .split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        pair.ok_or_else(|| Failure::new(Code::InvalidArgument, "--env takes KEY=VALUE"))
    });
    let root = run.root.as_ref().map(|root| {
        let found = std::fs::canonicalize(root)
            .ok()
            .and_then(|path| path.to_str().map(str::to_owned));
        let message = format!("there is no directory `{}` for --root", root.display());
        found.ok_or_else(|| Failure::new(Code::FileMissing, message))
    });
    Ok(JobCreate {
        argv: run.command.clone(),
        profile: run.profile.clone(),
        env: env.collect::<Result<_, _>>()?,
        cwd: run.cwd.clone(),
        root: root.transpose()?,
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
        ..JobCreate::default()
    })
}

/// Sends one file; the part after the last colon says where it goes.
async fn upload(client: &Client, asked: &str) -> Result<FileInput, Failure> {
    let (source, target) = asked.rsplit_once(':').unwrap_or((asked, ""));
    let source = Path::new(source);
    let missing = |why: String| {
        Failure::new(
            Code::FileMissing,
            format!("the file `{}` {why}", source.display()),
        )
    };
    let file = tokio::fs::File::open(source).await;
    let file = file.map_err(|error| missing(format!("cannot be read: {error}")))?;
    let meta = file
        .metadata()
        .await
        .map_err(|error| missing(error.to_string()))?;
    if !meta.is_file() {
        return Err(missing(
            "is no regular file; put a directory into an archive first".to_owned(),
        ));
    }
    let own_name = source
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let path = if target.is_empty() { own_name } else { target };
    let blob = client.blob_put(file, Some(meta.len())).await?;
    let (path, mode) = (path.to_owned(), meta.permissions().mode() & 0o777);
    Ok(FileInput {
        path,
        digest: blob.digest,
        size_bytes: blob.size_bytes,
        mode,
    })
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
            Some(artifact) => fetch(client, &view.id, &artifact.id, &local_name(path)).await?,
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
    let message = format!("the command did not leave `{}`", missing.join("`, `"));
    Err(Failure::new(Code::FileMissing, message))
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

/// Writes beside the name and then renames, so that a file that is there is replaced whole or not.
pub(crate) async fn fetch(
    client: &Client,
    job: &str,
    artifact: &str,
    target: &Path,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            Code::Internal,
            format!("failed to write `{}`: {error}", target.display()),
        )
    };
    if let Some(parent) = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    }
    let mut partial = target.as_os_str().to_owned();
    partial.push(format!(".{}.part", std::process::id()));
    let mut bytes = client.artifact_get(job, artifact).await?;
    let mut file = tokio::fs::File::create(&partial).await.map_err(failed)?;
    while let Some(chunk) = bytes.chunk().await? {
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    tokio::fs::rename(&partial, target).await.map_err(failed)
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
            table::hint("`cofferdam doctor` says what this machine can enforce");
        }
    }
    if let Some(detail) = &view.detail {
        table::note(detail);
    }
}

fn exit_code(view: &JobView) -> ExitCode {
    let code = view
        .outcome
        .as_ref()
        .map_or(125, |outcome| outcome.exit_code);
    ExitCode::from(u8::try_from(code).unwrap_or(125))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_an_absolute_place_lands_under_its_name() {
        assert_eq!(local_name("/home/user/out/a.svg"), PathBuf::from("a.svg"));
        assert_eq!(local_name("out/a.svg"), PathBuf::from("out/a.svg"));
    }
}
