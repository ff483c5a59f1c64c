//! Approvals: what waits for a person.

use api::approval::{
    ApprovalCreate, ApprovalDecide, ApprovalList, ApprovalListQuery, ApprovalView,
};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use http::header::{HeaderName, LOCATION};

use crate::App;
use crate::convert::{approval, from_wire};
use crate::error::Error;
use crate::extract::{ApprovalOf, Json, Query, User};

/// Asks a person that a sandbox may reach one more host. The same again is the same approval, as long as it waits.
#[utoipa::path(post, path = routes::APPROVALS, tag = "approvals", operation_id = "approval_create",
    request_body = ApprovalCreate,
    responses((status = 201, description = "What waits", body = ApprovalView),
              (status = 400, description = "This is no host, or its profile does not allow it", body = ErrorBody),
              (status = 403, description = "A policy does not allow it", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "It may be reached already, or the sandbox is gone", body = ErrorBody),
              (status = 429, description = "Too much waits", body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    User(ctx): User,
    Json(asked): Json<ApprovalCreate>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Answer<ApprovalView>), Error> {
    let row = app
        .service
        .approval_ask(&ctx, approval::ask(asked)?)
        .await?;
    let location = routes::fill(routes::APPROVAL, &[row.id.as_str()]);
    let answer = Answer(approval::whole(row));
    Ok((StatusCode::CREATED, [(LOCATION, location)], answer))
}

/// Lists approvals, newest first.
#[utoipa::path(get, path = routes::APPROVALS, tag = "approvals", operation_id = "approval_list",
    params(ApprovalListQuery),
    responses((status = 200, description = "A page", body = ApprovalList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<ApprovalListQuery>,
) -> Result<Answer<ApprovalList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let state = query.state.map(approval::state);
    let before = query.before.as_deref();
    let page = app
        .service
        .approval_list(&ctx, state, before, limit)
        .await?;
    Ok(Answer(approval::page(page)))
}

/// An approval with all that is asked.
#[utoipa::path(get, path = routes::APPROVAL, tag = "approvals", operation_id = "approval_get",
    params(("id" = String, Path, description = "The approval")),
    responses((status = 200, description = "The approval", body = ApprovalView),
              (status = 404, description = "No such approval", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    ApprovalOf(id): ApprovalOf,
) -> Result<Answer<ApprovalView>, Error> {
    let row = app.service.approval_get(&ctx, &id).await?;
    Ok(Answer(approval::whole(row)))
}

/// Says yes or no to what somebody else asked for. The same again answers the same; the opposite is a conflict.
#[utoipa::path(post, path = routes::APPROVAL_DECISION, tag = "approvals",
    operation_id = "approval_decide",
    params(("id" = String, Path, description = "The approval")),
    request_body = ApprovalDecide,
    responses((status = 200, description = "The approval as it is now", body = ApprovalView),
              (status = 400, description = "This cannot be said", body = ErrorBody),
              (status = 403, description = "The caller may not decide it", body = ErrorBody),
              (status = 404, description = "No such approval", body = ErrorBody),
              (status = 409, description = "It was decided otherwise, or is over", body = ErrorBody)))]
pub(crate) async fn decide(
    State(app): State<App>,
    User(ctx): User,
    ApprovalOf(id): ApprovalOf,
    Json(said): Json<ApprovalDecide>,
) -> Result<Answer<ApprovalView>, Error> {
    let said = approval::verdict(said);
    let row = app.service.approval_decide(&ctx, &id, said).await?;
    Ok(Answer(approval::whole(row)))
}

/// Takes a yes back that would still count: for a session, or for a request that was not sent again yet.
#[utoipa::path(delete, path = routes::APPROVAL, tag = "approvals", operation_id = "approval_revoke",
    params(("id" = String, Path, description = "The approval")),
    responses((status = 200, description = "The approval as it is now", body = ApprovalView),
              (status = 404, description = "No such approval", body = ErrorBody),
              (status = 409, description = "There is nothing to take back", body = ErrorBody)))]
pub(crate) async fn revoke(
    State(app): State<App>,
    User(ctx): User,
    ApprovalOf(id): ApprovalOf,
) -> Result<Answer<ApprovalView>, Error> {
    let row = app.service.approval_revoke(&ctx, &id).await?;
    Ok(Answer(approval::whole(row)))
}
