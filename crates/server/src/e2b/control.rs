//! The control plane as E2B's clients know it.

use axum::Router;
use axum::routing::get;
use http::StatusCode;

use super::refusal::Refusal;
use crate::App;

/// Everything that can be asked for.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(async || StatusCode::NO_CONTENT))
        .fallback(async || Refusal::not_here("this route"))
        .with_state(app)
}
