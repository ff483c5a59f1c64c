//! The standard streams of a job, from the client to the job's node and back.
//!
//! The server says yes as soon as it knows the job and that it can be attached to; then it waits
//! for a node to have it. What the client sends before that waits in the connection. Frames are
//! not read here: bytes are copied with large buffers, because this is the way on which a job's
//! output must reach a terminal or a pipe as fast as the machine can.

use std::time::Duration;

use api::attach::{BUFFER_BYTES, LinkOpen, LinkTarget, UPGRADE};
use api::{Code, ErrorBody, routes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{self, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::id::JobId;
use model::job::JobState;
use service::{Ctx, JobRow};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, copy_buf};

use crate::App;
use crate::error::Error;
use crate::extract::{JobOf, User};

/// Clients attached at a time; each costs four buffers of 256 KiB, so that all cost 1 GiB at most.
pub(crate) const ATTACHED_MAX: usize = 1024;
/// How long to wait for a node before asking again.
const WAIT_LEASED: Duration = Duration::from_secs(60);
/// How often to look whether a node that was given the job has said so: at first often, because it
/// usually does within milliseconds, then at a pace that costs nothing.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_MOST: Duration = Duration::from_millis(100);

/// Connects to the standard streams of a job that was created with `attach`. After the upgrade
/// both ends send frames: `[kind u8][0; 3][length u32 LE][bytes]`.
#[utoipa::path(get, path = routes::JOB_ATTACH, tag = "jobs", operation_id = "job_attach",
    params(("id" = String, Path, description = "The job")),
    responses((status = 101, description = "Frames follow, both ways"),
              (status = 404, description = "No such job", body = ErrorBody),
              (status = 409, description = "It has no streams to attach to", body = ErrorBody),
              (status = 426, description = "The upgrade is missing", body = ErrorBody),
              (status = 429, description = "Too many are attached", body = ErrorBody)))]
pub(crate) async fn attach(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
    mut request: Request,
) -> Result<Response, Error> {
    let place = std::sync::Arc::clone(&app.attached).try_acquire_owned();
    let place = place.map_err(|_| Error::new(Code::TooMuch, "too many clients are attached"))?;
    app.service.job_attachable(&ctx, &id).await?;
    let upgrade = upgrade_of(&mut request, UPGRADE)?;
    let tasks = app.tasks.clone();
    drop(tasks.spawn(async move {
        connect(&app, &ctx, &id, upgrade).await;
        drop(place);
    }));
    Ok(switching(UPGRADE))
}

/// The connection of a request that asks to go on with this protocol.
pub(crate) fn upgrade_of(request: &mut Request, protocol: &str) -> Result<OnUpgrade, Error> {
    let asked = request.headers().get(header::UPGRADE);
    let ours = asked.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
    let upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .filter(|_| ours);
    upgrade.ok_or_else(|| Error::new(Code::UpgradeRequired, "this route needs an upgrade"))
}

/// The answer that goes on with this protocol.
pub(crate) fn switching(protocol: &'static str) -> Response {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(protocol)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Carries bytes until one end closes. There is nobody to tell about an error: the client sees the
/// end of the stream and asks for the job.
async fn connect(app: &App, ctx: &Ctx, id: &JobId, upgrade: OnUpgrade) {
    let _attached = app.metrics.attached();
    let work = async {
        let Ok(client) = upgrade.await else { return };
        // What is read from it later goes past this buffer, which is for the first bytes alone.
        let mut client = BufReader::new(TokioIo::new(client));
        let found = tokio::select! {
            row = on_node(app, ctx, id) => row,
            // Else it would be attached in the place of whoever came back, and end their input.
            () = left(&mut client) => None,
        };
        let Some(row) = found else { return };
        let Some((node, _)) = row.state.lease() else {
            return;
        };
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let open = LinkOpen {
            target: LinkTarget::Job {
                id: id.to_string(),
                attempt: row.attempt,
            },
            io: theirs,
        };
        if let Err(error) = app.links.open(node, open).await {
            tracing::warn!(job.id = %id, %error, "failed to attach a client");
            return;
        }
        carry(client, ours).await;
    };
    app.stopping.run_until_cancelled(work).await;
}

/// Waits until a client is gone that has sent nothing. What one has sent stays in the buffer.
async fn left(client: &mut BufReader<TokioIo<Upgraded>>) {
    if client.fill_buf().await.is_ok_and(|early| !early.is_empty()) {
        std::future::pending::<()>().await;
    }
}

/// Copies both ways. The node's end is the end: a client that keeps its side open after it must not
/// hold a place. The client's is not, because a command may write long after its input has ended.
async fn carry(client: BufReader<TokioIo<Upgraded>>, node: DuplexStream) {
    let (from_client, mut to_client) = tokio::io::split(client);
    let (from_node, mut to_node) = tokio::io::split(node);
    let up = async {
        let mut from_client = BufReader::with_capacity(BUFFER_BYTES, from_client);
        let copied = copy_buf(&mut from_client, &mut to_node).await;
        drop(to_node.shutdown().await);
        if copied.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let down = async {
        let mut from_node = BufReader::with_capacity(BUFFER_BYTES, from_node);
        drop(copy_buf(&mut from_node, &mut to_client).await);
        drop(to_client.shutdown().await);
    };
    tokio::select! {
        () = down => {}
        // The connection broke: the client is gone, or the node has dropped its end.
        () = up => {}
    }
}

/// Waits until a node has said that it has the job; `None` when it ended before. A node that has
/// only been given the lease may not have read it yet and would refuse the stream.
async fn on_node(app: &App, ctx: &Ctx, id: &JobId) -> Option<JobRow> {
    let mut row = app.service.job_get(ctx, id).await.ok()?;
    let mut pause = LOOK_FIRST;
    loop {
        row = match row.state {
            JobState::Running { .. } | JobState::Stopping { .. } => return Some(row),
            JobState::Finished { .. } => return None,
            JobState::AwaitingApproval | JobState::Queued => app
                .service
                .job_wait_leased(ctx, id, WAIT_LEASED)
                .await
                .ok()?,
            JobState::Leased { .. } => {
                let row = app.service.job_wait(ctx, id, pause).await.ok()?;
                pause = (pause * 2).min(LOOK_MOST);
                row
            }
        };
    }
}
