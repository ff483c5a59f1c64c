//! Volumes, as E2B's clients know them.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use http::StatusCode;
use model::limits;
use model::volume::VolumeState;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{Ctx, NewVolume, VolumeRow};

use super::control::{CreateKey, Domain, Lenient};
use super::refusal::Refusal;
use crate::App;

type Answered = Result<Response, Refusal>;

/// A new volume.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct New {
    name: String,
}

async fn view(
    app: &App,
    ctx: &Ctx,
    row: &VolumeRow,
    domain: Option<String>,
) -> Result<Value, Refusal> {
    let token = app.service.volume_token(ctx, row).await?;
    let mut view = json!({"volumeID": row.id.as_str(), "name": row.name});
    let more = [("token", token), ("domain", domain)];
    for (name, value) in more {
        if let (Some(value), Some(view)) = (value, view.as_object_mut()) {
            view.insert(name.to_owned(), value.into());
        }
    }
    Ok(view)
}

fn missing(named: &str) -> Refusal {
    let named: String = named.chars().take(limits::VOLUME_NAME_BYTES_MAX).collect();
    let message = format!("volume \"{named}\" was not found");
    Refusal::new(StatusCode::NOT_FOUND, message)
}

/// The volume, unless it is on its way out: at this edge there is none then.
async fn live(app: &App, ctx: &Ctx, named: &str) -> Result<VolumeRow, Refusal> {
    match app.service.volume_get(ctx, named).await {
        Ok(row) if row.state == VolumeState::Created => Ok(row),
        Ok(_) | Err(service::Error::NotFound) => Err(missing(named)),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn create(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    CreateKey(key): CreateKey,
    Extension(Domain(domain)): Extension<Domain>,
    Lenient(asked): Lenient<New>,
) -> Answered {
    let key = key.of(&asked)?;
    let new = NewVolume {
        name: asked.name,
        size_bytes: None,
        node: None,
    };
    let row = app.service.volume_create(&ctx, new, key).await?;
    let view = view(&app, &ctx, &row, domain).await?;
    Ok((StatusCode::CREATED, Answer(view)).into_response())
}

/// All of them: the clients know no pages here, and there are at most a thousand.
pub(super) async fn list(State(app): State<App>, Extension(ctx): Extension<Ctx>) -> Answered {
    let (mut views, mut after) = (Vec::new(), None::<String>);
    loop {
        let limit = limits::PAGE_MAX;
        let page = app.service.volume_list(&ctx, after.as_deref(), limit);
        let page = page.await?;
        let one = |row: &VolumeRow| json!({"volumeID": row.id.as_str(), "name": row.name});
        views.extend(page.volumes.iter().map(one));
        after = page.next;
        if after.is_none() {
            return Ok(Answer(views).into_response());
        }
    }
}

pub(super) async fn get(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Extension(Domain(domain)): Extension<Domain>,
    Path(named): Path<String>,
) -> Answered {
    let row = live(&app, &ctx, &named).await?;
    Ok(Answer(view(&app, &ctx, &row, domain).await?).into_response())
}

pub(super) async fn delete(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(named): Path<String>,
) -> Answered {
    let row = live(&app, &ctx, &named).await?;
    app.service.volume_delete(&ctx, row.id.as_str()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
