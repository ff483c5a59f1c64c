//! Files kept from jobs.

use api::artifact::ArtifactList;
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;

use crate::convert::to_wire;
use crate::error::Error;
use crate::extract::{ArtifactOf, JobOf, User};
use crate::{App, download};

/// The files that were kept from a job.
#[utoipa::path(get, path = routes::JOB_ARTIFACTS, tag = "jobs", operation_id = "artifact_list",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "The files", body = ArtifactList),
              (status = 404, description = "No such job", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
) -> Result<Answer<ArtifactList>, Error> {
    let rows = app.service.artifact_list(&ctx, &id).await?;
    Ok(Answer(to_wire::artifact_list(rows)))
}

/// The bytes of one kept file, always as a download.
#[utoipa::path(get, path = routes::JOB_ARTIFACT, tag = "jobs", operation_id = "artifact_get",
    params(("id" = String, Path, description = "The job"),
           ("artifact_id" = String, Path, description = "The file")),
    responses((status = 200, description = "The bytes", body = Vec<u8>,
               content_type = "application/octet-stream"),
              (status = 404, description = "No such file", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    JobOf(job): JobOf,
    ArtifactOf(id): ArtifactOf,
) -> Result<Response, Error> {
    let (row, file) = app.service.artifact_open(&ctx, &job, &id).await?;
    Ok(download::file(file, row.size_bytes))
}
