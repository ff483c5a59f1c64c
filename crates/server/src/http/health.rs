//! Whether the server is there and can work.

use api::health::{Health, Ready, ReadyCheck};
use api::routes;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use model::access::Action;

use crate::App;
use crate::error::Error;
use crate::extract::User;

/// The process answers. Needs no credential, and says nothing that would need one.
#[utoipa::path(get, path = routes::HEALTHZ, tag = "server", security(()),
    responses((status = 200, description = "It does", body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The process can do work.
#[utoipa::path(get, path = routes::READYZ, tag = "server",
    responses((status = 200, description = "It can", body = Ready),
              (status = 503, description = "It cannot; the checks say why", body = Ready)))]
pub(crate) async fn readyz(State(app): State<App>, _: User) -> (StatusCode, Json<Ready>) {
    let checks = vec![store_check(&app).await];
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Ready { ready, checks }))
}

async fn store_check(app: &App) -> ReadyCheck {
    let why = app
        .service
        .ready()
        .await
        .err()
        .map(|error| error.to_string());
    ReadyCheck {
        name: "store".to_owned(),
        ok: why.is_none(),
        why,
    }
}

/// Counters as Prometheus text.
#[utoipa::path(get, path = routes::METRICS, tag = "server",
    responses((status = 200, description = "OpenMetrics text", body = String,
               content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(
    State(app): State<App>,
    User(ctx): User,
) -> Result<([(http::HeaderName, &'static str); 1], String), Error> {
    // They are of all tenants together.
    ctx.may(Action::NodeRead)?;
    // The others are worth having also when the database does not answer.
    let seen = app.service.quota_counters(&ctx).await.unwrap_or_default();
    app.metrics.quotas(&seen, &app.service.quota_refusals());
    let text = app.metrics.text().map_err(Error::internal)?;
    Ok((
        [(
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    ))
}
