//! Templates as E2B's clients know them: what we call profiles, with builds, tags and the files for them.
//!
//! A build is asked for, gets its files, and is begun with its steps; the clients then ask again and again what
//! has become of it. Those that are there from the start are no profiles, and cannot be changed.

mod build;
mod tags;
mod wire;

use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Extension, Json as Answer, Router};
use http::{HeaderValue, StatusCode};
use model::limits;
use serde_json::json;
use service::{Ctx, ProfileRef};

use super::control::{Answered, Lenient, NEXT_TOKEN};
use super::query::pairs;
use super::refusal::Refusal;
use super::snapshots;
use super::wire::{is_built_in, no_template};
use crate::App;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/templates", get(list_all).post(build::no_images))
        .route("/v2/templates", get(list).post(build::create))
        .route("/v3/templates", post(build::create))
        .route("/templates/tags", post(tags::assign).delete(tags::remove))
        .route("/templates/aliases/{alias}", get(alias))
        .route("/templates/{id}", get(detail).delete(delete).patch(publish))
        .route("/v2/templates/{id}", axum::routing::patch(publish))
        .route("/templates/{id}/tags", get(tags::list))
        .route(
            "/templates/{id}/files/{hash}",
            get(build::files).put(build::upload),
        )
        .route("/v2/templates/{id}/builds/{build}", post(build::begin))
        .route("/templates/{id}/builds/{build}/status", get(build::status))
        .route("/templates/{id}/builds/{build}/logs", get(build::logs))
}

/// The profile that a client names, by id or name, with a tag or without.
///
/// # Errors
/// 404 where that can be none; 403 for one that is there from the start.
fn named(text: &str) -> Result<ProfileRef, Refusal> {
    if is_built_in(text) {
        let message = format!("the template '{text}' is part of Cofferdam and cannot be changed");
        return Err(Refusal::new(StatusCode::FORBIDDEN, message));
    }
    text.to_lowercase().parse().map_err(|_| no_template(text))
}

/// What is not there, in the words that name it.
fn refused(text: &str, error: service::Error) -> Refusal {
    if matches!(error, service::Error::NotFound) {
        return no_template(text);
    }
    error.into()
}

/// The profile that a template is, if it is one.
///
/// # Errors
/// 404 for a tag or a version that it does not have.
pub(super) async fn profile_of(
    app: &App,
    ctx: &Ctx,
    text: &str,
) -> Result<Option<ProfileRef>, Refusal> {
    if is_built_in(text) {
        return Ok(None);
    }
    let Ok(named) = text.to_lowercase().parse() else {
        return Ok(None);
    };
    let is_there = app.service.profile_is_there(ctx, &named).await;
    let is_there = is_there.map_err(|error| refused(text, error))?;
    Ok(is_there.then_some(named))
}

/// Whether a name is taken, and what it means.
async fn alias(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(alias): Path<String>,
) -> Answered {
    if snapshots::is_given(&app, &ctx, &alias).await? {
        return Ok(Answer(json!({"templateID": alias, "public": true})).into_response());
    }
    let named = named(&alias)?;
    let found = match app.service.profile_get(&ctx, &named).await {
        Ok(view) => json!({"templateID": view.row.id.short(), "public": view.row.is_public}),
        Err(service::Error::NotFound) => {
            let row = snapshots::find(&app, &ctx, &alias).await?;
            json!({"templateID": row.id.short(), "public": false})
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Answer(found).into_response())
}

async fn list(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    RawQuery(query): RawQuery,
) -> Answered {
    page(&app, &ctx, query.as_deref(), limits::PAGE_DEFAULT).await
}

/// Older clients know no pages, and get as many as one can have.
async fn list_all(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    RawQuery(query): RawQuery,
) -> Answered {
    page(&app, &ctx, query.as_deref(), limits::PAGE_MAX).await
}

async fn page(app: &App, ctx: &Ctx, query: Option<&str>, limit: u32) -> Answered {
    let (limit, before) = paging(query, limit)?;
    let page = app
        .service
        .profile_list(ctx, before.as_deref(), (true, limit));
    let page = page.await?;
    let views: Vec<_> = page.profiles.iter().map(wire::template).collect();
    let mut response = Answer(views).into_response();
    if let Some(next) = page.next.and_then(|next| HeaderValue::try_from(next).ok()) {
        response.headers_mut().insert(NEXT_TOKEN, next);
    }
    Ok(response)
}

fn paging(query: Option<&str>, limit: u32) -> Result<(u32, Option<String>), Refusal> {
    let (mut limit, mut before) = (limit, None);
    for (name, text) in pairs(query)? {
        match name.as_str() {
            "limit" => {
                let wrong = |_| Refusal::bad("limit: not a number");
                limit = text.parse().map_err(wrong)?;
            }
            "nextToken" => before = Some(text).filter(|text| !text.is_empty()),
            _ => {}
        }
    }
    Ok((limit, before))
}

async fn detail(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(id): Path<String>,
) -> Answered {
    let view = app.service.profile_get(&ctx, &named(&id)?).await;
    let view = view.map_err(|error| refused(&id, error))?;
    Ok(Answer(wire::with_builds(&view)).into_response())
}

/// How the clients delete templates, and snapshots. Sandboxes that began with it stay.
async fn delete(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(id): Path<String>,
) -> Answered {
    if snapshots::is_given(&app, &ctx, &id).await? {
        let message = "the template is part of Cofferdam, or given by its operator";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message));
    }
    match app.service.profile_delete(&ctx, &named(&id)?).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(service::Error::NotFound) => snapshots::delete(&app, &ctx, &id).await,
        Err(error) => Err(error.into()),
    }
}

/// What is public is only remembered: there is one owner.
async fn publish(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(id): Path<String>,
    Lenient(change): Lenient<wire::Publish>,
) -> Answered {
    let named = named(&id)?;
    let row = match change.public {
        Some(public) => app.service.profile_publish(&ctx, &named, public).await,
        None => app
            .service
            .profile_get(&ctx, &named)
            .await
            .map(|view| view.row),
    };
    let row = row.map_err(|error| refused(&id, error))?;
    let names: Vec<_> = row.name.iter().collect();
    Ok(Answer(json!({"names": names, "public": row.is_public})).into_response())
}
