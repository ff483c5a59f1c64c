//! Secrets. Values come in and are never answered.

use api::event::{EventList, EventListQuery};
use api::secret::{
    SecretCreate, SecretList, SecretListQuery, SecretRotate, SecretText, SecretView,
};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use http::header::{HeaderName, LOCATION};

use crate::App;
use crate::convert::{from_wire, secret, to_wire};
use crate::error::Error;
use crate::extract::{Json, Key, Query, SecretOf, User};

type Created = (StatusCode, [(HeaderName, String); 1], Answer<SecretView>);

/// Makes a secret. Its value is never answered.
#[utoipa::path(post, path = routes::SECRETS, tag = "secrets", operation_id = "secret_create",
    params(("Idempotency-Key" = Option<String>, Header,
         description = "Makes the create safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    request_body = SecretCreate,
    responses((status = 201, description = "The secret, or the one that the key made before",
               body = SecretView),
              (status = 400, description = "Nothing was made", body = ErrorBody),
              (status = 409, description = "There is one of this name, or the key was used for \
                                            another request", body = ErrorBody),
              (status = 413, description = "The body is too large", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody),
              (status = 502, description = "Its provider gave no value", body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    User(ctx): User,
    key: Key,
    Json(mut asked): Json<SecretCreate>,
) -> Result<Created, Error> {
    let text = std::mem::take(&mut asked.value);
    let value = secret::value_or_source(&text, asked.encoding, asked.from.clone())?;
    // Without its value: the service adds what cannot be tried out.
    let key = key.of(&asked)?;
    let new = secret::new(asked, value);
    let row = app.service.secret_create(&ctx, new, key).await?;
    let location = routes::fill(routes::SECRET, &[&row.name]);
    let view = Answer(secret::view(row));
    Ok((StatusCode::CREATED, [(LOCATION, location)], view))
}

/// Lists secrets, by name.
#[utoipa::path(get, path = routes::SECRETS, tag = "secrets", operation_id = "secret_list",
    params(SecretListQuery),
    responses((status = 200, description = "A page", body = SecretList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<SecretListQuery>,
) -> Result<Answer<SecretList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let after = secret::cursor(query.after)?;
    let page = app.service.secret_list(&ctx, after.as_deref(), limit);
    Ok(Answer(secret::list(page.await?)))
}

/// What is known of a secret, by its name or its id.
#[utoipa::path(get, path = routes::SECRET, tag = "secrets", operation_id = "secret_get",
    params(("name" = String, Path, description = "The secret")),
    responses((status = 200, description = "The secret", body = SecretView),
              (status = 404, description = "No such secret", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    SecretOf(named): SecretOf,
) -> Result<Answer<SecretView>, Error> {
    let row = app.service.secret_get(&ctx, &named).await?;
    Ok(Answer(secret::view(row)))
}

/// Deletes a secret with all versions of its value, and answers what it was.
#[utoipa::path(delete, path = routes::SECRET, tag = "secrets", operation_id = "secret_delete",
    params(("name" = String, Path, description = "The secret")),
    responses((status = 200, description = "What it was", body = SecretView),
              (status = 404, description = "No such secret", body = ErrorBody)))]
pub(crate) async fn delete(
    State(app): State<App>,
    User(ctx): User,
    SecretOf(named): SecretOf,
) -> Result<Answer<SecretView>, Error> {
    let row = app.service.secret_delete(&ctx, &named).await?;
    Ok(Answer(secret::view(row)))
}

/// Gives a secret a new value, as its next version. Jobs that were made before keep theirs.
#[utoipa::path(post, path = routes::SECRET_VERSIONS, tag = "secrets",
    operation_id = "secret_rotate",
    params(("name" = String, Path, description = "The secret"),
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes it safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    request_body = SecretRotate,
    responses((status = 201, description = "The secret", body = SecretView),
              (status = 400, description = "Nothing was changed", body = ErrorBody),
              (status = 404, description = "No such secret", body = ErrorBody),
              (status = 409, description = "The key was used for another request",
               body = ErrorBody),
              (status = 413, description = "The body is too large", body = ErrorBody),
              (status = 502, description = "Its provider gave no value", body = ErrorBody)))]
pub(crate) async fn rotate(
    State(app): State<App>,
    User(ctx): User,
    SecretOf(named): SecretOf,
    key: Key,
    Json(mut asked): Json<SecretRotate>,
) -> Result<(StatusCode, Answer<SecretView>), Error> {
    let text: SecretText = std::mem::take(&mut asked.value);
    let value = secret::value_or_source(&text, asked.encoding, asked.from.clone())?;
    let key = key.of(&asked)?;
    let what = (value, asked.metadata);
    let row = app.service.secret_rotate(&ctx, &named, what, key).await?;
    Ok((StatusCode::CREATED, Answer(secret::view(row))))
}

/// What happened to a secret, and who used it, oldest first.
#[utoipa::path(get, path = routes::SECRET_EVENTS, tag = "secrets", operation_id = "secret_events",
    params(("name" = String, Path, description = "The secret"), EventListQuery),
    responses((status = 200, description = "A page", body = EventList),
              (status = 404, description = "No such secret", body = ErrorBody)))]
pub(crate) async fn events(
    State(app): State<App>,
    User(ctx): User,
    SecretOf(named): SecretOf,
    Query(query): Query<EventListQuery>,
) -> Result<Answer<EventList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let after = query.after.unwrap_or(0);
    let events = app.service.secret_events(&ctx, &named, after, limit);
    Ok(Answer(to_wire::event_list(events.await?, limit)))
}
