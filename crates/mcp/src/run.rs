//! `run`: one command in a sandbox of its own.

use api::Code;
use api::client::{Client, JobCreateOptions};
use api::job::{FileInput, JobCreate, JobView, LimitsAsked, OutcomeKind, StateName, WAIT_MAX};
use api::log::StreamName;

use crate::answer::{Answer, Artifact, Ended, Output, Status};
use crate::args::{self, FileIn, Limits, timeout};
use crate::bound::{Kept, cut};
use crate::call::Hand;
use crate::cursor::{Cursor, Of, Stream};
use crate::file::decode;
use crate::refusal::Refusal;

/// Files that one call may bring, and files that it may keep.
const FILES_MAX: usize = 32;
/// Bytes of the files that one call may bring.
const FILES_MAX_BYTES: usize = 1 << 20;
/// How long a job may wait for a node: nobody waits longer for a tool.
const QUEUE_MS: u64 = 60_000;

pub(crate) async fn run(hand: &Hand<'_>, args: args::Run) -> Result<Answer, Refusal> {
    let job = hand.unless_canceled(request(hand, args)).await?;
    let options = JobCreateOptions::default();
    let created = hand.client().job_create(&job, &options).await?;
    if let Some(waits) = waits(&created) {
        return Err(waits);
    }
    let id = created.id;
    let view = tokio::select! {
        view = outcome(hand.client(), &id) => view?,
        () = hand.call.canceled() => {
            // Its limit of time ends it if this cannot be said.
            drop(hand.client().job_cancel(&id).await);
            return Err(Refusal::canceled());
        }
    };
    let ended = hand.unless_canceled(ended(hand, view)).await?;
    Ok(ended.answer())
}

/// A job that waits for a person is not waited for: that may take a day. It runs by itself after a yes.
fn waits(view: &JobView) -> Option<Refusal> {
    let is_waiting = view.state == StateName::AwaitingApproval;
    let approval = view.approval.as_ref().filter(|_| is_waiting)?;
    let message = format!(
        "{} waits for a person to say yes to {}: {}",
        view.id,
        approval.id,
        approval.reasons.join("; ")
    );
    let hint = format!(
        "tell your user to look at `cofferdam approval show {id}` and decide; you cannot. After a yes it runs by \
         itself: call `approval` with {id} then, and do not call `run` again",
        id = approval.id
    );
    Some(Refusal::new(Code::ApprovalNeeded, message).hint(hint))
}

async fn request(hand: &Hand<'_>, args: args::Run) -> Result<JobCreate, Refusal> {
    let is_said = args.timeout_s.is_some() || args.profile.is_none();
    let timeout = timeout(args.timeout_s)?;
    if args.artifacts.len() > FILES_MAX {
        return Err(Refusal::argument("artifacts", "has at most 32 paths"));
    }
    Ok(JobCreate {
        argv: shell(args.command),
        env: args.env,
        // Where nobody says, the profile may.
        timeout_ms: u64::try_from(timeout.as_millis()).ok().filter(|_| is_said),
        profile: args.profile,
        limits: limits(args.limits),
        files: upload(hand.client(), args.files).await?,
        outputs: args.artifacts,
        queue_timeout_ms: Some(QUEUE_MS),
        node: hand.way.node.clone(),
        ..JobCreate::default()
    })
}

/// What a shell is asked for.
pub(crate) fn shell(command: String) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), command]
}

pub(crate) fn limits(asked: Limits) -> LimitsAsked {
    let bytes = |mib: u32| u64::from(mib) << 20;
    LimitsAsked {
        cpu_millis: asked.cpu_millis,
        memory_bytes: asked.memory_mib.map(bytes),
        pids: asked.pids,
        disk_bytes: asked.disk_mib.map(bytes),
    }
}

async fn upload(client: &Client, files: Vec<FileIn>) -> Result<Vec<FileInput>, Refusal> {
    let total: usize = files.iter().map(|file| file.content.len()).sum();
    // Base64 has four characters for three bytes; what is decoded is looked at below.
    if files.len() > FILES_MAX || total > 2 * FILES_MAX_BYTES {
        return Err(Refusal::argument(
            "files",
            "are at most 32, and 1 MiB together",
        ));
    }
    let mut placed = Vec::new();
    let mut bytes_left = FILES_MAX_BYTES;
    for file in files {
        let bytes = decode("files", file.content, file.encoding)?;
        bytes_left = bytes_left
            .checked_sub(bytes.len())
            .ok_or_else(|| Refusal::argument("files", "are at most 1 MiB together"))?;
        let size_bytes = bytes.len() as u64;
        let blob = client
            .blob_put(std::io::Cursor::new(bytes), Some(size_bytes))
            .await?;
        placed.push(FileInput {
            path: file.path,
            digest: blob.digest,
            size_bytes,
            mode: 0o755,
        });
    }
    Ok(placed)
}

