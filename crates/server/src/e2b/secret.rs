//! Secrets, as E2B's clients know them.

use std::collections::BTreeMap;

use api::encoding::Encoding;
use api::secret::SecretText;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use http::{HeaderValue, StatusCode};
use model::limits;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{Ctx, NewSecret, SecretRow};

use super::control::{Lenient, NEXT_TOKEN};
use super::query::pairs;
use super::refusal::Refusal;
use super::wire::time;
use crate::App;
use crate::convert::secret::{cursor, value};

type Answered = Result<Response, Refusal>;

/// A new secret.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct New {
    name: String,
    value: SecretText,
    metadata: Option<BTreeMap<String, String>>,
}

/// A new value of one.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Update {
    value: SecretText,
    metadata: Option<BTreeMap<String, String>>,
}

fn view(row: &SecretRow) -> Value {
    json!({
        "secretID": row.id.as_str(),
        "name": row.name,
        "currentVersion": row.version,
        "metadata": row.metadata,
        "createdAt": time(row.created_at_ms),
        "updatedAt": time(row.updated_at_ms),
    })
}

/// What is not there, in the words that name it.
fn refused(named: &str, error: service::Error) -> Refusal {
    if !matches!(error, service::Error::NotFound) {
        return error.into();
    }
    let named: String = named.chars().take(limits::SECRET_NAME_BYTES_MAX).collect();
    let message = format!("secret \"{named}\" was not found");
    Refusal::new(StatusCode::NOT_FOUND, message)
}

pub(super) async fn create(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Lenient(asked): Lenient<New>,
) -> Answered {
    let new = NewSecret {
        name: asked.name,
        value: value(&asked.value, Encoding::Utf8)?.into(),
        metadata: asked.metadata.unwrap_or_default(),
    };
    let row = app.service.secret_create(&ctx, new, None).await?;
    Ok((StatusCode::CREATED, Answer(view(&row))).into_response())
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    RawQuery(query): RawQuery,
) -> Answered {
    let (mut limit, mut after) = (limits::PAGE_DEFAULT, None);
    for (name, text) in pairs(query.as_deref())? {
        match name.as_str() {
            "limit" => {
                let wrong = |_| Refusal::bad("limit: not a number");
                limit = text.parse().map_err(wrong)?;
            }
            "nextToken" => after = Some(text),
            _ => {}
        }
    }
    let after = cursor(after)?;
    let page = app
        .service
        .secret_list(&ctx, after.as_deref(), limit)
        .await?;
    let views: Vec<_> = page.secrets.iter().map(view).collect();
    let mut response = Answer(views).into_response();
    let next = page.next.and_then(|next| HeaderValue::try_from(next).ok());
    if let Some(next) = next {
        response.headers_mut().insert(NEXT_TOKEN, next);
    }
    Ok(response)
}

pub(super) async fn get(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(named): Path<String>,
) -> Answered {
    let row = app.service.secret_get(&ctx, &named).await;
    let row = row.map_err(|error| refused(&named, error))?;
    Ok(Answer(view(&row)).into_response())
}

/// The next version.
pub(super) async fn update(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(named): Path<String>,
    Lenient(asked): Lenient<Update>,
) -> Answered {
    let what = (value(&asked.value, Encoding::Utf8)?, asked.metadata);
    let row = app.service.secret_rotate(&ctx, &named, what, None).await;
    let row = row.map_err(|error| refused(&named, error))?;
    Ok(Answer(view(&row)).into_response())
}

pub(super) async fn delete(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(named): Path<String>,
) -> Answered {
    let row = app.service.secret_delete(&ctx, &named).await;
    row.map_err(|error| refused(&named, error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
