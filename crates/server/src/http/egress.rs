//! What sandboxes and jobs have asked of the outside.

use api::egress::{EgressDecision, EgressList, EgressQuery, EgressTest, EgressTested};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;

use crate::App;
use crate::convert::{egress, from_wire};
use crate::error::Error;
use crate::extract::{JobOf, Json, Query, SandboxOf, User};

/// What a sandbox has asked of the outside, the oldest first: one record for each connection or request, told when
/// it is over.
#[utoipa::path(get, path = routes::SANDBOX_EGRESS, tag = "sandboxes", operation_id = "sandbox_egress",
    params(("id" = String, Path, description = "The sandbox"), EgressQuery),
    responses((status = 200, description = "A page", body = EgressList),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn of_sandbox(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<EgressQuery>,
) -> Result<Answer<EgressList>, Error> {
    let page = app.service.sandbox_egress(&ctx, &id, page(&query)?).await?;
    Ok(Answer(egress::list(page)))
}

/// What a job has asked of the outside, the oldest first.
#[utoipa::path(get, path = routes::JOB_EGRESS, tag = "jobs", operation_id = "job_egress",
    params(("id" = String, Path, description = "The job"), EgressQuery),
    responses((status = 200, description = "A page", body = EgressList),
              (status = 404, description = "No such job", body = ErrorBody)))]
pub(crate) async fn of_job(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
    Query(query): Query<EgressQuery>,
) -> Result<Answer<EgressList>, Error> {
    let page = app.service.job_egress(&ctx, &id, page(&query)?).await?;
    Ok(Answer(egress::list(page)))
}

/// What would become of a URL by the rules that a sandbox has now. No name is resolved and nothing is dialled.
#[utoipa::path(post, path = routes::SANDBOX_EGRESS_TEST, tag = "sandboxes",
    operation_id = "sandbox_egress_test",
    params(("id" = String, Path, description = "The sandbox")), request_body = EgressTest,
    responses((status = 200, description = "What would become of it", body = EgressTested),
              (status = 400, description = "No URL", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn test(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Json(asked): Json<EgressTest>,
) -> Result<Answer<EgressTested>, Error> {
    let trial = app
        .service
        .sandbox_egress_test(&ctx, &id, (asked.url.as_str(), &asked.headers))
        .await?;
    Ok(Answer(egress::tested(trial)))
}

type Page = (Option<u64>, Option<&'static str>, u32);

fn page(query: &EgressQuery) -> Result<Page, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    Ok((
        query.after,
        query.decision.map(EgressDecision::as_str),
        limit,
    ))
}
