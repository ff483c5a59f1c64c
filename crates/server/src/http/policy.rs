//! Policies: what may be asked for.

use api::policy::{
    PermitView, PolicyList, PolicySpec, PolicyTest, PolicyTested, PolicyVersionList, PolicyView,
};
use api::{Code, ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;

use crate::App;
use crate::convert::policy;
use crate::error::Error;
use crate::extract::{JobOf, Json, PolicyName, SandboxOf, User};

/// Writes what a policy says: a new one, or the next version of one that is there. The same as the newest version says
/// is no change, so this is safe to repeat. What waits for a node is decided again.
#[utoipa::path(put, path = routes::POLICY, tag = "policies", operation_id = "policy_put",
    params(("name" = String, Path, description = "Its name")),
    request_body = PolicySpec,
    responses((status = 200, description = "The policy as it is now", body = PolicyView),
              (status = 400, description = "Nothing was changed", body = ErrorBody),
              (status = 403, description = "This is the operator's to write", body = ErrorBody),
              (status = 413, description = "The body is too large", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn put(
    State(app): State<App>,
    User(ctx): User,
    PolicyName(name): PolicyName,
    Json(asked): Json<PolicySpec>,
) -> Result<Answer<PolicyView>, Error> {
    let spec = policy::read(asked)?;
    let row = app.service.policy_put(&ctx, &name, spec).await?;
    Ok(Answer(policy::view(row)))
}

/// Lists all policies of the tenant, by their names.
#[utoipa::path(get, path = routes::POLICIES, tag = "policies", operation_id = "policy_list",
    responses((status = 200, description = "All of them", body = PolicyList)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
) -> Result<Answer<PolicyList>, Error> {
    let rows = app.service.policy_list(&ctx).await?;
    let policies = rows.into_iter().map(policy::view).collect();
    Ok(Answer(PolicyList { policies }))
}

/// A policy with what it says, by its name, or `NAME:VERSION`.
#[utoipa::path(get, path = routes::POLICY, tag = "policies", operation_id = "policy_get",
    params(("name" = String, Path, description = "The policy")),
    responses((status = 200, description = "The policy", body = PolicyView),
              (status = 404, description = "No such policy or version", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    PolicyName(name): PolicyName,
) -> Result<Answer<PolicyView>, Error> {
    let row = app.service.policy_get(&ctx, &name).await?;
    Ok(Answer(policy::view(row)))
}

/// The versions of a policy that are kept, newest first.
#[utoipa::path(get, path = routes::POLICY_VERSIONS, tag = "policies",
    operation_id = "policy_versions",
    params(("name" = String, Path, description = "The policy")),
    responses((status = 200, description = "Those that are kept", body = PolicyVersionList),
              (status = 404, description = "No such policy", body = ErrorBody)))]
pub(crate) async fn versions(
    State(app): State<App>,
    User(ctx): User,
    PolicyName(name): PolicyName,
) -> Result<Answer<PolicyVersionList>, Error> {
    let rows = app.service.policy_versions(&ctx, &name).await?;
    Ok(Answer(policy::versions(rows)))
}

/// Deletes a policy with its versions, and answers what it was. What was decided by it stays as it is.
#[utoipa::path(delete, path = routes::POLICY, tag = "policies", operation_id = "policy_delete",
    params(("name" = String, Path, description = "The policy")),
    responses((status = 200, description = "What it was", body = PolicyView),
              (status = 404, description = "No such policy", body = ErrorBody)))]
pub(crate) async fn delete(
    State(app): State<App>,
    User(ctx): User,
    PolicyName(name): PolicyName,
) -> Result<Answer<PolicyView>, Error> {
    let row = app.service.policy_delete(&ctx, &name).await?;
    Ok(Answer(policy::view(row)))
}

/// What would become of a request by the policies that apply, and which of them decides what. Nothing is made.
#[utoipa::path(post, path = routes::POLICY_TEST, tag = "policies", operation_id = "policy_test",
    request_body = PolicyTest,
    responses((status = 200, description = "What would become of it", body = PolicyTested),
              (status = 400, description = "The request is wrong anyway", body = ErrorBody),
              (status = 413, description = "The body is too large", body = ErrorBody)))]
pub(crate) async fn test(
    State(app): State<App>,
    User(ctx): User,
    Json(asked): Json<PolicyTest>,
) -> Result<Answer<PolicyTested>, Error> {
    let wrong = |_| {
        Error::field(
            Code::InvalidArgument,
            "principal",
            "this can be no principal",
        )
    };
    let of = asked.principal.as_deref().map(str::parse).transpose();
    let of = of.map_err(wrong)?;
    let ask = policy::ask(asked)?;
    let tested = app.service.policy_test(&ctx, of, ask).await?;
    Ok(Answer(policy::tested(tested)))
}

/// What a job keeps of the policies that it was decided by: which of them, and which decided what.
#[utoipa::path(get, path = routes::JOB_PERMIT, tag = "policies", operation_id = "job_permit",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "What it keeps", body = PermitView),
              (status = 404, description = "No such job", body = ErrorBody)))]
pub(crate) async fn of_job(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
) -> Result<Answer<PermitView>, Error> {
    let kept = app.service.job_permit(&ctx, &id).await?;
    Ok(Answer(policy::permit(kept)))
}

/// What a sandbox keeps of the policies that it was decided by: which of them, and which decided what.
#[utoipa::path(get, path = routes::SANDBOX_PERMIT, tag = "policies", operation_id = "sandbox_permit",
    params(("id" = String, Path, description = "The sandbox")),
    responses((status = 200, description = "What it keeps", body = PermitView),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn of_sandbox(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
) -> Result<Answer<PermitView>, Error> {
    let kept = app.service.sandbox_permit(&ctx, &id).await?;
    Ok(Answer(policy::permit(kept)))
}
