//! Quotas, for admins; everybody may see their own.

use api::people::PeopleListQuery;
use api::quota::{QuotaList, QuotaPut, QuotaView};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;

use crate::App;
use crate::convert::{from_wire, quota};
use crate::error::Error;
use crate::extract::{Json, NamedOf, Query, User};

/// Says what somebody may have at a time. That of a tenant is for admins of the first tenant, that of a principal for
/// admins of its tenant.
#[utoipa::path(put, path = routes::QUOTA, tag = "people", operation_id = "quota_put",
    request_body = QuotaPut,
    params(("name" = String, Path, description = "A tenant by its name or its id, or a principal, such as `user:alice`")),
    responses((status = 200, description = "The quota", body = QuotaView),
              (status = 400, description = "Nothing was changed", body = ErrorBody),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 404, description = "No such tenant or principal", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn put(
    State(app): State<App>,
    User(ctx): User,
    NamedOf(of): NamedOf,
    Json(asked): Json<QuotaPut>,
) -> Result<Answer<QuotaView>, Error> {
    let change = quota::change(asked)?;
    let seen = app.service.quota_set(&ctx, &of, change).await?;
    Ok(Answer(quota::quota(seen)))
}

/// Takes a quota away: nothing bounds it then.
#[utoipa::path(delete, path = routes::QUOTA, tag = "people", operation_id = "quota_remove",
    params(("name" = String, Path, description = "A tenant by its name or its id, or a principal, such as `user:alice`")),
    responses((status = 200, description = "What it was", body = QuotaView),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 404, description = "There is none", body = ErrorBody)))]
pub(crate) async fn remove(
    State(app): State<App>,
    User(ctx): User,
    NamedOf(of): NamedOf,
) -> Result<Answer<QuotaView>, Error> {
    let seen = app.service.quota_remove(&ctx, &of).await?;
    Ok(Answer(quota::quota(seen)))
}

/// Lists quotas with what is used of them: all for admins of the first tenant, those of the own tenant for others.
#[utoipa::path(get, path = routes::QUOTAS, tag = "people", operation_id = "quota_list",
    params(PeopleListQuery),
    responses((status = 200, description = "A page", body = QuotaList),
              (status = 403, description = "Not for who asks", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<PeopleListQuery>,
) -> Result<Answer<QuotaList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let page = app.service.quota_list(&ctx, query.after.as_deref(), limit);
    Ok(Answer(quota::quotas(page.await?)))
}
