//! Volumes.

use api::volume::{VolumeCreate, VolumeList, VolumeListQuery, VolumeView};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use http::header::{HeaderName, LOCATION};

use crate::App;
use crate::convert::{from_wire, volume};
use crate::error::Error;
use crate::extract::{Json, Key, Query, User, VolumeOf};

type Created = (StatusCode, [(HeaderName, String); 1], Answer<VolumeView>);

/// Makes a volume: a named directory that outlives sandboxes, on one node.
#[utoipa::path(post, path = routes::VOLUMES, tag = "volumes", operation_id = "volume_create",
    params(("Idempotency-Key" = Option<String>, Header,
         description = "Makes the create safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    request_body = VolumeCreate,
    responses((status = 201, description = "The volume, or the one that the key made before",
               body = VolumeView),
              (status = 400, description = "Nothing was made", body = ErrorBody),
              (status = 409, description = "There is one of this name, or the key was used for \
                                            another request", body = ErrorBody),
              (status = 422, description = "No node can keep one", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody),
              (status = 507, description = "The disk is full", body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    User(ctx): User,
    key: Key,
    Json(asked): Json<VolumeCreate>,
) -> Result<Created, Error> {
    let key = key.of(&asked)?;
    let new = volume::new(asked)?;
    let row = app.service.volume_create(&ctx, new, key).await?;
    let token = app.service.volume_token(&ctx, &row).await?;
    let location = routes::fill(routes::VOLUME, &[&row.name]);
    let view = Answer(volume::view(row, token));
    Ok((StatusCode::CREATED, [(LOCATION, location)], view))
}

/// Lists volumes, by name.
#[utoipa::path(get, path = routes::VOLUMES, tag = "volumes", operation_id = "volume_list",
    params(VolumeListQuery),
    responses((status = 200, description = "A page", body = VolumeList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<VolumeListQuery>,
) -> Result<Answer<VolumeList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let after = volume::cursor(query.after)?;
    let page = app.service.volume_list(&ctx, after.as_deref(), limit);
    Ok(Answer(volume::list(page.await?)))
}

/// A volume, by its name or its id. Under its id it is found when it is gone too.
#[utoipa::path(get, path = routes::VOLUME, tag = "volumes", operation_id = "volume_get",
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, description = "The volume", body = VolumeView),
              (status = 404, description = "No such volume", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    VolumeOf(named): VolumeOf,
) -> Result<Answer<VolumeView>, Error> {
    let row = app.service.volume_get(&ctx, &named).await?;
    let token = app.service.volume_token(&ctx, &row).await?;
    Ok(Answer(volume::view(row, token)))
}

/// Deletes a volume with all that is in it. Its name is free at once.
#[utoipa::path(delete, path = routes::VOLUME, tag = "volumes", operation_id = "volume_delete",
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, description = "What it was", body = VolumeView),
              (status = 404, description = "No such volume", body = ErrorBody),
              (status = 409, description = "A sandbox has it", body = ErrorBody)))]
pub(crate) async fn delete(
    State(app): State<App>,
    User(ctx): User,
    VolumeOf(named): VolumeOf,
) -> Result<Answer<VolumeView>, Error> {
    let row = app.service.volume_delete(&ctx, &named).await?;
    Ok(Answer(volume::without_token(row)))
}
