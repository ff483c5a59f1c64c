//! What sandboxes use, now and over time.

use api::sandbox::{UsageQuery, UsageView};
use api::{Code, ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use model::limits;

use crate::App;
use crate::convert::usage;
use crate::e2b::measure;
use crate::error::Error;
use crate::extract::{Query, SandboxOf, User};

/// What a sandbox uses and used, of the last day.
#[utoipa::path(get, path = routes::SANDBOX_USAGE, tag = "sandboxes",
    operation_id = "sandbox_usage",
    params(("id" = String, Path, description = "The sandbox"), UsageQuery),
    responses((status = 200, description = "Moments, the oldest first", body = UsageView),
              (status = 400, description = "The times are wrong", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn usage(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<UsageQuery>,
) -> Result<Answer<UsageView>, Error> {
    let row = app.service.sandbox_get(&ctx, &id).await?;
    let before_ms = app.service.clock().now_ms();
    let to = query.to.unwrap_or(u64::MAX);
    let from = query
        .from
        .unwrap_or_else(|| to.min(before_ms).saturating_sub(limits::RETAIN_USAGE_MS));
    if from > to {
        let message = "it is later than `to`";
        return Err(Error::field(Code::InvalidArgument, "from", message));
    }
    // Only who wants to know of now waits for a guest.
    let said = if to >= before_ms {
        measure::ask(&app, &row).await
    } else {
        None
    };
    let now = said.map(|said| usage::now(&said, app.service.clock().now_ms()));
    let spans = app.service.sandbox_usage(&ctx, &id, (from, to), now);
    Ok(Answer(usage::view(&row, &spans.await?)))
}
