//! Profiles: named recipes for sandboxes and jobs.

use api::profile::{
    ProfileList, ProfileListQuery, ProfileSpec, ProfileVersionList, ProfileVersionQuery,
    ProfileView,
};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use model::access::Action;

use crate::App;
use crate::convert::{from_wire, profile};
use crate::error::Error;
use crate::extract::{Json, ProfileName, ProfileOf, Query, User};

/// Writes what a profile says: a new one, or the next version of one that is there. The same as the newest version
/// says is no change, so this is safe to repeat.
#[utoipa::path(put, path = routes::PROFILE, tag = "profiles", operation_id = "profile_put",
    params(("name" = String, Path, description = "Its name")),
    request_body = ProfileSpec,
    responses((status = 200, description = "The profile as it is now", body = ProfileView),
              (status = 400, description = "Nothing was changed", body = ErrorBody),
              (status = 409, description = "Something else has this name", body = ErrorBody),
              (status = 413, description = "The body is too large", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn put(
    State(app): State<App>,
    User(ctx): User,
    ProfileName(name): ProfileName,
    Json(asked): Json<ProfileSpec>,
) -> Result<Answer<ProfileView>, Error> {
    let spec = profile::read(asked)?;
    let (row, version) = app.service.profile_put(&ctx, &name, spec).await?;
    Ok(Answer(profile::written(row, version)))
}

/// Lists profiles, newest first: those that were written and those that builds make.
#[utoipa::path(get, path = routes::PROFILES, tag = "profiles", operation_id = "profile_list",
    params(ProfileListQuery),
    responses((status = 200, description = "A page", body = ProfileList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<ProfileListQuery>,
) -> Result<Answer<ProfileList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let page = app
        .service
        .profile_list(&ctx, query.before.as_deref(), (false, limit));
    Ok(Answer(profile::list(page.await?)))
}

/// A profile with what it says, by its name, its id, or `NAME:VERSION`.
#[utoipa::path(get, path = routes::PROFILE, tag = "profiles", operation_id = "profile_get",
    params(("name" = String, Path, description = "The profile")),
    responses((status = 200, description = "The profile", body = ProfileView),
              (status = 404, description = "No such profile or version", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    ProfileOf(named): ProfileOf,
) -> Result<Answer<ProfileView>, Error> {
    let view = app.service.profile_get(&ctx, &named).await?;
    Ok(Answer(profile::view(view)))
}

/// The versions of a profile that are kept, newest first.
#[utoipa::path(get, path = routes::PROFILE_VERSIONS, tag = "profiles",
    operation_id = "profile_versions",
    params(("name" = String, Path, description = "The profile"), ProfileVersionQuery),
    responses((status = 200, description = "A page", body = ProfileVersionList),
              (status = 400, description = "The query is wrong", body = ErrorBody),
              (status = 404, description = "No such profile", body = ErrorBody)))]
pub(crate) async fn versions(
    State(app): State<App>,
    User(ctx): User,
    ProfileOf(named): ProfileOf,
    Query(query): Query<ProfileVersionQuery>,
) -> Result<Answer<ProfileVersionList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let page = app
        .service
        .profile_versions(&ctx, &named, query.before, limit);
    Ok(Answer(profile::versions(page.await?)))
}

/// Deletes a profile with its versions and its builds, and answers what it was. Sandboxes and jobs that were made
/// with it stay as they are.
#[utoipa::path(delete, path = routes::PROFILE, tag = "profiles", operation_id = "profile_delete",
    params(("name" = String, Path, description = "The profile")),
    responses((status = 200, description = "What it was", body = ProfileView),
              (status = 404, description = "No such profile", body = ErrorBody)))]
pub(crate) async fn delete(
    State(app): State<App>,
    User(ctx): User,
    ProfileOf(named): ProfileOf,
) -> Result<Answer<ProfileView>, Error> {
    ctx.may(Action::ProfileWrite)?;
    let view = app.service.profile_get(&ctx, &named).await?;
    app.service.profile_delete(&ctx, &named).await?;
    Ok(Answer(profile::view(view)))
}
