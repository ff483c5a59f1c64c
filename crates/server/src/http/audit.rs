//! The record of what happened.

use api::audit::{AuditCheckQuery, AuditChecked, AuditList, AuditListQuery};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;

use crate::App;
use crate::convert::{audit, from_wire};
use crate::error::Error;
use crate::extract::{Query, User};

/// What happened, in the order in which it was committed, the oldest first. That somebody read it is in it from then
/// on.
#[utoipa::path(get, path = routes::AUDIT, tag = "audit", operation_id = "audit_list",
    params(AuditListQuery),
    responses((status = 200, description = "A page", body = AuditList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<AuditListQuery>,
) -> Result<Answer<AuditList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let page = app
        .service
        .audit_list(&ctx, audit::query(query)?, limit)
        .await?;
    Ok(Answer(audit::list(page)))
}

/// Checks seals against their events, each other, and what was signed; some hundred at a time.
#[utoipa::path(get, path = routes::AUDIT_CHECK, tag = "audit", operation_id = "audit_check",
    params(AuditCheckQuery),
    responses((status = 200, description = "What came of it", body = AuditChecked)))]
pub(crate) async fn check(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<AuditCheckQuery>,
) -> Result<Answer<AuditChecked>, Error> {
    let checked = app.service.audit_check(&ctx, query.after).await?;
    Ok(Answer(audit::checked(checked)))
}
