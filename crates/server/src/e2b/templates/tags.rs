//! Tags of templates.

use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use service::Ctx;

use super::{named, refused};
use crate::App;
use crate::e2b::control::{Answered, Lenient};
use crate::e2b::wire::time;

/// Gives tags to the build that another tag means.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Assign {
    target: String,
    tags: Vec<String>,
}

/// Takes tags away.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Remove {
    name: String,
    tags: Vec<String>,
}

pub(super) async fn assign(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Lenient(asked): Lenient<Assign>,
) -> Answered {
    let target = named(&asked.target)?;
    let tagged = app.service.profile_tag(&ctx, &target, &asked.tags).await;
    let tagged = tagged.map_err(|error| refused(&asked.target, error))?;
    let answer = json!({"tags": tagged.tags, "buildID": tagged.build.uuid()});
    Ok((StatusCode::CREATED, Answer(answer)).into_response())
}

pub(super) async fn remove(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Lenient(asked): Lenient<Remove>,
) -> Answered {
    let target = named(&asked.name)?;
    let removed = app.service.profile_untag(&ctx, &target, &asked.tags).await;
    removed.map_err(|error| refused(&asked.name, error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(id): Path<String>,
) -> Answered {
    let view = app.service.profile_get(&ctx, &named(&id)?).await;
    let view = view.map_err(|error| refused(&id, error))?;
    let tags = view.tags.iter().map(|row| {
        let created = time(row.assigned_at_ms);
        json!({"tag": row.tag, "buildID": row.build.uuid(), "createdAt": created})
    });
    let tags: Vec<_> = tags.collect();
    Ok(Answer(tags).into_response())
}