async fn outcome(client: &Client, id: &str) -> Result<JobView, Refusal> {
    loop {
        let view = client.job_wait(id, WAIT_MAX).await?;
        if view.is_finished() {
            return Ok(view);
        }
    }
}

pub(crate) async fn ended(hand: &Hand<'_>, view: JobView) -> Result<Ended, Refusal> {
    let outcome = view.outcome.as_ref();
    let kind = outcome.map_or(OutcomeKind::Lost, |outcome| outcome.kind);
    let why = outcome.and_then(|outcome| outcome.why.clone());
    let status = match kind {
        OutcomeKind::Succeeded => Status::Succeeded,
        OutcomeKind::Failed => Status::Failed,
        OutcomeKind::TimedOut => Status::TimedOut,
        OutcomeKind::Canceled => Status::Canceled,
        OutcomeKind::Lost | OutcomeKind::Refused => return Err(not_run(kind, why)),
    };
    let (stdout, stderr) = tokio::try_join!(
        stream(hand.client(), &view, Stream::Stdout),
        stream(hand.client(), &view, Stream::Stderr),
    )?;
    Ok(Ended {
        status,
        exit_code: outcome.map(|outcome| outcome.exit_code),
        duration_ms: view.timings_ms.run.unwrap_or_default(),
        stdout,
        stderr,
        artifacts: view
            .artifacts
            .iter()
            .take(FILES_MAX)
            .map(artifact)
            .collect(),
        pid: None,
        note: note(&view, status),
        job_id: Some(view.id),
    })
}

fn not_run(kind: OutcomeKind, why: Option<String>) -> Refusal {
    let why = why.unwrap_or_else(|| "nobody knows why".to_owned());
    if kind == OutcomeKind::Refused {
        let hint = "ask for less, or leave the limit out";
        return Refusal::new(Code::LimitUnenforceable, format!("it was not run: {why}")).hint(hint);
    }
    Refusal::new(Code::Unavailable, format!("it was lost: {why}"))
        .hint("it may have run in part; call the tool again if that does no harm")
}

fn artifact(kept: &api::artifact::ArtifactView) -> Artifact {
    Artifact {
        path: kept.path.clone(),
        size_bytes: kept.size_bytes,
    }
}

fn note(view: &JobView, status: Status) -> Option<String> {
    let mut notes: Vec<String> = view.detail.iter().map(|detail| cut(detail, 1024)).collect();
    if status == Status::TimedOut {
        notes.push("give it more with timeout_s, or do less at a time".to_owned());
    }
    let kept = |path: &&String| !view.artifacts.iter().any(|kept| kept.path == **path);
    let missing: Vec<&str> = view
        .spec
        .outputs
        .iter()
        .filter(kept)
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        notes.push(format!(
            "there was no regular file at {}",
            missing.join(", ")
        ));
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

async fn stream(client: &Client, view: &JobView, stream: Stream) -> Result<Output, Refusal> {
    let report = match stream {
        Stream::Stdout => view.stdout,
        Stream::Stderr => view.stderr,
    };
    if report.is_some_and(|report| report.total_bytes == 0) {
        return Ok(Output::default());
    }
    let mut download = client.job_logs_raw(&view.id, name(stream)).await?;
    let mut kept = Kept::default();
    while let Some(bytes) = download.chunk().await? {
        kept.push(&bytes);
    }
    let id = view.id.clone();
    let mut output = Output::of(kept, |_, at| {
        let of = Of::Job { id, stream };
        Some(Cursor { of, at }.to_string())
    });
    if let Some(report) = report {
        output.total_bytes = report.total_bytes;
    }
    Ok(output)
}

pub(crate) fn name(stream: Stream) -> StreamName {
    match stream {
        Stream::Stdout => StreamName::Stdout,
        Stream::Stderr => StreamName::Stderr,
    }
}
