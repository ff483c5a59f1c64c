//! Bytes to be named by a job.

use api::blob::BlobView;
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::{Request, State};
use http::StatusCode;

use crate::convert::to_wire;
use crate::error::Error;
use crate::extract::User;
use crate::{App, upload};

/// Takes bytes in, at most 1 GiB, and answers the digest to name them by.
#[utoipa::path(post, path = routes::BLOBS, tag = "blobs", operation_id = "blob_create",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "They are kept", body = BlobView),
              (status = 413, description = "They are too many", body = ErrorBody),
              (status = 507, description = "The disk is full", body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    User(ctx): User,
    request: Request,
) -> Result<(StatusCode, Answer<BlobView>), Error> {
    let written = upload::take_in(&app, &ctx, request).await?;
    app.service.blob_done(&ctx, &written).await?;
    Ok((StatusCode::CREATED, Answer(to_wire::blob(written))))
}
