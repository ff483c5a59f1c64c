//! The standard streams of a job, from the client to the job's node and back.
//!
//! The server says yes as soon as it knows the job and that it can be attached to; then it waits
//! for a node to take it. What the client sends before that waits in the connection. Frames are
//! not read here: bytes are copied with large buffers, because this is the way on which a job's
//! output must reach a terminal or a pipe as fast as the machine can.

use std::time::Duration;

use api::attach::{BUFFER_BYTES, LinkOpen, UPGRADE};
use api::{Code, routes};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{self, CONNECTION};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::id::JobId;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::App;
use crate::error::Error;
use crate::extract::{Id, User};

/// Connects to the standard streams of a job.
#[utoipa::path(get, path = routes::JOB_ATTACH, tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses((status = 101, description = "Frames follow, both ways"),
              (status = 404, description = "No such job", body = api::ErrorBody),
              (status = 409, description = "It has no streams to attach to", body = api::ErrorBody),
              (status = 426, description = "The upgrade is missing", body = api::ErrorBody)))]
pub(crate) async fn attach(
    State(app): State<App>,
    User(ctx): User,
    Id(id): Id<JobId>,
    mut request: Request,
) -> Result<Response, Error> {
    let upgrade = upgrade_of(&mut request)?;
    app.service.job_attachable(&ctx, &id).await?;
    app.tasks.spawn(connect(app.clone(), ctx, id, upgrade));
    Ok(switching())
}
